//! What is held of bodies for filters, all exchanges together: bounded, given back, and refused honestly.

use serde_json::{Value, json};
use tidegate_tests::{Options, Raw, World, api::Api, api::Speaks, peers, plugins, until, wait::soon};

/// What may be held, of which one body takes more than half.
const MOST: usize = 100_000;
const BODY: usize = 60_000;
/// What is sent of a body before its caller stops.
const SENT: usize = BODY - 1;

/// A Proxy-Wasm filter that holds each body until its end, and of a tunnel everything.
fn holder() -> Vec<u8> {
    let text = r#"(module
        (memory (export "memory") 1)
        (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 0))
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) (i32.eqz (local.get 2)))
        (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32) (i32.eqz (local.get 2)))
        (func (export "proxy_on_downstream_data") (param i32 i32 i32) (result i32) (i32.const 1)))"#;
    wat::parse_str(text).expect("a module")
}

async fn world() -> World {
    let world = World::start_with(Options::default().flag("--filter-held-bytes", MOST)).await;
    for (name, module) in [("witness", plugins::module("witness")), ("holder", holder())] {
        let uploaded = world.rest.upload(name, module).await;
        assert!(matches!(uploaded.status, 200 | 201), "{uploaded:?}\n{}", uploaded.text());
    }
    world
}

/// A gateway whose route to an API has this filter.
async fn held_by(filter: &Value) -> (World, Api) {
    let world = world().await;
    let api = Api::start(Speaks::Http1).await;
    world.open_plain("api", "api.example.com", api.address).await;
    world.rest.register("routes", "api", &json!({"service": "api", "filters": [filter]})).await;
    world.in_force().await;
    (world, api)
}

/// The ways to have a body held.
fn filters() -> [Value; 3] {
    [
        json!({"plugin": "witness", "config": {"request": [{"flow": "buffer"}], "response": [{"flow": "buffer"}]}}),
        json!({"plugin": "witness", "config": {
            "request": [{"flow": "stream"}], "request_body": [{"flow": "hold"}],
            "response": [{"flow": "stream"}], "response_body": [{"flow": "hold"}],
        }}),
        json!({"plugin": "holder"}),
    ]
}

/// A caller that sends all but the last byte of a body and stops.
async fn stops_before_the_end(world: &World) -> Raw {
    let mut raw = world.pod().await;
    let head = format!("POST http://api.example.com/sink HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: {BODY}\r\n\r\n");
    raw.send(head).await.send(vec![b'x'; SENT]).await;
    raw
}

async fn until_held(world: &World, bytes: usize) {
    let what = format!("{bytes} bytes to be held");
    until(&what, async || (world.gateway.metric("tidegate_filter_held_bytes", "").await == bytes as f64).then_some(())).await;
}

async fn refused(world: &World) -> f64 {
    world.gateway.metric("tidegate_filter_refused_total", "kind=\"held\"").await
}

#[tokio::test]
async fn callers_together_cannot_have_more_held_than_may_be() {
    for filter in filters() {
        let (world, _api) = held_by(&filter).await;
        let mut first = stops_before_the_end(&world).await;
        until_held(&world, SENT).await;
        let mut second = stops_before_the_end(&world).await;
        let reply = second.reply().await;
        assert_eq!((reply.status, reply.reason()), (503, "overloaded"), "{filter}: {reply:?}");
        assert!(reply.text().contains("filter_held_bytes"), "the setting is named: {reply:?}");
        until_held(&world, SENT).await;
        assert_eq!(refused(&world).await, 1.0, "{filter}");
        first.send("x").await;
        let reply = first.reply().await;
        assert_eq!((reply.status, &reply.json()["bytes"]), (200, &json!(BODY)), "{filter}: the first is whole: {reply:?}");
        until_held(&world, 0).await;
        // A caller that leaves gives back what it had held.
        let third = stops_before_the_end(&world).await;
        until_held(&world, SENT).await;
        drop(third);
        until_held(&world, 0).await;
    }
}

#[tokio::test]
async fn an_answer_is_held_within_the_same_bound() {
    for filter in filters() {
        let (world, _api) = held_by(&filter).await;
        let first = stops_before_the_end(&world).await;
        until_held(&world, SENT).await;
        let mut second = world.pod().await;
        second.send(format!("GET http://api.example.com/zeroes/{BODY} HTTP/1.1\r\nHost: api.example.com\r\n\r\n")).await;
        let buffered = filter["config"]["response"][0]["flow"] == "buffer";
        let head = second.head().await;
        assert_eq!(head.status, if buffered { 503 } else { 200 }, "{filter}: {head:?}");
        if !buffered {
            let rest = soon("the connection to end", second.rest()).await;
            assert!(rest.len() < BODY, "{filter}: what cannot be held is not made whole");
        }
        let record = world.rest.record_to("/zeroes").await;
        assert_eq!(record["reason"], "overloaded", "{filter}: {record}");
        drop(first);
        until_held(&world, 0).await;
        let reply = world.get(&format!("http://api.example.com/zeroes/{BODY}")).await;
        assert_eq!((reply.status, reply.body.len()), (200, BODY), "{filter}: there is room again");
        until_held(&world, 0).await;
    }
}

#[tokio::test]
async fn a_tunnel_that_has_more_held_than_may_be_ends() {
    let world = world().await;
    let peer = peers::says_back().await;
    let service = json!({
        "hosts": ["tunnel.example.com"], "ports": [{"number": 9000, "protocol": "tcp"}], "resolution": "static",
        "endpoints": [{"address": "127.0.0.1", "port": peer.address.port()}], "networks": ["127.0.0.0/8"],
    });
    world.rest.register("services", "tunnel", &service).await;
    let route = json!({"service": "tunnel", "filters": [{"plugin": "holder", "traffic": "tunnels"}]});
    world.rest.register("routes", "tunnel", &route).await;
    world.allow("tunnel").await;
    let mut raw = world.pod().await;
    raw.send("CONNECT tunnel.example.com:9000 HTTP/1.1\r\nHost: tunnel.example.com:9000\r\n\r\n").await;
    assert_eq!(raw.head().await.status, 200);
    raw.send(vec![b'x'; BODY]).await;
    until_held(&world, BODY).await;
    raw.send(vec![b'x'; BODY]).await;
    assert_eq!(soon("the end of the tunnel", raw.rest()).await, b"", "nothing went through");
    let record = world.rest.record_to("tunnel.example.com").await;
    assert_eq!(record["reason"], "overloaded", "{record}");
    assert_eq!(refused(&world).await, 1.0);
    until_held(&world, 0).await;
}

#[tokio::test]
async fn what_a_filter_s_own_call_brings_is_held_within_the_same_bound() {
    let (world, api) = held_by(&filters()[0]).await;
    let uploaded = world.rest.upload("courier", plugins::module("courier")).await;
    assert!(matches!(uploaded.status, 200 | 201), "{uploaded:?}\n{}", uploaded.text());
    world.open_plain("asks", "asks.example.com", api.address).await;
    world.open_plain("calls", "calls.example.com", api.address).await;
    let call = json!({"url": format!("http://calls.example.com/zeroes/{BODY}"), "times": 1});
    let send = json!({"method": "POST", "url": "http://calls.example.com/sink", "body_bytes": BODY});
    let courier = json!({"plugin": "courier", "config": {"at": "request", "calls": [call, send]}});
    world.rest.register("routes", "asks", &json!({"service": "asks", "filters": [courier]})).await;
    world.in_force().await;
    let answered = async |path: &str| {
        assert_eq!(world.get(&format!("http://asks.example.com{path}")).await.status, 200);
        let record = world.rest.record_to(&format!("asks.example.com:80{path}")).await;
        let told = &record["filters"][0]["events"][0]["fields"]["answered"];
        told.as_str().unwrap_or_else(|| panic!("{record}")).to_owned()
    };
    let first = stops_before_the_end(&world).await;
    until_held(&world, SENT).await;
    let told = answered("/beside").await;
    assert_eq!(told.lines().filter(|line| line.contains("filter_held_bytes")).count(), 2, "{told}");
    assert_eq!(refused(&world).await, 2.0);
    drop(first);
    until_held(&world, 0).await;
    let told = answered("/alone").await;
    assert_eq!(told.lines().next(), Some(format!("200 {BODY} bytes").as_str()), "{told}");
    assert!(told.lines().nth(1).is_some_and(|line| line.starts_with("200 ")), "{told}");
    until_held(&world, 0).await;
}
