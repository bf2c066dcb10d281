//! Patterns that are not matched in linear time: those that look ahead or behind, or refer back.
//!
//! Invariant: one check of one value has so much work for all of its patterns together, whatever
//! they and the value are; a check that needs more has no result ([`bounded`]), also where the
//! schema says `not`. Work is counted in steps times bytes, as between two steps (ways that are
//! tried one after the other) a pattern may look through the whole text.

use std::cell::Cell;

use jsonschema::{Keyword, ValidationError, paths::Location};
use jsonschema_regex::{RepeatedClass, Search, search_form, to_rust_regex};
use serde_json::{Map, Value};

/// Memory of one pattern, in bytes.
pub const PATTERN_BYTES_MAX: usize = 1 << 20;
/// Steps of a match: nearly all end within the first number; few that do not get the second.
const STEPS: [u64; 2] = [100, 10_000];
/// Work of one check. The worst patterns take up to 2 ns for each piece of it.
const WORK_MAX: u64 = 50_000_000;

thread_local! {
    /// What this thread's check may still do; 0: it has done too much.
    static LEFT: Cell<u64> = const { Cell::new(0) };
}

/// Does one check; `None`: its patterns needed more work than they may.
pub fn bounded<T>(check: impl FnOnce() -> T) -> Option<T> {
    LEFT.set(WORK_MAX);
    let done = check();
    (LEFT.get() > 0).then_some(done)
}

/// Whether there is work left for a match.
fn charge(steps: u64, text: &str) -> bool {
    let len = text.len() as u64 + 1;
    LEFT.set(LEFT.get().saturating_sub((steps + len).saturating_mul(len)));
    LEFT.get() > 0
}

/// A pattern of a schema in which one is not matched in linear time.
struct Pattern {
    text: Box<str>,
    engine: Engine,
}

enum Engine {
    Class(RepeatedClass),
    Linear(regex::Regex),
    /// The same with less and with more steps.
    Stepped(Box<[fancy_regex::Regex; 2]>),
}

impl Engine {
    /// `None`: it is no pattern.
    fn of(pattern: &str) -> Option<Engine> {
        let translated = to_rust_regex(pattern).ok()?;
        let (linear, stepped) = match search_form(pattern, &translated) {
            Some(Search::RepeatedClass(class)) => return Some(Engine::Class(class)),
            Some(Search::Collapsed(text)) => (text, None),
            None => (translated.into_owned(), Some(())),
        };
        let built = regex::RegexBuilder::new(&linear).size_limit(PATTERN_BYTES_MAX).build();
        if let Ok(regex) = built {
            return Some(Engine::Linear(regex));
        }
        stepped?;
        let of_steps = |steps| {
            fancy_regex::RegexBuilder::new(&linear)
                .backtrack_limit(steps as usize)
                .delegate_size_limit(PATTERN_BYTES_MAX)
                .build()
                .ok()
        };
        Some(Engine::Stepped(Box::new([of_steps(STEPS[0])?, of_steps(STEPS[1])?])))
    }

    fn is_match(&self, text: &str) -> bool {
        let stepped = match self {
            Engine::Class(class) => return class.is_match(text),
            Engine::Linear(regex) => return regex.is_match(text),
            Engine::Stepped(stepped) => stepped,
        };
        for (regex, steps) in stepped.iter().zip(STEPS) {
            if !charge(steps, text) {
                return false;
            }
            if let Ok(is_match) = regex.is_match(text) {
                return is_match;
            }
        }
        LEFT.set(0);
        false
    }
}

/// Makes the keyword `pattern`.
pub fn keyword<'a>(
    _: &'a Map<String, Value>,
    value: &'a Value,
    _: Location,
) -> Result<Box<dyn for<'i> Keyword<'i>>, ValidationError<'a>> {
    let text = value.as_str().unwrap_or_default();
    match Engine::of(text) {
        Some(engine) => Ok(Box::new(Pattern { text: text.into(), engine })),
        None => Err(ValidationError::custom("the pattern is no regular expression")),
    }
}

impl<'i> Keyword<'i> for Pattern {
    fn validate(&self, instance: &'i Value) -> Result<(), ValidationError<'i>> {
        match self.is_valid(instance) {
            true => Ok(()),
            false => {
                let what = format!("must match the pattern {}", self.text);
                Err(ValidationError::custom(what))
            }
        }
    }

    fn is_valid(&self, instance: &'i Value) -> bool {
        instance.as_str().is_none_or(|text| self.engine.is_match(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a match is charged, and what comes of it.
    fn matched(pattern: &str, text: &str) -> (Option<bool>, u64) {
        let engine = Engine::of(pattern).expect("a pattern");
        let mut left = 0;
        let result = bounded(|| {
            let is_match = engine.is_match(text);
            left = LEFT.get();
            is_match
        });
        (result, WORK_MAX - left)
    }

    #[test]
    fn patterns_are_matched_as_they_say() {
        for (pattern, text, expected) in [
            ("^(?=.*[A-Z])(?=.*[0-9]).{8,}$", "Secret-123", true),
            ("^(?=.*[A-Z])(?=.*[0-9]).{8,}$", "secret-123", false),
            ("^(?!admin)[a-z]+$", "admins", false),
            ("^(?!admin)[a-z]+$", "users", true),
            ("^(a|b)\\1$", "aa", true),
            ("^(a|b)\\1$", "ab", false),
            ("(?<=x)y", "xy", true),
            // Those of the same schema that could be matched in linear time.
            ("^[a-z]{1,40}$", "abc", true),
            ("^[a-z]{1,40}$", "ABC", false),
            ("^\\d+$", "12", true),
            ("b", "abc", true),
        ] {
            assert_eq!(matched(pattern, text).0, Some(expected), "{pattern} {text}");
        }
        assert!(Engine::of("(?=a").is_none());
        assert!(Engine::of("[a").is_none());
    }

    const TANGLED: &str = "^(a|a)*\\1b";

    /// Whatever the pattern, the first try has few steps and the second more.
    #[test]
    fn a_match_has_its_steps_and_no_more() {
        let long = "a".repeat(40);
        let once = (STEPS[0] + 41) * 41;
        assert_eq!(matched("^(?=a)a+$", &long), (Some(true), once));
        // Which of two ways each letter goes: 2 to the power of 40.
        let (result, work) = matched(TANGLED, &long);
        assert_eq!((result, work), (None, WORK_MAX));
        let engine = Engine::of(TANGLED).expect("a pattern");
        bounded(|| assert!(!engine.is_match(&long[..9])));
        bounded(|| {
            LEFT.set(once + (STEPS[1] + 41) * 41 + 1);
            assert!(!engine.is_match(&long));
            assert_eq!(LEFT.get(), 0, "it was tried twice, and given up");
        });
    }

    #[test]
    fn a_check_has_its_work_for_all_texts_together() {
        let engine = Engine::of("^(?=a)a+$").expect("a pattern");
        let (text, each) = ("a".repeat(1000), (STEPS[0] + 1001) * 1001);
        let most = (WORK_MAX - 1) / each;
        for (count, expected) in [(most, Some(true)), (most + 1, None)] {
            let all = || (0..count).all(|_| engine.is_match(&text));
            assert_eq!(bounded(all), expected, "{count}");
        }
        // One check's work is none of the next.
        assert_eq!(bounded(|| engine.is_match(&text)), Some(true));
        assert_eq!(bounded(|| engine.is_match(&"a".repeat(10_000))), None, "too long by itself");
    }
}
