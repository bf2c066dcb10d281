//! Sessions of clients whose records the kernel seals and opens (`listeners.tls.kernel`).
//!
//! rustls makes the handshake ([`accept`]) and gives its secrets away; from then on the stream
//! reads and writes as a plain one does, pipes included. What is left for this process are records
//! that are no data: the kernel answers a read with EIO when one is next, and [`KernelTls::judge`]
//! takes it. New keys are computed by rustls' `KernelConnection`.
//!
//! Invariants: a read takes nothing from the socket that it does not hand on. A client that asks
//! for new keys gets them before the next data (RFC 8446 §4.6.3): whoever writes sends them first
//! ([`KernelTls::before_write`]), so that none of a write in flight is sealed with the wrong ones.
//! Keys are changed, or with TLS 1.2 the session ended, long before they have sealed more than is
//! safe. The last records of a connection have left before its FIN ([`finish`]).

pub mod finish;
mod handshake;
pub mod keys;
pub mod offer;
pub mod socket;

pub use handshake::accept;

use std::{
    cell::{Cell, RefCell},
    io,
    os::fd::AsFd,
    rc::Rc,
    sync::Arc,
};

use rustls::{
    AlertDescription, ConnectionTrafficSecrets, InvalidMessage, PeerMisbehaved, ProtocolVersion,
    SupportedCipherSuite, kernel::KernelConnection, server::ServerConnectionData,
};

use self::{
    keys::CryptoInfo,
    socket::{Direction, begin, receive, send, set_keys},
};
use super::{
    net::Stream,
    tls::{Agreed, why_broken},
};
use crate::{
    policy::client_cert::ClientCert,
    telemetry::metrics::shards::{TLS_SIDES, WorkerShard},
};

/// Types of records (RFC 8446 §5.1).
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
/// Levels of alerts (RFC 8446 §6).
const WARNING: u8 = 1;
const FATAL: u8 = 2;
/// Plaintext of a record.
const RECORD_BYTES: usize = 16 * 1024;
/// A record that is no data and none of these is longer than any that is taken.
const CONTROL_BYTES: usize = 64;
/// Of TLS 1.3's KeyUpdate: the message without what is asked for (RFC 8446 §4.6.3).
const KEY_UPDATE: [u8; 4] = [24, 0, 0, 1];
const UPDATE_NOT_REQUESTED: u8 = 0;
const UPDATE_REQUESTED: u8 = 1;
/// A client may change its keys so often while it is sent nothing, as rustls has it.
const UPDATES_MAX: u8 = 32;
/// Warnings of a client that are not heeded, as rustls has it.
const WARNINGS_MAX: u8 = 4;

/// The session of one connection.
pub struct KernelTls {
    session: RefCell<KernelConnection<ServerConnectionData>>,
    /// The client is to be sent new keys before data.
    owes_keys: Cell<bool>,
    /// Records sealed with these keys, at most, and how many may be.
    sealed: Cell<u64>,
    sealed_max: u64,
    updates_left: Cell<u8>,
    warnings_left: Cell<u8>,
    /// The client has said that it sends no more.
    has_ended: Cell<bool>,
    /// Where it is counted how the session ends, until it has.
    metrics: Cell<Option<Arc<WorkerShard>>>,
    pub agreed: Agreed,
    pub is_http2: bool,
    pub client_cert: Option<Rc<ClientCert>>,
}

/// Whether the session that begins on `stream` can be the kernel's.
pub fn may_begin(stream: &Stream) -> bool {
    offer::is_offered() && stream.is_tcp() && begin(stream).is_ok()
}

impl KernelTls {
    /// Nothing more comes from the client.
    pub fn has_ended(&self) -> bool {
        self.has_ended.get()
    }

    /// What becomes of a read that brought no data. `None`: read again.
    #[cold]
    pub fn judge(&self, socket: impl AsFd, result: io::Result<usize>) -> Option<io::Result<usize>> {
        let result = match result {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(e) if e.raw_os_error() == Some(libc::EIO) => self.take_control(&socket),
            Ok(n) => return Some(Ok(n)),
            Err(e) => Err(e),
        };
        let error = match result {
            Ok(()) if self.has_ended.get() => return Some(Ok(0)),
            Ok(()) => return None,
            Err(error) => told(error),
        };
        let is_of_tls = error.get_ref().is_some() || error.kind() == io::ErrorKind::UnexpectedEof;
        if is_of_tls {
            self.broke(&error);
            if let Some(alert) = alert_for(&error) {
                let _ = send(&socket, ALERT, &[FATAL, alert]);
            }
        }
        Some(Err(error))
    }

    /// Takes a record that is no data.
    fn take_control(&self, socket: impl AsFd) -> io::Result<()> {
        let mut bytes = [0; CONTROL_BYTES];
        let (kind, len) = match receive(&socket, &mut bytes) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            taken => taken?,
        };
        match (kind, &bytes[..len]) {
            (ALERT, [level, description]) => self.alerted(*level, *description),
            (ALERT, _) => Err(invalid(InvalidMessage::MessageTooLarge)),
            (HANDSHAKE, [message @ .., asked]) if self.is_13() && message == KEY_UPDATE => {
                self.take_key_update(socket, *asked)
            }
            _ => Err(invalid(PeerMisbehaved::IllegalMiddleboxChangeCipherSpec)),
        }
    }

    fn alerted(&self, level: u8, description: u8) -> io::Result<()> {
        let alert = AlertDescription::from(description);
        // Of TLS 1.3 all others end the session (RFC 8446 §6).
        let is_warning = match self.is_13() {
            true => alert == AlertDescription::UserCanceled,
            false => level == WARNING,
        };
        match alert {
            AlertDescription::CloseNotify => self.has_ended.set(true),
            _ if is_warning && self.warnings_left.get() > 0 => {
                self.warnings_left.set(self.warnings_left.get() - 1);
            }
            _ => return Err(invalid(rustls::Error::AlertReceived(alert))),
        }
        Ok(())
    }

    fn take_key_update(&self, socket: impl AsFd, asked: u8) -> io::Result<()> {
        let left = self.updates_left.get().checked_sub(1);
        self.updates_left
            .set(left.ok_or_else(|| invalid(PeerMisbehaved::TooManyKeyUpdateRequests))?);
        match asked {
            UPDATE_NOT_REQUESTED => {}
            UPDATE_REQUESTED => self.owes_keys.set(true),
            _ => return Err(invalid(InvalidMessage::InvalidKeyUpdate)),
        }
        let secrets = self.session.borrow_mut().update_rx_secret();
        self.set_keys(socket, Direction::Receive, secrets)
    }

    /// Called before so many bytes are written. `WouldBlock`: when there is room to write.
    pub fn before_write(&self, socket: impl AsFd, bytes: usize) -> io::Result<()> {
        self.sealed.set(self.sealed.get() + (bytes / RECORD_BYTES) as u64 + 1);
        self.updates_left.set(UPDATES_MAX);
        let is_over = self.sealed.get() >= self.sealed_max;
        if is_over && !self.is_13() {
            return Err(io::Error::other(rustls::Error::EncryptError));
        }
        if !is_over && !self.owes_keys.get() {
            return Ok(());
        }
        let [kind, a, b, length] = KEY_UPDATE;
        send(&socket, HANDSHAKE, &[kind, a, b, length, UPDATE_NOT_REQUESTED])?;
        self.owes_keys.set(false);
        self.sealed.set(0);
        let secrets = self.session.borrow_mut().update_tx_secret();
        self.set_keys(socket, Direction::Send, secrets)
    }

    fn set_keys(
        &self,
        socket: impl AsFd,
        direction: Direction,
        secrets: Result<(u64, ConnectionTrafficSecrets), rustls::Error>,
    ) -> io::Result<()> {
        let (next, secrets) = secrets.map_err(io::Error::other)?;
        let info = CryptoInfo::of(ProtocolVersion::TLSv1_3, &secrets, next);
        // Those before were of the same cipher. Whatever goes wrong here must not be taken for a
        // wait: the other side has the new keys.
        let info = info.ok_or(io::ErrorKind::Unsupported)?;
        set_keys(socket, direction, &info).map_err(io::Error::other)
    }

    fn is_13(&self) -> bool {
        self.session.borrow().protocol_version() == ProtocolVersion::TLSv1_3
    }

    /// Counts how the session ended, once.
    fn broke(&self, error: &io::Error) {
        if let Some(metrics) = self.metrics.take() {
            let why = why_broken(error);
            metrics.tls_breaks[0][why as usize].count();
            tracing::debug!(reason = why.name(), with = TLS_SIDES[0], %error, "a TLS session broke");
        }
    }
}

/// How many records one key may seal: half of what rustls allows, since what the kernel makes of a
/// write is not known exactly.
fn sealed_max(suite: SupportedCipherSuite) -> u64 {
    let common = match suite {
        SupportedCipherSuite::Tls12(suite) => &suite.common,
        SupportedCipherSuite::Tls13(suite) => &suite.common,
    };
    common.confidentiality_limit / 2
}

fn invalid(error: impl Into<rustls::Error>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.into())
}

/// An error of the kernel in the words of rustls, where it is about records.
fn told(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::EBADMSG) => invalid(rustls::Error::DecryptError),
        Some(libc::EMSGSIZE) => invalid(rustls::Error::PeerSentOversizedRecord),
        Some(libc::EINVAL) => invalid(InvalidMessage::UnknownProtocolVersion),
        _ => error,
    }
}

/// What the client is told of what it sent.
fn alert_for(error: &io::Error) -> Option<u8> {
    let alert = match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::AlertReceived(_) => return None,
        rustls::Error::DecryptError => AlertDescription::BadRecordMac,
        rustls::Error::PeerSentOversizedRecord => AlertDescription::RecordOverflow,
        rustls::Error::InvalidMessage(_) => AlertDescription::DecodeError,
        rustls::Error::PeerMisbehaved(_) => AlertDescription::UnexpectedMessage,
        _ => AlertDescription::InternalError,
    };
    Some(alert.into())
}
