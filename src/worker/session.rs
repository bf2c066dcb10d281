//! What stands between a socket and whoever uses its stream, where TLS is spoken: a session whose
//! records are sealed and opened here, or by the kernel. It says what both know.

use std::{io, rc::Rc};

use super::{
    buffers::Buffer,
    kernel_tls::KernelTls,
    net::{Stream, Wait},
    tls::{Agreed, Tls},
};
use crate::policy::client_cert::ClientCert;

/// The TLS session of one connection.
#[expect(
    clippy::large_enum_variant,
    reason = "boxed as a whole, which is one branch for plaintext"
)]
pub enum Session {
    /// Records are sealed and opened here.
    User(Tls),
    /// The kernel does it.
    Kernel(KernelTls),
}

impl Session {
    #[inline]
    pub fn user(&self) -> Option<&Tls> {
        match self {
            Session::User(tls) => Some(tls),
            Session::Kernel(_) => None,
        }
    }

    #[inline]
    pub fn kernel(&self) -> Option<&KernelTls> {
        match self {
            Session::User(_) => None,
            Session::Kernel(tls) => Some(tls),
        }
    }

    pub fn client_cert(&self) -> Option<Rc<ClientCert>> {
        match self {
            Session::User(tls) => tls.client_cert.clone(),
            Session::Kernel(tls) => tls.client_cert.clone(),
        }
    }

    pub fn is_http2(&self) -> bool {
        match self {
            Session::User(tls) => tls.is_http2,
            Session::Kernel(tls) => tls.is_http2,
        }
    }

    pub fn agreed(&self) -> Agreed {
        match self {
            Session::User(tls) => tls.agreed(),
            Session::Kernel(tls) => tls.agreed.clone(),
        }
    }
}

/// What a read of a socket is, whose records the kernel opens. `None`: it brought no data; read
/// again.
pub fn judged(
    tls: &KernelTls,
    stream: &Stream,
    buf: &Buffer,
    result: io::Result<usize>,
) -> Option<io::Result<usize>> {
    match result {
        Ok(1..) => Some(result),
        Ok(0) if buf.room() == 0 => Some(result),
        _ => tls.judge(stream, result),
    }
}

/// Waits until what has to be sent before data can be, after it could not for `error`.
pub async fn settle(
    tls: &KernelTls,
    stream: &Stream,
    bytes: usize,
    wait: Wait,
    mut error: io::Error,
) -> io::Result<()> {
    while error.kind() == io::ErrorKind::WouldBlock {
        stream.writable(wait.at()).await?;
        match tls.before_write(stream, bytes) {
            Ok(()) => return Ok(()),
            Err(e) => error = e,
        }
    }
    Err(error)
}
