//! Commands that ask a running gateway: `reload`, `upgrade`, `drain`, `endpoint`, `status`, `top`,
//! `log`, `diff`, `quota`.
//!
//! Each but `top` makes one call of the admin interface ([`call`]) and prints what came of it. 0 is
//! success, 1 means that the gateway refused or that none answers, 2 that the command line is
//! wrong; `diff` has the codes of diff(1). `key` asks nobody.

mod call;
pub mod diff;
pub mod endpoint;
pub mod key;
pub mod log;
pub mod quota;
pub mod reload;
pub mod status;
mod table;
pub mod top;
pub mod upgrade;

pub use call::{Not, Where};

use std::process::ExitCode;

/// Says on standard error why a command came to nothing.
fn failed(message: &str) -> ExitCode {
    eprintln!("ringway: {message}");
    ExitCode::FAILURE
}
