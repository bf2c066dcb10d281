//! What is wrong with a configuration, and how it is shown.
//!
//! Invariant: every [`Problem`] lies inside the text it belongs to, on character boundaries, and
//! says what to write instead.

use std::{fmt, ops::Range, sync::Arc};

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

/// Bytes of the configuration's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub start: usize,
    pub end: usize,
}

impl From<Range<usize>> for Place {
    fn from(range: Range<usize>) -> Place {
        Place { start: range.start, end: range.end }
    }
}

/// A configuration's text and the name shown for it.
#[derive(Debug)]
pub struct Source {
    pub name: String,
    pub text: String,
}

impl Source {
    /// As it may be shown: with asterisks for every byte of what is hidden, so that all else stays
    /// at its place. Quotation marks and line ends stay too.
    pub fn hiding(self, hidden: &[Place]) -> Source {
        let mut bytes = self.text.into_bytes();
        for place in hidden {
            let end = place.end.min(bytes.len());
            for byte in &mut bytes[place.start.min(end)..end] {
                if !matches!(byte, b'"' | b'\'' | b'\r' | b'\n') {
                    *byte = b'*';
                }
            }
        }
        // Places lie on character boundaries; were one to cut a character, it is shown as cut.
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Source { name: self.name, text }
    }

    /// `place` cut to the first line it touches, without trailing blanks, inside the text.
    fn on_one_line(&self, place: Place) -> Range<usize> {
        let start = self.boundary(place.start);
        let end = self.boundary(place.end.max(start));
        let line = self.text[start..end].split(['\n', '\r']).next().unwrap_or_default();
        start..start + line.trim_end().len()
    }

    fn boundary(&self, mut index: usize) -> usize {
        index = index.min(self.text.len());
        while !self.text.is_char_boundary(index) {
            index -= 1;
        }
        index
    }

    /// Line and column, both from 1; the column counts characters.
    fn line_and_column(&self, index: usize) -> (usize, usize) {
        let before = &self.text[..self.boundary(index)];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can, but hardly means what its author wanted.
    Warning,
}

/// One thing wrong with a configuration.
#[derive(Clone, Debug)]
pub struct Problem {
    pub severity: Severity,
    /// One sentence: what is wrong.
    pub title: String,
    /// `None`: the file as a whole.
    pub place: Option<Place>,
    /// Beside the underline; may be empty.
    pub label: String,
    /// Another place that explains this one, and what it is.
    pub related: Option<(Place, String)>,
    /// What to write instead.
    pub fix: String,
}

impl Problem {
    pub fn error(place: Place, title: impl Into<String>) -> Problem {
        Problem {
            severity: Severity::Error,
            title: visible(title.into()),
            place: Some(place),
            label: String::new(),
            related: None,
            fix: String::new(),
        }
    }

    pub fn warning(place: Place, title: impl Into<String>) -> Problem {
        Problem { severity: Severity::Warning, ..Problem::error(place, title) }
    }

    /// A problem of the whole file.
    pub fn whole(title: impl Into<String>) -> Problem {
        Problem { place: None, ..Problem::error(Place { start: 0, end: 0 }, title) }
    }

    pub fn label(mut self, label: impl Into<String>) -> Problem {
        self.label = visible(label.into());
        self
    }

    pub fn fix(mut self, fix: impl Into<String>) -> Problem {
        self.fix = visible(fix.into());
        self
    }

    /// Takes a text out of what is said.
    pub fn redact(&mut self, text: &str) {
        for said in [&mut self.title, &mut self.label, &mut self.fix] {
            if said.contains(text) {
                *said = said.replace(text, "...");
            }
        }
    }

    pub fn related(mut self, place: Place, what: impl Into<String>) -> Problem {
        self.related = Some((place, visible(what.into())));
        self
    }

    fn render(&self, source: &Source, coloured: bool) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group = Group::with_title(level.primary_title(&*self.title));
        match self.place {
            Some(place) => group = group.element(self.snippet(source, place)),
            None => group = group.element(Origin::path(&*source.name)),
        }
        if !self.fix.is_empty() {
            group = group.element(Level::HELP.message(&*self.fix));
        }
        let renderer = if coloured { Renderer::styled() } else { Renderer::plain() };
        renderer.render(&[group])
    }

    fn snippet<'a>(
        &'a self,
        source: &'a Source,
        place: Place,
    ) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
        let mut primary = AnnotationKind::Primary.span(source.on_one_line(place));
        if !self.label.is_empty() {
            primary = primary.label(&*self.label);
        }
        let mut snippet = Snippet::source(&*source.text).path(&*source.name).annotation(primary);
        if let Some((place, what)) = &self.related {
            let span = source.on_one_line(*place);
            snippet = snippet.annotation(AnnotationKind::Context.span(span).label(&**what));
        }
        snippet
    }
}

/// A warning together with the text it is about.
#[derive(Clone, Debug)]
pub struct Warning {
    pub(super) source: Arc<Source>,
    pub(super) problem: Problem,
}

impl Warning {
    /// As text for a terminal (`coloured`) or for anything else.
    pub fn render(&self, coloured: bool) -> String {
        self.problem.render(&self.source, coloured)
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

/// Everything wrong with one configuration, in the order of its text. Has at least one error.
#[derive(Clone, Debug)]
pub struct Report {
    source: Arc<Source>,
    problems: Vec<Problem>,
}

impl Report {
    pub(super) fn new(source: Arc<Source>, mut problems: Vec<Problem>) -> Report {
        problems.sort_by_key(|p| p.place.map_or((0, 0), |place| (place.start, place.end)));
        Report { source, problems }
    }

    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Line and column (from 1, in characters) of each problem that has a place.
    pub fn positions(&self) -> impl Iterator<Item = (usize, usize)> {
        self.problems
            .iter()
            .filter_map(|p| p.place)
            .map(|place| self.source.line_and_column(place.start))
    }

    fn count(&self, severity: Severity) -> usize {
        self.problems.iter().filter(|p| p.severity == severity).count()
    }

    /// As text for a terminal (`coloured`) or for anything else. Ends without a line end.
    pub fn render(&self, coloured: bool) -> String {
        let mut text = String::new();
        for problem in &self.problems {
            text.push_str(&problem.render(&self.source, coloured));
            text.push_str("\n\n");
        }
        let errors = plural(self.count(Severity::Error), "error");
        text.push_str(&match self.count(Severity::Warning) {
            0 => format!("{}: {errors}", self.source.name),
            warnings => format!("{}: {errors}, {}", self.source.name, plural(warnings, "warning")),
        });
        text
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Report {}

/// Control characters, which a name from the file may have, as escapes.
fn visible(text: String) -> String {
    if !text.contains(char::is_control) {
        return text;
    }
    let escaped =
        |c: char| if c.is_control() { c.escape_debug().to_string() } else { c.to_string() };
    text.chars().map(escaped).collect()
}

/// `1 error`, `2 errors`.
pub fn plural(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
