//! One JSON string, masked in place: detectors see what it means, and what they leave alone goes on as it was written.

use crate::{
    find::Detectors,
    mask::Mask,
    scanner::{Piece, Scanner},
};

/// How far the bytes belonged to the string.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    All,
    /// So many, the last of which is its closing quote.
    Closed(usize),
    /// So many, and what follows cannot stand in a string.
    Wrong(usize),
}

#[derive(Debug, Default)]
pub(super) struct StringMasker {
    scanner: Scanner,
    /// Half a character written as an escape (RFC 8259 section 7): the other half may follow.
    half: Option<[u8; 6]>,
    /// An escape that has begun.
    escape: Vec<u8>,
    /// How what is held back was written, once there is an escape in the string.
    written: Option<Written>,
}

/// How the text that the scanner holds was written.
#[derive(Debug, Default)]
struct Written {
    bytes: Vec<u8>,
    /// For each byte of the text, how many of `bytes` stand for it.
    lengths: Vec<u8>,
}

impl StringMasker {
    pub(super) fn counts(&self) -> &[u32] {
        self.scanner.counts()
    }

    pub(super) fn held(&self) -> usize {
        self.scanner.held() + self.escape.len() + self.half.map_or(0, |half| half.len())
    }

    /// Takes what belongs to the string, its closing quote included.
    pub(super) fn feed(&mut self, detectors: &Detectors, mask: &Mask, bytes: &[u8], out: &mut Vec<u8>) -> Taken {
        let mut at = 0;
        while let Some(byte) = bytes.get(at).copied() {
            if !self.escape.is_empty() {
                if !self.goes_on(byte) {
                    self.end(detectors, mask, out);
                    return Taken::Wrong(at);
                }
                self.escape.push(byte);
                self.escaped(detectors, mask, out);
                at += 1;
            } else if byte == b'"' {
                self.end(detectors, mask, out);
                out.push(byte);
                return Taken::Closed(at + 1);
            } else if byte == b'\\' {
                self.escape.push(byte);
                at += 1;
            } else {
                self.alone(detectors, mask, out);
                let rest = &bytes[at..];
                let length = rest.iter().position(|byte| matches!(byte, b'"' | b'\\')).unwrap_or(rest.len());
                if self.written.is_none() && rest.get(length) == Some(&b'"') {
                    // The common case, a string whose end is here and that nothing is escaped in: one pass instead of two.
                    self.scan(detectors, mask, &rest[..length], true, out);
                    out.push(b'"');
                    return Taken::Closed(at + length + 1);
                }
                if let Some(written) = &mut self.written {
                    written.bytes.extend_from_slice(&rest[..length]);
                    written.lengths.resize(written.lengths.len() + length, 1);
                }
                self.scan(detectors, mask, &rest[..length], false, out);
                at += length;
            }
        }
        Taken::All
    }

    /// The string is over, or what there is of it.
    pub(super) fn end(&mut self, detectors: &Detectors, mask: &Mask, out: &mut Vec<u8>) {
        self.alone(detectors, mask, out);
        self.scan(detectors, mask, &[], true, out);
        self.written = None;
        // One that is not whole means nothing, and goes on as it is.
        out.append(&mut self.escape);
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
        let held = self.scanner.pending();
        let written = self.written.get_or_insert_with(|| Written { bytes: held.to_vec(), lengths: vec![1; held.len()] });
        let mut buffer = [0; 4];
        let text = character.encode_utf8(&mut buffer).as_bytes();
        written.bytes.extend_from_slice(escape);
        written.lengths.push(u8::try_from(escape.len()).unwrap_or(u8::MAX));
        written.lengths.resize(written.lengths.len() + text.len() - 1, 0);
        self.scan(detectors, mask, text, false, out);
    }

    fn scan(&mut self, detectors: &Detectors, mask: &Mask, text: &[u8], end: bool, out: &mut Vec<u8>) {
        let (mut bytes, mut units) = (0, 0);
        let written = self.written.as_ref();
        let mut take = |length: usize| {
            let lengths = written.map_or(&[][..], |written| &written.lengths[units..units + length]);
            let start = bytes;
            bytes += lengths.iter().map(|length| usize::from(*length)).sum::<usize>();
            units += lengths.len();
            written.map(|written| &written.bytes[start..bytes])
        };
        self.scanner.feed(detectors, text, end, &mut |piece| match piece {
            Piece::Keep(text) => out.extend_from_slice(take(text.len()).unwrap_or(text)),
            Piece::Hide { length, begins } => {
                take(length);
                out.extend_from_slice(begins.map_or("", |detector| mask.json(detector)).as_bytes());
            }
        });
        if let Some(written) = &mut self.written {
            written.bytes.drain(..bytes);
            written.lengths.drain(..units);
        }
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
