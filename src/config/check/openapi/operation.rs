//! One operation of an OpenAPI document: its parameters and bodies, compiled.

use std::collections::HashMap;

use serde_json::Value;

use super::{
    super::{
        schemas::{self, Files},
        validate::{has_style, usual_style},
    },
    Rules,
    bundle::Bundle,
    site::{Site, Wrong},
};
use crate::policy::{
    compress::MediaRange,
    validate::{
        Body, Content, Kind, Need, Parameter, Range, Validation,
        fault::Location,
        is_json,
        parameter::{Shape, Style},
        schema::Schema,
        types::{Fuel, In, Types},
    },
};

/// Header fields that a document describes elsewhere (OpenAPI 3.1 §4.8.12.1).
const ELSEWHERE: [&str; 3] = ["accept", "content-type", "authorization"];

/// A schema, compiled, with what texts of it stand for.
type Compiled = (Schema, Shape);

/// Compiles what operations say. A schema that several name is compiled once.
pub(super) struct Operations<'f> {
    pub files: &'f std::sync::Arc<Files>,
    pub rules: Rules,
    known: HashMap<String, Compiled>,
}

impl<'f> Operations<'f> {
    pub fn new(files: &'f std::sync::Arc<Files>, rules: Rules) -> Operations<'f> {
        Operations { files, rules, known: HashMap::new() }
    }

    /// What an operation asks of requests; `captured` are the names in its path, in order.
    pub fn validation(
        &mut self,
        item: &Site,
        operation: &Site,
        captured: &[String],
    ) -> Result<Validation, Vec<Wrong>> {
        let mut wrong = Vec::new();
        let mut parameters: Vec<Parameter> = Vec::new();
        // Those of the operation count before those of its path.
        for of in [operation, item] {
            let Some(list) = of.member("parameters") else { continue };
            let before = parameters.len();
            for site in list.items() {
                match self.parameter(&site, captured) {
                    Err(what) => wrong.push(what),
                    Ok(None) => {}
                    Ok(Some(own)) => {
                        let is_same = |known: &Parameter| {
                            known.from == own.from && same_name(own.from, &known.name, &own.name)
                        };
                        if parameters[before..].iter().any(is_same) {
                            let what = format!("the parameter `{}` is there twice", own.name);
                            wrong.push(site.wrong(what, "remove one of the two"));
                        } else if !parameters.iter().any(is_same) {
                            parameters.push(own);
                        }
                    }
                }
            }
        }
        let has = |name: &&String| {
            parameters.iter().any(|p| p.from == Location::Path && *p.name == ***name)
        };
        if let Some(name) = captured.iter().find(|name| !has(name)).filter(|_| wrong.is_empty()) {
            let what = format!("nothing describes the path parameter `{name}`");
            let fix =
                format!("add to `parameters`: name: {name}, in: path, required: true, schema");
            wrong.push(operation.wrong(what, fix));
        }
        let body = self.body(operation).map_err(|what| wrong.push(what)).ok().flatten();
        if !wrong.is_empty() {
            return Err(wrong);
        }
        Ok(Validation {
            parameters: parameters.into(),
            strict_query: self.rules.strict_query,
            body,
            shadow: self.rules.shadow,
        })
    }

    fn parameter(&mut self, at: &Site, captured: &[String]) -> Result<Option<Parameter>, Wrong> {
        let site = at.followed(self.files)?;
        let name = site.text("name").unwrap_or_default().to_owned();
        let from = match site.text("in") {
            Some("query") => Location::Query,
            Some("path") => Location::Path,
            Some("header") => Location::Header,
            Some("cookie") => Location::Cookie,
            _ => {
                let fix = "write in: query, path, header or cookie";
                return Err(site.wrong("a parameter must say where it is (`in`)", fix));
            }
        };
        if name.is_empty() {
            return Err(site.wrong("a parameter must have a name", "write name: limit"));
        }
        if from == Location::Header && ELSEWHERE.iter().any(|own| name.eq_ignore_ascii_case(own)) {
            return Ok(None);
        }
        let style = style(&site, from)?;
        let place = captured.iter().position(|known| *known == name);
        if from == Location::Path && place.is_none() {
            let what = format!("the path has no parameter `{name}`");
            return Err(site.wrong(what, format!("write {{{name}}} in the path, or remove it")));
        }
        let content = site.member("content").and_then(|all| all.members().into_iter().next());
        let (schema, is_json_text) = match (site.member("schema"), content) {
            (Some(schema), _) => (Some(schema), false),
            (None, Some((media, content))) if is_json(media.as_bytes()) => {
                (content.member("schema"), true)
            }
            // As text of another kind it is not looked into.
            (None, Some(_)) => (None, false),
            (None, None) => {
                let fix = "write schema: {type: string}";
                return Err(site.wrong("a parameter must have a `schema` or `content`", fix));
            }
        };
        let (schema, shape) = self.compiled(schema.as_ref(), &site)?;
        Ok(Some(Parameter {
            name: name.as_str().into(),
            from,
            // A path has no more parameters than fit.
            captured: place.and_then(|at| u8::try_from(at).ok()).unwrap_or(0),
            required: site.flag("required") == Some(true) || from == Location::Path,
            style,
            json: is_json_text,
            explode: site.flag("explode").unwrap_or(style == Style::Form),
            allow_empty: site.flag("allowEmptyValue") == Some(true) && from == Location::Query,
            shape,
            schema,
        }))
    }

    /// A schema; where there is none, anything is good.
    fn compiled(&mut self, schema: Option<&Site>, of: &Site) -> Result<Compiled, Wrong> {
        let Some(site) = schema else { return self.built(&Value::Bool(true), (of, &[])) };
        let key = self.key(site)?;
        if let Some(known) = self.known.get(&key) {
            return Ok(known.clone());
        }
        let (value, sites) = Bundle::of(self.files, self.rules.is_old, site)?;
        let compiled = self.built(&value, (site, &sites))?;
        self.known.insert(key, compiled.clone());
        Ok(compiled)
    }

    /// What a schema is known by: what it refers to, where it says nothing else. Beside a reference
    /// other keywords count as well, but for OpenAPI 3.0.
    fn key(&self, site: &Site) -> Result<String, Wrong> {
        let is_alone = self.rules.is_old || site.members().len() == 1;
        let target = match site.text("$ref").filter(|_| is_alone) {
            Some(reference) => &site.target(self.files, reference)?,
            None => site,
        };
        Ok(format!("{}#{}", target.path.display(), target.pointer))
    }

    fn built(&self, value: &Value, (site, sites): (&Site, &[Site])) -> Result<Compiled, Wrong> {
        let folder = std::path::Path::new("");
        let built = schemas::inline(self.files, folder, value, self.rules.formats);
        let schema = built.map_err(|bad| {
            let (site, pointer) = whence(site, sites, &bad.pointer);
            let at = if pointer.is_empty() { "" } else { " at " };
            let what = format!("the schema is wrong{at}{pointer}: {}", bad.what);
            site.wrong(what, "write a schema as JSON Schema has it")
        })?;
        let fuel = Fuel::default();
        Ok((schema, Shape::of(In::whole(value, &fuel))))
    }

    fn body(&mut self, operation: &Site) -> Result<Option<Body>, Wrong> {
        let rules = self.rules;
        let body = |contents: Vec<Content>, need| Body {
            contents: contents.into(),
            need,
            bytes_max: rules.bytes_max,
            depth_max: rules.depth_max,
        };
        let Some(described) = operation.member("requestBody") else {
            return Ok((!rules.passes).then(|| body(Vec::new(), Need::None)));
        };
        let described = described.followed(self.files)?;
        let Some(content) = described.member("content") else {
            let fix = "write content: {application/json: {schema: ...}}";
            return Err(described.wrong("a body must have a `content`", fix));
        };
        let mut contents: Vec<(u8, Content)> = Vec::new();
        for (media, site) in content.members() {
            self.content(&media, &site, &mut contents)?;
        }
        // What is said of fewer media types counts first (OpenAPI 3.1 §4.8.14.1).
        contents.sort_by_key(|(width, _)| *width);
        let need = if described.flag("required") == Some(true) { Need::All } else { Need::None };
        Ok(Some(body(contents.into_iter().map(|(_, content)| content).collect(), need)))
    }

    fn content(
        &mut self,
        media: &str,
        site: &Site,
        contents: &mut Vec<(u8, Content)>,
    ) -> Result<(), Wrong> {
        let name = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let (width, range) = match (&*name, MediaRange::parse(&name)) {
            ("*/*", _) => (2, Range::Any),
            (name, Some(range)) => (u8::from(name.ends_with("/*")), Range::Of(range)),
            (_, None) => {
                let fix = "write one such as application/json, text/* or */*";
                return Err(site.wrong(format!("`{media}` is no media type"), fix));
            }
        };
        let schema = site.member("schema");
        let takes_json = range.takes(b"application/json");
        let kind = if is_json(name.as_bytes()) || (takes_json && width > 0) {
            let schema = match &schema {
                Some(schema) => Some(self.compiled(Some(schema), site)?.0),
                None => None,
            };
            Kind::Json(schema)
        } else if let Some(schema) = &schema {
            let (compiled, shape) = self.compiled(Some(schema), site)?;
            match &*name {
                "application/x-www-form-urlencoded" => Kind::Form(compiled, shape),
                "text/plain" if shape.types == Types::STRING => Kind::Text(compiled),
                _ => Kind::Opaque,
            }
        } else {
            Kind::Opaque
        };
        if width > 0 && takes_json {
            // JSON of them is looked into, the rest is not.
            contents.push((width, Content { range: Range::Json, kind }));
            contents.push((width, Content { range, kind: Kind::Opaque }));
        } else {
            contents.push((width, Content { range, kind }));
        }
        Ok(())
    }
}

/// Where a place in a bundle is from.
fn whence<'s>(site: &'s Site, sites: &'s [Site], pointer: &'s str) -> (&'s Site, &'s str) {
    let Some(rest) = pointer.strip_prefix("/$defs/d") else { return (site, pointer) };
    let (number, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match number.parse::<usize>().ok().and_then(|number| sites.get(number)) {
        Some(site) => (site, rest),
        None => (site, pointer),
    }
}

fn same_name(from: Location, a: &str, b: &str) -> bool {
    if from == Location::Header { a.eq_ignore_ascii_case(b) } else { a == b }
}

fn style(site: &Site, from: Location) -> Result<Style, Wrong> {
    let style = match site.text("style") {
        None => return Ok(usual_style(from)),
        Some("form") => Some(Style::Form),
        Some("simple") => Some(Style::Simple),
        Some("label") => Some(Style::Label),
        Some("matrix") => Some(Style::Matrix),
        Some("spaceDelimited") => Some(Style::Space),
        Some("pipeDelimited") => Some(Style::Pipe),
        Some("deepObject") => Some(Style::Deep),
        Some(_) => None,
    };
    style.filter(|style| has_style(from, *style)).ok_or_else(|| {
        let what = format!("a parameter of the {} has no such style", from.word());
        site.wrong(what, "leave `style` out, or write one that OpenAPI has for it")
    })
}
