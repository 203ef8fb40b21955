//! The types that are written as one piece of text: what they take, what they refuse, and that they come back as written.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{from_value, json, to_value};
use std::time::Duration;
use tidegate_policy::{
    Name, Reason,
    credential::Credential,
    duration::Span,
    plugin::Digest,
    rule::TimeOfDay,
    selector::{MethodName, TextPattern},
    service::{Service, Trust},
};

#[track_caller]
fn assert_words<T: Serialize + DeserializeOwned>(accepted: &[&str], refused: &[&str]) {
    for text in accepted {
        let value: T = from_value(json!(text)).unwrap_or_else(|why| panic!("{text:?}: {why}"));
        assert_eq!(to_value(value).expect("text"), json!(text));
    }
    let wrong: Vec<_> = refused.iter().filter(|text| from_value::<T>(json!(text)).is_ok()).collect();
    assert!(wrong.is_empty(), "these must be refused: {wrong:?}");
}

#[test]
fn words_come_back_as_written() {
    assert_words::<Name>(
        &["a", "a-b_c.d", "0", &"a".repeat(63)],
        &["", "-a", "a-", "A", "a b", "a/b", "a~", "\u{e9}", &"a".repeat(64)],
    );
    assert_words::<Span>(
        &["250ms", "10s", "5m", "8h", "7d", "0ms"],
        &["", "s", "1", "1.5s", "-1s", "+1s", "1 s", "1w", "99999999999999999999d"],
    );
    assert_words::<TimeOfDay>(
        &["00:00", "08:30", "23:59"],
        &["24:00", "12:60", "8:30", "08:3", "+8:30", "08-30", "", "08:300"],
    );
    assert_words::<TextPattern>(&["a", "a*", "*a", "*"], &["", "a*b", "*a*", "**", "a**"]);
    assert_words::<MethodName>(&["GET", "M-SEARCH", "CONNECT"], &["", "get", "G ET", "GET\n"]);
    assert_words::<Trust>(&["system", "payments-ca"], &["", "Payments"]);
    assert_words::<Digest>(&[&"0a".repeat(32)], &["", &"0A".repeat(32), &"0a".repeat(31), &"0g".repeat(32)]);
    assert_eq!("90s".parse::<Span>().map(Span::length), Ok(Duration::from_secs(90)));
}

#[test]
fn reasons_have_one_word_everywhere() {
    let words: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(words.len(), Reason::ALL.len());
    for reason in Reason::ALL {
        assert_eq!(to_value(reason).expect("a word"), json!(reason.as_str()));
    }
}

#[test]
fn key_material_is_never_printed() {
    for document in
        [json!({"kind": "secret", "value": "hunter2"}), json!({"kind": "certificate", "chain": "public", "key": "hunter2"})]
    {
        let credential: Credential = from_value(document).expect("a credential");
        assert!(!format!("{credential:?} {credential:#?}").contains("hunter2"));
    }
    // Nor is it by the error about a document that is nearly one.
    let refused =
        from_value::<Credential>(json!({"kind": "secret", "value": "hunter2", "more": 1})).expect_err("an unknown field");
    assert!(!refused.to_string().contains("hunter2"));
}

#[test]
fn unknown_fields_are_refused() {
    let document = json!({"hosts": ["a"], "ports": [{"number": 443, "protocol": "https"}]});
    assert!(from_value::<Service>(document.clone()).is_ok());
    let mut misspelt = document;
    misspelt["resolutoin"] = json!("dns");
    assert!(from_value::<Service>(misspelt).expect_err("misspelt").to_string().contains("resolutoin"));
}
