//! Bodies coded and decoded as they come.

use std::io::{self, Write};

use zstd::stream::{raw, zio};

use crate::policy::compress::{Coding, Effort};

/// Window of brotli, 2^18 bytes: larger ones cost memory for little.
const BROTLI_WINDOW_BITS: u32 = 18;
/// Largest window of zstd that is decoded, 2^23 bytes: what every decoder must take (RFC 8878
/// §3.1.1.1.2).
const ZSTD_WINDOW_BITS_MAX: u32 = 23;
/// What is decoded at once.
const STEP_BYTES: usize = 16 * 1024;

/// A body being compressed. What comes of it is taken with [`Encoder::take`].
pub enum Encoder {
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Encoder {
    pub fn new(coding: Coding, effort: Effort) -> io::Result<Encoder> {
        let level = |fast, usual, best| match effort {
            Effort::Fast => fast,
            Effort::Usual => usual,
            Effort::Best => best,
        };
        Ok(match coding {
            Coding::Gzip => {
                let level = flate2::Compression::new(level(1, 5, 9) as u32);
                Encoder::Gzip(flate2::write::GzEncoder::new(Vec::new(), level))
            }
            Coding::Brotli => {
                let quality = level(2, 4, 9) as u32;
                let (buffer, bits) = (STEP_BYTES, BROTLI_WINDOW_BITS);
                let writer = brotli::CompressorWriter::new(Vec::new(), buffer, quality, bits);
                Encoder::Brotli(Box::new(writer))
            }
            Coding::Zstd => {
                Encoder::Zstd(zstd::stream::write::Encoder::new(Vec::new(), level(1, 3, 12))?)
            }
        })
    }

    /// Takes more of the body. What came so far can be decoded by who gets it.
    pub fn write(&mut self, data: &[u8]) -> io::Result<()> {
        fn all(writer: &mut impl Write, data: &[u8]) -> io::Result<()> {
            writer.write_all(data)?;
            writer.flush()
        }
        match self {
            Encoder::Gzip(writer) => all(writer, data),
            Encoder::Brotli(writer) => all(writer, data),
            Encoder::Zstd(writer) => all(writer, data),
        }
    }

    /// What is ready to be sent.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(match self {
            Encoder::Gzip(writer) => writer.get_mut(),
            Encoder::Brotli(writer) => writer.get_mut(),
            Encoder::Zstd(writer) => writer.get_mut(),
        })
    }

    /// The end of the body, after its last data.
    pub fn finish(self, last: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Encoder::Gzip(mut writer) => {
                writer.write_all(last)?;
                writer.finish()
            }
            Encoder::Brotli(mut writer) => {
                writer.write_all(last)?;
                Ok(writer.into_inner())
            }
            Encoder::Zstd(mut writer) => {
                writer.write_all(last)?;
                writer.finish()
            }
        }
    }
}

/// A body being decompressed.
pub enum Decoder {
    Gzip(Box<flate2::write::MultiGzDecoder<Bounded>>),
    Brotli(Box<brotli::DecompressorWriter<Bounded>>),
    Zstd(Box<zio::Writer<Bounded, raw::Decoder<'static>>>),
}

/// Where decoded bytes go, no more than allowed.
#[derive(Default)]
pub struct Bounded {
    bytes: Vec<u8>,
    left: u64,
}

impl Write for Bounded {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.left = self.left.checked_sub(data.len() as u64).ok_or_else(too_much)?;
        self.bytes.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn too_much() -> io::Error {
    io::ErrorKind::FileTooLarge.into()
}

/// Why a body cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// It is malformed, or ends too early.
    Malformed,
    /// It became more than is allowed.
    TooMuch,
}

impl From<io::Error> for Bad {
    fn from(e: io::Error) -> Bad {
        match e.kind() {
            io::ErrorKind::FileTooLarge => Bad::TooMuch,
            _ => Bad::Malformed,
        }
    }
}

impl Decoder {
    pub fn new(coding: Coding) -> io::Result<Decoder> {
        Ok(match coding {
            Coding::Gzip => {
                let writer = flate2::write::MultiGzDecoder::new(Bounded::default());
                Decoder::Gzip(Box::new(writer))
            }
            Coding::Brotli => {
                let writer = brotli::DecompressorWriter::new(Bounded::default(), STEP_BYTES);
                Decoder::Brotli(Box::new(writer))
            }
            Coding::Zstd => {
                let mut decoder = raw::Decoder::new()?;
                decoder.set_parameter(raw::DParameter::WindowLogMax(ZSTD_WINDOW_BITS_MAX))?;
                Decoder::Zstd(Box::new(zio::Writer::new(Bounded::default(), decoder)))
            }
        })
    }

    fn out(&mut self) -> &mut Bounded {
        match self {
            Decoder::Gzip(writer) => writer.get_mut(),
            Decoder::Brotli(writer) => writer.get_mut(),
            Decoder::Zstd(writer) => writer.writer_mut(),
        }
    }

    /// Decodes `data`, which may become at most `left` bytes; `last`: there is no more.
    pub fn decode(&mut self, data: &[u8], left: u64, last: bool) -> Result<Vec<u8>, Bad> {
        self.out().left = left;
        match self {
            Decoder::Gzip(writer) => {
                writer.write_all(data)?;
                writer.flush()?;
                if last {
                    writer.try_finish()?;
                }
            }
            Decoder::Brotli(writer) => {
                writer.write_all(data)?;
                writer.flush()?;
                if last {
                    writer.close()?;
                }
            }
            Decoder::Zstd(writer) => {
                writer.write_all(data)?;
                writer.flush()?;
                if last {
                    writer.finish()?;
                }
            }
        }
        Ok(std::mem::take(&mut self.out().bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> Vec<u8> {
        (0..200_000u32).map(|n| b"abcdefgh ijkl\n"[(n.wrapping_mul(n) / 7 % 14) as usize]).collect()
    }

    /// Bytes that can be read of what came so far.
    fn readable(coding: Coding, coded: &[u8]) -> usize {
        use std::io::Read;
        if coding != Coding::Brotli {
            let mut decoder = Decoder::new(coding).expect("a decoder");
            return decoder.decode(coded, u64::MAX, false).expect("decoded").len();
        }
        // Ours holds some back until it has a buffer full.
        let mut reader = brotli::Decompressor::new(coded, 4096);
        let (mut buffer, mut bytes) = (vec![0; 4096], 0);
        while let Ok(n @ 1..) = reader.read(&mut buffer) {
            bytes += n;
        }
        bytes
    }

    #[test]
    fn what_is_encoded_in_pieces_is_decoded_in_pieces() {
        for coding in Coding::ALL {
            for effort in [Effort::Fast, Effort::Usual, Effort::Best] {
                let mut encoder = Encoder::new(coding, effort).expect("an encoder");
                let mut coded = Vec::new();
                let whole = text();
                let (first, last) = whole.split_at(150_000);
                for piece in first.chunks(70_000) {
                    encoder.write(piece).expect("written");
                    coded.extend(encoder.take());
                    let so_far = readable(coding, &coded);
                    assert!(so_far >= piece.len(), "{coding:?}: {so_far}");
                }
                coded.extend(encoder.finish(last).expect("finished"));
                let mut decoder = Decoder::new(coding).expect("a decoder");
                let mut decoded = Vec::new();
                for piece in coded.chunks(1000) {
                    decoded.extend(decoder.decode(piece, u64::MAX, false).expect("decoded"));
                }
                decoded.extend(decoder.decode(b"", u64::MAX, true).expect("ended"));
                assert!(decoded == text(), "{coding:?} {effort:?}");
                assert!(coded.len() < text().len() / 2, "{coding:?}: {}", coded.len());
            }
        }
    }

    #[test]
    fn bombs_stop_at_their_bound() {
        for coding in Coding::ALL {
            let encoder = Encoder::new(coding, Effort::Usual).expect("an encoder");
            let bomb = encoder.finish(&vec![0; 4 << 20]).expect("finished");
            let mut decoder = Decoder::new(coding).expect("a decoder");
            assert_eq!(decoder.decode(&bomb, 1 << 20, true), Err(Bad::TooMuch), "{coding:?}");
        }
    }

    #[test]
    fn what_is_malformed_is_said_to_be() {
        for coding in Coding::ALL {
            let encoder = Encoder::new(coding, Effort::Usual).expect("an encoder");
            let whole = encoder.finish(&text()).expect("finished");
            let mut broken = whole.clone();
            broken.iter_mut().skip(20).take(40).for_each(|b| *b ^= 0x55);
            for bad in [b"no coding of any kind".to_vec(), broken] {
                let mut decoder = Decoder::new(coding).expect("a decoder");
                let result = decoder.decode(&bad, u64::MAX, true);
                assert!(result != Ok(text()), "{coding:?}");
            }
            let mut decoder = Decoder::new(coding).expect("a decoder");
            let short = &whole[..whole.len() - 5];
            assert_eq!(decoder.decode(short, u64::MAX, true), Err(Bad::Malformed), "{coding:?}");
        }
    }
}
