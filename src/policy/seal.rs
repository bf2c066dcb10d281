//! Texts sealed with secrets that processes share: session tickets, and cookies of sessions.
//!
//! What is sealed names the secret that sealed it, so that any process which has that secret opens
//! it. Every text has a key of its own, made from the secret and random bytes: however many a fleet
//! seals, no key seals two.
//!
//! Invariants: the first secret seals, all of them open; what was not sealed with one of them for
//! the same purpose, or was changed since, is not opened. Nothing here changes after it was made,
//! so workers share it without writing to it.

use std::fmt;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, Salt},
    hmac,
};

const NAME_BYTES: usize = 16;
const SALT_BYTES: usize = 16;
const TAG_BYTES: usize = 16;
/// Random bytes for one text: the salt of its key, and a nonce.
pub const RANDOM_BYTES: usize = SALT_BYTES + NONCE_LEN;
/// Name of the secret, salt, nonce; then what is sealed.
const OPEN_BYTES: usize = NAME_BYTES + RANDOM_BYTES;
/// By how much a sealed text is longer.
pub const SEAL_BYTES: usize = OPEN_BYTES + TAG_BYTES;

/// The secrets. The first one seals, all of them open.
pub struct Seals(Vec<Secret>);

struct Secret {
    name: [u8; NAME_BYTES],
    /// Makes the key of each text.
    derive: hmac::Key,
}

impl Secret {
    /// `None` when the library fails, which it does not with these sizes.
    fn new(bytes: &[u8], label: &[u8]) -> Option<Secret> {
        let base = Salt::new(HKDF_SHA256, label).extract(bytes);
        let mut name = [0; 2 * NAME_BYTES];
        base.expand(&[b"name"], HKDF_SHA256).ok()?.fill(&mut name).ok()?;
        let derive = base.expand(&[b"key"], hmac::HMAC_SHA256).ok()?.into();
        Some(Secret { name: *name.first_chunk()?, derive })
    }

    fn key(&self, salt: &[u8]) -> Option<LessSafeKey> {
        let key = hmac::sign(&self.derive, salt);
        Some(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_ref()).ok()?))
    }
}

impl Seals {
    /// `label` sets what is derived from the secrets apart from whatever else is made of the same.
    /// `None` without secrets.
    pub fn new(secrets: &[Vec<u8>], label: &[u8]) -> Option<Seals> {
        let secrets: Vec<Secret> =
            secrets.iter().map(|secret| Secret::new(secret, label)).collect::<Option<_>>()?;
        (!secrets.is_empty()).then_some(Seals(secrets))
    }

    /// Seals `plain` for a purpose. The random bytes must be such that nobody can guess them.
    pub fn seal(
        &self,
        plain: &[u8],
        purpose: &[u8],
        random: &[u8; RANDOM_BYTES],
    ) -> Option<Vec<u8>> {
        let secret = self.0.first()?;
        let mut text = Vec::with_capacity(plain.len() + SEAL_BYTES);
        text.extend_from_slice(&secret.name);
        text.extend_from_slice(random);
        text.extend_from_slice(plain);
        let (salt, nonce) = random.split_at(SALT_BYTES);
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let sealed = &mut text[OPEN_BYTES..];
        let tag = secret.key(salt)?.seal_in_place_separate_tag(nonce, Aad::from(purpose), sealed);
        text.extend_from_slice(tag.ok()?.as_ref());
        Some(text)
    }

    /// What was sealed for that purpose.
    pub fn open(&self, text: &[u8], purpose: &[u8]) -> Option<Vec<u8>> {
        let (open, sealed) = text.split_at_checked(OPEN_BYTES)?;
        let (name, open) = open.split_at(NAME_BYTES);
        let secret = self.0.iter().find(|secret| secret.name == name)?;
        let (salt, nonce) = open.split_at(SALT_BYTES);
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = sealed.to_vec();
        let key = secret.key(salt)?;
        let opened = key.open_in_place(nonce, Aad::from(purpose), &mut sealed).ok()?.len();
        sealed.truncate(opened);
        Some(sealed)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Without what is secret.
impl fmt::Debug for Seals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Seals({} secrets)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seals(secrets: &[u8], label: &str) -> Seals {
        let secrets: Vec<Vec<u8>> = secrets.iter().map(|byte| vec![*byte; 32]).collect();
        Seals::new(&secrets, label.as_bytes()).expect("seals")
    }

    #[test]
    fn a_text_is_opened_for_its_purpose_by_whoever_has_the_secret() {
        let random = [7; RANDOM_BYTES];
        let text = seals(&[1, 2], "a").seal(b"plain", b"for", &random).expect("sealed");
        assert_eq!(text.len(), 5 + SEAL_BYTES);
        for (secrets, label, purpose, opens) in [
            (&[1][..], "a", "for", true),
            (&[3, 1], "a", "for", true),
            (&[2], "a", "for", false),
            (&[1], "b", "for", false),
            (&[1], "a", "other", false),
        ] {
            let opened = seals(secrets, label).open(&text, purpose.as_bytes());
            assert_eq!(opened.as_deref(), opens.then_some(&b"plain"[..]), "{secrets:?} {label}");
        }
        assert!(Seals::new(&[], b"a").is_none());
        assert_eq!(format!("{:?}", seals(&[1], "a")), "Seals(1 secrets)");
    }

    proptest! {
        #[test]
        fn damage_and_cuts_are_noticed(plain: Vec<u8>, at: usize, bit in 0..8u32, cut: usize) {
            let seals = seals(&[1], "a");
            let text = seals.seal(&plain, b"for", &[7; RANDOM_BYTES]).expect("sealed");
            prop_assert_eq!(seals.open(&text, b"for"), Some(plain));
            let mut damaged = text.clone();
            damaged[at % text.len()] ^= 1 << bit;
            prop_assert_eq!(seals.open(&damaged, b"for"), None);
            prop_assert_eq!(seals.open(&text[..cut % text.len()], b"for"), None);
        }
    }
}
