//! The tables of one case: which figures are shown of which kind, in which unit.
//!
//! One place for both documents. A cell is `-` where nothing was measured.

use std::collections::BTreeMap;

use super::data::{Case, Kind, Round, Row};
use super::figures::{Spread, number};

/// A table as text; the first column names the row.
pub struct Table {
    pub caption: String,
    pub headings: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

/// What is shown of a row in one column.
enum Cell {
    /// Median and range over the rounds, times a factor, with so many decimals.
    Figure(&'static str, f64, usize),
    /// The same of this row over that of another proxy, by CPU time.
    Times(&'static str),
    /// Medians of two figures, as `a + b`.
    Sum(&'static str, &'static str),
    /// Two figures before and during what the case is about.
    Beside(&'static str, &'static str, f64, usize),
    Calls,
    Instructions,
    /// All failures of all rounds, by kind.
    Errors,
}

type Column = (&'static str, Cell);

const MIB: f64 = 1.0 / 1024.0;

/// Everything that is shown of a case.
pub fn of(case: &Case) -> Vec<Table> {
    match case.kind {
        Kind::Load | Kind::Workers => {
            vec![build(case, "cost", &cost()), build(case, LATENCY_CLOSED, &latency())]
        }
        Kind::Hold => vec![build(case, "cost", &cost()), build(case, LATENCY_OPEN, &latency())],
        Kind::Latency => vec![build(case, LATENCY_OPEN, &paced())],
        Kind::Idle => vec![build(case, "memory", &idle())],
        Kind::Reload => vec![build(case, "quiet phase / while reloading", &reload())],
    }
}

const LATENCY_CLOSED: &str = "latency in µs at saturation, closed loop: mostly a queue";
const LATENCY_OPEN: &str = "latency in µs from the intended time of sending, open loop";

fn cost() -> Vec<Column> {
    vec![
        ("UNITs/s", Cell::Figure("rps", 1.0, 0)),
        ("CPU µs/UNIT", Cell::Figure("cpu_us", 1.0, 2)),
        ("× NGINX", Cell::Times("nginx")),
        ("× floor", Cell::Times("floor")),
        ("user + system", Cell::Sum("user_us", "system_us")),
        ("core used, %", Cell::Figure("share", 100.0, 1)),
        ("peak memory, MiB", Cell::Figure("peak_kib", MIB, 1)),
        ("system calls/UNIT", Cell::Calls),
        ("user instructions/UNIT", Cell::Instructions),
        ("errors", Cell::Errors),
    ]
}

fn latency() -> Vec<Column> {
    vec![
        ("p50", Cell::Figure("p50", 1.0, 0)),
        ("p90", Cell::Figure("p90", 1.0, 0)),
        ("p99", Cell::Figure("p99", 1.0, 0)),
        ("p99.9", Cell::Figure("p999", 1.0, 0)),
        ("p99.99", Cell::Figure("p9999", 1.0, 0)),
        ("max", Cell::Figure("max", 1.0, 0)),
    ]
}

fn paced() -> Vec<Column> {
    let mut columns = vec![
        ("UNITs/s asked", Cell::Figure("rate", 1.0, 0)),
        ("answered", Cell::Figure("rps", 1.0, 0)),
    ];
    columns.extend(latency());
    columns.push(("core used, %", Cell::Figure("share", 100.0, 1)));
    columns.push(("errors", Cell::Errors));
    columns
}

fn idle() -> Vec<Column> {
    vec![
        ("KiB/connection", Cell::Figure("kib_per_connection", 1.0, 2)),
        ("connections", Cell::Figure("connections", 1.0, 0)),
        ("resident before, MiB", Cell::Figure("before_kib", MIB, 1)),
        ("with them idle, MiB", Cell::Figure("idle_kib", MIB, 1)),
    ]
}

fn reload() -> Vec<Column> {
    vec![
        ("requests lost", Cell::Beside("lost_quiet", "lost_reloading", 1.0, 0)),
        ("kept connections closed", Cell::Figure("idle_closed", 1.0, 0)),
        ("WebSockets closed", Cell::Figure("websockets_closed", 1.0, 0)),
        ("downloads cut", Cell::Figure("downloads_cut", 1.0, 0)),
        ("p99, µs", Cell::Beside("p99_quiet", "p99_reloading", 1.0, 0)),
        ("peak memory, MiB", Cell::Beside("peak_quiet_kib", "peak_reloading_kib", MIB, 1)),
        ("processes at most", Cell::Figure("processes", 1.0, 0)),
    ]
}

/// A column that no row has anything in is left out.
fn build(case: &Case, caption: &str, columns: &[Column]) -> Table {
    let cell = |row: &Row, column: &Column| text(case, row, &column.1);
    let shown: Vec<&Column> =
        columns.iter().filter(|c| case.rows.iter().any(|row| cell(row, c).is_some())).collect();
    let heading = |column: &&Column| column.0.replace("UNIT", &case.unit);
    Table {
        caption: caption.to_owned(),
        headings: ["proxy".to_owned()].into_iter().chain(shown.iter().map(heading)).collect(),
        rows: case
            .rows
            .iter()
            .map(|row| {
                let cells = shown.iter().map(|c| cell(row, c).unwrap_or_else(|| "-".to_owned()));
                [row.label()].into_iter().chain(cells).collect()
            })
            .collect(),
    }
}

fn text(case: &Case, row: &Row, cell: &Cell) -> Option<String> {
    let spread = |key: &str| Spread::of(&row.values(key));
    Some(match cell {
        Cell::Figure(key, factor, digits) => spread(key)?.times(*factor).text(*digits),
        Cell::Times(proxy) => times(case, row, proxy)?.text(2),
        Cell::Sum(one, other) => {
            format!("{} + {}", number(spread(one)?.median, 2), number(spread(other)?.median, 2))
        }
        Cell::Beside(one, other, factor, digits) => {
            let [one, other] = [one, other].map(|key| Some(spread(key)?.times(*factor)));
            format!("{} / {}", one?.text(*digits), other?.text(*digits))
        }
        Cell::Calls => number(row.calls?, 3),
        Cell::Instructions => number(row.instructions?, 0),
        Cell::Errors => errors(row)?,
    })
}

/// CPU time per request over that of another proxy under the same conditions, round by round:
/// rounds are interleaved, so that two of the same number saw the same machine.
pub fn times(case: &Case, row: &Row, proxy: &str) -> Option<Spread> {
    let other = case.beside(row, proxy)?;
    let ratio = |round: &Round| {
        let same = other.rounds.iter().find(|o| o.get("round") == round.get("round"))?;
        let below = same.get("cpu_us").filter(|us| *us > 0.0)?;
        Some(round.get("cpu_us")? / below)
    };
    Spread::of(&row.rounds.iter().filter_map(ratio).collect::<Vec<_>>())
}

/// How many requests failed in all rounds, and how.
fn errors(row: &Row) -> Option<String> {
    let counts = row.values("errors");
    if counts.is_empty() {
        return None;
    }
    let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
    for (kind, n) in row.rounds.iter().flat_map(|round| round.counts("failures")) {
        *kinds.entry(kind).or_default() += n;
    }
    let total = number(counts.iter().sum(), 0);
    let kinds: Vec<String> = kinds.iter().map(|(kind, n)| format!("{kind} {n}")).collect();
    Some(if kinds.is_empty() { total } else { format!("{total} ({})", kinds.join(", ")) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The machine was half as fast in the second round; a round of NGINX failed, and in one of
    /// Ringway nothing was answered.
    #[test]
    fn ratios_are_of_rounds_of_the_same_number() {
        let round = |number: u32, us: Option<f64>| json!({"round": number, "cpu_us": us});
        let case: Case = serde_json::from_value(json!({
            "name": "c", "title": "C", "about": "", "kind": "load",
            "rows": [
                {"proxy": "nginx",
                 "rounds": [round(1, Some(10.0)), round(2, Some(20.0)), round(4, Some(10.0))]},
                {"proxy": "ringway",
                 "rounds": [round(1, Some(8.0)), round(2, Some(16.0)), round(3, Some(99.0)),
                            round(4, None)]},
            ],
        }))
        .expect("a case");
        let found = times(&case, &case.rows[1], "nginx").expect("two rounds in common");
        assert_eq!((found.median, found.min, found.max), (0.8, 0.8, 0.8));
        assert!(times(&case, &case.rows[1], "haproxy").is_none());
    }
}
