//! Records: one for each exchange, in the API and in the file, listed, filtered, paged and followed.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use tidegate_tests::{
    Options, Raw, World,
    api::{Api, Speaks},
    until,
    wait::soon,
    world::{POD, POD_PRINCIPAL},
};

#[tokio::test]
async fn a_record_says_all_there_is_to_say() {
    let world = World::start().await;
    let api = world.api("api.example.com").await;
    world.open("api", "api.example.com", api.address).await;
    world.rest.register("rules", "watch", &json!({"action": "report", "to": [{"services": ["api"]}]})).await;
    world.rest.register("routes", "main", &json!({"service": "api"})).await;
    world.in_force().await;
    let mut raw = world.pod().await;
    raw.send("POST http://api.example.com/echo?secret=1 HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 5\r\n\r\nhello")
        .await;
    assert_eq!(raw.reply().await.text(), "hello");
    let record = world.rest.record_to("/echo").await;
    let expected = json!({
        "workload": POD_PRINCIPAL, "method": "POST", "target": "http://api.example.com:80/echo", "protocol": "HTTP/1.1",
        "verdict": "allowed", "rule": "allow-api", "reason": "allowed_by_rule", "reports": ["watch"], "route": "main",
        "service": "api", "status": 200, "request_bytes": 5, "response_bytes": 5,
    });
    for (key, value) in expected.as_object().expect("an object") {
        assert_eq!(&record[key], value, "{key}: {record}");
    }
    assert!(record["id"].as_str().is_some_and(|id| id.len() == 24), "{record}");
    assert!(record["trace_id"].as_str().is_some_and(|id| id.len() == 32), "{record}");
    assert!(record["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{record}");
    assert!(record["source"].as_str().is_some_and(|source| source.starts_with(&POD.to_string())), "{record}");
    let total = record["durations"]["total_us"].as_u64().expect("it took time");
    let parts = ["connect_us", "tls_us", "first_byte_us"].map(|part| record["durations"][part].as_u64().expect("a phase"));
    assert!(parts.iter().sum::<u64>() <= total, "phases do not outlast the whole: {record}");
}

#[tokio::test]
async fn the_file_holds_one_line_for_each_exchange() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let file = folder.path().join("exchanges.jsonl");
    let mut world = World::start_with(Options::default().flag("--record-log", file.display())).await;
    let api = Api::start(Speaks::Http1).await;
    world.open_plain("plain", "plain.example.com", api.address).await;
    for at in 0..50 {
        world.get(&format!("http://plain.example.com/{at}")).await;
        world.get(&format!("http://unknown.example.com/{at}")).await;
    }
    world.gateway.terminate();
    assert!(world.gateway.ended().await.success());
    let text = std::fs::read_to_string(&file).expect("the file is there");
    let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("a line is a record")).collect();
    let targets: BTreeSet<_> = records.iter().filter_map(|record| record["target"].as_str()).collect();
    let ids: BTreeSet<_> = records.iter().filter_map(|record| record["id"].as_str()).collect();
    assert_eq!((records.len(), targets.len(), ids.len()), (100, 100, 100), "exactly one each");
}

#[tokio::test]
async fn records_are_filtered_and_paged() {
    let world = World::start().await;
    let api = Api::start(Speaks::Http1).await;
    world.open_plain("one", "one.example.com", api.address).await;
    world.open_plain("two", "two.example.com", api.address).await;
    for at in 0..10 {
        world.get(&format!("http://one.example.com/{at}")).await;
        world.get(&format!("http://two.example.com/{at}")).await;
        world.get(&format!("http://unknown.example.com/{at}")).await;
    }
    until("thirty records", async || (world.rest.records("").await.len() == 30).then_some(())).await;
    assert_eq!(world.rest.records("&service=one").await.len(), 10);
    assert_eq!(world.rest.records("&verdict=denied").await.len(), 10);
    let workload = format!("&workload={}", POD_PRINCIPAL.replace(':', "%3A").replace('/', "%2F"));
    assert_eq!(world.rest.records(&workload).await.len(), 30);
    assert_eq!(world.rest.records("&service=one&verdict=denied").await.len(), 0);

    let mut ids = Vec::new();
    let mut path = "/v1/exchanges?limit=7".to_owned();
    loop {
        let page = world.rest.get(&path).await.json();
        let next = page["next"].as_str().map(str::to_owned);
        ids.extend(tidegate_tests::rest::items(page).into_iter().filter_map(|record| record["id"].as_str().map(str::to_owned)));
        match next {
            Some(next) => path = format!("/v1/exchanges?limit=7&cursor={next}"),
            None => break,
        }
    }
    assert_eq!((ids.len(), ids.iter().collect::<BTreeSet<_>>().len()), (30, 30), "each once");
    // In order of arrival: each worker's are newest first, and two workers' are apart by no more than a batch may wait.
    let micros = |id: &String| u64::from_str_radix(&id[..16], 16).expect("an id begins with its time");
    for worker in ["00", "01"] {
        let times: Vec<_> = ids.iter().filter(|id| &id[16..18] == worker).map(micros).collect();
        assert!(times.is_sorted_by(|newer, older| newer >= older), "worker {worker}: {ids:?}");
    }
    let wrong = world.rest.get("/v1/exchanges?verdict=perhaps").await;
    assert!(matches!(wrong.status, 400 | 422), "{wrong:?}");
}

#[tokio::test]
async fn records_are_followed_as_they_come() {
    let world = World::start().await;
    let api = Api::start(Speaks::Http1).await;
    world.open_plain("plain", "plain.example.com", api.address).await;
    let mut follower = Raw::connect(world.rest.address).await;
    let token = world.rest.token();
    follower
        .send(format!(
            "GET /v1/exchanges?follow=true HTTP/1.1\r\nHost: admin\r\nAccept: text/event-stream\r\nAuthorization: Bearer {token}\r\n\r\n"
        ))
        .await;
    let head = follower.head().await;
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")), "{head:?}");
    for path in ["/first", "/second"] {
        world.get(&format!("http://plain.example.com{path}")).await;
        let mut heard = String::new();
        while !heard.contains(path) {
            let piece = soon("the event", follower.some()).await;
            assert!(!piece.is_empty(), "the stream ended: {heard}");
            heard += &String::from_utf8_lossy(&piece);
        }
        assert!(heard.contains("data:"), "{heard}");
    }
}

#[tokio::test]
async fn followers_hear_what_they_asked_for_until_the_gateway_ends() {
    let mut world = World::start().await;
    let api = Api::start(Speaks::Http1).await;
    world.open_plain("plain", "plain.example.com", api.address).await;
    let mut follower = Raw::connect(world.rest.address).await;
    let token = world.rest.token();
    let request = format!(
        "GET /v1/exchanges?follow=true&verdict=denied HTTP/1.1\r\nHost: admin\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    follower.send(request).await;
    assert_eq!(follower.head().await.status, 200);
    world.get("http://plain.example.com/allowed").await;
    world.get("http://unknown.example.com/denied").await;
    let mut heard = String::new();
    while !heard.contains("/denied") {
        let piece = soon("the event", follower.some()).await;
        assert!(!piece.is_empty(), "the stream ended: {heard}");
        heard += &String::from_utf8_lossy(&piece);
    }
    assert!(!heard.contains("/allowed"), "{heard}");
    world.gateway.terminate();
    soon("the stream to end", follower.rest()).await;
    assert!(world.gateway.ended().await.success());
}
