//! Masks JSON that comes in chunks: strings in place and numbers as a whole, keys where they are asked for; everything else goes
//! on byte for byte.
//!
//! One value may follow another (RFC 7464, and JSON lines). From the first byte on that cannot be JSON the rest is masked as
//! text in which escapes are read, so that neither what is wrongly declared to be JSON is overlooked, nor what only a lenient
//! reader takes for it.

mod grammar;
mod mark;
mod number;
mod string;
mod walk;

pub(crate) use number::as_integer;
pub use walk::{JsonWalk, Kind, NotJson, Visitor};

use crate::{
    find::{Detectors, Progress},
    mask::Mask,
};
use grammar::{Grammar, Token};
use mark::Mark;
use string::StringMasker;

/// Longest number or word that is waited for, in bytes; what is longer is no JSON that anybody means.
const BARE: usize = 512;
/// Words that are values; the last three are none of JSON's, but what Python and others write and read.
const WORDS: [&[u8]; 6] = [b"true", b"false", b"null", b"NaN", b"Infinity", b"-Infinity"];

/// One JSON text in the course of being masked.
#[derive(Debug, Default)]
pub struct JsonMasker {
    grammar: Grammar,
    inside: Inside,
    mark: Mark,
    keys: Keys,
    string: StringMasker,
    /// Of the numbers: what looking at one leaves for the next, and what was found in them.
    progress: Progress,
    bare: Vec<u8>,
    in_numbers: Vec<u32>,
    counts: Vec<u32>,
}

/// What becomes of an object's keys.
#[derive(Debug, Default, PartialEq, Eq)]
enum Keys {
    #[default]
    Keep,
    Mask,
}

/// What the next byte is part of.
#[derive(Debug, Default)]
enum Inside {
    #[default]
    Nothing,
    Key {
        escaped: bool,
    },
    Text,
    Bare,
    /// Not JSON after all.
    Else,
}

impl JsonMasker {
    /// One that masks keys, too: for those who only ask what is found. What is masked may have lost or doubled a key.
    pub fn with_keys() -> Self {
        Self { keys: Keys::Mask, ..Self::default() }
    }

    /// Takes the next bytes and appends to `out` what may go on by now, at most [`crate::LONGEST`] bytes staying behind
    /// (each of which may be written as an escape). With `end` all of it may.
    pub fn feed(&mut self, detectors: &Detectors, mask: &Mask, bytes: &[u8], end: bool, out: &mut Vec<u8>) {
        self.in_numbers.resize(detectors.names().len(), 0);
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = self.step(detectors, mask, rest, out);
        }
        match end {
            true => self.end(detectors, mask, out),
            false => self.string.pause(detectors, mask, out),
        }
        let (in_strings, in_numbers) = (self.string.counts(), &self.in_numbers);
        self.counts =
            (0..detectors.names().len()).map(|index| at(in_strings, index).saturating_add(at(in_numbers, index))).collect();
    }

    /// How many things each detector has found so far, in the order of [`Detectors::names`].
    pub fn counts(&self) -> &[u32] {
        &self.counts
    }

    /// How many bytes are held back.
    pub fn held(&self) -> usize {
        self.bare.len() + self.string.held()
    }

    /// Takes some of the bytes, at least one, and returns the rest.
    fn step<'a>(&mut self, detectors: &Detectors, mask: &Mask, bytes: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        match &mut self.inside {
            Inside::Nothing => self.between(bytes, out),
            Inside::Key { escaped } => {
                let closing = bytes.iter().position(|byte| {
                    let closes = *byte == b'"' && !*escaped;
                    *escaped = *byte == b'\\' && !*escaped;
                    closes
                });
                let length = closing.map_or(bytes.len(), |index| index + 1);
                if closing.is_some() {
                    self.inside = Inside::Nothing;
                }
                out.extend_from_slice(&bytes[..length]);
                &bytes[length..]
            }
            Inside::Text => {
                let taken = self.string.feed(detectors, mask, bytes, out);
                match taken {
                    string::Taken::All => &[],
                    string::Taken::Closed(length) => {
                        self.inside = Inside::Nothing;
                        &bytes[length..]
                    }
                    string::Taken::Wrong(length) => {
                        self.give_up();
                        &bytes[length..]
                    }
                }
            }
            Inside::Bare => {
                let length = bytes.iter().take_while(|byte| grammar::is_bare(**byte)).count();
                self.bare.extend_from_slice(&bytes[..length]);
                if length < bytes.len() || self.bare.len() > BARE {
                    self.end_bare(detectors, mask, out);
                }
                &bytes[length..]
            }
            Inside::Else => {
                self.string.feed(detectors, mask, bytes, out);
                &[]
            }
        }
    }

    fn between<'a>(&mut self, bytes: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        let byte = bytes[0];
        if self.mark.takes(byte) {
            out.push(byte);
            return &bytes[1..];
        }
        match self.grammar.next(byte) {
            Token::Structure => out.push(byte),
            Token::Key if self.keys == Keys::Keep => {
                self.inside = Inside::Key { escaped: false };
                out.push(byte);
            }
            Token::Key | Token::Text => {
                self.inside = Inside::Text;
                out.push(byte);
            }
            Token::Bare => {
                self.inside = Inside::Bare;
                return bytes;
            }
            Token::Wrong => {
                self.give_up();
                return bytes;
            }
        }
        &bytes[1..]
    }

    fn end_bare(&mut self, detectors: &Detectors, mask: &Mask, out: &mut Vec<u8>) {
        self.inside = Inside::Nothing;
        let mut bare = std::mem::take(&mut self.bare);
        let number = std::str::from_utf8(&bare).ok().filter(|text| bare.len() <= BARE && number::is_number(text));
        match number.map(|text| detectors.first_in_number(&mut self.progress, text)) {
            Some(Some(detector)) => {
                self.in_numbers[detector] = self.in_numbers[detector].saturating_add(1);
                out.push(b'"');
                out.extend_from_slice(mask.json().get(detector).map_or(&[], |mask| mask.as_bytes()));
                out.push(b'"');
            }
            Some(None) => out.extend_from_slice(&bare),
            None if WORDS.contains(&bare.as_slice()) => out.extend_from_slice(&bare),
            None => {
                self.give_up();
                self.string.feed(detectors, mask, &bare, out);
            }
        }
        bare.clear();
        self.bare = bare;
    }

    /// What follows is no JSON.
    fn give_up(&mut self) {
        self.inside = Inside::Else;
        self.string.never_closes();
    }

    fn end(&mut self, detectors: &Detectors, mask: &Mask, out: &mut Vec<u8>) {
        if matches!(self.inside, Inside::Bare) {
            self.end_bare(detectors, mask, out);
        }
        self.string.end(detectors, mask, out);
    }
}

fn at(counts: &[u32], index: usize) -> u32 {
    counts.get(index).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use crate::{JsonMasker, Mask, find::tests::detectors};
    use serde_json::json;

    fn masked(text: &str) -> String {
        masked_by(JsonMasker::default(), text)
    }

    fn masked_by(mut masker: JsonMasker, text: &str) -> String {
        let detectors = detectors(json!(["card", "email", {"name": "employee", "pattern": "EMP-[0-9]{6}"}]));
        let mask = Mask::new("<\"{detector}\">", &detectors);
        let mut out = Vec::new();
        masker.feed(&detectors, &mask, text.as_bytes(), true, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn strings_and_numbers_are_masked_and_the_rest_is_untouched() {
        for (text, wanted) in [
            (
                r#"{"a": "to bob@example.com now", "b":[1,2.5e3 , true]}"#,
                r#"{"a": "to <\"email\"> now", "b":[1,2.5e3 , true]}"#,
            ),
            (r#"{"bob@example.com": null}"#, r#"{"bob@example.com": null}"#),
            (r#"{"k\"bob@example.com": "x"}"#, r#"{"k\"bob@example.com": "x"}"#),
            (r#"["bob\u0040example.com", "a\nb\u00e9\ud83d\ude00"]"#, r#"["<\"email\">", "a\nb\u00e9\ud83d\ude00"]"#),
            (r#"["\u0034111 1111\u0020111\u0031 1111!"]"#, r#"["<\"card\">!"]"#),
            (r"4111111111111111", r#""<\"card\">""#),
            (r"[4111111111111111, -4111111111111111]", r#"["<\"card\">", "<\"card\">"]"#),
            (
                r"[4.111111111111111e15, 4111111111111111.0, 4111111111111112]",
                r#"["<\"card\">", "<\"card\">", 4111111111111112]"#,
            ),
            ("{}\n{\"a\":\"EMP-123456\"}\n", "{}\n{\"a\":\"<\\\"employee\\\">\"}\n"),
            ("\u{feff}[\"EMP-123456\"]", "\u{feff}[\"<\\\"employee\\\">\"]"),
            ("\"EMP-123456", "\"<\\\"employee\\\">"),
            ("\"\\\"EMP-123456\\\\\"", "\"\\\"<\\\"employee\\\">\\\\\""),
            ("[\"a\\ud83d\", \"\\ud83dx\", \"\\ud83d\\n\"]", "[\"a\\ud83d\", \"\\ud83dx\", \"\\ud83d\\n\"]"),
            ("", ""),
        ] {
            assert_eq!(masked(text), wanted, "{text}");
        }
    }

    #[test]
    fn keys_are_masked_where_they_are_asked_for() {
        for (text, wanted) in [
            (r#"{"bob@example.com": {"4111111111111111": 1}}"#, r#"{"<\"email\">": {"<\"card\">": 1}}"#),
            (r#"{"\u0034111111111111111":1, "b":"EMP-123456"}"#, r#"{"<\"card\">":1, "b":"<\"employee\">"}"#),
            (r#"{"a\"b" : 1, "c": [4111111111111111]}"#, r#"{"a\"b" : 1, "c": ["<\"card\">"]}"#),
        ] {
            assert_eq!(masked_by(JsonMasker::with_keys(), text), wanted, "{text}");
        }
    }

    /// What writers write and readers read, though it is no JSON: the rest is read as JSON still.
    #[test]
    fn what_is_nearly_json_is_masked_as_json() {
        for (text, wanted) in [
            (
                r#"{"x":[NaN,-Infinity, Infinity], "bob@example.com":"\u0034111111111111111"}"#,
                r#"{"x":[NaN,-Infinity, Infinity], "bob@example.com":"<\"card\">"}"#,
            ),
            (r#"[1,{"a":2,},4.111111111111111e15,]"#, r#"[1,{"a":2,},"<\"card\">",]"#),
        ] {
            assert_eq!(masked(text), wanted, "{text}");
        }
    }

    #[test]
    fn what_is_no_json_is_masked_as_text_with_escapes() {
        for (text, wanted) in [
            ("hello EMP-123456", r#"hello <\"employee\">"#),
            (r#"{"a": EMP-123456}"#, r#"{"a": <\"employee\">}"#),
            (")]}'\n{\"a\": \"\\u0034111111111111111\"}", ")]}'\n{\"a\": \"<\\\"card\\\">\"}"),
            (r#"/*"*/{"a":"\u0034111 1111\u00201111 1111","b\n":"\\"}"#, r#"/*"*/{"a":"<\"card\">","b\n":"\\"}"#),
            (r#"["\x","\n4111111111111111"]"#, r#"["\x","\n<\"card\">"]"#),
            (r#"{'a':"\q\u00\ud83d\ud83d\ude00\" bob\u0040example.com"}"#, r#"{'a':"\q\u00\ud83d\ud83d\ude00\" <\"email\">"}"#),
            ("[1,,]EMP-123456", r#"[1,,]<\"employee\">"#),
            (r#"{"a" "EMP-123456"}"#, r#"{"a" "<\"employee\">"}"#),
            ("[01] bob@example.com", r#"[01] <\"email\">"#),
            (r#"["\x", "EMP-123456"]"#, r#"["\x", "<\"employee\">"]"#),
            (r#"["EMP-123456\u00"#, r#"["<\"employee\">\u00"#),
            (r"nothing: EMP-123456\u00", r#"nothing: <\"employee\">\u00"#),
            (r"nothing: EMP-123456\", r#"nothing: <\"employee\">\"#),
        ] {
            assert_eq!(masked(text), wanted, "{text}");
        }
        let deep = format!("{}\"EMP-123456\"", "[".repeat(5000));
        assert!(!masked(&deep).contains("EMP-"), "deeper than any JSON is meant");
        let long = format!("[{} EMP-123456]", "1".repeat(5000));
        assert!(!masked(&long).contains("EMP-"));
    }
}
