//! Values of an exchange for templates.

use crate::{
    config::Snapshot,
    policy::{
        Refusal,
        pairs::{cookies, parameter},
        route::RouteMatch,
        template::{Values, Variable},
        validate::Fault,
    },
    telemetry::access_log::Stamp,
    wire::{Field, ResponseHead, emit},
    worker::exchange::Exchange,
};

/// An exchange as templates see it.
pub struct View<'a> {
    pub snapshot: &'a Snapshot,
    pub exchange: &'a Exchange,
    /// `None` where no route was found.
    pub matched: Option<&'a RouteMatch>,
    /// The upstream's response, at the front of these bytes.
    pub response: Option<(&'a ResponseHead, &'a [u8])>,
    /// Why the gateway answers itself.
    pub refusal: Option<Refusal>,
    /// What is wrong with the request.
    pub fault: Option<&'a Fault>,
}

impl Values for View<'_> {
    fn value(&self, variable: &Variable, out: &mut Vec<u8>) -> bool {
        let exchange = self.exchange;
        let text: Option<&[u8]> = match variable {
            Variable::Client => return written(out, exchange.client.ip),
            Variable::Method => Some(exchange.text(exchange.head().method_text)),
            Variable::Path => Some(exchange.raw_path()),
            Variable::QueryText => exchange.query(),
            Variable::Host => Some(exchange.host()).filter(|host| !host.is_empty()),
            Variable::Scheme => Some(exchange.scheme().as_bytes()),
            Variable::Id => Some(exchange.id.text(exchange.bytes())).filter(|id| !id.is_empty()),
            Variable::Route => exchange.route.map(|id| self.snapshot.route(id).name.as_bytes()),
            Variable::Time => {
                let mut stamp = Stamp::EPOCH;
                stamp.set(unix_ms());
                out.extend_from_slice(stamp.rfc3339());
                return true;
            }
            Variable::UnixTime => return written(out, Some(unix_ms() / 1000)),
            Variable::Subject => exchange.identity.as_ref().map(|id| id.subject.as_bytes()),
            Variable::Consumer => {
                let consumer = exchange.identity.as_ref().and_then(|identity| identity.consumer);
                consumer.map(|consumer| self.snapshot.consumers.all.name(consumer).as_bytes())
            }
            Variable::Claim(path) => return self.claim(path, out),
            Variable::Param(at) => self.param(*at),
            Variable::Field(name) => {
                return joined(&exchange.head().fields, exchange.bytes(), name, out);
            }
            Variable::Query(name) => {
                let found = exchange.query().and_then(|query| parameter(query, name));
                let is_there = found.is_some();
                out.extend_from_slice(&found.unwrap_or_default());
                return is_there;
            }
            Variable::Cookie(name) => self.cookie(name),
            Variable::Status => {
                let refused = self.refusal.map(|refusal| refusal.reason.status);
                let status = self.response.map(|(head, _)| head.status).or(refused);
                return written(out, status);
            }
            Variable::ResponseField(name) => {
                let (head, bytes) = match self.response {
                    Some(response) => response,
                    None => return false,
                };
                return joined(&head.fields, bytes, name, out);
            }
            Variable::Reason => self.refusal.map(|refusal| refusal.reason.token.as_bytes()),
            Variable::Detail if let Some(fault) = self.fault => {
                out.extend_from_slice(fault.sentence().as_bytes());
                return true;
            }
            Variable::Detail => self.refusal.map(|refusal| refusal.reason.meaning.as_bytes()),
            Variable::Title => {
                self.refusal.map(|refusal| emit::phrase(refusal.reason.status).as_bytes())
            }
        };
        out.extend_from_slice(text.unwrap_or_default());
        text.is_some()
    }
}

impl<'a> View<'a> {
    /// Of a request on its way.
    pub fn of(snapshot: &'a Snapshot, exchange: &'a Exchange, matched: &'a RouteMatch) -> Self {
        View {
            snapshot,
            exchange,
            matched: Some(matched),
            response: None,
            refusal: None,
            fault: None,
        }
    }

    fn param(&self, at: u8) -> Option<&[u8]> {
        let matched = self.matched?;
        let known = matched.params_len;
        let span = matched.params.get(usize::from(at)).filter(|_| at < known)?;
        Some(span.of(self.exchange.matched_path()))
    }

    fn cookie(&self, wanted: &str) -> Option<&[u8]> {
        let exchange = self.exchange;
        let named = |field: &&Field| exchange.text(field.name).eq_ignore_ascii_case(b"cookie");
        let fields = exchange.head().fields.iter().filter(named);
        let mut all = fields.flat_map(|field| cookies(exchange.text(field.value)));
        all.find(|(name, _)| *name == wanted.as_bytes()).map(|(_, value)| value)
    }

    fn claim(&self, path: &str, out: &mut Vec<u8>) -> bool {
        use serde_json::Value;
        let identity = self.exchange.identity.as_ref();
        match identity.and_then(|identity| identity.claim(path)) {
            None | Some(Value::Null) => false,
            Some(Value::String(text)) => {
                out.extend_from_slice(text.as_bytes());
                true
            }
            // Lists as fields have them.
            Some(Value::Array(items)) if items.iter().all(Value::is_string) => {
                let texts: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
                out.extend_from_slice(texts.join(",").as_bytes());
                true
            }
            Some(other) => {
                out.extend_from_slice(other.to_string().as_bytes());
                true
            }
        }
    }
}

fn written(out: &mut Vec<u8>, value: Option<impl std::fmt::Display>) -> bool {
    use std::io::Write;
    match value {
        // Writing to a Vec cannot fail.
        Some(value) => write!(out, "{value}").is_ok(),
        None => false,
    }
}

/// The values of all fields of that name, as a list (RFC 9110 §5.2).
fn joined(fields: &[Field], buf: &[u8], name: &str, out: &mut Vec<u8>) -> bool {
    let mut is_there = false;
    for field in fields {
        if field.name.of(buf).eq_ignore_ascii_case(name.as_bytes()) {
            if is_there {
                out.extend_from_slice(b", ");
            }
            out.extend_from_slice(field.value.of(buf));
            is_there = true;
        }
    }
    is_there
}

fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}
