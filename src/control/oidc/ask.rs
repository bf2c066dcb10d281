//! One request to a provider's token endpoint.

use hyper::{
    Request,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT},
};

use crate::{
    config::snapshot::{ClientAuth, LoginWay, basic_credential, oidc::Told},
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
            request = request.header(AUTHORIZATION, basic_credential(client_id, secret).0);
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
