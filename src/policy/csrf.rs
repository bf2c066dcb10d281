//! Requests that a page of another site makes a browser do (CSRF): the browser itself says where
//! they were made, in Sec-Fetch-Site (Fetch Metadata), Origin (RFC 6454 §7) or Referer
//! (RFC 9110 §10.1.3), in that order.
//!
//! Hosts are compared and schemes are not, because the scheme of what is in front of this gateway
//! need not be its own. A browser that says nothing of all three makes no such requests across
//! sites; other programs say nothing, and have no cookies of somebody else's.

use super::{cors::preflight::single, route::RequestView};
use crate::wire::Method;

/// What is asked of requests that may change something.
#[derive(Clone, Debug)]
pub struct Csrf {
    /// Origins whose pages may make them too.
    pub origins: Box<[Box<str>]>,
    /// Requests that say nothing are refused too.
    pub required: bool,
    /// What would be refused is told, and served.
    pub shadow: bool,
}

impl Csrf {
    /// Whether a request was made by a page that may not make it; `authority` is the host that was
    /// asked, with the port if one was given.
    pub fn refuse(&self, request: &RequestView<'_>, authority: &[u8]) -> bool {
        let is_safe = matches!(request.method, Method::Get | Method::Head | Method::Options);
        // A WebSocket begins with a GET, and a page may open one to any site.
        if is_safe && !request.head.connection.upgrade {
            return false;
        }
        is_foreign(request, authority, |origin| self.knows(origin)).unwrap_or(self.required)
    }

    fn knows(&self, origin: &[u8]) -> bool {
        self.origins.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(origin))
    }
}

/// Whether a page of another site made the browser do this, unless `knows` says that its origin
/// may; `None`: the request does not say where it was made.
pub fn is_foreign(
    request: &RequestView<'_>,
    authority: &[u8],
    knows: impl Fn(&[u8]) -> bool,
) -> Option<bool> {
    let field = |name| single(request.head, request.buf, name);
    let origin = field(b"origin");
    let is_known = origin.is_some_and(&knows);
    match field(b"sec-fetch-site") {
        // "none": the user's own doing, such as a bookmark.
        Some(b"same-origin" | b"none") => return Some(false),
        Some(_) => return Some(!is_known),
        None => {}
    }
    let is_own = |url: &[u8]| host_of(url).is_some_and(|host| is_same(host, authority));
    if let Some(origin) = origin {
        return Some(!(is_known || is_own(origin)));
    }
    match field(b"referer") {
        Some(page) => Some(!(is_own(page) || origin_of(page).is_some_and(knows))),
        None => is_ambiguous(request).then_some(true),
    }
}

/// A field that is there several times says nothing that could be believed.
fn is_ambiguous(request: &RequestView<'_>) -> bool {
    const NAMES: [&[u8]; 3] = [b"sec-fetch-site", b"origin", b"referer"];
    request.head.fields.iter().any(|field| {
        let name = field.name.of(request.buf);
        NAMES.iter().any(|one| name.eq_ignore_ascii_case(one))
    })
}

/// Scheme, host and port of a URL.
fn origin_of(url: &[u8]) -> Option<&[u8]> {
    let start = memchr::memmem::find(url, b"://")? + 3;
    let end = url[start..].iter().position(|b| b"/?#".contains(b));
    Some(&url[..end.map_or(url.len(), |end| start + end)])
}

fn host_of(url: &[u8]) -> Option<&[u8]> {
    let origin = origin_of(url)?;
    let start = memchr::memmem::find(origin, b"://")? + 3;
    let host = &origin[start..];
    // What stands before an @ is no host; browsers write none.
    (!host.is_empty() && !host.contains(&b'@')).then_some(host)
}

/// Whether two hosts are the same; the usual ports may be written or not.
fn is_same(host: &[u8], authority: &[u8]) -> bool {
    fn bare(host: &[u8]) -> &[u8] {
        host.strip_suffix(b":443").or_else(|| host.strip_suffix(b":80")).unwrap_or(host)
    }
    !authority.is_empty() && bare(host).eq_ignore_ascii_case(bare(authority))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{HeadLimits, Parsed, RequestHead};

    fn refused(rule: &Csrf, method: &str, fields: &str) -> bool {
        let fields = fields.replace('|', "\r\n");
        let end = if fields.is_empty() { "" } else { "\r\n" };
        let buf =
            format!("{method} / HTTP/1.1\r\nHost: App.test\r\n{fields}{end}\r\n").into_bytes();
        let limits = HeadLimits { head_bytes_max: 8192, target_bytes_max: 1024, fields_max: 50 };
        let mut head = RequestHead::default();
        assert_eq!(head.parse(&buf, &limits), Ok(Parsed::Complete(())));
        let request = RequestView {
            method: head.method,
            method_text: head.method_text.of(&buf),
            host: b"App.test",
            path: b"/",
            query: None,
            head: &head,
            buf: &buf,
        };
        rule.refuse(&request, head.authority.of(&buf))
    }

    #[test]
    fn where_requests_were_made() {
        let rule = |required| Csrf {
            origins: ["https://admin.test".into()].into(),
            required,
            shadow: false,
        };
        for (fields, is_refused) in [
            ("", false),
            ("Sec-Fetch-Site: same-origin", false),
            ("Sec-Fetch-Site: none", false),
            ("Sec-Fetch-Site: same-site", true),
            ("Sec-Fetch-Site: cross-site", true),
            ("Sec-Fetch-Site: cross-site|Origin: https://admin.test", false),
            ("Sec-Fetch-Site: cross-site|Origin: https://app.test", true),
            ("Sec-Fetch-Site: same-site|Sec-Fetch-Site: same-origin", true),
            ("Origin: https://app.test", false),
            ("Origin: http://app.test:80", false),
            ("Origin: https://app.test:8443", true),
            ("Origin: https://app.test.evil.test", true),
            ("Origin: https://app.test@evil.test", true),
            ("Origin: https://admin.test", false),
            ("Origin: http://admin.test", true),
            ("Origin: null", true),
            ("Origin: https://app.test|Origin: https://evil.test", true),
            ("Referer: https://app.test/form?x", false),
            ("Referer: https://evil.test/https://app.test/", true),
            ("Referer: https://admin.test/form", false),
            ("Referer: about:blank", true),
        ] {
            assert_eq!(refused(&rule(false), "POST", fields), is_refused, "{fields}");
            assert!(!refused(&rule(true), "GET", fields), "{fields}");
        }
        assert!(refused(&rule(true), "DELETE", ""));
        let websocket = "Connection: Upgrade|Upgrade: websocket|Origin: ";
        for (origin, is_refused) in [("https://app.test", false), ("https://evil.test", true)] {
            let fields = format!("{websocket}{origin}");
            assert_eq!(refused(&rule(false), "GET", &fields), is_refused, "{origin}");
        }
        assert!(refused(&rule(true), "PROPFIND", "Origin: https://evil.test"));
    }
}
