//! One request answered: drained, delayed, and given its body.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::Connection;
use super::ways::Dice;
use crate::body;

/// Bytes handed to hyper at once.
const FRAME_BYTES: usize = 64 * 1024;

thread_local! {
    static DICE: Dice = Dice::new(0x5eed);
}

/// What is sent back.
pub enum Answer {
    /// The pattern, with its length announced or not.
    Pattern { sent: u64, len: u64, sized: bool },
    /// Events for as long as the client listens.
    Events { every: Duration, count: u64, timer: Pin<Box<dyn Future<Output = ()>>> },
}

impl Answer {
    fn pattern(len: u64, sized: bool) -> Self {
        Self::Pattern { sent: 0, len, sized }
    }

    fn events(every_ns: u64) -> Self {
        let every = Duration::from_nanos(every_ns);
        Self::Events { every, count: 0, timer: Box::pin(monoio::time::sleep(every)) }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Pattern { sent, len, .. } => {
                if sent == len {
                    return Poll::Ready(None);
                }
                let start = (*sent % body::BLOCK_BYTES as u64) as usize;
                let most = FRAME_BYTES.min(body::BLOCK_BYTES - start) as u64;
                let taken = most.min(*len - *sent);
                *sent += taken;
                let bytes = &body::block()[start..start + taken as usize];
                Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(bytes)))))
            }
            Self::Events { every, count, timer } => {
                if timer.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                *timer = Box::pin(monoio::time::sleep(*every));
                *count += 1;
                let event = format!("id: {count}\ndata: event {count}\n\n");
                Poll::Ready(Some(Ok(Frame::data(Bytes::from(event)))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Pattern { sent, len, .. } if sent == len)
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Pattern { sent, len, sized: true } => SizeHint::with_exact(len - sent),
            _ => SizeHint::default(),
        }
    }
}

/// Answers one request.
pub async fn answer(
    connection: Rc<Connection>,
    request: Request<Incoming>,
) -> Result<Response<Answer>, hyper::Error> {
    let (head, mut body) = request.into_parts();
    // The response may begin only when the request is complete, as with most applications.
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        frame?;
    }
    let service = &connection.service;
    let now_ns = service.epoch.elapsed().as_nanos() as u64;
    let decision = DICE.with(|dice| service.ways.decide(now_ns, dice));
    if !decision.wait.is_zero() {
        monoio::time::sleep(decision.wait).await;
    }
    connection.served.set(connection.served.get() + 1);
    let mut response = respond(&connection, &head, decision.error);
    if connection.is_last() && head.version < http::Version::HTTP_2 {
        response.headers_mut().insert(header::CONNECTION, http::HeaderValue::from_static("close"));
    }
    Ok(response)
}

fn respond(
    connection: &Connection,
    head: &http::request::Parts,
    error: Option<u16>,
) -> Response<Answer> {
    let ways = &connection.service.ways;
    let with = |status: StatusCode, answer: Answer| {
        let mut response = Response::new(answer);
        *response.status_mut() = status;
        response
    };
    if let Some(status) = error {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        return with(status, Answer::pattern(0, true));
    }
    if let Some(key) = websocket_key(&head.headers).filter(|_| ways.websocket) {
        connection.upgraded.set(true);
        let mut response = with(StatusCode::SWITCHING_PROTOCOLS, Answer::pattern(0, true));
        let fields = response.headers_mut();
        fields.insert(header::CONNECTION, http::HeaderValue::from_static("upgrade"));
        fields.insert(header::UPGRADE, http::HeaderValue::from_static("websocket"));
        if let Ok(accept) = derive_accept_key(key).parse() {
            fields.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        }
        return response;
    }
    let wants = head.headers.get(header::ACCEPT).is_some_and(|v| v == "text/event-stream");
    if let Some(every_ns) = ways.sse_every_ns.filter(|_| wants) {
        let mut response = with(StatusCode::OK, Answer::events(every_ns));
        let kind = http::HeaderValue::from_static("text/event-stream");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        return response;
    }
    match ways.body_bytes(head.uri.path()) {
        None => with(StatusCode::BAD_REQUEST, Answer::pattern(0, true)),
        Some(len) => {
            let mut response = with(StatusCode::OK, Answer::pattern(len, !ways.chunked));
            let kind = http::HeaderValue::from_static("text/plain");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
    }
}

fn websocket_key(headers: &HeaderMap) -> Option<&[u8]> {
    let upgrade = headers.get(header::UPGRADE)?;
    if !upgrade.as_bytes().eq_ignore_ascii_case(b"websocket") {
        return None;
    }
    headers.get(header::SEC_WEBSOCKET_KEY).map(|key| key.as_bytes())
}
