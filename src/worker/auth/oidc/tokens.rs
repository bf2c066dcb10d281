//! Tokens of the provider: ordered from control, and verified.

use std::rc::Rc;

use super::WAITING_MAX;
use crate::{
    config::snapshot::{LoginWay, oidc::Order},
    policy::{
        Refusal,
        identity::Identity,
        jwt::Judged,
        oidc::{
            session::Session,
            tokens::{self, Grant, NoTokens, Tokens},
        },
        refusal,
    },
    worker::{
        Worker,
        auth::{
            Asking,
            jwt::{self, Waiting},
            state::State,
        },
        clock::{now_ms, unix_s},
        errand,
    },
};

/// How much longer a worker waits than control lets a request to the provider take: it may wait
/// for its turn.
const GRACE_MS: u64 = 1000;

/// Why there are no tokens, in the words of whoever waits for them.
#[derive(Debug)]
pub enum Denied {
    /// The code, or the refresh token, is not good.
    Refused,
    Wrong,
    Unavailable,
}

/// Has control ask for tokens.
pub async fn order(
    worker: &Worker,
    (state, way): (&State, &LoginWay),
    until_ms: u64,
    grant: Grant,
) -> Result<Tokens, Denied> {
    let Some(_waiting) = Waiting::begin(state, WAITING_MAX) else {
        return Err(Denied::Unavailable);
    };
    if way.counter.is_full() {
        return Err(Denied::Unavailable);
    }
    let by_ms = until_ms.min(now_ms() + way.timeout_ms + GRACE_MS);
    let told = errand::answer(worker, by_ms, |reply| {
        way.counter.leave(Order { grant, reply: Box::new(|told| reply.give(told)) });
    });
    match told.await {
        Ok(Ok(tokens)) => Ok(tokens),
        Ok(Err(NoTokens::Refused)) => Err(Denied::Refused),
        Ok(Err(NoTokens::Wrong(_))) => Err(Denied::Wrong),
        Ok(Err(NoTokens::Unavailable(_))) | Err(_) => Err(Denied::Unavailable),
    }
}

/// Verifies an ID token; for a key that is not known it waits as for any token.
pub async fn verified(
    (state, way): (&State, &LoginWay),
    until_ms: u64,
    token: &str,
) -> Result<Rc<Identity>, Refusal> {
    let cell = &way.provider.cell;
    let judge = || {
        let keys = cell.keys();
        way.rule.id_token.judge(token.as_bytes(), keys.as_deref(), &state.name, jwt::now_s())
    };
    let number = cell.number();
    let mut judged = judge();
    if matches!(judged, Judged::KeyUnknown) {
        jwt::fetched((state, WAITING_MAX), (&way.provider, number), until_ms).await;
        judged = judge();
    }
    match judged {
        Judged::Accepted(verified) => Ok(verified.identity),
        Judged::Refused(refusal) => {
            let reason = refusal.reason.token;
            tracing::debug!(way = way.rule.name, reason, "an ID token is not accepted");
            match refusal.reason == refusal::AUTH_CLAIM {
                true => Err(refusal::LOGIN_CLAIM.into()),
                false => Err(refusal::LOGIN_ID_TOKEN.into()),
            }
        }
        Judged::KeyUnknown if cell.number() == 0 => Err(refusal::AUTH_UNAVAILABLE.into()),
        Judged::KeyUnknown => Err(refusal::LOGIN_ID_TOKEN.into()),
    }
}

/// The session with other tokens. 503: it cannot be said whether it may have any.
pub async fn renewed(
    asking: Asking<'_>,
    state: &State,
    way: &LoginWay,
    before: &Session,
    was: &Identity,
) -> Result<Session, Refusal> {
    let grant = Grant::Refresh { token: before.refresh_token.clone() };
    let until_ms = asking.exchange.until_ms;
    let tokens = match order(asking.worker, (state, way), until_ms, grant).await {
        Ok(tokens) => tokens,
        Err(Denied::Refused) => return Err(refusal::AUTH_EXPIRED.into()),
        Err(Denied::Wrong | Denied::Unavailable) => return Err(refusal::AUTH_UNAVAILABLE.into()),
    };
    if let Some(token) = &tokens.id_token {
        let identity = verified((state, way), until_ms, token).await?;
        tokens::check_refreshed(&way.rule, &identity, was)?;
    }
    Ok(before.renewed(&way.rule, tokens, unix_s()))
}
