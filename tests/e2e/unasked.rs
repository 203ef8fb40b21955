//! Proxy-Wasm filters that have something to do although no exchange has come: timers, from the moment in which a route has them.

use serde_json::{Value, json};
use tidegate_tests::{
    Options, World,
    api::{Api, Speaks},
    until,
};

/// A module that does what `start` says when it is configured, counts the ticks of its timer, and does what `tick` says in each.
fn ticking(start: &str, tick: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
        (import "env" "proxy_set_tick_period_milliseconds" (func $period (param i32) (result i32)))
        (import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_increment_metric" (func $increment (param i32 i64) (result i32)))
        (import "env" "proxy_get_property" (func $property (param i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_get_shared_data" (func $shared (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_set_shared_data" (func $share (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_http_call"
            (func $call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 16) "ticks")
        (data (i32.const 32) "api")
        (data (i32.const 40) "plugin_name")
        (data (i32.const 56) "tried")
        (data (i32.const 64) "{pairs}")
        (global $ticks (mut i32) (i32.const 0))
        (func $must (param $status i32) (if (local.get $status) (then (unreachable))))
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "malloc") (param i32) (result i32) (i32.const 4096))
        (func (export "proxy_on_configure") (param i32 i32) (result i32)
            (call $must (call $define (i32.const 0) (i32.const 16) (i32.const 5) (i32.const 0)))
            {start}
            (call $must (call $period (i32.const 20)))
            (i32.const 1))
        (func (export "proxy_on_tick") (param i32)
            (global.set $ticks (i32.add (global.get $ticks) (i32.const 1)))
            (call $must (call $increment (i32.load (i32.const 0)) (i64.const 1)))
            {tick}))"#,
        pairs = HEAD.iter().map(|byte| format!("\\{byte:02x}")).collect::<String>(),
    );
    wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// The head of a call, as the ABI has maps: how many pairs, their lengths, and then each text with a zero behind it.
const HEAD: &[u8] = b"\x03\0\0\0\x07\0\0\0\x03\0\0\0\x05\0\0\0\x05\0\0\0\x0a\0\0\0\x0f\0\0\0\
    :method\0GET\0:path\0/tick\0:authority\0api.example.com\0";

/// A gateway with a route that has the module, and the API that it leads to. Nobody sends anything.
async fn quiet(options: Options, module: Vec<u8>) -> (World, Api) {
    let world = World::start_with(options).await;
    let api = Api::start(Speaks::Http1).await;
    world.open_plain("api", "api.example.com", api.address).await;
    let reply = world.rest.upload("ticks", module).await;
    assert!(matches!(reply.status, 200 | 201), "{}", reply.text());
    world.rest.register("routes", "api", &json!({"service": "api", "filters": [{"plugin": "ticks"}]})).await;
    world.in_force().await;
    (world, api)
}

async fn ticks(world: &World) -> f64 {
    world.gateway.metric("tidegate_plugin_counter_total", r#"plugin="ticks""#).await
}

async fn instances(world: &World) -> f64 {
    world.gateway.metric("tidegate_filter_instances", "").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timer_runs_on_every_worker_from_when_its_route_is_there() {
    let (world, api) = quiet(Options { workers: 2, ..Options::default() }, ticking("", "")).await;
    until("a VM on each worker", async || (instances(&world).await == 2.0).then_some(())).await;
    let before = ticks(&world).await;
    until("its ticks", async || (ticks(&world).await >= before + 4.0).then_some(())).await;
    assert!(api.seen().is_empty(), "no exchange has come");
    // A change elsewhere starts nothing anew, and the end of its route ends it.
    let starts = async || world.gateway.metric("tidegate_filter_starts_total", "").await;
    let before = starts().await;
    world.open_plain("other", "other.example.com", api.address).await;
    assert_eq!((instances(&world).await, starts().await), (2.0, before));
    assert_eq!(world.rest.delete("/v1/routes/api").await.status, 204);
    until("both to be gone", async || (instances(&world).await == 0.0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timer_goes_on_after_a_trap_in_it() {
    let options = Options { workers: 1, ..Options::default() }.flag("--filter-back-off", "50ms");
    let trap = "(if (i32.eq (global.get $ticks) (i32.const 3)) (then (unreachable)))";
    let (world, _api) = quiet(options, ticking("", trap)).await;
    until("ticks of the third VM", async || (ticks(&world).await >= 7.0).then_some(())).await;
    assert!(world.gateway.metric("tidegate_filter_failures_total", "").await >= 2.0);
    assert!(world.gateway.output().contains("a Proxy-Wasm VM failed"), "{}", world.gateway.output());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timer_begins_after_a_start_that_failed() {
    let options = Options { workers: 1, ..Options::default() }.flag("--filter-back-off", "50ms");
    // Where it is only tried it has another name, and starts.
    let once = "(call $must (call $property (i32.const 40) (i32.const 11) (i32.const 4) (i32.const 8)))
        (if (i32.eq (i32.load (i32.const 8)) (i32.const 5)) (then
            (if (call $shared (i32.const 56) (i32.const 5) (i32.const 4) (i32.const 8) (i32.const 12)) (then
                (call $must (call $share (i32.const 56) (i32.const 5) (i32.const 56) (i32.const 5) (i32.const 0)))
                (unreachable)))))";
    let (world, _api) = quiet(options, ticking(once, "")).await;
    until("its ticks", async || (ticks(&world).await >= 2.0).then_some(())).await;
    let said = world.gateway.output();
    assert!(said.contains("a Proxy-Wasm VM failed"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_place_that_fails_leaves_the_others_of_its_vm_their_timers() {
    // Where it is only tried it has another name, and starts. The place with a longer configuration never starts on its route.
    let fails = "(call $must (call $property (i32.const 40) (i32.const 11) (i32.const 4) (i32.const 8)))
        (if (i32.and (i32.eq (i32.load (i32.const 8)) (i32.const 5)) (i32.gt_u (local.get 1) (i32.const 8))) (then (unreachable)))";
    let world = World::start_with(Options { workers: 1, ..Options::default() }).await;
    let api = Api::start(Speaks::Http1).await;
    assert!(matches!(world.rest.upload("ticks", ticking(fails, "")).await.status, 200 | 201));
    for (service, config) in [("healthy", json!({})), ("failing", json!({"what": "fails"}))] {
        world.open_plain(service, &format!("{service}.example.com"), api.address).await;
        let route = json!({"service": service, "filters": [{"plugin": "ticks", "config": config}]});
        world.rest.register("routes", service, &route).await;
    }
    world.in_force().await;
    let failures = async || world.gateway.metric("tidegate_filter_failures_total", "").await;
    until("the one to fail again and again", async || (failures().await >= 2.0).then_some(())).await;
    // At 50 a second; whoever is knocked out at each try of the other has a few of them at the most.
    until("the other's ticks between two of its tries", async || {
        let (failed, before) = (failures().await, ticks(&world).await);
        let ticked = async || (ticks(&world).await >= before + 20.0 || failures().await > failed).then_some(());
        until("ticks or a failure", ticked).await;
        (ticks(&world).await >= before + 20.0 && failures().await == failed).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timer_calls_a_service_before_any_exchange_has() {
    let call = format!(
        "(call $must (call $call (i32.const 32) (i32.const 3) (i32.const 64) (i32.const {}) (i32.const 0) (i32.const 0)
            (i32.const 0) (i32.const 0) (i32.const 1000) (i32.const 8)))",
        HEAD.len()
    );
    let (world, api) = quiet(Options { workers: 1, ..Options::default() }, ticking("", &call)).await;
    until("a call", async || api.seen().iter().any(|seen| seen.uri.path() == "/tick").then_some(())).await;
    let called = |record: &Value| record["target"].as_str().is_some_and(|target| target.ends_with("/tick"));
    let record = world.rest.record("the call", called).await;
    assert_eq!((&record["workload"], &record["verdict"]), (&json!("filter/ticks"), &json!("allowed")), "{record}");
}
