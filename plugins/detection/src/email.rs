//! E-mail addresses as people write them: the dot-atom form of RFC 5321 section 4.1.2 with a domain name behind it.

use crate::{
    bytes::{ByteSet, after},
    find::At,
};

/// Longest local part and longest domain (RFC 5321 section 4.5.3.1).
const LOCAL: usize = 64;
const DOMAIN: usize = 253;

/// What local parts are made of in practice: the specification's other characters are left out, since texts use them around
/// addresses (`email=a@b.example`, `'a@b.example'`).
static LOCAL_BYTES: ByteSet = ByteSet::alphanumeric_and(b"._+-");
static DOMAIN_BYTES: ByteSet = ByteSet::alphanumeric_and(b".-");

/// Bytes that the run before an `@` can begin with.
pub(crate) fn begins(byte: u8) -> bool {
    LOCAL_BYTES.contains(byte)
}

/// From where on an address may begin. Without an `@` that is only the word which the text breaks off in.
pub(crate) fn skip(text: &[u8], from: usize, end: bool) -> usize {
    match text.get(from..) {
        Some(rest) if rest.contains(&b'@') => from,
        Some(rest) if !end => from + rest.iter().rposition(|byte| !begins(*byte)).map_or(0, |last| last + 1),
        _ => text.len(),
    }
}

/// Whether an address begins at `at`, which is the beginning of a run of such bytes.
pub(crate) fn at(text: &[u8], at: usize, end: bool) -> At {
    if after(text, at, |byte| LOCAL_BYTES.contains(byte)) {
        return At::Nothing;
    }
    let local = LOCAL_BYTES.run(text, at, LOCAL + 1);
    if local > LOCAL {
        return At::Nothing;
    }
    let Some(trimmed) = text[at..at + local].iter().position(|byte| !matches!(byte, b'.' | b'+' | b'-')) else {
        return if at + local == text.len() && !end { At::Incomplete } else { At::Nothing };
    };
    match text.get(at + local) {
        Some(b'@') => domain(text, at + trimmed, at + local + 1, end),
        None if !end => At::Incomplete,
        _ => At::Nothing,
    }
}

fn domain(text: &[u8], start: usize, from: usize, end: bool) -> At {
    let length = DOMAIN_BYTES.run(text, from, DOMAIN);
    if length < DOMAIN && from + length == text.len() && !end {
        return At::Incomplete;
    }
    let mut best = None;
    let mut position = from;
    for (index, label) in text[from..from + length].split(|byte| *byte == b'.').enumerate() {
        if label.is_empty() || label.first() == Some(&b'-') {
            break;
        }
        // A sentence may end in a dash; the name ends before it.
        let kept = label.iter().rposition(|byte| *byte != b'-').map_or(0, |last| last + 1);
        if index > 0 && kept >= 2 && label[0].is_ascii_alphabetic() {
            best = Some(position + kept);
        }
        if kept < label.len() {
            break;
        }
        position += label.len() + 1;
    }
    best.map_or(At::Nothing, |stop| At::Found { span: start..stop, tail: None })
}

#[cfg(test)]
mod tests {
    use crate::find::tests::found;

    #[test]
    fn addresses_are_found() {
        for (text, address) in [
            ("bob@example.com", "bob@example.com"),
            ("mail bob.o+tag@mail.example.co.uk, please", "bob.o+tag@mail.example.co.uk"),
            ("<Bob_1@EXAMPLE.org>", "Bob_1@EXAMPLE.org"),
            ("email=bob@example.com&x=1", "bob@example.com"),
            ("write to bob@example.com.", "bob@example.com"),
            ("...bob@example.com...", "bob@example.com"),
            ("bob@example.com-", "bob@example.com"),
            ("bob@a.b.example.1", "bob@a.b.example"),
            ("bob@xn--bcher-kva.example", "bob@xn--bcher-kva.example"),
        ] {
            assert_eq!(found("email", text), [address], "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_left_alone() {
        for text in ["bob@localhost", "@example.com", "bob@", "bob@.com", "bob@1.2", "npm:@scope/name", "a@b.c", "-@-.-"] {
            assert!(found("email", text).is_empty(), "{text}");
        }
        assert!(found("email", &format!("{}@example.com", "a".repeat(65))).is_empty());
    }
}
