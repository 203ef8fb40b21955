//! What a caller is told whose request cannot be converted, or the answer to it: problem+json (RFC 9457) that names the place.

use crate::request::{Place, Refusal};
use crate::response::Unwritable;
use serde_json::{Value, json};

/// An answer in the API's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) status: u16,
    pub(crate) detail: String,
    /// Where in the request or the answer.
    place: Option<(&'static str, String)>,
    /// The methods that the path has, for a 405.
    pub(crate) allow: Option<String>,
}

impl Problem {
    pub(crate) fn new(status: u16, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), place: None, allow: None }
    }

    /// The request does not fit the method.
    pub(crate) fn refused(refusal: Refusal) -> Self {
        let place = match refusal.place {
            Place::Body(pointer) => ("pointer", pointer),
            Place::Path(field) => ("path", field),
            Place::Query(parameter) => ("parameter", parameter),
        };
        Self { status: 400, detail: refusal.detail, place: Some(place), allow: None }
    }

    pub(crate) fn method_not_allowed(method: &str, allowed: &[&str]) -> Self {
        let allowed = allowed.join(", ");
        let detail = format!("{method} is not a method of this path: use {allowed}");
        Self { allow: Some(allowed), ..Self::new(405, detail) }
    }

    /// What the API answered cannot be shown.
    pub(crate) fn bad_answer(detail: impl std::fmt::Display) -> Self {
        Self::new(502, format!("the answer of the API cannot be converted: {detail}"))
    }

    pub(crate) fn unwritable(unwritable: Unwritable) -> Self {
        Self { place: Some(("pointer", unwritable.pointer)), ..Self::bad_answer(unwritable.detail) }
    }

    pub(crate) fn json(&self) -> Vec<u8> {
        let mut problem =
            json!({"type": "about:blank", "title": title(self.status), "status": self.status, "detail": self.detail});
        if let Some((kind, place)) = &self.place {
            problem["errors"] = json!([{ *kind: place, "detail": self.detail }]);
        }
        Value::to_string(&problem).into_bytes()
    }
}

const fn title(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        _ => "Error",
    }
}
