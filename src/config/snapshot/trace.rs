//! Tracing as workers and control use it.

use crate::telemetry::trace::Sampler;

/// Section `[tracing]`, when it has an endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Tracing {
    pub sampler: Sampler,
    /// Recorded exchanges that may wait for control, for each worker.
    pub queue_max: u32,
    pub export: Export,
}

/// Where spans go, and under what name.
#[derive(Clone, PartialEq, Eq)]
pub struct Export {
    /// URL of the collector.
    pub url: String,
    /// Fields for the collector, some of them secret.
    pub headers: Vec<(String, String)>,
    pub service_name: String,
    /// For one request to the collector.
    pub timeout_ms: u64,
}

impl std::fmt::Debug for Export {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Export").field("url", &self.url).field("headers", &names).finish()
    }
}

/// Configuration key `tracing.server_timing`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerTiming {
    Off,
    Always,
    /// In responses whose exchange is recorded.
    Sampled,
}

/// Configuration key `tracing.parent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parent {
    /// A trusted caller's sampled flag decides.
    Follow,
    Ignore,
}
