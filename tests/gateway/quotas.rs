//! Quotas: exact over workers, and kept over reloads, restarts, upgrades and the end of a worker.

use std::path::Path;

use nix::sys::signal::Signal;

use crate::harness::{Client, Gateway, Launch, Response, Upstream, eventually, http2::Http2};

const ROUTE: &str = "[[routes]]\nrespond = {}\nquotas = [\"monthly\"]\n";

fn quota(amount: &str, more: &str) -> String {
    format!("{ROUTE}[quotas.monthly]\namount = \"{amount}\"\n{more}\n")
}

/// With a place where it is kept.
fn kept(amount: &str, workers: u32, folder: &Path, more: &str) -> String {
    format!(
        "[runtime]\nworkers = {workers}\n{}[quota_store]\nfolder = \"{}\"\nsave_every = \"1s\"\n{more}",
        quota(amount, ""),
        folder.display()
    )
}

#[track_caller]
fn is_refused(response: &Response) {
    assert_eq!((response.status, &*response.reason()), (429, "limit.quota"));
    let retry_after: u32 = response.field("retry-after").unwrap().parse().unwrap();
    assert!((1..=31 * 86_400).contains(&retry_after), "{retry_after}");
}

/// How many of so many requests pass, by as many connections.
fn passed(clients: &mut [Client], requests: usize) -> usize {
    let count = clients.len();
    let passed = |n: usize| usize::from(clients[n % count].get("/").status == 200);
    (0..requests).map(passed).sum()
}

fn clients(gateway: &Gateway, count: usize) -> Vec<Client> {
    (0..count).map(|_| gateway.client()).collect()
}

#[test]
fn a_client_is_told_what_is_left_and_refused_when_nothing_is() {
    let gateway = Gateway::start(&quota("2/month", "x_fields = true"));
    let mut client = gateway.client();
    for left in ["1", "0"] {
        let response = client.get("/");
        assert_eq!(response.status, 200);
        let told = response.field("ratelimit").unwrap();
        assert!(told.starts_with(&format!("\"monthly\";r={left};t=")), "{told}");
        assert_eq!(response.field("ratelimit-policy"), Some("\"monthly\";q=2;w=2592000"));
        assert_eq!(response.field("x-ratelimit-limit"), Some("2"));
        assert_eq!(response.field("x-ratelimit-remaining"), Some(left));
    }
    for _ in 0..3 {
        let response = client.get("/");
        is_refused(&response);
        assert!(response.field("ratelimit").unwrap().starts_with("\"monthly\";r=0;t="));
    }
    let response = Http2::connect(gateway.address()).get("/");
    assert_eq!((response.status, response.field("retry-after").is_some()), (429, true));
    let metrics = gateway.admin().get("/metrics").text();
    let line = "ringway_rate_limit_requests_total{limit=\"monthly\",outcome=\"refused\"} 4\n";
    assert!(metrics.contains(line), "{metrics}");
    assert!(metrics.contains("ringway_refusals_total{reason=\"limit.quota\"} 4\n"), "{metrics}");
}

#[test]
fn as_many_pass_as_may_however_they_are_spread() {
    for workers in [1, 2, 4] {
        let toml = format!("[runtime]\nworkers = {workers}\n{}", quota("150/month", ""));
        let gateway = Gateway::start(&toml);
        assert_eq!(passed(&mut clients(&gateway, 16), 400), 150, "{workers} workers");
    }
}

#[test]
fn cost_shadow_and_exemption_are_as_of_rate_limits() {
    let gateway = Gateway::start(&quota("10/day", "cost = 4"));
    assert_eq!(passed(&mut clients(&gateway, 4), 8), 2);
    let gateway = Gateway::start(&quota("1/day", "shadow = true"));
    assert_eq!(passed(&mut clients(&gateway, 4), 8), 8);
    let gateway = Gateway::start(&quota("1/day", "exempt = [\"127.0.0.0/8\"]"));
    assert_eq!(passed(&mut clients(&gateway, 4), 8), 8);
}

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
             [quotas.monthly]\namount = \"20/month\"\ncost = 2\ncost_from = \"X-Cost\"\n\
             [[routes]]\nupstream = \"app\"\nquotas = [\"monthly\"]\n\
             [upstreams.app]\nendpoints = [\"{}\"]\n",
            upstream.address()
        ));
        let mut client = gateway.client();
        // What each says that it cost, and what is left before it.
        for (cost, left) in [("2", 18), ("12", 16), ("x", 4), ("0", 2), ("30", 2)] {
            client.send(format!("GET / HTTP/1.1\r\nHost: gw.test\r\nX-Wanted: {cost}\r\n\r\n"));
            let response = client.response();
            let got = response.field("ratelimit").unwrap_or_default();
            assert!(got.starts_with(&format!("\"monthly\";r={left};")), "{workers}: {cost} {got}");
        }
        eventually("it is charged", || client.get("/").status == 429);
    }
}

#[test]
fn a_quota_that_refuses_gives_back_what_limits_took_and_the_other_way() {
    for workers in [1, 4] {
        let gateway = Gateway::start(&format!(
            "[runtime]\nworkers = {workers}\n\
             [quotas.all]\namount = \"12/month\"\nkey = \"route\"\n\
             [quotas.each]\namount = \"2/month\"\nkey = \"header:X-Tenant\"\n\
             [[routes]]\nrespond = {{}}\nquotas = [\"all\", \"each\"]\n"
        ));
        let mut clients = clients(&gateway, 2);
        let mut passed = Vec::new();
        for tenant in ["a", "b", "c", "d", "e", "f", "g"] {
            let mut count = 0;
            for n in 0..10 {
                let client = &mut clients[n % 2];
                client.send(format!("GET / HTTP/1.1\r\nHost: gw\r\nX-Tenant: {tenant}\r\n\r\n"));
                count += usize::from(client.response().status == 200);
            }
            passed.push(count);
        }
        assert_eq!(passed, [2, 2, 2, 2, 2, 2, 0], "{workers} workers");
    }
}

#[test]
fn a_plan_has_quotas_and_each_consumer_counts_by_itself() {
    let gateway = Gateway::start(
        "[api_keys.keys]\n[[routes]]\nrespond = {}\nauthenticate = [\"keys\"]\n\
         [quotas.gold]\namount = \"3/month\"\nkey = \"consumer\"\n\
         [plans.gold]\nquotas = [\"gold\"]\n\
         [consumers.alice]\nplan = \"gold\"\n\
         keys = [\"sha256:2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90\"]\n\
         [consumers.bob]\nplan = \"gold\"\n\
         keys = [\"sha256:81b637d8fcd2c6da6359e6963113a1170de795e4b725b84d1e0b4cfd9ec58ce9\"]\n\
         [consumers.carol]\n\
         keys = [\"sha256:4c26d9074c27d89ede59270c0ac14b71e071b15239519f75474b2f3ba63481f5\"]\n",
    );
    let mut clients = clients(&gateway, 4);
    let mut of = |key: &str| {
        let passes = (0..6).filter(|n: &usize| {
            clients[n % 4].send(format!("GET / HTTP/1.1\r\nHost: gw\r\nX-API-Key: {key}\r\n\r\n"));
            clients[n % 4].response().status == 200
        });
        passes.count()
    };
    assert_eq!(["alice", "bob", "carol", "alice"].map(&mut of), [3, 3, 6, 0]);
}

#[test]
fn a_reload_refills_nothing_also_under_load() {
    let toml = |amount: &str| format!("[runtime]\nworkers = 4\n{}", quota(amount, ""));
    let gateway = Gateway::start(&toml("300/month"));
    let mut all = clients(&gateway, 12);
    let (mut count, mut reloads) = (0, 0);
    for n in 0..60 {
        count += passed(&mut all, 10);
        if n % 10 == 5 {
            assert!(gateway.reload(&toml("300/month")));
            reloads += 1;
        }
    }
    assert_eq!((count, reloads), (300, 6));
    assert!(gateway.reload(&toml("310/month")));
    eventually("what is more may be used", || {
        count += passed(&mut all, 1);
        count == 310
    });
    assert_eq!(passed(&mut all, 30), 0);
    // Another key is another quota, as is another period.
    assert!(gateway.reload(&toml("5/day")));
    assert_eq!(passed(&mut all, 30), 5);
}

#[test]
fn what_was_used_is_known_after_a_restart() {
    for workers in [1, 2, 4] {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("a/quotas");
        let mut all = 0;
        for use_up in [40, 35, 400] {
            // Another number of workers each time: keys get other homes.
            let workers = (workers + all as u32) % 4 + 1;
            let gateway = Gateway::start(&kept("100/month", workers, &store, ""));
            all += passed(&mut clients(&gateway, 8), use_up);
            gateway.sigterm();
            assert!(gateway.wait_exit().success(), "{}", gateway.log());
        }
        assert_eq!(all, 100, "begun with {workers} workers");
    }
}

#[test]
fn a_process_that_is_killed_has_forgotten_no_more_than_since_the_last_time() {
    let folder = tempfile::tempdir().unwrap();
    let toml = kept("100/month", 2, folder.path(), "");
    let file = folder.path().join("quotas");
    let gateway = Gateway::start(&toml);
    assert_eq!(passed(&mut clients(&gateway, 8), 60), 60);
    // The last key's use stands before the checksum.
    let used = || {
        let bytes = std::fs::read(&file).unwrap();
        let at = bytes.len() - 36;
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    };
    eventually("it is written, and nothing is on lease", || used() == 60);
    gateway.signal(Signal::SIGKILL);
    gateway.wait_exit();
    let gateway = Gateway::start(&toml);
    assert_eq!(passed(&mut clients(&gateway, 8), 60), 40);
}

#[test]
fn a_new_process_goes_on_with_what_was_used() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(&kept("100/month", 2, folder.path(), ""));
    let mut before = clients(&gateway, 4);
    assert_eq!(passed(&mut before, 60), 60);
    let old = gateway.pid();
    assert!(gateway.upgrade(), "{}", gateway.log());
    // Connections that the old one accepts are for one response.
    gateway.wait_gone(old);
    let mut after = clients(&gateway, 4);
    // At most a quarter of what was left is on lease.
    assert_eq!(passed(&mut after, 25), 25);
    // What was on lease in the old one comes back.
    let mut left = 0;
    eventually("all of it may be used", || {
        left += passed(&mut after, 1);
        left == 15
    });
    assert_eq!(passed(&mut after, 20), 0);
    // And what that one has used is known afterwards.
    gateway.sigterm();
    gateway.wait_gone(gateway.pid());
    let gateway = Gateway::start(&kept("105/month", 3, folder.path(), ""));
    assert_eq!(passed(&mut clients(&gateway, 4), 20), 5);
}

#[test]
fn a_worker_that_is_started_again_knows_what_was_used() {
    for workers in [1, 2] {
        let toml = format!(
            "[runtime]\nworkers = {workers}\n{}[[routes]]\npath = \"/fatal\"\nrespond = {{}}\n",
            quota("100/month", "key = \"header:X-Key\"")
        );
        let env = vec![("RINGWAY_DRILL_WORKER_PANIC_PATH", "/fatal".to_owned())];
        let gateway = Launch { toml, env, ..Launch::default() }.start().unwrap();
        let ask = |key: u32| {
            let mut client = gateway.client();
            let request = format!("GET / HTTP/1.1\r\nHost: gw.test\r\nX-Key: {key}\r\n\r\n");
            let is_sent = client.try_send(request);
            is_sent && client.try_response("GET").is_ok_and(|response| response.status == 200)
        };
        // Keys of all workers, half used.
        let mut used = [0; 4].map(|_: u32| 0);
        for (key, used) in used.iter_mut().enumerate() {
            *used = (0..60).filter(|_| ask(key as u32)).count();
        }
        for _ in 0..3 {
            let before = gateway.log().matches("serves again").count();
            gateway.client().try_send("GET /fatal HTTP/1.1\r\nHost: gw.test\r\n\r\n");
            eventually("the worker serves again", || {
                gateway.log().matches("serves again").count() > before
            });
        }
        for (key, used) in used.iter_mut().enumerate() {
            *used += (0..100).filter(|_| ask(key as u32)).count();
        }
        // What was on lease to a worker that ended counts as used.
        assert!(used.iter().all(|used| (70..=100).contains(used)), "{workers}: {used:?}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_put_aside_and_told() {
    for (content, why) in [
        (&b"{}"[..], "it is not a file of quotas"),
        (b"ringway quotas 9\nxxxx", "it is of version 9, and this program reads version 1"),
        (b"ringway quotas 1\nxxxx", "its checksum is wrong"),
        (b"", "it is cut off"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("quotas");
        std::fs::write(&file, content).unwrap();
        let gateway = Gateway::start(&kept("5/month", 2, folder.path(), ""));
        let log = gateway.log();
        assert!(log.contains(why) && log.contains("put aside"), "{log}");
        assert_eq!(passed(&mut clients(&gateway, 2), 20), 5);
        let names = std::fs::read_dir(folder.path()).unwrap();
        let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        let aside = names.iter().find(|name| name.to_string_lossy().starts_with("quotas.bad-"));
        let aside = aside.unwrap_or_else(|| panic!("{names:?}"));
        assert_eq!(std::fs::read(folder.path().join(aside)).unwrap(), content);
    }
}

#[test]
fn a_folder_belongs_to_one_gateway() {
    let folder = tempfile::tempdir().unwrap();
    let toml = kept("5/month", 1, folder.path(), "");
    let gateway = Gateway::start(&toml);
    let second = Launch { toml: toml.clone(), ..Launch::default() }.start();
    let Err(failed) = second else { panic!("two gateways in one folder") };
    assert!(failed.stderr.contains("another gateway uses it"), "{}", failed.stderr);
    gateway.sigterm();
    gateway.wait_exit();
    drop(Gateway::start(&toml));
    // Where nothing can be written, that is told before anybody is served.
    let toml = kept("5/month", 1, Path::new("/proc/nowhere"), "");
    let Err(failed) = Launch { toml, ..Launch::default() }.start() else { panic!("it started") };
    assert!(failed.stderr.contains("quota_store.folder: cannot use"), "{}", failed.stderr);
}

#[test]
fn another_folder_waits_for_the_next_start() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let gateway = Gateway::start(&kept("5/month", 1, one.path(), ""));
    assert!(gateway.reload(&kept("5/month", 1, other.path(), "")));
    gateway.wait_for_log("quota_store has changed, which takes effect at the next start");
}

#[test]
fn what_was_used_is_shown_and_set() {
    let gateway = Gateway::start(
        "[runtime]\nworkers = 4\n[quotas.monthly]\namount = \"100/month\"\n\
         key = [\"header:X-Tenant\", \"route\"]\n[quotas.hourly]\namount = \"5/hour\"\n\
         [[routes]]\nname = \"all\"\nrespond = {}\nquotas = [\"monthly\"]\n",
    );
    let mut clients = clients(&gateway, 8);
    let mut ask = |tenant: &str, times: usize| {
        let passes = (0..times).filter(|n| {
            let client = &mut clients[n % 8];
            client.send(format!("GET / HTTP/1.1\r\nHost: gw\r\nX-Tenant: {tenant}\r\n\r\n"));
            client.response().status == 200
        });
        passes.count()
    };
    assert_eq!((ask("a", 30), ask("b", 120)), (30, 100));
    let told = |arguments: &[&str]| {
        let output = gateway.command(arguments);
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), text, String::from_utf8(output.stderr).unwrap())
    };
    // What is on lease counts as used until it has gone back.
    eventually("nothing is on lease", || {
        told(&["quota", "monthly", "a", "all"])
            .1
            .starts_with("monthly of a all: 30 used, 70 left of 100, back in ")
    });
    assert!(told(&["quota", "monthly", "b", "all"]).1.contains("100 used, 0 left of 100"));
    assert!(told(&["quota", "monthly", "c", "all"]).1.contains("0 used, 100 left of 100"));
    let (_, all, _) = told(&["quota"]);
    let row = all.lines().find(|line| line.starts_with("monthly")).unwrap();
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(cells[..7], ["monthly", "100", "month", "header:x-tenant", "route", "2", "130"]);
    assert!(all.lines().any(|line| line.starts_with("hourly")), "{all}");
    // More, less, and nothing at all.
    assert!(told(&["quota", "monthly", "b", "all", "--used", "90"]).1.contains("90 used, 10 left"));
    assert_eq!(ask("b", 40), 10);
    assert!(told(&["quota", "monthly", "a", "all", "--used", "100"]).1.contains("0 left"));
    eventually("it is in force", || ask("a", 1) == 0);
    assert!(told(&["quota", "monthly", "a", "all", "--reset"]).1.contains("0 used, 100 left"));
    eventually("it is back", || ask("a", 1) == 1);
    for (arguments, part) in [
        (&["quota", "weekly", "a"][..], "no quota `weekly`; there are monthly, hourly"),
        (&["quota", "monthly", "a"], "counts by header:x-tenant, route: give 2 of them"),
        (&["quota", "hourly", "alice"], "`alice` is no address"),
    ] {
        let (code, _, stderr) = told(arguments);
        assert!(code == Some(1) && stderr.contains(part), "{stderr}");
    }
    // Only on the operator's socket.
    let mut admin = gateway.admin();
    admin.send(
        "PUT /quotas/hourly?key=127.0.0.1 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
    );
    let response = admin.response();
    assert_eq!(response.status, 400);
    assert!(response.text().contains("write {"), "{}", response.text());
}

#[test]
fn figures_say_what_consumers_use_and_why_they_are_refused() {
    let gateway = Gateway::start(
        "[api_keys.keys]\n[[routes]]\nrespond = {}\nauthenticate = [\"keys\"]\n\
         [quotas.gold]\namount = \"3/month\"\nkey = \"consumer\"\n\
         [plans.gold]\nquotas = [\"gold\"]\n\
         [consumers.alice]\nplan = \"gold\"\n\
         keys = [\"sha256:2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90\"]\n",
    );
    let mut client = gateway.client();
    for _ in 0..5 {
        client.send("GET / HTTP/1.1\r\nHost: gw\r\nX-API-Key: alice\r\n\r\n");
        client.response();
    }
    eventually("figures", || {
        let metrics = gateway.admin().get("/metrics").text();
        [
            "ringway_consumer_requests_total{consumer=\"alice\",class=\"2xx\"} 3\n",
            "ringway_consumer_refusals_total{consumer=\"alice\",reason=\"limit.quota\"} 2\n",
            "ringway_consumer_quota_used{consumer=\"alice\",quota=\"gold\"} 3\n",
            "ringway_consumer_quota_left{consumer=\"alice\",quota=\"gold\"} 0\n",
        ]
        .iter()
        .all(|line| metrics.contains(line))
    });
    let status = gateway.admin().get("/status").text();
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let alice = &status["consumers"][0];
    assert_eq!(alice["refusals"]["limit.quota"], 2, "{alice}");
    let quota = &alice["quotas"][0];
    assert_eq!(
        (&quota["name"], &quota["used"], &quota["left"]),
        (&"gold".into(), &3.into(), &0.into())
    );
}
