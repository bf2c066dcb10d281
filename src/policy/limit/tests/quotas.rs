//! Quotas of several workers under a virtual clock, over the turns of their periods.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use crate::policy::limit::{Ask, Calendar, Counts, Grant, Per, Period, Shard, Took, Turn};

const HOUR_NS: u64 = 3600 * 1_000_000_000;
const SWEEP_NS: u64 = 100_000_000;
const KEY: u64 = 0x1234_5678_9abc_def0;

#[derive(Clone, Copy)]
enum Message {
    Ask { from: usize, ask: Ask },
    Grant { to: usize, grant: Grant },
    Return { tokens: u32, period: Period },
}

/// Workers of which the first is the home of the only key.
struct Gateway {
    home: Counts,
    shards: Vec<(Shard<u64>, Turn)>,
    turn: Turn,
    /// By when they arrive.
    messages: BTreeMap<(u64, u64), Message>,
    serial: u64,
    delays_ns: VecDeque<u64>,
    /// By hour.
    passed: BTreeMap<u64, u32>,
    refused: u32,
    waiting: u32,
    cost: u32,
    sweep_ns: u64,
}

impl Gateway {
    fn new(workers: usize, quota: u32, cost: u32, delays_ns: Vec<u64>, begin_ns: u64) -> Gateway {
        let turn = Turn::new(Calendar { per: Per::Hour, offset_s: 0 }, begin_ns);
        Gateway {
            home: Counts::new(quota, 1000),
            shards: (1..workers).map(|_| (Shard::default(), turn)).collect(),
            turn,
            messages: BTreeMap::new(),
            serial: 0,
            delays_ns: delays_ns.into(),
            passed: BTreeMap::new(),
            refused: 0,
            waiting: 0,
            cost,
            sweep_ns: begin_ns,
        }
    }

    fn send(&mut self, now_ns: u64, message: Message) {
        let delay_ns = self.delays_ns.pop_front().unwrap_or(1000);
        self.delays_ns.push_back(delay_ns);
        self.serial += 1;
        self.messages.insert((now_ns + delay_ns, self.serial), message);
    }

    fn pass(&mut self, now_ns: u64) {
        *self.passed.entry(now_ns / HOUR_NS).or_default() += self.cost;
    }

    /// Everything that happens until then.
    fn run(&mut self, until_ns: u64) {
        loop {
            let next = self.messages.first_key_value().map_or(u64::MAX, |((at_ns, _), _)| *at_ns);
            if next.min(self.sweep_ns) > until_ns {
                return;
            }
            if self.sweep_ns <= next {
                self.sweep(self.sweep_ns);
                self.sweep_ns += SWEEP_NS;
            } else if let Some(((now_ns, _), message)) = self.messages.pop_first() {
                self.receive(now_ns, message);
            }
        }
    }

    fn receive(&mut self, now_ns: u64, message: Message) {
        self.turn.go(now_ns);
        match message {
            Message::Ask { from, ask } => {
                let workers = self.shards.len() as u32 + 1;
                let grant = self.home.ask(ask, workers, self.turn.now());
                self.send(now_ns, Message::Grant { to: from, grant });
            }
            Message::Return { tokens, period } => self.home.give(KEY, tokens, period),
            Message::Grant { to, mut grant } => {
                let (shard, turn) = &mut self.shards[to];
                if turn.go(now_ns) | turn.hear(grant.period) {
                    shard.void();
                }
                if turn.now().period != grant.period {
                    (grant.tokens, grant.empty_until) = (0, 0);
                }
                let (mut passed, mut refused) = (0, 0);
                let ask = shard.granted(&grant, now_ns, |_, _, result| match result {
                    Ok(_) => passed += 1,
                    Err(_) => refused += 1,
                });
                (0..passed).for_each(|_| self.pass(now_ns));
                self.waiting -= passed + refused;
                self.refused += refused;
                if let Some(ask) = ask {
                    self.send(now_ns, Message::Ask { from: to, ask });
                }
            }
        }
    }

    fn sweep(&mut self, now_ns: u64) {
        let mut back = Vec::new();
        for (shard, turn) in &mut self.shards {
            if turn.go(now_ns) {
                shard.void();
            }
            let period = turn.now().period;
            let give_back = |_, tokens| {
                back.push(Message::Return { tokens, period });
                true
            };
            shard.sweep(now_ns, give_back, |_| panic!("everybody is answered"));
        }
        back.into_iter().for_each(|message| self.send(now_ns, message));
    }

    fn request(&mut self, worker: usize, now_ns: u64) {
        self.run(now_ns);
        let cost = self.cost;
        if worker == 0 {
            self.turn.go(now_ns);
            match self.home.take(KEY, cost, self.turn.now()) {
                Ok(_) => self.pass(now_ns),
                Err(_) => self.refused += 1,
            }
            return;
        }
        let (shard, turn) = &mut self.shards[worker - 1];
        if turn.go(now_ns) {
            shard.void();
        }
        let from = worker - 1;
        match shard.take(KEY, cost, now_ns) {
            Took::Yes(_, ask) => {
                self.pass(now_ns);
                ask.into_iter().for_each(|ask| self.send(now_ns, Message::Ask { from, ask }));
            }
            Took::No(_) => self.refused += 1,
            Took::Ask(ask) => {
                shard.wait(KEY, cost, now_ns);
                self.waiting += 1;
                self.send(now_ns, Message::Ask { from, ask });
            }
            Took::Wait => {
                shard.wait(KEY, cost, now_ns);
                self.waiting += 1;
            }
        }
    }
}

/// Requests come all the time, over three turns of the hour: in each hour as many pass as may.
#[test]
fn in_every_hour_as_many_pass_as_may() {
    for workers in [1, 2, 4, 7] {
        for (quota, cost) in [(1, 1), (10, 3), (1000, 1), (20_000, 7)] {
            let begin_ns = 500_000 * HOUR_NS;
            let mut gateway =
                Gateway::new(workers, quota, cost, vec![20_000, 300_000, 5_000_000], begin_ns);
            // Twice what may pass, and the last second of each hour without any.
            let every_ns = (HOUR_NS - 1_000_000_000) / u64::from(2 * (quota / cost) + 50);
            for hour in 0..3 {
                for n in 0..u64::from(2 * (quota / cost) + 50) {
                    let worker = (n * 7 + n / 13) as usize % workers;
                    gateway.request(worker, begin_ns + hour * HOUR_NS + n * every_ns);
                }
            }
            gateway.run(begin_ns + 4 * HOUR_NS);
            let passed: Vec<u32> = gateway.passed.values().copied().collect();
            assert_eq!(passed, [quota / cost * cost; 3], "{workers} workers, {quota} by {cost}");
            assert_eq!(gateway.waiting, 0, "nobody waits for ever");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever the delays and the order, with the hour turning in the middle: in none does more
    /// pass than the quota, and everybody is answered.
    #[test]
    fn in_no_hour_passes_more(
        workers in 1..6usize,
        quota in 1..400u32,
        cost in 1..4u32,
        delays_ns in prop::collection::vec(0..400_000_000u64, 1..20),
        gaps in prop::collection::vec((0..4_000_000u64, 0..6usize), 1..2500),
    ) {
        let length_ns: u64 = gaps.iter().map(|(gap_ns, _)| gap_ns).sum();
        let turn_ns = 500_001 * HOUR_NS;
        let mut now_ns = turn_ns - length_ns / 2;
        let mut gateway = Gateway::new(workers, quota, cost, delays_ns, now_ns);
        let requests = gaps.len() as u32;
        for (gap_ns, worker) in gaps {
            now_ns += gap_ns;
            gateway.request(worker % workers, now_ns);
        }
        gateway.run(now_ns + 60_000_000_000);
        prop_assert!(gateway.passed.values().all(|passed| *passed <= quota), "{:?}", gateway.passed);
        prop_assert_eq!(gateway.waiting, 0);
        let passed: u32 = gateway.passed.values().sum();
        prop_assert_eq!(passed / cost + gateway.refused, requests);
        // When everything has gone back, nothing is counted that did not pass.
        let last = gateway.passed.get(&(now_ns / HOUR_NS)).copied().unwrap_or_default();
        gateway.turn.go(now_ns);
        let left = gateway.home.take(KEY, 0, gateway.turn.now()).map(|left| left.tokens);
        prop_assert_eq!(left, Ok(quota - last));
    }
}
