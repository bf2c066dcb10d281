//! What a worker that is not a key's home has of its bucket: tokens on lease.
//!
//! A [`Shard`] spends what it has, refuses while its home is known to have nothing, and else says
//! that the request has to wait ([`Took::Wait`]) and what to ask ([`Took::Ask`]), once for all who
//! wait. It owns no clock and sends nothing: whoever owns it hands its questions to the home and
//! the answers back ([`Shard::granted`]), which says what becomes of each request that waited, in
//! the order in which they came.
//!
//! The home of a key whose bucket a fleet shares has such a shard too: what it spends is on lease
//! from the fleet, and it lends parts of it to the other workers ([`Shard::lend`]).
//!
//! **Bounds**: a sweep leaves [`LEASES_MAX`] keys; when there are more, leases are given up that
//! were looked at longest ago.

use std::collections::VecDeque;

use ahash::AHashMap;

use super::{Ask, Grant, Left, Moment};

/// A lease goes back that was not used between so many sweeps.
pub const LEASE_SWEEPS: u8 = 2;
/// Keys of which one shard remembers something.
pub const LEASES_MAX: usize = 16 * 1024;
/// Who waits for an answer that does not come is given up after so many.
const WAIT_SWEEPS: u8 = 100;
/// A lease this large is renewed before it is used up, when a quarter is left.
const RENEWED_MIN: u32 = 8;

/// The leases of one limit on one worker. `W` is what wakes a request that waits.
#[derive(Debug)]
pub struct Shard<W> {
    leases: AHashMap<u64, Lease<W>>,
    /// In the order in which they are looked at.
    due: VecDeque<u64>,
}

#[derive(Debug)]
struct Lease<W> {
    tokens: u32,
    /// Since the last question.
    used: u32,
    /// Ask for more when it comes down to this.
    renew_at: u32,
    /// A question is under way.
    is_asked: bool,
    /// Sweeps since it was last used.
    idle: u8,
    empty_until: Moment,
    left: Left,
    waiting: VecDeque<Waiting<W>>,
}

/// Who waits for tokens: a request, which needs all of them, or a worker, to which its first
/// request's will do.
#[derive(Debug)]
struct Waiting<W> {
    waker: W,
    want: u32,
    least: u32,
}

/// What becomes of a question of another worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lent {
    /// The answer. The fleet may be asked for more.
    Now(Grant, Option<Ask>),
    /// It has to wait ([`Shard::wait_for`]), and the fleet has to be asked this, if anything.
    Later(Option<Ask>),
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Took {
    /// It may pass. The home may be asked for more.
    Yes(Left, Option<Ask>),
    /// Not before then.
    No(Moment),
    /// It has to wait ([`Shard::wait`]), and the home has to be asked this.
    Ask(Ask),
    /// It has to wait for an answer that is on its way.
    Wait,
}

impl<W> Default for Shard<W> {
    fn default() -> Shard<W> {
        Shard { leases: AHashMap::default(), due: VecDeque::new() }
    }
}

impl<W> Lease<W> {
    fn new() -> Lease<W> {
        Lease {
            tokens: 0,
            used: 0,
            renew_at: 0,
            is_asked: false,
            idle: 0,
            empty_until: 0,
            left: Left::default(),
            waiting: VecDeque::new(),
        }
    }

    fn ask(&mut self, key: u64, want: u32, least: u32) -> Ask {
        self.is_asked = true;
        Ask { key, want, least, used: std::mem::take(&mut self.used) }
    }

    /// Takes what is there; answers what is left, and what to ask for when that is little.
    #[inline]
    fn spend(&mut self, key: u64, tokens: u32) -> (Left, Option<Ask>) {
        self.tokens -= tokens;
        self.used = self.used.saturating_add(tokens);
        let is_low = self.tokens <= self.renew_at && !self.is_asked;
        let left = Left { tokens: self.left.tokens.saturating_add(self.tokens), ..self.left };
        let ask = (is_low && self.renew_at > 0).then(|| self.ask(key, 0, 0));
        (left, ask)
    }
}

impl<W> Shard<W> {
    /// Takes `tokens` for a request.
    #[inline]
    pub fn take(&mut self, key: u64, tokens: u32, now: Moment) -> Took {
        let Some(lease) = self.leases.get_mut(&key) else { return self.first(key, tokens) };
        lease.idle = 0;
        if lease.tokens >= tokens {
            let (left, ask) = lease.spend(key, tokens);
            return Took::Yes(left, ask);
        }
        if lease.empty_until > now {
            return Took::No(lease.empty_until);
        }
        if lease.is_asked {
            return Took::Wait;
        }
        // What is there counts too.
        let lacks = tokens - lease.tokens;
        Took::Ask(lease.ask(key, lacks, lacks))
    }

    /// Of a key of which nothing is known.
    #[cold]
    fn first(&mut self, key: u64, tokens: u32) -> Took {
        let mut lease = Lease::new();
        let ask = lease.ask(key, tokens, tokens);
        self.leases.insert(key, lease);
        self.due.push_back(key);
        Took::Ask(ask)
    }

    /// Answers another worker, one of `workers`, from what is on lease here: as
    /// [`super::Buckets::ask`] does from a bucket.
    pub fn lend(&mut self, ask: Ask, workers: u32, now: Moment) -> Lent {
        let Ask { key, want, least, used } = ask;
        let Some(lease) = self.leases.get_mut(&key) else {
            if want == 0 {
                // Nobody waits for it there.
                return Lent::Now(Grant { key, ..Grant::default() }, None);
            }
            return match self.first(key, want) {
                Took::Ask(asked) => Lent::Later(Some(Ask { least, ..asked })),
                _ => Lent::Later(None),
            };
        };
        lease.idle = 0;
        if lease.tokens >= least {
            let spare = (lease.tokens / (2 * workers.max(1))).min(used.saturating_mul(2));
            let tokens = want.max(spare).min(lease.tokens);
            let (left, asked) = lease.spend(key, tokens);
            return Lent::Now(Grant { key, tokens, left, ..Grant::default() }, asked);
        }
        if lease.empty_until > now {
            let (empty_until, left) = (lease.empty_until, lease.left);
            let grant = Grant { key, empty_until, left, ..Grant::default() };
            return Lent::Now(grant, None);
        }
        if lease.is_asked {
            return Lent::Later(None);
        }
        let have = lease.tokens;
        Lent::Later(Some(lease.ask(key, want.saturating_sub(have), least - have)))
    }

    /// A request that needs `tokens` waits for the answer that is on its way.
    pub fn wait(&mut self, key: u64, tokens: u32, waker: W) {
        self.wait_for(key, tokens, tokens, waker);
    }

    /// As [`Shard::wait`], of somebody who wants so many, for whom `least` will do.
    pub fn wait_for(&mut self, key: u64, want: u32, least: u32, waker: W) {
        if let Some(lease) = self.leases.get_mut(&key) {
            lease.waiting.push_back(Waiting { waker, want, least });
        }
    }

    /// The home has answered: `tell` gets what becomes of those who waited, each with the tokens
    /// that it got, or else wanted. Answers what is to be asked for the rest of them. A grant for a
    /// key of which nothing is known has to go back ([`Shard::knows`]).
    pub fn granted(
        &mut self,
        grant: &Grant,
        now: Moment,
        mut tell: impl FnMut(W, u32, Result<Left, Moment>),
    ) -> Option<Ask> {
        let lease = self.leases.get_mut(&grant.key)?;
        lease.is_asked = false;
        lease.tokens = lease.tokens.saturating_add(grant.tokens);
        lease.renew_at = if grant.tokens >= RENEWED_MIN { grant.tokens / 4 } else { 0 };
        lease.empty_until = grant.empty_until;
        lease.left = grant.left;
        while let Some(Waiting { want, least, .. }) = lease.waiting.front() {
            let (mut tokens, least) = (*want, *least);
            let result = if lease.tokens >= least {
                tokens = tokens.min(lease.tokens);
                lease.tokens -= tokens;
                lease.used = lease.used.saturating_add(tokens);
                Ok(Left { tokens: lease.left.tokens.saturating_add(lease.tokens), ..lease.left })
            } else if lease.empty_until != 0 {
                // It is the answer, however long it took.
                Err(lease.empty_until.max(now))
            } else {
                let wants = lease.waiting.iter().map(|waiting| waiting.want);
                let want = wants.fold(0, u32::saturating_add);
                let have = lease.tokens;
                return Some(lease.ask(grant.key, want - have, least - have));
            };
            let waiting = lease.waiting.pop_front()?;
            tell(waiting.waker, tokens, result);
        }
        None
    }

    /// Whether something is known of `key`.
    pub fn knows(&self, key: u64) -> bool {
        self.leases.contains_key(&key)
    }

    /// The home does not answer: the next request asks it again. Whoever waits may still be told.
    pub fn unanswered(&mut self, key: u64) {
        if let Some(lease) = self.leases.get_mut(&key) {
            lease.is_asked = false;
        }
    }

    /// Puts back what a request took and does not need. Answers false when it should go home
    /// instead, because others may need it sooner.
    pub fn give(&mut self, key: u64, tokens: u32) -> bool {
        match self.leases.get_mut(&key) {
            Some(lease) if lease.renew_at > 0 => {
                lease.tokens = lease.tokens.saturating_add(tokens);
                true
            }
            _ => false,
        }
    }

    /// Gives up leases that were not used lately, and those beyond [`LEASES_MAX`]: `give_back` gets
    /// each with its tokens, and says whether it took them; `forget` those who waited in vain.
    /// Called now and then.
    pub fn sweep(
        &mut self,
        now: Moment,
        mut give_back: impl FnMut(u64, u32) -> bool,
        mut forget: impl FnMut(W),
    ) {
        for _ in 0..self.due.len() {
            let Some(key) = self.due.pop_front() else { return };
            let Some(lease) = self.leases.get_mut(&key) else { continue };
            lease.idle = lease.idle.saturating_add(1);
            if lease.idle >= WAIT_SWEEPS {
                // Nothing will come any more.
                lease.is_asked = false;
                lease.waiting.drain(..).for_each(|waiting| forget(waiting.waker));
            }
            let is_pressed = self.due.len() >= LEASES_MAX;
            let is_idle = lease.idle >= LEASE_SWEEPS || is_pressed;
            let is_needed = lease.is_asked || !lease.waiting.is_empty();
            if !is_idle || is_needed {
                self.due.push_back(key);
                continue;
            }
            if lease.tokens > 0 {
                match give_back(key, lease.tokens) {
                    true => lease.tokens = 0,
                    false => {
                        self.due.push_back(key);
                        continue;
                    }
                }
            }
            // What is known to be empty is remembered: no need to ask.
            match lease.empty_until > now && !is_pressed {
                true => self.due.push_back(key),
                false => drop(self.leases.remove(&key)),
            }
        }
    }

    /// Forgets everything, since nothing that was asked will be answered and what is on lease
    /// cannot go back: `forget` gets those who wait.
    pub fn clear(&mut self, mut forget: impl FnMut(W)) {
        self.due.clear();
        let waiting = self.leases.drain().flat_map(|(_, lease)| lease.waiting);
        waiting.for_each(|waiting| forget(waiting.waker));
    }

    /// What is on lease is worth nothing any more, and nothing is known to be empty: a quota has
    /// come back.
    pub fn void(&mut self) {
        for lease in self.leases.values_mut() {
            (lease.tokens, lease.renew_at, lease.empty_until) = (0, 0, 0);
            lease.left = Left::default();
        }
    }

    /// Every key with the tokens that are on lease for it.
    pub fn leases(&self) -> impl Iterator<Item = (u64, u32)> {
        self.leases.iter().map(|(key, lease)| (*key, lease.tokens))
    }

    /// Keys of which something is known.
    pub fn len(&self) -> usize {
        self.leases.len()
    }

    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }
}
