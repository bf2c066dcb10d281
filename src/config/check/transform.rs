//! Transformations: names that may be changed, texts compiled, steps of one kind each.

use super::{TOP, nobody, routes::bad_field_name};
use crate::{
    config::{
        decode::{At, Named, Sink, quoted},
        file::{
            CookieChanges, HeaderChanges, JsonStep, QueryChanges, TransformRequest,
            TransformResponse,
        },
        report::{Place, Problem},
        values::{AnyValue, is_token},
    },
    policy::{
        template::{Known, Template},
        transform::{
            self, BodyTransform, Form, RequestTransform, ResponseTransform,
            fields::{self, FieldChanges},
            json::{self, JsonText, Pointer},
        },
    },
};

/// Fields of requests that are not for transformations, and what to do instead.
const REQUEST_OWN: &[(&str, &str)] = &[
    ("host", "write rewrite_host = \"...\" at the route"),
    ("content-length", "remove it: the gateway frames the body"),
    ("transfer-encoding", "remove it: the gateway frames the body"),
    ("trailer", "remove it: the gateway frames the body"),
    ("connection", "remove it: the gateway manages its connections"),
    ("keep-alive", "remove it: the gateway manages its connections"),
    ("te", "remove it: the gateway manages its connections"),
    ("upgrade", "write upgrade = false at the route to let none pass"),
    ("expect", "remove it: the gateway answers it"),
    ("via", "write via = \"...\" in [forwarding]"),
    ("forwarded", "write fields = \"...\" in [forwarding]"),
    ("x-forwarded-for", "write fields = \"...\" in [forwarding]"),
    ("x-forwarded-host", "write fields = \"...\" in [forwarding]"),
    ("x-forwarded-proto", "write fields = \"...\" in [forwarding]"),
    ("x-request-id", "write request_id = \"...\" in [forwarding]"),
    ("cookie", "write `cookies` beside `headers`"),
];

/// The same of responses.
const RESPONSE_OWN: &[(&str, &str)] = &[
    ("content-length", "remove it: the gateway frames the body"),
    ("transfer-encoding", "remove it: the gateway frames the body"),
    ("trailer", "remove it: the gateway frames the body"),
    ("connection", "remove it: the gateway manages its connections"),
    ("keep-alive", "remove it: the gateway manages its connections"),
    ("upgrade", "remove it: the gateway manages its connections"),
    ("date", "remove it: a response keeps its date"),
    ("via", "write via = \"...\" in [forwarding]"),
];

/// Methods whose answers are unlike those of others.
const BARRED: &[&str] = &["HEAD", "CONNECT", "TRACE", "OPTIONS"];

/// What one transformation's texts may refer to, and which fields it may not touch.
struct Scope<'c> {
    params: &'c [String],
    /// The route asks who requests are from.
    asks: bool,
    known: Known,
    own: &'static [(&'static str, &'static str)],
}

/// Names, each with its text.
type Texts = Box<[(Box<str>, Template)]>;

/// Of a route with these parameters; `asks`: who its requests are from.
pub(super) fn request(
    written: &TransformRequest,
    (params, asks): (&[String], bool),
    sink: &mut Sink,
) -> RequestTransform {
    let scope = Scope { params, asks, known: Known::Request, own: REQUEST_OWN };
    let path = written.path.some().and_then(|path| path_text(&path, &scope, sink));
    let body_max = written.body_max.value.0 as usize;
    let form = written.form.value.map_or(Form::None, Form::from);
    if let Some(method) = written.method.some().filter(|m| BARRED.contains(&&*m.value.0)) {
        let title = format!("a request cannot be changed to {}", method.value.0);
        let place = method.place().unwrap_or(TOP);
        sink.push(Problem::error(place, title).fix("write a method such as POST"));
    }
    RequestTransform {
        fields: scope.fields(&written.headers, sink),
        query: scope.query(&written.query, sink),
        cookies: scope.cookies(&written.cookies, sink),
        method: written.method.value.as_ref().map(|method| method.0.clone()),
        path,
        body: scope.body(&written.json, form, body_max, sink),
    }
}

/// As [`request`].
pub(super) fn response(
    written: &TransformResponse,
    (params, asks): (&[String], bool),
    sink: &mut Sink,
) -> ResponseTransform {
    let scope = Scope { params, asks, known: Known::Response, own: RESPONSE_OWN };
    let statuses = written.status.value.0.iter();
    let statuses = statuses.filter_map(|(from, to)| status(from, (*to)?, sink));
    let statuses = statuses.collect();
    let body_max = written.body_max.value.0 as usize;
    ResponseTransform {
        fields: scope.fields(&written.headers, sink),
        statuses,
        body: scope.body(&written.json, Form::None, body_max, sink),
    }
}

/// One status for another; both are final ones.
fn status(from: &At<String>, to: u16, sink: &mut Sink) -> Option<(u16, u16)> {
    let is_final = |status: &u16| (200..=599).contains(status);
    let has_no_body = |status: u16| matches!(status, 204 | 205 | 304);
    let place = from.place().unwrap_or(TOP);
    match from.value.parse().ok().filter(is_final).filter(|_| is_final(&to)) {
        None => {
            let title = "`status` gives one status for another, both between 200 and 599";
            sink.push(Problem::error(place, title).fix("write { \"404\" = 410 }"));
            None
        }
        Some(known) if has_no_body(known) != has_no_body(to) => {
            let title = format!("{known} and {to}: one of them has a body, the other none");
            sink.push(Problem::error(place, title).fix("write a status of the same kind"));
            None
        }
        Some(known) => Some((known, to)),
    }
}

fn path_text(path: &At<String>, scope: &Scope<'_>, sink: &mut Sink) -> Option<Template> {
    let place = path.place().unwrap_or(TOP);
    if !path.value.starts_with('/') {
        let title = "`path` must begin with `/`";
        let fix = format!("write {}", quoted(&format!("/{}", path.value)));
        sink.push(Problem::error(place, title).fix(fix));
        return None;
    }
    if path.value.contains(['?', '#']) {
        let title = "`path` has no query";
        sink.push(Problem::error(place, title).fix("write `query` = { set = { ... } } beside it"));
        return None;
    }
    scope.text(&path.value, place, sink)
}

impl Scope<'_> {
    fn text(&self, text: &str, place: Place, sink: &mut Sink) -> Option<Template> {
        let compiled = Template::compile(text, self.params, self.known);
        let template = compiled.map_err(|message| sink.push(said(&message, place))).ok()?;
        if !self.asks {
            nobody::text(&template, place, sink);
        }
        Some(template)
    }

    /// Whether a field of this name may be changed.
    fn may_change(&self, name: &At<String>, sink: &mut Sink) -> bool {
        if !is_token(&name.value) {
            sink.push(bad_field_name(name));
            return false;
        }
        let own = self.own.iter().find(|(own, _)| name.value.eq_ignore_ascii_case(own));
        if let Some((_, fix)) = own {
            let title = format!("a transformation cannot change the field `{}`", name.value);
            sink.push(Problem::error(name.place().unwrap_or(TOP), title).fix(*fix));
        }
        own.is_none()
    }

    fn fields(&self, written: &HeaderChanges, sink: &mut Sink) -> FieldChanges {
        let mut texts = |named: &Named<String>| self.texts(named, true, sink);
        let (set, add) = (texts(&written.set), texts(&written.add));
        let append = texts(&written.append);
        let remove = written.remove.iter().filter(|name| self.may_change(name, sink));
        let remove = remove.map(|name| name.value.as_str().into()).collect();
        FieldChanges { remove, rename: self.renamed(&written.rename, true, sink), set, add, append }
    }

    fn renamed(
        &self,
        named: &Named<String>,
        is_field: bool,
        sink: &mut Sink,
    ) -> Box<[(Box<str>, Box<str>)]> {
        let mut renamed = Vec::new();
        for (from, to) in &named.0 {
            let Some(to) = to else { continue };
            let place = from.place().unwrap_or(TOP);
            let both = [from.clone(), At::written(to.clone(), place)];
            if !is_field || both.iter().all(|name| self.may_change(name, sink)) {
                renamed.push((from.value.as_str().into(), to.as_str().into()));
            }
        }
        renamed.into()
    }

    fn texts(&self, named: &Named<String>, is_field: bool, sink: &mut Sink) -> Texts {
        let mut texts = Vec::new();
        for (name, text) in &named.0 {
            let Some(text) = text else { continue };
            if is_field && !self.may_change(name, sink) {
                continue;
            }
            let place = name.place().unwrap_or(TOP);
            if text.contains(['\r', '\n', '\0']) {
                let title = format!("the text of `{}` has a line end", name.value);
                sink.push(Problem::error(place, title).fix("write it in one line"));
            }
            texts.extend(
                self.text(text, place, sink).map(|text| (name.value.as_str().into(), text)),
            );
        }
        texts.into()
    }

    fn query(&self, written: &QueryChanges, sink: &mut Sink) -> fields::QueryChanges {
        fields::QueryChanges {
            remove: written.remove.iter().map(|name| name.value.as_str().into()).collect(),
            rename: self.renamed(&written.rename, false, sink),
            set: self.texts(&written.set, false, sink),
            add: self.texts(&written.add, false, sink),
        }
    }

    fn cookies(&self, written: &CookieChanges, sink: &mut Sink) -> transform::CookieChanges {
        let set = self.texts(&written.set, false, sink);
        let names = written.remove.iter().chain(written.set.0.iter().map(|(name, _)| name));
        for name in names.filter(|name| !is_token(&name.value)) {
            let title = format!("`{}` is no valid name of a cookie", name.value);
            let place = name.place().unwrap_or(TOP);
            sink.push(Problem::error(place, title).fix("write a name such as session"));
        }
        let remove = written.remove.iter().map(|name| name.value.as_str().into()).collect();
        transform::CookieChanges { remove, set }
    }

    fn body(
        &self,
        written: &[At<JsonStep>],
        form: Form,
        bytes_max: usize,
        sink: &mut Sink,
    ) -> Option<BodyTransform> {
        let steps = written.iter().filter_map(|step| self.step(step, sink)).collect();
        if written.is_empty() && form == Form::None {
            return None;
        }
        Some(BodyTransform { bytes_max, steps, form })
    }

    fn step(&self, step: &At<JsonStep>, sink: &mut Sink) -> Option<json::JsonStep> {
        let place = step.place().unwrap_or(TOP);
        let kinds = [&step.set, &step.remove, &step.from, &step.wrap, &step.select];
        let needs = [
            (step.set.place(), step.value.value.place(), "`set` and `value`", "value = \"...\""),
            (step.from.place(), step.to.place(), "`from` and `to`", "to = \"/new\""),
        ];
        for (one, other, both, fix) in needs {
            if one.is_some() != other.is_some() {
                let title = format!("{both} go together");
                sink.push(Problem::error(place, title).fix(format!("add {fix}, or remove both")));
                return None;
            }
        }
        if kinds.iter().filter(|kind| kind.place().is_some()).count() != 1 {
            let title = "a step is exactly one of `set`, `remove`, `from`, `wrap` and `select`";
            sink.push(Problem::error(place, title).fix("write one table for each step"));
            return None;
        }
        let mut at = |text: &At<Option<String>>| {
            let text = text.some()?;
            let parsed = Pointer::parse(&text.value);
            parsed.map_err(|message| sink.push(said(&message, text.place().unwrap_or(TOP)))).ok()
        };
        if step.set.place().is_some() {
            let pointer = at(&step.set)?;
            let value = step.value.value.some()?;
            return Some(json::JsonStep::Set(pointer, self.json(&value, sink)?));
        }
        if step.from.place().is_some() {
            return Some(json::JsonStep::Move(at(&step.from)?, at(&step.to)?));
        }
        if let Some(name) = step.wrap.value.as_deref() {
            return Some(json::JsonStep::Wrap(name.into()));
        }
        match at(&step.remove) {
            Some(pointer) => Some(json::JsonStep::Remove(pointer)),
            None => at(&step.select).map(json::JsonStep::Select),
        }
    }

    fn json(&self, value: &At<AnyValue>, sink: &mut Sink) -> Option<JsonText> {
        self.json_text(&value.value.0, value.place().unwrap_or(TOP), sink)
    }

    fn json_text(
        &self,
        value: &serde_json::Value,
        place: Place,
        sink: &mut Sink,
    ) -> Option<JsonText> {
        use serde_json::Value;
        match value {
            Value::String(text) => {
                let template = self.text(text, place, sink)?;
                Some(match template.as_text() {
                    Some(text) => JsonText::Plain(Value::String(text.to_owned())),
                    None => JsonText::Text(template),
                })
            }
            Value::Array(items) => {
                let items = items.iter().map(|item| self.json_text(item, place, sink));
                items.collect::<Option<_>>().map(JsonText::Array)
            }
            Value::Object(members) => {
                let members = members.iter().map(|(name, member)| {
                    Some((name.clone(), self.json_text(member, place, sink)?))
                });
                members.collect::<Option<_>>().map(JsonText::Object)
            }
            plain => Some(JsonText::Plain(plain.clone())),
        }
    }
}

/// A message of the policy's as a problem: what is wrong, then what to write.
pub(super) fn said(message: &str, place: Place) -> Problem {
    match message.split_once("; ") {
        Some((title, fix)) => Problem::error(place, title).fix(fix),
        None => Problem::error(place, message),
    }
}
