//! Who the client is behind trusted proxies, and what the forwarding fields say about it.
//!
//! Anybody can write X-Forwarded-For. So what a request says about its past is believed only if it
//! comes from a peer in `trusted_proxies`, from right to left, as far as each address that vouches
//! for the next is trusted itself. The first address that is not is the client. A malformed,
//! unknown or obfuscated entry ends the chain: the proxy that reported it stands for the client.
//!
//! What goes to the upstream is the believed part, newly written, and nothing of the rest: the
//! leftmost address an upstream reads is the client's, however naively it reads.
//!
//! A peer on a Unix socket has no address: it is not trusted, and no address is forwarded for it.

use std::{io::Write, net::IpAddr};

use ipnet::IpNet;

use crate::wire::{
    FieldId, RequestHead,
    forwarded::{Element, Forwarded, ForwardedFor, Malformed, Node, write_forwarded_element},
};

/// Most proxies before the peer that are believed and passed on.
pub const HOPS_MAX: usize = 32;

/// Which fields tell the upstream about the client (configuration key `forwarding.fields`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardedFields {
    /// X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host
    XForwarded,
    /// Forwarded (RFC 7239)
    Forwarded,
    /// None is written. Those of trusted peers pass untouched, those of others are removed.
    Off,
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress {
    /// IPv4 even if it came in IPv6's clothes; `None` for a Unix socket.
    pub ip: Option<IpAddr>,
    /// The peer's forwarding fields are believed.
    pub trusted_peer: bool,
}

/// A request head and how it got here.
#[derive(Clone, Copy)]
pub struct Received<'a> {
    /// Other end of the connection; `None` for a Unix socket.
    pub peer: Option<IpAddr>,
    /// `peer` as text (IPv4 if it is IPv4-mapped), because it is written for every request; empty
    /// for a Unix socket.
    pub peer_text: &'a [u8],
    /// Peers whose forwarding fields are believed.
    pub trusted: &'a [IpNet],
    /// Scheme of the listener: `http` or `https`.
    pub scheme: &'a str,
    pub head: &'a RequestHead,
    /// The buffer `head` refers to.
    pub buf: &'a [u8],
}

/// Who the client is, as far as trusted peers vouch for it. X-Forwarded-For is read if there is
/// any, else Forwarded.
#[inline(always)]
pub fn client_address(
    peer: Option<IpAddr>,
    trusted: &[IpNet],
    head: &RequestHead,
    buf: &[u8],
) -> ClientAddress {
    Received { peer, peer_text: b"", trusted, scheme: "", head, buf }.client_address()
}

/// Whether a received field is not to be forwarded, because `write_forwarding` writes it anew or
/// because nobody trusted sent it. In either mode the other mode's fields are removed too: what is
/// believed of them is in the new ones.
pub fn drops_field(fields: ForwardedFields, trusted_peer: bool, id: FieldId) -> bool {
    use FieldId::{
        Forwarded, XForwardedFor, XForwardedHost, XForwardedPort, XForwardedProto, XRealIp,
    };
    match id {
        XForwardedFor | Forwarded => !(trusted_peer && fields == ForwardedFields::Off),
        XForwardedProto | XForwardedHost | XForwardedPort => {
            !trusted_peer || fields == ForwardedFields::Forwarded
        }
        XRealIp => !trusted_peer,
        _ => false,
    }
}

/// Appends the field lines that tell the upstream about the client:
///
/// - `XForwarded`: X-Forwarded-For with the believed addresses and the peer's;
///   X-Forwarded-Proto and -Host unless a trusted peer sent them ([`drops_field`] keeps those).
/// - `Forwarded`: one element each for the believed addresses and the peer; the first says what is
///   believed of scheme and host, the last what this gateway saw itself.
pub fn write_forwarding(out: &mut Vec<u8>, fields: ForwardedFields, from: &Received<'_>) {
    match fields {
        ForwardedFields::XForwarded => from.write_x_forwarded(out),
        ForwardedFields::Forwarded => from.write_forwarded(out),
        ForwardedFields::Off => {}
    }
}

/// Believed addresses before the peer's, nearest first, and what the farthest entry says.
struct Chain<'a> {
    addresses: [Option<IpAddr>; HOPS_MAX],
    farthest: Element<'a>,
}

impl Chain<'_> {
    /// Farthest first, as the fields list them.
    fn in_field_order(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().rev().filter_map(|a| *a)
    }
}

impl<'a> Received<'a> {
    #[inline(always)]
    fn client_address(&self) -> ClientAddress {
        let peer = self.peer.map(|ip| ip.to_canonical());
        let trusted_peer = self.trusts(|| peer);
        if !trusted_peer {
            return ClientAddress { ip: peer, trusted_peer };
        }
        let ip = self.believed().last().map(|(ip, _)| ip).or(peer);
        ClientAddress { ip, trusted_peer }
    }

    /// Where nobody is trusted, no address is looked at.
    #[inline]
    fn trusts(&self, ip: impl FnOnce() -> Option<IpAddr>) -> bool {
        !self.trusted.is_empty()
            && ip().is_some_and(|ip| self.trusted.iter().any(|net| net.contains(&ip)))
    }

    /// Entries that a trusted address vouches for, nearest first.
    fn believed(&self) -> impl Iterator<Item = (IpAddr, Element<'a>)> {
        let received = *self;
        let mut vouching = self.peer.map(|ip| ip.to_canonical());
        let entries = self.entries().map_while(move |entry| {
            if !received.trusts(|| vouching) {
                return None;
            }
            let entry = entry.ok()?;
            let Some(Node::Ip(ip, _)) = entry.for_node else { return None };
            let ip = ip.to_canonical();
            vouching = Some(ip);
            Some((ip, entry))
        });
        entries.take(HOPS_MAX)
    }

    /// What X-Forwarded-For says, or where there is none Forwarded, from right to left.
    fn entries(&self) -> impl Iterator<Item = Result<Element<'a>, Malformed>> {
        let fields = &self.head.fields;
        let x_forwarded = self.has(FieldId::XForwardedFor);
        let only_address = |node| Element { for_node: Some(node), ..Element::default() };
        let addresses = ForwardedFor::new(self.buf, fields).map(move |n| n.map(only_address));
        let elements = (!x_forwarded).then(|| Forwarded::new(self.buf, fields));
        addresses.chain(elements.into_iter().flatten())
    }

    fn chain(&self) -> Chain<'a> {
        let mut chain = Chain { addresses: [None; HOPS_MAX], farthest: Element::default() };
        for (slot, (ip, entry)) in chain.addresses.iter_mut().zip(self.believed()) {
            *slot = Some(ip);
            chain.farthest = entry;
        }
        chain
    }

    fn has(&self, id: FieldId) -> bool {
        self.head.fields.iter().any(|f| f.id == id)
    }

    /// A trusted peer's value of a field that must stand alone to mean anything.
    fn single_value(&self, id: FieldId) -> Option<&'a [u8]> {
        let mut lines = self.head.fields.iter().filter(|f| f.id == id);
        let (first, more) = (lines.next()?, lines.next());
        let value = first.value.of(self.buf);
        (more.is_none() && !value.is_empty() && !value.contains(&b',')).then_some(value)
    }

    fn write_x_forwarded(&self, out: &mut Vec<u8>) {
        if !self.trusts(|| self.peer.map(|ip| ip.to_canonical())) {
            return self.write_own_x_forwarded(out);
        }
        let chain = self.chain();
        if let Some(peer) = self.peer {
            out.extend_from_slice(b"X-Forwarded-For: ");
            for address in chain.in_field_order() {
                write_display(out, address);
                out.extend_from_slice(b", ");
            }
            write_display(out, peer.to_canonical());
            out.extend_from_slice(b"\r\n");
        }
        let mut line = |id, name: &[u8], believed: Option<&[u8]>, own: &[u8]| {
            let value = believed.unwrap_or(own);
            if !(value.is_empty() || self.has(id)) {
                for part in [name, value, b"\r\n"] {
                    out.extend_from_slice(part);
                }
            }
        };
        let (proto, host) = (chain.farthest.proto, chain.farthest.host);
        let authority = self.head.authority.of(self.buf);
        let scheme = self.scheme.as_bytes();
        line(FieldId::XForwardedProto, b"X-Forwarded-Proto: ", proto, scheme);
        line(FieldId::XForwardedHost, b"X-Forwarded-Host: ", host, authority);
    }

    /// The usual case: nobody before the peer is believed.
    fn write_own_x_forwarded(&self, out: &mut Vec<u8>) {
        let authority = self.head.authority.of(self.buf);
        let lines: [(&[u8], &[u8]); 3] = [
            (b"X-Forwarded-For: ", self.peer_text),
            (b"X-Forwarded-Proto: ", self.scheme.as_bytes()),
            (b"X-Forwarded-Host: ", authority),
        ];
        for (name, value) in lines {
            if !value.is_empty() {
                for part in [name, value, b"\r\n"] {
                    out.extend_from_slice(part);
                }
            }
        }
    }

    fn write_forwarded(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"Forwarded: ");
        let Some(peer) = self.peer.map(|ip| ip.to_canonical()) else {
            out.extend_from_slice(b"for=unknown;proto=");
            out.extend_from_slice(self.scheme.as_bytes());
            out.extend_from_slice(b"\r\n");
            return;
        };
        let chain = self.chain();
        let host = chain.farthest.host.or_else(|| self.single_value(FieldId::XForwardedHost));
        let proto = chain.farthest.proto.or_else(|| self.single_value(FieldId::XForwardedProto));
        let proto = proto.and_then(|p| std::str::from_utf8(p).ok()).unwrap_or(self.scheme);
        for (i, address) in chain.in_field_order().enumerate() {
            match (i, address) {
                (0, _) => {
                    write_forwarded_element(out, address, proto, host.unwrap_or_default(), None);
                }
                (_, IpAddr::V4(address)) => write_display(out, format_args!("for={address}")),
                (_, IpAddr::V6(address)) => write_display(out, format_args!("for=\"[{address}]\"")),
            }
            out.extend_from_slice(b", ");
        }
        let authority = self.head.authority.of(self.buf);
        write_forwarded_element(out, peer, self.scheme, authority, None);
        out.extend_from_slice(b"\r\n");
    }
}

fn write_display(out: &mut Vec<u8>, value: impl std::fmt::Display) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{value}");
}

#[cfg(test)]
mod tests;
