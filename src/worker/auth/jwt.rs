//! The ways `[jwt.NAME]`: the token of a request, known from before or judged now.
//!
//! A token that names a key which is not there may be of a key that is new: then a fetch is asked
//! for, and the request waits for it for a while. Bounds: so many requests of a worker wait for one
//! way; all of them ask for one fetch, and the provider's `refetch_after` is between two of those.

use std::{borrow::Cow, time::Duration};

use rustix::time::{ClockId, clock_gettime};

use super::{Asking, Outcome, state::State};
use crate::{
    config::snapshot::{JwtWay, KeySource, Provider},
    policy::{
        Refusal,
        auth::{self, Found, Seen, WayId},
        jwt::Judged,
        refusal,
    },
    worker::clock,
};

/// Requests of one worker that wait for keys of one way.
const WAITING_MAX: u32 = 512;
/// How often those look whether there are keys.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Judges the token of a request.
pub fn now<'a>(asking: Asking<'a>, id: WayId, way: &'a JwtWay) -> Outcome<'a> {
    let token = match shown(asking, id) {
        Found::Nothing => return Outcome::NotShown,
        Found::Several => return Outcome::Refused(refusal::AUTH_INVALID.into()),
        Found::One(token) => token,
    };
    let state = asking.snapshot.auth.of(id);
    match judge(state, way, &token) {
        Ok(seen) => seen.into(),
        Err(KeyUnknown) => match &way.keys {
            KeySource::Fixed(_) => Outcome::Refused(refusal::AUTH_KEY_UNKNOWN.into()),
            KeySource::Remote(provider) => {
                Outcome::Wait(Box::pin(later(asking, state, way, provider, token)))
            }
        },
    }
}

/// The first token that is there.
pub(super) fn shown(asking: Asking<'_>, id: WayId) -> Found<'_> {
    let exchange = asking.exchange;
    let places = asking.snapshot.way(id).sources.iter();
    let mut found = places.map(|source| auth::find(source, exchange.head(), exchange.bytes()));
    found.find(|found| *found != Found::Nothing).unwrap_or(Found::Nothing)
}

struct KeyUnknown;

/// Judges a token by what is there.
fn judge(state: &State, way: &JwtWay, token: &[u8]) -> Result<Seen, KeyUnknown> {
    state.look(way);
    let now_s = now_s();
    if let Some(known) = state.known(token) {
        return Ok(match known.is_in_time(&way.rule, now_s) {
            Ok(()) => Seen::Identity(known.identity),
            Err(refusal) => {
                state.forget(token);
                Seen::Refused(refusal)
            }
        });
    }
    match state.with_keys(|keys| way.rule.judge(token, keys, &state.name, now_s)) {
        Judged::Accepted(verified) => {
            state.remember(token, &verified, way.cache_bytes);
            Ok(Seen::Identity(verified.identity))
        }
        Judged::Refused(refusal) => Ok(Seen::Refused(refusal)),
        Judged::KeyUnknown => Err(KeyUnknown),
    }
}

/// Seconds since 1970.
pub fn now_s() -> f64 {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// Counts a request that waits.
pub struct Waiting<'s>(&'s State);

impl<'s> Waiting<'s> {
    /// `None`: as many wait as may.
    pub fn begin(state: &'s State, waiting_max: u32) -> Option<Waiting<'s>> {
        let waiting = state.waiting.get();
        (waiting < waiting_max).then(|| {
            state.waiting.set(waiting + 1);
            Waiting(state)
        })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
    }
}

/// Waits for keys, and judges by them.
async fn later(
    asking: Asking<'_>,
    state: &State,
    way: &JwtWay,
    provider: &Provider,
    token: Cow<'_, [u8]>,
) -> Seen {
    let by = (provider, state.number());
    fetched((state, WAITING_MAX), by, asking.exchange.until_ms).await;
    judge(state, way, &token).unwrap_or_else(|KeyUnknown| Seen::Refused(unknown(state)))
}

/// Waits for a fetch that begins now or soon, but not beyond `until_ms`, and not at all where as
/// many requests wait as may. `number`: of the keys that would not do.
pub async fn fetched(
    (state, waiting_max): (&State, u32),
    (provider, number): (&Provider, u64),
    until_ms: u64,
) {
    let Some(_waiting) = Waiting::begin(state, waiting_max) else { return };
    let cell = &provider.cell;
    let Some(over) = cell.awaited(number, provider.wait_ms) else { return };
    let until_ms = until_ms.min(clock::now_ms() + provider.wait_ms);
    while cell.ended() < over && cell.number() == number && clock::now_ms() < until_ms {
        monoio::time::sleep(LOOK_EVERY).await;
        clock::refresh();
    }
}

/// Without any keys nothing can be said of a token.
fn unknown(state: &State) -> Refusal {
    match state.with_keys(|keys| keys.is_some()) {
        true => refusal::AUTH_KEY_UNKNOWN.into(),
        false => refusal::AUTH_UNAVAILABLE.into(),
    }
}
