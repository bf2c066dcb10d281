//! The reference of all keys, as Markdown and as a configuration file, made from [`super::file`].
//!
//! Both are committed (`docs/configuration.md`, `config/reference.toml`); a test compares them with
//! what is made here.

use super::{
    decode::{Key, Section, Shape},
    file::{
        Acme, AuthorizationRule, Certificate, ExternalAccount, File, ListenerTls, Passthrough,
        Redirect, Respond, Times, ValidateParameter,
    },
    values::{LogTemplate, Match, WeightedEndpoint},
};

/// Column at which comments are wrapped.
const WIDTH: usize = 96;

/// Name given to a section whose name is the operator's. Those of ways to authenticate differ.
fn sample_name(section: &str) -> &'static str {
    match section {
        "api_keys" => "keys",
        "basic" => "people",
        "consumers" => "alice",
        "plans" => "gold",
        "forward_auth" => "service",
        "introspection" => "provider",
        "signatures" => "signed",
        "quotas" => "monthly",
        "concurrency" => "uploads",
        "oidc" => "login",
        _ => "orders",
    }
}

/// Keys without default that the reference file sets, since something has to be done with requests.
const SET_THOUGH_OPTIONAL: [&str; 7] = [
    "routes.path",
    "routes.upstream",
    "routes.redirect.scheme",
    "concurrency.uploads.limit",
    "quotas.monthly.amount",
    "rate_limits.orders.rate",
    "jwt.orders.issuer",
];

const FILE_HEAD: &str = "\
Every key of a Ringway configuration, at its default. A file needs none of them but `bind`,
an action per route and `endpoints`; see quickstart.toml. Keys without a default are commented
out, with an example as value. Made from the program: `ringway schema` gives the same to editors.";

/// `config/reference.toml`.
pub fn file() -> String {
    let mut out = String::new();
    comment(&mut out, FILE_HEAD);
    for key in File::section().keys {
        match key.shape {
            Shape::Section(section) => {
                table(&mut out, &format!("[{}]", key.name), key.name, &section());
            }
            Shape::Named(section) => {
                let path = format!("{}.{}", key.name, sample_name(key.name));
                table(&mut out, &format!("[{path}]"), &path, &section());
            }
            Shape::Sections(section) => {
                table(&mut out, &format!("[[{}]]", key.name), key.name, &section());
                match key.name {
                    "routes" => actions(&mut out),
                    "listeners" => tls_listener(&mut out),
                    _ => {}
                }
            }
            Shape::Value => {}
        }
    }
    out
}

/// Two more routes: the actions that the first one, which forwards, cannot have.
fn actions(out: &mut String) {
    for (path, name, section) in
        [("/closed", "respond", Respond::section()), ("/moved", "redirect", Redirect::section())]
    {
        out.push_str(&format!("\n[[routes]]\npath = \"{path}\"\n"));
        let name = format!("routes.{name}");
        table(out, &format!("[{name}]"), &name, &section);
    }
}

/// One more listener, which speaks TLS.
fn tls_listener(out: &mut String) {
    out.push_str("\n[[listeners]]\nbind = \"0.0.0.0:8443\"\n");
    table(out, "[listeners.tls]", "listeners.tls", &ListenerTls::section());
}

fn table(out: &mut String, header: &str, path: &str, section: &Section) {
    out.push('\n');
    comment(out, &section.about);
    out.push_str(header);
    out.push('\n');
    let mut inner = Vec::new();
    // They are those of a route, with which they are shown.
    let is_of_document = path.starts_with("openapi.");
    for key in &section.keys {
        match key.shape {
            Shape::Section(section)
                if key.default.is_none() && !is_shown_apart(key) && !is_of_document =>
            {
                inner.push((key.name, section));
            }
            _ => entry(out, path, key),
        }
    }
    for (name, section) in inner {
        let path = format!("{path}.{name}");
        table(out, &format!("[{path}]"), &path, &section());
    }
}

/// A section without which the one around it is something else, or that says nothing at its
/// defaults: it is shown in a second one, or as an example.
fn is_shown_apart(key: &Key) -> bool {
    matches!(
        key.name,
        "respond"
            | "redirect"
            | "tls"
            | "certificate"
            | "addresses"
            | "external_account"
            | "validate"
    )
}

fn entry(out: &mut String, path: &str, key: &Key) {
    comment(out, &key.about);
    if let Some((min, max)) = &key.bounds {
        comment(out, &format!("From {min} to {max}."));
    }
    let value = key.default.as_deref().or(key.example).unwrap_or("{}");
    let name = format!("{path}.{}", key.name);
    let is_set = key.default.is_some() || key.required || SET_THOUGH_OPTIONAL.contains(&&*name);
    out.push_str(&format!("{}{} = {value}\n", if is_set { "" } else { "# " }, key.name));
}

fn comment(out: &mut String, text: &str) {
    let mut line = String::from("#");
    let text = unbroken_code(text);
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        if line.chars().count() + 1 + word.chars().count() > WIDTH {
            out.push_str(&line);
            out.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(&word.replace(NO_BREAK, " "));
    }
    out.push_str(&line);
    out.push('\n');
}

/// Stands for a blank where no line may end.
const NO_BREAK: char = '\u{a0}';

/// The text on one line, with no break inside of `code`.
fn unbroken_code(text: &str) -> String {
    let mut in_code = false;
    let place = |c: char| {
        in_code ^= c == '`';
        if c.is_whitespace() { if in_code { NO_BREAK } else { ' ' } } else { c }
    };
    text.chars().map(place).collect()
}

const PAGE_HEAD: &str = "\
# Configuration reference

<!-- Made from src/config/file.rs; `RINGWAY_BLESS=1 cargo test --test config` writes it anew. -->

A configuration is one [TOML](https://toml.io) file. `ringway check FILE` reports every mistake in it
at once; `ringway explain METHOD URL` tells what would be done with a request; `ringway schema`
prints a JSON Schema for completion in editors. The same keys as a file:
[`config/reference.toml`](../config/reference.toml).

Durations are a whole number with a unit: `\"250ms\"`, `\"2s\"`, `\"1m\"`, `\"1h\"`, `\"1d\"`. Sizes
likewise: `\"240B\"`, `\"64KiB\"` (65,536 bytes), `\"64KB\"` (64,000 bytes), `\"1MiB\"`, `\"1GiB\"`. A
number without unit is refused where one is needed. Unknown keys are errors.

## Which route is taken

Of all routes whose conditions hold, the first by: an exact host before a wildcard (the longest first)
before none; an exact path before a template before a regular expression before a prefix (the longest
first) before none; a method named before none; more header conditions; more query conditions; the
order in the file. A request that no route takes gets 404, 405 with `Allow` when only its method is
wrong, or 421 when no route serves its host.

Paths are normalised before they are matched: unreserved characters decoded, `//`, `/./` and `/../`
resolved, `;parameters` set aside. Write paths in that form.
";

/// `docs/configuration.md`.
pub fn page() -> String {
    let mut out = PAGE_HEAD.to_owned();
    for key in File::section().keys {
        let (title, section) = match key.shape {
            Shape::Section(section) => (format!("[{}]", key.name), section()),
            Shape::Sections(section) => (format!("[[{}]]", key.name), section()),
            Shape::Named(section) => (format!("[{}.NAME]", key.name), section()),
            Shape::Value => continue,
        };
        heading(&mut out, 2, &title, &key.about, &section);
        for inner in &section.keys {
            if let Shape::Section(deeper) = inner.shape
                && key.name != "openapi"
            {
                let title = match key.shape {
                    Shape::Named(_) => format!("[{}.NAME.{}]", key.name, inner.name),
                    _ => format!("{}.{}", key.name, inner.name),
                };
                heading(&mut out, 3, &title, &inner.about, &deeper());
            }
        }
        match key.name {
            "routes" => {
                heading(&mut out, 3, "Conditions in headers and query", "", &Match::section())
            }
            "listeners" => {
                heading(&mut out, 3, "Certificates of a listener", "", &Certificate::section());
                heading(
                    &mut out,
                    3,
                    "Certificates by themselves: `tls.acme`",
                    "",
                    &Acme::section(),
                );
                let title = "An account that the authority knows: `tls.acme.external_account`";
                heading(&mut out, 3, title, "", &ExternalAccount::section());
                heading(&mut out, 3, "TLS that passes through", "", &Passthrough::section());
            }
            "upstreams" => {
                heading(&mut out, 3, "Endpoints with weight", "", &WeightedEndpoint::section())
            }
            "policies" => {
                let title = "Parameters that are validated";
                heading(&mut out, 3, title, "", &ValidateParameter::section());
            }
            "authorization" => {
                heading(&mut out, 3, "Rules of authorisation", "", &AuthorizationRule::section());
                heading(&mut out, 3, "Times of the week", "", &Times::section());
            }
            "access_logs" => {
                heading(&mut out, 3, "Templates of access logs", "", &LogTemplate::section())
            }
            _ => {}
        }
    }
    out
}

fn heading(out: &mut String, level: usize, title: &str, about: &str, section: &Section) {
    let marks = "#".repeat(level);
    let title = if title.contains(' ') { title.to_owned() } else { format!("`{title}`") };
    let about = if about.is_empty() { &section.about } else { about };
    out.push_str(&format!("\n{marks} {title}\n\n{about}\n\n"));
    out.push_str("| key | value | default | meaning |\n|---|---|---|---|\n");
    for key in &section.keys {
        out.push_str(&row(key));
    }
}

fn row(key: &Key) -> String {
    let default = match (&key.default, key.shape) {
        _ if key.required => "required".to_owned(),
        (Some(default), _) => format!("`{}`", cell(default)),
        (None, Shape::Section(_)) if !is_shown_apart(key) => "see below".to_owned(),
        (None, _) => "none".to_owned(),
    };
    let bounds = match &key.bounds {
        Some((min, max)) => format!(", {min} to {max}"),
        None => String::new(),
    };
    format!("| `{}` | {}{bounds} | {default} | {} |\n", key.name, cell(&key.kind), cell(&key.about))
}

/// Text that may stand in a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
