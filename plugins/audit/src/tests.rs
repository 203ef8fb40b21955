//! The whole filter against scripted exchanges.

use super::*;
use serde_json::json;
use tidegate_sdk::{
    attributes::Value,
    testing::{Driver, Event, Message, Scripted},
};

const SHA256_OF_NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const SHA256_OF_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn only(exchange: &Scripted<'_, Audit>) -> Event {
    let events = exchange.events();
    assert_eq!(events.len(), 1, "{events:?}");
    events.into_iter().next().unwrap()
}

#[test]
fn one_event_holds_what_was_selected() {
    let config = json!({"kind": "payments", "request_headers": ["X-Tenant", "authorization"], "response_headers": ["x-id"]});
    let driver = Driver::<Audit>::new(config).unwrap();
    let exchange = driver
        .exchange()
        .attribute("caller.principal", "spiffe://cluster.local/ns/shop/sa/checkout")
        .attribute("request.method", "POST")
        .request([("x-tenant", "blue"), ("authorization", "Bearer topsecret"), ("x-other", "no")])
        .response(StatusCode::CREATED, [("x-id", "42")])
        .log();
    let event = only(&exchange);
    assert_eq!((event.kind.as_str(), event.outcome), ("payments", audit::Outcome::Allowed));
    assert_eq!(event.field("principal"), Some(&"spiffe://cluster.local/ns/shop/sa/checkout".into()));
    assert_eq!(event.field("method"), Some(&"POST".into()));
    assert_eq!(event.field("status"), Some(&Value::Uint(201)));
    assert_eq!(event.field("request.x-tenant"), Some(&"blue".into()));
    assert_eq!(event.field("response.x-id"), Some(&"42".into()));
    assert_eq!(event.field("request.authorization"), Some(&"(redacted)".into()));
    assert!(!format!("{event:?}").contains("topsecret"));
    assert!(!format!("{event:?}").contains("x-other"));
}

#[test]
fn an_exchange_without_a_response_is_an_error() {
    let driver = Driver::<Audit>::new(json!(null)).unwrap();
    let event = only(&driver.exchange().request([]).log());
    assert_eq!((event.kind.as_str(), event.outcome), ("exchange", audit::Outcome::Error));
}

#[test]
fn a_share_of_the_exchanges_is_sampled_and_the_others_are_let_go() {
    let driver = Driver::<Audit>::new(json!({"sample": 25, "digests": ["request"]})).unwrap();
    let events: usize = (0..400).map(|_| driver.exchange().request([]).log().events().len()).sum();
    assert!((60..=140).contains(&events), "{events} of 400");
}

#[test]
fn values_of_json_bodies_are_remembered_and_the_bodies_are_untouched() {
    let config = json!({
        "request_pointers": ["/amount", "/card/number", "/password"], "response_pointers": ["/id"],
        "digests": ["request", "response"],
    });
    let driver = Driver::<Audit>::new(config).unwrap();
    let sent = [r#"{"amount": 12, "card": {"number": "4111 1111"#, r#" 1111 1111"}, "password": "hunter2"}"#];
    let exchange = driver
        .exchange()
        .request(Message::new([("content-type", "application/json")]).body(sent))
        .response(
            StatusCode::OK,
            Message::new([("content-type", "application/json")]).body([r#"{"id": "ch_1"}"#]).trailers([("x", "y")]),
        )
        .log();
    assert_eq!(exchange.upstream().unwrap().body, sent.concat().as_bytes());
    assert_eq!(exchange.caller().unwrap().body, br#"{"id": "ch_1"}"#);
    assert!(exchange.caller().unwrap().trailers.is_some());
    let event = only(&exchange);
    assert_eq!(event.field("request.body/amount"), Some(&Value::Uint(12)));
    assert_eq!(event.field("request.body/card/number"), Some(&"(redacted)".into()));
    assert_eq!(event.field("request.body/password"), Some(&"(redacted)".into()));
    assert_eq!(event.field("response.body/id"), Some(&"ch_1".into()));
    for direction in ["request", "response"] {
        assert!(
            matches!(event.field(&format!("{direction}.sha256")), Some(Value::Text(digest)) if digest.len() == 64),
            "{event:?}"
        );
    }
}

#[test]
fn bodies_are_never_held_back() {
    let config = json!({"request_pointers": ["/a"], "digests": ["request", "response"]});
    let driver = Driver::<Audit>::new(config).unwrap();
    let exchange = driver.exchange().request_head([("content-type", "application/json")]).request_body(r#"{"a":"#);
    assert_eq!(exchange.upstream().unwrap().body, br#"{"a":"#, "it streams");
    let exchange = exchange.request_body("1}").request_end().response(StatusCode::OK, []).log();
    assert_eq!(exchange.upstream().unwrap().body, br#"{"a":1}"#);
    assert_eq!(only(&exchange).field("request.body/a"), Some(&Value::Uint(1)));

    let exchange = driver.exchange().request_head([("content-type", "text/plain")]).request_body("a");
    assert_eq!(exchange.upstream().unwrap().body, b"a", "it streams");
    let exchange = exchange.request_body("bc").request_trailers([("x", "y")]);
    let exchange = exchange.response_head(StatusCode::OK, []).response_body("abc").log();
    let event = only(&exchange);
    assert_eq!(event.field("request.sha256"), Some(&SHA256_OF_ABC.into()));
    assert_eq!(event.field("response.sha256"), None, "it has not ended");
    assert_eq!(event.field("response.unread"), Some(&"incomplete".into()));
}

#[test]
fn bodies_larger_than_what_is_held_for_a_filter_are_read() {
    let driver = Driver::<Audit>::new(json!({"request_pointers": ["/last", "/items"]})).unwrap();
    let body = format!(r#"{{"items":[{}0],"last":7}}"#, r#"{"a":1},"#.repeat(400_000));
    assert!(body.len() > 3 << 20);
    let sent = Message::new([("content-type", "application/json")]).body(body.as_bytes().chunks(60_000));
    let exchange = driver.exchange().request(sent).response(StatusCode::OK, []).log();
    assert!(exchange.upstream().unwrap().body == body.as_bytes(), "it is untouched");
    let event = only(&exchange);
    assert_eq!(event.field("request.body/last"), Some(&Value::Uint(7)));
    assert_eq!(event.field("request.unread"), Some(&r#"too large: "/items""#.into()));
}

#[test]
fn no_body_has_the_digest_of_nothing() {
    let driver = Driver::<Audit>::new(json!({"digests": ["request", "response"], "request_pointers": ["/a"]})).unwrap();
    let exchange = driver.exchange().request([("content-type", "application/json")]).response(StatusCode::NO_CONTENT, []).log();
    let event = only(&exchange);
    assert_eq!(event.field("request.sha256"), Some(&SHA256_OF_NOTHING.into()));
    assert_eq!(event.field("response.sha256"), Some(&SHA256_OF_NOTHING.into()));
}

#[test]
fn what_detectors_find_in_headers_and_paths_stays_out() {
    let own = json!({"name": "employee", "pattern": "EMP-[0-9]{6}"});
    let config = json!({"request_headers": ["x-note"], "redact": ["email", own]});
    let driver = Driver::<Audit>::new(config).unwrap();
    let exchange = driver
        .exchange()
        .attribute("request.path", "/users/bob@example.com/orders")
        .request([("x-note", "from EMP-123456, card 4111111111111111")])
        .response(StatusCode::OK, [])
        .log();
    let event = only(&exchange);
    assert_eq!(event.field("path"), Some(&"/users/(redacted)/orders".into()));
    assert_eq!(
        event.field("request.x-note"),
        Some(&"from (redacted), card 4111111111111111".into()),
        "only what was asked for"
    );
}

#[test]
fn mistakes_are_pointed_at() {
    let error = |config| Driver::<Audit>::new(config).unwrap_err().to_string();
    for (config, wanted) in [
        (json!({"kinds": "a"}), "/kinds: unknown field"),
        (json!({"sample": 0}), "/sample: "),
        (json!({"kind": ""}), "/kind: "),
        (json!({"response_headers": ["a", "b c"]}), "/response_headers/1: "),
        (json!({"request_headers": [1]}), "/request_headers/0: "),
        (json!({"request_pointers": ["a"]}), "/request_pointers/0: "),
        (json!({"digests": ["trailers"]}), "/digests/0"),
        (json!({"redact": ["cards"]}), "/redact/0: "),
        (json!({"redact": [{"name": "a", "pattern": "a+"}]}), "/redact/0/pattern: "),
        (json!({"redact": [{"name": "a", "patern": "a+"}]}), "/redact/0/patern: "),
    ] {
        let error = error(config);
        assert!(error.starts_with(wanted), "{error}");
    }
}
