//! The command line: what each command prints and with which code it ends.
//!
//! 0 is success, 1 means that the command found something wrong (it says what on standard error),
//! 2 that the command line itself is wrong.

use std::{
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};

use super::{
    commands::{diff, endpoint, key, log, quota, reload, status, top, upgrade},
    demo, echo, explain, run,
};
use crate::{
    config::{self, Snapshot, report::plural},
    telemetry,
};

/// An API gateway for Linux io_uring: one shared-nothing worker per core.
#[derive(Debug, Parser)]
#[command(name = "ringway", version, disable_version_flag = true, after_help = AFTER_HELP)]
struct CommandLine {
    /// What to log on standard error: error, warn, info, debug, trace, or a filter such as
    /// ringway::worker=debug.
    #[arg(long, value_name = "LEVEL", default_value = "info", global = true)]
    log: String,

    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
First steps:
  ringway demo                                    try it, no file needed
  ringway check ringway.toml                      is this configuration right?
  ringway explain GET http://api.test/orders/7    what would be done with this request?
  ringway run ringway.toml                        serve";

pub const FILE_DEFAULT: &str = "ringway.toml";

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve: run the gateway until SIGTERM or SIGINT, then drain.
    #[command(after_help = RUN_HELP)]
    Run(File),
    /// Check a configuration and report every mistake in it.
    #[command(after_help = CHECK_HELP)]
    Check(File),
    /// Tell what would be done with a request, and why.
    #[command(after_help = EXPLAIN_HELP)]
    Explain(Request),
    /// How is the running gateway? State, workers, routes, upstreams.
    #[command(after_help = status::HELP)]
    Status(status::Status),
    /// Watch the running gateway in the terminal: per core, per route, per endpoint.
    #[command(after_help = top::HELP)]
    Top(top::Top),
    /// Have the running gateway read its configuration again.
    #[command(after_help = reload::HELP)]
    Reload(reload::Reload),
    /// Have a running gateway give way to a new process of its program.
    #[command(after_help = upgrade::HELP)]
    Upgrade(upgrade::Upgrade),
    /// Tell what a configuration would change, before it is applied.
    #[command(after_help = diff::HELP)]
    Diff(diff::Diff),
    /// Take an endpoint of the running gateway out, put it back, or change its weight.
    #[command(after_help = endpoint::ENDPOINT_HELP)]
    Endpoint(endpoint::Endpoint),
    /// Drain the running gateway, or one endpoint.
    #[command(after_help = endpoint::DRAIN_HELP)]
    Drain(endpoint::Drain),
    /// Read or change what the running gateway logs.
    #[command(after_help = log::HELP)]
    Log(log::Log),
    /// Make an API key, or tell what to store of one; have keys of a token issuer fetched.
    #[command(after_help = key::HELP)]
    Key(key::Key),
    /// What was used of quotas in the running gateway, and to set it.
    #[command(after_help = quota::HELP)]
    Quota(quota::Quota),
    /// Run two sample upstreams and the gateway in one process.
    #[command(after_help = DEMO_HELP)]
    Demo(Demo),
    /// Print a JSON Schema of the configuration, for completion in editors.
    #[command(after_help = SCHEMA_HELP)]
    Schema,
    /// Print the version.
    Version,
}

const RUN_HELP: &str = "\
Signals: TERM and INT stop accepting and finish what runs, bounded by
shutdown.drain_timeout. HUP reads the file again: what runs is not touched, and a
file with errors changes nothing. USR1 opens the files of access logs anew, after
they have been renamed. USR2 starts the program again, which takes the listening
sockets over; when it serves, this process drains.

Examples:
  ringway run
  ringway run /etc/ringway/ringway.toml
  ringway --log debug run";

const CHECK_HELP: &str = "\
Ends with 0 when the configuration can be used (warnings are printed), else with 1.

Examples:
  ringway check
  ringway check /etc/ringway/ringway.toml";

const EXPLAIN_HELP: &str = "\
Nothing is sent. The answer comes from the code that serves requests: the same
parser, path rules and router. Ends with 0 when the request would be served,
with 1 when it would be refused.

URL is a path (/orders/7?full=1) or has scheme and host
(http://api.test/orders/7). It is taken as it is, so that /a/../b and %2e%2e
show what a hostile client would get. A Host field given with -H goes before
the URL's host. API keys, passwords and tokens among the fields are verified, as
far as their keys are in the configuration; what --claims and --token give is
believed.

Examples:
  ringway explain GET /api/orders
  ringway explain GET http://api.test/api/orders -H 'X-Tenant: blue'
  ringway explain POST /upload -H 'Content-Length: 2000000' --config edge.toml
  ringway explain GET /admin --client 10.0.0.7 --claims '{\"sub\": \"alice\"}'
  ringway explain GET /orders -H 'X-API-Key: rw_...'";

const SCHEMA_HELP: &str = "\
Example, for editors with a TOML language server:
  ringway schema > ringway.schema.json
  and as the first line of the configuration:
  #:schema ./ringway.schema.json";

const DEMO_HELP: &str = "\
Examples:
  ringway demo
  ringway demo 127.0.0.1:8000       what the examples in config/ forward to";

#[derive(Debug, Args)]
struct Demo {
    /// Only one sample upstream, at this address, which answers with what it was sent.
    address: Option<std::net::SocketAddr>,
}

#[derive(Debug, Args)]
struct File {
    /// The configuration.
    #[arg(default_value = FILE_DEFAULT)]
    file: PathBuf,
}

#[derive(Debug, Args)]
struct Request {
    /// The method, such as GET.
    method: String,
    /// The path or URL.
    url: String,
    /// A request field, `Name: value`. Repeatable.
    #[arg(short = 'H', long = "header", value_name = "FIELD")]
    headers: Vec<String>,
    /// The client's address (or that of a proxy in front, which tells of it with -H).
    #[arg(long, value_name = "IP")]
    client: Option<std::net::IpAddr>,
    /// Claims of the client's identity, a JSON object. They are believed.
    #[arg(long, value_name = "JSON")]
    claims: Option<String>,
    /// A JWT to take the claims from. Its signature is not verified.
    #[arg(long, value_name = "JWT", conflicts_with = "claims")]
    token: Option<String>,
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = FILE_DEFAULT)]
    config: PathBuf,
}

/// Runs the program and answers with its exit code.
pub(super) fn main() -> ExitCode {
    let line = CommandLine::parse();
    if let Err(message) = telemetry::log::start(&line.log) {
        eprintln!("ringway: --log: {message}");
        return ExitCode::from(2);
    }
    let ended = obey(line.command);
    telemetry::log::flush();
    ended
}

fn obey(command: Command) -> ExitCode {
    match command {
        Command::Run(file) => run::run(&file.file),
        Command::Check(file) => check(&file),
        Command::Explain(request) => explained(&request),
        Command::Status(status) => status.run(),
        Command::Top(top) => top.run(),
        Command::Reload(reload) => reload.run(),
        Command::Upgrade(upgrade) => upgrade.run(),
        Command::Diff(diff) => diff.run(),
        Command::Endpoint(endpoint) => endpoint.run(),
        Command::Drain(drain) => drain.run(),
        Command::Log(log) => log.run(),
        Command::Key(key) => key.run(),
        Command::Quota(quota) => quota.run(),
        Command::Demo(Demo { address: None }) => demo::demo(),
        Command::Demo(Demo { address: Some(at) }) => echo::echo(at),
        Command::Schema => schema(),
        Command::Version => print(&format!("ringway {}\n", env!("CARGO_PKG_VERSION"))),
    }
}

/// Writes to standard output. A reader that left early (`| head`) is no failure.
pub fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            eprintln!("ringway: cannot write: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Loads a configuration, printing what is wrong with it to standard error.
pub fn load(path: &Path) -> Option<Snapshot> {
    load_and_tell(path).ok().map(|(snapshot, _)| snapshot)
}

/// As [`load`], with the warnings, or the report, for others who want them.
pub fn load_and_tell(path: &Path) -> Result<(Snapshot, Vec<String>), String> {
    let is_coloured = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    match config::load(path) {
        Ok((snapshot, warnings)) => {
            for warning in &warnings {
                eprintln!("{}\n", warning.render(is_coloured));
            }
            Ok((snapshot, warnings.iter().map(|warning| warning.render(false)).collect()))
        }
        Err(report) => {
            eprintln!("{}", report.render(is_coloured));
            Err(report.render(false))
        }
    }
}

fn check(file: &File) -> ExitCode {
    let Some(snapshot) = load(&file.file) else { return ExitCode::FAILURE };
    print(&format!(
        "{}: good ({}, {}, {})\n",
        file.file.display(),
        plural(snapshot.listeners.len(), "listener"),
        plural(snapshot.routes.len(), "route"),
        plural(snapshot.upstreams.len(), "upstream"),
    ))
}

fn explained(request: &Request) -> ExitCode {
    let Some(snapshot) = load(&request.config) else { return ExitCode::FAILURE };
    let asker =
        explain::Asker::of(request.client, request.claims.as_deref(), request.token.as_deref());
    let answer = asker.and_then(|asker| {
        let question = explain::Question {
            method: &request.method,
            url: &request.url,
            fields: &request.headers,
            asker: &asker,
        };
        explain::explain(&snapshot, &question)
    });
    match answer {
        Ok(answer) => {
            let printed = print(&answer.text);
            if answer.is_refused { ExitCode::FAILURE } else { printed }
        }
        Err(message) => {
            eprintln!("ringway: {message}");
            ExitCode::from(2)
        }
    }
}

fn schema() -> ExitCode {
    match serde_json::to_string_pretty(&config::schema::schema()) {
        Ok(text) => print(&format!("{text}\n")),
        Err(error) => {
            eprintln!("ringway: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        CommandLine::command().debug_assert();
    }
}
