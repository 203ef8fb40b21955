//! `google.protobuf.Struct`, `Value` and `ListValue`: JSON of any kind as a message.

use super::json::{Null, at};
use super::write::{Draft, Written};
use crate::scalar::Scalar;
use crate::schema::Form;
use crate::wire::{DEPTH, Span, WireType, put_bytes, put_varint};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// The content of a message of one of the three forms.
pub(super) struct Dynamic<'d, 's> {
    pub(super) draft: &'d mut Draft<'s>,
    pub(super) form: Form,
    pub(super) null: Null,
}

// The numbers of the fields of `Value`.
const NULL: u32 = 1;
const NUMBER: u32 = 2;
const STRING: u32 = 3;
const BOOL: u32 = 4;
const STRUCT: u32 = 5;
const LIST: u32 = 6;

impl Dynamic<'_, '_> {
    /// Opens the field of a `Value` that the container is, unless the container itself is asked for.
    fn open(&mut self, container: Form, number: u32) -> Result<Option<Span>, &'static str> {
        if self.form == container {
            return Ok(None);
        }
        self.must_be_value(container)?;
        Ok(Some(open(self.draft, number)))
    }

    fn must_be_value(&self, found: Form) -> Result<(), &'static str> {
        match (self.form, found) {
            (Form::Struct, _) => Err("something else stands where an object is needed"),
            (Form::ListValue, _) => Err("something else stands where a list is needed"),
            _ => Ok(()),
        }
    }

    fn scalar(self, number: u32, scalar: Scalar) -> Result<Written, &'static str> {
        self.must_be_value(Form::Value)?;
        scalar.put(&mut self.draft.out, Some(number));
        Ok(Written::Something)
    }
}

fn open(draft: &mut Draft<'_>, number: u32) -> Span {
    put_varint(&mut draft.out, u64::from(WireType::Bytes.tag(number)));
    Span::open(&mut draft.out)
}

impl<'de> DeserializeSeed<'de> for Dynamic<'_, '_> {
    type Value = Written;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Written, D::Error> {
        if self.draft.depth >= DEPTH {
            return Err(D::Error::custom("nested too deeply"));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Dynamic<'_, '_> {
    type Value = Written;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.form {
            Form::Struct => "an object",
            Form::ListValue => "a list",
            _ => "any JSON",
        })
    }

    fn visit_unit<E: Error>(self) -> Result<Written, E> {
        match (self.form, self.null) {
            (Form::Value, _) => self.scalar(NULL, Scalar::Varint(0)).map_err(E::custom),
            (_, Null::Absent) => Ok(Written::Nothing),
            (_, Null::Refused) => Err(E::custom("null stands where a value is needed")),
        }
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Written, E> {
        self.scalar(BOOL, Scalar::Varint(u64::from(value))).map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Written, E> {
        self.visit_f64(value as f64)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Written, E> {
        self.visit_f64(value as f64)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Written, E> {
        self.scalar(NUMBER, Scalar::Fixed64(value.to_bits())).map_err(E::custom)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Written, E> {
        self.must_be_value(Form::Value).map_err(E::custom)?;
        put_bytes(&mut self.draft.out, STRING, text.as_bytes());
        Ok(Written::Something)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<Written, A::Error> {
        let outer = self.open(Form::ListValue, LIST).map_err(A::Error::custom)?;
        let draft = self.draft;
        draft.depth += 1;
        let mut index = 0usize;
        loop {
            let start = draft.out.len();
            let span = open(draft, 1);
            match elements.next_element_seed(Dynamic { draft: &mut *draft, form: Form::Value, null: Null::Refused }) {
                Ok(Some(_)) => span.close(&mut draft.out),
                Ok(None) => {
                    draft.out.truncate(start);
                    break;
                }
                Err(error) => {
                    draft.path.push(index.to_string());
                    return Err(error);
                }
            }
            index += 1;
        }
        draft.depth -= 1;
        if let Some(span) = outer {
            span.close(&mut draft.out);
        }
        Ok(Written::Something)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<Written, A::Error> {
        let outer = self.open(Form::Struct, STRUCT).map_err(A::Error::custom)?;
        let draft = self.draft;
        draft.depth += 1;
        let mut names = std::collections::BTreeSet::new();
        while let Some(key) = entries.next_key::<String>()? {
            let entry = open(draft, 1);
            put_bytes(&mut draft.out, 1, key.as_bytes());
            let value = open(draft, 2);
            let seed = Dynamic { draft: &mut *draft, form: Form::Value, null: Null::Refused };
            entries.next_value_seed(seed).inspect_err(|_| draft.path.push(key.clone()))?;
            value.close(&mut draft.out);
            entry.close(&mut draft.out);
            if let Some(repeated) = names.replace(key) {
                return Err(at(draft, &repeated, "the name is given twice"));
            }
        }
        draft.depth -= 1;
        if let Some(span) = outer {
            span.close(&mut draft.out);
        }
        Ok(Written::Something)
    }
}
