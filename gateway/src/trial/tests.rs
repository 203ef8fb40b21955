//! Trials of filters written as text; those of real ones are in `tests/e2e/authors.rs`.

use super::*;

fn trial(request: &str) -> Trial {
    Trial {
        plugin: "tried".parse().unwrap(),
        config: serde_json::Value::Null,
        grants: Grants::default(),
        on_error: OnError::Deny,
        isolation: Isolation::Shared,
        place: serde_json::Map::new(),
        limits: Limits::default(),
        compiler: None,
        request: script::read(request).unwrap(),
        response: Response::default(),
    }
}

#[test]
fn what_is_no_filter_is_refused_with_reasons() {
    let refused = trial(r#"{"url": "http://api.example.com/"}"#).run(b"hello").unwrap_err();
    assert!(matches!(&refused, Refused::Module(reasons) if reasons[0].contains("not a WebAssembly binary")), "{refused:?}");
}

#[test]
fn a_mistake_of_the_description_is_found_before_anything_is_compiled() {
    let refused = trial(r#"{"url": "http://api.example.com/", "calls": [{"url": "http://b/", "status": 99}]}"#).run(b"");
    assert!(matches!(&refused, Err(Refused::Script(mistakes)) if mistakes[0].pointer == "/calls/0/status"), "{refused:?}");
}
