//! The audit filter on real exchanges: what an event holds, and what never gets into a record.

use serde_json::{Value, json};
use tidegate_tests::{
    World,
    api::{Api, Speaks},
    plugins,
    raw::Reply,
    world::POD_PRINCIPAL,
};

const SHA256_OF_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

async fn audited(config: Value) -> (World, Api) {
    let world = World::start().await;
    let api = Api::start(Speaks::Http1).await;
    world.open_plain("api", "api.example.com", api.address).await;
    let uploaded = world.rest.upload("audit", plugins::module("audit")).await;
    assert!(matches!(uploaded.status, 200 | 201), "{uploaded:?}\n{}", uploaded.text());
    let route = json!({"service": "api", "filters": [{"plugin": "audit", "config": config}]});
    world.rest.register("routes", "api", &route).await;
    world.in_force().await;
    (world, api)
}

async fn post(world: &World, path: &str, headers: &str, body: &str) -> Reply {
    let mut raw = world.pod().await;
    let length = body.len();
    let head = format!("POST http://api.example.com{path} HTTP/1.1\r\nHost: api.example.com\r\n{headers}");
    raw.send(format!("{head}Content-Length: {length}\r\n\r\n{body}")).await;
    raw.reply().await
}

async fn fields(world: &World, path: &str) -> Value {
    let record = world.rest.record_to(path).await;
    let events = record["filters"][0]["events"].as_array().cloned().unwrap_or_default();
    assert_eq!(events.len(), 1, "{record}");
    events[0]["fields"].clone()
}

#[tokio::test]
async fn values_of_both_bodies_are_in_the_event_and_secrets_are_nowhere() {
    let config = json!({
        "request_headers": ["x-tenant", "x-api-key", "x-note"], "response_headers": ["content-type"],
        "request_pointers": ["/amount", "/customer", "/pan"], "response_pointers": ["/amount", "/customer/name"],
        "redact": ["card", "email", "keys", {"name": "employee", "pattern": "EMP-[0-9]{6}"}],
    });
    let (world, _api) = audited(config).await;
    let body = json!({
        "amount": 1200, "customer": {"name": "Bob", "email": "bob@example.com", "password": "hunter2"}, "pan": 4111111111111111_u64,
    });
    let headers = "Content-Type: application/json\r\nX-Tenant: blue\r\nX-Api-Key: hunter2\r\nX-Note: from EMP-123456\r\n";
    let reply = post(&world, "/echo/charges", headers, &body.to_string()).await;
    assert_eq!((reply.status, reply.json()), (200, body), "the body is untouched: {reply:?}");
    let fields = fields(&world, "/echo/charges").await;
    for (name, wanted) in [
        ("principal", json!(POD_PRINCIPAL)),
        ("method", json!("POST")),
        ("path", json!("/echo/charges")),
        ("status", json!(200)),
        ("request.x-tenant", json!("blue")),
        ("request.x-api-key", json!("(redacted)")),
        ("request.x-note", json!("from (redacted)")),
        ("request.body/amount", json!(1200)),
        ("request.body/customer", json!(r#"{"email":"(redacted)","name":"Bob","password":"(redacted)"}"#)),
        ("request.body/pan", json!("(redacted)")),
        ("response.content-type", json!("application/json")),
        ("response.body/amount", json!(1200)),
        ("response.body/customer/name", json!("Bob")),
    ] {
        assert_eq!(fields[name], wanted, "{name} in {fields}");
    }
    let record = world.rest.record_to("/echo/charges").await.to_string();
    for secret in ["hunter2", "bob@example.com", "4111111111111111", "EMP-123456"] {
        assert!(!record.contains(secret), "{secret} in {record}");
    }
}

#[tokio::test]
async fn digests_are_of_what_went_by_in_both_directions() {
    let (world, _api) = audited(json!({"digests": ["request", "response"], "request_pointers": ["/a"]})).await;
    let reply = post(&world, "/echo/abc", "Content-Type: text/plain\r\n", "abc").await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "abc"), "{reply:?}");
    let fields = fields(&world, "/echo/abc").await;
    assert_eq!(
        (&fields["request.sha256"], &fields["response.sha256"]),
        (&json!(SHA256_OF_ABC), &json!(SHA256_OF_ABC)),
        "{fields}"
    );
}

#[tokio::test]
async fn a_body_that_streams_past_is_digested_whole() {
    let (world, _api) = audited(json!({"digests": ["request", "response"]})).await;
    let body = "x".repeat(3 << 20);
    let reply = post(&world, "/echo/large", "Content-Type: application/octet-stream\r\n", &body).await;
    assert_eq!((reply.status, reply.body.len()), (200, body.len()), "more than is held for a filter");
    let fields = fields(&world, "/echo/large").await;
    assert_eq!(fields["request.sha256"], fields["response.sha256"], "{fields}");
    assert_eq!(fields["request.sha256"].as_str().map(str::len), Some(64), "{fields}");
}

#[tokio::test]
async fn what_cannot_be_read_is_said() {
    let (world, _api) = audited(json!({"request_pointers": ["/a"]})).await;
    let reply = post(&world, "/echo/broken", "Content-Type: application/json\r\n", "{").await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "{"), "{reply:?}");
    assert_eq!(fields(&world, "/echo/broken").await["request.unread"], "not JSON");
}

#[tokio::test]
async fn values_are_picked_from_a_body_larger_than_what_is_held_for_filters() {
    let (world, _api) = audited(json!({"request_pointers": ["/last"], "digests": ["request", "response"]})).await;
    let items: Vec<_> =
        (0..40_000).map(|id| json!({"id": id, "name": "The quick brown fox", "note": "café", "on": true})).collect();
    let body = json!({"items": items, "last": "4111 1111 1111 1111"}).to_string();
    assert!(body.len() > 2 << 20, "{}", body.len());
    let reply = post(&world, "/sink/large", "Content-Type: application/json\r\n", &body).await;
    assert_eq!((reply.status, &reply.json()["bytes"]), (200, &json!(body.len())), "{reply:?}");
    assert_eq!(fields(&world, "/sink/large").await["request.body/last"], "(redacted)");
}
