//! Consumers: whose certificates these are, and what plans let them use.

use crate::{
    api_keys::stored,
    client_certificates::client,
    harness::{Client, Gateway, Issuer, Papers, Response, Upstream},
};

const SUBJECT: &str = "CN=rcgen self signed cert";

/// A gateway that asks clients for certificates and knows these consumers.
fn gateway(upstream: &Upstream, papers: &Papers, authority: &Issuer, consumers: &str) -> Gateway {
    papers.issue("gw", &["gw.test"]);
    std::fs::write(papers.path("ca.pem"), &authority.pem).unwrap();
    let asks = format!(", client_ca = \"{}\"", papers.path("ca.pem").display());
    let listener = papers.listener(&["gw"], &asks);
    let more = format!(
        "{listener}\n[[routes]]\npath = \"/known\"\nupstream = \"app\"\n\
         authenticate = [\"certificate\"]\nconsumer_fields = true\n{consumers}"
    );
    Gateway::before(upstream.address(), &more)
}

fn ask(client: &mut Client, path: &str) -> Response {
    client.send(format!("GET {path} HTTP/1.1\r\nHost: gw.test\r\nX-Consumer-Name: root\r\n\r\n"));
    client.response()
}

#[test]
fn certificates_are_a_consumers_by_subject_or_another_name() {
    let (upstream, papers, ours) = (Upstream::ok(), Papers::new(), Issuer::new("ours"));
    let badge = ours.issue("client.test", 1, 2090);
    for (n, (consumers, name, groups)) in [
        (
            format!("[consumers.alice]\ncertificate_subjects = [\"{SUBJECT}\"]\ngroups = [\"a\"]"),
            Some("alice"),
            Some("a"),
        ),
        ("[consumers.bob]\ncertificate_names = [\"CLIENT.test\"]".to_owned(), Some("bob"), None),
        ("[consumers.carol]\ncertificate_names = [\"other.test\"]".to_owned(), None, None),
    ]
    .into_iter()
    .enumerate()
    {
        let gateway = gateway(&upstream, &papers, &ours, &consumers);
        let target = format!("/known/{n}");
        assert_eq!(ask(&mut client(&gateway, &papers, Some(&badge)), &target).status, 200);
        let request = upstream.request_for(&target);
        assert_eq!(request.head.all("x-consumer-name"), Vec::from_iter(name), "{consumers}");
        assert_eq!(request.field("x-consumer-groups"), groups, "{consumers}");
    }
}

const GOLD: &str = "a-key-of-one-with-the-gold-plan";
const OTHER: &str = "a-key-of-another-with-that-plan";
const FREE: &str = "a-key-of-one-that-has-no-plan";

#[test]
fn a_plan_is_for_each_of_its_consumers_on_every_route_that_asks() {
    let (upstream, dir) = (Upstream::ok(), tempfile::tempdir().unwrap());
    let file = dir.path().join("keys.txt");
    let lines = format!("{} other plan=gold\n{} free\n", stored(OTHER), stored(FREE));
    std::fs::write(&file, lines).unwrap();
    let more = format!(
        r#"
        [[routes]]
        path = "/a"
        upstream = "app"
        authenticate = ["keys"]

        [[routes]]
        path = "/b"
        upstream = "app"
        authenticate = ["keys"]
        rate_limits = ["gold"]

        [api_keys.keys]
        file = "{}"

        [rate_limits.gold]
        rate = "4/h"
        key = "consumer"

        [plans.gold]
        rate_limits = ["gold"]

        [consumers.one]
        keys = ["{}"]
        plan = "gold"
        "#,
        file.display(),
        stored(GOLD)
    );
    let gateway = Gateway::before(upstream.address(), &more);
    let ask = |target: &str, key: &str| {
        let mut client = gateway.client();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\n\r\n"));
        client.response()
    };
    // One bucket for both routes; where a route has the plan's limit itself, it counts once.
    let statuses = ["/a", "/b", "/a", "/b", "/a", "/b"].map(|target| ask(target, GOLD).status);
    assert_eq!(statuses, [200, 200, 200, 200, 429, 429]);
    let refused = ask("/a", GOLD);
    assert_eq!(refused.reason(), "limit.exhausted");
    assert!(refused.field("retry-after").is_some());
    // Another consumer of the plan has a bucket of its own; who has no plan is not counted.
    let statuses = [(); 5].map(|()| ask("/a", OTHER).status);
    assert_eq!(statuses, [200, 200, 200, 200, 429]);
    assert!((0..8).all(|_| ask("/a", FREE).status == 200));
}

/// The limits of a route before and after authentication, those of a plan and quotas: whichever
/// refuses a request, the others have not counted it.
#[test]
fn what_one_limit_refuses_is_charged_to_no_other() {
    // By which of them each consumer may have two requests.
    for (route, plan, reason) in [
        ("rate_limits = [\"all\", \"each\"]", "", "limit.exhausted"),
        ("rate_limits = [\"all\"]", "rate_limits = [\"each\"]", "limit.exhausted"),
        ("rate_limits = [\"all\"]", "quotas = [\"month\"]", "limit.quota"),
        ("rate_limits = [\"all\"]\nquotas = [\"month\"]", "", "limit.quota"),
        (
            "rate_limits = [\"all\"]\nquotas = [\"most\"]",
            "rate_limits = [\"each\"]\nquotas = [\"month\"]",
            "limit.exhausted",
        ),
    ] {
        for workers in [1, 3] {
            let consumers = ["a", "b", "c", "d", "e", "f", "g"].map(|name| {
                format!("[consumers.{name}]\nplan = \"own\"\nkeys = [\"{}\"]\n", stored(name))
            });
            let gateway = Gateway::start(&format!(
                "[runtime]\nworkers = {workers}\n\
                 [[routes]]\nrespond = {{}}\nauthenticate = [\"keys\"]\n{route}\n\
                 [api_keys.keys]\n[plans.own]\n{plan}\n\
                 [rate_limits.all]\nrate = \"12/d\"\nkey = \"route\"\n\
                 [rate_limits.each]\nrate = \"2/d\"\nkey = \"consumer\"\n\
                 [quotas.month]\namount = \"2/month\"\nkey = \"consumer\"\n\
                 [quotas.most]\namount = \"12/month\"\nkey = \"route\"\n{}",
                consumers.concat()
            ));
            let ask = |key: &str| {
                let mut client = gateway.client();
                client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\n\r\n"));
                client.response()
            };
            let mut passed = Vec::new();
            for name in ["a", "b", "c", "d", "e", "f"] {
                let (yes, no): (Vec<_>, Vec<_>) =
                    (0..8).map(|_| ask(name)).partition(|response| response.status == 200);
                passed.push(yes.len());
                // The last one has used up what is for all.
                let is_it = |refused: &Response| name == "f" || refused.reason() == reason;
                assert!(no.iter().all(is_it), "{route} {plan}");
            }
            assert_eq!(passed, [2; 6], "{route} {plan} {workers}");
            assert_eq!(ask("g").status, 429, "{route} {plan} {workers}");
        }
    }
}
