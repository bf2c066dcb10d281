//! Choosing an endpoint, and noting that a request begins and ends there.

use std::hint::black_box;

use ringway::policy::balance::{Balance, Balancer, TriedSet};

use crate::measure::Cases;

pub fn cases(cases: &mut Cases) {
    for (name, balance, endpoints) in [
        ("balance/one", Balance::RoundRobin, 1),
        ("balance/round-robin-8", Balance::RoundRobin, 8),
        ("balance/least-request-8", Balance::LeastRequest, 8),
        ("balance/random-8", Balance::Random, 8),
    ] {
        let mut balancer = Balancer::new(balance, (0..endpoints).map(|i| 1 + i % 2));
        let tried = TriedSet::default();
        // The same numbers in every run, so that the same endpoints are chosen.
        let mut random = 1u64;
        cases.case(name, || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let found = black_box(&mut balancer).pick(&tried, 1, random);
            let endpoint = found.expect("an endpoint that serves");
            balancer.started(endpoint);
            balancer.finished(endpoint);
        });
    }
}
