//! A datagram for each line: to a Unix socket as it is, or to a syslog.

use std::{
    io::{self, ErrorKind},
    net::{SocketAddr, UdpSocket},
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::{
    sink::{WAIT, given_up, wait_writable},
    syslog::Header,
};

/// How often a reader that is not there is looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub struct Datagrams {
    socket: Socket,
    /// What goes before each line.
    header: Option<Header>,
    datagram: Vec<u8>,
}

enum Socket {
    Udp(UdpSocket),
    Unix {
        path: PathBuf,
        /// Connected to whoever reads at `path`.
        socket: Option<UnixDatagram>,
        looked_at: Option<Instant>,
    },
}

/// What became of one line.
enum Sent {
    Taken,
    /// Only this line cannot be sent.
    Refused(io::Error),
    /// Nobody is there to take it.
    Nobody(io::Error),
    GivenUp,
}

impl Datagrams {
    /// To a Unix socket, which need not be there yet.
    pub fn unix(path: &Path, is_syslog: bool) -> Result<Datagrams, String> {
        let mut socket = Socket::Unix { path: path.to_path_buf(), socket: None, looked_at: None };
        if let Err(e) = socket.connect() {
            tracing::warn!("nobody reads the access log's {}: {e}", path.display());
        }
        let header = is_syslog.then(Header::local);
        Ok(Datagrams { socket, header, datagram: Vec::new() })
    }

    /// To a syslog server, at the first address that can be used.
    pub fn udp(addresses: &[SocketAddr]) -> Result<Datagrams, String> {
        let connect = |to: &SocketAddr| {
            let any: &str = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any)?;
            socket.connect(to)?;
            socket.set_nonblocking(true)?;
            Ok::<_, io::Error>(socket)
        };
        let mut failed = String::from("it has no address");
        for address in addresses {
            match connect(address) {
                Ok(socket) => {
                    let (socket, header) = (Socket::Udp(socket), Some(Header::remote()));
                    return Ok(Datagrams { socket, header, datagram: Vec::new() });
                }
                Err(e) => failed = format!("no way to {address}: {e}"),
            }
        }
        Err(failed)
    }

    /// Sends each line: how many were taken, and why not all.
    pub fn write(
        &mut self,
        lines: &[u8],
        may_wait: &mut dyn FnMut() -> bool,
    ) -> (u64, Option<io::Error>) {
        let (mut taken, mut failed) = (0, None);
        if let Some(header) = &mut self.header {
            header.renew();
        }
        for line in lines.split_inclusive(|b| *b == b'\n') {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            self.datagram.clear();
            self.datagram.extend_from_slice(self.header.as_ref().map_or(b"", Header::text));
            self.datagram.extend_from_slice(line);
            match self.socket.send(&self.datagram, may_wait) {
                Sent::Taken => taken += 1,
                Sent::Refused(e) => failed = Some(e),
                // The others would fare no better.
                Sent::Nobody(e) => return (taken, Some(e)),
                Sent::GivenUp => return (taken, Some(given_up())),
            }
        }
        (taken, failed)
    }
}

impl Socket {
    fn send(&mut self, datagram: &[u8], may_wait: &mut dyn FnMut() -> bool) -> Sent {
        let mut is_second = false;
        loop {
            let e = match self.send_now(datagram) {
                Ok(_) => return Sent::Taken,
                Err(e) => e,
            };
            match e.kind() {
                ErrorKind::Interrupted => {}
                // Out of memory for it, which passes, but is not waited for by poll.
                _ if e.raw_os_error() == Some(libc::ENOBUFS) => {
                    if !may_wait() {
                        return Sent::GivenUp;
                    }
                    thread::sleep(WAIT / 10);
                }
                ErrorKind::WouldBlock => {
                    if !self.is_ready() && !may_wait() {
                        return Sent::GivenUp;
                    }
                }
                _ if e.raw_os_error() == Some(libc::EMSGSIZE) => return Sent::Refused(e),
                // For a Unix socket a new reader may be there; for UDP it is about an earlier
                // datagram (udp(7)).
                _ if !is_second => {
                    is_second = true;
                    if let Err(e) = self.connect() {
                        return Sent::Nobody(e);
                    }
                }
                _ => return Sent::Nobody(e),
            }
        }
    }

    fn send_now(&self, datagram: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Udp(socket) => socket.send(datagram),
            Socket::Unix { socket: Some(socket), .. } => socket.send(datagram),
            Socket::Unix { socket: None, .. } => Err(ErrorKind::NotConnected.into()),
        }
    }

    /// Looks for a reader of a Unix socket, not too often.
    fn connect(&mut self) -> io::Result<()> {
        let Socket::Unix { path, socket, looked_at } = self else { return Ok(()) };
        *socket = None;
        if looked_at.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            return Err(io::Error::new(ErrorKind::NotConnected, "nobody reads its socket"));
        }
        *looked_at = Some(Instant::now());
        let new = UnixDatagram::unbound()?;
        new.connect(path)?;
        new.set_nonblocking(true)?;
        (*socket, *looked_at) = (Some(new), None);
        Ok(())
    }

    /// Whether sending again may lead further, waiting a little.
    fn is_ready(&self) -> bool {
        match self {
            Socket::Udp(socket) => wait_writable(socket).unwrap_or(true),
            Socket::Unix { socket: Some(socket), .. } => wait_writable(socket).unwrap_or(true),
            Socket::Unix { socket: None, .. } => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(socket: &UnixDatagram) -> String {
        let mut room = [0; 8192];
        let n = socket.recv(&mut room).expect("a datagram");
        String::from_utf8_lossy(&room[..n]).into_owned()
    }

    #[test]
    fn each_line_is_a_datagram() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let reader = UnixDatagram::bind(&path).expect("a socket");
        let mut plain = Datagrams::unix(&path, false).expect("a socket");
        let (taken, failed) = plain.write(b"one\ntwo\n", &mut || true);
        assert!(taken == 2 && failed.is_none());
        assert_eq!([receive(&reader), receive(&reader)], ["one", "two"]);
        let mut syslog = Datagrams::unix(&path, true).expect("a socket");
        assert_eq!(syslog.write(b"one\n", &mut || true).0, 1);
        assert_eq!(receive(&reader), format!("<190>ringway[{}]: one", std::process::id()));
    }

    #[test]
    fn udp_carries_rfc_5424() {
        let reader = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let address = reader.local_addr().expect("an address");
        let mut syslog = Datagrams::udp(&[address]).expect("a socket");
        assert_eq!(syslog.write(b"a b\n", &mut || true).0, 1);
        let mut room = [0; 512];
        let n = reader.recv(&mut room).expect("a datagram");
        let text = String::from_utf8_lossy(&room[..n]).into_owned();
        let parts: Vec<&str> = text.splitn(8, ' ').collect();
        assert_eq!((parts[0], parts[3], parts[5], parts[6]), ("<190>1", "ringway", "access", "-"));
        assert!(parts[1].ends_with('Z') && !parts[2].is_empty(), "{text}");
        assert_eq!((parts[4], parts[7]), (std::process::id().to_string().as_str(), "a b"));
    }

    #[test]
    fn a_reader_that_is_not_there_is_found_when_it_comes_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let mut log = Datagrams::unix(&path, false).expect("no reader is no error");
        assert_eq!(log.write(b"one\n", &mut || true).0, 0);
        let reader = UnixDatagram::bind(&path).expect("a socket");
        let since = Instant::now();
        while log.write(b"two\n", &mut || true).0 == 0 {
            assert!(since.elapsed() < Duration::from_secs(10), "found within a second or so");
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(receive(&reader), "two");
        // Another one takes its place.
        drop(reader);
        std::fs::remove_file(&path).expect("its path");
        let reader = UnixDatagram::bind(&path).expect("a socket");
        assert_eq!(log.write(b"three\n", &mut || true).0, 1);
        assert_eq!(receive(&reader), "three");
    }

    #[test]
    fn a_reader_that_has_stopped_is_waited_for_until_told_otherwise() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let _reader = UnixDatagram::bind(&path).expect("a socket");
        let mut log = Datagrams::unix(&path, false).expect("a socket");
        let (mut asked, lines) = (0, b"line\n".repeat(100_000));
        let (taken, failed) = log.write(&lines, &mut || {
            asked += 1;
            asked < 2
        });
        assert!((1..100_000).contains(&taken), "{taken}");
        assert_eq!((asked, failed.map(|e| e.kind())), (2, Some(ErrorKind::TimedOut)));
    }

    #[test]
    fn a_line_too_long_costs_itself_only() {
        let reader = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let mut log = Datagrams::udp(&[reader.local_addr().expect("an address")]).expect("a way");
        let lines = [&[b'x'; 70_000][..], b"\nshort\n"].concat();
        let (taken, failed) = log.write(&lines, &mut || true);
        assert!(taken == 1 && failed.is_some());
    }
}
