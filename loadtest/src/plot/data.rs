//! The raw data of a comparison, as `scripts/compare` writes it (loadtest/compare/README.md).
//!
//! Only types and look-ups. A round is a map of figures, because kinds of cases measure different
//! things; a figure that could not be measured is absent or null, never zero.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// What this version of the program reads.
pub const SCHEMA: &str = "ringway-compare/1";

/// One run of `scripts/compare`.
#[derive(Deserialize)]
pub struct Results {
    pub schema: String,
    pub begun: String,
    pub ended: String,
    /// The command line that repeats it.
    pub command: String,
    /// Facts of the machine, by name, in the order in which they are shown.
    pub machine: Vec<(String, String)>,
    /// Programs measured and used, and their versions.
    pub versions: Vec<(String, String)>,
    pub settings: Settings,
    /// What could not be measured here, and why.
    #[serde(default)]
    pub missing: Vec<String>,
    /// Cases whose feature Ringway does not have yet.
    #[serde(default)]
    pub not_built: Vec<String>,
    pub cases: Vec<Case>,
}

/// How every case was run.
#[derive(Deserialize)]
pub struct Settings {
    pub rounds: u32,
    /// Measured per round.
    pub seconds: f64,
    /// Whether other work was kept off the two cores.
    pub realtime: bool,
    pub proxy_cores: String,
    pub load_cores: String,
}

/// What is measured, which decides the columns of its tables.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A closed loop, which a proxy's core is to be saturated by.
    Load,
    /// An open loop at a constant rate.
    Latency,
    /// Messages on held connections at a constant rate.
    Hold,
    /// A closed loop with one worker and with more.
    Workers,
    /// Memory of idle connections.
    Idle,
    /// Reloads under load.
    Reload,
}

/// One case and all that was measured of it.
#[derive(Deserialize)]
pub struct Case {
    pub name: String,
    pub title: String,
    pub about: String,
    pub kind: Kind,
    /// What the cost is given per: `request` or `message`.
    #[serde(default = "request")]
    pub unit: String,
    /// Set where this case is a point of the plot of memory against connections.
    #[serde(default)]
    pub connections: Option<f64>,
    /// Said of this case wherever it is shown.
    #[serde(default)]
    pub notes: Vec<String>,
    pub rows: Vec<Row>,
    /// Proxies that were asked for and left out, and why.
    #[serde(default)]
    pub skipped: Vec<(String, String)>,
}

fn request() -> String {
    "request".to_owned()
}

/// One proxy in one case.
#[derive(Deserialize)]
pub struct Row {
    pub proxy: String,
    /// What differs from the other rows of this proxy, such as `10,000 routes`; may be empty.
    #[serde(default)]
    pub variant: String,
    /// `own` or `wrk`; may be empty.
    #[serde(default)]
    pub generator: String,
    pub rounds: Vec<Round>,
    /// From a round of its own, because counting slows the proxy down.
    #[serde(default)]
    pub calls: Option<f64>,
    /// User instructions per request, likewise.
    #[serde(default)]
    pub instructions: Option<f64>,
}

/// The figures of one round, by name.
#[derive(Deserialize)]
#[serde(transparent)]
pub struct Round(BTreeMap<String, Value>);

impl Round {
    /// A figure, where it was measured.
    pub fn get(&self, key: &str) -> Option<f64> {
        self.0.get(key).and_then(Value::as_f64)
    }

    /// A text, such as a histogram.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(Value::as_str)
    }

    /// Counts by kind, such as `failures`; only those that are not zero.
    pub fn counts(&self, key: &str) -> impl Iterator<Item = (&str, u64)> {
        let object = self.0.get(key).and_then(Value::as_object);
        let all = object.into_iter().flatten();
        all.filter_map(|(kind, n)| Some((kind.as_str(), n.as_u64()?))).filter(|(_, n)| *n > 0)
    }
}

impl Row {
    /// A figure of all rounds that have it.
    pub fn values(&self, key: &str) -> Vec<f64> {
        self.rounds.iter().filter_map(|round| round.get(key)).collect()
    }

    /// The proxy, and what differs from its other rows.
    pub fn label(&self) -> String {
        let others = [self.variant.as_str(), if self.generator == "wrk" { "wrk" } else { "" }];
        let parts = [self.proxy.as_str()].into_iter().chain(others).filter(|part| !part.is_empty());
        parts.collect::<Vec<_>>().join(", ")
    }
}

impl Case {
    /// The row of another proxy under the same conditions.
    pub fn beside(&self, row: &Row, proxy: &str) -> Option<&Row> {
        self.rows.iter().find(|other| {
            other.proxy == proxy && other.variant == row.variant && other.generator == row.generator
        })
    }

    /// Proxies in the order in which they are first met, each once.
    pub fn proxies(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !names.contains(&row.proxy.as_str()) {
                names.push(&row.proxy);
            }
        }
        names
    }
}

impl Results {
    /// Proxies of all cases in the order in which they are first met, each once.
    pub fn proxies(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for name in self.cases.iter().flat_map(Case::proxies) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// The middle of all speeds of the machine, milliseconds of the fixed work before and after
    /// rounds.
    pub fn usual_speed_ms(&self) -> Option<f64> {
        let rows = self.cases.iter().flat_map(|case| &case.rows);
        let speeds = rows
            .flat_map(|row| [row.values("speed_before_ms"), row.values("speed_after_ms")].concat());
        super::figures::Spread::of(&speeds.collect::<Vec<_>>()).map(|spread| spread.median)
    }
}
