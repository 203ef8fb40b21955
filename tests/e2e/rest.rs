//! The REST API as an operator's script meets it.

use serde_json::{Value, json};
use tidegate_tests::{Rest, World, gateway, rest::items, world::service};

fn example() -> Value {
    service("api.example.com", ([127, 0, 0, 1], 9443).into())
}

#[tokio::test]
async fn a_document_is_written_read_listed_and_deleted() {
    let world = World::start().await;
    let made = world.rest.put("/v1/services/api", &example()).await;
    assert_eq!(made.status, 201, "{made:?}\n{}", made.text());
    let again = world.rest.put("/v1/services/api", &example()).await;
    assert_eq!(again.status, 200, "the same again is no mistake: {again:?}");
    let read = world.rest.get("/v1/services/api").await;
    assert_eq!(read.status, 200);
    assert!(read.text().contains("api.example.com"));
    let list = items(world.rest.get("/v1/services").await.json());
    assert_eq!(list.len(), 1, "{list:?}");
    assert!(matches!(world.rest.delete("/v1/services/api").await.status, 200 | 204));
    assert_eq!(world.rest.get("/v1/services/api").await.status, 404);
    assert_eq!(world.rest.delete("/v1/services/api").await.status, 404);
    for collection in ["services", "routes", "rules", "workloads", "issuers", "credentials", "plugins"] {
        assert_eq!(world.rest.get(&format!("/v1/{collection}")).await.status, 200, "{collection}");
    }
}

#[tokio::test]
async fn every_mistake_is_listed_with_its_place() {
    let world = World::start().await;
    let wrong = json!({
        "hosts": ["api.example.com", "0x7f.1"], "ports": [{"number": 443, "protocol": "carrier pigeon"}],
        "tls": {"mode": "simple", "trust": "nobody"}, "colour": "blue",
    });
    let reply = world.rest.put("/v1/services/api", &wrong).await;
    assert_eq!(reply.status, 422, "{reply:?}\n{}", reply.text());
    assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    let problem = reply.json();
    let places: Vec<_> =
        problem["mistakes"].as_array().expect("a list").iter().filter_map(|one| one["pointer"].as_str()).collect();
    for place in ["/hosts/1", "/ports/0/protocol", "/colour"] {
        assert!(places.contains(&place), "{place} is not in {places:?}: {problem}");
    }
    assert_eq!(world.rest.get("/v1/services/api").await.status, 404, "nothing was written");
    let not_json = world.rest.call("PUT", "/v1/services/api", &[("content-type", "application/json")], b"{".to_vec()).await;
    assert!(matches!(not_json.status, 400 | 422), "{not_json:?}");
}

#[tokio::test]
async fn a_dry_run_changes_nothing_and_says_what_would() {
    let world = World::start().await;
    world.in_force().await;
    let before = world.gateway.metric("tidegate_revision", "").await;
    let reply = world.rest.put("/v1/services/api?dry_run=true", &example()).await;
    assert_eq!(reply.status, 200, "{reply:?}\n{}", reply.text());
    assert_eq!(world.rest.get("/v1/services/api").await.status, 404);
    let made = world.rest.put("/v1/services/other", &service("other.example.com", ([127, 0, 0, 1], 9443).into())).await;
    let tag: f64 = made.header("etag").and_then(|tag| tag.trim_matches('"').parse().ok()).expect("a revision");
    assert_eq!(tag, before + 1.0, "no revision was made in between");
    let wrong = world.rest.put("/v1/services/api?dry_run=true", &json!({"hosts": []})).await;
    assert_eq!(wrong.status, 422, "{wrong:?}");
}

#[tokio::test]
async fn a_write_on_top_of_what_was_not_seen_is_412() {
    let world = World::start().await;
    let first = world.rest.register("services", "api", &example()).await;
    let tag = first.header("etag").expect("a write answers its revision").to_owned();
    let body = || example().to_string().into_bytes();
    let changed = tidegate_tests::world::with(example(), "/resolution", json!("static")).to_string().into_bytes();
    let json = ("content-type", "application/json");
    let ok = world.rest.call("PUT", "/v1/services/api", &[json, ("if-match", &tag)], changed).await;
    assert_eq!(ok.status, 200, "{ok:?}\n{}", ok.text());
    let changed = tidegate_tests::world::with(example(), "/networks", json!(["127.0.0.1/32"]));
    world.rest.register("services", "api", &changed).await;
    let stale = world.rest.call("PUT", "/v1/services/api", &[json, ("if-match", &tag)], body()).await;
    assert_eq!(stale.status, 412, "{stale:?}");
    let stale = world.rest.call("DELETE", "/v1/services/api", &[("if-match", &tag)], Vec::new()).await;
    assert_eq!(stale.status, 412, "{stale:?}");
}

#[tokio::test]
async fn what_is_referred_to_cannot_be_deleted() {
    let world = World::start().await;
    world.rest.register("services", "api", &example()).await;
    world.rest.register("routes", "main", &json!({"service": "api"})).await;
    world.rest.register("rules", "allow", &json!({"action": "allow", "to": [{"services": ["api"]}]})).await;
    let refused = world.rest.delete("/v1/services/api").await;
    assert_eq!(refused.status, 409, "{refused:?}");
    let text = refused.text();
    assert!(text.contains("routes/main") && text.contains("rules/allow"), "{text}");
    assert_eq!(world.rest.delete("/v1/credentials/api-ca").await.status, 409, "the service believes it");
    for path in ["/v1/rules/allow", "/v1/routes/main", "/v1/services/api", "/v1/credentials/api-ca"] {
        let gone = world.rest.delete(path).await;
        assert!(matches!(gone.status, 200 | 204), "{path}: {gone:?}\n{}", gone.text());
    }
}

#[tokio::test]
async fn roles_are_kept_to() {
    let world = World::start().await;
    let directory = world.gateway.directory().path().display().to_string();
    let mint = |role: &str| {
        let (status, token, wrong) = gateway::run(&["token", "--data-dir", &directory, "--role", role, "--ttl", "8h"]);
        assert!(status.success(), "{wrong}");
        Rest::new(world.rest.address, token.trim())
    };
    let secret = json!({"kind": "secret", "value": "x"});
    let (viewer, editor, admin) = (mint("viewer"), mint("editor"), mint("admin"));
    assert_eq!(viewer.get("/v1/services").await.status, 200);
    assert_eq!(viewer.put("/v1/services/api", &example()).await.status, 403);
    assert!(matches!(editor.put("/v1/services/api", &example()).await.status, 200 | 201));
    assert_eq!(editor.put("/v1/credentials/x", &secret).await.status, 403);
    assert!(matches!(admin.put("/v1/credentials/x", &secret).await.status, 200 | 201));
    let nobody = Rest::new(world.rest.address, "not-a-token");
    let reply = nobody.get("/v1/services").await;
    assert_eq!(reply.status, 401, "{reply:?}");
    assert!(reply.header("www-authenticate").is_some(), "{reply:?}");
    let (status, _, said) = gateway::run(&["token", "--data-dir", &directory, "--role", "king", "--ttl", "8h"]);
    assert!(!status.success() && said.contains("viewer"), "{said}");
}

#[tokio::test]
async fn the_api_describes_itself() {
    let world = World::start().await;
    let document = world.rest.get("/openapi.json").await.json();
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.")), "{}", document["openapi"]);
    for path in ["/v1/services/{name}", "/v1/exchanges", "/v1/explain", "/v1/plugins/{name}"] {
        assert!(document["paths"].get(path).is_some(), "{path} is not described");
    }
    let page = world.rest.get("/docs").await;
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").is_some_and(|kind| kind.starts_with("text/html")), "{page:?}");
}

#[tokio::test]
async fn a_change_is_in_force_within_a_moment() {
    let world = World::start().await;
    let api = tidegate_tests::api::Api::start(tidegate_tests::api::Speaks::Http1).await;
    let mut raw = world.pod().await;
    for round in 0..20 {
        world.open_plain("api", "api.example.com", api.address).await;
        assert_eq!(raw.get("http://api.example.com/", "api.example.com", "").await.status, 200, "round {round}");
        world.rest.delete("/v1/rules/allow-api").await;
        world.in_force().await;
        let refused = raw.get("http://api.example.com/", "api.example.com", "").await;
        assert_eq!(refused.reason(), "no_rule_allows", "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_at_once_lose_nothing_where_each_says_what_it_has_seen() {
    const WRITERS: usize = 6;
    const TURNS: usize = 10;
    let world = World::start().await;
    let counter =
        |count: usize| json!({"networks": ["10.9.0.0/16"], "principal": "counter", "labels": {"count": count.to_string()}});
    world.rest.register("workloads", "counter", &counter(0)).await;
    let writers = (0..WRITERS).map(|_| {
        let rest = world.rest.clone();
        tokio::spawn(async move {
            let (mut written, mut refused) = (0, 0_usize);
            while written < TURNS {
                let seen = rest.get("/v1/workloads/counter").await;
                let tag = seen.header("etag").expect("a document has a revision").to_owned();
                let document = seen.json();
                let count = count_of(&document);
                let body = counter(count + 1).to_string().into_bytes();
                let headers = [("content-type", "application/json"), ("if-match", tag.as_str())];
                match rest.call("PUT", "/v1/workloads/counter", &headers, body).await.status {
                    200 => written += 1,
                    412 => refused += 1,
                    other => panic!("{other}"),
                }
            }
            refused
        })
    });
    let ended = futures_util::future::join_all(writers).await;
    let refused: usize = ended.into_iter().map(|refused| refused.expect("a writer ends")).sum();
    let last = world.rest.get("/v1/workloads/counter").await.json();
    assert_eq!(count_of(&last), WRITERS * TURNS, "every turn counts: {last}");
    assert!(refused > 0, "some had to look again, else nothing was shown");
}

fn count_of(workload: &Value) -> usize {
    let count = workload.pointer("/document/labels/count").and_then(Value::as_str).and_then(|count| count.parse().ok());
    count.unwrap_or_else(|| panic!("no count in {workload}"))
}
