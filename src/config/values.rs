//! What single keys may hold, checked while decoding: addresses, hosts, paths, methods, patterns.
//!
//! Each type reads its text once; whatever exists as a value here is usable as it is.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use ipnet::IpNet;
use regex::bytes::Regex;
use schemars::{Schema, SchemaGenerator, json_schema};
use toml::de::DeValue;

use super::{
    decode::{At, Decode, Named, Sink, integer, quoted, text},
    report::{Place, Problem},
    snapshot::{ForwardedFields, HalfClose, Io, RequestId, Workers},
};
use crate::{choice, policy::balance::Balance, section};

choice!(Io: Io::Auto = "auto", Io::IoUring = "io_uring", Io::Epoll = "epoll");
choice!(HalfClose: HalfClose::Answer = "answer", HalfClose::Abort = "abort");
choice!(Balance:
    Balance::RoundRobin = "round_robin",
    Balance::LeastRequest = "least_request",
    Balance::Random = "random",
);
choice!(ForwardedFields:
    ForwardedFields::XForwarded = "x-forwarded",
    ForwardedFields::Forwarded = "forwarded",
    ForwardedFields::Off = "off",
);
choice!(RequestId:
    RequestId::Keep = "keep",
    RequestId::Make = "make",
    RequestId::Off = "off",
);

/// Key `paths.encoded_slash`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodedSlash {
    Refuse,
    Keep,
}
choice!(EncodedSlash: EncodedSlash::Refuse = "refuse", EncodedSlash::Keep = "keep");

/// Key `redirect.scheme`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}
choice!(Scheme: Scheme::Http = "http", Scheme::Https = "https");

/// Why a text cannot be used: beside the underline, and what to write.
struct Bad {
    label: String,
    fix: String,
}

fn bad<T>(label: impl Into<String>, fix: impl Into<String>) -> Result<T, Bad> {
    Err(Bad { label: label.into(), fix: fix.into() })
}

/// A type written as a string.
trait FromText: Sized {
    const WHAT: &'static str;
    const EXAMPLE: &'static str;

    fn read(text: &str) -> Result<Self, Bad>;

    fn show(&self) -> String;
}

macro_rules! written_as_text {
    ($($ty:ty),+ $(,)?) => { $(
        impl Decode for $ty {
            const EXPECTED: &'static str = <$ty as FromText>::WHAT;

            fn decode(value: &DeValue<'_>, place: Place, sink: &mut Sink) -> Option<Self> {
                let fix = format!("write it in quotation marks, such as \"{}\"", Self::EXAMPLE);
                let text = text(value, place, sink, Self::WHAT, &fix)?;
                match Self::read(text) {
                    Ok(value) => Some(value),
                    Err(bad) => {
                        sink.bad_value(place, Self::WHAT, &bad.label, &bad.fix);
                        None
                    }
                }
            }

            fn written(&self) -> Option<String> {
                Some(quoted(&self.show()))
            }

            fn schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string" })
            }
        }
    )+ };
}

written_as_text!(
    Name,
    BindAddress,
    FileMode,
    EndpointName,
    HostPattern,
    HostName,
    BareHost,
    MethodName,
    PathText,
    PathTemplate,
    PathRegex,
    ValueRegex,
    FieldValue,
    Network,
    Pseudonym,
);

/// A name given by the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(pub String);

impl FromText for Name {
    const WHAT: &'static str = "a name";
    const EXAMPLE: &'static str = "orders";

    fn read(text: &str) -> Result<Self, Bad> {
        if text.trim().is_empty() {
            return bad("empty", "write a name, such as \"orders\"");
        }
        if text.chars().any(char::is_control) {
            return bad("has a control character", "write it without control characters");
        }
        if text.len() > 128 {
            return bad("longer than 128 bytes", "write a shorter name");
        }
        Ok(Name(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindAddress {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl FromText for BindAddress {
    const WHAT: &'static str = "an IP address and port, or \"unix:\" and a path";
    const EXAMPLE: &'static str = "0.0.0.0:8080";

    fn read(text: &str) -> Result<Self, Bad> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix_path(path).map(BindAddress::Unix);
        }
        if let Ok(address) = text.parse() {
            return Ok(BindAddress::Tcp(address));
        }
        let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
        if text.starts_with('/') {
            return bad("a path alone", format!("write \"unix:{text}\""));
        }
        if text.parse::<u16>().is_ok() {
            return bad("a port alone", format!("write \"0.0.0.0:{text}\""));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return bad("no port", format!("write \"{}\"", SocketAddr::new(address, 8080)));
        }
        if port.parse::<u16>().is_err() {
            return bad("no port, or none between 0 and 65535", "write \"0.0.0.0:8080\"");
        }
        match host {
            "" | "*" => bad("no address", format!("write \"0.0.0.0:{port}\"")),
            "localhost" => bad("a name, not an address", format!("write \"127.0.0.1:{port}\"")),
            _ => bad(
                "not an IP address",
                format!(
                    "write \"0.0.0.0:{port}\" for every IPv4 address of this machine, or \"[::]:{port}\" for IPv6"
                ),
            ),
        }
    }

    fn show(&self) -> String {
        match self {
            BindAddress::Tcp(address) => address.to_string(),
            BindAddress::Unix(path) => format!("unix:{}", path.display()),
        }
    }
}

/// `sun_path` holds 108 bytes, the final NUL included (unix(7)).
const UNIX_PATH_BYTES_MAX: usize = 107;

fn unix_path(path: &str) -> Result<PathBuf, Bad> {
    if !path.starts_with('/') {
        return bad(
            "not an absolute path",
            "write \"unix:/run/ringway.sock\", with one slash after the colon",
        );
    }
    if path.len() > UNIX_PATH_BYTES_MAX {
        return bad(
            "longer than 107 bytes",
            "write a shorter path: the kernel allows no longer one",
        );
    }
    if path.contains('\0') {
        return bad("has a NUL character", "write it without NUL");
    }
    Ok(PathBuf::from(path))
}

/// Permissions of a Unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileMode(pub u32);

impl FromText for FileMode {
    const WHAT: &'static str = "permissions as three or four octal digits";
    const EXAMPLE: &'static str = "0660";

    fn read(text: &str) -> Result<Self, Bad> {
        match u32::from_str_radix(text, 8) {
            Ok(mode) if mode <= 0o777 && (3..=4).contains(&text.len()) => Ok(FileMode(mode)),
            _ => bad(
                "not such a number",
                "write \"0660\" for owner and group, \"0666\" for everybody",
            ),
        }
    }

    fn show(&self) -> String {
        format!("{:04o}", self.0)
    }
}

/// An endpoint's address; a name is looked up later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointName {
    Tcp(SocketAddr),
    Named { host: String, port: u16 },
    Unix(PathBuf),
}

impl FromText for EndpointName {
    const WHAT: &'static str = "an address or name with port, or \"unix:\" and a path";
    const EXAMPLE: &'static str = "127.0.0.1:8000";

    fn read(text: &str) -> Result<Self, Bad> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix_path(path).map(EndpointName::Unix);
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            let rest = rest.split(['/', '?']).next().unwrap_or_default();
            let port = if scheme == "https" { 443 } else { 80 };
            let fix = if rest.contains(':') { rest.to_owned() } else { format!("{rest}:{port}") };
            return bad("a URL", format!("write \"{fix}\", without scheme and path"));
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return match address.port() {
                0 => bad("port 0", "write the port that the upstream listens on"),
                _ => Ok(EndpointName::Tcp(address)),
            };
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return bad("no port", format!("write \"{}\"", SocketAddr::new(address, 80)));
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return bad("no port", format!("write \"{text}:80\""));
        };
        if !is_host_name(host) {
            return bad("not an address or name", "write \"10.0.0.1:80\" or \"app.internal:80\"");
        }
        match port.parse() {
            Ok(port) if port > 0 => Ok(EndpointName::Named { host: host.to_owned(), port }),
            _ => bad(
                "not a port",
                format!("write a port between 1 and 65535, such as \"{host}:80\""),
            ),
        }
    }

    fn show(&self) -> String {
        match self {
            EndpointName::Tcp(address) => address.to_string(),
            EndpointName::Named { host, port } => format!("{host}:{port}"),
            EndpointName::Unix(path) => format!("unix:{}", path.display()),
        }
    }
}

/// Letters, digits, `-`, `_` in labels separated by dots, or an IP address.
fn is_host_name(host: &str) -> bool {
    let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if let Some(address) = inner {
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.len() <= 253 && host.split('.').all(label)
}

/// What to write for a text that is nearly a host.
fn host_fix(text: &str) -> (&'static str, String) {
    if let Some((_, rest)) = text.split_once("://") {
        return ("a URL", host_only(rest));
    }
    if text.contains('/') {
        return ("has a path", host_only(text));
    }
    if let Some((host, port)) = text.rsplit_once(':')
        && !port.is_empty()
        && port.bytes().all(|b| b.is_ascii_digit())
    {
        return ("has a port", host_only(host));
    }
    if text.ends_with('.') {
        return ("ends with a dot", host_only(text.trim_end_matches('.')));
    }
    ("not a host name", "write a host name such as \"api.example.com\"".to_owned())
}

fn host_only(text: &str) -> String {
    let host = text.split('/').next().unwrap_or_default();
    let host = match host.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => name,
        _ => host,
    };
    if is_host_name(host.strip_prefix("*.").unwrap_or(host)) {
        format!("write \"{host}\"")
    } else {
        "write a host name such as \"api.example.com\"".to_owned()
    }
}

/// Exact host or `*.example.com`, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern(pub String);

impl FromText for HostPattern {
    const WHAT: &'static str = "a host without port, or \"*.\" and a host";
    const EXAMPLE: &'static str = "api.example.com";

    fn read(text: &str) -> Result<Self, Bad> {
        if text == "*" {
            return bad("any host", "leave `hosts` out: then any host matches");
        }
        let rest = text.strip_prefix("*.").unwrap_or(text);
        if rest.contains('*') {
            return bad("a wildcard elsewhere than in front", "write \"*.example.com\"");
        }
        if !is_host_name(rest) {
            let (label, fix) = host_fix(text);
            return bad(label, fix);
        }
        Ok(HostPattern(text.to_ascii_lowercase()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// A host, possibly with port, as sent in a Host or Location field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName(pub String);

impl FromText for HostName {
    const WHAT: &'static str = "a host";
    const EXAMPLE: &'static str = "internal.example";

    fn read(text: &str) -> Result<Self, Bad> {
        let host = match text.rsplit_once(':') {
            Some((host, port)) if port.parse::<u16>().is_ok() => host,
            _ => text,
        };
        if !is_host_name(host) {
            let (label, fix) = host_fix(text);
            return bad(label, fix);
        }
        Ok(HostName(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// A host without port, as in a Location field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BareHost(pub String);

impl FromText for BareHost {
    const WHAT: &'static str = "a host without port";
    const EXAMPLE: &'static str = "www.example.com";

    fn read(text: &str) -> Result<Self, Bad> {
        if !is_host_name(text) {
            let (label, fix) = host_fix(text);
            return bad(label, fix);
        }
        Ok(BareHost(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// RFC 9110 §5.6.2
pub fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

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

/// A field value, without line ends (RFC 9110 §5.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldValue(pub String);

impl FromText for FieldValue {
    const WHAT: &'static str = "a field value";
    const EXAMPLE: &'static str = "text/html";

    fn read(text: &str) -> Result<Self, Bad> {
        if text.chars().any(|c| c.is_control() && c != '\t') {
            return bad("has a line end or control character", "write it on one line");
        }
        if text != text.trim() {
            return bad("has a blank at an end", format!("write {}", quoted(text.trim())));
        }
        Ok(FieldValue(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// A network, or one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network(pub IpNet);

impl FromText for Network {
    const WHAT: &'static str = "an IP network or address";
    const EXAMPLE: &'static str = "10.0.0.0/8";

    fn read(text: &str) -> Result<Self, Bad> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Network(IpNet::from(address)));
        }
        match text.parse::<IpNet>() {
            Ok(network) if network.trunc() == network => Ok(Network(network)),
            Ok(network) => bad(
                "has bits set after the prefix",
                format!(
                    "write \"{}\", or \"{}\" for the one address",
                    network.trunc(),
                    network.addr()
                ),
            ),
            Err(_) => bad("neither", "write \"10.0.0.0/8\", \"192.0.2.7\" or \"fd00::/8\""),
        }
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

/// A pseudonym in the Via field (RFC 9110 §7.6.3); empty for none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pseudonym(pub String);

impl FromText for Pseudonym {
    const WHAT: &'static str = "a name of letters, digits and -._~";
    const EXAMPLE: &'static str = "ringway";

    fn read(text: &str) -> Result<Self, Bad> {
        if !text.is_empty() && !is_token(text) {
            return bad("has another character", "write \"ringway\", or \"\" to send no Via field");
        }
        Ok(Pseudonym(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

const WORKERS_MAX: u32 = 1024;

impl Decode for Workers {
    const EXPECTED: &'static str = "\"auto\", a number of workers, or a list of cores";

    fn decode(value: &DeValue<'_>, place: Place, sink: &mut Sink) -> Option<Self> {
        const FIX: &str = "write \"auto\", a number such as 4, or cores such as \"0-7,16-23\"";
        let bad = |sink: &mut Sink, label: &str, fix: &str| {
            sink.bad_value(place, Self::EXPECTED, label, fix);
            None
        };
        match value {
            DeValue::String(text) if text == "auto" => Some(Workers::Auto),
            DeValue::String(text) => match cores(text) {
                Ok(cores) => Some(Workers::Cores(cores)),
                Err(_) if text.eq_ignore_ascii_case("auto") => {
                    bad(sink, "spelt wrong", "write \"auto\"")
                }
                Err(label) => bad(sink, label, FIX),
            },
            DeValue::Integer(_) => {
                let count = integer(value).and_then(|n| u32::try_from(n).ok());
                match count.filter(|n| (1..=WORKERS_MAX).contains(n)) {
                    Some(count) => Some(Workers::Count(count)),
                    None => {
                        bad(sink, "out of range", "write a number between 1 and 1024, or \"auto\"")
                    }
                }
            }
            _ => {
                sink.wrong_type(value, place, Self::EXPECTED, FIX);
                None
            }
        }
    }

    fn written(&self) -> Option<String> {
        Some(match self {
            Workers::Auto => "\"auto\"".to_owned(),
            Workers::Count(count) => count.to_string(),
            Workers::Cores(cores) => {
                let cores: Vec<String> = cores.iter().map(u32::to_string).collect();
                quoted(&cores.join(","))
            }
        })
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "oneOf": [
            { "type": "string", "pattern": "^(auto|[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*)$" },
            { "type": "integer", "minimum": 1, "maximum": WORKERS_MAX },
        ] })
    }
}

/// `0-7,16-23` as single cores, in order.
fn cores(text: &str) -> Result<Vec<u32>, &'static str> {
    const CORE_MAX: u32 = 8191;
    let mut cores = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse::<u32>().map_err(|_| "not a list of cores");
        let (first, last) = (number(first)?, number(last)?);
        if last < first {
            return Err("a range that runs backwards");
        }
        if last > CORE_MAX {
            return Err("a core over 8191");
        }
        cores.extend(first..=last);
    }
    let count = cores.len();
    cores.sort_unstable();
    cores.dedup();
    if cores.len() != count {
        return Err("a core named twice");
    }
    if cores.len() > WORKERS_MAX as usize {
        return Err("more than 1024 cores");
    }
    Ok(cores)
}

section! {
    /// An endpoint with its weight.
    pub struct WeightedEndpoint {
        /// The address, written as an endpoint without weight.
        address: EndpointName, eg "\"127.0.0.1:8000\"";
        /// Share of the requests, relative to the other endpoints of the upstream.
        weight: u32 = 1 => 1..=1000;
    }

    /// How the value of a field or parameter must look. Exactly one key.
    pub struct Match {
        /// Exactly this.
        exact: Option<String> = None, eg "\"blue\"";
        /// A regular expression that the whole value must match.
        regex: Option<ValueRegex> = None, eg "\"blue|green\"";
        /// Whether it is there at all.
        present: Option<bool> = None, eg "true";
    }
}

/// An endpoint, written as a string or as a table with weight.
#[derive(Clone, Debug)]
pub struct EndpointText {
    pub address: At<EndpointName>,
    pub weight: u32,
}

impl Decode for EndpointText {
    const EXPECTED: &'static str = EndpointName::WHAT;

    fn decode(value: &DeValue<'_>, place: Place, sink: &mut Sink) -> Option<Self> {
        if value.is_table() {
            let endpoint = WeightedEndpoint::decode(value, place, sink)?;
            return Some(EndpointText { address: endpoint.address, weight: endpoint.weight.value });
        }
        let address = At::written(EndpointName::decode(value, place, sink)?, place);
        Some(EndpointText { address, weight: 1 })
    }

    fn written(&self) -> Option<String> {
        let address = self.address.written()?;
        match self.weight {
            1 => Some(address),
            weight => Some(format!("{{ address = {address}, weight = {weight} }}")),
        }
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let weighted = generator.subschema_for::<WeightedEndpoint>();
        json_schema!({ "oneOf": [{ "type": "string" }, weighted] })
    }
}

/// Conditions on fields or parameters, by name.
#[derive(Clone, Debug, Default)]
pub struct Matches(pub Vec<(At<String>, MatchValue)>);

#[derive(Clone, Debug)]
pub enum MatchValue {
    Present,
    Absent,
    Exact(String),
    Regex(Regex),
}

impl Decode for Matches {
    const EXPECTED: &'static str = "a table of names and values";

    fn decode(value: &DeValue<'_>, place: Place, sink: &mut Sink) -> Option<Self> {
        sink.table(value, place, "write { \"Name\" = \"value\" }")?;
        let named = Named::<MatchValue>::decode(value, place, sink)?;
        let good = named.0.into_iter().map(|(name, value)| Some((name, value?)));
        good.collect::<Option<Vec<_>>>().map(Matches)
    }

    fn written(&self) -> Option<String> {
        self.0.is_empty().then(|| "{}".to_owned())
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        Named::<MatchValue>::schema(generator)
    }
}

impl Decode for MatchValue {
    const EXPECTED: &'static str = "a value or a table";

    fn decode(value: &DeValue<'_>, place: Place, sink: &mut Sink) -> Option<Self> {
        if let Some(text) = value.as_str() {
            return Some(MatchValue::Exact(text.to_owned()));
        }
        if !value.is_table() {
            let fix =
                "write the value in quotation marks, or { regex = \"...\" }, or { present = true }";
            sink.wrong_type(value, place, Self::EXPECTED, fix);
            return None;
        }
        let written = Match::decode(value, place, sink)?;
        let broken =
            written.exact.is_wrong() || written.regex.is_wrong() || written.present.is_wrong();
        match (written.exact.value, written.regex.value, written.present.value) {
            _ if broken => None,
            (Some(text), None, None) => Some(MatchValue::Exact(text)),
            (None, Some(regex), None) => Some(MatchValue::Regex(regex.0.regex)),
            (None, None, Some(true)) => Some(MatchValue::Present),
            (None, None, Some(false)) => Some(MatchValue::Absent),
            _ => {
                let title =
                    format!("{} needs exactly one of `exact`, `regex` and `present`", sink.name());
                let fix = "write one of them; { present = true } accepts any value";
                sink.push(Problem::error(place, title).fix(fix));
                None
            }
        }
    }

    fn written(&self) -> Option<String> {
        None
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let table = generator.subschema_for::<Match>();
        json_schema!({ "oneOf": [{ "type": "string" }, table] })
    }
}
