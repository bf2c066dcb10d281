//! Responses of a route that bounds them (`max_response_body`).
//!
//! A length that is announced is looked at before the client gets anything; a body without one is
//! counted while it passes, and cut off, which the client can tell from a complete one. Everything
//! else is the forwarding of any request.

use std::task::Waker;

use super::{
    buffers::Buffer,
    client::Client,
    deadline::Deadline,
    exchange::{OwnResponse, ResponseSink},
    net::Stream,
    reshape::Reshape,
    splice::Pipe,
};
use crate::{
    policy::{Refusal, refusal, route::RouteId},
    telemetry::record::{Sent, Timing},
    wire::{Framing, ResponseHead},
};

/// Where a response goes whose body has a bound.
pub struct BoundedSink<'s, S> {
    inner: &'s mut S,
    /// Bytes that may still come.
    left: u64,
}

impl<'s, S: ResponseSink> BoundedSink<'s, S> {
    pub fn new(inner: &'s mut S, bytes_max: u64) -> BoundedSink<'s, S> {
        BoundedSink { inner, left: bytes_max }
    }

    fn take(&mut self, bytes: usize) -> Result<(), Refusal> {
        let left = self.left.checked_sub(bytes as u64);
        self.left = left.ok_or(refusal::RESPONSE_TOO_LARGE)?;
        Ok(())
    }
}

impl<S: ResponseSink> ResponseSink for BoundedSink<'_, S> {
    fn routed(&mut self, route: RouteId) {
        self.inner.routed(route);
    }

    fn begun(&self) -> bool {
        self.inner.begun()
    }

    fn sent(&self) -> Sent {
        self.inner.sent()
    }

    fn limit(&mut self, until_ms: u64) {
        self.inner.limit(until_ms);
    }

    fn tell_timing(&mut self, timing: Timing) {
        self.inner.tell_timing(timing);
    }

    fn add_fields(&mut self, lines: &[u8]) {
        self.inner.add_fields(lines);
    }

    fn reshape(&mut self) -> &mut Reshape {
        self.inner.reshape()
    }

    async fn interim(&mut self, head: &ResponseHead, bytes: &[u8]) -> Result<(), Refusal> {
        self.inner.interim(head, bytes).await
    }

    async fn head(
        &mut self,
        head: &ResponseHead,
        buf: &mut Buffer,
        last: bool,
        trailer_lines: &[u8],
    ) -> Result<(), Refusal> {
        if matches!(head.framing, Framing::Length(length) if length > self.left) {
            return Err(refusal::RESPONSE_TOO_LARGE.into());
        }
        self.take(buf.len() - head.len)?;
        self.inner.head(head, buf, last, trailer_lines).await
    }

    async fn ready(&mut self) -> Result<(), Refusal> {
        self.inner.ready().await
    }

    fn reads_max(&self) -> u64 {
        self.inner.reads_max()
    }

    async fn data(
        &mut self,
        buf: &mut Buffer,
        last: bool,
        trailer_lines: &[u8],
    ) -> Result<(), Refusal> {
        self.take(buf.len())?;
        self.inner.data(buf, last, trailer_lines).await
    }

    fn takes_pipes(&self) -> bool {
        self.inner.takes_pipes()
    }

    async fn splice(&mut self, pipe: &mut Pipe, last: bool) -> Result<(), Refusal> {
        self.take(pipe.held())?;
        self.inner.splice(pipe, last).await
    }

    fn close_after(&mut self) {
        self.inner.close_after();
    }

    async fn own(&mut self, response: OwnResponse<'_>) -> Result<(), Refusal> {
        self.inner.own(response).await
    }

    async fn switch(&mut self, head: &ResponseHead, buf: &Buffer) -> Result<(), Refusal> {
        self.inner.switch(head, buf).await
    }

    fn watch(&self, upstream: &Deadline, fin_is_gone: bool) {
        self.inner.watch(upstream, fin_is_gone);
    }

    fn watch_for(&self, waker: &Waker, since_ms: u64, fin_is_gone: bool) {
        self.inner.watch_for(waker, since_ms, fin_is_gone);
    }

    fn is_gone(&self) -> bool {
        self.inner.is_gone()
    }

    fn watched_gone(&self) -> bool {
        self.inner.watched_gone()
    }

    fn connection(&self) -> Option<&Client> {
        self.inner.connection()
    }

    fn client(&self) -> Option<&Stream> {
        self.inner.client()
    }
}
