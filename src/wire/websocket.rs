//! WebSocket frames (RFC 6455 §5) as somebody sees them who only passes them on: where they begin
//! and end, whose they are, and what a Close says.
//!
//! A [`Follower`] reads one direction of a connection, in whatever pieces it comes, and changes
//! nothing. Headers are read where they lie; a header that is cut is put together in the follower.
//! Extensions may use the reserved bits and opcodes (§5.8), so both pass. What breaks the framing
//! itself ends the following, because nobody knows any more where frames are.

/// Longest header: two bytes, eight of length, four of masking key.
const HEADER_BYTES_MAX: usize = 14;
/// Longest payload of a control frame (§5.5).
const CONTROL_BYTES_MAX: u64 = 125;
const CONTINUATION: u8 = 0x0;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
/// What the gateway's own pings carry, so that their pongs are not taken for those of others.
const PING_PAYLOAD: [u8; 7] = *b"ringway";

/// Whose frames are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// Its frames are masked.
    Client,
    /// Its frames are not.
    Server,
}

/// What was found in some bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Frames that ended.
    pub frames: u64,
    /// Messages (text and binary) that ended.
    pub messages: u64,
    /// Payload, as it is on the wire.
    pub payload_bytes: u64,
}

/// What a Close frame says (§5.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// It has no status code.
    Bare,
    Code(u16),
    /// Half of a status code.
    Malformed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A header is awaited or has begun.
    Header,
    Payload,
    /// A Close has passed: what follows is to be ignored (§5.5.1).
    Over,
    Broken,
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    bytes: usize,
    is_final: bool,
    opcode: u8,
    payload_bytes: u64,
    /// Zero when there is no mask.
    key: [u8; 4],
}

impl Header {
    /// Text, binary, or a continuation of them; the others belong to extensions.
    fn is_data(&self) -> bool {
        self.opcode <= 2
    }
}

/// Follows the frames of one sender.
#[derive(Clone, Debug)]
pub struct Follower {
    from: Sender,
    phase: Phase,
    /// The beginning of a header that was cut.
    cut: [u8; HEADER_BYTES_MAX],
    cut_bytes: usize,
    /// The frame whose payload passes, and how much of it is still to come.
    frame: Header,
    left: u64,
    /// A message has begun and not ended.
    in_message: bool,
    /// The beginning of a Close frame's payload.
    status: [u8; 2],
    close: Option<Close>,
}

impl Follower {
    pub fn new(from: Sender) -> Follower {
        let frame = Header {
            bytes: 0,
            is_final: true,
            opcode: CONTINUATION,
            payload_bytes: 0,
            key: [0; 4],
        };
        Follower {
            from,
            phase: Phase::Header,
            cut: [0; HEADER_BYTES_MAX],
            cut_bytes: 0,
            frame,
            left: 0,
            in_message: false,
            status: [0; 2],
            close: None,
        }
    }

    /// Follows what the sender sent next.
    pub fn follow(&mut self, mut bytes: &[u8]) -> Seen {
        let mut seen = Seen::default();
        while !bytes.is_empty() {
            let n = match self.phase {
                Phase::Header => self.header(bytes, &mut seen),
                Phase::Payload => self.payload(bytes, &mut seen),
                Phase::Over | Phase::Broken => break,
            };
            bytes = &bytes[n..];
        }
        seen
    }

    /// No frame is under way, and none has ended the connection: another one may stand here.
    pub fn is_between(&self) -> bool {
        self.phase == Phase::Header && self.cut_bytes == 0
    }

    /// The sender has broken the framing. Nothing is followed any more.
    pub fn is_broken(&self) -> bool {
        self.phase == Phase::Broken
    }

    /// What the sender's Close said, once it has passed.
    pub fn close(&self) -> Option<Close> {
        self.close
    }

    /// Answers how many of `bytes` were the header's.
    fn header(&mut self, bytes: &[u8], seen: &mut Seen) -> usize {
        let before = self.cut_bytes;
        let parsed = match before {
            0 => parse(bytes, self.from),
            _ => {
                let n = bytes.len().min(HEADER_BYTES_MAX - before);
                self.cut[before..before + n].copy_from_slice(&bytes[..n]);
                parse(&self.cut[..before + n], self.from)
            }
        };
        match parsed {
            Ok(Some(header)) => {
                self.cut_bytes = 0;
                self.begin(header, seen);
                header.bytes - before
            }
            Ok(None) => {
                // Shorter than any header, so it has room.
                if before == 0 {
                    self.cut[..bytes.len()].copy_from_slice(bytes);
                }
                self.cut_bytes = before + bytes.len();
                bytes.len()
            }
            Err(Broken) => {
                self.phase = Phase::Broken;
                bytes.len()
            }
        }
    }

    fn begin(&mut self, header: Header, seen: &mut Seen) {
        if header.is_data() {
            // A message begins with its kind and goes on with continuations (§5.4).
            if (header.opcode == CONTINUATION) != self.in_message {
                self.phase = Phase::Broken;
                return;
            }
            self.in_message = !header.is_final;
        }
        (self.frame, self.left) = (header, header.payload_bytes);
        self.phase = Phase::Payload;
        if self.left == 0 {
            self.end(seen);
        }
    }

    /// Answers how many of `bytes` were the payload's.
    fn payload(&mut self, bytes: &[u8], seen: &mut Seen) -> usize {
        let n = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if self.frame.opcode == CLOSE {
            let at = (self.frame.payload_bytes - self.left) as usize;
            for (to, byte) in self.status.iter_mut().skip(at).zip(bytes) {
                *to = *byte;
            }
        }
        self.left -= n as u64;
        seen.payload_bytes += n as u64;
        if self.left == 0 {
            self.end(seen);
        }
        n
    }

    fn end(&mut self, seen: &mut Seen) {
        seen.frames += 1;
        seen.messages += u64::from(self.frame.is_data() && self.frame.is_final);
        self.phase = Phase::Header;
        if self.frame.opcode == CLOSE {
            self.phase = Phase::Over;
            let [high, low] =
                [self.status[0] ^ self.frame.key[0], self.status[1] ^ self.frame.key[1]];
            self.close = Some(match self.frame.payload_bytes {
                0 => Close::Bare,
                1 => Close::Malformed,
                _ => Close::Code(u16::from_be_bytes([high, low])),
            });
        }
    }
}

/// What was sent is no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Broken;

/// Reads a header at the front of `bytes`; `None` when more of it must come. What can be seen to be
/// wrong is wrong as soon as it is there.
fn parse(bytes: &[u8], from: Sender) -> Result<Option<Header>, Broken> {
    let (Some(first), Some(second)) = (bytes.first(), bytes.get(1)) else { return Ok(None) };
    let (is_final, opcode) = (first & 0x80 != 0, first & 0x0f);
    let (is_masked, short) = (second & 0x80 != 0, u64::from(second & 0x7f));
    if is_masked != (from == Sender::Client) {
        return Err(Broken);
    }
    if opcode >= CLOSE && (!is_final || short > CONTROL_BYTES_MAX) {
        return Err(Broken);
    }
    let (length_bytes, least) = match short {
        126 => (2, 126),
        127 => (8, 1 << 16),
        _ => (0, 0),
    };
    let Some(length) = bytes.get(2..2 + length_bytes) else { return Ok(None) };
    let payload_bytes = match length_bytes {
        0 => short,
        _ => length.iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
    };
    // The shortest form is the only one, and the highest bit is no part of a length (§5.2).
    if payload_bytes < least || payload_bytes >> 63 != 0 {
        return Err(Broken);
    }
    let key_bytes = if is_masked { 4 } else { 0 };
    let end = 2 + length_bytes + key_bytes;
    let Some(found) = bytes.get(2 + length_bytes..end) else { return Ok(None) };
    let mut key = [0; 4];
    key[..key_bytes].copy_from_slice(found);
    Ok(Some(Header { bytes: end, is_final, opcode, payload_bytes, key }))
}

/// Appends a Ping to `out`. Towards a server it is masked with `key`.
pub fn ping(from: Sender, key: [u8; 4], out: &mut Vec<u8>) {
    let length = PING_PAYLOAD.len() as u8;
    match from {
        Sender::Server => {
            out.extend([0x80 | PING, length]);
            out.extend(PING_PAYLOAD);
        }
        Sender::Client => {
            out.extend([0x80 | PING, 0x80 | length]);
            out.extend(key);
            out.extend(PING_PAYLOAD.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    /// A frame as an endpoint writes it.
    fn frame(from: Sender, first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = if from == Sender::Client { 0x80 } else { 0 };
        let mut bytes = vec![first];
        match payload.len() {
            n @ 0..=125 => bytes.push(mask | n as u8),
            n @ 126..=0xffff => {
                bytes.push(mask | 126);
                bytes.extend((n as u16).to_be_bytes());
            }
            n => {
                bytes.push(mask | 127);
                bytes.extend((n as u64).to_be_bytes());
            }
        }
        match from {
            Sender::Client => {
                bytes.extend(KEY);
                bytes.extend(payload.iter().zip(KEY.iter().cycle()).map(|(b, k)| b ^ k));
            }
            Sender::Server => bytes.extend(payload),
        }
        bytes
    }

    /// What a follower has found, after pieces of this size.
    fn followed(from: Sender, bytes: &[u8], piece_bytes: usize) -> (Seen, Follower) {
        let mut follower = Follower::new(from);
        let mut all = Seen::default();
        for piece in bytes.chunks(piece_bytes.max(1)) {
            let seen = follower.follow(piece);
            all.frames += seen.frames;
            all.messages += seen.messages;
            all.payload_bytes += seen.payload_bytes;
        }
        (all, follower)
    }

    #[test]
    fn examples_of_the_rfc() {
        // RFC 6455 §5.7.
        let table = [
            (Sender::Server, b"\x81\x05Hello".to_vec(), (1, 1, 5)),
            (Sender::Client, b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58".to_vec(), (1, 1, 5)),
            (Sender::Server, b"\x01\x03Hel\x80\x02lo".to_vec(), (2, 1, 5)),
            (Sender::Server, b"\x89\x05Hello".to_vec(), (1, 0, 5)),
            (Sender::Client, b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58".to_vec(), (1, 0, 5)),
            (Sender::Server, frame(Sender::Server, 0x82, &[0; 256]), (1, 1, 256)),
            (Sender::Server, frame(Sender::Server, 0x82, &[0; 65536]), (1, 1, 65536)),
        ];
        for (from, bytes, (frames, messages, payload_bytes)) in table {
            for piece_bytes in [bytes.len(), 1, 3] {
                let (seen, follower) = followed(from, &bytes, piece_bytes);
                assert_eq!(seen, Seen { frames, messages, payload_bytes }, "{from:?}");
                assert!(follower.is_between() && !follower.is_broken());
            }
        }
    }

    #[test]
    fn what_breaks_the_framing_ends_the_following() {
        let whole = |first, payload: &[u8]| frame(Sender::Server, first, payload);
        let long_control = [&[0x89, 126, 0, 126][..], &[0; 126]].concat();
        let table: [(&str, Vec<u8>); 8] = [
            ("masked by a server", frame(Sender::Client, 0x81, b"x")),
            ("a Ping in pieces", whole(0x09, b"")),
            ("a long Ping", long_control),
            ("16 bits for a short length", vec![0x82, 126, 0, 125]),
            ("64 bits for a short length", vec![0x82, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff]),
            ("the highest bit of a length", vec![0x82, 127, 0x80, 0, 0, 0, 0, 1, 0, 0]),
            ("a continuation of nothing", whole(0x80, b"x")),
            ("a message inside a message", [whole(0x01, b"a"), whole(0x81, b"b")].concat()),
        ];
        for (what, bytes) in table {
            for piece_bytes in [bytes.len(), 1] {
                let (_, follower) = followed(Sender::Server, &bytes, piece_bytes);
                assert!(follower.is_broken() && !follower.is_between(), "{what}");
            }
        }
        let (seen, follower) = followed(Sender::Client, b"\x81\x05Hello", 7);
        assert!(follower.is_broken() && seen == Seen::default(), "not masked by a client");
    }

    #[test]
    fn extensions_may_use_what_is_reserved() {
        let bytes = [0xc1, 0xf2, 0x83, 0x8b].map(|first| frame(Sender::Client, first, b"abc"));
        let (seen, follower) = followed(Sender::Client, &bytes.concat(), 5);
        assert!(follower.is_between());
        assert_eq!(seen, Seen { frames: 4, messages: 2, payload_bytes: 12 });
    }

    #[test]
    fn a_close_is_the_last_thing_that_is_followed() {
        let table: [(&[u8], Close); 4] = [
            (b"", Close::Bare),
            (b"\x03", Close::Malformed),
            (b"\x03\xe8", Close::Code(1000)),
            (b"\x0f\xa1why", Close::Code(4001)),
        ];
        for from in [Sender::Client, Sender::Server] {
            for (payload, close) in table {
                let more = frame(from, 0x81, b"more");
                let bytes = [frame(from, 0x88, payload), more, vec![0xff; 20]].concat();
                for piece_bytes in [1, 2, 7, 100] {
                    let (seen, follower) = followed(from, &bytes, piece_bytes);
                    assert_eq!(follower.close(), Some(close));
                    assert!(!follower.is_between() && !follower.is_broken());
                    assert_eq!((seen.frames, seen.messages), (1, 0));
                }
            }
        }
    }

    #[test]
    fn its_own_pings_are_frames() {
        for (from, key) in [(Sender::Client, KEY), (Sender::Server, [0; 4])] {
            let mut bytes = Vec::new();
            ping(from, key, &mut bytes);
            assert_eq!(bytes, frame(from, 0x89, &PING_PAYLOAD));
            let (seen, follower) = followed(from, &bytes, 1);
            assert!(follower.is_between());
            assert_eq!(seen, Seen { frames: 1, messages: 0, payload_bytes: 7 });
        }
    }

    #[derive(Clone, Debug)]
    enum Part {
        Message(Vec<Vec<u8>>),
        Control(u8, Vec<u8>),
    }

    fn parts() -> impl Strategy<Value = Vec<Part>> {
        let sizes = prop_oneof![0usize..4, 120usize..130, Just(65535usize), Just(65536usize)];
        let piece = sizes.prop_map(|n| vec![7; n]);
        let part = prop_oneof![
            prop::collection::vec(piece, 1..4).prop_map(Part::Message),
            (9u8..=10, prop::collection::vec(any::<u8>(), 0..126))
                .prop_map(|(opcode, payload)| Part::Control(opcode, payload)),
        ];
        prop::collection::vec(part, 0..6)
    }

    proptest! {
        #[test]
        fn whatever_is_sent_is_counted_wherever_it_is_cut(
            parts in parts(),
            is_client in any::<bool>(),
            piece_bytes in prop_oneof![1usize..20, 1000usize..70000],
        ) {
            let from = if is_client { Sender::Client } else { Sender::Server };
            let (mut bytes, mut wanted) = (Vec::new(), Seen::default());
            for part in parts {
                match part {
                    Part::Message(pieces) => {
                        let last = pieces.len() - 1;
                        for (at, piece) in pieces.iter().enumerate() {
                            let first = (u8::from(at == 0) << 1) | (u8::from(at == last) << 7);
                            bytes.extend(frame(from, first, piece));
                            wanted.payload_bytes += piece.len() as u64;
                        }
                        wanted.frames += pieces.len() as u64;
                        wanted.messages += 1;
                    }
                    Part::Control(opcode, payload) => {
                        bytes.extend(frame(from, 0x80 | opcode, &payload));
                        wanted.frames += 1;
                        wanted.payload_bytes += payload.len() as u64;
                    }
                }
            }
            let (seen, follower) = followed(from, &bytes, piece_bytes);
            prop_assert_eq!(seen, wanted);
            prop_assert!(follower.is_between());
        }

        #[test]
        fn any_bytes_give_the_same_wherever_they_are_cut(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            is_client in any::<bool>(),
            piece_bytes in 1usize..30,
        ) {
            let from = if is_client { Sender::Client } else { Sender::Server };
            let (whole, one) = followed(from, &bytes, bytes.len());
            let (pieces, other) = followed(from, &bytes, piece_bytes);
            prop_assert_eq!(whole, pieces);
            prop_assert_eq!(
                (one.is_broken(), one.is_between(), one.close()),
                (other.is_broken(), other.is_between(), other.close())
            );
        }
    }
}
