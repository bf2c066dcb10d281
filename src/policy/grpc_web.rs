//! gRPC-Web as bytes: base64 in pieces, and trailers as the last frame of a body (PROTOCOL-WEB.md
//! of the gRPC project).

use base64::{Engine, engine::general_purpose::STANDARD};

/// Not base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalid;

/// Decodes base64 that comes in pieces, each perhaps with padding of its own.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Characters of a group of four that have come.
    group: Vec<u8>,
}

impl Decoder {
    /// Appends to `out` what `text` makes complete.
    pub fn decode(&mut self, text: &[u8], out: &mut Vec<u8>) -> Result<(), Invalid> {
        let mut rest = text;
        while !rest.is_empty() {
            let n = (4 - self.group.len()).min(rest.len());
            if self.group.is_empty() && rest.len() >= 4 {
                // Many groups at once, until one that is padded.
                let end = memchr::memchr(b'=', rest).unwrap_or(rest.len()) / 4 * 4;
                if end > 0 {
                    STANDARD.decode_vec(&rest[..end], out).map_err(|_| Invalid)?;
                    rest = &rest[end..];
                    continue;
                }
            }
            self.group.extend_from_slice(&rest[..n]);
            rest = &rest[n..];
            if self.group.len() == 4 {
                STANDARD.decode_vec(&self.group, out).map_err(|_| Invalid)?;
                self.group.clear();
            }
        }
        Ok(())
    }

    /// Whether what came is whole.
    pub fn is_whole(&self) -> bool {
        self.group.is_empty()
    }
}

/// `data` in base64, padded, so that it can be decoded as it comes.
pub fn encode(data: &[u8]) -> Vec<u8> {
    STANDARD.encode(data).into_bytes()
}

/// The frame that ends a body: `lines` are trailer lines, each with its CRLF.
pub fn trailers(lines: &[u8]) -> Vec<u8> {
    const IS_TRAILERS: u8 = 0x80;
    let mut text = Vec::with_capacity(lines.len());
    for line in lines.split_inclusive(|&b| b == b'\n') {
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        text.extend(line[..colon].to_ascii_lowercase());
        text.push(b':');
        text.extend_from_slice(line[colon + 1..].trim_ascii());
        text.extend_from_slice(b"\r\n");
    }
    let mut frame = vec![IS_TRAILERS];
    frame.extend((text.len() as u32).to_be_bytes());
    frame.extend(text);
    frame
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn decoded_wherever_it_is_cut(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..6),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..9),
        ) {
            let text: Vec<u8> = pieces.iter().flat_map(|piece| encode(piece)).collect();
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            at.extend([0, text.len()]);
            at.sort_unstable();
            let (mut decoder, mut out) = (Decoder::default(), Vec::new());
            for cut in at.windows(2) {
                prop_assert_eq!(decoder.decode(&text[cut[0]..cut[1]], &mut out), Ok(()));
            }
            prop_assert!(decoder.is_whole());
            prop_assert_eq!(out, pieces.concat());
        }
    }

    #[test]
    fn what_is_not_base64() {
        for text in ["A===", "====", "ab!d", "ab=c", "\r\nab"] {
            let (mut decoder, mut out) = (Decoder::default(), Vec::new());
            assert_eq!(decoder.decode(text.as_bytes(), &mut out), Err(Invalid), "{text:?}");
        }
        let mut decoder = Decoder::default();
        assert_eq!(decoder.decode(b"AAA", &mut Vec::new()), Ok(()));
        assert!(!decoder.is_whole());
    }

    #[test]
    fn trailers_as_a_frame() {
        let frame = trailers(b"Grpc-Status: 0\r\ngrpc-message:  all is well \r\n");
        let text = b"grpc-status:0\r\ngrpc-message:all is well\r\n";
        assert_eq!(frame[..5], [0x80, 0, 0, 0, text.len() as u8]);
        assert_eq!(&frame[5..], text);
        assert_eq!(trailers(b""), [0x80, 0, 0, 0, 0]);
    }
}
