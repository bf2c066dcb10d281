//! Bodies: intact at any size, and no faster than whoever takes them.

use std::time::Duration;

use super::{Both, connect};
use crate::harness::{
    Gateway, Http2, Pattern, Server, Upstream, eventually,
    http2::{pseudo, setting, update},
};

#[test]
fn bodies_of_every_awkward_size_are_intact() {
    let server = Server::start();
    let both = Both::before(server.address(), "");
    let sizes = [
        0,
        1,
        8191,
        8192,
        8193,
        16_383,
        16_384,
        16_385,
        65_534,
        65_535,
        65_536,
        262_143,
        262_144,
        262_145,
        300_000,
        5 << 20,
    ];
    for (scheme, mut client) in both.each() {
        for size in sizes {
            for path in ["bytes", "chunked"] {
                let response = client.get(&format!("/{path}/{size}"));
                assert_eq!(response.body.len(), size, "{scheme} {path}");
                Pattern::default().check(&response.body);
            }
            let body = Pattern::default().take(size);
            let length = size.to_string();
            for fields in [&[][..], &[("content-length", length.as_str())]] {
                let stream = client.post("/sink", fields, &body);
                assert_eq!(client.response(stream).text(), format!("{size} intact"), "{scheme}");
            }
        }
    }
    assert_eq!(super::all_failures(&both.gateway), [""; 0]);
}

#[test]
fn bodies_of_many_streams_stay_apart() {
    let server = Server::start();
    let both = Both::before(server.address(), "");
    for (_, mut client) in both.each() {
        let sizes: Vec<usize> = (0..40).map(|n| 1 + n * 4099).collect();
        let ask = |client: &mut Http2, size| client.ask("GET", &format!("/bytes/{size}"), &[]);
        let streams: Vec<u32> = sizes.iter().map(|size| ask(&mut client, size)).collect();
        for (stream, size) in streams.into_iter().zip(sizes) {
            let response = client.response(stream);
            assert_eq!(response.body.len(), size);
            Pattern::default().check(&response.body);
        }
    }
}

#[test]
fn a_client_that_opens_its_window_byte_by_byte_gets_everything() {
    let server = Server::start();
    let both = Both::before(server.address(), "");
    for (_, mut client) in both.each() {
        client.send(crate::harness::http2::settings(&[(setting::WINDOW, 1)]));
        client.opens_windows = false;
        client.ping();
        let stream = client.ask("GET", "/bytes/700", &[]);
        for n in 1..=700 {
            client.until("one more byte", |client| {
                client.streams.get(&stream).is_some_and(|answer| answer.response.body.len() == n)
            });
            client.send(update(stream, 1));
        }
        Pattern::default().check(&client.response(stream).body);
    }
}

/// Waits until `number` has not changed while the gateway answered this many PINGs.
fn settled(client: &mut Http2, mut number: impl FnMut(&Http2) -> u64) -> u64 {
    let (mut last, mut same) = (number(client), 0);
    eventually("it stops growing", || {
        client.ping();
        std::thread::sleep(Duration::from_millis(5));
        let now = number(client);
        same = if now == last { same + 1 } else { 0 };
        last = now;
        same == 40
    });
    last
}

#[test]
fn a_client_that_takes_nothing_holds_back_the_upstream() {
    const SIZE: usize = 24 << 20;
    let server = Server::start();
    let gateway = Gateway::before(server.address(), "");
    let mut client = connect(&gateway);
    client.get("/bytes/1000000");
    let before = (gateway.anonymous_bytes(), server.sent_bytes());
    client.opens_windows = false;
    let streams: Vec<u32> =
        (0..8).map(|_| client.ask("GET", &format!("/bytes/{SIZE}"), &[])).collect();
    let pulled = settled(&mut client, |_| server.sent_bytes()) - before.1;
    // What the kernel keeps between upstream and gateway; in all it would be 192 MiB.
    assert!(pulled < 8 * (6 << 20), "{pulled} bytes");
    let grown = gateway.anonymous_bytes().saturating_sub(before.0);
    assert!(grown < 6 << 20, "{grown} bytes of memory");
    // One that begins to take after all gets everything.
    client.opens_windows = true;
    client.send(update(0, 1 << 30));
    client.send(update(streams[3], 1 << 30));
    let response = client.response(streams[3]);
    assert_eq!(response.body.len(), SIZE);
    Pattern::default().check(&response.body);
}

#[test]
fn an_upstream_that_takes_nothing_holds_back_the_client() {
    let (tell, told) = std::sync::mpsc::channel::<()>();
    let told = std::sync::Mutex::new(told);
    let upstream = Upstream::scripted(move |conn| {
        while let Ok(head) = conn.request_head() {
            if head.method == "POST" {
                // Reads nothing of the body until the test is over.
                let _ = told.lock().unwrap().recv();
                return;
            }
            conn.answer(&head);
        }
    });
    let gateway = Gateway::before(upstream.address(), "");
    let mut client = connect(&gateway);
    client.get("/first");
    let before = gateway.anonymous_bytes();
    let stream = client.open(&pseudo("POST", "/stalls"), false);
    let mut sent = 0;
    let fill = |client: &mut Http2, sent: &mut u64| loop {
        let room = client.allowed(stream).min(16_384);
        if room == 0 || *sent > 64 << 20 {
            return *sent;
        }
        client.data(stream, &vec![0; room], false);
        *sent += room as u64;
    };
    let (mut last, mut same) = (0, 0);
    eventually("no more may be sent", || {
        fill(&mut client, &mut sent);
        client.ping();
        std::thread::sleep(Duration::from_millis(5));
        same = if sent == last { same + 1 } else { 0 };
        last = sent;
        same == 40
    });
    // The stream's window, and what the kernel keeps on the way to the upstream.
    assert!(sent < 12 << 20, "{sent} bytes were taken though nobody reads them");
    let grown = gateway.anonymous_bytes().saturating_sub(before);
    assert!(grown < 3 << 20, "{grown} bytes of memory, of {sent} taken");
    // The other streams have their part of the connection's window.
    assert_eq!(client.get("/second").text(), "GET /second");
    drop(tell);
}
