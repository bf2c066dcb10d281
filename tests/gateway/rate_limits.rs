//! Rate limits: what they count by, whom they are not for, and what clients are told.

use crate::harness::{Client, Gateway, Response, Upstream, eventually, http2::Http2};

fn gateway(more: &str) -> Gateway {
    Gateway::start(&format!(
        "[[routes]]\nrespond = {{ body = \"ok\" }}\nrate_limits = [\"few\"]\n{more}"
    ))
}

const FEW: &str = "[rate_limits.few]\nrate = \"2/h\"\n";

#[track_caller]
fn is_refused(response: &Response) {
    assert_eq!((response.status, &*response.reason()), (429, "limit.exhausted"));
    let retry_after: u32 = response.field("retry-after").unwrap().parse().unwrap();
    assert!((1790..=1800).contains(&retry_after), "{retry_after}");
}

fn with(client: &mut Client, fields: &str) -> u16 {
    client.send(format!("GET /?key=q HTTP/1.1\r\nHost: gw.test\r\n{fields}\r\n"));
    client.response().status
}

#[test]
fn a_client_is_told_what_is_left_and_refused_when_nothing_is() {
    let gateway = gateway(FEW);
    let mut client = gateway.client();
    for left in ["\"few\";r=1;t=1800", "\"few\";r=0;t=3600"] {
        let response = client.get("/");
        assert_eq!((response.status, response.field("ratelimit")), (200, Some(left)));
        assert_eq!(response.field("ratelimit-policy"), Some("\"few\";q=2;w=3600"));
        assert_eq!(response.field("x-ratelimit-limit"), None);
    }
    for _ in 0..3 {
        // The connection stays open.
        let response = client.get("/");
        is_refused(&response);
        assert_eq!(response.field("ratelimit-policy"), Some("\"few\";q=2;w=3600"));
        assert!(response.field("ratelimit").unwrap().starts_with("\"few\";r=0;t=1"));
    }
    // The same client over HTTP/2.
    let response = Http2::connect(gateway.address()).get("/");
    assert_eq!((response.status, response.field("retry-after").is_some()), (429, true));
    assert_eq!(response.field("ratelimit-policy"), Some("\"few\";q=2;w=3600"));
}

#[test]
fn what_is_told_is_a_matter_of_configuration() {
    let gateway = gateway(&format!("{FEW}fields = false\nx_fields = true\n"));
    let mut client = gateway.client();
    let response = client.get("/");
    assert_eq!((response.status, response.field("ratelimit")), (200, None));
    assert_eq!(response.field("x-ratelimit-limit"), Some("2"));
    assert_eq!(response.field("x-ratelimit-remaining"), Some("1"));
    assert_eq!(response.field("x-ratelimit-reset"), Some("1800"));
    client.get("/");
    let response = client.get("/");
    is_refused(&response);
    assert!(response.field("ratelimit").is_some(), "a refusal says so");
    assert_eq!(response.field("x-ratelimit-remaining"), Some("0"));
}

#[test]
fn each_key_counts_by_itself() {
    // A key, and fields of requests: those of one row are counted as one, the rows are not.
    for (key, rows) in [
        (
            "\"header:X-Tenant\"",
            [&["X-Tenant: a\r\n", "x-tenant: a\r\n"][..], &["X-Tenant: b\r\n"]],
        ),
        (
            "\"cookie:sid\"",
            [&["Cookie: sid=1\r\n", "Cookie: a=b; sid=1\r\n"], &["Cookie: a=1\r\n"]],
        ),
        (
            "[\"client\", \"header:X-A\", \"header:X-B\"]",
            [&["X-A: 1\r\nX-B: 23\r\n", "X-B: 23\r\nX-A: 1\r\n"], &["X-A: 12\r\nX-B: 3\r\n"]],
        ),
    ] {
        let gateway = gateway(&format!("{FEW}key = {key}\n"));
        let mut client = gateway.client();
        for row in rows {
            let mut passed = 0;
            for _ in 0..3 {
                for fields in row {
                    passed += usize::from(with(&mut client, fields) == 200);
                }
            }
            assert_eq!(passed, 2, "{key} {row:?}");
        }
    }
}

#[test]
fn a_key_is_read_as_its_author_means_it() {
    for (key, one, same, other) in [
        ("query:key", "/?key=a", "/x?y=1&k%65y=%61", "/?key=b"),
        ("route", "/", "/anything", "/other"),
    ] {
        let more = "[[routes]]\npath = \"/other\"\nrespond = {}\nrate_limits = [\"few\"]\n";
        let gateway = gateway(&format!("{FEW}key = \"{key}\"\n{more}"));
        let mut client = gateway.client();
        let statuses = [one, same, one, same, other].map(|path| client.get(path).status);
        assert_eq!(statuses, [200, 200, 429, 429, 200], "{key}");
    }
    let gateway = gateway(&format!("{FEW}key = \"host\"\n"));
    let mut client = gateway.client();
    let hosts = ["a.test", "A.test:80", "a.test", "b.test"];
    assert_eq!(hosts.map(|host| client.get_from(host, "/").status), [200, 200, 429, 200]);
}

#[test]
fn whoever_is_exempt_is_not_counted() {
    let gateway = gateway(&format!("{FEW}exempt = [\"127.0.0.0/8\"]\n"));
    let mut client = gateway.client();
    for _ in 0..5 {
        let response = client.get("/");
        assert_eq!((response.status, response.field("ratelimit")), (200, None));
    }
    let more = format!("{FEW}key = \"header:X-Tenant\"\nexempt = [\"internal\"]\n");
    let gateway = self::gateway(&more);
    let mut client = gateway.client();
    for _ in 0..5 {
        assert_eq!(with(&mut client, "X-Tenant: internal\r\n"), 200);
    }
    let others = [(); 3].map(|()| with(&mut client, "X-Tenant: a\r\n"));
    assert_eq!(others, [200, 200, 429]);
}

#[test]
fn a_shadow_only_counts() {
    let gateway = gateway(&format!("{FEW}shadow = true\n"));
    let mut client = gateway.client();
    for _ in 0..5 {
        assert_eq!(client.get("/").status, 200);
    }
    let metrics = gateway.admin().get("/metrics").text();
    for (outcome, count) in [("passed", 2), ("shadow", 3), ("refused", 0), ("exempt", 0)] {
        let line = format!(
            "ringway_rate_limit_requests_total{{limit=\"few\",outcome=\"{outcome}\"}} {count}\n"
        );
        assert!(metrics.contains(&line), "{line}");
    }
}

#[test]
fn the_cost_of_a_request_counts() {
    let gateway = gateway("[rate_limits.few]\nrate = \"10/h\"\ncost = 4\n");
    let mut client = gateway.client();
    let statuses = [(); 4].map(|()| client.get("/").status);
    assert_eq!(statuses, [200, 200, 429, 429]);
}

#[test]
fn all_windows_and_all_limits_must_have_room() {
    let windows = "rate = \"100/s\"\nwindows = [{ rate = \"3/h\" }]\n";
    let gateway = gateway(&format!("[rate_limits.few]\n{windows}"));
    let mut client = gateway.client();
    let response = client.get("/");
    assert_eq!(response.field("ratelimit"), Some("\"few-2\";r=2;t=1200"));
    let policy = "\"few\";q=100;w=1, \"few-2\";q=3;w=3600";
    assert_eq!(response.field("ratelimit-policy"), Some(policy));
    let statuses = [(); 3].map(|()| client.get("/").status);
    assert_eq!(statuses, [200, 200, 429]);
}

/// What one limit refuses has not used up another.
#[test]
fn a_limit_that_refuses_gives_back_what_the_others_took() {
    for workers in [1, 4] {
        let gateway = Gateway::start(&format!(
            "[runtime]\nworkers = {workers}\n\
             [rate_limits.all]\nrate = \"12/h\"\nkey = \"route\"\n\
             [rate_limits.each]\nrate = \"2/h\"\nkey = \"header:X-Tenant\"\n\
             [[routes]]\nrespond = {{}}\nrate_limits = [\"all\", \"each\"]\n"
        ));
        let mut passed = Vec::new();
        for tenant in ["a", "b", "c", "d", "e", "f", "g"] {
            let mut clients = [gateway.client(), gateway.client()];
            let fields = format!("X-Tenant: {tenant}\r\n");
            let count = |n: usize| with(&mut clients[n % 2], &fields) == 200;
            passed.push((0..10).map(count).filter(|passed| *passed).count());
        }
        assert_eq!(passed, [2, 2, 2, 2, 2, 2, 0], "{workers} workers");
    }
}

#[test]
fn another_rate_is_in_force_after_a_reload_and_refills_nothing() {
    let toml = |limit: &str| {
        format!("[[routes]]\nrespond = {{}}\nrate_limits = [\"few\"]\n[rate_limits.few]\n{limit}")
    };
    let gateway = Gateway::start(&toml("rate = \"4/h\"\n"));
    let mut client = gateway.client();
    let statuses = |client: &mut Client| [(); 3].map(|()| client.get("/").status);
    assert_eq!(statuses(&mut client), [200, 200, 200]);
    // A quarter is left of whatever it is.
    assert!(gateway.reload(&toml("rate = \"8/h\"\n")));
    assert_eq!(statuses(&mut client), [200, 200, 429]);
    assert!(gateway.reload(&toml("rate = \"1000/h\"\n")));
    assert_eq!(client.get("/").status, 429);
    // A limit of another name is another limit.
    assert!(
        gateway.reload(
            &toml("rate = \"4/h\"\n[rate_limits.new]\nrate = \"1/h\"\n")
                .replace("[\"few\"]", "[\"new\"]")
        )
    );
    assert_eq!(statuses(&mut client), [200, 429, 429]);
}

/// The upstream says what a request cost: later ones pay for what was not taken before.
#[test]
fn a_response_says_what_its_request_cost() {
    let upstream = Upstream::scripted(|conn| {
        while let Ok(request) = conn.request() {
            let cost = request.field("x-wanted").unwrap_or("none");
            conn.send(format!("HTTP/1.1 200 OK\r\nX-Cost: {cost}\r\nContent-Length: 0\r\n\r\n"));
        }
    });
    for workers in [1, 4] {
        let gateway = Gateway::start(&format!(
            "[runtime]\nworkers = {workers}\n\
             [rate_limits.few]\nrate = \"20/h\"\ncost = 2\ncost_from = \"X-Cost\"\n\
             [[routes]]\nupstream = \"app\"\nrate_limits = [\"few\"]\n\
             [upstreams.app]\nendpoints = [\"{}\"]\n",
            upstream.address()
        ));
        let mut client = gateway.client();
        // What each says that it cost, and what is left before it.
        for (cost, left) in [("2", 18), ("12", 16), ("x", 4), ("0", 2), ("30", 2)] {
            client.send(format!("GET / HTTP/1.1\r\nHost: gw.test\r\nX-Wanted: {cost}\r\n\r\n"));
            let response = client.response();
            assert_eq!(response.field("x-cost"), Some(cost));
            let got = response.field("ratelimit").unwrap_or_default();
            assert!(got.starts_with(&format!("\"few\";r={left};")), "{workers}: {cost} {got}");
        }
        eventually("it is charged", || with(&mut client, "X-Wanted: 0\r\n") == 429);
        // It owes a whole bucket at most, and more than what has come since.
        client.send("GET / HTTP/1.1\r\nHost: gw.test\r\n\r\n");
        let wait: u32 = client.response().field("retry-after").unwrap().parse().unwrap();
        assert!((3500..4000).contains(&wait), "{wait}");
    }
}

/// In shadow mode a request passes for which there is nothing: what it cost is not given back.
#[test]
fn what_was_not_taken_is_not_given_back() {
    let upstream = Upstream::canned("HTTP/1.1 200 OK\r\nX-Cost: 0\r\nContent-Length: 0\r\n\r\n");
    let toml = |more: &str| {
        format!(
            "[runtime]\nworkers = 1\n\
             [rate_limits.few]\nrate = \"4/d\"\ncost = 2\n{more}\n\
             [[routes]]\nupstream = \"app\"\nrate_limits = [\"few\"]\n\
             [upstreams.app]\nendpoints = [\"{}\"]\n",
            upstream.address()
        )
    };
    let gateway = Gateway::start(&toml(""));
    let mut client = gateway.client();
    assert_eq!([(); 3].map(|()| client.get("/").status), [200, 200, 429]);
    assert!(gateway.reload(&toml("cost_from = \"X-Cost\"\nshadow = true")));
    assert_eq!([(); 4].map(|()| client.get("/").status), [200; 4]);
    assert!(gateway.reload(&toml("")));
    assert_eq!(client.get("/").status, 429);
}
