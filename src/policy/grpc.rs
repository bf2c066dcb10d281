//! What a gateway has to know of gRPC (gRPC over HTTP/2, the protocol's own document): which
//! requests are such, how long they may take, and how errors are told.

use super::Refusal;
use crate::policy::refusal;

/// How a request speaks gRPC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Grpc {
    /// It does not.
    #[default]
    No,
    /// Over HTTP/2, with trailers.
    Native,
    /// As browsers do (gRPC-Web): trailers are the last frame of the body.
    Web,
    /// The same, in base64.
    WebText,
}

impl Grpc {
    /// Of a request with this Content-Type.
    pub fn of(content_type: &[u8]) -> Grpc {
        let Some(rest) = strip(content_type, b"application/grpc") else { return Grpc::No };
        let is_end = |rest: &[u8]| matches!(rest.first(), None | Some(b'+' | b';' | b' '));
        if strip(rest, b"-web-text").is_some_and(is_end) {
            return Grpc::WebText;
        }
        match strip(rest, b"-web") {
            Some(rest) if is_end(rest) => Grpc::Web,
            None if is_end(rest) => Grpc::Native,
            _ => Grpc::No,
        }
    }

    pub fn is_web(self) -> bool {
        matches!(self, Grpc::Web | Grpc::WebText)
    }

    /// Content-Type of responses that the gateway makes.
    pub fn content_type(self) -> &'static str {
        match self {
            Grpc::No => "",
            Grpc::Native => "application/grpc",
            Grpc::Web => "application/grpc-web+proto",
            Grpc::WebText => "application/grpc-web-text+proto",
        }
    }
}

fn strip<'t>(text: &'t [u8], prefix: &[u8]) -> Option<&'t [u8]> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// The value of `grpc-timeout` in milliseconds, rounded up; `None` when it is none.
pub fn timeout_ms(value: &[u8]) -> Option<u64> {
    const DIGITS_MAX: usize = 8;
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > DIGITS_MAX || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0u64, |number, digit| number * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Some(number * 3_600_000),
        b'M' => Some(number * 60_000),
        b'S' => Some(number * 1000),
        b'm' => Some(number),
        b'u' => Some(number.div_ceil(1000)),
        b'n' => Some(number.div_ceil(1_000_000)),
        _ => None,
    }
}

/// The code that tells a client of `refusal` (`grpc-status`). As clients map statuses of HTTP
/// themselves, but for what is told apart here.
pub fn status(refusal: Refusal) -> u8 {
    const DEADLINE_EXCEEDED: u8 = 4;
    const PERMISSION_DENIED: u8 = 7;
    const RESOURCE_EXHAUSTED: u8 = 8;
    const UNIMPLEMENTED: u8 = 12;
    const INTERNAL: u8 = 13;
    const UNAVAILABLE: u8 = 14;
    const UNAUTHENTICATED: u8 = 16;
    if refusal.reason == refusal::UPSTREAM_CONNECT_TIMEOUT {
        return UNAVAILABLE;
    }
    match refusal.reason.status {
        401 => UNAUTHENTICATED,
        403 => PERMISSION_DENIED,
        404 | 405 | 421 => UNIMPLEMENTED,
        408 | 504 => DEADLINE_EXCEEDED,
        413 | 431 | 429 => RESOURCE_EXHAUSTED,
        502 | 503 => UNAVAILABLE,
        _ => INTERNAL,
    }
}

/// `text`, which is ASCII, as `grpc-message` has it.
pub fn message(text: &str) -> String {
    text.replace('%', "%25")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{policy::refusal::POLICY_REASONS, wire::reason::WIRE_REASONS};

    #[test]
    fn content_types() {
        for (text, wanted) in [
            ("application/grpc", Grpc::Native),
            ("application/grpc+proto", Grpc::Native),
            ("Application/gRPC;charset=x", Grpc::Native),
            ("application/grpc-web", Grpc::Web),
            ("application/grpc-web+proto", Grpc::Web),
            ("application/grpc-web-text", Grpc::WebText),
            ("application/grpc-web-text+proto", Grpc::WebText),
            ("application/grpc-web-texts", Grpc::No),
            ("application/grpc-webs", Grpc::No),
            ("application/grpcs", Grpc::No),
            ("application/json", Grpc::No),
            ("", Grpc::No),
        ] {
            assert_eq!(Grpc::of(text.as_bytes()), wanted, "{text}");
        }
    }

    #[test]
    fn timeouts() {
        for (text, wanted) in [
            ("1S", Some(1000)),
            ("100m", Some(100)),
            ("99999999H", Some(99_999_999 * 3_600_000)),
            ("2M", Some(120_000)),
            ("1u", Some(1)),
            ("1001u", Some(2)),
            ("1n", Some(1)),
            ("0m", Some(0)),
            ("123456789m", None),
            ("m", None),
            ("1", None),
            ("1x", None),
            ("-1S", None),
            ("1 S", None),
            ("", None),
        ] {
            assert_eq!(timeout_ms(text.as_bytes()), wanted, "{text}");
        }
    }

    #[test]
    fn every_reason_is_told() {
        for reason in WIRE_REASONS.iter().chain(POLICY_REASONS) {
            let code = status(Refusal::from(*reason));
            assert!((1..=16).contains(&code), "{}", reason.token);
            // A field's value, without what would have to be escaped.
            assert!(message(reason.meaning).bytes().all(|b| (0x20..0x7f).contains(&b)));
        }
        assert_eq!(status(refusal::REQUEST_TIMEOUT.into()), 4);
        assert_eq!(status(refusal::UPSTREAM_CONNECT.into()), 14);
        assert_eq!(status(refusal::ROUTE_NOT_FOUND.into()), 12);
        assert_eq!(message("50% done"), "50%25 done");
    }
}
