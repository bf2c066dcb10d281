//! Which endpoint of an upstream gets the next request.
//!
//! A [`Balancer`] is the state of one upstream in one worker: requests in flight, endpoints to
//! avoid for a while, the turn of the round robin, and which endpoints the operator has taken out.
//! It allocates only when made. Choosing looks at every endpoint once or twice at most, of which
//! there are at most [`ENDPOINTS_MAX`].

use std::{cell::Cell, rc::Rc};

/// How an upstream chooses (configuration key `balance`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// Smooth weighted round robin.
    #[default]
    RoundRobin,
    /// Of two random endpoints, the one with fewer requests in flight for its weight.
    LeastRequest,
    Random,
}

/// Whether the operator lets an endpoint have requests (`ringway endpoint`). Requests in flight are
/// left alone whatever changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    #[default]
    Up,
    /// No new requests while another endpoint of the upstream is up.
    Drain,
    /// No new requests.
    Down,
}

impl State {
    pub const ALL: [State; 3] = [State::Up, State::Drain, State::Down];

    /// As in commands, the admin API and logs.
    pub fn word(self) -> &'static str {
        match self {
            State::Up => "up",
            State::Drain => "drain",
            State::Down => "down",
        }
    }

    pub fn from_word(word: &str) -> Option<State> {
        State::ALL.into_iter().find(|state| state.word() == word)
    }
}

/// Most endpoints of an upstream.
pub const ENDPOINTS_MAX: usize = 1024;

/// Endpoints an exchange has tried in vain. Allocates only when there are any.
#[derive(Clone, Debug, Default)]
pub struct TriedSet {
    bits: Vec<u64>,
}

impl TriedSet {
    /// `endpoint` is below [`ENDPOINTS_MAX`].
    pub fn insert(&mut self, endpoint: usize) {
        let word = endpoint / 64;
        if self.bits.len() <= word {
            self.bits.resize(word + 1, 0);
        }
        self.bits[word] |= 1 << (endpoint % 64);
    }

    pub fn contains(&self, endpoint: usize) -> bool {
        self.bits.get(endpoint / 64).is_some_and(|word| word & (1 << (endpoint % 64)) != 0)
    }

    pub fn is_empty(&self) -> bool {
        self.bits.is_empty()
    }
}

/// State of one upstream in one worker; endpoints by their index in the configuration.
#[derive(Clone, Debug)]
pub struct Balancer {
    balance: Balance,
    endpoints: Vec<EndpointState>,
    /// Every endpoint may be chosen as far as its state goes, which is so nearly always.
    all_serve: bool,
    /// No endpoint is cooling down from then on.
    cool_at_ms: u64,
}

#[derive(Clone, Debug)]
struct EndpointState {
    weight: u32,
    state: State,
    /// Follows from the states of all endpoints ([`Balancer::set`]).
    serves: bool,
    /// Shared with the balancers of earlier configurations, whose requests may still run.
    in_flight: Rc<Cell<u32>>,
    /// Avoided before this time while others are left.
    cooling_until_ms: u64,
    /// Smooth weighted round robin: what this endpoint is owed.
    credit: i64,
}

/// Which endpoints a choice is between. All but `All` leave out those that do not serve.
#[derive(Clone, Copy)]
enum Among<'a> {
    All,
    Untried(&'a TriedSet),
    UntriedAndCool(&'a TriedSet, u64),
}

impl Balancer {
    /// `weights` has one entry for each endpoint; 0 counts as 1. More than [`ENDPOINTS_MAX`] are a
    /// configuration error; those beyond get nothing.
    pub fn new(balance: Balance, weights: impl IntoIterator<Item = u32>) -> Balancer {
        let endpoints = weights.into_iter().take(ENDPOINTS_MAX).map(|weight| EndpointState {
            weight: weight.max(1),
            state: State::Up,
            serves: true,
            in_flight: Rc::default(),
            cooling_until_ms: 0,
            credit: 0,
        });
        Balancer { balance, endpoints: endpoints.collect(), all_serve: true, cool_at_ms: 0 }
    }

    /// From now on the endpoint has this state and weight (0 counts as 1).
    pub fn set(&mut self, endpoint: usize, state: State, weight: u32) {
        self.endpoints[endpoint].state = state;
        self.endpoints[endpoint].weight = weight.max(1);
        let is_any_up = self.endpoints.iter().any(|e| e.state == State::Up);
        for endpoint in &mut self.endpoints {
            endpoint.serves = match endpoint.state {
                State::Up => true,
                State::Drain => !is_any_up,
                State::Down => false,
            };
            if !endpoint.serves {
                endpoint.credit = 0;
            }
        }
        self.all_serve = self.endpoints.iter().all(|e| e.serves);
    }

    /// Whether the endpoint may get new requests.
    pub fn serves(&self, endpoint: usize) -> bool {
        self.endpoints[endpoint].serves
    }

    /// Endpoint `here` is the one that was `there` in `before`: what is known of it still holds.
    pub fn carry(&mut self, here: usize, before: &Balancer, there: usize) {
        let known = &before.endpoints[there];
        let endpoint = &mut self.endpoints[here];
        endpoint.in_flight = known.in_flight.clone();
        endpoint.cooling_until_ms = known.cooling_until_ms;
        self.cool_at_ms = self.cool_at_ms.max(known.cooling_until_ms);
    }

    /// The endpoint for the next try; `None` when all that serve were tried. Endpoints that are
    /// cooling down are chosen only when no other is left, because a try is better than a sure
    /// refusal.
    /// `random` is uniform over all of `u64`.
    #[inline]
    pub fn pick(&mut self, tried: &TriedSet, now_ms: u64, random: u64) -> Option<usize> {
        if self.endpoints.len() == 1 {
            return (self.all_serve && !tried.contains(0)).then_some(0);
        }
        if self.all_serve && tried.is_empty() && now_ms >= self.cool_at_ms {
            return self.pick_among(Among::All, random);
        }
        self.pick_among(Among::UntriedAndCool(tried, now_ms), random)
            .or_else(|| self.pick_among(Among::Untried(tried), random))
    }

    /// A request begins at this endpoint; `finished` follows exactly once.
    pub fn started(&mut self, endpoint: usize) {
        let in_flight = &self.endpoints[endpoint].in_flight;
        in_flight.set(in_flight.get() + 1);
    }

    pub fn finished(&mut self, endpoint: usize) {
        let in_flight = &self.endpoints[endpoint].in_flight;
        debug_assert!(in_flight.get() > 0, "finished without started");
        in_flight.set(in_flight.get().saturating_sub(1));
    }

    /// The endpoint could not be connected: avoided until `until_ms` while others are left.
    pub fn connect_failed(&mut self, endpoint: usize, until_ms: u64) {
        self.endpoints[endpoint].cooling_until_ms = until_ms;
        self.cool_at_ms = self.cool_at_ms.max(until_ms);
    }

    /// The endpoint was connected: no longer avoided.
    pub fn connected(&mut self, endpoint: usize) {
        self.endpoints[endpoint].cooling_until_ms = 0;
    }

    /// Requests that began at this endpoint and did not finish.
    pub fn in_flight(&self, endpoint: usize) -> u32 {
        self.endpoints[endpoint].in_flight.get()
    }

    /// The endpoint is avoided because it could not be connected.
    pub fn is_cooling(&self, endpoint: usize, now_ms: u64) -> bool {
        now_ms < self.endpoints[endpoint].cooling_until_ms
    }

    fn pick_among(&mut self, among: Among<'_>, random: u64) -> Option<usize> {
        match self.balance {
            Balance::RoundRobin => self.round_robin(among),
            Balance::LeastRequest => self.least_request(among, random),
            Balance::Random => self.random(among, random),
        }
    }

    fn eligible(&self, among: Among<'_>) -> impl Iterator<Item = (usize, &EndpointState)> {
        self.endpoints.iter().enumerate().filter(move |(i, e)| among.has(*i, e))
    }

    /// NGINX's: everyone is given its weight, the richest serves and pays the sum.
    fn round_robin(&mut self, among: Among<'_>) -> Option<usize> {
        let mut total = 0;
        let mut richest: Option<(usize, i64)> = None;
        for (i, endpoint) in self.endpoints.iter_mut().enumerate() {
            if !among.has(i, endpoint) {
                continue;
            }
            endpoint.credit += i64::from(endpoint.weight);
            total += i64::from(endpoint.weight);
            if richest.is_none_or(|(_, credit)| endpoint.credit > credit) {
                richest = Some((i, endpoint.credit));
            }
        }
        let (i, _) = richest?;
        self.endpoints[i].credit -= total;
        Some(i)
    }

    /// Two different endpoints at random; the lower (in flight + 1) / weight wins, the first of
    /// the two if they are equal.
    fn least_request(&self, among: Among<'_>, random: u64) -> Option<usize> {
        let count = match among {
            Among::All => self.endpoints.len(),
            _ => self.eligible(among).count(),
        };
        let first = below(random as u32, count);
        if count < 2 {
            return self.nth(among, first).map(|(i, _)| i);
        }
        let other = below((random >> 32) as u32, count - 1);
        let other = other + usize::from(other >= first);
        let (a, b) = (self.nth(among, first)?, self.nth(among, other)?);
        let load = |mine: &EndpointState, weight: u32| {
            (u64::from(mine.in_flight.get()) + 1) * u64::from(weight)
        };
        Some(if load(b.1, a.1.weight) < load(a.1, b.1.weight) { b.0 } else { a.0 })
    }

    fn nth(&self, among: Among<'_>, n: usize) -> Option<(usize, &EndpointState)> {
        match among {
            Among::All => self.endpoints.get(n).map(|e| (n, e)),
            _ => self.eligible(among).nth(n),
        }
    }

    fn random(&self, among: Among<'_>, random: u64) -> Option<usize> {
        let total: u64 = self.eligible(among).map(|(_, e)| u64::from(e.weight)).sum();
        let mut at = ((u128::from(random) * u128::from(total)) >> 64) as u64;
        let found = self.eligible(among).find(|(_, e)| {
            let weight = u64::from(e.weight);
            let here = at < weight;
            at = at.saturating_sub(weight);
            here
        });
        found.map(|(i, _)| i)
    }
}

impl Among<'_> {
    fn has(self, i: usize, endpoint: &EndpointState) -> bool {
        match self {
            Among::All => true,
            Among::Untried(tried) => endpoint.serves && !tried.contains(i),
            Among::UntriedAndCool(tried, now_ms) => {
                endpoint.serves && !tried.contains(i) && now_ms >= endpoint.cooling_until_ms
            }
        }
    }
}

/// A number below `bound`, uniform as far as 32 random bits go.
fn below(random: u32, bound: usize) -> usize {
    ((u64::from(random) * bound as u64) >> 32) as usize
}

#[cfg(test)]
mod tests;
