//! A client that sends exactly the bytes it is told to.

use std::{
    io::Write,
    net::{Shutdown, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    sync::Arc,
    time::Duration,
};

use rustls::{ClientConfig, ClientConnection, StreamOwned, pki_types::ServerName};

use super::{
    PATIENCE,
    message::{Head, ReadError, Reader, Response, Socket, read_response},
};

#[derive(Debug)]
pub struct Client {
    pub reader: Reader,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).expect("the gateway accepts");
        stream.set_nodelay(true).unwrap();
        Client::over(Socket::Tcp(stream))
    }

    pub fn connect_unix(path: &Path) -> Client {
        Client::over(Socket::Unix(UnixStream::connect(path).expect("the gateway accepts")))
    }

    /// Speaks over a socket made elsewhere (bound to some address, with a small buffer, ...).
    pub fn over(socket: Socket) -> Client {
        socket.set_read_timeout(PATIENCE);
        socket.set_write_timeout(PATIENCE);
        Client { reader: Reader::new(socket) }
    }

    /// Speaks TLS to `gw.test` over a connection.
    pub fn over_tls(stream: TcpStream, config: &Arc<ClientConfig>) -> Client {
        let name = ServerName::try_from("gw.test").unwrap();
        let session = ClientConnection::new(config.clone(), name).unwrap();
        Client::over(Socket::Tls(Box::new(StreamOwned::new(session, stream))))
    }

    /// How long a read waits before it is [`ReadError::Timeout`].
    pub fn patience(self, wait: Duration) -> Client {
        self.reader.socket.set_read_timeout(wait);
        self
    }

    /// Its own address, over TCP.
    #[track_caller]
    pub fn address(&self) -> SocketAddr {
        match &self.reader.socket {
            Socket::Tcp(stream) => stream.local_addr().unwrap(),
            Socket::Tls(stream) => stream.sock.local_addr().unwrap(),
            Socket::Unix(_) => panic!("not over TCP"),
        }
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.reader.socket.write_all(bytes.as_ref()).expect("the gateway reads");
        self.reader.socket.flush().expect("the gateway reads");
    }

    /// Sends what the gateway may refuse to read to its end; true when all of it was taken.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.reader.socket.write_all(bytes.as_ref()).is_ok()
    }

    /// The response to a request that is not HEAD.
    #[track_caller]
    pub fn response(&mut self) -> Response {
        self.response_to("GET")
    }

    #[track_caller]
    pub fn response_to(&mut self, method: &str) -> Response {
        self.try_response(method).expect("a response")
    }

    pub fn try_response(&mut self, method: &str) -> Result<Response, ReadError> {
        read_response(&mut self.reader, method)
    }

    /// Only the head of a response, for tests that read the body by themselves.
    #[track_caller]
    pub fn head(&mut self) -> Head {
        self.reader.head().expect("a response head")
    }

    /// Sends a GET without body and reads its response.
    #[track_caller]
    pub fn get(&mut self, path: &str) -> Response {
        self.get_from("gw.test", path)
    }

    #[track_caller]
    pub fn get_from(&mut self, host: &str, path: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        self.response()
    }

    /// The same with these field lines.
    #[track_caller]
    pub fn get_with(&mut self, path: &str, fields: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: gw.test\r\n{fields}\r\n"));
        self.response()
    }

    /// No more will be sent; the response can still be read.
    pub fn finish_sending(&self) {
        self.reader.socket.shutdown(Shutdown::Write);
    }

    /// Closes with a reset instead of a FIN.
    pub fn reset(self) {
        if let Socket::Tcp(stream) = &self.reader.socket {
            socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
    }

    /// True when the gateway closed with nothing more to read.
    pub fn is_closed(&mut self) -> bool {
        self.reader.buf.is_empty()
            && matches!(self.reader.fill(), Ok(0) | Err(ReadError::Reset | ReadError::Cut))
    }

    #[track_caller]
    pub fn expect_closed(&mut self) {
        let buffered = String::from_utf8_lossy(&self.reader.buf).into_owned();
        assert!(buffered.is_empty(), "bytes after the response: {buffered:?}");
        match self.reader.fill() {
            Ok(0) | Err(ReadError::Reset) => {}
            Ok(_) => {
                panic!("bytes instead of a close: {:?}", String::from_utf8_lossy(&self.reader.buf))
            }
            Err(e) => panic!("the connection stayed open: {e:?}"),
        }
    }

    /// The connection closes with a FIN, never a reset.
    #[track_caller]
    pub fn expect_clean_close(&mut self) {
        assert!(self.reader.buf.is_empty());
        assert_eq!(self.reader.fill(), Ok(0), "a clean close");
    }
}
