//! Writes single values of a request onto the wire: what a string, a number or a word of the caller's becomes in a field of this
//! type. Shared by JSON bodies, paths and queries.

use crate::scalar::{self, Scalar};
use crate::schema::{Field, Form, Kind, MessageId, Presence, Schema, Shape};
use crate::time::{self, Time};
use crate::wire::{Span, WireType, put_bytes, put_varint};
use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Both alphabets, padded or not: the JSON mapping asks readers to take all of them.
const BASE64: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true).with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::STANDARD, BASE64);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::URL_SAFE, BASE64);

/// What becomes of fields and enum values that the schema does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unknown {
    /// The caller is told. A misspelt field that is dropped does harm in silence.
    #[default]
    Refuse,
    Ignore,
}

/// A message on its way to the wire.
#[derive(Debug)]
pub(crate) struct Draft<'s> {
    pub(crate) schema: &'s Schema,
    pub(crate) unknown: Unknown,
    pub(crate) out: Vec<u8>,
    /// How deeply nested what is written just now is.
    pub(crate) depth: u32,
    /// Where a mistake is, the innermost name first: filled while an error returns.
    pub(crate) path: Vec<String>,
}

/// Which part of a field a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// All of it: of a list the list.
    Whole,
    /// An element of a list, or the value of a map's entry.
    Element,
    /// An element of a packed list, which has no tag.
    Packed,
    /// A value that counts even where it is the type's default: it may be there to override another.
    Bound,
}

/// Whether a value left anything: `null` and ignored ones do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    Something,
    Nothing,
}

impl Draft<'_> {
    /// A value that the caller wrote as a string.
    pub(crate) fn string(&mut self, field: &Field, part: Part, text: &str) -> Result<Written, String> {
        match field.kind {
            Kind::String => self.bytes(field, part, text.as_bytes()),
            Kind::Bytes => return self.base64(field, part, text),
            Kind::Enum(id) => {
                let enumeration = self.schema.enumeration(id);
                match enumeration.number(text) {
                    Some(number) => self.scalar(field, part, Scalar::Varint(i64::from(number) as u64)),
                    None if self.unknown == Unknown::Ignore => return Ok(Written::Nothing),
                    None => return Err(format!("{} is not a value of the enum {}", quoted(text), enumeration.name)),
                }
            }
            Kind::Bool | Kind::Message(_) | Kind::Group(_) => return Err(unexpected(&quoted(text), field.kind)),
            kind => {
                let scalar = scalar::text(kind, text).map_err(|misfit| misfit_of(&quoted(text), misfit, kind))?;
                self.scalar(field, part, scalar);
            }
        }
        Ok(Written::Something)
    }

    /// A value from a path or a query, where everything is a string.
    pub(crate) fn text(&mut self, field: &Field, part: Part, text: &str) -> Result<Written, String> {
        match field.kind {
            Kind::Bool => match text {
                "true" => self.scalar(field, part, Scalar::Varint(1)),
                "false" => self.scalar(field, part, Scalar::Varint(0)),
                _ => return Err(unexpected(&quoted(text), field.kind)),
            },
            Kind::Enum(id) => {
                let known = self.schema.enumeration(id).number(text).is_some();
                match text.parse::<i32>() {
                    Ok(number) if !known => self.scalar(field, part, Scalar::Varint(i64::from(number) as u64)),
                    _ => return self.string(field, part, text),
                }
            }
            Kind::Message(id) => {
                self.tag(field, WireType::Bytes);
                let span = Span::open(&mut self.out);
                self.text_message(id, text)?;
                span.close(&mut self.out);
            }
            _ => return self.string(field, part, text),
        }
        Ok(Written::Something)
    }

    /// The content of a message that can be written as a string.
    fn text_message(&mut self, id: MessageId, text: &str) -> Result<(), String> {
        let message = self.schema.message(id);
        match message.form {
            Form::Wrapper => self.text(message.field(0), Part::Element, text).map(drop),
            _ => self.string_message(id, text),
        }
    }

    /// The content of a message whose JSON form is a string.
    pub(crate) fn string_message(&mut self, id: MessageId, text: &str) -> Result<(), String> {
        match self.schema.message(id).form {
            Form::Timestamp => {
                let time = time::timestamp(text).ok_or_else(|| {
                    format!("{} is not an RFC 3339 timestamp such as \"2026-11-21T09:12:10.5Z\"", quoted(text))
                })?;
                self.time(time);
            }
            Form::Duration => {
                let time = time::duration(text)
                    .ok_or_else(|| format!("{} is not a duration in seconds such as \"3.5s\"", quoted(text)))?;
                self.time(time);
            }
            Form::FieldMask => self.mask(text)?,
            _ => return Err(format!("{} stands where an object is needed", quoted(text))),
        }
        Ok(())
    }

    pub(crate) fn bool(&mut self, field: &Field, part: Part, value: bool) -> Result<Written, String> {
        if field.kind != Kind::Bool {
            return Err(unexpected(if value { "true" } else { "false" }, field.kind));
        }
        self.scalar(field, part, Scalar::Varint(u64::from(value)));
        Ok(Written::Something)
    }

    pub(crate) fn integer(&mut self, field: &Field, part: Part, value: i128) -> Result<Written, String> {
        if matches!(field.kind, Kind::Bool | Kind::String | Kind::Bytes) {
            return Err(unexpected(&value.to_string(), field.kind));
        }
        let scalar = scalar::integer(field.kind, value).map_err(|misfit| misfit_of(&value.to_string(), misfit, field.kind))?;
        self.scalar(field, part, scalar);
        Ok(Written::Something)
    }

    pub(crate) fn float(&mut self, field: &Field, part: Part, value: f64) -> Result<Written, String> {
        if matches!(field.kind, Kind::Bool | Kind::String | Kind::Bytes) {
            return Err(unexpected(&value.to_string(), field.kind));
        }
        let scalar = scalar::float(field.kind, value).map_err(|misfit| misfit_of(&value.to_string(), misfit, field.kind))?;
        self.scalar(field, part, scalar);
        Ok(Written::Something)
    }

    pub(crate) fn tag(&mut self, field: &Field, wire_type: WireType) {
        put_varint(&mut self.out, u64::from(wire_type.tag(field.number)));
    }

    fn scalar(&mut self, field: &Field, part: Part, scalar: Scalar) {
        if !(is_optional(field, part) && scalar.is_zero()) {
            scalar.put(&mut self.out, (part != Part::Packed).then_some(field.number));
        }
    }

    fn bytes(&mut self, field: &Field, part: Part, bytes: &[u8]) {
        if !(is_optional(field, part) && bytes.is_empty()) {
            put_bytes(&mut self.out, field.number, bytes);
        }
    }

    fn base64(&mut self, field: &Field, part: Part, text: &str) -> Result<Written, String> {
        let engine = if text.contains(['-', '_']) { URL_SAFE } else { STANDARD };
        let bytes = engine.decode(text).map_err(|error| format!("{} is not base64: {error}", quoted(text)))?;
        self.bytes(field, part, &bytes);
        Ok(Written::Something)
    }

    fn time(&mut self, time: Time) {
        for (number, value) in [(1, time.seconds), (2, i64::from(time.nanos))] {
            if value != 0 {
                Scalar::Varint(value as u64).put(&mut self.out, Some(number));
            }
        }
    }

    /// `user.displayName,photo` becomes `user.display_name` and `photo`.
    fn mask(&mut self, text: &str) -> Result<(), String> {
        for path in text.split(',').filter(|_| !text.is_empty()) {
            let mut name = String::with_capacity(path.len() + 4);
            for character in path.chars() {
                match character {
                    'A'..='Z' => name.extend(['_', character.to_ascii_lowercase()]),
                    'a'..='z' | '0'..='9' | '.' => name.push(character),
                    _ => return Err(format!("{} is not a list of field paths in lowerCamelCase", quoted(text))),
                }
            }
            if name.split('.').any(str::is_empty) {
                return Err(format!("{} has an empty field path", quoted(text)));
            }
            put_bytes(&mut self.out, 1, name.as_bytes());
        }
        Ok(())
    }
}

/// Whether the type's default value is as good as none.
fn is_optional(field: &Field, part: Part) -> bool {
    part == Part::Whole && field.shape == Shape::One && field.presence == Presence::Implicit
}

pub(crate) fn unexpected(value: &str, kind: Kind) -> String {
    format!("{value} stands where {} is needed", kind.noun())
}

fn misfit_of(value: &str, misfit: &str, kind: Kind) -> String {
    format!("{value} {misfit}, and {} is needed", kind.noun())
}

/// The caller's text as JSON, cut to a length that a message to people can have.
pub(crate) fn quoted(text: &str) -> String {
    const SHOWN: usize = 64;
    let end = text.char_indices().nth(SHOWN).map_or(text.len(), |(index, _)| index);
    let more = if end < text.len() { "…" } else { "" };
    format!("{:?}{more}", &text[..end])
}
