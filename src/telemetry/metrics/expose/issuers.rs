//! Figures of issuers of tokens: their keys, and requests for tokens.

use super::{Samples, Scrape, f, text_of};

/// Keys of one way to authenticate.
#[derive(Clone, Debug, Default)]
pub struct JwksFigures {
    pub way: String,
    pub fetched: u64,
    pub failed: u64,
    /// Unix time; `None` while they have not been fetched.
    pub fetched_s: Option<f64>,
}

/// Requests for tokens of one way to authenticate by a login.
#[derive(Clone, Debug, Default)]
pub struct LoginFigures {
    pub way: String,
    /// By grant and outcome.
    pub requests: Vec<(&'static str, &'static str, u64)>,
}

impl Scrape {
    pub(super) fn jwks(&mut self, ways: &[JwksFigures]) {
        let fetches = ways.iter().flat_map(|of| {
            [("fetched", of.fetched), ("failed", of.failed)]
                .map(|(outcome, count)| (vec![text_of(&of.way), outcome.into()], count))
        });
        self.counts(f::JWKS_FETCHES, fetches.collect());
        let times = ways.iter().filter_map(|of| Some((vec![text_of(&of.way)], of.fetched_s?)));
        self.0.push((f::JWKS_FETCHED, Samples::Numbers(times.collect())));
    }

    pub(super) fn logins(&mut self, ways: &[LoginFigures]) {
        let requests = ways.iter().flat_map(|of| {
            of.requests.iter().map(|(grant, outcome, count)| {
                (vec![text_of(&of.way), (*grant).into(), (*outcome).into()], *count)
            })
        });
        self.counts(f::OIDC_TOKENS, requests.collect());
    }
}
