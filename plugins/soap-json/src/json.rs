//! JSON as it was written: members in their order and numbers digit by digit, for schemas have an order and prices do not
//! survive binary fractions. The grammar is `serde_json`'s; only what it would forget is kept here.

use crate::problem::Mistake;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;
use std::{collections::BTreeSet, fmt};

/// A JSON value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    /// The number's text.
    Number(String),
    Text(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// What a document may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) depth: usize,
    pub(crate) values: usize,
}

impl Json {
    /// Reads a document. A name that an object has twice is refused, for readers differ in which one counts.
    pub(crate) fn read(bytes: &[u8], bounds: Bounds) -> Result<Self, Mistake> {
        let text = std::str::from_utf8(bytes).map_err(|_| Mistake::new("", "the body is not UTF-8"))?;
        let raw: &RawValue = serde_json::from_str(text).map_err(|error| Mistake::new("", format!("not JSON: {error}")))?;
        Reader { left: bounds.values }.value(raw, bounds.depth, &mut String::new())
    }

    /// Appends the value's JSON.
    pub(crate) fn write(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Number(text) => out.push_str(text),
            Self::Text(text) => string(text, out),
            Self::Array(values) => {
                out.push('[');
                for (index, value) in values.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    value.write(out);
                }
                out.push(']');
            }
            Self::Object(members) => {
                out.push('{');
                for (index, (name, value)) in members.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    string(name, out);
                    out.push(':');
                    value.write(out);
                }
                out.push('}');
            }
        }
    }

    /// What an error calls it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
        }
    }
}

/// Appends a name to a JSON pointer (RFC 6901).
pub(crate) fn point(pointer: &mut String, name: &str) {
    pointer.push('/');
    for character in name.chars() {
        match character {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            _ => pointer.push(character),
        }
    }
}

/// Whether this text is a number of JSON's grammar (RFC 8259 section 6).
pub(crate) fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits(whole) && (whole == "0" || !whole.starts_with('0')) && fraction.is_none_or(digits) && exponent.is_none_or(digits)
}

/// Appends a string; `"`, `\` and the control characters are what JSON wants escaped.
fn string(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..=' ' if character != ' ' => out.push_str(&format!("\\u{:04x}", u32::from(character))),
            _ => out.push(character),
        }
    }
    out.push('"');
}

struct Reader {
    left: usize,
}

impl Reader {
    fn value(&mut self, raw: &RawValue, depth: usize, pointer: &mut String) -> Result<Json, Mistake> {
        let Some(left) = self.left.checked_sub(1) else {
            return Err(Mistake::new(pointer.as_str(), "the document has more values than `limits.elements` allows"));
        };
        self.left = left;
        let text = raw.get().trim_ascii();
        match text.as_bytes().first() {
            Some(b'n') => Ok(Json::Null),
            Some(b't') => Ok(Json::Bool(true)),
            Some(b'f') => Ok(Json::Bool(false)),
            Some(b'"') => part::<String>(text, pointer).map(Json::Text),
            Some(b'[' | b'{') if depth == 0 => {
                Err(Mistake::new(pointer.as_str(), "the document is nested deeper than `limits.depth` allows"))
            }
            Some(b'[') => self.array(part(text, pointer)?, depth - 1, pointer),
            Some(b'{') => self.object(part::<Members<'_>>(text, pointer)?, depth - 1, pointer),
            _ => Ok(Json::Number(text.to_owned())),
        }
    }

    fn array(&mut self, items: Vec<&RawValue>, depth: usize, pointer: &mut String) -> Result<Json, Mistake> {
        let mut values = Vec::with_capacity(items.len().min(self.left));
        let parent = pointer.len();
        for (index, item) in items.into_iter().enumerate() {
            point(pointer, &index.to_string());
            values.push(self.value(item, depth, pointer)?);
            pointer.truncate(parent);
        }
        Ok(Json::Array(values))
    }

    fn object(&mut self, Members(raw): Members<'_>, depth: usize, pointer: &mut String) -> Result<Json, Mistake> {
        let mut seen = BTreeSet::new();
        if let Some((twice, _)) = raw.iter().find(|(name, _)| !seen.insert(name.as_str())) {
            point(pointer, twice);
            return Err(Mistake::new(pointer.as_str(), "an object has this name twice"));
        }
        let mut members = Vec::with_capacity(raw.len().min(self.left));
        let parent = pointer.len();
        for (name, value) in raw {
            point(pointer, &name);
            let value = self.value(value, depth, pointer)?;
            pointer.truncate(parent);
            members.push((name, value));
        }
        Ok(Json::Object(members))
    }
}

fn part<'a, T: serde::Deserialize<'a>>(text: &'a str, pointer: &str) -> Result<T, Mistake> {
    // The grammar was checked with the whole; what is left are escapes that make no character.
    serde_json::from_str(text).map_err(|error| {
        let message = error.to_string();
        let detail = message.rsplit_once(" at line ").map_or(message.as_str(), |(before, _)| before);
        Mistake::new(pointer, format!("not JSON: {detail}"))
    })
}

/// An object's members in their order, with repetitions.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> serde::Deserialize<'de> for Members<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { depth: 4, values: 20 };

    fn again(text: &str) -> String {
        let mut out = String::new();
        Json::read(text.as_bytes(), BOUNDS).unwrap().write(&mut out);
        out
    }

    #[test]
    fn what_is_read_is_written_as_it_was() {
        let rows = [
            r#"{"z":1,"a":2,"m":{"y":[],"b":{}}}"#,
            r#"[10.10,-0,1e400,123456789012345678901234567890,0.1000]"#,
            r#"{"t":true,"f":false,"n":null,"s":"a\"\\\n\r\t\u0001é😀"}"#,
            "7",
            "\"\"",
        ];
        for text in rows {
            assert_eq!(again(text), text);
        }
        assert_eq!(again(" { \"a\" : [ 1 , \"\\u00e9\\/\" ] } "), r#"{"a":[1,"é/"]}"#);
    }

    #[test]
    fn mistakes_are_pointed_at() {
        let rows: [(&[u8], &str, &str); 9] = [
            (b"", "", "not JSON: EOF"),
            (b"{\"a\":}", "", "not JSON: expected value at line 1 column 6"),
            (b"{} {}", "", "not JSON: trailing"),
            (b"\"\xff\"", "", "not UTF-8"),
            (br#"{"a":{"b":"\ud800"}}"#, "/a/b", "not JSON: "),
            (br#"{"x":[{"a":1,"a":2}]}"#, "/x/0/a", "twice"),
            (br#"{"a/b":{"c~":1,"c~":2}}"#, "/a~1b/c~0", "twice"),
            (b"[[[[[]]]]]", "/0/0/0/0", "`limits.depth`"),
            (b"[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", "/19", "`limits.elements`"),
        ];
        for (text, pointer, detail) in rows {
            let mistake = Json::read(text, BOUNDS).unwrap_err();
            assert_eq!(mistake.pointer, pointer, "{}: {mistake:?}", String::from_utf8_lossy(text));
            assert!(mistake.detail.contains(detail), "{}: {mistake:?}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn numbers_are_those_of_json() {
        for text in ["0", "-0", "10.10", "1e5", "1E+05", "1.5e-7"] {
            assert!(is_number(text), "{text}");
        }
        for text in ["", "-", "+1", "01", ".5", "5.", "1e", "NaN", "INF", "0x1", "1 ", "١"] {
            assert!(!is_number(text), "{text}");
        }
    }
}
