//! One request to a provider's token endpoint.

use base64::{Engine, engine::general_purpose::STANDARD};
use hyper::{
    Request,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT},
};

use crate::{
    config::snapshot::{ClientAuth, Hidden, LoginWay, oidc::Told},
    control::jwks::fetch,
    policy::oidc::tokens::{self, Grant, NoTokens},
};

/// Asks for tokens; whoever calls bounds the time.
pub async fn tokens(way: &LoginWay, grant: &Grant) -> Told {
    let unavailable = |why: String| NoTokens::Unavailable(why);
    let endpoints = way.provider.cell.endpoints();
    let endpoints =
        endpoints.ok_or_else(|| unavailable("its configuration is not known yet".to_owned()))?;
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(grant.parameters());
    let mut request = Request::post(&*endpoints.token)
        .header(ACCEPT, "application/json")
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(USER_AGENT, concat!("ringway/", env!("CARGO_PKG_VERSION")));
    let client_id = &way.rule.client_id;
    match (&way.client_secret, way.client_auth) {
        (Some(secret), ClientAuth::Basic) => {
            request = request.header(AUTHORIZATION, basic(client_id, secret));
        }
        (Some(secret), ClientAuth::Post) => {
            form.append_pair("client_id", client_id).append_pair("client_secret", &secret.0);
        }
        (None, _) => drop(form.append_pair("client_id", client_id)),
    }
    let body = form.finish().into();
    let request = request.body(body).map_err(|e| unavailable(e.to_string()))?;
    let (parts, body) = fetch::ask(&way.provider, request).await.map_err(unavailable)?;
    tokens::read(parts.status.as_u16(), &body)
}

/// RFC 6749 §2.3.1: both are coded as in forms.
fn basic(client_id: &str, secret: &Hidden) -> String {
    let coded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = format!("{}:{}", coded(client_id), coded(&secret.0));
    format!("Basic {}", STANDARD.encode(pair))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_coded_before_it_is_shown() {
        let shown = basic("a:b", &Hidden("s+c r%t".to_owned()));
        let pair = STANDARD.decode(shown.strip_prefix("Basic ").expect("Basic")).expect("base64");
        assert_eq!(String::from_utf8(pair).expect("text"), "a%3Ab:s%2Bc+r%25t");
    }
}
