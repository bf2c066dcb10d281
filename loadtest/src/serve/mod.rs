//! The origin with more ways than [`crate::origin`]: delays, errors, stalls, chunks, event streams,
//! WebSocket echo, TLS and HTTP/2, by hyper on monoio.
//!
//! A task per connection; everything it decides about a request is in [`ways`]. Every body is the
//! pattern of [`crate::body`], so a client can check it by its length.

mod answer;
pub mod echo;
pub mod flags;
mod ways;

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use monoio::net::{TcpListener, UnixListener};
use monoio_compat::StreamWrapper;
use rustls::ServerConfig;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio_rustls::TlsAcceptor;

use crate::task;
use crate::task::connect::Io;
use ways::Ways;

const BACKLOG: i32 = 4096;
const BUFFER_BYTES: usize = 16 * 1024;
const STREAMS_MAX: u32 = 1000;

/// What an origin is.
pub struct Service {
    /// How it answers.
    pub ways: Ways,
    /// TLS, and with what.
    pub tls: Option<Arc<ServerConfig>>,
    /// HTTP/2: by ALPN with TLS, by prior knowledge without.
    pub http2: bool,
    /// When its clock began.
    pub epoch: Instant,
}

/// Listens on `address`; several listeners of one port share its connections.
pub fn listen(address: &SockAddr) -> io::Result<Socket> {
    let listener = Socket::new(Domain::from(i32::from(address.family())), Type::STREAM, None)?;
    if !address.is_unix() {
        listener.set_reuse_address(true)?;
        listener.set_reuse_port(true)?;
        listener.set_tcp_nodelay(true)?;
    }
    listener.bind(address)?;
    listener.listen(BACKLOG)?;
    Ok(listener)
}

/// Answers on this thread until the process is killed.
pub fn run(listener: Socket, service: Service) -> io::Result<()> {
    let is_unix = listener.local_addr()?.is_unix();
    let listener = OwnedFd::from(listener);
    task::runtime()?.block_on(async move {
        let service = Rc::new(service);
        if is_unix {
            let listener = UnixListener::from_std(listener.into())?;
            loop {
                let (stream, _) = listener.accept().await?;
                spawn(stream, &service);
            }
        }
        let listener = TcpListener::from_std(listener.into())?;
        loop {
            let (stream, _) = listener.accept().await?;
            spawn(stream, &service);
        }
    })
}

fn spawn<T>(stream: T, service: &Rc<Service>)
where
    T: monoio::io::AsyncReadRent + monoio::io::AsyncWriteRent + Unpin + 'static,
{
    let io = StreamWrapper::new_with_buffer_size(stream, BUFFER_BYTES, BUFFER_BYTES);
    let service = service.clone();
    monoio::spawn(async move {
        let Some(config) = &service.tls else {
            let http2 = service.http2;
            return serve(Box::new(io), http2, service).await;
        };
        // A client that fails to shake hands is its own witness.
        let Ok(io) = TlsAcceptor::from(config.clone()).accept(io).await else { return };
        let http2 = io.get_ref().1.alpn_protocol() == Some(b"h2");
        serve(Box::new(io), http2, service).await;
    });
}

/// What the requests of one connection share.
struct Connection {
    service: Rc<Service>,
    served: Cell<u64>,
    /// The last request was answered with 101: what follows are WebSocket frames.
    upgraded: Cell<bool>,
}

impl Connection {
    /// No further request is wanted.
    fn is_last(&self) -> bool {
        self.service.ways.close_after.is_some_and(|n| self.served.get() >= n)
    }
}

async fn serve(io: Box<dyn Io>, http2: bool, service: Rc<Service>) {
    let connection =
        Rc::new(Connection { service, served: Cell::new(0), upgraded: Cell::new(false) });
    let of_requests = connection.clone();
    let answer = service_fn(move |request| Box::pin(answer::answer(of_requests.clone(), request)));
    let io = TokioIo::new(io);
    // A connection's failure is the client's to count.
    if http2 {
        let mut serving = http2::Builder::new(Spawner)
            .max_concurrent_streams(STREAMS_MAX)
            .serve_connection(io, answer);
        let mut going = false;
        let _ = poll_fn(|cx| {
            if connection.is_last() && !std::mem::replace(&mut going, true) {
                Pin::new(&mut serving).graceful_shutdown();
            }
            Pin::new(&mut serving).poll(cx)
        })
        .await;
        return;
    }
    let mut serving = http1::Builder::new().serve_connection(io, answer);
    let ended = poll_fn(|cx| serving.poll_without_shutdown(cx)).await;
    if ended.is_ok() && connection.upgraded.get() {
        let parts = serving.into_parts();
        echo::echo(parts.io.into_inner(), &parts.read_buf).await;
    } else {
        let mut io = serving.into_parts().io.into_inner();
        let _ = tokio::io::AsyncWriteExt::shutdown(&mut io).await;
    }
}

/// Lets hyper's HTTP/2 run its streams as tasks of this thread.
#[derive(Clone, Copy)]
struct Spawner;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for Spawner {
    fn execute(&self, future: F) {
        drop(monoio::spawn(future));
    }
}
