//! What must come of a hostile request.

use crate::harness::Response;

/// The answers that are right, and what else must hold.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    statuses: [u16; 2],
    /// Reason tokens, any of which is right, separated by `|`.
    reasons: [&'static str; 2],
    /// The deny route's 403 is right as well.
    may_deny: bool,
    /// The gateway must close the connection.
    pub closes: bool,
    /// The fault lies in the body, so the upstream may have seen the beginning of the request, but
    /// never all of it.
    pub may_begin: bool,
    /// The sender stops in the middle: an answer is possible but not required.
    pub cut_short: bool,
}

/// Answered with this status and reason, connection closed, nothing forwarded.
pub const fn refuse(status: u16, reasons: &'static str) -> Outcome {
    Outcome {
        statuses: [status; 2],
        reasons: [reasons, ""],
        may_deny: false,
        closes: true,
        may_begin: false,
        cut_short: false,
    }
}

/// As [`refuse`], but discovered only in the body.
pub const fn broken(status: u16, reasons: &'static str) -> Outcome {
    Outcome { may_begin: true, ..refuse(status, reasons) }
}

/// As [`refuse`], but the connection may stay.
pub const fn answer(status: u16, reasons: &'static str) -> Outcome {
    Outcome { closes: false, ..refuse(status, reasons) }
}

/// The deny route answers.
pub const fn deny() -> Outcome {
    Outcome { may_deny: true, ..answer(0, "") }
}

/// The client stops sending: no complete request reaches an upstream.
pub const fn truncated() -> Outcome {
    Outcome { may_begin: true, cut_short: true, ..refuse(400, "") }
}

impl Outcome {
    pub const fn or_status(self, status: u16) -> Outcome {
        Outcome { statuses: [self.statuses[0], status], ..self }
    }

    pub const fn or_reason(self, reason: &'static str) -> Outcome {
        Outcome { reasons: [self.reasons[0], reason], ..self }
    }

    /// The connection may serve further requests: the message was understood to its end.
    pub const fn may_stay(self) -> Outcome {
        Outcome { closes: false, ..self }
    }

    pub const fn or_deny(self) -> Outcome {
        Outcome { may_deny: true, closes: false, ..self }
    }

    /// Says what is wrong with a response, if anything.
    pub fn fault(&self, response: &Response, method: &str) -> Option<String> {
        let status = response.status;
        if self.may_deny && status == 403 {
            let denied = method == "HEAD" || response.text() == "denied";
            return (!denied).then(|| format!("not the deny route's body: {:?}", response.text()));
        }
        if self.cut_short {
            let fine = [400, 408].contains(&status);
            return (!fine).then(|| format!("status {status} for half a request"));
        }
        if !self.statuses.contains(&status) {
            return Some(format!(
                "status {status}, not {:?}: {:?}",
                self.statuses,
                response.text()
            ));
        }
        let reason = response.reason();
        let fine = self.reasons.iter().flat_map(|r| r.split('|')).any(|r| r == reason);
        (!fine).then(|| format!("reason {reason}, not {}", self.reasons[0]))
    }
}
