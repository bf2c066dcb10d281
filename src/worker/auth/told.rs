//! What ways have to say beside who a request is from: to the client, and to the upstream.
//!
//! A way may be asked several times about one request, so what it says is put in place of what it
//! said before.

use std::cell::Cell;

use crate::{
    config::snapshot::Authenticate,
    policy::auth::{Entry, WayId},
    worker::{
        exchange::{Exchange, ResponseSink},
        reshape::Dropped,
    },
};

/// A pointer, so that it enlarges no task; nothing where no way says anything.
#[derive(Default)]
pub struct Told(Cell<Option<Box<Tellings>>>);

/// By way.
type Tellings = Vec<(WayId, Telling)>;

/// What one way says.
#[derive(Default)]
pub struct Telling {
    /// Lines of the response, which set or clear cookies.
    pub lines: Vec<u8>,
    /// For the upstream (`Authorization: Bearer`).
    pub access_token: Option<String>,
    /// It gave an identity after a wait, and would not at once.
    pub is_good: bool,
}

impl Told {
    /// Has `way` say this.
    pub fn put(&self, way: WayId, telling: Telling) {
        let mut all = self.0.take().unwrap_or_default();
        all.retain(|(own, _)| *own != way);
        all.push((way, telling));
        self.0.set(Some(all));
    }

    /// Whether a way gave an identity, as far as it says so.
    pub fn is_good(&self, way: WayId) -> bool {
        let all = self.0.take();
        let is_good =
            all.iter().flat_map(|all| all.iter()).any(|(own, one)| *own == way && one.is_good);
        self.0.set(all);
        is_good
    }

    /// Tells all of it; upstreams get only what the ways say that count.
    pub fn tell<S: ResponseSink>(
        &self,
        exchange: &mut Exchange,
        rule: &Authenticate,
        entry: &Entry,
        sink: &mut S,
    ) {
        let Some(all) = self.0.take() else { return };
        let counts: &[WayId] = match entry {
            Entry::Known(_, at) => &rule.asked.alternatives[*at],
            Entry::Anonymous => &[],
        };
        for (way, telling) in all.iter() {
            tell_client(&telling.lines, sink);
            if let Some(token) = &telling.access_token
                && counts.contains(way)
            {
                let bearer = format!("Bearer {token}");
                exchange.upstream_fields().set(b"Authorization", bearer.as_bytes());
            }
        }
    }

    /// Tells the client of a request that is refused.
    pub fn tell_refused<S: ResponseSink>(&self, sink: &mut S) {
        for (_, telling) in self.0.take().into_iter().flat_map(|all| *all) {
            tell_client(&telling.lines, sink);
        }
    }
}

/// Adds cookies to a response, which is for this client alone then.
pub fn tell_client<S: ResponseSink>(lines: &[u8], sink: &mut S) {
    if lines.is_empty() {
        return;
    }
    sink.add_fields(lines);
    sink.add_fields(b"Cache-Control: no-store\r\n");
    sink.reshape().dropped.push(Dropped::Name(b"cache-control".as_slice().into()));
}
