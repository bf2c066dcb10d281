//! What an endpoint is told of a client's connection before anything else
//! (`upstreams.proxy_protocol`).
//!
//! The header speaks of one connection, so whoever writes it sees to it that nobody else's requests
//! follow: [`super::pool::Own`].

use rustix::net::getsockname;

use super::client::Client;
use crate::{
    config::snapshot::ProxyHeader,
    wire::proxy::{Secured, Told, write_binary, write_line},
};

/// The header for a connection that is made for `client`; empty where there is none. `asked` is the
/// name that the client asked for where TLS passes through.
pub fn header(rule: ProxyHeader, client: Option<&Client>, asked: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    if rule == ProxyHeader::Off {
        return out;
    }
    let agreed = client.and_then(|client| client.stream.agreed());
    let mut told =
        Told { addresses: client.and_then(addresses), authority: asked, ..Told::default() };
    if let Some(agreed) = &agreed {
        told.authority = agreed.name.as_bytes();
        told.alpn = &agreed.alpn;
        told.tls = Some(Secured { version: agreed.version, is_verified: agreed.is_verified });
    }
    match rule {
        ProxyHeader::Off => {}
        ProxyHeader::V1 => write_line(&mut out, &told),
        ProxyHeader::V2 => write_binary(&mut out, &told),
    }
    out
}

/// Of the client, and where it connected.
fn addresses(client: &Client) -> Option<(std::net::SocketAddr, std::net::SocketAddr)> {
    let to = std::net::SocketAddr::try_from(getsockname(&client.stream).ok()?).ok()?;
    Some(((client.peer?, client.peer_port).into(), to))
}
