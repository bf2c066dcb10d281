//! Rules of authorisation as written, see [`super`].

use schemars::{Schema, SchemaGenerator, json_schema};
use toml::de::DeValue;

use crate::{
    choice,
    config::{
        decode::{At, Decode, Sink, quoted},
        report::Place,
        values::{AddressSource, ClockTime, Days, Matches, MethodName, Name, ZoneName},
    },
    policy::authorize::Effect,
    section,
};

choice!(Effect: Effect::Allow = "allow", Effect::Deny = "deny");

section! {
    /// Rules that routes share: `authorize = ["NAME"]`. See docs/authorization.md.
    pub struct RuleSet {
        /// Rules, in their order.
        rules: Vec<At<AuthorizationRule>>, eg "[{ groups = [\"staff\"] }]";
    }

    /// A rule: when all of its conditions hold, it decides. A condition that is left out always
    /// holds.
    pub struct AuthorizationRule {
        /// For `ringway explain`. Default: its number.
        name: Option<Name> = None, eg "\"staff may read\"";
        /// What it does: `"allow"` or `"deny"` the request.
        effect: Effect = Effect::Allow;
        /// Whether the client is to have shown who it is.
        authenticated: Option<bool> = None, eg "true";
        /// The identity's subject is one of these.
        subjects: Vec<At<String>> = Vec::new();
        /// It belongs to one of these consumers.
        consumers: Vec<At<Name>> = Vec::new();
        /// It is in one of these groups.
        groups: Vec<At<String>> = Vec::new();
        /// It has all of these scopes.
        scopes: Vec<At<String>> = Vec::new();
        /// Its claims, by their names or paths (`"realm.roles"`), written like `headers`. Of a
        /// list, any entry may match.
        claims: Matches = Matches::default();
        /// Methods; `GET` includes `HEAD`.
        methods: Vec<At<MethodName>> = Vec::new();
        /// Parameters of the route's path (`path_template`, `path_regex`), written like `headers`.
        params: Matches = Matches::default();
        /// Request fields: a value, a regular expression that the whole value must match
        /// (`{ regex = "..." }`), or whether it is there (`{ present = true }`).
        headers: Matches = Matches::default();
        /// The client's address is one of these: networks, or names of lists
        /// (`[address_lists.NAME]`).
        clients: Vec<At<AddressSource>> = Vec::new();
        /// Times of the week.
        times: Option<Times> = None, eg "{ days = [\"mon-fri\"], from = \"08:00\", to = \"18:00\" }";
        /// An expression in CEL (<https://cel.dev>), looked at last. One that cannot be told counts
        /// against the client: `"allow"` does not match, `"deny"` does.
        when: Option<String> = None, eg "'params.user == identity.subject'";
    }

    /// Times of the week.
    pub struct Times {
        /// Days and ranges of them: `"mon"`, `"mon-fri"`. Default: every day.
        days: Vec<At<Days>> = Vec::new();
        /// When it begins.
        from: ClockTime = ClockTime(0);
        /// When it ends; not after `from`: on the next day, of which the day's name counts after
        /// midnight. Default: with `from`, all day.
        to: ClockTime = ClockTime(0);
        /// Time zone: a name such as `"Europe/Berlin"`.
        zone: ZoneName = ZoneName(chrono_tz::Tz::UTC);
    }

    /// Who may use a route, with a shadow mode.
    pub struct Authorize {
        /// Names of sets of rules (`[authorization.NAME]`), and rules.
        rules: Vec<At<AuthorizeEntry>>, eg "[\"staff\", { scopes = [\"read\"] }]";
        /// Refuse nobody: count what would be refused (`ringway_shadow_refusals_total`), and name
        /// the reason in access logs (`shadow`).
        shadow: bool = false;
    }
}

/// The key `authorize`: a list of rules, or a table with more to say.
#[derive(Clone, Debug)]
pub struct AuthorizeKey {
    pub rules: At<Vec<At<AuthorizeEntry>>>,
    pub shadow: bool,
}

/// The name of a set of rules, or a rule.
#[derive(Clone, Debug)]
pub enum AuthorizeEntry {
    Set(Name),
    Rule(Box<AuthorizationRule>),
}

impl Decode for AuthorizeKey {
    const EXPECTED: &'static str = "a list of rules, or a table";

    fn decode(value: &DeValue<'_>, place: Place, sink: &mut Sink) -> Option<Self> {
        if value.is_array() {
            let rules = Vec::<At<AuthorizeEntry>>::decode(value, place, sink)?;
            return Some(AuthorizeKey { rules: At::written(rules, place), shadow: false });
        }
        if let Some(name) = value.as_str() {
            let fix = format!("write [{}]", quoted(name));
            sink.wrong_type(value, place, Self::EXPECTED, &fix);
            return None;
        }
        let Authorize { rules, shadow } = Authorize::decode(value, place, sink)?;
        Some(AuthorizeKey { rules, shadow: shadow.value })
    }

    fn written(&self) -> Option<String> {
        None
    }

    fn effective(&self) -> Option<toml::Value> {
        let rules = self.rules.value.effective()?;
        let shadow = toml::Value::Boolean(self.shadow);
        let entries = [("rules".to_owned(), rules), ("shadow".to_owned(), shadow)];
        Some(toml::Value::Table(entries.into_iter().collect()))
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let list = Vec::<At<AuthorizeEntry>>::schema(generator);
        let table = generator.subschema_for::<Authorize>();
        json_schema!({ "oneOf": [list, table] })
    }
}

impl Decode for AuthorizeEntry {
    const EXPECTED: &'static str = "the name of a set of rules, or a rule";

    fn decode(value: &DeValue<'_>, place: Place, sink: &mut Sink) -> Option<Self> {
        if value.is_table() {
            let rule = AuthorizationRule::decode(value, place, sink)?;
            return Some(AuthorizeEntry::Rule(Box::new(rule)));
        }
        if value.as_str().is_none() {
            let fix = "write \"NAME\" for [authorization.NAME], or { groups = [\"staff\"] }";
            sink.wrong_type(value, place, Self::EXPECTED, fix);
            return None;
        }
        Name::decode(value, place, sink).map(AuthorizeEntry::Set)
    }

    fn written(&self) -> Option<String> {
        match self {
            AuthorizeEntry::Set(name) => name.written(),
            AuthorizeEntry::Rule(_) => None,
        }
    }

    fn effective(&self) -> Option<toml::Value> {
        match self {
            AuthorizeEntry::Set(name) => name.effective(),
            AuthorizeEntry::Rule(rule) => rule.effective(),
        }
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let rule = generator.subschema_for::<AuthorizationRule>();
        json_schema!({ "oneOf": [{ "type": "string" }, rule] })
    }
}
