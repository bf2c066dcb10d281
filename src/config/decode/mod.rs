//! From the parsed TOML tree to typed sections, collecting every error instead of stopping at the
//! first.
//!
//! [`crate::section!`] defines a section once: its keys, their types, defaults and bounds, and
//! their documentation. The decoder, the list of known keys, the JSON Schema and the reference are
//! all derived from that one definition.

use schemars::{Schema, SchemaGenerator};
use toml::de::{DeTable, DeValue};

use super::report::{Place, Problem};

mod plain;
mod words;

pub use plain::{Named, integer};
pub use words::{list, nearest, paragraph, quoted, short, sounds_secret, text};

/// The section inside `section` that has a key `name`, for tables or for anything else.
fn inner_section(section: &Section, name: &str, is_table: bool) -> Option<&'static str> {
    let is_it = |key: &Key| key.name == name && (key.kind == "a table") == is_table;
    let has = |key: &&Key| match key.shape {
        Shape::Section(inner) => inner().keys.iter().any(is_it),
        _ => false,
    };
    section.keys.iter().find(has).map(|key| key.name)
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The key is not in the file.
    Default,
    /// The value is the one in the file.
    Written(Place),
    /// The file's value is wrong and already reported; this is the default in its stead.
    Wrong(Place),
}

/// A value and where it comes from.
#[derive(Clone, Debug)]
pub struct At<T> {
    pub value: T,
    pub origin: Origin,
}

impl<T> At<T> {
    pub fn default_of(value: T) -> At<T> {
        At { value, origin: Origin::Default }
    }

    pub fn written(value: T, place: Place) -> At<T> {
        At { value, origin: Origin::Written(place) }
    }

    /// The place of a value that is in the file, right or wrong.
    pub fn place(&self) -> Option<Place> {
        match self.origin {
            Origin::Default => None,
            Origin::Written(place) | Origin::Wrong(place) => Some(place),
        }
    }

    /// The file has this key and its value is good.
    pub fn is_written(&self) -> bool {
        matches!(self.origin, Origin::Written(_))
    }

    /// The value does not stand for what the file says, so nothing may be concluded from it.
    pub fn is_wrong(&self) -> bool {
        matches!(self.origin, Origin::Wrong(_))
    }
}

impl<T> std::ops::Deref for At<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Clone> At<Option<T>> {
    /// The value with its place, when the file has it.
    pub fn some(&self) -> Option<At<T>> {
        self.value.clone().map(|value| At { value, origin: self.origin })
    }
}

/// In [`Sink`]'s path: an entry of a list of values.
const ENTRY: &str = "[]";

/// Collects problems while decoding and checking.
#[derive(Debug, Default)]
pub struct Sink {
    pub problems: Vec<Problem>,
    /// Keys from the top of the file to the value being decoded.
    path: Vec<String>,
    /// Bounds of the key being decoded, in words, for values no type can hold.
    bounds: Option<String>,
    /// Values that reports do not show.
    pub hidden: Vec<Place>,
    /// Known keys that an unknown one was taken for: section's start, key, and the wrong key.
    misspelt: Vec<(usize, &'static str, Place)>,
}

impl Sink {
    pub fn push(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// Has no report show the value at `place`.
    pub fn hide(&mut self, place: Place) {
        self.hidden.push(place);
    }

    /// Forgets problems that were reported before in the same words: a set of policies is looked at
    /// for each route that names it.
    pub fn tell_once(&mut self) {
        let mut seen = std::collections::HashSet::new();
        self.problems.retain(|problem| seen.insert((problem.place, problem.title.clone())));
    }

    /// The dotted name of the key being decoded.
    pub fn name(&self) -> String {
        if let Some((ENTRY, keys)) = self.path.split_last().map(|(last, keys)| (&**last, keys)) {
            let keys: Vec<&str> =
                keys.iter().map(String::as_str).filter(|key| *key != ENTRY).collect();
            return format!("an entry of `{}`", keys.join("."));
        }
        let keys: Vec<&str> =
            self.path.iter().map(String::as_str).filter(|key| *key != ENTRY).collect();
        if keys.is_empty() { "the file".to_owned() } else { format!("`{}`", keys.join(".")) }
    }

    /// Runs `inner` with `key` as the innermost part of the name.
    pub fn within<R>(&mut self, key: &str, inner: impl FnOnce(&mut Sink) -> R) -> R {
        self.path.push(key.to_owned());
        let result = inner(self);
        self.path.pop();
        result
    }

    /// Reports that the value has the wrong type.
    pub fn wrong_type(&mut self, value: &DeValue<'_>, place: Place, expected: &str, fix: &str) {
        let title = format!("{} must be {expected}", self.name());
        let label = format!("this is {}", words::type_with_article(value));
        self.push(Problem::error(place, title).label(label).fix(fix));
    }

    /// Reports a value of the right type that cannot be used.
    pub fn bad_value(&mut self, place: Place, expected: &str, label: &str, fix: &str) {
        let title = format!("{} must be {expected}", self.name());
        self.push(Problem::error(place, title).label(label).fix(fix));
    }

    /// The keys and values of a table, in the order of the file.
    pub fn table<'t, 'i>(
        &mut self,
        value: &'t DeValue<'i>,
        place: Place,
        fix: &str,
    ) -> Option<&'t DeTable<'i>> {
        let table = value.as_table();
        if table.is_none() {
            self.wrong_type(value, place, "a table", fix);
        }
        table
    }

    /// The keys and values of a section.
    pub fn section<'t, 'i>(
        &mut self,
        value: &'t DeValue<'i>,
        place: Place,
        known: &[&str],
    ) -> Option<&'t DeTable<'i>> {
        let table = value.as_table();
        if table.is_none() {
            let fix = format!("write a table; its keys are {}", list(known));
            self.wrong_type(value, place, "a table", &fix);
        }
        table
    }

    /// Reports each key of `table` that is not in `known`.
    pub fn refuse_unknown(
        &mut self,
        table: &DeTable<'_>,
        owner: Place,
        known: &[&'static str],
        section: fn() -> Section,
    ) {
        for (key, value) in table.iter() {
            let name: &str = key.get_ref();
            if known.contains(&name) {
                continue;
            }
            let inside =
                if self.path.is_empty() { String::new() } else { format!(" in {}", self.name()) };
            let fix = match (
                inner_section(&section(), name, value.get_ref().is_table()),
                nearest(name, known),
            ) {
                (Some(inner), _) => format!("write `{inner}.{name}`"),
                (None, Some(near)) => {
                    self.misspelt.push((owner.start, near, key.span().into()));
                    format!("write `{near}`")
                }
                (None, None) => format!("the keys here are {}", list(known)),
            };
            if words::sounds_secret(name) {
                self.hide(value.span().into());
            }
            let title = format!("unknown key `{}`{inside}", short(name));
            self.push(Problem::error(key.span().into(), title).fix(fix));
        }
    }

    /// Decodes one key of a section. Without a default a missing key is an error, reported at
    /// the section (`owner`). `None` means that the section cannot be used.
    pub fn key<T: Decode>(
        &mut self,
        table: &DeTable<'_>,
        owner: Place,
        rule: KeyRule<T>,
    ) -> Option<At<T>> {
        let KeyRule { name, default, bounds, example } = rule;
        let Some(value) = table.get(name) else {
            let misspelt =
                self.misspelt.iter().find(|(at, key, _)| (*at, *key) == (owner.start, name));
            if let Some((.., wrong)) = misspelt {
                let origin = Origin::Wrong(*wrong);
                return default.map(|value| At { value, origin });
            }
            if default.is_none() {
                let title = match self.path.last() {
                    Some(_) => format!("{} needs the key `{name}`", self.name()),
                    None => format!("the file needs the key `{name}`"),
                };
                self.push(
                    Problem::error(owner, title)
                        .fix(format!("add {name} = {}", example.unwrap_or("..."))),
                );
            }
            return default.map(At::default_of);
        };
        let place = Place::from(value.span());
        let in_words = |(min, max): &(T, T)| format!("between {} and {}", min.bare(), max.bare());
        self.bounds = bounds.as_ref().map(in_words);
        let decoded = self.within(name, |sink| {
            let decoded = T::decode(value.get_ref(), place, sink)?;
            sink.check_bounds(&decoded, place, bounds).then_some(decoded)
        });
        match decoded {
            Some(value) => Some(At::written(value, place)),
            None => default.map(|value| At { value, origin: Origin::Wrong(place) }),
        }
    }

    fn check_bounds<T: Decode>(&mut self, value: &T, place: Place, bounds: Option<(T, T)>) -> bool {
        let Some((min, max)) = bounds else { return true };
        let (Some(n), Some(low), Some(high)) = (value.amount(), min.amount(), max.amount()) else {
            return true;
        };
        if (low..=high).contains(&n) {
            return true;
        }
        let (bound, label) = if n < low { (&min, "too small") } else { (&max, "too large") };
        let expected = format!("between {} and {}", min.bare(), max.bare());
        let fix = format!(
            "write {} or {}",
            bound.written().unwrap_or_default(),
            if n < low { "more" } else { "less" }
        );
        self.bad_value(place, &expected, label, &fix);
        false
    }
}

/// What decoding one key needs to know.
#[derive(Debug)]
pub struct KeyRule<T> {
    pub name: &'static str,
    pub default: Option<T>,
    pub bounds: Option<(T, T)>,
    pub example: Option<&'static str>,
}

/// What [`crate::section!`] knows of one key.
#[derive(Debug)]
pub struct Key {
    pub name: &'static str,
    /// Paragraph of the reference.
    pub about: String,
    pub required: bool,
    /// As TOML; `None` when the key has no value unless written.
    pub default: Option<String>,
    /// As TOML.
    pub bounds: Option<(String, String)>,
    /// A TOML value to show where there is no default.
    pub example: Option<&'static str>,
    /// What the value is, in words.
    pub kind: String,
    pub shape: Shape,
}

/// How a type is laid out in the file.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    Value,
    /// `[name]`
    Section(SectionFn),
    /// `[[name]]`
    Sections(SectionFn),
    /// `[name.NAME]`
    Named(SectionFn),
}

type SectionFn = fn() -> Section;

/// What [`crate::section!`] knows of one section.
#[derive(Debug)]
pub struct Section {
    pub about: String,
    pub keys: Vec<Key>,
}

/// A type a key can have.
pub trait Decode: Sized {
    /// What is expected, in words, with article: `a duration`.
    const EXPECTED: &'static str;

    /// The value, or `None` after reporting why not.
    fn decode(value: &DeValue<'_>, place: Place, sink: &mut Sink) -> Option<Self>;

    /// As a TOML value; `None` where there is nothing to write.
    fn written(&self) -> Option<String>;

    /// The value in force, secrets left out, whole sections included; `None` where there is none.
    fn effective(&self) -> Option<toml::Value> {
        let mut table: toml::Table =
            toml::from_str(&format!("value = {}", self.written()?)).ok()?;
        table.remove("value")
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema;

    /// For bounds: the value as a number, where it is one.
    fn amount(&self) -> Option<u64> {
        None
    }

    /// For messages: as written, without quotation marks.
    fn bare(&self) -> String {
        self.written().unwrap_or_default().trim_matches('"').to_owned()
    }

    fn shape() -> Shape {
        Shape::Value
    }
}

/// Defines sections. In each, a key is `name: Type;` (required), `name: Type = default;`, with
/// optional bounds `=> min..=max` after the default and an optional example `, eg "TOML"`.
#[macro_export]
macro_rules! section {
    ($(
        $(#[doc = $about:literal])+
        pub struct $name:ident {
            $(
                $(#[doc = $doc:literal])+
                $key:ident: $ty:ty $(= $default:expr)? $(=> $range:expr)? $(, eg $example:literal)?;
            )+
        }
    )+) => { $(
        $(#[doc = $about])+
        #[derive(Clone, Debug)]
        pub struct $name {
            $( $(#[doc = $doc])+ pub $key: $crate::config::decode::At<$ty>, )+
        }

        impl $name {
            const KEYS: &'static [&'static str] = &[$(stringify!($key)),+];

            /// What the reference and the schema say about this section.
            pub fn section() -> $crate::config::decode::Section {
                use $crate::config::decode::{Decode, Key, Section, paragraph};
                Section {
                    about: paragraph(&[$($about),+]),
                    keys: vec![$( Key {
                        name: stringify!($key),
                        about: paragraph(&[$($doc),+]),
                        required: $crate::section!(@option $ty $(, $default)?).is_none(),
                        default: $crate::section!(@option $ty $(, $default)?)
                            .and_then(|value| value.written()),
                        bounds: $crate::section!(@bounds $ty $(, $range)?)
                            .map(|(min, max)| (min.bare(), max.bare())),
                        example: $crate::section!(@option &'static str $(, $example)?),
                        kind: <$ty as Decode>::EXPECTED.to_owned(),
                        shape: <$ty as Decode>::shape(),
                    } ),+],
                }
            }
        }

        impl $crate::config::decode::Decode for $name {
            const EXPECTED: &'static str = "a table";

            fn decode(
                value: &toml::de::DeValue<'_>,
                place: $crate::config::report::Place,
                sink: &mut $crate::config::decode::Sink,
            ) -> Option<Self> {
                let table = sink.section(value, place, Self::KEYS)?;
                sink.refuse_unknown(table, place, Self::KEYS, Self::section);
                $( let $key = sink.key::<$ty>(table, place, $crate::config::decode::KeyRule {
                    name: stringify!($key),
                    default: $crate::section!(@option $ty $(, $default)?),
                    bounds: $crate::section!(@bounds $ty $(, $range)?),
                    example: $crate::section!(@option &'static str $(, $example)?),
                }); )+
                Some($name { $($key: $key?),+ })
            }

            fn written(&self) -> Option<String> {
                None
            }

            fn effective(&self) -> Option<toml::Value> {
                let mut table = toml::Table::new();
                $(
                    if let Some(value) = self.$key.effective() {
                        table.insert(stringify!($key).to_owned(), value);
                    }
                )+
                Some(toml::Value::Table(table))
            }

            fn schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                generator.subschema_for::<Self>()
            }

            fn shape() -> $crate::config::decode::Shape {
                $crate::config::decode::Shape::Section(Self::section)
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let values = vec![$(<$ty as $crate::config::decode::Decode>::schema(generator)),+];
                $crate::config::schema::of_section(&Self::section(), values)
            }
        }
    )+ };
    (@option $ty:ty) => { None::<$ty> };
    (@option $ty:ty, $value:expr) => { Some::<$ty>($value) };
    (@bounds $ty:ty) => { None::<($ty, $ty)> };
    (@bounds $ty:ty, $range:expr) => { Some::<($ty, $ty)>($range.into_inner()) };
}

/// Declares the words a key can have, for an enum of the snapshot.
#[macro_export]
macro_rules! choice {
    ($ty:ty: $( $variant:path = $word:literal ),+ $(,)?) => {
        impl $crate::config::decode::Decode for $ty {
            const EXPECTED: &'static str =
                $crate::config::decode::join_or!($($word),+);

            fn decode(
                value: &toml::de::DeValue<'_>,
                place: $crate::config::report::Place,
                sink: &mut $crate::config::decode::Sink,
            ) -> Option<Self> {
                match $crate::config::decode::word(value, place, sink, &[$($word),+], Self::EXPECTED)? {
                    $( $word => Some($variant), )+
                    _ => None,
                }
            }

            fn written(&self) -> Option<String> {
                match self { $( $variant => Some(concat!("\"", $word, "\"").to_owned()), )+ }
            }

            fn schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "enum": [$($word),+] })
            }
        }
    };
}

/// `"a", "b" or "c"` as one literal.
#[macro_export]
macro_rules! join_or {
    ($last:literal) => { concat!("\"", $last, "\"") };
    ($first:literal, $last:literal) => { concat!("\"", $first, "\" or \"", $last, "\"") };
    ($first:literal, $($rest:literal),+) => {
        concat!("\"", $first, "\", ", $crate::join_or!($($rest),+))
    };
}
pub use crate::join_or;

/// The word of a choice, or a report naming all and the nearest.
pub fn word<'a>(
    value: &'a DeValue<'_>,
    place: Place,
    sink: &mut Sink,
    words: &[&'static str],
    expected: &str,
) -> Option<&'a str> {
    let fix = |text: &str| match nearest(text, words) {
        Some(near) => format!("write \"{near}\""),
        None => format!("write {expected}"),
    };
    let Some(text) = value.as_str() else {
        sink.wrong_type(value, place, expected, &fix(""));
        return None;
    };
    if !words.contains(&text) {
        sink.bad_value(place, expected, "not one of them", &fix(text));
        return None;
    }
    Some(text)
}

/// A section decoded from an empty table.
pub fn section_default<T: Decode>() -> T {
    let place = Place { start: 0, end: 0 };
    T::decode(&DeValue::Table(DeTable::new()), place, &mut Sink::default())
        .expect("invariant: every key of this section has a default")
}
