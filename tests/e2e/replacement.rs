//! Filters that come and go while exchanges do: replaced under load, removed, left alone, and there again after a restart.

use serde_json::json;
use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Instant,
};
use tidegate_tests::{
    Gateway, Options, Raw, World,
    api::{Api, Speaks},
    plugins, until,
    wait::soon,
    world::{POD, plain_service},
};

/// Uploads `module` as the plugin `name` and waits until it is in force.
async fn upload(world: &World, name: &str, module: Vec<u8>) {
    let reply = world.rest.upload(name, module).await;
    assert!(matches!(reply.status, 200 | 201), "{reply:?}\n{}", reply.text());
    world.in_force().await;
}

/// A world with one API, whose route runs the plugin `stamp`.
async fn stamped(options: Options) -> (World, Api) {
    let world = World::start_with(options).await;
    let api = Api::start(Speaks::Http1).await;
    world.open_plain("api", "api.example.com", api.address).await;
    upload(&world, "stamp", plugins::module("stamp")).await;
    world.rest.register("routes", "api", &json!({"service": "api", "filters": [{"plugin": "stamp"}]})).await;
    world.in_force().await;
    (world, api)
}

async fn instances(world: &World) -> f64 {
    world.gateway.metric("tidegate_filter_instances", "").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_is_replaced_under_load_and_no_exchange_fails() {
    const REPLACEMENTS: u32 = 8;
    let (world, _api) = stamped(Options::default()).await;
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let callers: Vec<_> = (0..4)
        .map(|caller| {
            let (stop, done, address) = (Arc::clone(&stop), Arc::clone(&done), world.gateway.addresses.proxy);
            tokio::spawn(async move {
                let mut raw = Raw::connect_from(POD, address).await;
                while !stop.load(Ordering::Relaxed) {
                    let url = format!("http://api.example.com/{caller}");
                    let reply = raw.get(&url, "api.example.com", "").await;
                    assert_eq!((reply.status, reply.header("x-stamp")), (200, Some("stamped")), "{reply:?}");
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for number in 0..REPLACEMENTS {
        let before = done.load(Ordering::Relaxed);
        upload(&world, "stamp", plugins::variant("stamp", number)).await;
        until("exchanges on the new one", async || (done.load(Ordering::Relaxed) > before + 20).then_some(())).await;
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        soon("a caller to be done", caller).await.expect("no exchange failed");
    }
    let gateway = &world.gateway;
    assert_eq!(gateway.metric("tidegate_filter_failures_total", "").await, 0.0);
    assert_eq!(gateway.metric("tidegate_filter_unavailable_total", "").await, 0.0);
    assert_eq!(gateway.metric("tidegate_filter_compiled_total", "").await, f64::from(REPLACEMENTS + 1));
    until("one instance for each worker to be left", async || (instances(&world).await <= 2.0).then_some(())).await;
}

#[tokio::test]
async fn an_exchange_under_way_ends_on_the_filter_it_began_with() {
    let (world, api) = stamped(Options::default()).await;
    let mut caller = world.pod().await;
    caller.send("GET http://api.example.com/gate HTTP/1.1\r\nHost: api.example.com\r\n\r\n").await;
    until("the exchange to be at the API", async || (api.waiting() == 1).then_some(())).await;
    // The plugin of this name is another filter from now on.
    upload(&world, "stamp", plugins::module("audit")).await;
    let fresh = world.get("http://api.example.com/fresh").await;
    assert_eq!((fresh.status, fresh.header("x-stamp")), (200, None), "{fresh:?}");
    api.open_gate();
    let reply = caller.reply().await;
    assert_eq!((reply.status, reply.header("x-stamp")), (200, Some("stamped")), "{reply:?}");
    assert_eq!(api.saw("/gate").headers["x-stamp"], "stamped");
    let record = world.rest.record_to("/gate").await;
    assert_eq!(record["filters"][0]["outcome"], "continued", "{record}");
    until("the old instance to be gone", async || (instances(&world).await <= 1.0).then_some(())).await;
}

#[tokio::test]
async fn instances_go_with_their_route_though_no_exchange_comes() {
    let (world, _api) = stamped(Options { workers: 1, ..Options::default() }).await;
    assert_eq!(world.get("http://api.example.com/").await.status, 200);
    assert_eq!(instances(&world).await, 1.0);
    assert_eq!(world.rest.delete("/v1/routes/api").await.status, 204);
    until("the instance to be gone", async || (instances(&world).await == 0.0).then_some(())).await;
    assert_eq!(world.gateway.metric("tidegate_filter_idle_dropped_total", "").await, 0.0, "it was not for idleness");
}

#[tokio::test]
async fn idle_instances_are_dropped_and_started_again() {
    let options = Options { workers: 1, ..Options::default() };
    let (world, api) = stamped(options.flag("--filter-idle-timeout", "1s")).await;
    // One that waits for its response is in use, however long that takes.
    let mut caller = world.pod().await;
    caller.send("GET http://api.example.com/gate HTTP/1.1\r\nHost: api.example.com\r\n\r\n").await;
    until("the exchange to be at the API", async || (api.waiting() == 1).then_some(())).await;
    api.open_gate();
    assert_eq!(caller.reply().await.header("x-stamp"), Some("stamped"));
    until("the instance to be dropped", async || (instances(&world).await == 0.0).then_some(())).await;
    assert_eq!(world.gateway.metric("tidegate_filter_idle_dropped_total", "").await, 1.0);
    let reply = world.get("http://api.example.com/again").await;
    assert_eq!((reply.status, reply.header("x-stamp")), (200, Some("stamped")), "{reply:?}");
    assert_eq!(instances(&world).await, 1.0);
}

/// Filters on routes at the restart that is timed.
const FILTERS: u32 = 50;

/// How many different modules they are: compiling one takes a debug build a second. `TIDEGATE_BINARY=$PWD/target/release/tidegate
/// TIDEGATE_RESTART_MODULES=50` measures the whole of it.
fn different() -> u32 {
    std::env::var("TIDEGATE_RESTART_MODULES").map_or(5, |number| number.parse().expect("a number of modules"))
}

#[tokio::test]
async fn a_restart_with_fifty_filters_on_routes_compiles_nothing() {
    let mut world = World::start().await;
    let api = Api::start(Speaks::Http1).await;
    let different = different();
    for number in 0..different {
        upload(&world, &format!("stamp-{number}"), plugins::variant("stamp", number)).await;
    }
    for number in 0..FILTERS {
        let (name, plugin) = (format!("api-{number}"), format!("stamp-{}", number % different));
        world.rest.register("services", &name, &plain_service(&format!("{name}.example.com"), api.address)).await;
        let filter = json!({"plugin": plugin, "config": {"value": name}});
        world.rest.register("routes", &name, &json!({"service": name, "filters": [filter]})).await;
    }
    let names: Vec<_> = (0..FILTERS).map(|number| format!("api-{number}")).collect();
    world.rest.register("rules", "everyone", &json!({"action": "allow", "to": [{"services": names}]})).await;
    world.in_force().await;
    world.gateway.terminate();
    assert!(world.gateway.ended().await.success());

    let directory = Arc::clone(world.gateway.directory());
    let began = Instant::now();
    world.gateway = Gateway::start_in(directory, &Options::default()).await;
    let took = began.elapsed();
    writeln!(std::io::stderr(), "ready {took:?} after a start with {FILTERS} filters of {different} modules")
        .expect("it is shown");
    assert_eq!(world.gateway.metric("tidegate_filter_compiled_total", "").await, 0.0);
    let loaded = world.gateway.metric("tidegate_filter_artefacts_total", r#"outcome="loaded""#).await;
    assert_eq!(loaded, f64::from(different), "routes with the same module share what was compiled of it");
    for name in [&names[0], &names[FILTERS as usize - 1]] {
        let reply = world.get(&format!("http://{name}.example.com/")).await;
        assert_eq!((reply.status, reply.header("x-stamp")), (200, Some(name.as_str())), "{reply:?}");
    }
}
