//! Everything that is not the data path: command line, start, signals, demo.

mod cli;
pub mod cores;
pub mod demo;
pub mod explain;
mod handover;
pub mod logs;
pub mod ready;
mod reload;
mod run;
mod sockets;
mod start;
mod systemd;
mod takeover;
mod upgrade;
mod watch;
mod workers;

/// Runs the program and answers with its exit code.
pub fn main() -> std::process::ExitCode {
    cli::main()
}
