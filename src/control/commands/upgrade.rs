//! `ringway upgrade`.

use std::process::ExitCode;

use clap::Args;

use super::{Not, Where, failed};
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
        match self.gateway.order("/upgrade") {
            Ok(upgraded) => print(&format!("upgraded: process {} serves\n", upgraded["pid"])),
            Err(Not::Answered(why)) => failed(&why),
            Err(Not::Done(_)) => failed("not upgraded, the process serves on"),
        }
    }
}
