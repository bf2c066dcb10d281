//! Changes of fields and of queries.

use crate::policy::pairs::decoded;
use crate::policy::template::{Place, Template, Values};
use crate::wire::{Field, emit};

/// Changes of a head's fields. Names are compared without regard to letter case.
#[derive(Clone, Debug, Default)]
pub struct FieldChanges {
    pub remove: Box<[Box<str>]>,
    pub rename: Box<[(Box<str>, Box<str>)]>,
    /// Instead of all of that name.
    pub set: Box<[(Box<str>, Template)]>,
    /// Where there is none of that name.
    pub add: Box<[(Box<str>, Template)]>,
    /// Beside those there are.
    pub append: Box<[(Box<str>, Template)]>,
}

impl FieldChanges {
    pub fn is_none(&self) -> bool {
        self.remove.is_empty()
            && self.rename.is_empty()
            && self.set.is_empty()
            && self.add.is_empty()
            && self.append.is_empty()
    }

    /// Names whose fields do not stay as they are.
    pub fn dropped(&self) -> impl Iterator<Item = &str> {
        let removed = self.remove.iter().map(|name| &**name);
        let renamed = self.rename.iter().map(|(from, _)| &**from);
        removed.chain(renamed).chain(self.set.iter().map(|(name, _)| &**name))
    }

    /// Appends the lines that come in their place, and in addition. `fields` are those of the head
    /// in `buf`. A text that lacks a value makes no field.
    pub fn write(&self, fields: &[Field], buf: &[u8], values: &impl Values, out: &mut Vec<u8>) {
        let named = |field: &Field, name: &str| {
            !field.hop_by_hop && field.name.of(buf).eq_ignore_ascii_case(name.as_bytes())
        };
        for (from, to) in &self.rename {
            for field in fields.iter().filter(|field| named(field, from)) {
                emit::field(out, to.as_bytes(), field.value.of(buf));
            }
        }
        let mut text = Vec::new();
        let mut line = |name: &str, template: &Template| {
            text.clear();
            if template.fill(values, Place::Field, &mut text) {
                emit::field(out, name.as_bytes(), text.trim_ascii());
            }
        };
        self.set.iter().for_each(|(name, template)| line(name, template));
        for (name, template) in &self.add {
            let is_there = fields.iter().any(|field| named(field, name))
                && !self.dropped().any(|dropped| dropped.eq_ignore_ascii_case(name));
            if !is_there {
                line(name, template);
            }
        }
        self.append.iter().for_each(|(name, template)| line(name, template));
    }
}

/// Changes of a query. Names are compared as they are after decoding, with regard to letter case.
#[derive(Clone, Debug, Default)]
pub struct QueryChanges {
    pub remove: Box<[Box<str>]>,
    pub rename: Box<[(Box<str>, Box<str>)]>,
    pub set: Box<[(Box<str>, Template)]>,
    pub add: Box<[(Box<str>, Template)]>,
}

impl QueryChanges {
    pub fn is_none(&self) -> bool {
        self.remove.is_empty()
            && self.rename.is_empty()
            && self.set.is_empty()
            && self.add.is_empty()
    }

    /// Appends the changed query, without `?`. Parameters that are not touched stay byte for byte.
    pub fn apply(&self, query: &[u8], values: &impl Values, out: &mut Vec<u8>) {
        let begun = out.len();
        let mut names = Vec::new();
        for pair in query.split(|b| *b == b'&').filter(|pair| !pair.is_empty()) {
            let (name, rest) = match memchr::memchr(b'=', pair) {
                Some(at) => pair.split_at(at),
                None => (pair, &b""[..]),
            };
            let decoded = decoded(name);
            let is = |other: &str| decoded == other.as_bytes();
            if self.remove.iter().any(|name| is(name)) || self.set.iter().any(|(name, _)| is(name))
            {
                continue;
            }
            join(out, begun);
            match self.rename.iter().find(|(from, _)| is(from)) {
                Some((_, to)) => Place::Query.write(to.as_bytes(), out),
                None => out.extend_from_slice(name),
            }
            out.extend_from_slice(rest);
            names.push(decoded);
        }
        let is_there = |name: &str| names.iter().any(|known| **known == *name.as_bytes());
        let missing = self.add.iter().filter(|(name, _)| !is_there(name));
        let mut text = Vec::new();
        for (name, template) in self.set.iter().chain(missing) {
            text.clear();
            if template.fill(values, Place::Query, &mut text) {
                join(out, begun);
                Place::Query.write(name.as_bytes(), out);
                out.push(b'=');
                out.extend_from_slice(&text);
            }
        }
    }
}

fn join(out: &mut Vec<u8>, begun: usize) {
    if out.len() > begun {
        out.push(b'&');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::template::{Known, Variable};
    use crate::wire::{HeadLimits, Parsed, RequestHead};

    const LIMITS: HeadLimits =
        HeadLimits { head_bytes_max: 4096, target_bytes_max: 64, fields_max: 32 };

    struct Fixed;

    impl Values for Fixed {
        fn value(&self, variable: &Variable, out: &mut Vec<u8>) -> bool {
            let is_known = *variable == Variable::Client;
            if is_known {
                out.extend_from_slice(b"1.2.3.4 &");
            }
            is_known
        }
    }

    fn texts(pairs: &[(&str, &str)]) -> Box<[(Box<str>, Template)]> {
        let text = |text| Template::compile(text, &[], Known::Request).expect("a template");
        pairs.iter().map(|(name, value)| ((*name).into(), text(*value))).collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Box<[(Box<str>, Box<str>)]> {
        pairs.iter().map(|(from, to)| ((*from).into(), (*to).into())).collect()
    }

    #[test]
    fn queries() {
        let changes = QueryChanges {
            remove: ["drop".into()].into(),
            rename: pairs(&[("old", "new name")]),
            set: texts(&[("by", "${client}"), ("none", "${subject}")]),
            add: texts(&[("a", "1"), ("b", "2")]),
        };
        for (query, expected) in [
            ("", "by=1.2.3.4%20%26&a=1&b=2"),
            ("a=7", "a=7&by=1.2.3.4%20%26&b=2"),
            ("a", "a&by=1.2.3.4%20%26&b=2"),
            ("%61=7&b=%2F", "%61=7&b=%2F&by=1.2.3.4%20%26"),
            ("drop=1&dro%70=2&by=x&by", "by=1.2.3.4%20%26&a=1&b=2"),
            ("old=x+y&old&&", "new%20name=x+y&new%20name&by=1.2.3.4%20%26&a=1&b=2"),
            ("none=1", "by=1.2.3.4%20%26&a=1&b=2"),
        ] {
            let mut out = b"?".to_vec();
            changes.apply(query.as_bytes(), &Fixed, &mut out);
            assert_eq!(String::from_utf8_lossy(&out[1..]), expected, "{query}");
        }
    }

    #[test]
    fn lines() {
        let text = b"GET / HTTP/1.1\r\nHost: a\r\nX-Old: 1\r\nx-old: 2\r\nX-Set: 3\r\nX-Add: 4\r\n\
                     X-Gone: 5\r\n\r\n";
        let mut head = RequestHead::default();
        let parsed = head.parse(text, &LIMITS);
        assert_eq!(parsed, Ok(Parsed::Complete(())));
        let changes = FieldChanges {
            remove: ["x-gone".into()].into(),
            rename: pairs(&[("x-OLD", "X-New")]),
            set: texts(&[("X-Set", "from ${client}"), ("X-None", "${subject}")]),
            add: texts(&[("x-add", "no"), ("X-Gone", "again"), ("X-More", "yes")]),
            append: texts(&[("X-Add", "too")]),
        };
        let mut out = Vec::new();
        changes.write(&head.fields, text, &Fixed, &mut out);
        assert_eq!(
            String::from_utf8_lossy(&out),
            "X-New: 1\r\nX-New: 2\r\nX-Set: from 1.2.3.4 &\r\nX-Gone: again\r\nX-More: yes\r\n\
             X-Add: too\r\n"
        );
        let dropped: Vec<&str> = changes.dropped().collect();
        assert_eq!(dropped, ["x-gone", "x-OLD", "X-Set", "X-None"]);
    }
}
