//! Policies of routes: where they are written, and in which order they apply.

use crate::harness::{Gateway, http2::Http2};

const CONFIG: &str = r#"
[[routes]]
path = "/open"
respond = { body = "open" }

[[routes]]
path = "/own"
respond = { body = "open" }
maintenance = { retry_after = "1500ms" }

[[routes]]
path = "/shared"
respond = { body = "open" }
policies = ["other", "closed"]

[[routes]]
path = "/both"
respond = { body = "open" }
maintenance = { retry_after = "2s" }
policies = ["closed"]

[policies.closed]
maintenance = { retry_after = "10m" }

[policies.other]
"#;

#[test]
fn a_policy_is_the_routes_own_or_a_sets() {
    let gateway = Gateway::start(CONFIG);
    let mut client = gateway.client();
    assert_eq!(client.get("/open").status, 200);
    for (path, retry_after) in [("/own", "2"), ("/shared", "600"), ("/both", "2")] {
        let response = client.get(path);
        assert_eq!((response.status, &*response.reason()), (503, "route.maintenance"), "{path}");
        assert_eq!(response.field("retry-after"), Some(retry_after), "{path}");
    }
    let mut client = Http2::connect(gateway.address());
    let response = client.get("/own");
    assert_eq!((response.status, response.field("retry-after")), (503, Some("2")));
}
