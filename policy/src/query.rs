//! Query parameters as routes compare them: `name=value` pairs, percent-encoding undone and `+` read as a space.

use crate::selector::TextPattern;
use std::borrow::Cow;

/// Whether some parameter called `name` has a value that is meant by `pattern`. One without `=` has the empty value.
pub(crate) fn any_value(query: &str, name: &str, pattern: &TextPattern) -> bool {
    query.split('&').filter(|pair| !pair.is_empty()).any(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        decode(key) == name.as_bytes() && pattern.matches_bytes(&decode(value))
    })
}

/// `text` decoded. Broken encoding stands for itself, as it does for those who parse forms.
fn decode(text: &str) -> Cow<'_, [u8]> {
    let bytes = text.as_bytes();
    if !bytes.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(bytes);
    }
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, after @ ..] = rest {
        rest = after;
        match first {
            b'+' => decoded.push(b' '),
            b'%' => match after.get(..2).and_then(crate::path::from_hexadecimal) {
                Some(byte) => {
                    decoded.push(byte);
                    rest = &after[2..];
                }
                None => decoded.push(b'%'),
            },
            byte => decoded.push(*byte),
        }
    }
    Cow::Owned(decoded)
}
