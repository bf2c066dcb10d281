//! TLS of one connection, between its socket and whoever reads and writes what is inside.
//!
//! [`Stream`] asks it for plaintext and hands it records, and moves the bytes: nothing here waits
//! but the handshake. Reading and writing may go on side by side; the session is borrowed for
//! moments.
//!
//! Invariants: what was received and not yet decrypted, and what was decrypted and not yet read, is
//! bounded by one buffer and one record. An idle connection holds neither. The end of the
//! connection without close_notify is an error, so that a body which ends with its connection
//! cannot be cut short by a stranger (RFC 8446 §6.1).

use std::{
    cell::{Cell, RefCell},
    io::{self, BufRead, Write},
    rc::Rc,
    sync::Arc,
};

use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, Connection, HandshakeKind,
    ProtocolVersion, ServerConnection, client::Resumption, pki_types::ServerName,
};

use super::{
    buffers::{Buffer, Buffers},
    clock::{NEVER_MS, now_ms},
    kernel_tls,
    net::{Stream, Wait},
    respond::problem,
    session::Session,
};
use crate::{
    config::snapshot::{ACME_TLS, TlsRule, UpstreamTls},
    policy::{client_cert::ClientCert, refusal},
    telemetry::metrics::shards::{TLS_SIDES, TlsBreak, TlsFailure, WorkerShard},
};

/// Plaintext sealed at once: so much leaves in one write.
const SEALED_BYTES_MAX: usize = 64 * 1024;
/// Records of so many bytes leave in one segment each, so that the first ones of a connection can
/// be read as they come and not only when 16 KiB have arrived.
const SMALL_RECORD_BYTES: usize = 1350;
/// So many bytes leave in small records at a connection's start, and after it was idle.
const SMALL_RECORDS_BYTES: usize = 16 * 1024;
/// After so long without a write a connection counts as idle: its congestion window has shrunk.
const IDLE_MS: u64 = 1000;

/// Names whose sessions a worker resumes, for each upstream.
const SESSIONS_MAX: usize = 256;

/// The TLS session of one connection.
pub struct Tls {
    session: RefCell<Connection>,
    /// Received, and not yet taken by the session.
    received: Cell<Buffer>,
    /// The last read filled its buffer: more has arrived.
    flows: Cell<bool>,
    /// Bytes that may still leave in small records, and when something left last.
    small_left: Cell<usize>,
    written_ms: Cell<u64>,
    /// Where it is counted how the session ends, until it has.
    metrics: Cell<Option<Arc<WorkerShard>>>,
    /// The peer chose HTTP/2 (ALPN).
    pub is_http2: bool,
    /// The client's verified certificate.
    pub client_cert: Option<Rc<ClientCert>>,
    buffers: Rc<Buffers>,
}

/// A handshake that came to nothing, for metrics and the log.
#[derive(Debug)]
pub struct Refused {
    pub failure: TlsFailure,
    pub error: io::Error,
}

/// What a client asked for and what was agreed on, for upstreams that are told.
#[derive(Clone)]
pub struct Agreed {
    /// Empty when it asked for no name.
    pub name: String,
    /// Empty when nothing was agreed on.
    pub alpn: Vec<u8>,
    /// As in `TLSv1.3`.
    pub version: &'static str,
    /// It has shown a certificate, which was accepted.
    pub is_verified: bool,
}

/// What came of a handshake.
#[derive(Clone, Copy, Debug)]
pub struct Shaken {
    pub is_resumed: bool,
    /// It proved a name to an authority, and was for nothing else (RFC 8737 §3).
    pub is_proof: bool,
}

/// Answers a client's handshake on `stream`, which speaks TLS from then on.
pub async fn accept(
    stream: &Stream,
    rule: &TlsRule,
    buffers: &Rc<Buffers>,
    metrics: &Arc<WorkerShard>,
) -> Result<Shaken, Refused> {
    let until_ms = now_ms() + rule.handshake_timeout_ms;
    let wait = Wait { idle_ms: rule.handshake_timeout_ms, until_ms };
    let shaken = if rule.kernel && kernel_tls::may_begin(stream) {
        Box::pin(kernel_tls::accept(stream, rule, (buffers, metrics), wait)).await
    } else {
        accept_here(stream, rule, (buffers, metrics), wait).await
    };
    if let Err(Refused { failure: TlsFailure::PlainHttp, .. }) = shaken {
        tell_plain_http(stream, buffers, wait).await;
    }
    shaken
}

/// As [`accept`], with records that are sealed and opened here.
async fn accept_here(
    stream: &Stream,
    rule: &TlsRule,
    (buffers, metrics): (&Rc<Buffers>, &Arc<WorkerShard>),
    wait: Wait,
) -> Result<Shaken, Refused> {
    let session = ServerConnection::new(rule.server.clone()).map_err(internal)?;
    let mut tls = Tls::new(session.into(), buffers.clone(), metrics.clone());
    let shaken = tls.shake_hands(stream, wait).await?;
    if rule.asks_certificate {
        let session = tls.session.borrow();
        let shown = session.peer_certificates().and_then(|chain| chain.first());
        tls.client_cert = shown.map(|der| Rc::new(ClientCert::read(der)));
    }
    tls.is_http2 = tls.session.borrow().alpn_protocol() == Some(b"h2");
    stream.begin_session(Session::User(tls));
    Ok(shaken)
}

/// A handshake that fails here, and not by what the client sent.
pub fn internal(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Refused {
    Refused { failure: TlsFailure::Internal, error: io::Error::other(error) }
}

/// Tells a client that speaks HTTP that TLS is spoken here.
async fn tell_plain_http(stream: &Stream, buffers: &Buffers, wait: Wait) {
    let _ = stream.write_all(&mut plain_http(buffers), wait).await;
    stream.finish_writing();
}

/// Makes a handshake with an endpoint on `stream`, which speaks TLS from then on. Answers whether
/// the endpoint chose HTTP/2. One that does not take too long, and with which there is no TLS, is
/// `InvalidData`.
pub async fn connect(
    stream: &Stream,
    client: &Arc<ClientConfig>,
    name: &ServerName<'static>,
    buffers: &Rc<Buffers>,
    metrics: &Arc<WorkerShard>,
    until_ms: u64,
) -> io::Result<bool> {
    let session = ClientConnection::new(client.clone(), name.clone())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let tls = Tls::new(session.into(), buffers.clone(), metrics.clone());
    let shaken = tls.shake_hands(stream, Wait { idle_ms: NEVER_MS, until_ms }).await;
    shaken.map_err(|Refused { failure, error }| {
        let failure = match lacks_certificate(&tls, client, &error) {
            true => TlsFailure::CertificateRequired,
            false => failure,
        };
        metrics.tls_upstream_failures[failure as usize].count();
        tracing::debug!(reason = failure.name(), server = ?name, %error, "no TLS with an endpoint");
        match failure {
            TlsFailure::Timeout => error,
            _ => io::Error::new(io::ErrorKind::InvalidData, error),
        }
    })?;
    let is_http2 = tls.session.borrow().alpn_protocol() == Some(b"h2");
    stream.begin_session(Session::User(tls));
    Ok(is_http2)
}

/// A worker's own copy, so that it alone counts references and keeps the sessions that it resumes.
/// `protocols`: instead of those that the rule offers.
pub fn own(rule: &UpstreamTls, protocols: Option<&[&[u8]]>) -> Arc<ClientConfig> {
    let mut client = (*rule.client).clone();
    if let Some(protocols) = protocols {
        client.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    }
    client.resumption = match rule.resumes {
        true => Resumption::in_memory_sessions(SESSIONS_MAX),
        false => Resumption::disabled(),
    };
    Arc::new(client)
}

impl Tls {
    fn new(mut session: Connection, buffers: Rc<Buffers>, metrics: Arc<WorkerShard>) -> Tls {
        session.set_buffer_limit(Some(SEALED_BYTES_MAX));
        Tls {
            session: RefCell::new(session),
            received: Cell::default(),
            flows: Cell::new(false),
            small_left: Cell::new(SMALL_RECORDS_BYTES),
            written_ms: Cell::new(now_ms()),
            metrics: Cell::new(Some(metrics)),
            is_http2: false,
            client_cert: None,
            buffers,
        }
    }

    async fn shake_hands(&self, stream: &Stream, wait: Wait) -> Result<Shaken, Refused> {
        let mut is_first = true;
        loop {
            while let Some(mut records) = self.queued() {
                let sent = stream.write_all(&mut records, wait).await;
                self.buffers.give(records);
                sent.map_err(|failed| refused(failed.error))?;
            }
            if !self.session.borrow().is_handshaking() {
                let kind = self.session.borrow().handshake_kind();
                let is_proof = self.session.borrow().alpn_protocol() == Some(ACME_TLS);
                return Ok(Shaken { is_resumed: kind == Some(HandshakeKind::Resumed), is_proof });
            }
            let mut bytes = self.room();
            let read = stream.read(&mut bytes, wait).await;
            let is_server = matches!(*self.session.borrow(), Connection::Server(_));
            if is_first && is_server && looks_like_http(bytes.bytes()) {
                let error = io::Error::new(io::ErrorKind::InvalidData, "HTTP without TLS");
                return Err(Refused { failure: TlsFailure::PlainHttp, error });
            }
            is_first = false;
            self.take(bytes, &read);
            if let Ok(0) = read {
                return Err(refused(io::ErrorKind::UnexpectedEof.into()));
            }
            read.map_err(refused)?;
            if let Err(error) = self.take_handshake() {
                // What is wrong is told to the client, as far as it takes it.
                if let Some(mut alert) = self.queued() {
                    let _ = stream.write_all(&mut alert, wait).await;
                    self.buffers.give(alert);
                }
                return Err(refused(error));
            }
        }
    }

    /// Hands the session what was received, until its handshake is over.
    fn take_handshake(&self) -> io::Result<()> {
        while self.session.borrow().is_handshaking() && self.decrypt()? {}
        Ok(())
    }

    /// A buffer for records to be received into, which [`Tls::take`] takes back.
    pub fn room(&self) -> Buffer {
        if self.flows.get() { self.buffers.relay(None) } else { self.buffers.head() }
    }

    /// Takes a buffer with what was read into it.
    pub fn take(&self, bytes: Buffer, read: &io::Result<usize>) {
        match read {
            Ok(0) => {
                // Tells the session, which knows whether the peer had announced it.
                let _ = self.session.borrow_mut().read_tls(&mut io::empty());
            }
            Ok(_) => self.flows.set(bytes.room() == 0),
            Err(_) => {}
        }
        self.keep(bytes);
    }

    /// Keeps what the session has not taken.
    fn keep(&self, bytes: Buffer) {
        match bytes.is_empty() {
            true => self.buffers.give(bytes),
            false => self.received.set(bytes),
        }
    }

    /// Appends plaintext to `buf`, as much as there is and finds room. `None`: more must be
    /// received first. 0: the peer has ended its side, or `buf` is full.
    pub fn read(&self, buf: &mut Buffer) -> io::Result<Option<usize>> {
        if buf.room() == 0 {
            return Ok(Some(0));
        }
        loop {
            match self.plaintext(buf) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                result => return result.map(Some),
            }
            if !self.decrypt()? {
                return Ok(None);
            }
        }
    }

    fn plaintext(&self, buf: &mut Buffer) -> io::Result<usize> {
        let session = &mut *self.session.borrow_mut();
        let mut reader = session.reader();
        let mut appended = 0;
        loop {
            let bytes = match reader.fill_buf() {
                Ok(bytes) => bytes,
                Err(_) if appended > 0 => return Ok(appended),
                Err(e) => return Err(e),
            };
            let n = bytes.len().min(buf.room());
            if n == 0 {
                return Ok(appended);
            }
            buf.append(&bytes[..n]);
            reader.consume(n);
            appended += n;
        }
    }

    /// Hands what was received to the session. `false`: nothing was there.
    fn decrypt(&self) -> io::Result<bool> {
        let mut received = self.received.take();
        if received.is_empty() {
            self.keep(received);
            return Ok(false);
        }
        let session = &mut *self.session.borrow_mut();
        let taken = session.read_tls(&mut received.bytes());
        received.consume(*taken.as_ref().unwrap_or(&0));
        self.keep(received);
        taken?;
        match session.process_new_packets() {
            Ok(_) => Ok(true),
            Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }

    /// Seals the front of `buf`'s window, takes it off, and answers the records; `None` when there
    /// is nothing more to send.
    pub fn seal(&self, buf: &mut Buffer) -> io::Result<Option<Buffer>> {
        let session = &mut *self.session.borrow_mut();
        let now_ms = now_ms();
        if now_ms.saturating_sub(self.written_ms.replace(now_ms)) > IDLE_MS {
            self.small_left.set(SMALL_RECORDS_BYTES);
        }
        while !buf.is_empty() {
            let small = self.small_left.get();
            let bytes = if small > 0 { SMALL_RECORD_BYTES.min(buf.len()) } else { buf.len() };
            let n = session.writer().write(&buf.bytes()[..bytes])?;
            if n == 0 {
                break;
            }
            self.small_left.set(small.saturating_sub(n));
            buf.consume(n);
        }
        Ok(queued(session, &self.buffers))
    }

    /// Records of the session's own that wait to be sent.
    fn queued(&self) -> Option<Buffer> {
        queued(&mut self.session.borrow_mut(), &self.buffers)
    }

    /// Takes back a buffer of records that have been sent.
    pub fn give(&self, records: Buffer) {
        self.buffers.give(records);
    }

    /// The announcement that no more will be written (RFC 8446 §6.1).
    pub fn close_notify(&self) -> Option<Buffer> {
        let session = &mut *self.session.borrow_mut();
        session.send_close_notify();
        queued(session, &self.buffers)
    }

    /// What the handshake came to.
    pub fn agreed(&self) -> Agreed {
        let session = &*self.session.borrow();
        let name = match session {
            Connection::Server(server) => server.server_name().unwrap_or_default().to_owned(),
            Connection::Client(_) => String::new(),
        };
        Agreed {
            name,
            alpn: session.alpn_protocol().unwrap_or_default().to_vec(),
            version: match session.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
                _ => "TLSv1.3",
            },
            // One that is not accepted ends the handshake.
            is_verified: session.peer_certificates().is_some(),
        }
    }

    /// Counts how the session ended, once. Answers the alert that tells the peer what was wrong
    /// with what it sent, if there is one.
    pub fn broke(&self, error: &io::Error) -> Option<Buffer> {
        let why = why_broken(error);
        if let Some(metrics) = self.metrics.take() {
            let side = usize::from(matches!(*self.session.borrow(), Connection::Client(_)));
            metrics.tls_breaks[side][why as usize].count();
            let with = TLS_SIDES[side];
            tracing::debug!(reason = why.name(), with, %error, "a TLS session broke");
        }
        self.queued()
    }

    /// Something was received or decrypted, and not read.
    pub fn has_unread(&self) -> bool {
        let received = self.received.take();
        let is_empty = received.is_empty();
        self.received.set(received);
        !is_empty || self.session.borrow_mut().reader().fill_buf().is_ok_and(|b| !b.is_empty())
    }
}

/// As what a session that ended with `error` is counted.
pub fn why_broken(error: &io::Error) -> TlsBreak {
    match cause(error) {
        _ if demands_certificate(error) => TlsBreak::CertificateRequired,
        Some(rustls::Error::AlertReceived(_)) => TlsBreak::Alert,
        None if error.kind() == io::ErrorKind::UnexpectedEof => TlsBreak::Cut,
        _ => TlsBreak::Invalid,
    }
}

/// What the session has to send, in one buffer.
fn queued(session: &mut Connection, buffers: &Buffers) -> Option<Buffer> {
    if !session.wants_write() {
        return None;
    }
    let mut records = Gathered { bytes: buffers.head(), buffers };
    while session.wants_write() {
        // Into memory: it does not fail.
        session.write_tls(&mut records).ok()?;
    }
    Some(records.bytes)
}

/// Grows from a small buffer to one for all that is sealed at once, and to any size after that.
struct Gathered<'b> {
    bytes: Buffer,
    buffers: &'b Buffers,
}

impl Write for Gathered<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.room() < bytes.len() {
            let needed = self.bytes.len() + bytes.len() + super::buffers::TAILROOM;
            let mut larger = self.buffers.at_least(needed.max(2 * self.bytes.capacity()));
            larger.append(self.bytes.bytes());
            self.buffers.give(std::mem::replace(&mut self.bytes, larger));
        }
        Ok(self.bytes.append(bytes))
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        slices.iter().map(|slice| self.write(slice)).sum()
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A client that speaks HTTP where TLS is spoken. No record begins with a capital letter.
pub fn looks_like_http(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(u8::is_ascii_uppercase)
}

/// What it is told.
fn plain_http(buffers: &Buffers) -> Buffer {
    let body = problem(refusal::TLS_PLAIN_HTTP.into(), b"");
    let text = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let mut buf = buffers.at_least(text.len());
    buf.append(text.as_bytes());
    buf
}

fn cause(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// The peer's answer to a client that has no certificate, and must (RFC 8446 §6.2).
pub fn demands_certificate(error: &io::Error) -> bool {
    let required = rustls::Error::AlertReceived(AlertDescription::CertificateRequired);
    cause(error) == Some(&required)
}

/// Whether an endpoint gave up a handshake because it wants a certificate. In TLS 1.2 it may say no
/// more than that (RFC 5246 §7.4.6), after its hello, in which nothing else is left to agree on.
fn lacks_certificate(tls: &Tls, client: &ClientConfig, error: &io::Error) -> bool {
    let failed = rustls::Error::AlertReceived(AlertDescription::HandshakeFailure);
    let version = tls.session.borrow().protocol_version();
    let is_silent = version == Some(ProtocolVersion::TLSv1_2) && cause(error) == Some(&failed);
    demands_certificate(error) || is_silent && !client.client_auth_cert_resolver.has_certs()
}

/// Why a handshake that ended with `error` came to nothing.
pub fn refused(error: io::Error) -> Refused {
    let failure = match (cause(&error), error.kind()) {
        (Some(rustls::Error::AlertReceived(_)), _) => TlsFailure::Alert,
        (Some(rustls::Error::PeerIncompatible(_)), _) => TlsFailure::Incompatible,
        (Some(rustls::Error::NoCertificatesPresented), _) => TlsFailure::CertificateMissing,
        (Some(rustls::Error::InvalidCertificate(why)), _) => certificate(why),
        // The list that says which are revoked is out of its time, or none is there.
        (Some(rustls::Error::InvalidCertRevocationList(_)), _) => TlsFailure::CertificateRevoked,
        (Some(rustls::Error::General(why)), _) if why.starts_with("no server certificate") => {
            TlsFailure::NoCertificate
        }
        (Some(_), _) => TlsFailure::Invalid,
        (None, io::ErrorKind::TimedOut) => TlsFailure::Timeout,
        (None, _) => TlsFailure::Closed,
    };
    Refused { failure, error }
}

/// What is wrong with a peer's certificate.
fn certificate(why: &CertificateError) -> TlsFailure {
    use CertificateError as E;
    match why {
        E::Expired | E::ExpiredContext { .. } | E::NotValidYet | E::NotValidYetContext { .. } => {
            TlsFailure::CertificateExpired
        }
        E::Revoked
        | E::UnknownRevocationStatus
        | E::ExpiredRevocationList
        | E::ExpiredRevocationListContext { .. } => TlsFailure::CertificateRevoked,
        // One that only bears the name of a trusted issuer is not signed by its key.
        E::UnknownIssuer | E::BadSignature => TlsFailure::CertificateUnknown,
        E::NotValidForName | E::NotValidForNameContext { .. } => TlsFailure::CertificateName,
        _ => TlsFailure::Certificate,
    }
}
