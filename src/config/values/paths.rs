//! Methods, paths and regular expressions.

use regex::bytes::Regex;

use super::{Bad, FromText, bad, is_token};
use crate::config::decode::quoted;

/// A request method a route may be limited to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MethodName(pub String);

impl FromText for MethodName {
    const WHAT: &'static str = "a request method";
    const EXAMPLE: &'static str = "GET";

    fn read(text: &str) -> Result<Self, Bad> {
        let upper = text.to_ascii_uppercase();
        if !is_token(text) {
            return bad("not a method", "write a method such as \"GET\"");
        }
        if matches!(&*upper, "CONNECT" | "TRACE") {
            return bad("never served by this gateway", "remove it");
        }
        let known = crate::wire::Method::KNOWN.iter().any(|(_, name)| *name == upper);
        if text != upper && known {
            return bad("methods are case-sensitive", format!("write \"{upper}\""));
        }
        Ok(MethodName(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// A path without parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathText(pub String);

impl FromText for PathText {
    const WHAT: &'static str = "a path that begins with /";
    const EXAMPLE: &'static str = "/api";

    fn read(text: &str) -> Result<Self, Bad> {
        check_path(text)?;
        if text.ends_with("/*") || text.ends_with("/**") {
            let prefix = text.trim_end_matches('*').trim_end_matches('/');
            let prefix = if prefix.is_empty() { "/" } else { prefix };
            return bad(
                "`*` has no meaning here",
                format!("write path = \"{prefix}\": it takes everything below too"),
            );
        }
        if text.contains(['{', '}']) {
            return bad(
                "parameters have no meaning here",
                format!("write path_template = {}", quoted(text)),
            );
        }
        Ok(PathText(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

fn check_path(text: &str) -> Result<(), Bad> {
    if let Some((_, rest)) = text.split_once("://") {
        let path = rest.find('/').map_or("/", |at| &rest[at..]);
        return bad("a URL", format!("write {}", quoted(path)));
    }
    if !text.starts_with('/') {
        return bad("begins with something else", format!("write {}", quoted(&format!("/{text}"))));
    }
    if let Some(at) = text.find(['?', '#']) {
        let fix = format!("write {}; parameters are matched with `query`", quoted(&text[..at]));
        return bad("has a query or fragment", fix);
    }
    if text.bytes().any(|b| b <= b' ' || b == 0x7f) {
        return bad("has a blank or control character", "write it percent-encoded: a blank is %20");
    }
    Ok(())
}

/// A path with parameters; what they may be depends on where it stands and is checked there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathTemplate(pub String);

impl FromText for PathTemplate {
    const WHAT: &'static str = "a path that begins with /";
    const EXAMPLE: &'static str = "/users/{id}";

    fn read(text: &str) -> Result<Self, Bad> {
        check_path(text)?;
        Ok(PathTemplate(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

fn regex(text: &str) -> Result<Regex, Bad> {
    Regex::new(text).map_err(|error| {
        let message = error.to_string();
        let last = message.lines().last().unwrap_or_default().trim();
        let label = last.strip_prefix("error: ").unwrap_or(last).to_owned();
        let fix = if label.contains("look-around") || label.contains("backreference") {
            "write it without look-around and backreferences: matching takes linear time here"
        } else {
            "write the expression in single quotation marks, so that \\ stands for itself: '/v[0-9]+/.*'"
        };
        Bad { label, fix: fix.to_owned() }
    })
}

/// A regular expression for a whole path.
#[derive(Clone, Debug)]
pub struct PathRegex {
    pub text: String,
    pub regex: Regex,
}

impl FromText for PathRegex {
    const WHAT: &'static str = "a regular expression";
    const EXAMPLE: &'static str = "/v[0-9]+/.*";

    fn read(text: &str) -> Result<Self, Bad> {
        Ok(PathRegex { text: text.to_owned(), regex: regex(text)? })
    }

    fn show(&self) -> String {
        self.text.clone()
    }
}

/// A regular expression for a whole field or parameter value.
#[derive(Clone, Debug)]
pub struct ValueRegex(pub PathRegex);

impl FromText for ValueRegex {
    const WHAT: &'static str = "a regular expression";
    const EXAMPLE: &'static str = "blue|green";

    fn read(text: &str) -> Result<Self, Bad> {
        PathRegex::read(text).map(ValueRegex)
    }

    fn show(&self) -> String {
        self.0.show()
    }
}
