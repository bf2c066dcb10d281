//! Percentile curves: from the histograms of all rounds of a row, or, where a generator gave none,
//! from the percentiles that it printed.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;

use super::data::Row;
use super::figures::Spread;

/// Points of a curve: share of requests that were not slower, and their latency in µs.
pub type Curve = Vec<(f64, f64)>;

/// Percentiles that generators print.
const PRINTED: [(f64, &str); 5] =
    [(0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p999"), (0.9999, "p9999")];

/// Fewer requests than this beyond a percentile say nothing about it.
const BEYOND_MIN: f64 = 5.0;

/// The curve of a row; empty when nothing was measured. Histograms that cannot be read count as
/// absent.
pub fn of(row: &Row) -> Curve {
    let histograms = row.rounds.iter().filter_map(|round| round.text("hdr")).map(histogram);
    let read: Option<Vec<Histogram<u64>>> = histograms.collect();
    match read {
        Some(all) if all.len() == row.rounds.len() && !all.is_empty() => merged(&all),
        _ => printed(row),
    }
}

fn printed(row: &Row) -> Curve {
    let median = |key: &str| Spread::of(&row.values(key)).map(|s| s.median);
    PRINTED.iter().filter_map(|(q, key)| Some((*q, median(key)?))).collect()
}

/// A histogram in nanoseconds, as `loadtest` writes it: V2, in base64.
fn histogram(text: &str) -> Option<Histogram<u64>> {
    let bytes = BASE64_STANDARD.decode(text).ok()?;
    Deserializer::new().deserialize(&mut bytes.as_slice()).ok()
}

/// All rounds as one, at evenly spread points of the plot.
fn merged(all: &[Histogram<u64>]) -> Curve {
    let mut sum = all[0].clone();
    // What was read has the range of its own values; the sum needs that of all.
    sum.auto(true);
    for other in &all[1..] {
        if sum.add(other).is_err() {
            return Curve::new();
        }
    }
    let enough = |q: f64| sum.len() as f64 * (1.0 - q) >= BEYOND_MIN;
    let quantiles = (0..=100).map(|n| 1.0 - 10f64.powf(f64::from(n) * -0.04));
    quantiles.filter(|q| enough(*q)).map(|q| (q, sum.value_at_quantile(q) as f64 / 1e3)).collect()
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::{Serializer, V2Serializer};
    use serde_json::json;

    use super::*;

    fn encoded(values_ns: impl Iterator<Item = u64>) -> String {
        let mut histogram = Histogram::<u64>::new(3).expect("three digits");
        values_ns.for_each(|value| histogram.record(value).expect("it grows"));
        let mut bytes = Vec::new();
        V2Serializer::new().serialize(&histogram, &mut bytes).expect("to a vector");
        BASE64_STANDARD.encode(bytes)
    }

    fn row(rounds: &serde_json::Value) -> Row {
        serde_json::from_value(json!({"proxy": "p", "rounds": rounds})).expect("a row")
    }

    #[test]
    fn rounds_are_one_curve() {
        let low = encoded((1..=500).map(|n| n * 1000));
        let high = encoded((501..=1000).map(|n| n * 1000));
        let curve = of(&row(&json!([{"hdr": low}, {"hdr": high}])));
        let at = |wanted: f64| {
            curve.iter().find(|(q, _)| *q >= wanted - 1e-9).map(|(_, us)| *us).expect("a point")
        };
        assert!((at(0.9) - 900.0).abs() < 2.0, "{}", at(0.9));
        assert!((at(0.99) - 990.0).abs() < 2.0, "{}", at(0.99));
        // Of a thousand requests, the slowest five are where the curve ends.
        assert!(curve.last().expect("points").0 <= 0.995);
    }

    #[test]
    fn without_histograms_the_printed_percentiles_are_the_curve() {
        let rounds =
            json!([{"p50": 10, "p99": 30}, {"p50": 20, "p99": 30}, {"p50": 12, "p99": 90}]);
        assert_eq!(of(&row(&rounds)), [(0.5, 12.0), (0.99, 30.0)]);
        let broken = json!([{"p50": 10, "hdr": "not base64!"}]);
        assert_eq!(of(&row(&broken)), [(0.5, 10.0)]);
        assert_eq!(of(&row(&json!([]))), []);
    }
}
