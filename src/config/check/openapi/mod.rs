//! Routes from OpenAPI documents (`[openapi.NAME]`): one for each operation, as if it were written,
//! with what its requests have to be like.

mod bundle;
mod operation;
mod site;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use regex::bytes::Regex;
use serde_json::Value;

use super::{TOP, policies::Shared};
use crate::{
    config::{
        decode::{At, Sink, section_default},
        file::{File, OpenApi, Route, Undescribed},
        report::{Place, Problem},
        values::{MethodName, Name, PathRegex, PathTemplate, PathText},
    },
    policy::{route::PARAMS_MAX, validate::Validation},
};
use operation::Operations;
use site::{Site, Wrong};

/// Methods that an operation can have, but for TRACE, which is served nowhere. HEAD before GET,
/// which includes it.
const METHODS: [(&str, &str); 7] = [
    ("head", "HEAD"),
    ("get", "GET"),
    ("put", "PUT"),
    ("post", "POST"),
    ("delete", "DELETE"),
    ("options", "OPTIONS"),
    ("patch", "PATCH"),
];
/// Most operations of one document.
const OPERATIONS_MAX: usize = 10_000;
/// Problems of one document that are told.
const WRONG_MAX: usize = 10;

/// What holds for all operations of a document.
#[derive(Clone, Copy)]
struct Rules {
    /// It is of OpenAPI 3.0.
    is_old: bool,
    strict_query: bool,
    shadow: bool,
    formats: bool,
    /// What is not described passes.
    passes: bool,
    bytes_max: usize,
    depth_max: u8,
}

/// A route, and what its requests have to be like.
pub(super) type Made = (At<Route>, Option<Arc<Validation>>);

/// The routes of all documents.
pub(super) fn routes(file: &File, shared: &Shared<'_>, sink: &mut Sink) -> Vec<Made> {
    let mut all = Vec::new();
    let sections = file.openapi.value.0.iter();
    for (name, section) in sections.filter_map(|(name, own)| Some((name, own.as_ref()?))) {
        let place = section.document.place().unwrap_or(TOP);
        if let Some(place) = section.validate.place() {
            let title = "the document says what requests have to be like, not `validate`";
            sink.push(Problem::error(place, title).fix("describe it in the document"));
        }
        let mut warned = Vec::new();
        let made = of_section(&name.value, section, shared, (&mut all, &mut warned));
        for told in warned.into_iter().take(WRONG_MAX) {
            let title = format!("{}: {}", told.at, told.what);
            sink.push(Problem::warning(place, title).fix(told.fix));
        }
        if let Err(wrong) = made {
            for wrong in wrong.into_iter().take(WRONG_MAX) {
                let title = format!("{}: {}", wrong.at, wrong.what);
                sink.push(Problem::error(place, title).fix(wrong.fix));
            }
        }
    }
    all
}

fn of_section(
    name: &str,
    section: &OpenApi,
    shared: &Shared<'_>,
    (all, warned): (&mut Vec<Made>, &mut Vec<Wrong>),
) -> Result<(), Vec<Wrong>> {
    let path = shared.folder.join(&section.document.value);
    let root = Site::root(&shared.schema_files, &path).map_err(|why| {
        let fix = "write a path relative to this configuration, or an absolute one".to_owned();
        vec![Wrong { at: path.display().to_string(), what: why, fix }]
    })?;
    let is_old = version(&root).map_err(|wrong| vec![wrong])?;
    let rules = Rules {
        is_old,
        strict_query: *section.strict_query,
        shadow: *section.shadow,
        formats: *section.formats,
        passes: *section.undescribed == Undescribed::Pass,
        // Bounded by the file's maximum.
        bytes_max: section.max_body.0 as usize,
        depth_max: *section.max_depth,
    };
    let base = match section.path.some() {
        Some(path) => path.value.0,
        None => base(&root).map_err(|wrong| vec![wrong])?,
    };
    let base = base.trim_end_matches('/');
    let mut paths = Paths {
        section,
        name,
        base,
        operations: Operations::new(&shared.schema_files, rules),
        wrong: Vec::new(),
        warned,
        all,
    };
    let Some(described) = root.member("paths") else {
        let fix = "write paths: {/orders: {get: ...}}";
        return Err(vec![root.wrong("the document has no `paths`", fix)]);
    };
    let before = paths.all.len();
    for (template, item) in described.members() {
        if template.starts_with("x-") {
            continue;
        }
        paths.item(&template, &item);
        if paths.all.len() - before > OPERATIONS_MAX {
            let what = format!("the document has more than {OPERATIONS_MAX} operations");
            paths.wrong.push(described.wrong(what, "divide it into several documents"));
            break;
        }
    }
    if rules.passes {
        paths.rest();
    }
    let wrong = paths.wrong;
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

/// Whether the document is of 3.0; else it is of 3.1.
fn version(root: &Site) -> Result<bool, Wrong> {
    let text = match root.value().get("openapi") {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    let mut parts = text.split('.');
    match (parts.next(), parts.next()) {
        (Some("3"), Some("0")) => Ok(true),
        (Some("3"), Some("1")) => {
            let dialect = root.text("jsonSchemaDialect").unwrap_or_default();
            let is_usual = dialect.is_empty()
                || dialect.contains("spec.openapis.org/oas/3.1/dialect")
                || dialect.contains("json-schema.org/draft/2020-12/");
            match is_usual {
                true => Ok(false),
                false => {
                    let what = "its `jsonSchemaDialect` is not understood";
                    Err(root.wrong(what, "write schemas in draft 2020-12, and leave it out"))
                }
            }
        }
        _ if root.value().get("swagger").is_some() => {
            let fix = "convert it to OpenAPI 3.1; editors and swagger2openapi do that";
            Err(root.wrong("this is Swagger 2.0", fix))
        }
        _ => {
            let what = "this is no OpenAPI 3.0 or 3.1 document";
            Err(root.wrong(what, "write openapi: 3.1.0 at its top"))
        }
    }
}

/// The path of the first server.
fn base(root: &Site) -> Result<String, Wrong> {
    let Some(server) = root.member("servers").and_then(|all| all.items().next()) else {
        return Ok(String::new());
    };
    let mut url = server.text("url").unwrap_or_default().to_owned();
    for (name, variable) in server.member("variables").iter().flat_map(Site::members) {
        let default = variable.text("default").unwrap_or_default();
        url = url.replace(&format!("{{{name}}}"), default);
    }
    let path = match url.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("", |at| &rest[at..]),
        None => &url,
    };
    let path = path.trim_end_matches('/');
    if path.is_empty() || (path.starts_with('/') && !path.contains(['?', '#', '{'])) {
        return Ok(path.to_owned());
    }
    let what = format!("the URL of its first server, `{url}`, has no path to be found below");
    Err(server.wrong(what, "write path = \"/api\" in the section of the configuration"))
}

/// The paths of one document on their way to routes.
struct Paths<'p> {
    section: &'p OpenApi,
    name: &'p str,
    /// Without a slash at its end.
    base: &'p str,
    operations: Operations<'p>,
    wrong: Vec<Wrong>,
    /// What has no effect.
    warned: &'p mut Vec<Wrong>,
    all: &'p mut Vec<Made>,
}

/// A path of a document as a route's condition.
struct Condition {
    /// Names that it captures, in order.
    captured: Vec<String>,
    /// The whole path, or an expression for it.
    text: String,
    is_regex: bool,
}

impl Paths<'_> {
    fn item(&mut self, template: &str, item: &Site) {
        let item = match item.followed(self.operations.files) {
            Ok(item) => item,
            Err(wrong) => return self.wrong.push(wrong),
        };
        let condition = match condition(self.base, template) {
            Ok(condition) => condition,
            Err((what, fix)) => return self.wrong.push(item.wrong(what, fix)),
        };
        if condition.is_regex && *self.section.strip_prefix {
            let what = "with `strip_prefix` the path's parameters must be whole segments";
            let fix = "take `strip_prefix` away, or write a path such as /books/{id}";
            return self.wrong.push(item.wrong(what, fix));
        }
        if let Some(operation) = item.member("trace") {
            let what = "no request with the method TRACE is forwarded";
            self.warned.push(operation.wrong(what, "remove this operation from the document"));
        }
        for (word, method) in METHODS {
            let Some(operation) = item.member(word) else { continue };
            let validation = self.operations.validation(&item, &operation, &condition.captured);
            match validation {
                Err(wrong) => self.wrong.extend(wrong),
                Ok(validation) => {
                    let id = operation.text("operationId").map(str::to_owned);
                    let id = id.unwrap_or_else(|| format!("{method} {template}"));
                    let mut route = self.route(&id);
                    route.methods = self.at(vec![self.at(MethodName(method.to_owned()))]);
                    self.set_path(&mut route, &condition, template);
                    self.all.push((self.at(route), Some(Arc::new(validation))));
                }
            }
        }
    }

    /// What is not described.
    fn rest(&mut self) {
        let mut route = self.route("*");
        let path = if self.base.is_empty() { "/" } else { self.base };
        route.path = self.at(Some(PathText(path.to_owned())));
        if *self.section.strip_prefix && !self.base.is_empty() {
            route.strip_prefix = self.at(true);
        }
        self.all.push((self.at(route), None));
    }

    fn place(&self) -> Place {
        self.section.document.place().unwrap_or(TOP)
    }

    /// As if it were written where the document is named.
    fn at<T>(&self, value: T) -> At<T> {
        At::written(value, self.place())
    }

    fn route(&self, id: &str) -> Route {
        let section = self.section;
        let mut route: Route = section_default();
        let mut name = format!("{}.{id}", self.name);
        name.retain(|c| !c.is_control());
        while name.len() > 128 {
            name.pop();
        }
        route.name = self.at(Some(Name(name)));
        let upstream = section.upstream.place().unwrap_or_else(|| self.place());
        route.upstream = At::written(Some(section.upstream.value.clone()), upstream);
        route.hosts = section.hosts.clone();
        route.policies = section.policies.clone();
        route.copy_policies(&section.policies());
        route.validate = At::default_of(None);
        route
    }

    fn set_path(&self, route: &mut Route, condition: &Condition, template: &str) {
        let text = &condition.text;
        if condition.is_regex {
            // It was read before.
            if let Ok(regex) = Regex::new(text) {
                route.path_regex = self.at(Some(PathRegex { text: text.clone(), regex }));
            }
        } else if condition.captured.is_empty() {
            route.path_exact = self.at(Some(PathText(text.clone())));
        } else {
            route.path_template = self.at(Some(PathTemplate(text.clone())));
        }
        if *self.section.strip_prefix && !self.base.is_empty() {
            route.rewrite_path = self.at(Some(PathTemplate(template.to_owned())));
        }
    }
}

/// A route's condition for a path of a document.
fn condition(base: &str, template: &str) -> Result<Condition, (String, String)> {
    if !template.starts_with('/') {
        let what = format!("the path `{template}` does not begin with a slash");
        return Err((what, format!("write /{template}")));
    }
    let (mut captured, mut is_regex) = (Vec::new(), false);
    let mut regex = regex::escape(base);
    for segment in template.split('/').skip(1) {
        regex.push('/');
        let mut rest = segment;
        while let Some((before, behind)) = rest.split_once('{') {
            let Some((name, behind)) = behind.split_once('}') else {
                let what = format!("the path `{template}` has an open brace");
                return Err((what, "close it: {id}".to_owned()));
            };
            let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            is_regex |= !is_name || !before.is_empty() || !behind.is_empty();
            regex.push_str(&regex::escape(before));
            regex.push_str("([^/]+)");
            captured.push(name.to_owned());
            rest = behind;
        }
        regex.push_str(&regex::escape(rest));
    }
    if captured.len() > PARAMS_MAX {
        let what = format!("the path `{template}` has more than {PARAMS_MAX} parameters");
        return Err((what, "write fewer".to_owned()));
    }
    let text = if is_regex { regex } else { format!("{base}{template}") };
    if is_regex && Regex::new(&text).is_err() {
        let what = format!("the path `{template}` cannot be matched");
        return Err((what, "write parameters that are whole segments".to_owned()));
    }
    Ok(Condition { captured, text, is_regex })
}
