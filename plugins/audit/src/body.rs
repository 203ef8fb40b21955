//! What is remembered of a body: the values at JSON pointers, and the digest of all of it. Pure.

use crate::{
    following::{Following, State, UnderWay},
    pointers::Pointers,
    redaction::Redaction,
};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use tidegate_sdk::attributes::Value;

/// What is remembered of the bodies of one direction.
#[derive(Debug)]
pub(crate) struct BodySelection {
    pointers: Pointers,
    digest: bool,
    under_way: UnderWay,
    /// The names of the fields that are not a pointer's.
    sha256: String,
    unread: String,
}

/// Whether a body has to be shown for that.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Showing {
    Nothing,
    /// As it streams by.
    Pieces,
}

/// What has been collected of a body.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    digest: Option<Sha256>,
    following: Option<Following>,
    encoded: bool,
    ended: bool,
}

impl BodySelection {
    pub(crate) fn new(prefix: &str, pointers: Pointers, digest: bool, under_way: &UnderWay) -> Self {
        let (sha256, unread) = (format!("{prefix}.sha256"), format!("{prefix}.unread"));
        Self { pointers, digest, under_way: under_way.clone(), sha256, unread }
    }

    /// Whether there is nothing to be remembered.
    pub(crate) fn is_nothing(&self) -> bool {
        self.pointers.is_empty() && !self.digest
    }

    /// Whether a body under this head has to be shown, and what is collected of it.
    pub(crate) fn begin(&self, content_type: Option<&str>, content_encoding: Option<&str>) -> (Showing, Collected) {
        let mut collected = Collected { digest: self.digest.then(Sha256::new), ..Collected::default() };
        if !self.pointers.is_empty() && content_type.is_some_and(is_json) {
            collected.encoded = content_encoding.is_some_and(|coding| !coding.trim().eq_ignore_ascii_case("identity"));
            collected.following = (!collected.encoded).then(|| Following::new(&self.under_way));
        }
        let showing =
            if collected.following.is_some() || collected.digest.is_some() { Showing::Pieces } else { Showing::Nothing };
        (showing, collected)
    }

    /// Takes the next piece of a body.
    pub(crate) fn piece(&self, collected: &mut Collected, redaction: &Redaction, piece: &[u8]) {
        if let Some(digest) = &mut collected.digest {
            digest.update(piece);
        }
        if let Some(following) = &mut collected.following {
            following.feed(&self.pointers, redaction, piece);
        }
    }

    /// The body has been seen to its end.
    pub(crate) fn end(&self, collected: &mut Collected, redaction: &Redaction) {
        collected.ended = true;
        if let Some(following) = &mut collected.following {
            following.end(&self.pointers, redaction);
        }
    }

    /// The fields of an event.
    pub(crate) fn fields(&self, collected: Collected) -> Vec<(Cow<'_, str>, Value)> {
        let Collected { digest, following, encoded, ended } = collected;
        let unread = self.unread(following.as_ref(), encoded, ended || (digest.is_none() && following.is_none()));
        let mut fields: Vec<(Cow<'_, str>, Value)> = Vec::new();
        for (pointer, value) in following.map(Following::found).unwrap_or_default() {
            fields.push((Cow::Borrowed(self.pointers.label(pointer)), value));
        }
        // Only of all of a body does a digest mean anything.
        if let Some(digest) = digest.filter(|_| ended) {
            fields.push((Cow::Borrowed(&self.sha256), Value::Text(hexadecimal(&digest.finalize()))));
        }
        if !unread.is_empty() {
            fields.push((Cow::Borrowed(&self.unread), Value::Text(unread)));
        }
        fields
    }

    /// Why something is not in the event that was asked for.
    fn unread(&self, following: Option<&Following>, encoded: bool, ended: bool) -> String {
        let mut reasons = Vec::new();
        if encoded {
            reasons.push("encoded".to_owned());
        }
        match following.map(Following::state) {
            Some(State::NotJson) => reasons.push("not JSON".to_owned()),
            _ if !ended => reasons.push("incomplete".to_owned()),
            _ => {}
        }
        if let Some((too_large, crowded)) = following.map(Following::left_out) {
            let named = [("too large", too_large), ("too many at once", crowded)];
            let named = named.into_iter().filter(|(_, pointers)| !pointers.is_empty());
            reasons.extend(named.map(|(reason, pointers)| format!("{reason}: {}", self.pointers.list(pointers))));
        }
        reasons.join("; ")
    }
}

/// Whether bodies of this content type are one JSON value (RFC 8259; RFC 6839 section 3.1).
fn is_json(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    matches!(media_type.as_str(), "application/json" | "text/json") || media_type.ends_with("+json")
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::following::VALUES;

    fn selection(pointers: &[&str], digest: bool) -> BodySelection {
        let pointers = pointers.iter().map(|pointer| (*pointer).to_owned()).collect();
        let pointers = Pointers::new("request", "/request_pointers", pointers).unwrap();
        BodySelection::new("request", pointers, digest, &UnderWay::default())
    }

    fn redaction() -> Redaction {
        Redaction::new(detection::Setting::all().check("").unwrap())
    }

    /// The fields of a body of JSON that comes in pieces of this size.
    fn read_in(size: usize, pointers: &[&str], body: &str) -> Vec<(String, Value)> {
        let (selection, redaction) = (selection(pointers, false), redaction());
        let (showing, mut collected) = selection.begin(Some("application/json"), None);
        assert_eq!(showing, Showing::Pieces);
        for piece in body.as_bytes().chunks(size) {
            selection.piece(&mut collected, &redaction, piece);
        }
        selection.end(&mut collected, &redaction);
        selection.fields(collected).into_iter().map(|(label, value)| (label.into_owned(), value)).collect()
    }

    fn read(pointers: &[&str], body: &str) -> Vec<(String, Value)> {
        let whole = read_in(body.len().max(1), pointers, body);
        for size in [1, 2, 3, 7] {
            assert_eq!(read_in(size, pointers, body), whole, "in pieces of {size}: {body}");
        }
        whole
    }

    #[test]
    fn a_body_is_shown_only_for_digests_and_pointers_into_json() {
        let showing =
            |pointers: &[&str], digest, content_type, encoding| selection(pointers, digest).begin(content_type, encoding).0;
        let json = Some("application/json; charset=utf-8");
        for (wanted, pointers, digest, content_type, encoding) in [
            (Showing::Nothing, &[][..], false, json, None),
            (Showing::Pieces, &[], true, json, None),
            (Showing::Pieces, &["/a"], false, json, None),
            (Showing::Pieces, &["/a"], true, Some("application/problem+json"), None),
            (Showing::Pieces, &["/a"], true, Some("Application/JSON"), Some("identity")),
            (Showing::Nothing, &["/a"], false, Some("text/plain"), None),
            (Showing::Pieces, &["/a"], true, Some("text/plain"), None),
            (Showing::Nothing, &["/a"], false, None, None),
            (Showing::Nothing, &["/a"], false, json, Some("gzip")),
            (Showing::Pieces, &["/a"], true, json, Some("gzip")),
        ] {
            assert_eq!(
                showing(pointers, digest, content_type, encoding),
                wanted,
                "{pointers:?} {digest} {content_type:?} {encoding:?}"
            );
        }
    }

    #[test]
    fn values_are_picked_by_pointer() {
        let body = r#"{"a": {"b/c": [1, -2, 1.5, true, null, "text"]}, "": "empty"}"#;
        let pointers = ["/a/b~1c/0", "/a/b~1c/1", "/a/b~1c/2", "/a/b~1c/3", "/a/b~1c/4", "/a/b~1c/5", "/a", "/", "/absent"];
        let values: Vec<_> = read(&pointers, body).into_iter().map(|(_, value)| value).collect();
        let array = r#"{"b/c":[1,-2,1.5,true,null,"text"]}"#;
        assert_eq!(
            values,
            [
                Value::Uint(1),
                Value::Int(-2),
                "1.5".into(),
                Value::Flag(true),
                "null".into(),
                "text".into(),
                array.into(),
                "empty".into(),
            ]
        );
        assert_eq!(read(&[""], "7"), [("request.body".to_owned(), Value::Uint(7))]);
        assert_eq!(read(&["/a"], r#"{"a":1}"#)[0].0, "request.body/a");
    }

    #[test]
    fn nothing_that_was_to_be_hidden_is_in_a_field() {
        let body = r#"{"card": 4111111111111111, "note": "bob@example.com", "auth": {"token": "hunter2", "user": "bob"},
            "access_token": {"value": "hunter2"}, "bob@example.com": "x", "pan": "\u0034111111111111111"}"#;
        let fields = read(&["/card", "/note", "/auth", "/auth/token", "/access_token/value", "", "/pan"], body);
        assert_eq!(fields.len(), 7);
        let text = format!("{fields:?}");
        for secret in ["hunter2", "bob@example.com", "4111"] {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
        assert_eq!(fields[2].1, r#"{"token":"(redacted)","user":"bob"}"#.into());
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let unread = |body: &str| read(&["/a", "/b"], body);
        for body in
            ["{", "{\"a\":1", "{\"a\":1}x", "{\"a\":1}{}", "{\"a\":\"\\x\"}", "{\"\\x\":1}", "{\"a\":01}", " ", "hello\nworld"]
        {
            assert_eq!(unread(body), [("request.unread".to_owned(), "not JSON".into())], "{body}");
        }
        assert!(unread("").is_empty());
        let selection = selection(&["/a"], true);
        let (_, mut collected) = selection.begin(Some("application/json"), Some("br"));
        selection.end(&mut collected, &redaction());
        let fields = selection.fields(collected);
        assert_eq!(fields.len(), 2, "the digest is there all the same: {fields:?}");
        assert_eq!(fields[1], ("request.unread".into(), "encoded".into()));
    }

    #[test]
    fn of_several_fields_of_one_name_the_last_counts() {
        for (body, wanted) in [
            (r#"{"a":{"b":1},"a":{"b":2}}"#, &[("request.body/a/b", Value::Uint(2))][..]),
            (r#"{"a":{"b":1},"a":{"c":2}}"#, &[]),
            (r#"{"a":{"b":1},"\u0061":{"b":3}}"#, &[("request.body/a/b", Value::Uint(3))]),
            (r#"{"a":{"b":"x"},"a":[1]}"#, &[]),
        ] {
            let wanted: Vec<_> = wanted.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
            assert_eq!(read(&["/a/b"], body), wanted, "{body}");
        }
    }

    #[test]
    fn a_value_that_is_too_large_is_named_and_the_others_are_read() {
        let large = "x".repeat(VALUES);
        let body = format!(r#"{{"a":{{"b":"{large}","c":[1]}},"d":2}}"#);
        let wanted = [
            ("request.body/a/c".to_owned(), "[1]".into()),
            ("request.body/d".to_owned(), Value::Uint(2)),
            ("request.unread".to_owned(), r#"too large: "" and 2 more"#.into()),
        ];
        for size in [1, 1000, body.len()] {
            assert_eq!(read_in(size, &["", "/a", "/a/b", "/a/c", "/d"], &body), wanted, "{size}");
        }
        let body = format!(r#"{{"a":"{large}","a":1}}"#);
        assert_eq!(read(&["/a"], &body), [("request.body/a".to_owned(), Value::Uint(1))]);
    }

    #[test]
    fn what_is_taken_of_a_body_is_bounded_together() {
        let values: Vec<_> = (0..32).map(|index| format!(r#""k{index}":"{}""#, "x".repeat(1000))).collect();
        let pointers: Vec<_> = (0..32).map(|index| format!("/k{index}")).collect();
        let pointers: Vec<_> = pointers.iter().map(String::as_str).collect();
        let fields = read_in(700, &pointers, &format!("{{{}}}", values.join(",")));
        assert_eq!(fields.len(), 17, "16 values, and what was left out: {fields:?}");
        assert_eq!(fields[16].1, r#"too large: "/k16" and 15 more"#.into());
        let again = format!("{{{}\"b\":7}}", "\"a\":1,".repeat(100_000));
        let unread = ("request.unread".to_owned(), r#"too large: "/a" and 1 more"#.into());
        assert_eq!(read_in(65_536, &["/a", "/b"], &again), [unread], "a name that comes again and again costs something");
    }

    #[test]
    fn callers_that_leave_values_unfinished_do_not_fill_the_memory() {
        let (selection, redaction) = (selection(&["/a"], false), redaction());
        let begun = |body: &[u8]| {
            let (_, mut collected) = selection.begin(Some("application/json"), None);
            selection.piece(&mut collected, &redaction, body);
            collected
        };
        let unfinished = [b"{\"a\":\"".as_slice(), &[b'x'; VALUES - 100]].concat();
        let mut held: Vec<_> = (0..1000).map(|_| begun(&unfinished)).collect();
        let named = |collected| selection.fields(collected).into_iter().map(|(_, value)| value).collect::<Vec<_>>();
        assert_eq!(named(held.pop().unwrap()), [Value::from(r#"incomplete; too many at once: "/a""#)]);
        assert_eq!(named(held.swap_remove(0)), ["incomplete".into()]);
        drop(held);
        let mut after = begun(b"{\"a\":\"x\"}");
        selection.end(&mut after, &redaction);
        assert_eq!(named(after), ["x".into()], "what had been kept is free again");
    }

    #[test]
    fn a_digest_is_of_all_of_a_body() {
        let (selection, redaction) = (selection(&[], true), redaction());
        let begun = || {
            let (_, mut collected) = selection.begin(None, None);
            selection.piece(&mut collected, &redaction, b"a");
            collected
        };
        let mut collected = begun();
        selection.piece(&mut collected, &redaction, b"bc");
        selection.end(&mut collected, &redaction);
        let wanted = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(selection.fields(collected), [("request.sha256".into(), wanted.into())]);
        assert_eq!(selection.fields(begun()), [("request.unread".into(), "incomplete".into())]);
    }
}
