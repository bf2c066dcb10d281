//! Requests and responses that are changed on their way, as a route's transformations say.
//!
//! Changes of a request's head are told to whoever composes it ([`request::head`]); changes of a
//! response's head are made in a sink before the real one ([`response::Shaped`]), which passes the
//! body on as it comes, pipes included. A body that is changed is held as a whole, within its
//! bound; one that is compressed ([`coding`]) or decompressed ([`inflate`]) passes in pieces.
//! One that was signed ([`digest`]) is held until it is known to be what its digest says.
//! Invariant: what cannot be held or coded within the bounds is refused, or stays as it is.

mod coding;
mod digest;
mod inflate;
mod request;
mod response;
mod validate;
mod values;

use std::cell::Cell;

use super::{
    Worker,
    exchange::{Exchange, RequestBody, ResponseSink},
    generation::Generation,
    pipeline,
    policies::UpstreamFields,
    received::Whole,
};
use crate::{
    config::{
        Snapshot,
        snapshot::{ErrorFormat, Policies},
    },
    policy::{
        Refusal,
        compress::{Coding, Effort},
        permit::Permit,
        route::RouteMatch,
        validate::{Fault, is_json as is_json_name},
    },
    wire::{Field, Framing},
};
use coding::Encoder;
use response::Shaped;
pub use validate::{Checked, check as check_body, check_parameters};
pub use values::View;

/// What the upstream is told of a request whose route has policies.
pub fn request(
    snapshot: &Generation,
    exchange: &mut Exchange,
    matched: &RouteMatch,
    policies: &Policies,
) -> Result<(), Refusal> {
    if let Some(rule) = &policies.transform_request {
        let view = View::of(snapshot, exchange, matched);
        let told = request::head(&view, rule)?;
        exchange.upstream_fields().extend(told);
    }
    if policies.changes_response_body() {
        // A part of it, or one that is compressed, could not be changed.
        let told = exchange.upstream_fields();
        told.set(b"Accept-Encoding", b"identity");
        told.dropped.push((*b"range").into());
    }
    Ok(())
}

/// The body of a refusal, in a format of the operator's; with what is wrong with the request, where
/// that is known.
pub fn error(
    snapshot: &Snapshot,
    exchange: &Exchange,
    (refusal, fault): (Refusal, Option<&Fault>),
    format: &ErrorFormat,
) -> Vec<u8> {
    let refusal = Some(refusal);
    let view = View { snapshot, exchange, matched: None, response: None, refusal, fault };
    let mut body = Vec::new();
    // What there is no value for is empty: an error is told in any case.
    format.body.fill(&view, format.place, &mut body);
    body
}

/// Does what the route says, with what goes in and comes out changed.
pub async fn act<B: RequestBody, S: ResponseSink>(
    worker: &Worker,
    snapshot: &Generation,
    exchange: &mut Exchange,
    (matched, permit): (&RouteMatch, Permit),
    policies: &Policies,
    (body, sink): (&mut B, &mut S),
) -> Result<(), Refusal> {
    let changes = Changes { worker, snapshot, matched, policies };
    let held = exchange.upstream_fields.as_ref().and_then(|told| told.digested);
    match held.filter(|_| has_body(exchange)) {
        None => changes.decoded(exchange, permit, (body, sink)).await,
        Some(bytes_max) => {
            let (received, mut whole) =
                digest::body(worker, exchange, (snapshot, bytes_max), body, sink).await?;
            let done = changes.decoded(exchange, permit, (&mut whole, sink)).await;
            received.put_back(exchange);
            done
        }
    }
}

fn has_body(exchange: &Exchange) -> bool {
    !matches!(exchange.head().framing, Framing::None | Framing::Length(0))
}

/// What a route changes, one step behind the other: each does its part and goes on to the next one,
/// with the body and the sink that it leaves.
#[derive(Clone, Copy)]
struct Changes<'c> {
    worker: &'c Worker,
    snapshot: &'c Generation,
    matched: &'c RouteMatch,
    policies: &'c Policies,
}

impl Changes<'_> {
    /// With the request's body decompressed.
    async fn decoded<B: RequestBody, S: ResponseSink>(
        self,
        exchange: &mut Exchange,
        permit: Permit,
        (body, sink): (&mut B, &mut S),
    ) -> Result<(), Refusal> {
        let coded = match self.policies.decompress {
            None => None,
            Some(rule) => inflate::coding(exchange, sink)?.map(|coding| (coding, rule)),
        };
        match coded {
            None => self.checked(exchange, permit, (body, sink)).await,
            Some(coded) => {
                request::go_on(exchange, body, sink).await?;
                let (received, mut inflated) =
                    inflate::begin(self.worker, self.snapshot, exchange, coded, body)?;
                let done = self.checked(exchange, permit, (&mut inflated, sink)).await;
                received.put_back(exchange);
                done
            }
        }
    }

    /// With the request's body looked at.
    async fn checked<B: RequestBody, S: ResponseSink>(
        self,
        exchange: &mut Exchange,
        permit: Permit,
        (body, sink): (&mut B, &mut S),
    ) -> Result<(), Refusal> {
        let checked = match &self.policies.validate {
            None => Checked::Untouched,
            // Boxed: it must not enlarge the task of routes that only shape.
            Some(rule) => {
                let to = (&mut *body, &mut *sink);
                Box::pin(validate::check(self.worker, self.snapshot, exchange, rule, to)).await?
            }
        };
        match checked {
            Checked::Untouched => self.changed(exchange, permit, (body, sink)).await,
            Checked::Begun(received) => {
                let done = self.changed(exchange, permit, (body, sink)).await;
                received.put_back(exchange);
                done
            }
            Checked::Whole(received) => {
                let mut whole = Whole(body.bytes());
                let done = self.changed(exchange, permit, (&mut whole, sink)).await;
                received.put_back(exchange);
                done
            }
        }
    }

    /// With the request's body changed.
    async fn changed<B: RequestBody, S: ResponseSink>(
        self,
        exchange: &mut Exchange,
        permit: Permit,
        (body, sink): (&mut B, &mut S),
    ) -> Result<(), Refusal> {
        let rule = self.policies.transform_request.as_ref().and_then(|rule| rule.body.as_ref());
        match rule.filter(|rule| request::concerns(exchange, rule)) {
            None => self.respond(exchange, permit, (body, sink)).await,
            Some(rule) => {
                let of = (self.snapshot, self.matched);
                let (received, mut whole) =
                    request::body(self.worker, exchange, of, rule, (body, sink)).await?;
                let done = self.respond(exchange, permit, (&mut whole, sink)).await;
                received.put_back(exchange);
                done
            }
        }
    }

    /// With the response changed.
    async fn respond<B: RequestBody, S: ResponseSink>(
        self,
        exchange: &Exchange,
        permit: Permit,
        (body, sink): (&mut B, &mut S),
    ) -> Result<(), Refusal> {
        let Changes { worker, snapshot, matched, policies } = self;
        // Also where nothing of it is: see `pipeline::phases`.
        let mut sink = Shaped {
            snapshot,
            exchange,
            matched,
            worker,
            rule: policies.transform_response.as_ref(),
            compress: policies.compress.as_ref(),
            inner: sink,
            left: policies.response_bytes_max.unwrap_or(u64::MAX),
            held: None,
            coded: None,
        };
        pipeline::act(worker, snapshot, exchange, (matched, permit), body, &mut sink).await
    }
}

/// Bodies that one worker codes at once.
#[derive(Default)]
pub struct Coders {
    encoders: Cell<u32>,
    decoders: Cell<u32>,
}

/// Bodies that one worker compresses at once, each with up to 2 MiB; further ones stay as they are.
const ENCODERS_MAX: u32 = 256;

/// A body being compressed: one of the [`ENCODERS_MAX`].
pub struct Coded<'w> {
    encoder: Encoder,
    _place: Place<'w>,
}

/// One of the bodies that may be coded at once.
struct Place<'w>(&'w Cell<u32>);

impl<'w> Place<'w> {
    /// `None`: as many are taken as there may be.
    fn take(taken: &'w Cell<u32>, most: u32) -> Option<Place<'w>> {
        if taken.get() >= most {
            return None;
        }
        taken.set(taken.get() + 1);
        Some(Place(taken))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl<'w> Coded<'w> {
    /// `None`: there is no room.
    fn new(worker: &'w Worker, coding: Coding, effort: Effort) -> Option<Coded<'w>> {
        let place = Place::take(&worker.coders.encoders, ENCODERS_MAX)?;
        Some(Coded { encoder: Encoder::new(coding, effort).ok()?, _place: place })
    }
}

/// Whether a Content-Type is of JSON, or what is built on it.
fn is_json(media: &[u8]) -> bool {
    is_json_name(media.split(|b| *b == b';').next().unwrap_or_default().trim_ascii())
}

/// What a request's body is coded with, over all lines that say so (RFC 9110 §8.4).
fn codings(exchange: &Exchange) -> impl Iterator<Item = &[u8]> {
    let named =
        |field: &&Field| exchange.text(field.name).eq_ignore_ascii_case(b"content-encoding");
    let lines = exchange.head().fields.iter().filter(named);
    let all = lines.flat_map(|field| exchange.text(field.value).split(|b| *b == b','));
    let is_one = |name: &&[u8]| !name.is_empty() && !name.eq_ignore_ascii_case(b"identity");
    all.map(<[u8]>::trim_ascii).filter(is_one)
}

impl UpstreamFields {
    fn extend(&mut self, more: UpstreamFields) {
        self.dropped.extend(more.dropped);
        self.lines.extend(more.lines);
        self.target = more.target.or(self.target.take());
        self.cookies = more.cookies.or(self.cookies.take());
        self.method = more.method.or(self.method.take());
    }
}
