//! A fleet of gateways under a virtual clock: each has a home for the key and another worker, and
//! all of them ask one store, with messages that take their time.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::*;

/// Of a worker of a process.
type Place = (usize, usize);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Request {
        at: Place,
    },
    /// From a home to the store, and back.
    Order {
        process: usize,
        want: u32,
        least: u32,
        used: u32,
    },
    Lease {
        process: usize,
        grant: usize,
        empty_ns: u64,
    },
    Given {
        tokens: u32,
    },
    /// From a worker to its home, and back.
    Ask {
        process: usize,
        want: u32,
        least: u32,
        used: u32,
    },
    Grant {
        process: usize,
        grant: usize,
    },
    Return {
        process: usize,
        tokens: u32,
    },
    Sweep,
}

/// Who waits at a home.
#[derive(Clone, Copy, Debug)]
enum Waiter {
    Request,
    Worker,
}

struct Fleet {
    window: Window,
    store: Buckets,
    homes: Vec<Shard<Waiter>>,
    others: Vec<Shard<()>>,
    grants: Vec<Grant>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    serial: u64,
    now_ns: u64,
    random: u64,
    /// Of the way to the store.
    delay_ns: std::ops::Range<u64>,
    passed: Vec<u64>,
    refused: u64,
    waiting: u64,
    orders: u64,
}

const KEY: u64 = 7;

impl Fleet {
    fn new(processes: usize, window: Window, delay_ns: std::ops::Range<u64>) -> Fleet {
        Fleet {
            window,
            store: Buckets::new(&[window], 1000, 0),
            homes: (0..processes).map(|_| Shard::default()).collect(),
            others: (0..processes).map(|_| Shard::default()).collect(),
            grants: Vec::new(),
            events: BinaryHeap::new(),
            serial: 0,
            now_ns: 0,
            random: 0x9876_5432_1fed_cba9,
            delay_ns,
            passed: Vec::new(),
            refused: 0,
            waiting: 0,
            orders: 0,
        }
    }

    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn at(&mut self, at_ns: u64, event: Event) {
        self.serial += 1;
        self.events.push(Reverse((at_ns, self.serial, event)));
    }

    fn far(&mut self, event: Event) {
        let spread = (self.delay_ns.end - self.delay_ns.start).max(1);
        let delay_ns = self.delay_ns.start + self.random() % spread;
        self.at(self.now_ns + delay_ns, event);
    }

    fn near(&mut self, event: Event) {
        let delay_ns = 5_000 + self.random() % 50_000;
        self.at(self.now_ns + delay_ns, event);
    }

    fn order(&mut self, process: usize, ask: Ask) {
        let Ask { want, least, used, .. } = ask;
        self.orders += 1;
        self.far(Event::Order { process, want, least, used });
    }

    fn grant(&mut self, process: usize, grant: Grant) {
        self.grants.push(grant);
        self.near(Event::Grant { process, grant: self.grants.len() - 1 });
    }

    fn run(&mut self) {
        while let Some(Reverse((at_ns, _, event))) = self.events.pop() {
            self.now_ns = at_ns;
            self.step(event, moment(at_ns));
        }
        assert_eq!(self.waiting, 0, "nobody waits for ever");
        for (n, at_ns) in self.passed.iter().enumerate() {
            let Window { count, period_ns, burst, .. } = self.window;
            let came = u128::from(*at_ns) * u128::from(count) / u128::from(period_ns);
            let had = u64::from(burst) + came as u64;
            assert!((n as u64) < had, "{n} of {had} at {at_ns}");
        }
    }

    fn step(&mut self, event: Event, now: Moment) {
        match event {
            Event::Request { at } => self.request(at, now),
            Event::Order { process, want, least, used } => {
                // A store divides by what a home divides by that has half as many workers.
                let ask = Ask { key: KEY, want, least, used };
                let grant = self.store.ask(ask, crate::policy::limit::fleet::PARTS / 2, now);
                let empty_ns = nanos(grant.empty_until.saturating_sub(now));
                self.grants.push(grant);
                let grant = self.grants.len() - 1;
                self.far(Event::Lease { process, grant, empty_ns });
            }
            Event::Lease { process, grant, empty_ns } => {
                let grant = self.grants[grant];
                let empty_until = match empty_ns {
                    0 => 0,
                    _ => now + crate::policy::limit::fleet::hold(&[self.window], empty_ns),
                };
                self.leased(process, &Grant { empty_until, ..grant }, now);
            }
            Event::Given { tokens } => self.store.give(KEY, tokens, now),
            Event::Ask { process, want, least, used } => {
                let ask = Ask { key: KEY, want, least, used };
                match self.homes[process].lend(ask, 2, now) {
                    Lent::Now(grant, more) => {
                        self.grant(process, grant);
                        more.into_iter().for_each(|ask| self.order(process, ask));
                    }
                    Lent::Later(ask) => {
                        self.homes[process].wait_for(KEY, want, least, Waiter::Worker);
                        ask.into_iter().for_each(|ask| self.order(process, ask));
                    }
                }
            }
            Event::Grant { process, grant } => self.granted(process, grant, now),
            Event::Return { process, tokens } => {
                if !self.homes[process].give(KEY, tokens) {
                    self.far(Event::Given { tokens });
                }
            }
            Event::Sweep => self.sweep(now),
        }
    }

    fn tell(&mut self, result: Result<Left, Moment>) {
        self.waiting -= 1;
        match result {
            Ok(_) => self.passed.push(self.now_ns),
            Err(_) => self.refused += 1,
        }
    }

    fn leased(&mut self, process: usize, grant: &Grant, now: Moment) {
        let mut told = Vec::new();
        let ask = self.homes[process].granted(grant, now, |waiter, tokens, result| {
            told.push((waiter, tokens, result));
        });
        for (waiter, tokens, result) in told {
            match waiter {
                Waiter::Request => self.tell(result),
                Waiter::Worker => {
                    let (tokens, empty_until) = match result {
                        Ok(_) => (tokens, 0),
                        Err(until) => (0, until),
                    };
                    let grant = Grant { key: KEY, tokens, empty_until, ..*grant };
                    self.grant(process, grant);
                }
            }
        }
        if !self.homes[process].knows(KEY) {
            self.far(Event::Given { tokens: grant.tokens });
        }
        ask.into_iter().for_each(|ask| self.order(process, ask));
    }

    fn granted(&mut self, process: usize, grant: usize, now: Moment) {
        let (grant, mut told) = (self.grants[grant], Vec::new());
        let ask = self.others[process].granted(&grant, now, |(), _, result| told.push(result));
        told.into_iter().for_each(|result| self.tell(result));
        if !self.others[process].knows(KEY) {
            self.near(Event::Return { process, tokens: grant.tokens });
        }
        if let Some(Ask { want, least, used, .. }) = ask {
            self.near(Event::Ask { process, want, least, used });
        }
    }

    fn sweep(&mut self, now: Moment) {
        let (mut far, mut near) = (Vec::new(), Vec::new());
        for (process, (home, other)) in self.homes.iter_mut().zip(&mut self.others).enumerate() {
            let given = |_, tokens| {
                far.push(tokens);
                true
            };
            home.sweep(now, given, |_| panic!("everybody is answered"));
            let back = |_, tokens| {
                near.push((process, tokens));
                true
            };
            other.sweep(now, back, |()| panic!("everybody is answered"));
        }
        far.into_iter().for_each(|tokens| self.far(Event::Given { tokens }));
        near.into_iter().for_each(|(process, tokens)| self.near(Event::Return { process, tokens }));
    }

    fn request(&mut self, (process, worker): Place, now: Moment) {
        let took = match worker {
            0 => self.homes[process].take(KEY, 1, now),
            _ => self.others[process].take(KEY, 1, now),
        };
        let ask = match took {
            Took::Yes(_, ask) => {
                self.passed.push(self.now_ns);
                ask
            }
            Took::No(_) => {
                self.refused += 1;
                None
            }
            Took::Ask(ask) => Some(ask),
            Took::Wait => None,
        };
        if matches!(took, Took::Ask(_) | Took::Wait) {
            self.waiting += 1;
            match worker {
                0 => self.homes[process].wait(KEY, 1, Waiter::Request),
                _ => self.others[process].wait(KEY, 1, ()),
            }
        }
        match (ask, worker) {
            (Some(ask), 0) => self.order(process, ask),
            (Some(Ask { want, least, used, .. }), _) => {
                self.near(Event::Ask { process, want, least, used });
            }
            (None, _) => {}
        }
    }
}

/// How requests are spread over processes and workers.
type Spread = fn(random: u64, processes: usize, at_ns: u64) -> Place;

fn evenly(random: u64, processes: usize, _: u64) -> Place {
    ((random >> 8) as usize % processes, random as usize % 2)
}

/// Nearly all at one, which is another one each second.
fn by_turns(random: u64, processes: usize, at_ns: u64) -> Place {
    let one = (at_ns / SECOND_NS) as usize % processes;
    let process = if random.is_multiple_of(50) { (random >> 8) as usize % processes } else { one };
    (process, (random >> 16) as usize % 2)
}

/// Passed, ideal, and orders in a second.
fn run(
    processes: usize,
    window: Window,
    times: f64,
    delay_ns: std::ops::Range<u64>,
    spread: Spread,
) -> (u64, u64, u64) {
    const SECONDS: u64 = 5;
    let mut fleet = Fleet::new(processes, window, delay_ns);
    let every_ns = window.period_ns as f64 / f64::from(window.count) / times;
    let (mut at_ns, mut all) = (0, Vec::new());
    while at_ns < SECONDS * SECOND_NS {
        at_ns += (every_ns / 2.0) as u64 + fleet.random() % (every_ns as u64).max(1);
        let at = spread(fleet.random(), processes, at_ns);
        all.push(at_ns);
        fleet.at(at_ns, Event::Request { at });
    }
    for at_ns in (0..(SECONDS + 1) * SECOND_NS).step_by(100_000_000) {
        fleet.at(at_ns, Event::Sweep);
    }
    fleet.run();
    let passed = fleet.passed.len() as u64;
    assert_eq!(passed + fleet.refused, all.len() as u64, "everybody is told");
    (passed, oracle(&window, all.into_iter()), fleet.orders / SECONDS)
}

#[test]
fn a_fleet_lets_pass_what_one_bucket_would() {
    for processes in [1, 3, 8] {
        for (rate, burst) in [(10, 10), (100, 20), (1000, 100), (1000, 1000), (20_000, 4000)] {
            for times in [0.9, 1.5, 3.0] {
                for spread in [evenly as Spread, by_turns] {
                    for delay_ns in [50_000..200_000, 500_000..2_000_000] {
                        let window = Window::new(rate, SECOND_NS, burst);
                        let (passed, ideal, orders) =
                            run(processes, window, times, delay_ns.clone(), spread);
                        let off = passed.abs_diff(ideal);
                        let case = format!(
                            "{processes} processes, {rate}/s, burst {burst}, {times} times, \
                             {delay_ns:?}: {passed} of {ideal}, {orders} orders/s"
                        );
                        eprintln!("{case}");
                        assert!(off as f64 <= (ideal as f64 * 0.03).max(1.0), "{case}");
                    }
                }
            }
        }
    }
}
