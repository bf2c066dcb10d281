//! API keys as text: how one looks that the gateway makes, and the line that stores one.
//!
//! ```text
//! rw_ and 32 letters or digits of chance (190 bits) and 6 of a checksum
//! sha256:<64 hexadecimal digits> CONSUMER [expires=TIME] [scopes=A,B] [groups=A,B] [plan=NAME]
//! ```
//!
//! The prefix lets scanners of secrets find keys that leaked, the checksum lets them be sure.

use aws_lc_rs::digest::{SHA256, digest};
use time::{Date, Month, PrimitiveDateTime, Time};

use super::keys::Digest;

/// What keys begin with that are made here.
pub const PREFIX: &str = "rw_";
/// Letters of chance in a key: 190 bits.
const CHANCE: usize = 32;
/// Letters of the checksum: enough for 32 bits.
const CHECKSUM: usize = 6;
const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Shortest key that is taken from others, in bytes: 128 bits in hexadecimal or base64 are longer.
pub const KEY_BYTES_MIN: usize = 20;

/// What is kept of a key.
pub fn digest_of(key: &[u8]) -> Digest {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, key).as_ref());
    out
}

/// A key of random bytes. `None` when `random` ends before there are enough: a byte that would make
/// some letters likelier is left out.
pub fn make(random: impl IntoIterator<Item = u8>) -> Option<String> {
    let letters = random.into_iter().filter_map(|byte| LETTERS.get(usize::from(byte & 63)));
    let mut key = PREFIX.to_owned();
    key.extend(letters.take(CHANCE).map(|letter| char::from(*letter)));
    (key.len() == PREFIX.len() + CHANCE).then(|| {
        let checksum = checksum(&key);
        key + &checksum
    })
}

/// Whether a key of the gateway's own kind was copied in whole; `None` for keys of others.
pub fn is_whole(key: &str) -> Option<bool> {
    if !key.starts_with(PREFIX) {
        return None;
    }
    let at = PREFIX.len() + CHANCE;
    Some(key.get(..at).zip(key.get(at..)).is_some_and(|(body, sum)| checksum(body) == sum))
}

/// CRC-32 (as in Ethernet and zip), in letters.
fn checksum(text: &str) -> String {
    let crc = !text.bytes().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    });
    let mut letters = [b'0'; CHECKSUM];
    letters.iter_mut().rev().fold(crc, |rest, letter| {
        *letter = LETTERS[(rest % 62) as usize];
        rest / 62
    });
    letters.iter().copied().map(char::from).collect()
}

/// A digest as it is stored.
pub fn digest_text(digest: &Digest) -> String {
    use std::fmt::Write;
    digest.iter().fold("sha256:".to_owned(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What a line says of a key, and of its consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line<'l> {
    pub digest: Digest,
    /// Empty where the line is a consumer's own.
    pub consumer: &'l str,
    /// Unix time at which it stops being accepted; 0 is never.
    pub expires_s: u32,
    pub scopes: Vec<&'l str>,
    /// `None` where nothing is said of them.
    pub groups: Option<Vec<&'l str>>,
    pub plan: Option<&'l str>,
}

/// Reads a line of a file of keys; `None` for one without a key. An error never quotes what could
/// be a key.
pub fn read_line(line: &str) -> Result<Option<Line<'_>>, String> {
    let Some(mut read) = read(line, true)? else { return Ok(None) };
    if read.consumer.is_empty() {
        return Err("names no consumer behind the digest".to_owned());
    }
    // One that says nothing else says nothing of groups either.
    read.groups = read.groups.filter(|groups| !groups.is_empty());
    Ok(Some(read))
}

/// Reads a key that a consumer's own section lists: a line without consumer, groups and plan.
pub fn read_own(text: &str) -> Result<Line<'_>, String> {
    let read = read(text, false)?.ok_or("has no digest")?;
    if read.groups.is_some() || read.plan.is_some() {
        return Err("says groups or a plan: those are keys of the consumer".to_owned());
    }
    Ok(read)
}

fn read(line: &str, has_consumer: bool) -> Result<Option<Line<'_>>, String> {
    // Names go into fields of requests.
    if line.trim_ascii_end().chars().any(|c| c.is_control() && c != '\t') {
        return Err("has a control character".to_owned());
    }
    let mut words = line.split_ascii_whitespace().take_while(|word| !word.starts_with('#'));
    let Some(first) = words.next() else { return Ok(None) };
    let digest = read_digest(first)?;
    let consumer = if has_consumer { words.next().unwrap_or_default() } else { "" };
    if has_consumer && consumer.contains('=') {
        return Err("names no consumer behind the digest".to_owned());
    }
    let mut line =
        Line { digest, consumer, expires_s: 0, scopes: Vec::new(), groups: None, plan: None };
    for word in words {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        let list = || value.split(',').filter(|one| !one.is_empty()).collect::<Vec<_>>();
        match name {
            _ if value.is_empty() => {
                return Err(format!("has `{}`, which is no NAME=VALUE", short(word)));
            }
            "expires" => line.expires_s = unix_time(value)?,
            "scopes" => line.scopes = list(),
            "groups" => line.groups = Some(list()),
            "plan" => line.plan = Some(value),
            _ => {
                let what = "expires, scopes, groups and plan";
                return Err(format!("has `{}`; what may be said are {what}", short(name)));
            }
        }
    }
    Ok(Some(line))
}

fn short(word: &str) -> String {
    word.chars().take(20).collect::<String>().escape_debug().to_string()
}

fn read_digest(word: &str) -> Result<Digest, String> {
    let digits = word.strip_prefix("sha256:").unwrap_or(word).as_bytes();
    if word.starts_with(PREFIX) {
        return Err("has a key itself; store its digest, as `ringway key hash` tells".to_owned());
    }
    let not = || "does not begin with a digest: sha256: and 64 hexadecimal digits".to_owned();
    let (pairs, rest) = digits.as_chunks::<2>();
    if pairs.len() != 32 || !rest.is_empty() {
        return Err(not());
    }
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(pairs) {
        let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
        let value = high.zip(low).map(|(high, low)| high << 4 | low);
        *byte = value.and_then(|value| u8::try_from(value).ok()).ok_or_else(not)?;
    }
    Ok(digest)
}

/// `2027-01-31` (its beginning) or `2027-01-31T12:00:00Z`, both UTC, as Unix time.
fn unix_time(text: &str) -> Result<u32, String> {
    let not = || {
        format!("has `expires={}`; write 2027-01-31 or 2027-01-31T12:00:00Z, in UTC", short(text))
    };
    let numbers = |text: &str, between: char, widths: [usize; 3]| -> Option<[u16; 3]> {
        let mut parts = text.split(between);
        let mut out = [0; 3];
        for (number, width) in out.iter_mut().zip(widths) {
            let part = parts.next().filter(|part| part.len() == width)?;
            *number = part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok())??;
        }
        parts.next().is_none().then_some(out)
    };
    let read = || {
        let (day, hour) = match text.strip_suffix('Z').and_then(|text| text.split_once('T')) {
            Some((day, hour)) => (day, numbers(hour, ':', [2, 2, 2])?),
            None => (text, [0; 3]),
        };
        let [year, month, day] = numbers(day, '-', [4, 2, 2])?;
        let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
        let date = Date::from_calendar_date(year.into(), month, day as u8).ok()?;
        let [hour, minute, second] = hour.map(|n| n as u8);
        let at = PrimitiveDateTime::new(date, Time::from_hms(hour, minute, second).ok()?);
        u32::try_from(at.assume_utc().unix_timestamp()).ok().filter(|at| *at > 0)
    };
    read().ok_or_else(not)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGEST: &str = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    #[test]
    fn lines_are_read() {
        let digest = digest_of(b"test");
        assert_eq!(digest_text(&digest), DIGEST);
        let bare = Line {
            digest,
            consumer: "app",
            expires_s: 0,
            scopes: vec![],
            groups: None,
            plan: None,
        };
        for (line, expected) in [
            ("", None),
            ("  # only a comment", None),
            (&format!("{DIGEST} app"), Some(bare.clone())),
            (&format!("\t{} app # expires=x", &DIGEST[7..].to_uppercase()), Some(bare.clone())),
            (
                &format!("{DIGEST} app expires=1970-01-02 scopes=a,b,,c plan=gold groups=x #y"),
                Some(Line {
                    expires_s: 86400,
                    scopes: vec!["a", "b", "c"],
                    groups: Some(vec!["x"]),
                    plan: Some("gold"),
                    ..bare.clone()
                }),
            ),
            (
                &format!("{DIGEST} app expires=2027-01-31T12:00:01Z"),
                Some(Line { expires_s: 1_801_396_801, ..bare }),
            ),
        ] {
            assert_eq!(read_line(line), Ok(expected), "{line}");
        }
        let own = format!("{DIGEST} scopes=a");
        assert_eq!(read_own(&own).map(|line| line.scopes), Ok(vec!["a"]));
    }

    #[test]
    fn what_is_wrong_with_a_line_is_told_without_the_key() {
        let key = make((0..).take(64)).expect("enough");
        for (line, expected) in [
            (format!("{key} app"), "has a key itself"),
            ("secret-of-somebody app".to_owned(), "does not begin with a digest"),
            (format!("{} app", &DIGEST[..70]), "does not begin with a digest"),
            (format!("{}g app", &DIGEST[..70]), "does not begin with a digest"),
            (format!("sha512:{} app", &DIGEST[7..]), "does not begin with a digest"),
            (DIGEST.to_owned(), "names no consumer"),
            (format!("{DIGEST} # app"), "names no consumer"),
            (format!("{DIGEST} scopes=a"), "names no consumer"),
            (format!("{DIGEST} app scope=a"), "has `scope`; what may be said are expires"),
            (format!("{DIGEST} a\u{b}pp"), "has a control character"),
            (format!("{DIGEST} app groups=a\0b"), "has a control character"),
            (format!("{DIGEST} app gold"), "has `gold`, which is no NAME=VALUE"),
            (format!("{DIGEST} app plan="), "has `plan=`, which is no NAME=VALUE"),
            (format!("{DIGEST} app expires=2027-02-30"), "has `expires=2027-02-30`; write"),
            (format!("{DIGEST} app expires=1970-01-01"), "has `expires="),
            (format!("{DIGEST} app expires=2027-01-31T12:00Z"), "has `expires="),
            (format!("{DIGEST} app expires=2027-01-31T12:00:00+01:00"), "has `expires="),
            (format!("{DIGEST} app expires=+027-01-31"), "has `expires="),
            (format!("{DIGEST} app expires=9027-01-31"), "has `expires="),
        ] {
            let told = read_line(&line).expect_err(&line);
            assert!(told.starts_with(expected), "{line}: {told}");
            assert!(!told.contains(&key[5..]) && !told.contains("secret-of"), "{told}");
        }
        let told = read_own(&format!("{DIGEST} plan=x")).expect_err("a plan");
        assert!(told.contains("keys of the consumer"), "{told}");
        assert!(read_own("").is_err());
    }

    #[test]
    fn a_key_that_was_not_copied_in_whole_is_known() {
        assert_eq!(make([255; 100].into_iter()), None, "no letter for any byte");
        let key = make((0..=255).cycle().take(100)).expect("enough");
        assert_eq!(key.len(), 41);
        assert_eq!(is_whole(&key), Some(true));
        assert_eq!(is_whole(&key[..40]), Some(false));
        assert_eq!(is_whole("rw_"), Some(false));
        assert_eq!(is_whole("another"), None);
        // The check value of this CRC.
        assert_eq!(checksum("123456789"), {
            let mut rest = 0xcbf4_3926u32;
            let mut text = Vec::new();
            for _ in 0..6 {
                text.insert(0, char::from(LETTERS[(rest % 62) as usize]));
                rest /= 62;
            }
            String::from_iter(text)
        });
    }

    proptest! {
        #[test]
        fn one_wrong_letter_shows(random in prop::collection::vec(0u8..62, 32), at in 3usize..41) {
            let key = make(random).expect("enough");
            let mut wrong = key.into_bytes();
            wrong[at] = if wrong[at] == b'x' { b'y' } else { b'x' };
            let wrong = String::from_utf8(wrong).expect("letters");
            prop_assert_eq!(is_whole(&wrong), Some(false));
        }

        #[test]
        fn no_line_panics(line in "\\PC{0,120}") {
            let _ = read_line(&line);
            let _ = read_own(&line);
        }
    }
}
