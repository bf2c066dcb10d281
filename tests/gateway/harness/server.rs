//! A well-behaved upstream: hyper, with bodies of any size made from a pattern that both ends can
//! check without keeping them.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use http_body_util::BodyExt;
use hyper::{
    Request, Response,
    body::{Body, Bytes, Frame, Incoming, SizeHint},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;

use super::Client;

/// Bytes that differ at every offset by a rule, so that a lost, repeated or swapped byte shows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pattern {
    at: u64,
}

/// A prime, so that no power-of-two buffer size hides a lost or repeated block.
const PERIOD: usize = 65_521;

fn base() -> &'static [u8] {
    static BASE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    BASE.get_or_init(|| {
        let scramble = |i: u64| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8;
        (0..PERIOD as u64).map(scramble).collect()
    })
}

impl Pattern {
    /// Moves on by at most `n` bytes and answers with them.
    fn step(&mut self, n: usize) -> &'static [u8] {
        let rest = &base()[(self.at % PERIOD as u64) as usize..];
        let run = &rest[..n.min(rest.len())];
        self.at += run.len() as u64;
        run
    }

    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(n);
        while bytes.len() < n {
            bytes.extend_from_slice(self.step(n - bytes.len()));
        }
        bytes
    }

    /// Checks that these are the next bytes.
    #[track_caller]
    pub fn check(&mut self, bytes: &[u8]) {
        let from = self.at;
        assert!(self.follows(bytes), "the body differs after byte {from}");
    }

    /// True when these are the next bytes; moves on.
    pub fn follows(&mut self, mut bytes: &[u8]) -> bool {
        let mut same = true;
        while !bytes.is_empty() {
            let run = self.step(bytes.len());
            let (head, rest) = bytes.split_at(run.len());
            same &= head == run;
            bytes = rest;
        }
        same
    }

    /// Bytes made or checked so far.
    pub fn position(&self) -> u64 {
        self.at
    }
}

/// A hyper server. `GET /bytes/N` sends N bytes of the pattern (`/chunked/N` without a length);
/// any other request's body is checked against the pattern and answered with its length.
pub struct Server {
    address: SocketAddr,
    counts: Arc<Counts>,
    stop: Option<std::sync::mpsc::Sender<()>>,
}

#[derive(Default)]
struct Counts {
    connections: AtomicUsize,
    sent_bytes: AtomicU64,
}

impl Server {
    pub fn start() -> Server {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        // Inherited by its connections: little is buffered, so that what counts as sent has left.
        socket2::SockRef::from(&listener).set_send_buffer_size(64 << 10).unwrap();
        let address = listener.local_addr().unwrap();
        let counts = Arc::new(Counts::default());
        let (stop, stopped) = std::sync::mpsc::channel();
        let own = counts.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(serve(listener, own, stopped));
        });
        Server { address, counts, stop: Some(stop) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn connections(&self) -> usize {
        self.counts.connections.load(Ordering::SeqCst)
    }

    /// Body bytes handed to the socket so far, over all responses.
    pub fn sent_bytes(&self) -> u64 {
        self.counts.sent_bytes.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
    }
}

async fn serve(
    listener: std::net::TcpListener,
    counts: Arc<Counts>,
    stopped: std::sync::mpsc::Receiver<()>,
) {
    use std::sync::mpsc::TryRecvError;
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    while stopped.try_recv() != Err(TryRecvError::Disconnected) {
        let wait = std::time::Duration::from_millis(200);
        let Ok(Ok((stream, _))) = tokio::time::timeout(wait, listener.accept()).await else {
            continue;
        };
        stream.set_nodelay(true).unwrap();
        counts.connections.fetch_add(1, Ordering::SeqCst);
        let counts = counts.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, counts.clone()));
            // A gateway that hangs up in the middle is some tests' very point.
            let _ = http1::Builder::new()
                .half_close(true)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    counts: Arc<Counts>,
) -> Result<Response<Made>, hyper::Error> {
    let path = request.uri().path().to_string();
    let size = |prefix: &str| path.strip_prefix(prefix).and_then(|n| n.parse::<u64>().ok());
    if let Some(left) = size("/bytes/") {
        return Ok(Response::new(Made { left, known: true, counts, ..Made::default() }));
    }
    if let Some(left) = size("/chunked/") {
        return Ok(Response::new(Made { left, known: false, counts, ..Made::default() }));
    }
    let mut body = request.into_body();
    let mut pattern = Pattern::default();
    let mut same = true;
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame?.data_ref() {
            same &= pattern.follows(data);
        }
    }
    let text = format!("{} {}", pattern.position(), if same { "intact" } else { "DAMAGED" });
    Ok(Response::new(Made { text: Some(text.into()), counts, ..Made::default() }))
}

/// A body: some text, or so many bytes of the pattern.
#[derive(Default)]
struct Made {
    text: Option<Bytes>,
    left: u64,
    known: bool,
    pattern: Pattern,
    counts: Arc<Counts>,
}

impl Body for Made {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(text) = self.text.take() {
            return Poll::Ready(Some(Ok(Frame::data(text))));
        }
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let n = self.left.min(65536);
        self.left -= n;
        self.counts.sent_bytes.fetch_add(n, Ordering::SeqCst);
        let data = self.pattern.take(n as usize);
        Poll::Ready(Some(Ok(Frame::data(data.into()))))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.text {
            Some(text) => SizeHint::with_exact(text.len() as u64),
            None if self.known => SizeHint::with_exact(self.left),
            None => SizeHint::default(),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.text.is_none() && self.known && self.left == 0
    }
}

/// Gets a body of `size` bytes in either framing from a [`Server`] behind `client`, and sends one:
/// all are intact.
#[track_caller]
pub fn bodies_pass(client: &mut Client, size: usize) {
    for path in ["bytes", "chunked"] {
        let response = client.get(&format!("/{path}/{size}"));
        assert_eq!(response.body.len(), size, "{path}");
        Pattern::default().check(&response.body);
    }
    client.send(format!("PUT /sink HTTP/1.1\r\nHost: gw.test\r\nContent-Length: {size}\r\n\r\n"));
    client.send(Pattern::default().take(size));
    assert_eq!(client.response().text(), format!("{size} intact"));
}
