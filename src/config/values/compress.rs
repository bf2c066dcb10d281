//! Values of compression: codings, efforts, media types.

use super::{Bad, FromText, bad};
use crate::{
    choice,
    config::decode::At,
    policy::compress::{Coding, Effort, MediaRange},
};

choice!(Coding: Coding::Gzip = "gzip", Coding::Brotli = "br", Coding::Zstd = "zstd");
choice!(Effort:
    Effort::Fast = "fast",
    Effort::Usual = "usual",
    Effort::Best = "best",
);

/// A media type, or all of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaType(pub String);

impl MediaType {
    pub fn range(&self) -> Option<MediaRange> {
        MediaRange::parse(&self.0)
    }
}

impl FromText for MediaType {
    const WHAT: &'static str = "a media type";
    const EXAMPLE: &'static str = "text/html";

    fn read(text: &str) -> Result<Self, Bad> {
        match MediaRange::parse(text) {
            Some(_) => Ok(MediaType(text.to_owned())),
            None => bad("none", "write one such as \"application/json\" or \"text/*\""),
        }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// What is worth compressing, usually.
pub fn default_media_types() -> Vec<At<MediaType>> {
    const TYPES: [&str; 13] = [
        "text/*",
        "application/json",
        "application/problem+json",
        "application/ld+json",
        "application/manifest+json",
        "application/javascript",
        "application/xml",
        "application/xhtml+xml",
        "application/atom+xml",
        "application/rss+xml",
        "application/wasm",
        "image/svg+xml",
        "font/ttf",
    ];
    TYPES.into_iter().map(|text| At::default_of(MediaType(text.to_owned()))).collect()
}
