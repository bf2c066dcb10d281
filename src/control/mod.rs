//! Everything that is not the data path: command line, start, signals, demo.

pub mod acme;
pub mod admin;
mod aside;
mod behind;
mod cli;
pub mod commands;
pub mod cores;
pub mod demo;
mod echo;
pub mod endpoints;
mod errands;
pub mod explain;
mod file_watch;
pub mod fleet;
mod handover;
pub mod history;
pub mod jwks;
mod kernel_tls;
pub mod logs;
pub mod oidc;
pub mod process;
pub mod quotas;
pub mod ready;
pub mod reload;
mod run;
mod sockets;
mod spans;
mod start;
mod systemd;
mod takeover;
mod upgrade;
pub mod view;
mod watch;
mod workers;

/// Runs the program and answers with its exit code.
pub fn main() -> std::process::ExitCode {
    cli::main()
}
