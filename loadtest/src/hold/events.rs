//! One held event stream: counts events and the time between them.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Instant;

use http::{Request, StatusCode, header};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::{Held, Plan, in_time};
use crate::tally::Failure;
use crate::task::connect::Refused;

/// Finds the ends of events in a stream cut anywhere: an empty line after at least one field. A
/// line that begins with a colon is a comment.
#[derive(Default)]
struct Lines {
    line_bytes: usize,
    comment: bool,
    fields: usize,
}

impl Lines {
    /// How many events `bytes` end.
    fn take(&mut self, bytes: &[u8]) -> u64 {
        let mut events = 0;
        for byte in bytes {
            match byte {
                b'\r' => {}
                b'\n' if self.line_bytes > 0 => {
                    self.fields += usize::from(!self.comment);
                    self.line_bytes = 0;
                }
                b'\n' => {
                    events += u64::from(self.fields > 0);
                    self.fields = 0;
                }
                byte => {
                    if self.line_bytes == 0 {
                        self.comment = *byte == b':';
                    }
                    self.line_bytes += 1;
                }
            }
        }
        events
    }
}

/// Opens at `at`, holds until the plan's end.
pub async fn hold(plan: &'static Plan, at: Instant, held: Rc<RefCell<Held>>) {
    monoio::time::sleep(at.saturating_duration_since(Instant::now())).await;
    // The sender is kept: hyper ends a connection that can be asked for nothing more.
    let (_sender, body) = match in_time(plan, "not open", open(plan)).await {
        Ok(opened) => opened,
        Err(refused) => return held.borrow_mut().fail(refused),
    };
    held.borrow_mut().opened += 1;
    let rest = plan.end.saturating_duration_since(Instant::now());
    let ended = monoio::time::timeout(rest, listen(body, &held)).await;
    if let Ok(note) = ended {
        held.borrow_mut().end_early((Failure::Short, note));
    }
}

async fn open(plan: &'static Plan) -> Result<(http1::SendRequest<String>, Incoming), Refused> {
    let broken = |e: hyper::Error| (Failure::Reset, e.to_string());
    let connected = plan.connector().connect().await?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(connected.io)).await.map_err(broken)?;
    // Its failure ends the body.
    monoio::spawn(async move { drop(connection.await) });
    let request = Request::get(&plan.path)
        .header(header::HOST, &plan.host)
        .header(header::ACCEPT, "text/event-stream")
        .body(String::new())
        .map_err(|e| (Failure::Malformed, e.to_string()))?;
    let response = sender.send_request(request).await.map_err(broken)?;
    let kind = response.headers().get(header::CONTENT_TYPE);
    let streams = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    if response.status() != StatusCode::OK || !streams {
        let note = format!("status {}, content type {kind:?}", response.status());
        return Err((Failure::Status, note));
    }
    Ok((sender, response.into_body()))
}

/// Counts events until the stream ends; returns how it ended.
async fn listen(mut body: Incoming, held: &RefCell<Held>) -> String {
    let mut lines = Lines::default();
    let mut last: Option<Instant> = None;
    loop {
        let data = match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            None => return "the stream ended".to_owned(),
            Some(Err(e)) => return e.to_string(),
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
        };
        let events = lines.take(&data);
        let now = Instant::now();
        let mut held = held.borrow_mut();
        held.received += events;
        if events > 0
            && let Some(last) = last.replace(now)
        {
            held.time_ns.saturating_record((now - last).as_nanos() as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_counted_wherever_they_are_cut() {
        let text = b"\n\nid: 1\ndata: a\n\n: ping\r\n\r\ndata: b\ndata: c\n\ndata: cut";
        for cut in 0..text.len() {
            let mut lines = Lines::default();
            assert_eq!(lines.take(&text[..cut]) + lines.take(&text[cut..]), 2, "{cut}");
        }
    }
}
