//! Everything a filter can do wrong, each on a route of its own, while a healthy route is under load beside them.

use serde_json::{Value, json};
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};
use tidegate_tests::{
    Options, Raw, World,
    api::{Api, Speaks},
    plugins, wait,
    world::POD,
};

/// What becomes of an exchange with a hostile filter.
#[derive(Debug, Clone, Copy)]
enum Becomes {
    /// The record says that the filter failed, and why.
    Failed,
    /// It goes on, and what the filter tried is refused: its event says how much, in a field of this name, it got.
    Refused(&'static str, u64),
    /// The filter's own answer, given once.
    Answered,
}

/// Phase, mode, what else the configuration says, and what becomes of it.
type Row = (&'static str, &'static str, Value, Becomes);

const PHASES: [&str; 7] =
    ["request", "request_body", "request_trailers", "response", "response_body", "response_trailers", "log"];

fn rows() -> Vec<Row> {
    let nothing = || json!({});
    let in_every_phase = |mode| PHASES.into_iter().map(move |at| (at, mode, nothing(), Becomes::Failed));
    let mut rows: Vec<Row> = in_every_phase("trap").chain(in_every_phase("loop")).collect();
    rows.extend([
        ("begin", "trap", nothing(), Becomes::Failed),
        ("begin", "loop", nothing(), Becomes::Failed),
        ("request", "memory", nothing(), Becomes::Failed),
        ("response_body", "memory", nothing(), Becomes::Failed),
        ("request", "memory_whole", nothing(), Becomes::Refused("mib", 0)),
        ("request", "stack", nothing(), Becomes::Failed),
        ("response_trailers", "stack", nothing(), Becomes::Failed),
        ("request", "inject", nothing(), Becomes::Refused("accepted", 0)),
        ("response", "inject", nothing(), Becomes::Refused("accepted", 0)),
        ("response_trailers", "inject", nothing(), Becomes::Refused("accepted", 0)),
        ("request", "keep", nothing(), Becomes::Failed),
        ("request_body", "keep_body", nothing(), Becomes::Failed),
        ("request", "reply", json!({"also": "response"}), Becomes::Answered),
        ("request", "reply_status", nothing(), Becomes::Failed),
        ("request", "reply_header", nothing(), Becomes::Failed),
        ("request", "random", nothing(), Becomes::Failed),
        ("request_body", "body_range", json!({"flow": "buffer"}), Becomes::Refused("accepted", 0)),
    ]);
    let calls = ["header_value", "body_splice", "attribute_value", "select_service", "event_field", "log", "kv_value"];
    let giant = |call: &str| ("request_body", "giant", json!({"call": call, "flow": "buffer"}), Becomes::Failed);
    rows.extend(calls.map(giant));
    rows
}

/// Puts the hostile filter on a route to a service of its own.
async fn put_on_route(world: &World, api: &Api, name: &str, (at, mode, more, _): &Row) {
    world.open_plain(name, &format!("{name}.example.com"), api.address).await;
    let mut config = json!({"at": at, "mode": mode});
    if let (Some(config), Some(more)) = (config.as_object_mut(), more.as_object()) {
        config.extend(more.clone());
    }
    let route = json!({"service": name, "filters": [{"plugin": "hostile", "config": config}]});
    world.rest.register("routes", name, &route).await;
}

/// One caller of the healthy route, until it is told to stop; every answer is whole and stamped.
async fn healthy(proxy: std::net::SocketAddr, stop: Arc<AtomicBool>, served: Arc<AtomicU32>) {
    let mut raw = Raw::connect_from(POD, proxy).await;
    while !stop.load(Ordering::Relaxed) {
        let reply = raw.get("http://healthy.example.com/path", "healthy.example.com", "").await;
        assert_eq!((reply.status, reply.header("x-stamp")), (200, Some("stamped")), "the healthy route: {reply:?}");
        served.fetch_add(1, Ordering::Relaxed);
    }
}

/// A request with a body in pieces and a trailer, so that every phase comes.
fn request(host: &str) -> String {
    let head = format!("POST http://{host}/echo HTTP/1.1\r\nHost: {host}\r\nTE: trailers\r\nTrailer: x-t\r\n");
    format!("{head}Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\nx-t: 1\r\n\r\n")
}

fn check(row: &Row, record: &Value) {
    let (at, mode, _, becomes) = row;
    let filter = &record["filters"][0];
    match *becomes {
        Becomes::Failed => {
            assert_eq!(filter["outcome"], "failed", "{mode} at {at}: {record}");
            assert!(filter["error"].as_str().is_some_and(|error| !error.is_empty()), "{mode} at {at} is named: {record}");
            let closing = *at == "log";
            assert_eq!(record["reason"] == "filter_failed", !closing, "{mode} at {at}: {record}");
        }
        Becomes::Refused(field, least) => {
            let told = filter["events"].as_array().into_iter().flatten().find_map(|event| event["fields"][field].as_u64());
            let told = told.unwrap_or_else(|| panic!("{mode} at {at} told nothing: {record}"));
            assert!(if least == 0 { told < 64 } else { told >= least }, "{mode} at {at} got {told} {field}: {record}");
            assert_eq!(filter["outcome"], "continued", "{mode} at {at}: {record}");
            // As many headers as the gateway lets pass may still be too many for the API.
            let status = record["status"].as_u64();
            assert!(status == Some(200) || (*mode == "header_count" && status == Some(431)), "{mode} at {at}: {record}");
        }
        Becomes::Answered => {
            assert_eq!((&record["status"], &filter["outcome"]), (&json!(403), &json!("replied")), "{record}");
            assert_eq!(record["reason"], "filter_denied", "{record}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_set_of_filters_costs_a_healthy_route_nothing() {
    beside_a_healthy_route(rows(), Options::default(), 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_headers_are_refused_one_by_one() {
    let rows = ["request", "response"].map(|at| (at, "header_count", json!({}), Becomes::Refused("refused", 9_000)));
    // They are to be refused, and not ended together: for so many calls the debug build that is tested needs some three times as
    // long as filters have by default, which is far more than a release build needs.
    beside_a_healthy_route(rows.into(), Options::default().flag("--filter-callback-timeout", "2s"), 20).await;
}

/// Tries each row; the healthy route has to serve more than `least` exchanges meanwhile.
async fn beside_a_healthy_route(rows: Vec<Row>, options: Options, least: u32) {
    let mut world = World::start_with(options).await;
    let api = Api::start(Speaks::Http1).await;
    for plugin in ["hostile", "stamp", "hoarder"] {
        let uploaded = world.rest.upload(plugin, plugins::module(plugin)).await;
        assert!(matches!(uploaded.status, 200 | 201), "{uploaded:?}");
    }
    world.open_plain("healthy", "healthy.example.com", api.address).await;
    world.rest.register("routes", "healthy", &json!({"service": "healthy", "filters": [{"plugin": "stamp"}]})).await;
    for (number, row) in rows.iter().enumerate() {
        put_on_route(&world, &api, &format!("h{number}"), row).await;
    }
    world.in_force().await;
    // A table of a million elements is refused with the route that would run it.
    let hoarder = json!({"service": "h0", "filters": [{"plugin": "hoarder"}]});
    assert_eq!(world.rest.put("/v1/routes/hoarder", &hoarder).await.status, 422);

    let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let proxy = world.gateway.addresses.proxy;
    let callers: Vec<_> = (0..2).map(|_| tokio::spawn(healthy(proxy, Arc::clone(&stop), Arc::clone(&served)))).collect();
    for (number, row) in rows.iter().enumerate() {
        let host = format!("h{number}.example.com");
        let mut pod = world.pod().await;
        pod.send(request(&host)).await;
        // The answer may break off; the record comes whatever became of it.
        // By its service: the healthy route's records are too many to look through.
        let what = format!("the record of {host}");
        let records = format!("&service=h{number}");
        check(row, &wait::until(&what, async || world.rest.records(&records).await.pop()).await);
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        wait::soon("a caller of the healthy route to be done", caller).await.expect("the healthy route lost nothing");
    }
    let served = served.load(Ordering::Relaxed);
    assert!(served > least, "the healthy route was under load: {served} exchanges");
    assert!(world.gateway.runs(), "the process lives");
}
