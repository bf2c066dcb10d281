//! The policies of a route, gathered from itself and its sets, and compiled.

use std::{path::Path, sync::Arc};

use super::{
    TOP, addresses, auth, authorize, concurrency, consumers, nobody, oidc, quotas, rate_limits,
    redis,
    routes::{bodiless, body},
    rules::{PathCondition, no_such},
    schemas, transform, validate, web,
};
use crate::{
    config::{
        decode::{At, Sink},
        file::{self, Errors, File, PolicyKeys, Route},
        report::Problem,
        snapshot::{
            self, Consumers, ErrorFormat, Maintenance, Policies, RateLimit, Redis, Respond, Way,
        },
    },
    policy::{
        compress::{Compress, Decompress},
        permit::Gate,
        template::{self, Known, Template},
        validate::Validation,
    },
};

/// What the policies of several routes name, compiled once.
pub(super) struct Shared<'f> {
    /// Where files named in the configuration are.
    pub folder: &'f Path,
    pub lists: addresses::Known,
    pub rules: authorize::Known<'f>,
    pub rate_limits: Vec<RateLimit>,
    pub redis: Vec<Redis>,
    pub concurrency: Vec<snapshot::Concurrency>,
    pub ways: Vec<Way>,
    pub consumers: Consumers,
    pub schema_files: Arc<schemas::Files>,
}

impl<'f> Shared<'f> {
    pub fn of(file: &'f File, folder: &'f Path, sink: &mut Sink) -> Shared<'f> {
        let lists = addresses::lists(file, folder, sink);
        let rules = authorize::Known::of(file, &lists, sink);
        let redis = redis::servers(file, folder, sink);
        let mut rate_limits = rate_limits::rate_limits(file, &redis, sink);
        rate_limits.extend(quotas::quotas(file, sink));
        let concurrency = concurrency::concurrency(file, sink);
        let (consumers, credentials) = consumers::check(file, &rate_limits, folder, sink);
        let ways = auth::ways(file, credentials, folder, sink);
        let shared = Shared {
            folder,
            lists,
            rules,
            rate_limits,
            redis,
            concurrency,
            ways,
            consumers,
            schema_files: Arc::default(),
        };
        // Also those that no route names; what is reported again for a route is told once.
        for set in file.policies.value.0.iter().filter_map(|(_, set)| set.as_ref()) {
            compiled(&set.policies(), file, &shared, Of::Set, sink);
        }
        shared
    }
}

/// The route of requests that the gateway makes itself: nothing is asked of them.
pub(super) fn aside() -> snapshot::Route {
    snapshot::Route::aside(Gate::of(None))
}

/// Those of `route`.
pub(super) fn policies(
    file: &File,
    shared: &Shared<'_>,
    (route, described): (&Route, &Option<Arc<Validation>>),
    condition: &PathCondition,
    sink: &mut Sink,
) -> Gate<Policies> {
    let written = gathered(file, route, sink);
    let of = Of::Route { route, params: &condition.params };
    let mut policies = compiled(&written, file, shared, of, sink);
    // What a document says of a route counts before its sets.
    policies.validate = described.clone().or(policies.validate);
    if let Some(place) = route.grpc_web.place().filter(|_| *route.grpc_web && policies.shapes()) {
        let title = "calls of gRPC-Web cannot be changed or bounded on their way";
        let fix = "take `transform_response`, `compress`, `decompress`, `max_response_body`, and \
                   `json` and `form` of `transform_request`, and what `validate` asks of bodies, \
                   away from this route, and write content_digest = false in `[signatures]` that \
                   it asks for";
        sink.push(Problem::error(place, title).fix(fix));
    }
    Gate::of(policies.asks().then(|| Box::new(policies)))
}

/// Whose policies they are.
#[derive(Clone, Copy)]
pub(super) enum Of<'r> {
    /// A set's, which says nothing of the routes that will name it.
    Set,
    /// A route's, with the parameters of its path.
    Route { route: &'r Route, params: &'r [String] },
}

impl<'r> Of<'r> {
    /// The parameters of its path, as far as they are known.
    pub fn params(self) -> Option<&'r [String]> {
        match self {
            Of::Set => None,
            Of::Route { params, .. } => Some(params),
        }
    }
}

/// What is written, as the data path uses it.
fn compiled(
    written: &PolicyKeys<'_>,
    file: &File,
    shared: &Shared<'_>,
    of: Of<'_>,
    sink: &mut Sink,
) -> Policies {
    let (request, response) = (&written.transform_request, &written.transform_response);
    let params = of.params();
    let authenticate = auth::authenticate(file, written, &shared.ways, sink);
    // One that is wrong was reported.
    let asks = authenticate.is_some() || written.authenticate.is_wrong();
    if let (Of::Route { .. }, false) = (of, asks) {
        nobody::limits(written.rate_limits, &shared.rate_limits, sink);
    }
    let own_fields = authenticate.as_ref().map(|asked| auth::own_fields(asked, &shared.ways));
    Policies {
        authenticate,
        own_fields: own_fields.unwrap_or_default(),
        own_cookies: oidc::own_cookies(file, of),
        maintenance: maintenance(written, shared, sink),
        addresses: shared.lists.policy(written.addresses, sink),
        cors: web::cors(written.cors, of, sink),
        user_agents: web::user_agents(written.user_agents, sink),
        csrf: written.csrf.as_ref().map(web::csrf),
        authorization: shared.rules.policy(written.authorize, &shared.lists, (of, asks), sink),
        response_bytes_max: written.max_response_body.map(|bytes| bytes.0),
        security_lines: written.security_headers.as_ref().map(web::security),
        rate_limits: rate_limits::of_route(
            file,
            &shared.rate_limits,
            (written.rate_limits, written.quotas),
            sink,
        ),
        concurrency: concurrency::of_route(file, written.concurrency, sink),
        validate: validate::validate(written.validate, shared, of, sink),
        transform_request: request
            .as_ref()
            .zip(params)
            .map(|(w, params)| transform::request(w, (params, asks), sink)),
        transform_response: response
            .as_ref()
            .zip(params)
            .map(|(w, params)| transform::response(w, (params, asks), sink)),
        errors: written.errors.some().and_then(|written| errors(&written, sink)),
        compress: written.compress.as_ref().map(|written| compress(written, sink)),
        decompress: written.decompress.as_ref().map(|w| decompress(w, file, of)),
    }
}

/// What the route says, and else its sets.
fn gathered<'f>(file: &'f File, route: &'f Route, sink: &mut Sink) -> PolicyKeys<'f> {
    let own = route.policies();
    let known = &file.policies.value.0;
    let mut all = own;
    for name in route.policies.iter() {
        match known.iter().find(|(set, _)| set.value == name.value.0) {
            Some((_, Some(set))) => all = all.or(&own, &set.policies(), sink),
            // It is wrong, and reported.
            Some((_, None)) => {}
            None if file.policies.is_wrong() => {}
            None => {
                let names: Vec<&str> = known.iter().map(|(set, _)| set.value.as_str()).collect();
                let place = name.place().unwrap_or(TOP);
                sink.push(no_such("set of policies", "policies", &name.value.0, place, &names));
            }
        }
    }
    all
}

/// A format of errors.
pub(super) fn errors(written: &At<Errors>, sink: &mut Sink) -> Option<ErrorFormat> {
    let content_type = written.content_type.0.clone();
    let place = match content_type.split(';').next().unwrap_or_default().trim() {
        "application/json" => template::Place::Json,
        media if media.ends_with("+json") => template::Place::Json,
        "text/html" | "application/xhtml+xml" | "application/xml" | "text/xml" => {
            template::Place::Html
        }
        _ => template::Place::Plain,
    };
    let at = written.body.place().unwrap_or(TOP);
    match Template::compile(&written.body, &[], Known::Refusal) {
        Ok(body) => Some(ErrorFormat { content_type, body, place }),
        Err(message) => {
            sink.push(transform::said(&message, at));
            None
        }
    }
}

fn compress(written: &file::Compress, sink: &mut Sink) -> Compress {
    if let Some(place) = written.codings.place().filter(|_| written.codings.is_empty()) {
        let title = "`codings` is empty, so nothing would be compressed";
        sink.push(Problem::error(place, title).fix("write codings = [\"gzip\"], or remove it"));
    }
    Compress {
        codings: written.codings.iter().map(|coding| coding.value).collect(),
        types: written.types.iter().filter_map(|media| media.value.range()).collect(),
        bytes_min: written.min_size.0,
        effort: *written.effort,
    }
}

fn decompress(written: &file::Decompress, file: &File, of: Of<'_>) -> Decompress {
    let of_route = match of {
        Of::Set => None,
        Of::Route { route, .. } => route.max_body.value,
    };
    let bytes_max = written.max_size.value.or(of_route);
    Decompress {
        bytes_max: bytes_max.unwrap_or(file.limits.body.value).0,
        ratio_max: *written.max_ratio,
    }
}

fn maintenance(
    written: &PolicyKeys<'_>,
    shared: &Shared<'_>,
    sink: &mut Sink,
) -> Option<Maintenance> {
    let rule = written.maintenance.value.as_ref()?;
    let place = written.maintenance.place().unwrap_or(TOP);
    // Bounded by the file's maximum.
    let seconds = rule.retry_after.0.div_ceil(1000);
    let page = rule.respond.value.as_ref().map(|page| {
        let body = body(&page.body, &page.body_file, shared.folder, sink);
        let status = *page.status;
        bodiless(status, &body, page.status.place().unwrap_or(place), sink);
        let content_type = page.content_type.0.clone();
        Respond { status, content_type, body, headers: Vec::new() }
    });
    Some(Maintenance {
        retry_after_s: u32::try_from(seconds).unwrap_or(u32::MAX),
        allow: shared.lists.find(&rule.allow, sink),
        page,
    })
}
