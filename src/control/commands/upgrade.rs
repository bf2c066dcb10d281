//! `ringway upgrade`.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::{Where, failed};
use crate::control::cli::print;

pub const HELP: &str = "\
The gateway starts its program again, from the path it was started by, as on SIGUSR2.
The new process takes the listening sockets over; when it serves, the old one drains.
The command waits until then. A program that does not start, or a configuration with
errors, changes nothing, and the command ends with 1.

Examples:
  ringway upgrade
  ringway check /etc/ringway/ringway.toml && ringway upgrade";

#[derive(Debug, Args)]
pub struct Upgrade {
    #[command(flatten)]
    gateway: Where,
}

impl Upgrade {
    pub fn run(&self) -> ExitCode {
        let answer = match self.gateway.call("POST", "/upgrade", None) {
            Ok(answer) => answer,
            Err(e) => return failed(&e),
        };
        if !answer.is_success() {
            eprintln!("{}\n", answer.problem());
            return failed("not upgraded, the process serves on");
        }
        match answer.json::<Value>() {
            Ok(upgraded) => print(&format!("upgraded: process {} serves\n", upgraded["pid"])),
            Err(e) => failed(&e),
        }
    }
}
