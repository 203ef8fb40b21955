//! Goes through a JSON text that comes in chunks, and tells what begins and ends where. It remembers where it is and nothing of
//! what it has seen, so a text may be of any length.
//!
//! What numbers, words and escapes say is not looked at: who wants a value has its bytes.

use super::{
    grammar::{Grammar, Token, is_bare},
    mark::Mark,
};

/// What each value of a JSON text sequence begins with (RFC 7464), which is not one value.
const RECORD_SEPARATOR: u8 = 0x1e;

/// What a value is, as its first byte says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Fields between braces.
    Object,
    /// Values between brackets.
    Array,
    /// A string.
    Text,
    /// A number.
    Number,
    /// `true`, `false` or `null`.
    Word,
}

/// Who is told.
pub trait Visitor {
    /// A value begins with the next bytes.
    fn begins(&mut self, kind: Kind);
    /// These are the next bytes of the text, whatever they belong to.
    fn bytes(&mut self, bytes: &[u8]);
    /// The bytes just told are part of a key, quotes included. `whole` says that it ends with them.
    fn key(&mut self, bytes: &[u8], whole: bool);
    /// The value that began last of those that have not ended ends with the bytes just told.
    fn ends(&mut self, kind: Kind);
}

/// The text is not one JSON value, or one that is nested more than 1,024 deep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotJson;

/// One JSON text in the course of being gone through.
#[derive(Debug, Default)]
pub struct JsonWalk {
    grammar: Grammar,
    mark: Mark,
    inside: Inside,
    /// Its value has begun: there is no second one.
    begun: bool,
}

/// What the next byte is part of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Inside {
    #[default]
    Nothing,
    Quoted {
        role: Role,
        escaped: bool,
    },
    Bare(Kind),
}

/// What a string is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Key,
    Value,
}

impl Kind {
    /// Whether other values may be inside.
    pub fn is_container(self) -> bool {
        matches!(self, Self::Object | Self::Array)
    }

    /// What begins with this byte, where a value does.
    fn of(byte: u8) -> Self {
        match byte {
            b'{' => Self::Object,
            b'[' => Self::Array,
            b'"' => Self::Text,
            b'-' | b'0'..=b'9' => Self::Number,
            _ => Self::Word,
        }
    }
}

impl JsonWalk {
    /// Takes the next bytes. After an error there is nothing more to be told.
    pub fn feed(&mut self, bytes: &[u8], visitor: &mut impl Visitor) -> Result<(), NotJson> {
        let mut rest = bytes;
        while let Some(byte) = rest.first() {
            let taken = match self.inside {
                Inside::Nothing if self.mark.takes(*byte) => 1,
                Inside::Nothing => self.between(rest, visitor)?,
                Inside::Quoted { role, escaped } => self.quoted(role, escaped, rest, visitor),
                Inside::Bare(kind) => self.bare(kind, rest, visitor),
            };
            rest = &rest[taken..];
        }
        Ok(())
    }

    /// The text is over.
    pub fn end(&mut self, visitor: &mut impl Visitor) -> Result<(), NotJson> {
        if let Inside::Bare(kind) = self.inside {
            self.inside = Inside::Nothing;
            visitor.ends(kind);
        }
        let whole = self.begun && self.inside == Inside::Nothing && self.grammar.is_outermost();
        if whole { Ok(()) } else { Err(NotJson) }
    }

    /// Takes what begins here: a byte, or nothing where more belongs to it.
    fn between(&mut self, rest: &[u8], visitor: &mut impl Visitor) -> Result<usize, NotJson> {
        let byte = rest[0];
        let outermost = self.grammar.is_outermost();
        let token = self.grammar.next(byte);
        let begins = matches!(token, Token::Text | Token::Bare) || matches!(byte, b'{' | b'[');
        if token == Token::Wrong || byte == RECORD_SEPARATOR || (begins && outermost && self.begun) {
            return Err(NotJson);
        }
        if begins {
            self.begun = true;
            visitor.begins(Kind::of(byte));
        }
        match token {
            Token::Bare => {
                self.inside = Inside::Bare(Kind::of(byte));
                return Ok(0);
            }
            Token::Key | Token::Text => {
                let role = if token == Token::Key { Role::Key } else { Role::Value };
                self.inside = Inside::Quoted { role, escaped: false };
            }
            Token::Structure | Token::Wrong => {}
        }
        visitor.bytes(&rest[..1]);
        match byte {
            b'"' if token == Token::Key => visitor.key(&rest[..1], false),
            b'}' => visitor.ends(Kind::Object),
            b']' => visitor.ends(Kind::Array),
            _ => {}
        }
        Ok(1)
    }

    fn quoted(&mut self, role: Role, mut escaped: bool, rest: &[u8], visitor: &mut impl Visitor) -> usize {
        let closing = rest.iter().position(|byte| {
            let closes = *byte == b'"' && !escaped;
            escaped = *byte == b'\\' && !escaped;
            closes
        });
        let length = closing.map_or(rest.len(), |index| index + 1);
        self.inside = if closing.is_some() { Inside::Nothing } else { Inside::Quoted { role, escaped } };
        visitor.bytes(&rest[..length]);
        match role {
            Role::Key => visitor.key(&rest[..length], closing.is_some()),
            Role::Value if closing.is_some() => visitor.ends(Kind::Text),
            Role::Value => {}
        }
        length
    }

    fn bare(&mut self, kind: Kind, rest: &[u8], visitor: &mut impl Visitor) -> usize {
        let length = rest.iter().take_while(|byte| is_bare(**byte)).count();
        if length > 0 {
            visitor.bytes(&rest[..length]);
        }
        if length < rest.len() {
            self.inside = Inside::Nothing;
            visitor.ends(kind);
        }
        length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes down what it is told.
    #[derive(Debug, Default)]
    struct Notes {
        told: String,
        bytes: Vec<u8>,
        key: Vec<u8>,
    }

    impl Visitor for Notes {
        fn begins(&mut self, kind: Kind) {
            self.told.push_str(&format!("<{kind:?} "));
        }

        fn bytes(&mut self, bytes: &[u8]) {
            self.bytes.extend_from_slice(bytes);
        }

        fn key(&mut self, bytes: &[u8], whole: bool) {
            self.key.extend_from_slice(bytes);
            if whole {
                self.told.push_str(&String::from_utf8(std::mem::take(&mut self.key)).unwrap());
                self.told.push(' ');
            }
        }

        fn ends(&mut self, kind: Kind) {
            self.told.push_str(&format!("{kind:?}> "));
        }
    }

    fn walked(text: &[u8], size: usize) -> Result<Notes, NotJson> {
        let (mut walk, mut notes) = (JsonWalk::default(), Notes::default());
        for piece in text.chunks(size) {
            walk.feed(piece, &mut notes)?;
        }
        walk.end(&mut notes).map(|()| notes)
    }

    #[test]
    fn what_begins_and_ends_is_told_however_it_is_cut() {
        for (text, wanted) in [
            (
                r#" {"a\"b" : [1, -2.5e3,true ,"x\\"], "c":{}} "#,
                concat!(
                    r#"<Object "a\"b" <Array <Number Number> <Number Number> <Word Word> <Text Text> Array> "#,
                    r#""c" <Object Object> Object> "#
                ),
            ),
            ("17", "<Number Number> "),
            ("null\n", "<Word Word> "),
            (r#""""#, "<Text Text> "),
            ("[]", "<Array Array> "),
        ] {
            for size in 1..=text.len() {
                let notes = walked(text.as_bytes(), size).unwrap();
                assert_eq!((notes.told.as_str(), notes.bytes.as_slice()), (wanted, text.as_bytes()), "{size}");
            }
        }
        assert_eq!(walked("\u{feff}1".as_bytes(), 1).unwrap().bytes, b"1", "the mark is no part of the text");
    }

    #[test]
    fn what_is_not_one_value_is_none() {
        let deep = "[".repeat(1025);
        for text in ["", " ", "{", "\"", "{\"a\"", "{\"a\":", "[1", "1 2", "{}{}", "}", "[1}", "\u{1e}{}", "1,", deep.as_str()]
        {
            for size in [1, text.len().max(1)] {
                assert_eq!(walked(text.as_bytes(), size).map(|notes| notes.told), Err(NotJson), "{text}");
            }
        }
    }
}
