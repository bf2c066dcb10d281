//! Shards and homes under a virtual clock, with messages that take any time, against one bucket
//! that sees every request at once.

mod quotas;

use std::collections::BinaryHeap;

use proptest::prelude::*;

use super::*;

mod fleet;

const SECOND_NS: u64 = 1_000_000_000;

/// What happens at a moment; the number keeps the order of what happens at the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Request { worker: usize, key: u64 },
    Ask { from: usize, key: u64, want: u32, least: u32, used: u32 },
    Grant { to: usize, at: usize },
    Return { key: u64, tokens: u32 },
    Sweep,
}

/// A gateway of which only the limiter is there.
struct Gateway {
    homes: Vec<Buckets>,
    shards: Vec<Shard<u64>>,
    grants: Vec<Grant>,
    events: BinaryHeap<std::cmp::Reverse<(u64, u64, Event)>>,
    serial: u64,
    now_ns: u64,
    /// Of the messages, chosen anew for each.
    delay_ns: std::ops::Range<u64>,
    random: u64,
    cost: u32,
    passed: Vec<u64>,
    refused: u64,
    waiting: u64,
    messages: u64,
}

impl Gateway {
    fn new(workers: usize, windows: &[Window], delay_ns: std::ops::Range<u64>) -> Gateway {
        Gateway {
            homes: (0..workers).map(|_| Buckets::new(windows, 10_000, 0)).collect(),
            shards: (0..workers).map(|_| Shard::default()).collect(),
            grants: Vec::new(),
            events: BinaryHeap::new(),
            serial: 0,
            now_ns: 0,
            delay_ns,
            random: 0x1234_5678_9abc_def1,
            cost: 1,
            passed: Vec::new(),
            refused: 0,
            waiting: 0,
            messages: 0,
        }
    }

    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn home(&self, key: u64) -> usize {
        (key % self.homes.len() as u64) as usize
    }

    fn at(&mut self, at_ns: u64, event: Event) {
        self.serial += 1;
        self.events.push(std::cmp::Reverse((at_ns, self.serial, event)));
    }

    fn send(&mut self, event: Event) {
        let spread = (self.delay_ns.end - self.delay_ns.start).max(1);
        let delay_ns = self.delay_ns.start + self.random() % spread;
        self.messages += 1;
        self.at(self.now_ns + delay_ns, event);
    }

    fn ask(&mut self, from: usize, ask: Ask) {
        let Ask { key, want, least, used } = ask;
        self.send(Event::Ask { from, key, want, least, used });
    }

    fn pass(&mut self) {
        self.passed.push(self.now_ns);
    }

    /// Until nothing is left to happen.
    fn run(&mut self) {
        while let Some(std::cmp::Reverse((at_ns, _, event))) = self.events.pop() {
            self.now_ns = at_ns;
            self.step(event);
        }
        assert_eq!(self.waiting, 0, "nobody waits for ever");
    }

    fn step(&mut self, event: Event) {
        let now = moment(self.now_ns);
        match event {
            Event::Request { worker, key } => self.request(worker, key, now),
            Event::Ask { from, key, want, least, used } => {
                let (home, workers) = (self.home(key), self.homes.len() as u32);
                let grant = self.homes[home].ask(Ask { key, want, least, used }, workers, now);
                self.grants.push(grant);
                self.send(Event::Grant { to: from, at: self.grants.len() - 1 });
            }
            Event::Grant { to, at } => {
                let grant = self.grants[at];
                let (mut passed, mut refused) = (0, 0);
                let ask = self.shards[to].granted(&grant, now, |_, _, result| match result {
                    Ok(_) => passed += 1,
                    Err(_) => refused += 1,
                });
                (0..passed).for_each(|_| self.pass());
                self.refused += refused;
                self.waiting -= passed + refused;
                if let Some(ask) = ask {
                    self.ask(to, ask);
                }
            }
            Event::Return { key, tokens } => {
                let home = self.home(key);
                self.homes[home].give(key, tokens, now);
            }
            Event::Sweep => {
                let mut back = Vec::new();
                for shard in &mut self.shards {
                    let give_back = |key, tokens| {
                        back.push((key, tokens));
                        true
                    };
                    shard.sweep(now, give_back, |_| panic!("everybody is answered"));
                }
                back.into_iter().for_each(|(key, tokens)| self.send(Event::Return { key, tokens }));
            }
        }
    }

    fn request(&mut self, worker: usize, key: u64, now: Moment) {
        let home = self.home(key);
        if worker == home {
            match self.homes[home].take(key, self.cost, now) {
                Ok(_) => self.pass(),
                Err(_) => self.refused += 1,
            }
            return;
        }
        let cost = self.cost;
        match self.shards[worker].take(key, cost, now) {
            Took::Yes(_, ask) => {
                self.pass();
                if let Some(ask) = ask {
                    self.ask(worker, ask);
                }
            }
            Took::No(until) => {
                assert!(until > now);
                self.refused += 1;
            }
            Took::Ask(ask) => {
                self.shards[worker].wait(key, cost, self.serial);
                self.waiting += 1;
                self.ask(worker, ask);
            }
            Took::Wait => {
                self.shards[worker].wait(key, cost, self.serial);
                self.waiting += 1;
            }
        }
    }

    fn sweeps(&mut self, until_ns: u64) {
        for at_ns in (0..until_ns + SECOND_NS).step_by(100_000_000) {
            self.at(at_ns, Event::Sweep);
        }
    }

    /// Never more than the bucket had, from the beginning to any moment.
    fn never_more(&self, window: &Window) {
        for (n, at_ns) in self.passed.iter().enumerate() {
            let had = u64::from(window.burst)
                + (u128::from(*at_ns) * u128::from(window.count) / u128::from(window.period_ns))
                    as u64;
            let spent = (n as u64 + 1) * u64::from(self.cost);
            assert!(spent <= had, "{spent} of {had} at {at_ns}");
        }
    }
}

/// What one bucket lets pass of these requests.
fn oracle(window: &Window, requests: impl Iterator<Item = u64>) -> u64 {
    let (mut full, mut passed) = (0, 0);
    for at_ns in requests {
        if let Some(next) = window.take(full, 1, moment(at_ns)) {
            full = next;
            passed += 1;
        }
    }
    passed
}

/// How requests come: which worker, and how long after the one before.
type Arrival = fn(n: u64, random: u64, every_ns: u64) -> u64;

fn steady(_: u64, random: u64, every_ns: u64) -> u64 {
    every_ns / 2 + random % every_ns.max(1)
}

/// A hundred at once, then as long a break as they would have taken.
fn bursty(n: u64, _: u64, every_ns: u64) -> u64 {
    if n.is_multiple_of(100) { 100 * every_ns } else { 0 }
}

fn exact(workers: usize, rate: u32, burst: u32, one_worker: bool, arrival: Arrival) -> u64 {
    let seconds = if rate > 10_000 { 1 } else { 5 };
    let window = Window::new(rate, SECOND_NS, burst);
    let mut gateway = Gateway::new(workers, &[window], 20_000..300_000);
    // Twice as many as may pass.
    let every_ns = SECOND_NS / (2 * u64::from(rate));
    let (mut at_ns, mut times) = (0, Vec::new());
    for n in 0.. {
        at_ns += arrival(n, gateway.random(), every_ns);
        if at_ns > seconds * SECOND_NS {
            break;
        }
        let any = gateway.random() as usize % workers;
        let worker = if one_worker { workers - 1 } else { any };
        times.push(at_ns);
        gateway.at(at_ns, Event::Request { worker, key: 8 });
    }
    gateway.sweeps(seconds * SECOND_NS);
    gateway.run();
    gateway.never_more(&window);
    let (passed, asked) = (gateway.passed.len() as u64, times.len() as u64);
    let ideal = oracle(&window, times.into_iter());
    let off = passed.abs_diff(ideal);
    assert!(
        off <= (ideal / 100).max(1),
        "{workers} workers, {rate}/s, burst {burst}, one {one_worker}: {passed} of {ideal}"
    );
    assert_eq!(passed + gateway.refused, asked, "everybody is told");
    if workers == 1 {
        assert_eq!(gateway.messages, 0);
    }
    gateway.messages
}

#[test]
fn the_rate_is_exact_however_requests_are_spread() {
    for workers in [1, 2, 4, 7] {
        for (rate, burst) in [(10, 10), (1000, 100), (1000, 1000), (50_000, 5000)] {
            for one_worker in [false, true] {
                exact(workers, rate, burst, one_worker, steady);
                exact(workers, rate, burst, one_worker, bursty);
            }
        }
    }
}

#[test]
fn requests_below_the_rate_need_few_messages_and_all_pass() {
    let window = Window::new(10_000, SECOND_NS, 10_000);
    let mut gateway = Gateway::new(4, &[window], 20_000..300_000);
    let requests = 25_000u64;
    for n in 0..requests {
        let worker = gateway.random() as usize % 4;
        gateway.at(n * 200_000, Event::Request { worker, key: 8 });
    }
    gateway.sweeps(5 * SECOND_NS);
    gateway.run();
    assert_eq!(gateway.passed.len() as u64, requests);
    assert!(gateway.messages < requests / 20, "{} messages", gateway.messages);
}

#[test]
fn what_is_not_used_goes_back() {
    let window = Window::new(1, 3600 * SECOND_NS, 1000);
    let mut gateway = Gateway::new(4, &[window], 20_000..300_000);
    for n in 0..500 {
        gateway.at(n * 1_000_000, Event::Request { worker: 1 + (n % 3) as usize, key: 8 });
    }
    gateway.sweeps(2 * SECOND_NS);
    gateway.run();
    assert_eq!(gateway.passed.len(), 500);
    assert!(gateway.shards.iter().all(Shard::is_empty), "nothing is on lease");
    assert_eq!(gateway.homes[0].left(8, moment(gateway.now_ns)).tokens, 500);
}

#[test]
fn a_key_that_is_empty_costs_few_messages() {
    let window = Window::new(10, SECOND_NS, 10);
    let mut gateway = Gateway::new(4, &[window], 20_000..300_000);
    // 10,000 a second for two seconds.
    for n in 0..20_000u64 {
        gateway.at(n * 100_000, Event::Request { worker: (n % 4) as usize, key: 8 });
    }
    gateway.run();
    assert_eq!(gateway.passed.len(), 29, "10, and two seconds' without the last moment's");
    // Each token that comes is asked for by three at most.
    assert!(gateway.messages < 400, "{} messages", gateway.messages);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the delays, the costs and the order, with keys that get leases taken back.
    #[test]
    fn never_more_than_agreed(
        workers in 1..6usize,
        rate in 1..5000u32,
        burst in 5..500u32,
        cost in 1..5u32,
        delay_ns in 0..20_000_000u64,
        gaps in prop::collection::vec((0..5_000_000u64, 0..6usize), 1..2000),
    ) {
        let window = Window::new(rate, SECOND_NS, burst);
        let mut gateway = Gateway::new(workers, &[window], delay_ns..delay_ns + 1_000_000);
        gateway.cost = cost;
        let (mut at_ns, requests) = (0, gaps.len() as u64);
        for (gap_ns, worker) in gaps {
            at_ns += gap_ns;
            gateway.at(at_ns, Event::Request { worker: worker % workers, key: 8 });
        }
        gateway.sweeps(at_ns);
        gateway.run();
        gateway.never_more(&window);
        prop_assert_eq!(gateway.passed.len() as u64 + gateway.refused, requests);
        // When everything has gone back, no token is missing.
        let spent = gateway.passed.len() as u64 * u64::from(cost);
        let leases: Vec<_> = gateway.shards.iter().flat_map(Shard::leases).collect();
        prop_assert!(leases.iter().all(|(_, tokens)| *tokens == 0), "{:?} {}", gateway.shards, gateway.now_ns);
        let (home, now) = (gateway.home(8), moment(gateway.now_ns));
        let left = gateway.homes[home].left(8, now).tokens;
        let came = u64::from(burst) + gateway.now_ns * u64::from(rate) / SECOND_NS;
        prop_assert!(u64::from(left) <= came - spent);
        prop_assert!(u64::from(left) + spent >= u64::from(burst));
    }

    /// Nothing is lost for a client that stays below its rate.
    #[test]
    fn who_keeps_to_the_rate_always_passes(
        workers in 1..6usize,
        rate in 1..2000u32,
        delay_ns in 0..2_000_000u64,
    ) {
        // A burst as large as what can be on lease at once, and under way.
        let window = Window::new(rate, SECOND_NS, rate.max(20));
        let mut gateway = Gateway::new(workers, &[window], delay_ns..delay_ns + 100_000);
        for n in 0..1000u64 {
            let worker = gateway.random() as usize % workers;
            gateway.at(n * SECOND_NS / u64::from(rate), Event::Request { worker, key: 8 });
        }
        gateway.sweeps(1000 * SECOND_NS / u64::from(rate));
        gateway.run();
        prop_assert_eq!(gateway.passed.len(), 1000);
    }
}
