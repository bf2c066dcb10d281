//! The sections `[introspection.NAME]` as written, see [`super`].

use crate::{
    config::{
        decode::{At, Named},
        snapshot::ClientAuth,
        units::{Millis, Size, bytes, hours, kib, mib, millis, minutes, seconds},
        values::{
            ClaimPath, ClaimValues, CredentialSource, HostName, Name, PathText, SecretSource,
        },
    },
    section,
};

section! {
    /// A way to authenticate (`authenticate = ["NAME"]`): tokens that only their provider can
    /// read, who is asked about them (OAuth 2.0 Token Introspection, RFC 7662). The provider is one
    /// of the upstreams. See docs/introspection.md.
    pub struct Introspection {
        /// The upstream that is asked.
        upstream: Name, eg "\"orders\"";
        /// The path of the provider's introspection endpoint.
        path: PathText = PathText("/introspect".to_owned());
        /// The Host that the provider is asked with. Default: the name of the upstream.
        host: Option<HostName> = None, eg "\"id.example.com\"";
        /// Who the gateway is to the provider.
        client_id: String, eg "\"gateway\"";
        /// Where its secret is: `"file:PATH"`, relative to this configuration, or `"env:NAME"`.
        /// Default: none, where the provider knows the gateway by its certificate
        /// (`upstreams.tls`); then `client_id` alone is in the body.
        client_secret: Option<SecretSource> = None, eg "\"env:CLIENT_SECRET\"";
        /// How they are shown to the provider: `"basic"` (Authorization) or `"post"` (in the body).
        client_auth: ClientAuth = ClientAuth::Basic;

        /// Who must have issued a token (`iss`), exactly. Default: whoever the provider vouches
        /// for.
        issuer: Option<String> = None, eg "\"https://id.example.com/realms/main\"";
        /// Whom a token must be for (`aud`): any one of these. `["*"]`: anybody.
        audience: Vec<At<String>>, eg "[\"api\"]";
        /// Members that the answer must have, by path, with their values: one, an array of those
        /// that will do, or `"*"` for any.
        claims: Named<ClaimValues> = Named::default();
        /// How far clocks may differ when times of a token are looked at.
        skew: Millis = seconds(30) => millis(0)..=minutes(10);
        /// Largest token; nobody is asked about a larger one.
        max_size: Size = kib(8) => bytes(128)..=kib(64);

        /// For one answer, connecting included. Then the request is refused with 503.
        timeout: Millis = seconds(5) => millis(10)..=minutes(1);
        /// For so long a worker goes by the answer that a token is active, at most until the token
        /// expires. `"0s"`: the provider is asked about each request.
        remember: Millis = minutes(1) => seconds(0)..=hours(1);
        /// The same for a token that is not active, or not accepted.
        remember_refused: Millis = seconds(10) => seconds(0)..=minutes(10);
        /// For so much longer an active token is accepted while the provider does not answer, at
        /// most until it expires.
        stale_if_error: Millis = seconds(0) => seconds(0)..=hours(24);
        /// Questions that each worker has under way at a time; requests with the same token share
        /// one. Further requests that need one get 503.
        questions_at_once: u32 = 64 => 1..=1024;
        /// Memory, for each worker, for answers about active tokens. `"0B"`: none.
        cache: Size = mib(16) => bytes(0)..=mib(1024);

        /// Where tokens are looked for: `"bearer"` (Authorization), `"header:NAME"`,
        /// `"cookie:NAME"`, `"query:NAME"`; the first that is there counts.
        from: Vec<At<CredentialSource>> = vec![At::default_of(CredentialSource::BEARER)];
        /// Upstreams get the token as it came.
        forward_credential: bool = true;
        /// Fields that tell upstreams of the answer: the name of a field, and the path of a member.
        /// What clients write into such a field is removed in any case.
        forward: Named<ClaimPath> = Named::default();
        /// Member that says who a request is from: `"sub"`, `"username"`, `"client_id"`.
        subject: ClaimPath = ClaimPath("sub".to_owned());
        /// Member with the groups it belongs to.
        groups: ClaimPath = ClaimPath("groups".to_owned());
        /// Member with what the token is good for: a text with blanks, or an array.
        scopes: ClaimPath = ClaimPath("scope".to_owned());
    }
}
