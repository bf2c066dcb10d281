//! Values of `[[access_logs]]`: destinations, formats, statuses, shares.

use std::path::PathBuf;

use schemars::{Schema, SchemaGenerator, json_schema};
use toml::de::DeValue;

use super::{Bad, EndpointName, FromText, addresses::unix_path, bad};
use crate::{
    choice,
    config::{
        decode::{Decode, Sink, integer, list, nearest, quoted},
        report::{Place, Problem},
    },
    section,
    telemetry::access_log::{BadTemplate, Escape, FIELDS, Format},
};

choice!(Escape: Escape::Text = "text", Escape::Json = "json");

/// Key `access_logs.to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    Stdout,
    File(PathBuf),
    Unix(PathBuf),
    Syslog(PathBuf),
    SyslogUdp { host: String, port: u16 },
}

impl FromText for LogTarget {
    const WHAT: &'static str =
        "\"stdout\", or \"file:\", \"unix:\" or \"syslog:\" and where it leads";
    const EXAMPLE: &'static str = "stdout";

    fn read(text: &str) -> Result<Self, Bad> {
        if text == "stdout" {
            return Ok(LogTarget::Stdout);
        }
        if text == "stderr" {
            return bad("standard error has the gateway's own log", "write \"stdout\"");
        }
        if let Some(path) = text.strip_prefix("file:") {
            return file_path(path).map(LogTarget::File);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            return unix_path(path).map(LogTarget::Unix);
        }
        if let Some(to) = text.strip_prefix("syslog:") {
            return syslog(to);
        }
        match text.starts_with('/') {
            true => bad("a path alone", format!("write {}", quoted(&format!("file:{text}")))),
            false => bad(
                "none of these",
                "write \"stdout\", \"file:/var/log/access.log\", \"unix:/run/log.sock\", \
                 \"syslog:/dev/log\" or \"syslog:udp://192.0.2.1:514\"",
            ),
        }
    }

    fn show(&self) -> String {
        match self {
            LogTarget::Stdout => "stdout".to_owned(),
            LogTarget::File(path) => format!("file:{}", path.display()),
            LogTarget::Unix(path) => format!("unix:{}", path.display()),
            LogTarget::Syslog(path) => format!("syslog:{}", path.display()),
            LogTarget::SyslogUdp { host, port } => format!("syslog:udp://{host}:{port}"),
        }
    }
}

fn file_path(path: &str) -> Result<PathBuf, Bad> {
    if !path.starts_with('/') {
        return bad(
            "not an absolute path",
            "write \"file:/var/log/access.log\", with one slash after the colon",
        );
    }
    if path.contains('\0') {
        return bad("has a NUL character", "write it without NUL");
    }
    if path.ends_with('/') {
        return bad("a folder", "add the file's name");
    }
    Ok(PathBuf::from(path))
}

fn syslog(to: &str) -> Result<LogTarget, Bad> {
    if to.starts_with('/') {
        return unix_path(to).map(LogTarget::Syslog);
    }
    let fix = "write \"syslog:/dev/log\" or \"syslog:udp://192.0.2.1:514\"";
    let Some(address) = to.strip_prefix("udp://") else {
        return bad("neither a path nor udp://", fix);
    };
    match EndpointName::read(address) {
        Ok(EndpointName::Tcp(address)) => {
            Ok(LogTarget::SyslogUdp { host: address.ip().to_string(), port: address.port() })
        }
        Ok(EndpointName::Named { host, port }) => Ok(LogTarget::SyslogUdp { host, port }),
        Ok(EndpointName::Unix(_)) | Err(_) => bad("no address and port after udp://", fix),
    }
}

section! {
    /// An access log's own format.
    pub struct LogTemplate {
        /// Text with `${name}` for the fields of docs/access-log.md; `$$` is a dollar sign.
        template: String, eg "\"${client} ${status} ${target}\"";
        /// How values are written: `"text"` with special characters as `\xHH`, or `"json"` for
        /// between the quotation marks of a JSON string.
        escape: Escape = Escape::Text;
    }
}

/// Key `access_logs.format`.
#[derive(Clone, Debug)]
pub enum LogFormat {
    Json,
    Combined,
    Template {
        /// As written, and the same compiled.
        text: String,
        escape: Escape,
        format: Format,
    },
}

impl LogFormat {
    pub fn format(&self) -> Format {
        match self {
            LogFormat::Json => Format::json(),
            LogFormat::Combined => Format::combined(),
            LogFormat::Template { format, .. } => format.clone(),
        }
    }
}

impl Decode for LogFormat {
    const EXPECTED: &'static str = "\"json\", \"combined\" or { template = \"...\" }";

    fn decode(value: &DeValue<'_>, place: Place, sink: &mut Sink) -> Option<Self> {
        if value.is_table() {
            let written = LogTemplate::decode(value, place, sink)?;
            if written.template.is_wrong() || written.escape.is_wrong() {
                return None;
            }
            let at = written.template.place().unwrap_or(place);
            let (text, escape) = (written.template.value, *written.escape);
            return match Format::template(&text, escape) {
                Ok(format) => Some(LogFormat::Template { text, escape, format }),
                Err(wrong) => {
                    sink.push(bad_template(&wrong, at));
                    None
                }
            };
        }
        match value.as_str() {
            Some("json") => Some(LogFormat::Json),
            Some("combined") => Some(LogFormat::Combined),
            Some(text) => {
                let near = nearest(text, &["json", "combined"]);
                let fix = match near {
                    Some(near) => format!("write \"{near}\""),
                    None if text.contains("${") => {
                        format!("write {{ template = {} }}", quoted(text))
                    }
                    None => format!("write {}", Self::EXPECTED),
                };
                sink.bad_value(place, Self::EXPECTED, "none of them", &fix);
                None
            }
            None => {
                let fix = format!("write {}", Self::EXPECTED);
                sink.wrong_type(value, place, Self::EXPECTED, &fix);
                None
            }
        }
    }

    fn written(&self) -> Option<String> {
        match self {
            LogFormat::Json => Some("\"json\"".to_owned()),
            LogFormat::Combined => Some("\"combined\"".to_owned()),
            LogFormat::Template { text, escape, .. } => {
                let (text, escape) = (quoted(text), escape.written()?);
                Some(format!("{{ template = {text}, escape = {escape} }}"))
            }
        }
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let table = generator.subschema_for::<LogTemplate>();
        json_schema!({ "oneOf": [{ "type": "string", "enum": ["json", "combined"] }, table] })
    }
}

fn bad_template(wrong: &BadTemplate, place: Place) -> Problem {
    let (title, fix) = match wrong {
        BadTemplate::Empty => ("the template is empty", String::new()),
        BadTemplate::TooLong => ("the template is longer than 4096 bytes", "shorten it".to_owned()),
        BadTemplate::ControlCharacter => {
            ("the template has a line end or control character", "write it on one line".to_owned())
        }
        BadTemplate::LoneDollar => (
            "the template has a `$` that begins no field",
            "write ${name} for a field, $$ for a dollar sign".to_owned(),
        ),
        BadTemplate::Open => ("the template has a `${` without `}`", "close it".to_owned()),
        BadTemplate::UnknownField(name) => {
            let known: Vec<&str> = FIELDS.iter().map(|rule| rule.name).collect();
            let fix = match nearest(name, &known) {
                Some(near) => format!("write ${{{near}}}"),
                None => format!("the fields are {}", list(&known)),
            };
            let title = format!("there is no field `{}`", name.escape_debug());
            return Problem::error(place, title).fix(fix);
        }
    };
    let fix =
        if fix.is_empty() { "write \"${client} ${status} ${target}\"".to_owned() } else { fix };
    Problem::error(place, title).fix(fix)
}

/// A status code or a class of them: first and last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusRange(pub u16, pub u16);

impl FromText for StatusRange {
    const WHAT: &'static str = "a status such as \"503\" or a class such as \"5xx\"";
    const EXAMPLE: &'static str = "5xx";

    fn read(text: &str) -> Result<Self, Bad> {
        if let [class @ b'1'..=b'5', b'x' | b'X', b'x' | b'X'] = text.as_bytes() {
            let first = u16::from(class - b'0') * 100;
            return Ok(StatusRange(first, first + 99));
        }
        match text.parse() {
            Ok(status @ 100..=599) => Ok(StatusRange(status, status)),
            _ => bad("not one", "write \"503\", or \"5xx\" for all from 500 to 599"),
        }
    }

    fn show(&self) -> String {
        match *self {
            StatusRange(first, last) if first == last => first.to_string(),
            StatusRange(first, _) => format!("{}xx", first / 100),
        }
    }
}

/// A share, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio(pub f64);

impl Ratio {
    /// What a random 64-bit number must be below to be in the share; `None` when all are.
    pub fn below(self) -> Option<u64> {
        // The cast saturates; 2^64 itself is only reached by 1.
        (self.0 < 1.0).then_some((self.0 * 18_446_744_073_709_551_616.0) as u64)
    }
}

impl Decode for Ratio {
    const EXPECTED: &'static str = "a number between 0 and 1";

    fn decode(value: &DeValue<'_>, place: Place, sink: &mut Sink) -> Option<Self> {
        let number = match value {
            DeValue::Float(float) => float.as_str().replace('_', "").parse::<f64>().ok(),
            DeValue::Integer(_) => integer(value).map(|n| n as f64),
            _ => {
                let fix = "write a number such as 0.01, without quotation marks";
                sink.wrong_type(value, place, Self::EXPECTED, fix);
                return None;
            }
        };
        let ratio = number.filter(|n| (0.0..=1.0).contains(n));
        if ratio.is_none() {
            sink.bad_value(
                place,
                Self::EXPECTED,
                "out of range",
                "write 0.01 for one in a hundred",
            );
        }
        ratio.map(Ratio)
    }

    fn written(&self) -> Option<String> {
        Some(format!("{:?}", self.0))
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "number", "minimum": 0, "maximum": 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares() {
        assert_eq!(Ratio(1.0).below(), None);
        assert_eq!(Ratio(0.0).below(), Some(0));
        assert_eq!(Ratio(0.5).below(), Some(1 << 63));
    }

    #[test]
    fn targets_read_back() {
        for text in [
            "stdout",
            "file:/var/log/access.log",
            "unix:/run/log.sock",
            "syslog:/dev/log",
            "syslog:udp://192.0.2.1:514",
            "syslog:udp://logs.internal:514",
        ] {
            assert_eq!(LogTarget::read(text).map_err(|bad| bad.label).expect(text).show(), text);
        }
    }
}
