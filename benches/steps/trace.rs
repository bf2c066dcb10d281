//! Trace context: read from a request, begun, and written.

use std::hint::black_box;

use ringway::{
    telemetry::{
        request_id::Random,
        trace::{
            Sampler, Sampling, Trace,
            parent::{TraceParent, received},
        },
    },
    wire::{Parsed, RequestHead},
};

use crate::{measure::Cases, parse::LIMITS};

const TRACED: &[u8] = b"GET /api/v1/users/12345 HTTP/1.1\r\n\
    Host: api.example.com\r\n\
    Accept: */*\r\n\
    traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\
    tracestate: rojo=00f067aa0ba902b7,congo=t61rcWkgMzE\r\n\r\n";

pub fn cases(cases: &mut Cases) {
    let mut head = RequestHead::default();
    assert_eq!(head.parse(TRACED, &LIMITS), Ok(Parsed::Complete(())));
    let (parent, _) = received(&head.fields, TRACED).expect("a valid traceparent");
    cases.case("trace/parse", || {
        let found = received(black_box(&head.fields), black_box(TRACED));
        assert_eq!(found, Some((parent, true)));
    });
    cases.case("trace/format", || {
        let text = black_box(&parent).text();
        assert_eq!(black_box(&text).len(), 55);
    });
    let random = Random::default();
    let sampler = Sampler { sampling: Sampling::of(0.01), follows_parent: true };
    cases.case("trace/begin", || {
        let trace = Trace::begin(black_box(&head), TRACED, false, &sampler, &random);
        assert_eq!(black_box(&trace).parent_id, parent.span_id);
    });
    assert!(TraceParent::parse(b"no").is_none());
}
