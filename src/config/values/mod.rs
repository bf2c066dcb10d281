//! What single keys may hold, checked while decoding: addresses, hosts, paths, methods, patterns.
//!
//! Each type reads its text once; whatever exists as a value here is usable as it is.

use schemars::{Schema, SchemaGenerator, json_schema};
use toml::de::DeValue;

use super::{
    decode::{Decode, Sink, integer, quoted, text},
    report::Place,
    snapshot::{
        AdminBind, ForwardedFields, HalfClose, Http2Use, Io, ListenerBalance, ProxyHeader,
        ProxyProtocol, RequestId, Workers,
    },
};
use crate::{
    choice,
    policy::{balance::Balance, limit::fleet::Fallback},
};

mod access_log;
mod acme;
mod addresses;
mod admin;
mod auth;
mod compress;
mod conditions;
mod credentials;
mod json;
mod jwt;
mod oidc;
mod paths;
mod quotas;
mod rate_limits;
mod redis;
mod secret_source;
mod signatures;
mod times;
mod trace;
mod validate;
mod web;

pub use crate::config::snapshot::ClientAuth;
pub use access_log::{LogFormat, LogTarget, LogTemplate, Ratio, StatusRange};
pub use acme::{AcmeChallenge, DirectoryUrl, DomainName, Email};
pub use addresses::{
    AddressSource, BareHost, BindAddress, EndpointName, HostName, HostPattern, Network,
};
pub use admin::{REDACTED, Secret, StatusHost, TcpAddress};
pub use auth::{ClaimPath, CredentialSource, WayNames};
pub use compress::{MediaType, default_media_types};
pub use conditions::{EndpointText, Match, MatchValue, Matches, WeightedEndpoint};
pub use credentials::{Fingerprint, Group, PasswordHash, StoredKey, UserName};
pub use json::{AnyValue, FormUse};
pub use jwt::{ClaimValues, KeysUrl, trusted_url};
pub use oidc::{IssuerUrl, PublicOrigin, ReturnUrl};
pub use paths::{MethodName, PathRegex, PathTemplate, PathText, ValueRegex};
pub use quotas::{Amount, UtcOffset};
pub use rate_limits::{LimitKey, Rate};
pub use redis::{KeyPrefix, RedisAddress};
pub use secret_source::SecretSource;
pub use signatures::{ComponentName, Label, SignatureParameter, SignatureText};
pub use times::{ClockTime, Days, ZoneName};
pub use trace::CollectorUrl;
pub use validate::SchemaText;
pub use web::{CorsOrigin, FieldName, FieldNameOrAny, Origin, OriginPattern, UserAgent};

choice!(Io: Io::Auto = "auto", Io::IoUring = "io_uring", Io::Epoll = "epoll");
choice!(
    Http2Use: Http2Use::On = "on",
    Http2Use::Off = "off",
    Http2Use::Only = "only"
);
choice!(HalfClose: HalfClose::Answer = "answer", HalfClose::Abort = "abort");
choice!(ListenerBalance:
    ListenerBalance::Kernel = "kernel",
    ListenerBalance::Even = "even",
);
choice!(ProxyProtocol:
    ProxyProtocol::Off = "off",
    ProxyProtocol::Optional = "optional",
    ProxyProtocol::Required = "required",
);
choice!(ProxyHeader:
    ProxyHeader::Off = "off",
    ProxyHeader::V1 = "v1",
    ProxyHeader::V2 = "v2",
);
choice!(Fallback:
    Fallback::Local = "local",
    Fallback::Allow = "allow",
    Fallback::Refuse = "refuse",
);
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

/// Key `upstreams.protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    H2,
    H2c,
    Auto,
}
choice!(Protocol:
    Protocol::Http1 = "http1",
    Protocol::H2 = "h2",
    Protocol::H2c = "h2c",
    Protocol::Auto = "auto",
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

/// Key `listeners.tls.client_certificate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificate {
    Required,
    Optional,
}
choice!(ClientCertificate:
    ClientCertificate::Required = "required",
    ClientCertificate::Optional = "optional",
);

/// Key `listeners.tls.kernel`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsKernel {
    Off,
    Auto,
}
choice!(TlsKernel: TlsKernel::Off = "off", TlsKernel::Auto = "auto");

/// Key `listeners.tls.min_version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    V12,
    V13,
}
choice!(TlsVersion: TlsVersion::V12 = "1.2", TlsVersion::V13 = "1.3");

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
    /// What is wrong may be a secret, put where its digest or its place belongs.
    const MAY_BE_SECRET: bool = false;

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
                        if Self::MAY_BE_SECRET {
                            sink.hide(place);
                        }
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
    AdminBind,
    BindAddress,
    TcpAddress,
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
    HeaderName,
    Rate,
    Amount,
    UtcOffset,
    Network,
    AddressSource,
    Days,
    ClockTime,
    ZoneName,
    Origin,
    FieldName,
    FieldNameOrAny,
    UserAgent,
    Pseudonym,
    CollectorUrl,
    SecretSource,
    RedisAddress,
    KeyPrefix,
    LogTarget,
    StatusHost,
    StatusRange,
    DomainName,
    DirectoryUrl,
    Email,
    MediaType,
    WayNames,
    CredentialSource,
    ClaimPath,
    ComponentName,
    Label,
    SignatureText,
    StoredKey,
    PasswordHash,
    UserName,
    Fingerprint,
    Group,
    KeysUrl,
    IssuerUrl,
    PublicOrigin,
    ReturnUrl,
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

/// RFC 9110 §5.6.2
pub fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
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

/// The name of a field (RFC 9110 §5.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderName(pub String);

impl FromText for HeaderName {
    const WHAT: &'static str = "the name of a field";
    const EXAMPLE: &'static str = "X-Cost";

    fn read(text: &str) -> Result<Self, Bad> {
        if text.is_empty() {
            return bad("empty", "write a name such as \"X-Cost\"");
        }
        if !is_token(text) {
            let usual = |c: char| if is_token(c.encode_utf8(&mut [0; 4])) { c } else { '-' };
            let fixed: String = text.chars().map(usual).collect();
            let fix = format!("write {}", quoted(&fixed));
            return bad("has a character that no such name has", fix);
        }
        Ok(HeaderName(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
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
