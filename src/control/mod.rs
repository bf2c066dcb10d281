//! Everything that is not the data path: command line, start, signals, demo.

mod cli;
pub mod cores;
pub mod demo;
pub mod explain;
pub mod logs;
mod reload;
mod run;
mod spans;

/// Runs the program and answers with its exit code.
pub fn main() -> std::process::ExitCode {
    cli::main()
}
