//! Paths as rules and routes compare them, so that no other spelling of a path slips past either.
//!
//! Normalising follows RFC 3986 section 6.2.2: dot segments are removed, needless percent-encoding is undone, what is
//! left encoded is in capitals. Servers disagree about some paths (`%2F`, a backslash, `//`, parameters after `;`): such
//! a path has several readings. A deny rule matches when any reading does, an allow rule only when all of them do.

use std::borrow::Cow;

/// Everything that a server could take a path for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readings<'a> {
    /// There is no path: the request is a tunnel.
    None,
    /// All servers agree.
    One(Cow<'a, str>),
    /// Servers disagree; each reading once.
    Several(Vec<String>),
    /// No reading can be trusted: broken percent-encoding, an encoded control character, bytes that no UTF-8 text has, or
    /// a separator or dot encoded twice. Every deny selector matches it and no allow selector does.
    Unreadable,
}

/// How a server treats what RFC 3986 leaves apart.
#[derive(Debug, Clone, Copy)]
struct Habits {
    /// It takes `%2F`, `%5C` and a backslash for a slash, and drops what follows a `;` in a segment.
    loose_separators: bool,
    /// It takes several slashes for one.
    merges_slashes: bool,
}

impl<'a> Readings<'a> {
    /// The readings of `path`, which is as it was sent and without its query.
    pub fn of(path: &'a str) -> Self {
        match path {
            // An absent path is the root (RFC 9110 section 4.2.3); the asterisk is the whole server.
            "" => return Self::One(Cow::Borrowed("/")),
            "*" => return Self::One(Cow::Borrowed("*")),
            _ if is_plain(path) => return Self::One(Cow::Borrowed(path)),
            _ if !path.starts_with('/') => return Self::Unreadable,
            _ => {}
        }
        let strict = Habits { loose_separators: false, merges_slashes: false };
        let Some(first) = read(path, strict) else { return Self::Unreadable };
        let mut readings = vec![first];
        for (loose_separators, merges_slashes) in [(false, true), (true, false), (true, true)] {
            if let Some(reading) = read(path, Habits { loose_separators, merges_slashes })
                && !readings.contains(&reading)
            {
                readings.push(reading);
            }
        }
        match readings.len() {
            1 => Self::One(Cow::Owned(readings.swap_remove(0))),
            _ => Self::Several(readings),
        }
    }

    /// Whether some reading is meant by `pattern`: what a deny or report rule asks.
    pub fn any(&self, mut pattern: impl FnMut(&str) -> bool) -> bool {
        match self {
            Self::None => false,
            Self::One(path) => pattern(path),
            Self::Several(paths) => paths.iter().any(|path| pattern(path)),
            Self::Unreadable => true,
        }
    }

    /// Whether every reading is meant by `pattern`: what an allow rule asks.
    pub fn all(&self, mut pattern: impl FnMut(&str) -> bool) -> bool {
        match self {
            Self::None | Self::Unreadable => false,
            Self::One(path) => pattern(path),
            Self::Several(paths) => paths.iter().all(|path| pattern(path)),
        }
    }
}

/// The path as RFC 3986 alone reads it: what a rewrite works on. None where it is unreadable.
pub fn normal(path: &str) -> Option<Cow<'_, str>> {
    match Readings::of(path) {
        Readings::One(path) => Some(path),
        Readings::Several(mut paths) => Some(Cow::Owned(paths.swap_remove(0))),
        Readings::None | Readings::Unreadable => None,
    }
}

/// Whether `path` is its only reading, found in one pass over most paths.
fn is_plain(path: &str) -> bool {
    let mut before = 0;
    path.starts_with('/')
        && path.bytes().all(|byte| {
            let apart = before == b'/' && matches!(byte, b'/' | b'.');
            before = byte;
            !apart && (byte == b'/' || (is_plain_byte(byte) && byte != b';'))
        })
}

/// Bytes of a segment that mean themselves, encoded or not: RFC 3986's `pchar` without the percent sign. Encoded reserved
/// characters are not equivalent by the letter of the RFC, but every server that decodes makes them so.
const fn is_plain_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.'
                | b'_'
                | b'~'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b';'
                | b'='
                | b':'
                | b'@'
        )
}

/// One server's reading.
fn read(path: &str, habits: Habits) -> Option<String> {
    let bytes = path.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    let mut in_parameters = false;
    while let Some(&byte) = bytes.get(at) {
        let (byte, was_encoded) = match byte {
            b'%' => (from_hexadecimal(bytes.get(at + 1..at + 3)?)?, true),
            byte => (byte, false),
        };
        at += if was_encoded { 3 } else { 1 };
        if byte < 0x20 || byte == 0x7f || matches!(byte, 0xc0 | 0xc1 | 0xf5..) {
            return None;
        }
        if byte == b'%' && is_encoded_twice(bytes.get(at..)?) {
            return None;
        }
        let separates = (byte == b'/' && !was_encoded) || (habits.loose_separators && matches!(byte, b'/' | b'\\'));
        in_parameters = !separates && (in_parameters || (habits.loose_separators && byte == b';' && !was_encoded));
        if in_parameters {
            continue;
        }
        match byte {
            b'/' if separates => decoded.push(b'/'),
            _ if separates => decoded.push(b'/'),
            b';' if was_encoded => decoded.extend_from_slice(b"%3B"),
            _ if is_plain_byte(byte) => decoded.push(byte),
            _ => push_encoded(&mut decoded, byte),
        }
    }
    Some(without_dot_segments(std::str::from_utf8(&decoded).ok()?, habits.merges_slashes))
}

/// Whether what follows an encoded percent sign would make it a separator, a dot or NUL if it were decoded again.
fn is_encoded_twice(rest: &[u8]) -> bool {
    rest.get(..2).and_then(from_hexadecimal).is_some_and(|byte| matches!(byte, 0 | b'.' | b'/' | b'\\' | b'%' | b';'))
}

pub(crate) fn from_hexadecimal(pair: &[u8]) -> Option<u8> {
    let digit = |byte: u8| (byte as char).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    match *pair {
        [high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    }
}

fn push_encoded(text: &mut Vec<u8>, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    text.extend_from_slice(&[b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
}

/// RFC 3986 section 5.2.4, on a path that begins with a slash.
fn without_dot_segments(path: &str, merges_slashes: bool) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if is_last {
                    kept.push("");
                }
            }
            "" if merges_slashes && !is_last => {}
            _ => kept.push(segment),
        }
    }
    kept.iter().fold(String::with_capacity(path.len()), |path, segment| path + "/" + segment)
}
