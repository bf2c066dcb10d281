//! What happens to an exchange between the sockets: its heads rewritten, itself counted and logged.

use std::hint::black_box;

use ringway::worker::bench::with_exchange;

use crate::{
    measure::Cases,
    parse::{RESPONSE, TYPICAL},
};

/// Everything at its default.
const PLAIN: &str = "
    [runtime]
    workers = 1

    [[listeners]]
    bind = '127.0.0.1:8080'

    [upstreams.origin]
    endpoints = ['127.0.0.1:8081']

    [[routes]]
    path = '/'
    upstream = 'origin'
";

const TEMPLATE: &str =
    "${client} ${time} ${method} ${target} ${status} ${response_bytes} ${duration_us}";

pub fn cases(cases: &mut Cases) {
    with_exchange(PLAIN, TYPICAL, RESPONSE, |parts| {
        let composed = parts.compose();
        assert!(composed.starts_with(b"GET /api/v1/users/12345?fields=name HTTP/1.1\r\n"));
        assert!(composed.windows(27).any(|line| line == b"X-Forwarded-For: 192.0.2.7\r"));
        cases.case("forward/request-head", || {
            assert_eq!(black_box(&mut *parts).compose_only(), composed.len());
        });
        let relayed = parts.relay().len();
        assert!(relayed > RESPONSE.len() / 2);
        cases.case("forward/response-head", || {
            assert_eq!(black_box(&mut *parts).relay().len(), relayed);
        });
    });
    with_exchange(PLAIN, TYPICAL, RESPONSE, |parts| {
        cases.case("record/metrics", || black_box(&mut *parts).record());
    });
    let template = format!("format = {{ template = '{TEMPLATE}' }}");
    for (name, format) in [
        ("log/json", "format = 'json'"),
        ("log/combined", "format = 'combined'"),
        ("log/template", template.as_str()),
    ] {
        // Without metrics, so that what is counted is the line.
        let configuration = format!(
            "{PLAIN}\n[metrics]\nenabled = false\n[[access_logs]]\nto = 'file:/dev/null'\n{format}"
        );
        with_exchange(&configuration, TYPICAL, RESPONSE, |parts| {
            cases.case(name, || black_box(&mut *parts).record());
        });
    }
}
