//! What becomes of a connection that was accepted: it is counted, told that there is no room, or
//! served by a task of its own, after its PROXY protocol header and its TLS handshake where the
//! listener has them.
//!
//! Bounds: connections by [`super::clients`], those that are told that there is no room by
//! [`SHED_POLITELY_MAX`].

use std::{io, net::SocketAddr, rc::Rc};

use super::{
    Worker,
    buffers::Buffer,
    client::Client,
    clients::Place,
    clock::{self, NEVER_MS},
    door::Door,
    h1, h2,
    isolate::isolate,
    listener::adopt_socket,
    net::{Stream, Wait},
    passthrough, proxied,
    rate_limits::handshakes,
    removed,
    siblings::Given,
    tls,
};
use crate::{
    config::snapshot::{Http2Use, ProxyProtocol, TlsRule},
    policy::{Refusal, refusal},
    telemetry::metrics::shards::TlsFailure,
};

/// Shed connections that are closed politely at one time; more are just closed.
const SHED_POLITELY_MAX: u32 = 256;
/// Seconds after which a shed client may come back.
const SHED_RETRY_AFTER_S: u32 = 1;

/// Takes in a connection that a worker gave away.
pub fn take(open: Open, given: Given) {
    let worker = &open.0;
    let Given { socket, peer, rule } = given;
    // Drivers may differ, where io_uring was refused to one of them.
    let adopted = rustix::io::ioctl_fionbio(&socket, worker.is_epoll)
        .map_err(io::Error::from)
        .and_then(|()| adopt_socket(worker, socket, &rule.bind));
    let stream = match adopted {
        Ok(stream) => stream,
        // Epoll has no memory for it: it is closed, as one that could not be accepted.
        Err(e) => return tracing::error!(error = %e, "cannot take a connection"),
    };
    let door = worker.listening.borrow().iter().find(|own| own.is(&rule)).map(|own| own.door());
    let door = door.unwrap_or_else(|| removed::door(worker, &rule));
    admit(open, stream, peer, &door);
}

/// A connection that its worker counts as open until this is dropped.
pub struct Open(Rc<Worker>);

impl Open {
    /// One that the worker has accepted, or taken from another.
    pub fn count(worker: &Rc<Worker>) -> Open {
        worker.siblings.own().has_kept();
        Open::count_given(worker)
    }

    /// One that was given to the worker: the others count it since then.
    pub fn count_given(worker: &Rc<Worker>) -> Open {
        worker.metrics.connections_open.count();
        Open(worker.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.metrics.connections_open.uncount();
        self.0.siblings.own().have_ended(1);
    }
}

/// Takes a connection in, or sheds it when there are too many.
pub fn admit(open: Open, stream: Stream, peer: Option<SocketAddr>, door: &Rc<Door>) {
    let worker = &open.0;
    clock::refresh();
    worker.metrics.connections.count();
    door.shard.borrow().connections.count();
    let Some(place) = worker.clients.enter() else {
        worker.metrics.connections_shed.count();
        // Where TLS is spoken, telling would take a handshake: that is what there is no room for.
        let is_told = door.rule.borrow().speaks_plainly();
        if is_told && worker.shedding.get() < SHED_POLITELY_MAX {
            worker.shedding.set(worker.shedding.get() + 1);
            let worker = worker.clone();
            monoio::spawn(async move {
                shed(&worker, stream).await;
                worker.shedding.set(worker.shedding.get() - 1);
            });
        }
        return;
    };
    let rule = door.rule.borrow().proxy_protocol;
    if rule == ProxyProtocol::Off {
        return take_in(open, place, Client::new(stream, peer, door.clone()));
    }
    let (door, worker) = (door.clone(), open.0.clone());
    let told = worker.clone();
    let header = async move {
        match proxied::client(&worker, &stream, peer, rule).await {
            Ok(client) => take_in(open, place, Client::new(stream, client, door)),
            Err(failure) => {
                worker.metrics.proxy_failures[failure as usize].count();
                tracing::debug!(reason = failure.name(), ?peer, "no PROXY protocol header");
            }
        }
    };
    monoio::spawn(async move {
        if isolate(told.beat.clone(), header).await.is_err() {
            told.metrics.panics.count();
        }
    });
}

/// Serves a client until its connection ends.
fn take_in(open: Open, place: Place, client: Client) {
    let client = Rc::new(client);
    monoio::spawn(async move {
        let worker = &open.0;
        let entry = worker.roster.enter(client.clone());
        let connection = serve(worker.clone(), client);
        if isolate(worker.beat.clone(), connection).await.is_err() {
            worker.metrics.panics.count();
        }
        // The last of its owners: the socket closes here.
        drop(entry);
        drop(open);
        drop(place);
    });
}

/// Serves a connection, after its handshake where clients speak TLS.
async fn serve(worker: Rc<Worker>, client: Rc<Client>) {
    // Boxed: of a connection that speaks TLS, too, only the session stays. And one wait beside that
    // for HTTP/1.1, not one for each kind: every wake-up of the connection goes through here.
    let is_plain = client.door.rule.borrow().begins_with_http1();
    if is_plain || Box::pin(is_http1(&worker, &client)).await {
        h1::serve(worker, client).await;
    }
}

/// Shakes hands where clients speak TLS, and serves what is not HTTP/1.1 then. Answers whether it
/// is.
async fn is_http1(worker: &Rc<Worker>, client: &Rc<Client>) -> bool {
    if client.door.rule.borrow().passthrough.is_some() {
        Box::pin(passthrough::serve(worker, client)).await;
        return false;
    }
    let rule = client.door.rule.borrow().tls.clone();
    if let Some(rule) = rule
        && !Box::pin(shake_hands(worker, client, &rule)).await
    {
        return false;
    }
    let is_http2 = client.stream.is_http2() || client.door.rule.borrow().http2 == Http2Use::Only;
    if is_http2 {
        Box::pin(h2::serve(worker.clone(), client.clone(), Buffer::default())).await;
    }
    !is_http2
}

/// Answers whether the client now speaks TLS.
async fn shake_hands(worker: &Worker, client: &Client, rule: &TlsRule) -> bool {
    if rule.handshake_rate.is_some()
        && let Some(ip) = client.peer
        && !handshakes::may_begin(worker, &client.door, ip).await
    {
        worker.metrics.tls_failures[TlsFailure::Rate as usize].count();
        return false;
    }
    match tls::accept(&client.stream, rule, &worker.buffers, &worker.metrics).await {
        Ok(shaken) => {
            worker.metrics.tls_handshakes[usize::from(shaken.is_resumed)].count();
            if shaken.is_proof {
                client.stream.finish_writing();
            }
            !shaken.is_proof
        }
        Err(tls::Refused { failure, error }) => {
            worker.metrics.tls_failures[failure as usize].count();
            tracing::debug!(reason = failure.name(), peer = ?client.peer, %error, "no TLS");
            false
        }
    }
}

/// Tells a client that there is no room, without reading its request.
async fn shed(worker: &Worker, stream: Stream) {
    let refusal =
        Refusal { retry_after_s: SHED_RETRY_AFTER_S, ..Refusal::from(refusal::OVERLOADED) };
    let body = super::respond::problem(refusal, b"");
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\n\
         Content-Length: {}\r\nRetry-After: {SHED_RETRY_AFTER_S}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let timeouts = &worker.snapshot().timeouts;
    let mut buf = worker.buffers.head();
    buf.append(head.as_bytes());
    buf.append(body.as_bytes());
    let wait = Wait { idle_ms: timeouts.linger_ms, until_ms: NEVER_MS };
    if stream.write_all(&mut buf, wait).await.is_ok() {
        stream.finish_writing();
        stream.discard(&mut buf, timeouts.linger_ms, 64 * 1024).await;
    }
    worker.buffers.give(buf);
}
