//! WebSockets over HTTP/2 (RFC 8441): the stream of an extended CONNECT as one end of a tunnel.
//!
//! A tunnel joins two sockets. A stream is none, so it is bridged: a pair of local sockets, of
//! which the tunnel has one, and a task that carries bytes between the other and the stream's
//! frames. So bounds, counts and pings are those of every tunnel. What neither side takes is not
//! read: from the client by its window, to it by the socket's.

use std::{cell::Cell, io, os::unix::net::UnixStream as StdUnixStream, rc::Rc, task::Poll};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use h2::{Reason, RecvStream};
use monoio::net::UnixStream;

use super::{piece::Piece, sink::Half};
use crate::{
    telemetry::request_id::Random,
    worker::{
        Worker,
        buffers::Buffer,
        clock::NEVER_MS,
        net::{Stream, Wait},
    },
};

/// What ends a handshake's key (RFC 6455 §1.3).
const KEY_END: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Nothing is awaited for ever: the tunnel ends the bridge.
const PATIENCE: Wait = Wait { idle_ms: NEVER_MS, until_ms: NEVER_MS };

/// A key for the handshake with an upstream, which HTTP/2 does without (RFC 8441 §5).
pub fn key(random: &Random) -> String {
    let (high, low) = (random.next(), random.next());
    STANDARD.encode(((u128::from(high) << 64) | u128::from(low)).to_be_bytes())
}

/// Whether `accept` is the answer to `key` (RFC 6455 §4.1).
pub fn accepts(key: &str, accept: &[u8]) -> bool {
    let wanted = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key.as_bytes(), KEY_END].concat());
    STANDARD.encode(wanted).as_bytes() == accept
}

/// Begins to carry bytes between the stream and the answer.
pub fn begin(worker: &Rc<Worker>, half: Rc<Half>, stream: RecvStream) -> io::Result<Stream> {
    let (near, far) = StdUnixStream::pair()?;
    let open = |socket: StdUnixStream| {
        socket.set_nonblocking(worker.is_epoll)?;
        io::Result::Ok(Stream::unix(UnixStream::from_std(socket)?, &worker.deadlines))
    };
    let (near, far) = (open(near)?, open(far)?);
    let worker = worker.clone();
    monoio::spawn(async move {
        let bridge = Bridge { worker, far, half, is_up_done: Cell::new(false) };
        bridge.run(stream).await;
    });
    Ok(near)
}

struct Bridge {
    worker: Rc<Worker>,
    far: Stream,
    half: Rc<Half>,
    /// The client has ended its side.
    is_up_done: Cell<bool>,
}

impl Bridge {
    async fn run(&self, stream: RecvStream) {
        let mut up = std::pin::pin!(self.up(stream));
        let mut down = std::pin::pin!(self.down());
        let (mut up_done, mut down_done) = (false, false);
        std::future::poll_fn(|cx| {
            let is_over = self.half.is_tunnel_over(cx);
            up_done = up_done || up.as_mut().poll(cx).is_ready();
            self.is_up_done.set(up_done);
            down_done = down_done || down.as_mut().poll(cx).is_ready();
            if down_done && is_over && !up_done {
                // Nobody reads what the client may still send.
                self.half.reset(Reason::NO_ERROR);
                up_done = true;
            }
            if up_done && down_done { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// From the client. Its end of the stream is a FIN; when it gives the stream up, the socket
    /// ends both ways.
    async fn up(&self, mut stream: RecvStream) {
        loop {
            let data = std::future::poll_fn(|cx| stream.poll_data(cx)).await;
            match data {
                Some(Ok(data)) if self.pass(&data).await => {
                    // It only fails when the stream is over.
                    let _ = stream.flow_control().release_capacity(data.len());
                }
                None => return self.far.finish_writing(),
                // The other side hears of it by its own end.
                _ => return self.far.reset(),
            }
        }
    }

    async fn pass(&self, data: &Bytes) -> bool {
        let mut buf = self.worker.buffers.at_least(data.len());
        buf.append(data);
        let is_sent = self.far.write_all(&mut buf, PATIENCE).await.is_ok();
        self.worker.buffers.give(buf);
        is_sent
    }

    /// To the client. A FIN is the end of our side of the stream. What ends the tunnel before the
    /// client has ended its side gives the stream up, as a reset would a connection.
    async fn down(&self) {
        loop {
            let mut buf = self.worker.buffers.response();
            match self.far.read(&mut buf, PATIENCE).await {
                Ok(0) if self.half.tunnel_over.get() && !self.is_up_done.get() => {
                    return self.half.reset(Reason::CANCEL);
                }
                Ok(0) => return self.half.finish(),
                Ok(_) if self.send(buf).await => {}
                _ => return self.half.reset(Reason::CANCEL),
            }
        }
    }

    async fn send(&self, mut buf: Buffer) -> bool {
        while !buf.is_empty() {
            let room = std::future::poll_fn(|cx| self.half.poll_room(cx, buf.len())).await;
            let Ok(n) = room else { return false };
            let piece = match n == buf.len() {
                true => Piece::lent(std::mem::take(&mut buf), self.half.outbox()),
                false => {
                    let piece = Piece::copied(&buf.bytes()[..n], self.half.outbox());
                    buf.consume(n);
                    piece
                }
            };
            if self.half.hand_over(piece, false).is_err() {
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc() {
        // RFC 6455 §1.3.
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        assert!(accepts(key, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert!(!accepts(key, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOp="));
    }

    #[test]
    fn keys_are_sixteen_bytes_and_differ() {
        let random = Random::default();
        let (one, other) = (key(&random), key(&random));
        assert_eq!(STANDARD.decode(&one).map(|bytes| bytes.len()), Ok(16));
        assert_ne!(one, other);
    }
}
