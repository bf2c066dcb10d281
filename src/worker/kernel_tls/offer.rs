//! Whether the kernel offers TLS, asked once for the process: everything that a session may need,
//! or nothing, because a session whose keys the kernel has cannot come back.
//!
//! So that is: both versions, all ciphers, both directions, and new keys in the middle of a session
//! (TLS 1.3, KeyUpdate), which Linux has since 6.14. Whoever serves without that has to cut a
//! client off that changes its keys, as it may.

use std::{
    fmt, io,
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::OnceLock,
};

use rustls::ProtocolVersion;

use super::{
    keys::{Cipher, CryptoInfo},
    socket::{Direction, begin, set_keys},
};

static OFFER: OnceLock<Result<(), Lack>> = OnceLock::new();

/// What is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    lacks: Question,
    error: String,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// TLS at all.
    Any,
    Cipher(ProtocolVersion, Cipher),
    /// Other keys for a session that has some.
    NewKeys,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lacks {
            Question::Any => write!(f, "the kernel has no TLS, or its module tls is not loaded")?,
            Question::Cipher(version, cipher) => {
                let version = if version == ProtocolVersion::TLSv1_3 { "1.3" } else { "1.2" };
                write!(f, "the kernel has no {} for TLS {version}", cipher.name())?;
            }
            Question::NewKeys => write!(f, "the kernel cannot change keys (Linux 6.14 can)")?,
        }
        write!(f, ": {}", self.error)
    }
}

/// Asks the kernel, the first time. May wait, for the kernel to load what it needs: not for
/// workers.
pub fn look() -> &'static Result<(), Lack> {
    OFFER.get_or_init(|| detect(ask))
}

/// What [`look`] has found, or that nobody has looked.
pub fn is_offered() -> bool {
    OFFER.get().is_some_and(Result::is_ok)
}

/// What the kernel lacks first, if anything.
pub fn detect(mut ask: impl FnMut(Question) -> io::Result<()>) -> Result<(), Lack> {
    let versions = [ProtocolVersion::TLSv1_3, ProtocolVersion::TLSv1_2].into_iter();
    let ciphers = versions.flat_map(|v| Cipher::ALL.map(|cipher| Question::Cipher(v, cipher)));
    let all = std::iter::once(Question::Any).chain(ciphers).chain([Question::NewKeys]);
    for question in all {
        ask(question).map_err(|e| Lack { lacks: question, error: e.to_string() })?;
    }
    Ok(())
}

/// Tries it on a connection of its own, with keys that protect nothing.
fn ask(question: Question) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let socket = TcpStream::connect(listener.local_addr()?)?;
    begin(&socket)?;
    let give = |version, cipher, byte| -> io::Result<()> {
        let key = vec![byte; Cipher::key_bytes(cipher)];
        let info = CryptoInfo::new(version, cipher, &key, &[byte; 12], 0);
        let info = info.ok_or(io::ErrorKind::Unsupported)?;
        set_keys(&socket, Direction::Send, &info)?;
        set_keys(&socket, Direction::Receive, &info)
    };
    match question {
        Question::Any => Ok(()),
        Question::Cipher(version, cipher) => give(version, cipher, 1),
        Question::NewKeys => {
            give(ProtocolVersion::TLSv1_3, Cipher::Aes128Gcm, 1)?;
            give(ProtocolVersion::TLSv1_3, Cipher::Aes128Gcm, 2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_offered_when_all_of_it_is_there() {
        let mut asked = Vec::new();
        let found = detect(|question| {
            asked.push(question);
            Ok(())
        });
        assert_eq!(found, Ok(()));
        assert_eq!((asked.len(), asked[0], asked[7]), (8, Question::Any, Question::NewKeys));
        for (version, cipher) in [
            (ProtocolVersion::TLSv1_2, Cipher::Aes128Gcm),
            (ProtocolVersion::TLSv1_2, Cipher::Chacha20Poly1305),
            (ProtocolVersion::TLSv1_3, Cipher::Aes256Gcm),
        ] {
            assert!(asked.contains(&Question::Cipher(version, cipher)));
        }
    }

    #[test]
    fn whatever_is_missing_is_told() {
        let table = [
            (Question::Any, "has no TLS, or its module tls is not loaded: "),
            (
                Question::Cipher(ProtocolVersion::TLSv1_2, Cipher::Chacha20Poly1305),
                "the kernel has no ChaCha20-Poly1305 for TLS 1.2: ",
            ),
            (
                Question::Cipher(ProtocolVersion::TLSv1_3, Cipher::Aes128Gcm),
                "the kernel has no AES-128-GCM for TLS 1.3: ",
            ),
            (Question::NewKeys, "the kernel cannot change keys (Linux 6.14 can): "),
        ];
        for (missing, expected) in table {
            let found = detect(|question| match question == missing {
                true => Err(io::Error::from_raw_os_error(libc::ENOENT)),
                false => Ok(()),
            });
            let told = found.expect_err("it is not offered").to_string();
            assert!(told.contains(expected) && told.contains("No such file"), "{told}");
        }
    }

    /// What this machine's kernel says is one of the two, and stays.
    #[test]
    fn the_kernel_is_asked_once() {
        assert_eq!(look(), look());
        assert_eq!(is_offered(), look().is_ok());
    }
}
