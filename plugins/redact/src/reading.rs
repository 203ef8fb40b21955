//! Which bodies are looked at, and how: as their content type and coding say. Pure.

use crate::config::{Action, Checked};
use detection::{FormMasker, JsonMasker, TextMasker};

/// How a body is looked at.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// It is not: its content type is not among those that are configured.
    Unasked,
    Json,
    Form,
    Text,
    /// It should be and cannot be, for this reason.
    Unreadable(&'static str),
}

/// What a message's head says of its body: every value of each header.
#[derive(Debug, Default)]
pub(crate) struct Head {
    pub(crate) content_types: Vec<Vec<u8>>,
    pub(crate) codings: Vec<Vec<u8>>,
    /// It is a part of something larger (RFC 9110 section 14).
    pub(crate) partial: bool,
}

impl Checked {
    /// How the body under this head is looked at. A body without a content type is looked at as text: nothing gets past by
    /// leaving it out.
    pub(crate) fn reading(&self, head: &Head) -> Reading {
        let content_type = match head.content_types.as_slice() {
            [] => "text/plain".to_owned(),
            [one] if !is_list(one) => String::from_utf8_lossy(one).to_ascii_lowercase(),
            _ => return Reading::Unreadable("several content types"),
        };
        let (media_type, parameters) = content_type.split_once(';').unwrap_or((&content_type, ""));
        let media_type = media_type.trim();
        if !head.content_types.is_empty() && !self.content_types.iter().any(|range| range.matches(media_type)) {
            return Reading::Unasked;
        }
        let coded = |coding: &Vec<u8>| coding.split(|byte| *byte == b',').any(|one| !is_identity(one));
        if head.codings.iter().any(coded) {
            return Reading::Unreadable("a content coding");
        }
        if head.partial {
            return Reading::Unreadable("a part of a body");
        }
        if !keeps_ascii(parameters) {
            return Reading::Unreadable("a character set");
        }
        match media_type {
            "application/x-www-form-urlencoded" => Reading::Form,
            media_type if is_json(media_type) => Reading::Json,
            _ => Reading::Text,
        }
    }
}

/// Whether a header's value is a list, which says the same as several lines do (RFC 9110 section 5.3). A comma between
/// quotes is none of a list's.
fn is_list(value: &[u8]) -> bool {
    let (mut quoted, mut escaped) = (false, false);
    value.iter().any(|byte| {
        quoted ^= *byte == b'"' && !escaped;
        escaped = quoted && *byte == b'\\' && !escaped;
        *byte == b',' && !quoted
    })
}

fn is_identity(coding: &[u8]) -> bool {
    let coding = coding.trim_ascii();
    coding.is_empty() || coding.eq_ignore_ascii_case(b"identity")
}

/// Whether the character set that the parameters name, if they name one, writes ASCII as ASCII.
fn keeps_ascii(parameters: &str) -> bool {
    let charset = parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("charset="));
    let charset = charset.unwrap_or("utf-8").trim().trim_matches('"');
    matches!(charset, "utf-8" | "utf8" | "us-ascii" | "ascii" | "gbk" | "gb2312" | "euc-jp" | "euc-kr" | "koi8-r" | "koi8-u")
        || ["iso-8859-", "windows-12", "latin"].iter().any(|prefix| charset.starts_with(prefix))
}

/// Whether bodies of this type are JSON values, one or several (RFC 6839 section 3.1, RFC 8091).
fn is_json(media_type: &str) -> bool {
    const TYPES: [&str; 7] = [
        "application/json",
        "text/json",
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
        "application/x-jsonlines",
        "application/json-seq",
    ];
    TYPES.contains(&media_type) || media_type.ends_with("+json") || media_type.ends_with("+json-seq")
}

/// A body in the course of being looked at.
#[derive(Debug)]
pub(crate) enum Reader {
    Json(Box<JsonMasker>),
    Form(Box<FormMasker>),
    Text(Box<TextMasker>),
}

impl Reader {
    /// The reader for a body that is looked at. Keys of JSON are only looked at where they would not be masked, but refused.
    pub(crate) fn new(reading: &Reading, action: Action) -> Option<Self> {
        match reading {
            Reading::Json if action == Action::Refuse => Some(Self::Json(Box::new(JsonMasker::with_keys()))),
            Reading::Json => Some(Self::Json(Box::default())),
            Reading::Form => Some(Self::Form(Box::default())),
            Reading::Text => Some(Self::Text(Box::default())),
            Reading::Unasked | Reading::Unreadable(_) => None,
        }
    }

    /// Takes the next bytes and appends to `out` what may go on by now.
    pub(crate) fn feed(&mut self, checked: &Checked, bytes: &[u8], end: bool, out: &mut Vec<u8>) {
        match self {
            Self::Json(masker) => masker.feed(&checked.detectors, &checked.mask, bytes, end, out),
            Self::Form(masker) => masker.feed(&checked.detectors, &checked.mask, bytes, end, out),
            Self::Text(masker) => masker.feed(&checked.detectors, &checked.mask, bytes, end, out),
        }
    }

    /// Detectors that have found something so far, and how often.
    pub(crate) fn findings<'a>(&'a self, checked: &'a Checked) -> impl Iterator<Item = (&'a str, u32)> {
        let counts = match self {
            Self::Json(masker) => masker.counts(),
            Self::Form(masker) => masker.counts(),
            Self::Text(masker) => masker.counts(),
        };
        let names = checked.detectors.names().iter().map(String::as_str);
        names.zip(counts.iter().copied()).filter(|(_, count)| *count > 0)
    }
}

/// The first two bytes of a body, which may say what its head does not.
#[derive(Debug, Default)]
pub(crate) struct Beginning {
    bytes: [u8; 2],
    length: usize,
}

impl Beginning {
    /// Takes the next bytes, and says why the body that this reader looks at cannot be read, where they show it.
    pub(crate) fn unreadable(&mut self, reader: &Reader, bytes: &[u8]) -> Option<&'static str> {
        let missing = &mut self.bytes[self.length..];
        if missing.is_empty() {
            return None;
        }
        let taken = missing.len().min(bytes.len());
        missing[..taken].copy_from_slice(&bytes[..taken]);
        self.length += taken;
        match (&self.bytes[..self.length], reader) {
            // Compressed (RFC 1952), without a content coding that says so.
            ([0x1f, 0x8b], _) => Some("a content coding"),
            // The byte order marks of UTF-16, and of UTF-32 that begins with the lower byte.
            ([0xff, 0xfe] | [0xfe, 0xff], _) => Some("a character set"),
            // JSON begins with a character of ASCII, which has a zero among its first two bytes in UTF-16 and UTF-32. Many
            // readers go by that whatever the head says (RFC 4627 section 3).
            ([0, ..] | [_, 0], Reader::Json(_)) => Some("a character set"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::checked;
    use serde_json::json;

    #[test]
    fn bodies_are_read_as_their_heads_say() {
        let checked = checked(json!({"detectors": ["card"]}));
        let unreadable = Reading::Unreadable;
        for (content_types, codings, wanted) in [
            (&["application/json"][..], &[][..], Reading::Json),
            (&["Application/Problem+JSON; charset=UTF-8"], &[], Reading::Json),
            (&["application/x-ndjson"], &["identity"], Reading::Json),
            (&["text/event-stream"], &[], Reading::Text),
            (&["application/x-www-form-urlencoded"], &[], Reading::Form),
            (&["image/png"], &[], Reading::Unasked),
            (&["image/png"], &["gzip"], Reading::Unasked),
            (&[], &[], Reading::Text),
            (&[], &["br"], unreadable("a content coding")),
            (&["text/html"], &["identity, gzip"], unreadable("a content coding")),
            (&["text/html"], &["", "deflate"], unreadable("a content coding")),
            (&["text/html", "image/png"], &[], unreadable("several content types")),
            (&["application/json,image/png"], &[], unreadable("several content types")),
            (&["image/png;a=\"b\\\",\", text/html"], &[], unreadable("several content types")),
            (&["text/html; title=\"a, \\\"b, c\""], &[], Reading::Text),
            (&["application/json-seq"], &[], Reading::Json),
            (&["application/geo+json-seq"], &[], Reading::Json),
            (&["application/jsonl"], &[], Reading::Json),
            (&["application/x-jsonlines"], &[], Reading::Json),
            (&["application/ndjson"], &[], Reading::Json),
            (&["text/plain; charset=utf-16"], &[], unreadable("a character set")),
            (&["text/plain;charset=\"ISO-8859-1\""], &[], Reading::Text),
        ] {
            let bytes = |values: &[&str]| values.iter().map(|value| value.as_bytes().to_vec()).collect();
            let head = Head { content_types: bytes(content_types), codings: bytes(codings), partial: false };
            assert_eq!(checked.reading(&head), wanted, "{content_types:?} {codings:?}");
        }
        let part = Head { partial: true, ..Head::default() };
        assert_eq!(checked.reading(&part), unreadable("a part of a body"));
    }

    #[test]
    fn findings_are_named_and_counted_and_nothing_else() {
        let checked = checked(json!({"detectors": ["card", "email"], "mask": "[{detector}]"}));
        for (reading, body, wanted) in [
            (Reading::Json, r#"{"pan":4111111111111111,"also":"4111111111111111"}"#, r#"{"pan":"[card]","also":"[card]"}"#),
            (Reading::Form, "a=4111+1111+1111+1111&b=%34111111111111111", "a=%5Bcard%5D&b=%5Bcard%5D"),
            (Reading::Text, "4111111111111111 4111-1111-1111-1111", "[card] [card]"),
        ] {
            let mut reader = Reader::new(&reading, Action::Mask).unwrap();
            let mut out = Vec::new();
            for byte in body.as_bytes() {
                reader.feed(&checked, std::slice::from_ref(byte), false, &mut out);
            }
            reader.feed(&checked, &[], true, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), wanted);
            assert_eq!(reader.findings(&checked).collect::<Vec<_>>(), [("card", 2)]);
        }
        assert!(Reader::new(&Reading::Unasked, Action::Mask).is_none());
    }
}
