//! What a route's policies say of a request, in the order in which they are asked.

use std::{net::IpAddr, rc::Rc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;

use super::{Told, credentials::NOBODY, line, shown};
use crate::{
    config::{
        Snapshot,
        snapshot::{Policies, Route},
    },
    policy::{
        Refusal,
        addresses::{Addresses, Verdict},
        authorize::{Authorization, Effect, Facts, Miss, Rule},
        client,
        cors::{Cors, preflight},
        identity::{Identity, Shown},
        refusal,
        route::RouteMatch,
        validate::{Asked, Kind, Validation},
    },
    wire::Reason,
};

/// Who asks, as given on the command line.
#[derive(Debug, Default)]
pub struct Asker {
    /// The other end of the connection. Default: this machine.
    pub client: Option<IpAddr>,
    /// Nothing of it is verified.
    pub identity: Option<Identity>,
}

impl Asker {
    /// From `--client`, `--claims` and `--token`.
    pub fn of(
        client: Option<IpAddr>,
        claims: Option<&str>,
        token: Option<&str>,
    ) -> Result<Asker, String> {
        let text = match (claims, token) {
            (None, None) => None,
            (Some(claims), _) => Some(claims.to_owned()),
            (None, Some(token)) => Some(payload(token)?),
        };
        let identity = text.map(|text| identity(&text)).transpose()?;
        Ok(Asker { client, identity })
    }
}

/// The claims of a signed token. Its signature is not looked at.
fn payload(token: &str) -> Result<String, String> {
    let fix = "`--token` wants a JWT, three parts with dots between them";
    let middle = token.split('.').nth(1).filter(|_| token.split('.').count() == 3);
    let bytes = middle.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
    bytes.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(|| fix.to_owned())
}

/// The identity that claims are usually read as.
fn identity(text: &str) -> Result<Identity, String> {
    let wrong =
        |error| format!("the claims are no JSON object: {error}; write '{{\"sub\": \"alice\"}}'");
    let claims: serde_json::Map<String, Value> = serde_json::from_str(text).map_err(wrong)?;
    let names = |keys: [&str; 2]| -> Rc<[Box<str>]> {
        let value = keys.iter().find_map(|key| claims.get(*key));
        match value {
            Some(Value::String(text)) => text.split_ascii_whitespace().map(Box::from).collect(),
            Some(Value::Array(list)) => {
                list.iter().filter_map(Value::as_str).map(Box::from).collect()
            }
            _ => Rc::default(),
        }
    };
    let (scopes, groups) = (names(["scope", "scp"]), names(["groups", "roles"]));
    let subject = claims.get("sub").and_then(Value::as_str).unwrap_or_default();
    let plain = Identity::plain(Shown::Token, "command line".into(), subject.into());
    Ok(Identity { scopes, groups, claims: Rc::new(claims), ..plain })
}

impl Told<'_> {
    /// Asks the policies of a route. Answers whether the request is answered by them.
    pub(super) fn policies(
        &self,
        snapshot: &Snapshot,
        route: &Route,
        found: &RouteMatch,
        text: &mut String,
    ) -> Result<bool, Refusal> {
        let Some(policies) = route.policies.policies() else { return Ok(false) };
        let asker = &self.message.asker;
        let peer = asker.client.unwrap_or(IpAddr::from([127, 0, 0, 1]));
        let trusted = &snapshot.forwarding.trusted_proxies;
        let client = client::client_address(Some(peer), trusted, self.head, self.bytes()).ip;
        let asked = policies.cors.as_ref().zip(preflight::of(&self.view()));
        if let Some(maintenance) = policies.maintenance.as_ref().filter(|_| asked.is_none()) {
            if maintenance.allow.find(client).is_none() {
                return Err(refusal::MAINTENANCE.into());
            }
            line(text, "maintenance", "closed, but not for this client");
        }
        if let Some(addresses) = &policies.addresses {
            by_address(addresses, client, asker, text)?;
        }
        if let Some((cors, asked)) = asked {
            return preflight_told(cors, &asked, text);
        }
        self.web(policies, text)?;
        let shown = match &policies.authenticate {
            Some(rule) if asker.identity.is_none() => self.shown(snapshot, rule, text)?,
            _ => None,
        };
        let identity = asker.identity.as_ref().or(shown.as_deref());
        if let Some(rules) = &policies.authorization {
            let consumer = identity.and_then(|known| known.consumer);
            let facts = Facts {
                identity,
                consumer: consumer.map(|one| snapshot.consumers.all.name(one)),
                request: self.view(),
                matched: found,
                scheme: self.message.scheme,
                client,
                now_s: || clock_gettime(ClockId::Realtime).tv_sec,
            };
            self.rules(rules, &facts, text)?;
        }
        self.limits(snapshot, policies, (identity, client), text);
        if let Some(rule) = &policies.validate {
            self.validated(rule, found, text)?;
        }
        Ok(false)
    }

    fn web(&self, policies: &Policies, text: &mut String) -> Result<(), Refusal> {
        let field = |name| preflight::single(self.head, self.bytes(), name);
        if let Some(rule) = &policies.user_agents {
            let is_refused = rule.refuse(field(b"user-agent"));
            judged("user_agents", is_refused.then_some(refusal::USER_AGENT), rule.shadow, text)?;
        }
        if let Some(rule) = &policies.csrf {
            let is_refused = rule.refuse(&self.view(), self.authority());
            judged("csrf", is_refused.then_some(refusal::CSRF_ORIGIN), rule.shadow, text)?;
        }
        if let Some(cors) = &policies.cors {
            let mut lines = Vec::new();
            cors.fields(field(b"origin"), &mut lines);
            told_lines("cors", &lines, text);
        }
        if let Some(lines) = &policies.security_lines {
            told_lines("unless said", lines, text);
        }
        Ok(())
    }

    /// What is checked of the request; there is no body to look into.
    fn validated(
        &self,
        rule: &Validation,
        found: &RouteMatch,
        text: &mut String,
    ) -> Result<(), Refusal> {
        let decided = rule.parameters(Asked { view: &self.view(), matched: found });
        let refused = decided.and_then(|slow| rule.slow(&slow)).err();
        if let Some((_, fault)) = &refused {
            line(text, "wrong", &shown(fault.sentence().as_bytes()));
        }
        judged("validate", refused.map(|(reason, _)| reason), rule.shadow, text)?;
        let Some(body) = &rule.body else { return Ok(()) };
        for content in &body.contents {
            let what = match &content.kind {
                Kind::Opaque => "taken as it is",
                Kind::Json(None) => "has to be well-formed",
                Kind::Json(Some(_)) | Kind::Form(..) | Kind::Text(_) => "has to match its schema",
            };
            line(text, "body", &format!("{}: {what}", content.range));
        }
        if body.contents.is_empty() {
            line(text, "body", "none is taken");
        }
        Ok(())
    }

    /// Every rule, up to the one that decides.
    fn rules(
        &self,
        rules: &Authorization,
        facts: &Facts<'_>,
        text: &mut String,
    ) -> Result<(), Refusal> {
        match (facts.identity, &self.message.asker.identity) {
            // It was told where credentials were looked for.
            (None, _) if text.contains("\nidentity ") => {}
            (None, _) => line(text, "identity", NOBODY),
            (Some(_), Some(given)) => {
                let who = format!("{} (as given, not verified)", given.subject.escape_debug());
                line(text, "identity", &who);
            }
            // It was told when it was verified.
            (Some(_), None) => {}
        }
        let decision = rules.decide(facts);
        let decided = decision.rule.map_or(rules.rules.len(), |at| at + 1);
        for (at, rule) in rules.rules[..decided].iter().enumerate() {
            let title = if at == 0 { "rules" } else { "" };
            line(text, title, &rule_told(rule, facts));
        }
        if decision.rule.is_none() {
            line(text, "", "no rule matches: denied");
        }
        if decision.reason().is_some() && decision.needs_identity {
            line(text, "", "with an identity, a rule before that might allow it");
        }
        judged("authorize", decision.reason(), rules.shadow, text)
    }
}

fn rule_told(rule: &Rule, facts: &Facts<'_>) -> String {
    let name = &rule.name;
    match (rule.miss(facts), rule.effect) {
        (None, Effect::Allow) => format!("{name}: matches, allows it"),
        (None, Effect::Deny) => format!("{name}: matches, denies it"),
        (Some(miss), _) => format!("{name}: does not match, {}", why(&miss, facts)),
    }
}

fn why(miss: &Miss, facts: &Facts<'_>) -> String {
    match miss {
        Miss::Method => "not for this method".to_owned(),
        Miss::Param(name) => format!("the parameter {name} is another"),
        Miss::Header(name) => format!("the field {name} is another"),
        Miss::Client => {
            let ip = facts.client.map_or("no address".to_owned(), |ip| ip.to_string());
            format!("not for the address {ip}")
        }
        Miss::Time => "not at this time".to_owned(),
        Miss::Anonymous => "it asks who the client is".to_owned(),
        Miss::Known => "only for clients that are not known".to_owned(),
        Miss::Subject => "for other subjects".to_owned(),
        Miss::Consumer => "for other consumers".to_owned(),
        Miss::Group => "in none of its groups".to_owned(),
        Miss::Scope(name) => format!("without the scope {name}"),
        Miss::Claim(name) => format!("the claim {name} is another, or not there"),
        Miss::When => "its expression is false".to_owned(),
        Miss::WhenFailed(why) => format!("its expression cannot be told: {why}"),
    }
}

fn by_address(
    addresses: &Addresses,
    client: Option<IpAddr>,
    asker: &Asker,
    text: &mut String,
) -> Result<(), Refusal> {
    let assumed =
        if asker.client.is_none() { " (assumed; name another with --client)" } else { "" };
    let ip = client.map_or("none".to_owned(), |ip| ip.to_string());
    line(text, "client", &format!("{ip}{assumed}"));
    let (words, reason) = match addresses.verdict(client) {
        Verdict::Allowed(None) => ("on no list of those that are denied".to_owned(), None),
        Verdict::Allowed(Some(list)) => (format!("allowed by {list}"), None),
        Verdict::Denied(list) => (format!("denied by {list}"), Some(refusal::CLIENT_ADDRESS)),
        Verdict::NotAllowed => {
            ("on no list of those that are allowed".to_owned(), Some(refusal::CLIENT_ADDRESS))
        }
    };
    line(text, "addresses", &words);
    judged("", reason, addresses.shadow, text)
}

/// Refuses, or says that it is only told.
fn judged(
    what: &str,
    reason: Option<&'static Reason>,
    is_shadow: bool,
    text: &mut String,
) -> Result<(), Refusal> {
    match reason {
        None if what.is_empty() => Ok(()),
        None => {
            line(text, what, "passed");
            Ok(())
        }
        Some(reason) if is_shadow => {
            let (status, token) = (reason.status, reason.token);
            line(text, what, &format!("would be refused with {status} {token}: shadow = true"));
            Ok(())
        }
        Some(reason) => Err(reason.into()),
    }
}

fn preflight_told(
    cors: &Cors,
    asked: &preflight::Preflight<'_>,
    text: &mut String,
) -> Result<bool, Refusal> {
    let mut lines = Vec::new();
    cors.preflight(asked, &mut lines)?;
    line(text, "answers", "204: a CORS preflight, which needs no upstream");
    told_lines("", &lines, text);
    Ok(true)
}

/// Field lines of the response.
fn told_lines(what: &str, lines: &[u8], text: &mut String) {
    let lines = lines.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    for (at, field) in lines.enumerate() {
        line(text, if at == 0 { what } else { "" }, &shown(field.trim_ascii()));
    }
}
