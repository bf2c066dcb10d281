//! Which upstream gets a TLS connection that passes through, by the name its client asks for.

use std::collections::HashMap;

use ahash::RandomState;

/// The names of one listener, each with the index of an upstream. Found by hash lookups, one for
/// each label of the name at most.
#[derive(Clone, Debug, Default)]
pub struct Names {
    exact: HashMap<Box<[u8]>, u32, RandomState>,
    /// By what follows the `*.`, which stands for one label or more.
    below: HashMap<Box<[u8]>, u32, RandomState>,
    /// For every other name, and for none.
    others: Option<u32>,
}

impl Names {
    /// `name` is in lower case and may begin with `*.`.
    pub fn add(&mut self, name: &str, upstream: u32) {
        match name.strip_prefix("*.") {
            Some(parent) => self.below.insert(parent.as_bytes().into(), upstream),
            None => self.exact.insert(name.as_bytes().into(), upstream),
        };
    }

    /// Clients that ask for none of the names, or for no name at all.
    pub fn add_others(&mut self, upstream: u32) {
        self.others = Some(upstream);
    }

    /// `name` is in lower case; empty: no name.
    pub fn find(&self, name: &[u8]) -> Option<u32> {
        let above = || {
            let dots = name.iter().enumerate().filter(|(_, byte)| **byte == b'.');
            dots.map(|(dot, _)| &name[dot + 1..]).find_map(|parent| self.below.get(parent))
        };
        self.exact.get(name).or_else(above).copied().or(self.others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_before_the_longest_wildcard_before_the_others() {
        let mut names = Names::default();
        names.add("a.example", 1);
        names.add("*.example", 2);
        names.add("*.deep.example", 3);
        names.add("b.deep.example", 4);
        let table = [
            ("a.example", Some(1)),
            ("c.example", Some(2)),
            ("c.d.example", Some(2)),
            ("x.deep.example", Some(3)),
            ("x.y.deep.example", Some(3)),
            ("b.deep.example", Some(4)),
            ("deep.example", Some(2)),
            ("example", None),
            ("", None),
            ("a.example.test", None),
        ];
        for (name, wanted) in table {
            assert_eq!(names.find(name.as_bytes()), wanted, "{name}");
        }
        names.add_others(9);
        for (name, wanted) in table {
            assert_eq!(names.find(name.as_bytes()), wanted.or(Some(9)), "{name}");
        }
    }
}
