//! A client over HTTP/2 that sends exactly the frames it is told to, good or bad.
//!
//! Fields are written as literals without a table, so that any bytes can be sent. What is received
//! is checked: frames that no server may send fail the test.

use std::{
    collections::HashMap,
    io::Write,
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Instant,
};

use rustls::{ClientConfig, ClientConnection, StreamOwned, pki_types::ServerName};

use super::{
    PATIENCE,
    message::{FieldLines, Head, ReadError, Reader, Response, Socket},
};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frame types (RFC 9113 §6).
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Frame flags.
pub mod flag {
    pub const NONE: u8 = 0;
    pub const ACK: u8 = 1;
    pub const END_STREAM: u8 = 1;
    pub const END_HEADERS: u8 = 4;
}

/// Error codes (RFC 9113 §7).
pub mod code {
    pub const NO_ERROR: u32 = 0;
    pub const PROTOCOL_ERROR: u32 = 1;
    pub const INTERNAL_ERROR: u32 = 2;
    pub const REFUSED_STREAM: u32 = 7;
    pub const CANCEL: u32 = 8;
    pub const ENHANCE_YOUR_CALM: u32 = 11;
}

/// Settings (RFC 9113 §6.5.2).
pub mod setting {
    pub const STREAMS: u16 = 3;
    pub const WINDOW: u16 = 4;
}

const FRAME_BYTES_MAX: usize = 16_384;
const FIRST_WINDOW: i64 = 65_535;

/// One frame as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// What has come of one stream so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Status of every interim response, and its fields.
    pub interim: Vec<(u16, FieldLines)>,
    /// Its head once it has come, its body as far as it has.
    pub response: Response,
    pub is_ended: bool,
    /// The code of RST_STREAM.
    pub reset: Option<u32>,
}

impl Answer {
    pub fn has_head(&self) -> bool {
        self.response.status != 0
    }
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GoAway {
    pub last_stream: u32,
    pub code: u32,
}

pub struct Http2 {
    pub reader: Reader,
    decoder: httlib_hpack::Decoder<'static>,
    pub streams: HashMap<u32, Answer>,
    next_stream: u32,
    /// Bytes that may be sent, on the connection and on each stream.
    window: i64,
    windows: HashMap<u32, i64>,
    first_window: i64,
    /// What the gateway's SETTINGS said.
    pub settings: HashMap<u16, u32>,
    pub goaway: Option<GoAway>,
    /// PINGs that were acknowledged.
    pub pongs: usize,
    /// Bytes received are allowed again at once.
    pub opens_windows: bool,
    /// A header block under way.
    block: Option<(Frame, Vec<u8>)>,
}

/// A frame's bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A frame of settings.
pub fn settings(pairs: &[(u16, u32)]) -> Vec<u8> {
    let pair =
        |(id, value): &(u16, u32)| [&id.to_be_bytes()[..], &value.to_be_bytes()[..]].concat();
    frame(kind::SETTINGS, flag::NONE, 0, pairs.iter().flat_map(pair).collect::<Vec<u8>>())
}

/// A frame that resets a stream.
pub fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, flag::NONE, stream, code.to_be_bytes())
}

/// A frame that allows more bytes.
pub fn update(stream: u32, bytes: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, flag::NONE, stream, bytes.to_be_bytes())
}

/// Fields as literals that no table remembers (RFC 7541 §6.2.2).
pub fn block<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        text(&mut out, name.as_ref());
        text(&mut out, value.as_ref());
    }
    out
}

fn text(out: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text.len();
    if rest < 127 {
        out.push(rest as u8);
    } else {
        out.push(127);
        rest -= 127;
        while rest >= 128 {
            out.push((rest % 128 + 128) as u8);
            rest /= 128;
        }
        out.push(rest as u8);
    }
    out.extend(text);
}

/// HEADERS, and CONTINUATION where the block needs it.
pub fn headers(stream: u32, block: &[u8], end_stream: bool) -> Vec<u8> {
    let mut pieces: Vec<&[u8]> = block.chunks(FRAME_BYTES_MAX).collect();
    if pieces.is_empty() {
        pieces.push(b"");
    }
    let last = pieces.len() - 1;
    let mut bytes = Vec::new();
    for (i, piece) in pieces.into_iter().enumerate() {
        let end = if i == last { flag::END_HEADERS } else { 0 };
        let (kind, end_stream) = match i {
            0 => (kind::HEADERS, u8::from(end_stream) * flag::END_STREAM),
            _ => (kind::CONTINUATION, 0),
        };
        bytes.extend(frame(kind, end | end_stream, stream, piece));
    }
    bytes
}

/// The pseudo-header fields of a request to `gw.test`.
pub fn pseudo<'t>(method: &'t str, path: &'t str) -> Vec<(&'t str, &'t str)> {
    vec![(":method", method), (":scheme", "http"), (":authority", "gw.test"), (":path", path)]
}

impl Http2 {
    /// Over plain TCP, from the start (RFC 9113 §3.3).
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Http2 {
        let mut client = Http2::silent(Http2::tcp(address));
        client.begin(&[]);
        client
    }

    pub fn tcp(address: SocketAddr) -> Socket {
        let stream = TcpStream::connect(address).expect("the gateway accepts");
        stream.set_nodelay(true).unwrap();
        Socket::Tcp(stream)
    }

    /// A TLS session that offers these protocols. Answers the one that was chosen.
    #[track_caller]
    pub fn tls(
        address: SocketAddr,
        config: &ClientConfig,
        protocols: &[&str],
    ) -> (Socket, Option<String>) {
        let mut config = config.clone();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = ServerName::try_from("gw.test").unwrap();
        let session = ClientConnection::new(Arc::new(config), name).unwrap();
        let tcp = TcpStream::connect(address).unwrap();
        tcp.set_nodelay(true).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut stream = StreamOwned::new(session, tcp);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).expect("a handshake");
        }
        let chosen = stream.conn.alpn_protocol().map(|name| String::from_utf8_lossy(name).into());
        (Socket::Tls(Box::new(stream)), chosen)
    }

    /// Over TLS, chosen by ALPN.
    #[track_caller]
    pub fn connect_tls(address: SocketAddr, config: &ClientConfig) -> Http2 {
        let (socket, chosen) = Http2::tls(address, config, &["h2", "http/1.1"]);
        assert_eq!(chosen.as_deref(), Some("h2"));
        let mut client = Http2::silent(socket);
        client.begin(&[]);
        client
    }

    /// Over a socket made elsewhere; nothing is sent.
    pub fn silent(socket: Socket) -> Http2 {
        socket.set_read_timeout(PATIENCE);
        socket.set_write_timeout(PATIENCE);
        Http2 {
            reader: Reader::new(socket),
            decoder: httlib_hpack::Decoder::with_dynamic_size(4096),
            streams: HashMap::new(),
            next_stream: 1,
            window: FIRST_WINDOW,
            windows: HashMap::new(),
            first_window: FIRST_WINDOW,
            settings: HashMap::new(),
            goaway: None,
            pongs: 0,
            opens_windows: true,
            block: None,
        }
    }

    /// Sends the preface with these settings.
    #[track_caller]
    pub fn begin(&mut self, pairs: &[(u16, u32)]) {
        self.send([PREFACE, &settings(pairs)].concat());
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.reader.socket.write_all(bytes.as_ref()).expect("the gateway reads");
        self.reader.socket.flush().expect("the gateway reads");
    }

    /// Sends bytes on the socket itself, beneath TLS.
    #[track_caller]
    pub fn send_beneath(&mut self, bytes: &[u8]) {
        let Socket::Tls(stream) = &mut self.reader.socket else { panic!("not over TLS") };
        stream.sock.write_all(bytes).unwrap();
    }

    /// Sends what the gateway may refuse to read to its end; true when all of it was taken.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let socket = &mut self.reader.socket;
        socket.write_all(bytes.as_ref()).and_then(|()| socket.flush()).is_ok()
    }

    /// The number of a stream that has not been used yet.
    pub fn stream(&mut self) -> u32 {
        self.next_stream += 2;
        self.next_stream - 2
    }

    /// Sends a head on a new stream.
    #[track_caller]
    pub fn open<N: AsRef<[u8]>, V: AsRef<[u8]>>(
        &mut self,
        fields: &[(N, V)],
        end_stream: bool,
    ) -> u32 {
        let stream = self.stream();
        self.send(headers(stream, &block(fields), end_stream));
        stream
    }

    /// Sends a request without a body, and with these fields.
    #[track_caller]
    pub fn ask(&mut self, method: &str, path: &str, fields: &[(&str, &str)]) -> u32 {
        self.open(&[&pseudo(method, path)[..], fields].concat(), true)
    }

    /// A GET and its response.
    #[track_caller]
    pub fn get(&mut self, path: &str) -> Response {
        let stream = self.ask("GET", path, &[]);
        self.response(stream)
    }

    /// A request with this body, sent as the windows allow.
    #[track_caller]
    pub fn post(&mut self, path: &str, fields: &[(&str, &str)], body: &[u8]) -> u32 {
        let stream = self.open(&[&pseudo("POST", path)[..], fields].concat(), false);
        self.body(stream, body, true);
        stream
    }

    /// Sends data as the windows allow.
    #[track_caller]
    pub fn body(&mut self, stream: u32, mut data: &[u8], end: bool) {
        loop {
            let n = data.len().min(self.allowed(stream)).min(FRAME_BYTES_MAX);
            if n == 0 && !data.is_empty() {
                let answer = self.streams.get(&stream);
                if answer.is_some_and(|answer| answer.reset.is_some()) {
                    return;
                }
                self.next().expect("more may be sent");
                continue;
            }
            let is_last = n == data.len();
            self.data(stream, &data[..n], end && is_last);
            if is_last {
                return;
            }
            data = &data[n..];
        }
    }

    /// Bytes that may be sent on a stream now.
    pub fn allowed(&self, stream: u32) -> usize {
        let own = self.windows.get(&stream).copied().unwrap_or(0) + self.first_window;
        own.min(self.window).max(0) as usize
    }

    /// Sends one frame of data, whatever the windows say.
    #[track_caller]
    pub fn data(&mut self, stream: u32, data: &[u8], end: bool) {
        self.spend(stream, data.len());
        self.send(frame(kind::DATA, u8::from(end) * flag::END_STREAM, stream, data));
    }

    fn spend(&mut self, stream: u32, bytes: usize) {
        self.window -= bytes as i64;
        *self.windows.entry(stream).or_default() -= bytes as i64;
    }

    /// The next frame, taken into account.
    pub fn next(&mut self) -> Result<Frame, ReadError> {
        let head = self.exactly(9)?;
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        assert!(len <= FRAME_BYTES_MAX, "a frame of {len} bytes");
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let payload = self.reader.exactly(len)?;
        let frame = Frame { kind, flags, stream, payload };
        self.take(&frame);
        Ok(frame)
    }

    fn exactly(&mut self, n: usize) -> Result<Vec<u8>, ReadError> {
        while self.reader.buf.len() < n {
            match self.reader.fill()? {
                0 if self.reader.buf.is_empty() => return Err(ReadError::Closed),
                0 => return Err(ReadError::Cut),
                _ => {}
            }
        }
        self.reader.exactly(n)
    }

    fn take(&mut self, got: &Frame) {
        let number = |at: usize| {
            u32::from_be_bytes(got.payload[at..at + 4].try_into().unwrap()) & (u32::MAX >> 1)
        };
        let in_block = self.block.is_some();
        assert_eq!(in_block, got.kind == kind::CONTINUATION, "{got:?} in a header block");
        match got.kind {
            kind::DATA => self.take_data(got),
            kind::HEADERS => self.take_block(got.clone(), &got.payload),
            kind::CONTINUATION => {
                let (first, mut bytes) = self.block.take().unwrap();
                bytes.extend(&got.payload);
                let flags = first.flags | got.flags;
                self.take_block(Frame { flags, ..first }, &bytes);
            }
            kind::RST_STREAM => self.streams.entry(got.stream).or_default().reset = Some(number(0)),
            kind::SETTINGS if got.flags & flag::ACK == 0 => self.take_settings(&got.payload),
            kind::SETTINGS => {}
            kind::PING if got.flags & flag::ACK != 0 => self.pongs += 1,
            kind::PING => {
                self.try_send(frame(kind::PING, flag::ACK, 0, &got.payload));
            }
            kind::GOAWAY => {
                self.goaway = Some(GoAway { last_stream: number(0), code: number(4) });
            }
            kind::WINDOW_UPDATE if got.stream == 0 => self.window += i64::from(number(0)),
            kind::WINDOW_UPDATE => {
                *self.windows.entry(got.stream).or_default() += i64::from(number(0));
            }
            _ => panic!("a server never sends {got:?}"),
        }
    }

    fn take_settings(&mut self, payload: &[u8]) {
        for pair in payload.chunks_exact(6) {
            let id = u16::from_be_bytes([pair[0], pair[1]]);
            let value = u32::from_be_bytes([pair[2], pair[3], pair[4], pair[5]]);
            self.settings.insert(id, value);
            if id == setting::WINDOW {
                self.first_window = i64::from(value);
            }
        }
        self.try_send(frame(kind::SETTINGS, flag::ACK, 0, ""));
    }

    fn take_data(&mut self, got: &Frame) {
        assert_eq!(got.flags & !flag::END_STREAM, 0, "padding: {got:?}");
        let answer = self.streams.entry(got.stream).or_default();
        assert!(answer.has_head() && !answer.is_ended && answer.reset.is_none(), "{answer:?}");
        answer.response.body.extend(&got.payload);
        answer.is_ended = got.flags & flag::END_STREAM != 0;
        let n = got.payload.len() as u32;
        let is_ended = answer.is_ended;
        if self.opens_windows && n > 0 {
            self.try_send(update(0, n));
            if !is_ended {
                self.try_send(update(got.stream, n));
            }
        }
    }

    fn take_block(&mut self, first: Frame, bytes: &[u8]) {
        if first.flags & flag::END_HEADERS == 0 {
            self.block = Some((first, bytes.to_vec()));
            return;
        }
        let mut decoded = Vec::new();
        self.decoder.decode(&mut bytes.to_vec(), &mut decoded).expect("a header block");
        let text = |bytes: &[u8]| bytes.iter().map(|&b| char::from(b)).collect::<String>();
        let fields: FieldLines =
            decoded.iter().map(|(name, value, _)| (text(name), text(value))).collect();
        fields.iter().for_each(|field| check(field));
        let answer = self.streams.entry(first.stream).or_default();
        assert!(!answer.is_ended && answer.reset.is_none(), "a head after the end: {answer:?}");
        let is_ended = first.flags & flag::END_STREAM != 0;
        if answer.has_head() {
            assert!(is_ended, "trailers that do not end the stream");
            assert!(fields.iter().all(|(name, _)| !name.starts_with(':')), "{fields:?}");
            answer.response.trailers = fields;
        } else {
            let (status, rest) = fields.split_first().expect("a status");
            assert!(rest.iter().all(|(name, _)| !name.starts_with(':')), "{fields:?}");
            assert_eq!(status.0, ":status");
            let status: u16 = status.1.parse().unwrap();
            if status < 200 {
                assert!(!is_ended, "an interim response that ends the stream");
                answer.interim.push((status, rest.to_vec()));
                return;
            }
            answer.response.status = status;
            answer.response.head = Head { fields: rest.to_vec(), ..Head::default() };
        }
        answer.is_ended = is_ended;
    }

    /// Waits until a stream has ended, or was reset, and takes what came of it.
    pub fn finish(&mut self, stream: u32) -> Result<Answer, ReadError> {
        loop {
            match self.streams.get(&stream) {
                Some(answer) if answer.is_ended || answer.reset.is_some() => {
                    return Ok(self.streams.remove(&stream).unwrap());
                }
                _ => {}
            }
            self.next()?;
        }
    }

    /// Waits until a stream's response is complete.
    #[track_caller]
    pub fn response(&mut self, stream: u32) -> Response {
        let answer = self.finish(stream).expect("a response");
        assert!(answer.is_ended, "reset: {answer:?}");
        answer.response
    }

    /// Waits until a stream is reset.
    #[track_caller]
    pub fn reset_of(&mut self, stream: u32) -> u32 {
        let answer = self.finish(stream).expect("an end");
        answer.reset.unwrap_or_else(|| panic!("no reset: {answer:?}"))
    }

    /// Takes frames until `is_so`.
    #[track_caller]
    pub fn until(&mut self, what: &str, mut is_so: impl FnMut(&Http2) -> bool) {
        let started = Instant::now();
        while !is_so(self) {
            assert!(started.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
            self.next().unwrap_or_else(|e| panic!("{e:?} before {what}"));
        }
    }

    /// Takes all frames until the connection ends. Answers the last GOAWAY.
    #[track_caller]
    pub fn end(&mut self) -> Option<GoAway> {
        let started = Instant::now();
        loop {
            match self.next() {
                Ok(_) => assert!(started.elapsed() < PATIENCE, "it goes on and on"),
                Err(ReadError::Timeout) => panic!("the connection stays open"),
                Err(ReadError::Malformed(why)) => panic!("{why}"),
                Err(_) => return self.goaway,
            }
        }
    }

    /// Everything sent before has been read by the gateway when this returns.
    #[track_caller]
    pub fn ping(&mut self) {
        let before = self.pongs;
        self.send(frame(kind::PING, flag::NONE, 0, [7; 8]));
        self.until("a PING's acknowledgement", |client| client.pongs > before);
    }
}

/// What may not stand among fields over HTTP/2 (RFC 9113 §8.2).
#[track_caller]
fn check((name, value): &(String, String)) {
    assert!(!name.chars().any(|c| c.is_ascii_uppercase()), "upper case in {name:?}");
    let hop = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];
    assert!(!hop.contains(&name.as_str()), "{name} over HTTP/2");
    assert!(!value.contains(['\r', '\n', '\0']) && value.trim() == value, "{name}: {value:?}");
}
