//! Where in a JSON text the next token stands, and whether it may stand there (RFC 8259).

/// Deepest nesting that is followed.
const DEPTH: usize = 1024;

/// What begins with a byte.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// It is a token of its own, or a blank.
    Structure,
    /// A string that is a key.
    Key,
    /// A string that is a value.
    Text,
    /// A number, or one of the three words.
    Bare,
    /// No JSON goes on like this.
    Wrong,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Expected {
    /// A value; at the top, another one.
    #[default]
    Value,
    FirstValue,
    FirstKey,
    Key,
    Colon,
    Comma,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Container {
    Array,
    Object,
}

#[derive(Debug, Default)]
pub(super) struct Grammar {
    expected: Expected,
    open: Vec<Container>,
}

/// Whether numbers and words are made of it.
pub(super) fn is_bare(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')
}

impl Grammar {
    /// What begins with `byte`, which stands between two tokens.
    pub(super) fn next(&mut self, byte: u8) -> Token {
        use Expected::{Colon, Comma, FirstKey, FirstValue, Key, Value};
        let (token, expected) = match (byte, self.expected) {
            (b' ' | b'\t' | b'\r' | b'\n', expected) => (Token::Structure, expected),
            // Before each value of a JSON text sequence (RFC 7464).
            (0x1e, Value) if self.open.is_empty() => (Token::Structure, Value),
            (b'"', Value | FirstValue) => (Token::Text, self.behind_a_value()),
            (b'"', Key | FirstKey) => (Token::Key, Colon),
            (b'{', Value | FirstValue) => return self.begin(Container::Object, FirstKey),
            (b'[', Value | FirstValue) => return self.begin(Container::Array, FirstValue),
            // Behind a comma, too, which is no JSON but what many readers let pass.
            (b'}', FirstKey | Key | Comma) => return self.finish(Container::Object),
            (b']', FirstValue | Value | Comma) => return self.finish(Container::Array),
            (b',', Comma) if self.open.last() == Some(&Container::Object) => (Token::Structure, Key),
            (b',', Comma) => (Token::Structure, Value),
            (b':', Colon) => (Token::Structure, Value),
            (byte, Value | FirstValue) if is_bare(byte) => (Token::Bare, self.behind_a_value()),
            (_, expected) => (Token::Wrong, expected),
        };
        self.expected = expected;
        token
    }

    /// Whether nothing is open.
    pub(super) fn is_outermost(&self) -> bool {
        self.open.is_empty()
    }

    fn behind_a_value(&self) -> Expected {
        if self.open.is_empty() { Expected::Value } else { Expected::Comma }
    }

    fn begin(&mut self, container: Container, expected: Expected) -> Token {
        if self.open.len() == DEPTH {
            return Token::Wrong;
        }
        self.open.push(container);
        self.expected = expected;
        Token::Structure
    }

    fn finish(&mut self, container: Container) -> Token {
        if self.open.last() != Some(&container) {
            return Token::Wrong;
        }
        self.open.pop();
        self.expected = self.behind_a_value();
        Token::Structure
    }
}
