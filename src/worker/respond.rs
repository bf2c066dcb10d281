//! Responses the gateway makes itself: fixed ones, redirects, and refusals as problem+json
//! (RFC 9457).

use std::sync::Arc;

use super::exchange::{Exchange, OwnResponse, ResponseSink};
use crate::{
    config::snapshot::{Redirect, RedirectedRequest, Respond, Token},
    policy::{
        Refusal,
        grpc::{self, Grpc},
        refusal,
        route::RouteMatch,
        validate::Fault,
    },
    wire::emit,
};

/// Sends a fixed response.
pub async fn fixed<S: ResponseSink>(sink: &mut S, rule: &Respond) -> Result<(), Refusal> {
    let response = OwnResponse {
        status: rule.status,
        content_type: &rule.content_type,
        fields: &rule.headers,
        body: &rule.body,
    };
    sink.own(response).await
}

/// Sends the client elsewhere.
pub async fn redirect<S: ResponseSink>(
    exchange: &Exchange,
    matched: &RouteMatch,
    rule: &Redirect,
    sink: &mut S,
) -> Result<(), Refusal> {
    let request = RedirectedRequest {
        scheme: exchange.scheme(),
        authority: exchange.text(exchange.head().authority),
        forward_path: exchange.forward_path(),
        query: exchange.query(),
        matched,
        matched_path: exchange.matched_path(),
    };
    let mut location = Vec::with_capacity(256);
    rule.location(&request, &mut location)?;
    send_to(rule.status, &location, sink).await
}

async fn send_to<S: ResponseSink>(
    status: u16,
    location: &[u8],
    sink: &mut S,
) -> Result<(), Refusal> {
    // The codec lets nothing but visible ASCII into a target or host.
    let location = String::from_utf8_lossy(location).into_owned();
    let fields = [("Location".to_owned(), location)];
    sink.own(OwnResponse { status, content_type: "", fields: &fields, body: b"" }).await
}

/// An answer before anything is routed.
pub enum Answer {
    /// To an authority that asks whether a name is ours (RFC 8555 §8.3).
    Challenge(Arc<Token>),
    /// The same over TLS, at this port.
    ToHttps(u16),
}

/// Sends such an answer.
pub async fn ahead<S: ResponseSink>(
    exchange: &Exchange,
    answer: Answer,
    sink: &mut S,
) -> Result<(), Refusal> {
    let token = match answer {
        Answer::ToHttps(port) => return to_https(exchange, port, sink).await,
        Answer::Challenge(token) => token,
    };
    let (content_type, body) = ("application/octet-stream", token.answer.as_bytes());
    sink.own(OwnResponse { status: 200, content_type, fields: &[], body }).await
}

/// Sends the client to the same resource over TLS, at `port`.
async fn to_https<S: ResponseSink>(
    exchange: &Exchange,
    port: u16,
    sink: &mut S,
) -> Result<(), Refusal> {
    if exchange.host().is_empty() {
        return Err(refusal::ROUTE_NOT_FOUND.into());
    }
    let mut location = b"https://".to_vec();
    location.extend_from_slice(exchange.host());
    if port != 443 {
        location.extend_from_slice(format!(":{port}").as_bytes());
    }
    location.extend_from_slice(exchange.forward_path());
    if let Some(query) = exchange.query() {
        location.push(b'?');
        location.extend_from_slice(query);
    }
    send_to(308, &location, sink).await
}

/// Sends a refusal as a problem.
pub async fn refuse<S: ResponseSink>(
    request_id: &[u8],
    refusal: Refusal,
    sink: &mut S,
) -> Result<(), Refusal> {
    let body = problem(refusal, request_id);
    let told = ("application/problem+json", body.as_bytes());
    refuse_as(request_id, refusal, told, sink).await
}

/// Sends a refusal with a body of this media type.
pub async fn refuse_as<S: ResponseSink>(
    request_id: &[u8],
    refusal: Refusal,
    (content_type, body): (&str, &[u8]),
    sink: &mut S,
) -> Result<(), Refusal> {
    let mut fields = Vec::new();
    if !refusal.allow.is_empty() {
        let names: Vec<&str> = refusal.allow.names().collect();
        fields.push(("Allow".to_owned(), names.join(", ")));
    }
    if refusal.retry_after_s > 0 {
        fields.push(("Retry-After".to_owned(), refusal.retry_after_s.to_string()));
    }
    if !request_id.is_empty() {
        let id = String::from_utf8_lossy(request_id).into_owned();
        fields.push(("X-Request-Id".to_owned(), id));
    }
    let status = refusal.reason.status;
    sink.own(OwnResponse { status, content_type, fields: &fields, body }).await
}

/// Sends a refusal to a client that speaks gRPC, whose errors are fields of a 200: what the
/// protocol calls a response of trailers only.
pub async fn refuse_call<S: ResponseSink>(
    request_id: &[u8],
    kind: Grpc,
    refusal: Refusal,
    sink: &mut S,
) -> Result<(), Refusal> {
    let mut fields = vec![
        ("grpc-status".to_owned(), grpc::status(refusal).to_string()),
        ("grpc-message".to_owned(), grpc::message(refusal.reason.meaning)),
    ];
    if !request_id.is_empty() {
        let id = String::from_utf8_lossy(request_id).into_owned();
        fields.push(("X-Request-Id".to_owned(), id));
    }
    let content_type = kind.content_type();
    sink.own(OwnResponse { status: 200, content_type, fields: &fields, body: b"" }).await
}

/// Sends a refusal as a problem that says what is wrong with the request.
pub async fn refuse_for<S: ResponseSink>(
    request_id: &[u8],
    (refusal, fault): (Refusal, &Fault),
    sink: &mut S,
) -> Result<(), Refusal> {
    let mut body = problem(refusal, request_id);
    body.truncate(body.trim_end().len() - 1);
    body.push_str(&fault.members());
    body.push_str("}\n");
    refuse_as(request_id, refusal, ("application/problem+json", body.as_bytes()), sink).await
}

/// The problem's JSON. Nothing in it needs escaping: the texts are the gateway's own, and a kept
/// request id has no special characters.
pub fn problem(refusal: Refusal, request_id: &[u8]) -> String {
    use std::fmt::Write;
    let reason = refusal.reason;
    let title = emit::phrase(reason.status);
    let mut body = String::with_capacity(256);
    // Writing to a String cannot fail.
    let _ = write!(
        body,
        r#"{{"type":"about:blank","title":"{title}","status":{},"reason":"{}","detail":"{}""#,
        reason.status, reason.token, reason.meaning,
    );
    if !request_id.is_empty() {
        let _ = write!(body, r#","request_id":"{}""#, String::from_utf8_lossy(request_id));
    }
    body.push_str("}\n");
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{policy::refusal::POLICY_REASONS, wire::reason::WIRE_REASONS};

    #[test]
    fn every_problem_is_json_with_its_reason_and_id() {
        for reason in WIRE_REASONS.iter().chain(POLICY_REASONS) {
            let text = problem(Refusal::from(*reason), b"abc-1");
            let json: serde_json::Value = serde_json::from_str(&text).expect("valid JSON");
            assert_eq!(json["reason"], reason.token);
            assert_eq!(json["status"], reason.status);
            assert_eq!(json["request_id"], "abc-1");
        }
    }
}
