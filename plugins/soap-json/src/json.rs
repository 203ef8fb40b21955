//! JSON as it was written: members in their order and numbers digit by digit, for schemas have an order and prices do not
//! survive binary fractions. The grammar is the parser's, which reads a document once however deep it is nested.

use crate::problem::Mistake;
use json_event_parser::{JsonEvent, JsonSyntaxError, SliceJsonParser};
use std::collections::BTreeSet;

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
        let mut reader = Reader { parser: SliceJsonParser::new(bytes), left: bounds.values, pointer: String::new() };
        let first = reader.next()?;
        let value = reader.value(first, bounds.depth)?;
        match reader.next()? {
            JsonEvent::Eof => Ok(value),
            _ => Err(Mistake::new("", "not JSON: something follows the value")),
        }
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

struct Reader<'a> {
    parser: SliceJsonParser<'a>,
    left: usize,
    /// Of the value at hand.
    pointer: String,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<JsonEvent<'a>, Mistake> {
        self.parser.parse_next().map_err(|error| syntax(&error))
    }

    /// The value that begins with this event.
    fn value(&mut self, first: JsonEvent<'a>, depth: usize) -> Result<Json, Mistake> {
        let Some(left) = self.left.checked_sub(1) else {
            return Err(self.mistake("the document has more values than `limits.elements` allows"));
        };
        self.left = left;
        match first {
            JsonEvent::Null => Ok(Json::Null),
            JsonEvent::Boolean(value) => Ok(Json::Bool(value)),
            JsonEvent::Number(text) => Ok(Json::Number(text.into_owned())),
            JsonEvent::String(text) => Ok(Json::Text(text.into_owned())),
            JsonEvent::StartArray | JsonEvent::StartObject if depth == 0 => {
                Err(self.mistake("the document is nested deeper than `limits.depth` allows"))
            }
            JsonEvent::StartArray => self.array(depth - 1),
            JsonEvent::StartObject => self.object(depth - 1),
            // The parser hands out none of these where a value is to begin.
            JsonEvent::EndArray | JsonEvent::EndObject | JsonEvent::ObjectKey(_) | JsonEvent::Eof => {
                Err(self.mistake("not JSON: a value is missing"))
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Json, Mistake> {
        let mut values = Vec::new();
        let parent = self.pointer.len();
        loop {
            match self.next()? {
                JsonEvent::EndArray => return Ok(Json::Array(values)),
                first => {
                    point(&mut self.pointer, &values.len().to_string());
                    values.push(self.value(first, depth)?);
                    self.pointer.truncate(parent);
                }
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json, Mistake> {
        let mut members: Vec<(String, Json)> = Vec::new();
        let mut names = BTreeSet::new();
        let parent = self.pointer.len();
        loop {
            match self.next()? {
                JsonEvent::EndObject => return Ok(Json::Object(members)),
                JsonEvent::ObjectKey(name) => {
                    point(&mut self.pointer, &name);
                    if !names.insert(name.clone()) {
                        return Err(self.mistake("an object has this name twice"));
                    }
                    let first = self.next()?;
                    let value = self.value(first, depth)?;
                    self.pointer.truncate(parent);
                    members.push((name.into_owned(), value));
                }
                _ => return Err(self.mistake("not JSON: a name is missing")),
            }
        }
    }

    fn mistake(&self, detail: &str) -> Mistake {
        Mistake::new(self.pointer.as_str(), detail)
    }
}

fn syntax(error: &JsonSyntaxError) -> Mistake {
    let at = error.location().start;
    Mistake::new("", format!("not JSON at line {}, column {}: {}", at.line + 1, at.column + 1, error.message()))
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
            (b"", "", "not JSON at line 1, column 1"),
            (b"{\n\"a\":}", "", "not JSON at line 2, column 5"),
            (b"{} {}", "", "not JSON at line 1, column 4"),
            (b"\"\xff\"", "", "UTF-8"),
            (br#"{"a":{"b":"\ud800"}}"#, "", "not JSON at line 1"),
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
    fn what_is_not_json_is_refused() {
        let bounds = Bounds { depth: 100, values: 1000 };
        let texts = [
            "[1,]",
            "[,1]",
            "{\"a\":1,}",
            "{a:1}",
            "{'a':1}",
            "[1 2]",
            "{\"a\" 1}",
            "01",
            "1.",
            ".5",
            "+1",
            "1e",
            "- 1",
            "nul",
            "True",
            "NaN",
            "\"a",
            "\"\\x\"",
            "\"\n\"",
            "\"\\u12\"",
            "]",
            "}",
            "[",
            "{",
            "{\"a\"",
            "{\"a\":",
            "[}",
            "{]",
            "/**/1",
            "1 //",
            ",",
            ":",
        ];
        for text in texts {
            assert!(Json::read(text.as_bytes(), bounds).is_err(), "{text}");
        }
        let whole = r#" {"a":[1.5e3,true,{"b":"\u00e9"}],"c":null} "#.as_bytes();
        Json::read(whole, bounds).unwrap();
        for end in 0..whole.len() - 1 {
            assert!(Json::read(&whole[..end], bounds).is_err(), "{end}");
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
