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
    pub fn next(&mut self, bytes: &mut &[u8]) -> Option<FrameHead> {
        let skipped = self.skip.min(bytes.len());
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
        while let Some(head) = frames.next(&mut bytes) {
            into.push(head);
        }
        assert!(bytes.is_empty());
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
