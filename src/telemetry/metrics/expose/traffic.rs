//! Figures of exchanges, whatever they are counted for.

use std::borrow::Cow;

use super::{Family, Figure, Scrape, classes, text_of};
use crate::telemetry::metrics::{
    registry::{Shards, sum},
    shards::Traffic,
};

impl Scrape {
    /// Figures of exchanges, by the name of what they belong to: requests, bytes received, bytes
    /// sent. `idle`: also those of which there was none.
    pub(super) fn traffic<T>(
        &mut self,
        [requests, received, sent]: [&'static Family; 3],
        things: &[(String, Shards<T>)],
        of: fn(&T) -> &Traffic,
        idle: bool,
    ) {
        let by_class = things.iter().flat_map(|(name, shards)| {
            classes(shards, |one| &of(one).responses)
                .map(|(class, count)| (vec![text_of(name), Cow::Borrowed(class)], count))
        });
        self.counts(requests, by_class.filter(|(_, count)| idle || *count > 0).collect());
        let figures: [(_, Figure<Traffic>); 2] =
            [(received, |one| one.request_bytes.get()), (sent, |one| one.response_bytes.get())];
        for (family, figure) in figures {
            let one = |(name, shards): &(String, Shards<T>)| {
                (vec![text_of(name)], sum(shards, |one| figure(of(one))))
            };
            let all = things.iter().map(one);
            self.counts(family, all.filter(|(_, count)| idle || *count > 0).collect());
        }
    }
}
