//! One request to a collector, and what its answer means (OTLP 1.x, "OTLP/HTTP").

use std::time::{Duration, SystemTime};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use ureq::{
    Agent, Body,
    http::{Response, StatusCode, header},
};

use crate::config::snapshot::Export;

/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
/// Longest a collector can ask to be left alone.
const AFTER_MAX: Duration = Duration::from_secs(60);

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Taken, but for so many spans.
    Taken { rejected: u64, message: String },
    /// To be sent again, after this time if the collector said so.
    Later { after: Option<Duration>, why: String },
    /// Never to be sent again.
    Refused(String),
}

pub struct Collector {
    agent: Agent,
    export: Export,
}

impl Collector {
    pub fn new(export: Export) -> Collector {
        let config = Agent::config_builder()
            .timeout_global(Some(Duration::from_millis(export.timeout_ms)))
            .http_status_as_error(false)
            // Where spans go is configured, and nowhere else.
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_idle_connections(1)
            .user_agent(concat!("ringway/", env!("CARGO_PKG_VERSION")))
            .build();
        Collector { agent: config.into(), export }
    }

    pub fn export(&self) -> &Export {
        &self.export
    }

    /// Sends `body`, an encoded `ExportTraceServiceRequest`, within the configured timeout, or
    /// `within` when that is shorter.
    pub fn post(&self, body: &[u8], within: Option<Duration>) -> Answer {
        let url = &self.export.url;
        let timeout = Duration::from_millis(self.export.timeout_ms);
        // A timeout of nothing would be none.
        let timeout =
            within.map_or(timeout, |within| within.min(timeout).max(Duration::from_millis(1)));
        let mut request = self.agent.post(url).content_type("application/x-protobuf");
        for (name, value) in &self.export.headers {
            request = request.header(name, value);
        }
        match request.config().timeout_global(Some(timeout)).build().send(body) {
            Ok(response) => answer(response, url),
            Err(e @ (ureq::Error::Http(_) | ureq::Error::BadUri(_))) => {
                Answer::Refused(format!("{url} cannot be asked: {e}"))
            }
            Err(e) => Answer::Later { after: None, why: format!("{url} does not answer: {e}") },
        }
    }
}

fn answer(mut response: Response<Body>, url: &str) -> Answer {
    let status = response.status();
    let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
    if status.is_success() {
        // What cannot be read of a success is no failure.
        let decoded = ExportTraceServiceResponse::decode(&*body.unwrap_or_default());
        let partial = decoded.unwrap_or_default().partial_success.unwrap_or_default();
        let rejected = u64::try_from(partial.rejected_spans).unwrap_or(0);
        return Answer::Taken { rejected, message: printable(&partial.error_message) };
    }
    let why = format!("{url} answers {status}");
    match status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => {
            let after = response.headers().get(header::RETRY_AFTER);
            let after = after.and_then(|value| value.to_str().ok()).and_then(retry_after);
            Answer::Later { after, why }
        }
        _ => Answer::Refused(why),
    }
}

/// Seconds, or a date (RFC 9110 §10.2.3).
fn retry_after(text: &str) -> Option<Duration> {
    let after = match text.trim().parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at = httpdate::parse_http_date(text).ok()?;
            at.duration_since(SystemTime::now()).unwrap_or_default()
        }
    };
    Some(after.min(AFTER_MAX))
}

/// A collector's text as it may stand in the log.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_may_ask_for_a_pause_of_a_minute_at_most() {
        let s = Duration::from_secs;
        for (text, expected) in [
            ("0", Some(s(0))),
            ("7", Some(s(7))),
            ("3600", Some(AFTER_MAX)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(s(0))),
            ("Thu, 06 Nov 2994 08:49:37 GMT", Some(AFTER_MAX)),
            ("soon", None),
            ("-1", None),
            ("", None),
        ] {
            assert_eq!(retry_after(text), expected, "{text}");
        }
    }
}
