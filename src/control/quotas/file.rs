//! The file of what was used of quotas.
//!
//! ```text
//! ringway quotas 1\n
//! seeds        2 * u64      what the numbers of keys were made with
//! quotas       u32
//!   number     u64
//!   name       u16, then so many bytes
//!   keys       u32
//!     key      u64
//!     period   u32
//!     used     u32
//! checksum     32 bytes     SHA-256 of all before it
//! ```
//!
//! Numbers are little-endian. Invariant: what is read back is what was written, or an error says
//! why it is not; nothing is believed of a file whose checksum is wrong.

use std::collections::HashMap;

use aws_lc_rs::digest;

use crate::policy::limit::{Period, Seeds};

const HEAD: &[u8] = b"ringway quotas 1\n";
/// What every version begins with.
const KIND: &[u8] = b"ringway quotas ";
const CHECKSUM_BYTES: usize = 32;
/// A larger file is not read.
pub const FILE_BYTES_MAX: u64 = 4 << 30;

/// One quota: its name, for people, and every key that counts, with its period and what it used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    pub name: String,
    pub keys: HashMap<u64, (Period, u32), ahash::RandomState>,
}

/// All that a file has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    pub seeds: Seeds,
    pub pages: HashMap<u64, Page>,
}

impl Content {
    pub fn write(&self) -> Vec<u8> {
        let keys: usize = self.pages.values().map(|page| page.keys.len()).sum();
        let mut out = Vec::with_capacity(1024 + 16 * keys);
        out.extend_from_slice(HEAD);
        out.extend_from_slice(&self.seeds.0.to_le_bytes());
        out.extend_from_slice(&self.seeds.1.to_le_bytes());
        out.extend_from_slice(&(self.pages.len() as u32).to_le_bytes());
        for (number, page) in &self.pages {
            out.extend_from_slice(&number.to_le_bytes());
            // Names are bounded by the configuration.
            let name = &page.name.as_bytes()[..page.name.len().min(usize::from(u16::MAX))];
            out.extend_from_slice(&(name.len() as u16).to_le_bytes());
            out.extend_from_slice(name);
            out.extend_from_slice(&(page.keys.len() as u32).to_le_bytes());
            for (key, (period, used)) in &page.keys {
                out.extend_from_slice(&key.to_le_bytes());
                out.extend_from_slice(&period.to_le_bytes());
                out.extend_from_slice(&used.to_le_bytes());
            }
        }
        let checksum = digest::digest(&digest::SHA256, &out);
        out.extend_from_slice(checksum.as_ref());
        out
    }

    /// An error says what the file is instead.
    pub fn read(bytes: &[u8]) -> Result<Content, String> {
        if !bytes.starts_with(HEAD) {
            let version = bytes.strip_prefix(KIND).map(|rest| {
                rest.iter().take_while(|b| b.is_ascii_digit()).map(|b| char::from(*b)).collect()
            });
            return Err(match version {
                Some(version) if String::is_empty(&version) => "it is cut off".to_owned(),
                Some(version) => {
                    format!("it is of version {version}, and this program reads version 1")
                }
                None if KIND.starts_with(bytes) => "it is cut off".to_owned(),
                None => "it is not a file of quotas".to_owned(),
            });
        }
        let end = bytes.len().saturating_sub(CHECKSUM_BYTES).max(HEAD.len());
        let (body, checksum) = bytes.split_at(end);
        if digest::digest(&digest::SHA256, body).as_ref() != checksum {
            return Err("its checksum is wrong: it is damaged or cut off".to_owned());
        }
        let mut rest = Rest(&body[HEAD.len()..]);
        let content = rest.content();
        content.filter(|_| rest.0.is_empty()).ok_or_else(|| "it is not well-formed".to_owned())
    }
}

/// What is not read yet.
struct Rest<'b>(&'b [u8]);

impl Rest<'_> {
    fn content(&mut self) -> Option<Content> {
        let seeds = Seeds(self.u64()?, self.u64()?);
        let mut pages = HashMap::new();
        for _ in 0..self.u32()? {
            let number = self.u64()?;
            let length = u16::from_le_bytes(self.array()?);
            let name = String::from_utf8(self.bytes(usize::from(length))?.to_vec()).ok()?;
            let count = self.u32()? as usize;
            // No more room than there can be keys.
            let room = count.min(self.0.len() / 16);
            let mut keys = HashMap::with_capacity_and_hasher(room, ahash::RandomState::new());
            for _ in 0..count {
                keys.insert(self.u64()?, (self.u32()?, self.u32()?));
            }
            pages.insert(number, Page { name, keys });
        }
        Some(Content { seeds, pages })
    }

    fn bytes(&mut self, count: usize) -> Option<&[u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn content(keys: &[(u64, Period, u32)]) -> Content {
        let keys: HashMap<_, _, _> =
            keys.iter().map(|(key, period, used)| (*key, (*period, *used))).collect();
        let pages = [
            (7, Page { name: "monthly".to_owned(), keys }),
            (9, Page { name: "é".to_owned(), keys: HashMap::default() }),
        ];
        Content { seeds: Seeds(1, u64::MAX), pages: pages.into() }
    }

    #[test]
    fn what_is_no_such_file_is_told() {
        let good = content(&[(1, 2, 3)]).write();
        let other = [b"ringway quotas 2\n", &good[HEAD.len()..]].concat();
        for (bytes, part) in [
            (&b""[..], "cut off"),
            (b"ringway qu", "cut off"),
            (b"ringway quotas ", "cut off"),
            (b"{\"quotas\": 1}", "not a file of quotas"),
            (&other, "version 2, and this program reads version 1"),
            (HEAD, "checksum"),
        ] {
            let error = Content::read(bytes).expect_err("it is wrong");
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_count_that_is_too_large_takes_no_memory() {
        let mut bytes = content(&[]).write();
        bytes.truncate(HEAD.len() + 16);
        bytes.extend_from_slice(&1u32.to_le_bytes());
        bytes.extend_from_slice(&[0; 10]);
        bytes.extend_from_slice(&u32::MAX.to_le_bytes());
        let checksum = digest::digest(&digest::SHA256, &bytes);
        bytes.extend_from_slice(checksum.as_ref());
        assert_eq!(Content::read(&bytes), Err("it is not well-formed".to_owned()));
    }

    proptest! {
        #[test]
        fn it_is_read_as_it_was_written(
            keys in prop::collection::vec((any::<u64>(), any::<u32>(), any::<u32>()), 0..200),
        ) {
            let content = content(&keys);
            prop_assert_eq!(Content::read(&content.write()), Ok(content));
        }

        /// Wherever it is cut, and whatever bit of it is another.
        #[test]
        fn damage_is_noticed(cut in 0..1000usize, at in 0..1000usize, bit in 0..8u8) {
            let bytes = content(&[(1, 2, 3), (4, 5, 6)]).write();
            prop_assert!(Content::read(&bytes[..cut % bytes.len()]).is_err());
            let mut other = bytes.clone();
            other[at % bytes.len()] ^= 1 << bit;
            prop_assert!(Content::read(&other).is_err());
        }
    }
}
