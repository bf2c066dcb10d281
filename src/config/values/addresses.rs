//! Addresses, hosts and networks.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use ipnet::IpNet;

use super::{Bad, FromText, Name, bad};

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

pub(super) fn unix_path(path: &str) -> Result<PathBuf, Bad> {
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
pub(super) fn is_host_name(host: &str) -> bool {
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

/// Addresses where a policy looks for a client's: a network, one address, or the name of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressSource {
    Network(IpNet),
    List(String),
}

impl FromText for AddressSource {
    const WHAT: &'static str = "an IP network or address, or the name of a list of addresses";
    const EXAMPLE: &'static str = "10.0.0.0/8";

    fn read(text: &str) -> Result<Self, Bad> {
        // A name has neither, and hardly begins with a digit and has dots.
        let is_numeric = text.starts_with(|c: char| c.is_ascii_digit()) && text.contains('.');
        if text.contains(['/', ':']) || is_numeric {
            return Network::read(text).map(|network| AddressSource::Network(network.0));
        }
        Name::read(text).map(|name| AddressSource::List(name.0))
    }

    fn show(&self) -> String {
        match self {
            AddressSource::Network(network) => network.to_string(),
            AddressSource::List(name) => name.clone(),
        }
    }
}

/// A network, or one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network(pub IpNet);

impl Network {
    /// From a line of a file; else what to write instead.
    pub fn of_line(text: &str) -> Result<IpNet, String> {
        Network::read(text).map(|network| network.0).map_err(|bad| bad.fix)
    }
}

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
