//! Many exchanges at once, and configuration changed under them.

use futures_util::future::join_all;
use serde_json::json;
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};
use tidegate_tests::{
    Raw, World,
    api::{Api, Speaks},
    h2::{H2, empty},
    wait::soon,
    world::{POD, service},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_exchanges_are_open_at_once() {
    let world = World::start().await;
    let api = Api::start(Speaks::Http1).await;
    world.open_plain("plain", "plain.example.com", api.address).await;
    let mut callers: Vec<Raw> = join_all((0..1000).map(|_| world.pod())).await;
    for caller in &mut callers {
        caller.send("GET http://plain.example.com/gate HTTP/1.1\r\nHost: plain.example.com\r\n\r\n").await;
    }
    tidegate_tests::until("all thousand to be at the API", async || (api.waiting() == 1000).then_some(())).await;
    assert_eq!(world.gateway.metric("tidegate_exchanges_open", "").await, 1000.0);
    api.open_gate();
    let replies = join_all(callers.iter_mut().map(Raw::reply)).await;
    assert!(replies.iter().all(|reply| reply.status == 200), "{:?}", replies.iter().find(|reply| reply.status != 200));
    tidegate_tests::until("a record of each", async || {
        (world.gateway.metric("tidegate_exchanges_total", "allowed_by_rule").await >= 1000.0).then_some(())
    })
    .await;
    assert_eq!(world.gateway.metric("tidegate_records_dropped_total", "").await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_exchanges_share_a_few_connections_of_http2() {
    let world = World::start().await;
    let api = world.api("api.example.com").await;
    world.open("api", "api.example.com", api.address).await;
    let connections = join_all((0..10).map(|_| H2::connect_from(POD, world.gateway.addresses.proxy))).await;
    let replies = join_all((0..1000).map(|at| {
        let connection = connections[at % connections.len()].clone();
        let request = http::Request::get(format!("http://api.example.com/{at}")).body(empty()).expect("a request");
        async move { connection.send(request).await }
    }))
    .await;
    assert!(replies.iter().all(|reply| reply.status == 200), "{:?}", replies.iter().find(|reply| reply.status != 200));
    assert!(api.connections() <= 50, "exchanges share connections: {}", api.connections());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configuration_changes_under_load_and_no_exchange_fails() {
    let world = Arc::new(World::start().await);
    let api = world.api("api.example.com").await;
    world.open("api", "api.example.com", api.address).await;
    let stop = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..8)
        .map(|caller| {
            let (world, stop, done) = (Arc::clone(&world), Arc::clone(&stop), Arc::clone(&done));
            tokio::spawn(async move {
                let mut raw = world.pod().await;
                while !stop.load(Ordering::Relaxed) {
                    let path = format!("http://api.example.com/{caller}");
                    let reply = raw.get(&path, "api.example.com", "").await;
                    assert_eq!(reply.status, 200, "{reply:?}");
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for round in 0..100_u32 {
        // Each round writes something that is in use, something that is not, and takes something away.
        let document = tidegate_tests::world::with(
            service("api.example.com", api.address),
            "/connections",
            json!({"max_idle": 1 + round % 64}),
        );
        world.rest.register("services", "api", &document).await;
        let name = format!("extra-{round}");
        world.rest.register("services", &name, &service(&format!("{name}.example.com"), api.address)).await;
        world.rest.register("rules", "allow-api", &json!({"action": "allow", "to": [{"services": ["api", name]}]})).await;
        if round > 0 {
            let gone = world.rest.delete(&format!("/v1/services/extra-{}", round - 1)).await;
            assert!(matches!(gone.status, 200 | 204), "{gone:?}");
        }
    }
    world.in_force().await;
    let after = done.load(Ordering::Relaxed);
    tidegate_tests::until("exchanges after the last change", async || {
        (done.load(Ordering::Relaxed) > after + 20).then_some(())
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        soon("a caller to end", caller).await.expect("no exchange failed");
    }
}

#[tokio::test]
async fn an_open_exchange_keeps_what_it_began_with() {
    let world = World::start().await;
    let api = Api::start(Speaks::Http1).await;
    world.open_plain("plain", "plain.example.com", api.address).await;
    let mut open = world.pod().await;
    open.send("GET http://plain.example.com/gate HTTP/1.1\r\nHost: plain.example.com\r\n\r\n").await;
    tidegate_tests::until("the exchange to be under way", async || (api.waiting() == 1).then_some(())).await;
    assert!(matches!(world.rest.delete("/v1/rules/allow-plain").await.status, 200 | 204));
    world.in_force().await;
    let refused = world.get("http://plain.example.com/").await;
    assert_eq!((refused.status, refused.reason()), (403, "no_rule_allows"));
    api.open_gate();
    assert_eq!(open.reply().await.text(), "open");
}
