//! A client that speaks HTTP/2 on the `h2` crate, over TCP with prior knowledge.

use std::{
    future::{Future, poll_fn},
    net::SocketAddr,
};

use bytes::{Bytes, BytesMut};
use h2::{
    Reason, RecvStream, SendStream,
    client::{ResponseFuture, SendRequest},
};
use http::{HeaderMap, Request, Response};

use super::PATIENCE;

/// One connection.
#[derive(Clone)]
pub struct Http2Client {
    pub send: SendRequest<Bytes>,
}

/// A request whose response has not been read.
pub struct Asked {
    pub response: ResponseFuture,
    pub stream: SendStream<Bytes>,
}

/// A response that was read to its end, or to where it was cut off.
#[derive(Debug, Default)]
pub struct Reply {
    pub status: u16,
    pub fields: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: HeaderMap,
    /// The stream was reset.
    pub reset: Option<Reason>,
}

impl Http2Client {
    /// Connects, does what `with` says, and fails the test when that takes too long.
    #[track_caller]
    pub fn with<T, F: Future<Output = T>>(
        address: SocketAddr,
        with: impl FnOnce(Http2Client) -> F,
    ) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let result = runtime.block_on(async {
            let talk = async {
                let stream = tokio::net::TcpStream::connect(address).await.unwrap();
                stream.set_nodelay(true).unwrap();
                let (send, connection) = h2::client::handshake(stream).await.unwrap();
                tokio::spawn(connection);
                with(Http2Client { send }).await
            };
            tokio::time::timeout(PATIENCE * 2, talk).await
        });
        result.expect("the exchange ends")
    }

    /// Sends a head; the body follows when `end` is false.
    pub async fn ask(&self, request: Request<()>, end: bool) -> Asked {
        let mut send = self.send.clone().ready().await.unwrap();
        let (response, stream) = send.send_request(request, end).unwrap();
        Asked { response, stream }
    }

    /// Sends a request with this body.
    pub async fn post(&self, request: Request<()>, body: impl Into<Bytes>) -> Reply {
        let mut asked = self.ask(request, false).await;
        let body: Bytes = body.into();
        let Asked { response, stream } = &mut asked;
        let upload = async {
            send_all(stream, body).await;
            let _ = stream.send_data(Bytes::new(), true);
        };
        let (reply, ()) = both(reply(response), upload).await;
        reply
    }

    pub async fn get(&self, uri: &str) -> Reply {
        let request = Request::get(format!("http://gw.test{uri}")).body(()).unwrap();
        self.ask(request, true).await.reply().await
    }
}

/// Runs two futures until the first has ended.
async fn both<T>(first: impl Future<Output = T>, second: impl Future<Output = ()>) -> (T, ()) {
    let (mut first, mut second) = (std::pin::pin!(first), std::pin::pin!(second));
    let mut is_done = false;
    let result = poll_fn(|cx| {
        is_done = is_done || second.as_mut().poll(cx).is_ready();
        first.as_mut().poll(cx)
    });
    (result.await, ())
}

/// Sends as the window allows; ends early when the stream does.
pub async fn send_all(stream: &mut SendStream<Bytes>, mut data: Bytes) -> bool {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        while stream.capacity() == 0 {
            match poll_fn(|cx| stream.poll_capacity(cx)).await {
                Some(Ok(_)) => {}
                _ => return false,
            }
        }
        let piece = data.split_to(stream.capacity().min(data.len()));
        if stream.send_data(piece, false).is_err() {
            return false;
        }
    }
    true
}

impl Asked {
    pub async fn reply(mut self) -> Reply {
        reply(&mut self.response).await
    }

    /// The head, with the body still to be read.
    pub async fn head(&mut self) -> Response<RecvStream> {
        (&mut self.response).await.unwrap()
    }

    pub fn reset(mut self) {
        self.stream.send_reset(Reason::CANCEL);
    }
}

async fn reply(response: &mut ResponseFuture) -> Reply {
    match response.await {
        Err(error) => Reply { reset: Some(reason(&error)), ..Reply::default() },
        Ok(response) => {
            let (parts, mut stream) = response.into_parts();
            let mut reply =
                Reply { status: parts.status.as_u16(), fields: parts.headers, ..Reply::default() };
            reply.rest(&mut stream).await;
            reply
        }
    }
}

#[track_caller]
pub fn reason(error: &h2::Error) -> Reason {
    assert!(error.is_reset() && error.is_remote(), "the connection is at fault: {error}");
    error.reason().unwrap()
}

impl Reply {
    /// Reads to the end.
    pub async fn rest(&mut self, stream: &mut RecvStream) {
        loop {
            match stream.data().await {
                Some(Ok(data)) => {
                    let _ = stream.flow_control().release_capacity(data.len());
                    self.body.extend_from_slice(&data);
                }
                Some(Err(error)) => return self.reset = Some(reason(&error)),
                None => break,
            }
        }
        match stream.trailers().await {
            Ok(trailers) => self.trailers = trailers.unwrap_or_default(),
            Err(error) => self.reset = Some(reason(&error)),
        }
    }

    #[track_caller]
    pub fn field(&self, name: &str) -> &str {
        value(&self.fields, name)
    }

    #[track_caller]
    pub fn trailer(&self, name: &str) -> &str {
        value(&self.trailers, name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// The value of a field, empty where there is none.
pub fn value<'f>(fields: &'f HeaderMap, name: &str) -> &'f str {
    fields.get(name).map_or("", |value| value.to_str().unwrap())
}

/// Exactly `bytes` of a body.
pub async fn exactly(stream: &mut RecvStream, held: &mut BytesMut, bytes: usize) -> Option<Bytes> {
    while held.len() < bytes {
        let data = stream.data().await?.ok()?;
        let _ = stream.flow_control().release_capacity(data.len());
        held.extend_from_slice(&data);
    }
    Some(held.split_to(bytes).freeze())
}
