//! Downgrade smuggling: what a hostile HTTP/2 request could become over HTTP/1.1.
//!
//! Each row of the tables ([`table`]) is sent as raw frames. Either the stream or the connection
//! ends with an error, or the request is refused, or the upstream gets exactly the request that the
//! row says. What the upstream received is parsed strictly, and a request behind it on the same
//! connection must be intact.

mod table;

use super::connect;
use crate::harness::{Gateway, Http2, ReadError, Received, Upstream, http2::code, replay};
use table::{Case, Forwarded, Outcome};

const RULES: &str = r#"
[limits]
head = "16KiB"
target = "2KiB"
fields = 100

[forwarding]
fields = "off"
via = ""
request_id = "off"

[[routes]]
path = "/admin"
respond = { status = 403, body = "denied" }

[[routes]]
path = "/"
upstream = "app"
"#;

fn gateway(upstream: &Upstream) -> Gateway {
    let endpoint = upstream.address();
    Gateway::start(&format!(
        "{RULES}[upstreams.app]\nendpoints = [\"{endpoint}\"]\n[runtime]\nworkers = 1\n"
    ))
}

/// Sends a case and says what is wrong with the outcome.
fn attempt(client: &mut Http2, case: &Case) -> Result<(), String> {
    let stream = 1;
    client.stream();
    client.try_send(&case.bytes);
    let answer = match client.finish(stream) {
        Ok(answer) => answer,
        Err(ReadError::Timeout) => return Err("nothing comes of it".into()),
        Err(_) => {
            let code = client.goaway.map(|end| end.code);
            return match case.outcome {
                Outcome::Ends(wanted) if code == Some(wanted) => Ok(()),
                _ => Err(format!("the connection ended with {code:?}")),
            };
        }
    };
    match (&case.outcome, answer.reset) {
        (Outcome::Reset | Outcome::ResetBehind(_), Some(code::PROTOCOL_ERROR)) => Ok(()),
        (Outcome::Refused(status, reason), _) if answer.response.status == *status => {
            if reason.is_empty() {
                return Ok(());
            }
            let told = answer.response.reason();
            if told == *reason { Ok(()) } else { Err(format!("reason {told}")) }
        }
        (Outcome::Forwarded(_), None) if answer.response.status == 200 => Ok(()),
        _ => {
            let text = answer.response.text();
            Err(format!("status {}, reset {:?}: {text:?}", answer.response.status, answer.reset))
        }
    }
}

/// Says how a request that reached the upstream differs from what it must be.
fn differs(seen: &Received, wanted: &Forwarded) -> Option<String> {
    if seen.head.start_line != wanted.start_line {
        return Some(format!("start line {:?}", seen.head.start_line));
    }
    if seen.body != wanted.body {
        return Some(format!("body {:?}", seen.body.escape_ascii().to_string()));
    }
    let line = |(name, value): &(String, String)| format!("{}: {value}", name.to_ascii_lowercase());
    let mut lines: Vec<String> = seen.head.fields.iter().map(line).collect();
    if !wanted.body.is_empty() {
        // Either framing is right for a body whose length was not told.
        let told = |line: &String| wanted.fields.contains(line);
        let length = format!("content-length: {}", wanted.body.len());
        lines.retain(|one| told(one) || *one != "transfer-encoding: chunked" && *one != length);
    }
    lines.sort();
    let mut fields = wanted.fields.clone();
    fields.sort();
    if lines != fields {
        return Some(format!("fields {lines:?}, not {fields:?}"));
    }
    let trailers: Vec<String> = seen.trailers.iter().map(line).collect();
    (trailers != wanted.trailers).then(|| format!("trailers {trailers:?}"))
}

/// What the upstream got: exactly the request of the row, if any, and the good one behind it.
fn reached(tapes: &[Vec<u8>], case: &Case, good: &str) -> Option<String> {
    let complete: Vec<Received> = tapes.iter().flat_map(|tape| replay(tape)).collect();
    let (served, other): (Vec<_>, Vec<_>) =
        complete.iter().partition(|request| request.target == good);
    let text = || tapes.iter().map(|tape| tape.escape_ascii().to_string()).collect::<Vec<_>>();
    if served.len() != 1 {
        return Some(format!("the next request is not intact: {:?}", text()));
    }
    match (&case.outcome, &other[..]) {
        (Outcome::Forwarded(wanted) | Outcome::ResetBehind(wanted), [seen]) => {
            return differs(seen, wanted);
        }
        (Outcome::Forwarded(_), _) | (_, [_, ..]) => {
            return Some(format!("reached the upstream: {:?}", text()));
        }
        (_, []) => {}
    }
    let bytes: usize = tapes.iter().map(Vec::len).sum();
    let heads: usize = served.iter().map(|request| request.head.raw.len()).sum();
    // A fault in the body may show when the upstream has got its beginning, never its end.
    (bytes != heads && !case.is_late).then(|| format!("reached the upstream: {:?}", text()))
}

#[test]
fn nothing_ambiguous_reaches_the_upstream() {
    let upstream = Upstream::ok();
    let gateway = gateway(&upstream);
    let cases = table::all();
    let mut faults = Vec::new();
    for (n, case) in cases.iter().enumerate() {
        let marks = upstream.marks();
        let mut client = connect(&gateway);
        let fault = attempt(&mut client, case).err();
        let path = format!("/served/{n}");
        // Where the connection ended, the pool behind it is the same.
        let ended = client.goaway.is_some() || matches!(case.outcome, Outcome::Ends(_));
        let mut next = if ended { connect(&gateway) } else { client };
        let stream = next.ask("GET", &path, &[]);
        let good = next.finish(stream);
        let intact = good.is_ok_and(|good| good.response.text() == format!("GET {path}"));
        let fault = fault
            .or_else(|| (!intact).then(|| "the next request is not served".to_owned()))
            .or_else(|| reached(&upstream.since(&marks), case, &path));
        if let Some(fault) = fault {
            faults.push(format!("{} ({}): {fault}", case.name, case.source));
        }
    }
    let n = faults.len();
    assert!(n == 0, "{n} of {} went wrong:\n{}", cases.len(), faults.join("\n"));
}

#[test]
fn the_table_is_large_and_its_names_are_unique() {
    let cases = table::all();
    assert!(cases.len() >= 60, "{} rows", cases.len());
    let mut names: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    names.sort_unstable();
    let twice: Vec<_> = names.windows(2).filter(|pair| pair[0] == pair[1]).collect();
    assert!(twice.is_empty(), "{twice:?}");
    assert!(cases.iter().all(|case| case.source.starts_with("RFC ")));
    println!("{} rows", cases.len());
}
