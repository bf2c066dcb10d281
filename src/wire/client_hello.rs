//! The first message of a TLS connection (ClientHello, RFC 8446 §4.1.2), read by somebody who does
//! not answer it: for which name the client asks (SNI, RFC 6066 §3).
//!
//! Strict, because the server that gets the connection reads the same bytes: lengths that do not
//! add up, a name that is there twice, or one that is no host name are refused. Versions, cipher
//! suites and other extensions are the server's business.

use super::Parsed;

/// Longest ClientHello that is read, with the records around it.
pub const HELLO_BYTES_MAX: usize = 16 * 1024;
/// Largest plaintext of a record (RFC 8446 §5.1).
const RECORD_BYTES_MAX: usize = 1 << 14;
const RECORD_HEADER_BYTES: usize = 5;
const MESSAGE_HEADER_BYTES: usize = 4;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
const NAME_BYTES_MAX: usize = 253;

/// Why there is no ClientHello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoHello {
    /// The connection begins with something else.
    NotTls,
    /// It begins as TLS does, and breaks its rules.
    Malformed,
    TooLong,
}

/// Reads a ClientHello at the front of what has arrived. When it is complete, `name` holds the name
/// that is asked for, in lower case; it is empty when none is.
pub fn parse(bytes: &[u8], name: &mut Vec<u8>) -> Result<Parsed<()>, NoHello> {
    name.clear();
    let Parsed::Complete(length) = message_length(bytes)? else { return Ok(Parsed::Partial) };
    let mut message = Vec::with_capacity(length);
    let mut records = Records(bytes);
    // What follows is not looked at: early data, or whatever the server makes of it.
    while message.len() < length
        && let Some(payload) = records.next()
    {
        message.extend_from_slice(payload?);
    }
    let body = message.get(MESSAGE_HEADER_BYTES..length).ok_or(NoHello::Malformed)?;
    if let Some(found) = server_name(body).ok_or(NoHello::Malformed)? {
        name.extend(found.iter().map(u8::to_ascii_lowercase));
    }
    Ok(Parsed::Complete(()))
}

/// The length of the first message with its header, once all of it is there.
fn message_length(bytes: &[u8]) -> Result<Parsed<usize>, NoHello> {
    if bytes.first().is_some_and(|first| *first != HANDSHAKE) {
        return Err(NoHello::NotTls);
    }
    let mut header = [0; MESSAGE_HEADER_BYTES];
    let mut there = 0;
    for payload in Records(bytes) {
        let payload = payload?;
        for (to, byte) in header.iter_mut().skip(there).zip(payload) {
            *to = *byte;
        }
        there += payload.len();
        if there > 0 && header[0] != CLIENT_HELLO {
            return Err(NoHello::Malformed);
        }
        if there < MESSAGE_HEADER_BYTES {
            continue;
        }
        let [_, a, b, c] = header;
        let length = MESSAGE_HEADER_BYTES + u32::from_be_bytes([0, a, b, c]) as usize;
        if length > HELLO_BYTES_MAX - RECORD_HEADER_BYTES {
            return Err(NoHello::TooLong);
        }
        if there >= length {
            return Ok(Parsed::Complete(length));
        }
    }
    match bytes.len() >= HELLO_BYTES_MAX {
        true => Err(NoHello::TooLong),
        false => Ok(Parsed::Partial),
    }
}

/// The payloads of handshake records, also of one that is cut; ends where none begins.
struct Records<'a>(&'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = Result<&'a [u8], NoHello>;

    fn next(&mut self) -> Option<Self::Item> {
        let header = self.0.first_chunk::<RECORD_HEADER_BYTES>()?;
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        // The minor version is whatever old servers accept.
        if header[0] != HANDSHAKE || header[1] != 3 || length == 0 || length > RECORD_BYTES_MAX {
            self.0 = &[];
            return Some(Err(NoHello::Malformed));
        }
        let rest = &self.0[RECORD_HEADER_BYTES..];
        let (payload, rest) = rest.split_at(length.min(rest.len()));
        self.0 = rest;
        Some(Ok(payload))
    }
}

/// What is left of a structure.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, bytes: usize) -> Option<usize> {
        Some(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    /// A vector whose length is written in so many bytes (RFC 8446 §3.4).
    fn vector(&mut self, length_bytes: usize) -> Option<Reader<'a>> {
        let length = self.number(length_bytes)?;
        self.take(length).map(Reader)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The name in a ClientHello. The outer `None`: malformed.
fn server_name(body: &[u8]) -> Option<Option<&[u8]>> {
    let mut body = Reader(body);
    let (_version, _random) = (body.take(2)?, body.take(32)?);
    let (_session, _suites, _compression) = (body.vector(1)?, body.vector(2)?, body.vector(1)?);
    if body.is_empty() {
        // Before extensions there were none.
        return Some(None);
    }
    let mut extensions = body.vector(2)?;
    if !body.is_empty() {
        return None;
    }
    let mut found = None;
    while !extensions.is_empty() {
        let (kind, mut content) = (extensions.number(2)?, extensions.vector(2)?);
        if kind != usize::from(SERVER_NAME) {
            continue;
        }
        let mut names = content.vector(2)?;
        let (kind, name) = (names.number(1)?, names.vector(2)?.0);
        let is_alone = names.is_empty() && content.is_empty() && found.is_none();
        if !is_alone || kind != usize::from(HOST_NAME) || !is_host_name(name) {
            return None;
        }
        found = Some(name);
    }
    Some(found)
}

fn is_host_name(name: &[u8]) -> bool {
    let is_label = |label: &[u8]| {
        let is_fine = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        !label.is_empty() && label.len() <= 63 && label.iter().all(is_fine)
    };
    name.len() <= NAME_BYTES_MAX && name.split(|b| *b == b'.').all(is_label)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rustls::{ClientConfig, ClientConnection, RootCertStore, pki_types::ServerName};

    use super::*;

    fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &(content.len() as u16).to_be_bytes(), content].concat()
    }

    fn names(names: &[(u8, &str)]) -> Vec<u8> {
        let one = |(kind, name): &(u8, &str)| {
            [&[*kind][..], &(name.len() as u16).to_be_bytes(), name.as_bytes()].concat()
        };
        let list: Vec<u8> = names.iter().flat_map(one).collect();
        extension(SERVER_NAME, &[&(list.len() as u16).to_be_bytes()[..], &list].concat())
    }

    /// A ClientHello message with these extensions; without any when `None`.
    fn message(extensions: Option<&[u8]>) -> Vec<u8> {
        let mut body = [&[3, 3][..], &[7; 32], &[2, 9, 9], &[0, 2, 0x13, 1], &[1, 0]].concat();
        if let Some(extensions) = extensions {
            body.extend((extensions.len() as u16).to_be_bytes());
            body.extend(extensions);
        }
        [&[CLIENT_HELLO][..], &(body.len() as u32).to_be_bytes()[1..], &body].concat()
    }

    /// In records of so many bytes.
    fn records(message: &[u8], bytes: usize) -> Vec<u8> {
        let one = |payload: &[u8]| {
            [&[HANDSHAKE, 3, 1][..], &(payload.len() as u16).to_be_bytes(), payload].concat()
        };
        message.chunks(bytes).flat_map(one).collect()
    }

    /// The name, and `None` when there is no hello yet.
    fn name_of(bytes: &[u8]) -> Result<Option<String>, NoHello> {
        let mut name = b"before".to_vec();
        Ok(match parse(bytes, &mut name)? {
            Parsed::Complete(()) => Some(String::from_utf8(name).expect("ASCII")),
            Parsed::Partial => None,
        })
    }

    fn of_rustls(name: &'static str) -> Vec<u8> {
        let config = ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::aws_lc_rs::default_provider(),
        ));
        let config = config
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let name = ServerName::try_from(name).expect("a name");
        let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).expect("writing to memory");
        bytes
    }

    #[test]
    fn what_a_client_asks_for_is_found_in_whatever_pieces_it_comes() {
        let other = extension(16, b"\0\x03\x02h2");
        let with = |name: &str| [&other[..], &names(&[(0, name)])].concat();
        let table = [
            (of_rustls("app.example.com"), "app.example.com"),
            (of_rustls("192.0.2.1"), ""),
            (records(&message(None), 9999), ""),
            (records(&message(Some(&other)), 9999), ""),
            (records(&message(Some(&with("A.Example"))), 9999), "a.example"),
            (records(&message(Some(&with("a_b.example"))), 1), "a_b.example"),
            (records(&message(Some(&with("x"))), 7), "x"),
        ];
        for (bytes, name) in table {
            for cut in 0..bytes.len() {
                assert_eq!(name_of(&bytes[..cut]), Ok(None), "{name} at {cut}");
            }
            assert_eq!(name_of(&bytes), Ok(Some(name.to_owned())));
            let more = [&bytes[..], b"\x14\x03\x03\0\x01\x01"].concat();
            assert_eq!(name_of(&more), Ok(Some(name.to_owned())), "early data");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        let long = "x".repeat(64);
        let labels = "x.".repeat(127) + "x";
        let two = [names(&[(0, "a.example")]), names(&[(0, "b.example")])].concat();
        let cases: [(&str, Vec<u8>); 13] = [
            ("two extensions", two),
            ("two names", names(&[(0, "a.example"), (0, "b.example")])),
            ("another kind of name", names(&[(1, "a.example")])),
            ("no name", extension(SERVER_NAME, &[0, 0])),
            ("an empty name", names(&[(0, "")])),
            ("a NUL", names(&[(0, "a\0.example")])),
            ("a space", names(&[(0, "a .example")])),
            ("an empty label", names(&[(0, "a..example")])),
            ("a dot at the end", names(&[(0, "a.example.")])),
            ("a long label", names(&[(0, &long)])),
            ("a long name", names(&[(0, &labels)])),
            ("more behind the list", extension(SERVER_NAME, b"\0\x04\0\0\x01a!")),
            ("a list that ends too soon", extension(SERVER_NAME, b"\0\x09\0\0\x01a")),
        ];
        for (what, extensions) in cases {
            let bytes = records(&message(Some(&extensions)), 9999);
            assert_eq!(name_of(&bytes), Err(NoHello::Malformed), "{what}");
        }
        let mut more = message(Some(&names(&[(0, "a")])));
        more.push(0);
        more[3] += 1;
        assert_eq!(name_of(&records(&more, 9999)), Err(NoHello::Malformed));
    }

    #[test]
    fn other_beginnings_are_told_at_once() {
        let good = message(None);
        let table: [(Vec<u8>, NoHello); 8] = [
            (b"G".to_vec(), NoHello::NotTls),
            (b"\x80\x2e\x01\x03".to_vec(), NoHello::NotTls),
            (b"\x15\x03\x01\0\x02\x02\x28".to_vec(), NoHello::NotTls),
            (b"\x16\x02\x01\0\x05".to_vec(), NoHello::Malformed),
            (b"\x16\x03\x01\0\0".to_vec(), NoHello::Malformed),
            (b"\x16\x03\x01\x40\x01".to_vec(), NoHello::Malformed),
            (b"\x16\x03\x01\0\x05\x02".to_vec(), NoHello::Malformed),
            (b"\x16\x03\x01\0\x05\x01\0\x40\0".to_vec(), NoHello::TooLong),
        ];
        for (bytes, no) in table {
            assert_eq!(name_of(&bytes), Err(no), "{bytes:?}");
        }
        // Something else between its records.
        let between = [&records(&good, 9)[..14], b"\x15\x03\x01\0\x02\x02\x28"].concat();
        assert_eq!(name_of(&between), Err(NoHello::Malformed));
        // Records of one byte, for ever.
        let endless = message(Some(&extension(9, &[0; 9000])));
        assert_eq!(name_of(&records(&endless, 1)[..HELLO_BYTES_MAX]), Err(NoHello::TooLong));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic_and_a_part_is_undecided_or_as_the_whole(
            at in 0usize..400,
            to in any::<u8>(),
            record_bytes in 1usize..100,
            cut in 0usize..400,
        ) {
            let good = message(Some(&[names(&[(0, "app.example.com")]), extension(9, &[1; 80])].concat()));
            let mut bytes = records(&good, record_bytes);
            let at = at % bytes.len();
            bytes[at] = to;
            let whole = name_of(&bytes);
            let part = name_of(&bytes[..cut.min(bytes.len())]);
            prop_assert!(part == Ok(None) || part == whole, "{:?} {:?}", part, whole);
        }
    }
}
