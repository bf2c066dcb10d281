//! Just enough HTTP/1.1 to count messages: where a head ends, its status, how its body ends.
//!
//! Both peers are under our control, so this is a counter, not a validator; what it does not
//! understand it reports as malformed rather than guessing.

/// Heads longer than this are malformed.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// After this many bytes.
    Length(u64),
    /// After the last chunk.
    Chunked,
    /// With the connection.
    Close,
}

/// A message head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes up to and including the empty line.
    pub len: usize,
    /// Status of a response; 0 for a request.
    pub status: u16,
    /// What follows.
    pub body: Framing,
    /// Whether the sender asked for the connection to end after this message.
    pub close: bool,
}

/// The bytes are no head this module understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Reads a response head from the start of `bytes`; `None` when it is not complete yet.
pub fn response(bytes: &[u8]) -> Result<Option<Head>, Malformed> {
    let Some((mut head, framed)) = fields(bytes)? else { return Ok(None) };
    if !framed {
        head.body = Framing::Close;
    }
    let status = match bytes {
        [
            b'H',
            b'T',
            b'T',
            b'P',
            b'/',
            b'1',
            b'.',
            b'0' | b'1',
            b' ',
            a,
            b,
            c,
            b' ' | b'\r',
            ..,
        ] => [a, b, c].iter().try_fold(0, |n: u16, d| {
            d.is_ascii_digit().then(|| n * 10 + u16::from(*d - b'0')).ok_or(Malformed)
        })?,
        _ => return Err(Malformed),
    };
    head.status = status;
    if status < 200 || status == 204 || status == 304 {
        head.body = Framing::Length(0);
    }
    Ok(Some(head))
}

/// Reads a request head from the start of `bytes`; `None` when it is not complete yet.
pub fn request(bytes: &[u8]) -> Result<Option<Head>, Malformed> {
    Ok(fields(bytes)?.map(|(head, _)| head))
}

/// Finds the end of the head, what says how the body ends (and whether anything does), and
/// `Connection: close`.
fn fields(bytes: &[u8]) -> Result<Option<(Head, bool)>, Malformed> {
    let mut head = Head { len: 0, status: 0, body: Framing::Length(0), close: false };
    let mut framed = false;
    let mut start = 0;
    for end in memchr::memchr_iter(b'\n', bytes) {
        let line = bytes[start..end].strip_suffix(b"\r").ok_or(Malformed)?;
        start = end + 1;
        match line.first() {
            None => {
                head.len = start;
                return Ok(Some((head, framed)));
            }
            Some(b'c' | b'C') => {
                if let Some(value) = value(line, b"Content-Length:") {
                    // A peer that sends both is wrong, and chunked would win.
                    if framed {
                        return Err(Malformed);
                    }
                    head.body = Framing::Length(decimal(value)?);
                    framed = true;
                } else if let Some(value) = value(line, b"Connection:") {
                    head.close = value.eq_ignore_ascii_case(b"close");
                }
            }
            Some(b't' | b'T') => {
                if let Some(value) = value(line, b"Transfer-Encoding:") {
                    if framed || !value.eq_ignore_ascii_case(b"chunked") {
                        return Err(Malformed);
                    }
                    (head.body, framed) = (Framing::Chunked, true);
                }
            }
            Some(_) => {}
        }
    }
    if bytes.len() > HEAD_BYTES_MAX { Err(Malformed) } else { Ok(None) }
}

/// The value of a line whose name and colon are `name`, given as it is usually written.
fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = line.split_at_checked(name.len())?;
    // Most lines that begin alike end their name elsewhere; most others are written as usual.
    if start.last() != Some(&b':') || (start != name && !start.eq_ignore_ascii_case(name)) {
        return None;
    }
    Some(rest.trim_ascii())
}

fn decimal(digits: &[u8]) -> Result<u64, Malformed> {
    if digits.is_empty() {
        return Err(Malformed);
    }
    digits.iter().try_fold(0u64, |n, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0')).ok_or(Malformed)?;
        n.checked_mul(10).and_then(|n| n.checked_add(digit)).ok_or(Malformed)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_response() {
        let bytes =
            b"HTTP/1.1 200 OK\r\ncontent-LENGTH: 12\r\nX: y\r\nConnection: close\r\n\r\nbody";
        let head =
            Head { len: bytes.len() - 4, status: 200, body: Framing::Length(12), close: true };
        assert_eq!(response(bytes), Ok(Some(head)));
        for cut in 0..head.len {
            assert_eq!(response(&bytes[..cut]), Ok(None), "cut at {cut}");
        }
    }

    #[test]
    fn bodiless_statuses_have_no_body() {
        for status in ["100 Continue", "204 No Content", "304 Not Modified"] {
            let text = format!("HTTP/1.1 {status}\r\nContent-Length: 5\r\n\r\n");
            assert_eq!(
                response(text.as_bytes()).map(|h| h.map(|h| h.body)),
                Ok(Some(Framing::Length(0)))
            );
        }
    }

    #[test]
    fn reads_how_a_body_ends() {
        for (field, framing) in [
            ("Transfer-Encoding: chunked", Framing::Chunked),
            ("X: y", Framing::Close),
            ("Content-Length: 0", Framing::Length(0)),
        ] {
            let text = format!("HTTP/1.1 200 OK\r\n{field}\r\n\r\n");
            assert_eq!(response(text.as_bytes()).map(|h| h.map(|h| h.body)), Ok(Some(framing)));
        }
    }

    #[test]
    fn refuses_what_it_cannot_count() {
        for text in [
            "HTTP/2 200 OK\r\n\r\n",
            "HTTP/1.1 2x0 OK\r\n\r\n",
            "HTTP/1.1 200 OK\n\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
        ] {
            assert_eq!(response(text.as_bytes()), Err(Malformed), "{text:?}");
        }
    }

    #[test]
    fn reads_a_request() {
        let head = request(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
        assert_eq!(
            head,
            Ok(Some(Head { len: 47, status: 0, body: Framing::Length(3), close: false }))
        );
    }
}
