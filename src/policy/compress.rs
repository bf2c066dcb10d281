//! Content codings: which one a response gets (RFC 9110 §12.5.3), and which responses get one.

/// A content coding that is spoken here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    Gzip,
    Brotli,
    Zstd,
}

/// How much work compressing may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Effort {
    Fast,
    #[default]
    Usual,
    Best,
}

/// Compression of responses.
#[derive(Clone, Debug)]
pub struct Compress {
    /// Those offered, the preferred one first.
    pub codings: Box<[Coding]>,
    pub types: Box<[MediaRange]>,
    /// A body that is known to be shorter stays as it is.
    pub bytes_min: u64,
    pub effort: Effort,
}

/// Decompression of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decompress {
    /// Bytes that a body may become.
    pub bytes_max: u64,
    /// Bytes that one byte may become, beyond the first [`RATIO_FREE_BYTES`].
    pub ratio_max: u32,
}

/// What a body may become whatever its ratio: short ones have high ones.
pub const RATIO_FREE_BYTES: u64 = 64 * 1024;

/// A media type, or all of one kind (`text/*`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaRange {
    kind: Box<str>,
    /// `None`: any.
    name: Option<Box<str>>,
}

impl Coding {
    pub const ALL: [Coding; 3] = [Coding::Zstd, Coding::Brotli, Coding::Gzip];

    /// Its name in fields.
    pub fn name(self) -> &'static str {
        match self {
            Coding::Gzip => "gzip",
            Coding::Brotli => "br",
            Coding::Zstd => "zstd",
        }
    }

    /// The one called `name`, in any letter case.
    pub fn named(name: &[u8]) -> Option<Coding> {
        if name.eq_ignore_ascii_case(b"x-gzip") {
            return Some(Coding::Gzip);
        }
        Coding::ALL.into_iter().find(|coding| name.eq_ignore_ascii_case(coding.name().as_bytes()))
    }
}

impl MediaRange {
    /// `None` for what is none.
    pub fn parse(text: &str) -> Option<MediaRange> {
        let (kind, name) = text.split_once('/')?;
        let is_word = |text: &str| {
            !text.is_empty()
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b))
        };
        if !is_word(kind) || !(name == "*" || is_word(name)) {
            return None;
        }
        let name = (name != "*").then(|| name.to_ascii_lowercase().into());
        Some(MediaRange { kind: kind.to_ascii_lowercase().into(), name })
    }

    /// Whether a media type without parameters is in it.
    pub fn takes(&self, media: &[u8]) -> bool {
        let slash = memchr::memchr(b'/', media).unwrap_or(media.len());
        self.has(&media[..slash], media.get(slash + 1..).unwrap_or_default())
    }

    fn has(&self, kind: &[u8], name: &[u8]) -> bool {
        !name.is_empty()
            && kind.eq_ignore_ascii_case(self.kind.as_bytes())
            && self.name.as_ref().is_none_or(|own| name.eq_ignore_ascii_case(own.as_bytes()))
    }
}

impl std::fmt::Display for MediaRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.kind, self.name.as_deref().unwrap_or("*"))
    }
}

/// What is known of a response that might be compressed.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    pub status: u16,
    pub media_type: &'a [u8],
    pub length: Option<u64>,
    /// It has a coding already.
    pub is_encoded: bool,
    /// The values of Cache-Control.
    pub cache_control: &'a [u8],
}

impl Compress {
    /// Whether a response is for compressing at all: then Vary says that it depends on the request.
    pub fn concerns(&self, response: &Response<'_>) -> bool {
        let media = response.media_type.split(|b| *b == b';').next().unwrap_or_default();
        let media = media.trim_ascii();
        let slash = memchr::memchr(b'/', media).unwrap_or(media.len());
        let (kind, name) = (&media[..slash], media.get(slash + 1..).unwrap_or_default());
        // Of 206 the client wants bytes as they are; 204 and 205 have none.
        (200..600).contains(&response.status)
            && !matches!(response.status, 204..=206 | 304)
            && !response.is_encoded
            && response.length.is_none_or(|length| length >= self.bytes_min)
            && self.types.iter().any(|range| range.has(kind, name))
            && !has_word(response.cache_control, b"no-transform")
    }

    /// The coding for a client that accepts `accepted` (the values of Accept-Encoding): of those
    /// it likes best the one that is preferred here; `None` when it likes none better.
    pub fn choose(&self, accepted: &[u8]) -> Option<Coding> {
        let quality = |coding: Coding| quality(accepted, coding);
        let best = self.codings.iter().copied().map(quality).max().filter(|best| *best > 0)?;
        if best < quality_of(accepted, b"identity").unwrap_or(0) {
            return None;
        }
        self.codings.iter().copied().find(|coding| quality(*coding) == best)
    }
}

/// How much a coding is liked, in thousandths; 0 is not at all.
fn quality(accepted: &[u8], coding: Coding) -> u16 {
    let own = quality_of(accepted, coding.name().as_bytes());
    let own =
        own.or_else(|| (coding == Coding::Gzip).then(|| quality_of(accepted, b"x-gzip")).flatten());
    own.or_else(|| quality_of(accepted, b"*")).unwrap_or(0)
}

fn quality_of(accepted: &[u8], wanted: &[u8]) -> Option<u16> {
    accepted.split(|b| *b == b',').find_map(|item| {
        let mut parts = item.split(|b| *b == b';').map(<[u8]>::trim_ascii);
        let name = parts.next()?;
        if !name.eq_ignore_ascii_case(wanted) {
            return None;
        }
        let weight = parts.find_map(|part| {
            let (name, value) = part.split_at_checked(2)?;
            name.eq_ignore_ascii_case(b"q=").then_some(value)
        });
        Some(weight.map_or(1000, thousandths))
    })
}

/// A weight (RFC 9110 §12.4.2); anything else counts for nothing.
fn thousandths(text: &[u8]) -> u16 {
    let (whole, rest) = match text {
        [whole @ (b'0' | b'1')] => (whole, &b""[..]),
        [whole @ (b'0' | b'1'), b'.', rest @ ..] if rest.len() <= 3 => (whole, rest),
        _ => return 0,
    };
    if !rest.iter().all(u8::is_ascii_digit) {
        return 0;
    }
    let digit = |at: usize| rest.get(at).map_or(0, |b| u16::from(b - b'0'));
    let value = u16::from(whole - b'0') * 1000 + digit(0) * 100 + digit(1) * 10 + digit(2);
    if value > 1000 { 0 } else { value }
}

fn has_word(list: &[u8], word: &[u8]) -> bool {
    list.split(|b| *b == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(word))
}

impl Decompress {
    /// What a body may be decoded to, of which `received` bytes have come.
    pub fn most(&self, received: u64) -> u64 {
        let by_ratio = received.saturating_mul(u64::from(self.ratio_max));
        self.bytes_max.min(by_ratio.max(RATIO_FREE_BYTES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> Compress {
        let types = ["text/*", "application/json"];
        Compress {
            codings: Coding::ALL.into(),
            types: types.iter().filter_map(|text| MediaRange::parse(text)).collect(),
            bytes_min: 100,
            effort: Effort::Usual,
        }
    }

    #[test]
    fn codings_are_chosen_as_the_client_likes() {
        for (accepted, expected) in [
            ("", None),
            ("gzip", Some(Coding::Gzip)),
            ("GZIP", Some(Coding::Gzip)),
            ("x-gzip", Some(Coding::Gzip)),
            ("gzip, deflate, br, zstd", Some(Coding::Zstd)),
            ("gzip;q=1.0, br;q=0.9", Some(Coding::Gzip)),
            ("gzip;q=0, br;q=0.001", Some(Coding::Brotli)),
            ("gzip;q=0", None),
            ("*", Some(Coding::Zstd)),
            ("*;q=0", None),
            ("zstd;q=0, *;q=0.5", Some(Coding::Brotli)),
            ("identity, gzip;q=0.5", None),
            ("identity;q=0.5, gzip;q=0.5", Some(Coding::Gzip)),
            ("identity;q=0", None),
            ("gzip;q=2", None),
            ("gzip;q=0.1234", None),
            ("gzip ; Q=0.5 ,br;q=0.4", Some(Coding::Gzip)),
            ("deflate, compress", None),
            ("gzipx", None),
            (",,;q=1,", None),
        ] {
            assert_eq!(rule().choose(accepted.as_bytes()), expected, "{accepted}");
        }
    }

    #[test]
    fn what_is_compressed() {
        let plain = Response {
            status: 200,
            media_type: b"text/html; charset=utf-8",
            length: None,
            is_encoded: false,
            cache_control: b"",
        };
        for (response, expected) in [
            (plain, true),
            (Response { media_type: b"Application/JSON", ..plain }, true),
            (Response { media_type: b"application/jsonx", ..plain }, false),
            (Response { media_type: b"image/png", ..plain }, false),
            (Response { media_type: b"text", ..plain }, false),
            (Response { media_type: b"", ..plain }, false),
            (Response { length: Some(99), ..plain }, false),
            (Response { length: Some(100), ..plain }, true),
            (Response { status: 206, ..plain }, false),
            (Response { status: 304, ..plain }, false),
            (Response { status: 404, ..plain }, true),
            (Response { is_encoded: true, ..plain }, false),
            (Response { cache_control: b"public, No-Transform", ..plain }, false),
        ] {
            assert_eq!(rule().concerns(&response), expected, "{response:?}");
        }
    }

    #[test]
    fn media_ranges() {
        for none in ["", "text", "text/", "/x", "*/*", "te xt/x", "text/x y", "text/x;q=1"] {
            assert_eq!(MediaRange::parse(none), None, "{none}");
        }
    }

    #[test]
    fn bombs_are_stopped() {
        let rule = Decompress { bytes_max: 1 << 20, ratio_max: 10 };
        for (received, expected) in [
            (0, RATIO_FREE_BYTES),
            (1, RATIO_FREE_BYTES),
            (10_000, 100_000),
            (1 << 20, 1 << 20),
            (u64::MAX, 1 << 20),
        ] {
            assert_eq!(rule.most(received), expected, "{received}");
        }
    }
}
