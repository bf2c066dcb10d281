//! Which endpoint of an upstream gets the next request.

/// How an upstream chooses (configuration key `balance`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// Smooth weighted round robin.
    #[default]
    RoundRobin,
    /// Of two random endpoints, the one with fewer requests in flight for its weight.
    LeastRequest,
    Random,
}
