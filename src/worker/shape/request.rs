//! The request as its transformation makes it.

use super::{View, codings, is_json};
use crate::{
    policy::{
        Refusal,
        pairs::cookies,
        refusal,
        route::RouteMatch,
        template::{Place, Template},
        transform::{BodyTransform, CookieChanges, Form, RequestTransform, json},
    },
    wire::{Field, FieldId, Framing, HeadLimits, Method, ResponseHead, emit},
    worker::{
        Worker,
        exchange::{Exchange, RequestBody, ResponseSink},
        generation::Generation,
        policies::UpstreamFields,
        received::{Received, Whole},
    },
};

/// Changes of the head: they are told to whoever composes it for the upstream.
pub fn head(view: &View<'_>, rule: &RequestTransform) -> Result<UpstreamFields, Refusal> {
    let mut told = UpstreamFields::default();
    let exchange = view.exchange;
    let (head, bytes) = (exchange.head(), exchange.bytes());
    told.dropped.extend(rule.fields.dropped().map(|name| name.as_bytes().into()));
    rule.fields.write(&head.fields, bytes, view, &mut told.lines);
    if !rule.cookies.is_none() {
        told.dropped.push((*b"cookie").into());
        told.cookies = Some(cookie_text(view, &rule.cookies));
    }
    if rule.changes_target() {
        target(view, rule, &mut told)?;
    }
    Ok(told)
}

fn target(
    view: &View<'_>,
    rule: &RequestTransform,
    told: &mut UpstreamFields,
) -> Result<(), Refusal> {
    let exchange = view.exchange;
    let mut target = Vec::with_capacity(256);
    match &rule.path {
        Some(template) => path(view, template, &mut target)?,
        None => {
            let Some(matched) = view.matched else { return Ok(()) };
            let rewrite = &view.snapshot.route(matched.route).rewrite.path;
            let (forward, path) = (exchange.forward_path(), exchange.matched_path());
            rewrite.apply(forward, matched, path, &mut target)?;
        }
    }
    let query_at = target.len();
    rule.query.apply(exchange.upstream_query().unwrap_or_default(), view, &mut target);
    if target.len() > query_at {
        target.insert(query_at, b'?');
    }
    told.target = Some(target);
    // What answers HEAD has no body, whatever it is asked with.
    if let Some(method) = rule.method.as_deref().filter(|_| exchange.head().method != Method::Head)
    {
        told.method = Some(method.as_bytes().into());
        if exchange.head().framing == Framing::None && matches!(method, "POST" | "PUT" | "PATCH") {
            told.lines.extend_from_slice(b"Content-Length: 0\r\n");
        }
    }
    Ok(())
}

/// A path whose values stay within their segments: none becomes a dot segment, none is empty.
fn path(view: &View<'_>, template: &Template, out: &mut Vec<u8>) -> Result<(), Refusal> {
    if !template.fill(view, Place::Path, out) {
        return Err(refusal::TRANSFORM_VALUE.into());
    }
    let mut segments = out.split(|b| *b == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_empty = segment.is_empty() && segments.peek().is_some();
        if is_empty || matches!(segment, b"." | b"..") {
            return Err(refusal::REWRITE_UNSAFE.into());
        }
    }
    Ok(())
}

/// The cookies that stay, and those that are set (RFC 6265 §5.4).
fn cookie_text(view: &View<'_>, rule: &CookieChanges) -> Vec<u8> {
    let exchange = view.exchange;
    let mut value = Vec::new();
    let is_gone = |name: &[u8]| {
        rule.remove.iter().any(|gone| gone.as_bytes() == name)
            || rule.set.iter().any(|(gone, _)| gone.as_bytes() == name)
    };
    let known = exchange.upstream_cookies();
    let kept = cookies(&known).filter(|(name, _)| !is_gone(name));
    kept.for_each(|(name, text)| cookie(&mut value, name, text));
    let mut text = Vec::new();
    for (name, template) in &rule.set {
        text.clear();
        if template.fill(view, Place::Field, &mut text) {
            // What would end a cookie's value (RFC 6265 §4.1.1).
            text.retain(|b| !matches!(b, b';' | b',' | b' ' | b'"' | b'\\'));
            cookie(&mut value, name.as_bytes(), &text);
        }
    }
    value
}

fn cookie(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    if !out.is_empty() {
        out.extend_from_slice(b"; ");
    }
    out.extend_from_slice(name);
    out.push(b'=');
    out.extend_from_slice(value);
}

/// Reads the whole body, changes it, and has the exchange forward what came of it.
pub async fn body<B: RequestBody, S: ResponseSink>(
    worker: &Worker,
    exchange: &mut Exchange,
    (snapshot, matched): (&Generation, &RouteMatch),
    rule: &BodyTransform,
    (body, sink): (&mut B, &mut S),
) -> Result<(Received, Whole), Refusal> {
    let whole = read(worker, exchange, body, sink, rule.bytes_max).await?;
    let view = View::of(snapshot, exchange, matched);
    let text = rewritten(exchange, changed(&view, rule, &whole)?);
    let received = Received::replace(exchange, text, &snapshot.limits.head)?;
    Ok((received, Whole(body.bytes())))
}

/// The request has a body that its transformation is for.
pub fn concerns(exchange: &Exchange, rule: &BodyTransform) -> bool {
    let media = exchange.field(b"content-type").unwrap_or_default();
    exchange.head().framing != Framing::None
        && exchange.head().framing != Framing::Length(0)
        && match rule.form {
            Form::ToJson => is_json(media) || is_form(media),
            Form::None | Form::FromJson => is_json(media),
        }
}

fn is_form(media: &[u8]) -> bool {
    let name = media.split(|b| *b == b';').next().unwrap_or_default();
    name.trim_ascii().eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
}

/// Asks a client for its body that waits for being asked (RFC 9110 §10.1.1): what is forwarded
/// expects nothing.
pub async fn go_on<B: RequestBody, S: ResponseSink>(
    exchange: &Exchange,
    body: &B,
    sink: &mut S,
) -> Result<(), Refusal> {
    let text = b"HTTP/1.1 100 Continue\r\n\r\n";
    if exchange.head().expect_continue && !body.ended() {
        let mut head = ResponseHead::default();
        let limits = HeadLimits { head_bytes_max: 64, target_bytes_max: 0, fields_max: 8 };
        if head.parse(text, Method::Get, &limits).is_ok() {
            sink.interim(&head, text).await?;
        }
    }
    Ok(())
}

pub(super) async fn read<B: RequestBody, S: ResponseSink>(
    worker: &Worker,
    exchange: &Exchange,
    body: &mut B,
    sink: &mut S,
    bytes_max: usize,
) -> Result<Vec<u8>, Refusal> {
    let too_large = || Refusal::from(refusal::BODY_TOO_LARGE);
    if let Framing::Length(length) = exchange.head().framing
        && length > bytes_max as u64
    {
        return Err(too_large());
    }
    go_on(exchange, body, sink).await?;
    let mut whole = exchange.text(exchange.arrived).to_vec();
    while !body.ended() {
        let more = body.next().await?;
        whole.extend_from_slice(more.bytes());
        worker.buffers.give(more);
        if whole.len() > bytes_max {
            return Err(too_large());
        }
    }
    if whole.len() > bytes_max { Err(too_large()) } else { Ok(whole) }
}

/// The body as it is forwarded, and its media type when that is another one.
type Changed = (Vec<u8>, Option<&'static str>);

fn changed(view: &View<'_>, rule: &BodyTransform, whole: &[u8]) -> Result<Changed, Refusal> {
    let exchange = view.exchange;
    if codings(exchange).next().is_some() {
        return Err(refusal::TRANSFORM_ENCODED.into());
    }
    let media = exchange.field(b"content-type").unwrap_or_default();
    let mut value = match is_form(media) {
        true => json::from_form(whole),
        false => serde_json::from_slice(whole).map_err(|_| refusal::TRANSFORM_JSON)?,
    };
    json::apply(&rule.steps, &mut value, view);
    if rule.form == Form::FromJson {
        let form = json::to_form(&value).ok_or(refusal::TRANSFORM_FORM)?;
        return Ok((form, Some("application/x-www-form-urlencoded")));
    }
    // A value that was parsed can be written.
    let text = serde_json::to_vec(&value).unwrap_or_default();
    Ok((text, is_form(media).then_some("application/json")))
}

/// The client's head with another body.
fn rewritten(exchange: &Exchange, (body, media): Changed) -> (Vec<u8>, usize) {
    let (head, bytes) = (exchange.head(), exchange.bytes());
    let mut out = Vec::with_capacity(head.len + body.len() + 64);
    emit::request_line(&mut out, exchange.text(head.method_text), exchange.text(head.target), None);
    emit::kept_fields(&mut out, bytes, &head.fields, |field: &Field| match field.id {
        FieldId::ContentLength | FieldId::Expect | FieldId::Trailer => true,
        FieldId::Other => {
            let name = field.name.of(bytes);
            media.is_some() && name.eq_ignore_ascii_case(b"content-type") || is_digest(name)
        }
        _ => false,
    });
    if let Some(media) = media {
        emit::field(&mut out, b"content-type", media.as_bytes());
    }
    emit::number_field(&mut out, b"content-length", body.len() as u64);
    emit::end(&mut out);
    let head_len = out.len();
    out.extend_from_slice(&body);
    (out, head_len)
}

/// Fields that speak of a body byte by byte (RFC 9530, RFC 1864).
pub(super) fn is_digest(name: &[u8]) -> bool {
    [&b"content-digest"[..], b"repr-digest", b"digest", b"content-md5"]
        .iter()
        .any(|digest| name.eq_ignore_ascii_case(digest))
}
