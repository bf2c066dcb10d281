//! The sections `[signatures.NAME]` and the keys of consumers as written, see [`super`].

use crate::{
    config::{
        decode::At,
        snapshot::SecretEncoding,
        units::{Millis, Size, bytes, hours, mib, minutes, seconds},
        values::{
            ComponentName, Group, Label, Name, SecretSource, SignatureParameter, SignatureText,
        },
    },
    policy::signature::{Algorithm, Component},
    section,
};

/// Nonces that are remembered of a key, unless it is said otherwise.
pub const NONCES: u32 = 100_000;

section! {
    /// Signatures over requests (RFC 9421, HTTP Message Signatures): a way to authenticate, by keys
    /// of consumers (`consumers.signature_keys`). See docs/signatures.md.
    pub struct Signatures {
        /// What a signature has to cover: `"@method"`, `"@authority"`, `"@path"`, `"@query"`,
        /// `"@target-uri"`, `"@request-target"`, `"@scheme"`, and names of fields, which have to be
        /// covered where a request has them.
        components: Vec<At<ComponentName>> = Signatures::usual_components(),
            eg "[\"@method\", \"@target-uri\", \"content-type\"]";
        /// Parameters that a signature must have beside `created` and `keyid`: `"expires"`,
        /// `"alg"`, `"nonce"`. With `"nonce"` each nonce of a key counts once.
        parameters: Vec<At<SignatureParameter>> = Vec::new(), eg "[\"nonce\"]";
        /// Only the signature of this label counts. Default: of any.
        label: Option<Label> = None, eg "\"sig1\"";
        /// Only signatures for this application (`tag`) count. Default: for any.
        tag: Option<SignatureText> = None, eg "\"orders\"";
        /// How old a signature may be, by its `created`.
        max_age: Millis = minutes(5) => seconds(1)..=hours(24);
        /// How far clocks may differ.
        skew: Millis = seconds(30) => seconds(0)..=minutes(10);
        /// A request with a body has to cover its Content-Digest (RFC 9530, sha-256 or sha-512),
        /// and the body is compared with it before it is forwarded: it is held as a whole.
        content_digest: bool = true;
        /// Largest body that is held for that; a larger one is refused with 413.
        max_digested_body: Size = mib(1) => bytes(0)..=mib(64);
        /// With `"nonce"` in `parameters`: nonces that are remembered of each key, for as long as
        /// their signatures could be used again. Further ones are refused with 503.
        nonces: u32 = NONCES => 100..=10_000_000;
        /// Take keys of these consumers only, and of `groups`. Default: of any.
        consumers: Vec<At<Name>> = Vec::new(), eg "[\"alice\"]";
        /// Take keys of consumers in one of these groups, and of `consumers`. Default: of any.
        groups: Vec<At<Group>> = Vec::new(), eg "[\"partners\"]";
        /// Let upstreams have the fields Signature and Signature-Input.
        forward_signature: bool = true;
    }

    /// A key that a consumer signs requests with.
    pub struct SignatureKey {
        /// Its name, as signatures have it (`keyid`).
        id: SignatureText, eg "\"alice-1\"";
        /// What it signs with; nothing else is accepted with it.
        algorithm: Algorithm, eg "\"hmac-sha256\"";
        /// With `"hmac-sha256"`: where the secret is, `"file:PATH"`, relative to this file,
        /// or `"env:NAME"`; 32 bytes or more, without blanks around them.
        secret: Option<SecretSource> = None, eg "\"env:ALICE_SECRET\"";
        /// How the secret is written: `"text"`, as it is used, or in `"base64"`.
        encoding: SecretEncoding = SecretEncoding::Text;
        /// With every other algorithm: file with the public key or certificate in PEM, relative to
        /// this configuration.
        public_key_file: Option<String> = None, eg "\"alice.pem\"";
    }
}

impl Signatures {
    fn usual_components() -> Vec<At<ComponentName>> {
        [Component::Method, Component::Authority, Component::Path, Component::Query]
            .map(|component| At::default_of(ComponentName(component)))
            .into()
    }
}
