//! The end of a gateway: draining, its limit, and a second signal.

use tidegate_tests::{
    Gateway, Options, World,
    api::{Api, Speaks},
    until,
    wait::soon,
    world::POD,
};

#[tokio::test]
async fn a_signal_drains_open_exchanges_and_refuses_new_connections() {
    let mut world = World::start().await;
    let api = Api::start(Speaks::Http1).await;
    world.open_plain("plain", "plain.example.com", api.address).await;
    let mut idle = world.pod().await;
    assert_eq!(idle.get("http://plain.example.com/", "plain.example.com", "").await.status, 200);
    let mut open = world.pod().await;
    open.send("GET http://plain.example.com/gate HTTP/1.1\r\nHost: plain.example.com\r\n\r\n").await;
    until("the exchange to be under way", async || (api.waiting() == 1).then_some(())).await;

    world.gateway.terminate();
    let proxy = world.gateway.addresses.proxy;
    until("the listener to be closed", async || tokio::net::TcpStream::connect(proxy).await.is_err().then_some(())).await;
    idle.assert_closed().await;
    assert!(world.gateway.runs(), "an exchange is open: it waits");
    api.open_gate();
    let reply = open.reply().await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "open"), "the open exchange ends well");
    let status = world.gateway.ended().await;
    assert!(status.success(), "{status}: {}", world.gateway.output());

    // The record of the drained exchange was flushed before the end.
    let directory = world.gateway.directory().clone();
    let again = Gateway::start_in(directory, &Options::default()).await;
    let record = again.rest().record_to("/gate").await;
    assert_eq!(record["status"], 200, "{record}");
}

#[tokio::test]
async fn draining_has_a_limit() {
    let mut world = World::start_with(Options::default().flag("--drain-timeout", "300ms")).await;
    let api = Api::start(Speaks::Http1).await;
    world.open_plain("plain", "plain.example.com", api.address).await;
    let mut open = world.pod().await;
    open.send("GET http://plain.example.com/never HTTP/1.1\r\nHost: plain.example.com\r\n\r\n").await;
    until("the exchange to be under way", async || api.was_asked("/never").then_some(())).await;
    world.gateway.terminate();
    world.gateway.ended().await;
    soon("the caller to be cut off", open.rest()).await;
    let again = Gateway::start_in(world.gateway.directory().clone(), &Options::default()).await;
    let record = again.rest().record_to("/never").await;
    assert_eq!(record["reason"], "draining", "what was cut off has a record that says so: {record}");
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let mut world = World::start_with(Options::default().flag("--drain-timeout", "10m")).await;
    let api = Api::start(Speaks::Http1).await;
    world.open_plain("plain", "plain.example.com", api.address).await;
    let mut open = world.pod().await;
    open.send("GET http://plain.example.com/never HTTP/1.1\r\nHost: plain.example.com\r\n\r\n").await;
    until("the exchange to be under way", async || api.was_asked("/never").then_some(())).await;
    world.gateway.terminate();
    let proxy = world.gateway.addresses.proxy;
    until("the listener to be closed", async || tokio::net::TcpStream::connect(proxy).await.is_err().then_some(())).await;
    assert!(world.gateway.runs(), "it waits for the open exchange");
    world.gateway.terminate();
    world.gateway.ended().await;
}

#[tokio::test]
async fn http2_callers_are_told_to_go_away_and_lose_nothing() {
    let mut world = World::start().await;
    let api = Api::start(Speaks::Http1).await;
    world.open_plain("plain", "plain.example.com", api.address).await;
    let connection = tidegate_tests::h2::H2::connect_from(POD, world.gateway.addresses.proxy).await;
    let request = http::Request::get("http://plain.example.com/gate").body(tidegate_tests::h2::empty()).expect("a request");
    let open = tokio::spawn({
        let connection = connection.clone();
        async move { connection.send(request).await }
    });
    until("the exchange to be under way", async || (api.waiting() == 1).then_some(())).await;
    world.gateway.terminate();
    let proxy = world.gateway.addresses.proxy;
    until("the listener to be closed", async || tokio::net::TcpStream::connect(proxy).await.is_err().then_some(())).await;
    api.open_gate();
    let reply = soon("the open exchange", open).await.expect("it ends well");
    assert_eq!((reply.status, reply.text().as_str()), (200, "open"));
    assert!(world.gateway.ended().await.success());
}

#[tokio::test]
async fn everything_is_still_there_after_a_restart() {
    let mut world = World::start().await;
    let api = world.api("api.example.com").await;
    world.open("api", "api.example.com", api.address).await;
    world.gateway.terminate();
    assert!(world.gateway.ended().await.success());
    let flag = Options::default().flag("--resolver", world.names.address);
    let again = Gateway::start_in(world.gateway.directory().clone(), &flag).await;
    let mut raw = tidegate_tests::Raw::connect_from(POD, again.addresses.proxy).await;
    let reply = raw.get("http://api.example.com/again", "api.example.com", "").await;
    assert_eq!(reply.status, 200, "ready means that what is registered is in force: {reply:?}");
}
