//! Finding a route, with few routes and with many.

use std::hint::black_box;

use ringway::{
    policy::route::{PathPattern, RequestView, RouteRule, Router},
    wire::{Method, RequestHead},
};

use crate::measure::Cases;

/// A name and what is asked: host, path.
const CASES: [(&str, &str, &str); 6] = [
    ("exact", "api.example.com", "/service-7/health"),
    ("template", "api.example.com", "/service-7/users/1234/orders"),
    ("prefix", "api.example.com", "/service-7/assets/css/main.css"),
    ("host", "host-7.example.org", "/index.html"),
    ("wildcard", "a.b.tenant-7.example.net", "/index.html"),
    ("none", "api.example.com", "/nothing/here"),
];

fn rules(count: usize) -> Vec<RouteRule> {
    let rule = |i: usize| {
        let service = i / 5 * 5 + 2;
        let path = match i % 5 {
            0 => PathPattern::Exact(format!("/service-{service}/health")),
            1 => PathPattern::Template(format!("/service-{service}/users/{{id}}/orders")),
            2 => PathPattern::Prefix(format!("/service-{service}")),
            _ => PathPattern::Prefix("/".to_owned()),
        };
        let hosts = match i % 5 {
            3 => vec![format!("host-{service}.example.org")],
            4 => vec![format!("*.tenant-{service}.example.net")],
            _ => Vec::new(),
        };
        RouteRule { name: format!("route-{i}"), hosts, path, ..RouteRule::default() }
    };
    (0..count).map(rule).collect()
}

pub fn cases(cases: &mut Cases) {
    let head = RequestHead::default();
    for count in [10, 10_000] {
        let router = Router::compile(&rules(count)).expect("rules without conflict");
        for (name, host, path) in CASES {
            let request = RequestView {
                method: Method::Get,
                method_text: b"GET",
                host: host.as_bytes(),
                path: path.as_bytes(),
                query: None,
                head: &head,
                buf: b"",
            };
            cases.case(&format!("route/{name}-{count}"), || {
                let found = black_box(&router).find(black_box(&request));
                assert_eq!(found.is_ok(), name != "none");
                let _ = black_box(found);
            });
        }
    }
}
