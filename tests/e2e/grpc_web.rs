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
    h2::{H2, full},
    harbour::{Harbour, Ship, ShipRequest, WatchRequest},
    plugins,
    raw::Reply,
    wait::soon,
    world::{POD, plain_service, with},
};
use tonic::Code;
use tonic_prost::ProstCodec;

/// A ship that nobody finds.
const LOST: &str = "ships/flying-dutchman";
const ORIGIN: &str = "https://app.example";
const HOST: &str = "harbour.example.com";

fn route(config: Value) -> Value {
    json!({"service": "harbour", "filters": [{"plugin": "grpc-web", "config": config}]})
}

/// A gateway with the filter before the harbour.
async fn start() -> (World, Harbour) {
    let (world, harbour) = (World::start().await, Harbour::start().await);
    let service = with(plain_service(HOST, harbour.address), "/ports/0/protocol", json!("http2"));
    world.rest.register("services", "harbour", &service).await;
    world.allow("harbour").await;
    let uploaded = world.rest.upload("grpc-web", plugins::module("grpc_web")).await;
    assert!(matches!(uploaded.status, 200 | 201), "{}", uploaded.text());
    world.rest.register("routes", "harbour", &route(json!({"origins": [ORIGIN]}))).await;
    world.in_force().await;
    (world, harbour)
}

/// The path of a method, such as `GetShip`.
fn path(method: &str) -> String {
    format!("/tide.v1.Harbour/{method}")
}

fn frame(flag: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("a small message").to_be_bytes();
    [&[flag][..], &length, message].concat()
}

fn ask(name: &str) -> Vec<u8> {
    frame(0, &ShipRequest { name: name.to_owned() }.encode_to_vec())
}

/// The messages of a body, and the lines of its last frame.
fn read(mut frames: &[u8]) -> (Vec<Ship>, String) {
    let (mut ships, mut trailers) = (Vec::new(), String::new());
    while let [flag, a, b, c, d, rest @ ..] = frames {
        let (message, after) = rest.split_at(u32::from_be_bytes([*a, *b, *c, *d]) as usize);
        assert!(trailers.is_empty(), "nothing follows the trailers");
        match flag {
            0 => ships.push(Ship::decode(message).expect("a message")),
            0x80 => trailers = String::from_utf8(message.to_vec()).expect("lines"),
            flag => panic!("an unknown flag {flag}"),
        }
        frames = after;
    }
    assert!(frames.is_empty(), "half a frame");
    (ships, trailers)
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
    let (world, harbour) = start().await;
    for kind in
        ["application/grpc-web-text", "application/grpc-web+proto", "application/grpc-web", "application/grpc-web-text+proto"]
    {
        let frames = ask("ships/é");
        // Two encodings joined, as clients do that flush.
        let text = [STANDARD.encode(&frames[..4]), STANDARD.encode(&frames[4..])].concat();
        let body = if is_text(kind) { text.as_bytes() } else { &frames };
        for chunk in [1, 3, 5, 1000] {
            let reply = call(&world, "GetShip", kind, body, chunk).await;
            assert_eq!((reply.status, reply.header("content-type")), (200, Some(kind)), "{kind} {chunk}: {reply:?}");
            let frames = if is_text(kind) { decoded(&reply.body) } else { reply.body.clone() };
            let (ships, trailers) = read(&frames);
            assert_eq!(ships.iter().map(|ship| ship.name.as_str()).collect::<Vec<_>>(), ["ships/é"], "{kind} {chunk}");
            assert!(trailers.contains("grpc-status: 0\r\n"), "{trailers} {reply:?}");
            assert!(reply.trailers.is_empty(), "{reply:?}");
            assert_eq!(reply.header("access-control-allow-origin"), Some(ORIGIN));
            assert!(reply.header("access-control-expose-headers").is_some_and(|names| names.contains("grpc-status")));
        }
    }
    for (_, headers) in harbour.calls() {
        assert!(headers["content-type"].as_bytes().starts_with(b"application/grpc"), "{headers:?}");
        assert!(!headers["content-type"].as_bytes().starts_with(b"application/grpc-web"), "{headers:?}");
        assert_eq!((headers.get("te").map(|te| te.as_bytes()), headers.get("x-grpc-web")), (Some(&b"trailers"[..]), None));
    }
}

#[tokio::test]
async fn a_failed_call_tells_its_status() {
    let (world, _harbour) = start().await;
    let reply = call(&world, "GetShip", "application/grpc-web-text", STANDARD.encode(ask(LOST)).as_bytes(), 1000).await;
    assert_eq!((reply.status, reply.header("grpc-status")), (200, Some("5")), "{reply:?}");
    assert_eq!(reply.header("content-type"), Some("application/grpc-web-text"));
    assert_eq!(reply.header("grpc-message"), Some("nobody%20has%20seen%20it:%20100%20%25%20sure"), "{reply:?}");
    assert!(reply.body.is_empty(), "an answer of trailers only has no body: {reply:?}");
    let reply = call(&world, "Scuttle", "application/grpc-web", &ask("ships/a"), 1000).await;
    assert_eq!((reply.status, reply.header("grpc-status")), (200, Some("12")), "{reply:?}");
}

#[tokio::test]
async fn messages_come_as_they_are_sent() {
    let (world, harbour) = start().await;
    let h2 = H2::connect_from(POD, world.gateway.addresses.proxy).await;
    for kind in ["application/grpc-web+proto", "application/grpc-web-text"] {
        let frames = frame(0, &WatchRequest { name: "ports/storm".to_owned(), ships: 3 }.encode_to_vec());
        let body = if is_text(kind) { STANDARD.encode(frames).into_bytes() } else { frames };
        let request = Request::post(format!("http://{HOST}{}", path("Watch"))).header("content-type", kind);
        harbour.let_on();
        let response = h2.open(request.body(full(body)).expect("a request")).await.expect("an answer");
        let mut response: Incoming = response.into_body();
        let mut got: Vec<u8> = Vec::new();
        for number in 1..=3 {
            // The next message is not sent before this one has come.
            while whole(kind, &got) < number {
                got.extend_from_slice(&soon("a message", data(&mut response)).await.expect("more of the answer"));
            }
            if number < 3 {
                harbour.let_on();
            }
        }
        while let Some(data) = soon("the end", data(&mut response)).await {
            got.extend_from_slice(&data);
        }
        let frames = if is_text(kind) { decoded(&got) } else { got };
        let (ships, trailers) = read(&frames);
        assert_eq!(
            ships.iter().map(|ship| ship.name.as_str()).collect::<Vec<_>>(),
            ["ships/1", "ships/2", "ships/3"],
            "{kind}"
        );
        assert!(trailers.contains("grpc-status: 10\r\n"), "{trailers}");
        assert!(trailers.contains("grpc-message: the%20storm\r\n"), "{trailers}");
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

/// The number of messages of which everything has come.
fn whole(kind: &str, got: &[u8]) -> usize {
    let frames = if is_text(kind) { decoded(&got[..got.len() / 4 * 4]) } else { got.to_vec() };
    let (mut rest, mut count) = (&frames[..], 0);
    while let [0, a, b, c, d, after @ ..] = rest {
        let Some(behind) = after.get(u32::from_be_bytes([*a, *b, *c, *d]) as usize..) else { break };
        (rest, count) = (behind, count + 1);
    }
    count
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_made_whole() {
    let (world, _harbour) = start().await;
    let h2 = H2::connect_from(POD, world.gateway.addresses.proxy).await;
    for kind in ["application/grpc-web+proto", "application/grpc-web-text"] {
        let body = if is_text(kind) { STANDARD.encode(ask("ships/a")).into_bytes() } else { ask("ships/a") };
        let request = Request::post(format!("http://{HOST}{}", path("Cut"))).header("content-type", kind);
        // The stream is reset, before the answer's head or behind it: a client must not take the half message for a whole answer.
        if let Ok(response) = h2.open(request.body(full(body)).expect("a request")).await {
            let read = soon("the end", response.into_body().collect()).await;
            assert!(read.is_err(), "{kind}: {read:?}");
        }
    }
}

#[tokio::test]
async fn a_client_that_others_wrote_is_served() {
    let (world, harbour) = start().await;
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
    let target = |method: &str| path(method).parse().expect("a path");

    let codec = ProstCodec::<ShipRequest, Ship>::new;
    let named = |name: &str| tonic::Request::new(ShipRequest { name: name.to_owned() });
    let answer = client.unary(named("ships/a"), target("GetShip"), codec()).await.expect("an answer");
    assert_eq!(answer.into_inner().name, "ships/a");
    let status = client.unary(named(LOST), target("GetShip"), codec()).await.expect_err("a failure");
    assert_eq!((status.code(), status.message()), (Code::NotFound, "nobody has seen it: 100 % sure"));

    harbour.let_on();
    harbour.let_on();
    let ask = tonic::Request::new(WatchRequest { name: "ports/storm".to_owned(), ships: 2 });
    let codec = ProstCodec::<WatchRequest, Ship>::new();
    let answer = client.server_streaming(ask, target("Watch"), codec).await.expect("a stream");
    let mut stream = answer.into_inner();
    for name in ["ships/1", "ships/2"] {
        assert_eq!(stream.message().await.expect("a message").map(|ship| ship.name).as_deref(), Some(name));
    }
    assert_eq!(stream.message().await.expect_err("a failure").code(), Code::Aborted);
}

#[tokio::test]
async fn what_is_not_grpc_web_is_refused_and_reaches_nobody() {
    let (world, harbour) = start().await;
    let rows = [
        ("application/grpc-web-text", b"AAAA-".to_vec(), "base64"),
        ("application/grpc-web", ask("ships/a")[..7].to_vec(), "within%20a%20message"),
        ("application/grpc-web", frame(0x80, b"grpc-status: 0\r\n"), "trailers"),
        ("application/grpc-web+proto", b"{\"upto\": 1}".to_vec(), "frames"),
    ];
    for (kind, body, why) in rows {
        let reply = call(&world, "GetShip", kind, &body, 2).await;
        assert_eq!(
            (reply.status, reply.header("grpc-status"), reply.header("content-type")),
            (200, Some("3"), Some(kind)),
            "{reply:?}"
        );
        let message = reply.header("grpc-message").unwrap_or_default().replace(' ', "%20");
        assert!(message.contains(why), "{kind}: {message}");
        assert_eq!(reply.header("access-control-allow-origin"), Some(ORIGIN), "the page can read why: {reply:?}");
    }
    assert!(harbour.calls().is_empty(), "{:?}", harbour.calls());
}

#[tokio::test]
async fn pages_ask_first_and_are_answered() {
    let (world, harbour) = start().await;
    let ask_first = async |origin: &str| {
        let mut pod = world.pod().await;
        let request = format!(
            "OPTIONS http://{HOST}{} HTTP/1.1\r\nHost: {HOST}\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: POST\r\n\
             Access-Control-Request-Headers: content-type,x-grpc-web\r\n\r\n",
            path("GetShip")
        );
        pod.send(request).await.reply().await
    };
    let reply = ask_first(ORIGIN).await;
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (204, Some(ORIGIN)), "{reply:?}");
    assert_eq!(reply.header("access-control-allow-methods"), Some("POST"), "{reply:?}");
    assert!(reply.header("access-control-allow-headers").is_some_and(|names| names.contains("x-grpc-web")), "{reply:?}");
    let reply = ask_first("https://evil.example").await;
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (403, None), "{reply:?}");
    assert!(harbour.calls().is_empty(), "{:?}", harbour.calls());
}

#[tokio::test]
async fn configuration_with_mistakes_is_refused_and_pointed_at() {
    let (world, _harbour) = start().await;
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
