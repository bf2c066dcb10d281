//! Connects: TCP or a Unix socket, and TLS where that is asked for.

use std::io;
use std::sync::Arc;

use monoio::net::{TcpStream, UnixStream};
use monoio_compat::StreamWrapper;
use rustls::{ClientConfig, HandshakeKind};
use socket2::SockAddr;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use crate::tally::Failure;
use crate::tls::TlsPlan;

/// Bytes held for each direction of a connection.
const BUFFER_BYTES: usize = 16 * 1024;

/// A connection, whatever it runs over.
pub trait Io: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}

/// A new connection, and whether its TLS session was resumed.
pub struct Connected {
    /// The connection.
    pub io: Box<dyn Io>,
    /// `None` without TLS.
    pub resumed: Option<bool>,
}

/// Makes the connections of one slot, one after the other.
pub struct Connector {
    target: &'static SockAddr,
    tls: Option<(Arc<ClientConfig>, &'static TlsPlan)>,
    http2: bool,
}

/// Why there is no connection.
pub type Refused = (Failure, String);

impl Connector {
    /// To `target`, with session tickets of its own.
    pub fn new(target: &'static SockAddr, tls: Option<&'static TlsPlan>, http2: bool) -> Self {
        Self { target, tls: tls.map(|plan| (plan.connection(), plan)), http2 }
    }

    /// Connects and, with TLS, shakes hands.
    pub async fn connect(&self) -> Result<Connected, Refused> {
        let io = self.open().await.map_err(|e| {
            let refused = e.kind() == io::ErrorKind::ConnectionRefused;
            (if refused { Failure::Refused } else { Failure::Connect }, e.to_string())
        })?;
        let Some((config, plan)) = &self.tls else { return Ok(Connected { io, resumed: None }) };
        let connector = TlsConnector::from(config.clone());
        let stream = connector
            .connect(plan.name.clone(), io)
            .await
            .map_err(|e| (Failure::Tls, format!("TLS handshake: {e}")))?;
        let session = &stream.get_ref().1;
        if self.http2 && session.alpn_protocol() != Some(b"h2") {
            return Err((Failure::Tls, "the server did not choose HTTP/2 by ALPN".to_owned()));
        }
        let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
        Ok(Connected { io: Box::new(stream), resumed: Some(resumed) })
    }

    async fn open(&self) -> io::Result<Box<dyn Io>> {
        if let Some(address) = self.target.as_socket() {
            let stream = TcpStream::connect_addr(address).await?;
            stream.set_nodelay(true)?;
            return Ok(polled(stream));
        }
        let path = self.target.as_pathname().ok_or(io::ErrorKind::InvalidInput)?;
        Ok(polled(UnixStream::connect(path).await?))
    }
}

fn polled<T>(stream: T) -> Box<dyn Io>
where
    T: monoio::io::AsyncReadRent + monoio::io::AsyncWriteRent + Unpin + 'static,
{
    Box::new(StreamWrapper::new_with_buffer_size(stream, BUFFER_BYTES, BUFFER_BYTES))
}
