//! A REST request as the gRPC message that it means. Body first, then path, then query: the later ones win where a field is in
//! two of them, since readers of protobuf take the last value.

mod any;
mod dynamic;
mod json;
mod query;
mod seen;
pub(crate) mod write;

use crate::framing;
use crate::routes::{Binding, Body};
#[cfg(test)]
use crate::schema::MessageId;
use crate::schema::{Field, Schema};
use json::{Content, Null, Value};
use serde::de::DeserializeSeed;
use write::{Draft, Part, Unknown};

/// Why a request cannot be converted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) place: Place,
    pub(crate) detail: String,
}

/// Where the mistake is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A JSON pointer (RFC 6901) into the body.
    Body(String),
    /// The field that the path has.
    Path(String),
    /// The name of a parameter.
    Query(String),
}

impl Refusal {
    pub(crate) fn new(place: Place, detail: impl Into<String>) -> Self {
        Self { place, detail: detail.into() }
    }
}

/// What of a request becomes its message.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    /// What the path says for the variables of its template, in their order.
    pub(crate) variables: &'a [String],
    /// Without the question mark; empty where there is none.
    pub(crate) query: &'a str,
    pub(crate) body: &'a [u8],
}

/// The request as one gRPC frame.
pub(crate) fn convert(schema: &Schema, binding: &Binding, unknown: Unknown, parts: &Parts<'_>) -> Result<Vec<u8>, Refusal> {
    let input = schema.methods()[binding.method].input;
    let mut out = Vec::with_capacity(parts.body.len() + parts.query.len() + 64);
    framing::reserve(&mut out);
    let mut draft = Draft { schema, unknown, out, depth: 0, path: Vec::new() };
    match binding.body {
        Body::None => {}
        // No body at all is a message with nothing in it.
        Body::Message | Body::Field(_) if parts.body.trim_ascii().is_empty() => {}
        Body::Message => {
            let content = |draft: &mut Draft<'_>, json: &mut JsonReader<'_>| {
                Content { draft, message: input, null: Null::Refused, skipped: None }.deserialize(json).map(drop)
            };
            body(&mut draft, parts.body, content)?;
        }
        Body::Field(index) => {
            let field: &Field = schema.message(input).field(index);
            body_field(&mut draft, parts.body, field)?;
        }
    }
    query::write_variables(&mut draft, binding, parts.variables)?;
    query::write(&mut draft, input, binding, parts.query)?;
    framing::fill(&mut draft.out);
    Ok(draft.out)
}

type JsonReader<'a> = serde_json::Deserializer<serde_json::de::SliceRead<'a>>;

fn body_field<'s>(draft: &mut Draft<'s>, json: &[u8], field: &'s Field) -> Result<(), Refusal> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let value = Value { draft: &mut *draft, field, part: Part::Whole };
    let read = value.deserialize(&mut reader).and_then(|_| reader.end());
    read.map_err(|error| refusal(draft, &error))
}

fn body<'a>(
    draft: &mut Draft<'_>,
    json: &'a [u8],
    read: impl FnOnce(&mut Draft<'_>, &mut JsonReader<'a>) -> serde_json::Result<()>,
) -> Result<(), Refusal> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let read = read(draft, &mut reader).and_then(|()| reader.end());
    read.map_err(|error| refusal(draft, &error))
}

fn refusal(draft: &Draft<'_>, error: &serde_json::Error) -> Refusal {
    let mut pointer = String::new();
    for name in draft.path.iter().rev() {
        pointer.push('/');
        pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
    }
    let detail = match error.classify() {
        serde_json::error::Category::Data => without_position(error),
        // Where the text itself is broken, line and column are what helps.
        _ => format!("the body is not JSON: {error}"),
    };
    Refusal::new(Place::Body(pointer), detail)
}

/// The message without a line and column: the pointer says where the mistake is.
fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.as_str(), |(before, _)| before).to_owned()
}

/// A message by itself, for tests of the mapping.
#[cfg(test)]
pub(crate) fn message(schema: &Schema, id: MessageId, unknown: Unknown, json: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut draft = Draft { schema, unknown, out: Vec::new(), depth: 0, path: Vec::new() };
    body(&mut draft, json, |draft, reader| {
        Content { draft, message: id, null: Null::Refused, skipped: None }.deserialize(reader).map(drop)
    })?;
    Ok(draft.out)
}
