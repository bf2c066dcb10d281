//! The handshake of a session that the kernel gets, over rustls' unbuffered interface, which alone
//! gives secrets and new keys away.
//!
//! Invariant: not one byte behind the handshake is read, because only the kernel can open it: each
//! record is read by its length.

use std::{io, rc::Rc, sync::Arc};

use rustls::{
    HandshakeKind, ProtocolVersion,
    server::UnbufferedServerConnection,
    unbuffered::{ConnectionState, EncodeError, UnbufferedStatus},
};

use super::{
    Agreed, KernelTls, UPDATES_MAX, WARNINGS_MAX, finish, invalid,
    keys::CryptoInfo,
    sealed_max,
    socket::{Direction, set_keys},
};
use crate::{
    config::snapshot::{ACME_TLS, TlsRule},
    policy::client_cert::ClientCert,
    telemetry::metrics::shards::{TlsFailure, WorkerShard},
    wire::{Parsed, client_hello},
    worker::{
        buffers::{Buffer, Buffers},
        net::{Stream, Wait},
        session::Session,
        tls::{Refused, Shaken, internal, looks_like_http, refused},
    },
};

const HEADER_BYTES: usize = 5;
/// Sealed plaintext of a record, at most (RFC 5246 §6.2.3).
const RECORD_BYTES_MAX: usize = (1 << 14) + 2048;
/// What a client may send in its handshake, certificates included.
const HANDSHAKE_BYTES_MAX: usize = 128 * 1024;

/// Answers a client's handshake on `stream`, whose records are the kernel's from then on. The
/// socket has been prepared ([`super::may_begin`]).
pub async fn accept(
    stream: &Stream,
    rule: &TlsRule,
    (buffers, metrics): (&Rc<Buffers>, &Arc<WorkerShard>),
    wait: Wait,
) -> Result<Shaken, Refused> {
    let session = UnbufferedServerConnection::new(rule.server.clone()).map_err(internal)?;
    let mut hands = Hands { session, received: Vec::new(), name: None };
    let (mut records, mut piece) = (buffers.head(), buffers.head());
    let shaken = hands.shake(stream, (&mut records, &mut piece), buffers, wait).await;
    buffers.give(records);
    buffers.give(piece);
    shaken?;
    let is_proof = hands.session.alpn_protocol() == Some(ACME_TLS);
    let is_resumed = hands.session.handshake_kind() == Some(HandshakeKind::Resumed);
    let tls = hands.hand_over(stream, rule, metrics).map_err(internal)?;
    metrics.tls_in_kernel.count();
    stream.begin_session(Session::Kernel(tls));
    Ok(Shaken { is_resumed, is_proof })
}

/// A handshake that goes on.
struct Hands {
    session: UnbufferedServerConnection,
    /// Records that are not used up.
    received: Vec<u8>,
    /// What the client asks for, once its hello is there.
    name: Option<String>,
}

/// What is to be done next.
enum Step {
    Send,
    Receive,
    Done,
}

impl Hands {
    async fn shake(
        &mut self,
        stream: &Stream,
        (records, piece): (&mut Buffer, &mut Buffer),
        buffers: &Buffers,
        wait: Wait,
    ) -> Result<(), Refused> {
        loop {
            match self.step(records, buffers) {
                Ok(Step::Done) => return Ok(()),
                Ok(Step::Send) => {
                    let sent = stream.write_all(records, wait).await;
                    records.reset(0);
                    sent.map_err(|failed| refused(failed.error))?;
                }
                Ok(Step::Receive) => self.receive(stream, piece, wait).await?,
                Err(error) => {
                    // What is wrong is told to the client, as far as it takes it.
                    self.encode_rest(records, buffers);
                    if !records.is_empty() {
                        let _ = stream.write_all(records, wait).await;
                    }
                    return Err(refused(invalid(error)));
                }
            }
        }
    }

    /// Goes on with what was received, until something has to be sent or received.
    fn step(&mut self, records: &mut Buffer, buffers: &Buffers) -> Result<Step, rustls::Error> {
        loop {
            let UnbufferedStatus { discard, state } =
                self.session.process_tls_records(&mut self.received);
            let mut is_open = false;
            let step = match state? {
                ConnectionState::EncodeTlsData(mut data) => {
                    encode(|room| data.encode(room), records, buffers);
                    None
                }
                ConnectionState::TransmitTlsData(sent) => {
                    sent.done();
                    Some(Step::Send)
                }
                ConnectionState::BlockedHandshake => Some(Step::Receive),
                ConnectionState::WriteTraffic(_) => {
                    is_open = true;
                    Some(Step::Receive)
                }
                // Data before its time, of which none is taken, or an end.
                _ => return Err(rustls::Error::HandshakeNotComplete),
            };
            self.received.drain(..discard);
            match step {
                Some(_) if is_open && !self.session.is_handshaking() => return Ok(Step::Done),
                Some(step) => return Ok(step),
                None => {}
            }
        }
    }

    /// Appends what a session that has failed still says. It sees nothing received: it would find
    /// the same wrong again, and says so once only.
    fn encode_rest(&mut self, records: &mut Buffer, buffers: &Buffers) {
        while self.session.wants_write() {
            let UnbufferedStatus { state, .. } = self.session.process_tls_records(&mut []);
            let Ok(ConnectionState::EncodeTlsData(mut data)) = state else { return };
            encode(|room| data.encode(room), records, buffers);
        }
    }

    /// Receives one record.
    async fn receive(
        &mut self,
        stream: &Stream,
        piece: &mut Buffer,
        wait: Wait,
    ) -> Result<(), Refused> {
        let is_first = self.name.is_none() && self.received.is_empty();
        let begun = self.received.len();
        self.receive_bytes(stream, piece, HEADER_BYTES, wait).await?;
        let header = &self.received[begun..];
        if is_first && looks_like_http(header) {
            let error = io::Error::new(io::ErrorKind::InvalidData, "HTTP without TLS");
            return Err(Refused { failure: TlsFailure::PlainHttp, error });
        }
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if length > RECORD_BYTES_MAX || self.received.len() > HANDSHAKE_BYTES_MAX {
            return Err(refused(invalid(rustls::Error::PeerSentOversizedRecord)));
        }
        self.receive_bytes(stream, piece, length, wait).await?;
        if self.name.is_none() {
            let mut name = Vec::new();
            if let Ok(Parsed::Complete(())) = client_hello::parse(&self.received, &mut name) {
                self.name = Some(String::from_utf8(name).unwrap_or_default());
            }
        }
        Ok(())
    }

    /// Appends exactly so many bytes to what was received.
    async fn receive_bytes(
        &mut self,
        stream: &Stream,
        piece: &mut Buffer,
        bytes: usize,
        wait: Wait,
    ) -> Result<(), Refused> {
        let mut left = bytes;
        while left > 0 {
            piece.reset(0);
            match stream.read_now(piece, left) {
                Ok(0) => return Err(refused(io::ErrorKind::UnexpectedEof.into())),
                Ok(n) => {
                    self.received.extend_from_slice(piece.bytes());
                    left -= n;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    stream.readable(wait.at()).await.map_err(refused)?;
                }
                Err(e) => return Err(refused(e)),
            }
        }
        Ok(())
    }

    /// Gives the kernel what it needs.
    fn hand_over(
        self,
        stream: &Stream,
        rule: &TlsRule,
        metrics: &Arc<WorkerShard>,
    ) -> io::Result<KernelTls> {
        let session = &self.session;
        let version = session.protocol_version().ok_or(io::ErrorKind::Unsupported)?;
        let agreed = Agreed {
            name: self.name.unwrap_or_default(),
            alpn: session.alpn_protocol().unwrap_or_default().to_vec(),
            version: if version == ProtocolVersion::TLSv1_2 { "TLSv1.2" } else { "TLSv1.3" },
            is_verified: session.peer_certificates().is_some(),
        };
        let shown = session.peer_certificates().and_then(|chain| chain.first());
        let client_cert = shown.filter(|_| rule.asks_certificate);
        let client_cert = client_cert.map(|der| Rc::new(ClientCert::read(der)));
        let is_http2 = session.alpn_protocol() == Some(b"h2");
        finish::set_room(stream)?;
        let (secrets, session) =
            self.session.dangerous_into_kernel_connection().map_err(io::Error::other)?;
        for (direction, (next, secrets)) in
            [(Direction::Send, secrets.tx), (Direction::Receive, secrets.rx)]
        {
            let info = CryptoInfo::of(version, &secrets, next).ok_or(io::ErrorKind::Unsupported)?;
            set_keys(stream, direction, &info)?;
        }
        Ok(KernelTls {
            sealed_max: sealed_max(session.negotiated_cipher_suite()),
            session: session.into(),
            owes_keys: false.into(),
            sealed: 0.into(),
            updates_left: UPDATES_MAX.into(),
            warnings_left: WARNINGS_MAX.into(),
            has_ended: false.into(),
            metrics: Some(metrics.clone()).into(),
            agreed,
            is_http2,
            client_cert,
        })
    }
}

/// Appends a record of the session's own.
fn encode(
    mut data: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
    records: &mut Buffer,
    buffers: &Buffers,
) {
    let mut room = vec![0; 1024];
    let length = loop {
        match data(&mut room) {
            Ok(length) => break length,
            Err(EncodeError::InsufficientSize(more)) => room.resize(more.required_size, 0),
            // It was encoded before.
            Err(EncodeError::AlreadyEncoded) => return,
        }
    };
    if records.room() < length {
        let mut larger = buffers.at_least(records.len() + length);
        larger.append(records.bytes());
        buffers.give(std::mem::replace(records, larger));
    }
    records.append(&room[..length]);
}

#[cfg(test)]
mod tests {
    use rustls::{
        ClientConfig, ClientConnection, RootCertStore, ServerConfig,
        server::ResolvesServerCertUsingSni,
    };

    use super::*;

    fn hello() -> Vec<u8> {
        let config = ClientConfig::builder()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let name = "gw.test".try_into().expect("a name");
        let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
        let mut hello = Vec::new();
        client.write_tls(&mut hello).expect("room");
        hello
    }

    #[test]
    fn what_is_wrong_is_told_once() {
        let server = ServerConfig::builder()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(ResolvesServerCertUsingSni::new()));
        let server = Arc::new(server);
        let damaged = |at: usize| {
            let mut hello = hello();
            hello[at] ^= 0x80;
            hello
        };
        let cases = [
            ("no certificate for it", hello()),
            ("a record's type", damaged(0)),
            ("a message's type", damaged(HEADER_BYTES)),
            ("a version", damaged(HEADER_BYTES + 4)),
            ("a length within", damaged(HEADER_BYTES + 4 + 2 + 32)),
        ];
        for (what, received) in cases {
            let session = UnbufferedServerConnection::new(server.clone()).expect("a session");
            let mut hands = Hands { session, received, name: None };
            let buffers = Buffers::new(4096, 65_536);
            let mut records = buffers.head();
            assert!(hands.step(&mut records, &buffers).is_err(), "{what}");
            hands.encode_rest(&mut records, &buffers);
            // One record: a fatal alert (RFC 8446 §6).
            assert!(
                matches!(records.bytes(), [21, 3, 3, 0, 2, 2, _]),
                "{what}: {:?}",
                records.bytes()
            );
        }
    }
}
