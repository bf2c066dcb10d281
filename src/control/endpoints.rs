//! What the operator says of single endpoints: up, drain or down, and another weight. Kept by name,
//! so that it outlives reloads, until the operator takes it back or the process ends.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio::sync::oneshot;

use crate::{
    config::Snapshot,
    policy::balance::State,
    worker::mailbox::{EndpointChange, Message, Sender},
};

/// Most endpoints that may be overridden at one time.
const OVERRIDES_MAX: usize = 10_000;

/// What the operator wants of an endpoint; what is `None` stays as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    pub upstream: String,
    /// As written in the configuration.
    pub endpoint: String,
    /// `None`: as configured again.
    pub change: Option<Change>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub state: Option<State>,
    pub weight: Option<u32>,
}

/// One endpoint's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Override {
    pub state: State,
    /// `None`: the configured one.
    pub weight: Option<u32>,
}

/// By upstream and endpoint.
#[derive(Clone, Debug, Default)]
pub struct Overrides(BTreeMap<(String, String), Override>);

/// Why a wish was not granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotGranted {
    NoUpstream,
    NoEndpoint,
    TooMany,
    /// A worker takes no messages; the words for whoever asked.
    Crowded(String),
}

/// What became of an order to all workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Obeyed {
    pub workers: u32,
    pub of: u32,
}

impl Overrides {
    pub fn of(&self, upstream: &str, endpoint: &str) -> Option<Override> {
        // Nearly always empty; then no key is made.
        if self.0.is_empty() {
            return None;
        }
        self.0.get(&(upstream.to_owned(), endpoint.to_owned())).copied()
    }

    /// Puts what the operator said into a new configuration.
    pub fn apply(&self, snapshot: &mut Snapshot) {
        for rule in snapshot.upstreams.iter_mut().flat_map(|rule| &mut rule.endpoints) {
            (rule.state, rule.weight) = (State::Up, rule.weight_configured);
        }
        for ((upstream, endpoint), over) in &self.0 {
            let rules = snapshot.upstreams.iter_mut().filter(|rule| rule.name == *upstream);
            for rule in rules.flat_map(|rule| &mut rule.endpoints) {
                if rule.name == *endpoint {
                    rule.state = over.state;
                    rule.weight = over.weight.unwrap_or(rule.weight);
                }
            }
        }
    }

    /// Grants a wish and tells the workers, whose mailboxes have room. The answer comes when every
    /// worker has obeyed.
    pub fn grant(
        &mut self,
        wish: &Wish,
        snapshot: &Snapshot,
        mailboxes: &[Sender],
        reply: oneshot::Sender<Obeyed>,
    ) -> Result<(), NotGranted> {
        let upstream = snapshot.upstreams.iter().find(|rule| rule.name == wish.upstream);
        let endpoints = &upstream.ok_or(NotGranted::NoUpstream)?.endpoints;
        let endpoint = endpoints.iter().find(|rule| rule.name == wish.endpoint);
        let configured_weight = endpoint.ok_or(NotGranted::NoEndpoint)?.weight_configured;
        let key = (wish.upstream.clone(), wish.endpoint.clone());
        let over = match wish.change {
            None => {
                self.0.remove(&key);
                Override::default()
            }
            Some(_) if self.0.len() >= OVERRIDES_MAX && !self.0.contains_key(&key) => {
                return Err(NotGranted::TooMany);
            }
            Some(change) => {
                let over = self.0.entry(key).or_default();
                over.state = change.state.unwrap_or(over.state);
                over.weight = change.weight.or(over.weight);
                *over
            }
        };
        let weight = over.weight.unwrap_or(configured_weight);
        tracing::info!(
            upstream = wish.upstream,
            endpoint = wish.endpoint,
            state = over.state.word(),
            weight,
            "endpoint set"
        );
        let (upstream, endpoint) = (Arc::from(&*wish.upstream), Arc::from(&*wish.endpoint));
        let tally = Tally::of(mailboxes.len(), reply);
        for mailbox in mailboxes {
            let share = Share { tally: tally.clone(), is_done: false };
            let change = EndpointChange {
                upstream: Arc::clone(&upstream),
                endpoint: Arc::clone(&endpoint),
                state: over.state,
                weight,
                done: Box::new(move || share.obeyed()),
            };
            // There is room. If not, the message is dropped, which counts as not obeyed.
            let _ = mailbox.send(Message::SetEndpoint(Box::new(change)));
        }
        Ok(())
    }
}

/// Counts the workers that obeyed and answers when none is left.
struct Tally {
    left: AtomicU32,
    obeyed: AtomicU32,
    of: u32,
    reply: std::sync::Mutex<Option<oneshot::Sender<Obeyed>>>,
}

impl Tally {
    fn of(workers: usize, reply: oneshot::Sender<Obeyed>) -> Arc<Tally> {
        let of = workers as u32;
        Arc::new(Tally {
            left: AtomicU32::new(of),
            obeyed: AtomicU32::new(0),
            of,
            reply: std::sync::Mutex::new(Some(reply)),
        })
    }
}

/// One worker's part in the answer. A message that is dropped unread counts as not obeyed.
struct Share {
    tally: Arc<Tally>,
    is_done: bool,
}

impl Share {
    fn obeyed(mut self) {
        self.is_done = true;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let tally = &self.tally;
        tally.obeyed.fetch_add(self.is_done.into(), Ordering::AcqRel);
        if tally.left.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        // The last worker, so nobody else wants the lock.
        let reply = tally.reply.lock().map_or(None, |mut reply| reply.take());
        if let Some(reply) = reply {
            let _ =
                reply.send(Obeyed { workers: tally.obeyed.load(Ordering::Acquire), of: tally.of });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config, worker::mailbox};

    fn snapshot() -> Snapshot {
        let text = "[[listeners]]\nbind = \"127.0.0.1:0\"\n[[routes]]\nupstream = \"app\"\n\
            [upstreams.app]\nendpoints = [\"127.0.0.1:81\", { address = \"127.0.0.1:82\", weight = 5 }]\n";
        config::from_text("test", text).expect("a good configuration").0
    }

    fn wish(change: Option<Change>) -> Wish {
        Wish { upstream: "app".to_owned(), endpoint: "127.0.0.1:82".to_owned(), change }
    }

    #[test]
    fn what_the_operator_said_outlives_a_reload_until_taken_back() {
        let mut overrides = Overrides::default();
        let say = |overrides: &mut Overrides, change| {
            let (reply, _) = oneshot::channel();
            overrides.grant(&wish(change), &snapshot(), &[], reply).unwrap();
            let mut next = snapshot();
            overrides.apply(&mut next);
            let endpoints = &next.upstreams[0].endpoints;
            assert_eq!((endpoints[0].state, endpoints[0].weight), (State::Up, 1), "not meant");
            (endpoints[1].state, endpoints[1].weight)
        };
        let change = |state, weight| Some(Change { state, weight });
        assert_eq!(say(&mut overrides, change(Some(State::Down), None)), (State::Down, 5));
        assert_eq!(say(&mut overrides, change(None, Some(9))), (State::Down, 9));
        assert_eq!(say(&mut overrides, change(Some(State::Drain), None)), (State::Drain, 9));
        assert_eq!(say(&mut overrides, None), (State::Up, 5));
    }

    #[test]
    fn the_answer_comes_when_no_worker_is_left_to_obey() {
        let (one, _mailbox) = mailbox::mailbox().unwrap();
        let (two, gone) = mailbox::mailbox().unwrap();
        let (reply, mut answer) = oneshot::channel();
        let change = Some(Change { state: Some(State::Down), weight: None });
        let mut overrides = Overrides::default();
        overrides.grant(&wish(change), &snapshot(), &[one.clone(), two.clone()], reply).unwrap();
        assert!(answer.try_recv().is_err(), "nobody has obeyed");
        // Both sides of the mailboxes go, and with them the messages.
        drop((one, _mailbox, two, gone));
        assert_eq!(answer.try_recv(), Ok(Obeyed { workers: 0, of: 2 }));
    }
}
