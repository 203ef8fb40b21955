//! Filters on routes: what they see, change and remember, and what their faults cost.

use serde_json::{Value, json};
use tidegate_tests::{
    World,
    api::{Api, Speaks},
    plugins,
    world::plain_service,
};

#[tokio::test]
async fn audit_events_are_part_of_the_record() {
    let world = World::start().await;
    let api = world.api("api.example.com").await;
    world.open("api", "api.example.com", api.address).await;
    let uploaded = world.rest.upload("audit", plugins::module("audit")).await;
    assert!(matches!(uploaded.status, 200 | 201), "{uploaded:?}\n{}", uploaded.text());
    let plugin = world.rest.get("/v1/plugins/audit").await.json();
    assert!(plugin.to_string().contains("tidegate:filter"), "its world is told: {plugin}");
    world.rest.register("routes", "api", &json!({"service": "api", "filters": [{"plugin": "audit"}]})).await;
    world.in_force().await;
    let reply = world.get("http://api.example.com/audited").await;
    assert_eq!(reply.status, 200, "{reply:?}\n{}", reply.text());
    let record = world.rest.record_to("/audited").await;
    let filter = &record["filters"][0];
    assert_eq!((&filter["plugin"], &filter["outcome"]), (&json!("audit"), &json!("continued")), "{record}");
    assert!(filter["events"].as_array().is_some_and(|events| !events.is_empty()), "{record}");
    assert!(record["durations"]["filters_us"].is_u64(), "{record}");
}

#[tokio::test]
async fn modules_that_cannot_be_filters_are_refused_with_a_reason() {
    let world = World::start().await;
    let nothing_of_ours = wasm_module();
    let large = vec![0_u8; 64 << 20];
    let mut broken = plugins::module("audit");
    broken.truncate(broken.len() / 2);
    let rows = [
        ("no module at all", b"hello".to_vec()),
        ("empty", Vec::new()),
        ("half a module", broken),
        ("a module of another world", nothing_of_ours),
        ("far too large a module", large),
    ];
    for (what, bytes) in rows {
        let reply = world.rest.upload("wrong", bytes).await;
        assert!(matches!(reply.status, 413 | 422), "{what}: {reply:?}\n{}", reply.text());
        assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{what}");
        assert!(!reply.text().is_empty(), "{what}");
        assert_eq!(world.rest.get("/v1/plugins/wrong").await.status, 404, "{what}");
    }
}

/// The smallest core module there is: a header and nothing else.
fn wasm_module() -> Vec<u8> {
    b"\0asm\x01\0\0\0".to_vec()
}

/// A route to a service of its own that runs the hostile filter in `mode` at a phase.
async fn hostile(world: &World, api: &Api, name: &str, (at, mode): (&str, &str), on_error: &str) {
    world.open_plain(name, &format!("{name}.example.com"), api.address).await;
    let filter = json!({"plugin": "hostile", "config": {"at": at, "mode": mode}, "on_error": on_error});
    let route = json!({"service": name, "filters": [filter]});
    world.rest.register("routes", name, &route).await;
    world.in_force().await;
}

/// Phase and mode in which the hostile filter misbehaves.
const FAULTS: [(&str, &str); 7] = [
    ("request", "trap"),
    ("request", "loop"),
    ("request", "memory"),
    ("request", "stack"),
    ("response", "trap"),
    ("response", "loop"),
    ("response", "memory"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_that_faults_costs_its_own_exchange_and_no_other() {
    let mut world = World::start().await;
    let api = Api::start(Speaks::Http1).await;
    world.open_plain("healthy", "healthy.example.com", api.address).await;
    assert!(matches!(world.rest.upload("hostile", plugins::module("hostile")).await.status, 200 | 201));
    for (at, mode) in FAULTS {
        hostile(&world, &api, &format!("deny-{at}-{mode}"), (at, mode), "deny").await;
        hostile(&world, &api, &format!("skip-{at}-{mode}"), (at, mode), "skip").await;
    }
    let address = world.gateway.addresses.proxy;
    let healthy = tokio::spawn(async move {
        let mut raw = tidegate_tests::Raw::connect_from(tidegate_tests::world::POD, address).await;
        for at in 0..300 {
            let reply = raw.get(&format!("http://healthy.example.com/{at}"), "healthy.example.com", "").await;
            assert_eq!(reply.status, 200, "the healthy route: {reply:?}");
        }
    });
    for (at, mode) in FAULTS {
        for round in 0..3 {
            let host = format!("deny-{at}-{mode}.example.com");
            let reply = world.get(&format!("http://{host}/{round}")).await;
            assert_eq!((reply.status, reply.reason()), (500, "filter_failed"), "{mode} at {at}: {reply:?}");
            let record = world.rest.record_to(&format!("{host}:80/{round}")).await;
            assert_eq!(record["filters"][0]["outcome"], "failed", "{record}");
            let error = record["filters"][0]["error"].as_str().or(record["fault"].as_str()).unwrap_or_default();
            assert!(!error.is_empty(), "the fault is named: {record}");

            let host = format!("skip-{at}-{mode}.example.com");
            let reply = world.get(&format!("http://{host}/{round}")).await;
            assert_eq!(reply.status, 200, "{mode} at {at} with on_error skip: {reply:?}");
            let record = world.rest.record_to(&format!("{host}:80/{round}")).await;
            let outcome = record["filters"][0]["outcome"].as_str().unwrap_or_default();
            assert!(matches!(outcome, "skipped" | "failed"), "{record}");
        }
    }
    tidegate_tests::wait::soon("the healthy route to be done", healthy).await.expect("the healthy route lost nothing");
    assert!(world.gateway.runs(), "the process lives");
}

#[tokio::test]
async fn a_filter_that_answers_in_the_apis_place_is_403_with_its_reason() {
    let world = World::start().await;
    let api = Api::start(Speaks::Http1).await;
    assert!(matches!(world.rest.upload("hostile", plugins::module("hostile")).await.status, 200 | 201));
    hostile(&world, &api, "replied", ("request", "reply"), "deny").await;
    let reply = world.get("http://replied.example.com/").await;
    assert_eq!((reply.status, reply.reason()), (403, "filter_denied"), "{reply:?}");
    let record = world.rest.record_to("replied.example.com").await;
    assert_eq!((&record["verdict"], &record["filters"][0]["outcome"]), (&json!("denied"), &json!("replied")), "{record}");
    assert!(api.seen().is_empty(), "the API was not asked");
}

/// A Proxy-Wasm module that gives every response that it sees the status 200.
const SAYS_200: &str = r#"(module
    (import "env" "proxy_replace_header_map_value" (func $replace (param i32 i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) ":status200")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "malloc") (param i32) (result i32) (i32.const 4096))
    (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
        (call $replace (i32.const 2) (i32.const 0) (i32.const 7) (i32.const 7) (i32.const 3))))"#;

#[tokio::test]
async fn a_refusal_stays_one_in_the_record_whatever_status_another_filter_gives_it() {
    let world = World::start().await;
    let api = Api::start(Speaks::Http1).await;
    assert!(matches!(world.rest.upload("hostile", plugins::module("hostile")).await.status, 200 | 201));
    assert!(matches!(world.rest.upload("says-200", wat::parse_str(SAYS_200).unwrap()).await.status, 200 | 201));
    world.open_plain("api", "api.example.com", api.address).await;
    // At the request's head, and in the middle of its body.
    for at in ["request", "request_body"] {
        let refuses = json!({"plugin": "hostile", "config": {"at": at, "mode": "reply", "flow": "stream"}});
        let route = json!({"service": "api", "filters": [{"plugin": "says-200"}, refuses]});
        world.rest.register("routes", "api", &route).await;
        world.in_force().await;
        let mut pod = world.pod().await;
        let head = format!("POST http://api.example.com/echo/{at} HTTP/1.1\r\nHost: api.example.com\r\n");
        pod.send(format!("{head}Content-Length: 3\r\n\r\none")).await;
        let reply = pod.reply().await;
        assert_eq!((reply.status, reply.reason()), (200, "filter_denied"), "{at}: {reply:?}");
        let record = world.rest.record_to(&format!("/echo/{at}")).await;
        let became = (&record["verdict"], &record["reason"], &record["status"]);
        assert_eq!(became, (&json!("denied"), &json!("filter_denied"), &json!(200)), "{record}");
    }
}

#[tokio::test]
async fn configuration_that_a_filter_refuses_is_refused_when_it_is_written() {
    let world = World::start().await;
    let api = Api::start(Speaks::Http1).await;
    world.rest.register("services", "api", &plain_service("api.example.com", api.address)).await;
    assert!(matches!(world.rest.upload("audit", plugins::module("audit")).await.status, 200 | 201));
    let route = |config: Value| json!({"service": "api", "filters": [{"plugin": "audit", "config": config}]});
    let reply = world.rest.put("/v1/routes/api", &route(json!({"no_such_setting": 1}))).await;
    assert_eq!(reply.status, 422, "{reply:?}");
    assert!(reply.text().contains("no_such_setting"), "the filter's own words: {}", reply.text());
    assert_eq!(world.rest.get("/v1/routes/api").await.status, 404, "nothing was changed");
    let reply = world.rest.put("/v1/routes/api", &json!({"service": "api", "filters": [{"plugin": "nobody"}]})).await;
    assert_eq!(reply.status, 422, "{reply:?}");
    assert!(reply.text().contains("/filters/0/plugin"), "{}", reply.text());
}

/// A route of the API whose one filter is the witness, with this configuration and these grants.
async fn with_witness(config: Value, grants: Value) -> (World, Api) {
    let world = World::start().await;
    let api = Api::start(Speaks::Http1).await;
    world.open_plain("api", "api.example.com", api.address).await;
    assert!(matches!(world.rest.upload("witness", plugins::module("witness")).await.status, 200 | 201));
    let filter = json!({"plugin": "witness", "config": config, "grants": grants});
    world.rest.register("routes", "api", &json!({"service": "api", "filters": [filter]})).await;
    world.in_force().await;
    (world, api)
}

#[tokio::test]
async fn a_path_that_servers_read_differently_is_granted_in_every_reading_or_not_at_all() {
    for path in ["/v2/../admin", "/v2/%2e%2e/admin", "/v2/..%2fadmin", "/v2/..;/admin", "/v2//../../admin"] {
        let config = json!({"request": [{"rewrite": ["GET", path]}, {"flow": "proceed"}]});
        let (world, api) = with_witness(config, json!({"paths": ["/v2/*"]})).await;
        assert_eq!(world.get("http://api.example.com/x").await.status, 200);
        let seen = api.seen();
        assert_eq!(seen.last().map(|seen| seen.uri.path()), Some("/x"), "{path} was not granted");
    }
}

#[tokio::test]
async fn an_upgrade_gets_through_filters_that_hold_heads() {
    for flow in ["hold", "buffer", "stream"] {
        let (world, _api) = with_witness(json!({"response": [{"flow": flow}]}), json!({})).await;
        let mut pod = world.pod().await;
        let head = "GET http://api.example.com/upgrade HTTP/1.1\r\nHost: api.example.com\r\n";
        pod.send(format!("{head}Connection: upgrade\r\nUpgrade: echo\r\n\r\n")).await;
        assert_eq!(pod.head().await.status, 101, "{flow}");
        pod.send("said").await;
        assert_eq!(pod.exactly(4).await, b"said", "{flow}");
    }
}
