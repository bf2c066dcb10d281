//! `ringway endpoint` and `ringway drain`.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value};

use super::{Where, call::segment, failed};
use crate::control::cli::print;

pub const ENDPOINT_HELP: &str = "\
  up          gets requests
  drain       gets no new requests while another endpoint of the upstream is up
  down        gets no new requests
  configured  as in the configuration again, the weight too

Requests in flight go on whatever is said; idle connections of an endpoint that gets no
more are closed. What is said outlives reloads, and ends with the process.

Examples:
  ringway endpoint orders 10.0.0.11:8000 drain
  ringway endpoint orders 10.0.0.11:8000 up --weight 5
  ringway endpoint orders 10.0.0.11:8000 configured";

pub const DRAIN_HELP: &str = "\
Without arguments the whole gateway drains, as on SIGTERM: it stops accepting, finishes
what runs, bounded by shutdown.drain_timeout, and ends. With an upstream and an endpoint
it is `ringway endpoint UPSTREAM ENDPOINT drain`.

Examples:
  ringway drain
  ringway drain orders 10.0.0.11:8000";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Wanted {
    Up,
    Drain,
    Down,
    Configured,
}

#[derive(Debug, Args)]
pub struct Endpoint {
    /// The upstream's name.
    upstream: String,
    /// The endpoint, as written in the configuration.
    endpoint: String,
    /// What it should be. May be left out with --weight.
    #[arg(required_unless_present = "weight")]
    state: Option<Wanted>,
    /// Share of the requests, from 1 to 1000, relative to the upstream's other endpoints.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    weight: Option<u32>,
    #[command(flatten)]
    gateway: Where,
}

#[derive(Debug, Args)]
pub struct Drain {
    /// An upstream; without one, the whole gateway.
    #[arg(requires = "endpoint")]
    upstream: Option<String>,
    /// The upstream's endpoint, as written in the configuration.
    endpoint: Option<String>,
    #[command(flatten)]
    gateway: Where,
}

impl Endpoint {
    pub fn run(&self) -> ExitCode {
        let path =
            format!("/upstreams/{}/endpoints/{}", segment(&self.upstream), segment(&self.endpoint));
        let answer = match (self.state, self.weight) {
            (Some(Wanted::Configured), Some(_)) => {
                eprintln!("ringway: `configured` takes the weight back too: leave --weight out");
                return ExitCode::from(2);
            }
            (Some(Wanted::Configured), None) => self.gateway.call("DELETE", &path, None),
            (state, weight) => {
                let mut body = Map::new();
                let word = match state {
                    Some(Wanted::Up) => Some("up"),
                    Some(Wanted::Drain) => Some("drain"),
                    Some(Wanted::Down) => Some("down"),
                    Some(Wanted::Configured) | None => None,
                };
                body.extend(word.map(|word| ("state".to_owned(), Value::from(word))));
                body.extend(weight.map(|weight| ("weight".to_owned(), Value::from(weight))));
                self.gateway.call("PUT", &path, Some(&Value::Object(body)))
            }
        };
        match answer {
            Ok(answer) if answer.is_success() => match answer.json::<Value>() {
                Ok(now) => print(&told(&now)),
                Err(e) => failed(&e),
            },
            Ok(answer) => failed(&answer.problem()),
            Err(e) => failed(&e),
        }
    }
}

fn told(now: &Value) -> String {
    let text = |key: &str| now[key].as_str().unwrap_or_default().to_owned();
    let configured = match now["weight"] == now["configured_weight"] {
        true => String::new(),
        false => format!(" (configured: {})", now["configured_weight"]),
    };
    format!(
        "{} of {}: {}, weight {}{configured}\n",
        text("endpoint"),
        text("upstream"),
        text("state"),
        now["weight"]
    )
}

impl Drain {
    pub fn run(self) -> ExitCode {
        if let (Some(upstream), Some(endpoint)) = (self.upstream, self.endpoint) {
            let state = Some(Wanted::Drain);
            let one = Endpoint { upstream, endpoint, state, weight: None, gateway: self.gateway };
            return one.run();
        }
        match self.gateway.call("POST", "/drain", None) {
            Ok(answer) if answer.is_success() => {
                print("draining: the gateway ends when what runs is finished\n")
            }
            Ok(answer) => failed(&answer.problem()),
            Err(e) => failed(&e),
        }
    }
}
