//! A scripted upstream: threads that do what a test says and keep every byte they receive.

use std::{
    io::Write,
    net::{Shutdown, SocketAddr, TcpListener},
    os::unix::net::UnixListener,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use super::{
    PATIENCE, eventually,
    message::{Head, ReadError, Reader, Socket},
};

type Tape = Arc<Mutex<Vec<u8>>>;

/// An upstream on 127.0.0.1 (or a Unix socket) that runs a script for every connection.
pub struct Upstream {
    address: Option<SocketAddr>,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    tapes: Mutex<Vec<Tape>>,
    open: AtomicUsize,
    stop: AtomicBool,
}

/// One request as it arrived.
#[derive(Debug, Clone, Default)]
pub struct Received {
    pub head: Head,
    pub method: String,
    pub target: String,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
}

impl Received {
    #[track_caller]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.field(name)
    }
}

/// One connection the gateway made.
pub struct Conn {
    pub reader: Reader,
    /// Counts connections to this upstream, from 0.
    pub index: usize,
}

impl Conn {
    /// The next request with its body; `Err(Closed)` when the gateway closed instead.
    pub fn request(&mut self) -> Result<Received, ReadError> {
        let mut received = self.request_head()?;
        if received.head.has("transfer-encoding") {
            (received.body, received.trailers) = self.reader.chunked()?;
        } else if let Some(length) = received.head.field("content-length") {
            received.body = self.reader.exactly(length.parse().unwrap())?;
        }
        Ok(received)
    }

    /// The next request, its body left unread.
    pub fn request_head(&mut self) -> Result<Received, ReadError> {
        let head = self.reader.head()?;
        let parts: Vec<&str> = head.start_line.split(' ').collect();
        if parts.len() != 3 || parts[2] != "HTTP/1.1" {
            return Err(ReadError::Malformed(head.start_line.clone()));
        }
        let (method, target) = (parts[0].to_string(), parts[1].to_string());
        Ok(Received { method, target, head, ..Received::default() })
    }

    /// Sends bytes; a gateway that has gone away is not this upstream's failure.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.reader.socket.write_all(bytes.as_ref()).is_ok()
    }

    /// Sends a 200 with this body.
    pub fn ok(&mut self, body: impl AsRef<[u8]>) -> bool {
        let body = body.as_ref();
        let mut bytes =
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
        bytes.extend_from_slice(body);
        self.send(bytes)
    }

    /// Answers every request with a 200 until the gateway closes.
    pub fn serve(&mut self) {
        while let Ok(request) = self.request() {
            self.answer(&request);
        }
    }

    /// A plain 200 naming the target, correct for HEAD as well.
    pub fn answer(&mut self, request: &Received) -> bool {
        let body = format!("{} {}", request.method, request.target);
        if request.method == "HEAD" {
            return self.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()));
        }
        self.ok(body)
    }

    pub fn shutdown(&self, how: Shutdown) {
        self.reader.socket.shutdown(how);
    }

    /// Closes with a reset instead of a FIN.
    pub fn reset(&self) {
        if let Socket::Tcp(stream) = &self.reader.socket {
            socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
    }

    /// Keeps the connection open until the gateway closes it.
    pub fn until_closed(&mut self) {
        while matches!(self.reader.fill(), Ok(1..) | Err(ReadError::Timeout)) {}
    }
}

impl Upstream {
    /// Runs `script` in a thread of its own for every connection.
    pub fn scripted(script: impl Fn(&mut Conn) + Send + Sync + 'static) -> Upstream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let accept = move || {
            let (stream, _) = listener.accept().ok()?;
            stream.set_nodelay(true).ok()?;
            Some(Socket::Tcp(stream))
        };
        Upstream::run(Some(address), accept, script)
    }

    /// The same on a Unix socket.
    pub fn scripted_unix(
        path: &Path,
        script: impl Fn(&mut Conn) + Send + Sync + 'static,
    ) -> Upstream {
        let listener = UnixListener::bind(path).unwrap();
        Upstream::run(None, move || Some(Socket::Unix(listener.accept().ok()?.0)), script)
    }

    /// Answers everything with a 200 that names method and target.
    pub fn ok() -> Upstream {
        Upstream::scripted(Conn::serve)
    }

    /// Answers every request with these bytes, whatever they are, and keeps the connection.
    pub fn canned(response: impl Into<Vec<u8>>) -> Upstream {
        let response = response.into();
        Upstream::scripted(move |conn| {
            while conn.request().is_ok() {
                conn.send(&response);
            }
        })
    }

    fn run(
        address: Option<SocketAddr>,
        accept: impl Fn() -> Option<Socket> + Send + 'static,
        script: impl Fn(&mut Conn) + Send + Sync + 'static,
    ) -> Upstream {
        let shared = Arc::new(Shared::default());
        let (own, script) = (shared.clone(), Arc::new(script));
        let acceptor = std::thread::spawn(move || {
            while let Some(socket) = accept() {
                if own.stop.load(Ordering::SeqCst) {
                    return;
                }
                let conn = own.welcome(socket);
                let (script, own) = (script.clone(), own.clone());
                std::thread::spawn(move || own.play(conn, &*script));
            }
        });
        Upstream { address, shared, acceptor: Some(acceptor) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address.expect("a TCP upstream")
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.tapes.lock().unwrap().len()
    }

    /// Connections whose script still runs.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Everything received so far, one entry per connection.
    pub fn recorded(&self) -> Vec<Vec<u8>> {
        self.shared.tapes.lock().unwrap().iter().map(|t| t.lock().unwrap().clone()).collect()
    }

    /// How much each connection has received so far, for [`Upstream::since`].
    pub fn marks(&self) -> Vec<usize> {
        self.shared.tapes.lock().unwrap().iter().map(|t| t.lock().unwrap().len()).collect()
    }

    /// What was received after `marks` were taken, one entry per connection that received any.
    pub fn since(&self, marks: &[usize]) -> Vec<Vec<u8>> {
        let tapes = self.shared.tapes.lock().unwrap();
        let from = |i: usize| marks.get(i).copied().unwrap_or(0);
        let rest = tapes.iter().enumerate().map(|(i, t)| t.lock().unwrap()[from(i)..].to_vec());
        rest.filter(|t| !t.is_empty()).collect()
    }

    /// Complete requests received so far, read back strictly from what was recorded.
    #[track_caller]
    pub fn requests(&self) -> Vec<Received> {
        self.recorded().iter().flat_map(|tape| replay(tape)).collect()
    }

    /// The only request received so far.
    #[track_caller]
    pub fn only_request(&self) -> Received {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests.remove(0)
    }

    /// The only request for `target`. Which of several came last cannot be told: workers have
    /// connections of their own.
    #[track_caller]
    pub fn request_for(&self, target: &str) -> Received {
        let mut requests = self.requests();
        requests.retain(|request| request.target == target);
        assert_eq!(requests.len(), 1, "{target}: {requests:?}");
        requests.remove(0)
    }

    #[track_caller]
    pub fn wait_for_connections(&self, n: usize) {
        eventually(&format!("{n} upstream connections"), || self.connections() >= n);
    }

    #[track_caller]
    pub fn wait_until_idle(&self) {
        self.wait_until_idle_but(0);
    }

    /// Waits until no more connections are open than these, which are kept for the next request.
    #[track_caller]
    pub fn wait_until_idle_but(&self, kept: usize) {
        eventually("upstream connections end", || self.open() <= kept);
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // A last connection wakes the acceptor, which then drops the listener.
        if let Some(address) = self.address {
            let _ = std::net::TcpStream::connect(address);
            if let Some(acceptor) = self.acceptor.take() {
                let _ = acceptor.join();
            }
        }
    }
}

impl Shared {
    fn welcome(&self, socket: Socket) -> Conn {
        socket.set_read_timeout(PATIENCE * 3);
        socket.set_write_timeout(PATIENCE * 3);
        let tape = Tape::default();
        let mut reader = Reader::new(socket);
        reader.tape = Some(tape.clone());
        let mut tapes = self.tapes.lock().unwrap();
        tapes.push(tape);
        self.open.fetch_add(1, Ordering::SeqCst);
        Conn { reader, index: tapes.len() - 1 }
    }

    fn play(&self, mut conn: Conn, script: &dyn Fn(&mut Conn)) {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| script(&mut conn)));
        drop(conn);
        self.open.fetch_sub(1, Ordering::SeqCst);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    }
}

/// Parses a tape into requests; bytes that are not a complete request at its end are left out.
#[track_caller]
pub fn replay(tape: &[u8]) -> Vec<Received> {
    let (left, right) = std::os::unix::net::UnixStream::pair().unwrap();
    drop(right);
    let mut reader = Reader::new(Socket::Unix(left));
    reader.buf = tape.to_vec();
    let mut conn = Conn { reader, index: 0 };
    let mut requests = Vec::new();
    loop {
        match conn.request() {
            Ok(request) => requests.push(request),
            Err(ReadError::Closed | ReadError::Cut | ReadError::Reset) => return requests,
            Err(e) => panic!("{e:?}: the gateway sent {:?}", String::from_utf8_lossy(tape)),
        }
    }
}
