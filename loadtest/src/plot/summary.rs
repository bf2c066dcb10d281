//! Every proxy as a multiple of another: CPU time per request, one row per case.

use super::data::{Case, Kind, Results, Row};
use super::figures::number;
use super::tables::{Table, times};

/// Proxies that all are given as multiples of, with the words for them.
const BASES: [(&str, &str); 2] = [("nginx", "NGINX"), ("floor", "the bare forwarder (floor)")];

/// The heading above them.
pub const TITLE: &str = "Every proxy as a multiple of NGINX and of the floor";

/// One table for each base that was measured; medians of the rounds' ratios.
pub fn tables(results: &Results) -> Vec<Table> {
    BASES.iter().filter_map(|(base, words)| table(results, base, words)).collect()
}

fn table(results: &Results, base: &str, words: &str) -> Option<Table> {
    let proxies: Vec<&str> = results.proxies().into_iter().filter(|p| *p != base).collect();
    let mut rows = Vec::new();
    for case in results.cases.iter().filter(|case| matches!(case.kind, Kind::Load | Kind::Hold)) {
        for row in case.rows.iter().filter(|row| row.proxy == base) {
            let cell = |proxy: &&str| ratio(case, row, proxy).unwrap_or_else(|| "-".to_owned());
            let mut cells = vec![title(case, row)];
            cells.extend(proxies.iter().map(cell));
            if cells[1..].iter().any(|cell| cell != "-") {
                rows.push(cells);
            }
        }
    }
    let headings = ["case"].iter().chain(&proxies).map(|&name| name.to_owned()).collect();
    let caption = format!("CPU time per request or message, times that of {words}");
    (!rows.is_empty()).then_some(Table { caption, headings, rows })
}

fn ratio(case: &Case, base: &Row, proxy: &str) -> Option<String> {
    Some(number(times(case, case.beside(base, proxy)?, &base.proxy)?.median, 2))
}

fn title(case: &Case, row: &Row) -> String {
    let wrk = if row.generator == "wrk" { "wrk" } else { "" };
    let parts = [case.title.as_str(), row.variant.as_str(), wrk];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
}
