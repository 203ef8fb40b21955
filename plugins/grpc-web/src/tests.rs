//! The filter on scripted exchanges.

use super::*;
use serde_json::{Value, json};
use text::encode;
use tidegate_sdk::testing::{Driver, Message, Received, Scripted};

const ORIGIN: &str = "https://app.example";
/// A message of three bytes in its frame.
const MESSAGE: &[u8] = b"\0\0\0\0\x03abc";

fn driver() -> Driver<GrpcWeb> {
    Driver::new(json!({"origins": [ORIGIN], "expose_headers": ["x-id"]})).unwrap()
}

fn calling<'a>(driver: &'a Driver<GrpcWeb>, head: Message) -> Scripted<'a, GrpcWeb> {
    driver.exchange().attribute("request.method", "POST").request(head)
}

fn web(kind: &str, body: impl AsRef<[u8]>) -> Message {
    Message::new([("content-type", kind), ("x-grpc-web", "1"), ("accept", "*/*")]).body([body])
}

/// The frames of a body in this coding.
fn frames(kind: &str, received: &Received) -> Vec<u8> {
    if !kind.contains("text") {
        return received.body.clone();
    }
    let mut decoder = text::Decoder::default();
    let frames = decoder.push(&received.body).unwrap();
    decoder.finish().unwrap();
    frames
}

/// The status that the caller was told in the head.
fn told(exchange: &Scripted<'_, GrpcWeb>) -> (String, String) {
    assert_eq!((exchange.failure(), exchange.status()), (None, Some(StatusCode::OK)));
    let received = exchange.caller().unwrap();
    let field = |name| received.header(name).unwrap_or_default().to_owned();
    assert!(field("content-type").starts_with("application/grpc-web"), "{received:?}");
    assert!(received.complete && received.body.is_empty(), "{received:?}");
    (field("grpc-status"), field("grpc-message"))
}

#[test]
fn a_call_goes_there_and_back_wherever_its_pieces_end() {
    let driver = driver();
    for kind in ["application/grpc-web+proto", "application/grpc-web-text+proto"] {
        let sent = if kind.contains("text") { encode(MESSAGE).into_bytes() } else { MESSAGE.to_vec() };
        for cut in 0..=sent.len() {
            let (one, other) = sent.split_at(cut);
            let head = Message::new([("content-type", kind), ("x-grpc-web", "1"), ("grpc-timeout", "5S")]);
            let exchange = calling(&driver, head.body([one, other]));
            let upstream = exchange.upstream().unwrap();
            assert_eq!(upstream.body, MESSAGE, "{kind} {cut}");
            assert_eq!(upstream.header("content-type"), Some("application/grpc+proto"));
            assert_eq!((upstream.header("x-grpc-web"), upstream.header("grpc-timeout")), (None, Some("5S")));

            let (one, other) = MESSAGE.split_at(cut.min(MESSAGE.len()));
            let answer = Message::new([("content-type", "application/grpc+proto"), ("x-id", "7")]).body([one, other]);
            let exchange = exchange.response(StatusCode::OK, answer.trailers([("grpc-status", "0"), ("x-sum", "1")]));
            let caller = exchange.caller().unwrap();
            let end = b"\x80\0\0\0\x1agrpc-status: 0\r\nx-sum: 1\r\n";
            assert_eq!(frames(kind, caller), [MESSAGE, end].concat(), "{kind} {cut}");
            assert_eq!((caller.header("content-type"), caller.header("x-id")), (Some(kind), Some("7")));
            assert!(caller.complete && caller.trailers.as_ref().is_none_or(|trailers| trailers.is_empty()), "{caller:?}");
        }
    }
}

#[test]
fn messages_stream() {
    let driver = driver();
    let kind = "application/grpc-web-text";
    let mut exchange =
        calling(&driver, web(kind, encode(MESSAGE))).response_head(StatusCode::OK, [("content-type", "application/grpc")]);
    for count in 1..4 {
        exchange = exchange.response_body(MESSAGE);
        assert_eq!(frames(kind, exchange.caller().unwrap()), MESSAGE.repeat(count));
    }
    let exchange = exchange.response_trailers([("grpc-status", "5"), ("grpc-message", "no")]);
    let end = b"\x80\0\0\0\x22grpc-status: 5\r\ngrpc-message: no\r\n";
    assert_eq!(frames(kind, exchange.caller().unwrap()), [&MESSAGE.repeat(3)[..], end].concat());
}

#[test]
fn an_answer_of_trailers_only_keeps_its_status_in_the_head() {
    let driver = driver();
    let head = [("content-type", "application/grpc"), ("grpc-status", "5"), ("grpc-message", "no")];
    let call = || calling(&driver, web("application/grpc-web", MESSAGE));
    let exchange = call().response(StatusCode::OK, head);
    assert_eq!(told(&exchange), ("5".to_owned(), "no".to_owned()));
    let exchange = call().response_head(StatusCode::OK, head).response_end();
    assert_eq!(told(&exchange), ("5".to_owned(), "no".to_owned()));
}

#[test]
fn requests_that_are_not_grpc_web_are_refused_and_reach_nobody() {
    let driver = driver();
    let rows = [
        ("application/grpc-web-text", &b"AAAA-"[..], "3", "base64"),
        ("application/grpc-web-text", b"AAA", "3", "base64"),
        ("application/grpc-web", b"\0\0\0\0\x03ab", "3", "within a message"),
        ("application/grpc-web+proto", b"\x80\0\0\0\0", "3", "trailers"),
        ("application/grpc-web", b"{\"a\":1}", "3", "frames"),
    ];
    for (kind, body, code, message) in rows {
        let exchange = calling(&driver, web(kind, body));
        let (status, detail) = told(&exchange);
        assert!(status == code && detail.contains(message), "{kind}: {status} {detail}");
        assert!(exchange.upstream().is_none(), "{kind}");
        assert_eq!(exchange.caller().unwrap().header("content-type"), Some(kind));
    }
    let head = [("content-type", "application/grpc-web"), ("content-encoding", "gzip")];
    let exchange = calling(&driver, Message::new(head).body([MESSAGE]));
    assert_eq!((told(&exchange).0.as_str(), exchange.upstream()), ("12", None));
    let exchange = driver.exchange().attribute("request.method", "PUT").request(web("application/grpc-web", MESSAGE));
    assert_eq!((told(&exchange).0.as_str(), exchange.upstream()), ("12", None));
}

#[test]
fn answers_that_are_not_grpc_become_a_status() {
    let driver = driver();
    let call = || calling(&driver, web("application/grpc-web", MESSAGE));
    for (status, code) in [(503, "14"), (404, "12"), (401, "16"), (200, "2")] {
        let html = Message::new([("content-type", "text/html")]).body(["<p>"]);
        let exchange = call().response(StatusCode::from_u16(status).unwrap(), html);
        assert_eq!(told(&exchange).0, code, "{status}");
        assert!(exchange.replied().is_none(), "the service answered, and its record says so");
    }
    assert_eq!(told(&call().response(StatusCode::OK, [("content-type", "application/grpc")])).0, "2");
    let answer = |pieces: &[&[u8]]| {
        let answer = Message::new([("content-type", "application/grpc")]).body(pieces);
        call().response(StatusCode::OK, answer)
    };
    let spoilt = answer(&[MESSAGE, b"<html>", MESSAGE]);
    let spoilt = spoilt.caller().unwrap();
    assert!(spoilt.complete && spoilt.body.starts_with(MESSAGE), "{spoilt:?}");
    assert!(String::from_utf8_lossy(&spoilt.body[MESSAGE.len()..]).contains("grpc-status: 13\r\n"), "{spoilt:?}");
    let silent = answer(&[MESSAGE]);
    assert!(String::from_utf8_lossy(&silent.caller().unwrap().body).contains("grpc-status: 2\r\n"));
    assert!(answer(&[MESSAGE, &MESSAGE[..6]]).is_reset());
    let broken = Message::new([("content-type", "application/grpc")]).body([&MESSAGE[..6]]).trailers([("grpc-status", "0")]);
    assert!(call().response(StatusCode::OK, broken).is_reset());
}

#[test]
fn pages_are_told_what_they_may() {
    let driver = driver();
    let preflight = |origin: &str| {
        let head = [("origin", origin), ("access-control-request-method", "POST")];
        driver.exchange().attribute("request.method", "OPTIONS").request(Message::new(head))
    };
    let exchange = preflight(ORIGIN);
    let answer = exchange.caller().unwrap();
    assert_eq!((exchange.status(), answer.header("vary")), (Some(StatusCode::NO_CONTENT), Some("origin")));
    assert_eq!(answer.header("access-control-allow-origin"), Some(ORIGIN));
    assert_eq!(
        (answer.header("access-control-allow-methods"), answer.header("access-control-max-age")),
        (Some("POST"), Some("7200"))
    );
    assert!(answer.header("access-control-allow-headers").unwrap().contains("x-grpc-web"));
    let exchange = preflight("https://evil.example");
    assert_eq!(exchange.status(), Some(StatusCode::FORBIDDEN));
    assert_eq!(exchange.caller().unwrap().header("access-control-allow-origin"), None);

    let head = |origin| Message::new([("content-type", "application/grpc-web"), ("origin", origin)]);
    let exchange = calling(&driver, head(ORIGIN).body([MESSAGE]));
    let answer = Message::new([("content-type", "application/grpc"), ("vary", "x-lang"), ("access-control-allow-origin", "*")]);
    let exchange = exchange.response(StatusCode::OK, answer.trailers([("grpc-status", "0")]));
    let answer = exchange.caller().unwrap();
    assert_eq!(answer.headers.get_all("access-control-allow-origin").iter().collect::<Vec<_>>(), [ORIGIN]);
    assert_eq!(answer.headers.get_all("vary").iter().collect::<Vec<_>>(), ["x-lang", "origin"]);
    let exposed = "grpc-status, grpc-message, grpc-status-details-bin, x-id";
    assert_eq!(answer.header("access-control-expose-headers"), Some(exposed));

    let exchange = calling(&driver, head(ORIGIN).body([b"x"]));
    assert_eq!(
        (told(&exchange).0.as_str(), exchange.caller().unwrap().header("access-control-allow-origin")),
        ("3", Some(ORIGIN))
    );
    let exchange = calling(&driver, head("https://evil.example").body([MESSAGE]));
    assert_eq!((told(&exchange).0.as_str(), exchange.upstream()), ("7", None));
    assert_eq!(exchange.caller().unwrap().header("access-control-allow-origin"), None);
}

#[test]
fn the_answer_is_in_the_coding_that_the_caller_accepts() {
    let driver = driver();
    let head = [("content-type", "application/grpc-web+proto"), ("accept", "application/grpc-web-text+proto")];
    let exchange = calling(&driver, Message::new(head).body([MESSAGE]));
    assert_eq!(exchange.upstream().unwrap().body, MESSAGE);
    let answer = Message::new([("content-type", "application/grpc")]).body([MESSAGE]).trailers([("grpc-status", "0")]);
    let exchange = exchange.response(StatusCode::OK, answer);
    let caller = exchange.caller().unwrap();
    assert_eq!(caller.header("content-type"), Some("application/grpc-web-text+proto"));
    assert!(frames("text", caller).starts_with(MESSAGE));
}

#[test]
fn what_is_larger_than_one_call_to_the_gateway_goes_through() {
    let driver = driver();
    let message = [&[0][..], &(700_000_u32).to_be_bytes(), &vec![7; 700_000]].concat();
    let exchange = calling(&driver, web("application/grpc-web-text", encode(&message)));
    assert!(exchange.upstream().unwrap().body == message);
    let answer = Message::new([("content-type", "application/grpc")]).body([&message]).trailers([("grpc-status", "0")]);
    let exchange = exchange.response(StatusCode::OK, answer);
    assert!(frames("text", exchange.caller().unwrap()).starts_with(&message));
}

#[test]
fn everything_else_passes() {
    let driver = driver();
    for kind in ["application/grpc", "application/json", "text/plain"] {
        let exchange = calling(&driver, Message::new([("content-type", kind), ("accept", "*/*")]).body([b"x"]));
        let sent = exchange.upstream().unwrap();
        assert_eq!((sent.header("content-type"), sent.header("accept"), &sent.body[..]), (Some(kind), Some("*/*"), &b"x"[..]));
        let exchange = exchange.response(StatusCode::OK, Message::new([("content-type", "text/html")]).body(["<p>"]));
        assert_eq!(exchange.caller().unwrap().body, b"<p>");
    }
    let exchange = driver.exchange().attribute("request.method", "OPTIONS").request([("origin", ORIGIN)]);
    assert!(exchange.replied().is_none());
}

#[test]
fn mistakes_in_the_configuration_are_pointed_at() {
    let error = |config: Value| Driver::<GrpcWeb>::new(config).unwrap_err().to_string();
    assert!(error(json!(null)).contains("missing field `origins`"));
    assert!(error(json!({"origins": [], "origin": 1})).starts_with("/origin: unknown field"));
    assert!(error(json!({"origins": ["app.example"]})).starts_with("/origins/0: "));
}

#[test]
fn the_readmes_example_is_one() {
    let readme = include_str!("../README.md");
    let example = readme.split("```json").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let example: Value = serde_json::from_str(example).unwrap();
    Driver::<GrpcWeb>::new(example["config"].clone()).unwrap();
}
