//! What the figures of a case say about themselves: whether the generator was the limit, the
//! machine changed speed, other work took part, or requests failed.
//!
//! Nothing is taken out of the tables for any of this; it is said beside them.

use super::data::{Case, Kind, Row};
use super::figures::{Spread, number};

/// A proxy's core used less than this was not the limit.
const SATURATED: f64 = 0.95;
/// A generator's core busier than this was.
const GENERATOR_BUSY: f64 = 0.97;
/// A change of the machine's speed that is said.
const SPEED_CHANGE: f64 = 0.05;
/// Shares of the proxy's core that went elsewhere and are said.
const FOREIGN: f64 = 0.03;
const STOLEN: f64 = 0.01;

/// One sentence per finding; `usual_ms` is the machine's usual speed.
pub fn of(case: &Case, usual_ms: Option<f64>) -> Vec<String> {
    let mut found = Vec::new();
    for row in &case.rows {
        found.extend(limit(case, row));
        found.extend(speed(row, usual_ms));
        found.extend(disturbance(row));
        found.extend(failures(case, row));
    }
    found
}

/// Who was the limit, where it was not the proxy.
fn limit(case: &Case, row: &Row) -> Option<String> {
    if case.kind != Kind::Load && case.kind != Kind::Workers {
        return None;
    }
    let rounds = row.rounds.iter().filter_map(|r| Some((r.get("share")?, r.get("load_busy")?)));
    let workers = row.values("workers").first().copied().unwrap_or(1.0);
    let idle: Vec<(f64, f64)> = rounds.filter(|(s, _)| s / workers < SATURATED).collect();
    let generator: Vec<&(f64, f64)> = idle.iter().filter(|(_, b)| *b >= GENERATOR_BUSY).collect();
    let of = format!("of {} rounds of {}", row.rounds.len(), row.label());
    if let Some((share, busy)) = generator.first() {
        return Some(format!(
            "**the generator was the limit** in {} {of} (its core {} % busy, the proxy's {} %): the \
             proxy could do more {}s/s, and its CPU time per {} is higher than when saturated",
            generator.len(),
            percent(*busy),
            percent(*share / workers),
            case.unit,
            case.unit,
        ));
    }
    let (share, busy) = idle.first()?;
    Some(format!(
        "**not saturated** in {} {of}: the proxy's core was used to {} %, the generator's to {} %",
        idle.len(),
        percent(share / workers),
        percent(*busy),
    ))
}

/// Whether fixed work on the proxy's core took another time than usual around the rounds.
fn speed(row: &Row, usual_ms: Option<f64>) -> Option<String> {
    let usual = usual_ms?;
    let speeds = row
        .rounds
        .iter()
        .filter_map(|round| Some((round.get("speed_before_ms")?, round.get("speed_after_ms")?)));
    let off = |ms: f64, from: f64| (ms / from - 1.0).abs();
    let worst = |&(before, after): &(f64, f64)| {
        off(after, before).max(off(before, usual)).max(off(after, usual))
    };
    let changed: Vec<f64> = speeds.map(|s| worst(&s)).filter(|w| *w > SPEED_CHANGE).collect();
    let most = Spread::of(&changed)?.max;
    Some(format!(
        "**the machine changed speed** around {} of {} rounds of {}: fixed work took up to {} % more \
         or less time than usual in this run",
        changed.len(),
        row.rounds.len(),
        row.label(),
        percent(most),
    ))
}

fn disturbance(row: &Row) -> Option<String> {
    let most = |key: &str| Spread::of(&row.values(key)).map_or(0.0, |s| s.max);
    let (foreign, stolen) = (most("foreign"), most("stolen"));
    (foreign > FOREIGN || stolen > STOLEN).then(|| {
        format!(
            "**disturbed**: in a round of {} up to {} % of the proxy's core went to other work, {} % \
             to the hypervisor",
            row.label(),
            percent(foreign),
            percent(stolen),
        )
    })
}

fn failures(case: &Case, row: &Row) -> Option<String> {
    let failed: f64 = row.values("errors").iter().sum();
    (failed > 0.0).then(|| {
        format!(
            "**{} {}s failed** in {} rounds of {}",
            number(failed, 0),
            case.unit,
            row.rounds.len(),
            row.label()
        )
    })
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
    fn says_when_the_machine_changed_speed() {
        let around = |before: f64, after: f64| {
            of(&case(&json!({"speed_before_ms": before, "speed_after_ms": after})), Some(10.0))
        };
        assert!(around(10.0, 10.4).is_empty());
        assert!(around(10.0, 10.6)[0].contains("up to 6 %"));
        // The same before and after, but not as in the rest of the run.
        assert!(around(12.0, 12.0)[0].contains("up to 20 %"));
    }

    #[test]
    fn says_disturbances_and_failures() {
        assert!(of(&case(&json!({"foreign": 0.02, "stolen": 0.01, "errors": 0})), None).is_empty());
        assert!(of(&case(&json!({"foreign": 0.04})), None)[0].starts_with("**disturbed**"));
        assert!(of(&case(&json!({"stolen": 0.02})), None)[0].contains("2 % to the hypervisor"));
        assert!(of(&case(&json!({"errors": 3})), None)[0].starts_with("**3 requests failed**"));
    }
}
