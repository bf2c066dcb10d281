//! The sections `[oidc.NAME]` as written, see [`super`].

use crate::{
    config::{
        decode::{At, Named},
        units::{Millis, Size, bytes, hours, kib, mib, millis, minutes, seconds},
        values::{
            ClaimPath, ClaimValues, ClientAuth, FieldValue, IssuerUrl, PathText, PublicOrigin,
            ReturnUrl, SecretSource,
        },
    },
    policy::jwt::Algorithm,
    section,
};

section! {
    /// A way to authenticate (`authenticate = ["NAME"]`): browsers log in at an OpenID provider,
    /// and have a session in encrypted cookies. See docs/oidc.md.
    pub struct Oidc {
        /// The provider, by its name. Its keys and the places where it is asked are found by it
        /// (OpenID Connect Discovery).
        issuer: IssuerUrl, eg "\"https://id.example.com/realms/main\"";
        /// Name of this client at the provider.
        client_id: FieldValue, eg "\"shop\"";
        /// Where the client's secret is: `"file:PATH"`, relative to this configuration, or
        /// `"env:NAME"`. Default: there is none, and the provider takes PKCE alone.
        client_secret: Option<SecretSource> = None, eg "\"file:oidc.secret\"";
        /// How the secret is shown to the provider: `"basic"` (Authorization) or `"post"` (in the
        /// body).
        client_auth: ClientAuth = ClientAuth::Basic;
        /// Where the secrets are that sessions are encrypted with: `"file:PATH"` or `"env:NAME"`;
        /// one on each line, as `openssl rand -hex 32` makes them. The first one encrypts, all
        /// of them decrypt. Every process that serves the same browsers needs the same. Default:
        /// one that is made at start, so that sessions end with the process.
        session_secrets: Option<SecretSource> = None, eg "\"file:oidc.sessions\"";
        /// What is asked for, beside `openid`. `"offline_access"` may be what makes a provider give
        /// a refresh token.
        scopes: Vec<At<FieldValue>> = Vec::new(), eg "[\"profile\", \"email\"]";
        /// Further parameters of the request to log in.
        parameters: Named<FieldValue> = Named::default();
        /// Algorithms of ID tokens that are accepted.
        algorithms: Vec<At<Algorithm>> = vec![At::default_of(Algorithm::Rs256)];
        /// Claims that the ID token must have, by path, with their values: one, an array of those
        /// that will do, or `"*"` for any. Else the login is refused.
        claims: Named<ClaimValues> = Named::default();
        /// How far clocks may differ when times of an ID token are looked at.
        skew: Millis = seconds(30) => millis(0)..=minutes(10);

        /// Scheme and host that browsers use, where requests do not say it, as behind a proxy that
        /// ends TLS. Default: those of the request.
        origin: Option<PublicOrigin> = None, eg "\"https://shop.example.com\"";
        /// Path that the provider sends browsers back to. With the scheme and host it is the
        /// redirect URI, which the provider has to know. One of the routes that ask for this way
        /// must have it, as the next two.
        callback: PathText = PathText("/oidc/callback".to_owned());
        /// Path that begins a login, for links; `?to=/path` says where to go afterwards.
        login: PathText = PathText("/oidc/login".to_owned());
        /// Path that ends the session.
        logout: PathText = PathText("/oidc/logout".to_owned());
        /// Where to go after a logout: a path, or a URL.
        after_logout: ReturnUrl = ReturnUrl("/".to_owned());
        /// Log out at the provider too, where it offers that (`end_session_endpoint`).
        logout_at_provider: bool = true;

        /// A session ends when it was not used for this long, to within a tenth.
        idle: Millis = hours(1) => seconds(1)..=hours(24 * 30);
        /// A session ends this long after the login, whatever happens.
        lifetime: Millis = hours(12) => seconds(1)..=hours(24 * 90);
        /// How long a login may take.
        login_timeout: Millis = minutes(10) => seconds(1)..=hours(1);
        /// Get another access token this long before one ends, where the provider gave a refresh
        /// token.
        refresh_before: Millis = seconds(30) => seconds(0)..=hours(1);
        /// Largest session, as it is in cookies. `limits.head` must have room for it.
        max_session: Size = kib(8) => kib(1)..=kib(32);
        /// Upstreams get the access token (`Authorization: Bearer`). A session without refresh
        /// token ends with it then.
        forward_access_token: bool = false;

        /// How long one request to the provider may take.
        timeout: Millis = seconds(5) => millis(100)..=minutes(1);
        /// PEM file with the authorities to trust for the provider, relative to this configuration.
        /// Default: those of the system.
        ca: Option<String> = None, eg "\"tls/localhost.pem\"";
        /// Longest time between two fetches of the provider's configuration and keys.
        refresh: Millis = minutes(10) => seconds(1)..=hours(24);
        /// However many logins need keys that are not there, they are fetched once in this time.
        refetch_after: Millis = seconds(5) => millis(100)..=hours(1);

        /// Fields that tell upstreams of claims: the name of a field, and the path of a claim. What
        /// clients write into such a field is removed in any case.
        forward: Named<ClaimPath> = Named::default();
        /// Claim that says who a session is of.
        subject: ClaimPath = ClaimPath("sub".to_owned());
        /// Claim with the groups it belongs to.
        groups: ClaimPath = ClaimPath("groups".to_owned());
        /// Memory, for each worker, for sessions that were decrypted. `"0B"`: none.
        cache: Size = mib(8) => bytes(0)..=mib(1024);
    }
}
