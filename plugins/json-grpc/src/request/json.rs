//! JSON to the wire in one pass: serde drives, and each value is written where it is read. The mapping is protobuf's own
//! (<https://protobuf.dev/programming-guides/json/>), strictly: wrong types, unknown and repeated names are refused.

use super::any;
use super::dynamic::Dynamic;
use super::seen::Seen;
use super::write::{Draft, Part, Unknown, Written, quoted, unexpected};
use crate::schema::{Field, Form, Kind, Message, MessageId, Shape};
use crate::wire::{DEPTH, Span, WireType, put_varint};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// The content of a message: what stands between its tag and its end.
pub(crate) struct Content<'d, 's> {
    pub(crate) draft: &'d mut Draft<'s>,
    pub(crate) message: MessageId,
    pub(crate) null: Null,
    /// A name that is not a field of the message: `@type`, where it is inside an Any.
    pub(crate) skipped: Option<&'static str>,
}

/// Whether `null` may stand for an absent value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Null {
    Absent,
    Refused,
}

/// A field, or an element of one.
pub(super) struct Value<'d, 's> {
    pub(super) draft: &'d mut Draft<'s>,
    pub(super) field: &'s Field,
    pub(super) part: Part,
}

impl<'de> DeserializeSeed<'de> for Content<'_, '_> {
    type Value = Written;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Written, D::Error> {
        if self.draft.depth >= DEPTH {
            return Err(D::Error::custom("nested too deeply"));
        }
        let message = self.draft.schema.message(self.message);
        let part = if self.null == Null::Absent { Part::Whole } else { Part::Element };
        match message.form {
            Form::Plain | Form::Empty | Form::Timestamp | Form::Duration | Form::FieldMask => {
                deserializer.deserialize_any(self)
            }
            Form::Wrapper => Value { draft: self.draft, field: message.field(0), part }.deserialize(deserializer),
            form @ (Form::Struct | Form::Value | Form::ListValue) => {
                Dynamic { draft: self.draft, form, null: self.null }.deserialize(deserializer)
            }
            Form::Any => any::content(self.draft, self.null, deserializer),
        }
    }
}

impl<'de> Visitor<'de> for Content<'_, '_> {
    type Value = Written;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.draft.schema.message(self.message).form {
            Form::Timestamp => f.write_str("an RFC 3339 timestamp in a string"),
            Form::Duration => f.write_str("a duration such as \"3.5s\""),
            Form::FieldMask => f.write_str("field paths in a string"),
            _ => f.write_str("an object"),
        }
    }

    fn visit_unit<E: Error>(self) -> Result<Written, E> {
        match self.null {
            Null::Absent => Ok(Written::Nothing),
            Null::Refused => Err(E::custom("null stands where a value is needed")),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Written, E> {
        self.draft.string_message(self.message, text).map_err(E::custom)?;
        Ok(Written::Something)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Written, A::Error> {
        let Self { draft, message, skipped, .. } = self;
        let message = draft.schema.message(message);
        if !matches!(message.form, Form::Plain | Form::Empty) {
            return Err(A::Error::custom("an object stands where a string is needed"));
        }
        draft.depth += 1;
        let mut seen = Seen::default();
        while let Some(key) = map.next_key_seed(Key { message })? {
            match key {
                Name::Field(index) => {
                    let field = message.field(index);
                    let value = Value { draft: &mut *draft, field, part: Part::Whole };
                    let written = map.next_value_seed(value).inspect_err(|_| draft.path.push(field.json_name.to_string()))?;
                    if written == Written::Something {
                        seen.note(field, index).map_err(|mistake| at(draft, &field.json_name, mistake))?;
                    }
                }
                Name::Other(name) if skipped == Some(&*name) || draft.unknown == Unknown::Ignore => {
                    map.next_value::<IgnoredAny>()?;
                }
                Name::Other(name) => {
                    let detail = format!("{} has no field of this name", message.name);
                    return Err(at(draft, &name, detail));
                }
            }
        }
        draft.depth -= 1;
        Ok(Written::Something)
    }
}

/// A mistake at this name.
pub(super) fn at<E: Error>(draft: &mut Draft<'_>, name: &str, detail: impl fmt::Display) -> E {
    draft.path.push(name.to_owned());
    E::custom(detail)
}

/// Looks a name up where it stands, so that known ones are never copied.
struct Key<'s> {
    message: &'s Message,
}

enum Name {
    Field(u16),
    Other(Box<str>),
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Name;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Name, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Name;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Name, E> {
        Ok(self.message.by_name(name).map_or_else(|| Name::Other(name.into()), Name::Field))
    }
}

impl<'s> Value<'_, 's> {
    /// A message: its content with what stands around it.
    fn nested<'de, D: Deserializer<'de>>(self, message: MessageId, deserializer: D) -> Result<Written, D::Error> {
        let Self { draft, field, part } = self;
        let start = draft.out.len();
        let null = if part == Part::Whole { Null::Absent } else { Null::Refused };
        let written = if let Kind::Group(_) = field.kind {
            draft.tag(field, WireType::StartGroup);
            let written = Content { draft: &mut *draft, message, null, skipped: None }.deserialize(deserializer)?;
            draft.tag(field, WireType::EndGroup);
            written
        } else {
            draft.tag(field, WireType::Bytes);
            let span = Span::open(&mut draft.out);
            let written = Content { draft: &mut *draft, message, null, skipped: None }.deserialize(deserializer)?;
            span.close(&mut draft.out);
            written
        };
        if written == Written::Nothing {
            draft.out.truncate(start);
        }
        Ok(written)
    }

    fn element(&mut self, field: &'s Field, part: Part) -> Value<'_, 's> {
        Value { draft: self.draft, field, part }
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_, '_> {
    type Value = Written;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Written, D::Error> {
        match self.field.message() {
            Some(message) if self.part != Part::Whole || self.field.shape == Shape::One => self.nested(message, deserializer),
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Value<'_, '_> {
    type Value = Written;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.noun())
    }

    fn visit_unit<E: Error>(self) -> Result<Written, E> {
        match self.field.kind {
            Kind::Enum(id) if self.draft.schema.enumeration(id).is_null && !self.is_collection() => {
                self.draft.integer(self.field, self.part, 0).map_err(E::custom)
            }
            _ if self.part == Part::Whole => Ok(Written::Nothing),
            kind => Err(E::custom(unexpected("null", kind))),
        }
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Written, E> {
        self.one(if value { "true" } else { "false" })?;
        self.draft.bool(self.field, self.part, value).map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Written, E> {
        self.one("a number")?;
        self.draft.integer(self.field, self.part, i128::from(value)).map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Written, E> {
        self.one("a number")?;
        self.draft.integer(self.field, self.part, i128::from(value)).map_err(E::custom)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Written, E> {
        self.one("a number")?;
        self.draft.float(self.field, self.part, value).map_err(E::custom)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Written, E> {
        self.one("a string")?;
        self.draft.string(self.field, self.part, text).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<Written, A::Error> {
        let (Part::Whole, Shape::List { packed }) = (self.part, self.field.shape) else {
            return Err(A::Error::custom(format!("a list stands where {} is needed", self.noun())));
        };
        let (field, start) = (self.field, self.draft.out.len());
        let span = packed.then(|| {
            self.draft.tag(field, WireType::Bytes);
            Span::open(&mut self.draft.out)
        });
        let part = if packed { Part::Packed } else { Part::Element };
        let mut index = 0usize;
        loop {
            match elements.next_element_seed(self.element(field, part)) {
                Ok(Some(_)) => index += 1,
                Ok(None) => break,
                Err(error) => {
                    self.draft.path.push(index.to_string());
                    return Err(error);
                }
            }
        }
        match span {
            Some(span) if span.is_empty(&self.draft.out) => self.draft.out.truncate(start),
            Some(span) => span.close(&mut self.draft.out),
            None => {}
        }
        Ok(Written::Something)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<Written, A::Error> {
        let (Part::Whole, Shape::Map, Kind::Message(entry)) = (self.part, self.field.shape, self.field.kind) else {
            return Err(A::Error::custom(format!("an object stands where {} is needed", self.noun())));
        };
        let (key_field, value_field) = self.draft.schema.entry(entry);
        let mut keys = std::collections::BTreeSet::new();
        while let Some(key) = entries.next_key::<String>()? {
            let start = self.draft.out.len();
            put_varint(&mut self.draft.out, u64::from(WireType::Bytes.tag(self.field.number)));
            let span = Span::open(&mut self.draft.out);
            let written = self.draft.text(key_field, Part::Element, &key);
            written.map_err(|mistake| at(self.draft, &key, format!("the key {} does not fit: {mistake}", quoted(&key))))?;
            let value = self.element(value_field, Part::Element);
            let written = entries.next_value_seed(value).inspect_err(|_| self.draft.path.push(key.clone()))?;
            span.close(&mut self.draft.out);
            if written == Written::Nothing {
                self.draft.out.truncate(start);
            }
            if let Some(repeated) = keys.replace(key) {
                return Err(at(self.draft, &repeated, "the key is given twice"));
            }
        }
        Ok(Written::Something)
    }
}

impl Value<'_, '_> {
    fn is_collection(&self) -> bool {
        self.part == Part::Whole && self.field.shape != Shape::One
    }

    fn noun(&self) -> &'static str {
        match self.field.shape {
            Shape::List { .. } if self.part == Part::Whole => "a list",
            Shape::Map if self.part == Part::Whole => "an object",
            _ => self.field.kind.noun(),
        }
    }

    /// Refuses a single value where a list or a map is needed.
    fn one<E: Error>(&self, value: &str) -> Result<(), E> {
        if self.is_collection() {
            return Err(E::custom(format!("{value} stands where {} is needed", self.noun())));
        }
        Ok(())
    }
}
