//! What the figures of a case say about themselves: whether the generator was the limit, the
//! machine changed speed, other work took part, or requests failed.
//!
//! Nothing is taken out of the tables for any of this; it is said beside them.

use super::data::{Case, Kind, Round, Row};
use super::figures::{Spread, number};

/// A proxy's core used less than this was not the limit.
const SATURATED: f64 = 0.95;
/// A generator's core busier than this was.
const GENERATOR_BUSY: f64 = 0.97;
/// A share of the requests due below which the rate was not reached.
const RATE_REACHED: f64 = 0.99;
/// A share of the latency above which the generator's own lateness is said, both at p99.
const LAG: f64 = 0.2;
/// A change of the machine's speed that is said.
const SPEED_CHANGE: f64 = 0.05;
/// Shares of the proxy's core that went elsewhere and are said.
const FOREIGN: f64 = 0.03;
const STOLEN: f64 = 0.01;

/// One sentence per kind of finding, which names the rows; `usual_ms` is the machine's usual speed.
pub fn of(case: &Case, usual_ms: Option<f64>) -> Vec<String> {
    let unit = &case.unit;
    let findings: [(String, Vec<String>); 8] = [
        (
            format!(
                "**the generator was the limit**, so that the proxy could do more {unit}s/s, and its \
                 CPU time per {unit} is higher than when saturated"
            ),
            each(case, |row| limit(case, row, true)),
        ),
        ("**the rate was not reached**".to_owned(), each(case, shortfall)),
        (
            "**the generator was late**: what was due left late, which is in the latency"
                .to_owned(),
            each(case, lateness),
        ),
        ("**not saturated**".to_owned(), each(case, |row| limit(case, row, false))),
        (
            "**the machine changed speed**: fixed work took more or less time than usual in this \
             run"
            .to_owned(),
            each(case, |row| speed(row, usual_ms)),
        ),
        ("**disturbed**: the proxy's core went elsewhere".to_owned(), each(case, disturbance)),
        (format!("**{unit}s failed**"), each(case, failures)),
        ("**nothing was answered**".to_owned(), each(case, silence)),
    ];
    let said = findings.into_iter().filter(|(_, rows)| !rows.is_empty());
    said.map(|(what, rows)| format!("{what}: {}", rows.join("; "))).collect()
}

/// What is found of each row.
fn each(case: &Case, finding: impl Fn(&Row) -> Option<String>) -> Vec<String> {
    let named = |row: &Row| Some(format!("{} {}", row.label(), finding(row)?));
    case.rows.iter().filter_map(named).collect()
}

/// Rounds in which the proxy was not the limit: those in which the generator was, or the others.
fn limit(case: &Case, row: &Row, by_generator: bool) -> Option<String> {
    if case.kind != Kind::Load && case.kind != Kind::Workers {
        return None;
    }
    let workers = row.values("workers").first().copied().unwrap_or(1.0);
    let shares = row.rounds.iter().filter_map(|r| Some((r.get("share")?, r.get("load_busy")?)));
    let idle = shares.map(|(share, busy)| (share / workers, busy)).filter(|s| s.0 < SATURATED);
    let found: Vec<(f64, f64)> =
        idle.filter(|(_, busy)| (*busy >= GENERATOR_BUSY) == by_generator).collect();
    let (least, busy) = found.iter().copied().min_by(|a, b| a.0.total_cmp(&b.0))?;
    Some(format!(
        "in {} of {} rounds (proxy's core used to {} %, the generator's to {} %)",
        found.len(),
        row.rounds.len(),
        percent(least),
        percent(busy),
    ))
}

/// Open loop: rounds in which fewer requests were answered than were due.
fn shortfall(row: &Row) -> Option<String> {
    let shares = row.rounds.iter().filter_map(|r| Some(r.get("rps")? / r.get("rate")?));
    let short: Vec<f64> = shares.filter(|share| *share < RATE_REACHED).collect();
    let least = percent(Spread::of(&short)?.min);
    Some(format!("in {} of {} rounds ({least} % of it answered)", short.len(), row.rounds.len()))
}

/// Open loop: rounds in which the generator itself had a part in the latency.
fn lateness(row: &Row) -> Option<String> {
    let pairs = row.rounds.iter().filter_map(|r| Some((r.get("send_lag_p99")?, r.get("p99")?)));
    let late: Vec<f64> = pairs.filter(|(lag, all)| lag / all > LAG).map(|(lag, _)| lag).collect();
    let most = number(Spread::of(&late)?.max, 0);
    Some(format!("in {} of {} rounds (p99 {most} µs)", late.len(), row.rounds.len()))
}

/// Whether fixed work on the proxy's core took another time than usual around the rounds.
fn speed(row: &Row, usual_ms: Option<f64>) -> Option<String> {
    let usual = usual_ms?;
    let off = |ms: f64, from: f64| (ms / from - 1.0).abs();
    let worst = |round: &Round| {
        let (before, after) = (round.get("speed_before_ms")?, round.get("speed_after_ms")?);
        Some(off(after, before).max(off(before, usual)).max(off(after, usual)))
    };
    let changes = row.rounds.iter().filter_map(worst).filter(|change| *change > SPEED_CHANGE);
    let changes: Vec<f64> = changes.collect();
    let most = percent(Spread::of(&changes)?.max);
    Some(format!("around {} of {} rounds (by {most} %)", changes.len(), row.rounds.len()))
}

fn disturbance(row: &Row) -> Option<String> {
    let most = |key: &str| Spread::of(&row.values(key)).map_or(0.0, |s| s.max);
    let (foreign, stolen) = (most("foreign"), most("stolen"));
    (foreign > FOREIGN || stolen > STOLEN).then(|| {
        let [foreign, stolen] = [foreign, stolen].map(percent);
        format!("up to {foreign} % to other work, {stolen} % to the hypervisor")
    })
}

fn failures(row: &Row) -> Option<String> {
    let failed: f64 = row.values("errors").iter().sum();
    (failed > 0.0).then(|| format!("{} in {} rounds", number(failed, 0), row.rounds.len()))
}

/// Rounds without one right answer: they have no cost and no latency to be shown.
fn silence(row: &Row) -> Option<String> {
    let silent = row.values("requests").iter().filter(|n| **n == 0.0).count();
    (silent > 0).then(|| format!("in {silent} of {} rounds", row.rounds.len()))
}

fn percent(share: f64) -> String {
    number(share * 100.0, 0)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn case(round: &Value) -> Case {
        serde_json::from_value(json!({
            "name": "c", "title": "C", "about": "", "kind": "load",
            "rows": [{"proxy": "p", "rounds": [round]}],
        }))
        .expect("a case")
    }

    #[test]
    fn says_who_was_the_limit() {
        let table = [
            (json!({"share": 0.99, "load_busy": 0.99}), None),
            (json!({"share": 0.80, "load_busy": 0.98}), Some("**the generator was the limit**")),
            (json!({"share": 0.80, "load_busy": 0.60}), Some("**not saturated**")),
            (json!({"share": 1.80, "load_busy": 0.98, "workers": 2}), Some("**the generator")),
            (json!({"share": 1.95, "load_busy": 0.98, "workers": 2}), None),
            (json!({"share": 0.80}), None),
        ];
        for (round, wanted) in table {
            let found = of(&case(&round), None);
            assert_eq!(found.len(), usize::from(wanted.is_some()), "{round}: {found:?}");
            assert!(found.iter().all(|f| f.starts_with(wanted.unwrap_or(""))), "{found:?}");
        }
    }

    #[test]
    fn says_when_a_rate_was_not_reached() {
        assert!(of(&case(&json!({"rate": 1000, "rps": 995.0})), None).is_empty());
        let found = of(&case(&json!({"rate": 1000, "rps": 700.0})), None);
        assert!(found[0].ends_with("p in 1 of 1 rounds (70 % of it answered)"), "{found:?}");
        assert!(of(&case(&json!({"send_lag_p99": 19, "p99": 100})), None).is_empty());
        let found = of(&case(&json!({"send_lag_p99": 30, "p99": 100})), None);
        assert!(found[0].ends_with("p in 1 of 1 rounds (p99 30 µs)"), "{found:?}");
    }

    #[test]
    fn says_when_the_machine_changed_speed() {
        let around = |before: f64, after: f64| {
            of(&case(&json!({"speed_before_ms": before, "speed_after_ms": after})), Some(10.0))
        };
        assert!(around(10.0, 10.4).is_empty());
        assert!(around(10.0, 10.6)[0].contains("by 6 %"));
        // The same before and after, but not as in the rest of the run.
        assert!(around(12.0, 12.0)[0].contains("by 20 %"));
    }

    #[test]
    fn says_disturbances_and_failures() {
        assert!(of(&case(&json!({"foreign": 0.02, "stolen": 0.01, "errors": 0})), None).is_empty());
        assert!(of(&case(&json!({"foreign": 0.04})), None)[0].starts_with("**disturbed**"));
        assert!(of(&case(&json!({"stolen": 0.02})), None)[0].contains("2 % to the hypervisor"));
        assert!(of(&case(&json!({"errors": 3})), None)[0].ends_with("p 3 in 1 rounds"));
        assert!(
            of(&case(&json!({"requests": 0})), None)[0].starts_with("**nothing was answered**")
        );
    }
}
