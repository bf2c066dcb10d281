//! What an old and a new process say to each other during an upgrade, over a pair of sockets: one
//! packet is one message, written as JSON, with at most one descriptor.
//!
//! ```text
//! old: socket, socket, ... end            every listening socket with what it is
//! new: ready, or failed                   its workers run; it accepts nothing yet
//! old: go                                 from here on it does not give up because of the time
//! new: serving                            it accepts; the old process drains
//! ```
//!
//! A side that closes, or says something else, has failed. Until `serving`, the old process serves
//! as if nothing were. Both sides may be of different versions: unknown kinds of sockets are
//! closed, unknown members ignored.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
    },
};
use serde::{Deserialize, Serialize};

/// Bytes of one message: a socket's name and address, or the names of all listeners.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// One message.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum Said {
    /// Its descriptor comes with it.
    Socket(About),
    /// There are no more sockets.
    End,
    /// The names, as sent, of the listeners whose sockets are used, and the kinds of sockets of the
    /// admin interface that are.
    Ready {
        taken: Vec<String>,
        #[serde(default)]
        taken_admin: Vec<String>,
    },
    Failed {
        why: String,
    },
    Go,
    Serving,
}

/// What a socket is that is handed over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// `listener`, `admin` or `status`; a receiver closes what it does not know.
    pub kind: String,
    pub name: String,
    /// As bound: `127.0.0.1:8080` or `unix:/run/ringway.sock`.
    pub bind: String,
    /// The worker that accepts on it; none when all do.
    #[serde(default)]
    pub worker: Option<usize>,
    /// The service manager holds it too.
    #[serde(default)]
    pub lasting: bool,
}

/// The kind of a socket where clients connect.
pub const LISTENER: &str = "listener";

/// The kinds of the admin interface's two sockets.
pub const ADMIN: &str = "admin";
pub const STATUS: &str = "status";

/// One end of the pair. Nothing here blocks.
#[derive(Debug)]
pub struct Link(OwnedFd);

impl Link {
    /// Both ends, closed when another program is started.
    pub fn pair() -> io::Result<(Link, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC;
        let (own, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Link(own), other))
    }

    /// The end that this process was started with.
    pub fn from(socket: OwnedFd) -> io::Result<Link> {
        match rustix::net::sockopt::socket_type(&socket)? {
            SocketType::SEQPACKET => Ok(Link(socket)),
            _ => Err(Errno::NOTSOCK.into()),
        }
    }

    /// Sends a message; [`io::ErrorKind::WouldBlock`] when there is no room for it now.
    pub fn send(&self, said: &Said, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let text = serde_json::to_vec(said)?;
        if text.len() > MESSAGE_BYTES_MAX {
            return Err(io::Error::other("the message is too long"));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors: Vec<BorrowedFd<'_>> = descriptor.into_iter().collect();
        if !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&descriptors));
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        sendmsg(&self.0, &[IoSlice::new(&text)], &mut control, flags)?;
        Ok(())
    }

    /// The next message and its descriptor; `None` when the other side has closed,
    /// [`io::ErrorKind::WouldBlock`] when nothing has come yet.
    pub fn receive(&self) -> io::Result<Option<(Said, Option<OwnedFd>)>> {
        let mut text = vec![0; MESSAGE_BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let got = recvmsg(&self.0, &mut [IoSliceMut::new(&mut text)], &mut control, flags);
        let length = match got {
            Ok(message) => message.bytes,
            // It ended without having read what we said.
            Err(Errno::CONNRESET) => 0,
            Err(e) => return Err(e.into()),
        };
        let descriptor = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        if length == 0 {
            return Ok(None);
        }
        Ok(Some((serde_json::from_slice(&text[..length])?, descriptor)))
    }

    /// Waits until there may be something to read, or room to write, or until `at_most` is over.
    pub fn wait(&self, to_write: bool, at_most: Duration) -> io::Result<()> {
        let events = if to_write { PollFlags::OUT } else { PollFlags::IN };
        let timeout = Timespec::try_from(at_most).ok();
        match poll(&mut [PollFd::new(&self.0, events)], timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_descriptors_arrive_one_by_one() {
        let (old, new) = Link::pair().expect("a pair");
        let new = Link::from(new).expect("the other end");
        let blocked = new.receive().expect_err("nothing was said");
        assert_eq!(blocked.kind(), io::ErrorKind::WouldBlock);
        let about = About {
            kind: LISTENER.to_owned(),
            name: "main".to_owned(),
            bind: "127.0.0.1:1".to_owned(),
            worker: Some(1),
            lasting: false,
        };
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        old.send(&Said::Socket(about.clone()), Some(socket.as_fd())).expect("room");
        old.send(&Said::End, None).expect("room");
        let (said, received) = new.receive().expect("a message").expect("open");
        assert_eq!(said, Said::Socket(about));
        let received = std::net::TcpListener::from(received.expect("a descriptor"));
        assert_eq!(received.local_addr().ok(), socket.local_addr().ok());
        assert!(matches!(new.receive(), Ok(Some((Said::End, None)))));
        drop(old);
        assert!(matches!(new.receive(), Ok(None)));
        assert!(new.send(&Said::Serving, None).is_err());
    }

    #[test]
    fn later_versions_may_say_more() {
        let text = r#"{"say":"socket","kind":"quic","name":"a","bind":"x","new":1}"#;
        let said: Said = serde_json::from_str(text).expect("it is understood");
        let Said::Socket(about) = said else { panic!("{said:?}") };
        assert_eq!((about.kind.as_str(), about.worker, about.lasting), ("quic", None, false));
    }

    #[test]
    fn only_a_pair_is_a_link() {
        let stdin = std::fs::File::open("/dev/null").expect("/dev/null");
        assert!(Link::from(stdin.into()).is_err());
    }
}
