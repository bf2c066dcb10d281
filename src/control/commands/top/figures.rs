//! What two looks at a gateway tell: rates between them, and what needs attention.

use std::{collections::HashMap, time::Instant};

use crate::control::{
    admin::status::{self, Latency, Responses, Status},
    history::Became,
};

/// One answer of `GET /status`.
pub struct Look {
    pub taken: Instant,
    pub status: Status,
}

/// Everything a frame shows. Rates are per second, and `None` at the first look; durations are in
/// seconds, and `None` when nothing was measured. Names are clean, see [`clean`].
#[derive(Debug, Default)]
pub struct Figures {
    pub state: String,
    pub generation: u64,
    pub up_seconds: u64,
    pub requests: Option<f64>,
    pub errors: Option<f64>,
    pub connections_open: u64,
    pub p50: Option<f64>,
    pub p99: Option<f64>,
    pub overhead_p99: Option<f64>,
    /// How many times the mean the busiest core does; `None` while they do next to nothing.
    pub imbalance: Option<f64>,
    pub cores: Vec<Core>,
    pub routes: Vec<Route>,
    pub endpoints: Vec<Endpoint>,
    pub matters: Vec<Matter>,
}

#[derive(Debug)]
pub struct Core {
    pub worker: usize,
    pub core: u32,
    /// Share of the core's time.
    pub load: Option<f64>,
    pub requests: Option<f64>,
    pub connections: u64,
    /// What is wrong with its worker; empty when nothing is.
    pub trouble: String,
}

#[derive(Debug)]
pub struct Route {
    pub name: String,
    pub action: String,
    pub requests: Option<f64>,
    pub client_errors: Option<f64>,
    pub errors: Option<f64>,
    pub p50: Option<f64>,
    pub p99: Option<f64>,
}

#[derive(Debug)]
pub struct Endpoint {
    pub name: String,
    pub upstream: String,
    pub health: Health,
    pub requests: Option<f64>,
    /// Tries that brought no response, and connections that could not be opened.
    pub failed: Option<f64>,
    pub in_flight: u64,
    pub idle: u64,
    /// Share of the requests sent on a kept connection.
    pub reuse: Option<f64>,
    pub p50: Option<f64>,
    pub p99: Option<f64>,
}

/// How an endpoint is, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// By the operator.
    Down,
    /// It could not be connected lately.
    Avoided,
    /// It answers, but tries have failed since the last look.
    Failing,
    /// By the operator.
    Draining,
    Up,
}

impl Health {
    /// A symbol and a word: neither says it by colour alone.
    pub fn words(self) -> &'static str {
        match self {
            Health::Down => "■ down",
            Health::Avoided => "◆ avoided",
            Health::Failing => "▲ failing",
            Health::Draining => "◐ draining",
            Health::Up => "● up",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mood {
    Bad,
    Warn,
    Calm,
}

/// Something an operator should look at.
#[derive(Debug, PartialEq, Eq)]
pub struct Matter {
    pub mood: Mood,
    pub words: String,
}

/// Shares of 5xx responses from which on they are a matter, and a bad one.
const ERRORS_WARN: f64 = 0.01;
const ERRORS_BAD: f64 = 0.05;
/// Below this mean load, cores are not compared.
const LOAD_COMPARED: f64 = 0.02;
/// Endpoints named in one matter.
const NAMED_MAX: usize = 3;

impl Figures {
    /// Rates need the look before; one of another process counts for nothing.
    pub fn between(before: Option<&Look>, now: &Look) -> Figures {
        let status = &now.status;
        let is_same =
            |look: &&Look| (look.status.pid, look.status.started) == (status.pid, status.started);
        let before = before.filter(is_same);
        let growth = Growth::new(before, now);
        let then = before.map(|look| &look.status);
        let total = |figure: fn(&Status) -> u64| growth.of(figure(status), then.map(figure));
        let cores = cores(status, then, &growth);
        let mut figures = Figures {
            state: clean(&status.state),
            generation: status.generation,
            up_seconds: status.now.saturating_sub(status.started),
            requests: total(|status| status.totals.requests),
            errors: total(|status| class(&status.totals.responses, "5xx")),
            connections_open: status.totals.connections_open,
            p50: known(&status.latency, status.latency.p50),
            p99: known(&status.latency, status.latency.p99),
            overhead_p99: known(&status.overhead, status.overhead.p99),
            imbalance: imbalance(&cores),
            cores,
            routes: routes(status, then, &growth),
            endpoints: endpoints(status, then, &growth),
            matters: Vec::new(),
        };
        let shed = total(|status| status.totals.connections_shed);
        figures.matters = matters(&figures, status, shed);
        figures
    }
}

/// Turns two values of a counter into a rate.
struct Growth(Option<f64>);

impl Growth {
    fn new(before: Option<&Look>, now: &Look) -> Growth {
        let elapsed = before.map(|look| now.taken.saturating_duration_since(look.taken));
        Growth(elapsed.map(|elapsed| elapsed.as_secs_f64()).filter(|seconds| *seconds > 0.0))
    }

    /// Per second; `None` without an earlier value.
    fn of(&self, now: u64, before: Option<u64>) -> Option<f64> {
        Some(now.saturating_sub(before?) as f64 / self.0?)
    }
}

fn class(responses: &Responses, name: &str) -> u64 {
    responses.get(name).copied().unwrap_or(0)
}

fn known(latency: &Latency, value: f64) -> Option<f64> {
    (latency.count > 0).then_some(value)
}

fn cores(status: &Status, before: Option<&Status>, growth: &Growth) -> Vec<Core> {
    let core = |worker: &status::Worker| {
        let then = before.and_then(|b| b.workers.iter().find(|w| w.worker == worker.worker));
        let used = then.map(|then| (worker.cpu_seconds - then.cpu_seconds).max(0.0));
        let trouble = if worker.state != "up" {
            clean(&worker.state)
        } else if worker.generation != status.generation {
            format!("generation {}", worker.generation)
        } else {
            String::new()
        };
        Core {
            worker: worker.worker,
            core: worker.core,
            load: used.zip(growth.0).map(|(used, elapsed)| (used / elapsed).min(1.0)),
            requests: growth.of(worker.requests, then.map(|then| then.requests)),
            connections: worker.connections_open,
            trouble,
        }
    };
    status.workers.iter().map(core).collect()
}

fn imbalance(cores: &[Core]) -> Option<f64> {
    let loads: Vec<f64> = cores.iter().filter_map(|core| core.load).collect();
    let mean = loads.iter().sum::<f64>() / loads.len().max(1) as f64;
    (mean >= LOAD_COMPARED).then(|| loads.iter().copied().fold(0.0, f64::max) / mean)
}

fn routes(status: &Status, before: Option<&Status>, growth: &Growth) -> Vec<Route> {
    let then: HashMap<&str, &status::Route> = before
        .into_iter()
        .flat_map(|status| status.routes.iter().map(|route| (route.name.as_str(), route)))
        .collect();
    let route = |route: &status::Route| {
        let then = then.get(route.name.as_str());
        let rate = |name: &str| {
            growth.of(class(&route.responses, name), then.map(|then| class(&then.responses, name)))
        };
        let action = match &route.upstream {
            Some(upstream) => clean(&format!("{} {upstream}", route.action)),
            None => clean(&route.action),
        };
        Route {
            name: if route.name.is_empty() { "(no route)".to_owned() } else { clean(&route.name) },
            action,
            requests: growth.of(route.requests, then.map(|then| then.requests)),
            client_errors: rate("4xx"),
            errors: rate("5xx"),
            p50: known(&route.latency, route.latency.p50),
            p99: known(&route.latency, route.latency.p99),
        }
    };
    status.routes.iter().map(route).collect()
}

type ByName<'a> = HashMap<(&'a str, &'a str), &'a status::Endpoint>;

fn by_name(status: &Status) -> ByName<'_> {
    let of = |upstream| {
        let status::UpstreamStatus { name, endpoints, .. }: &status::UpstreamStatus = upstream;
        endpoints.iter().map(move |endpoint| ((name.as_str(), endpoint.name.as_str()), endpoint))
    };
    status.upstreams.iter().flat_map(of).collect()
}

fn endpoints(status: &Status, before: Option<&Status>, growth: &Growth) -> Vec<Endpoint> {
    let before = before.map(by_name).unwrap_or_default();
    let mut all = Vec::new();
    for upstream in &status.upstreams {
        for endpoint in &upstream.endpoints {
            let then = before.get(&(upstream.name.as_str(), endpoint.name.as_str())).copied();
            all.push(endpoint_row(&upstream.name, endpoint, then, growth));
        }
    }
    all
}

fn endpoint_row(
    upstream: &str,
    endpoint: &status::Endpoint,
    then: Option<&status::Endpoint>,
    growth: &Growth,
) -> Endpoint {
    let rate = |figure: fn(&status::Endpoint) -> u64| growth.of(figure(endpoint), then.map(figure));
    let failed = rate(|endpoint| endpoint.failures + endpoint.connect_failures);
    let requests = rate(|endpoint| endpoint.requests);
    let reused = rate(|endpoint| endpoint.reused);
    let health = match endpoint.state.as_str() {
        "down" => Health::Down,
        _ if endpoint.avoided => Health::Avoided,
        _ if failed > Some(0.0) => Health::Failing,
        "drain" => Health::Draining,
        _ => Health::Up,
    };
    let reuse = reused.zip(requests).filter(|(_, requests)| *requests > 0.0);
    Endpoint {
        name: clean(&endpoint.name),
        upstream: clean(upstream),
        health,
        requests,
        failed,
        in_flight: endpoint.in_flight,
        idle: endpoint.idle,
        reuse: reuse.map(|(reused, requests)| (reused / requests).min(1.0)),
        p50: known(&endpoint.latency, endpoint.latency.p50),
        p99: known(&endpoint.latency, endpoint.latency.p99),
    }
}

/// What needs attention, worst first.
fn matters(figures: &Figures, status: &Status, shed: Option<f64>) -> Vec<Matter> {
    let mut found = Vec::new();
    let mut add = |mood, words: String| found.push(Matter { mood, words });
    if status.state != "ready" {
        add(Mood::Warn, format!("the gateway is {}", figures.state));
    }
    for core in figures.cores.iter().filter(|core| !core.trouble.is_empty()) {
        add(Mood::Bad, format!("worker {}: {}", core.worker, core.trouble));
    }
    let health = [
        (Health::Avoided, Mood::Bad),
        (Health::Down, Mood::Bad),
        (Health::Failing, Mood::Warn),
        (Health::Draining, Mood::Calm),
    ];
    for (health, mood) in health {
        let rows: Vec<_> = figures.endpoints.iter().filter(|row| row.health == health).collect();
        let names = rows.iter().take(NAMED_MAX).map(|row| format!("{}/{}", row.upstream, row.name));
        let names = names.collect::<Vec<_>>().join(", ");
        let word = health.words().split(' ').next_back().unwrap_or_default();
        match rows.len() {
            0 => {}
            n if n > NAMED_MAX => add(mood, format!("{word}: {names} and {} more", n - NAMED_MAX)),
            _ => add(mood, format!("{word}: {names}")),
        }
    }
    let share = figures.errors.zip(figures.requests).filter(|(_, requests)| *requests > 0.0);
    if let Some(share) = share.map(|(errors, all)| errors / all).filter(|s| *s >= ERRORS_WARN) {
        let mood = if share >= ERRORS_BAD { Mood::Bad } else { Mood::Warn };
        add(mood, format!("{:.0} % of responses are 5xx", share * 100.0));
    }
    if shed > Some(0.0) {
        add(Mood::Bad, "connections are turned away: limits.connections is reached".to_owned());
    }
    if status.totals.panics > 0 {
        let text = "ended by a defect of the gateway: please report it";
        add(Mood::Bad, format!("connections {text} ({})", status.totals.panics));
    }
    if status.configuration.history.last().is_some_and(|last| last.outcome == Became::Refused) {
        add(Mood::Warn, "the last reload was refused: ringway status".to_owned());
    }
    found.sort_by_key(|matter| matter.mood);
    found
}

/// A name as a terminal may show it: what would steer the terminal or turn the text around is
/// shown as a dot.
pub fn clean(name: &str) -> String {
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
    };
    name.chars().map(|c| if steers(c) { '·' } else { c }).collect()
}
