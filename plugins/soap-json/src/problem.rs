//! What callers are told when something cannot be done: problem+json (RFC 9457). It never quotes a body.

use crate::json::Json;

/// The content type.
pub(crate) const MEDIA_TYPE: &str = "application/problem+json";

/// What is wrong with a caller's document: a JSON pointer and a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mistake {
    pub(crate) pointer: String,
    pub(crate) detail: String,
}

impl Mistake {
    pub(crate) fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), detail: detail.into() }
    }
}

/// An answer that says why there is no other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) status: u16,
    pub(crate) title: String,
    pub(crate) detail: String,
    /// Further members, in order.
    pub(crate) members: Vec<(String, Json)>,
    /// The methods that would do, for 405.
    pub(crate) allow: Option<String>,
    /// Whether the service said it, in a fault.
    pub(crate) is_fault: bool,
}

impl Problem {
    pub(crate) fn new(status: u16, title: &str, detail: impl Into<String>) -> Self {
        Self { status, title: title.to_owned(), detail: detail.into(), members: Vec::new(), allow: None, is_fault: false }
    }

    /// The request's body cannot become an envelope.
    pub(crate) fn request(mistake: Mistake) -> Self {
        let mut problem = Self::new(400, "the request cannot be sent to the SOAP service", mistake.detail.clone());
        let error =
            vec![("pointer".to_owned(), Json::Text(mistake.pointer)), ("detail".to_owned(), Json::Text(mistake.detail))];
        problem.members.push(("errors".to_owned(), Json::Array(vec![Json::Object(error)])));
        problem
    }

    /// The service's answer cannot become JSON.
    pub(crate) fn response(detail: impl Into<String>) -> Self {
        Self::new(502, "the SOAP service's answer cannot be read", detail)
    }

    /// The body.
    pub(crate) fn body(&self) -> String {
        let mut members = vec![
            ("title".to_owned(), Json::Text(self.title.clone())),
            ("status".to_owned(), Json::Number(self.status.to_string())),
            ("detail".to_owned(), Json::Text(self.detail.clone())),
        ];
        members.extend(self.members.iter().cloned());
        let mut body = String::new();
        Json::Object(members).write(&mut body);
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_becomes_a_problem_that_points() {
        let body = Problem::request(Mistake::new("/a/0", "no \"good\"")).body();
        let read: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(read["status"], 400);
        assert_eq!(read["errors"], serde_json::json!([{"pointer": "/a/0", "detail": "no \"good\""}]));
    }
}
