//! What the kernel is given to seal or open one direction of a session: the structures
//! `tls12_crypto_info_*` of `linux/tls.h`, as bytes.
//!
//! Invariant: **no nonce is used twice under one key**. With TLS 1.2 and AES-GCM a sender chooses
//! the explicit half of the nonce (RFC 5288 §3). rustls takes its start value XORed with the number
//! of the record, the kernel counts up from what it is given, so it is given a value behind all
//! that rustls has used. Elsewhere the nonce follows from the number of the record alone.

use rustls::{ConnectionTrafficSecrets, ProtocolVersion};

/// Of the largest structure.
const BYTES_MAX: usize = 56;
/// Of AES-GCM's nonce, the part that is not sent.
const SALT_BYTES: usize = 4;
const IV_BYTES: usize = 12;

/// One direction of a session.
pub struct CryptoInfo {
    bytes: [u8; BYTES_MAX],
    len: usize,
}

/// Ciphers that the kernel may offer, which are all that rustls negotiates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cipher {
    Aes128Gcm,
    Aes256Gcm,
    Chacha20Poly1305,
}

impl Cipher {
    pub const ALL: [Cipher; 3] = [Cipher::Aes128Gcm, Cipher::Aes256Gcm, Cipher::Chacha20Poly1305];

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Cipher::Aes128Gcm => "AES-128-GCM",
            Cipher::Aes256Gcm => "AES-256-GCM",
            Cipher::Chacha20Poly1305 => "ChaCha20-Poly1305",
        }
    }

    fn number(self) -> u16 {
        match self {
            Cipher::Aes128Gcm => libc::TLS_CIPHER_AES_GCM_128,
            Cipher::Aes256Gcm => libc::TLS_CIPHER_AES_GCM_256,
            Cipher::Chacha20Poly1305 => libc::TLS_CIPHER_CHACHA20_POLY1305,
        }
    }

    pub fn key_bytes(self) -> usize {
        if self == Cipher::Aes128Gcm { 16 } else { 32 }
    }
}

impl CryptoInfo {
    /// `next`: the number of the record that follows. `None` for what the kernel has no structure
    /// for.
    pub fn of(
        version: ProtocolVersion,
        secrets: &ConnectionTrafficSecrets,
        next: u64,
    ) -> Option<CryptoInfo> {
        use ConnectionTrafficSecrets as S;
        let (cipher, key, iv) = match secrets {
            S::Aes128Gcm { key, iv } => (Cipher::Aes128Gcm, key, iv),
            S::Aes256Gcm { key, iv } => (Cipher::Aes256Gcm, key, iv),
            S::Chacha20Poly1305 { key, iv } => (Cipher::Chacha20Poly1305, key, iv),
            _ => return None,
        };
        CryptoInfo::new(version, cipher, key.as_ref(), iv.as_ref(), next)
    }

    /// `iv` has 12 bytes, the key as many as the cipher's keys have.
    pub fn new(
        version: ProtocolVersion,
        cipher: Cipher,
        key: &[u8],
        iv: &[u8],
        next: u64,
    ) -> Option<CryptoInfo> {
        let number = match version {
            ProtocolVersion::TLSv1_2 => libc::TLS_1_2_VERSION,
            ProtocolVersion::TLSv1_3 => libc::TLS_1_3_VERSION,
            _ => return None,
        };
        if key.len() != cipher.key_bytes() || iv.len() != IV_BYTES {
            return None;
        }
        let mut info = CryptoInfo { bytes: [0; BYTES_MAX], len: 0 };
        info.put(&number.to_ne_bytes());
        info.put(&cipher.number().to_ne_bytes());
        if cipher == Cipher::Chacha20Poly1305 {
            info.put(iv);
            info.put(key);
        } else {
            let (salt, start) = iv.split_at(SALT_BYTES);
            let start = u64::from_be_bytes(start.try_into().ok()?);
            let is_12 = version == ProtocolVersion::TLSv1_2;
            let start = if is_12 { behind(start, next) } else { start };
            info.put(&start.to_be_bytes());
            info.put(key);
            info.put(salt);
        }
        info.put(&next.to_be_bytes());
        Some(info)
    }

    fn put(&mut self, part: &[u8]) {
        self.bytes[self.len..self.len + part.len()].copy_from_slice(part);
        self.len += part.len();
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Drop for CryptoInfo {
    fn drop(&mut self) {
        self.bytes.fill(0);
        // So that it is done although nobody looks.
        std::hint::black_box(&self.bytes);
    }
}

/// From where to count so that none of `start ^ n` comes, for any `n` below `next`: behind the
/// block of a power of two in which all of them lie.
fn behind(start: u64, next: u64) -> u64 {
    let block = next.checked_next_power_of_two().unwrap_or(1 << 63).max(1);
    (start | (block - 1)).wrapping_add(1)
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use proptest::prelude::*;

    use super::*;

    const IV: [u8; 12] = [0xa0, 0xa1, 0xa2, 0xa3, 0xb0, 0xb1, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7];
    const V12: ProtocolVersion = ProtocolVersion::TLSv1_2;
    const V13: ProtocolVersion = ProtocolVersion::TLSv1_3;

    fn key(cipher: Cipher) -> Vec<u8> {
        (1..).take(cipher.key_bytes()).collect()
    }

    fn info(version: ProtocolVersion, cipher: Cipher, next: u64) -> Vec<u8> {
        let info = CryptoInfo::new(version, cipher, &key(cipher), &IV, next);
        info.expect("a structure").bytes().to_vec()
    }

    /// As the kernel's header has it, byte for byte.
    #[test]
    fn a_structure_has_every_part_in_its_place() {
        let hex: String =
            info(V13, Cipher::Aes128Gcm, 0x0102).iter().map(|b| format!("{b:02x}")).collect();
        let expected = "04033300b0b1b2b3b4b5b6b70102030405060708090a0b0c0d0e0f10a0a1a2a3\
                        0000000000000102";
        assert_eq!(hex, expected);
        let hex: String =
            info(V12, Cipher::Chacha20Poly1305, 1).iter().map(|b| format!("{b:02x}")).collect();
        let expected = "03033600a0a1a2a3b0b1b2b3b4b5b6b70102030405060708090a0b0c0d0e0f10\
                        1112131415161718191a1b1c1d1e1f200000000000000001";
        assert_eq!(hex, expected);
    }

    #[test]
    fn parts_are_where_the_kernel_reads_them() {
        macro_rules! parts {
            ($info:ty, $cipher:expr, $iv:expr) => {
                for version in [V12, V13] {
                    let bytes = info(version, $cipher, 0x0102_0304_0506_0708);
                    assert_eq!(bytes.len(), size_of::<$info>());
                    let (iv, key_at) = (offset_of!($info, iv), offset_of!($info, key));
                    let number = offset_of!(libc::tls_crypto_info, cipher_type);
                    assert_eq!(bytes[number..][..2], $cipher.number().to_ne_bytes());
                    assert_eq!(bytes[key_at..][..$cipher.key_bytes()], key($cipher));
                    let at = offset_of!($info, rec_seq);
                    assert_eq!(bytes[at..], [1, 2, 3, 4, 5, 6, 7, 8]);
                    if version == V13 {
                        assert_eq!(bytes[iv..][..$iv.len()], $iv);
                    }
                }
            };
        }
        parts!(libc::tls12_crypto_info_aes_gcm_128, Cipher::Aes128Gcm, IV[4..]);
        parts!(libc::tls12_crypto_info_aes_gcm_256, Cipher::Aes256Gcm, IV[4..]);
        parts!(libc::tls12_crypto_info_chacha20_poly1305, Cipher::Chacha20Poly1305, IV[..]);
        let bytes = info(V13, Cipher::Aes256Gcm, 0);
        let salt = offset_of!(libc::tls12_crypto_info_aes_gcm_256, salt);
        assert_eq!(bytes[salt..][..4], IV[..4]);
    }

    #[test]
    fn what_the_kernel_has_no_structure_for_is_not_given_to_it() {
        let key = key(Cipher::Aes256Gcm);
        let of = |version, key, iv| CryptoInfo::new(version, Cipher::Aes256Gcm, key, iv, 0);
        assert!(of(V13, &key[..], &IV[..]).is_some());
        assert!(of(ProtocolVersion::TLSv1_1, &key[..], &IV[..]).is_none());
        assert!(of(V13, &key[..16], &IV[..]).is_none());
        assert!(of(V13, &key[..], &IV[..8]).is_none());
    }

    proptest! {
        /// With TLS 1.2: the kernel counts up from what it is given, rustls has XORed.
        #[test]
        fn no_nonce_comes_again(
            start in prop_oneof![any::<u64>(), 0..100u64, (0..100u64).prop_map(|n| u64::MAX - n)],
            next in 0..5000u64,
            later in prop_oneof![0..5000u64, 0..(1u64 << 40)],
        ) {
            let mut iv = IV;
            iv[4..].copy_from_slice(&start.to_be_bytes());
            let key = key(Cipher::Aes128Gcm);
            let info = CryptoInfo::new(V12, Cipher::Aes128Gcm, &key, &iv, next).expect("one");
            let at = offset_of!(libc::tls12_crypto_info_aes_gcm_128, iv);
            let given = u64::from_be_bytes(info.bytes()[at..][..8].try_into().expect("8 bytes"));
            let nonce = given.wrapping_add(later);
            prop_assert!((0..next).all(|used| start ^ used != nonce), "{start:x} {nonce:x}");
        }
    }
}
