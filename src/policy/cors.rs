//! Cross-origin resource sharing (Fetch §3.3, "CORS protocol"): which pages of other origins may
//! use a route, and what browsers are told of it.
//!
//! Invariant: where the answer depends on who asks, it says so (`Vary`), also to those who are not
//! allowed, so that no cache gives one page's answer to another.

pub mod preflight;

use regex::bytes::Regex;

use self::preflight::Preflight;
use super::refusal;
use crate::wire::{Reason, emit};

/// What a route tells browsers.
#[derive(Clone, Debug)]
pub struct Cors {
    pub origins: Origins,
    pub methods: Methods,
    pub headers: Headers,
    /// Cookies and other credentials may be sent, and the response read.
    pub credentials: bool,
    /// Value of Access-Control-Expose-Headers; empty: none.
    pub expose: Box<str>,
    /// How long a browser may remember the answer to a preflight.
    pub max_age_s: u32,
    /// Pages of public networks may use it although it is in a private one.
    pub private_network: bool,
    /// An upstream that speaks of CORS itself has the last word; else what it says is left out.
    pub keeps_upstreams: bool,
}

/// Origins whose pages may read.
#[derive(Clone, Debug)]
pub enum Origins {
    /// Every page.
    Any,
    Some(Box<[Origin]>),
}

/// An origin, as a browser writes it: in lower case, without the scheme's usual port.
#[derive(Clone, Debug)]
pub enum Origin {
    Exact(Box<str>),
    /// Any name below a host: what comes before the name (`https://`) and behind it
    /// (`.example.com:8443`).
    Below {
        before: Box<str>,
        behind: Box<str>,
    },
    /// The whole origin.
    Regex(Regex),
}

/// Methods that a preflight may ask for.
#[derive(Clone, Debug)]
pub struct Methods {
    pub names: Box<[Box<str>]>,
    /// `names`, as a field's value.
    pub value: Box<str>,
}

/// Request fields that a preflight may ask for.
#[derive(Clone, Debug)]
pub enum Headers {
    /// All: what is asked for is allowed by name, which also holds with credentials.
    Any,
    Some {
        /// In lower case.
        names: Box<[Box<str>]>,
        /// As a field's value.
        value: Box<str>,
    },
}

impl Origin {
    fn is(&self, origin: &[u8]) -> bool {
        match self {
            Origin::Exact(exact) => exact.as_bytes() == origin,
            Origin::Regex(regex) => regex.is_match(origin),
            Origin::Below { before, behind } => {
                let rest = origin.strip_prefix(before.as_bytes());
                let name = rest.and_then(|rest| rest.strip_suffix(behind.as_bytes()));
                let is_name = |b: &u8| b.is_ascii_alphanumeric() || b"-_.".contains(b);
                name.is_some_and(|name| !name.is_empty() && name.iter().all(is_name))
            }
        }
    }
}

impl Origins {
    pub fn allow(&self, origin: &[u8]) -> bool {
        match self {
            Origins::Any => true,
            Origins::Some(origins) => origins.iter().any(|allowed| allowed.is(origin)),
        }
    }
}

impl Cors {
    /// Whether every page gets the same answer.
    fn is_same_for_all(&self) -> bool {
        matches!(self.origins, Origins::Any)
    }

    /// Lines for the response to a request that is no preflight, by a page of `origin`.
    pub fn fields(&self, origin: Option<&[u8]>, out: &mut Vec<u8>) {
        if !self.is_same_for_all() {
            out.extend_from_slice(b"Vary: Origin\r\n");
        }
        if self.allow(origin, out) && !self.expose.is_empty() {
            emit::field(out, b"Access-Control-Expose-Headers", self.expose.as_bytes());
        }
    }

    /// What both kinds of answers say of the origin. Answers whether it is allowed.
    fn allow(&self, origin: Option<&[u8]>, out: &mut Vec<u8>) -> bool {
        if self.is_same_for_all() {
            // Also without an origin: what a cache keeps is then for everybody.
            emit::field(out, b"Access-Control-Allow-Origin", b"*");
            return true;
        }
        let Some(origin) = origin.filter(|origin| self.origins.allow(origin)) else { return false };
        emit::field(out, b"Access-Control-Allow-Origin", origin);
        if self.credentials {
            emit::field(out, b"Access-Control-Allow-Credentials", b"true");
        }
        true
    }

    /// Lines for the answer to a preflight, or why it is refused.
    pub fn preflight(
        &self,
        asked: &Preflight<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), &'static Reason> {
        if !self.origins.allow(asked.origin) {
            return Err(refusal::CORS_ORIGIN);
        }
        if !self.methods.names.iter().any(|name| name.as_bytes() == asked.method) {
            return Err(refusal::CORS_METHOD);
        }
        if let Headers::Some { names, .. } = &self.headers
            && !asked.headers().all(|asked| is_named(names, asked))
        {
            return Err(refusal::CORS_HEADERS);
        }
        out.extend_from_slice(
            b"Vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers\r\n",
        );
        self.allow(Some(asked.origin), out);
        emit::field(out, b"Access-Control-Allow-Methods", self.methods.value.as_bytes());
        match &self.headers {
            Headers::Some { value, .. } if value.is_empty() => {}
            Headers::Some { value, .. } => {
                emit::field(out, b"Access-Control-Allow-Headers", value.as_bytes());
            }
            Headers::Any => {
                let names: Vec<&[u8]> = asked.headers().collect();
                if !names.is_empty() {
                    emit::field(out, b"Access-Control-Allow-Headers", &names.join(&b", "[..]));
                }
            }
        }
        if self.private_network && asked.private_network {
            emit::field(out, b"Access-Control-Allow-Private-Network", b"true");
        }
        out.extend_from_slice(b"Access-Control-Max-Age: ");
        emit::number(out, u64::from(self.max_age_s));
        out.extend_from_slice(b"\r\n");
        Ok(())
    }
}

fn is_named(names: &[Box<str>], asked: &[u8]) -> bool {
    names.iter().any(|name| name.as_bytes().eq_ignore_ascii_case(asked))
}

#[cfg(test)]
mod tests;
