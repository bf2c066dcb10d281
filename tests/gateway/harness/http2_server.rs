//! An upstream that speaks HTTP/2, on the `h2` crate: over TCP, or over TLS with ALPN.

use std::{
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use h2::{
    Reason, RecvStream, SendStream,
    server::{Builder, SendResponse},
};
use http::{HeaderMap, Request, Response};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, pem::PemObject},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

use super::{Papers, Pattern};

/// One request.
pub struct Call {
    pub request: Request<RecvStream>,
    pub respond: SendResponse<Bytes>,
    pub seen: Arc<Seen>,
}

/// What a server has seen.
#[derive(Default)]
pub struct Seen {
    pub connections: AtomicUsize,
    /// Connections that have not ended.
    pub open: AtomicUsize,
    pub requests: AtomicUsize,
    /// Requests being answered, and the most there were at once.
    pub running: AtomicUsize,
    pub running_max: AtomicUsize,
    /// Body bytes that found room in a window.
    pub sent_bytes: AtomicU64,
    /// Requests that the gateway gave up with CANCEL.
    pub cancelled: AtomicUsize,
}

type Answer = Pin<Box<dyn Future<Output = ()> + Send>>;
type Answers = Arc<dyn Fn(Call) -> Answer + Send + Sync>;

/// How it is to be.
#[derive(Default)]
pub struct Http2Options {
    /// Streams that it allows on a connection.
    pub streams_max: Option<u32>,
    /// Receive window of a stream.
    pub window: Option<u32>,
    /// Over TLS, see [`alpn`].
    pub tls: Option<Arc<ServerConfig>>,
}

pub struct Http2Server {
    address: SocketAddr,
    pub seen: Arc<Seen>,
    stop: Option<std::sync::mpsc::Sender<()>>,
}

/// TLS of a server with the certificate `app` that chooses among `protocols`.
pub fn alpn(papers: &Papers, protocols: &[&str]) -> Arc<ServerConfig> {
    let key = PrivateKeyDer::from_pem_file(papers.path("app.key")).unwrap();
    let builder = ServerConfig::builder().with_no_client_auth();
    let mut config = builder.with_single_cert(vec![papers.certificate("app")], key).unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

impl Http2Server {
    /// Answers as [`super::Server`] does, over TCP.
    pub fn start() -> Http2Server {
        Http2Server::with(Http2Options::default(), usual)
    }

    pub fn with<F>(
        options: Http2Options,
        answer: impl Fn(Call) -> F + Send + Sync + 'static,
    ) -> Http2Server
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let (stop, stopped) = std::sync::mpsc::channel();
        let answers: Answers = Arc::new(move |call| Box::pin(answer(call)));
        let own = seen.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(accept(listener, options, own, answers, stopped));
        });
        Http2Server { address, seen, stop: Some(stop) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Http2Server {
    fn drop(&mut self) {
        drop(self.stop.take());
    }
}

async fn accept(
    listener: std::net::TcpListener,
    options: Http2Options,
    seen: Arc<Seen>,
    answers: Answers,
    stopped: std::sync::mpsc::Receiver<()>,
) {
    use std::sync::mpsc::TryRecvError;
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let options = Arc::new(options);
    while stopped.try_recv() != Err(TryRecvError::Disconnected) {
        let wait = std::time::Duration::from_millis(200);
        let Ok(Ok((stream, _))) = tokio::time::timeout(wait, listener.accept()).await else {
            continue;
        };
        stream.set_nodelay(true).unwrap();
        seen.connections.fetch_add(1, Ordering::SeqCst);
        let (options, seen, answers) = (options.clone(), seen.clone(), answers.clone());
        seen.open.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(async move {
            match &options.tls {
                None => serve(stream, &options, &seen, answers).await,
                // A client that does not like what it is offered is some tests' point.
                Some(tls) => {
                    if let Ok(stream) = TlsAcceptor::from(tls.clone()).accept(stream).await {
                        serve(stream, &options, &seen, answers).await;
                    }
                }
            }
            seen.open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    options: &Http2Options,
    seen: &Arc<Seen>,
    answers: Answers,
) {
    let mut builder = Builder::new();
    if let Some(max) = options.streams_max {
        builder.max_concurrent_streams(max);
    }
    if let Some(bytes) = options.window {
        builder.initial_window_size(bytes);
    }
    let Ok(mut codec) = builder.handshake::<_, Bytes>(stream).await else { return };
    while let Some(Ok((request, respond))) = codec.accept().await {
        seen.requests.fetch_add(1, Ordering::SeqCst);
        let running = seen.running.fetch_add(1, Ordering::SeqCst) + 1;
        seen.running_max.fetch_max(running, Ordering::SeqCst);
        let answer = answers(Call { request, respond, seen: seen.clone() });
        let seen = seen.clone();
        tokio::spawn(async move {
            answer.await;
            seen.running.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

impl Call {
    pub fn path(&self) -> &str {
        self.request.uri().path()
    }

    /// Answers with a 200 and this body.
    pub fn text(mut self, text: impl Into<Bytes>) {
        let Ok(mut stream) = self.respond.send_response(Response::new(()), false) else { return };
        let _ = stream.send_data(text.into(), true);
    }

    /// Waits until the gateway gives the request up.
    pub async fn until_reset(&mut self) -> Option<Reason> {
        let reason = poll_fn(|cx| self.respond.poll_reset(cx)).await.ok();
        if reason == Some(Reason::CANCEL) {
            self.seen.cancelled.fetch_add(1, Ordering::SeqCst);
        }
        reason
    }
}

/// Sends as the window allows. False when the gateway gave the request up.
pub async fn send(stream: &mut SendStream<Bytes>, mut data: Bytes, seen: &Seen) -> bool {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        while stream.capacity() == 0 {
            match poll_fn(|cx| stream.poll_capacity(cx)).await {
                Some(Ok(_)) => {}
                _ => return false,
            }
        }
        let piece = data.split_to(stream.capacity().min(data.len()));
        seen.sent_bytes.fetch_add(piece.len() as u64, Ordering::SeqCst);
        if stream.send_data(piece, false).is_err() {
            return false;
        }
    }
    true
}

/// The next data of a request's body, which the gateway may then replace.
pub async fn receive(body: &mut RecvStream) -> Option<Bytes> {
    let data = body.data().await?.ok()?;
    let _ = body.flow_control().release_capacity(data.len());
    Some(data)
}

/// `/bytes/N`: N bytes of the pattern; `/chunked/N`: without a length; else the body is checked
/// against the pattern and answered with its length, and with its trailers as trailers.
pub async fn usual(mut call: Call) {
    let path = call.path().to_owned();
    let size = |prefix: &str| path.strip_prefix(prefix).and_then(|n| n.parse::<u64>().ok());
    if let Some(left) = size("/bytes/") {
        return made(call, left, true).await;
    }
    if let Some(left) = size("/chunked/") {
        return made(call, left, false).await;
    }
    let mut pattern = Pattern::default();
    let mut same = true;
    let body = call.request.body_mut();
    while let Some(data) = receive(body).await {
        same &= pattern.follows(&data);
    }
    let trailers = body.trailers().await.ok().flatten();
    let text = format!("{} {}", pattern.position(), if same { "intact" } else { "DAMAGED" });
    let Ok(mut stream) = call.respond.send_response(Response::new(()), false) else { return };
    let _ = stream.send_data(text.into(), trailers.is_none());
    if let Some(trailers) = trailers {
        let _ = stream.send_trailers(trailers);
    }
}

async fn made(mut call: Call, mut left: u64, known: bool) {
    let mut response = Response::new(());
    if known {
        response.headers_mut().insert("content-length", left.into());
    }
    let Ok(mut stream) = call.respond.send_response(response, false) else { return };
    let mut pattern = Pattern::default();
    while left > 0 {
        let n = left.min(65_536);
        left -= n;
        if !send(&mut stream, pattern.take(n as usize).into(), &call.seen).await {
            return;
        }
    }
    let _ = stream.send_data(Bytes::new(), true);
}

/// Trailers of these names and values.
pub fn trailers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    lines.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}
