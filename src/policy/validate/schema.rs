//! JSON Schemas (drafts 4, 6, 7, 2019-09 and 2020-12), compiled once for each configuration.
//!
//! Nothing is fetched: what a schema refers to outside of itself, whoever compiles it has to give.
//! Patterns are matched in linear time; for one that cannot be, such as one that looks ahead, there
//! is so much work and no more ([`stepped`]), and a value that needs more is refused.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use jsonschema::{
    PatternOptions, Retrieve, Uri, ValidationError, Validator,
    error::{TypeKind, ValidationErrorKind},
};
use serde_json::Value;

use super::{
    fault::{Fault, cut},
    stepped, tangle,
};

/// Reads what a schema refers to outside of itself, by its URI.
pub type Load = dyn Fn(&str) -> Result<Value, String> + Send + Sync;

/// Levels of a value whose faults are told in any case.
const TOLD_MAX: u32 = 3;

/// What values are checked against.
#[derive(Clone)]
pub struct Schema {
    validator: Arc<Validator>,
    /// What is wrong with a deep value is not looked for ([`tangle`]).
    is_tangled: bool,
    /// It has patterns that are not matched in linear time.
    is_stepped: bool,
}

/// A schema to compile.
pub struct Text<'t> {
    pub value: &'t Value,
    /// The document that it is a part of, where it is one.
    pub whole: Option<&'t Value>,
    /// What references in it are relative to.
    pub base: &'t str,
    /// `format` is looked at.
    pub formats: bool,
}

/// Why a schema cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Where in the schema, as a JSON pointer.
    pub pointer: String,
    pub what: String,
}

/// Whoever reads what is referred to, and what was read.
#[derive(Clone)]
struct Reader(Arc<Load>, Arc<Mutex<Vec<Value>>>);

impl Retrieve for Reader {
    fn retrieve(
        &self,
        uri: &Uri<String>,
    ) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        let value = (self.0)(uri.as_str())?;
        self.1.lock().unwrap_or_else(PoisonError::into_inner).push(value.clone());
        Ok(value)
    }
}

impl Schema {
    pub fn compile(text: &Text<'_>, load: &Arc<Load>) -> Result<Schema, Wrong> {
        let reader = Reader(load.clone(), Arc::default());
        let options = || {
            jsonschema::options()
                .with_base_uri(text.base)
                .with_retriever(reader.clone())
                .should_validate_formats(text.formats)
        };
        let linear = || {
            let patterns = PatternOptions::regex().size_limit(stepped::PATTERN_BYTES_MAX);
            options().with_pattern_options(patterns)
        };
        let first = linear().build(text.value);
        let is_stepped = first.as_ref().is_err_and(is_of_pattern);
        let built = match is_stepped {
            true => linear().with_keyword("pattern", stepped::keyword).build(text.value),
            false => first,
        };
        match built {
            Ok(validator) => {
                let read = reader.1.lock().unwrap_or_else(PoisonError::into_inner);
                let own = text.whole.unwrap_or(text.value);
                let all: Vec<&Value> = [own].into_iter().chain(&*read).collect();
                let is_tangled = tangle::is_tangled(&all);
                Ok(Schema { validator: Arc::new(validator), is_tangled, is_stepped })
            }
            Err(wrong) => {
                let is_own = matches!(wrong.kind(), ValidationErrorKind::Custom { .. });
                let at = if is_own { wrong.schema_path() } else { wrong.instance_path() };
                Err(Wrong { pointer: at.as_str().to_owned(), what: cause(&wrong) })
            }
        }
    }

    /// A check may take a tenth of a second, however small the value is.
    pub fn is_slow(&self) -> bool {
        self.is_stepped
    }

    /// Whether a value is as the schema says.
    pub fn allows(&self, value: &Value) -> bool {
        self.decide(value).unwrap_or(false)
    }

    /// `None`: that would take too long to tell.
    fn decide(&self, value: &Value) -> Option<bool> {
        match self.is_stepped {
            false => Some(self.validator.is_valid(value)),
            true => stepped::bounded(|| self.validator.is_valid(value)),
        }
    }

    /// The first thing that is wrong with a value: where, and what.
    pub fn check(&self, value: &Value) -> Result<(), Fault> {
        // Most are good, and this makes no message of what is not.
        match self.decide(value) {
            Some(true) => return Ok(()),
            Some(false) => {}
            None => return Err(Fault::in_body("", "takes too long to match with a pattern")),
        }
        let unknown = || Fault::in_body("", "is not as its schema says");
        if self.is_tangled && is_deeper(value, TOLD_MAX) {
            return Err(unknown());
        }
        let told = || self.validator.validate(value).map_err(|wrong| fault(&wrong));
        match self.is_stepped {
            false => told(),
            true => stepped::bounded(told).unwrap_or_else(|| Err(unknown())),
        }
    }
}

/// Whether arrays and objects are in one another more than so many times.
fn is_deeper(value: &Value, levels: u32) -> bool {
    let is_inner = |inner: &Value| {
        (inner.is_array() || inner.is_object()) && (levels == 1 || is_deeper(inner, levels - 1))
    };
    match value {
        Value::Array(items) => items.iter().any(is_inner),
        Value::Object(members) => members.values().any(is_inner),
        _ => false,
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Schema")
    }
}

fn is_of_pattern(wrong: &ValidationError<'_>) -> bool {
    matches!(wrong.kind(), ValidationErrorKind::Format { format } if format == "regex")
}

/// Why a schema is none.
fn cause(wrong: &ValidationError<'_>) -> String {
    use jsonschema::ReferencingError as Bad;
    match wrong.kind() {
        ValidationErrorKind::Referencing(Bad::Unretrievable { source, .. }) => source.to_string(),
        ValidationErrorKind::Referencing(Bad::PointerToNowhere { pointer }) => {
            format!("`$ref` leads to `{pointer}`, and there is nothing")
        }
        ValidationErrorKind::Referencing(Bad::NoSuchAnchor { anchor }) => {
            format!("`$ref` leads to the anchor `{anchor}`, and there is none of that name")
        }
        ValidationErrorKind::Referencing(Bad::UnknownSpecification { specification }) => {
            format!("`$schema` is `{specification}`, which is not known here")
        }
        ValidationErrorKind::Format { format } if format == "regex" => {
            let is_of_names = wrong.instance_path().as_str().contains("/patternProperties");
            match is_of_names {
                false => "the pattern is no regular expression".to_owned(),
                true => "a pattern of names is a regular expression without look-around and back \
                         references"
                    .to_owned(),
            }
        }
        ValidationErrorKind::AnyOf { .. } if wrong.instance_path().as_str().ends_with("/type") => {
            "`type` is string, number, integer, boolean, null, array or object".to_owned()
        }
        _ => what(wrong).unwrap_or_else(|| cut(&wrong.to_string())),
    }
}

fn fault(wrong: &ValidationError<'_>) -> Fault {
    let pointer = wrong.instance_path().as_str();
    // Whoever wrote the schema may have named what is missing; the value is never told.
    let what = what(wrong).unwrap_or_else(|| "is not as it has to be".to_owned());
    Fault::in_body(pointer, &what)
}

/// What is wrong, in words that follow the name of the value. Nothing of the value is in them, but
/// names of members.
fn what(wrong: &ValidationError<'_>) -> Option<String> {
    use ValidationErrorKind as Kind;
    Some(match wrong.kind() {
        Kind::AdditionalItems { limit } => format!("has more than {limit} items"),
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            format!("has members that are not described: {}", names(unexpected))
        }
        Kind::UnevaluatedItems { .. } => "has items that are not described".to_owned(),
        Kind::AnyOf { .. } => "is as none of the schemas in `anyOf` say".to_owned(),
        Kind::OneOfNotValid { .. } => "is as none of the schemas in `oneOf` say".to_owned(),
        Kind::OneOfMultipleValid { .. } => {
            "is as more than one of the schemas in `oneOf` say".to_owned()
        }
        Kind::Not { .. } => "is as the schema in `not` says".to_owned(),
        Kind::BacktrackLimitExceeded { .. } | Kind::RegexEngineFailure { .. } => {
            "takes too long to match with the pattern".to_owned()
        }
        Kind::Constant { expected_value } => format!("must be {expected_value}"),
        Kind::Enum { options } => format!("must be one of {options}"),
        Kind::Contains => "has not the items that it must contain".to_owned(),
        Kind::ContentEncoding { content_encoding } => format!("must be {content_encoding}"),
        Kind::FromUtf8 { .. } => "must be text".to_owned(),
        Kind::ContentMediaType { content_media_type } => format!("must be {content_media_type}"),
        Kind::ExclusiveMaximum { limit } => format!("must be less than {limit}"),
        Kind::ExclusiveMinimum { limit } => format!("must be more than {limit}"),
        Kind::Maximum { limit } => format!("must be at most {limit}"),
        Kind::Minimum { limit } => format!("must be at least {limit}"),
        Kind::MultipleOf { multiple_of } => format!("must be a multiple of {multiple_of}"),
        Kind::MaxItems { limit } => format!("must have at most {limit} items"),
        Kind::MinItems { limit } => format!("must have at least {limit} items"),
        Kind::MaxLength { limit } => format!("must have at most {limit} characters"),
        Kind::MinLength { limit } => format!("must have at least {limit} characters"),
        Kind::MaxProperties { limit } => format!("must have at most {limit} members"),
        Kind::MinProperties { limit } => format!("must have at least {limit} members"),
        Kind::FalseSchema => "must not be there".to_owned(),
        Kind::Format { format } => format!("must be of the format {format}"),
        Kind::Pattern { pattern } => format!("must match the pattern {pattern}"),
        Kind::PropertyNames { .. } => "has a member whose name is not allowed".to_owned(),
        Kind::Required { property } => format!("must have the member {property}"),
        Kind::Type { kind } => format!("must be of type {}", types(kind)),
        Kind::UniqueItems => "must have no item twice".to_owned(),
        // Own ones are of patterns.
        Kind::Custom { message, .. } => message.clone(),
        Kind::Referencing(_) => return None,
    })
}

fn types(kind: &TypeKind) -> String {
    match kind {
        TypeKind::Single(one) => one.to_string(),
        TypeKind::Multiple(set) => {
            let all: Vec<String> = set.iter().map(|one| one.to_string()).collect();
            all.join(" or ")
        }
    }
}

/// The first few names, each no longer than needed to find it.
fn names(all: &[String]) -> String {
    let mut told: Vec<String> = all.iter().take(3).map(|name| format!("`{}`", cut(name))).collect();
    if all.len() > told.len() {
        told.push(format!("and {} more", all.len() - told.len()));
    }
    told.join(", ")
}
