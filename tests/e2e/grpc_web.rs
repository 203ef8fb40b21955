//! gRPC-Web callers and a gRPC service, with the grpc-web filter between them.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use prost::Message;
use serde_json::{Value, json};
use tidegate_tests::{
    World,
    counting::{Ask, Count, Counting, path},
    h2::{H2, full},
    plugins,
    raw::Reply,
    wait::soon,
    world::{POD, service, with},
};
use tonic::Code;
use tonic_prost::ProstCodec;

const ORIGIN: &str = "https://app.example";
const HOST: &str = "count.example.com";

fn route(config: Value) -> Value {
    json!({"service": "count", "filters": [{"plugin": "grpc-web", "config": config}]})
}

/// A gateway with the filter before a counting service.
async fn start() -> (World, Counting) {
    let world = World::start().await;
    let counting = Counting::start(world.authority.server(&[HOST]).server_config(&["h2"])).await;
    let grpc = with(service(HOST, counting.address), "/ports/0/protocol", json!("grpc"));
    world.rest.register("services", "count", &grpc).await;
    world.allow("count").await;
    let uploaded = world.rest.upload("grpc-web", plugins::module("grpc_web")).await;
    assert!(matches!(uploaded.status, 200 | 201), "{}", uploaded.text());
    world.rest.register("routes", "count", &route(json!({"origins": [ORIGIN]}))).await;
    world.in_force().await;
    (world, counting)
}

fn frame(flag: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("a small message").to_be_bytes();
    [&[flag][..], &length, message].concat()
}

fn ask(upto: u32, note: &str) -> Vec<u8> {
    frame(0, &Ask { upto, note: note.to_owned() }.encode_to_vec())
}

/// The messages of a body, and the lines of its last frame.
fn read(mut frames: &[u8]) -> (Vec<Count>, String) {
    let (mut counts, mut trailers) = (Vec::new(), String::new());
    while let [flag, a, b, c, d, rest @ ..] = frames {
        let (message, after) = rest.split_at(u32::from_be_bytes([*a, *b, *c, *d]) as usize);
        assert!(trailers.is_empty(), "nothing follows the trailers");
        match flag {
            0 => counts.push(Count::decode(message).expect("a message")),
            0x80 => trailers = String::from_utf8(message.to_vec()).expect("lines"),
            flag => panic!("an unknown flag {flag}"),
        }
        frames = after;
    }
    assert!(frames.is_empty(), "half a frame");
    (counts, trailers)
}

/// Base64 that was encoded in pieces, each with its padding.
fn decoded(text: &[u8]) -> Vec<u8> {
    text.chunks(4).flat_map(|group| STANDARD.decode(group).expect("base64")).collect()
}

fn is_text(kind: &str) -> bool {
    kind.contains("-text")
}

/// A call over HTTP/1.1, whose body comes in chunks of this size.
async fn call(world: &World, method: &str, kind: &str, body: &[u8], chunk: usize) -> Reply {
    let mut pod = world.pod().await;
    let head = format!(
        "POST http://{HOST}{} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: {kind}\r\nAccept: {kind}\r\nX-Grpc-Web: 1\r\nOrigin: {ORIGIN}\r\n\
         Transfer-Encoding: chunked\r\n\r\n",
        path(method)
    );
    pod.send(head).await;
    for piece in body.chunks(chunk) {
        pod.send([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat()).await;
    }
    pod.send("0\r\n\r\n").await.reply().await
}

#[tokio::test]
async fn calls_go_there_and_back_in_both_codings() {
    let (world, counting) = start().await;
    for kind in
        ["application/grpc-web-text", "application/grpc-web+proto", "application/grpc-web", "application/grpc-web-text+proto"]
    {
        let frames = ask(7, "é");
        // Two encodings joined, as clients do that flush.
        let text = [STANDARD.encode(&frames[..4]), STANDARD.encode(&frames[4..])].concat();
        let body = if is_text(kind) { text.as_bytes() } else { &frames };
        for chunk in [1, 3, 5, 1000] {
            let reply = call(&world, "Once", kind, body, chunk).await;
            assert_eq!((reply.status, reply.header("content-type")), (200, Some(kind)), "{kind} {chunk}: {reply:?}");
            let frames = if is_text(kind) { decoded(&reply.body) } else { reply.body.clone() };
            let (counts, trailers) = read(&frames);
            assert_eq!(counts, [Count { value: 7, note: "é".to_owned() }], "{kind} {chunk}");
            assert!(trailers.contains("grpc-status: 0\r\n"), "{trailers} {reply:?}");
            assert_eq!((reply.header("x-first"), reply.trailers.len()), (Some("said before"), 0), "{reply:?}");
            assert_eq!(reply.header("access-control-allow-origin"), Some(ORIGIN));
            assert!(reply.header("access-control-expose-headers").is_some_and(|names| names.contains("grpc-status")));
        }
    }
    for headers in counting.seen() {
        assert!(headers["content-type"].as_bytes().starts_with(b"application/grpc"), "{headers:?}");
        assert!(!headers["content-type"].as_bytes().starts_with(b"application/grpc-web"), "{headers:?}");
        assert_eq!((headers.get("te").map(|te| te.as_bytes()), headers.get("x-grpc-web")), (Some(&b"trailers"[..]), None));
    }
}

#[tokio::test]
async fn a_failed_call_tells_its_status() {
    let (world, _counting) = start().await;
    let reply = call(&world, "Fail", "application/grpc-web-text", STANDARD.encode(ask(1, "é")).as_bytes(), 1000).await;
    assert_eq!((reply.status, reply.header("grpc-status")), (200, Some("5")), "{reply:?}");
    assert_eq!(reply.header("content-type"), Some("application/grpc-web-text"));
    assert_eq!(reply.header("grpc-message"), Some("no%20%C3%A9:%20100%20%25%20sure"), "{reply:?}");
    assert!(reply.body.is_empty(), "an answer of trailers only has no body: {reply:?}");
    let reply = call(&world, "Nothing", "application/grpc-web", &ask(1, ""), 1000).await;
    assert_eq!((reply.status, reply.header("grpc-status")), (200, Some("12")), "{reply:?}");
}

#[tokio::test]
async fn messages_come_as_they_are_sent() {
    let (world, counting) = start().await;
    let h2 = H2::connect_from(POD, world.gateway.addresses.proxy).await;
    for kind in ["application/grpc-web+proto", "application/grpc-web-text"] {
        let frames = ask(3, "fail");
        let body = if is_text(kind) { STANDARD.encode(frames).into_bytes() } else { frames };
        let request = Request::post(format!("http://{HOST}{}", path("Up"))).header("content-type", kind);
        counting.let_on();
        let response = h2.open(request.body(full(body)).expect("a request")).await.expect("an answer");
        let mut response: Incoming = response.into_body();
        let mut got: Vec<u8> = Vec::new();
        for value in 1..=3 {
            // The next message is not sent before this one has come.
            while read_whole(kind, &got).len() < value {
                got.extend_from_slice(&soon("a message", data(&mut response)).await.expect("more of the answer"));
            }
            if value < 3 {
                counting.let_on();
            }
        }
        while let Some(data) = soon("the end", data(&mut response)).await {
            got.extend_from_slice(&data);
        }
        let frames = if is_text(kind) { decoded(&got) } else { got };
        let (counts, trailers) = read(&frames);
        assert_eq!(counts.iter().map(|count| count.value).collect::<Vec<_>>(), [1, 2, 3], "{kind}");
        assert!(
            trailers.contains("grpc-status: 10\r\n") && trailers.contains("grpc-message: that%20was%20enough\r\n"),
            "{trailers}"
        );
    }
}

async fn data(body: &mut Incoming) -> Option<Bytes> {
    loop {
        let frame = body.frame().await?.expect("a frame");
        if let Ok(data) = frame.into_data() {
            return Some(data);
        }
    }
}

/// The messages of which everything has come.
fn read_whole(kind: &str, got: &[u8]) -> Vec<u32> {
    let frames = if is_text(kind) { decoded(&got[..got.len() / 4 * 4]) } else { got.to_vec() };
    let (mut rest, mut values) = (&frames[..], Vec::new());
    while let [0, a, b, c, d, after @ ..] = rest {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        let Some(message) = after.get(..length) else { break };
        values.push(Count::decode(message).expect("a message").value);
        rest = &after[length..];
    }
    values
}

#[tokio::test]
async fn a_client_that_others_wrote_is_served() {
    let (world, counting) = start().await;
    let h2 = H2::connect_from(POD, world.gateway.addresses.proxy).await;
    let through_the_gate = tower::service_fn(move |request: Request<tonic_web::GrpcWebCall<tonic::body::Body>>| {
        let h2 = h2.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.expect("a client's own body").to_bytes();
            let mut sent = Request::new(full(body));
            (*sent.method_mut(), *sent.uri_mut(), *sent.headers_mut()) = (head.method, head.uri, head.headers);
            let response: hyper::Result<Response<Incoming>> = h2.open(sent).await;
            response
        }
    });
    let origin = format!("http://{HOST}").parse().expect("an origin");
    let mut client = tonic::client::Grpc::with_origin(tonic_web::GrpcWebClientService::new(through_the_gate), origin);
    let codec = ProstCodec::<Ask, Count>::new;
    let target = |method: &str| path(method).parse().expect("a path");

    let ask = Ask { upto: 9, note: "from a library".to_owned() };
    let answer = client.unary(tonic::Request::new(ask.clone()), target("Once"), codec()).await.expect("an answer");
    assert_eq!(answer.metadata().get("x-first").map(|value| value.as_bytes()), Some(&b"said before"[..]));
    assert_eq!(answer.into_inner(), Count { value: 9, note: ask.note.clone() });

    let status = client.unary(tonic::Request::new(ask), target("Fail"), codec()).await.expect_err("a failure");
    assert_eq!((status.code(), status.message()), (Code::NotFound, "no from a library: 100 % sure"));

    let ask = Ask { upto: 2, note: "fail".to_owned() };
    counting.let_on();
    counting.let_on();
    let answer = client.server_streaming(tonic::Request::new(ask), target("Up"), codec()).await.expect("a stream");
    let mut stream = answer.into_inner();
    assert_eq!(stream.message().await.expect("a message").map(|count| count.value), Some(1));
    assert_eq!(stream.message().await.expect("a message").map(|count| count.value), Some(2));
    assert_eq!(stream.message().await.expect_err("a failure").code(), Code::Aborted);
}

#[tokio::test]
async fn what_is_not_grpc_web_is_refused_and_reaches_nobody() {
    let (world, counting) = start().await;
    let rows = [
        ("application/grpc-web-text", b"AAAA-".to_vec(), "base64"),
        ("application/grpc-web", ask(1, "cut")[..7].to_vec(), "within%20a%20message"),
        ("application/grpc-web", frame(0x80, b"grpc-status: 0\r\n"), "trailers"),
        ("application/grpc-web+proto", b"{\"upto\": 1}".to_vec(), "frames"),
    ];
    for (kind, body, why) in rows {
        let reply = call(&world, "Once", kind, &body, 2).await;
        assert_eq!(
            (reply.status, reply.header("grpc-status"), reply.header("content-type")),
            (200, Some("3"), Some(kind)),
            "{reply:?}"
        );
        let message = reply.header("grpc-message").unwrap_or_default().replace(' ', "%20");
        assert!(message.contains(why), "{kind}: {message}");
        assert_eq!(reply.header("access-control-allow-origin"), Some(ORIGIN), "the page can read why: {reply:?}");
    }
    assert!(counting.seen().is_empty(), "{:?}", counting.seen());
}

#[tokio::test]
async fn pages_ask_first_and_are_answered() {
    let (world, counting) = start().await;
    let ask_first = async |origin: &str| {
        let mut pod = world.pod().await;
        let request = format!(
            "OPTIONS http://{HOST}{} HTTP/1.1\r\nHost: {HOST}\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: POST\r\n\
             Access-Control-Request-Headers: content-type,x-grpc-web\r\n\r\n",
            path("Once")
        );
        pod.send(request).await.reply().await
    };
    let reply = ask_first(ORIGIN).await;
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (204, Some(ORIGIN)), "{reply:?}");
    assert_eq!(reply.header("access-control-allow-methods"), Some("POST"), "{reply:?}");
    assert!(reply.header("access-control-allow-headers").is_some_and(|names| names.contains("x-grpc-web")), "{reply:?}");
    let reply = ask_first("https://evil.example").await;
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (403, None), "{reply:?}");
    assert!(counting.seen().is_empty(), "{:?}", counting.seen());
}

#[tokio::test]
async fn configuration_with_mistakes_is_refused_and_pointed_at() {
    let (world, _counting) = start().await;
    let rows = [
        (json!({}), "origins"),
        (json!({"origins": ["app.example"]}), "/origins/0"),
        (json!({"origins": ["*"], "credentials": true}), "/credentials"),
        (json!({"origins": [], "max_age": "soon"}), "/max_age"),
        (json!({"origins": [], "allow": []}), "/allow"),
    ];
    for (config, named) in rows {
        let reply = world.rest.put("/v1/routes/count", &route(config.clone())).await;
        assert_eq!(reply.status, 422, "{config}: {}", reply.text());
        assert!(reply.text().contains(named), "{config}: {}", reply.text());
    }
}
