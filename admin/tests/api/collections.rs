//! Documents in, documents out, and what is refused.

use crate::harness::{Gate, service};
use serde_json::json;
use sqlx::{ConnectOptions as _, Connection as _, sqlite::SqliteConnectOptions};
use std::{sync::Arc, time::Duration};
use tempfile::TempDir;
use tidegate_admin::{Role, Settings, mint_token};
use tidegate_policy::publication::{Content, Module, Unread};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

#[tokio::test]
async fn a_document_is_created_shown_replaced_listed_and_deleted() {
    let mut gate = Gate::start().await;
    let created = gate.put("/v1/services/payments", service("api.payments.example")).await.is(201);
    assert!(created.head.contains("etag: \"1\""), "{}", created.head);
    gate.publications.wait_for(|publication| publication.revision == 1).await.expect("it is published");
    assert!(gate.publications.borrow().snapshot.service("payments").is_some());
    let shown = gate.get("/v1/services/payments").await.is(200).json();
    assert_eq!((shown["name"].as_str(), shown["revision"].as_i64()), (Some("payments"), Some(1)));
    assert_eq!(shown["document"]["hosts"], json!(["api.payments.example"]));
    let tag = [("if-none-match", "\"1\"")];
    gate.send("GET", "/v1/services/payments", &tag, b"").await.is(304);
    let same = gate.put("/v1/services/payments", service("api.payments.example")).await.is(200);
    assert!(same.head.contains("etag: \"1\""), "the same document is no change");
    let replaced = gate.put("/v1/services/payments", service("eu.payments.example")).await.is(200).json();
    assert_eq!(replaced["revision"], 2);
    for name in ["a", "b", "c"] {
        gate.put(&format!("/v1/services/{name}"), service(&format!("{name}.example"))).await.is(201);
    }
    let first = gate.get("/v1/services?limit=3").await.is(200).json();
    let names = |page: &serde_json::Value| -> Vec<String> {
        page["items"].as_array().expect("items").iter().map(|item| item["name"].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!((names(&first), first["next"].as_str()), (vec!["a".into(), "b".into(), "c".into()], Some("c")));
    let second = gate.get("/v1/services?limit=3&cursor=c").await.is(200).json();
    assert_eq!((names(&second), second["next"].as_str()), (vec!["payments".to_owned()], None));
    gate.delete("/v1/services/payments").await.is(204);
    gate.get("/v1/services/payments").await.is(404);
    gate.delete("/v1/services/payments").await.is(404);
}

#[tokio::test]
async fn preconditions_and_dry_runs_hold() {
    let gate = Gate::start().await;
    let put = async |header: (&str, &str), query: &str, host: &str| {
        let path = format!("/v1/services/payments{query}");
        gate.send("PUT", &path, &[header], service(host).to_string().as_bytes()).await
    };
    put(("if-match", "*"), "", "a.example").await.is(412);
    let dry = put(("if-none-match", "*"), "?dry_run=true", "a.example").await.is(200).json();
    assert_eq!((dry["outcome"].as_str(), &dry["before"]), (Some("created"), &json!(null)));
    assert_eq!(dry["after"]["hosts"], json!(["a.example"]));
    gate.get("/v1/services/payments").await.is(404);
    put(("if-none-match", "*"), "", "a.example").await.is(201);
    put(("if-none-match", "*"), "", "a.example").await.is(412);
    put(("if-match", "\"7\""), "", "b.example").await.is(412);
    put(("if-match", "\"1\""), "", "b.example").await.is(200);
    gate.delete("/v1/services/payments?dry_run=true").await.is(200);
    gate.send("DELETE", "/v1/services/payments", &[("if-match", "\"1\"")], b"").await.is(412);
    gate.get("/v1/services/payments").await.is(200);
    assert_eq!(gate.publications.borrow().revision, 2);
}

#[tokio::test]
async fn every_mistake_is_listed() {
    let gate = Gate::start().await;
    let document = json!({
        "hosts": ["good.example", "bad..example", 7], "ports": [{"number": 70000, "protocol": "https"}, {"number": 80, "protocol": "gopher"}],
        "colour": "red",
    });
    let mut pointers = gate.put("/v1/services/payments", document).await.is(422).pointers();
    pointers.sort();
    assert_eq!(pointers, ["/colour", "/hosts/1", "/hosts/2", "/ports/0/number", "/ports/1/protocol"]);
    let dangling = json!({"service": "nowhere", "filters": [{"plugin": "nothing"}]});
    let mut pointers = gate.put("/v1/routes/r", dangling).await.is(422).pointers();
    pointers.sort();
    assert_eq!(pointers, ["/filters/0/plugin", "/service"]);
    let twice = br#"{"hosts": ["a.example"], "ports": [{"number": 443, "number": 80, "protocol": "https"}]}"#;
    assert_eq!(gate.send("PUT", "/v1/services/payments", &[], twice).await.is(422).pointers(), ["/ports/0/number"]);
    gate.put("/v1/services/a.example", service("a.example")).await.is(201);
    let taken = gate.put("/v1/services/b", service("a.example")).await.is(422);
    assert!(!taken.pointers().is_empty());
    assert_eq!(gate.publications.borrow().revision, 1, "what was refused changed nothing");
}

#[tokio::test]
async fn what_is_referred_to_cannot_be_deleted() {
    let gate = Gate::start().await;
    gate.put("/v1/services/payments", service("api.payments.example")).await.is(201);
    let wasm = [("content-type", "application/wasm")];
    gate.send("POST", "/v1/plugins/audit", &wasm, b"\0asm one").await.is(201);
    gate.put("/v1/routes/charges", json!({"service": "payments", "filters": [{"plugin": "audit"}]})).await.is(201);
    let refused = gate.delete("/v1/services/payments").await.is(409).json();
    assert_eq!(refused["referrers"], json!(["/routes/charges/service"]));
    let refused = gate.delete("/v1/plugins/audit").await.is(409).json();
    assert_eq!(refused["referrers"], json!(["/routes/charges/filters/0/plugin"]));
    gate.delete("/v1/routes/charges").await.is(204);
    gate.delete("/v1/plugins/audit").await.is(204);
    gate.delete("/v1/services/payments").await.is(204);
}

#[tokio::test]
async fn what_a_filter_is_granted_exists_and_cannot_be_deleted() {
    let gate = Gate::start().await;
    gate.put("/v1/services/payments", service("api.payments.example")).await.is(201);
    gate.put("/v1/services/spare", service("spare.payments.example")).await.is(201);
    gate.put("/v1/credentials/key", json!({"kind": "secret", "value": "s3cret"})).await.is(201);
    let wasm = [("content-type", "application/wasm")];
    gate.send("POST", "/v1/plugins/router", &wasm, b"\0asm one").await.is(201);
    let route = |grants: serde_json::Value| json!({"service": "payments", "filters": [{"plugin": "router", "grants": grants}]});
    let wrong = route(json!({"services": ["spare", "gone"], "credentials": ["none"]}));
    let mut pointers = gate.put("/v1/routes/charges", wrong).await.is(422).pointers();
    pointers.sort();
    assert_eq!(pointers, ["/filters/0/grants/credentials/0", "/filters/0/grants/services/1"]);
    let wrong = route(json!({"secrets": ["key"], "paths": ["v1"]}));
    let mut pointers = gate.put("/v1/routes/charges", wrong).await.is(422).pointers();
    pointers.sort();
    assert_eq!(pointers, ["/filters/0/grants/paths/0", "/filters/0/grants/secrets"]);
    gate.put("/v1/routes/charges", route(json!({"services": ["spare"], "credentials": ["key"]}))).await.is(201);
    let refused = gate.delete("/v1/services/spare").await.is(409).json();
    assert_eq!(refused["referrers"], json!(["/routes/charges/filters/0/grants/services/0"]));
    let refused = gate.delete("/v1/credentials/key").await.is(409).json();
    assert_eq!(refused["referrers"], json!(["/routes/charges/filters/0/grants/credentials/0"]));
    gate.delete("/v1/routes/charges").await.is(204);
    gate.delete("/v1/services/spare").await.is(204);
    gate.delete("/v1/credentials/key").await.is(204);
}

#[tokio::test]
async fn plugins_are_inspected_and_routes_tried_with_them() {
    let gate = Gate::start_in(TempDir::new().expect("a directory"), |settings| settings.module_bytes = 1000).await;
    let wasm = [("content-type", "application/wasm")];
    let refused = gate.send("PUT", "/v1/plugins/audit", &wasm, b"not wasm").await.is(422).json();
    assert_eq!(refused["mistakes"].as_array().map(Vec::len), Some(2), "every reason is listed");
    let large = gate.send("PUT", "/v1/plugins/audit", &wasm, &[0; 1001]).await.is(413);
    assert!(large.text.contains("module_bytes"), "{}", large.text);
    let facts = gate.send("POST", "/v1/plugins/audit", &wasm, b"\0asm one").await.is(201).json();
    assert_eq!(facts["document"]["size_bytes"], 8);
    assert_eq!(facts["document"]["world"], "tidegate:filter/filter@0.1.0");
    gate.put("/v1/services/payments", service("api.payments.example")).await.is(201);
    let route = |config: serde_json::Value| json!({"service": "payments", "filters": [{"plugin": "audit", "config": config}]});
    let refused = gate.put("/v1/routes/charges", route(json!({"refuse": "no such field"}))).await.is(422);
    assert_eq!(refused.pointers(), ["/filters/0/config"]);
    assert!(refused.text.contains("no such field"), "the filter's own message is shown: {}", refused.text);
    gate.put("/v1/routes/charges", route(json!({"fine": 1}))).await.is(201);
    let refused = gate.send("PUT", "/v1/plugins/audit", &wasm, b"\0asm picky").await.is(422);
    assert!(refused.text.contains("/routes/charges/filters/0/config"), "{}", refused.text);
    gate.send("PUT", "/v1/plugins/audit", &wasm, b"\0asm two").await.is(200);
    assert_eq!(published_module(&gate).await, Ok(b"\0asm two".as_slice().into()));
}

/// What the data plane reads of the only module there is.
async fn published_module(gate: &Gate) -> Result<Arc<[u8]>, Unread> {
    let module = gate.publications.borrow().modules.values().next().expect("it is published").clone();
    assert!(matches!(module.content, Content::Stored(_)), "it is not kept in memory");
    tokio::task::spawn_blocking(move || module.read()).await.expect("it ends")
}

#[tokio::test]
async fn modules_are_read_from_the_database_as_long_as_they_are_there() {
    let gate = Gate::start().await;
    let wasm = [("content-type", "application/wasm")];
    gate.send("PUT", "/v1/plugins/audit", &wasm, b"\0asm one").await.is(201);
    let first = gate.publications.borrow().modules.values().next().expect("it is published").clone();
    let read = |module: Module| async move { tokio::task::spawn_blocking(move || module.read()).await.expect("it ends") };
    assert_eq!(read(first.clone()).await, Ok(b"\0asm one".as_slice().into()));
    gate.send("PUT", "/v1/plugins/audit", &wasm, b"\0asm two").await.is(200);
    assert_eq!(read(first).await, Err(Unread::Gone), "another is there by now");
    let gate = Gate::start_in(gate.stop().await, |_| {}).await;
    assert_eq!(published_module(&gate).await, Ok(b"\0asm two".as_slice().into()));
    let directory = gate.stop().await;
    let database = SqliteConnectOptions::new().filename(directory.path().join("tidegate.db"));
    let mut database = database.connect().await.expect("it opens");
    sqlx::query("UPDATE module SET bytes = x'00'").execute(&mut database).await.expect("it is written");
    database.close().await.expect("it closes");
    let gate = Gate::start_in(directory, |_| {}).await;
    let Err(Unread::Failed(reason)) = published_module(&gate).await else { panic!("other bytes than were uploaded") };
    assert!(reason.contains("restore the database from a backup"), "{reason}");
}

#[tokio::test]
async fn a_module_that_is_lost_is_there_again_when_it_is_uploaded() {
    let mut gate = Gate::start().await;
    let wasm = [("content-type", "application/wasm")];
    gate.send("PUT", "/v1/plugins/audit", &wasm, b"\0asm one").await.is(201);
    let database = gate.directory.path().join("tidegate.db");
    for loss in ["UPDATE module SET bytes = x'00'", "DELETE FROM module"] {
        let options = SqliteConnectOptions::new().filename(&database).foreign_keys(false);
        let mut other = options.connect().await.expect("it opens");
        sqlx::query(loss).execute(&mut other).await.expect("it is written");
        other.close().await.expect("it closes");
        published_module(&gate).await.unwrap_err();
        gate.publications.mark_unchanged();
        gate.send("PUT", "/v1/plugins/audit?dry_run=true", &wasm, b"\0asm one").await.is(200);
        published_module(&gate).await.unwrap_err();
        gate.send("PUT", "/v1/plugins/audit", &wasm, b"\0asm one").await.is(200);
        assert_eq!(published_module(&gate).await, Ok(b"\0asm one".as_slice().into()));
        assert!(gate.publications.has_changed().expect("it runs"), "what failed for want of it is made ready again");
        gate.publications.mark_unchanged();
        gate.send("PUT", "/v1/plugins/audit", &wasm, b"\0asm one").await.is(200);
        assert!(!gate.publications.has_changed().expect("it runs"), "and what is whole is left alone");
    }
}

#[tokio::test]
async fn roles_permit_what_the_description_says() {
    let gate = Gate::start().await;
    let token = |role, ttl| format!("Bearer {}", mint_token(gate.directory.path(), role, ttl).expect("a token is minted"));
    let hour = Duration::from_secs(3600);
    let body = service("a.example").to_string();
    for (role, method, path, expected) in [
        // The router undoes percent-encoding, and so must the guard.
        (Role::Editor, "PUT", "/v1/%63redentials/a", 403),
        (Role::Editor, "DELETE", "/v1/i%73suers/a", 403),
        (Role::Viewer, "GET", "/v1/services", 200),
        (Role::Viewer, "PUT", "/v1/services/a", 403),
        (Role::Editor, "PUT", "/v1/services/a", 201),
        (Role::Editor, "PUT", "/v1/credentials/a", 403),
        (Role::Editor, "DELETE", "/v1/issuers/a", 403),
        (Role::Admin, "DELETE", "/v1/issuers/a", 404),
    ] {
        let answer = gate.send(method, path, &[("authorization", &token(role, hour))], body.as_bytes()).await;
        assert_eq!(answer.status, expected, "{role:?} {method} {path}: {}", answer.text);
    }
    let forged = {
        let other = TempDir::new().expect("a directory");
        format!("Bearer {}", mint_token(other.path(), Role::Admin, hour).expect("a token is minted"))
    };
    let good = token(Role::Admin, hour);
    let unsigned = format!("Bearer eyJhbGciOiJub25lIn0.{}.", good.split('.').nth(1).expect("claims"));
    for (value, why) in
        [("", "needs a token"), ("Basic eDp5", "not a bearer token"), (&forged, "not signed by"), (&unsigned, "cannot be read")]
    {
        let answer = gate.send("GET", "/v1/services", &[("authorization", value)], b"").await.is(401);
        assert!(answer.text.contains(why) && answer.head.contains("www-authenticate: bearer"), "{value}: {}", answer.text);
    }
}

/// Method, path, headers, body, and the status expected.
type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a [u8], u16);

#[tokio::test]
async fn whatever_is_asked_wrongly_is_answered_as_a_problem() {
    let gate = Gate::start_in(TempDir::new().expect("a directory"), |settings| settings.document_bytes = 100).await;
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let json = [("content-type", "application/json")];
    let cases: &[Case<'_>] = &[
        ("GET", "/nothing", &[], b"", 404),
        ("GET", "/v1/nothing", &[], b"", 404),
        ("GET", "/v1/services/absent", &[], b"", 404),
        ("GET", "/v1/services/Not%20A%20Name", &[], b"", 400),
        ("GET", "/v1/services/%ff", &[], b"", 400),
        ("GET", "/v1/services?limit=0", &[], b"", 400),
        ("GET", "/v1/services?colour=red", &[], b"", 400),
        ("PATCH", "/v1/services/a", &[], b"", 405),
        ("POST", "/v1/services/a", &[], b"{}", 405),
        ("PUT", "/v1/services/a", &form, b"a=b", 415),
        ("PUT", "/v1/services/a", &json, b"{", 422),
        ("PUT", "/v1/services/a", &json, b"", 422),
        ("PUT", "/v1/services/a", &json, &[b' '; 101], 413),
        ("PUT", "/v1/plugins/a", &json, b"{}", 415),
        ("GET", "/v1/exchanges?since=yesterday", &[], b"", 400),
        ("GET", "/v1/exchanges?verdict=perhaps", &[], b"", 400),
    ];
    for (method, path, headers, body, status) in cases {
        let answer = gate.send(method, path, headers, body).await;
        assert_eq!(answer.status, *status, "{method} {path}: {}", answer.text);
        assert!(answer.head.contains("content-type: application/problem+json"), "{method} {path}: {}", answer.head);
        assert_eq!(answer.json()["status"], *status, "{method} {path}");
        assert!(answer.json()["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
    }
}

#[tokio::test]
async fn explain_answers_by_the_deciding_code() {
    let gate = Gate::start().await;
    gate.put("/v1/services/payments", service("api.payments.example")).await.is(201);
    gate.put("/v1/workloads/checkout", json!({"networks": ["10.1.0.0/16"], "namespace": "shop", "principal": "checkout"}))
        .await
        .is(201);
    let rule =
        json!({"action": "allow", "from": [{"namespaces": ["shop"]}], "to": [{"services": ["payments"], "methods": ["POST"]}]});
    gate.put("/v1/rules/charges", rule).await.is(201);
    let ask = async |from: serde_json::Value, method: &str, url: &str| {
        let question = json!({"from": from, "request": {"method": method, "url": url}}).to_string();
        gate.send("POST", "/v1/explain", &[("content-type", "application/json")], question.as_bytes()).await
    };
    let pod = || json!({"address": "10.1.2.3"});
    let allowed = ask(pod(), "POST", "http://api.payments.example/v1/charges").await.is(200).json();
    assert_eq!(allowed["verdict"], "allowed");
    assert_eq!((&allowed["rule"], &allowed["service"], &allowed["port"]), (&json!("charges"), &json!("payments"), &json!(443)));
    assert_eq!((&allowed["workload"], &allowed["revision"]), (&json!("checkout"), &json!(3)));
    let denied = ask(pod(), "GET", "http://api.payments.example/v1/charges").await.is(200).json();
    assert_eq!(
        (&denied["verdict"], &denied["reason"], &denied["status"]),
        (&json!("denied"), &json!("no_rule_allows"), &json!(403))
    );
    let unknown = ask(pod(), "CONNECT", "elsewhere.example:443").await.is(200).json();
    assert_eq!(unknown["reason"], "unregistered_host");
    let described = ask(json!({"namespace": "shop"}), "POST", "https://api.payments.example/").await.is(200).json();
    assert_eq!(described["verdict"], "allowed");
    assert_eq!(ask(pod(), "GET", "ftp://api.payments.example/").await.is(422).pointers(), ["/request/url"]);
    assert_eq!(ask(json!({"adress": 1}), "GET", "http://a.example/").await.is(422).pointers(), ["/from/adress"]);
}

#[tokio::test]
async fn the_open_resources_need_no_token() {
    let gate = Gate::start().await;
    let none = [("authorization", "")];
    for (path, text) in [
        ("/healthz", "alive"),
        ("/readyz", "ready"),
        ("/metrics", "tidegate_api_requests_total"),
        ("/metrics", "tidegate_of_the_data_plane 1"),
        ("/openapi.json", "\"openapi\": \"3.1.0\""),
        ("/docs", "openapi.json"),
    ] {
        let answer = gate.send("GET", path, &none, b"").await.is(200);
        assert!(answer.text.contains(text), "{path}");
    }
}

#[tokio::test]
async fn the_bodies_of_all_requests_have_a_limit_together() {
    let change = |settings: &mut Settings| {
        (settings.api_body_bytes, settings.document_bytes, settings.module_bytes) = (1 << 10, 64 << 10, 1 << 10);
    };
    let gate = Gate::start_in(TempDir::new().expect("a directory"), change).await;
    let large = format!("{}{}", service("api.example"), " ".repeat(40 << 10));
    let (most, last) = large.split_at(large.len() - 1);
    let mut slow = TcpStream::connect(gate.address).await.expect("it listens");
    let head = format!(
        "PUT /v1/services/slow HTTP/1.1\r\nhost: gate\r\nconnection: close\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\r\n",
        gate.token,
        large.len()
    );
    slow.write_all(format!("{head}{most}").as_bytes()).await.expect("it is taken");
    let json = [("content-type", "application/json")];
    let put = || gate.send("PUT", "/v1/services/quick?dry_run=true", &json, large.as_bytes());
    // Until the slow one's body is there the other has room.
    let refused = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            let answer = put().await;
            if answer.status == 503 {
                return answer;
            }
        }
    });
    let refused = refused.await.expect("there is no room beside the slow one");
    assert!(refused.text.contains("api_body_bytes"), "{}", refused.text);
    assert!(gate.metrics.bodies_refused.value() > 0);
    gate.get("/v1/services").await.is(200);
    slow.write_all(last.as_bytes()).await.expect("it is taken");
    let mut answer = String::new();
    slow.read_to_string(&mut answer).await.expect("it is answered");
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    let read = put().await.is(422);
    assert!(read.text.contains("api.example"), "there is room again, and its mistake is found: {}", read.text);
}
