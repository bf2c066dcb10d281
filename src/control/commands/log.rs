//! `ringway log`.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::{Where, failed};
use crate::control::cli::print;

pub const HELP: &str = "\
Holds until the process ends; `--log` of `ringway run` is what it starts with.

Examples:
  ringway log                        what is it?
  ringway log debug
  ringway log info,ringway::worker=trace";

#[derive(Debug, Args)]
pub struct Log {
    /// error, warn, info, debug, trace, off, or a filter such as ringway::worker=debug.
    level: Option<String>,
    #[command(flatten)]
    gateway: Where,
}

impl Log {
    pub fn run(&self) -> ExitCode {
        let answer = match &self.level {
            None => self.gateway.call("GET", "/log", None),
            Some(level) => self.gateway.call("PUT", "/log", Some(&json!({ "level": level }))),
        };
        match answer {
            Ok(answer) if answer.is_success() => match answer.json::<Value>() {
                Ok(now) => print(&format!("{}\n", now["level"].as_str().unwrap_or_default())),
                Err(e) => failed(&e),
            },
            Ok(answer) => failed(&answer.problem()),
            Err(e) => failed(&e),
        }
    }
}
