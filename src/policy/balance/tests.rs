use proptest::prelude::*;

use super::*;

const NONE: TriedSet = TriedSet { bits: Vec::new() };

fn tried(endpoints: &[usize]) -> TriedSet {
    let mut set = TriedSet::default();
    endpoints.iter().for_each(|e| set.insert(*e));
    set
}

#[test]
fn smooth_round_robin_spreads_the_heavy_endpoint() {
    let mut balancer = Balancer::new(Balance::RoundRobin, [5, 1, 1]);
    let turns: Vec<_> = (0..7).map(|_| balancer.pick(&NONE, 0, 0).unwrap()).collect();
    assert_eq!(turns, [0, 0, 1, 0, 2, 0, 0]);
}

#[test]
fn every_balance_ends_with_none_after_trying_each_endpoint_once() {
    for balance in [Balance::RoundRobin, Balance::LeastRequest, Balance::Random] {
        for count in [1, 2, 3, ENDPOINTS_MAX] {
            let mut balancer = Balancer::new(balance, vec![1; count]);
            let mut set = TriedSet::default();
            for n in 0..count {
                let random = (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let i = balancer.pick(&set, 0, random).expect("one is left");
                assert!(!set.contains(i));
                set.insert(i);
            }
            assert_eq!(balancer.pick(&set, 0, 7), None, "{balance:?} {count}");
        }
        assert_eq!(Balancer::new(balance, []).pick(&NONE, 0, 0), None);
    }
}

#[test]
fn a_cooling_endpoint_is_avoided_but_not_refused() {
    for balance in [Balance::RoundRobin, Balance::LeastRequest, Balance::Random] {
        let mut balancer = Balancer::new(balance, [100, 1]);
        balancer.connect_failed(0, 50);
        for n in 0..20u64 {
            let random = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            assert_eq!(balancer.pick(&NONE, 49, random), Some(1), "{balance:?}");
        }
        assert_eq!(balancer.pick(&tried(&[1]), 49, 0), Some(0), "{balance:?}");
        balancer.connect_failed(1, 60);
        assert!(balancer.pick(&NONE, 49, 0).is_some(), "{balance:?}");
        assert_eq!(balancer.pick(&tried(&[1]), 50, 0), Some(0), "{balance:?}");
        let back = (0..20u64).any(|n| balancer.pick(&NONE, 50, n << 59 | n) == Some(0));
        assert!(back, "{balance:?}");
        balancer.connected(1);
        let seen = (0..400u64).any(|n| {
            let random = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            balancer.pick(&tried(&[0]), 50, random) == Some(1)
        });
        assert!(seen, "{balance:?}");
    }
}

#[test]
fn the_only_endpoint_is_used_even_while_cooling() {
    let mut balancer = Balancer::new(Balance::RoundRobin, [1]);
    balancer.connect_failed(0, 1000);
    assert_eq!(balancer.pick(&NONE, 0, 0), Some(0));
    assert_eq!(balancer.pick(&tried(&[0]), 0, 0), None);
}

proptest! {
    /// Over a cycle each endpoint serves exactly as often as its weight says, from any point on.
    #[test]
    fn round_robin_is_exact(weights in prop::collection::vec(1u32..20, 2..12), skip in 0usize..50) {
        let mut balancer = Balancer::new(Balance::RoundRobin, weights.clone());
        for _ in 0..skip {
            balancer.pick(&NONE, 0, 0);
        }
        let mut served = vec![0; weights.len()];
        for _ in 0..weights.iter().sum() {
            served[balancer.pick(&NONE, 0, 0).unwrap()] += 1;
        }
        prop_assert_eq!(served, weights);
    }

    /// Of two endpoints the less loaded for its weight is always chosen.
    #[test]
    fn least_request_takes_the_less_loaded(
        weights in [1u32..9, 1u32..9], load in [0u32..9, 0u32..9], random: u64,
    ) {
        let mut balancer = Balancer::new(Balance::LeastRequest, weights);
        for (i, count) in load.into_iter().enumerate() {
            (0..count).for_each(|_| balancer.started(i));
        }
        let picked = balancer.pick(&NONE, 0, random).unwrap();
        let score = |i: usize| f64::from(load[i] + 1) / f64::from(weights[i]);
        prop_assert!(score(picked) <= score(1 - picked) + 1e-9);
        for (i, count) in load.into_iter().enumerate() {
            prop_assert_eq!(balancer.in_flight(i), count);
            (0..count).for_each(|_| balancer.finished(i));
            prop_assert_eq!(balancer.in_flight(i), 0);
        }
    }

    /// The random choice falls on each endpoint for its share of the random numbers.
    #[test]
    fn random_follows_the_weights(weights in prop::collection::vec(1u32..20, 2..12)) {
        let mut balancer = Balancer::new(Balance::Random, weights.clone());
        let total: u32 = weights.iter().sum();
        let mut served = vec![0; weights.len()];
        for n in 0..total {
            let middle = ((u128::from(n) * 2 + 1) << 63) / u128::from(total);
            served[balancer.pick(&NONE, 0, middle as u64).unwrap()] += 1;
        }
        prop_assert_eq!(served, weights);
    }

    /// Whatever is tried, cooling or taken out: the choice is untried, up if any is, never down,
    /// and cool if any such is.
    #[test]
    fn never_tried_or_down_and_cool_if_possible(
        states in prop::collection::vec((
            1u32..5, any::<bool>(), any::<bool>(),
            prop::sample::select(vec![State::Up, State::Up, State::Drain, State::Down]),
        ), 1..20),
        random: u64,
        balance in prop::sample::select(vec![
            Balance::RoundRobin, Balance::LeastRequest, Balance::Random,
        ]),
    ) {
        let mut balancer = Balancer::new(balance, states.iter().map(|s| s.0));
        let mut set = TriedSet::default();
        let is_any_up = states.iter().any(|s| s.3 == State::Up);
        let serving = if is_any_up { State::Up } else { State::Drain };
        for (i, (weight, is_tried, cooling, state)) in states.iter().enumerate() {
            balancer.set(i, *state, *weight);
            if *is_tried {
                set.insert(i);
            }
            if *cooling {
                balancer.connect_failed(i, 100);
            }
        }
        match balancer.pick(&set, 99, random) {
            None => prop_assert!(states.iter().all(|s| s.1 || s.3 != serving)),
            Some(i) => {
                prop_assert!(!states[i].1 && states[i].3 == serving);
                let is_cool = |s: &(u32, bool, bool, State)| !s.1 && !s.2 && s.3 == serving;
                prop_assert!(!states[i].2 || !states.iter().any(is_cool));
            }
        }
    }
}

const BALANCES: [Balance; 3] = [Balance::RoundRobin, Balance::LeastRequest, Balance::Random];

#[test]
fn who_serves_by_state() {
    use State::{Down, Drain, Up};
    for (states, serving) in [
        (&[Up, Up, Up][..], &[0, 1, 2][..]),
        (&[Up, Drain, Up], &[0, 2]),
        (&[Up, Drain, Down], &[0]),
        (&[Drain, Drain, Down], &[0, 1]),
        (&[Down, Drain, Down], &[1]),
        (&[Down, Down, Down], &[]),
        (&[Drain], &[0]),
        (&[Down], &[]),
    ] {
        for balance in BALANCES {
            let mut balancer = Balancer::new(balance, vec![1; states.len()]);
            for (i, state) in states.iter().enumerate() {
                balancer.set(i, *state, 1);
            }
            let mut picked = std::collections::BTreeSet::new();
            for n in 0..200u64 {
                let random = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                picked.extend(balancer.pick(&NONE, 0, random));
            }
            assert_eq!(picked.into_iter().collect::<Vec<_>>(), serving, "{balance:?} {states:?}");
            let serves: Vec<_> = (0..states.len()).filter(|i| balancer.serves(*i)).collect();
            assert_eq!(serves, serving, "{states:?}");
        }
    }
}

#[test]
fn a_drained_endpoint_gets_nothing_even_when_the_others_fail() {
    for balance in BALANCES {
        let mut balancer = Balancer::new(balance, [1, 1, 1]);
        balancer.set(2, State::Drain, 1);
        balancer.connect_failed(0, 100);
        balancer.connect_failed(1, 100);
        assert!(balancer.pick(&NONE, 50, 3).is_some_and(|i| i < 2), "{balance:?}");
        assert_eq!(balancer.pick(&tried(&[0, 1]), 50, 3), None, "{balance:?}");
    }
}

#[test]
fn an_endpoint_that_comes_back_owes_nothing() {
    let mut balancer = Balancer::new(Balance::RoundRobin, [1, 1]);
    balancer.set(0, State::Down, 1);
    (0..100).for_each(|_| assert_eq!(balancer.pick(&NONE, 0, 0), Some(1)));
    balancer.set(0, State::Up, 3);
    let turns: Vec<_> = (0..8).map(|_| balancer.pick(&NONE, 0, 0).unwrap()).collect();
    assert_eq!(turns.iter().filter(|i| **i == 0).count(), 6, "by its new weight: {turns:?}");
}

#[test]
fn what_is_known_of_an_endpoint_is_carried_over() {
    let mut before = Balancer::new(Balance::LeastRequest, [1, 1]);
    before.started(1);
    before.started(1);
    before.connect_failed(0, 500);
    // What was first is second now.
    let mut now = Balancer::new(Balance::Random, [1, 1]);
    now.carry(0, &before, 1);
    now.carry(1, &before, 0);
    assert_eq!((now.in_flight(0), now.in_flight(1)), (2, 0));
    before.finished(1);
    assert_eq!(now.in_flight(0), 1, "a request of the earlier configuration ended");
    for random in [0, u64::MAX] {
        assert_eq!(now.pick(&TriedSet::default(), 499, random), Some(0), "the other cools down");
    }
    assert_eq!(now.pick(&TriedSet::default(), 500, u64::MAX), Some(1));
}
