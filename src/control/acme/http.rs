//! Requests to an authority: over TLS only, bounded in time and size.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use http_body_util::{BodyExt, Limited};
use hyper::{
    Request,
    body::Bytes,
    header::{HeaderMap, RETRY_AFTER},
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::ClientConfig;

/// For one request and its response.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Of a response's body; chains of certificates have some KiB.
const BODY_BYTES_MAX: usize = 1 << 20;

/// A client that believes one authority.
pub struct Http {
    client: Client<HttpsConnector<HttpConnector>, BodyWrapper<Bytes>>,
    asked: Asked,
}

/// How long the authority asked to wait with its last error.
#[derive(Clone, Default)]
pub struct Asked(Arc<Mutex<Option<Duration>>>);

impl Asked {
    pub fn get(&self) -> Option<Duration> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, wait: Option<Duration>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = wait;
    }
}

impl Http {
    pub fn new(tls: &ClientConfig, asked: Asked) -> Http {
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls.clone())
            .https_only()
            .enable_http1()
            .build();
        Http { client: Client::builder(TokioExecutor::new()).build(connector), asked }
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>>;

impl HttpClient for Http {
    fn request(&self, request: Request<BodyWrapper<Bytes>>) -> Answer {
        let (sent, asked) = (self.client.request(request), self.asked.clone());
        let exchange = async move {
            let response =
                sent.await.map_err(|e| Error::Other(Box::new(Unreachable(chain(&e)))))?;
            let (parts, body) = response.into_parts();
            asked.set(retry_after(&parts.headers).filter(|_| parts.status.as_u16() >= 400));
            let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(Error::Other)?;
            Ok(BytesResponse { parts, body: Box::new(body.to_bytes()) })
        };
        Box::pin(async move {
            tokio::time::timeout(TIMEOUT, exchange).await.unwrap_or_else(|_| {
                let why = format!("no answer within {TIMEOUT:?}");
                Err(Error::Other(Box::new(Unreachable(why))))
            })
        })
    }
}

/// Nothing came of a request: no connection, no trust, or no answer.
#[derive(Debug)]
pub struct Unreachable(String);

impl std::fmt::Display for Unreachable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the authority cannot be reached: {}", self.0)
    }
}

impl std::error::Error for Unreachable {}

/// An error with everything that it came from.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(&format!(": {next}"));
        cause = next.source();
    }
    text
}

/// RFC 9110 §10.2.3.
fn retry_after(fields: &HeaderMap) -> Option<Duration> {
    let text = fields.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let at = httpdate::parse_http_date(text).ok()?;
            at.duration_since(SystemTime::now()).ok()
        }
    }
}
