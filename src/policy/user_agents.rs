//! Clients that are refused for what they call themselves (User-Agent, RFC 9110 §10.1.5).

use regex::bytes::RegexSet;

/// Who is refused.
#[derive(Clone, Debug)]
pub struct UserAgents {
    /// One of these is found in the field.
    pub deny: RegexSet,
    /// And none of these.
    pub allow: RegexSet,
    /// So are those without the field.
    pub required: bool,
    /// What would be refused is told, and served.
    pub shadow: bool,
}

impl UserAgents {
    pub fn refuse(&self, name: Option<&[u8]>) -> bool {
        match name.filter(|name| !name.is_empty()) {
            None => self.required,
            Some(name) => self.deny.is_match(name) && !self.allow.is_match(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let set = |patterns: &[&str]| RegexSet::new(patterns).expect("patterns");
        let rule = |required| UserAgents {
            deny: set(&["(?i)bot", "^curl/"]),
            allow: set(&["Googlebot/[0-9]"]),
            required,
            shadow: false,
        };
        for (name, is_refused) in [
            (Some("BadBot/1"), true),
            (Some("Mozilla/5.0 (compatible; Googlebot/2.1)"), false),
            (Some("Mozilla/5.0 (compatible; Googlebot)"), true),
            (Some("curl/8"), true),
            (Some("libcurl/8"), false),
            (Some("Mozilla/5.0"), false),
            (Some(""), false),
            (None, false),
        ] {
            assert_eq!(rule(false).refuse(name.map(str::as_bytes)), is_refused, "{name:?}");
        }
        assert!(rule(true).refuse(None) && rule(true).refuse(Some(b"")));
    }
}
