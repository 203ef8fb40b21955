//! The whole filter against scripted exchanges.

use super::*;
use serde_json::{Value as Json, json};
use tidegate_sdk::{
    attributes::Value,
    testing::{Driver, Event, Message as Sent, Scripted},
};

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];
const TEXT: [(&str, &str); 1] = [("content-type", "text/plain")];

fn driver(config: Json) -> Driver<Redact> {
    Driver::new(config).unwrap()
}

fn only(exchange: &Scripted<'_, Redact>) -> Event {
    let events = exchange.events();
    assert_eq!(events.len(), 1, "{events:?}");
    events.into_iter().next().unwrap()
}

fn text(body: &[u8]) -> &str {
    std::str::from_utf8(body).unwrap()
}

#[test]
fn both_bodies_are_masked_and_the_event_counts() {
    let driver = driver(json!({"detectors": ["card", "email"], "mask": "[{detector}]"}));
    let exchange = driver
        .exchange()
        .attribute("caller.principal", "checkout")
        .request(Sent::new(JSON).body([r#"{"pan": 411111"#, r#"1111111111, "bob@example.com": "k"}"#]))
        .response(StatusCode::OK, Sent::new(TEXT).body(["to bob@exam", "ple.com and ", "eve@example.org"]))
        .log();
    let upstream = exchange.upstream().unwrap();
    assert_eq!(text(&upstream.body), r#"{"pan": "[card]", "bob@example.com": "k"}"#);
    assert!(upstream.complete);
    assert_eq!(text(&exchange.caller().unwrap().body), "to [email] and [email]");
    let event = only(&exchange);
    assert_eq!((event.kind.as_str(), event.outcome), ("redaction", audit::Outcome::Modified));
    assert_eq!(event.field("principal"), Some(&"checkout".into()));
    assert_eq!(event.field("request.card"), Some(&Value::Uint(1)));
    assert_eq!(event.field("response.email"), Some(&Value::Uint(2)));
    assert_eq!((event.field("request"), event.field("response")), (Some(&"masked".into()), Some(&"masked".into())));
    let said = format!("{event:?}");
    assert!(!said.contains("4111") && !said.contains("example.com"), "{said}");
}

#[test]
fn masked_bodies_stream_and_are_held_back_by_little() {
    let driver = driver(json!({"detectors": ["email"]}));
    let exchange = driver.exchange().request([]).response_head(StatusCode::OK, [("content-type", "text/event-stream")]);
    let exchange = exchange.response_body("data: one\n\n");
    assert_eq!(text(&exchange.caller().unwrap().body), "data: one\n\n", "an event is not kept waiting");
    let exchange = exchange.response_body("data: bob@ex");
    assert_eq!(text(&exchange.caller().unwrap().body), "data: one\n\ndata: ", "what may become an address is");
    let exchange = exchange.response_body("ample.com").response_trailers([("x-end", "1"), ("content-digest", "sha-256=:x:")]);
    let caller = exchange.caller().unwrap();
    assert_eq!(text(&caller.body), "data: one\n\ndata: (redacted)");
    let trailers = caller.trailers.as_ref().unwrap();
    assert!(trailers.contains_key("x-end") && !trailers.contains_key("content-digest"));
}

#[test]
fn however_a_body_comes_it_is_masked_alike() {
    let driver = driver(json!({"detectors": ["card", "email", "keys", {"name": "employee", "pattern": "EMP-[0-9]{6}"}]}));
    let body = r#"{"a":"caf\u00e9 bob\u0040example.com EMP-123456","n":[4111111111111111,1],"k":"ghp_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"}"#;
    let wanted = r#"{"a":"caf\u00e9 (redacted) (redacted)","n":["(redacted)",1],"k":"(redacted)"}"#;
    for size in 1..body.len() {
        let message = Sent::new(JSON).body(body.as_bytes().chunks(size));
        let exchange = driver.exchange().request(message.clone()).response(StatusCode::OK, message.trailers([("x", "y")]));
        assert_eq!(text(&exchange.upstream().unwrap().body), wanted, "{size}");
        assert_eq!(text(&exchange.caller().unwrap().body), wanted, "{size}");
    }
}

#[test]
fn a_request_is_refused_before_any_of_it_goes_on() {
    for (status, wanted) in [(json!(403), StatusCode::FORBIDDEN), (json!(422), StatusCode::UNPROCESSABLE_ENTITY)] {
        let driver = driver(json!({"detectors": ["card"], "request": "refuse", "status": status}));
        let exchange = driver.exchange().request(Sent::new(TEXT).body(["41111111", "11111111"])).log();
        assert!(exchange.upstream().is_none());
        let reply = exchange.replied().unwrap();
        assert_eq!((reply.status(), reply.reason()), (wanted, "the request's body holds card"));
        let problem: Json = serde_json::from_slice(reply.body_bytes()).unwrap();
        assert_eq!(problem["detail"], "the request's body holds card");
        let event = only(&exchange);
        assert_eq!((event.outcome, event.field("request")), (audit::Outcome::Denied, Some(&"refused".into())));
        assert_eq!(event.field("request.card"), Some(&Value::Uint(1)));
    }
}

#[test]
fn a_response_is_refused_with_502_and_an_innocent_one_goes_on() {
    let driver = driver(json!({"detectors": ["card"], "response": "refuse"}));
    let exchange = driver.exchange().request([]);
    let exchange = exchange.response(StatusCode::OK, Sent::new(JSON).body([r#"{"pan":"4111111111111111"}"#])).log();
    assert_eq!(exchange.status(), Some(StatusCode::BAD_GATEWAY));
    assert_eq!(only(&exchange).outcome, audit::Outcome::Denied);

    let with_trailers = Sent::new(JSON).body([r#"{"pan":"4111111111111111"}"#]).trailers([("x", "y")]);
    let exchange = driver.exchange().request([]).response(StatusCode::OK, with_trailers);
    assert_eq!(exchange.status(), Some(StatusCode::BAD_GATEWAY));

    let exchange = driver.exchange().request([]).response(StatusCode::OK, Sent::new(JSON).body([r#"{"n":"#, "1}"])).log();
    assert_eq!(text(&exchange.caller().unwrap().body), r#"{"n":1}"#);
    assert!(exchange.events().is_empty(), "nothing found, nothing said");
}

#[test]
fn what_cannot_be_read_is_refused_or_passed_but_never_unseen() {
    let gzip = || Sent::new([("content-type", "application/json"), ("content-encoding", "gzip")]).body(["\u{1f}"]);
    let strict = driver(json!({"detectors": ["card"]}));
    let exchange = strict.exchange().request(gzip()).log();
    assert_eq!(exchange.status(), Some(StatusCode::FORBIDDEN));
    assert_eq!(only(&exchange).field("request.unreadable"), Some(&"a content coding".into()));
    let exchange = strict.exchange().request([]).response(StatusCode::OK, gzip()).log();
    assert_eq!(exchange.status(), Some(StatusCode::BAD_GATEWAY));
    let part = Sent::new(TEXT).body(["4111"]);
    let exchange = strict.exchange().request([]).response(StatusCode::PARTIAL_CONTENT, part).log();
    assert_eq!(exchange.status(), Some(StatusCode::BAD_GATEWAY));

    let lenient = driver(json!({"detectors": ["card"], "unreadable": "pass"}));
    let exchange = lenient.exchange().request(gzip()).response(StatusCode::OK, gzip()).log();
    assert_eq!(exchange.status(), Some(StatusCode::OK));
    let event = only(&exchange);
    assert_eq!(
        (event.outcome, event.field("response.unreadable")),
        (audit::Outcome::Allowed, Some(&"a content coding".into()))
    );
    assert_eq!(event.field("request"), Some(&"passed".into()));
}

#[test]
fn keys_are_looked_at_where_they_refuse() {
    let body = r#"{"by": {"\u0034111111111111111": 1}}"#;
    let driver = driver(json!({"detectors": ["card"], "request": "refuse"}));
    let exchange = driver.exchange().request(Sent::new(JSON).body([body])).log();
    assert_eq!(exchange.status(), Some(StatusCode::FORBIDDEN));
    assert_eq!(only(&exchange).field("request.card"), Some(&Value::Uint(1)));
    let exchange = driver.exchange().request([]).response(StatusCode::OK, Sent::new(JSON).body([body])).log();
    assert_eq!(text(&exchange.caller().unwrap().body), body, "a key that is masked would be another key");
}

#[test]
fn escapes_are_read_in_what_is_no_json_under_its_type() {
    let driver = driver(json!({"detectors": ["card"], "response": "refuse"}));
    for body in [
        r#"{"x":NaN,"a":"\u0034111111111111111"}"#,
        r#"{"x":[1,],"a":"\u0034111111111111111"}"#,
        r#"/**/{"a":"\u0034111111111111111"}"#,
        ")]}',\n{\"a\":\"\\u0034111111111111111\"}",
    ] {
        let message = || Sent::new(JSON).body(body.as_bytes().chunks(1));
        let exchange = driver.exchange().request(message()).response(StatusCode::OK, message()).log();
        let wanted = body.replace(r"\u0034111111111111111", "(redacted)");
        assert_eq!(text(&exchange.upstream().unwrap().body), wanted);
        assert_eq!(exchange.status(), Some(StatusCode::BAD_GATEWAY), "{body}");
    }
}

/// Bodies whose heads do not say what they are, and why they cannot be read.
fn unlike_their_heads() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let json = r#"{"pan":"4111111111111111"}"#;
    let utf16 = |mark: &str| format!("{mark}{json}").encode_utf16().collect::<Vec<_>>();
    let utf32 = |to_bytes: fn(u32) -> [u8; 4]| json.chars().flat_map(|character| to_bytes(character.into())).collect();
    let gzip = b"\x1f\x8b\x08\0\0\0\0\0\x02\x03".to_vec();
    vec![
        ("application/json", utf16("").into_iter().flat_map(u16::to_le_bytes).collect(), "a character set"),
        ("application/json", utf16("").into_iter().flat_map(u16::to_be_bytes).collect(), "a character set"),
        ("application/json", utf16("\u{feff}").into_iter().flat_map(u16::to_le_bytes).collect(), "a character set"),
        ("application/json", utf16("\u{feff}").into_iter().flat_map(u16::to_be_bytes).collect(), "a character set"),
        ("application/xml", utf16("\u{feff}").into_iter().flat_map(u16::to_le_bytes).collect(), "a character set"),
        ("application/json", utf32(u32::to_le_bytes), "a character set"),
        ("application/json", utf32(u32::to_be_bytes), "a character set"),
        ("application/json", gzip.clone(), "a content coding"),
        ("text/plain", gzip, "a content coding"),
    ]
}

#[test]
fn bodies_that_begin_as_what_cannot_be_read_are_refused() {
    for action in ["refuse", "mask"] {
        let driver = driver(json!({"detectors": ["card"], "request": action, "response": action}));
        for (content_type, body, reason) in unlike_their_heads() {
            for size in [1, body.len()] {
                let message = || Sent::new([("content-type", content_type)]).body(body.chunks(size));
                let exchange = driver.exchange().request(message()).log();
                assert_eq!(exchange.status(), Some(StatusCode::FORBIDDEN), "{action} {size} {body:?}");
                let event = only(&exchange);
                assert_eq!(event.outcome, audit::Outcome::Denied);
                assert_eq!(event.field("request.unreadable"), Some(&reason.into()), "{action} {size} {body:?}");
                let exchange = driver.exchange().request([]).response(StatusCode::OK, message()).log();
                let event = only(&exchange);
                assert_eq!(event.field("response"), Some(&"refused".into()));
                assert_eq!(event.field("response.unreadable"), Some(&reason.into()), "{action} {size} {body:?}");
            }
        }
    }
}

/// A megabyte of escapes takes longer than one callback may: what has come is looked at as it comes.
#[test]
fn a_body_that_may_be_refused_is_looked_at_as_it_comes() {
    let driver = driver(json!({"detectors": ["card"], "request": "refuse"}));
    let exchange = driver.exchange().request_head(JSON).request_body([0x1f, 0x8b]);
    assert!(exchange.replied().is_some(), "its first bytes say it all");

    let exchange = driver.exchange().request_head(JSON).request_body(r#"["\u0034111"#);
    assert!(exchange.upstream().is_none() && exchange.replied().is_none());
    let exchange = exchange.request_body("11111111").request_body("1111\"");
    assert!(exchange.upstream().is_none() && exchange.replied().is_none(), "until it has ended");
    let exchange = exchange.request_trailers([("x", "y")]).log();
    assert_eq!(exchange.status(), Some(StatusCode::FORBIDDEN));
    assert_eq!(only(&exchange).field("request.card"), Some(&Value::Uint(1)), "each piece was looked at once");
}

#[test]
fn bodies_that_begin_as_what_cannot_be_read_pass_whole_with_an_event() {
    for action in ["refuse", "mask"] {
        let own = json!({"name": "held", "pattern": r"[\x1f\xfe\xff]x.{0,3}y"});
        let driver = driver(json!({"detectors": [own], "request": action, "response": "pass", "unreadable": "pass"}));
        for (content_type, body, reason) in unlike_their_heads() {
            for size in [1, body.len()] {
                let message = Sent::new([("content-type", content_type)]).body(body.chunks(size));
                let exchange = driver.exchange().request(message).log();
                assert_eq!(exchange.upstream().unwrap().body, body, "{action} {size}");
                let event = only(&exchange);
                assert_eq!((event.outcome, event.field("request")), (audit::Outcome::Allowed, Some(&"passed".into())));
                assert_eq!(event.field("request.unreadable"), Some(&reason.into()));
            }
        }
    }
}

#[test]
fn masks_that_would_fill_the_memory_end_the_exchange() {
    let own = json!({"name": "digit", "pattern": "[0-9]"});
    let driver = driver(json!({"detectors": [own], "mask": "%".repeat(256)}));
    for (content_type, says) in [
        ("text/plain", "larger than what the gateway holds for a filter"),
        ("application/x-www-form-urlencoded", "a piece of 16384 bytes would become more than 4194304"),
    ] {
        let message = Sent::new([("content-type", content_type)]).body(["1+".repeat(8 << 10)]);
        let exchange = driver.exchange().request(message);
        assert!(exchange.is_reset(), "{content_type}");
        let logged = format!("{:?}", exchange.logged());
        assert!(logged.contains("the request's body cannot be masked: ") && logged.contains(says), "{logged}");
    }
}

#[test]
fn the_api_is_asked_for_what_can_be_read() {
    let asked = [("accept-encoding", "gzip, br"), ("range", "bytes=1-"), ("if-range", "\"x\""), ("accept", "*/*")];
    let exchange = driver(json!({"detectors": ["card"]}));
    let exchange = exchange.exchange().request(asked);
    let upstream = exchange.upstream().unwrap();
    assert_eq!((upstream.header("accept-encoding"), upstream.header("range")), (Some("identity"), None));
    assert_eq!((upstream.header("if-range"), upstream.header("accept")), (None, Some("*/*")));
    let requests_only = driver(json!({"detectors": ["card"], "response": "pass"}));
    let exchange = requests_only.exchange().request(asked);
    assert_eq!(exchange.upstream().unwrap().header("accept-encoding"), Some("gzip, br"));
}

#[test]
fn what_was_not_asked_for_is_left_alone() {
    let driver = driver(json!({"detectors": ["card"], "response": "pass", "content_types": ["application/json"]}));
    let exchange = driver
        .exchange()
        .request(Sent::new([("content-type", "text/plain"), ("content-digest", "x")]).body(["4111111111111111"]))
        .response(StatusCode::OK, Sent::new(JSON).body(["4111111111111111"]))
        .log();
    assert_eq!(text(&exchange.upstream().unwrap().body), "4111111111111111");
    assert_eq!(exchange.upstream().unwrap().header("content-digest"), Some("x"));
    assert_eq!(text(&exchange.caller().unwrap().body), "4111111111111111");
    assert!(exchange.events().is_empty());
    let exchange = driver.exchange().request(Sent::new([]).body(["4111111111111111"]));
    assert_eq!(text(&exchange.upstream().unwrap().body), "(redacted)", "no content type is no way out");
}

#[test]
fn digests_of_what_is_masked_are_taken_away() {
    let driver = driver(json!({"detectors": ["card"]}));
    let head =
        [("content-type", "text/plain"), ("content-digest", "x"), ("repr-digest", "x"), ("digest", "x"), ("content-md5", "x")];
    let exchange = driver.exchange().request(Sent::new(head).body(["x"]));
    let names: Vec<_> = exchange.upstream().unwrap().headers.keys().map(|name| name.as_str().to_owned()).collect();
    assert_eq!(names, ["content-type", "accept-encoding"]);
}

#[test]
fn another_protocol_is_no_body() {
    let driver = driver(json!({"detectors": ["card"], "response": "refuse"}));
    let exchange =
        driver.exchange().request([]).response_head(StatusCode::SWITCHING_PROTOCOLS, []).response_body("4111111111111111");
    assert_eq!(text(&exchange.caller().unwrap().body), "4111111111111111");
}

#[test]
fn mistakes_are_pointed_at() {
    for (config, wanted) in [
        (json!(null), "missing field `detectors`"),
        (json!({"detectors": ["card"], "mode": "mask"}), "/mode: unknown field"),
        (json!({"detectors": ["card"], "request": "drop"}), "/request: unknown variant"),
        (json!({"detectors": ["cards"]}), "/detectors/0: "),
        (json!({"detectors": ["card"], "status": 500}), "/status: "),
        (json!({"detectors": ["card"], "content_types": ["json"]}), "/content_types/0: "),
    ] {
        let error = Driver::<Redact>::new(config).unwrap_err().to_string();
        assert!(error.starts_with(wanted), "{error}");
    }
}
