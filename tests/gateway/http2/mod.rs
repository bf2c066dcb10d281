//! HTTP/2 from clients: served as HTTP/1.1 is, over plain TCP and over TLS; every way to end; what
//! a hostile client may send.

mod bodies;
mod ends;
mod floods;
mod listeners;
mod served;
mod smuggling;
mod stalls;

use std::{
    net::SocketAddr,
    sync::{Mutex, mpsc},
};

use crate::harness::{Gateway, Http2, PATIENCE, Papers, Upstream};

/// Two listeners before one upstream, plain and TLS.
struct Both {
    gateway: Gateway,
    papers: Papers,
}

impl Both {
    #[track_caller]
    fn before(upstream: SocketAddr, more: &str) -> Both {
        let papers = Papers::new();
        papers.issue("gw", &["gw.test"]);
        let tls = papers.listener(&["gw"], "").replace("\"main\"", "\"tls\"");
        let plain = "[[listeners]]\nname = \"plain\"\nbind = \"127.0.0.1:0\"\n";
        let gateway = Gateway::before(upstream, &format!("{more}\n{plain}{tls}"));
        Both { gateway, papers }
    }

    #[track_caller]
    fn plain(&self) -> Http2 {
        Http2::connect(self.gateway.address_of("plain"))
    }

    #[track_caller]
    fn tls(&self) -> Http2 {
        Http2::connect_tls(self.gateway.address_of("tls"), &self.papers.trusting(&["gw"]))
    }

    /// A connection of either kind, with its name.
    #[track_caller]
    fn each(&self) -> [(&'static str, Http2); 2] {
        [("http", self.plain()), ("https", self.tls())]
    }
}

#[track_caller]
fn connect(gateway: &Gateway) -> Http2 {
    Http2::connect(gateway.address())
}

/// Client connections that are open, on all workers.
#[track_caller]
fn open_connections(gateway: &Gateway) -> u64 {
    let text = gateway.admin().get("/metrics").text();
    let of = |line: &&str| line.starts_with("ringway_connections_open{");
    text.lines()
        .filter(of)
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum()
}

/// Connections that ended for this reason.
#[track_caller]
fn failures(gateway: &Gateway, reason: &str) -> u64 {
    let name = format!("ringway_http2_failures_total{{reason=\"{reason}\"}}");
    // Reasons that there was no failure for may not be there.
    gateway.figure(&name).unwrap_or_default() as u64
}

/// All of them, with their reasons.
#[track_caller]
fn all_failures(gateway: &Gateway) -> Vec<String> {
    let text = gateway.admin().get("/metrics").text();
    let of = |line: &&str| line.starts_with("ringway_http2_failures_total");
    text.lines().filter(of).map(str::to_owned).collect()
}

/// An upstream that answers each request only after it was told to.
fn held() -> (Upstream, mpsc::Sender<()>) {
    let (tell, told) = mpsc::channel();
    let told = Mutex::new(told);
    let upstream = Upstream::scripted(move |conn| {
        while let Ok(request) = conn.request() {
            if told.lock().unwrap().recv_timeout(PATIENCE).is_err() {
                return conn.until_closed();
            }
            conn.answer(&request);
        }
    });
    (upstream, tell)
}
