//! Secrets stay where they were put: no answer, log line, record, metric or file shows one.

use serde_json::json;
use std::path::Path;
use tidegate_tests::{Options, World, certificates::Authority, tokens::TokenIssuer};

#[tokio::test]
async fn no_output_of_any_kind_shows_a_secret() {
    let records = tempfile::tempdir().expect("a temporary directory can be made");
    let file = records.path().join("exchanges.jsonl");
    let options = Options::default().flag("--record-log", file.display()).variable("TIDEGATE_LOG", "trace");
    let world = World::start_with(options).await;
    let issuer = TokenIssuer::new("https://issuer.example");
    world.rest.register("issuers", "cluster", &issuer.document()).await;
    let client = Authority::new("Partner").client("spiffe://partner/us");
    let value = "s3cr3t-value-that-nobody-may-see";
    world.rest.register("credentials", "key", &json!({"kind": "secret", "value": value})).await;
    let certificate = json!({"kind": "certificate", "chain": client.chain_pem, "key": client.key_pem});
    world.rest.register("credentials", "certificate", &certificate).await;
    let api = world.api("api.example.com").await;
    world.open("api", "api.example.com", api.address).await;
    let token = issuer.token("spiffe://cluster.local/ns/shop/sa/token");
    let bearer =
        format!("Proxy-Authorization: Bearer {token}\r\nAuthorization: Bearer upstream-{value}\r\nCookie: id={value}\r\n");
    let reply = world.pod().await.get(&format!("http://api.example.com/used?key={value}"), "api.example.com", &bearer).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    world.rest.record_to("/used").await;

    // Documents that are wrong in every way that quotes a document: what is refused must not be repeated either.
    let mut answers = String::new();
    for wrong in [
        json!({"kind": "secret", "value": value, "extra": 1}),
        json!({"kind": "certificate", "chain": "not PEM", "key": value}),
        json!({"kind": "secret", "value": [value]}),
        json!({"kind": value, "value": value}),
        json!([value]),
    ] {
        let reply = world.rest.put("/v1/credentials/wrong", &wrong).await;
        assert!(matches!(reply.status, 400 | 422), "{wrong}: {reply:?}");
        answers += &reply.text();
    }
    for path in ["/v1/credentials", "/v1/credentials/key", "/v1/credentials/certificate", "/v1/exchanges", "/openapi.json"] {
        answers += &world.rest.get(path).await.text();
    }
    answers += &world.gateway.metrics().await;

    let body: String = client.key_pem.lines().filter(|line| !line.starts_with("---")).take(1).collect();
    let admin = world.rest.token().rsplit('.').next().unwrap_or_default().to_owned();
    let signature = token.rsplit('.').next().unwrap_or_default().to_owned();
    for (what, secret) in [("a secret's value", value.to_owned()), ("a private key", body), ("a caller's token", signature)] {
        assert!(!answers.contains(&secret), "{what} is in an answer: {answers}");
        assert!(!world.gateway.output().contains(&secret), "{what} is in the output");
        nowhere_in(world.gateway.directory().path(), &secret, &[], what);
        nowhere_in(records.path(), &secret, &[], what);
    }
    assert!(!world.gateway.output().contains(&admin), "the admin token is in the output");
    nowhere_in(world.gateway.directory().path(), &admin, &["admin.token"], "the admin token");
}

/// No file below `folder` but the `excepted` ones contains `secret`.
fn nowhere_in(folder: &Path, secret: &str, excepted: &[&str], what: &str) {
    for entry in std::fs::read_dir(folder).expect("a folder can be read") {
        let path = entry.expect("a folder can be read").path();
        if path.is_dir() {
            nowhere_in(&path, secret, excepted, what);
        } else if !excepted.iter().any(|name| path.ends_with(name)) {
            let bytes = std::fs::read(&path).expect("a file can be read");
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{what} is in {}", path.display());
        }
    }
}

#[tokio::test]
async fn files_that_hold_secrets_are_readable_by_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::start().await;
    let mut looked_at = 0;
    for entry in std::fs::read_dir(world.gateway.directory().path()).expect("a folder can be read") {
        let path = entry.expect("a folder can be read").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.contains("key") || name.contains("token") {
            let mode = std::fs::metadata(&path).expect("a file can be looked at").permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{}", path.display());
            looked_at += 1;
        }
    }
    assert!(looked_at >= 2, "the admin token and a key are there");
}
