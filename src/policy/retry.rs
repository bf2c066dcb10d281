//! Whether a failed try may be repeated.
//!
//! A request must not take effect twice. So a try is repeated only when the upstream cannot have
//! acted on it, or when acting twice is the same as once (RFC 9110 §9.2.2), and of those cases only
//! where repeating helps:
//!
//! - **The connection could not be made.** Nothing was sent: the next endpoint is tried, whatever
//!   the method and body.
//! - **A reused connection died before any of the response came.** The upstream most likely closed
//!   it as idle while the request was on its way (RFC 9112 §9.3.1). Repeated if the method is
//!   idempotent or nothing was sent, and the body is still at hand. The worker makes the next try
//!   on a new connection, so this happens once for an exchange.
//! - **A new connection died.** The upstream failed while working on this very request, which the
//!   next endpoint would probably do too: not repeated.
//! - **The upstream says that it did not act on it** (RFC 9113 §8.7: a stream refused, or opened
//!   when the connection was to end). Repeated, whatever the method, if the body is still at hand.
//! - **Some of the response came.** It may already be on its way to the client: not repeated.

use crate::wire::Method;

/// How a try ended without a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryOutcome {
    /// No connection to the endpoint: refused, unreachable or too slow.
    ConnectFailed,
    /// The upstream has said that it did nothing with the request.
    Unprocessed {
        /// As below.
        body_replayable: bool,
    },
    /// The connection ended or broke.
    Failed {
        /// It had served an exchange before.
        reused_connection: bool,
        /// At least one byte of the request was handed to the socket.
        request_bytes_sent: bool,
        /// At least one byte of the response arrived.
        response_bytes_received: bool,
        /// The whole body sent so far is still at hand, or there is none.
        body_replayable: bool,
    },
}

/// Whether to try again after `outcome`. `tries` counts those made, the failed one included;
/// `tries_max` is the route's bound on them.
pub fn may_retry(outcome: TryOutcome, method: Method, tries: u8, tries_max: u8) -> bool {
    if tries >= tries_max {
        return false;
    }
    match outcome {
        TryOutcome::ConnectFailed => true,
        TryOutcome::Unprocessed { body_replayable } => body_replayable,
        TryOutcome::Failed {
            reused_connection,
            request_bytes_sent,
            response_bytes_received,
            body_replayable,
        } => {
            reused_connection
                && !response_bytes_received
                && body_replayable
                && (method.is_idempotent() || !request_bytes_sent)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// reused, sent, received, replayable.
    fn failed(members: [bool; 4]) -> TryOutcome {
        let [reused_connection, request_bytes_sent, response_bytes_received, body_replayable] =
            members;
        TryOutcome::Failed {
            reused_connection,
            request_bytes_sent,
            response_bytes_received,
            body_replayable,
        }
    }

    #[test]
    fn a_failed_connect_goes_on_while_tries_are_left() {
        assert!(may_retry(TryOutcome::ConnectFailed, Method::Post, 1, 3));
        assert!(may_retry(TryOutcome::ConnectFailed, Method::Other, 2, 3));
        assert!(!may_retry(TryOutcome::ConnectFailed, Method::Get, 3, 3));
        assert!(!may_retry(TryOutcome::ConnectFailed, Method::Get, 1, 0));
    }

    #[test]
    fn what_was_not_processed_is_repeated_while_the_body_is_at_hand() {
        for method in [Method::Get, Method::Post, Method::Other] {
            for body_replayable in [true, false] {
                let outcome = TryOutcome::Unprocessed { body_replayable };
                assert_eq!(may_retry(outcome, method, 1, 2), body_replayable);
                assert!(!may_retry(outcome, method, 2, 2));
            }
        }
    }

    /// All sixteen outcomes: of them the four listed are repeated, and only for these methods.
    #[test]
    fn a_broken_connection_is_repeated_only_where_safe() {
        for bits in 0..16u8 {
            let members = [8, 4, 2, 1].map(|bit| bits & bit != 0);
            let (idempotent, other) = match members {
                [true, true, false, true] => (true, false),
                [true, false, false, true] => (true, true),
                _ => (false, false),
            };
            let outcome = failed(members);
            for method in [Method::Get, Method::Head, Method::Put, Method::Delete, Method::Options]
            {
                assert_eq!(may_retry(outcome, method, 1, 2), idempotent, "{method:?} {outcome:?}");
            }
            for method in [Method::Post, Method::Patch, Method::Other] {
                assert_eq!(may_retry(outcome, method, 1, 2), other, "{method:?} {outcome:?}");
            }
            assert!(!may_retry(outcome, Method::Get, 2, 2), "{outcome:?}");
        }
    }
}
