//! The text that a signature is over (RFC 9421 §2.5).

use base64::{Engine, engine::general_purpose::STANDARD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use sfv::{
    BareItem, Dictionary, FieldType, InnerList, Item, List, ListEntry, ListSerializer, Parameters,
    Parser,
};

use super::Message;
use crate::policy::{
    admit::raw_path,
    pairs::{decoded, parameters},
};

/// What forms leave as it is (URL Standard, application/x-www-form-urlencoded percent-encode set).
const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'*').remove(b'-').remove(b'.').remove(b'_');

/// The signature base; `None`: something is covered twice, is not there, or cannot be read.
pub fn of(message: &Message<'_>, covered: &InnerList) -> Option<Vec<u8>> {
    let mut base = Vec::with_capacity(512);
    for (at, item) in covered.items.iter().enumerate() {
        // Parameters in another order are the same ones.
        if covered.items[..at].contains(item) {
            return None;
        }
        base.extend_from_slice(item.serialize().as_bytes());
        base.extend_from_slice(b": ");
        value(message, item, &mut base)?;
        base.push(b'\n');
    }
    base.extend_from_slice(b"\"@signature-params\": ");
    base.extend_from_slice(member(&ListEntry::InnerList(covered.clone()))?.as_bytes());
    Some(base)
}

/// A member of a list or dictionary by itself.
fn member(entry: &ListEntry) -> Option<String> {
    let mut list = ListSerializer::new();
    list.members([entry]);
    list.finish()
}

/// Appends the value of one component.
fn value(message: &Message<'_>, item: &Item, out: &mut Vec<u8>) -> Option<()> {
    let BareItem::String(name) = &item.bare_item else { return None };
    match name.as_str() {
        "@query-param" => query_parameter(message, &item.params, out),
        name if name.starts_with('@') => {
            item.params.is_empty().then_some(())?;
            derived(message, name, out)
        }
        name => field(message, name, &item.params, out),
    }
}

/// RFC 9421 §2.2.
fn derived(message: &Message<'_>, name: &str, out: &mut Vec<u8>) -> Option<()> {
    let (head, bytes) = (message.head, message.bytes);
    match name {
        "@method" => out.extend_from_slice(head.method_text.of(bytes)),
        "@scheme" => out.extend_from_slice(message.scheme.as_bytes()),
        "@request-target" => out.extend_from_slice(head.target.of(bytes)),
        "@authority" => authority(message, out),
        "@path" => out.extend_from_slice(raw_path(head, bytes)),
        // A bare one where there is none (§2.2.7).
        "@query" => {
            out.push(b'?');
            out.extend_from_slice(head.query.map_or(&b""[..], |query| query.of(bytes)));
        }
        "@target-uri" => {
            out.extend_from_slice(message.scheme.as_bytes());
            out.extend_from_slice(b"://");
            authority(message, out);
            out.extend_from_slice(raw_path(head, bytes));
            if let Some(query) = head.query {
                out.push(b'?');
                out.extend_from_slice(query.of(bytes));
            }
        }
        // `@status` is of responses.
        _ => return None,
    }
    Some(())
}

/// In lower case, without the scheme's own port (§2.2.3).
fn authority(message: &Message<'_>, out: &mut Vec<u8>) {
    let whole = message.head.authority.of(message.bytes);
    let port: &[u8] = if message.scheme == "https" { b":443" } else { b":80" };
    let own = whole.strip_suffix(port).unwrap_or(whole);
    out.extend(own.iter().map(u8::to_ascii_lowercase));
}

/// One parameter of the query, that is there once (§2.2.8).
fn query_parameter(message: &Message<'_>, params: &Parameters, out: &mut Vec<u8>) -> Option<()> {
    let name = match (params.len(), params.get("name")) {
        (1, Some(BareItem::String(name))) => name.as_str(),
        _ => return None,
    };
    let query = message.head.query.map_or(&b""[..], |query| query.of(message.bytes));
    let is_it = |own: &[u8]| percent_encode(&decoded(own), FORM).to_string() == name;
    let mut own = parameters(query).filter(|(own, _)| is_it(own));
    let (_, value) = own.next()?;
    if own.next().is_some() {
        return None;
    }
    out.extend_from_slice(percent_encode(&decoded(value), FORM).to_string().as_bytes());
    Some(())
}

/// RFC 9421 §2.1.
fn field(message: &Message<'_>, name: &str, params: &Parameters, out: &mut Vec<u8>) -> Option<()> {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    let flag = |name: &str| params.get(name) == Some(&BareItem::Boolean(true));
    let one = params.len() == 1;
    match params.keys().next().map(|key| key.as_str()) {
        None => out.extend_from_slice(&message.field(name)?),
        Some("bs") if one && flag("bs") => {
            let coded = |line: &[u8]| format!(":{}:", STANDARD.encode(line));
            let lines: Vec<String> = message.lines(name).map(coded).collect();
            if lines.is_empty() {
                return None;
            }
            out.extend_from_slice(lines.join(", ").as_bytes());
        }
        Some("sf") if one && flag("sf") => {
            out.extend_from_slice(strict(name, &message.field(name)?)?.as_bytes());
        }
        Some("key") if one => {
            let Some(BareItem::String(key)) = params.get("key") else { return None };
            let whole: Dictionary = Parser::new(&message.field(name)?).parse().ok()?;
            out.extend_from_slice(member(whole.get(key.as_str())?)?.as_bytes());
        }
        // Trailers (`tr`) come too late, and no request answers one (`req`).
        _ => return None,
    }
    Some(())
}

/// A structured field written strictly (§2.1.1), where its kind is known.
fn strict(name: &str, value: &[u8]) -> Option<String> {
    match name {
        "content-digest"
        | "repr-digest"
        | "want-content-digest"
        | "want-repr-digest"
        | "priority"
        | "signature"
        | "signature-input"
        | "accept-signature"
        | "client-hints" => Parser::new(value).parse::<Dictionary>().ok()?.serialize(),
        "accept-ch" | "cache-status" | "proxy-status" | "client-cert-chain" => {
            Parser::new(value).parse::<List>().ok()?.serialize()
        }
        "client-cert" | "idempotency-key" => {
            Some(Parser::new(value).parse::<Item>().ok()?.serialize())
        }
        _ => None,
    }
}
