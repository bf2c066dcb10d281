//! Another configuration while everything runs: what is in flight, kept or idle stays as it is.

use std::{
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use crate::harness::{Client, Gateway, Launch, Over, Pattern, Server, Upstream, eventually};

/// A configuration with one upstream and these routes (as TOML).
fn toml(upstream: &Upstream, routes: &str) -> String {
    format!("{routes}\n[upstreams.app]\nendpoints = [\"{}\"]\n", upstream.address())
}

const ALL: &str = "[[routes]]\nupstream = \"app\"\n";
const DENY: &str = "[[routes]]\npath = \"/deny\"\nrespond = { status = 403 }\n";

#[test]
fn a_kept_connection_gets_the_new_routes() {
    let up = Upstream::ok();
    let gateway = Gateway::start(&toml(&up, ALL));
    let mut client = gateway.client();
    assert_eq!(client.get("/deny").status, 200);
    assert!(gateway.reload(&toml(&up, &[ALL, DENY].concat())));
    assert_eq!(client.get("/deny").status, 403);
    assert!(gateway.reload(&toml(&up, ALL)));
    assert_eq!(client.get("/deny").status, 200);
    assert!(gateway.log().contains("generation=3"), "{}", gateway.log());
}

#[test]
fn a_request_in_flight_finishes_on_its_own_configuration() {
    let up = Upstream::scripted(|conn| {
        while let Ok(request) = conn.request() {
            if request.target == "/slow" {
                conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
                // Until the test has reloaded and lets it go on.
                eventually("permission", || GO_ON.load(Ordering::SeqCst));
                conn.send("world");
                continue;
            }
            conn.answer(&request);
        }
    });
    static GO_ON: AtomicBool = AtomicBool::new(false);
    let gateway = Gateway::start(&toml(&up, ALL));
    let mut client = gateway.client();
    client.send("GET /slow HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    client.head();
    let nothing = "[[routes]]\npath = \"/\"\nrespond = { status = 410 }\n";
    assert!(gateway.reload(nothing));
    assert_eq!(gateway.client().get("/slow").status, 410);
    GO_ON.store(true, Ordering::SeqCst);
    assert_eq!(client.reader.exactly(10).unwrap(), b"helloworld");
    assert_eq!(client.get("/slow").status, 410, "the connection was kept");
    up.wait_until_idle();
}

#[test]
fn a_bad_file_is_refused_and_the_old_one_serves_on() {
    let up = Upstream::ok();
    let gateway = Gateway::start(&toml(&up, ALL));
    let mut client = gateway.client();
    for (bad, hint) in [
        ("[[routes]]\nupstream = \"nobody\"\n", "nobody"),
        ("[[routes]]\nupstraem = \"app\"\n", "write `upstream`"),
        ("this is not TOML", "not valid TOML"),
    ] {
        assert!(!gateway.reload(bad), "{bad}");
        assert!(gateway.log().contains(hint), "{hint}: {}", gateway.log());
        assert_eq!(client.get("/").status, 200);
    }
    assert!(gateway.reload(&toml(&up, &[ALL, DENY].concat())));
    assert_eq!(client.get("/deny").status, 403);
}

#[test]
fn an_address_that_cannot_be_bound_refuses_the_whole_reload() {
    let up = Upstream::ok();
    let gateway = Gateway::start(&toml(&up, ALL));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listeners = format!(
        "[[listeners]]\nname = \"main\"\nbind = \"127.0.0.1:0\"\n\
         [[listeners]]\nname = \"second\"\nbind = \"{}\"\n",
        taken.local_addr().unwrap()
    );
    assert!(!gateway.reload(&toml(&up, &[&listeners, ALL, DENY].concat())));
    assert_eq!(gateway.client().get("/deny").status, 200);
}

#[test]
fn idle_upstream_connections_are_carried_over_by_endpoint() {
    let (a, b) = (Upstream::ok(), Upstream::ok());
    let with = |endpoints: &str| {
        format!(
            "[runtime]\nworkers = 1\n{ALL}{DENY}[upstreams.app]\nendpoints = [{endpoints}]\n\
             pool = {{ idle_timeout = \"1h\" }}\n"
        )
    };
    let quoted = |up: &Upstream| format!("\"{}\"", up.address());
    let gateway = Gateway::start(&with(&format!("{}, {}", quoted(&a), quoted(&b))));
    let mut client = gateway.client();
    (0..4).for_each(|_| assert_eq!(client.get("/").status, 200));
    // The same endpoints, and the same but for one, which goes.
    assert!(gateway.reload(&with(&format!("{}, {}", quoted(&a), quoted(&b)))));
    (0..4).for_each(|_| assert_eq!(client.get("/").status, 200));
    assert_eq!((a.connections(), b.connections()), (1, 1));
    assert!(gateway.reload(&with(&quoted(&a))));
    b.wait_until_idle();
    (0..4).for_each(|_| assert_eq!(client.get("/").status, 200));
    assert_eq!((a.connections(), a.open()), (1, 1));
}

#[test]
fn listeners_come_and_go() {
    let up = Upstream::ok();
    let listener =
        |name: &str| format!("[[listeners]]\nname = \"{name}\"\nbind = \"127.0.0.1:0\"\n");
    let (one, two) = (listener("one"), listener("two"));
    let gateway = Gateway::start(&toml(&up, &[&one, ALL].concat()));
    let mut kept = gateway.client();
    assert_eq!(kept.get("/").status, 200);

    assert!(gateway.reload(&toml(&up, &[&one, &two, ALL].concat())));
    let mut second = Client::connect(gateway.address_of("two"));
    assert_eq!(second.get("/").status, 200);
    assert_eq!(kept.get("/").status, 200);

    assert!(gateway.reload(&toml(&up, &[&one, ALL].concat())));
    let last = second.get("/");
    assert_eq!((last.status, last.field("connection")), (200, Some("close")), "a last answer");
    second.expect_closed();
    let gone = gateway.address_of("two");
    eventually("nobody listens", || TcpStream::connect(gone).is_err());
    let response = kept.get("/");
    assert_eq!((response.status, response.field("connection")), (200, None));

    assert!(gateway.reload(&toml(&up, &[&one, &two, ALL].concat())));
    assert_eq!(Client::connect(gateway.address_of("two")).get("/").status, 200);
}

/// Long before their keep-alive timeout, parked or not; but nothing else is.
#[test]
fn idle_connections_of_a_removed_listener_are_closed() {
    let (end, tunnel) = (Arc::new(AtomicBool::new(false)), super::upgrade::echo(""));
    let own = end.clone();
    let up = Upstream::scripted(move |conn| {
        while let Ok(request) = conn.request() {
            if request.target != "/slow" {
                conn.answer(&request);
                continue;
            }
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha");
            eventually("it may go on", || own.load(Ordering::SeqCst));
            conn.send("lf");
        }
    });
    let keys = |park: &str| {
        format!(
            "[shutdown]\ndrain_idle = \"1s\"\n[timeouts]\npark = \"{park}\"\n\
             [[routes]]\npath = \"/chat\"\nupstream = \"tunnel\"\n\
             [upstreams.tunnel]\nendpoints = [\"{}\"]\n{}",
            tunnel.address(),
            toml(&up, ALL)
        )
    };
    let one = "[[listeners]]\nname = \"one\"\nbind = \"127.0.0.1:0\"\n";
    let two = "[[listeners]]\nname = \"two\"\nbind = \"127.0.0.1:0\"\n";
    for park in ["1h", "1ms"] {
        end.store(false, Ordering::SeqCst);
        let gateway = Gateway::start(&format!("{one}{two}{}", keys(park)));
        let second = || Client::connect(gateway.address_of("two"));
        let (mut kept, mut talking) = (gateway.client(), second());
        assert_eq!(kept.get("/").status, 200);
        super::upgrade::switch(&mut talking);
        let mut idle: Vec<Client> = (0..8).map(|_| second()).collect();
        idle.iter_mut().for_each(|client| assert_eq!(client.get("/").status, 200));
        let mut slow = second();
        slow.send("GET /slow HTTP/1.1\r\nHost: gw.test\r\n\r\n");
        assert_eq!(slow.head().field("connection"), None, "it was to be kept");

        assert!(gateway.reload(&format!("{one}{}", keys(park))), "{}", gateway.log());
        let late = idle[0].get("/");
        assert_eq!((late.status, late.field("connection")), (200, Some("close")));
        idle.iter_mut().for_each(Client::expect_clean_close);
        end.store(true, Ordering::SeqCst);
        assert_eq!(slow.reader.exactly(4).unwrap(), b"half");
        slow.expect_clean_close();
        talking.send("still here");
        assert_eq!(talking.reader.exactly(10).unwrap(), b"still here");
        let response = kept.get("/");
        assert_eq!((response.status, response.field("connection")), (200, None));
    }
}

#[test]
fn unix_listeners_come_and_go() {
    let up = Upstream::ok();
    let gateway = Gateway::start(&toml(&up, ALL));
    let path = gateway.dir().join("gw.sock");
    let unix = format!(
        "[[listeners]]\nname = \"main\"\nbind = \"127.0.0.1:0\"\n\
         [[listeners]]\nbind = \"unix:{}\"\n",
        path.display()
    );
    let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    for _ in 0..2 {
        assert!(gateway.reload(&toml(&up, &[&unix, ALL].concat())));
        let mut kept = Client::connect_unix(&path);
        assert_eq!(kept.get("/").status, 200);
        assert!(gateway.reload(&toml(&up, &[&unix, "mode = \"0600\"\n", ALL].concat())));
        assert_eq!((mode(), kept.get("/").status), (0o600, 200), "the same socket");
        assert!(gateway.reload(&toml(&up, ALL)));
        assert!(!path.exists());
    }
    assert_eq!(gateway.client().get("/").status, 200);
}

#[test]
fn limits_take_effect() {
    let up = Upstream::ok();
    let gateway = Gateway::start(&toml(&up, ALL));
    let mut client = gateway.client();
    let post = "POST / HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 100\r\n\r\n";
    client.send([post, &"x".repeat(100)].concat());
    assert_eq!(client.response().status, 200);
    let tight = "[limits]\nbody = \"10B\"\nconnections_per_worker = 1\nrelay_buffer = \"4KiB\"\n";
    assert!(gateway.reload(&toml(&up, &[ALL, tight, "[runtime]\nworkers = 1\n"].concat())));
    assert!(gateway.log().contains("runtime.workers"), "fixed at start: {}", gateway.log());
    client.send(post);
    assert_eq!(client.response().status, 413);
    // Two workers still, each with one place.
    let mut three = [gateway.client(), gateway.client(), gateway.client()];
    assert!(three.iter_mut().any(|client| client.get("/").status == 503));
}

#[test]
fn settings_of_kept_sockets_change_too() {
    let up = Upstream::ok();
    let gateway = Gateway::start(&toml(&up, ALL));
    let unsent = || -> Vec<u32> {
        let sockets = gateway.listening_sockets();
        sockets.iter().map(|s| s.tcp_notsent_lowat().unwrap()).collect()
    };
    assert_eq!(unsent(), [256 << 10; 2], "one socket for each worker");
    assert!(gateway.reload(&toml(&up, &[ALL, "[limits]\nunsent = \"64KiB\"\n"].concat())));
    assert_eq!(unsent(), [64 << 10; 2]);
    assert_eq!(gateway.client().get("/").status, 200);
}

#[test]
fn long_exchanges_are_untouched() {
    let (server, tunnel) = (Server::start(), super::upgrade::echo(""));
    let with = |more: &str| {
        format!(
            "{more}[[routes]]\npath = \"/chat\"\nupstream = \"tunnel\"\n\
             [[routes]]\nupstream = \"app\"\n\
             [upstreams.app]\nendpoints = [\"{}\"]\n[upstreams.tunnel]\nendpoints = [\"{}\"]\n",
            server.address(),
            tunnel.address()
        )
    };
    let gateway = Gateway::start(&with(""));
    let mut talking = gateway.client();
    super::upgrade::switch(&mut talking);
    let (mut slow, size) = (gateway.client(), 20_000_000);
    slow.send(format!("GET /bytes/{size} HTTP/1.1\r\nHost: gw.test\r\n\r\n"));
    slow.head();
    let (mut pattern, mut out, mut back) =
        (Pattern::default(), Pattern::default(), Pattern::default());
    for round in 0..5 {
        pattern.check(&slow.reader.exactly(size / 10).unwrap());
        // Now and then both of their upstreams are gone from the configuration.
        match round % 2 {
            0 => assert!(gateway.reload(&with(DENY))),
            _ => assert!(gateway.reload(DENY)),
        }
        talking.send(out.take(1000));
        back.check(&talking.reader.exactly(1000).unwrap());
    }
    pattern.check(&slow.reader.exactly(size / 2).unwrap());
    assert_eq!(slow.get("/bytes/10").body.len(), 10);
}

#[test]
fn reloads_under_load_lose_nothing() {
    let up = Upstream::ok();
    let second = "[[listeners]]\nname = \"main\"\nbind = \"127.0.0.1:0\"\n\
        [[listeners]]\nname = \"second\"\nbind = \"127.0.0.1:0\"\n";
    let both = [toml(&up, ALL), toml(&up, &[second, ALL, DENY].concat())];
    let gateway = Gateway::start(&both[0]);
    let (done, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for kept in [true, true, false] {
            let (gateway, done, served) = (&gateway, &done, &served);
            scope.spawn(move || {
                let mut client = gateway.client();
                while !done.load(Ordering::Relaxed) {
                    if !kept {
                        client = gateway.client();
                    }
                    assert_eq!(client.get("/").status, 200);
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let _over = Over(&done);
        for round in 1..=20 {
            assert!(gateway.reload(&both[round % 2]));
            let before = served.load(Ordering::Relaxed);
            eventually("requests", || served.load(Ordering::Relaxed) > before + 10);
        }
    });
    assert!(gateway.log().contains("generation=21"));
}

#[test]
fn a_signal_without_a_file_changes_nothing() {
    let launch = Launch { demo: true, ..Launch::default() };
    let demo = launch.start().unwrap_or_else(|failed| panic!("{failed:?}"));
    demo.signal(nix::sys::signal::Signal::SIGHUP);
    demo.wait_for_log("no file to reload");
    assert_eq!(demo.client().get("/fruit").status, 200);
}
