//! The sections `[jwt.NAME]` as written, see [`super`].

use crate::{
    config::{
        decode::{At, Named},
        units::{Millis, Size, bytes, hours, kib, mib, millis, minutes, seconds},
        values::{ClaimPath, ClaimValues, CredentialSource, KeysUrl, Secret, SecretSource},
    },
    policy::jwt::Algorithm,
    section,
};

section! {
    /// A way to authenticate (`authenticate = ["NAME"]`): JSON Web Tokens of one issuer. Its keys
    /// are given by `secret`, `keys`, `keys_file` or `jwks`, or found by `issuer` (OpenID Connect
    /// Discovery) when none of these is there. See docs/jwt.md.
    pub struct Jwt {
        /// Algorithms that are accepted, whatever a token says: those of secrets (HS) or those of
        /// public keys (RS, PS, ES, EdDSA), not both.
        algorithms: Vec<At<Algorithm>>, eg "[\"RS256\"]";
        /// Who must have issued a token (`iss`), exactly. Default: whoever has the keys.
        issuer: Option<String> = None, eg "\"https://id.example.com/realms/main\"";
        /// Whom a token must be for (`aud`): any one of these. `["*"]`: anybody.
        audience: Vec<At<String>>, eg "[\"api\"]";
        /// Claims that must be there, by path, with their values: one, an array of those that will
        /// do, or `"*"` for any.
        claims: Named<ClaimValues> = Named::default();
        /// Types that are accepted (`typ` in the header), such as `"at+jwt"`. Default: any.
        typ: Vec<At<String>> = Vec::new();
        /// A token without end (`exp`) is refused.
        require_exp: bool = true;
        /// How far clocks may differ when times of a token are looked at.
        skew: Millis = seconds(30) => millis(0)..=minutes(10);
        /// Largest token; a larger one is refused before it is read.
        max_size: Size = kib(8) => bytes(128)..=kib(64);

        /// Where the secret is that tokens are signed with (HS): `"file:PATH"`, relative to this
        /// configuration, or `"env:NAME"`. It has as many bytes as the hash, or more; white space
        /// around it is no part of it.
        secret: Option<SecretSource> = None, eg "\"file:jwt.secret\"";
        /// Keys, each in PEM (`PUBLIC KEY` or `CERTIFICATE`) or as a JWK.
        keys: Vec<At<Secret<String>>> = Vec::new();
        /// File with keys: PEM, a JWK or a JWK Set; relative to this configuration. Read again as
        /// certificates are.
        keys_file: Option<String> = None, eg "\"keys.json\"";
        /// URL of a JWK Set, which is fetched at start and kept up to date.
        jwks: Option<KeysUrl> = None, eg "\"https://id.example.com/keys\"";
        /// With keys that are fetched: PEM file with the authorities to trust for that URL,
        /// relative to this configuration. Default: those of the system.
        ca: Option<String> = None, eg "\"tls/localhost.pem\"";
        /// With keys that are fetched: longest time between two fetches. A provider that says
        /// less (Cache-Control) is asked earlier, though not within `refetch_after`.
        refresh: Millis = minutes(10) => seconds(1)..=hours(24);
        /// With keys that are fetched: tokens that name a key which is not there cause one fetch in
        /// this time, however many they are.
        refetch_after: Millis = seconds(5) => millis(100)..=hours(1);
        /// With keys that are fetched: how long a request waits for that fetch.
        wait: Millis = seconds(2) => millis(0)..=seconds(30);
        /// With keys that are fetched: how long one fetch may take.
        fetch_timeout: Millis = seconds(10) => millis(100)..=minutes(1);
        /// With keys that are fetched: file to keep them in, so that a start needs no provider;
        /// relative to this configuration.
        jwks_cache: Option<String> = None, eg "\"/var/lib/ringway/main.jwks\"";

        /// Where tokens are looked for: `"bearer"` (Authorization), `"header:NAME"`,
        /// `"cookie:NAME"`, `"query:NAME"`; the first that is there counts.
        from: Vec<At<CredentialSource>> = vec![At::default_of(CredentialSource::BEARER)];
        /// Upstreams get the token as it came.
        forward_credential: bool = true;
        /// Fields that tell upstreams of claims: the name of a field, and the path of a claim. What
        /// clients write into such a field is removed in any case.
        forward: Named<ClaimPath> = Named::default();
        /// Claim that says who a request is from.
        subject: ClaimPath = ClaimPath("sub".to_owned());
        /// Claim with the groups it belongs to.
        groups: ClaimPath = ClaimPath("groups".to_owned());
        /// Claim with what the token is good for: a text with blanks, or an array.
        scopes: ClaimPath = ClaimPath("scope".to_owned());
        /// Memory, for each worker, for tokens that were verified, so that they need not be
        /// verified again. `"0B"`: none.
        cache: Size = mib(16) => bytes(0)..=mib(1024);
    }
}
