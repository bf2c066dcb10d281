//! The cheap origin of the hand-made driver: answers every request with the same prepared response.
//!
//! One request at a time per connection (proxies do not pipeline upstream); a request's body is
//! counted off and dropped, and must have a length. [`crate::serve`] is the origin with more ways.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use crate::body;
use crate::http1::{self, Framing};
use crate::ring::{Completion, Key, Op, Ring, Side, adopt};

/// Response bodies are sent from one block of this size; longer ones repeat it.
const BLOCK_BYTES: u64 = body::BLOCK_BYTES as u64;

/// The prepared answer, once for connections that stay and once for those that end.
#[derive(Clone, Copy)]
struct Answer {
    stay: &'static [u8],
    close: &'static [u8],
    block: &'static [u8],
    /// Body bytes beyond the first send.
    rest: u64,
}

struct Connection {
    socket: OwnedFd,
    /// A request head received in part.
    partial: Vec<u8>,
    /// Request body still to come.
    body_left: u64,
    /// Response body still to be sent once the send in flight ends.
    rest: u64,
    close: bool,
}

/// The answering half of the process.
pub struct Origin {
    listener: Socket,
    answer: Answer,
    connections: Vec<(u32, Option<Connection>)>,
    free: Vec<u32>,
    /// Requests answered so far.
    pub served: u64,
}

impl Origin {
    /// Listens on `address`, ready to answer with `body_bytes` of body.
    pub fn listen(address: &SockAddr, body_bytes: u64) -> io::Result<Self> {
        let listener = Socket::new(Domain::from(i32::from(address.family())), Type::STREAM, None)?;
        if !address.is_unix() {
            listener.set_reuse_address(true)?;
            // Threads listen side by side.
            listener.set_reuse_port(true)?;
            listener.set_tcp_nodelay(true)?;
            listener.set_tcp_congestion(b"reno")?;
        }
        bind(&listener, address)?;
        listener.listen(4096)?;
        let answer = Answer::prepare(body_bytes);
        Ok(Self { listener, answer, connections: Vec::new(), free: Vec::new(), served: 0 })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SockAddr> {
        self.listener.local_addr()
    }

    /// Arms the listener.
    pub fn start(&self, ring: &mut Ring) -> io::Result<()> {
        let key = Key { side: Side::Origin, index: u32::MAX, generation: 0 };
        ring.accept(self.listener.as_raw_fd(), key)
    }

    /// Takes one completion; `bytes` is what it received.
    pub fn handle(&mut self, ring: &mut Ring, done: Completion, bytes: &[u8]) -> io::Result<()> {
        match done.op {
            Op::Accept => self.accepted(ring, done),
            Op::Receive => self.received(ring, done, bytes),
            Op::Send => self.sent(ring, done),
            Op::Connect | Op::Tick => Ok(()),
        }
    }

    fn accepted(&mut self, ring: &mut Ring, done: Completion) -> io::Result<()> {
        if !done.more {
            self.start(ring)?;
        }
        let Some(socket) = adopt(done.result) else { return Ok(()) };
        let fd = socket.as_raw_fd();
        let connection =
            Connection { socket, partial: Vec::new(), body_left: 0, rest: 0, close: false };
        let index = self.free.pop().unwrap_or_else(|| {
            self.connections.push((0, None));
            self.connections.len() as u32 - 1
        });
        let slot = &mut self.connections[index as usize];
        slot.0 = (slot.0 + 1) & 0x00ff_ffff;
        slot.1 = Some(connection);
        ring.receive(fd, Key { side: Side::Origin, index, generation: slot.0 })
    }

    fn received(&mut self, ring: &mut Ring, done: Completion, bytes: &[u8]) -> io::Result<()> {
        let Some((generation, slot)) = self.connections.get_mut(done.key.index as usize) else {
            return Ok(());
        };
        let (true, Some(connection)) = (*generation == done.key.generation, slot.as_mut()) else {
            return Ok(());
        };
        if done.result <= 0 && done.result != -libc::ENOBUFS {
            *slot = None;
            self.free.push(done.key.index);
            return Ok(());
        }
        if !done.more {
            ring.receive(connection.socket.as_raw_fd(), done.key)?;
        }
        self.served += connection.read(ring, done.key, self.answer, bytes)?;
        Ok(())
    }

    fn sent(&mut self, ring: &mut Ring, done: Completion) -> io::Result<()> {
        match self.connections.get_mut(done.key.index as usize) {
            Some((generation, Some(connection))) if *generation == done.key.generation => {
                connection.sent(ring, done, self.answer)
            }
            _ => Ok(()),
        }
    }
}

impl Connection {
    /// Counts received bytes off and answers each complete request; returns how many.
    fn read(
        &mut self,
        ring: &mut Ring,
        key: Key,
        answer: Answer,
        received: &[u8],
    ) -> io::Result<u64> {
        let mut answered = 0;
        let joined;
        let mut bytes = received;
        if !self.partial.is_empty() {
            self.partial.extend_from_slice(bytes);
            joined = std::mem::take(&mut self.partial);
            bytes = &joined;
        }
        while !bytes.is_empty() {
            if self.body_left == 0 {
                match http1::request(bytes) {
                    Ok(Some(http1::Head { len, body: Framing::Length(body), close, .. })) => {
                        bytes = &bytes[len..];
                        self.body_left = body;
                        self.close = close;
                    }
                    Ok(None) => {
                        self.partial = bytes.to_vec();
                        break;
                    }
                    Ok(Some(_)) | Err(http1::Malformed) => {
                        self.end();
                        break;
                    }
                }
            }
            let taken = self.body_left.min(bytes.len() as u64);
            bytes = &bytes[taken as usize..];
            self.body_left -= taken;
            if self.body_left == 0 {
                self.answer(ring, key, answer)?;
                answered += 1;
            }
        }
        Ok(answered)
    }

    fn answer(&mut self, ring: &mut Ring, key: Key, answer: Answer) -> io::Result<()> {
        self.rest = answer.rest;
        let bytes = if self.close { answer.close } else { answer.stay };
        let report = self.close || self.rest > 0;
        ring.send(self.socket.as_raw_fd(), bytes, report, key)
    }

    fn sent(&mut self, ring: &mut Ring, done: Completion, answer: Answer) -> io::Result<()> {
        if done.result < 0 {
            self.end();
        } else if self.rest > 0 {
            let len = self.rest.min(BLOCK_BYTES);
            self.rest -= len;
            let report = self.close || self.rest > 0;
            ring.send(self.socket.as_raw_fd(), &answer.block[..len as usize], report, done.key)?;
        } else if self.close {
            self.end();
        }
        Ok(())
    }

    /// Ends the connection; the receive in flight then reports it and frees the slot.
    fn end(&self) {
        // A peer that is already gone makes this fail, which is the state wanted.
        let _ = SockRef::from(&self.socket).shutdown(std::net::Shutdown::Both);
    }
}

/// Binds, waiting a little while the kernel still takes a predecessor's ring apart.
fn bind(listener: &Socket, address: &SockAddr) -> io::Result<()> {
    for _ in 0..50 {
        match listener.bind(address) {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
            result => return result,
        }
    }
    listener.bind(address)
}

impl Answer {
    fn prepare(body_bytes: u64) -> Self {
        let first = body_bytes.min(BLOCK_BYTES);
        let block = body::block();
        let build = |connection: &str| -> &'static [u8] {
            let mut bytes = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {body_bytes}\r\n\
                 {connection}\r\n"
            )
            .into_bytes();
            bytes.extend_from_slice(&block[..first as usize]);
            bytes.leak()
        };
        let rest = body_bytes - first;
        Self { stay: build(""), close: build("Connection: close\r\n"), block, rest }
    }
}
