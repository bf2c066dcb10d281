//! The ways `[oidc.NAME]`: the session of a request, opened and judged; and what the gateway
//! answers itself, which is a login and a logout.
//!
//! A session whose access token ends soon gets others first. One request of a session does that on
//! a worker; others go on with what they have while it is good, and else get the same answer:
//! control asks the provider once for all workers (`control::oidc`). Bounds: so many requests of a
//! worker wait for one section ([`WAITING_MAX`]).

mod login;
mod tokens;

use std::{borrow::Cow, cell::RefCell, rc::Rc};

pub use login::{answer, send_to_login, wanted};

use super::{
    Asking, Outcome,
    state::{State, cost},
    told::{Telling, Told},
};
use crate::{
    config::snapshot::{Authenticate, LoginWay, WayKind},
    policy::{
        Refusal,
        auth::{Seen, WayId},
        identity::Identity,
        oidc::{
            Place, Purpose, Rule,
            cookies::{self, Cookie, Names, Shown},
            session::{self, Session, Standing},
            tokens as token_rules,
        },
        refusal,
        seal::RANDOM_BYTES,
    },
    wire::Method,
    worker::{
        clock::{now_ms, unix_s},
        exchange::Exchange,
        generation::Generation,
    },
};

/// Requests of one worker that wait for the provider of one section.
const WAITING_MAX: u32 = 128;

/// A provider that gave no tokens is asked again for the same session after so long, where that is
/// still good.
const PAUSE_MS: u64 = 10_000;
/// Memory for sessions that are not refreshed for so long, and what one takes.
const PAUSED_BYTES_MAX: u64 = 1 << 20;
const PAUSED_COST: u64 = 128;

/// A session, and who it is of.
pub struct Opened {
    pub session: Session,
    pub identity: Rc<Identity>,
    /// The cookie that was opened last to see when it was used, and what it says.
    seen: RefCell<Option<(Box<[u8]>, u64)>>,
}

impl Opened {
    /// When it was used, as the text of a cookie says; the same one is not opened anew. `None`: it
    /// is no good, or another session's.
    fn seen_s(&self, way: &LoginWay, text: &[u8]) -> Option<u64> {
        if let Some((known, at_s)) = &*self.seen.borrow()
            && **known == *text
        {
            return Some(*at_s);
        }
        let seen: session::Seen = way.sealer.open(Purpose::Seen, &cookies::decoded(text)?)?;
        if seen.id != self.session.id {
            return None;
        }
        self.seen.replace(Some((text.into(), seen.at_s)));
        Some(seen.at_s)
    }
}

/// The path of a login, if the request has one.
pub fn place(
    snapshot: &Generation,
    exchange: &Exchange,
    rule: &Authenticate,
) -> Option<(WayId, Place)> {
    if !matches!(exchange.head().method, Method::Get | Method::Head | Method::Post) {
        return None;
    }
    let of = |id: &WayId| Some((*id, way(snapshot, *id)?.rule.place(exchange.matched_path())?));
    rule.logins.iter().find_map(of)
}

fn way(snapshot: &Generation, id: WayId) -> Option<&LoginWay> {
    match &snapshot.way(id).kind {
        WayKind::Login(way) => Some(way),
        _ => None,
    }
}

/// Scheme and authority that the browser uses.
fn origin<'a>(exchange: &'a Exchange, rule: &'a Rule) -> Option<Cow<'a, str>> {
    if let Some(origin) = &rule.origin {
        return Some(origin.into());
    }
    let authority = str::from_utf8(exchange.text(exchange.head().authority)).ok()?;
    (!authority.is_empty()).then(|| format!("{}://{authority}", exchange.scheme()).into())
}

/// The names of cookies: over TLS they are other ones.
fn names<'w>(exchange: &Exchange, way: &'w LoginWay) -> &'w Names {
    let is_secure = match &way.rule.origin {
        Some(origin) => origin.starts_with("https:"),
        None => exchange.is_tls,
    };
    let [secure, plain] = &way.names;
    if is_secure { secure } else { plain }
}

/// Random bytes that nobody can guess.
fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    Some(bytes)
}

/// What the session of a request says.
pub fn now<'a>(asking: Asking<'a>, id: WayId, way: &'a LoginWay) -> Outcome<'a> {
    let exchange = asking.exchange;
    let names = names(exchange, way);
    let shown = names.shown(exchange.head(), exchange.bytes());
    if !shown.has_session() {
        return Outcome::NotShown;
    }
    let state = asking.snapshot.auth.of(id);
    let mut telling = Telling::default();
    let seen = match judge(state, way, names, &shown, &mut telling.lines) {
        Ok(Judged::Good(opened)) => {
            telling.access_token = access_token(&way.rule, &opened.session);
            Seen::Identity(opened.identity.clone())
        }
        Ok(Judged::Due(opened)) => {
            let refresh = refresh(asking, id, way, (opened, telling.lines));
            return Outcome::Wait(Box::pin(refresh));
        }
        Err(refusal) => {
            names.clear_session(&mut telling.lines, &shown);
            Seen::Refused(refusal)
        }
    };
    put(asking.told, id, telling);
    seen.into()
}

fn put(told: &Told, id: WayId, telling: Telling) {
    if !telling.lines.is_empty() || telling.access_token.is_some() || telling.is_good {
        told.put(id, telling);
    }
}

fn access_token(rule: &Rule, session: &Session) -> Option<String> {
    rule.forwards_access_token.then(|| session.access_token.clone())
}

enum Judged {
    Good(Rc<Opened>),
    /// Other tokens are needed first.
    Due(Rc<Opened>),
}

/// Opens a session and judges it. Appends the line that says when it was used, when that is due.
fn judge(
    state: &State,
    way: &LoginWay,
    names: &Names,
    shown: &Shown<'_>,
    lines: &mut Vec<u8>,
) -> Result<Judged, Refusal> {
    let rule = &way.rule;
    let opened = opened(state, way, shown)?;
    // A browser forgets this cookie when the session was not used for too long.
    let seen = shown.seen.ok_or(refusal::AUTH_EXPIRED)?;
    let seen_s = opened.seen_s(way, seen).ok_or(refusal::AUTH_INVALID)?;
    let now_s = unix_s();
    let standing = opened.session.standing(rule, seen_s, now_s);
    if standing == Standing::Over {
        return Err(refusal::AUTH_EXPIRED.into());
    }
    if session::is_told_anew(rule, seen_s, now_s) {
        used(way, names, &opened.session.id, now_s, lines);
    }
    let id = &opened.session.id;
    let goes_on = || state.refreshing.borrow().contains(id) || is_paused(state, id);
    Ok(match standing {
        Standing::Due { is_over } if is_over || !goes_on() => Judged::Due(opened),
        _ => Judged::Good(opened),
    })
}

/// Whether a session's tokens could not be refreshed just now.
fn is_paused(state: &State, id: &str) -> bool {
    let until_ms = state.refresh_paused_ms.borrow_mut().get(id.as_bytes());
    until_ms.is_some_and(|until_ms| now_ms() < until_ms)
}

fn pause(state: &State, id: &str) {
    let mut paused = state.refresh_paused_ms.borrow_mut();
    paused.put(id.as_bytes(), now_ms() + PAUSE_MS, PAUSED_COST, PAUSED_BYTES_MAX);
}

/// The session of a request, known from before or opened now.
fn opened(state: &State, way: &LoginWay, shown: &Shown<'_>) -> Result<Rc<Opened>, Refusal> {
    let text = shown.session().ok_or(refusal::AUTH_INVALID)?;
    if let Some(opened) = state.sessions.borrow_mut().get(&text) {
        return Ok(opened);
    }
    let session: Option<Session> =
        cookies::decoded(&text).and_then(|sealed| way.sealer.open(Purpose::Session, &sealed));
    let session = session.ok_or(refusal::AUTH_INVALID)?;
    let identity = Rc::new(token_rules::identity(&way.rule, &session, &state.name)?);
    let opened = Rc::new(Opened { session, identity, seen: RefCell::default() });
    let bytes = cost(&text);
    state.sessions.borrow_mut().put(&text, opened.clone(), bytes, way.cache_bytes);
    Ok(opened)
}

/// Appends the cookie that says when a session was used.
fn used(way: &LoginWay, names: &Names, id: &str, now_s: u64, lines: &mut Vec<u8>) -> Option<()> {
    let seen = session::Seen { id: id.to_owned(), at_s: now_s };
    let sealed = way.sealer.seal(Purpose::Seen, &seen, &random::<RANDOM_BYTES>()?)?;
    let max_age_s = way.rule.idle_s.min(way.rule.lifetime_s);
    names.set(lines, Cookie::Seen, &cookies::encoded(&sealed), max_age_s);
    Some(())
}

/// Appends the cookies of a session, which is used now.
fn begun(
    way: &LoginWay,
    names: &Names,
    shown: &Shown<'_>,
    session: &Session,
    lines: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let now_s = unix_s();
    let sealed = random::<RANDOM_BYTES>()
        .and_then(|random| way.sealer.seal(Purpose::Session, session, &random))
        .ok_or(refusal::AUTH_UNAVAILABLE)?;
    let bounds = (session.left_s(&way.rule, now_s), way.rule.session_bytes_max);
    if !names.set_session(lines, &sealed, bounds, shown) {
        return Err(refusal::LOGIN_TOO_LARGE.into());
    }
    used(way, names, &session.id, now_s, lines).ok_or(refusal::AUTH_UNAVAILABLE)?;
    Ok(())
}

/// Notes that a session's tokens are being refreshed.
struct Refreshing<'s>(&'s State, &'s str);

impl<'s> Refreshing<'s> {
    fn begin(state: &'s State, id: &'s str) -> Refreshing<'s> {
        state.refreshing.borrow_mut().insert(id.to_owned());
        Refreshing(state, id)
    }
}

impl Drop for Refreshing<'_> {
    fn drop(&mut self) {
        self.0.refreshing.borrow_mut().remove(self.1);
    }
}

/// Gets other tokens for a session. A provider that cannot be asked ends none that is still good:
/// then the browser is told all the same that the session was used, by the line `used`.
async fn refresh<'a>(
    asking: Asking<'a>,
    id: WayId,
    way: &'a LoginWay,
    (opened, used): (Rc<Opened>, Vec<u8>),
) -> Seen {
    let exchange = asking.exchange;
    let state = asking.snapshot.auth.of(id);
    let names = names(exchange, way);
    let shown = names.shown(exchange.head(), exchange.bytes());
    let (before, was) = (&opened.session, &opened.identity);
    let renewed = {
        let _refreshing = Refreshing::begin(state, &before.id);
        tokens::renewed(asking, state, way, before, was).await
    };
    let mut telling = Telling::default();
    let told = renewed.and_then(|session| {
        begun(way, names, &shown, &session, &mut telling.lines)?;
        Ok(session)
    });
    let seen = match told {
        Ok(session) => match token_rules::identity(&way.rule, &session, &state.name) {
            Ok(identity) => {
                telling.access_token = access_token(&way.rule, &session);
                Seen::Identity(Rc::new(identity))
            }
            // Not reached: it was verified, or is the one of before.
            Err(refusal) => Seen::Refused(refusal),
        },
        Err(refusal) if refusal.reason.status == 503 => {
            pause(state, &before.id);
            telling.lines = used;
            if unix_s() < before.ends_s {
                telling.access_token = access_token(&way.rule, before);
                Seen::Identity(was.clone())
            } else {
                Seen::Refused(refusal)
            }
        }
        Err(_) => {
            telling.lines.clear();
            names.clear_session(&mut telling.lines, &shown);
            Seen::Refused(refusal::AUTH_EXPIRED.into())
        }
    };
    telling.is_good = matches!(seen, Seen::Identity(_));
    put(asking.told, id, telling);
    seen
}
