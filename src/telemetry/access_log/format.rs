//! Formats: compiled when the configuration is loaded, so that nothing is looked up by name for a
//! request.

use super::{
    Escape, Field, Line,
    fields::{Kind, Value, json_members},
    pen::Pen,
};

/// The combined format of NGINX and Apache.
const COMBINED: &str = "${client} - - [${time_clf}] \"${request_line}\" ${status} \
                        ${response_bytes} \"${referer}\" \"${user_agent}\"";

/// Longest template, in bytes.
const TEMPLATE_BYTES_MAX: usize = 4096;

/// How lines look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format(Form);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Template { pieces: Box<[Piece]>, escape: Escape },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Fixed(Box<[u8]>),
    Value(Field, Kind),
}

/// Why a template cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadTemplate {
    Empty,
    /// Longer than 4096 bytes.
    TooLong,
    /// It would break lines apart.
    ControlCharacter,
    /// A `$` that begins no variable.
    LoneDollar,
    /// A `${` without `}`.
    Open,
    UnknownField(String),
}

impl Format {
    pub fn json() -> Format {
        Format(Form::Json)
    }

    pub fn combined() -> Format {
        Format::template(COMBINED, Escape::Text).expect("invariant: it is tested")
    }

    /// Text with `${name}` for the fields of [`super::FIELDS`]; `$$` is a dollar sign.
    pub fn template(text: &str, escape: Escape) -> Result<Format, BadTemplate> {
        if text.is_empty() {
            return Err(BadTemplate::Empty);
        }
        if text.len() > TEMPLATE_BYTES_MAX {
            return Err(BadTemplate::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(BadTemplate::ControlCharacter);
        }
        let (mut pieces, mut fixed, mut rest) = (Vec::new(), Vec::new(), text);
        while let Some((before, after)) = rest.split_once('$') {
            fixed.extend_from_slice(before.as_bytes());
            if let Some(after) = after.strip_prefix('$') {
                fixed.push(b'$');
                rest = after;
                continue;
            }
            let named = after.strip_prefix('{').ok_or(BadTemplate::LoneDollar)?;
            let (name, after) = named.split_once('}').ok_or(BadTemplate::Open)?;
            let field =
                Field::named(name).ok_or_else(|| BadTemplate::UnknownField(name.to_owned()))?;
            if !fixed.is_empty() {
                pieces.push(Piece::Fixed(std::mem::take(&mut fixed).into()));
            }
            pieces.push(Piece::Value(field, field.kind()));
            rest = after;
        }
        fixed.extend_from_slice(rest.as_bytes());
        fixed.push(b'\n');
        pieces.push(Piece::Fixed(fixed.into()));
        Ok(Format(Form::Template { pieces: pieces.into(), escape }))
    }

    /// Writes the line, LF included, at the start of `room`: its bytes, or `None` when it does not
    /// fit, and then what is in the room means nothing.
    pub fn write(&self, line: &Line<'_>, room: &mut [u8]) -> Option<usize> {
        let mut pen = Pen::new(room);
        match &self.0 {
            Form::Json => json(line, &mut pen),
            Form::Template { pieces, escape } => {
                for piece in pieces {
                    match piece {
                        Piece::Fixed(text) => pen.put(text),
                        Piece::Value(field, kind) => place(*field, *kind, *escape, line, &mut pen),
                    }
                }
            }
        }
        pen.finish()
    }
}

fn json(line: &Line<'_>, pen: &mut Pen<'_>) {
    pen.put_byte(b'{');
    json_members(line, pen);
    pen.put(b"}\n");
}

impl Value<'_> {
    /// Writes a member of a JSON object; the keys are `"name":` and the same with the quotation
    /// mark that begins a string, each with a comma before it but the first.
    #[inline(always)]
    pub(super) fn member(self, [key, key_of_string]: [&'static str; 2], pen: &mut Pen<'_>) {
        match self {
            Value::None | Value::RequestLine => {}
            Value::Text(text) => {
                pen.put(key_of_string.as_bytes());
                Escape::Json.write(text, pen);
                pen.put_byte(b'"');
            }
            Value::Own(text) => {
                pen.put(key_of_string.as_bytes());
                pen.put(text);
                pen.put_byte(b'"');
            }
            Value::Number(number) => {
                pen.put(key.as_bytes());
                digits(number, pen);
            }
            Value::Flag(flag) => {
                pen.put(key.as_bytes());
                pen.put(flag_text(flag));
            }
        }
    }
}

/// Writes one value of a template.
fn place(field: Field, kind: Kind, escape: Escape, line: &Line<'_>, pen: &mut Pen<'_>) {
    match field.value(line) {
        Value::None => pen.put(match (escape, kind) {
            (Escape::Text, _) => b"-",
            (Escape::Json, Kind::String) => b"",
            (Escape::Json, Kind::Integer | Kind::Boolean) => b"null",
        }),
        Value::Text(text) => escape.write(text, pen),
        Value::Own(text) => pen.put(text),
        Value::Number(number) => digits(number, pen),
        Value::Flag(flag) => pen.put(flag_text(flag)),
        Value::RequestLine => {
            if let Some(request) = &line.request {
                escape.write(request.method, pen);
                pen.put_byte(b' ');
                escape.write(request.target, pen);
                pen.put_byte(b' ');
                pen.put(request.protocol.as_bytes());
            }
        }
    }
}

fn digits(number: u64, pen: &mut Pen<'_>) {
    match number {
        0..10 => pen.put_byte(b'0' + number as u8),
        _ => pen.put(itoa::Buffer::new().format(number).as_bytes()),
    }
}

fn flag_text(flag: bool) -> &'static [u8] {
    if flag { b"true" } else { b"false" }
}
