//! Everything that is not the data path: command line, start, signals, demo.

pub mod admin;
mod cli;
pub mod commands;
pub mod cores;
pub mod demo;
pub mod endpoints;
pub mod explain;
mod file_watch;
pub mod history;
pub mod logs;
pub mod process;
pub mod ready;
pub mod reload;
mod run;
mod spans;
pub mod view;

/// Runs the program and answers with its exit code.
pub fn main() -> std::process::ExitCode {
    cli::main()
}
