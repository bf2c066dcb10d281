//! The one body that everything here sends: a pattern of known bytes, and its checksum.
//!
//! Byte `i` is a letter that depends on `i` alone, so both ends know every body by its length and
//! a response can be checked without having been seen before. The checksum is CRC-32 (IEEE), as
//! `cksum -o 3`, gzip and zlib compute it.

use std::sync::OnceLock;

/// Bodies repeat after this many bytes.
pub const BLOCK_BYTES: usize = 1024 * 1024;

const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz";

/// The first [`BLOCK_BYTES`] of every body, built once.
pub fn block() -> &'static [u8] {
    static BLOCK: OnceLock<Vec<u8>> = OnceLock::new();
    BLOCK.get_or_init(|| {
        let mut block = LETTERS.repeat(BLOCK_BYTES / LETTERS.len() + 1);
        block.truncate(BLOCK_BYTES);
        block
    })
}

/// CRC-32 of the first `len` bytes of the pattern.
pub fn checksum(len: u64) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    let mut left = len;
    while left > 0 {
        let taken = left.min(BLOCK_BYTES as u64);
        crc.update(&block()[..taken as usize]);
        left -= taken;
    }
    crc.finalize()
}

/// The first `len` bytes of the pattern, for request bodies.
pub fn bytes(len: usize) -> Vec<u8> {
    block().iter().copied().cycle().take(len).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_crc32() {
        // The check value of CRC-32/ISO-HDLC.
        assert_eq!(crc32fast::hash(b"123456789"), 0xcbf4_3926);
        for len in [0, 1, 26, BLOCK_BYTES, 2 * BLOCK_BYTES + 5] {
            assert_eq!(checksum(len as u64), crc32fast::hash(&bytes(len)), "{len}");
        }
    }
}
