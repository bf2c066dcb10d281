//! TLS that passes through by the name in its ClientHello: who gets it, what is told, what ends it.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, mpsc},
    time::Duration,
};

use rustls::{ClientConfig, ClientConnection, StreamOwned, pki_types::ServerName};

use crate::harness::{
    Client, Gateway, Papers, Pattern, ReadError, Server, Socket, Upstream, bodies_pass, eventually,
};

/// What a client that asks for `name` sends first.
fn hello(name: &str) -> Vec<u8> {
    let config = Papers::new().issue("x", &["x"]).trusting(&["x"]);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut session = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    session.write_tls(&mut bytes).unwrap();
    bytes
}

/// A gateway that ends TLS for `name`, before an upstream.
fn ends_tls(papers: &Papers, name: &str, upstream: SocketAddr) -> Gateway {
    papers.issue(name, &[name]);
    Gateway::before(upstream, &papers.listener(&[name], ""))
}

/// Passes through by these entries to upstreams of these names and endpoints.
fn passes(entries: &str, upstreams: &[(&str, &str)], more: &str) -> Gateway {
    let upstreams: String =
        upstreams.iter().map(|(name, rest)| format!("[upstreams.{name}]\n{rest}\n")).collect();
    Gateway::start(&format!(
        "[[listeners]]\nname = \"main\"\nbind = \"127.0.0.1:0\"\npassthrough = [{entries}]\n{more}\n\
         {upstreams}"
    ))
}

fn to(address: SocketAddr) -> String {
    format!("endpoints = [\"{address}\"]")
}

fn client(gateway: &Gateway, config: ClientConfig, name: &str) -> Client {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let session = ClientConnection::new(Arc::new(config), name).unwrap();
    let tcp = TcpStream::connect(gateway.address()).unwrap();
    tcp.set_nodelay(true).unwrap();
    Client::over(Socket::Tls(Box::new(StreamOwned::new(session, tcp))))
}

#[track_caller]
fn refused(gateway: &Gateway, reason: &str, count: u32) {
    let name = format!("ringway_refusals_total{{reason=\"{reason}\"}}");
    eventually(&format!("{reason} is counted {count} times"), || {
        gateway.figure(&name) == Some(f64::from(count))
    });
}

#[test]
fn each_name_ends_its_tls_where_it_belongs() {
    let papers = Papers::new();
    let servers = [Server::start(), Server::start(), Server::start()];
    let names = ["app.example", "x.y.wild.example", "other.test"];
    let gateways: Vec<_> = names
        .iter()
        .zip(&servers)
        .map(|(name, server)| ends_tls(&papers, name, server.address()))
        .collect();
    let upstreams: Vec<_> = gateways.iter().map(|gateway| to(gateway.address())).collect();
    let gateway = passes(
        "{ sni = [\"APP.example\", \"b.example\"], upstream = \"app\" }, \
         { sni = [\"*.wild.example\"], upstream = \"wild\" }, { upstream = \"rest\" }",
        &[("app", &upstreams[0]), ("wild", &upstreams[1]), ("rest", &upstreams[2])],
        "",
    );
    for (name, server) in names.iter().zip(&servers) {
        let before = server.connections();
        let mut client = client(&gateway, papers.trusting(&[name]), name);
        bodies_pass(&mut client, 1_000_000);
        assert!(server.connections() > before, "{name}");
    }
    let passed =
        |upstream| format!("ringway_passthrough_connections_total{{upstream=\"{upstream}\"}}");
    for upstream in ["app", "wild", "rest"] {
        assert_eq!(gateway.figure(&passed(upstream)), Some(1.0));
        for from in ["client", "upstream"] {
            let bytes = format!(
                "ringway_passthrough_bytes_total{{upstream=\"{upstream}\",from=\"{from}\"}}"
            );
            assert!(gateway.figure(&bytes) > Some(1_000_000.0), "{bytes}");
        }
    }
    assert_eq!(gateway.figure("ringway_tls_handshakes_total{kind=\"full\"}"), Some(0.0));
}

#[test]
fn a_hello_may_come_in_any_pieces_and_arrives_as_it_was() {
    let upstream = Upstream::scripted(|conn| while matches!(conn.reader.fill(), Ok(1..)) {});
    let gateway = passes(
        "{ sni = [\"app.example\"], upstream = \"app\" }",
        &[("app", &to(upstream.address()))],
        "",
    );
    let whole = hello("app.example");
    // The same message in records of a few bytes.
    let pieces: Vec<u8> = whole[5..]
        .chunks(50)
        .flat_map(|part| [&[22, 3, 1, 0, part.len() as u8][..], part].concat())
        .collect();
    for (n, bytes) in [&whole, &pieces].into_iter().enumerate() {
        for (m, cut) in [1, 5, 9, 60, bytes.len() - 1].into_iter().enumerate() {
            let mut client = gateway.client();
            client.send(&bytes[..cut]);
            client.send(&bytes[cut..]);
            client.send(Pattern::default().take(100));
            upstream.wait_for_connections(5 * n + m + 1);
            let wanted = [&bytes[..], &Pattern::default().take(100)].concat();
            eventually("all of it", || upstream.recorded().contains(&wanted));
        }
    }
}

#[test]
fn who_goes_nowhere_is_told_by_an_alert() {
    let upstream = Upstream::ok();
    let gateway = passes(
        "{ sni = [\"app.example\"], upstream = \"app\" }",
        &[("app", &to(upstream.address()))],
        "[timeouts]\nhead = \"300ms\"",
    );
    let alert = |description: u8| vec![21, 3, 3, 0, 2, 2, description];
    let mut malformed = hello("app.example");
    malformed[9] = 9;
    let table = [
        (hello("b.example"), alert(112), "passthrough.unknown_name"),
        (hello("192.0.2.1"), alert(112), "passthrough.no_name"),
        (
            b"GET / HTTP/1.1\r\nHost: app.example\r\n\r\n".to_vec(),
            alert(50),
            "passthrough.no_hello",
        ),
        (hello("app.example")[..40].to_vec(), Vec::new(), "passthrough.timeout"),
        (Vec::new(), Vec::new(), "passthrough.timeout"),
    ];
    for (n, (bytes, wanted, reason)) in table.into_iter().enumerate() {
        let mut client = gateway.client();
        client.send(bytes);
        assert_eq!(client.reader.read_to_end().unwrap(), wanted, "{reason}");
        refused(&gateway, reason, if n == 4 { 2 } else { 1 });
    }
    let mut leaves = gateway.client();
    leaves.send(&hello("app.example")[..40]);
    drop(leaves);
    refused(&gateway, "client.aborted", 1);
    assert_eq!(upstream.connections(), 0);
    assert_eq!(gateway.figure("ringway_passthrough_connections_total{upstream=\"app\"}"), None);
}

#[test]
fn an_endpoint_that_cannot_be_connected_is_passed_over() {
    let unused = || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let (dead, other) = (unused(), unused());
    let upstream = Upstream::scripted(|conn| while matches!(conn.reader.fill(), Ok(1..)) {});
    let both = format!("endpoints = [\"{dead}\", \"{}\"]", upstream.address());
    let gateway = passes(
        "{ sni = [\"app.example\"], upstream = \"app\" }, { upstream = \"dead\" }",
        &[("app", &both), ("dead", &to(other))],
        "",
    );
    for n in 1..=4 {
        let mut client = gateway.client();
        client.send(hello("app.example"));
        upstream.wait_for_connections(n);
    }
    let mut client = gateway.client();
    client.send(hello("b.example"));
    assert_eq!(client.reader.read_to_end().unwrap(), [21, 3, 3, 0, 2, 2, 80]);
    refused(&gateway, "upstream.connect", 1);
    let failures = format!(
        "ringway_endpoint_connect_failures_total{{upstream=\"dead\",endpoint=\"{other}\"}}"
    );
    assert_eq!(gateway.figure(&failures), Some(1.0));
}

#[test]
fn ends_are_passed_on_and_silence_is_bounded() {
    let (tell, told) = mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    let upstream = Upstream::scripted(move |conn| {
        let end = loop {
            match conn.reader.fill() {
                Ok(1..) => {}
                end => break end,
            }
        };
        tell.lock().unwrap().send(end).unwrap();
        conn.send("last words");
    });
    let gateway = passes(
        "{ upstream = \"app\" }",
        &[("app", &to(upstream.address()))],
        "[timeouts]\ntunnel_idle = \"1s\"",
    );
    let begin = |n| {
        let mut client = gateway.client();
        client.send(hello("app.example"));
        upstream.wait_for_connections(n);
        client
    };
    let mut half = begin(1);
    half.finish_sending();
    assert_eq!(told.recv().unwrap(), Ok(0));
    assert_eq!(half.reader.read_to_end().unwrap(), b"last words");
    begin(2).reset();
    assert!(matches!(told.recv().unwrap(), Err(ReadError::Reset | ReadError::Cut)));
    let mut silent = begin(3);
    assert_eq!(silent.reader.fill(), Ok(0));
    told.recv().unwrap().unwrap();
    let ends = |reason| format!("ringway_tunnel_ends_total{{reason=\"{reason}\"}}");
    for reason in ["closed", "client", "idle"] {
        eventually(reason, || gateway.figure(&ends(reason)) == Some(1.0));
    }
}

#[test]
fn a_reload_moves_names_and_leaves_tunnels() {
    let [first, second] = [(); 2].map(|()| {
        Upstream::scripted(|conn| {
            while matches!(conn.reader.fill(), Ok(1..)) {
                let bytes = std::mem::take(&mut conn.reader.buf);
                conn.send(bytes);
            }
        })
    });
    let toml = |entries: &str| {
        format!(
            "[[listeners]]\nname = \"main\"\nbind = \"127.0.0.1:0\"\npassthrough = [{entries}]\n\
             [upstreams.second]\n{}\n[upstreams.first]\n{}\n",
            to(second.address()),
            to(first.address())
        )
    };
    let gateway = Gateway::start(&toml(
        "{ sni = [\"a.example\"], upstream = \"first\" }, { upstream = \"second\" }",
    ));
    let hello = hello("a.example");
    let mut old = gateway.client();
    old.send(&hello);
    assert_eq!(old.reader.exactly(hello.len()).unwrap(), hello);
    assert!(gateway.reload(&toml(
        "{ sni = [\"a.example\"], upstream = \"second\" }, { upstream = \"first\" }",
    )));
    let mut new = gateway.client();
    new.send(&hello);
    assert_eq!(new.reader.exactly(hello.len()).unwrap(), hello);
    old.send("still here");
    assert_eq!(old.reader.exactly(10).unwrap(), b"still here");
    assert_eq!((first.connections(), second.connections()), (1, 1));
}

#[test]
fn connections_are_logged_with_the_name() {
    let upstream = Upstream::scripted(|conn| {
        let _ = conn.reader.fill();
        conn.send("12345");
    });
    let gateway = passes(
        "{ sni = [\"app.example\"], upstream = \"app\" }",
        &[("app", &to(upstream.address()))],
        "[[access_logs]]\nto = \"stdout\"\nformat = { template = \"LOG ${listener} ${client} ${host} \
         ${protocol} ${request_line} ${status} ${upstream} ${endpoint} ${request_bytes} \
         ${response_bytes} ${reason}\" }",
    );
    let bytes = hello("app.example");
    let mut client = gateway.client();
    client.send(&bytes);
    assert_eq!(client.reader.read_to_end().unwrap(), b"12345");
    drop(client);
    let address = upstream.address();
    let length = bytes.len();
    gateway.wait_for_log(&format!(
        "LOG main 127.0.0.1 app.example TLS - 200 app {address} {length} 5 -"
    ));
    let mut client = gateway.client();
    client.send(hello("b.example"));
    client.reader.read_to_end().unwrap();
    gateway.wait_for_log("LOG main 127.0.0.1 b.example TLS - 421 - - 0 0 passthrough.unknown_name");
}

#[test]
fn a_long_hello_is_refused() {
    let upstream = Upstream::ok();
    let gateway = passes("{ upstream = \"app\" }", &[("app", &to(upstream.address()))], "");
    // Records of one byte, whose message would never end.
    let mut client = gateway.client();
    let mut bytes = vec![22, 3, 1, 0, 4, 1, 0, 0x20, 0];
    bytes.extend([22, 3, 1, 0, 1, 7].repeat(3000));
    client.try_send(&bytes);
    let client = client.patience(Duration::from_secs(5));
    let Client { mut reader } = client;
    let end = reader.read_to_end();
    assert!(end.as_ref().is_ok_and(|bytes| bytes.ends_with(&[50])) || end.is_err(), "{end:?}");
    refused(&gateway, "passthrough.no_hello", 1);
    assert_eq!(upstream.connections(), 0);
}
