//! Compression of responses and decompression of requests as written, see [`super`].

use crate::{
    config::{
        decode::At,
        units::{Size, bytes, gib, kib, mib},
        values::{MediaType, default_media_types},
    },
    policy::compress::{Coding, Effort},
    section,
};

section! {
    /// Compression of responses. Those that have a coding already, parts (206), and those whose
    /// Cache-Control says `no-transform` stay as they are.
    pub struct Compress {
        /// Codings that are offered, the preferred one first.
        codings: Vec<At<Coding>> = default_codings();
        /// Media types of what is compressed: `"text/html"`, or all of one kind, `"text/*"`.
        types: Vec<At<MediaType>> = default_media_types();
        /// A body that is known to be shorter stays as it is.
        min_size: Size = kib(1) => bytes(0)..=mib(1);
        /// How much work it may be: `"fast"`, `"usual"` or `"best"`.
        effort: Effort = Effort::Usual;
    }

    /// Decompression of requests: gzip, brotli and zstd. Anything else is refused with 415.
    pub struct Decompress {
        /// What a body may become; then 413. Default: the route's `max_body`.
        max_size: Option<Size> = None => Some(kib(1))..=Some(gib(1024)), eg "\"10MiB\"";
        /// How many bytes one byte may become, beyond the first 64 KiB of a body; then 413.
        max_ratio: u32 = 100 => 1..=10_000;
    }
}

fn default_codings() -> Vec<At<Coding>> {
    Coding::ALL.into_iter().map(At::default_of).collect()
}
