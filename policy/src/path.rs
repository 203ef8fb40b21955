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

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_readings(path: &str, expected: &[&str]) {
        let readings = match Readings::of(path) {
            Readings::None => panic!("{path:?} is no tunnel"),
            Readings::One(path) => vec![path.into_owned()],
            Readings::Several(paths) => paths,
            Readings::Unreadable => Vec::new(),
        };
        assert_eq!(readings, expected, "{path:?}");
    }

    #[test]
    fn one_reading_is_rfc_3986s() {
        for (path, normal) in [
            ("", "/"),
            ("/", "/"),
            ("*", "*"),
            ("/v1/charges/7", "/v1/charges/7"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/../../a", "/a"),
            ("/a/%2e%2E/b", "/b"),
            ("/%7euser", "/~user"),
            ("/%61dmin", "/admin"),
            ("/a%20b", "/a%20b"),
            ("/a b", "/a%20b"),
            ("/caf\u{e9}", "/caf%C3%A9"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/a%28b%29", "/a(b)"),
            ("/{id}", "/%7Bid%7D"),
            ("/a/...", "/a/..."),
            ("/.well-known", "/.well-known"),
            ("/a%3Bb", "/a%3Bb"),
            ("/100%25", "/100%25"),
            ("/a%3Fb%23", "/a%3Fb%23"),
            ("/a/", "/a/"),
        ] {
            assert_readings(path, &[normal]);
            assert_readings(normal, &[normal]);
        }
    }

    #[test]
    fn what_servers_disagree_on_has_every_reading() {
        assert_readings("/a%2fb", &["/a%2Fb", "/a/b"]);
        assert_readings("/a\\b", &["/a%5Cb", "/a/b"]);
        assert_readings("//admin", &["//admin", "/admin"]);
        assert_readings("/public/%2f../admin", &["/public/%2F../admin", "/public/admin", "/admin"]);
        assert_readings("/public//../admin", &["/public/admin", "/admin"]);
        assert_readings("/a/..%2fb", &["/a/..%2Fb", "/b"]);
        assert_readings("/a/..;x=1/b", &["/a/..;x=1/b", "/b"]);
        assert_readings("/admin;x/users", &["/admin;x/users", "/admin/users"]);
        assert_readings("/a/%5c..%5cb", &["/a/%5C..%5Cb", "/a/b", "/b"]);
    }

    #[test]
    fn what_no_reading_can_be_trusted_on_is_unreadable() {
        for path in [
            "/%",
            "/%4",
            "/%zz",
            "/%+1",
            "/a%00",
            "/%0a",
            "/%7f",
            "/a\u{0}",
            "/a\nb",
            "/%c0%af",
            "/%c0%ae%c0%ae/",
            "/%ff",
            "/%f5",
            "/%252e%252e/",
            "/%252f",
            "/%255c",
            "/%2500",
            "/%25252e",
            "a",
            "a/../b",
            "http://x/",
            "/%253b",
        ] {
            assert_eq!(Readings::of(path), Readings::Unreadable, "{path:?}");
        }
    }

    #[test]
    fn deny_asks_any_reading_and_allow_all_of_them() {
        let admin = |path: &str| path.starts_with("/admin");
        for (path, any, all) in [("/admin", true, true), ("//admin", true, false), ("/v1", false, false), ("/%00", true, false)]
        {
            assert_eq!((Readings::of(path).any(admin), Readings::of(path).all(admin)), (any, all), "{path:?}");
        }
        assert!(!Readings::None.any(|_| true) && !Readings::None.all(|_| true));
    }

    #[test]
    fn readings_are_stable_whatever_the_bytes() {
        const PIECES: [&str; 16] =
            ["/", "//", "a", ".", "..", "%2e", "%2f", "%5C", "\\", ";", "%3b", "%61", "%20", "x y", "\u{e9}", "%25"];
        let mut state = 7_u64;
        for _ in 0..20_000 {
            let mut path = "/".to_owned();
            for _ in 0..state % 9 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                path += PIECES[usize::try_from(state >> 60).expect("four bits")];
            }
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let Some(normal) = normal(&path) else { continue };
            assert!(
                normal.starts_with('/') && !normal.split('/').any(|segment| matches!(segment, "." | "..")),
                "{path:?}: {normal:?}"
            );
            assert_eq!(super::normal(&normal).as_deref(), Some(normal.as_ref()), "{path:?}");
        }
    }
}
