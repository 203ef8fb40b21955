//! `google.protobuf.Any`: an object whose `@type` says what its other fields are. It may come last, so the object is kept as the
//! text that it is and read twice.

use super::json::{Content, Null, at};
use super::write::{Draft, Written, quoted};
use crate::schema::{Form, MessageId};
use crate::wire::{Span, WireType, put_bytes, put_varint};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

const TYPE: &str = "@type";

pub(super) fn content<'de, D: Deserializer<'de>>(
    draft: &mut Draft<'_>,
    null: Null,
    deserializer: D,
) -> Result<Written, D::Error> {
    let raw = <&'de RawValue as serde::Deserialize>::deserialize(deserializer)?.get();
    if raw == "null" {
        return match null {
            Null::Absent => Ok(Written::Nothing),
            Null::Refused => Err(D::Error::custom("null stands where an object is needed")),
        };
    }
    let error = |error: serde_json::Error| D::Error::custom(super::without_position(&error));
    let Some(url) = (&mut serde_json::Deserializer::from_slice(raw.as_bytes())).deserialize_any(TypeOf).map_err(error)? else {
        return match raw.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            Some(inside) if inside.trim_ascii().is_empty() => Ok(Written::Something),
            _ => Err(at(draft, TYPE, "an Any needs the type of what it holds")),
        };
    };
    let name = url.rsplit_once('/').map(|(_, name)| name);
    let Some(message) = name.and_then(|name| draft.schema.named(name)) else {
        return Err(at(draft, TYPE, format!("{} is not the URL of a type that the API knows", quoted(&url))));
    };
    put_bytes(&mut draft.out, 1, url.as_bytes());
    put_varint(&mut draft.out, u64::from(WireType::Bytes.tag(2)));
    let span = Span::open(&mut draft.out);
    draft.depth += 1;
    let mut inner = serde_json::Deserializer::from_slice(raw.as_bytes());
    if draft.schema.message(message).form == Form::Plain {
        Content { draft: &mut *draft, message, null: Null::Refused, skipped: Some(TYPE) }
            .deserialize(&mut inner)
            .map_err(error)?;
    } else {
        (&mut inner).deserialize_map(Wrapped { draft: &mut *draft, message }).map_err(error)?;
    }
    draft.depth -= 1;
    span.close(&mut draft.out);
    Ok(Written::Something)
}

/// Finds `@type`.
struct TypeOf;

impl<'de> Visitor<'de> for TypeOf {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with an @type")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<String>()? {
            if key != TYPE {
                map.next_value::<IgnoredAny>()?;
            } else if found.replace(map.next_value::<String>()?).is_some() {
                return Err(A::Error::custom("@type is given twice"));
            }
        }
        Ok(found)
    }
}

/// What a well-known type is inside an Any: `{"@type": …, "value": …}`.
struct Wrapped<'d, 's> {
    draft: &'d mut Draft<'s>,
    message: MessageId,
}

impl<'de> Visitor<'de> for Wrapped<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with @type and value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { draft, message } = self;
        let mut found = false;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                TYPE => drop(map.next_value::<IgnoredAny>()?),
                "value" if !found => {
                    let content = Content { draft: &mut *draft, message, null: Null::Refused, skipped: None };
                    map.next_value_seed(content).inspect_err(|_| draft.path.push("value".to_owned()))?;
                    found = true;
                }
                _ => return Err(at(draft, &key, "only @type and one value may stand here")),
            }
        }
        let optional = draft.schema.message(message).form == Form::Empty;
        if found || optional { Ok(()) } else { Err(at(draft, "value", "an Any of a well-known type needs a value")) }
    }
}
