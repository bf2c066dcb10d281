//! The trace an exchange belongs to: continued from the caller's or begun here, recorded or not.
//!
//! Every exchange of a gateway that traces has one, in place and without memory of its own. What is
//! kept of it for export ([`spans`]) is made only when it is recorded.
//!
//! **Who decides.** Anybody can write `traceparent`. A caller whose word counts (a trusted proxy,
//! unless `parent = "ignore"`) decides by its flag; else the share configured does. The share is
//! taken by trace id, so that all gateways that see a trace agree, but only where the id is our own
//! or a trusted proxy's: anybody else could choose ids that are always taken, so for them it is a
//! random number. Their trace is continued all the same.

pub mod parent;
pub mod queue;
pub mod spans;

use std::cell::{Cell, RefCell};

use super::request_id::Random;
use crate::wire::RequestHead;
use parent::{RANDOM, SAMPLED, SPAN_ID_AT, SPAN_ID_LEN, TraceParent};
use spans::Try;

/// Tries of one exchange that have a span of their own; of further ones only the number is kept.
pub const TRIES_MAX: usize = 16;

/// A share of traces, as OpenTelemetry's `TraceIdRatioBased` takes it: the last eight bytes of the
/// trace id, halved, are below a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampling {
    below: u64,
}

impl Sampling {
    /// `ratio` is from 0 (none) to 1 (all).
    pub fn of(ratio: f64) -> Sampling {
        Sampling { below: (ratio.clamp(0.0, 1.0) * (1u64 << 63) as f64) as u64 }
    }

    fn takes(self, draw: u64) -> bool {
        draw >> 1 < self.below
    }
}

/// Which traces are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampler {
    pub sampling: Sampling,
    /// A trusted caller's flag decides.
    pub follows_parent: bool,
}

/// The trace of one exchange.
#[derive(Debug)]
pub struct Trace {
    pub id: u128,
    /// The gateway's own span.
    pub span_id: u64,
    /// The caller's span; 0 when the trace begins here.
    pub parent_id: u64,
    /// It is recorded, and whoever is called is told so.
    pub is_sampled: bool,
    /// The request's `tracestate` goes with it.
    pub keeps_state: bool,
    /// Of the caller's flags, those that are not ours to decide.
    flags: u8,
    /// What a trusted caller decided.
    said: Option<bool>,
    /// What a share is compared with.
    draw: u64,
    /// The span of the try that runs.
    try_id: Cell<u64>,
    /// Where in the forwarded head that span's id stands.
    try_id_at: Cell<u32>,
    /// Only when recorded.
    pub recorded: RefCell<Recorded>,
    /// Its spans are on their way.
    pub is_handed_over: Cell<bool>,
}

/// What is noted of a recorded exchange on its way. Allocates nothing while empty.
#[derive(Debug, Default)]
pub struct Recorded {
    /// The path as forwarded, without the query.
    pub forwarded_path: Vec<u8>,
    pub tries: Vec<Try>,
    /// Tries beyond [`TRIES_MAX`].
    pub tries_left_out: u32,
}

impl Trace {
    /// The trace of the request whose head is in `buf`.
    pub fn begin(
        head: &RequestHead,
        buf: &[u8],
        is_trusted: bool,
        sampler: &Sampler,
        random: &Random,
    ) -> Trace {
        let mut trace = match parent::received(&head.fields, buf) {
            None => Trace::root(random),
            Some((parent, keeps_state)) => {
                let own_draw = || random.next();
                Trace {
                    keeps_state,
                    said: (is_trusted && sampler.follows_parent)
                        .then_some(parent.flags & SAMPLED != 0),
                    draw: if is_trusted { parent.trace_id as u64 } else { own_draw() },
                    ..Trace::child(parent, random)
                }
            }
        };
        trace.decide(sampler.sampling);
        trace
    }

    fn root(random: &Random) -> Trace {
        let low = nonzero(random);
        let trace_id = u128::from(random.next()) << 64 | u128::from(low);
        let begun = TraceParent { trace_id, span_id: 0, flags: 0 };
        Trace { draw: low, ..Trace::child(begun, random) }
    }

    fn child(parent: TraceParent, random: &Random) -> Trace {
        Trace {
            id: parent.trace_id,
            span_id: nonzero(random),
            parent_id: parent.span_id,
            is_sampled: false,
            keeps_state: false,
            flags: parent.flags & RANDOM,
            said: None,
            draw: 0,
            try_id: Cell::new(0),
            try_id_at: Cell::new(0),
            recorded: RefCell::default(),
            is_handed_over: Cell::new(false),
        }
    }

    /// Decides whether it is recorded, once more when a route has a share of its own. Not after
    /// anybody was told.
    pub fn decide(&mut self, sampling: Sampling) {
        self.is_sampled = self.said.unwrap_or_else(|| sampling.takes(self.draw));
    }

    /// The gateway's own span, as `traceparent` would name it.
    pub fn own(&self) -> TraceParent {
        TraceParent { trace_id: self.id, span_id: self.span_id, flags: self.flags() }
    }

    /// Flags as they are sent and exported.
    pub fn flags(&self) -> u8 {
        self.flags | if self.is_sampled { SAMPLED } else { 0 }
    }

    /// Appends `traceparent` to a head that so far is in `head`, which begins with the request
    /// line. Each try puts its span's id in later, by [`Trace::stamp`].
    pub fn write(&self, head: &mut Vec<u8>) {
        if self.is_sampled {
            let target = head.split(|&b| b == b' ').nth(1).unwrap_or_default();
            let path = target.split(|&b| b == b'?').next().unwrap_or_default();
            self.recorded.borrow_mut().forwarded_path = path.to_vec();
        }
        let named = TraceParent { trace_id: self.id, span_id: 0, flags: self.flags() };
        head.extend_from_slice(b"traceparent: ");
        self.try_id_at.set((head.len() + SPAN_ID_AT) as u32);
        head.extend_from_slice(&named.text());
        head.extend_from_slice(b"\r\n");
    }

    /// Writes the running try's span id into the forwarded head, in its place.
    pub fn stamp(&self, head: &mut [u8]) {
        let at = self.try_id_at.get() as usize;
        if let Some(place) = head.get_mut(at..at + SPAN_ID_LEN) {
            place.copy_from_slice(&parent::digits(self.try_id.get()));
        }
    }

    /// A try begins, of an endpoint that `name` names.
    pub fn begin_try(&self, random: &Random, now_ns: u64, name: impl FnOnce() -> String) {
        let span_id = nonzero(random);
        self.try_id.set(span_id);
        if !self.is_sampled {
            return;
        }
        let recorded = &mut *self.recorded.borrow_mut();
        if recorded.tries.len() == TRIES_MAX {
            recorded.tries_left_out += 1;
            return;
        }
        let endpoint = name();
        recorded.tries.push(Try { span_id, endpoint, started_ns: now_ns, ..Try::default() });
    }

    /// The running try is over. `note` fills in how it went.
    pub fn end_try(&self, note: impl FnOnce(&mut Try)) {
        if !self.is_sampled {
            return;
        }
        let tries = &mut self.recorded.borrow_mut().tries;
        // None when the try was left out.
        if let Some(last) = tries.last_mut().filter(|last| last.span_id == self.try_id.get()) {
            note(last);
        }
    }
}

fn nonzero(random: &Random) -> u64 {
    loop {
        match random.next() {
            0 => {}
            number => return number,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{HeadLimits, Parsed};

    const PARENT: TraceParent = TraceParent { trace_id: 7 << 64 | 9, span_id: 5, flags: SAMPLED };

    fn begin(parent: Option<TraceParent>, is_trusted: bool, sampler: Sampler) -> Trace {
        let field = parent.map_or(String::new(), |parent| {
            format!("traceparent: {}\r\n", std::str::from_utf8(&parent.text()).expect("ASCII"))
        });
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n");
        let limits = HeadLimits { head_bytes_max: 4096, target_bytes_max: 100, fields_max: 64 };
        let mut head = RequestHead::default();
        assert_eq!(head.parse(text.as_bytes(), &limits), Ok(Parsed::Complete(())));
        Trace::begin(&head, text.as_bytes(), is_trusted, &sampler, &Random::default())
    }

    fn sampler(ratio: f64, follows_parent: bool) -> Sampler {
        Sampler { sampling: Sampling::of(ratio), follows_parent }
    }

    #[test]
    fn who_decides() {
        let unsampled = TraceParent { flags: 0, ..PARENT };
        for (parent, is_trusted, ratio, follows, expected) in [
            (None, true, 0.0, true, false),
            (None, false, 1.0, true, true),
            // A trusted caller's flag, whatever the share.
            (Some(PARENT), true, 0.0, true, true),
            (Some(unsampled), true, 1.0, true, false),
            // Nobody else's.
            (Some(PARENT), false, 0.0, true, false),
            (Some(unsampled), false, 1.0, true, true),
            (Some(PARENT), true, 0.0, false, false),
            (Some(unsampled), true, 1.0, false, true),
        ] {
            let trace = begin(parent, is_trusted, sampler(ratio, follows));
            assert_eq!(trace.is_sampled, expected, "{parent:?} {is_trusted} {ratio} {follows}");
            match parent {
                Some(_) => assert_eq!((trace.id, trace.parent_id), (PARENT.trace_id, 5)),
                None => assert_eq!(trace.parent_id, 0),
            }
            assert!(trace.id != 0 && trace.span_id != 0);
        }
    }

    #[test]
    fn a_strangers_trace_id_does_not_decide() {
        // A number that is below any bound but 0.
        let chosen = TraceParent { trace_id: 1 << 64, ..PARENT };
        let rare = sampler(0.001, true);
        let taken = (0..200).filter(|_| begin(Some(chosen), false, rare).is_sampled).count();
        assert!(taken < 20, "{taken} of 200");
        let ignoring = sampler(0.001, false);
        assert!(begin(Some(chosen), true, ignoring).is_sampled, "a trusted proxy's does");
    }

    #[test]
    fn shares_are_those_of_open_telemetry() {
        // From the tests of OpenTelemetry's SDKs: the bound is on the last eight bytes, halved.
        let half = Sampling::of(0.5);
        assert!(half.takes(0x7fff_ffff_ffff_ffff));
        assert!(!half.takes(0x8000_0000_0000_0000));
        let (none, all) = (Sampling::of(0.0), Sampling::of(1.0));
        assert!(!none.takes(0) && all.takes(u64::MAX));
        assert_eq!(Sampling::of(7.0), all);
        let random = Random::default();
        let taken = (0..100_000).filter(|_| Sampling::of(0.1).takes(random.next())).count();
        // Six standard deviations.
        assert!((9431..10569).contains(&taken), "{taken}");
    }

    #[test]
    fn each_try_has_its_own_id_in_the_same_head() {
        let trace = begin(Some(PARENT), true, sampler(1.0, true));
        let random = Random::default();
        let mut head = b"GET /a/b?secret=1 HTTP/1.1\r\nHost: a\r\n".to_vec();
        trace.write(&mut head);
        head.extend_from_slice(b"x: y\r\n\r\n");
        let mut seen = Vec::new();
        for number in 0..TRIES_MAX + 2 {
            trace.begin_try(&random, number as u64, || "e".to_owned());
            trace.stamp(&mut head);
            trace.end_try(|one| one.ended_ns = 100 + number as u64);
            let text = std::str::from_utf8(&head).expect("ASCII");
            let (_, rest) = text.split_once("traceparent: ").expect("the field");
            let (value, rest) = rest.split_once("\r\n").expect("its end");
            assert_eq!(rest, "x: y\r\n\r\n");
            let parent = TraceParent::parse(value.as_bytes()).expect("valid");
            assert_eq!((parent.trace_id, parent.flags), (PARENT.trace_id, SAMPLED));
            assert!(!seen.contains(&parent.span_id) && parent.span_id != trace.span_id);
            seen.push(parent.span_id);
        }
        let recorded = trace.recorded.borrow();
        assert_eq!(recorded.forwarded_path, b"/a/b");
        assert_eq!((recorded.tries.len(), recorded.tries_left_out), (TRIES_MAX, 2));
        let ids: Vec<u64> = recorded.tries.iter().map(|one| one.span_id).collect();
        assert_eq!(ids, seen[..TRIES_MAX]);
        assert_eq!(recorded.tries[TRIES_MAX - 1].ended_ns, 100 + TRIES_MAX as u64 - 1);
    }

    #[test]
    fn nothing_is_kept_of_a_trace_that_is_not_recorded() {
        let trace = begin(None, false, sampler(0.0, true));
        let mut head = b"GET / HTTP/1.1\r\n".to_vec();
        trace.write(&mut head);
        trace.begin_try(&Random::default(), 1, || panic!("not asked"));
        trace.end_try(|_| panic!("not asked"));
        let recorded = trace.recorded.borrow();
        assert!(recorded.tries.capacity() == 0 && recorded.forwarded_path.capacity() == 0);
    }
}
