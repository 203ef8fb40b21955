//! The redact filter on real exchanges: what each side is sent, and what the record holds of it.

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tidegate_tests::{
    World,
    api::{Api, Speaks},
    h2::{H2, boxed},
    plugins,
    raw::Reply,
    wait::soon,
    world::POD,
};

const CARD: &str = "4111 1111 1111 1111";

/// A world with a service `api.example.com`, plain HTTP, on whose route the filter runs.
async fn redacting(config: Value) -> (World, Api) {
    let world = World::start().await;
    let api = Api::start(Speaks::Http1).await;
    world.open_plain("api", "api.example.com", api.address).await;
    let uploaded = world.rest.upload("redact", plugins::module("redact")).await;
    assert!(matches!(uploaded.status, 200 | 201), "{uploaded:?}\n{}", uploaded.text());
    let route = json!({"service": "api", "filters": [{"plugin": "redact", "config": config}]});
    world.rest.register("routes", "api", &route).await;
    world.in_force().await;
    (world, api)
}

/// The answer to a POST in the clear.
async fn post(world: &World, path: &str, headers: &str, body: &[u8]) -> Reply {
    let mut raw = world.pod().await;
    let head = format!(
        "POST http://api.example.com{path} HTTP/1.1\r\nHost: api.example.com\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    raw.send([head.as_bytes(), body].concat()).await;
    raw.reply().await
}

/// The only event of the filter in the record of the exchange with this path.
async fn event(world: &World, path: &str) -> Value {
    let record = world.rest.record_to(path).await;
    let text = record.to_string();
    assert!(!text.contains("4111") && !text.contains("bob@"), "the record holds what was found: {text}");
    let events = record["filters"][0]["events"].as_array().cloned().unwrap_or_default();
    assert_eq!(events.len(), 1, "{record}");
    events[0].clone()
}

#[tokio::test]
async fn what_is_found_is_masked_before_the_api_sees_it() {
    let (world, _api) = redacting(json!({"detectors": ["card", "email"], "response": "pass", "mask": "[{detector}]"})).await;
    let body =
        r#"{"pan": 4111111111111111, "note": "bob\u0040example.com, \u0034111 1111 1111 1111", "bob@example.com": "kept"}"#;
    let reply = post(&world, "/echo/json", "Content-Type: application/json\r\n", body.as_bytes()).await;
    assert_eq!(reply.status, 200, "{reply:?}\n{}", reply.text());
    assert_eq!(reply.text(), r#"{"pan": "[card]", "note": "[email], [card]", "bob@example.com": "kept"}"#);
    let event = event(&world, "/echo/json").await;
    assert_eq!((&event["kind"], &event["outcome"]), (&json!("redaction"), &json!("modified")), "{event}");
    assert_eq!((&event["fields"]["request.card"], &event["fields"]["request.email"]), (&json!(2), &json!(1)), "{event}");
}

#[tokio::test]
async fn a_match_may_span_any_number_of_chunks() {
    let (world, _api) = redacting(json!({"detectors": ["card"], "request": "pass"})).await;
    let chunk = |piece: &str| format!("{:x}\r\n{piece}\r\n", piece.len());
    let mut raw = world.pod().await;
    let head = "POST http://api.example.com/echo/chunks HTTP/1.1\r\nHost: api.example.com\r\nContent-Type: text/plain\r\n\
                Transfer-Encoding: chunked\r\nTE: trailers\r\nTrailer: x-end\r\n\r\n";
    raw.send(head).await;
    let text = format!("before {CARD} after {CARD}");
    for piece in text.as_bytes().chunks(1) {
        raw.send(chunk(&String::from_utf8_lossy(piece))).await;
    }
    raw.send("0\r\nx-end: 1\r\n\r\n").await;
    let reply = raw.reply().await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "before (redacted) after (redacted)"), "{reply:?}");
    assert_eq!(reply.trailers, [("x-end".to_owned(), "1".to_owned())]);
    let event = event(&world, "/echo/chunks").await;
    assert_eq!(event["fields"]["response.card"], 2, "{event}");
}

#[tokio::test]
async fn a_live_stream_is_masked_event_by_event() {
    let (world, _api) = redacting(json!({"detectors": ["card", "email", "keys"]})).await;
    let h2 = H2::connect_from(POD, world.gateway.addresses.proxy).await;
    let (sender, pieces) = tokio::sync::mpsc::unbounded_channel::<Bytes>();
    let frames = stream::unfold(pieces, async |mut pieces| pieces.recv().await.map(|piece| (Ok(Frame::data(piece)), pieces)));
    let request = http::Request::post("http://api.example.com/echo/live")
        .header("content-type", "text/event-stream")
        .body(boxed(StreamBody::new(frames)))
        .expect("a request");
    sender.send(Bytes::from_static(b"data: hello\n\n")).expect("the request takes its body");
    let mut body = h2.open(request).await.expect("an answer before the request has ended").into_body().into_data_stream();
    let rows = [
        ("", "data: hello\n\n"),
        ("data: 4111 1111 1111 1111\n\n", "data: (redacted)\n\n"),
        ("data: bob@example.com\n\n", "data: (redacted)\n\n"),
    ];
    for (sent, wanted) in rows {
        if !sent.is_empty() {
            sender.send(Bytes::from_static(sent.as_bytes())).expect("the request takes its body");
        }
        let mut got = Vec::new();
        while got.len() < wanted.len() {
            let piece = soon("the next event", body.next()).await.expect("the stream goes on").expect("the stream is whole");
            got.extend_from_slice(&piece);
        }
        assert_eq!(String::from_utf8_lossy(&got), wanted);
    }
}

#[tokio::test]
async fn a_request_is_refused_before_the_api_hears_of_it() {
    let (world, api) = redacting(json!({"detectors": ["card"], "request": "refuse", "status": 422})).await;
    let reply = post(&world, "/echo/refused", "Content-Type: text/plain\r\n", CARD.as_bytes()).await;
    assert_eq!((reply.status, reply.header("content-type")), (422, Some("application/problem+json")), "{reply:?}");
    assert_eq!(reply.json()["detail"], "the request's body holds card");
    assert!(!api.was_asked("/echo/refused"), "{:?}", api.seen());
    let event = event(&world, "/echo/refused").await;
    assert_eq!((&event["outcome"], &event["fields"]["request"]), (&json!("denied"), &json!("refused")), "{event}");
    let record = world.rest.record_to("/echo/refused").await;
    assert_eq!(record["verdict"], "denied", "{record}");

    let reply = post(&world, "/echo/innocent", "Content-Type: text/plain\r\n", b"4111 1111 1111 1112").await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "4111 1111 1111 1112"), "{reply:?}");
}

#[tokio::test]
async fn a_response_is_refused_with_502_and_none_of_it_is_seen() {
    let (world, api) = redacting(json!({"detectors": ["card"], "request": "pass", "response": "refuse"})).await;
    let filler = "x".repeat(200_000);
    let body = format!("{filler} {CARD}");
    let reply = post(&world, "/echo/refused", "Content-Type: text/plain\r\n", body.as_bytes()).await;
    assert_eq!(reply.status, 502, "{reply:?}");
    assert!(!reply.text().contains("xxx") && !reply.text().contains("4111"), "{}", reply.text());
    assert!(api.was_asked("/echo/refused"));
    assert_eq!(event(&world, "/echo/refused").await["outcome"], "denied");
    let reply = post(&world, "/echo/innocent", "Content-Type: text/plain\r\n", filler.as_bytes()).await;
    assert_eq!((reply.status, reply.body.len()), (200, filler.len()));
}

#[tokio::test]
async fn a_body_as_large_as_filters_may_hold_is_looked_at_in_time() {
    let (world, api) =
        redacting(json!({"detectors": ["card", "email", "keys"], "request": "refuse", "response": "pass"})).await;
    let item = r#"{"id":8842,"name":"The quick brown fox","url":"https://shop.example.com/a?b=c","note":"caf\u00e9"},"#;
    let items = item.repeat(1_000_000 / item.len());
    let innocent = format!("[{items}0]");
    let reply = post(&world, "/sink/innocent", "Content-Type: application/json\r\n", innocent.as_bytes()).await;
    assert_eq!((reply.status, &reply.json()["bytes"]), (200, &json!(innocent.len())), "{reply:?}");
    let guilty = format!("[{items}\"{CARD}\"]");
    let reply = post(&world, "/sink/guilty", "Content-Type: application/json\r\n", guilty.as_bytes()).await;
    assert_eq!((reply.status, reply.reason()), (403, "filter_denied"), "{reply:?}");
    let larger = format!("[{items}{items}0]");
    let reply = post(&world, "/sink/larger", "Content-Type: application/json\r\n", larger.as_bytes()).await;
    assert_eq!((reply.status, reply.reason()), (413, "body_too_large"), "{reply:?}");
    assert!(!api.was_asked("/sink/guilty") && !api.was_asked("/sink/larger"));
}

#[tokio::test]
async fn what_is_compressed_is_refused_or_passed_and_never_unseen() {
    let (world, api) = redacting(json!({"detectors": ["card"]})).await;
    let gzip = "Content-Type: application/json\r\nContent-Encoding: gzip\r\n";
    let reply = post(&world, "/echo/gzip", gzip, b"\x1f\x8b").await;
    assert_eq!((reply.status, reply.reason()), (403, "filter_denied"), "{reply:?}");
    assert!(!api.was_asked("/echo/gzip"));
    assert_eq!(event(&world, "/echo/gzip").await["fields"]["request.unreadable"], "a content coding");
    let asked = "Accept-Encoding: gzip, br\r\nRange: bytes=1-\r\n";
    let reply = world.pod().await.get("http://api.example.com/asked", "api.example.com", asked).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let headers = api.saw("/asked").headers;
    assert_eq!(headers.get("accept-encoding").map(http::HeaderValue::as_bytes), Some(&b"identity"[..]), "{headers:?}");
    assert!(!headers.contains_key("range"), "{headers:?}");

    let (world, api) = redacting(json!({"detectors": ["card"], "unreadable": "pass"})).await;
    let reply = post(&world, "/echo/gzip", gzip, b"\x1f\x8b").await;
    assert_eq!((reply.status, reply.body.as_slice()), (200, &b"\x1f\x8b"[..]), "{reply:?}");
    assert!(api.was_asked("/echo/gzip"));
    let event = event(&world, "/echo/gzip").await;
    assert_eq!((&event["outcome"], &event["fields"]["request"]), (&json!("allowed"), &json!("passed")), "{event}");
}

#[tokio::test]
async fn configuration_is_refused_with_a_pointer() {
    let (world, _api) = redacting(json!({"detectors": ["card"]})).await;
    for (config, pointer) in [
        (json!({}), "detectors"),
        (json!({"detectors": ["cards"]}), "/detectors/0"),
        (json!({"detectors": [{"name": "any", "pattern": "a+"}]}), "/detectors/0/pattern"),
        (json!({"detectors": ["card"], "action": "mask"}), "/action"),
    ] {
        let route = json!({"service": "api", "filters": [{"plugin": "redact", "config": config}]});
        let reply = world.rest.put("/v1/routes/api", &route).await;
        assert_eq!(reply.status, 422, "{config}: {reply:?}");
        assert!(reply.text().contains(pointer), "{config}: {}", reply.text());
    }
}
