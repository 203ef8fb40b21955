//! Bodies: streamed both ways in constant memory, with trailers, with 100-continue, with back-pressure, cut off.

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tidegate_tests::{
    World,
    api::{Api, Speaks},
    h2::{H2, boxed, empty},
    until,
    world::{POD, service},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const GIB: u64 = 1 << 30;
/// What a gateway may grow by while a GiB passes: its buffers, and nothing that grows with the body.
const GROWTH_BYTES: u64 = 32 << 20;
static PIECE: [u8; 256 * 1024] = [0x5a; 256 * 1024];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gib_goes_up_over_http1_in_constant_memory() {
    let world = World::start().await;
    let api = Api::start(Speaks::Http1).await;
    world.open_plain("plain", "plain.example.com", api.address).await;
    assert_eq!(world.get("http://plain.example.com/warm").await.status, 200);
    let before = world.gateway.peak_memory_bytes();
    let mut wire = world.pod().await.into_wire();
    let head =
        format!("POST http://plain.example.com/sink HTTP/1.1\r\nHost: plain.example.com\r\nContent-Length: {GIB}\r\n\r\n");
    wire.write_all(head.as_bytes()).await.expect("the gateway reads");
    for _ in 0..GIB / PIECE.len() as u64 {
        wire.write_all(&PIECE).await.expect("the gateway goes on reading");
    }
    let mut raw = tidegate_tests::Raw::over(wire);
    let reply = raw.reply().await;
    assert_eq!(reply.json()["bytes"], GIB, "{reply:?}");
    grew_little(&world, before);
    let record = world.rest.record_to("plain.example.com:80/sink").await;
    assert_eq!(record["request_bytes"], GIB, "{record}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gib_comes_down_over_http1_in_constant_memory() {
    let world = World::start().await;
    let api = Api::start(Speaks::Http1).await;
    world.open_plain("plain", "plain.example.com", api.address).await;
    assert_eq!(world.get("http://plain.example.com/warm").await.status, 200);
    let before = world.gateway.peak_memory_bytes();
    let mut raw = world.pod().await;
    raw.send(format!("GET http://plain.example.com/zeroes/{GIB} HTTP/1.1\r\nHost: plain.example.com\r\n\r\n")).await;
    let head = raw.head().await;
    assert_eq!((head.status, head.header("content-length")), (200, Some(GIB.to_string().as_str())), "{head:?}");
    let mut left = GIB - raw.take_pending().len() as u64;
    let mut wire = raw.into_wire();
    let mut piece = vec![0; PIECE.len()];
    while left > 0 {
        let count = wire.read(&mut piece).await.expect("the body goes on");
        assert!(count > 0, "the body ended {left} bytes short");
        left = left.checked_sub(count as u64).expect("no byte more than was said");
    }
    grew_little(&world, before);
    let record = world.rest.record_to("plain.example.com:80/zeroes").await;
    assert_eq!(record["response_bytes"], GIB, "{record}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gib_goes_both_ways_over_http2_and_tls_in_constant_memory() {
    let world = World::start().await;
    let api = world.api("api.example.com").await;
    world.open("api", "api.example.com", api.address).await;
    assert_eq!(world.get("http://api.example.com/warm").await.status, 200);
    let before = world.gateway.peak_memory_bytes();
    let connection = H2::connect_from(POD, world.gateway.addresses.proxy).await;
    let pieces = GIB / PIECE.len() as u64;
    let body = stream::iter((0..pieces).map(|_| Ok(Frame::data(Bytes::from_static(&PIECE)))));
    let request = http::Request::post("http://api.example.com/echo").body(boxed(StreamBody::new(body))).expect("a request");
    let mut response = connection.open(request).await.expect("an answer while the request is under way");
    let mut count = 0_u64;
    while let Some(frame) = response.body_mut().frame().await {
        let frame = frame.expect("the body goes on");
        count += frame.data_ref().map_or(0, |data| data.len() as u64);
    }
    assert_eq!(count, GIB, "what went up came down");
    grew_little(&world, before);
}

fn grew_little(world: &World, before: u64) {
    let after = world.gateway.peak_memory_bytes();
    let grown = after.saturating_sub(before);
    assert!(grown < GROWTH_BYTES, "the gateway grew by {} MiB", grown >> 20);
}

#[tokio::test]
async fn a_caller_that_does_not_read_stops_the_api_from_sending() {
    let world = World::start().await;
    let api = Api::start(Speaks::Http1).await;
    world.open_plain("plain", "plain.example.com", api.address).await;
    let before = world.gateway.peak_memory_bytes();
    let mut raw = world.pod().await;
    raw.send(format!("GET http://plain.example.com/zeroes/{GIB} HTTP/1.1\r\nHost: plain.example.com\r\n\r\n")).await;
    assert_eq!(raw.head().await.status, 200);
    // Nobody reads on: what the gateway took in must settle far below the body's size.
    let mut last = 0;
    let mut steady = 0;
    until("the gateway to stop taking in", async || {
        let taken = world.gateway.peak_memory_bytes();
        steady = if taken == last { steady + 1 } else { 0 };
        last = taken;
        (steady > 20).then_some(())
    })
    .await;
    assert!(last - before < GROWTH_BYTES, "it took in {} MiB", (last - before) >> 20);
    drop(raw);
    let record = world.rest.record_to("plain.example.com:80/zeroes").await;
    assert_eq!(record["reason"], "downstream_closed", "the caller went away: {record}");
    assert!(record["response_bytes"].as_u64() < Some(GIB), "{record}");
}

#[tokio::test]
async fn trailers_pass_in_both_directions_and_across_versions() {
    let world = World::start().await;
    let secure = world.api("api.example.com").await;
    let plain = Api::start(Speaks::Http1).await;
    world.open("api", "api.example.com", secure.address).await;
    world.open_plain("plain", "plain.example.com", plain.address).await;
    for host in ["api.example.com", "plain.example.com"] {
        let reply = world.pod().await.get(&format!("http://{host}/trailers"), host, "TE: trailers\r\n").await;
        assert_eq!(reply.text(), "one two", "{host}: {reply:?}");
        assert_eq!(reply.trailers, [("x-checksum".to_owned(), "abc123".to_owned())], "{host}, HTTP/1.1: {reply:?}");
        let connection = H2::connect_from(POD, world.gateway.addresses.proxy).await;
        let request = http::Request::get(format!("http://{host}/trailers")).header("te", "trailers");
        let reply = connection.send(request.body(empty()).expect("a request")).await;
        assert_eq!(reply.trailers, [("x-checksum".to_owned(), "abc123".to_owned())], "{host}, HTTP/2: {reply:?}");

        let mut raw = world.pod().await;
        raw.send(format!(
            "POST http://{host}/echo HTTP/1.1\r\nHost: {host}\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n"
        ))
        .await;
        let reply = raw.reply().await;
        assert_eq!(reply.text(), "hello", "{host}: {reply:?}");
        assert_eq!(reply.trailers, [("x-sum".to_owned(), "7".to_owned())], "{host}, sent up and echoed: {reply:?}");
    }
}

#[tokio::test]
async fn a_body_is_asked_for_before_it_is_sent_where_the_caller_waits() {
    let world = World::start().await;
    let api = Api::start(Speaks::Http1).await;
    world.open_plain("plain", "plain.example.com", api.address).await;
    let mut raw = world.pod().await;
    let expecting = |host: &str| {
        format!("POST http://{host}/sink HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
    };
    raw.send(expecting("plain.example.com")).await;
    let interim = raw.reply_or_interim(true).await;
    assert_eq!(interim.status, 100, "{interim:?}");
    raw.send("hello").await;
    let reply = raw.reply().await;
    assert_eq!((reply.status, &reply.json()["bytes"]), (200, &5.into()), "{reply:?}");

    // Refused before the body: there is nothing to go on with.
    let mut raw = world.pod().await;
    raw.send(expecting("unknown.example.com")).await;
    let refusal = raw.reply_or_interim(false).await;
    assert_eq!((refusal.status, refusal.reason()), (403, "unregistered_host"));
}

#[tokio::test]
async fn a_body_that_breaks_off_is_not_made_whole() {
    let world = World::start().await;
    let cut = tidegate_tests::peers::says("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").await;
    let chunks = tidegate_tests::peers::says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n").await;
    world.open_plain("cut", "cut.example.com", cut.address).await;
    world.open_plain("chunks", "chunks.example.com", chunks.address).await;
    for host in ["cut.example.com", "chunks.example.com"] {
        let mut raw = world.pod().await;
        raw.send(format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(raw.head().await.status, 200);
        let rest = tidegate_tests::wait::soon("the connection to end", raw.rest()).await;
        assert!(!rest.ends_with(b"0\r\n\r\n"), "{host}: the end must not be forged: {:?}", String::from_utf8_lossy(&rest));
        let record = world.rest.record_to(host).await;
        assert_eq!(record["reason"], "upstream_protocol", "{record}");
    }
}

#[tokio::test]
async fn an_api_that_stalls_within_a_body_is_cut_off() {
    let world = World::start().await;
    let api = world.api("api.example.com").await;
    world.rest.register("services", "api", &service("api.example.com", api.address)).await;
    world.rest.register("routes", "api", &serde_json::json!({"service": "api", "timeouts": {"idle": "200ms"}})).await;
    world.allow("api").await;
    let mut raw = world.pod().await;
    raw.send("GET http://api.example.com/stalls HTTP/1.1\r\nHost: api.example.com\r\n\r\n").await;
    assert_eq!(raw.head().await.status, 200);
    let rest = tidegate_tests::wait::soon("the connection to end", raw.rest()).await;
    assert!(
        rest.windows(5).any(|window| window == b"first") && !rest.ends_with(b"0\r\n\r\n"),
        "{:?}",
        String::from_utf8_lossy(&rest)
    );
    let record = world.rest.record_to("/stalls").await;
    assert_eq!(record["reason"], "timeout", "{record}");
}
