//! `ringway reload`.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::{Not, Where, call::Answer, failed};
use crate::{config::report::plural, control::cli::print};

pub const HELP: &str = "\
The gateway reads its own configuration file again, as on SIGHUP. The command waits
until every worker has the new configuration. A file with errors changes nothing: the
report of `ringway check` is printed and the command ends with 1.

Examples:
  ringway reload
  ringway diff && echo nothing to reload || ringway reload
  ringway reload --admin /run/ringway/admin.sock";

#[derive(Debug, Args)]
pub struct Reload {
    #[command(flatten)]
    gateway: Where,
}

impl Reload {
    pub fn run(&self) -> ExitCode {
        let reloaded = match self.gateway.order("/reload") {
            Ok(reloaded) => reloaded,
            Err(Not::Answered(why)) => return failed(&why),
            Err(Not::Done(answer)) => return not_reloaded(&answer),
        };
        for warning in reloaded["warnings"].as_array().into_iter().flatten() {
            eprintln!("{}\n", warning.as_str().unwrap_or_default());
        }
        print(&format!(
            "reloaded: generation {} on {} in {:.1} ms\n",
            reloaded["generation"],
            plural(reloaded["workers"].as_array().map_or(0, Vec::len), "worker"),
            reloaded["took_ms"].as_f64().unwrap_or_default(),
        ))
    }
}

fn not_reloaded(answer: &Answer) -> ExitCode {
    let generation = answer.json::<Value>().ok().and_then(|v| v["generation"].as_u64());
    let stays = generation.map_or("nothing has changed".to_owned(), |generation| {
        format!("generation {generation} stays in force")
    });
    match answer.status {
        503 => failed("reloaded, but not as it should be"),
        _ => failed(&format!("not reloaded, {stays}")),
    }
}
