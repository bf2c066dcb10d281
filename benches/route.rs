//! What finding a route costs with few routes and with many.
//!
//! `cargo bench --bench route` prints nanoseconds for each kind of path with 10 and 10,000 routes.
//! With arguments (`route ROUTES CASE ROUNDS`) it runs one case only and prints nothing else, for
//! counting instructions: the difference of two runs with different ROUNDS, divided by the
//! difference of rounds, is the cost of one lookup without that of compiling the routes.
//!
//! ```text
//! valgrind --tool=callgrind --callgrind-out-file=/dev/null \
//!     target/release/deps/route-* 10000 exact 20000
//! ```

use std::{hint::black_box, time::Instant};

use ringway::{
    policy::route::{PathPattern, RequestView, RouteRule, Router},
    wire::{Method, RequestHead},
};

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

fn run(router: &Router, host: &str, path: &str, rounds: u64) {
    let head = RequestHead::default();
    let request = RequestView {
        method: Method::Get,
        method_text: b"GET",
        host: host.as_bytes(),
        path: path.as_bytes(),
        query: None,
        head: &head,
        buf: b"",
    };
    for _ in 0..rounds {
        let found = black_box(router).find(black_box(&request));
        assert_eq!(found.is_ok(), path != "/nothing/here");
        let _ = black_box(found);
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let compiled = |count| Router::compile(&rules(count)).expect("rules without conflict");
    if let [routes, case, rounds] = args.as_slice() {
        let number = |text: &str| text.parse::<u64>().expect("a number");
        let (_, host, path) = CASES.iter().find(|c| c.0 == case).expect("a case of the list");
        run(&compiled(number(routes) as usize), host, path, number(rounds));
        return;
    }
    const ROUNDS: u64 = 1_000_000;
    for count in [10, 10_000] {
        let router = compiled(count);
        for (name, host, path) in CASES {
            let start = Instant::now();
            run(&router, host, path, ROUNDS);
            let ns = start.elapsed().as_nanos() as f64 / ROUNDS as f64;
            println!("route/{name:<9} {count:>6} routes  {ns:>7.1} ns");
        }
    }
}
