//! Connections that begin with a PROXY protocol header (`listeners.proxy_protocol`).
//!
//! The header is looked at without being taken until it is complete, so that whoever reads next,
//! TLS or HTTP, finds its own first byte. Nobody is believed but `forwarding.trusted_proxies` and
//! peers on Unix sockets, which have no address.

use std::{io, net::SocketAddr};

use super::{Worker, clock::now_ms, net::Stream};
use crate::{
    config::snapshot::ProxyProtocol,
    telemetry::metrics::shards::ProxyFailure,
    wire::{
        Parsed,
        proxy::{HEADER_BYTES_MAX, Header, NoHeader, parse},
    },
};

/// Whom the connection comes from: the peer itself, or whom it speaks for.
pub async fn client(
    worker: &Worker,
    stream: &Stream,
    peer: Option<SocketAddr>,
    rule: ProxyProtocol,
) -> Result<Option<SocketAddr>, ProxyFailure> {
    let snapshot = worker.snapshot();
    let trusted = &snapshot.forwarding.trusted_proxies;
    let is_trusted = peer.is_none_or(|peer| {
        let ip = peer.ip().to_canonical();
        trusted.iter().any(|net| net.contains(&ip))
    });
    match (is_trusted, rule) {
        (false, ProxyProtocol::Required) => return Err(ProxyFailure::Untrusted),
        // What it says is for whoever reads requests to judge.
        (false, _) => return Ok(peer),
        (true, _) => {}
    }
    let header = header(stream, now_ms() + snapshot.timeouts.head_ms).await?;
    match (header, rule) {
        (Ok(Header { source: Some(source), .. }), _) => Ok(Some(source)),
        (Ok(Header { source: None, .. }), _) => Ok(peer),
        (Err(NoHeader::Missing), ProxyProtocol::Optional) => Ok(peer),
        (Err(NoHeader::Missing), _) => Err(ProxyFailure::Missing),
        (Err(NoHeader::Malformed), _) => Err(ProxyFailure::Malformed),
    }
}

/// Waits for a header and takes it; takes nothing where there is none.
async fn header(stream: &Stream, until_ms: u64) -> Result<Result<Header, NoHeader>, ProxyFailure> {
    let mut bytes = vec![0; HEADER_BYTES_MAX];
    let mut seen = 0;
    let result = loop {
        match stream.readable(until_ms).await {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::TimedOut => return Err(ProxyFailure::Timeout),
            Err(_) => return Err(ProxyFailure::Closed),
        }
        let n = match stream.peek(&mut bytes) {
            // No more than before, although there is something: the end.
            Ok(n) if n <= seen => return Err(ProxyFailure::Closed),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_) => return Err(ProxyFailure::Closed),
        };
        match parse(&bytes[..n]) {
            Ok(Parsed::Complete(header)) => break Ok(header),
            // Woken for more than that only.
            Ok(Parsed::Partial) if stream.wake_above(n).is_ok() => seen = n,
            Ok(Parsed::Partial) => return Err(ProxyFailure::Malformed),
            Err(no) => break Err(no),
        }
    };
    if seen > 0 {
        let _ = stream.wake_above(0);
    }
    if let Ok(header) = result {
        stream.skip(&mut bytes[..header.len]).map_err(|_| ProxyFailure::Closed)?;
    }
    Ok(result)
}
