//! What the gateway answers itself: the way to the provider, the way back, and the logout.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{
    WAITING_MAX, begun, names, opened, origin, random,
    tokens::{self, Denied},
    way,
};
use crate::{
    config::snapshot::{Authenticate, Endpoints, LoginWay},
    policy::{
        Refusal,
        auth::WayId,
        csrf,
        oidc::{
            Place, Purpose,
            cookies::{self, Cookie, LOGINS_MAX, Shown},
            flow::{self, Callback},
            session::{Login, Session},
            tokens::{self as token_rules, Grant},
        },
        pairs, refusal,
        seal::RANDOM_BYTES,
    },
    wire::Method,
    worker::{
        Worker,
        auth::{Asking, Entered, Outcome, jwt, state::State, told},
        clock::unix_s,
        exchange::{Exchange, OwnResponse, ResponseSink},
        generation::Generation,
    },
};

/// Of `state`, the nonce and the verifier of PKCE, each.
const SECRET_BYTES: usize = 32;
/// See Other: whatever the method was, the next request is a GET (RFC 9110 §15.4.4).
const SEE_OTHER: u16 = 303;

type Of<'a> = (&'a Worker, &'a Generation, &'a Exchange);

/// The login that a request which is refused is sent to instead, if it is a person's for a page and
/// a login may help: where some alternative has all of its logins, something else is missing. Each
/// login makes one more session good, so that nobody is sent round in a circle.
pub fn wanted(asking: Asking<'_>, rule: &Authenticate, refusal: Refusal) -> Option<WayId> {
    let may_help = !rule.logins.is_empty() && refusal.reason.status == 401;
    if !may_help || !flow::is_navigation(&asking.exchange.view()) {
        return None;
    }
    let is_good = |id: &WayId| {
        let now = || way(asking.snapshot, *id).map(|way| super::now(asking, *id, way));
        asking.told.is_good(*id) || matches!(now(), Some(Outcome::Identity(_)))
    };
    let (good, missing): (Vec<WayId>, Vec<WayId>) = rule.logins.iter().partition(|id| is_good(id));
    let has_logins = |ways: &Vec<WayId>| {
        ways.iter().any(|id| good.contains(id)) && !ways.iter().any(|id| missing.contains(id))
    };
    match rule.asked.alternatives.iter().any(has_logins) {
        true => None,
        false => missing.first().copied(),
    }
}

/// Sends the browser to log in, and afterwards back to what it asked for.
pub async fn send_to_login<S: ResponseSink>(
    of: Of<'_>,
    id: WayId,
    sink: &mut S,
) -> Result<Entered, Refusal> {
    let exchange = of.2;
    let mut target = exchange.raw_path().to_vec();
    if let Some(query) = exchange.query() {
        target.push(b'?');
        target.extend_from_slice(query);
    }
    begin(of, id, &target, sink).await
}

/// Answers a request for one of the paths of logins.
pub async fn answer<S: ResponseSink>(
    of: Of<'_>,
    (id, place): (WayId, Place),
    sink: &mut S,
) -> Result<Entered, Refusal> {
    match place {
        Place::Callback => callback(of, id, sink).await,
        Place::Logout => logout(of, id, sink).await,
        Place::Login => {
            let to = of.2.query().and_then(|query| pairs::parameter(query, "to"));
            begin(of, id, to.as_deref().unwrap_or(b"/"), sink).await
        }
    }
}

/// Where the provider is asked; waited for at first.
async fn endpoints(
    (state, way): (&State, &LoginWay),
    until_ms: u64,
) -> Result<Arc<Endpoints>, Refusal> {
    let cell = &way.provider.cell;
    let number = cell.number();
    if let Some(endpoints) = cell.endpoints() {
        return Ok(endpoints);
    }
    jwt::fetched((state, WAITING_MAX), (&way.provider, number), until_ms).await;
    cell.endpoints().ok_or_else(|| refusal::AUTH_UNAVAILABLE.into())
}

fn secret() -> Result<String, Refusal> {
    let bytes = random::<SECRET_BYTES>().ok_or(refusal::AUTH_UNAVAILABLE)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

async fn begin<S: ResponseSink>(
    (worker, snapshot, exchange): Of<'_>,
    id: WayId,
    target: &[u8],
    sink: &mut S,
) -> Result<Entered, Refusal> {
    let way = way(snapshot, id).ok_or(refusal::AUTH_MISSING)?;
    let rule = &way.rule;
    let origin = origin(exchange, rule).ok_or(refusal::AUTH_MISSING)?;
    let state = snapshot.auth.of(id);
    let endpoints = endpoints((state, way), exchange.until_ms).await?;
    let login = Login {
        state: secret()?,
        nonce: secret()?,
        verifier: secret()?,
        path: rule.return_path(target).to_owned(),
        begun_s: unix_s(),
    };
    let sealed = random::<RANDOM_BYTES>()
        .and_then(|random| way.sealer.seal(Purpose::Login, &login, &random))
        .ok_or(refusal::AUTH_UNAVAILABLE)?;
    let names = names(exchange, way);
    let shown = names.shown(exchange.head(), exchange.bytes());
    let place = shown.place_for_login(worker.random.next() as usize);
    let mut lines = Vec::with_capacity(1024);
    names.set(&mut lines, Cookie::Login(place), &cookies::encoded(&sealed), rule.login_s);
    let redirect_uri = format!("{origin}{}", rule.callback);
    let url = flow::authorization_url(rule, &endpoints.authorization, &login, &redirect_uri);
    see_other(url, &lines, sink).await
}

/// The browser comes back from the provider.
async fn callback<S: ResponseSink>(
    (worker, snapshot, exchange): Of<'_>,
    id: WayId,
    sink: &mut S,
) -> Result<Entered, Refusal> {
    let way = way(snapshot, id).ok_or(refusal::LOGIN_CALLBACK)?;
    if exchange.head().method != Method::Get {
        return Err(refusal::LOGIN_CALLBACK.into());
    }
    let callback = Callback::read(exchange.query().unwrap_or_default())?;
    let names = names(exchange, way);
    let shown = names.shown(exchange.head(), exchange.bytes());
    let (place, login) = begun_with(way, &shown, &callback.state).ok_or(refusal::LOGIN_STATE)?;
    let mut lines = Vec::with_capacity(4096);
    // It is over, whatever comes of it.
    names.set(&mut lines, Cookie::Login(place), "", 0);
    let of = (&**snapshot.auth.of(id), way);
    let code = endpoints(of, exchange.until_ms)
        .await
        .and_then(|endpoints| callback.code(&way.rule, &login, endpoints.names_issuer, unix_s()));
    let session = match code {
        Ok(code) => session_of((worker, snapshot, exchange), id, way, &login, code).await,
        Err(refusal) => Err(refusal),
    };
    let set = session.and_then(|session| begun(way, names, &shown, &session, &mut lines));
    match set {
        Ok(()) => see_other(login.path, &lines, sink).await,
        Err(refusal) => {
            told::tell_client(&lines, sink);
            Err(refusal)
        }
    }
}

/// The login that a browser began with this `state`.
fn begun_with(way: &LoginWay, shown: &Shown<'_>, state: &str) -> Option<(usize, Login)> {
    if shown.is_doubled {
        return None;
    }
    let open = |at: usize| -> Option<Login> {
        let sealed = cookies::decoded(shown.logins[at]?)?;
        way.sealer.open(Purpose::Login, &sealed)
    };
    let logins = (0..LOGINS_MAX).filter_map(|at| Some((at, open(at)?)));
    // Nobody can try: the state of a login is used up by one attempt.
    logins.into_iter().find(|(_, login)| login.state == state)
}

async fn session_of(
    (worker, snapshot, exchange): Of<'_>,
    id: WayId,
    way: &LoginWay,
    login: &Login,
    code: String,
) -> Result<Session, Refusal> {
    let rule = &way.rule;
    let origin = origin(exchange, rule).ok_or(refusal::LOGIN_CALLBACK)?;
    let redirect_uri = format!("{origin}{}", rule.callback);
    let grant = Grant::Code { code, verifier: login.verifier.clone(), redirect_uri };
    let of = (&**snapshot.auth.of(id), way);
    let ordered = tokens::order(worker, of, exchange.until_ms, grant).await;
    let tokens = ordered.map_err(|denied| match denied {
        Denied::Refused => Refusal::from(refusal::LOGIN_CODE),
        Denied::Wrong => refusal::LOGIN_TOKENS.into(),
        Denied::Unavailable => refusal::AUTH_UNAVAILABLE.into(),
    })?;
    let token = tokens.id_token.as_deref().ok_or(refusal::LOGIN_ID_TOKEN)?;
    let identity = tokens::verified(of, exchange.until_ms, token).await?;
    token_rules::check_login(rule, &identity, &login.nonce)?;
    Ok(Session::begun(rule, secret()?, tokens, unix_s()))
}

/// Ends the session here, and at the provider where it wants to know.
async fn logout<S: ResponseSink>(
    (_, snapshot, exchange): Of<'_>,
    id: WayId,
    sink: &mut S,
) -> Result<Entered, Refusal> {
    let way = way(snapshot, id).ok_or(refusal::AUTH_MISSING)?;
    let rule = &way.rule;
    let is_own = |origin: &[u8]| {
        rule.origin.as_ref().is_some_and(|own| own.as_bytes().eq_ignore_ascii_case(origin))
    };
    let authority = exchange.text(exchange.head().authority);
    if csrf::is_foreign(&exchange.view(), authority, is_own) == Some(true) {
        return Err(refusal::LOGIN_CROSS_SITE.into());
    }
    let names = names(exchange, way);
    let shown = names.shown(exchange.head(), exchange.bytes());
    let session = opened(snapshot.auth.of(id), way, &shown).ok();
    let mut lines = Vec::with_capacity(512);
    names.clear_session(&mut lines, &shown);
    names.clear_logins(&mut lines, &shown);
    let endpoints = way.provider.cell.endpoints().filter(|_| rule.logs_out_at_provider);
    let end_session = endpoints.and_then(|endpoints| endpoints.end_session.clone());
    let to = match (end_session, origin(exchange, rule)) {
        (Some(endpoint), Some(origin)) => {
            let after = match rule.after_logout.starts_with('/') {
                true => format!("{origin}{}", rule.after_logout),
                false => rule.after_logout.clone(),
            };
            let id_token = session.as_ref().map(|opened| &*opened.session.id_token);
            flow::logout_url(rule, &endpoint, id_token, &after)
        }
        _ => rule.after_logout.clone(),
    };
    see_other(to, &lines, sink).await
}

/// Sends the browser elsewhere, with cookies.
async fn see_other<S: ResponseSink>(
    to: String,
    lines: &[u8],
    sink: &mut S,
) -> Result<Entered, Refusal> {
    sink.add_fields(lines);
    let fields = [("Location".to_owned(), to), ("Cache-Control".to_owned(), "no-store".to_owned())];
    let response = OwnResponse { status: SEE_OTHER, content_type: "", fields: &fields, body: b"" };
    sink.own(response).await?;
    Ok(Entered::Answered)
}
