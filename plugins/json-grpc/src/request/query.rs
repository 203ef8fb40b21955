//! The fields of a request that its query has: `?page_size=10&filter.state=OPEN&tag=a&tag=b`. Each has to be one that path and
//! body leave open.

use super::write::{Draft, Part, Unknown};
use super::{Place, Refusal};
use crate::fields::FieldPath;
use crate::routes::{Binding, Body};
use crate::schema::{MessageId, Shape};
use percent_encoding::percent_decode_str;

/// Most parameters of a query: each is checked against the others.
const PARAMETERS: usize = 256;

pub(super) fn write(draft: &mut Draft<'_>, input: MessageId, binding: &Binding, query: &str) -> Result<(), Refusal> {
    let mut given: Vec<FieldPath> = Vec::new();
    for (count, pair) in query.split('&').filter(|pair| !pair.is_empty()).enumerate() {
        if count == PARAMETERS {
            return Err(Refusal::new(Place::Query(String::new()), format!("at most {PARAMETERS} parameters are read")));
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let shown = decode(name).unwrap_or_else(|| name.to_owned());
        let refusal = |detail: String| Refusal::new(Place::Query(shown.clone()), detail);
        let not_text = || refusal("what is percent-encoded is not UTF-8".to_owned());
        let (name, value) = (decode(name).ok_or_else(not_text)?, decode(value).ok_or_else(not_text)?);
        if binding.body == Body::Message {
            if draft.unknown == Unknown::Ignore {
                continue;
            }
            return Err(refusal("all fields of this call are in its body".to_owned()));
        }
        let field = match FieldPath::resolve(draft.schema, input, &name) {
            Ok(field) => field,
            Err(_) if draft.unknown == Unknown::Ignore => continue,
            Err(detail) => return Err(refusal(detail)),
        };
        check(draft, binding, &field, &given).map_err(|detail| refusal(detail.to_owned()))?;
        field.put(draft, Part::Bound, &value).map_err(refusal)?;
        given.push(field);
    }
    Ok(())
}

fn check(draft: &Draft<'_>, binding: &Binding, field: &FieldPath, given: &[FieldPath]) -> Result<(), &'static str> {
    if binding.variables.iter().any(|bound| bound.field == *field) {
        return Err("the path has the value of this field already");
    }
    if binding.body == Body::Field(field.root()) {
        return Err("this field is in the body");
    }
    if field.field(draft.schema).shape == Shape::One && given.contains(field) {
        return Err("the field is given twice");
    }
    let bound = binding.variables.iter().map(|bound| &bound.field);
    if given.iter().chain(bound).any(|other| other.excludes(field, draft.schema)) {
        return Err("another field of the same oneof is given too");
    }
    Ok(())
}

/// As forms encode it: a plus is a space.
fn decode(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

/// What the path says for the variables of its template.
pub(super) fn write_variables(draft: &mut Draft<'_>, binding: &Binding, values: &[String]) -> Result<(), Refusal> {
    for (bound, value) in binding.variables.iter().zip(values) {
        let put = bound.field.put(draft, Part::Bound, value);
        put.map_err(|detail| Refusal::new(Place::Path(bound.name.to_string()), detail))?;
    }
    Ok(())
}
