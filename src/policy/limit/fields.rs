//! What a client is told of its limits: RateLimit and RateLimit-Policy
//! (draft-ietf-httpapi-ratelimit-headers-10), and the X-RateLimit fields that came before them.

use super::{Left, Window};

/// The fields of one limit, as far as they do not change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// `RateLimit-Policy: "api";q=100;w=1\r\n`
    policy: Box<[u8]>,
    /// `RateLimit: "api";r=`, by window.
    heads: Box<[Box<[u8]>]>,
}

impl Names {
    /// Of a limit called `name`, whose further windows have a number behind it.
    pub fn new(name: &str, windows: &[Window]) -> Names {
        let mut policy = b"RateLimit-Policy: ".to_vec();
        let mut heads = Vec::new();
        for (at, window) in windows.iter().enumerate() {
            let item = item(name, at);
            if at > 0 {
                policy.extend_from_slice(b", ");
            }
            policy.extend_from_slice(&item);
            push(&mut policy, b";q=", u64::from(window.count));
            // Whole seconds, as the draft has it; a shorter window is at least one.
            push(&mut policy, b";w=", (window.period_ns / 1_000_000_000).max(1));
            heads.push([b"RateLimit: ", &item[..], b";r="].concat().into());
        }
        policy.extend_from_slice(b"\r\n");
        Names { policy: policy.into(), heads: heads.into() }
    }

    /// Appends RateLimit-Policy and RateLimit.
    pub fn write(&self, left: Left, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.policy);
        let head = self.heads.get(usize::from(left.window)).map_or(&b""[..], |head| head);
        push(out, head, u64::from(left.tokens));
        push(out, b";t=", left.full_in_ns.div_ceil(1_000_000_000));
        out.extend_from_slice(b"\r\n");
    }
}

/// Appends X-RateLimit-Limit, -Remaining and -Reset (seconds).
pub fn write_old(windows: &[Window], left: Left, out: &mut Vec<u8>) {
    let limit = windows.get(usize::from(left.window)).map_or(0, |window| window.count);
    push(out, b"X-RateLimit-Limit: ", u64::from(limit));
    push(out, b"\r\nX-RateLimit-Remaining: ", u64::from(left.tokens));
    push(out, b"\r\nX-RateLimit-Reset: ", left.full_in_ns.div_ceil(1_000_000_000));
    out.extend_from_slice(b"\r\n");
}

/// A name as a string of structured fields (RFC 9651 §3.3.3). Names of limits have no character
/// that it cannot hold: the configuration ensures it.
fn item(name: &str, window: usize) -> Vec<u8> {
    match window {
        0 => format!("\"{name}\"").into_bytes(),
        window => format!("\"{name}-{}\"", window + 1).into_bytes(),
    }
}

fn push(out: &mut Vec<u8>, before: &[u8], number: u64) {
    out.extend_from_slice(before);
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_as_the_draft_has_them() {
        let windows =
            [Window::new(100, 1_000_000_000, 50), Window::new(1000, 3_600_000_000_000, 9)];
        let names = Names::new("api", &windows);
        for (left, expected) in [
            (
                Left { tokens: 49, full_in_ns: 10_000_000, ..Left::default() },
                "RateLimit-Policy: \"api\";q=100;w=1, \"api-2\";q=1000;w=3600\r\n\
                 RateLimit: \"api\";r=49;t=1\r\n",
            ),
            (
                Left { full_in_ns: 2_000_000_001, window: 1, ..Left::default() },
                "RateLimit-Policy: \"api\";q=100;w=1, \"api-2\";q=1000;w=3600\r\n\
                 RateLimit: \"api-2\";r=0;t=3\r\n",
            ),
        ] {
            let mut out = Vec::new();
            names.write(left, &mut out);
            assert_eq!(String::from_utf8_lossy(&out), expected);
        }
        let mut out = Vec::new();
        let left = Left { tokens: 7, full_in_ns: 1, window: 1, ..Left::default() };
        write_old(&windows, left, &mut out);
        assert_eq!(
            String::from_utf8_lossy(&out),
            "X-RateLimit-Limit: 1000\r\nX-RateLimit-Remaining: 7\r\nX-RateLimit-Reset: 1\r\n"
        );
    }
}
