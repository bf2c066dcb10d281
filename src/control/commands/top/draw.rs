//! A frame: two lines of figures, what needs attention, cores, routes, endpoints, keys.
//!
//! Nothing is said by colour alone, and what does not fit is cut off with an ellipsis.

use ratatui::{
    buffer::Buffer,
    layout::{Alignment, Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Borders, Clear, Paragraph, Row, Table, Widget},
};

use super::{
    super::table::{count, duration, span},
    figures::{Core, Endpoint, Figures, Health, Mood, Route},
    view::{Pane, View},
};

/// Below this a frame says so and nothing else.
pub const COLUMNS_MIN: u16 = 72;
const ROWS_MIN: u16 = 14;
/// From this width on tables show all their columns.
const COLUMNS_WIDE: u16 = 110;
/// Columns that a core needs.
const CORE_COLUMNS: u16 = 38;
/// Lines of cores, as long as they find room beside each other.
const CORE_ROWS: usize = 4;
/// Lines of a frame beside its panes: header, attention, keys.
const OTHER_ROWS: u16 = 4;
/// Lines of a table beside its rows: title and head.
const TABLE_ROWS: u16 = 2;
/// Rows of a table in a frame that is printed.
const PRINTED_MAX: usize = 1000;

const HELP: &str = "\
Tab        the next pane
Up Down    scroll (also k j, PageUp PageDown, Home End)
s          sort the pane by something else
/          filter routes and endpoints; Enter keeps it, Esc drops it
p          pause, go on
Ctrl-L     draw everything anew
q          quit

Requests, 4xx, 5xx and failed are per second since the last
look; p50 and p99 are of the last 10 s or so. Overhead is the
gateway's own share of a request's time.

An endpoint is avoided when it could not be connected lately,
failing when tries brought no response since the last look.";

/// A frame in as much room as there is.
pub fn draw(view: &View, area: Rect, buffer: &mut Buffer) {
    if area.width < COLUMNS_MIN || area.height < ROWS_MIN {
        let text = format!(
            "ringway top needs {COLUMNS_MIN} columns and {ROWS_MIN} lines; here are {} and {}. \
             q quits.",
            area.width, area.height
        );
        Paragraph::new(text).wrap(ratatui::widgets::Wrap { trim: true }).render(area, buffer);
        return;
    }
    let panes = area.height - OTHER_ROWS;
    // Cores get what they need, at most a third.
    let cores = (core_rows(view, area.width) + 1).min(panes / 3);
    let endpoints = (view.rows(Pane::Endpoints) as u16).saturating_add(TABLE_ROWS);
    let endpoints = endpoints.min((panes - cores) / 2);
    let keys = keys(view);
    parts(view, area, buffer, [cores, panes - cores - endpoints, endpoints], keys);
    if view.is_help {
        help(area, buffer);
    }
}

/// A frame with everything and without keys, in an area of [`rows_for_all`].
pub fn draw_all(view: &View, area: Rect, buffer: &mut Buffer) {
    let (cores, routes, endpoints) = rows_of_all(view, area.width);
    parts(view, area, buffer, [cores, routes, endpoints], Line::default());
}

pub fn rows_for_all(view: &View, columns: u16) -> u16 {
    let (cores, routes, endpoints) = rows_of_all(view, columns);
    OTHER_ROWS + cores + routes + endpoints
}

fn rows_of_all(view: &View, columns: u16) -> (u16, u16, u16) {
    let table = |pane| view.rows(pane).clamp(1, PRINTED_MAX) as u16 + TABLE_ROWS;
    (core_rows(view, columns) + 1, table(Pane::Routes), table(Pane::Endpoints))
}

/// The lines of a frame as text.
pub fn lines(buffer: &Buffer) -> impl Iterator<Item = String> {
    let Rect { width, height, .. } = buffer.area;
    (0..height).map(move |y| {
        let mut line = String::new();
        let mut x = 0;
        while x < width {
            let symbol = buffer[(x, y)].symbol();
            line.push_str(symbol);
            // A wide character has the cell behind it too.
            x += (Span::raw(symbol).width() as u16).max(1);
        }
        line
    })
}

fn parts(view: &View, area: Rect, buffer: &mut Buffer, panes: [u16; 3], keys: Line<'_>) {
    let heights = [1, 1, 1, panes[0], panes[1], panes[2], 1].map(Constraint::Length);
    let [first, second, third, cores, routes, endpoints, last] =
        Layout::vertical(heights).areas(area);
    let paint = Paint { is_coloured: view.is_coloured };
    title(view, paint, area.width).render(first, buffer);
    totals(&view.figures, paint, area.width).render(second, buffer);
    attention(view, paint, area.width).render(third, buffer);
    draw_cores(view, paint, cores, buffer);
    draw_routes(view, paint, routes, buffer);
    draw_endpoints(view, paint, endpoints, buffer);
    keys.render(last, buffer);
}

/// Colours, unless there shall be none.
#[derive(Clone, Copy)]
struct Paint {
    is_coloured: bool,
}

impl Paint {
    fn with(self, colour: Color) -> Style {
        if self.is_coloured { Style::new().fg(colour) } else { Style::new() }
    }

    fn mood(self, mood: Mood) -> Style {
        match mood {
            Mood::Bad => self.with(Color::Red).add_modifier(Modifier::BOLD),
            Mood::Warn => self.with(Color::Yellow).add_modifier(Modifier::BOLD),
            Mood::Calm => self.with(Color::Cyan),
        }
    }

    fn health(self, health: Health) -> Style {
        match health {
            Health::Down | Health::Avoided => self.mood(Mood::Bad),
            Health::Failing => self.mood(Mood::Warn),
            Health::Draining => self.mood(Mood::Calm),
            Health::Up => self.with(Color::Green),
        }
    }
}

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const DIM: Style = Style::new().add_modifier(Modifier::DIM);

fn title(view: &View, paint: Paint, columns: u16) -> Line<'static> {
    let figures = &view.figures;
    let state = match &view.lost {
        Some(_) => Span::styled("■ connection lost", paint.mood(Mood::Bad)),
        None if figures.state == "ready" => Span::styled("● ready", paint.with(Color::Green)),
        None => Span::styled(format!("◐ {}", figures.state), paint.mood(Mood::Warn)),
    };
    let mut line = vec![Span::styled(" Ringway ", BOLD), state];
    line.push(format!("   generation {}", figures.generation).into());
    line.push(format!("   up {}", span(figures.up_seconds)).into());
    line.push(format!("   {} clients", count(figures.connections_open)).into());
    if view.is_paused {
        line.push(Span::styled("   paused", paint.mood(Mood::Warn)));
    }
    fitted(line, columns)
}

fn totals(figures: &Figures, paint: Paint, columns: u16) -> Line<'static> {
    let errors = figures.errors.filter(|rate| *rate > 0.0);
    let error_style = errors.map_or(BOLD, |_| paint.mood(Mood::Bad));
    let mut line = Vec::new();
    let mut add = |what: &'static str, figure: String, style| {
        line.push(Span::raw(format!(" {what} ")));
        line.push(Span::styled(format!("{figure}  "), style));
    };
    add("requests", format!("{}/s", rate(figures.requests)), BOLD);
    add("5xx", format!("{}/s", rate(figures.errors)), error_style);
    add("p50", time(figures.p50), BOLD);
    add("p99", time(figures.p99), BOLD);
    add("overhead p99", time(figures.overhead_p99), BOLD);
    fitted(line, columns)
}

fn attention(view: &View, paint: Paint, columns: u16) -> Line<'static> {
    if let Some(why) = &view.lost {
        let seconds = view.last_seen.elapsed().as_secs();
        let why = why.replace('\n', " ");
        let text = format!(" ■ last seen {} ago: {why}", span(seconds));
        return fitted(vec![Span::styled(text, paint.mood(Mood::Bad))], columns);
    }
    let matter = |matter: &super::figures::Matter| {
        let symbol = match matter.mood {
            Mood::Bad => "■",
            Mood::Warn => "▲",
            Mood::Calm => "◐",
        };
        Span::styled(format!(" {symbol} {} ", matter.words), paint.mood(matter.mood))
    };
    let line: Vec<_> = view.figures.matters.iter().map(matter).collect();
    if line.is_empty() {
        return Line::styled(" nothing needs attention", DIM);
    }
    fitted(line, columns)
}

fn keys(view: &View) -> Line<'static> {
    if view.is_typing {
        return Line::styled(
            format!(" filter: {}_   Enter keeps it, Esc drops it", view.filter),
            BOLD,
        );
    }
    let all = [("q", "quit"), ("Tab", "pane"), ("s", "sort"), ("/", "filter"), ("p", "pause")];
    let spans = all.into_iter().chain([("?", "help")]).flat_map(|(key, what)| {
        [Span::styled(format!(" {key}"), BOLD), Span::styled(format!(" {what} "), DIM)]
    });
    spans.collect()
}

/// The title of a pane: a rule, brighter where the keys go.
fn pane_title(view: &View, pane: Pane, name: &str, more: &str) -> Block<'static> {
    let order = view.order(pane);
    let mut text = format!(" {name}{more}, by {order} ");
    if !view.filter.is_empty() && pane != Pane::Cores {
        text = format!(" {name}{more}, by {order}, with \"{}\" ", view.filter);
    }
    let is_focus = view.focus == pane;
    let mark = if is_focus { Span::styled("▶", BOLD) } else { Span::raw("─") };
    Block::new().borders(Borders::TOP).border_style(if is_focus { BOLD } else { DIM }).title(
        Line::from(vec![mark, Span::styled(text, if is_focus { BOLD } else { Style::new() })]),
    )
}

/// `11 to 20 of 200` when not all are in sight.
fn in_sight(first: usize, room: usize, all: usize) -> String {
    if all <= room {
        format!(" {all}")
    } else {
        format!(" {} to {} of {all}", first + 1, first + room)
    }
}

/// How many cores stand side by side: one, until there would be too many lines of them.
fn cores_across(view: &View, columns: u16) -> u16 {
    let wanted = view.figures.cores.len().div_ceil(CORE_ROWS) as u16;
    wanted.min(columns / CORE_COLUMNS).max(1)
}

fn core_rows(view: &View, columns: u16) -> u16 {
    (view.figures.cores.len() as u16).div_ceil(cores_across(view, columns))
}

fn draw_cores(view: &View, paint: Paint, area: Rect, buffer: &mut Buffer) {
    let imbalance = view.figures.imbalance;
    let more = match imbalance {
        Some(by) if view.figures.cores.len() > 1 => format!(", busiest {by:.2} × the mean"),
        _ => String::new(),
    };
    let across = cores_across(view, area.width);
    let rows = usize::from(core_rows(view, area.width));
    let room = usize::from(area.height.saturating_sub(1));
    let first = view.first_row(Pane::Cores, rows, room);
    let unseen = rows.saturating_sub(room) * usize::from(across);
    let more = if unseen > 0 { format!("{more}, scroll for more") } else { more };
    let block = pane_title(view, Pane::Cores, "Cores", &more);
    let inner = block.inner(area);
    block.render(area, buffer);
    let width = inner.width / across;
    let cores = view.cores();
    for (at, core) in cores.iter().skip(first * usize::from(across)).enumerate() {
        let (row, column) = (at as u16 / across, at as u16 % across);
        if row >= inner.height {
            break;
        }
        let place = Rect::new(inner.x + column * width, inner.y + row, width, 1);
        core_line(core, width, paint).render(place, buffer);
    }
}

fn core_line(core: &Core, columns: u16, paint: Paint) -> Line<'static> {
    let label = format!(" core {:<3} ", core.core);
    let load = core.load.map_or_else(|| "-".to_owned(), |load| format!("{:.0} %", load * 100.0));
    let figures = if core.trouble.is_empty() {
        let connections = count(core.connections);
        Span::raw(format!("{load:>6}{:>8}/s{connections:>7} ", rate(core.requests)))
    } else {
        Span::styled(format!(" {:<23}", format!("■ {}", core.trouble)), paint.mood(Mood::Bad))
    };
    let room = usize::from(columns).saturating_sub(label.len() + figures.width());
    let load = core.load.unwrap_or(0.0);
    let colour = if load > 0.9 { Color::Yellow } else { Color::Blue };
    let (full, rest) = bar(load, room);
    Line::from(vec![
        Span::raw(label),
        Span::styled(full, paint.with(colour)),
        Span::styled(rest, DIM),
        figures,
    ])
}

/// What is full and what is left of a bar, to an eighth of a column.
fn bar(share: f64, columns: usize) -> (String, String) {
    const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (share.clamp(0.0, 1.0) * columns as f64 * 8.0).round() as usize;
    let full = "█".repeat(eighths / 8) + PARTS[eighths % 8];
    let rest = "·".repeat(columns - eighths.div_ceil(8));
    (full, rest)
}

/// A column of a table: head, width (0: what is left), and whether narrow terminals have it.
struct Column(&'static str, u16, bool);

const ROUTE_COLUMNS: [Column; 7] = [
    Column("Route", 0, true),
    Column("Action", 20, true),
    Column("Requests", 9, true),
    Column("4xx", 8, true),
    Column("5xx", 8, true),
    Column("p50", 8, false),
    Column("p99", 8, true),
];

fn draw_routes(view: &View, paint: Paint, area: Rect, buffer: &mut Buffer) {
    let rows = view.routes();
    let row = |route: &&Route| {
        let errors = if route.errors > Some(0.0) { paint.mood(Mood::Bad) } else { Style::new() };
        vec![
            (route.name.clone(), Style::new()),
            (route.action.clone(), DIM),
            (rate(route.requests), Style::new()),
            (rate(route.client_errors), Style::new()),
            (rate(route.errors), errors),
            (time(route.p50), Style::new()),
            (time(route.p99), Style::new()),
        ]
    };
    draw_table(view, Pane::Routes, ("Routes", &ROUTE_COLUMNS, 2), &rows, row, area, buffer);
}

const ENDPOINT_COLUMNS: [Column; 10] = [
    Column("Endpoint", 0, true),
    Column("Upstream", 14, true),
    Column("State", 10, true),
    Column("Requests", 9, true),
    Column("Failed", 8, true),
    Column("In flight", 9, false),
    Column("Idle", 7, false),
    Column("Reuse", 6, false),
    Column("p50", 8, false),
    Column("p99", 8, true),
];

fn draw_endpoints(view: &View, paint: Paint, area: Rect, buffer: &mut Buffer) {
    let rows = view.endpoints();
    let row = |endpoint: &&Endpoint| {
        let failed = endpoint.failed > Some(0.0);
        let reuse =
            endpoint.reuse.map_or_else(|| "-".to_owned(), |s| format!("{:.0} %", s * 100.0));
        vec![
            (endpoint.name.clone(), Style::new()),
            (endpoint.upstream.clone(), DIM),
            (endpoint.health.words().to_owned(), paint.health(endpoint.health)),
            (rate(endpoint.requests), Style::new()),
            (rate(endpoint.failed), if failed { paint.mood(Mood::Bad) } else { Style::new() }),
            (count(endpoint.in_flight), Style::new()),
            (count(endpoint.idle), Style::new()),
            (reuse, Style::new()),
            (time(endpoint.p50), Style::new()),
            (time(endpoint.p99), Style::new()),
        ]
    };
    let head = ("Endpoints", &ENDPOINT_COLUMNS[..], 3);
    draw_table(view, Pane::Endpoints, head, &rows, row, area, buffer);
}

/// A pane with a table. `head` is its name, its columns, and how many of them are words.
fn draw_table<T>(
    view: &View,
    pane: Pane,
    head: (&str, &[Column], usize),
    rows: &[T],
    row: impl Fn(&T) -> Vec<(String, Style)>,
    area: Rect,
    buffer: &mut Buffer,
) {
    let (name, columns, words) = head;
    let room = usize::from(area.height.saturating_sub(TABLE_ROWS));
    let first = view.first_row(pane, rows.len(), room);
    let block = pane_title(view, pane, name, &in_sight(first, room, rows.len()));
    let is_wide = area.width >= COLUMNS_WIDE;
    let shown: Vec<usize> = (0..columns.len()).filter(|at| is_wide || columns[*at].2).collect();
    let fixed: u16 = shown.iter().map(|at| columns[*at].1 + 1).sum();
    let rest = area.width.saturating_sub(fixed);
    let width = |at: usize| if columns[at].1 == 0 { rest } else { columns[at].1 };
    let cell = |at: usize, text: &str, style: Style| {
        let side = if at < words { Alignment::Left } else { Alignment::Right };
        // A blank before the first column, as everywhere in the frame.
        let text = if at == 0 { format!(" {text}") } else { text.to_owned() };
        Line::styled(cut(&text, usize::from(width(at))), style).alignment(side)
    };
    let heading = Row::new(shown.iter().map(|at| cell(*at, columns[*at].0, DIM)));
    let visible = rows.iter().skip(first).take(room).map(|item| {
        let cells = row(item);
        Row::new(shown.iter().map(|at| cell(*at, &cells[*at].0, cells[*at].1)).collect::<Vec<_>>())
    });
    let widths = shown.iter().map(|at| Constraint::Length(width(*at)));
    let table = Table::new(visible, widths).header(heading).block(block);
    Widget::render(table, area, buffer);
}

fn help(area: Rect, buffer: &mut Buffer) {
    let lines = HELP.lines().count() as u16 + 2;
    let (width, height) = (area.width.min(66), area.height.min(lines));
    let place = Rect::new(
        area.x + (area.width - width) / 2,
        area.y + (area.height - height) / 2,
        width,
        height,
    );
    Clear.render(place, buffer);
    let block = Block::bordered().title(" Keys (any of them closes this) ");
    Paragraph::new(HELP).block(block).render(place, buffer);
}

/// A line no wider than `columns`, the last part of it cut where it does not fit.
fn fitted(spans: Vec<Span<'static>>, columns: u16) -> Line<'static> {
    let mut left = usize::from(columns);
    let mut line = Vec::new();
    for span in spans {
        let text = cut(&span.content, left);
        left -= Span::raw(text.as_str()).width();
        line.push(Span::styled(text, span.style));
    }
    Line::from(line)
}

/// A text no wider than `columns`, with an ellipsis when something is missing.
fn cut(text: &str, columns: usize) -> String {
    if Span::raw(text).width() <= columns {
        return text.to_owned();
    }
    if columns == 0 {
        return String::new();
    }
    let (mut out, mut width) = (String::new(), 0);
    for c in text.chars() {
        width += Span::raw(c.to_string()).width();
        if width >= columns {
            break;
        }
        out.push(c);
    }
    out + "…"
}

/// Per second: `0`, `0.4`, `87.1`, `940`, `12.4k`, `1.25M`.
fn rate(value: Option<f64>) -> String {
    let Some(value) = value else { return "-".to_owned() };
    let digits = |value: f64| match value {
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    match value {
        0.0 => "0".to_owned(),
        v if v < 9.95 => format!("{v:.1}"),
        v if v < 999.5 => format!("{v:.0$}", digits(v)),
        v if v < 999_500.0 => format!("{:.1$}k", v / 1e3, digits(v / 1e3)),
        v => format!("{:.1$}M", v / 1e6, digits(v / 1e6)),
    }
}

fn time(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "-".to_owned(), duration)
}
