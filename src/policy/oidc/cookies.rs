//! Cookies of logins and sessions: their names, where they are in a request, and the lines that
//! set and clear them (RFC 6265bis §4.1).
//!
//! A session is split over several cookies, because browsers keep none that is larger than 4 KiB.
//! Over TLS names begin with `__Host-`: such a cookie comes from this host, over TLS, whatever
//! other hosts of its domain do. Each name has a `+`, which no name of a section has, so that no
//! section's cookies are another's.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{
    policy::pairs,
    wire::{RequestHead, emit},
};

/// Of one cookie's value: with its name it stays below 4096 bytes.
const VALUE_BYTES_MAX: usize = 3800;
/// Cookies of one session.
pub const PIECES_MAX: usize = 9;
/// Logins that one browser can have under way, in as many tabs.
pub const LOGINS_MAX: usize = 4;
/// Before the names of all cookies over TLS.
const HOST: &str = "__Host-";

/// The names of a section's cookies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    prefix: String,
    is_secure: bool,
}

/// A section's cookies in a request.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Shown<'r> {
    pub pieces: [Option<&'r [u8]>; PIECES_MAX],
    pub seen: Option<&'r [u8]>,
    pub logins: [Option<&'r [u8]>; LOGINS_MAX],
    /// One of them is there twice: nobody can tell which counts.
    pub is_doubled: bool,
}

/// Which cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cookie {
    Piece(usize),
    Seen,
    Login(usize),
}

/// What all cookies of a section begin with, over TLS and without it: upstreams get none of them.
pub fn prefixes(section: &str) -> [Box<[u8]>; 2] {
    [true, false].map(|is_secure| Names::of(section, is_secure).prefix.into_bytes().into())
}

impl Names {
    pub fn of(section: &str, is_secure: bool) -> Names {
        let host = if is_secure { HOST } else { "" };
        Names { prefix: format!("{host}ringway-{section}+"), is_secure }
    }

    fn name(&self, cookie: Cookie) -> String {
        match cookie {
            Cookie::Piece(at) => format!("{}{at}", self.prefix),
            Cookie::Seen => format!("{}seen", self.prefix),
            Cookie::Login(at) => format!("{}login{at}", self.prefix),
        }
    }

    /// Which cookie has a name.
    fn recognise(&self, name: &[u8]) -> Option<Cookie> {
        let number = |digit: u8, max| {
            let at = usize::from(digit.checked_sub(b'0')?);
            (at < max).then_some(at)
        };
        match name.strip_prefix(self.prefix.as_bytes())? {
            b"seen" => Some(Cookie::Seen),
            [digit] => number(*digit, PIECES_MAX).map(Cookie::Piece),
            [b'l', b'o', b'g', b'i', b'n', digit] => number(*digit, LOGINS_MAX).map(Cookie::Login),
            _ => None,
        }
    }

    /// Those of a request.
    pub fn shown<'r>(&self, head: &RequestHead, bytes: &'r [u8]) -> Shown<'r> {
        let mut shown = Shown::default();
        for field in head.fields.iter() {
            if !field.name.of(bytes).eq_ignore_ascii_case(b"cookie") {
                continue;
            }
            for (name, value) in pairs::cookies(field.value.of(bytes)) {
                let place = match self.recognise(name) {
                    Some(Cookie::Piece(at)) => &mut shown.pieces[at],
                    Some(Cookie::Seen) => &mut shown.seen,
                    Some(Cookie::Login(at)) => &mut shown.logins[at],
                    None => continue,
                };
                shown.is_doubled |= place.replace(value).is_some();
            }
        }
        shown
    }

    /// Appends the line that sets one cookie, for so many seconds.
    pub fn set(&self, out: &mut Vec<u8>, cookie: Cookie, value: &str, max_age_s: u64) {
        let name = self.name(cookie);
        let secure = if self.is_secure { "; Secure" } else { "" };
        let text =
            format!("{name}={value}; Path=/; Max-Age={max_age_s}; HttpOnly{secure}; SameSite=Lax");
        emit::field(out, b"Set-Cookie", text.as_bytes());
    }

    /// Appends the lines that set a session's cookies. `false`: it is too large, and nothing was
    /// appended.
    pub fn set_session(
        &self,
        out: &mut Vec<u8>,
        sealed: &[u8],
        (max_age_s, bytes_max): (u64, usize),
        shown: &Shown<'_>,
    ) -> bool {
        let text = URL_SAFE_NO_PAD.encode(sealed);
        let count = text.len().div_ceil(VALUE_BYTES_MAX);
        if text.len() > bytes_max || count > PIECES_MAX {
            return false;
        }
        for (at, piece) in text.as_bytes().chunks(VALUE_BYTES_MAX).enumerate() {
            let piece = str::from_utf8(piece).unwrap_or_default();
            let first = if at == 0 { format!("{count}.") } else { String::new() };
            self.set(out, Cookie::Piece(at), &format!("{first}{piece}"), max_age_s);
        }
        for at in count..PIECES_MAX {
            if shown.pieces[at].is_some() {
                self.set(out, Cookie::Piece(at), "", 0);
            }
        }
        true
    }

    /// Appends the lines that clear a session's cookies that a browser has.
    pub fn clear_session(&self, out: &mut Vec<u8>, shown: &Shown<'_>) {
        for (at, piece) in shown.pieces.iter().enumerate() {
            if piece.is_some() {
                self.set(out, Cookie::Piece(at), "", 0);
            }
        }
        if shown.seen.is_some() {
            self.set(out, Cookie::Seen, "", 0);
        }
    }

    /// Appends the lines that clear what a browser has of logins under way.
    pub fn clear_logins(&self, out: &mut Vec<u8>, shown: &Shown<'_>) {
        for at in (0..LOGINS_MAX).filter(|at| shown.logins[*at].is_some()) {
            self.set(out, Cookie::Login(at), "", 0);
        }
    }
}

impl Shown<'_> {
    /// Whether there is anything of a session.
    pub fn has_session(&self) -> bool {
        self.pieces.iter().any(Option::is_some)
    }

    /// The session as it is in its pieces, put together.
    pub fn session(&self) -> Option<Cow<'_, [u8]>> {
        if self.is_doubled {
            return None;
        }
        let (count, first) = match self.pieces[0]? {
            [digit @ b'1'..=b'9', b'.', first @ ..] => (usize::from(digit - b'0'), first),
            _ => return None,
        };
        if count == 1 {
            return Some(first.into());
        }
        let mut text = first.to_vec();
        for piece in self.pieces.get(1..count)? {
            text.extend_from_slice((*piece)?);
        }
        Some(text.into())
    }

    /// A place for another login: one that is free, or else that one.
    pub fn place_for_login(&self, else_at: usize) -> usize {
        self.logins.iter().position(Option::is_none).unwrap_or(else_at % LOGINS_MAX)
    }
}

/// What is sealed in a value.
pub fn decoded(value: &[u8]) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(value).ok()
}

/// The value of a cookie that is one piece.
pub fn encoded(sealed: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(sealed)
}
