//! The sections of consumers as written, see [`super`]: whose credentials they are, and the ways
//! that take them.

use super::SignatureKey;
use crate::{
    config::{
        decode::At,
        units::{Millis, hours, minutes, seconds},
        values::{
            CredentialSource, FieldValue, Fingerprint, Group, Name, PasswordHash, Secret,
            StoredKey, UserName,
        },
    },
    section,
};

section! {
    /// Somebody who uses what is served here: a person, an application, a customer. Its name,
    /// groups and plan are what keys, passwords and certificates of it stand for. See
    /// docs/consumers.md.
    pub struct Consumer {
        /// Digests of its API keys, as `ringway key create` prints them; every `[api_keys.NAME]`
        /// takes them. Behind a digest may be `expires=2027-01-31` and `scopes=read,write`.
        keys: Vec<At<StoredKey>> = Vec::new(),
            eg "[\"sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\"]";
        /// Its name in HTTP Basic. Default: its name here.
        username: Option<UserName> = None, eg "\"alice\"";
        /// Hash of its password in HTTP Basic, of bcrypt (`htpasswd -nBC 10 alice`) or Argon2;
        /// every `[basic.NAME]` takes it.
        password: Option<Secret<PasswordHash>> = None,
            eg "\"$2y$10$abcdefghijklmnopqrstuuzc8fWM0hJhG9fYlH7EuNLvJd5PrL3Zq\"";
        /// Subjects of its certificates, written as access logs write them (RFC 4514), the last
        /// part first.
        certificate_subjects: Vec<At<String>> = Vec::new(), eg "[\"CN=alice,O=Example\"]";
        /// Other names in its certificates (subjectAltName): DNS names, URIs (`spiffe://...`),
        /// email or IP addresses.
        certificate_names: Vec<At<String>> = Vec::new(), eg "[\"alice.example.com\"]";
        /// SHA-256 fingerprints of its certificates.
        certificate_fingerprints: Vec<At<Fingerprint>> = Vec::new(),
            eg "[\"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\"]";
        /// Keys that it signs requests with (RFC 9421); every `[signatures.NAME]` takes them.
        signature_keys: Vec<At<SignatureKey>> = Vec::new(),
            eg "[{ id = \"alice-1\", algorithm = \"hmac-sha256\", secret = \"env:ALICE_SECRET\" }]";
        /// Groups that it belongs to.
        groups: Vec<At<Group>> = Vec::new(), eg "[\"partners\"]";
        /// What it may use, as named in `[plans]`. Default: nothing is counted for it.
        plan: Option<Name> = None, eg "\"gold\"";
    }

    /// What consumers may use. A consumer names its plan (`plan`), or a line of a file of keys
    /// does. See docs/consumers.md.
    pub struct Plan {
        /// Rate limits, as named in `[rate_limits]`, for requests of its consumers on every route
        /// that asks who they are from (`authenticate`). One with `key = "consumer"` counts each
        /// consumer for itself.
        rate_limits: Vec<At<Name>> = Vec::new(), eg "[\"gold\"]";
        /// Quotas, as named in `[quotas]`, likewise.
        quotas: Vec<At<Name>> = Vec::new(), eg "[\"monthly\"]";
    }

    /// API keys: a way to authenticate. See docs/api-keys.md.
    pub struct ApiKeys {
        /// Where requests have their key: `"header:NAME"`, `"query:NAME"`, `"cookie:NAME"`,
        /// `"bearer"` or `"scheme:NAME"` (behind that word in the field Authorization). Each place
        /// is looked at; a request with keys in two of them is refused.
        from: Vec<At<CredentialSource>> = CredentialSource::api_key(),
            eg "[\"header:X-API-Key\", \"query:api_key\"]";
        /// File with digests of keys, one on each line, of up to 20,000,000: DIGEST CONSUMER, then
        /// `expires=`, `scopes=`, `groups=`, `plan=` if need be. Relative to this configuration;
        /// read when it is loaded, by every reload, and with `reload.watch` when it changes.
        file: Option<String> = None, eg "\"api-keys.txt\"";
        /// Take keys of these consumers only, and of `groups`. Default: of any.
        consumers: Vec<At<Name>> = Vec::new(), eg "[\"alice\"]";
        /// Take keys of consumers in one of these groups, and of `consumers`. Default: of any.
        groups: Vec<At<Group>> = Vec::new(), eg "[\"partners\"]";
        /// Let upstreams have the key. Otherwise it is taken out of what they get.
        forward_key: bool = false;
    }

    /// HTTP Basic: a way to authenticate, by a name and a password. See docs/basic-auth.md.
    pub struct Basic {
        /// What browsers show when they ask. Default: the section's name.
        realm: Option<FieldValue> = None, eg "\"Orders\"";
        /// File with a user on each line, `NAME:HASH`, as `htpasswd -B` writes it; at most 100,000.
        /// Relative to this configuration; read when it is loaded, by every reload, and with
        /// `reload.watch` when it changes.
        file: Option<String> = None, eg "\"users.htpasswd\"";
        /// Take passwords of these consumers only, and of `groups`. Default: of any, and of users
        /// that are no consumers.
        consumers: Vec<At<Name>> = Vec::new(), eg "[\"alice\"]";
        /// Take passwords of consumers in one of these groups, and of `consumers`.
        groups: Vec<At<Group>> = Vec::new(), eg "[\"partners\"]";
        /// For so long a worker remembers that a password was right, or wrong: verifying one takes
        /// milliseconds of a core. What the file says counts at once all the same.
        remember: Millis = minutes(5) => seconds(0)..=hours(24);
        /// Passwords that each worker has verified at a time. Further requests that need it get
        /// 503.
        verify_at_once: u32 = 16 => 1..=256;
        /// Let upstreams have the name and password. Otherwise they are taken out of what they get.
        forward_password: bool = false;
    }
}
