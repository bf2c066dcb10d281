//! Formats as a whole: what lines look like, and what nobody can make them look like.

use proptest::prelude::*;

use super::{fields::InJson, *};
use crate::policy::refusal::{BODY_TIMEOUT, POLICY_REASONS, ROUTE_NOT_FOUND, UPSTREAM_CLOSED};
use crate::wire::reason::{MALFORMED_HEAD, STATUS_INVALID, WIRE_REASONS};

fn stamp() -> Stamp {
    let mut stamp = Stamp::EPOCH;
    stamp.set(1_795_278_227_123);
    stamp
}

/// A request that was forwarded.
fn forwarded(time: &Stamp) -> Line<'_> {
    Line {
        time,
        worker: 1,
        generation: 3,
        listener: "public",
        client: b"192.0.2.7",
        peer: b"192.0.2.7",
        request_id: b"4bf92f3577b34da6a3ce929d0e0e4736",
        trace_id: b"0af7651916cd43dd8448eb211c80319c",
        span_id: b"b7ad6b7169203331",
        client_cert_subject: "",
        client_cert_fingerprint: "",
        auth_by: "",
        subject: "",
        consumer: "",
        request: Some(Request {
            method: b"GET",
            host: b"api.example:8080",
            target: b"/orders/7?full=1",
            protocol: "HTTP/1.1",
            referer: b"",
            user_agent: b"curl/8",
        }),
        first_line: b"",
        status: 200,
        route: "orders",
        upstream: "orders",
        endpoint: "10.0.0.11:8000",
        tries: 2,
        reused: true,
        duration_ns: 1_234_567,
        overhead_ns: Some(45_999),
        connect_ns: 300_000,
        first_byte_ns: Some(800_000),
        transfer_ns: Some(12_345),
        request_bytes: 0,
        response_bytes: 1024,
        sent_bytes: 1300,
        reason: None,
        shadow: None,
    }
}

/// A head that was refused.
fn malformed(time: &Stamp) -> Line<'_> {
    Line {
        request: None,
        trace_id: b"",
        span_id: b"",
        first_line: b"GET /\" x\x01y HTTP/1.1",
        status: 400,
        route: "",
        upstream: "",
        endpoint: "",
        tries: 0,
        reused: false,
        overhead_ns: None,
        connect_ns: 0,
        first_byte_ns: None,
        transfer_ns: None,
        reason: Some(MALFORMED_HEAD),
        ..forwarded(time)
    }
}

fn written(format: &Format, line: &Line<'_>) -> String {
    let mut room = vec![0; 4096];
    let length = format.write(line, &mut room).expect("it fits");
    // In less room it does not fit, and nothing else comes of it.
    for bytes in 0..length {
        assert_eq!(format.write(line, &mut room[..bytes].to_vec()), None, "{bytes}");
    }
    String::from_utf8(room[..length].to_vec()).expect("UTF-8")
}

#[test]
fn certificates_of_clients_are_named() {
    let time = stamp();
    let print = "5e".repeat(32);
    let subject = "CN=a\\\"b";
    let line =
        Line { client_cert_subject: subject, client_cert_fingerprint: &print, ..forwarded(&time) };
    let wanted = format!(
        ",\"client_cert_subject\":\"CN=a\\\\\\\"b\",\"client_cert_fingerprint\":\"{print}\",\"method\":"
    );
    let text = written(&Format::json(), &line);
    assert!(text.contains(&wanted), "{text}");
}

#[test]
fn json_lines() {
    let time = stamp();
    assert_eq!(
        written(&Format::json(), &forwarded(&time)),
        "{\"time\":\"2026-11-21T16:23:47.123Z\",\"listener\":\"public\",\"client\":\"192.0.2.7\",\
         \"request_id\":\"4bf92f3577b34da6a3ce929d0e0e4736\",\
         \"trace_id\":\"0af7651916cd43dd8448eb211c80319c\",\"span_id\":\"b7ad6b7169203331\",\
         \"method\":\"GET\",\
         \"host\":\"api.example:8080\",\"target\":\"/orders/7?full=1\",\"protocol\":\"HTTP/1.1\",\
         \"user_agent\":\"curl/8\",\"status\":200,\"route\":\"orders\",\"upstream\":\"orders\",\
         \"endpoint\":\"10.0.0.11:8000\",\"tries\":2,\"reused\":true,\"duration_us\":1234,\
         \"overhead_us\":45,\"connect_us\":300,\"first_byte_us\":800,\"transfer_us\":12,\
         \"request_bytes\":0,\"response_bytes\":1024,\"sent_bytes\":1300}\n"
    );
    let other_peer = Line { peer: b"10.0.0.1", ..malformed(&time) };
    assert_eq!(
        written(&Format::json(), &other_peer),
        "{\"time\":\"2026-11-21T16:23:47.123Z\",\"listener\":\"public\",\"client\":\"192.0.2.7\",\
         \"peer\":\"10.0.0.1\",\"request_id\":\"4bf92f3577b34da6a3ce929d0e0e4736\",\
         \"first_line\":\"GET /\\\" x\\u0001y HTTP/1.1\",\"status\":400,\"duration_us\":1234,\
         \"request_bytes\":0,\"response_bytes\":1024,\"sent_bytes\":1300,\
         \"side\":\"client\",\"reason\":\"head.malformed\"}\n"
    );
}

#[test]
fn combined_lines() {
    let time = stamp();
    assert_eq!(
        written(&Format::combined(), &forwarded(&time)),
        "192.0.2.7 - - [21/Nov/2026:16:23:47 +0000] \"GET /orders/7?full=1 HTTP/1.1\" 200 1024 \
         \"-\" \"curl/8\"\n"
    );
    let on_unix_socket = Line { client: b"", ..malformed(&time) };
    assert_eq!(
        written(&Format::combined(), &on_unix_socket),
        "- - - [21/Nov/2026:16:23:47 +0000] \"GET /\\x22 x\\x01y HTTP/1.1\" 400 1024 \"-\" \"-\"\n"
    );
}

#[test]
fn templates() {
    let time = stamp();
    for (template, escape, expected) in [
        ("${method} $$5 ${target}", Escape::Text, "GET $5 /orders/7?full=1"),
        ("$$", Escape::Text, "$"),
        ("${worker}${generation}}", Escape::Text, "13}"),
        ("${time_unix_ms} ${reused}", Escape::Text, "1795278227123 true"),
        ("${side}/${reason}/${referer}", Escape::Text, "-/-/-"),
        ("é ${status}", Escape::Text, "é 200"),
        ("{\"r\":\"${referer}\"}", Escape::Json, "{\"r\":\"\"}"),
    ] {
        let format = Format::template(template, escape).expect(template);
        assert_eq!(written(&format, &forwarded(&time)), format!("{expected}\n"));
    }
    let numbers = "{\"n\":${first_byte_us},\"b\":${reused},\"t\":\"${first_line}\"}";
    let format = Format::template(numbers, Escape::Json).expect(numbers);
    assert_eq!(
        written(&format, &malformed(&time)),
        "{\"n\":null,\"b\":null,\"t\":\"GET /\\\" x\\u0001y HTTP/1.1\"}\n"
    );
}

#[test]
fn templates_that_cannot_be_used() {
    let long = "x".repeat(4097);
    for (template, expected) in [
        ("", BadTemplate::Empty),
        (&*long, BadTemplate::TooLong),
        ("a\nb", BadTemplate::ControlCharacter),
        ("cost: $5", BadTemplate::LoneDollar),
        ("trailing $", BadTemplate::LoneDollar),
        ("${status", BadTemplate::Open),
        ("${}", BadTemplate::UnknownField(String::new())),
        ("${statsu} ${x}", BadTemplate::UnknownField("statsu".to_owned())),
    ] {
        assert_eq!(Format::template(template, Escape::Text), Err(expected), "{template}");
    }
}

#[test]
fn sides() {
    for (reason, expected) in [
        (MALFORMED_HEAD, "client"),
        (BODY_TIMEOUT, "client"),
        (STATUS_INVALID, "upstream"),
        (UPSTREAM_CLOSED, "upstream"),
        (ROUTE_NOT_FOUND, "gateway"),
    ] {
        assert_eq!(side(reason), expected, "{}", reason.token);
    }
    // A token is written as it is.
    for reason in WIRE_REASONS.iter().chain(POLICY_REASONS) {
        assert!(
            reason.token.bytes().all(|b| b.is_ascii_lowercase() || b"._0123456789".contains(&b))
        );
    }
}

#[test]
fn names_are_unique_and_plain() {
    for (at, rule) in FIELDS.iter().enumerate() {
        assert!(rule.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{}", rule.name);
        assert!(FIELDS[..at].iter().all(|other| other.name != rule.name), "{}", rule.name);
        assert_eq!(Field::named(rule.name), Some(rule.field));
    }
}

/// Every line holds to the reference: types as documented, and what is always there is there.
fn holds_to_reference(json: &serde_json::Value) {
    let object = json.as_object().expect("an object");
    for rule in FIELDS {
        let value = object.get(rule.name);
        let fits = match (value, rule.kind) {
            (None, _) => rule.in_json != InJson::Always,
            (Some(_), _) if rule.in_json == InJson::Never => false,
            (Some(value), Kind::String) => value.is_string(),
            (Some(value), Kind::Integer) => value.is_u64(),
            (Some(value), Kind::Boolean) => value.is_boolean(),
        };
        assert!(fits, "{}: {value:?}", rule.name);
    }
    assert!(object.keys().all(|key| Field::named(key).is_some()), "{json}");
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..60),
        "\\PC{0,20}".prop_map(String::into_bytes)
    ]
}

proptest! {
    /// Whatever the texts are, each format makes one line of them, and the line keeps its parts.
    #[test]
    fn nobody_can_forge_a_line(
        target in bytes(), host in bytes(), agent in bytes(), first_line in bytes(),
        is_parsed in any::<bool>(),
        (duration_ns, transfer_ns, bytes) in any::<(u64, Option<u64>, u64)>(),
    ) {
        let time = stamp();
        let request = Request {
            method: b"GET", host: &host, target: &target, protocol: "HTTP/1.1",
            referer: &agent, user_agent: &agent,
        };
        let line = Line {
            request: Some(request).filter(|_| is_parsed),
            first_line: &first_line,
            duration_ns, transfer_ns, response_bytes: bytes,
            ..forwarded(&time)
        };
        let text = written(&Format::json(), &line);
        prop_assert_eq!(text.matches(|c: char| c.is_control()).count(), 1);
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        holds_to_reference(&json);
        let lossy = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
        let expected = Some(lossy(&target)).filter(|text| is_parsed && !text.is_empty());
        prop_assert_eq!(json["target"].as_str().map(str::to_owned), expected);
        prop_assert_eq!(&json["response_bytes"], bytes);

        let text = written(&Format::combined(), &line);
        prop_assert_eq!(text.matches(|c: char| c.is_control()).count(), 1);
        prop_assert_eq!(text.matches('"').count(), 6);
        prop_assert!(text.ends_with("\"\n") && text.is_ascii());
    }
}
