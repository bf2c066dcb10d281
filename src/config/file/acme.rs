//! The sections of ACME as written, see [`super`].

use crate::{
    config::{
        decode::At,
        values::{AcmeChallenge, DirectoryUrl, DomainName, Email, SecretSource},
    },
    section,
};

section! {
    /// Certificates that the gateway gets and renews by itself (ACME, RFC 8555): one for each name.
    /// Until a name has its first one, handshakes for it fail; everything else is served.
    pub struct Acme {
        /// DNS names that lead here, without wildcards. At most 100.
        domains: Vec<At<DomainName>>, eg "[\"example.com\", \"www.example.com\"]";
        /// You agree to the authority's terms of service. Must be `true`.
        agree_tos: bool, eg "true";
        /// Where the authority may write to about your certificates.
        email: Option<Email> = None, eg "\"you@example.com\"";
        /// How it is proved that a name is yours. `"tls-alpn-01"`: by a handshake with this
        /// listener, which the authority must reach at port 443 of the name. `"http-01"`: by a
        /// request to any listener without TLS, which it must reach at port 80.
        challenge: AcmeChallenge = AcmeChallenge::TlsAlpn01;
        /// Folder for the account and the certificates, which only this process may read; relative
        /// to this configuration. Gateways that share it take turns: one of them renews.
        storage: String = "/var/lib/ringway/acme".to_owned();
        /// The authority's directory.
        directory: DirectoryUrl =
            DirectoryUrl("https://acme-v02.api.letsencrypt.org/directory".to_owned());
        /// PEM file with the authorities to trust for that URL, relative to this configuration.
        /// Default: those of the system.
        ca: Option<String> = None, eg "\"tls/localhost.pem\"";
        /// An account of yours at the authority that the new one is bound to, where it asks for
        /// that (RFC 8555, section 7.3.4).
        external_account: Option<ExternalAccount> = None,
            eg "{ key_id = \"kid-1\", key = \"env:ACME_HMAC_KEY\" }";
    }

    /// What the authority has given out for its accounts (EAB). Used once, when the gateway makes
    /// its own account there.
    pub struct ExternalAccount {
        /// The key's name.
        key_id: String, eg "\"kid-1\"";
        /// Where the key is read from, in base64 as the authority shows it: `"file:..."`, relative
        /// to this configuration, or `"env:NAME"`, a variable of the environment.
        key: SecretSource, eg "\"file:acme.hmac\"";
    }
}
