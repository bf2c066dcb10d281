//! The report as one page: plots first, the same tables below them.
//!
//! Needs nothing but itself: style and plots are inside, there is no script. Written as well-formed
//! XML, which HTML allows, so that a test can read it.

use std::fmt::Write as _;
use std::io;

use super::charts::{self, Axes, Bar, Line};
use super::curve;
use super::data::{Case, Kind, Results};
use super::figures::Spread;
use super::markdown::{capital, lists, preface, remarks};
use super::summary;
use super::tables::{self, Table};

const STYLE: &str = include_str!("page.css");

/// Text with what XML reads as markup written out.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The whole page.
///
/// # Errors
///
/// When a plot cannot be drawn.
pub fn page(results: &Results) -> io::Result<String> {
    let names = results.proxies();
    let mut text = format!(
        "<!DOCTYPE html>\n<html lang=\"en\" xmlns=\"http://www.w3.org/1999/xhtml\"><head>\
         <meta charset=\"utf-8\"/>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\
         <title>Ringway beside other proxies</title><style>{STYLE}</style></head><body><main>\n\
         <h1>Ringway beside other proxies</h1>\n"
    );
    for line in preface(results) {
        writeln!(text, "<p>{}</p>", marked(&line)).expect("to a String");
    }
    text.push_str(&facts(results));
    text.push_str(&legend(&names));
    let multiples = summary::tables(results);
    if !multiples.is_empty() {
        write!(text, "<h2>{}</h2>", summary::TITLE).expect("to a String");
    }
    multiples.iter().for_each(|table| text.push_str(&html(table)));
    text.push_str(&memory(results, &names)?);
    let usual_ms = results.usual_speed_ms();
    for case in &results.cases {
        text.push_str(&section(case, usual_ms, &names)?);
    }
    for (title, list) in lists(results) {
        writeln!(text, "<h2>{title}</h2>{}", items(list)).expect("to a String");
    }
    text.push_str("</main></body></html>\n");
    Ok(text)
}

/// The Markdown that the other document is written in: `code` and **strong**, nothing else.
fn marked(text: &str) -> String {
    let mut out = String::new();
    for (n, part) in escaped(text).split("**").enumerate() {
        let strong = n % 2 == 1;
        out.push_str(if strong { "<strong>" } else { "" });
        for (n, part) in part.split('`').enumerate() {
            let code = n % 2 == 1;
            out.push_str(if code { "<code>" } else { "" });
            out.push_str(part);
            out.push_str(if code { "</code>" } else { "" });
        }
        out.push_str(if strong { "</strong>" } else { "" });
    }
    out
}

fn facts(results: &Results) -> String {
    let pairs = results.machine.iter().chain(&results.versions);
    let rows: String = pairs
        .map(|(name, value)| {
            format!("<tr><th>{}</th><td>{}</td></tr>", escaped(name), escaped(value))
        })
        .collect();
    format!(
        "<details><summary>The machine and the versions</summary><table>{rows}</table></details>\n"
    )
}

/// One entry per proxy, for all plots of the page.
fn legend(names: &[&str]) -> String {
    let entry = |name: &&str| {
        let fill = charts::hex(charts::colour(name, names));
        let dot = format!(
            "<svg viewBox=\"0 0 12 12\"><circle cx=\"6\" cy=\"6\" r=\"6\" fill=\"{fill}\"/></svg>"
        );
        format!("<li>{dot}{}</li>", escaped(name))
    };
    format!("<ul class=\"legend\">{}</ul>\n", names.iter().map(entry).collect::<String>())
}

fn section(case: &Case, usual_ms: Option<f64>, names: &[&str]) -> io::Result<String> {
    let mut text = format!(
        "<section id=\"{}\"><h2>{}</h2><p>{}</p>\n",
        escaped(&case.name),
        escaped(&case.title),
        marked(&case.about)
    );
    let remarks = remarks(case, usual_ms);
    if !remarks.is_empty() {
        text.push_str(&items(&remarks));
    }
    text.push_str("<div class=\"plots\">");
    match case.kind {
        Kind::Load | Kind::Workers | Kind::Hold => text.push_str(&costs(case, names)?),
        Kind::Latency => {
            text.push_str(&curves(case, names)?);
            text.push_str(&against_load(case, names)?);
        }
        Kind::Idle => text.push_str(&idle(case, names)?),
        Kind::Reload => {}
    }
    text.push_str("</div>\n");
    for table in tables::of(case) {
        text.push_str(&html(&table));
    }
    text.push_str("</section>\n");
    Ok(text)
}

/// CPU time per request as bars, user and system.
fn costs(case: &Case, names: &[&str]) -> io::Result<String> {
    let bars: Vec<Bar> = case
        .rows
        .iter()
        .filter_map(|row| {
            let median = |key: &str| Spread::of(&row.values(key)).map(|s| s.median);
            Some(Bar {
                name: row.label(),
                colour: charts::colour(&row.proxy, names),
                value: Spread::of(&row.values("cpu_us"))?,
                first: median("user_us").unwrap_or(0.0),
            })
        })
        .collect();
    let said = format!(
        "CPU µs per {}, less is better: first user, then system, paler; the line is the range over the rounds",
        case.unit
    );
    figure(&said, &charts::bars(&format!("{}: {said}", case.title), &bars)?)
}

fn idle(case: &Case, names: &[&str]) -> io::Result<String> {
    let bars: Vec<Bar> = case
        .rows
        .iter()
        .filter_map(|row| {
            let value = Spread::of(&row.values("kib_per_connection"))?;
            Some(Bar {
                name: row.label(),
                colour: charts::colour(&row.proxy, names),
                value,
                first: value.median,
            })
        })
        .collect();
    let said = "KiB of process memory per idle connection, less is better";
    figure(said, &charts::bars(said, &bars)?)
}

/// Rates in the order in which they were measured.
fn variants(case: &Case) -> Vec<&str> {
    let mut found: Vec<&str> = Vec::new();
    for row in &case.rows {
        if !found.contains(&row.variant.as_str()) {
            found.push(&row.variant);
        }
    }
    found
}

/// Latency by percentile, one plot for each rate.
fn curves(case: &Case, names: &[&str]) -> io::Result<String> {
    let mut text = String::new();
    for variant in variants(case) {
        let rows = case.rows.iter().filter(|row| row.variant == variant);
        let all: Vec<_> =
            rows.map(|row| (charts::colour(&row.proxy, names), curve::of(row))).collect();
        let said = format!("Latency by percentile, {variant}");
        text.push_str(&figure(&said, &charts::percentiles(&said, &all)?)?);
    }
    Ok(text)
}

/// p99 over the rate.
fn against_load(case: &Case, names: &[&str]) -> io::Result<String> {
    let median = |values: Vec<f64>| Spread::of(&values).map(|s| s.median);
    let line = |proxy: &&str| Line {
        colour: charts::colour(proxy, names),
        points: case
            .rows
            .iter()
            .filter(|row| row.proxy == *proxy)
            .filter_map(|row| Some((median(row.values("rate"))?, median(row.values("p99"))?)))
            .collect(),
    };
    let all: Vec<Line> = case.proxies().iter().map(line).collect();
    if all.iter().all(|line| line.points.len() < 2) {
        return Ok(String::new());
    }
    let axes = Axes {
        x: |rate| format!("{} k/s", charts::short(rate / 1e3)),
        y: |us| charts::duration(&us),
        x_logarithmic: false,
    };
    let said = "p99 against load";
    figure(said, &charts::lines(said, &all, &axes)?)
}

/// Peak memory over the connections, from all cases that are points of it.
fn memory(results: &Results, names: &[&str]) -> io::Result<String> {
    let point = |case: &Case, proxy: &str| -> Option<(f64, f64)> {
        let row = case.rows.iter().find(|row| row.proxy == proxy && row.generator != "wrk")?;
        Some((case.connections?, Spread::of(&row.values("peak_kib"))?.median / 1024.0))
    };
    let line = |proxy: &&str| {
        let mut points: Vec<_> =
            results.cases.iter().filter_map(|case| point(case, proxy)).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Line { colour: charts::colour(proxy, names), points }
    };
    let all: Vec<Line> = names.iter().map(line).collect();
    if all.iter().all(|line| line.points.len() < 2) {
        return Ok(String::new());
    }
    let axes = Axes {
        x: |n| charts::short(n),
        y: |mib| format!("{} MiB", charts::short(mib)),
        x_logarithmic: true,
    };
    let said = "Peak memory against busy connections";
    let plot = figure(said, &charts::lines(said, &all, &axes)?)?;
    Ok(format!("<div class=\"plots\">{plot}</div>\n"))
}

fn figure(caption: &str, svg: &str) -> io::Result<String> {
    Ok(format!("<figure><figcaption>{}</figcaption>{svg}</figure>\n", escaped(caption)))
}

fn items(list: &[String]) -> String {
    let all: String = list.iter().map(|item| format!("<li>{}</li>", marked(item))).collect();
    format!("<ul>{all}</ul>\n")
}

/// A table that scrolls sideways by itself where the screen is narrow.
fn html(table: &Table) -> String {
    let cells = |cells: &[String], tag: &str| -> String {
        cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell))).collect()
    };
    let rows: String = table
        .rows
        .iter()
        .map(|row| format!("<tr><th>{}</th>{}</tr>", escaped(&row[0]), cells(&row[1..], "td")))
        .collect();
    format!(
        "<div class=\"wide\"><table><caption>{}</caption><thead><tr>{}</tr></thead>\
         <tbody>{rows}</tbody></table></div>\n",
        escaped(&capital(&table.caption)),
        cells(&table.headings, "th")
    )
}
