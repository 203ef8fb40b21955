//! Exchanges whose filter waits for an answer of its own while something else happens to them.

use serde_json::{Value, json};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tidegate_tests::{World, api::Api, api::Speaks, plugins};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Notify,
};

/// Far less than the gateway waits for a body (`http_body_timeout`), which is how long a wait without an end takes.
const SOON: Duration = Duration::from_secs(60);

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port is free");
    let address = listener.local_addr().expect("a bound socket has an address");
    (listener, address)
}

async fn heard(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().await.expect("the gateway connects");
    let mut head = Vec::new();
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        assert!(stream.read_buf(&mut head).await.expect("the head comes") > 0, "it broke off in its head");
    }
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_comes_before_a_suspended_upload_has_ended_gets_through() {
    let world = World::start().await;
    let ((api, api_address), (calls, calls_address)) = (listen().await, listen().await);
    world.open_plain("api", "api.example.com", api_address).await;
    world.open_plain("calls", "calls.example.com", calls_address).await;
    assert!(matches!(world.rest.upload("courier", plugins::module("courier")).await.status, 200 | 201));
    let config = json!({"at": "request_body", "calls": [{"url": "http://calls.example.com/"}]});
    let route = json!({"service": "api", "filters": [{"plugin": "courier", "config": config}]});
    world.rest.register("routes", "api", &route).await;
    world.in_force().await;

    let refused = Arc::new(Notify::new());
    let told = Arc::clone(&refused);
    let api = tokio::spawn(async move {
        let mut stream = heard(&api).await;
        stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno").await.expect("the answer is written");
        told.notify_one();
        // What is left of the request may come or not.
        let _rest = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    });
    let calls = tokio::spawn(async move {
        let mut stream = heard(&calls).await;
        refused.notified().await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.expect("the call is answered");
        stream
    });
    let mut pod = world.pod().await;
    pod.send("POST http://api.example.com/early HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 3\r\n\r\nabc").await;
    let reply = tokio::time::timeout(SOON, pod.reply()).await.expect("nothing waits for what waits for it");
    assert_eq!((reply.status, reply.text().as_str()), (401, "no"), "{reply:?}");
    calls.await.expect("the call was answered");
    api.abort();
}

/// A gateway whose route to `api` has these timeouts, and a courier that calls `calls` at this phase.
async fn courier(at: &str, api: SocketAddr, calls: SocketAddr, timeouts: Value) -> World {
    let world = World::start().await;
    world.open_plain("api", "api.example.com", api).await;
    world.open_plain("calls", "calls.example.com", calls).await;
    assert!(matches!(world.rest.upload("courier", plugins::module("courier")).await.status, 200 | 201));
    let config = json!({"at": at, "calls": [{"url": "http://calls.example.com/"}]});
    let filters = json!([{"plugin": "courier", "config": config}]);
    world.rest.register("routes", "api", &json!({"service": "api", "filters": filters, "timeouts": timeouts})).await;
    world.in_force().await;
    world
}

const ASKS: &str = "POST http://api.example.com/left HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 3\r\n\r\nabc";

/// What the filter told when the exchange was closed.
async fn told_at_the_end(world: &World) -> String {
    let record = world.rest.record_to("api.example.com:80/left").await;
    assert_eq!(record["reason"], "downstream_closed", "{record}");
    let filter = &record["filters"][0];
    assert_eq!((&filter["outcome"], &filter["events"][0]["kind"]), (&json!("continued"), &json!("courier")), "{record}");
    filter["events"][0]["fields"]["answered"].as_str().unwrap_or_else(|| panic!("{record}")).to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_whose_caller_leaves_while_it_waits_hears_of_the_end() {
    let bodiless = ASKS.replace("POST", "GET").replace("Content-Length: 3\r\n\r\nabc", "\r\n");
    // Whether there is no body, or nothing was read of it yet, or all of it, or more is to come.
    let unfinished = ASKS.replace("Content-Length: 3", "Content-Length: 1000");
    let cases = [("request", bodiless.as_str()), ("request", ASKS), ("request", unfinished.as_str()), ("request_body", ASKS)];
    for (at, asks) in cases {
        let ((api, api_address), (calls, calls_address)) = (listen().await, listen().await);
        let world = courier(at, api_address, calls_address, json!({})).await;
        let mut pod = world.pod().await;
        pod.send(asks).await;
        // It is never answered: the wait ends with the caller's going.
        let _call = heard(&calls).await;
        drop(pod);
        let told = told_at_the_end(&world).await;
        assert!(told.contains("not HTTP, or broke off"), "{at}: its call is given up: {told}");
        drop(api);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_that_calls_at_the_end_is_waited_for_when_the_caller_has_left() {
    let ((api, api_address), (calls, calls_address)) = (listen().await, listen().await);
    let world = courier("log", api_address, calls_address, json!({})).await;
    let mut pod = world.pod().await;
    pod.send(ASKS).await;
    let _never_answered = heard(&api).await;
    drop(pod);
    let mut call = heard(&calls).await;
    call.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.expect("the call is answered");
    assert_eq!(told_at_the_end(&world).await, "200 2 bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_filters_take_counts_neither_as_the_apis_time_nor_after_the_end() {
    const SLOW: Duration = Duration::from_secs(1);
    let slow_us = u64::try_from(SLOW.as_micros()).expect("it is not long");
    let api = Api::start(Speaks::Http1).await;
    for (at, part) in [("response", "first_byte_us"), ("log", "total_us")] {
        let (calls, calls_address) = listen().await;
        let world = courier(at, api.address, calls_address, json!({})).await;
        let mut pod = world.pod().await;
        pod.send(ASKS.replace("/left", "/echo")).await;
        let mut call = heard(&calls).await;
        tokio::time::sleep(SLOW).await;
        call.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.expect("the call is answered");
        assert_eq!(pod.reply().await.status, 200, "{at}");
        let record = world.rest.record_to("api.example.com:80/echo").await;
        let durations = &record["durations"];
        let without = durations[part].as_u64().unwrap_or_else(|| panic!("{record}"));
        assert!(without < slow_us, "{at}: {part} is {without}: {record}");
        if at == "response" {
            assert!(durations["total_us"].as_u64().is_some_and(|total| total >= slow_us), "the caller waited for it: {record}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exchange_that_a_filter_keeps_waiting_is_not_held_against_the_api() {
    let api = Api::start(Speaks::Http1).await;
    let (calls, calls_address) = listen().await;
    for at in ["request", "request_body", "response", "response_body"] {
        let world = courier(at, api.address, calls_address, json!({"idle": "300ms", "first_byte": "300ms"})).await;
        let mut pod = world.pod().await;
        pod.send(ASKS.replace("/left", "/echo")).await;
        let _never_answered = heard(&calls).await;
        if at == "response_body" {
            assert_eq!(pod.head().await.status, 200);
        } else {
            let reply = pod.reply().await;
            assert_eq!((reply.status, reply.reason()), (504, "filter_failed"), "{at}: {reply:?}");
            assert!(reply.text().contains("courier"), "{at}: {}", reply.text());
        }
        let record = world.rest.record_to("api.example.com:80/echo").await;
        assert_eq!(record["reason"], "filter_failed", "{at}: {record}");
    }
}
