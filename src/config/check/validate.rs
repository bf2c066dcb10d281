//! The policy `validate`: schemas compiled, parameters found in the route's path.

use std::sync::Arc;

use super::{
    TOP,
    policies::{Of, Shared},
    schemas,
};
use crate::{
    config::{
        decode::{At, Sink, list, nearest, quoted},
        file::{self, ValidateParameter},
        report::Problem,
        values::SchemaText,
    },
    policy::{
        compress::MediaRange,
        validate::{
            Body, Content, Kind, Need, Parameter, Range, Validation,
            fault::Location,
            is_json,
            parameter::{Shape, Style},
            schema::Schema,
            types::{Fuel, In},
        },
    },
};

/// The policy `validate`.
pub(super) fn validate(
    written: &At<Option<file::Validate>>,
    shared: &Shared<'_>,
    of: Of<'_>,
    sink: &mut Sink,
) -> Option<Arc<Validation>> {
    let rule = written.value.as_ref()?;
    let place = written.place().unwrap_or(TOP);
    let schema = rule.body.some().and_then(|name| body_schema(&name, rule, shared, sink));
    let asks_nothing = rule.body.place().is_none()
        && !*rule.json
        && rule.content_types.is_empty()
        && rule.parameters.is_empty()
        && !*rule.strict_query;
    if asks_nothing && !rule.content_types.is_wrong() && !rule.parameters.is_wrong() {
        let title = "`validate` asks for nothing";
        let fix = "add body = \"schema.json\", parameters or content_types";
        sink.push(Problem::error(place, title).fix(fix));
    }
    check_useless(rule, sink);
    let parameters =
        rule.parameters.iter().filter_map(|one| parameter(one, rule, shared, of, sink));
    let parameters: Vec<Parameter> = parameters.collect();
    check_twice(rule, sink);
    Some(Arc::new(Validation {
        parameters: parameters.into(),
        strict_query: *rule.strict_query,
        body: body(rule, schema.as_ref()),
        shadow: *rule.shadow,
    }))
}

/// What bodies are like.
fn body(rule: &file::Validate, schema: Option<&Schema>) -> Option<Body> {
    let is_checked = rule.body.place().is_some() || *rule.json;
    if !is_checked && rule.content_types.is_empty() {
        return None;
    }
    let mut contents = Vec::new();
    let checked = || Content { range: Range::Json, kind: Kind::Json(schema.cloned()) };
    for range in rule.content_types.iter().filter_map(|media| media.value.range()) {
        let name = range.to_string();
        let is_one = is_json(name.as_bytes());
        // One that takes more than JSON.
        if is_checked && !is_one && range.takes(b"application/json") {
            contents.push(checked());
        }
        let kind = if is_checked && is_one { Kind::Json(schema.cloned()) } else { Kind::Opaque };
        contents.push(Content { range: Range::Of(range), kind });
    }
    if rule.content_types.is_empty() {
        contents.push(checked());
    }
    Some(Body {
        contents: contents.into(),
        need: if is_checked && *rule.body_required { Need::Usual } else { Need::None },
        // Bounded by the file's maximum.
        bytes_max: rule.max_body.0 as usize,
        depth_max: *rule.max_depth,
    })
}

fn body_schema(
    name: &At<String>,
    rule: &file::Validate,
    shared: &Shared<'_>,
    sink: &mut Sink,
) -> Option<Schema> {
    match schemas::in_file(&shared.schema_files, shared.folder, &name.value, *rule.formats) {
        Ok(found) => Some(found.schema),
        Err(why) => {
            let fix = "name a file with a JSON Schema, relative to this configuration";
            let (what, fix) = why.split_once("; ").unwrap_or((&why, fix));
            sink.push(Problem::error(name.place().unwrap_or(TOP), what).fix(fix));
            None
        }
    }
}

/// Keys that have no effect.
fn check_useless(rule: &file::Validate, sink: &mut Sink) {
    if rule.body.place().is_some() || *rule.json {
        let media = rule.content_types.iter().filter_map(|media| media.value.range());
        let is_json = |range: MediaRange| {
            is_json(range.to_string().as_bytes()) || range.takes(b"application/json")
        };
        if !rule.content_types.is_empty()
            && !rule.content_types.is_wrong()
            && !media.into_iter().any(is_json)
        {
            let title = "no body is checked: `content_types` has none of JSON";
            let place = rule.content_types.place().unwrap_or(TOP);
            let problem = Problem::error(place, title);
            sink.push(problem.fix("add \"application/json\", or take `body` and `json` away"));
        }
        return;
    }
    for (name, place) in [
        ("formats", rule.formats.place().filter(|_| rule.parameters.is_empty())),
        ("max_body", rule.max_body.place()),
        ("max_depth", rule.max_depth.place()),
        ("body_required", rule.body_required.place()),
    ] {
        if let Some(place) = place {
            let title = format!("`{name}` has no effect: bodies are not looked at");
            let fix = "add json = true, or body = \"schema.json\"; `max_body` of the route bounds \
                       every body";
            sink.push(Problem::error(place, title).fix(fix));
        }
    }
}

fn check_twice(rule: &file::Validate, sink: &mut Sink) {
    let mut seen: Vec<(Location, String)> = Vec::new();
    for written in rule.parameters.iter() {
        let name = match *written.from {
            Location::Header => written.name.to_ascii_lowercase(),
            _ => written.name.value.clone(),
        };
        let own = (*written.from, name);
        if seen.contains(&own) {
            let place = written.name.place().unwrap_or(TOP);
            let title = format!("the {} parameter `{}` is there twice", own.0.word(), own.1);
            sink.push(Problem::error(place, title).fix("remove one of the two"));
        }
        seen.push(own);
    }
}

fn parameter(
    written: &At<ValidateParameter>,
    rule: &file::Validate,
    shared: &Shared<'_>,
    of: Of<'_>,
    sink: &mut Sink,
) -> Option<Parameter> {
    let place = written.schema.place().unwrap_or(TOP);
    let formats = *rule.formats;
    let fuel = Fuel::default();
    let (schema, shape) = match &written.schema.value {
        SchemaText::Here(value) => {
            let compiled = schemas::inline(&shared.schema_files, shared.folder, value, formats);
            let compiled = compiled.map_err(|wrong| sink.push(schemas::wrong_here(&wrong, place)));
            (compiled.ok()?, Shape::of(In::whole(value, &fuel)))
        }
        SchemaText::File(name) => {
            match schemas::in_file(&shared.schema_files, shared.folder, name, formats) {
                Ok(found) => {
                    let own = found.file.0.pointer(&found.pointer).unwrap_or(&found.file.0);
                    let shape = Shape::of(In::within(&found.file.0, own, &fuel));
                    (found.schema, shape)
                }
                Err(why) => {
                    let fix = "name a file with a JSON Schema, relative to this configuration";
                    sink.push(Problem::error(place, why).fix(fix));
                    return None;
                }
            }
        }
    };
    let from = *written.from;
    let style = style(written, from, sink);
    Some(Parameter {
        name: written.name.as_str().into(),
        from,
        captured: captured(written, of, sink),
        required: *written.required || from == Location::Path,
        style,
        json: false,
        explode: written.explode.value.unwrap_or(style == Style::Form),
        allow_empty: false,
        shape,
        schema,
    })
}

/// Its style, if that is one of its place.
fn style(written: &ValidateParameter, from: Location, sink: &mut Sink) -> Style {
    let usual = usual_style(from);
    let own = written.style.value.unwrap_or(usual);
    if let Some(place) = written.style.place().filter(|_| !has_style(from, own)) {
        let title = format!("a parameter of the {} has no such style", from.word());
        let fix = match from {
            Location::Path => "write \"simple\", \"label\" or \"matrix\"",
            Location::Query => {
                "write \"form\", \"space_delimited\", \"pipe_delimited\" or \"deep_object\""
            }
            Location::Header => "write \"simple\", or leave `style` out",
            Location::Cookie => "write \"form\", or leave `style` out",
        };
        sink.push(Problem::error(place, title).fix(fix));
    }
    own
}

pub(super) fn usual_style(from: Location) -> Style {
    match from {
        Location::Query | Location::Cookie => Style::Form,
        Location::Path | Location::Header => Style::Simple,
    }
}

/// Whether parameters of a place are written so (OpenAPI 3.1 §4.8.12.2.1).
pub(super) fn has_style(from: Location, style: Style) -> bool {
    match from {
        Location::Path => matches!(style, Style::Simple | Style::Label | Style::Matrix),
        Location::Query => {
            matches!(style, Style::Form | Style::Space | Style::Pipe | Style::Deep)
        }
        Location::Header => style == Style::Simple,
        Location::Cookie => style == Style::Form,
    }
}

/// Which of the path's parameters it is.
fn captured(written: &ValidateParameter, of: Of<'_>, sink: &mut Sink) -> u8 {
    let (Location::Path, Some(known)) = (*written.from, of.params()) else { return 0 };
    let at = known.iter().position(|name| *name == written.name.value);
    if at.is_none() {
        let names: Vec<&str> = known.iter().map(String::as_str).collect();
        let fix = match nearest(&written.name.value, &names) {
            Some(near) => format!("write {}", quoted(near)),
            None if !names.is_empty() => format!("the parameters here are {}", list(&names)),
            None => "write path_template = \"/orders/{id}\" at the route".to_owned(),
        };
        let title = format!("the route's path has no parameter `{}`", written.name.value);
        sink.push(Problem::error(written.name.place().unwrap_or(TOP), title).fix(fix));
    }
    at.and_then(|at| u8::try_from(at).ok()).unwrap_or(0)
}
