//! What HTTP/1.1 asks of an intermediary, for one exchange and for a connection of them.

use std::process::Command;

use crate::harness::{Gateway, Pattern, Server, Upstream};

#[test]
fn every_method_passes() {
    let upstream = Upstream::ok();
    let gateway = Gateway::before(upstream.address(), "");
    let mut client = gateway.client();
    for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "BREW"] {
        client.send(format!("{method} /m HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 0\r\n\r\n"));
        assert_eq!(client.response().text(), format!("{method} /m"));
    }
}

#[test]
fn a_response_to_head_has_a_length_but_no_body() {
    let upstream = Upstream::ok();
    let gateway = Gateway::before(upstream.address(), "");
    let mut client = gateway.client();
    client.send("HEAD /h HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    let response = client.response_to("HEAD");
    assert_eq!(response.field("content-length"), Some("7"));
    assert_eq!(client.get("/next").text(), "GET /next");
    assert_eq!(upstream.connections(), 1, "the connection is reused");
}

#[test]
fn head_with_chunked_framing_has_no_body_either() {
    let upstream = Upstream::scripted(|conn| {
        while let Ok(request) = conn.request() {
            match request.method.as_str() {
                "HEAD" => conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
                _ => conn.answer(&request),
            };
        }
    });
    let gateway = Gateway::before(upstream.address(), "");
    let mut client = gateway.client();
    client.send("HEAD / HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    assert_eq!(client.response_to("HEAD").status, 200);
    assert_eq!(client.get("/next").text(), "GET /next");
}

#[test]
fn statuses_without_a_body() {
    let upstream = Upstream::scripted(|conn| {
        while let Ok(request) = conn.request() {
            match request.target.as_str() {
                "/204" => conn.send("HTTP/1.1 204 No Content\r\n\r\n"),
                "/304" => conn
                    .send("HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\nETag: \"x\"\r\n\r\n"),
                "/205" => conn.send("HTTP/1.1 205 Reset\r\nContent-Length: 0\r\n\r\n"),
                _ => conn.answer(&request),
            };
        }
    });
    let gateway = Gateway::before(upstream.address(), "");
    let mut client = gateway.client();
    for status in [204, 304, 205] {
        let response = client.get(&format!("/{status}"));
        assert_eq!((response.status, response.body.len()), (status, 0));
    }
    assert_eq!(client.get("/304").field("etag"), Some("\"x\""));
    assert_eq!(client.get("/next").text(), "GET /next");
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn connections_are_kept_on_both_sides() {
    let upstream = Upstream::ok();
    let gateway = Gateway::before(upstream.address(), "");
    let mut client = gateway.client();
    for i in 0..20 {
        let response = client.get(&format!("/{i}"));
        assert_eq!(response.text(), format!("GET /{i}"));
        assert!(!response.head.all("connection").contains(&"close"));
    }
    assert_eq!((upstream.requests().len(), upstream.connections()), (20, 1));
}

#[test]
fn close_is_honoured_on_both_sides() {
    let upstream = Upstream::scripted(|conn| {
        if conn.request().is_ok() {
            conn.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let gateway = Gateway::before(upstream.address(), "");
    let mut client = gateway.client();
    for _ in 0..3 {
        let response = client.get("/");
        assert_eq!(response.text(), "ok");
        assert_eq!(response.field("connection"), None, "the upstream's close is not the client's");
    }
    assert_eq!(upstream.connections(), 3);
    client.send("GET / HTTP/1.1\r\nHost: gw.test\r\nConnection: close\r\n\r\n");
    assert_eq!(client.response().field("connection"), Some("close"));
    client.expect_clean_close();
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let upstream = Upstream::ok();
    let gateway = Gateway::before(upstream.address(), "");
    let mut client = gateway.client();
    let mut all = String::new();
    for i in 0..50 {
        if i % 3 == 0 {
            all +=
                &format!("POST /{i} HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 5\r\n\r\nhello");
        } else {
            all += &format!("GET /{i} HTTP/1.1\r\nHost: gw.test\r\n\r\n");
        }
    }
    client.send(all);
    for i in 0..50 {
        let method = if i % 3 == 0 { "POST" } else { "GET" };
        assert_eq!(client.response().text(), format!("{method} /{i}"));
    }
}

#[test]
fn http10_clients() {
    let server = Server::start();
    let gateway = Gateway::before(server.address(), "");
    let mut client = gateway.client();
    client.send("GET /bytes/10 HTTP/1.0\r\nHost: gw.test\r\n\r\n");
    let response = client.response();
    assert_eq!((response.status, response.body.len()), (200, 10));
    client.expect_clean_close();
    // What has no length ends with the connection: an HTTP/1.0 client does not know chunks.
    let mut client = gateway.client();
    client.send("GET /chunked/100000 HTTP/1.0\r\n\r\n");
    let response = client.response();
    assert_eq!((response.close_delimited, response.body.len()), (true, 100_000));
    Pattern::default().check(&response.body);
    // keep-alive must be asked for and granted.
    let mut client = gateway.client();
    for _ in 0..2 {
        client.send("GET /bytes/10 HTTP/1.0\r\nHost: gw.test\r\nConnection: keep-alive\r\n\r\n");
        let response = client.response();
        assert_eq!(response.body.len(), 10);
        assert!(response.field("connection").is_some_and(|c| c.eq_ignore_ascii_case("keep-alive")));
    }
}

#[test]
fn http10_upstreams() {
    let upstream = Upstream::scripted(|conn| {
        if conn.request().is_ok() {
            conn.send("HTTP/1.0 200 OK\r\nX: y\r\n\r\nuntil close");
        }
    });
    let gateway = Gateway::before(upstream.address(), "");
    let mut client = gateway.client();
    for _ in 0..2 {
        let response = client.get("/");
        assert_eq!((response.text().as_str(), response.close_delimited), ("until close", false));
        assert_eq!(response.field("x"), Some("y"));
    }
    assert_eq!(upstream.connections(), 2);
}

#[test]
fn a_close_delimited_response_reaches_both_kinds_of_client() {
    let upstream = Upstream::scripted(|conn| {
        if conn.request().is_ok() {
            conn.send("HTTP/1.1 200 OK\r\n\r\n");
            let mut pattern = Pattern::default();
            for _ in 0..10 {
                conn.send(pattern.take(50_000));
            }
        }
    });
    let gateway = Gateway::before(upstream.address(), "");
    let mut client = gateway.client();
    let response = client.get("/");
    assert_eq!((response.body.len(), response.close_delimited), (500_000, false));
    Pattern::default().check(&response.body);
    client.send("GET / HTTP/1.0\r\n\r\n");
    let response = client.response();
    assert_eq!((response.body.len(), response.close_delimited), (500_000, true));
}

#[test]
fn trailers_of_a_response() {
    let upstream = Upstream::canned(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
         5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
    );
    let gateway = Gateway::before(upstream.address(), "");
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nHost: gw.test\r\nTE: trailers\r\nConnection: TE\r\n\r\n");
    let response = client.response();
    assert_eq!(response.text(), "hello");
    let sum = response.trailers.iter().any(|(n, v)| n.eq_ignore_ascii_case("x-sum") && v == "1");
    assert!(sum, "{:?}", response.trailers);
    // The connection goes on correctly after them.
    assert_eq!(client.get("/").text(), "hello");
}

#[test]
fn bodies_chunked_both_ways() {
    let server = Server::start();
    let gateway = Gateway::before(server.address(), "");
    let mut client = gateway.client();
    let mut pattern = Pattern::default();
    client.send("POST /sink HTTP/1.1\r\nHost: gw.test\r\nTransfer-Encoding: chunked\r\n\r\n");
    for n in [1, 10, 1000, 65_536, 3, 100_000] {
        client.send(format!("{n:x}\r\n"));
        client.send(pattern.take(n));
        client.send("\r\n");
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.response().text(), "166550 intact");
    let response = client.get("/chunked/300000");
    assert_eq!(response.body.len(), 300_000);
    Pattern::default().check(&response.body);
}

#[test]
fn expect_100_continue() {
    let upstream = Upstream::scripted(|conn| {
        while let Ok(request) = conn.request_head() {
            if request.target == "/no" {
                conn.send("HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno");
                return;
            }
            if request.head.has("expect") {
                conn.send("HTTP/1.1 100 Continue\r\n\r\n");
            }
            let body = conn.reader.exactly(5).unwrap_or_default();
            conn.ok(body);
        }
    });
    let gateway = Gateway::before(upstream.address(), "");
    let mut client = gateway.client();
    let head = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        )
    };
    client.send(head("/yes"));
    assert_eq!(client.response().status, 100);
    client.send("hello");
    let mut response = client.response();
    while response.status == 100 {
        response = client.response();
    }
    assert_eq!(response.text(), "hello");
    // A client that was refused never sends its body.
    let mut client = gateway.client();
    client.send(head("/no"));
    let mut response = client.response();
    while response.status == 100 {
        response = client.response();
    }
    assert_eq!((response.status, response.text().as_str()), (403, "no"));
}

#[test]
fn interim_responses_are_forwarded_but_not_to_http10() {
    let upstream = Upstream::canned(
        "HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n\
         HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    let gateway = Gateway::before(upstream.address(), "");
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    let early = client.response();
    assert_eq!((early.status, early.field("link")), (103, Some("</style.css>")));
    assert_eq!(client.response().status, 102);
    assert_eq!(client.response().text(), "ok");
    let mut client = gateway.client();
    client.send("GET / HTTP/1.0\r\nHost: gw.test\r\n\r\n");
    assert_eq!(client.response().text(), "ok");
}

#[test]
fn a_response_may_come_before_the_request_ends() {
    let upstream = Upstream::scripted(|conn| {
        if conn.request_head().is_ok() {
            conn.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno");
            conn.until_closed();
        }
    });
    let gateway = Gateway::before(upstream.address(), "");
    let mut client = gateway.client();
    client.send("POST / HTTP/1.1\r\nHost: gw.test\r\nContent-Length: 1000000\r\n\r\n");
    client.send(vec![b'x'; 1000]);
    // The rest is never sent, yet the response is there.
    let response = client.response();
    assert_eq!((response.status, response.text().as_str()), (401, "no"));
    drop(client);
    upstream.wait_until_idle();
}

#[test]
fn a_response_streams_while_the_request_streams() {
    let upstream = Upstream::scripted(|conn| {
        if conn.request_head().is_err() {
            return;
        }
        conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        // Echoes each chunk as it comes.
        while let Ok(line) = conn.reader.through(b"\r\n") {
            conn.send(&line);
            if line == b"0\r\n" {
                conn.send("\r\n");
                return;
            }
            let data = conn.reader.exactly(7).unwrap();
            conn.send(data);
        }
    });
    let gateway = Gateway::before(upstream.address(), "");
    let mut client = gateway.client();
    client.send(
        "POST / HTTP/1.1\r\nHost: gw.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nping0\r\n",
    );
    assert_eq!(client.head().start_line, "HTTP/1.1 200 OK");
    for i in 0..5 {
        let echo = client.reader.exactly(10).unwrap();
        assert_eq!(echo, format!("5\r\nping{i}\r\n").into_bytes());
        client.send(format!("5\r\nping{}\r\n", i + 1));
    }
    client.send("0\r\n\r\n");
    client.reader.through(b"0\r\n\r\n").unwrap();
}

#[test]
fn hop_by_hop_fields_of_a_response_stay_behind() {
    let upstream = Upstream::canned(
        "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Secret\r\nKeep-Alive: timeout=5\r\n\
         X-Secret: 1\r\nProxy-Connection: keep-alive\r\nX-Open: 2\r\nSet-Cookie: a=1\r\n\
         Set-Cookie: b=2\r\nServer: app\r\nContent-Length: 2\r\n\r\nok",
    );
    let gateway = Gateway::before(upstream.address(), "");
    let response = gateway.client().get("/");
    for name in ["keep-alive", "x-secret", "proxy-connection", "connection"] {
        assert!(!response.head.has(name), "{name}: {:?}", response.head.fields);
    }
    assert_eq!(response.field("x-open"), Some("2"));
    assert_eq!(response.field("server"), Some("app"));
    assert_eq!(response.head.all("set-cookie"), ["a=1", "b=2"]);
}

#[test]
fn via_and_date() {
    let upstream = Upstream::scripted(|conn| {
        while let Ok(request) = conn.request() {
            match request.target.as_str() {
                "/dated" => conn.send("HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Length: 0\r\n\r\n"),
                _ => conn.answer(&request),
            };
        }
    });
    let gateway = Gateway::before(upstream.address(), "");
    let mut client = gateway.client();
    let date = client.get("/").field("date").expect("a Date").to_string();
    let age = std::time::SystemTime::now().duration_since(httpdate(&date));
    assert!(age.is_ok_and(|age| age.as_secs() < 10), "{date}");
    assert_eq!(client.get("/dated").field("date"), Some("Thu, 01 Jan 1970 00:00:00 GMT"));
    client.send("GET /via HTTP/1.1\r\nHost: gw.test\r\nVia: 1.0 fred\r\n\r\n");
    client.response();
    let requests = upstream.requests();
    assert_eq!(requests[0].head.all("via").join(", "), "1.1 ringway");
    assert_eq!(requests[2].head.all("via").join(", "), "1.0 fred, 1.1 ringway");
}

fn httpdate(text: &str) -> std::time::SystemTime {
    httpdate::parse_http_date(text).unwrap()
}

#[test]
fn max_forwards() {
    let upstream = Upstream::ok();
    let gateway = Gateway::before(upstream.address(), "");
    let mut client = gateway.client();
    client.send("OPTIONS /x HTTP/1.1\r\nHost: gw.test\r\nMax-Forwards: 5\r\n\r\n");
    assert_eq!(client.response().status, 200);
    assert_eq!(upstream.requests()[0].field("max-forwards"), Some("4"));
    // At zero the gateway is the last recipient and answers by itself.
    client.send("OPTIONS /x HTTP/1.1\r\nHost: gw.test\r\nMax-Forwards: 0\r\n\r\n");
    assert!([200, 204].contains(&client.response().status));
    assert_eq!(upstream.requests().len(), 1);
    // Other methods: it means nothing.
    client.send("GET /x HTTP/1.1\r\nHost: gw.test\r\nMax-Forwards: 0\r\n\r\n");
    assert_eq!(client.response().text(), "GET /x");
}

#[test]
fn options_asterisk() {
    let upstream = Upstream::ok();
    let gateway = Gateway::before(upstream.address(), "");
    let mut client = gateway.client();
    client.send("OPTIONS * HTTP/1.1\r\nHost: gw.test\r\n\r\n");
    assert!([200, 204].contains(&client.response().status));
    let seen = upstream.requests();
    assert!(seen.iter().all(|r| r.head.start_line == "OPTIONS * HTTP/1.1"), "{seen:?}");
    assert_eq!(client.get("/next").text(), "GET /next");
}

#[test]
fn large_heads_pass_both_ways() {
    let large = "y".repeat(20_000);
    let response = format!("HTTP/1.1 200 OK\r\nX-Large: {large}\r\nContent-Length: 2\r\n\r\nok");
    let upstream = Upstream::canned(response);
    let gateway = Gateway::before(upstream.address(), "");
    let mut client = gateway.client();
    for _ in 0..2 {
        client.send(format!("GET / HTTP/1.1\r\nHost: gw.test\r\nX-Large: {large}\r\n\r\n"));
        assert_eq!(client.response().field("x-large"), Some(large.as_str()));
    }
    assert!(upstream.requests().iter().all(|r| r.field("x-large") == Some(large.as_str())));
}

#[test]
fn every_way_of_cutting_a_response_gives_the_same() {
    const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nX: y\r\nTransfer-Encoding: chunked\r\n\r\n\
        5;e=f\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\nX-Sum: 1\r\n\r\n";
    let upstream = Upstream::scripted(|conn| {
        while let Ok(request) = conn.request() {
            let at: usize = request.target[1..].parse().unwrap();
            conn.send(&RESPONSE[..at]);
            std::thread::sleep(std::time::Duration::from_micros(300));
            conn.send(&RESPONSE[at..]);
        }
    });
    let gateway = Gateway::before(upstream.address(), "");
    let mut client = gateway.client();
    for at in 0..=RESPONSE.len() {
        let response = client.get(&format!("/{at}"));
        assert_eq!(response.text(), "hello0123456789abcdef", "cut at {at}");
        assert_eq!(response.field("x"), Some("y"));
    }
}

#[test]
fn curl() {
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("curl is not installed; nothing checked");
        return;
    }
    let server = Server::start();
    let gateway = Gateway::before(server.address(), "");
    let url = |path: &str| format!("http://{}{path}", gateway.address());
    let body = gateway.dir().join("body");
    std::fs::write(&body, Pattern::default().take(3_000_000)).unwrap();
    let at_body = format!("@{}", body.display());
    let run = |arguments: &[&str]| {
        let output =
            Command::new("curl").args(["-sS", "--max-time", "20"]).args(arguments).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let upload = ["--data-binary", at_body.as_str()];
    assert_eq!(run(&[&upload[..], &[&url("/sink")]].concat()), b"3000000 intact");
    let chunked = ["-H", "Transfer-Encoding: chunked"];
    assert_eq!(run(&[&upload[..], &chunked, &[&url("/sink")]].concat()), b"3000000 intact");
    Pattern::default().check(&run(&[&url("/bytes/2000000")]));
    Pattern::default().check(&run(&["--http1.0", &url("/chunked/2000000")]));
    let two = run(&[&url("/bytes/10"), &url("/bytes/10")]);
    assert_eq!(two.len(), 20);
}
