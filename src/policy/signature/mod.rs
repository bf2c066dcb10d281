//! Signatures over requests (RFC 9421, HTTP Message Signatures): whether one is accepted, and whose
//! key has made it.
//!
//! ```text
//! the two fields → labels that count → parameters, key → what it has to cover → its time
//!      → signature base → signature
//! ```
//!
//! Invariants: a key verifies with the one algorithm that it was given; a signature that does not
//! cover what the rule asks for is refused, whatever else is good about it; each component is
//! covered once.

mod base;
mod component;
pub mod digest;
pub mod key;

pub use component::Component;
pub use key::{Algorithm, Key, Keys};

use sfv::{BareItem, Dictionary, InnerList, ListEntry, Parameters, Parser};

use super::refusal;
use crate::wire::{Framing, Reason, RequestHead};

/// Signatures of one request that are verified at most.
const TRIES_MAX: usize = 4;
/// Components that a signature may cover.
const COVERED_MAX: usize = 64;
/// Bytes of a nonce, and of the name of a key.
pub const NAME_BYTES_MAX: usize = 256;

/// What is asked of signatures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// The signature of this label counts; empty: of any.
    pub label: String,
    /// Signatures for this application count (`tag`); empty: of any.
    pub tag: String,
    /// What has to be covered. Fields: of requests that have them.
    pub components: Vec<Component>,
    /// Parameters that have to be there.
    pub needs_expires: bool,
    pub needs_nonce: bool,
    pub needs_alg: bool,
    /// How old a signature may be.
    pub max_age_s: u64,
    /// By how much clocks may differ.
    pub skew_s: u64,
    /// The largest of both of all rules that count nonces of the same keys: what one of them does
    /// not accept any more another one may.
    pub kept: Kept,
    /// A body has to be covered by its digest (RFC 9530).
    pub content_digest: bool,
}

/// For how long nonces are remembered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    pub max_age_s: u64,
    pub skew_s: u64,
}

/// A request, as it was received.
#[derive(Clone, Copy)]
pub struct Message<'m> {
    pub head: &'m RequestHead,
    /// That the head was parsed from.
    pub bytes: &'m [u8],
    pub scheme: &'m str,
}

/// What a request comes to.
#[derive(Debug)]
pub enum Judged<'k> {
    /// It has no signature that counts.
    NotShown,
    Refused(&'static Reason),
    Signed(Signed<'k>),
}

/// A signature that is good.
#[derive(Debug)]
pub struct Signed<'k> {
    pub key: &'k Key,
    /// Where the rule asks for one.
    pub nonce: Option<String>,
    pub created_s: u64,
    /// Unix time from which on no rule of its key accepts it any more.
    pub until_s: u64,
}

impl Message<'_> {
    /// The lines of a field; its name in lower case.
    pub(super) fn lines(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let is_it = move |field: &&crate::wire::Field| {
            field.name.of(self.bytes).eq_ignore_ascii_case(name.as_bytes())
        };
        let fields = self.head.fields.iter().filter(is_it);
        fields.map(|field| field.value.of(self.bytes).trim_ascii())
    }

    /// All lines of a field as one (RFC 9110 §5.3); `None`: it is not there.
    pub fn field(&self, name: &str) -> Option<Vec<u8>> {
        let mut lines = self.lines(name);
        let mut whole = lines.next()?.to_vec();
        for line in lines {
            whole.extend_from_slice(b", ");
            whole.extend_from_slice(line);
        }
        Some(whole)
    }

    pub fn has_body(&self) -> bool {
        !matches!(self.head.framing, Framing::None | Framing::Length(0))
    }
}

impl Rule {
    /// Judges a request at `now_s` (seconds since 1970).
    pub fn judge<'k>(&self, message: &Message<'_>, keys: &'k Keys, now_s: u64) -> Judged<'k> {
        let (inputs, signatures) =
            match (message.field("signature-input"), message.field("signature")) {
                (None, None) => return Judged::NotShown,
                (Some(inputs), Some(signatures)) => (inputs, signatures),
                _ => return Judged::Refused(refusal::AUTH_INVALID),
            };
        let parsed = |text: &[u8]| Parser::new(text).parse::<Dictionary>();
        let (Ok(inputs), Ok(signatures)) = (parsed(&inputs), parsed(&signatures)) else {
            return Judged::Refused(refusal::AUTH_INVALID);
        };
        let mut refused: Option<&'static Reason> = None;
        let own = inputs.iter().filter(|(label, input)| self.counts(label.as_str(), input));
        for (label, input) in own.take(TRIES_MAX) {
            match self.one(message, (input, signatures.get(label)), keys, now_s) {
                Ok(signed) => return Judged::Signed(signed),
                // Of a key that is known, it says more.
                Err(reason) if refused.is_none_or(|r| r == refusal::AUTH_KEY_UNKNOWN) => {
                    refused = Some(reason);
                }
                Err(_) => {}
            }
        }
        refused.map_or(Judged::NotShown, Judged::Refused)
    }

    /// Whether the signature of a label is for this rule.
    fn counts(&self, label: &str, input: &ListEntry) -> bool {
        let params = match input {
            ListEntry::InnerList(list) => &list.params,
            ListEntry::Item(item) => &item.params,
        };
        (self.label.is_empty() || self.label == label)
            && (self.tag.is_empty() || text(params, "tag") == Ok(Some(&self.tag)))
    }

    fn one<'k>(
        &self,
        message: &Message<'_>,
        (input, signature): (&ListEntry, Option<&ListEntry>),
        keys: &'k Keys,
        now_s: u64,
    ) -> Result<Signed<'k>, &'static Reason> {
        let invalid = refusal::AUTH_INVALID;
        let (ListEntry::InnerList(covered), Some(ListEntry::Item(signature))) = (input, signature)
        else {
            return Err(invalid);
        };
        let signature = signature.bare_item.as_byte_sequence().ok_or(invalid)?;
        let said = Said::read(&covered.params).map_err(|()| invalid)?;
        let key = keys.find(said.keyid.ok_or(invalid)?).ok_or(refusal::AUTH_KEY_UNKNOWN)?;
        if said.alg.is_some_and(|alg| alg != key.algorithm.name()) {
            return Err(invalid);
        }
        if covered.items.len() > COVERED_MAX {
            return Err(invalid);
        }
        if self.needs_expires && said.expires.is_none()
            || self.needs_nonce && said.nonce.is_none()
            || self.needs_alg && said.alg.is_none()
            || !self.covers(message, covered)
        {
            return Err(refusal::AUTH_UNCOVERED);
        }
        let created_s = self.created_in_time(&said, now_s)?;
        let base = base::of(message, covered).ok_or(invalid)?;
        if !key.verifies(&base, signature) {
            return Err(invalid);
        }
        let nonce = said.nonce.filter(|_| self.needs_nonce).map(str::to_owned);
        let Kept { max_age_s, skew_s } = self.kept;
        let until_s =
            end_s(&said, created_s, max_age_s.max(self.max_age_s), skew_s.max(self.skew_s));
        Ok(Signed { key, nonce, created_s, until_s })
    }

    fn covers(&self, message: &Message<'_>, covered: &InnerList) -> bool {
        let is_covered = |needed: &Component| {
            !needed.concerns(message) || covered.items.iter().any(|item| needed.is_covered_by(item))
        };
        let digest = || Component::Field("content-digest".to_owned());
        self.components.iter().all(is_covered)
            && (!self.content_digest
                || !message.has_body()
                || message.lines("content-digest").next().is_some() && is_covered(&digest()))
    }

    /// When it was made, if it counts now.
    fn created_in_time(&self, said: &Said<'_>, now_s: u64) -> Result<u64, &'static Reason> {
        let created_s = said.created.ok_or(refusal::AUTH_UNCOVERED)?;
        if created_s > now_s.saturating_add(self.skew_s) {
            return Err(refusal::AUTH_NOT_YET);
        }
        match now_s < end_s(said, created_s, self.max_age_s, self.skew_s) {
            true => Ok(created_s),
            false => Err(refusal::AUTH_EXPIRED),
        }
    }

    /// Whether both rules look at the same signatures of a request that has several.
    pub fn takes_same(&self, other: &Rule) -> bool {
        self.label == other.label && self.tag == other.tag
    }
}

/// Until when a signature counts.
fn end_s(said: &Said<'_>, created_s: u64, max_age_s: u64, skew_s: u64) -> u64 {
    let oldest = created_s.saturating_add(max_age_s);
    said.expires.map_or(oldest, |expires| expires.min(oldest)).saturating_add(skew_s)
}

/// Parameters of a signature (RFC 9421 §2.3).
struct Said<'p> {
    created: Option<u64>,
    expires: Option<u64>,
    nonce: Option<&'p str>,
    alg: Option<&'p str>,
    keyid: Option<&'p str>,
}

impl<'p> Said<'p> {
    /// `Err`: one of them is of another kind than it must be.
    fn read(params: &'p Parameters) -> Result<Said<'p>, ()> {
        let short = |name| match text(params, name)? {
            Some(text) if text.is_empty() || text.len() > NAME_BYTES_MAX => Err(()),
            text => Ok(text),
        };
        text(params, "tag")?;
        Ok(Said {
            created: time(params, "created")?,
            expires: time(params, "expires")?,
            nonce: short("nonce")?,
            alg: text(params, "alg")?,
            keyid: short("keyid")?,
        })
    }
}

fn text<'p>(params: &'p Parameters, name: &str) -> Result<Option<&'p str>, ()> {
    match params.get(name) {
        None => Ok(None),
        Some(BareItem::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(()),
    }
}

fn time(params: &Parameters, name: &str) -> Result<Option<u64>, ()> {
    match params.get(name) {
        None => Ok(None),
        Some(BareItem::Integer(time)) => u64::try_from(i64::from(*time)).map(Some).map_err(|_| ()),
        Some(_) => Err(()),
    }
}

/// What clients are told of what a way asks for (RFC 9421 §5.1): the value of a field
/// Accept-Signature.
pub fn wanted(rule: &Rule, name: &str) -> String {
    let mut list: Vec<String> =
        rule.components.iter().map(|component| format!("\"{}\"", component.name())).collect();
    if rule.content_digest {
        list.push("\"content-digest\"".to_owned());
    }
    let mut value = match rule.label.as_str() {
        "" => name.to_ascii_lowercase(),
        label => label.to_owned(),
    };
    // A label begins with a letter and has no dots of names of ways before it.
    if !value.starts_with(|c: char| c.is_ascii_lowercase()) {
        value = "sig".to_owned();
    }
    value.retain(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.'));
    value.push_str(&format!("=({});created;keyid", list.join(" ")));
    for (is_needed, parameter) in
        [(rule.needs_expires, "expires"), (rule.needs_nonce, "nonce"), (rule.needs_alg, "alg")]
    {
        if is_needed {
            value.push_str(&format!(";{parameter}"));
        }
    }
    if !rule.tag.is_empty() {
        value.push_str(&format!(";tag=\"{}\"", rule.tag));
    }
    value
}

#[cfg(test)]
mod tests;
