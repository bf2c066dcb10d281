//! Conditions in the Common Expression Language (<https://cel.dev>), as the `cel` crate has it.
//!
//! **Bounds.** An expression has at most [`TEXT_BYTES_MAX`] bytes and [`NODES_MAX`] parts; only
//! `all`, `exists` and `exists_one` go through a list, not one inside of another, and lists and
//! maps of the identity have at most [`ENTRIES_MAX`] entries. So the work for one request is
//! bounded by the product of the two, and no value grows. Patterns of `matches` are literals,
//! compiled once in each worker.

use std::{
    cell::RefCell,
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use cel::{
    Context, Env, ExecutionError, Program, Value,
    common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue},
    extractors::This,
};
use chrono::DateTime;
use regex::Regex;

use super::Facts;
use crate::policy::identity::Shown;

/// Longest expression.
pub const TEXT_BYTES_MAX: usize = 4096;
/// Most operators, names and literals, with those that a macro stands for.
pub const NODES_MAX: usize = 256;
/// Most entries of a list or map of an identity that an expression looks at.
pub const ENTRIES_MAX: usize = 256;
/// Deepest claims that an expression looks at.
const DEPTH_MAX: usize = 8;
/// Compiled patterns that one worker keeps.
const PATTERNS_MAX: usize = 256;

/// What expressions may ask of, and the members of those that are the gateway's own.
const NAMES: [(&str, &[&str]); 6] = [
    ("request", &["method", "path", "host", "scheme", "query", "headers"]),
    ("params", &[]),
    ("identity", &["subject", "consumer", "groups", "scopes", "by", "kind"]),
    ("claims", &[]),
    ("client", &["address"]),
    ("now", &[]),
];

/// Functions, beside operators and macros.
const FUNCTIONS: [&str; 28] = [
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "string",
    "int",
    "uint",
    "double",
    "bool",
    "type",
    "dyn",
    "duration",
    "timestamp",
    "getFullYear",
    "getMonth",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getHours",
    "getMinutes",
    "getSeconds",
    "getMilliseconds",
    "bytes",
    "min",
    "max",
    "@not_strictly_false",
];

/// A compiled expression.
pub struct Expression {
    program: Program,
    text: Box<str>,
    /// By place in [`NAMES`]: it is asked for.
    asks: [bool; NAMES.len()],
    /// It asks for fields of the request.
    asks_headers: bool,
    /// Names of the route's parameters.
    params: Box<[Box<str>]>,
}

/// What is wrong with an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Bytes of the text, where one place can be told.
    pub at: Option<std::ops::Range<usize>>,
    pub what: String,
    pub fix: String,
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Expression").field(&self.text).finish()
    }
}

thread_local! {
    /// One for each thread, so that nothing is counted by several.
    static ENV: Arc<Env> = Arc::new(Env::stdlib());
    static PATTERNS: RefCell<HashMap<String, Regex>> = RefCell::default();
}

impl Expression {
    /// Compiles `text`; `params` are the names of the route's parameters.
    pub fn compile(text: &str, params: &[String]) -> Result<Expression, Fault> {
        let whole = |what: &str, fix: &str| {
            Err(Fault { at: None, what: what.to_owned(), fix: fix.to_owned() })
        };
        if text.len() > TEXT_BYTES_MAX {
            return whole("longer than 4096 bytes", "write a shorter one, or several rules");
        }
        let program = match catch_unwind(|| Program::compile(text)) {
            Ok(Ok(program)) => program,
            Ok(Err(errors)) => return Err(syntax(text, &errors)),
            Err(_) => return whole("cannot be read", "write it in another way"),
        };
        let mut walk = Walk { text, nodes: 0, own: Vec::new(), asks: [false; 6], headers: false };
        walk.visit(program.expression(), false)?;
        let Walk { asks, headers: asks_headers, .. } = walk;
        let params = params.iter().map(|name| name.as_str().into()).collect();
        Ok(Expression { program, text: text.into(), asks, asks_headers, params })
    }

    /// Whether it asks who the client is.
    pub fn asks_who(&self) -> bool {
        self.asks("identity") || self.asks("claims")
    }

    fn asks(&self, name: &str) -> bool {
        NAMES.iter().zip(self.asks).any(|((known, _), asks)| asks && *known == name)
    }

    /// Whether it holds, or why that cannot be told.
    pub fn holds(&self, facts: &Facts<'_>) -> Result<bool, String> {
        let run = AssertUnwindSafe(|| -> Result<Value, String> {
            let context = self.context(facts)?;
            self.program.execute(&context).map_err(|error| error.to_string())
        });
        match catch_unwind(run) {
            Ok(Ok(Value::Bool(holds))) => Ok(holds),
            Ok(Ok(other)) => Err(format!("it is {}, not true or false", other.type_of())),
            Ok(Err(why)) => Err(why),
            Err(_) => Err("it cannot be computed".to_owned()),
        }
    }

    /// What it asks for, and no more.
    fn context(&self, facts: &Facts<'_>) -> Result<Context<'static, 'static>, String> {
        let mut context = Context::with_env(ENV.with(Arc::clone));
        context.add_function("matches", matches).map_err(|error| error.to_string())?;
        let mut add = |name: &str, value: Value| context.add_variable_from_value(name, value);
        if self.asks("request") {
            add("request", self.request(facts));
        }
        if self.asks("params") {
            let found = &facts.matched.params[..usize::from(facts.matched.params_len)];
            let values = found.iter().map(|span| text(span.of(facts.request.path)));
            add("params", map(self.params.iter().map(|name| name.to_string()).zip(values)));
        }
        if self.asks("identity") {
            add("identity", identity(facts)?);
        }
        if self.asks("claims") {
            let claims = facts.identity.map(|identity| &*identity.claims);
            let entries =
                claims.into_iter().flatten().map(|(name, v)| Ok((name.clone(), of(v, 0)?)));
            let entries: Result<Vec<_>, String> = entries.collect();
            add("claims", map(bounded(entries?)?.into_iter()));
        }
        if self.asks("client") {
            let address = facts.client.map(|ip| ip.to_string()).unwrap_or_default();
            add("client", map([("address".to_owned(), Value::from(address))].into_iter()));
        }
        if self.asks("now") {
            let now =
                DateTime::from_timestamp((facts.now_s)(), 0).ok_or("the time is out of range")?;
            add("now", Value::Timestamp(now.fixed_offset()));
        }
        Ok(context)
    }

    fn request(&self, facts: &Facts<'_>) -> Value {
        let request = &facts.request;
        let mut entries = vec![
            ("method".to_owned(), text(request.method_text)),
            ("path".to_owned(), text(request.path)),
            ("host".to_owned(), Value::from(lossy(request.host).to_ascii_lowercase())),
            ("scheme".to_owned(), Value::from(facts.scheme)),
            ("query".to_owned(), text(request.query.unwrap_or_default())),
        ];
        if self.asks_headers {
            // Lines of one name are joined, as RFC 9110 §5.3 has it.
            let mut fields: HashMap<String, String> = HashMap::new();
            for field in &request.head.fields {
                let name = lossy(field.name.of(request.buf)).to_ascii_lowercase();
                let value = lossy(field.value.of(request.buf));
                fields
                    .entry(name)
                    .and_modify(|joined| {
                        joined.push_str(", ");
                        joined.push_str(&value);
                    })
                    .or_insert(value);
            }
            let fields = fields.into_iter().map(|(name, value)| (name, Value::from(value)));
            entries.push(("headers".to_owned(), map(fields)));
        }
        map(entries.into_iter())
    }
}

fn identity(facts: &Facts<'_>) -> Result<Value, String> {
    let Some(identity) = facts.identity else { return Ok(Value::Null) };
    let list = |names: &[Box<str>]| {
        let names = bounded(names.iter().map(|name| Value::from(&**name)).collect())?;
        Ok::<_, String>(Value::List(Arc::new(names)))
    };
    let kind = match identity.shown {
        Shown::Token => "token",
        Shown::Key => "key",
        Shown::Password => "password",
        Shown::Certificate => "certificate",
        Shown::Signature => "signature",
        Shown::Service => "service",
        Shown::Session => "session",
    };
    let entries = [
        ("subject", Value::from(&*identity.subject)),
        ("consumer", facts.consumer.map_or(Value::Null, Value::from)),
        ("groups", list(&identity.groups)?),
        ("scopes", list(&identity.scopes)?),
        ("by", Value::from(&*identity.by)),
        ("kind", Value::from(kind)),
    ];
    Ok(map(entries.into_iter().map(|(name, value)| (name.to_owned(), value))))
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn text(bytes: &[u8]) -> Value {
    Value::from(lossy(bytes))
}

fn map(entries: impl Iterator<Item = (String, Value)>) -> Value {
    Value::Map(entries.collect::<HashMap<String, Value>>().into())
}

fn bounded<T>(entries: Vec<T>) -> Result<Vec<T>, String> {
    match entries.len() {
        0..=ENTRIES_MAX => Ok(entries),
        _ => Err(format!("the identity has a list of more than {ENTRIES_MAX} entries")),
    }
}

/// A claim's value.
fn of(value: &serde_json::Value, depth: usize) -> Result<Value, String> {
    use serde_json::Value as Json;
    if depth > DEPTH_MAX {
        return Err("the claims are nested too deeply".to_owned());
    }
    Ok(match value {
        Json::Null => Value::Null,
        Json::Bool(is) => Value::Bool(*is),
        Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(int), ..) => Value::Int(int),
            (None, Some(uint), _) => Value::UInt(uint),
            (None, None, float) => Value::Float(float.unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(list) => {
            let list: Result<Vec<Value>, String> = list.iter().map(|v| of(v, depth + 1)).collect();
            Value::List(Arc::new(bounded(list?)?))
        }
        Json::Object(entries) => {
            let entries = entries.iter().map(|(name, v)| Ok((name.clone(), of(v, depth + 1)?)));
            let entries: Result<Vec<_>, String> = entries.collect();
            map(bounded(entries?)?.into_iter())
        }
    })
}

/// `text.matches(pattern)`, with patterns that are kept.
#[expect(clippy::needless_pass_by_value, reason = "the crate calls it so")]
fn matches(This(text): This<Arc<String>>, pattern: Arc<String>) -> Result<bool, ExecutionError> {
    PATTERNS.with_borrow_mut(|known| {
        if let Some(regex) = known.get(&*pattern) {
            return Ok(regex.is_match(&text));
        }
        let regex = Regex::new(&pattern);
        let regex = regex.map_err(|error| ExecutionError::function_error("matches", error))?;
        // Those of earlier configurations.
        if known.len() >= PATTERNS_MAX {
            known.clear();
        }
        let is_match = regex.is_match(&text);
        known.insert(pattern.to_string(), regex);
        Ok(is_match)
    })
}

/// The first thing that the parser did not understand.
fn syntax(text: &str, errors: &cel::ParseErrors) -> Fault {
    let first = errors.errors.first();
    let what = first.map_or("not understood", |error| error.msg.as_str());
    let what = what.strip_prefix("Syntax error: ").unwrap_or(what);
    // It goes on with a list of everything that could stand there.
    let what = what.split(" expecting ").next().unwrap_or(what);
    let at = first.and_then(|error| {
        let (line, column) = error.pos;
        let lines = text.split_inclusive('\n').take(usize::try_from(line - 1).ok()?);
        let start = lines.map(str::len).sum::<usize>();
        let rest = text.get(start..)?;
        let column = usize::try_from(column - 1).ok()?;
        let at = start + rest.char_indices().nth(column).map_or(rest.len(), |(at, _)| at);
        let end = text[at..].chars().next().map_or(at, |c| at + c.len_utf8());
        // At the very end there is nothing to point at but the last character.
        let at =
            if at == end { text[..at].char_indices().last().map_or(0, |(at, _)| at) } else { at };
        Some(at..end)
    });
    Fault {
        at,
        what: what.replace("<EOF>", "the end"),
        fix: "see https://cel.dev for the language; an example is claims.team == \"blue\""
            .to_owned(),
    }
}

/// Looks at every part of an expression once.
struct Walk<'t> {
    text: &'t str,
    nodes: usize,
    /// Names that macros have made.
    own: Vec<String>,
    asks: [bool; NAMES.len()],
    headers: bool,
}

impl Walk<'_> {
    fn fault<T>(&self, word: &str, what: String, fix: String) -> Result<T, Fault> {
        Err(Fault { at: place_of(self.text, word), what, fix })
    }

    fn visit(&mut self, part: &IdedExpr, in_list: bool) -> Result<(), Fault> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            let what = format!("more than {NODES_MAX} parts");
            return Err(Fault { at: None, what, fix: "write several rules".to_owned() });
        }
        match &part.expr {
            Expr::Unspecified | Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => self.name(name),
            Expr::Select(select) => {
                self.member(&select.operand.expr, &select.field)?;
                self.visit(&select.operand, in_list)
            }
            Expr::Call(call) => {
                self.call(&call.func_name, &call.args)?;
                let parts = call.target.as_deref().into_iter().chain(&call.args);
                parts.into_iter().try_for_each(|part| self.visit(part, in_list))
            }
            Expr::List(list) => list.elements.iter().try_for_each(|part| self.visit(part, in_list)),
            Expr::Comprehension(over) => {
                if in_list {
                    let what = "a list is gone through inside of another".to_owned();
                    return self.fault("", what, "write two rules, or use `in`".to_owned());
                }
                if matches!(over.accu_init.expr, Expr::List(_) | Expr::Map(_)) {
                    let what = "`map` and `filter` make lists".to_owned();
                    let fix =
                        "ask with exists(x, ...), exists_one(x, ...) or all(x, ...)".to_owned();
                    let word = if self.text.contains("filter") { "filter" } else { "map" };
                    return self.fault(word, what, fix);
                }
                self.visit(&over.iter_range, in_list)?;
                self.own.extend([over.iter_var.clone(), over.accu_var.clone()]);
                self.own.extend(over.iter_var2.clone());
                let parts = [&over.accu_init, &over.loop_cond, &over.loop_step, &over.result];
                parts.into_iter().try_for_each(|part| self.visit(part, true))
            }
            Expr::Map(literal) => literal.entries.iter().try_for_each(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => {
                    self.visit(&entry.key, in_list)?;
                    self.visit(&entry.value, in_list)
                }
                EntryExpr::StructField(field) => self.visit(&field.value, in_list),
            }),
            Expr::Struct(made) => {
                let what = format!("there is no type `{}`", made.type_name);
                self.fault(&made.type_name, what, "compare single values".to_owned())
            }
        }
    }

    fn name(&mut self, name: &str) -> Result<(), Fault> {
        if let Some(at) = NAMES.iter().position(|(known, _)| *known == name) {
            self.asks[at] = true;
            // All of it, such as `"x-a" in request["headers"]`.
            return Ok(());
        }
        let is_type = ["string", "int", "uint", "double", "bool", "list", "map"].contains(&name);
        if is_type || self.own.iter().any(|own| own == name) {
            return Ok(());
        }
        let known: Vec<String> = NAMES.iter().map(|(name, _)| format!("`{name}`")).collect();
        let fix = format!("what can be asked for is {}", known.join(", "));
        self.fault(name, format!("there is no `{name}`"), fix)
    }

    /// A member of what the gateway fills has to be one that it has.
    fn member(&mut self, of: &Expr, member: &str) -> Result<(), Fault> {
        let Expr::Ident(name) = of else { return Ok(()) };
        self.headers |= name == "request" && member == "headers";
        let Some((_, members)) = NAMES.iter().find(|(known, _)| known == name) else {
            return Ok(());
        };
        if members.is_empty() || members.contains(&member) {
            return Ok(());
        }
        let fix = format!("its members are {}", members.join(", "));
        self.fault(member, format!("`{name}` has no `{member}`"), fix)
    }

    fn call(&mut self, name: &str, args: &[IdedExpr]) -> Result<(), Fault> {
        let is_operator = !name.starts_with(|c: char| c.is_ascii_alphabetic());
        if !is_operator && !FUNCTIONS.contains(&name) {
            let fix = "functions are size, contains, startsWith, endsWith, matches, conversions \
                       and those of times";
            return self.fault(name, format!("there is no function `{name}`"), fix.to_owned());
        }
        if name == "_[_]"
            && let [IdedExpr { expr: Expr::Ident(of), .. }, IdedExpr { expr: member, .. }] = args
            && of == "request"
        {
            match member {
                Expr::Literal(LiteralValue::String(member)) => {
                    self.member(&args[0].expr, member.inner())?;
                }
                _ => self.headers = true,
            }
        }
        if name == "matches" {
            let Some(Expr::Literal(LiteralValue::String(pattern))) =
                args.last().map(|arg| &arg.expr)
            else {
                let fix = "write matches(\"^...$\")".to_owned();
                return self.fault(name, "the pattern of `matches` is no literal".to_owned(), fix);
            };
            if let Err(error) = Regex::new(pattern.inner()) {
                let error = error.to_string();
                let what = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
                let what = format!("no regular expression: {what}");
                return self.fault(pattern.inner(), what, "see https://docs.rs/regex".to_owned());
            }
        }
        Ok(())
    }
}

/// Where a word stands, not as part of another.
fn place_of(text: &str, word: &str) -> Option<std::ops::Range<usize>> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let at = text.match_indices(word).map(|(at, _)| at).find(|at| {
        let (before, behind) = (&text[..*at], &text[at + word.len()..]);
        !(before.ends_with(is_part) || behind.starts_with(is_part))
    })?;
    (!word.is_empty()).then(|| at..at + word.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_found_when_it_is_compiled() {
        for (text, at, what) in [
            ("claims.a ==", "=", "mismatched input 'the end'"),
            ("claims.a == \"x\" &&\n  )", ")", "mismatched input ')'"),
            ("clams.a == 1", "clams", "there is no `clams`"),
            ("request.methd == \"GET\"", "methd", "`request` has no `methd`"),
            ("request[\"methd\"] == \"GET\"", "methd", "`request` has no `methd`"),
            ("identity.name == \"x\"", "name", "`identity` has no `name`"),
            ("has(identity.team)", "team", "`identity` has no `team`"),
            ("lower(claims.a) == \"x\"", "lower", "there is no function `lower`"),
            ("claims.a.matches(claims.b)", "matches", "the pattern of `matches` is no literal"),
            ("claims.a.matches(\"(\")", "(", "no regular expression: unclosed group"),
            ("claims.a.map(x, x).size() == 1", "map", "`map` and `filter` make lists"),
            ("claims.a.filter(x, x == 1).size() == 1", "filter", "`map` and `filter` make lists"),
            (
                "claims.a.all(x, claims.b.all(y, x == y))",
                "",
                "a list is gone through inside of another",
            ),
        ] {
            let fault = Expression::compile(text, &[]).expect_err(text);
            assert!(fault.what.starts_with(what), "{text}: {fault:?}");
            let place = fault.at.map(|at| &text[at]).unwrap_or_default();
            assert_eq!(place, at, "{text}");
            assert!(!fault.fix.is_empty(), "{text}");
        }
        let long = ["claims.a"; 200].join(" || ");
        let fault = Expression::compile(&long, &[]).expect_err("long");
        assert_eq!(fault.what, "more than 256 parts");
        let fault = Expression::compile(&" ".repeat(5000), &[]).expect_err("longer");
        assert_eq!(fault.what, "longer than 4096 bytes");
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[a-z.()\\[\\]\"'=&|!<>0-9{}?:, -]{0,60}") {
            let _ = Expression::compile(&text, &[]);
        }
    }
}
