//! What request and response heads have in common: what their fields say about the message and
//! the connection, and the final word on a head that was not accepted at once.

use super::grammar::{is_token, list};
use super::reason::*;
use super::scan::FIELDS_CAP;
use super::{Connection, Field, FieldId, HeadLimits, Parsed, Span, Version};

/// Connection options one message may name. Each is compared with every field, so a bound is
/// needed; real messages name one or two.
const CONNECTION_OPTIONS_MAX: usize = 32;

/// Fields that belong to one connection whatever the Connection field says (RFC 9110 §7.6.1, with
/// the proxy credentials of §11.7, which are for this hop only).
pub(super) const HOP_BY_HOP: u32 = bit(FieldId::Connection)
    | bit(FieldId::KeepAlive)
    | bit(FieldId::ProxyConnection)
    | bit(FieldId::ProxyAuthenticate)
    | bit(FieldId::ProxyAuthorization)
    | bit(FieldId::Te)
    | bit(FieldId::TransferEncoding)
    | bit(FieldId::Upgrade)
    | bit(FieldId::Http2Settings);

pub(super) const fn bit(id: FieldId) -> u32 {
    1 << id as u32
}

/// What the fast parser made of a head.
pub(super) enum Lines {
    Whole(Summary),
    Partial,
    /// Refused, or accepted with more tolerance than this gateway has: the scan decides.
    Suspect,
}

/// Field lines a head may have.
pub(super) fn fields_max(limits: &HeadLimits) -> usize {
    usize::from(limits.fields_max).min(FIELDS_CAP)
}

/// The first line of `head`, or all of it when it has no end yet. httparse reads a start line given
/// alone to its end, then asks for more.
#[inline]
pub(super) fn start_line(head: &[u8]) -> &[u8] {
    memchr::memchr(b'\n', head).map_or(head, |end| &head[..=end])
}

/// The part of `buf` a head may occupy. Looking no further makes every limit independent of how
/// the bytes were split into reads.
#[inline]
pub(super) fn within<'b>(buf: &'b [u8], limits: &HeadLimits) -> &'b [u8] {
    &buf[..buf.len().min(limits.head_bytes_max as usize)]
}

/// The final word on a head the fast parser could not accept, given what the scan found.
#[cold]
pub(super) fn verdict(
    scanned: Result<Parsed<usize>, &'static Reason>,
    head_len: usize,
    limits: &HeadLimits,
) -> Result<Parsed<()>, &'static Reason> {
    match scanned? {
        Parsed::Partial if head_len < limits.head_bytes_max as usize => Ok(Parsed::Partial),
        Parsed::Partial => Err(HEAD_TOO_LARGE),
        // Not reached as long as httparse accepts all that the scan accepts; refusing is safe.
        Parsed::Complete(_) => Err(MALFORMED_HEAD),
    }
}

/// How often a field occurred, and the value of its last occurrence.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Occurrence {
    pub(super) count: u32,
    pub(super) value: Span,
}

impl Occurrence {
    #[inline]
    fn add(&mut self, value: Span) {
        self.count += 1;
        self.value = value;
    }
}

/// The fields that decide about the message, gathered while its lines were collected.
#[derive(Debug, Default)]
pub(super) struct Summary {
    pub(super) len: usize,
    pub(super) host: Occurrence,
    pub(super) content_length: Occurrence,
    pub(super) transfer_encoding: Occurrence,
    pub(super) expect: Occurrence,
    pub(super) upgrade: Occurrence,
    connection: Occurrence,
    te: Occurrence,
}

impl Summary {
    #[inline]
    pub(super) fn note(&mut self, id: FieldId, value: Span) {
        match id {
            FieldId::Host => self.host.add(value),
            FieldId::ContentLength => self.content_length.add(value),
            FieldId::TransferEncoding => self.transfer_encoding.add(value),
            FieldId::Expect => self.expect.add(value),
            FieldId::Upgrade => self.upgrade.add(value),
            FieldId::Connection => self.connection.add(value),
            FieldId::Te => self.te.add(value),
            _ => {}
        }
    }

    /// Content-Length, when there is exactly one and it is one number. Copies are refused even
    /// when they agree (RFC 9112 §6.3 item 5 allows either).
    pub(super) fn length(&self, head: &[u8]) -> Result<Option<u64>, &'static Reason> {
        match self.content_length.count {
            0 => Ok(None),
            1 => super::grammar::number(self.content_length.value.of(head))
                .map(Some)
                .ok_or(LENGTH_INVALID),
            _ => Err(LENGTH_INVALID),
        }
    }

    /// Whether the message is chunked. Refuses every coding but a single chunked, codings in
    /// HTTP/1.0, and codings next to a length (RFC 9112 §6.1, §6.3).
    pub(super) fn chunked(&self, head: &[u8], version: Version) -> Result<bool, &'static Reason> {
        if self.transfer_encoding.count == 0 {
            return Ok(false);
        }
        if self.content_length.count != 0 {
            return Err(FRAMING_BOTH);
        }
        if version == Version::Http10 {
            return Err(CODING_HTTP10);
        }
        let one = self.transfer_encoding.count == 1;
        if one && self.transfer_encoding.value.of(head).eq_ignore_ascii_case(b"chunked") {
            Ok(true)
        } else {
            Err(CODING_UNSUPPORTED)
        }
    }

    /// Reads the Connection options and marks the fields they name as hop-by-hop.
    #[inline]
    pub(super) fn connection(
        &self,
        head: &[u8],
        version: Version,
        fields: &mut [Field],
    ) -> Result<Connection, &'static Reason> {
        if self.connection.count == 0 {
            return Ok(Connection {
                persistent: version == Version::Http11,
                ..Connection::default()
            });
        }
        // What nearly every message that has the field says, without reading it as a list.
        let value = self.connection.value.of(head);
        if self.connection.count == 1 && value.eq_ignore_ascii_case(b"keep-alive") {
            return Ok(Connection { persistent: true, ..Connection::default() });
        }
        let options = Options::read(head, fields)?;
        let current = version == Version::Http11;
        Ok(Connection {
            persistent: !options.close && (current || options.keep_alive),
            upgrade: current
                && options.upgrade
                && self.upgrade.count > 0
                && upgrade_acceptable(head, fields),
            te_trailers: options.te && self.te.count > 0 && te_trailers(head, fields),
        })
    }
}

/// The Connection options that mean something here.
#[derive(Default)]
struct Options {
    close: bool,
    keep_alive: bool,
    upgrade: bool,
    te: bool,
}

impl Options {
    fn read(head: &[u8], fields: &mut [Field]) -> Result<Options, &'static Reason> {
        let mut options = Options::default();
        let mut count = 0;
        for index in 0..fields.len() {
            if fields[index].id != FieldId::Connection {
                continue;
            }
            for option in list(fields[index].value.of(head)) {
                count += 1;
                if count > CONNECTION_OPTIONS_MAX {
                    return Err(CONNECTION_INVALID);
                }
                options.take(head, option, fields)?;
            }
        }
        Ok(options)
    }

    fn take(
        &mut self,
        head: &[u8],
        option: &[u8],
        fields: &mut [Field],
    ) -> Result<(), &'static Reason> {
        let is = |name: &[u8]| option.eq_ignore_ascii_case(name);
        if is(b"keep-alive") {
            self.keep_alive = true;
        } else if is(b"close") {
            self.close = true;
        } else if is(b"upgrade") {
            self.upgrade = true;
        } else if is(b"te") {
            self.te = true;
        } else if !is_token(option) || is(b"host") || is(b"content-length") {
            return Err(CONNECTION_INVALID);
        } else {
            for field in fields.iter_mut().filter(|field| is(field.name.of(head))) {
                field.hop_by_hop = true;
            }
        }
        Ok(())
    }
}

/// Every protocol offered is well-formed, and none of them is h2c: an upstream that took that
/// offer would carry further requests past the gateway's rules.
fn upgrade_acceptable(head: &[u8], fields: &[Field]) -> bool {
    let mut offered = false;
    for field in fields.iter().filter(|field| field.id == FieldId::Upgrade) {
        for protocol in list(field.value.of(head)) {
            offered = true;
            let mut parts = protocol.splitn(2, |&b| b == b'/');
            let name = parts.next().unwrap_or_default();
            let well_formed = is_token(name) && parts.next().is_none_or(is_token);
            if !well_formed || name.eq_ignore_ascii_case(b"h2c") {
                return false;
            }
        }
    }
    offered
}

fn te_trailers(head: &[u8], fields: &[Field]) -> bool {
    fields
        .iter()
        .filter(|field| field.id == FieldId::Te)
        .any(|field| list(field.value.of(head)).any(|te| te.eq_ignore_ascii_case(b"trailers")))
}
