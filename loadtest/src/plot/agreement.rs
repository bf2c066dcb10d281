//! Whether two runs agree within the spread that they state.
//!
//! A run states of each figure the range of its rounds: of six rounds that do not depend on each
//! other, the lowest and the highest have the median of endlessly many between them with 97 %
//! (of n with 1 - 2^(1-n)). Two runs agree on it when their ranges meet.

use std::fmt::Write as _;

use super::data::{Case, Kind, Results, Row};
use super::figures::{Spread, number};
use super::tables::times;

/// The least a run claims to know a figure to, each way, as a share of it.
const KNOWN_MIN: f64 = 0.02;

/// The rule in words.
pub const RULE: &str = "A run knows a figure to the range of its rounds, and to 2 % each way at best: \
     of six rounds that do not depend on each other, the range has the median of endlessly many in \
     it with 97 %, of three with 75 %. Two runs agree on a figure when their ranges meet.";

/// CPU time, round by round times NGINX's: what a machine that is slower or faster as a whole in
/// one of the runs leaves as it is.
const RATIO: &str = "CPU × NGINX";

/// Figures that runs are compared by.
fn keys(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Load => &[RATIO, "cpu_us", "rps"],
        Kind::Workers => &["cpu_us", "rps"],
        Kind::Hold => &[RATIO, "cpu_us", "p50"],
        Kind::Latency => &["p50", "p99"],
        Kind::Idle => &["kib_per_connection"],
        Kind::Reload => &[],
    }
}

/// Whether two figures agree.
fn agree(one: Spread, other: Spread) -> bool {
    let least = |s: Spread| s.median.abs() * KNOWN_MIN;
    let from = |s: Spread| s.min.min(s.median - least(s));
    let to = |s: Spread| s.max.max(s.median + least(s));
    from(one) <= to(other) && from(other) <= to(one)
}

/// A table of every figure that both runs have.
pub fn page(earlier: &Results, later: &Results) -> String {
    let mut text = format!(
        "# Two runs\n\nEarlier: {}. Later: {}. {RULE}\n\n\
         | case | proxy | figure | earlier | later | ratio | |\n|---|---|---|---|---|---|---|\n",
        earlier.begun, later.begun
    );
    let (mut all, mut agreed) = (0, 0);
    let (mut ratios, mut agreed_ratios) = (0, 0);
    for case in &later.cases {
        for row in &case.rows {
            for key in keys(case.kind) {
                let Some((one, other)) = both(earlier, case, row, key) else { continue };
                let same = agree(one, other);
                all += 1;
                agreed += usize::from(same);
                ratios += usize::from(*key == RATIO);
                agreed_ratios += usize::from(*key == RATIO && same);
                writeln!(
                    text,
                    "| {} | {} | {key} | {} | {} | {} | {} |",
                    case.name,
                    row.label(),
                    one.text(2),
                    other.text(2),
                    number(other.median / one.median, 3),
                    if same { "agree" } else { "**differ**" }
                )
                .expect("to a String");
            }
        }
    }
    writeln!(
        text,
        "\n{agreed} of {all} figures agree, {agreed_ratios} of {ratios} ratios among them."
    )
    .expect("to a String");
    text
}

/// A figure of the earlier run and of this row.
fn both(earlier: &Results, case: &Case, row: &Row, key: &str) -> Option<(Spread, Spread)> {
    let case_before = earlier.cases.iter().find(|other| other.name == case.name)?;
    let same = |other: &&Row| {
        (&other.proxy, &other.variant, &other.generator)
            == (&row.proxy, &row.variant, &row.generator)
    };
    let before = case_before.rows.iter().find(same)?;
    Some((spread(case_before, before, key)?, spread(case, row, key)?))
}

fn spread(case: &Case, row: &Row, key: &str) -> Option<Spread> {
    match key {
        RATIO if row.proxy == "nginx" => None,
        RATIO => times(case, row, "nginx"),
        key => Spread::of(&row.values(key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agreement_is_within_both_spreads() {
        let at = |median: f64, half: f64| Spread { median, min: median - half, max: median + half };
        let table = [
            // Two per cent each, whatever the ranges say.
            (at(10.0, 0.0), at(10.3, 0.0), true),
            (at(10.0, 0.0), at(10.5, 0.0), false),
            (at(10.0, 0.4), at(10.5, 0.0), true),
            (at(10.0, 0.4), at(11.0, 0.2), false),
            // A range counts as it is, on the side where it is wide.
            (Spread { median: 10.0, min: 9.9, max: 14.0 }, at(13.0, 0.1), true),
            (Spread { median: 10.0, min: 6.0, max: 10.1 }, at(13.0, 0.1), false),
        ];
        for (one, other, wanted) in table {
            assert_eq!(agree(one, other), wanted, "{one:?} {other:?}");
            assert_eq!(agree(other, one), wanted, "{one:?} {other:?}");
        }
    }
}
