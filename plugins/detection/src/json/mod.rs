//! Masks JSON that comes in chunks: strings in place and numbers as a whole, keys never; everything else goes on byte for byte.
//!
//! One value may follow another (RFC 7464, and JSON lines). From the first byte on that cannot be JSON the rest is masked as
//! plain text, so that what is wrongly declared to be JSON is not overlooked.

mod grammar;
mod number;
mod string;

pub(crate) use number::as_integer;

use crate::{find::Detectors, mask::Mask, text::TextMasker};
use grammar::{Grammar, Token};
use string::StringMasker;

/// Longest number or word that is waited for, in bytes; what is longer is no JSON that anybody means.
const BARE: usize = 512;
/// What a text may begin with (RFC 8259 section 8.1 lets readers ignore it).
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One JSON text in the course of being masked.
#[derive(Debug, Default)]
pub struct JsonMasker {
    grammar: Grammar,
    inside: Inside,
    /// How much of a byte order mark has come.
    mark: usize,
    string: StringMasker,
    text: TextMasker,
    in_numbers: Vec<u32>,
    counts: Vec<u32>,
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
    Bare(Vec<u8>),
    /// Not JSON after all.
    Else,
}

impl JsonMasker {
    /// Takes the next bytes and appends to `out` what may go on by now, at most [`crate::LONGEST`] bytes staying behind
    /// (each of which may be written as an escape). With `end` all of it may.
    pub fn feed(&mut self, detectors: &Detectors, mask: &Mask, bytes: &[u8], end: bool, out: &mut Vec<u8>) {
        self.in_numbers.resize(detectors.names().len(), 0);
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = self.step(detectors, mask, rest, out);
        }
        if end {
            self.end(detectors, mask, out);
        }
        let counts =
            |index: usize| [self.string.counts(), self.text.counts(), &self.in_numbers].map(|counts| at(counts, index));
        self.counts =
            (0..detectors.names().len()).map(|index| counts(index).into_iter().fold(0, u32::saturating_add)).collect();
    }

    /// How many things each detector has found so far, in the order of [`Detectors::names`].
    pub fn counts(&self) -> &[u32] {
        &self.counts
    }

    /// How many bytes are held back.
    pub fn held(&self) -> usize {
        let bare = if let Inside::Bare(bytes) = &self.inside { bytes.len() } else { 0 };
        bare + self.string.held() + self.text.held()
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
                        self.inside = Inside::Else;
                        &bytes[length..]
                    }
                }
            }
            Inside::Bare(bare) => {
                let length = bytes.iter().take_while(|byte| grammar::is_bare(**byte)).count();
                bare.extend_from_slice(&bytes[..length]);
                if length < bytes.len() || bare.len() > BARE {
                    self.end_bare(detectors, mask, out);
                }
                &bytes[length..]
            }
            Inside::Else => {
                self.text.feed(detectors, mask, bytes, false, out);
                &[]
            }
        }
    }

    fn between<'a>(&mut self, bytes: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        let byte = bytes[0];
        if BYTE_ORDER_MARK.get(self.mark) == Some(&byte) {
            self.mark += 1;
            out.push(byte);
            return &bytes[1..];
        }
        self.mark = BYTE_ORDER_MARK.len();
        match self.grammar.next(byte) {
            Token::Structure => out.push(byte),
            Token::Key => {
                self.inside = Inside::Key { escaped: false };
                out.push(byte);
            }
            Token::Text => {
                self.inside = Inside::Text;
                out.push(byte);
            }
            Token::Bare => {
                self.inside = Inside::Bare(Vec::new());
                return bytes;
            }
            Token::Wrong => {
                self.inside = Inside::Else;
                return bytes;
            }
        }
        &bytes[1..]
    }

    fn end_bare(&mut self, detectors: &Detectors, mask: &Mask, out: &mut Vec<u8>) {
        let Inside::Bare(bare) = std::mem::take(&mut self.inside) else { return };
        let number = std::str::from_utf8(&bare).ok().filter(|text| bare.len() <= BARE && number::is_number(text));
        match number.map(|text| detectors.first_in_number(text)) {
            Some(Some(detector)) => {
                self.in_numbers[detector] = self.in_numbers[detector].saturating_add(1);
                out.push(b'"');
                out.extend_from_slice(mask.json().get(detector).map_or(&[], |mask| mask.as_bytes()));
                out.push(b'"');
            }
            Some(None) => out.extend_from_slice(&bare),
            None if matches!(bare.as_slice(), b"true" | b"false" | b"null") => out.extend_from_slice(&bare),
            None => {
                self.inside = Inside::Else;
                self.text.feed(detectors, mask, &bare, false, out);
            }
        }
    }

    fn end(&mut self, detectors: &Detectors, mask: &Mask, out: &mut Vec<u8>) {
        match self.inside {
            Inside::Nothing | Inside::Key { .. } => {}
            Inside::Text => self.string.end(detectors, mask, out),
            Inside::Bare(_) => self.end_bare(detectors, mask, out),
            Inside::Else => {}
        }
        self.text.feed(detectors, mask, &[], true, out);
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
        let detectors = detectors(json!(["card", "email", {"name": "employee", "pattern": "EMP-[0-9]{6}"}]));
        let mask = Mask::new("<\"{detector}\">", &detectors);
        let mut out = Vec::new();
        JsonMasker::default().feed(&detectors, &mask, text.as_bytes(), true, &mut out);
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
    fn what_is_no_json_is_masked_as_text() {
        for (text, wanted) in [
            ("hello EMP-123456", "hello <\"employee\">"),
            ("{\"a\": EMP-123456}", "{\"a\": <\"employee\">}"),
            (")]}'\n{\"a\": \"EMP-123456\"}", ")]}'\n{\"a\": \"<\"employee\">\"}"),
            ("[1,]EMP-123456", "[1,]<\"employee\">"),
            ("{\"a\" \"EMP-123456\"}", "{\"a\" \"<\"employee\">\"}"),
            ("[01] bob@example.com", "[01] <\"email\">"),
            ("[\"\\x\", \"EMP-123456\"]", "[\"\\x\", \"<\"employee\">\"]"),
            ("[\"EMP-123456\\u00", "[\"<\\\"employee\\\">\\u00"),
        ] {
            assert_eq!(masked(text), wanted, "{text}");
        }
        let deep = format!("{}\"EMP-123456\"", "[".repeat(5000));
        assert!(!masked(&deep).contains("EMP-"), "deeper than any JSON is meant");
        let long = format!("[{} EMP-123456]", "1".repeat(5000));
        assert!(!masked(&long).contains("EMP-"));
    }
}
