//! Peers that stall, leave or send garbage at any byte of a handshake and of the records after it,
//! towards a listener and as an endpoint.
//!
//! A [`Peer`] speaks TLS rightly until it has sent so many bytes, and then does what its [`Case`]
//! says. Asked of the gateway, whatever the case: no panic, an end to each connection soon after
//! its deadlines, every descriptor closed, each failure counted, and others served all the while.
//!
//! Each byte of what a faultless peer sends gets one fault, and each fault every [`STEP`]th byte.
//! `RINGWAY_TEST_EVERY_CUT=1` has every fault at every byte, which takes minutes.

mod clients;
mod endpoints;

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rustls::{CipherSuite, Connection, crypto::CryptoProvider};

use crate::harness::{Client, Gateway, Over, eventually};

/// Of the gateway, in the tests here. Without them it waits for 10 s and more, see [`BOUND`].
const DEADLINE: &str = "300ms";
/// The longest that a connection may last: some deadlines one after the other, on a machine that
/// has a lot to do, and less than what the gateway waits for where it forgets those deadlines.
const BOUND: Duration = Duration::from_secs(8);
/// Connections under way at a time.
const AT_ONCE: usize = 48;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Nothing more is sent.
    Stall,
    /// The sending side is ended, without close_notify.
    End,
    Reset,
    /// A bit of the next byte is changed; the peer goes on.
    Flip,
    /// Bytes without meaning, then nothing.
    Noise,
    /// The header of a record that is longer than any may be, and the bytes that it announces.
    Oversized,
    /// HTTP without TLS.
    Http,
}

const FAULTS: [Fault; 7] = [
    Fault::Stall,
    Fault::End,
    Fault::Reset,
    Fault::Flip,
    Fault::Noise,
    Fault::Oversized,
    Fault::Http,
];
/// No divisor of the lengths in records, so that each fault comes to every kind of byte.
const STEP: usize = FAULTS.len();

impl Fault {
    /// What is sent instead of what should follow.
    fn garbage(self) -> Vec<u8> {
        match self {
            Fault::Noise => {
                (0..300u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
            }
            Fault::Oversized => {
                let mut record = vec![0x17, 3, 3, 0xff, 0xff];
                record.resize(5 + 0xffff, 0x55);
                record
            }
            Fault::Http => b"GET / HTTP/1.1\r\nHost: gw.test\r\n\r\n".to_vec(),
            _ => Vec::new(),
        }
    }
}

/// What goes wrong, after how many bytes sent.
#[derive(Clone, Copy, Debug)]
struct Case {
    fault: Fault,
    at: usize,
}

impl Case {
    const NONE: Case = Case { fault: Fault::Stall, at: usize::MAX };

    /// For a peer that sends so many bytes when nothing goes wrong.
    fn all(bytes: usize) -> Vec<Case> {
        let every_cut = std::env::var_os("RINGWAY_TEST_EVERY_CUT").is_some();
        let cases = (0..bytes).flat_map(|at| FAULTS.map(|fault| Case { fault, at }));
        let chosen = |case: &Case| every_cut || FAULTS[case.at % STEP] == case.fault;
        cases.filter(chosen).collect()
    }
}

/// How a peer's connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// The other side closed it, with or without a reset.
    Closed,
    /// This peer did, by its fault.
    Left,
    /// It was still open after [`BOUND`].
    Open,
}

/// One end of a session that goes wrong.
struct Peer {
    session: Connection,
    tcp: TcpStream,
    case: Case,
    sent: usize,
    /// The fault has been committed, and the peer does not go on.
    is_done: bool,
    /// What was inside the records received.
    plaintext: Vec<u8>,
    /// What had been sent when the handshake was over.
    shaken_at: usize,
    /// An alert came for what followed the handshake.
    is_refused: bool,
}

impl Peer {
    fn new(session: Connection, tcp: TcpStream, case: Case) -> Peer {
        tcp.set_nodelay(true).unwrap();
        tcp.set_read_timeout(Some(BOUND)).unwrap();
        tcp.set_write_timeout(Some(BOUND)).unwrap();
        Peer {
            session,
            tcp,
            case,
            sent: 0,
            is_done: false,
            plaintext: Vec::new(),
            shaken_at: usize::MAX,
            is_refused: false,
        }
    }

    /// Shakes hands, says `first`, waits for `cue`, says each of `lines` in a record of its own,
    /// waits for `last`, says goodbye, and waits for the other side's end.
    fn play(&mut self, first: &[u8], cue: &[u8], lines: &[&[u8]], last: &[u8]) -> Ended {
        match self.perform(first, cue, lines, last) {
            Ok(()) => self.until_end(),
            Err(_) if self.is_done && self.case.fault == Fault::Reset => Ended::Left,
            Err(e) if is_timeout(&e) => Ended::Open,
            Err(_) => self.until_end(),
        }
    }

    /// Shakes hands, waits for `cue`, says `line`, takes so many bytes and reads no more; then goes
    /// wrong in the middle of what it says next.
    fn stick(&mut self, cue: &[u8], line: &[u8], bytes: usize) {
        let played = (|| {
            self.shake_hands()?;
            self.until(cue)?;
            self.say(line)?;
            while self.plaintext.len() < bytes {
                self.receive()?;
            }
            self.case.at = self.sent + 7;
            self.say(line)
        })();
        // On a busy machine the gateway's deadline may come first.
        assert!(played.as_ref().is_err_and(|e| !is_timeout(e)) || self.is_done, "{played:?}");
    }

    fn say(&mut self, line: &[u8]) -> io::Result<()> {
        self.session.writer().write_all(line)?;
        self.flush()
    }

    fn shake_hands(&mut self) -> io::Result<()> {
        self.flush()?;
        while self.session.is_handshaking() {
            self.receive()?;
            self.flush()?;
        }
        self.shaken_at = self.sent;
        Ok(())
    }

    fn perform(
        &mut self,
        first: &[u8],
        cue: &[u8],
        lines: &[&[u8]],
        last: &[u8],
    ) -> io::Result<()> {
        self.shake_hands()?;
        self.say(first)?;
        self.until(cue)?;
        for line in lines {
            self.say(line)?;
        }
        self.until(last)?;
        self.session.send_close_notify();
        self.flush()?;
        self.tcp.shutdown(Shutdown::Write)
    }

    fn until(&mut self, mark: &[u8]) -> io::Result<()> {
        while !mark.is_empty() && !self.plaintext.windows(mark.len()).any(|part| part == mark) {
            self.receive()?;
            self.flush()?;
        }
        Ok(())
    }

    /// Sends what the session has to say, up to the fault. An error: the peer does not go on.
    fn flush(&mut self) -> io::Result<()> {
        let mut bytes = Vec::new();
        while self.session.wants_write() {
            self.session.write_tls(&mut bytes)?;
        }
        let left = self.case.at.saturating_sub(self.sent);
        self.sent += bytes.len();
        if bytes.len() <= left || self.is_done {
            return self.tcp.write_all(&bytes);
        }
        if self.case.fault == Fault::Flip {
            bytes[left] ^= 1 << (self.case.at % 8);
            self.is_done = true;
            return self.tcp.write_all(&bytes);
        }
        self.tcp.write_all(&bytes[..left])?;
        self.is_done = true;
        self.commit()?;
        Err(io::ErrorKind::Interrupted.into())
    }

    fn commit(&mut self) -> io::Result<()> {
        match self.case.fault {
            Fault::End => self.tcp.shutdown(Shutdown::Write),
            Fault::Reset => {
                let socket = socket2::SockRef::from(&self.tcp);
                socket.set_linger(Some(Duration::ZERO))
            }
            fault => self.tcp.write_all(&fault.garbage()),
        }
    }

    /// Receives once. The end of the other side is an error.
    fn receive(&mut self) -> io::Result<()> {
        let mut chunk = [0; 16 * 1024];
        let n = self.tcp.read(&mut chunk)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.take(&chunk[..n])
    }

    fn take(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.session.read_tls(&mut bytes)?;
            let processed = self.session.process_new_packets();
            // What was decrypted before an error counts.
            let mut chunk = Vec::new();
            let _ = self.session.reader().read_to_end(&mut chunk);
            self.plaintext.extend(chunk);
            if let Err(e) = processed {
                let is_alert = matches!(e, rustls::Error::AlertReceived(_));
                self.is_refused = is_alert && self.case.at >= self.shaken_at;
                return Err(io::Error::other(e));
            }
        }
        Ok(())
    }

    /// Reads on until the other side has ended.
    fn until_end(&mut self) -> Ended {
        let until = Instant::now() + BOUND;
        let mut is_sound = true;
        let mut chunk = [0; 16 * 1024];
        loop {
            match self.tcp.read(&mut chunk) {
                Ok(0) => return Ended::Closed,
                Ok(n) => is_sound = is_sound && self.take(&chunk[..n]).is_ok(),
                Err(e) if is_timeout(&e) => return Ended::Open,
                Err(_) => return Ended::Closed,
            }
            if Instant::now() > until {
                return Ended::Open;
            }
        }
    }
}

fn is_timeout(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// X25519 alone: hellos without the keys of ML-KEM have a sixth of the bytes to cut at.
fn short() -> CryptoProvider {
    use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
    let mut provider = default_provider();
    provider.kx_groups = vec![kx_group::X25519];
    provider.cipher_suites.retain(|suite| {
        let wanted = [
            CipherSuite::TLS13_AES_128_GCM_SHA256,
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        ];
        wanted.contains(&suite.suite())
    });
    provider
}

/// How much of a large body is taken before all goes wrong: nothing, parts of records, several.
const TAKEN: [usize; 6] = [0, 1, 1351, 16_384, 70_000, 1_500_000];
/// More than the kernel keeps for anybody who does not read.
const LARGE: usize = 48 << 20;

/// Runs `one` for each case, many at a time, beside `others`.
fn for_each(cases: &[Case], one: impl Fn(Case) + Sync, others: impl Fn() + Sync) {
    let (next, over) = (Mutex::new(cases.iter().copied()), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                others();
            }
        });
        // Also when a case fails: the scope waits for all.
        let _over = Over(&over);
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE.min(cases.len()) {
                scope.spawn(|| {
                    loop {
                        let case = next.lock().unwrap().next();
                        match case {
                            Some(case) => one(case),
                            None => return,
                        }
                    }
                });
            }
        });
    });
}

/// What must hold when all is over: as many descriptors as before, and no panic.
struct Before<'g> {
    gateway: &'g Gateway,
    /// How many connections to upstreams may still be kept.
    kept: &'g dyn Fn() -> usize,
    descriptors: usize,
}

impl<'g> Before<'g> {
    #[track_caller]
    fn of(gateway: &'g Gateway, kept: &'g dyn Fn() -> usize) -> Before<'g> {
        // The admin interface has had a client too.
        eventually("nobody is connected", || open(gateway) == 0);
        let descriptors = gateway.open_fds() - kept();
        Before { gateway, kept, descriptors }
    }

    #[track_caller]
    fn is_so_again(&self) {
        eventually("every connection ends", || open(self.gateway) == 0);
        eventually("every descriptor is closed", || {
            self.gateway.open_fds() <= self.descriptors + (self.kept)()
        });
        assert_eq!(self.gateway.figure("ringway_panics_total"), Some(0.0));
        assert_eq!(self.gateway.kernel_threads(), 0, "none waits for a peer");
        assert!(self.gateway.is_running());
    }
}

fn open(gateway: &Gateway) -> u64 {
    sum(gateway, "ringway_connections_open{")
}

/// Of all series whose line begins with `name`.
fn sum(gateway: &Gateway, name: &str) -> u64 {
    let text = gateway.admin().get("/metrics").text();
    let values = text.lines().filter(|line| line.starts_with(name));
    values.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
}

/// Somebody else's request on a new connection, in the clear. On a busy machine it may be late, and
/// is then made again.
fn other(gateway: &Gateway) {
    eventually("others are served", || {
        let mut client = Client::connect(gateway.address_of("plain")).patience(BOUND);
        client.try_send("GET /other HTTP/1.1\r\nHost: gw.test\r\n\r\n");
        client.try_response("GET").is_ok_and(|response| response.status == 200)
    });
}
