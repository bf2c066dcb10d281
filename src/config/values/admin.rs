//! Where the admin interface is found, and values that are never shown.

use std::{fmt, net::SocketAddr};

use schemars::{Schema, SchemaGenerator};
use toml::de::DeValue;

use super::{Bad, BareHost, BindAddress, FromText, bad};
use crate::config::{
    decode::{Decode, Shape, Sink, quoted},
    report::Place,
    snapshot::AdminBind,
};

impl FromText for AdminBind {
    const WHAT: &'static str = "\"auto\", \"off\", or \"unix:\" and a path";
    const EXAMPLE: &'static str = "auto";

    fn read(text: &str) -> Result<Self, Bad> {
        match text {
            "auto" => Ok(AdminBind::Auto),
            "off" => Ok(AdminBind::Off),
            _ => match BindAddress::read(text) {
                Ok(BindAddress::Unix(path)) => Ok(AdminBind::Unix(path)),
                Ok(BindAddress::Tcp(address)) => bad(
                    "an IP address: whoever reaches it could change the gateway",
                    format!(
                        "write a Unix socket here, and status_bind = \"{address}\" for what may \
                         only be read"
                    ),
                ),
                Err(wrong) if text.starts_with("unix:") || text.starts_with('/') => Err(wrong),
                Err(_) => bad(
                    "not one of them",
                    "write \"auto\", \"off\", or a path such as \"unix:/run/ringway/admin.sock\"",
                ),
            },
        }
    }

    fn show(&self) -> String {
        match self {
            AdminBind::Auto => "auto".to_owned(),
            AdminBind::Off => "off".to_owned(),
            AdminBind::Unix(path) => format!("unix:{}", path.display()),
        }
    }
}

/// An IP address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpAddress(pub SocketAddr);

impl FromText for TcpAddress {
    const WHAT: &'static str = "an IP address and port";
    const EXAMPLE: &'static str = "127.0.0.1:9180";

    fn read(text: &str) -> Result<Self, Bad> {
        match BindAddress::read(text)? {
            BindAddress::Tcp(address) => Ok(TcpAddress(address)),
            BindAddress::Unix(_) => bad("a path", "write \"127.0.0.1:9180\""),
        }
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

/// A host without port, or `*` for any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusHost(pub String);

impl FromText for StatusHost {
    const WHAT: &'static str = "a host without port, or \"*\"";
    const EXAMPLE: &'static str = "gateway.internal";

    fn read(text: &str) -> Result<Self, Bad> {
        match text {
            "*" => Ok(StatusHost(text.to_owned())),
            _ if text.contains('*') => {
                bad("a wildcard", "list each name, or write \"*\" for any name")
            }
            _ => BareHost::read(text).map(|host| StatusHost(host.0)),
        }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// What stands for a secret wherever the configuration is shown.
pub const REDACTED: &str = "[redacted]";

/// A value that is used but never shown: not by `GET /config`, not by `ringway diff`, not in logs,
/// not in what is reported of the line that it stands in.
/// A key of [`crate::section!`] is secret by having this type.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T>(pub T);

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl<T: Decode> Decode for Secret<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn decode(value: &DeValue<'_>, place: Place, sink: &mut Sink) -> Option<Self> {
        sink.hide(place);
        let known = sink.problems.len();
        let decoded = T::decode(value, place, sink).map(Secret);
        if let Some(text) = value.as_str().map(str::trim).filter(|text| !text.is_empty()) {
            sink.problems[known..].iter_mut().for_each(|problem| problem.redact(text));
        }
        decoded
    }

    fn written(&self) -> Option<String> {
        Some(quoted(REDACTED))
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        T::schema(generator)
    }

    fn shape() -> Shape {
        Shape::Value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::decode::Named, section};

    section! {
        /// A section with a secret.
        pub struct Sample {
            /// Shown.
            user: String;
            /// Not shown.
            password: Secret<String>;
            /// Not shown either, and not there unless written.
            token: Option<Secret<String>> = None, eg "\"env:TOKEN\"";
            /// By name.
            keys: Named<Secret<String>> = Named::default();
        }
    }

    fn sample(text: &str) -> Sample {
        let table = toml::de::DeTable::parse(text).expect("TOML").into_inner();
        let place = Place { start: 0, end: 0 };
        Sample::decode(&DeValue::Table(table), place, &mut Sink::default()).expect("a sample")
    }

    #[test]
    fn a_secret_is_used_and_not_shown() {
        let text = "user = \"u\"\npassword = \"hunter2\"\ntoken = \"hunter2\"\n\
                    keys = { a = \"hunter2\" }\n";
        let sample = sample(text);
        assert_eq!(sample.password.value.0, "hunter2");
        let shown = sample.effective().expect("a table").to_string();
        assert!(shown.contains("user = \"u\"") && shown.matches(REDACTED).count() == 3, "{shown}");
        for shown in [shown, format!("{sample:?}")] {
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }

    #[test]
    fn a_secret_that_is_not_there_is_not_shown_as_one() {
        let shown = sample("user = \"u\"\npassword = \"p\"").effective().expect("a table");
        assert!(shown.get("token").is_none(), "{shown}");
    }
}
