//! What the kernel's TLS adds to a socket's calls: keys by setsockopt(2), records that are no data
//! by recvmsg(2) and sendmsg(2) with a control message that says what they are.

#![expect(unsafe_code, reason = "socket options and control messages that rustix does not have")]

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use super::keys::CryptoInfo;

/// Which way records go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Send,
    Receive,
}

/// Room for one control message of one byte, aligned as its header has to be.
#[repr(C, align(8))]
struct Control([u8; 64]);

/// The socket may get keys from now on; until it has, it is as it was. Not found: the kernel has no
/// TLS, or its module is not loaded and this process may not have it loaded.
pub fn begin(socket: impl AsFd) -> io::Result<()> {
    set(socket, libc::IPPROTO_TCP, libc::TCP_ULP, b"tls")
}

/// Records of this direction are sealed or opened by the kernel from now on, or with other keys.
pub fn set_keys(socket: impl AsFd, direction: Direction, info: &CryptoInfo) -> io::Result<()> {
    let option = match direction {
        Direction::Send => libc::TLS_TX,
        Direction::Receive => libc::TLS_RX,
    };
    set(socket, libc::SOL_TLS, option, info.bytes())
}

fn set(socket: impl AsFd, level: i32, option: i32, value: &[u8]) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel reads as many bytes as `value` has, which outlives the call.
    let result = unsafe {
        libc::setsockopt(fd, level, option, value.as_ptr().cast(), value.len() as libc::socklen_t)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes the next record, whatever it is, without waiting. Answers its type, and how many of its
/// bytes are in `bytes`; when those are all that fit, there may be more.
pub fn receive(socket: impl AsFd, bytes: &mut [u8]) -> io::Result<(u8, usize)> {
    let (mut control, mut part) = (Control([0; 64]), part(bytes.as_mut_ptr(), bytes.len()));
    let mut message = message(&mut part, &mut control, 64);
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: `message` points to one buffer and one control buffer, which outlive the call.
    let n = unsafe { libc::recvmsg(fd, &raw mut message, libc::MSG_DONTWAIT) };
    if n < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has filled `message`; its control messages lie in `control`.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message).as_ref() };
    let is_type = header.filter(|header| {
        header.cmsg_level == libc::SOL_TLS && header.cmsg_type == libc::TLS_GET_RECORD_TYPE
    });
    // SAFETY: this message has one byte.
    let kind = is_type.map(|header| unsafe { *libc::CMSG_DATA(header) });
    match kind {
        Some(kind) => Ok((kind, n as usize)),
        // The end of the stream.
        None if n == 0 => Err(io::ErrorKind::UnexpectedEof.into()),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Sends a record of this type without waiting. What was sent before goes out before it.
pub fn send(socket: impl AsFd, kind: u8, bytes: &[u8]) -> io::Result<()> {
    let mut control = Control([0; 64]);
    let mut part = part(bytes.as_ptr().cast_mut(), bytes.len());
    // SAFETY: computes a number.
    let space = unsafe { libc::CMSG_SPACE(1) } as usize;
    let message = message(&mut part, &mut control, space);
    // SAFETY: the control buffer has room for one header and more than one byte.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_TLS;
        (*header).cmsg_type = libc::TLS_SET_RECORD_TYPE;
        (*header).cmsg_len = libc::CMSG_LEN(1) as _;
        *libc::CMSG_DATA(header) = kind;
    }
    let fd = socket.as_fd().as_raw_fd();
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: as in `receive`; the kernel only reads.
    let n = unsafe { libc::sendmsg(fd, &raw const message, flags) };
    match usize::try_from(n) {
        Ok(n) if n == bytes.len() => Ok(()),
        Ok(_) => Err(io::ErrorKind::WriteZero.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

fn part(bytes: *mut u8, len: usize) -> libc::iovec {
    libc::iovec { iov_base: bytes.cast(), iov_len: len }
}

fn message(part: &mut libc::iovec, control: &mut Control, len: usize) -> libc::msghdr {
    // SAFETY: of plain numbers and pointers, all of which may be 0.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = len as _;
    message
}
