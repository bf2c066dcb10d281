//! Parameters of a request: found where they are, read as their style writes them (OpenAPI 3.1
//! §4.8.12, after RFC 6570), and checked.
//!
//! A text may be read in more than one way where a schema allows several types (`"1"` and `1`): it
//! is good when one of them is. What is to be there once and is there twice is refused, since
//! upstreams differ in which one they take.

use std::borrow::Cow;

use percent_encoding::percent_decode;
use serde_json::{Map, Value};

use super::{
    fault::{Fault, Location},
    schema::Schema,
    strict_json,
    types::{In, Member, Types},
};
use crate::policy::{
    pairs::{cookies, decoded, decodes_to, is_same_field, parameters},
    route::{RequestView, RouteMatch},
};

/// How a list or an object is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Names and values: `name=a`.
    Form,
    /// `a,b`
    Simple,
    /// `.a,b`
    Label,
    /// `;name=a,b`
    Matrix,
    /// `a%20b`
    Space,
    /// `a|b`
    Pipe,
    /// `name[member]=a`
    Deep,
}

/// What a parameter stands for, as far as it has to be known before it is checked.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Types of the whole.
    pub types: Types,
    /// Types of an array's items.
    pub items: Types,
    /// An object's members, and the types of others.
    pub members: Vec<Member>,
    pub others: Types,
}

impl Shape {
    /// What a schema says; a string, where it does not.
    pub fn of(schema: In<'_>) -> Shape {
        Shape {
            types: schema.types().unwrap_or(Types::STRING),
            items: schema.items(),
            members: schema.members(),
            others: schema.others(),
        }
    }

    pub(super) fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| *member.name == *name)
    }
}

/// One parameter.
#[derive(Clone, Debug)]
pub struct Parameter {
    pub name: Box<str>,
    pub from: Location,
    /// For one of the path: which of those that the route's path captures.
    pub captured: u8,
    pub required: bool,
    pub style: Style,
    /// Its text is JSON, whatever its style.
    pub json: bool,
    /// Each item or member stands for itself.
    pub explode: bool,
    /// One without text is not checked.
    pub allow_empty: bool,
    pub shape: Shape,
    pub schema: Schema,
}

/// A request as parameters are taken from it.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    pub view: &'a RequestView<'a>,
    pub matched: &'a RouteMatch,
}

/// A text is not what its style writes.
struct Bad(&'static str);

impl Parameter {
    /// Everything that it may stand for in a request; nothing, where it need not be checked.
    pub fn readings(&self, asked: Asked<'_>) -> Result<Vec<Value>, Fault> {
        let readings = match self.from {
            Location::Query => self.of_query(asked.view.query.unwrap_or_default()),
            Location::Path => self.of_path(asked),
            Location::Header => self.of_header(asked.view),
            Location::Cookie => self.of_cookie(asked.view),
        };
        match readings {
            Err(Bad(what)) => Err(self.fault(what)),
            Ok(None) if self.required => Err(self.fault("is missing")),
            Ok(readings) => Ok(readings.unwrap_or_default()),
        }
    }

    /// Whether one of them is as it has to be.
    pub fn check(&self, readings: &[Value]) -> Result<(), Fault> {
        if readings.is_empty() || readings.iter().any(|value| self.schema.allows(value)) {
            return Ok(());
        }
        Err(match self.schema.check(&readings[0]) {
            Err(Fault { place: super::fault::Place::Body(pointer), what }) => {
                Fault::in_parameter(self.from, &self.name, &pointer, &what)
            }
            _ => self.fault("is not as it has to be"),
        })
    }

    fn fault(&self, what: &str) -> Fault {
        Fault::in_parameter(self.from, &self.name, "", what)
    }

    /// A query may have a parameter of this name.
    pub fn takes(&self, name: &[u8]) -> bool {
        if self.from != Location::Query {
            return false;
        }
        if self.style == Style::Deep {
            return member_of(name, &self.name).is_some();
        }
        if self.is_spread() {
            return self.shape.members.iter().any(|member| member.name.as_bytes() == name);
        }
        self.name.as_bytes() == name
    }

    /// An object whose members are parameters of their own.
    fn is_spread(&self) -> bool {
        let is_object = self.shape.types == Types::OBJECT && !self.json;
        self.style == Style::Form && self.explode && is_object
    }

    fn of_query(&self, query: &[u8]) -> Result<Option<Vec<Value>>, Bad> {
        if self.style == Style::Deep || self.is_spread() {
            return self.spread(query);
        }
        let is_it = |name: &[u8]| decodes_to(name, self.name.as_bytes());
        let all = parameters(query).filter(|(name, _)| is_it(name)).map(|(_, value)| value);
        let all: Vec<&[u8]> = all.collect();
        if self.explode && self.shape.types.has(Types::ARRAY) && !self.json {
            if all.is_empty() {
                return Ok(None);
            }
            let texts =
                all.iter().map(|text| utf8(decoded(text))).collect::<Result<Vec<_>, _>>()?;
            let items = texts.iter().map(|text| item(text, self.shape.items));
            let mut readings = vec![Value::Array(items.collect())];
            if let [one] = &*texts {
                readings.extend(self.scalars(one));
            }
            return Ok(Some(readings));
        }
        let Some(text) = once(&all)? else { return Ok(None) };
        self.read(text, decoded).map(Some)
    }

    fn of_path(&self, asked: Asked<'_>) -> Result<Option<Vec<Value>>, Bad> {
        let known = &asked.matched.params[..usize::from(asked.matched.params_len)];
        let Some(span) = known.get(usize::from(self.captured)) else { return Ok(None) };
        let text = span.of(asked.view.path);
        let text = match self.style {
            Style::Label => text.strip_prefix(b".").ok_or(Bad("must begin with a dot"))?,
            Style::Matrix => return self.of_matrix(text),
            _ => text,
        };
        self.read(text, plain).map(Some)
    }

    /// `;name=a,b` or `;name=a;name=b`, and `;a=1;b=2` of an object.
    fn of_matrix(&self, text: &[u8]) -> Result<Option<Vec<Value>>, Bad> {
        let text = text.strip_prefix(b";").ok_or(Bad("must begin with a semicolon"))?;
        let (types, explode) = (self.shape.types, self.explode);
        if explode && types.has(Types::OBJECT) {
            return self.object(text, b';', plain).map(|object| Some(vec![object]));
        }
        let name = self.name.as_bytes();
        let pairs = text.split(|b| *b == b';').map(|pair| {
            let rest = pair.strip_prefix(name).ok_or(Bad("must begin with its name"))?;
            rest.strip_prefix(b"=").ok_or(Bad("must begin with its name"))
        });
        let pairs = pairs.collect::<Result<Vec<_>, _>>()?;
        if explode && types.has(Types::ARRAY) {
            let items = pairs.iter().map(|text| Ok(item(&utf8(plain(text))?, self.shape.items)));
            return Ok(Some(vec![Value::Array(items.collect::<Result<_, Bad>>()?)]));
        }
        match once(&pairs)? {
            Some(text) => self.read(text, plain).map(Some),
            None => Ok(None),
        }
    }

    fn of_header(&self, view: &RequestView<'_>) -> Result<Option<Vec<Value>>, Bad> {
        let is_it = |name: &[u8]| name.eq_ignore_ascii_case(self.name.as_bytes());
        let fields = || view.head.fields.iter().map(|field| (field.name.of(view.buf), field));
        let is_taken_for_it = |name| !is_it(name) && is_same_field(name, self.name.as_bytes());
        if fields().any(|(name, _)| is_taken_for_it(name)) {
            return Err(Bad("must not be there with `_` in the place of `-`, or the other way"));
        }
        let own = fields().filter(|(name, _)| is_it(name));
        let all: Vec<&[u8]> = own.map(|(_, field)| field.value.of(view.buf)).collect();
        let types = self.shape.types;
        if all.len() > 1 && (types.has(Types::ARRAY) || types.has(Types::OBJECT)) {
            // One list over several lines (RFC 9110 §5.3).
            return self.read(&all.join(&b","[..]), as_it_is).map(Some);
        }
        match once(&all)? {
            Some(text) => self.read(text, as_it_is).map(Some),
            None => Ok(None),
        }
    }

    fn of_cookie(&self, view: &RequestView<'_>) -> Result<Option<Vec<Value>>, Bad> {
        let is_cookie = |name: &[u8]| name.eq_ignore_ascii_case(b"cookie");
        let fields = view.head.fields.iter().filter(|field| is_cookie(field.name.of(view.buf)));
        let pairs = fields.flat_map(|field| cookies(field.value.of(view.buf)));
        let all = pairs.filter(|(name, _)| *name == self.name.as_bytes());
        match once(&all.map(|(_, value)| value).collect::<Vec<_>>())? {
            Some(text) => self.read(text, plain).map(Some),
            None => Ok(None),
        }
    }

    /// Everything that a text may stand for. None: it need not be checked.
    fn read(&self, text: &[u8], decode: Decode) -> Result<Vec<Value>, Bad> {
        if text.is_empty() && self.allow_empty {
            return Ok(Vec::new());
        }
        if self.json {
            let text = decode(text);
            let value = strict_json::read(&text, strict_json::DEPTH_MAX);
            return value.map(|value| vec![value]).map_err(|_| Bad("must be JSON"));
        }
        let types = self.shape.types;
        let mut readings = Vec::new();
        if types.has(Types::ARRAY) {
            let texts = self.split(text);
            let items = texts.into_iter().map(|text| {
                Ok(item(utf8(decode(text))?.trim_matches(self.blanks()), self.shape.items))
            });
            readings.push(Value::Array(items.collect::<Result<_, Bad>>()?));
        }
        if types.has(Types::OBJECT) {
            readings.push(self.object(text, self.mark(), decode)?);
        }
        readings.extend(self.scalars(&utf8(decode(text))?));
        Ok(readings)
    }

    /// Blanks around the items of a field's list (RFC 9110 §5.6.1).
    fn blanks(&self) -> &'static [char] {
        if self.from == Location::Header { &[' ', '\t'] } else { &[] }
    }

    /// What stands between items.
    fn mark(&self) -> u8 {
        match self.style {
            Style::Label if self.explode => b'.',
            Style::Pipe => b'|',
            _ => b',',
        }
    }

    /// The items of a list that is one text.
    fn split<'t>(&self, text: &'t [u8]) -> Vec<&'t [u8]> {
        if text.is_empty() {
            return Vec::new();
        }
        let escaped: &[u8] = match self.style {
            Style::Space => b"%20",
            Style::Pipe => b"%7C",
            _ => b"",
        };
        let mark = if self.style == Style::Space { b'+' } else { self.mark() };
        let (mut items, mut start, mut at) = (Vec::new(), 0, 0);
        while at < text.len() {
            let is_escaped = !escaped.is_empty()
                && text.get(at..at + 3).is_some_and(|part| part.eq_ignore_ascii_case(escaped));
            let len = if is_escaped { 3 } else { 1 };
            if is_escaped || text[at] == mark {
                items.push(&text[start..at]);
                start = at + len;
            }
            at += len;
        }
        items.push(&text[start..]);
        items
    }

    /// The scalars that a text may stand for, what it more probably is before; a string, where
    /// nothing else is possible.
    fn scalars(&self, text: &str) -> Vec<Value> {
        let types = self.shape.types;
        let mut all = Vec::new();
        all.extend(number(text).filter(|_| types.has(Types::NUMBER)));
        all.extend(boolean(text).filter(|_| types.has(Types::BOOLEAN)));
        if types.has(Types::NULL) && matches!(text, "" | "null") {
            all.push(Value::Null);
        }
        let is_else = all.is_empty() && !types.has(Types::ARRAY) && !types.has(Types::OBJECT);
        if types.has(Types::STRING) || is_else {
            all.push(Value::String(text.to_owned()));
        }
        all
    }

    fn member(&self, name: &str, text: &str) -> Value {
        let known = self.shape.member(name);
        item(text, known.map_or(self.shape.others, |member| member.types))
    }

    /// `a,1,b,2`, or `a=1,b=2` where members stand for themselves.
    fn object(&self, text: &[u8], mark: u8, decode: Decode) -> Result<Value, Bad> {
        let mut object = Map::new();
        let mut parts = text.split(|b| *b == mark);
        while let Some(first) = parts.next() {
            if text.is_empty() {
                break;
            }
            let (name, value) = match self.explode {
                true => {
                    let at =
                        memchr::memchr(b'=', first).ok_or(Bad("must have `=` in each part"))?;
                    (&first[..at], &first[at + 1..])
                }
                false => (first, parts.next().ok_or(Bad("must have a value for each name"))?),
            };
            let name = utf8(decode(name))?.trim_matches(self.blanks()).to_owned();
            let value = utf8(decode(value))?;
            let value = self.member(&name, value.trim_matches(self.blanks()));
            if object.insert(name, value).is_some() {
                return Err(Bad("must have no name twice"));
            }
        }
        Ok(Value::Object(object))
    }

    /// An object whose members are parameters: `name[a]=1&name[b]=2`, or `a=1&b=2`.
    fn spread(&self, query: &[u8]) -> Result<Option<Vec<Value>>, Bad> {
        let mut object = Map::new();
        for (name, text) in parameters(query) {
            let name = decoded(name);
            let member = match self.style {
                Style::Deep => member_of(&name, &self.name),
                _ => Some(&*name).filter(|name| self.takes(name)),
            };
            let Some(member) = member else { continue };
            let member = utf8(Cow::Borrowed(member))?.into_owned();
            if member.contains(['[', ']']) {
                return Err(Bad("must have members that are plain values"));
            }
            let text = utf8(decoded(text))?;
            let known = self.shape.member(&member);
            if let Some(known) = known.filter(|known| known.types.has(Types::ARRAY)) {
                let list = object.entry(member).or_insert_with(|| Value::Array(Vec::new()));
                if let Value::Array(items) = list {
                    items.push(item(&text, known.items));
                }
                continue;
            }
            let value = self.member(&member, &text);
            if object.insert(member, value).is_some() {
                return Err(Bad("must have no name twice"));
            }
        }
        Ok((!object.is_empty()).then(|| vec![Value::Object(object)]))
    }
}

/// How escapes are taken out.
type Decode = fn(&[u8]) -> Cow<'_, [u8]>;

fn plain(text: &[u8]) -> Cow<'_, [u8]> {
    percent_decode(text).into()
}

fn as_it_is(text: &[u8]) -> Cow<'_, [u8]> {
    Cow::Borrowed(text)
}

fn utf8(text: Cow<'_, [u8]>) -> Result<Cow<'_, str>, Bad> {
    let bad = Bad("must be UTF-8");
    match text {
        Cow::Borrowed(text) => std::str::from_utf8(text).map(Cow::Borrowed).map_err(|_| bad),
        Cow::Owned(text) => String::from_utf8(text).map(Cow::Owned).map_err(|_| bad),
    }
}

/// The only text, if there is one.
fn once<'t>(all: &[&'t [u8]]) -> Result<Option<&'t [u8]>, Bad> {
    match all {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        _ => Err(Bad("must be there once")),
    }
}

/// `member` of `name[member]`.
fn member_of<'t>(text: &'t [u8], name: &str) -> Option<&'t [u8]> {
    text.strip_prefix(name.as_bytes())?.strip_prefix(b"[")?.strip_suffix(b"]")
}

/// A number as JSON writes it.
pub(super) fn number(text: &str) -> Option<Value> {
    let is_bare = text.starts_with(|c: char| c == '-' || c.is_ascii_digit())
        && text.ends_with(|c: char| c.is_ascii_digit());
    if !is_bare {
        return None;
    }
    serde_json::from_str(text).ok().filter(Value::is_number)
}

fn boolean(text: &str) -> Option<Value> {
    match text {
        "true" => Some(Value::Bool(true)),
        "false" => Some(Value::Bool(false)),
        _ => None,
    }
}

/// The scalar that a text within a list or an object stands for.
pub(super) fn item(text: &str, types: Types) -> Value {
    let found = number(text).filter(|_| types.has(Types::NUMBER));
    let found = found.or_else(|| boolean(text).filter(|_| types.has(Types::BOOLEAN)));
    let null = || (types.has(Types::NULL) && text == "null").then_some(Value::Null);
    found.or_else(null).unwrap_or_else(|| Value::String(text.to_owned()))
}
