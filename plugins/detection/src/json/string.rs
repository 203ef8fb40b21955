//! One JSON string, masked in place: detectors see what it means, and what they leave alone goes on as it was written. And
//! text that only looks like JSON, with strings somewhere in it: what reads as an escape is one, everything else means itself.

use crate::{encoded::Encoded, find::Detectors, mask::Mask};

/// How far the bytes belonged to the string.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    All,
    /// So many, the last of which is its closing quote.
    Closed(usize),
    /// So many, and what follows cannot stand in a string.
    Wrong(usize),
}

/// Where a string ends.
#[derive(Debug, Default, PartialEq, Eq)]
enum Closes {
    #[default]
    AtItsQuote,
    /// It is text to the end: a quote is a byte like any other, and so is a backslash that begins no escape.
    Never,
}

#[derive(Debug, Default)]
pub(super) struct StringMasker {
    closes: Closes,
    text: Encoded,
    /// Half a character written as an escape (RFC 8259 section 7): the other half may follow.
    half: Option<[u8; 6]>,
    /// An escape that has begun.
    escape: Vec<u8>,
}

impl StringMasker {
    /// From here on all that comes is text.
    pub(super) fn never_closes(&mut self) {
        self.closes = Closes::Never;
    }

    pub(super) fn counts(&self) -> &[u32] {
        self.text.counts()
    }

    pub(super) fn held(&self) -> usize {
        self.text.held() + self.escape.len() + self.half.map_or(0, |half| half.len())
    }

    /// Takes what belongs to the string, its closing quote included.
    pub(super) fn feed(&mut self, detectors: &Detectors, mask: &Mask, bytes: &[u8], out: &mut Vec<u8>) -> Taken {
        let mut at = 0;
        while let Some(byte) = bytes.get(at).copied() {
            if !self.escape.is_empty() {
                if !self.goes_on(byte) && self.closes == Closes::Never {
                    self.literal(detectors, mask, out);
                    continue;
                }
                if !self.goes_on(byte) {
                    self.end(detectors, mask, out);
                    return Taken::Wrong(at);
                }
                self.escape.push(byte);
                self.escaped(detectors, mask, out);
                at += 1;
            } else if self.closes_with(byte) {
                self.end(detectors, mask, out);
                out.push(byte);
                return Taken::Closed(at + 1);
            } else if byte == b'\\' {
                self.escape.push(byte);
                at += 1;
            } else {
                self.alone(detectors, mask, out);
                let rest = &bytes[at..];
                let length = rest.iter().position(|byte| *byte == b'\\' || self.closes_with(*byte)).unwrap_or(rest.len());
                if rest.get(length).is_some_and(|byte| self.closes_with(*byte)) {
                    // The common case, a string whose end is here and that nothing is escaped in: one pass instead of two.
                    self.text.end(detectors, mask.json(), &rest[..length], out);
                    out.push(b'"');
                    return Taken::Closed(at + length + 1);
                }
                self.text.plain(detectors, mask.json(), &rest[..length], out);
                at += length;
            }
        }
        Taken::All
    }

    /// The string is over, or what there is of it.
    pub(super) fn end(&mut self, detectors: &Detectors, mask: &Mask, out: &mut Vec<u8>) {
        self.alone(detectors, mask, out);
        self.text.end(detectors, mask.json(), &[], out);
        // One that is not whole means nothing, and goes on as it is.
        out.append(&mut self.escape);
    }

    /// Nothing more comes for now.
    pub(super) fn pause(&mut self, detectors: &Detectors, mask: &Mask, out: &mut Vec<u8>) {
        self.text.pause(detectors, mask.json(), out);
    }

    fn closes_with(&self, byte: u8) -> bool {
        byte == b'"' && self.closes == Closes::AtItsQuote
    }

    /// What began like an escape is none, and means itself.
    fn literal(&mut self, detectors: &Detectors, mask: &Mask, out: &mut Vec<u8>) {
        self.alone(detectors, mask, out);
        let escape = std::mem::take(&mut self.escape);
        self.text.plain(detectors, mask.json(), &escape, out);
    }

    /// Whether the escape goes on with this byte.
    fn goes_on(&self, byte: u8) -> bool {
        match self.escape.len() {
            1 => matches!(byte, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' | b'u'),
            _ => byte.is_ascii_hexdigit(),
        }
    }

    /// Takes the escape, if it is whole now.
    fn escaped(&mut self, detectors: &Detectors, mask: &Mask, out: &mut Vec<u8>) {
        let unit = match self.escape[1..] {
            [b'u', ref digits @ ..] if digits.len() == 4 => code_unit(digits),
            [b'u', ..] => return,
            [letter, ..] => u16::from(meaning(letter)),
            [] => return,
        };
        let escape = std::mem::take(&mut self.escape);
        if let Some(half) = self.half.take() {
            if let Some(Ok(character)) = char::decode_utf16([code_unit(&half[2..]), unit]).next() {
                return self.decoded(detectors, mask, &[&half, escape.as_slice()].concat(), character, out);
            }
            self.decoded(detectors, mask, &half, char::REPLACEMENT_CHARACTER, out);
        }
        match char::from_u32(unit.into()) {
            Some(character) => self.decoded(detectors, mask, &escape, character, out),
            None => self.half = escape.try_into().ok(),
        }
    }

    /// The other half of a character has not followed.
    fn alone(&mut self, detectors: &Detectors, mask: &Mask, out: &mut Vec<u8>) {
        if let Some(half) = self.half.take() {
            self.decoded(detectors, mask, &half, char::REPLACEMENT_CHARACTER, out);
        }
    }

    /// What was written like this means this character.
    fn decoded(&mut self, detectors: &Detectors, mask: &Mask, escape: &[u8], character: char, out: &mut Vec<u8>) {
        let mut buffer = [0; 4];
        let text = character.encode_utf8(&mut buffer).as_bytes();
        self.text.decoded(detectors, mask.json(), escape, text, out);
    }
}

/// What a letter behind a backslash means.
fn meaning(letter: u8) -> u8 {
    match letter {
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        itself => itself,
    }
}

fn code_unit(digits: &[u8]) -> u16 {
    digits.iter().fold(0, |unit, digit| unit << 4 | u16::from(char::from(*digit).to_digit(16).unwrap_or(0) as u8))
}
