//! One fetch from a provider: bounded in time and size, from nowhere but the URLs that may be
//! believed, without following redirects.

use std::time::Duration;

use http::response::Parts;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request, Uri,
    body::Bytes,
    header::{ACCEPT, CACHE_CONTROL, HeaderMap, USER_AGENT},
};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};

use crate::{
    config::{
        snapshot::{Endpoints, Origin, Provider},
        values::trusted_url,
    },
    policy::jwt::KeySet,
};

/// Of a response's body.
const BODY_BYTES_MAX: usize = 1 << 20;

/// What was fetched.
pub struct Fetched {
    pub keys: KeySet,
    /// Where the issuer is asked, if its configuration names that.
    pub endpoints: Option<Endpoints>,
    pub text: Vec<u8>,
    /// Keys that cannot be used, each with why.
    pub left_out: Vec<String>,
    /// How long it may be used, if the provider says so.
    pub max_age: Option<Duration>,
}

/// Fetches the keys of a provider.
pub async fn fetch(provider: &Provider) -> Result<Fetched, String> {
    let timeout = Duration::from_millis(provider.timeout_ms);
    let fetched = tokio::time::timeout(timeout, exchange(provider)).await;
    fetched.unwrap_or_else(|_| Err(format!("no answer within {timeout:?}")))
}

async fn exchange(provider: &Provider) -> Result<Fetched, String> {
    let (url, endpoints) = match &provider.from {
        Origin::Keys(url) => (url.clone(), None),
        Origin::Issuer(issuer) => keys_of(provider, issuer).await?,
    };
    let (text, fields) = get(provider, &url).await?;
    let (keys, left_out) = KeySet::remote(&text).map_err(|why| format!("{url}: {why}"))?;
    Ok(Fetched { keys, endpoints, left_out, max_age: max_age(&fields), text })
}

/// Where an issuer says that its keys are (OpenID Connect Discovery 1.0 §4).
async fn keys_of(provider: &Provider, issuer: &str) -> Result<(String, Option<Endpoints>), String> {
    let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let (text, _) = get(provider, &url).await?;
    let json: serde_json::Value =
        serde_json::from_slice(&text).map_err(|e| format!("{url}: not JSON: {e}"))?;
    // §4.3: else one issuer could give keys for another.
    let named = json["issuer"].as_str().unwrap_or_default();
    if named != issuer {
        return Err(format!("{url} is of the issuer `{}`", named.escape_debug()));
    }
    let endpoint = |name: &str| {
        let to = json[name].as_str().ok_or_else(|| format!("{url} has no `{name}`"))?;
        match trusted_url(to) {
            Ok(()) if is_as_safe(issuer, to) => Ok(to.to_owned()),
            Ok(()) => Err(format!("{url}: its `{name}` is without TLS")),
            Err(why) => Err(format!("{url}: its `{name}`: {why}")),
        }
    };
    let keys = endpoint("jwks_uri")?;
    if !provider.for_logins {
        return Ok((keys, None));
    }
    let end_session = json.get("end_session_endpoint").is_some_and(|there| !there.is_null());
    let endpoints = Endpoints {
        authorization: endpoint("authorization_endpoint")?,
        token: endpoint("token_endpoint")?,
        end_session: end_session.then(|| endpoint("end_session_endpoint")).transpose()?,
        names_issuer: json["authorization_response_iss_parameter_supported"] == true,
    };
    Ok((keys, Some(endpoints)))
}

/// Whoever is asked over TLS may not send us elsewhere without it.
fn is_as_safe(from: &str, to: &str) -> bool {
    to.starts_with("https://") || from.starts_with("http://")
}

async fn get(provider: &Provider, url: &str) -> Result<(Vec<u8>, HeaderMap), String> {
    let uri: Uri = url.parse().map_err(|e| format!("{url}: {e}"))?;
    let request = Request::get(uri)
        .header(ACCEPT, "application/jwk-set+json, application/json")
        .header(USER_AGENT, concat!("ringway/", env!("CARGO_PKG_VERSION")))
        .body(Full::default())
        .map_err(|e| format!("{url}: {e}"))?;
    let (parts, body) = ask(provider, request).await.map_err(|why| format!("{url}: {why}"))?;
    if parts.status.as_u16() != 200 {
        return Err(format!("{url}: answered with {}", parts.status));
    }
    Ok((body, parts.headers))
}

/// Asks a provider, and reads its answer as far as it may be long. Neither bounds the time nor
/// follows redirects.
pub async fn ask(
    provider: &Provider,
    request: Request<Full<Bytes>>,
) -> Result<(Parts, Vec<u8>), String> {
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config((*provider.client).clone())
        .https_or_http()
        .enable_http1()
        .build();
    // A connection for each request: those for keys are rare, and those for tokens are not worth
    // what one that the other end has closed meanwhile may cost.
    let client = Client::builder(TokioExecutor::new()).build::<_, Full<Bytes>>(connector);
    let response = client.request(request).await.map_err(|e| chain(&e))?;
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, BODY_BYTES_MAX).collect().await;
    let body = body.map_err(|e| chain(&*e))?;
    Ok((parts, body.to_bytes().to_vec()))
}

/// An error with everything that it came from.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(&format!(": {next}"));
        cause = next.source();
    }
    text
}

/// RFC 9111 §5.2.2.1; `no-store` and `no-cache` are an age of 0.
fn max_age(fields: &HeaderMap) -> Option<Duration> {
    let all = fields.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let said = all.flat_map(|value| value.split(',')).map(str::trim);
    let ages = said.filter_map(|said| match said.split_once('=') {
        Some((name, age)) if name.eq_ignore_ascii_case("max-age") => {
            age.trim_matches('"').parse().ok().map(Duration::from_secs)
        }
        None if said.eq_ignore_ascii_case("no-store") => Some(Duration::ZERO),
        None if said.eq_ignore_ascii_case("no-cache") => Some(Duration::ZERO),
        _ => None,
    });
    ages.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_an_answer_may_be_used() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (values, wanted) in [
            (&[][..], None),
            (&["public, max-age=300"], seconds(300)),
            (&["Max-Age=\"60\"", "max-age=30"], seconds(30)),
            (&["no-store, max-age=60"], seconds(0)),
            (&["s-maxage=5, must-revalidate"], None),
            (&["max-age=x"], None),
        ] {
            let mut fields = HeaderMap::new();
            for value in values {
                fields.append(CACHE_CONTROL, value.parse().expect("a value"));
            }
            assert_eq!(max_age(&fields), wanted, "{values:?}");
        }
    }

    #[test]
    fn nobody_is_sent_from_tls_to_no_tls() {
        assert!(is_as_safe("https://a", "https://b/keys"));
        assert!(is_as_safe("http://localhost", "http://localhost/keys"));
        assert!(!is_as_safe("https://a", "http://localhost/keys"));
    }
}
