//! The plots, as SVG to be put into a page. No figure is only in a plot: the tables have it too.
//!
//! Colours are those of a light page. Each is written in one form only (`#RRGGBB`), by which the
//! page's style sheet finds it and gives it another value in the dark.

use std::io;
use std::ops::Range;

use plotters::coord::combinators::LogCoord;
use plotters::coord::ranged1d::SegmentValue;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::RGBColor;

use super::curve::Curve;
use super::figures::{Spread, number};

/// Text and axes.
const INK: RGBColor = RGBColor(0x1F, 0x23, 0x28);
const GRID: RGBColor = RGBColor(0xD8, 0xDE, 0xE4);

/// Proxies that keep their colour on every page.
const KNOWN: [(&str, RGBColor); 5] = [
    ("ringway", RGBColor(0xC2, 0x41, 0x0C)),
    ("nginx", RGBColor(0x15, 0x80, 0x3D)),
    ("haproxy", RGBColor(0x1D, 0x4E, 0xD8)),
    ("envoy", RGBColor(0xA2, 0x1C, 0xAF)),
    ("floor", RGBColor(0x57, 0x60, 0x6A)),
];

/// For any other, in turn.
const OTHERS: [RGBColor; 3] =
    [RGBColor(0x0E, 0x74, 0x90), RGBColor(0x85, 0x4D, 0x0E), RGBColor(0xBE, 0x12, 0x3C)];

/// Small, because a phone shows a plot as wide as itself: text must not shrink to nothing.
const WIDTH: u32 = 460;
const HEIGHT: u32 = 300;
const TEXT: i32 = 13;

/// The colour of a proxy among all of a page.
pub fn colour(proxy: &str, all: &[&str]) -> RGBColor {
    let known = |name: &str| KNOWN.iter().find(|(n, _)| *n == name).map(|(_, colour)| *colour);
    known(proxy).unwrap_or_else(|| {
        let mut others = all.iter().filter(|name| known(name).is_none());
        OTHERS[others.position(|name| *name == proxy).unwrap_or(0) % OTHERS.len()]
    })
}

/// The same as the page's style sheet writes it.
pub fn hex(colour: RGBColor) -> String {
    format!("#{:02X}{:02X}{:02X}", colour.0, colour.1, colour.2)
}

/// One bar.
pub struct Bar {
    pub name: String,
    pub colour: RGBColor,
    /// The whole, with its range.
    pub value: Spread,
    /// How much of it is the first part, shown darker.
    pub first: f64,
}

/// One line of points.
pub struct Line {
    pub colour: RGBColor,
    pub points: Vec<(f64, f64)>,
}

/// Lying bars, one below the other, with their ranges.
pub fn bars(label: &str, bars: &[Bar]) -> io::Result<String> {
    let height = 40 + 30 * bars.len() as u32;
    let most = bars.iter().map(|bar| bar.value.max).fold(0.0, f64::max).max(1e-9);
    drawn(label, height, |root| {
        let rows = (0..bars.len()).into_segmented();
        let mut chart = ChartBuilder::on(root)
            .margin(4)
            .set_label_area_size(LabelAreaPosition::Left, 110)
            .set_label_area_size(LabelAreaPosition::Bottom, 24)
            .build_cartesian_2d(0.0..most * 1.2, rows)?;
        // The axis counts upwards; people read downwards.
        let place = |n: usize| bars.len() - 1 - n;
        let name = |at: &SegmentValue<usize>| match at {
            SegmentValue::CenterOf(n) if *n < bars.len() => bars[place(*n)].name.clone(),
            _ => String::new(),
        };
        let size = |value: &f64| short(*value);
        chart
            .configure_mesh()
            .disable_y_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(GRID)
            .label_style(("sans-serif", TEXT).into_font().color(&INK))
            .x_labels(5)
            .y_labels(bars.len().max(1))
            .x_label_formatter(&size)
            .y_label_formatter(&name)
            .draw()?;
        for (n, bar) in bars.iter().enumerate().map(|(n, bar)| (place(n), bar)) {
            let slot = |from: f64, to: f64, style: ShapeStyle| {
                let (top, bottom) = (SegmentValue::Exact(n), SegmentValue::Exact(n + 1));
                let mut part = Rectangle::new([(from, top), (to, bottom)], style);
                part.set_margin(4, 4, 0, 0);
                part
            };
            let Spread { median, min, max } = bar.value;
            chart.draw_series([
                slot(0.0, bar.first.min(median), bar.colour.filled()),
                slot(bar.first.min(median), median, bar.colour.mix(0.45).filled()),
            ])?;
            let row = || SegmentValue::CenterOf(n);
            chart.draw_series([PathElement::new([(min, row()), (max, row())], INK)])?;
            let text = number(median, if most < 100.0 { 2 } else { 0 });
            let style = ("sans-serif", TEXT).into_font().color(&INK);
            let end = EmptyElement::at((max, row())) + Text::new(text, (6, -6), style);
            chart.draw_series([end])?;
        }
        Ok(())
    })
}

/// Latency over the share of requests that were faster, both on logarithmic axes.
pub fn percentiles(label: &str, curves: &[(RGBColor, Curve)]) -> io::Result<String> {
    // The axis counts nines: 1 is 90 %, 2 is 99 %.
    let nines = |q: f64| -(1.0 - q).log10();
    let lines: Vec<Line> = curves
        .iter()
        .map(|(colour, curve)| Line {
            colour: *colour,
            points: curve.iter().map(|(q, us)| (nines(*q), *us)).collect(),
        })
        .collect();
    let far = lines.iter().flat_map(|l| &l.points).map(|p| p.0).fold(1.0, f64::max);
    let (low, high) = span(lines.iter().flat_map(|l| &l.points).map(|p| p.1));
    drawn(label, HEIGHT, |root| {
        let mut chart = charted(root, 0.0..far, low..high, &percentile, &duration)?;
        draw(&mut chart, &lines, false)
    })
}

/// What the axis of nines says at a place; nothing between the whole ones.
fn percentile(nines: &f64) -> String {
    let whole = nines.round();
    if (nines - whole).abs() > 0.01 {
        return String::new();
    }
    let text = match whole as i32 {
        0 => "0",
        1 => "90",
        2 => "99",
        3 => "99.9",
        4 => "99.99",
        _ => "99.999",
    };
    format!("{text} %")
}

/// Points joined by lines; the upright axis is logarithmic.
pub fn lines(label: &str, lines: &[Line], axes: &Axes) -> io::Result<String> {
    // A logarithmic axis to the right is one of exponents, marked at the whole ones.
    let lines: Vec<Line> = lines
        .iter()
        .map(|line| Line {
            colour: line.colour,
            points: line.points.iter().map(|(x, y)| (axes.place(*x), *y)).collect(),
        })
        .collect();
    let points = || lines.iter().flat_map(|line| &line.points);
    let (low, high) = span(points().map(|p| p.1));
    let right = points().map(|p| p.0).fold(0.0, f64::max) * 1.05 + 1e-9;
    let left = if axes.x_logarithmic { points().map(|p| p.0).fold(right, f64::min) } else { 0.0 };
    let (x, y) = (|at: &f64| axes.mark(*at), |size: &f64| (axes.y)(*size));
    drawn(label, HEIGHT, |root| {
        let mut chart = charted(root, left * 0.95..right, low..high, &x, &y)?;
        draw(&mut chart, &lines, true)
    })
}

/// How the axes of `lines` are marked.
pub struct Axes {
    pub x: fn(f64) -> String,
    pub y: fn(f64) -> String,
    pub x_logarithmic: bool,
}

impl Axes {
    fn place(&self, x: f64) -> f64 {
        if self.x_logarithmic { x.max(1.0).log10() } else { x }
    }

    fn mark(&self, at: f64) -> String {
        let whole = (at - at.round()).abs() < 0.01;
        match self.x_logarithmic {
            true if whole => (self.x)(10f64.powi(at.round() as i32)),
            true => String::new(),
            false => (self.x)(at),
        }
    }
}

type Fault = Box<dyn std::error::Error + Send + Sync>;
type Root<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Plane = Cartesian2d<RangedCoordf64, LogCoord<f64>>;

/// A chart with marked axes, of which the upright one is logarithmic.
fn charted<'r, 'a>(
    root: &'r Root<'a>,
    across: Range<f64>,
    upright: Range<f64>,
    x: &dyn Fn(&f64) -> String,
    y: &dyn Fn(&f64) -> String,
) -> Result<ChartContext<'r, SVGBackend<'a>, Plane>, Fault> {
    let mut chart = ChartBuilder::on(root)
        .margin(12)
        .set_label_area_size(LabelAreaPosition::Left, 60)
        .set_label_area_size(LabelAreaPosition::Bottom, 28)
        .build_cartesian_2d(across, upright.log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(GRID)
        .label_style(("sans-serif", TEXT).into_font().color(&INK))
        .x_labels(5)
        .x_label_formatter(&x)
        .y_label_formatter(&y)
        .draw()?;
    Ok(chart)
}

/// Draws the lines, and a dot at each point where there are few.
fn draw<'a, C>(
    chart: &mut ChartContext<'_, SVGBackend<'a>, C>,
    lines: &[Line],
    dots: bool,
) -> Result<(), Fault>
where
    C: CoordTranslate<From = (f64, f64)>,
{
    for line in lines {
        let points = || line.points.iter().copied();
        chart.draw_series(LineSeries::new(points(), line.colour.stroke_width(2)))?;
        if dots {
            chart.draw_series(points().map(|at| Circle::new(at, 4, line.colour.filled())))?;
        }
    }
    Ok(())
}

/// A little more than what the values cover, for a logarithmic axis.
fn span(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values
        .filter(|v| *v > 0.0)
        .fold((f64::MAX, 0.0_f64), |(low, high), v| (low.min(v), high.max(v)));
    if high == 0.0 { (1.0, 10.0) } else { (low / 1.25, high * 1.25) }
}

/// Microseconds as people write durations.
pub fn duration(us: &f64) -> String {
    match *us {
        us if us < 1e3 => format!("{} µs", number(us, 0)),
        us if us < 1e6 => format!("{} ms", short(us / 1e3)),
        us => format!("{} s", short(us / 1e6)),
    }
}

/// At most two digits after the point, and none that says nothing.
pub fn short(value: f64) -> String {
    let text = number(value, 2);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Draws into an SVG that takes the width of its place and says what it shows.
fn drawn(
    label: &str,
    height: u32,
    plot: impl FnOnce(&Root<'_>) -> Result<(), Fault>,
) -> io::Result<String> {
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
        plot(&root).map_err(io::Error::other)?;
        root.present().map_err(io::Error::other)?;
    }
    let size = format!("width=\"{WIDTH}\" height=\"{height}\"");
    let said = format!("role=\"img\" aria-label=\"{}\"", super::html::escaped(label));
    Ok(text.replacen(&size, &said, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_keep_their_colours_and_others_get_different_ones() {
        let all = ["nginx", "nginx-1.29", "ringway", "ringway-log"];
        assert_eq!(hex(colour("ringway", &all)), "#C2410C");
        assert_ne!(colour("nginx-1.29", &all), colour("ringway-log", &all));
        assert_ne!(colour("nginx-1.29", &all), colour("nginx", &all));
    }

    #[test]
    fn durations_and_percentiles_as_text() {
        let table = [(7.4, "7 µs"), (1000.0, "1 ms"), (1500.0, "1.5 ms"), (2e6, "2 s")];
        for (us, wanted) in table {
            assert_eq!(duration(&us), wanted);
        }
        assert_eq!([percentile(&2.0), percentile(&2.5)], ["99 %", ""]);
    }

    #[test]
    fn a_plot_of_nothing_is_drawn() {
        assert!(percentiles("none", &[]).expect("drawn").contains("<svg"));
        assert!(bars("none", &[]).expect("drawn").contains("<svg"));
    }
}
