//! Policies for browsers: CORS, CSRF, what clients call themselves, careful response fields.

use regex::bytes::RegexSet;

use super::{TOP, policies::Of};
use crate::{
    config::{
        decode::{At, Sink},
        file::{self, Frames, UpstreamCors},
        report::Problem,
        values::{self, CorsOrigin, FieldNameOrAny},
    },
    policy::{
        cors::{Cors, Headers, Methods, Origin, Origins},
        csrf::Csrf,
        user_agents::UserAgents,
    },
    wire::emit,
};

/// The policy `cors`.
pub(super) fn cors(written: &At<Option<file::Cors>>, of: Of<'_>, sink: &mut Sink) -> Option<Cors> {
    let rule = written.value.as_ref()?;
    check_origins(rule, written, sink);
    let any = rule.origins.iter().any(|origin| matches!(origin.value, CorsOrigin::Any));
    let origins = match any {
        true => Origins::Any,
        false => Origins::Some(rule.origins.iter().filter_map(|one| origin(&one.value)).collect()),
    };
    let expose: Vec<&str> = rule.expose.iter().map(|name| name.0.as_str()).collect();
    Some(Cors {
        origins,
        methods: methods(rule, of),
        headers: headers(&rule.headers),
        credentials: *rule.credentials,
        expose: expose.join(", ").into(),
        // Bounded by the file's maximum.
        max_age_s: u32::try_from(rule.max_age.0 / 1000).unwrap_or(u32::MAX),
        private_network: *rule.private_network,
        keeps_upstreams: *rule.upstream_fields == UpstreamCors::Keep,
    })
}

fn check_origins(rule: &file::Cors, written: &At<Option<file::Cors>>, sink: &mut Sink) {
    if rule.origins.is_empty() && !rule.origins.is_wrong() {
        let place = rule.origins.place().or(written.place()).unwrap_or(TOP);
        let title = "`cors` has no origin, so no page may use the route";
        let fix = "write origins = [\"https://app.example.com\"], or remove `cors`";
        sink.push(Problem::error(place, title).fix(fix));
    }
    let any = rule.origins.iter().find(|origin| matches!(origin.value, CorsOrigin::Any));
    if let (Some(any), true) = (any, rule.origins.len() > 1) {
        let title = "\"*\" is every origin, so the others have no effect";
        sink.push(
            Problem::error(any.place().unwrap_or(TOP), title).fix("remove it, or the others"),
        );
    }
    let secrets = rule.credentials.place().filter(|_| *rule.credentials);
    let null = |origin: &&At<CorsOrigin>| matches!(&origin.value, CorsOrigin::Exact(text) if text == "null");
    let loose = any.or_else(|| rule.origins.iter().find(null));
    if let (Some(place), Some(loose)) = (secrets, loose) {
        let title =
            "with `credentials` every page could use the route in the name of who looks at it";
        let problem = Problem::error(place, title)
            .related(loose.place().unwrap_or(TOP), "any page can have this origin");
        sink.push(problem.fix("name the origins of your pages, or remove `credentials`"));
    }
}

fn origin(written: &CorsOrigin) -> Option<Origin> {
    Some(match written {
        CorsOrigin::Any => return None,
        CorsOrigin::Exact(text) => Origin::Exact(text.as_str().into()),
        CorsOrigin::Below(before, behind) => {
            Origin::Below { before: before.as_str().into(), behind: behind.as_str().into() }
        }
        CorsOrigin::Regex(regex) => Origin::Regex(regex.clone()),
    })
}

fn methods(rule: &file::Cors, of: Of<'_>) -> Methods {
    let own = &rule.methods.value;
    let of_route = match of {
        Of::Route { route, .. } => route.methods.value.as_slice(),
        Of::Set => &[],
    };
    let written = if own.is_empty() { of_route } else { own };
    let mut names: Vec<&str> = written.iter().map(|name| name.0.as_str()).collect();
    if names.is_empty() {
        names = vec!["GET", "HEAD", "POST"];
    } else if names.contains(&"GET") && !names.contains(&"HEAD") {
        names.push("HEAD");
    }
    Methods { value: names.join(", ").into(), names: names.into_iter().map(Box::from).collect() }
}

/// Fields that every page may send (Fetch, "CORS-safelisted request-header"): browsers ask for them
/// where their value is unusual.
const SAFE_FIELDS: [&str; 4] = ["accept", "accept-language", "content-language", "range"];

fn headers(written: &[At<FieldNameOrAny>]) -> Headers {
    if written.iter().any(|name| name.0 == "*") {
        return Headers::Any;
    }
    let value: Vec<&str> = written.iter().map(|name| name.0.as_str()).collect();
    let names = value.iter().map(|name| name.to_ascii_lowercase());
    let safe = SAFE_FIELDS.iter().map(|name| (*name).to_owned());
    Headers::Some {
        names: names.chain(safe).map(String::into_boxed_str).collect(),
        value: value.join(", ").into(),
    }
}

/// The policy `csrf`.
pub(super) fn csrf(rule: &file::Csrf) -> Csrf {
    Csrf {
        origins: rule.origins.iter().map(|origin| origin.0.as_str().into()).collect(),
        required: *rule.required,
        shadow: *rule.shadow,
    }
}

/// The policy `user_agents`.
pub(super) fn user_agents(
    written: &At<Option<file::UserAgents>>,
    sink: &mut Sink,
) -> Option<UserAgents> {
    let rule = written.value.as_ref()?;
    let place = written.place().unwrap_or(TOP);
    if let (Some(allow), true) = (rule.allow.place(), rule.deny.is_empty())
        && !rule.allow.is_empty()
        && !rule.deny.is_wrong()
    {
        let title = "`allow` is for clients that `deny` is for too, and there is no `deny`";
        sink.push(Problem::error(allow, title).fix("add deny = [\"(?i)bot\"], or remove `allow`"));
    }
    let mut set = |patterns: &[At<values::UserAgent>]| {
        let texts = patterns.iter().map(|pattern| pattern.0.text.as_str());
        RegexSet::new(texts).unwrap_or_else(|error| {
            let title = format!("the patterns are too much together: {error}");
            sink.push(Problem::error(place, title).fix("write fewer, or simpler ones"));
            RegexSet::empty()
        })
    };
    Some(UserAgents {
        deny: set(&rule.deny),
        allow: set(&rule.allow),
        required: *rule.required,
        shadow: *rule.shadow,
    })
}

/// The policy `security_headers`: whole lines.
pub(super) fn security(rule: &file::SecurityHeaders) -> Box<[u8]> {
    let nosniff = if *rule.nosniff { "nosniff" } else { "" };
    let frames = match *rule.frames {
        Frames::Deny => "DENY",
        Frames::SameOrigin => "SAMEORIGIN",
        Frames::Off => "",
    };
    let mut lines = Vec::new();
    for (name, value) in [
        ("X-Content-Type-Options", nosniff),
        ("X-Frame-Options", frames),
        ("Referrer-Policy", &rule.referrer.0),
        ("Content-Security-Policy", &rule.content_security_policy.0),
        ("Content-Security-Policy-Report-Only", &rule.content_security_policy_report_only.0),
        ("Permissions-Policy", &rule.permissions.0),
        ("Cross-Origin-Opener-Policy", &rule.opener.0),
        ("Cross-Origin-Resource-Policy", &rule.resource.0),
        ("Cross-Origin-Embedder-Policy", &rule.embedder.0),
    ] {
        if !value.is_empty() {
            emit::field(&mut lines, name.as_bytes(), value.as_bytes());
        }
    }
    lines.into()
}
