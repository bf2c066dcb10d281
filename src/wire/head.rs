//! What request and response heads have in common: what their fields say about the message and
//! the connection, and the final word on a head that was not accepted at once.

use super::field::is_word;
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
        // Not reached as long as the fast parsers accept all that the scan does; refusing is safe.
        Parsed::Complete(_) => Err(MALFORMED_HEAD),
    }
}

/// Which of the known fields occurred, noted while the lines were read.
#[derive(Debug, Default)]
pub(super) struct Summary {
    pub(super) len: usize,
    /// Bits of the fields that occurred, and of those that did so more than once.
    seen: u32,
    repeated: u32,
    /// Index of each one's last line; meaningless for a field that did not occur.
    last: [u8; IDS],
}

/// Room for every [`FieldId`], as many as a mask has bits.
const IDS: usize = u32::BITS as usize;

const _: () = assert!((FieldId::XRequestId as usize) < IDS && FIELDS_CAP <= 256);

impl Summary {
    /// Notes the line number `index`.
    #[inline(always)]
    pub(super) fn note(&mut self, id: FieldId, index: usize) {
        self.repeated |= self.seen & bit(id);
        self.seen |= bit(id);
        self.last[id as usize % IDS] = index as u8;
    }

    #[inline]
    pub(super) fn has(&self, id: FieldId) -> bool {
        self.seen & bit(id) != 0
    }

    #[inline]
    pub(super) fn repeats(&self, id: FieldId) -> bool {
        self.repeated & bit(id) != 0
    }

    /// The value on the last line of `id`, empty if there is none.
    #[inline]
    pub(super) fn value(&self, id: FieldId, fields: &[Field]) -> Span {
        if !self.has(id) {
            return Span::EMPTY;
        }
        fields
            .get(usize::from(self.last[id as usize % IDS]))
            .map_or(Span::EMPTY, |field| field.value)
    }

    /// Content-Length, when there is exactly one and it is one number. Copies are refused even
    /// when they agree (RFC 9112 §6.3 item 5 allows either).
    #[inline]
    pub(super) fn length(
        &self,
        head: &[u8],
        fields: &[Field],
    ) -> Result<Option<u64>, &'static Reason> {
        if !self.has(FieldId::ContentLength) {
            return Ok(None);
        }
        if self.repeats(FieldId::ContentLength) {
            return Err(LENGTH_INVALID);
        }
        let value = self.value(FieldId::ContentLength, fields).of(head);
        super::grammar::number(value).map(Some).ok_or(LENGTH_INVALID)
    }

    /// Whether the message is chunked. Refuses every coding but a single chunked, codings in
    /// HTTP/1.0, and codings next to a length (RFC 9112 §6.1, §6.3).
    #[inline]
    pub(super) fn chunked(
        &self,
        head: &[u8],
        version: Version,
        fields: &[Field],
    ) -> Result<bool, &'static Reason> {
        if !self.has(FieldId::TransferEncoding) {
            return Ok(false);
        }
        if self.has(FieldId::ContentLength) {
            return Err(FRAMING_BOTH);
        }
        if version == Version::Http10 {
            return Err(CODING_HTTP10);
        }
        let value = self.value(FieldId::TransferEncoding, fields).of(head);
        if !self.repeats(FieldId::TransferEncoding) && value.eq_ignore_ascii_case(b"chunked") {
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
        if !self.has(FieldId::Connection) {
            return Ok(Connection {
                persistent: version == Version::Http11,
                ..Connection::default()
            });
        }
        // What nearly every message that has the field says, without reading it as a list.
        let value = self.value(FieldId::Connection, fields).of(head);
        if !self.repeats(FieldId::Connection) && is_word(value, b"keep-alive") {
            return Ok(Connection { persistent: true, ..Connection::default() });
        }
        let options = Options::read(head, fields)?;
        let current = version == Version::Http11;
        Ok(Connection {
            persistent: !options.close && (current || options.keep_alive),
            upgrade: current
                && options.upgrade
                && self.has(FieldId::Upgrade)
                && upgrade_acceptable(head, fields),
            te_trailers: options.te && self.has(FieldId::Te) && te_trailers(head, fields),
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
