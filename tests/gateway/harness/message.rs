//! A small strict HTTP/1.1 reader for both ends of the tests. It refuses whatever the gateway must
//! not emit, so reading a message with it is already a check.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    os::unix::net::UnixStream,
    sync::{Arc, Mutex},
    time::Duration,
};

/// Why a message could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadError {
    /// The peer closed cleanly before the first byte.
    Closed,
    /// The peer closed or reset in the middle of a message.
    Cut,
    /// The peer reset the connection before the first byte.
    Reset,
    /// Nothing came within the read timeout.
    Timeout,
    /// The bytes are not a well-formed message.
    Malformed(String),
}

/// TCP, Unix, or TLS over TCP.
#[derive(Debug)]
pub enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<rustls::StreamOwned<rustls::ClientConnection, TcpStream>>),
}

impl Socket {
    pub fn set_read_timeout(&self, wait: Duration) {
        match self {
            Socket::Tcp(s) => s.set_read_timeout(Some(wait)).unwrap(),
            Socket::Unix(s) => s.set_read_timeout(Some(wait)).unwrap(),
            Socket::Tls(s) => s.sock.set_read_timeout(Some(wait)).unwrap(),
        }
    }

    pub fn set_write_timeout(&self, wait: Duration) {
        match self {
            Socket::Tcp(s) => s.set_write_timeout(Some(wait)).unwrap(),
            Socket::Unix(s) => s.set_write_timeout(Some(wait)).unwrap(),
            Socket::Tls(s) => s.sock.set_write_timeout(Some(wait)).unwrap(),
        }
    }

    pub fn shutdown(&self, how: Shutdown) {
        // The peer may have gone already, which is what a shutdown wants anyway.
        let _ = match self {
            Socket::Tcp(s) => s.shutdown(how),
            Socket::Unix(s) => s.shutdown(how),
            Socket::Tls(s) => s.sock.shutdown(how),
        };
    }
}

impl Read for Socket {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Socket::Tcp(s) => s.read(buf),
            Socket::Unix(s) => s.read(buf),
            Socket::Tls(s) => s.read(buf),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        match self {
            Socket::Tcp(s) => s.write(buf),
            Socket::Unix(s) => s.write(buf),
            Socket::Tls(s) => s.write(buf),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Socket::Tls(s) => s.flush(),
            Socket::Tcp(_) | Socket::Unix(_) => Ok(()),
        }
    }
}

/// Names and values, in order.
pub type FieldLines = Vec<(String, String)>;

/// Start line and fields of one message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    pub start_line: String,
    pub fields: FieldLines,
    pub raw: Vec<u8>,
}

impl Head {
    /// The value of a field that must not be repeated.
    #[track_caller]
    pub fn field(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "{name} is repeated: {all:?}");
        all.first().copied()
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        let same = |(n, _): &&(String, String)| n.eq_ignore_ascii_case(name);
        self.fields.iter().filter(same).map(|(_, v)| v.as_str()).collect()
    }

    pub fn has(&self, name: &str) -> bool {
        !self.all(name).is_empty()
    }

    fn parse(raw: &[u8]) -> Result<Head, String> {
        let text: String = raw.iter().map(|&b| char::from(b)).collect();
        let mut lines = text.strip_suffix("\r\n\r\n").ok_or("no end")?.split("\r\n");
        let start_line = lines.next().ok_or("empty")?.to_string();
        if start_line.contains(['\r', '\n', '\0']) {
            return Err(format!("bare line end in {start_line:?}"));
        }
        let fields = lines.map(field_line).collect::<Result<_, _>>()?;
        Ok(Head { start_line, fields, raw: raw.to_vec() })
    }
}

fn field_line(line: &str) -> Result<(String, String), String> {
    let (name, value) = line.split_once(':').ok_or_else(|| format!("no colon in {line:?}"))?;
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if name.is_empty() || !name.chars().all(token) {
        return Err(format!("bad field name in {line:?}"));
    }
    if value.chars().any(|c| (c < ' ' && c != '\t') || c == '\x7f') {
        return Err(format!("control byte in {line:?}"));
    }
    Ok((name.to_string(), value.trim_matches([' ', '\t']).to_string()))
}

/// Reads messages off a socket; optionally keeps every byte it ever saw.
#[derive(Debug)]
pub struct Reader {
    pub socket: Socket,
    pub buf: Vec<u8>,
    pub tape: Option<Arc<Mutex<Vec<u8>>>>,
}

impl Reader {
    pub fn new(socket: Socket) -> Reader {
        Reader { socket, buf: Vec::new(), tape: None }
    }

    /// Reads once more; `Ok(0)` is the end.
    pub fn fill(&mut self) -> Result<usize, ReadError> {
        let mut chunk = [0; 65536];
        loop {
            match self.socket.read(&mut chunk) {
                Ok(n) => {
                    if let Some(tape) = &self.tape {
                        tape.lock().unwrap().extend_from_slice(&chunk[..n]);
                    }
                    self.buf.extend_from_slice(&chunk[..n]);
                    return Ok(n);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Err(ReadError::Timeout);
                }
                Err(_) if self.buf.is_empty() => return Err(ReadError::Reset),
                Err(_) => return Err(ReadError::Cut),
            }
        }
    }

    /// Reads until `self.buf` holds `n` bytes and takes them.
    pub fn exactly(&mut self, n: usize) -> Result<Vec<u8>, ReadError> {
        while self.buf.len() < n {
            if self.fill()? == 0 {
                return Err(ReadError::Cut);
            }
        }
        Ok(self.buf.drain(..n).collect())
    }

    /// Takes everything up to and including `mark`.
    pub fn through(&mut self, mark: &[u8]) -> Result<Vec<u8>, ReadError> {
        let mut from = 0;
        loop {
            if let Some(at) = find(&self.buf[from..], mark) {
                let end = from + at + mark.len();
                return Ok(self.buf.drain(..end).collect());
            }
            from = self.buf.len().saturating_sub(mark.len());
            match self.fill() {
                Ok(0) if self.buf.is_empty() => return Err(ReadError::Closed),
                Ok(0) => return Err(ReadError::Cut),
                Ok(_) => {}
                Err(e) => return Err(e),
            }
        }
    }

    pub fn read_to_end(&mut self) -> Result<Vec<u8>, ReadError> {
        while self.fill()? > 0 {}
        Ok(std::mem::take(&mut self.buf))
    }

    pub fn head(&mut self) -> Result<Head, ReadError> {
        let raw = self.through(b"\r\n\r\n")?;
        Head::parse(&raw).map_err(ReadError::Malformed)
    }

    /// A chunked body and its trailer section.
    pub fn chunked(&mut self) -> Result<(Vec<u8>, FieldLines), ReadError> {
        let mut body = Vec::new();
        loop {
            let line = inner(self.through(b"\r\n"))?;
            let line = String::from_utf8_lossy(&line[..line.len() - 2]).into_owned();
            let digits = line.split(';').next().unwrap_or("");
            let hex = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_hexdigit());
            let size = usize::from_str_radix(digits, 16).ok().filter(|_| hex);
            let size = size.ok_or_else(|| ReadError::Malformed(format!("chunk size {line:?}")))?;
            if size == 0 {
                break;
            }
            body.extend(self.exactly(size)?);
            if self.exactly(2)? != b"\r\n" {
                return Err(ReadError::Malformed("no CRLF after a chunk".into()));
            }
        }
        let mut trailers = Vec::new();
        loop {
            let line = inner(self.through(b"\r\n"))?;
            if line == b"\r\n" {
                return Ok((body, trailers));
            }
            let line = String::from_utf8_lossy(&line[..line.len() - 2]).into_owned();
            trailers.push(field_line(&line).map_err(ReadError::Malformed)?);
        }
    }
}

/// Inside a message even a close between two bytes received is a cut.
fn inner(read: Result<Vec<u8>, ReadError>) -> Result<Vec<u8>, ReadError> {
    read.map_err(|e| match e {
        ReadError::Closed | ReadError::Reset => ReadError::Cut,
        e => e,
    })
}

pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

/// One complete response.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub head: Head,
    pub body: Vec<u8>,
    pub trailers: FieldLines,
    /// The body ended with the connection.
    pub close_delimited: bool,
}

impl Response {
    #[track_caller]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.field(name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The problem+json document of a refusal, after checking its form (RFC 9457).
    #[track_caller]
    pub fn problem(&self) -> serde_json::Value {
        assert_eq!(self.field("content-type"), Some("application/problem+json"), "{self:?}");
        let json: serde_json::Value =
            serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {:?}", self.text()));
        assert_eq!(json["status"], self.status, "{json}");
        for member in ["type", "title", "reason"] {
            assert!(json[member].is_string(), "{member} is missing: {json}");
        }
        json
    }

    /// The reason token of a refusal.
    #[track_caller]
    pub fn reason(&self) -> String {
        self.problem()["reason"].as_str().unwrap().to_string()
    }
}

/// Status, and the reason of a refusal.
#[track_caller]
pub fn told(response: &Response) -> (u16, String) {
    let reason = if response.status < 400 { String::new() } else { response.reason() };
    (response.status, reason)
}

/// What [`told`] should say.
pub fn is(status: u16, reason: &str) -> (u16, String) {
    (status, reason.to_owned())
}

/// Reads the response to `method`: its head, then whatever its framing says.
pub fn read_response(reader: &mut Reader, method: &str) -> Result<Response, ReadError> {
    let head = reader.head()?;
    let status = status_of(&head.start_line).map_err(ReadError::Malformed)?;
    let mut response = Response { status, head, ..Response::default() };
    read_body(reader, method, &mut response)?;
    Ok(response)
}

fn read_body(reader: &mut Reader, method: &str, into: &mut Response) -> Result<(), ReadError> {
    let length = into.head.all("content-length");
    let coding = into.head.all("transfer-encoding");
    if length.len() + coding.len() > 1 {
        return Err(ReadError::Malformed(format!("ambiguous framing: {:?}", into.head.fields)));
    }
    let bodyless = method == "HEAD" || into.status < 200 || [204, 304].contains(&into.status);
    if bodyless {
        let forbidden = into.status < 200 || into.status == 204;
        if !coding.is_empty() && forbidden || into.status == 204 && !length.is_empty() {
            return Err(ReadError::Malformed("framing fields where no body can be".into()));
        }
    } else if let Some(coding) = coding.first() {
        if *coding != "chunked" {
            return Err(ReadError::Malformed(format!("Transfer-Encoding {coding:?}")));
        }
        (into.body, into.trailers) = reader.chunked()?;
    } else if let Some(length) = length.first() {
        let length = length.parse().map_err(|_| ReadError::Malformed(length.to_string()))?;
        into.body = reader.exactly(length)?;
    } else {
        into.close_delimited = true;
        into.body = reader.read_to_end()?;
    }
    Ok(())
}

/// Checks `HTTP/1.1 NNN phrase` and returns the number.
pub fn status_of(line: &str) -> Result<u16, String> {
    let rest = line.strip_prefix("HTTP/1.1 ").ok_or_else(|| format!("status line {line:?}"))?;
    let (digits, phrase) = rest.split_at_checked(3).ok_or_else(|| format!("status {line:?}"))?;
    if !phrase.starts_with(' ') {
        return Err(format!("status line {line:?}"));
    }
    digits.parse().map_err(|_| format!("status {line:?}"))
}
