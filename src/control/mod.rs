//! Everything that is not the data path.

pub mod cores;
pub mod demo;
pub mod run;

/// Runs the program and answers with its exit code.
pub fn main() -> std::process::ExitCode {
    crate::telemetry::log::start("info");
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("demo") => demo::demo(),
        _ => run::run(std::path::Path::new(&args[2])),
    }
}
