//! The permission to forward. [`crate::worker::forward`] takes one, so that a request whose
//! authorisation was forgotten does not compile:
//!
//! ```compile_fail,E0423
//! let permit = ringway::policy::permit::Permit(());
//! ```
//!
//! ```compile_fail,E0308
//! # use ringway::worker::{exchange::*, forward::forward, generation::Generation, Worker};
//! # async fn f<B: RequestBody, S: ResponseSink>(
//! #     worker: &Worker, snapshot: &Generation, exchange: &Exchange,
//! #     matched: &ringway::policy::route::RouteMatch, body: &mut B, sink: &mut S,
//! # ) {
//! let _ = forward(worker, snapshot, exchange, (matched, 0), body, sink).await;
//! # }
//! ```

/// That a request may be forwarded. Only this module makes one; it is used up by forwarding.
#[derive(Debug)]
pub struct Permit(());

impl Permit {
    /// Of a route that asks for nothing.
    pub(crate) fn of_open_route() -> Permit {
        Permit(())
    }
}
