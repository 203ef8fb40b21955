//! The credential filter: each caller's own key at the API, and nowhere else.

use serde_json::{Value, json};
use std::net::Ipv4Addr;
use tidegate_tests::{
    World,
    api::{Api, Seen, Speaks},
    plugins,
};

const BLUE_KEY: &str = "blue-s3cret-of-the-api";
const GREEN_KEY: &str = "green-s3cret-of-the-api";
/// What a caller brings of its own.
const OWN: &str = "Authorization: Bearer own\r\nX-Api-Key: own\r\nX-Old-Key: own\r\n";

/// Puts the filter on the route of the service `name`, with keys for the tenants blue and green.
async fn lend(world: &World, name: &str, otherwise: &str, granted: &[&str]) {
    for (key, value) in [("blue-key", BLUE_KEY), ("green-key", GREEN_KEY)] {
        world.rest.register("credentials", key, &json!({"kind": "secret", "value": value})).await;
    }
    let uploaded = world.rest.upload("credential", plugins::module("credential")).await;
    assert!(matches!(uploaded.status, 200 | 201), "{uploaded:?}\n{}", uploaded.text());
    let config = json!({
        "entries": [
            {"when": {"labels": {"tenant": "blue"}}, "credential": "blue-key"},
            {"when": {"principals": ["spiffe://cluster.local/ns/green/*"]}, "credential": "green-key", "header": "x-api-key"},
        ],
        "otherwise": otherwise, "strip": ["x-old-key"],
    });
    let filter = json!({"plugin": "credential", "config": config, "grants": {"credentials": granted}});
    world.rest.register("routes", name, &json!({"service": name, "filters": [filter]})).await;
    world.in_force().await;
}

/// What the API saw of the headers that can carry a credential.
fn carried(seen: &Seen) -> Value {
    let value = |name: &str| seen.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    json!([value("authorization"), value("x-api-key"), value("x-old-key")])
}

#[tokio::test]
async fn each_caller_gets_its_own_key_and_the_key_is_nowhere_else() {
    let world = World::start().await;
    let api = world.api("api.example.com").await;
    world.open("api", "api.example.com", api.address).await;
    let blue = world.tenant("blue", Ipv4Addr::new(127, 0, 8, 1)).await;
    let green = world.tenant("green", Ipv4Addr::new(127, 0, 8, 2)).await;
    lend(&world, "api", "refuse", &["blue-key", "green-key"]).await;
    for (tenant, path, wanted) in [
        (blue, "/blue", json!([format!("Bearer {BLUE_KEY}"), null, null])),
        (green, "/green", json!([null, GREEN_KEY, null])),
        (blue, "/again", json!([format!("Bearer {BLUE_KEY}"), null, null])),
    ] {
        let reply = tenant.get(&format!("http://api.example.com{path}"), OWN).await;
        assert_eq!(reply.status, 200, "{path}: {reply:?}\n{}", reply.text());
        assert_eq!(carried(&api.saw(path)), wanted, "{path}");
    }
    let record = world.rest.record_to("/blue").await;
    let event = &record["filters"][0]["events"][0];
    assert_eq!((&event["kind"], &event["fields"]["credential"]), (&json!("credential"), &json!("blue-key")), "{record}");
    let said = format!("{record}{}{}", world.gateway.output(), world.gateway.metrics().await);
    assert!(!said.contains("s3cret"), "{said}");
}

#[tokio::test]
async fn a_caller_without_an_entry_is_refused_or_goes_on_with_nothing() {
    let world = World::start().await;
    let api = world.api("api.example.com").await;
    world.open("api", "api.example.com", api.address).await;
    lend(&world, "api", "refuse", &["blue-key", "green-key"]).await;
    let reply = world.pod().await.get("http://api.example.com/refused", "api.example.com", OWN).await;
    assert_eq!((reply.status, reply.reason()), (403, "filter_denied"), "{reply:?}");
    assert!(!api.was_asked("/refused"));
    lend(&world, "api", "pass", &["blue-key", "green-key"]).await;
    let reply = world.pod().await.get("http://api.example.com/passed", "api.example.com", OWN).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(carried(&api.saw("/passed")), json!([null, null, null]), "not even what it brought");
}

#[tokio::test]
async fn a_key_never_leaves_in_plaintext() {
    let world = World::start().await;
    let api = Api::start(Speaks::Http1).await;
    world.open_plain("plain", "plain.example.com", api.address).await;
    let blue = world.tenant("blue", Ipv4Addr::new(127, 0, 8, 1)).await;
    lend(&world, "plain", "pass", &["blue-key", "green-key"]).await;
    let reply = blue.get("http://plain.example.com/plain", OWN).await;
    assert_eq!((reply.status, reply.reason()), (403, "secret_exposed"), "{reply:?}");
    assert!(!api.was_asked("/plain"), "{:?}", api.seen());
    assert_eq!(world.get("http://plain.example.com/without").await.status, 200, "who gets none is not concerned");
}

#[tokio::test]
async fn a_key_that_is_not_granted_refuses_the_request() {
    let world = World::start().await;
    let api = world.api("api.example.com").await;
    world.open("api", "api.example.com", api.address).await;
    let blue = world.tenant("blue", Ipv4Addr::new(127, 0, 8, 1)).await;
    lend(&world, "api", "pass", &["green-key"]).await;
    let reply = blue.get("http://api.example.com/ungranted", OWN).await;
    assert_eq!((reply.status, reply.reason()), (403, "filter_denied"), "{reply:?}");
    assert!(!api.was_asked("/ungranted"));
    let record = world.rest.record_to("/ungranted").await;
    assert!(record["filters"][0].to_string().contains("grants"), "{record}");
}

#[tokio::test]
async fn no_filter_reads_the_key_wherever_it_stands() {
    let world = World::start().await;
    let api = world.api("api.example.com").await;
    world.open("api", "api.example.com", api.address).await;
    let blue = world.tenant("blue", Ipv4Addr::new(127, 0, 8, 1)).await;
    lend(&world, "api", "refuse", &["blue-key"]).await;
    assert!(matches!(world.rest.upload("audit", plugins::module("audit")).await.status, 200 | 201));
    // A header that nothing in its name says to be secret, so that the audit filter would show it.
    let entry = json!({"when": {"namespaces": ["blue"]}, "credential": "blue-key", "header": "x-team"});
    let credential = json!({"plugin": "credential", "config": {"entries": [entry]}, "grants": {"credentials": ["blue-key"]}});
    let audit = json!({"plugin": "audit", "config": {"request_headers": ["x-team", "x-other"], "redact": []}});
    let route = json!({"service": "api", "filters": [audit.clone(), credential, audit]});
    world.rest.register("routes", "api", &route).await;
    world.in_force().await;
    let reply = blue.get("http://api.example.com/between", "X-Team: own\r\nX-Other: seen\r\n").await;
    assert_eq!(reply.status, 200, "{reply:?}\n{}", reply.text());
    assert_eq!(api.saw("/between").headers.get("x-team").map(http::HeaderValue::as_bytes), Some(BLUE_KEY.as_bytes()));
    let record = world.rest.record_to("/between").await;
    let fields = |place: usize| record["filters"][place]["events"][0]["fields"].clone();
    assert_eq!((&fields(0)["request.x-team"], &fields(0)["request.x-other"]), (&json!("own"), &json!("seen")), "{record}");
    assert_eq!((&fields(2)["request.x-team"], &fields(2)["request.x-other"]), (&Value::Null, &json!("seen")), "{record}");
    assert!(!record.to_string().contains("s3cret"), "{record}");
}
