//! Names and addresses: what a name resolves to is asked once, classified whole, kept for its time, and dialled as checked.

use serde_json::{Value, json};
use tidegate_tests::{
    World,
    api::{Api, Speaks},
    dns::Entry,
};

/// A plain HTTP service whose name is resolved, at the port the API has.
fn resolved(host: &str, port: u16, networks: &[&str]) -> Value {
    json!({"hosts": [host], "ports": [{"number": port, "protocol": "http"}], "resolution": "dns", "networks": networks})
}

#[tokio::test]
async fn every_forbidden_address_is_refused_however_it_is_written() {
    let world = World::start().await;
    let forbidden = [
        "127.0.0.1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "198.18.0.1",
        "192.0.2.1",
        "224.0.0.1",
        "240.0.0.1",
        "0.0.0.0",
        "0.1.2.3",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fc00::1",
        "ff02::1",
        "2001:db8::1",
        "::ffff:127.0.0.1",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::7f00:1",
        "2002:7f00:1::",
        "::ffff:0:10.0.0.1",
        "2001:0:7f00:1::",
        "2001:db8::5efe:7f00:1",
    ];
    for (at, address) in forbidden.iter().enumerate() {
        let host = format!("name-{at}.example.com");
        world.names.set(&host, &[address]);
        world.rest.register("services", &format!("name-{at}"), &resolved(&host, 80, &[])).await;
    }
    world.rest.register("rules", "all", &json!({"action": "allow"})).await;
    world.in_force().await;
    for (at, address) in forbidden.iter().enumerate() {
        let reply = world.get(&format!("http://name-{at}.example.com/")).await;
        assert_eq!((reply.status, reply.reason()), (403, "address_refused"), "{address}: {reply:?}");
    }
}

#[tokio::test]
async fn a_forbidden_answer_among_good_ones_is_never_dialled() {
    let world = World::start().await;
    let api = Api::start(Speaks::Http1).await;
    let port = api.address.port();
    // The forbidden ones come first, and would be tried first: one is another listener of this machine.
    let other = Api::start_at(&format!("127.0.0.2:{port}"), Speaks::Http1).await;
    world.names.set("mixed.example.com", &["169.254.169.254", "127.0.0.2", "127.0.0.1"]);
    world.rest.register("services", "mixed", &resolved("mixed.example.com", port, &["127.0.0.1/32"])).await;
    world.allow("mixed").await;
    let before = world.gateway.metric("tidegate_addresses_refused_total", "").await;
    let reply = world.get(&format!("http://mixed.example.com:{port}/mixed")).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let record = world.rest.record_to("/mixed").await;
    assert_eq!(record["endpoint"]["address"], format!("127.0.0.1:{port}"), "{record}");
    let refused = world.gateway.metric("tidegate_addresses_refused_total", "").await - before;
    assert!(refused >= 2.0, "each refusal is counted: {refused}");
    assert_eq!(other.connections(), 0, "nothing was even connected to");
}

#[tokio::test]
async fn a_service_reaches_the_networks_it_lists_and_no_others() {
    let world = World::start().await;
    let api = Api::start(Speaks::Http1).await;
    let port = api.address.port();
    world.names.set("local.example.com", &["127.0.0.1"]);
    world.rest.register("services", "local", &resolved("local.example.com", port, &["127.0.0.0/8"])).await;
    world.allow("local").await;
    let reply = world.get(&format!("http://local.example.com:{port}/listed")).await;
    assert_eq!(reply.status, 200, "{reply:?}\n{}", reply.text());
    let record = world.rest.record_to("/listed").await;
    assert_eq!(record["endpoint"]["address"], format!("127.0.0.1:{port}"), "{record}");
    assert!(record["durations"]["resolve_us"].is_u64(), "{record}");
}

#[tokio::test]
async fn the_gateways_own_listeners_are_refused_even_where_the_network_is_listed() {
    let world = World::start().await;
    for (name, address) in [("proxy", world.gateway.addresses.proxy), ("admin", world.gateway.addresses.admin)] {
        world.open_plain(name, &format!("{name}.example.com"), address).await;
        let reply = world.get(&format!("http://{name}.example.com/v1/services")).await;
        assert_eq!((reply.status, reply.reason()), (403, "address_refused"), "{name}: {reply:?}");
    }
}

#[tokio::test]
async fn answers_are_kept_for_their_time_and_failures_too() {
    let world = World::start().await;
    let api = Api::start(Speaks::Http1).await;
    let port = api.address.port();
    world.names.set_for("kept.example.com", 300, &["127.0.0.1"]);
    let document = resolved("kept.example.com", port, &["127.0.0.0/8"]);
    // A connection of its own for each exchange, so that each needs the address anew.
    let document = tidegate_tests::world::with(document, "/connections", json!({"max_idle": 0}));
    world.rest.register("services", "kept", &document).await;
    world.rest.register("services", "missing", &resolved("missing.example.com", 80, &[])).await;
    world.allow("kept").await;
    world.allow("missing").await;
    for _ in 0..5 {
        assert_eq!(world.get(&format!("http://kept.example.com:{port}/")).await.status, 200);
        assert_eq!(world.get("http://missing.example.com/").await.reason(), "resolve_failed");
    }
    assert!(world.names.asked("kept.example.com") <= 2, "A and AAAA once: {}", world.names.asked("kept.example.com"));
    assert!(world.names.asked("missing.example.com") <= 2, "{}", world.names.asked("missing.example.com"));
}

#[tokio::test]
async fn the_second_address_is_tried_when_the_first_does_not_answer() {
    let world = World::start().await;
    let api = Api::start(Speaks::Http1).await;
    let port = api.address.port();
    // Nobody listens at ::1 on the API's port.
    world.names.set("two.example.com", &["::1", "127.0.0.1"]);
    world.rest.register("services", "two", &resolved("two.example.com", port, &["127.0.0.0/8", "::1/128"])).await;
    world.allow("two").await;
    let reply = world.get(&format!("http://two.example.com:{port}/second")).await;
    assert_eq!(reply.status, 200, "{reply:?}\n{}", reply.text());
}

#[tokio::test]
async fn a_wildcard_host_resolves_the_name_that_was_asked_for() {
    let world = World::start().await;
    let api = Api::start(Speaks::Http1).await;
    let port = api.address.port();
    world.names.set("one.wild.example.com", &["127.0.0.1"]);
    world.names.put("two.wild.example.com", Entry::Broken);
    let document =
        tidegate_tests::world::with(resolved("*.wild.example.com", port, &["127.0.0.0/8"]), "/resolution", json!("forward"));
    world.rest.register("services", "wild", &document).await;
    world.allow("wild").await;
    assert_eq!(world.get(&format!("http://one.wild.example.com:{port}/")).await.status, 200);
    assert_eq!(world.get(&format!("http://two.wild.example.com:{port}/")).await.reason(), "resolve_failed");
    assert_eq!(world.get(&format!("http://wild.example.com:{port}/")).await.reason(), "unregistered_host");
}

#[tokio::test]
async fn other_spellings_of_a_name_are_the_same_name() {
    let world = World::start().await;
    let api = Api::start(Speaks::Http1).await;
    world.open_plain("plain", "bücher.example.com", api.address).await;
    for host in ["xn--bcher-kva.example.com", "XN--BCHER-KVA.example.COM", "xn--bcher-kva.example.com."] {
        let reply = world.pod().await.get(&format!("http://{host}/"), host, "").await;
        assert_eq!(reply.status, 200, "{host}: {reply:?}");
    }
}
