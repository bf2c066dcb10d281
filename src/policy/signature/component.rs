//! What a signature has to cover, by configuration, and whether it does (RFC 9421 §2).

use sfv::{BareItem, Item};

use super::Message;

/// A part of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Component {
    Method,
    TargetUri,
    Authority,
    Scheme,
    RequestTarget,
    Path,
    Query,
    /// Its name in lower case.
    Field(String),
}

impl Component {
    /// Derived ones (§2.2), all but `@query-param` and `@status`.
    pub const DERIVED: [Component; 7] = [
        Component::Method,
        Component::TargetUri,
        Component::Authority,
        Component::Scheme,
        Component::RequestTarget,
        Component::Path,
        Component::Query,
    ];

    pub fn name(&self) -> &str {
        match self {
            Component::Method => "@method",
            Component::TargetUri => "@target-uri",
            Component::Authority => "@authority",
            Component::Scheme => "@scheme",
            Component::RequestTarget => "@request-target",
            Component::Path => "@path",
            Component::Query => "@query",
            Component::Field(name) => name,
        }
    }

    /// A field that a request does not have cannot be covered; one that is added later is there.
    pub(super) fn concerns(&self, message: &Message<'_>) -> bool {
        match self {
            Component::Field(name) => message.lines(name).next().is_some(),
            _ => true,
        }
    }

    /// Whether an entry of what is covered has all of this in it.
    pub(super) fn is_covered_by(&self, item: &Item) -> bool {
        let BareItem::String(name) = &item.bare_item else { return false };
        let name = name.as_str();
        if let Component::Field(own) = self {
            // `key` covers a part of it, `tr` and `req` something else.
            return own == name && item.params.keys().all(|p| matches!(p.as_str(), "bs" | "sf"));
        }
        let also: &[&str] = match self {
            Component::Authority | Component::Scheme => &["@target-uri"],
            Component::Path | Component::Query => &["@target-uri", "@request-target"],
            _ => &[],
        };
        item.params.is_empty() && (self.name() == name || also.contains(&name))
    }
}
