//! JSON text (RFC 8259) to a value, refusing what other parsers would read differently: doubled keys.

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::{cell::RefCell, fmt};
use tidegate_policy::Mistake;

/// Parses JSON text. Doubled keys come back as mistakes beside the value, so that what else is wrong is found too.
pub(crate) fn parse_json(body: &[u8]) -> Result<(Value, Vec<Mistake>), Vec<Mistake>> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(vec![Mistake::at("", "the body is empty: send a JSON document")]);
    }
    let doubled = RefCell::new(Vec::new());
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let parsed = Strict { pointer: "", doubled: &doubled }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| vec![Mistake::at("", format!("the body is not JSON: {error}"))])?;
    Ok((parsed, doubled.into_inner()))
}

/// The JSON pointer (RFC 6901) to `field` of the object at `parent`.
pub(crate) fn pointer_of(parent: &str, field: &str) -> String {
    format!("{parent}/{}", field.replace('~', "~0").replace('/', "~1"))
}

#[derive(Clone, Copy)]
struct Strict<'a> {
    pointer: &'a str,
    doubled: &'a RefCell<Vec<Mistake>>,
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        loop {
            let pointer = format!("{}/{}", self.pointer, array.len());
            match items.next_element_seed(Strict { pointer: &pointer, ..self })? {
                Some(item) => array.push(item),
                None => return Ok(Value::Array(array)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = fields.next_key::<String>()? {
            let pointer = pointer_of(self.pointer, &key);
            let value = fields.next_value_seed(Strict { pointer: &pointer, ..self })?;
            if object.insert(key, value).is_some() {
                self.doubled.borrow_mut().push(Mistake::at(pointer, "this key stands twice in its object: keep one"));
            }
        }
        Ok(Value::Object(object))
    }
}
