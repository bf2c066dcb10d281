//! The status page and the figures behind its plots, over real sockets. What the page does with
//! them is driven in a browser by `scripts/status-page`.

use serde_json::Value;

use crate::harness::{Client, Gateway, eventually};

const TOML: &str = "[admin]\nstatus_bind = \"127.0.0.1:0\"\nstatus_hosts = [\"gw.test\"]\n\
    [[routes]]\npath = \"/ok\"\nrespond = { body = \"ok\" }\n\
    [[routes]]\npath = \"/bad\"\nrespond = { status = 503, body = \"no\" }\n";

fn status_client(gateway: &Gateway) -> Client {
    let log = gateway.log();
    let (_, rest) = log.rsplit_once("status on http://").expect("a status address");
    Client::connect(rest.split_whitespace().next().unwrap().parse().unwrap())
}

#[test]
fn the_page_is_served_at_both_doors_under_a_strict_policy() {
    let gateway = Gateway::start(TOML);
    let mut nonces = Vec::new();
    for mut client in [gateway.admin(), status_client(&gateway)] {
        let page = client.get("/");
        assert_eq!((page.status, page.field("cache-control")), (200, Some("no-store")));
        assert_eq!(page.field("content-type"), Some("text/html; charset=utf-8"));
        let policy = page.field("content-security-policy").expect("a policy").to_owned();
        assert!(policy.starts_with("default-src 'none'; "), "{policy}");
        assert!(policy.contains("connect-src 'self'"), "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
        let nonce = policy.split("script-src 'nonce-").nth(1).unwrap().split('\'').next().unwrap();
        assert!(page.text().contains(&format!("<script type=\"module\" nonce=\"{nonce}\">")));
        nonces.push(nonce.to_owned());
    }
    assert_ne!(nonces[0], nonces[1], "new in every answer");
}

#[test]
fn seconds_are_remembered_whether_or_not_somebody_asks() {
    let gateway = Gateway::start(TOML);
    let mut status = status_client(&gateway);
    let mut last = Value::Null;
    let mut client = gateway.client();
    let sum = |values: &Value| -> f64 {
        values.as_array().unwrap().iter().filter_map(Value::as_f64).sum()
    };
    eventually("a sample that has the requests", || {
        // Each time, because the first sample only says from where to count.
        for path in ["/ok", "/ok", "/ok", "/bad"] {
            client.get(path);
        }
        let answer = status.get("/status/history");
        assert_eq!(answer.status, 200);
        last = serde_json::from_slice(&answer.body).unwrap();
        sum(&last["errors"]) > 0.0
    });
    assert!(sum(&last["requests"]) > sum(&last["errors"]), "{last}");
    let seconds = last["requests"].as_array().unwrap().len();
    for key in ["errors", "p50", "p90", "p99", "p999", "overhead_p99", "connections", "cpu"] {
        assert_eq!(last[key].as_array().unwrap().len(), seconds, "{key}");
    }
    let busy = last["p50"].as_array().unwrap().iter().position(|p50| !p50.is_null());
    let busy = busy.expect("a second with requests");
    assert!(last["p50"][busy].as_f64() <= last["p999"][busy].as_f64(), "{last}");
    assert_eq!(last["cpu"][busy].as_array().unwrap().len(), 2, "one value for each worker");
    let one = status.get("/status/history?seconds=1");
    let one: Value = serde_json::from_slice(&one.body).unwrap();
    assert_eq!(one["requests"].as_array().unwrap().len(), 1);
    for wrong in ["seconds=0", "seconds=901", "seconds=x", "minutes=1"] {
        let answer = status.get(&format!("/status/history?{wrong}"));
        assert_eq!(answer.status, 400, "{wrong}");
        assert!(answer.text().contains("write ?seconds=60"), "{}", answer.text());
    }
}
