//! A mix of requests, read from a TOML file; every error names line and column.
//!
//! ```toml
//! [[request]]
//! weight = 3
//! path = "/bytes/1024"
//! expect = { checksum = "origin" }
//!
//! [[request]]
//! method = "POST"
//! path = "/orders"
//! headers = { Content-Type = "application/json" }
//! body = "100..2000"
//! think = "50ms"
//! expect = { status = 201 }
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use http::{HeaderName, HeaderValue, Method};
use serde::Deserialize;
use toml::Spanned;

use crate::body;
use crate::request::{Expect, Template};

const REQUESTS_MAX: usize = 1000;
const WEIGHTS_MAX: u64 = 10_000;
const BODY_BYTES_MAX: u64 = 256 * 1024 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    request: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    weight: Option<Spanned<u64>>,
    method: Option<Spanned<String>>,
    path: Spanned<String>,
    #[serde(default)]
    headers: BTreeMap<Spanned<String>, Spanned<String>>,
    body: Option<Spanned<Sizes>>,
    think: Option<Spanned<String>>,
    #[serde(default)]
    expect: Expected,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    status: Option<Spanned<u16>>,
    length: Option<u64>,
    checksum: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a number of bytes, or a range such as \"100..2000\"")]
enum Sizes {
    One(u64),
    Range(String),
}

/// What is wrong at a place of the file.
struct Fault {
    at: usize,
    message: String,
}

fn fault<T>(place: &Spanned<T>, message: impl Into<String>) -> Fault {
    Fault { at: place.span().start, message: message.into() }
}

/// Reads the file; the error is one line, `FILE:LINE:COLUMN: what is wrong`.
pub fn read(path: &Path) -> Result<Vec<Template>, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| format!("{}: cannot be read: {e}", path.display()))?;
    parse(&text).map_err(|message| format!("{}:{message}", path.display()))
}

/// Reads a mix from its text; the error begins with `LINE:COLUMN: `.
pub fn parse(text: &str) -> Result<Vec<Template>, String> {
    templates(text).map_err(|Fault { at, message }| {
        let before = &text[..at.min(text.len())];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count()) + 1;
        format!("{line}:{column}: {message}")
    })
}

fn templates(text: &str) -> Result<Vec<Template>, Fault> {
    let file: File = toml::from_str(text).map_err(|e| Fault {
        at: e.span().map_or(0, |span| span.start),
        message: e.message().to_owned(),
    })?;
    if file.request.is_empty() || file.request.len() > REQUESTS_MAX {
        let message = format!("there are no requests: write 1 to {REQUESTS_MAX} of [[request]]");
        let many = format!("{} requests: at most {REQUESTS_MAX}", file.request.len());
        let message = if file.request.is_empty() { message } else { many };
        return Err(Fault { at: 0, message });
    }
    let mut weights = 0;
    let mut templates = Vec::new();
    for entry in file.request {
        weights += entry.weight.as_ref().map_or(1, |w| *w.get_ref());
        if let Some(weight) = entry.weight.as_ref().filter(|_| weights > WEIGHTS_MAX) {
            let message = format!("the weights add up to more than {WEIGHTS_MAX}: scale them down");
            return Err(fault(weight, message));
        }
        templates.push(entry.template()?);
    }
    Ok(templates)
}

impl Entry {
    fn template(self) -> Result<Template, Fault> {
        let path = self.path.get_ref();
        if !path.starts_with('/') || path.contains([' ', '\r', '\n', '#']) {
            return Err(fault(&self.path, format!("`{path}` is no path: begin it with `/`")));
        }
        if let Some(weight) = self.weight.as_ref().filter(|w| *w.get_ref() == 0) {
            return Err(fault(weight, "a weight is at least 1: leave the request out instead"));
        }
        let method = match &self.method {
            None => Method::GET,
            Some(m) => m.get_ref().parse().map_err(|_| {
                fault(m, format!("`{}` is no method: write GET, POST, ...", m.get_ref()))
            })?,
        };
        let think_ns = match &self.think {
            None => 0,
            Some(t) => duration_ns(t.get_ref()).map_err(|message| fault(t, message))?,
        };
        Ok(Template {
            weight: self.weight.as_ref().map_or(1, |w| *w.get_ref() as u32),
            method,
            fields: fields(&self.headers)?,
            body: self.body.as_ref().map(body_sizes).transpose()?,
            think_ns,
            expect: self.expect.build(path)?,
            path: self.path.into_inner(),
        })
    }
}

fn fields(
    headers: &BTreeMap<Spanned<String>, Spanned<String>>,
) -> Result<Vec<(HeaderName, HeaderValue)>, Fault> {
    let mut fields = Vec::new();
    for (name, value) in headers {
        fields.push(field(name.get_ref(), value.get_ref()).map_err(|e| fault(name, e))?);
    }
    Ok(fields)
}

/// A request field; those that the generator writes itself are refused.
pub fn field(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let parsed: HeaderName = name.parse().map_err(|_| format!("`{name}` is no field name"))?;
    let own = ["host", "content-length", "transfer-encoding", "connection"];
    if own.contains(&parsed.as_str()) {
        return Err(format!("`{name}` is written by the generator: use --host, body or --new"));
    }
    let value = value.parse().map_err(|_| format!("`{value}` is no value of a field"))?;
    Ok((parsed, value))
}

fn body_sizes(sizes: &Spanned<Sizes>) -> Result<(usize, usize), Fault> {
    let (least, most) = match sizes.get_ref() {
        Sizes::One(size) => (*size, *size),
        Sizes::Range(text) => text
            .split_once("..")
            .and_then(|(a, b)| Some((a.trim().parse().ok()?, b.trim().parse().ok()?)))
            .ok_or_else(|| {
                fault(sizes, format!("`{text}` is no range of bytes: write it as 100..2000"))
            })?,
    };
    if least > most || most > BODY_BYTES_MAX {
        let message =
            format!("{least}..{most} bytes: the first at most the second, that at most 256 MiB");
        return Err(fault(sizes, message));
    }
    Ok((least as usize, most as usize))
}

impl Expected {
    fn build(&self, path: &str) -> Result<Expect, Fault> {
        if let Some(status) = self.status.as_ref().filter(|s| !(200..600).contains(s.get_ref())) {
            return Err(fault(status, "a final status is 200 to 599"));
        }
        let status = self.status.as_ref().map_or(200, |s| *s.get_ref());
        let Some(checksum) = &self.checksum else {
            return Ok(Expect { status, length: self.length, checksum: None });
        };
        expect_checksum(status, self.length, checksum.get_ref(), path)
            .map_err(|message| fault(checksum, message))
    }
}

/// What is expected of a body with a checksum: CRC-32 in hexadecimal, or `origin` for the body that
/// `loadtest origin` sends of that length (that of `/bytes/N` is N).
pub fn expect_checksum(
    status: u16,
    length: Option<u64>,
    checksum: &str,
    path: &str,
) -> Result<Expect, String> {
    if checksum != "origin" {
        let value = u32::from_str_radix(checksum, 16)
            .map_err(|_| format!("`{checksum}` is no CRC-32: write hexadecimal, or \"origin\""))?;
        return Ok(Expect { status, length, checksum: Some(value) });
    }
    let of_path = path.split('?').next().and_then(|p| p.rsplit_once("/bytes/")?.1.parse().ok());
    let length = length
        .or(of_path)
        .ok_or("\"origin\" needs to know the length: expect one, or ask for a path /bytes/N")?;
    Ok(Expect { status, length: Some(length), checksum: Some(body::checksum(length)) })
}

/// Reads a duration such as `50ms`, `1.5s`, `200us`; nanoseconds, at most an hour.
pub fn duration_ns(text: &str) -> Result<u64, String> {
    let units = [("ms", 1e6), ("us", 1e3), ("ns", 1.0), ("s", 1e9)];
    let wrong = || format!("`{text}` is no duration: write it as 50ms, 1.5s or 200us");
    let (number, ns) = units
        .iter()
        .find_map(|(unit, ns)| Some((text.strip_suffix(unit)?, *ns)))
        .ok_or_else(wrong)?;
    let value: f64 = number.trim().parse().map_err(|_| wrong())?;
    if !(0.0..=3600e9).contains(&(value * ns)) {
        return Err(format!("`{text}` is not between 0s and 3600s"));
    }
    Ok((value * ns) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_its_documentation_shows() {
        let text = "[[request]]\nweight = 3\npath = \"/bytes/1024\"\n\
            expect = { checksum = \"origin\" }\n[[request]]\nmethod = \"POST\"\n\
            path = \"/orders\"\nheaders = { Content-Type = \"application/json\" }\n\
            body = \"100..2000\"\nthink = \"50ms\"\nexpect = { status = 201 }\n";
        let mix = parse(text).unwrap();
        assert_eq!((mix[0].weight, mix[1].weight), (3, 1));
        assert_eq!(mix[0].expect.length, Some(1024));
        assert_eq!(mix[0].expect.checksum, Some(body::checksum(1024)));
        assert_eq!((mix[1].body, mix[1].think_ns), (Some((100, 2000)), 50_000_000));
        assert_eq!((mix[1].expect.status, &mix[1].method), (201, &Method::POST));
        assert_eq!(mix[1].fields[0].0, "content-type");
    }

    #[test]
    fn errors_name_line_and_column() {
        for (text, error) in [
            ("", "1:1: there are no requests: write 1 to 1000 of [[request]]"),
            ("[[request]]\npath = \"x\"", "2:8: `x` is no path: begin it with `/`"),
            ("[[request]]\n", "1:1: missing field `path`"),
            ("[[request]]\npath = \"/\"\nwieght = 1", "3:1: unknown field `wieght`"),
            ("[[request]]\npath = \"/\"\nweight = 0", "3:10: a weight is at least 1"),
            ("[[request]]\npath = \"/\"\nweight = 10001", "3:10: the weights add up to more"),
            ("[[request]]\npath = \"/\"\nmethod = \"G T\"", "3:10: `G T` is no method"),
            ("[[request]]\npath = \"/\"\nbody = \"9..1\"", "3:8: 9..1 bytes: the first"),
            ("[[request]]\npath = \"/\"\nbody = \"x\"", "3:8: `x` is no range of bytes"),
            ("[[request]]\npath = \"/\"\nbody = true", "3:8: a number of bytes, or a range"),
            ("[[request]]\npath = \"/\"\n think = \"5\"", "3:10: `5` is no duration"),
            ("[[request]]\npath = \"/\"\nheaders = { host = \"a\" }", "3:13: `host` is written"),
            ("[[request]]\npath = \"/\"\nexpect = { status = 99 }", "3:21: a final status"),
            ("[[request]]\npath = \"/\"\nexpect = { checksum = \"origin\" }", "3:23: \"origin\""),
            ("[[request]]\npath = \"/\"\nexpect = { checksum = \"xyz\" }", "3:23: `xyz` is no CRC"),
            ("[[request]\n", "1:11: unclosed"),
        ] {
            let found = parse(text).err().unwrap_or_default();
            assert!(found.starts_with(error), "{text:?}\n  {found}\n  {error}");
        }
    }

    #[test]
    fn durations() {
        for (text, ns) in [("50ms", 50_000_000), ("1.5s", 1_500_000_000), ("200us", 200_000)] {
            assert_eq!(duration_ns(text), Ok(ns));
        }
        for bad in ["5", "s", "-1s", "2h", "4000s", "NaNs"] {
            assert!(duration_ns(bad).is_err(), "{bad}");
        }
    }
}
