//! Reuse, limits and failover of connections, over real sockets.

use super::{
    dns,
    fixture::{self, local, request},
};
use crate::live::Live;
use serde_json::{Value, json};
use std::net::SocketAddr;
use tidegate_policy::{Reason, target::Form};

fn service(address: SocketAddr, connections: &Value) -> Value {
    json!({"hosts": ["api.example"], "ports": [{"number": 80, "protocol": "http"}], "resolution": "static",
        "endpoints": [{"address": address.ip(), "port": address.port()}], "networks": ["127.0.0.0/8"], "connections": connections})
}

#[tokio::test]
async fn a_connection_is_used_again_and_survives_a_publication() {
    local(async {
        let (_listener, address) = fixture::listen().await;
        let upstreams = fixture::upstreams(fixture::closed_port(), |_| {});
        let (live, permit) = fixture::plain(&service(address, &json!({})), "api.example");
        let first = upstreams.connect(&live, &permit, &request(), None).await.expect("a connection");
        assert!(!first.facts.reused && first.facts.connect.is_some());
        first.release();
        let metrics = &upstreams.shared.metrics;
        assert_eq!((metrics.connections_open.value(), metrics.connections_idle.value()), (1, 1));

        let live = fixture::live(&service(address, &json!({})), &Default::default(), &live);
        let second = upstreams.connect(&live, &permit, &request(), None).await.expect("a connection");
        assert!(second.facts.reused && second.facts.connect.is_none());
        assert_eq!((metrics.reused.value(), metrics.connections_idle.value()), (1, 0));
        drop(second);
        assert_eq!(metrics.connections_open.value(), 0);
    })
    .await;
}

#[tokio::test]
async fn an_address_that_is_no_longer_permitted_is_not_used_again() {
    local(async {
        let (_listener, address) = fixture::listen().await;
        let upstreams = fixture::upstreams(fixture::closed_port(), |_| {});
        let (live, permit) = fixture::plain(&service(address, &json!({})), "api.example");
        upstreams.connect(&live, &permit, &request(), None).await.expect("a connection").release();
        let mut closed = service(address, &json!({}));
        closed["networks"] = json!([]);
        let live = fixture::live(&closed, &Default::default(), &live);
        let permit = fixture::decide(&live, Form::Plain, "api.example", 80);
        let fault = upstreams.connect(&live, &permit, &request(), None).await.err().expect("refused");
        assert_eq!(fault.reason(), Reason::AddressRefused);
    })
    .await;
}

#[tokio::test]
async fn a_connection_closed_by_its_peer_is_not_used_again() {
    local(async {
        let (listener, address) = fixture::listen().await;
        let upstreams = fixture::upstreams(fixture::closed_port(), |_| {});
        let (live, permit) = fixture::plain(&service(address, &json!({})), "api.example");
        upstreams.connect(&live, &permit, &request(), None).await.expect("a connection").release();
        drop(listener.accept().await.expect("the other end"));
        while upstreams.shared.metrics.connections_idle.value() > 0 {
            upstreams.pools.sweep();
            tokio::task::yield_now().await;
        }
        let again = upstreams.connect(&live, &permit, &request(), None).await.expect("a connection");
        assert!(!again.facts.reused);
    })
    .await;
}

#[tokio::test]
async fn limits_on_idle_and_on_open_connections_hold() {
    local(async {
        let (_listener, address) = fixture::listen().await;
        let upstreams = fixture::upstreams(fixture::closed_port(), |_| {});
        let metrics = &upstreams.shared.metrics;
        let (live, permit) = fixture::plain(&service(address, &json!({"max": 3, "max_idle": 1})), "api.example");
        let mut open = Vec::new();
        for _ in 0..3 {
            open.push(upstreams.connect(&live, &permit, &request(), None).await.expect("a connection"));
        }
        let fault = upstreams.connect(&live, &permit, &request(), None).await.err().expect("one too many");
        assert_eq!((fault.reason(), metrics.overloaded.value()), (Reason::Overloaded, 1));
        assert!(fault.detail().contains("connections.max"), "{fault}");
        // Another worker was refused: the first to come back goes; then one idle connection is kept.
        open.into_iter().for_each(crate::upstream::Connection::release);
        assert_eq!((metrics.connections_open.value(), metrics.connections_idle.value()), (1, 1));
        assert!(upstreams.connect(&live, &permit, &request(), None).await.expect("a connection").facts.reused);
    })
    .await;
}

#[tokio::test]
async fn idle_connections_expire() {
    local(async {
        let (_listener, address) = fixture::listen().await;
        let upstreams = fixture::upstreams(fixture::closed_port(), |_| {});
        let (live, permit) = fixture::plain(&service(address, &json!({"idle_timeout": "1ms"})), "api.example");
        upstreams.connect(&live, &permit, &request(), None).await.expect("a connection").release();
        while upstreams.shared.metrics.connections_open.value() > 0 {
            upstreams.pools.sweep();
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn the_next_endpoint_takes_over_and_the_last_word_is_no_healthy_endpoint() {
    local(async {
        let (listener, good) = fixture::listen().await;
        let (bad, worse) = (fixture::closed_port(), fixture::closed_port());
        let endpoint =
            |address: SocketAddr, priority: u32| json!({"address": address.ip(), "port": address.port(), "priority": priority});
        let mut document = service(good, &json!({}));
        document["endpoints"] = json!([endpoint(bad, 0), endpoint(good, 1)]);
        let upstreams = fixture::upstreams(fixture::closed_port(), |settings| settings.aside_after = 1);
        let (live, permit) = fixture::plain(&document, "api.example");
        assert_eq!(upstreams.connect(&live, &permit, &request(), None).await.expect("the second").facts.address, good);
        let attempts = upstreams.shared.metrics.connect_attempts.value();
        upstreams.connect(&live, &permit, &request(), None).await.expect("the second");
        assert_eq!(upstreams.shared.metrics.connect_attempts.value(), attempts + 1, "what failed is put aside");

        drop(listener);
        document["endpoints"] = json!([endpoint(bad, 0), endpoint(worse, 1)]);
        let (live, permit) = fixture::plain(&document, "api.example");
        let fault = upstreams.connect(&live, &permit, &request(), None).await.err().expect("nothing listens");
        let reached = fault.reached().expect("how far it got");
        assert_eq!((fault.reason(), reached.address), (Reason::ConnectFailed, Some(bad)), "put aside, so tried last");
        assert!(reached.connect.is_some() && reached.handshake.is_none());
        let last = upstreams.connect(&live, &permit, &request(), None).await.err().expect("nothing listens").reason();
        assert_eq!(last, Reason::NoHealthyEndpoint);
    })
    .await;
}

#[tokio::test]
async fn of_one_priority_the_nearest_endpoint_goes_first() {
    local(async {
        let (_far_listener, far) = fixture::listen().await;
        let (near_listener, near) = fixture::listen().await;
        let endpoint = |address: SocketAddr, locality: &str| {
            json!({"address": address.ip(), "port": address.port(), "locality": locality})
        };
        let mut document = service(near, &json!({}));
        document["endpoints"] = json!([endpoint(far, "eu/east"), endpoint(near, "eu/west/a")]);
        let upstreams = fixture::upstreams(fixture::closed_port(), |settings| {
            settings.locality = Some("eu/west/b".to_owned());
        });
        let (live, permit) = fixture::plain(&document, "api.example");
        for _ in 0..16 {
            assert_eq!(upstreams.connect(&live, &permit, &request(), None).await.expect("the near one").facts.address, near);
        }
        drop(near_listener);
        assert_eq!(upstreams.connect(&live, &permit, &request(), None).await.expect("the far one").facts.address, far);
    })
    .await;
}

#[tokio::test]
async fn http2_connections_are_shared() {
    local(async {
        let (listener, address) = fixture::listen().await;
        let server = dns::serve(&["127.0.0.1"]).await;
        let upstreams = fixture::upstreams(server.address, |settings| settings.streams_per_connection = 2);
        let document = json!({"hosts": ["api.example"], "ports": [{"number": address.port(), "protocol": "http2"}], "networks": ["127.0.0.0/8"]});
        let live = fixture::live(&document, &Default::default(), &Live::default());
        let permit = fixture::decide(&live, Form::Plain, "api.example", address.port());
        let (ask, again) = (request(), request());
        let (first, second) =
            tokio::join!(upstreams.connect(&live, &permit, &ask, None), upstreams.connect(&live, &permit, &again, None));
        let (first, second) = (first.expect("a stream"), second.expect("a stream"));
        assert_eq!(first.facts.protocol, "HTTP/2");
        assert!(first.facts.reused != second.facts.reused, "one dials, the other shares");
        assert_eq!(upstreams.shared.metrics.connect_attempts.value(), 1, "the second waited for the first's connection");
        let third = upstreams.connect(&live, &permit, &request(), None).await.expect("a stream");
        assert!(!third.facts.reused, "the first connection is full");
        drop(first);
        assert!(upstreams.connect(&live, &permit, &request(), None).await.expect("a stream").facts.reused);

        // Both peers go: the next exchange needs a new connection.
        for _ in 0..2 {
            drop(listener.accept().await.expect("the other end"));
        }
        drop((second, third));
        while upstreams.shared.metrics.connections_open.value() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(!upstreams.connect(&live, &permit, &request(), None).await.expect("a stream").facts.reused);
    })
    .await;
}

#[tokio::test]
async fn opaque_ports_are_reached_by_tunnels_alone() {
    local(async {
        let upstreams = fixture::upstreams(fixture::closed_port(), |_| {});
        let document = json!({"hosts": ["api.example"], "ports": [{"number": 5432, "protocol": "tcp"}]});
        let live = fixture::live(&document, &Default::default(), &Live::default());
        let permit = fixture::decide(&live, Form::Tunnel, "api.example", 5432);
        let fault = upstreams.connect(&live, &permit, &request(), None).await.err().expect("opaque");
        assert_eq!(fault.reason(), Reason::MalformedTarget);
    })
    .await;
}

#[tokio::test]
async fn those_who_wait_for_an_attempt_share_its_failure() {
    local(async {
        let address = fixture::closed_port();
        let upstreams = fixture::upstreams(fixture::closed_port(), |_| {});
        let mut document = service(address, &json!({}));
        document["ports"] = json!([{"number": 80, "protocol": "http2"}]);
        let (live, permit) = fixture::plain(&document, "api.example");
        let ask = request();
        let all = (0..50).map(|_| upstreams.connect(&live, &permit, &ask, None));
        for outcome in futures_util::future::join_all(all).await {
            assert_eq!(outcome.err().expect("nothing listens").reason(), Reason::ConnectFailed);
        }
        assert_eq!(upstreams.shared.metrics.connect_attempts.value(), 1);
    })
    .await;
}

#[tokio::test]
async fn an_idle_http2_connection_makes_place_for_another() {
    local(async {
        let (_listener, address) = fixture::listen().await;
        let upstreams = fixture::upstreams(fixture::closed_port(), |_| {});
        let mut document = service(address, &json!({"max": 1}));
        document["hosts"] = json!(["a.example", "b.example"]);
        document["ports"] = json!([{"number": 80, "protocol": "http2"}]);
        let (live, first) = fixture::plain(&document, "a.example");
        let second = fixture::decide(&live, Form::Plain, "b.example", 80);
        let busy = upstreams.connect(&live, &first, &request(), None).await.expect("a stream");
        let fault = upstreams.connect(&live, &second, &request(), None).await.err().expect("the only one is busy");
        assert_eq!(fault.reason(), Reason::Overloaded);
        drop(busy);
        upstreams.connect(&live, &second, &request(), None).await.expect("the idle one goes");
    })
    .await;
}

#[tokio::test]
async fn the_pooled_path_remembers_where_to_go_and_spreads_what_is_under_way() {
    local(async {
        let (_one, first) = fixture::listen().await;
        let (_other, second) = fixture::listen().await;
        let endpoint = |address: SocketAddr| json!({"address": address.ip(), "port": address.port()});
        let mut document = service(first, &json!({}));
        document["endpoints"] = json!([endpoint(first), endpoint(second)]);
        let upstreams = fixture::upstreams(fixture::closed_port(), |_| {});
        let (live, permit) = fixture::plain(&document, "api.example");
        let mut open = Vec::new();
        for _ in 0..40 {
            open.push(upstreams.connect(&live, &permit, &request(), None).await.expect("a connection"));
        }
        let at_first = open.iter().filter(|connection| connection.facts.address == first).count();
        assert!((18..=22).contains(&at_first), "{at_first} of 40");
        open.into_iter().for_each(crate::upstream::Connection::release);
        for _ in 0..40 {
            let connection = upstreams.connect(&live, &permit, &request(), None).await.expect("a connection");
            assert!(connection.facts.reused);
            connection.release();
        }
        assert_eq!(upstreams.shared.metrics.connect_attempts.value(), 40);
    })
    .await;
}
