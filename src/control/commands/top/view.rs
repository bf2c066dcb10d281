//! What is shown and how: panes, their order, the filter; and what each key does to that.

use std::{cell::Cell, cmp::Ordering, time::Instant};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::figures::{Core, Endpoint, Figures, Look, Route};

/// Characters of a filter.
const FILTER_MAX: usize = 60;
/// Rows that PageUp and PageDown move by.
const PAGE: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pane {
    Cores,
    Routes,
    Endpoints,
}

/// By what each pane can be sorted, the first of them at the start.
const CORES_BY: [&str; 2] = ["number", "load"];
const ROUTES_BY: [&str; 4] = ["requests", "5xx", "p99", "name"];
const ENDPOINTS_BY: [&str; 5] = ["state", "requests", "failed", "p99", "name"];

/// Whether the program goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    Stay,
    /// Draw everything anew: something else has written to the terminal.
    Redraw,
    Quit,
}

pub struct View {
    pub figures: Figures,
    pub focus: Pane,
    pub filter: String,
    /// Keys go into the filter.
    pub is_typing: bool,
    pub is_paused: bool,
    pub is_help: bool,
    pub is_coloured: bool,
    /// Why the last look brought no answer.
    pub lost: Option<String>,
    pub last_seen: Instant,
    latest: Look,
    /// The first row in sight, by pane; what is more than there are is taken back when drawn.
    scrolled: [Cell<usize>; 3],
    /// By pane.
    sorted: [usize; 3],
}

impl View {
    pub fn new(first: Look, is_coloured: bool) -> View {
        View {
            figures: Figures::between(None, &first),
            focus: Pane::Routes,
            filter: String::new(),
            is_typing: false,
            is_paused: false,
            is_help: false,
            is_coloured,
            lost: None,
            last_seen: first.taken,
            latest: first,
            scrolled: Default::default(),
            sorted: [0; 3],
        }
    }

    /// Takes what a look brought. A paused view stays as it is.
    pub fn take(&mut self, answer: Result<Look, String>) {
        if self.is_paused {
            return;
        }
        match answer {
            Ok(look) => {
                self.figures = Figures::between(Some(&self.latest), &look);
                self.last_seen = look.taken;
                self.latest = look;
                self.lost = None;
            }
            Err(why) => self.lost = Some(why),
        }
    }

    pub fn press(&mut self, key: KeyEvent) -> Flow {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Flow::Quit,
                KeyCode::Char('l') => Flow::Redraw,
                _ => Flow::Stay,
            };
        }
        if self.is_typing {
            self.write(key.code);
            return Flow::Stay;
        }
        if self.is_help {
            self.is_help = false;
            return Flow::Stay;
        }
        match key.code {
            KeyCode::Char('q') => return Flow::Quit,
            KeyCode::Char('?' | 'h') => self.is_help = true,
            KeyCode::Char('p' | ' ') => self.is_paused = !self.is_paused,
            KeyCode::Char('/') => self.is_typing = true,
            KeyCode::Char('s') => self.sort_by_next(),
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Tab => self.focus = self.focus.next(),
            KeyCode::BackTab => self.focus = self.focus.next().next(),
            KeyCode::Down | KeyCode::Char('j') => self.scroll(1, true),
            KeyCode::Up | KeyCode::Char('k') => self.scroll(1, false),
            KeyCode::PageDown => self.scroll(PAGE, true),
            KeyCode::PageUp => self.scroll(PAGE, false),
            KeyCode::Home | KeyCode::Char('g') => self.scroll(usize::MAX, false),
            KeyCode::End | KeyCode::Char('G') => self.scroll(usize::MAX, true),
            _ => {}
        }
        Flow::Stay
    }

    fn write(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.filter.clear();
                self.is_typing = false;
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(c) if self.filter.chars().count() < FILTER_MAX && !c.is_control() => {
                self.filter.push(c);
            }
            _ => {}
        }
        self.scrolled = Default::default();
    }

    fn sort_by_next(&mut self) {
        let by = &mut self.sorted[self.focus as usize];
        *by = (*by + 1) % self.focus.orders().len();
        self.scrolled[self.focus as usize].set(0);
    }

    fn scroll(&mut self, rows: usize, is_down: bool) {
        let first = &self.scrolled[self.focus as usize];
        let at = first.get();
        first.set(if is_down { at.saturating_add(rows) } else { at.saturating_sub(rows) });
    }

    /// How many rows a pane has, those that are not in sight too.
    pub fn rows(&self, pane: Pane) -> usize {
        match pane {
            Pane::Cores => self.figures.cores.len(),
            Pane::Routes => self.routes().len(),
            Pane::Endpoints => self.endpoints().len(),
        }
    }

    /// The first row in sight, when `room` of `rows` are: the last page is full.
    pub fn first_row(&self, pane: Pane, rows: usize, room: usize) -> usize {
        let first = &self.scrolled[pane as usize];
        first.set(first.get().min(rows.saturating_sub(room)));
        first.get()
    }

    /// By what a pane is sorted.
    pub fn order(&self, pane: Pane) -> &'static str {
        pane.orders()[self.sorted[pane as usize]]
    }

    pub fn cores(&self) -> Vec<&Core> {
        let mut rows: Vec<_> = self.figures.cores.iter().collect();
        if self.order(Pane::Cores) == "load" {
            rows.sort_by(|a, b| largest_first(a.load, b.load));
        }
        rows
    }

    pub fn routes(&self) -> Vec<&Route> {
        let all = self.figures.routes.iter();
        let mut rows: Vec<_> =
            all.filter(|route| self.lets_through(&[&route.name, &route.action])).collect();
        match self.order(Pane::Routes) {
            "requests" => rows.sort_by(|a, b| largest_first(a.requests, b.requests)),
            "5xx" => rows.sort_by(|a, b| largest_first(a.errors, b.errors)),
            "p99" => rows.sort_by(|a, b| largest_first(a.p99, b.p99)),
            _ => rows.sort_by(|a, b| a.name.cmp(&b.name)),
        }
        rows
    }

    pub fn endpoints(&self) -> Vec<&Endpoint> {
        let all = self.figures.endpoints.iter();
        let mut rows: Vec<_> = all
            .filter(|row| self.lets_through(&[&row.name, &row.upstream, row.health.words()]))
            .collect();
        match self.order(Pane::Endpoints) {
            "state" => rows.sort_by_key(|row| row.health),
            "requests" => rows.sort_by(|a, b| largest_first(a.requests, b.requests)),
            "failed" => rows.sort_by(|a, b| largest_first(a.failed, b.failed)),
            "p99" => rows.sort_by(|a, b| largest_first(a.p99, b.p99)),
            _ => rows.sort_by(|a, b| (&a.upstream, &a.name).cmp(&(&b.upstream, &b.name))),
        }
        rows
    }

    fn lets_through(&self, words: &[&str]) -> bool {
        let wanted = self.filter.to_lowercase();
        wanted.is_empty() || words.iter().any(|word| word.to_lowercase().contains(&wanted))
    }
}

impl Pane {
    fn next(self) -> Pane {
        match self {
            Pane::Cores => Pane::Routes,
            Pane::Routes => Pane::Endpoints,
            Pane::Endpoints => Pane::Cores,
        }
    }

    fn orders(self) -> &'static [&'static str] {
        match self {
            Pane::Cores => &CORES_BY,
            Pane::Routes => &ROUTES_BY,
            Pane::Endpoints => &ENDPOINTS_BY,
        }
    }
}

/// What is not known comes last.
fn largest_first(a: Option<f64>, b: Option<f64>) -> Ordering {
    b.unwrap_or(-1.0).total_cmp(&a.unwrap_or(-1.0))
}
