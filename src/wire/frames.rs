//! Frame headers of HTTP/2 (RFC 9113 §4.1) in a stream of bytes, wherever it is cut.
//!
//! Follows frames, it does not judge them: a length that no peer may send is still followed.

/// Bytes of a frame's header.
pub const FRAME_HEAD_BYTES: usize = 9;
/// What a client sends first (RFC 9113 §3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The header of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// Bytes that follow the header.
    pub len: u32,
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
}

/// Frame types (RFC 9113 §6).
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Where in a stream of frames the next byte belongs.
#[derive(Debug, Default)]
pub struct Frames {
    /// Bytes until the next header begins.
    skip: usize,
    head: [u8; FRAME_HEAD_BYTES],
    /// Bytes of a header that have come.
    have: usize,
}

impl Frames {
    /// Of a stream that begins with `skip` bytes of something else.
    pub fn after(skip: usize) -> Frames {
        Frames { skip, ..Frames::default() }
    }

    /// Takes bytes from the front of `bytes` until a frame header is complete, or all of them.
    /// `payload` sees those that belong to the frame before.
    pub fn next(&mut self, bytes: &mut &[u8], payload: impl FnOnce(&[u8])) -> Option<FrameHead> {
        let skipped = self.skip.min(bytes.len());
        payload(&bytes[..skipped]);
        *bytes = &bytes[skipped..];
        self.skip -= skipped;
        if self.skip > 0 {
            return None;
        }
        let n = bytes.len().min(FRAME_HEAD_BYTES - self.have);
        self.head[self.have..self.have + n].copy_from_slice(&bytes[..n]);
        *bytes = &bytes[n..];
        self.have += n;
        if self.have < FRAME_HEAD_BYTES {
            return None;
        }
        self.have = 0;
        let [a, b, c, kind, flags, stream @ ..] = self.head;
        let len = u32::from_be_bytes([0, a, b, c]);
        self.skip = len as usize;
        Some(FrameHead { len, kind, flags, stream: u32::from_be_bytes(stream) & (u32::MAX >> 1) })
    }
}

/// The initial window that a peer's SETTINGS say (RFC 9113 §6.5.2), wherever they are cut.
#[derive(Debug)]
pub struct InitialWindow {
    bytes: u32,
    /// The frame whose payload comes is SETTINGS.
    is_in: bool,
    pair: [u8; SETTING_BYTES],
    have: usize,
}

const SETTING_BYTES: usize = 6;
const INITIAL_WINDOW: u16 = 4;
/// Before SETTINGS say otherwise.
const FIRST_WINDOW_BYTES: u32 = 65_535;
const ACK: u8 = 1;

impl Default for InitialWindow {
    fn default() -> InitialWindow {
        InitialWindow { bytes: FIRST_WINDOW_BYTES, is_in: false, pair: [0; 6], have: 0 }
    }
}

impl InitialWindow {
    pub fn bytes(&self) -> u32 {
        self.bytes
    }

    /// A frame begins.
    pub fn begin(&mut self, frame: FrameHead) {
        self.is_in = frame.kind == kind::SETTINGS && frame.flags & ACK == 0;
        self.have = 0;
    }

    /// More of its payload.
    pub fn payload(&mut self, payload: &[u8]) {
        if !self.is_in {
            return;
        }
        for byte in payload {
            self.pair[self.have] = *byte;
            self.have = (self.have + 1) % SETTING_BYTES;
            if self.have == 0 {
                let [a, b, value @ ..] = self.pair;
                if u16::from_be_bytes([a, b]) == INITIAL_WINDOW {
                    self.bytes = u32::from_be_bytes(value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(head: FrameHead) -> Vec<u8> {
        let mut bytes = head.len.to_be_bytes()[1..].to_vec();
        bytes.extend([head.kind, head.flags]);
        bytes.extend(head.stream.to_be_bytes());
        bytes.resize(FRAME_HEAD_BYTES + head.len as usize, 0xff);
        bytes
    }

    fn follow(frames: &mut Frames, mut bytes: &[u8], into: &mut Vec<FrameHead>) {
        while let Some(head) = frames.next(&mut bytes, |_| ()) {
            into.push(head);
        }
        assert!(bytes.is_empty());
    }

    fn window_of(pieces: &[&[u8]]) -> u32 {
        let (mut frames, mut window) = (Frames::default(), InitialWindow::default());
        for mut piece in pieces.iter().copied() {
            while let Some(head) = frames.next(&mut piece, |payload| window.payload(payload)) {
                window.begin(head);
            }
        }
        window.bytes()
    }

    #[test]
    fn the_initial_window_is_the_last_one_told() {
        let pair = |id: u16, value: u32| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
        let settings = |flags, pairs: &[Vec<u8>]| {
            let payload = pairs.concat();
            let len = payload.len() as u32;
            let head = FrameHead { len, kind: kind::SETTINGS, flags, stream: 0 };
            [&frame(head)[..FRAME_HEAD_BYTES], &payload].concat()
        };
        let ping = frame(FrameHead { len: 8, kind: kind::PING, flags: 0, stream: 0 });
        let bytes = [settings(0, &[pair(3, 9), pair(4, 7)]), ping, settings(0, &[pair(5, 1)])];
        let bytes = bytes.concat();
        for cut in 0..=bytes.len() {
            assert_eq!(window_of(&[&bytes[..cut], &bytes[cut..]]), 7, "cut at {cut}");
        }
        assert_eq!(window_of(&[&settings(0, &[])]), 65_535);
        assert_eq!(window_of(&[&settings(1, &[pair(4, 7)])]), 65_535, "an acknowledgement");
        assert_eq!(window_of(&[&settings(0, &[pair(4, 7), pair(4, 70_000)])]), 70_000);
    }

    proptest! {
        #[test]
        fn the_same_wherever_it_is_cut(
            heads in prop::collection::vec((0u32..40, any::<u8>(), any::<u8>(), 0u32..1 << 31), 0..9),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..9),
            skip in 0usize..30,
        ) {
            let heads: Vec<_> = heads
                .into_iter()
                .map(|(len, kind, flags, stream)| FrameHead { len, kind, flags, stream })
                .collect();
            let mut bytes = vec![0; skip];
            heads.iter().for_each(|head| bytes.extend(frame(*head)));
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            at.extend([0, bytes.len()]);
            at.sort_unstable();
            let (mut frames, mut seen) = (Frames::after(skip), Vec::new());
            at.windows(2).for_each(|cut| follow(&mut frames, &bytes[cut[0]..cut[1]], &mut seen));
            prop_assert_eq!(seen, heads);
        }
    }
}
