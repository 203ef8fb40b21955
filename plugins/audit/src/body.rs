//! What is remembered of a body: the values at JSON pointers, and the digest of all of it. Pure.

use crate::redaction::{REDACTED, Redaction, is_secret_field};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use tidegate_sdk::{ConfigError, attributes::Value};

/// Most pointers in one direction.
const POINTERS: usize = 32;
/// Longest pointer, in bytes: it is the name of a field.
const POINTER_BYTES: usize = 128;

/// What is remembered of the bodies of one direction.
#[derive(Debug)]
pub(crate) struct BodySelection {
    pointers: Vec<Pointer>,
    digest: bool,
    /// The names of the fields that are not a pointer's.
    sha256: String,
    unread: String,
}

/// A JSON pointer (RFC 6901).
#[derive(Debug)]
struct Pointer {
    /// The field's name.
    label: String,
    pointer: String,
}

/// How a body has to be shown for that.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Showing {
    /// Not at all.
    Nothing,
    /// As it streams by.
    Pieces,
    /// All of it at once.
    Whole,
}

/// What has been collected of a body.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    digest: Option<Sha256>,
    parsed: bool,
    fields: Vec<(usize, Value)>,
    unread: Option<&'static str>,
    ended: bool,
}

impl BodySelection {
    pub(crate) fn new(prefix: &str, at: &str, pointers: Vec<String>, digest: bool) -> Result<Self, ConfigError> {
        if pointers.len() > POINTERS {
            return Err(ConfigError::new(at, format!("at most {POINTERS} pointers are followed")));
        }
        for (index, pointer) in pointers.iter().enumerate() {
            check(pointer).map_err(|detail| ConfigError::new(format!("{at}/{index}"), detail))?;
        }
        let pointers = pointers.into_iter().map(|pointer| Pointer { label: format!("{prefix}.body{pointer}"), pointer });
        let (sha256, unread) = (format!("{prefix}.sha256"), format!("{prefix}.unread"));
        Ok(Self { pointers: pointers.collect(), digest, sha256, unread })
    }

    /// Whether there is nothing to be remembered.
    pub(crate) fn is_nothing(&self) -> bool {
        self.pointers.is_empty() && !self.digest
    }

    /// How a body under this head has to be shown, and what is collected of it. A body is only held back for pointers into
    /// JSON.
    pub(crate) fn begin(&self, content_type: Option<&str>, content_encoding: Option<&str>) -> (Showing, Collected) {
        let mut collected = Collected { digest: self.digest.then(Sha256::new), ..Collected::default() };
        let encoded = content_encoding.is_some_and(|coding| !coding.trim().eq_ignore_ascii_case("identity"));
        match (self.pointers.is_empty(), content_type.is_some_and(is_json)) {
            (false, true) if encoded => collected.unread = Some("encoded"),
            (false, true) => collected.parsed = true,
            (false, false) | (true, _) => {}
        }
        let showing = match (collected.parsed, self.digest) {
            (true, _) => Showing::Whole,
            (false, true) => Showing::Pieces,
            (false, false) => Showing::Nothing,
        };
        (showing, collected)
    }

    /// Values at the pointers of a whole body, fit for an event. One that is not there is left out.
    pub(crate) fn read(&self, collected: &mut Collected, redaction: &Redaction, body: &[u8]) {
        if !collected.parsed || body.is_empty() {
            return;
        }
        let Ok(mut document) = serde_json::from_slice::<Json>(body) else {
            collected.unread = Some("not JSON");
            return;
        };
        for (index, Pointer { pointer, .. }) in self.pointers.iter().enumerate() {
            if is_under_a_secret(&document, pointer) {
                collected.fields.push((index, Value::from(REDACTED)));
            } else if let Some(value) = document.pointer_mut(pointer) {
                collected.fields.push((index, field(redaction, value.clone())));
            }
        }
    }

    /// The fields of an event.
    pub(crate) fn fields(&self, collected: Collected) -> Vec<(Cow<'_, str>, Value)> {
        let mut fields: Vec<(Cow<'_, str>, Value)> = Vec::new();
        for (index, value) in collected.fields {
            fields.push((Cow::Borrowed(self.pointers[index].label.as_str()), value));
        }
        let unread = match (collected.digest, collected.ended) {
            (Some(digest), true) => {
                fields.push((Cow::Borrowed(&self.sha256), Value::Text(hexadecimal(&digest.finalize()))));
                collected.unread
            }
            (Some(_), false) => collected.unread.or(Some("incomplete")),
            (None, _) => collected.unread,
        };
        if let Some(unread) = unread {
            fields.push((Cow::Borrowed(&self.unread), Value::from(unread)));
        }
        fields
    }
}

impl Collected {
    /// Whether pointers are followed into it.
    pub(crate) fn is_parsed(&self) -> bool {
        self.parsed
    }

    /// Takes the next piece into the digest.
    pub(crate) fn digest(&mut self, piece: &[u8]) {
        if let Some(digest) = &mut self.digest {
            digest.update(piece);
        }
    }

    /// The body has been seen to its end: only then does its digest mean anything.
    pub(crate) fn end(&mut self) {
        self.ended = true;
    }
}

/// Whether bodies of this content type are one JSON value (RFC 8259; RFC 6839 section 3.1).
fn is_json(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    matches!(media_type.as_str(), "application/json" | "text/json") || media_type.ends_with("+json")
}

/// Whether the value at the pointer, or one that it is inside of, is named like a secret.
fn is_under_a_secret(document: &Json, pointer: &str) -> bool {
    let ends = pointer.match_indices('/').map(|(index, _)| index).skip(1).chain([pointer.len()]);
    ends.filter(|end| *end > 0).any(|end| {
        let (_, name) = pointer[..end].rsplit_once('/').unwrap_or_default();
        let name = name.replace("~1", "/").replace("~0", "~");
        document.pointer(&pointer[..end]).is_some_and(|value| is_secret_field(&name, value))
    })
}

fn field(redaction: &Redaction, value: Json) -> Value {
    match redaction.value(value) {
        // A container's text is masked value by value; its keys are text, too.
        container @ (Json::Array(_) | Json::Object(_)) => Value::Text(redaction.text(&container.to_string())),
        Json::String(text) => Value::Text(redaction.text(&text)),
        Json::Bool(flag) => Value::Flag(flag),
        Json::Null => Value::from("null"),
        Json::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => Value::Uint(number),
            (None, Some(number)) => Value::Int(number),
            (None, None) => Value::Text(number.to_string()),
        },
    }
}

fn check(pointer: &str) -> Result<(), String> {
    let unescaped = pointer.split('~').skip(1).any(|after| !after.starts_with(['0', '1']));
    match pointer {
        _ if pointer.len() > POINTER_BYTES => Err(format!("a pointer has at most {POINTER_BYTES} bytes")),
        _ if !pointer.is_empty() && !pointer.starts_with('/') => {
            Err(format!("{pointer:?} is not a JSON pointer (RFC 6901): it begins with '/', or is empty for the whole body"))
        }
        _ if unescaped => Err(format!("{pointer:?} is not a JSON pointer (RFC 6901): '~' is written ~0, '/' inside a name ~1")),
        _ => Ok(()),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(pointers: &[&str], digest: bool) -> BodySelection {
        let pointers = pointers.iter().map(|pointer| (*pointer).to_owned()).collect();
        BodySelection::new("request", "/request_pointers", pointers, digest).unwrap()
    }

    fn read(pointers: &[&str], body: &str) -> Vec<(String, Value)> {
        let selection = selection(pointers, false);
        let redaction = Redaction::new(detection::Setting::all().check("").unwrap());
        let (showing, mut collected) = selection.begin(Some("application/json"), None);
        assert_eq!(showing, Showing::Whole);
        selection.read(&mut collected, &redaction, body.as_bytes());
        selection.fields(collected).into_iter().map(|(label, value)| (label.into_owned(), value)).collect()
    }

    #[test]
    fn a_body_is_held_back_only_for_pointers_into_json() {
        let showing =
            |pointers: &[&str], digest, content_type, encoding| selection(pointers, digest).begin(content_type, encoding).0;
        let json = Some("application/json; charset=utf-8");
        for (wanted, pointers, digest, content_type, encoding) in [
            (Showing::Nothing, &[][..], false, json, None),
            (Showing::Pieces, &[], true, json, None),
            (Showing::Whole, &["/a"], false, json, None),
            (Showing::Whole, &["/a"], true, Some("application/problem+json"), None),
            (Showing::Whole, &["/a"], true, Some("Application/JSON"), Some("identity")),
            (Showing::Nothing, &["/a"], false, Some("text/plain"), None),
            (Showing::Pieces, &["/a"], true, Some("text/plain"), None),
            (Showing::Nothing, &["/a"], false, None, None),
            (Showing::Nothing, &["/a"], false, json, Some("gzip")),
            (Showing::Pieces, &["/a"], true, json, Some("gzip")),
        ] {
            assert_eq!(
                showing(pointers, digest, content_type, encoding),
                wanted,
                "{pointers:?} {digest} {content_type:?} {encoding:?}"
            );
        }
    }

    #[test]
    fn values_are_picked_by_pointer() {
        let body = r#"{"a": {"b/c": [1, -2, 1.5, true, null, "text"]}, "": "empty"}"#;
        let pointers = ["/a/b~1c/0", "/a/b~1c/1", "/a/b~1c/2", "/a/b~1c/3", "/a/b~1c/4", "/a/b~1c/5", "/a", "/", "/absent"];
        let values: Vec<_> = read(&pointers, body).into_iter().map(|(_, value)| value).collect();
        let array = r#"{"b/c":[1,-2,1.5,true,null,"text"]}"#;
        assert_eq!(
            values,
            [
                Value::Uint(1),
                Value::Int(-2),
                "1.5".into(),
                Value::Flag(true),
                "null".into(),
                "text".into(),
                array.into(),
                "empty".into(),
            ]
        );
        assert_eq!(read(&[""], "7"), [("request.body".to_owned(), Value::Uint(7))]);
        assert_eq!(read(&["/a"], r#"{"a":1}"#)[0].0, "request.body/a");
    }

    #[test]
    fn nothing_that_was_to_be_hidden_is_in_a_field() {
        let body = r#"{"card": 4111111111111111, "note": "bob@example.com", "auth": {"token": "hunter2", "user": "bob"},
            "access_token": {"value": "hunter2"}, "bob@example.com": "x", "pan": "\u0034111111111111111"}"#;
        let fields = read(&["/card", "/note", "/auth", "/auth/token", "/access_token/value", "", "/pan"], body);
        assert_eq!(fields.len(), 7);
        let text = format!("{fields:?}");
        for secret in ["hunter2", "bob@example.com", "4111"] {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
        assert_eq!(fields[2].1, r#"{"token":"(redacted)","user":"bob"}"#.into());
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let unread = |body: &str| read(&["/a"], body);
        assert_eq!(unread("{"), [("request.unread".to_owned(), "not JSON".into())]);
        assert!(unread("").is_empty());
        let selection = selection(&["/a"], true);
        let (_, mut collected) = selection.begin(Some("application/json"), Some("br"));
        collected.end();
        let fields = selection.fields(collected);
        assert_eq!(fields.len(), 2, "the digest is there all the same: {fields:?}");
        assert_eq!(fields[1], ("request.unread".into(), "encoded".into()));
    }

    #[test]
    fn a_digest_is_of_all_of_a_body() {
        let selection = selection(&[], true);
        let (_, mut collected) = selection.begin(None, None);
        collected.digest(b"a");
        collected.digest(b"bc");
        collected.end();
        let wanted = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(selection.fields(collected), [("request.sha256".into(), wanted.into())]);
        let (_, mut collected) = selection.begin(None, None);
        collected.digest(b"a");
        assert_eq!(selection.fields(collected), [("request.unread".into(), "incomplete".into())]);
    }

    #[test]
    fn pointers_that_are_none_are_pointed_at() {
        for wrong in ["a", "/a~", "/~2", "a/b"] {
            let mistake = BodySelection::new("request", "/request_pointers", vec![String::new(), wrong.to_owned()], false);
            assert_eq!(mistake.unwrap_err().pointer(), "/request_pointers/1", "{wrong}");
        }
        assert!(BodySelection::new("request", "/p", vec!["/a~0b~1".to_owned()], false).is_ok());
        assert_eq!(BodySelection::new("request", "/p", vec![String::new(); 33], false).unwrap_err().pointer(), "/p");
    }
}
