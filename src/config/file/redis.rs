//! `[redis.NAME]` as written, see [`super`].

use crate::{
    config::{
        units::{Millis, millis, minutes, seconds},
        values::{BareHost, KeyPrefix, RedisAddress, SecretSource},
    },
    section,
};

section! {
    /// A Redis or Valkey server (one, not a cluster) in which gateways share limits
    /// (`rate_limits.shared`). See docs/fleet-limits.md.
    pub struct Redis {
        /// Where it is: `"redis.internal:6379"`, or `"unix:/run/redis/redis.sock"`.
        address: RedisAddress, eg "\"127.0.0.1:6379\"";
        /// Speak TLS with it. Default: plain TCP.
        tls: Option<RedisTls> = None, eg "{ ca = \"tls/localhost.pem\" }";
        /// The user (ACL). Default: the one that needs no name.
        user: Option<String> = None, eg "\"ringway\"";
        /// Where the password is read from: `"file:..."`, relative to this configuration, or
        /// `"env:NAME"`, a variable of the environment. Default: no password.
        password: Option<SecretSource> = None, eg "\"env:REDIS_PASSWORD\"";
        /// The number of the database.
        database: u32 = 0 => 0..=65535;
        /// What the names of all keys begin with there. Gateways share limits when it is the same,
        /// and the names of the limits are.
        prefix: KeyPrefix = KeyPrefix("ringway:".to_owned());
        /// For a request: it waits no longer than this for tokens, and is then decided by the
        /// `fallback` of its limit.
        wait: Millis = millis(10) => millis(1)..=seconds(1);
        /// For an answer. Then the server counts as unreachable, until it answers again.
        timeout: Millis = millis(250) => millis(10)..=minutes(1);
        /// For a connection, with TLS and password.
        connect_timeout: Millis = seconds(2) => millis(10)..=minutes(1);
        /// Between two attempts to connect, at most; the first is made after a twentieth of it, and
        /// each wait is up to twice the one before.
        retry: Millis = seconds(2) => millis(20)..=minutes(10);
    }

    /// How to speak TLS with a server.
    pub struct RedisTls {
        /// PEM file with the certificates of the authorities to trust, relative to this
        /// configuration. Default: those of the system.
        ca: Option<String> = None, eg "\"tls/localhost.pem\"";
        /// Name that is asked for (SNI) and must be in the certificate. Default: the host of the
        /// address. A Unix socket needs it.
        name: Option<BareHost> = None, eg "\"redis.internal\"";
    }
}
