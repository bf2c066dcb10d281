//! When something is done about a name: pure, so that it can be tested.

use std::{
    ops::Range,
    time::{Duration, SystemTime},
};

use crate::{config::snapshot::Issued, telemetry::request_id::Random};

/// After a failed order; then twice as long each time. Let's Encrypt takes five failures of a name
/// in an hour: this stays below.
const RETRY_FIRST: Duration = Duration::from_secs(120);
const RETRY_MAX: Duration = Duration::from_secs(6 * 3600);
/// An authority that cannot be reached counts no failures: it may be asked sooner.
const REACH_FIRST: Duration = Duration::from_secs(10);
const REACH_MAX: Duration = Duration::from_secs(900);
/// Longest that an authority may ask us to wait.
const ASKED_MAX: Duration = Duration::from_secs(24 * 3600);
/// A certificate that was just issued is left alone for at least this long, or a third of what is
/// left of it, whatever the authority suggests.
const REST_MAX: Duration = Duration::from_secs(24 * 3600);
const REST_MIN: Duration = Duration::from_secs(1);
/// How often the authority is asked when it wants a certificate renewed (RFC 9773 §4.3).
const SUGGESTION_MIN: Duration = Duration::from_secs(3600);
const SUGGESTION_MAX: Duration = Duration::from_secs(24 * 3600);

/// A number from 0 to 1.
pub fn share(random: &Random) -> f64 {
    (random.next() >> 11) as f64 / (1u64 << 53) as f64
}

/// When a certificate is renewed: at two thirds of its lifetime, a bit earlier by chance, so that
/// what was issued together is not renewed together.
pub fn renewal(issued: &Issued, share: f64) -> SystemTime {
    issued.not_before + issued.lifetime().mul_f64(2.0 / 3.0 - share / 30.0)
}

/// The same within the authority's window, but never in the last tenth of its lifetime, nor in the
/// first `rest`: an authority whose window stays in the past gets no order after the other.
pub fn suggested(
    issued: &Issued,
    window: &Range<SystemTime>,
    share: f64,
    rest: Duration,
) -> SystemTime {
    let wide = window.end.duration_since(window.start).unwrap_or_default();
    let last = issued.not_after - issued.lifetime() / 10;
    (window.start + wide.mul_f64(share)).max(issued.not_before + rest).min(last)
}

/// How long a name waits after it has failed so many times in a row.
pub fn pause(failures: u32, is_unreachable: bool, asked: Option<Duration>, share: f64) -> Duration {
    let (first, max) = match is_unreachable {
        true => (REACH_FIRST, REACH_MAX),
        false => (RETRY_FIRST, RETRY_MAX),
    };
    let doubled = first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(max);
    doubled.mul_f64(1.0 + share / 4.0).max(asked.unwrap_or_default().min(ASKED_MAX))
}

/// How long a certificate that is new at `now` is left alone.
pub fn rest(issued: &Issued, now: SystemTime) -> Duration {
    let left = issued.not_after.duration_since(now).unwrap_or_default();
    (left / 3).clamp(REST_MIN, REST_MAX)
}

/// When the authority is asked again for its suggestion; it says itself when.
pub fn next_suggestion(said: Option<Duration>, share: f64) -> Duration {
    let after = said.unwrap_or(SUGGESTION_MAX / 4).clamp(SUGGESTION_MIN, SUGGESTION_MAX);
    after.mul_f64(1.0 + share / 10.0)
}

/// Before the first time: a start alone asks nobody anything.
pub fn first_suggestion(share: f64) -> Duration {
    SUGGESTION_MIN.mul_f64(0.2 + 0.8 * share)
}

/// A pause as it is made. Tests of debug builds make all of them shorter.
pub fn paced(pause: Duration) -> Duration {
    #[cfg(debug_assertions)]
    if let Some(factor) = std::env::var("RINGWAY_DRILL_ACME_PACE").ok().and_then(|f| f.parse().ok())
    {
        return pause.mul_f64(factor);
    }
    pause
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::UNIX_EPOCH};

    use rustls::{crypto::aws_lc_rs::sign::any_supported_type, sign::CertifiedKey};

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn issued(days: u32) -> Issued {
        let made = rcgen::generate_simple_self_signed(Vec::new()).expect("made");
        let der = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der());
        let key = any_supported_type(&der.expect("a key")).expect("supported");
        let key = Arc::new(CertifiedKey::new(vec![made.cert.der().clone()], key));
        Issued { key, not_before: UNIX_EPOCH, not_after: UNIX_EPOCH + DAY * days }
    }

    fn day(at: SystemTime) -> f64 {
        at.duration_since(UNIX_EPOCH).expect("later").as_secs_f64() / DAY.as_secs_f64()
    }

    #[test]
    fn renewed_at_two_thirds_and_not_together() {
        let (first, last) = (renewal(&issued(90), 1.0), renewal(&issued(90), 0.0));
        assert!((day(first) - 57.0).abs() < 0.01 && (day(last) - 60.0).abs() < 0.01);
    }

    #[test]
    fn the_authority_may_want_it_earlier_or_later_but_not_too_late() {
        let at = |days: u32| UNIX_EPOCH + DAY * days;
        let of = |start: u32, end: u32, share| {
            day(suggested(&issued(90), &(at(start)..at(end)), share, DAY))
        };
        assert!((of(0, 0, 0.5) - 1.0).abs() < 0.01, "a window that stays in the past");
        assert!((of(2, 4, 0.5) - 3.0).abs() < 0.01);
        assert!((of(70, 74, 0.0) - 70.0).abs() < 0.01);
        assert!((of(89, 100, 0.9) - 81.0).abs() < 0.01);
        assert!((of(5, 3, 0.9) - 5.0).abs() < 0.01, "a window that ends before it begins");
    }

    #[test]
    fn pauses_grow_and_are_bounded() {
        let minutes = |failures| pause(failures, false, None, 0.0).as_secs() / 60;
        let all: Vec<u64> = [1, 2, 3, 4, 5, 6, 7, 8, 9, 40].map(minutes).into();
        assert_eq!(all, [2, 4, 8, 16, 32, 64, 128, 256, 360, 360]);
        // Tries of the first hour, of which an authority takes five.
        let tries = all.iter().scan(0, |at, pause| {
            *at += pause;
            Some(*at)
        });
        assert_eq!(1 + tries.filter(|at| *at < 60).count(), 5);
        assert_eq!(pause(1, true, None, 0.0).as_secs(), 10);
        assert_eq!(pause(99, true, None, 1.0).as_secs(), 900 + 225);
        assert_eq!(pause(1, false, Some(DAY / 2), 0.0), DAY / 2);
        assert_eq!(pause(1, false, Some(DAY * 100), 0.0), DAY);
    }

    #[test]
    fn a_new_certificate_rests() {
        let seconds = |until: u64, now: u64| {
            let mut issued = issued(90);
            issued.not_after = UNIX_EPOCH + Duration::from_secs(until);
            rest(&issued, UNIX_EPOCH + Duration::from_secs(now)).as_secs()
        };
        assert_eq!(seconds(90 * 86400, 3600), REST_MAX.as_secs());
        assert_eq!(seconds(9, 0), 3);
        // Mostly over when it comes.
        assert_eq!(seconds(90 * 86400, 90 * 86400 - 3600), 1200);
        assert_eq!(seconds(9, 9), 1);
    }

    #[test]
    fn suggestions_are_asked_for_neither_too_often_nor_too_rarely() {
        assert_eq!(next_suggestion(Some(Duration::ZERO), 0.0), SUGGESTION_MIN);
        assert_eq!(next_suggestion(Some(DAY * 9), 0.0), DAY);
        assert_eq!(next_suggestion(None, 0.0), DAY / 4);
        assert!(first_suggestion(0.0) > Duration::from_secs(600));
    }
}
