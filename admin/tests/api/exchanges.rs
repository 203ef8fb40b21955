//! Records: stored, filtered, paged, followed, dropped visibly, removed by age and size.

use crate::harness::Gate;
use serde_json::{Value, json};
use sqlx::{ConnectOptions as _, Connection as _, sqlite::SqliteConnectOptions};
use tidegate_policy::exchange::Batch;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A record of the given number, at that many seconds after 2026-01-01T00:00:00Z.
fn record(number: u64, service: &str, verdict: &str) -> String {
    let us = (1_767_225_600 + number) * 1_000_000;
    let record = json!({
        "time": format!("2026-01-01T00:{:02}:{:02}.000000Z", number / 60, number % 60), "workload": "checkout", "source": "10.0.0.1",
        "method": "GET", "target": "http://a.example/", "verdict": verdict, "service": service, "reason": "allowed_by_rule",
    });
    let rest = record.to_string();
    format!("{{\"id\":\"{us:016x}{number:08x}\",{}\n", &rest[1..])
}

fn batch(lines: &[String]) -> Batch {
    let began = |line: &String| u64::from_str_radix(&line[7..23], 16).expect("it begins with its id");
    let (first_us, last_us) = (lines.iter().map(began).min().expect("a line"), lines.iter().map(began).max().expect("a line"));
    Batch { count: u32::try_from(lines.len()).expect("few"), first_us, last_us, lines: lines.concat().into_bytes() }
}

async fn stored(gate: &Gate, count: u64) {
    while gate.metrics.records_stored.value() < count {
        tokio::task::yield_now().await;
    }
}

fn keep_for_ever(settings: &mut tidegate_admin::Settings) {
    settings.exchange_max_age = std::time::Duration::from_secs(100 * 365 * 24 * 3600);
}

fn numbers(page: &Value) -> Vec<u64> {
    let number = |item: &Value| u64::from_str_radix(&item["id"].as_str().expect("an id")[16..], 16).expect("a number");
    page["items"].as_array().expect("items").iter().map(number).collect()
}

#[tokio::test]
async fn records_are_paged_newest_first_and_filtered() {
    let gate = Gate::start_in(tempfile::TempDir::new().expect("a directory"), keep_for_ever).await;
    for start in [0_u64, 10, 20] {
        let lines: Vec<_> = (start..start + 10)
            .map(|number| {
                record(number, if number % 2 == 0 { "even" } else { "odd" }, if number == 13 { "denied" } else { "allowed" })
            })
            .collect();
        gate.records.send(batch(&lines)).await.expect("it takes records");
    }
    stored(&gate, 30).await;
    let mut seen = Vec::new();
    let mut path = "/v1/exchanges?limit=7".to_owned();
    loop {
        let page = gate.get(&path).await.is(200).json();
        seen.extend(numbers(&page));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/v1/exchanges?limit=7&cursor={next}");
    }
    assert_eq!(seen, (0..30).rev().collect::<Vec<_>>(), "each record once, newest first");
    assert_eq!(numbers(&gate.get("/v1/exchanges?verdict=denied").await.is(200).json()), [13]);
    assert_eq!(numbers(&gate.get("/v1/exchanges?service=odd&limit=2").await.is(200).json()), [29, 27]);
    let range = "/v1/exchanges?since=2026-01-01T00:00:05Z&until=2026-01-01T00:00:07Z&workload=checkout&reason=allowed_by_rule";
    assert_eq!(numbers(&gate.get(range).await.is(200).json()), [7, 6, 5]);
    assert!(numbers(&gate.get("/v1/exchanges?workload=other").await.is(200).json()).is_empty());
}

#[tokio::test]
async fn followers_get_what_comes_and_end_with_the_gateway() {
    let gate = Gate::start_in(tempfile::TempDir::new().expect("a directory"), |settings| settings.exchange_followers = 1).await;
    let mut stream = TcpStream::connect(gate.address).await.expect("it listens");
    let request = format!(
        "GET /v1/exchanges?service=odd HTTP/1.1\r\nhost: g\r\naccept: text/event-stream\r\nauthorization: Bearer {}\r\n\r\n",
        gate.token
    );
    stream.write_all(request.as_bytes()).await.expect("it is sent");
    let mut text = String::new();
    read_until(&mut stream, &mut text, ": following").await;
    gate.get("/v1/exchanges?follow=true").await.is(429);
    gate.records.send(batch(&[record(2, "even", "allowed"), record(3, "odd", "allowed")])).await.expect("it takes records");
    read_until(&mut stream, &mut text, "event: exchange").await;
    read_until(&mut stream, &mut text, "\"service\":\"odd\"").await;
    assert!(!text.contains("\"even\""), "{text}");
    gate.stop().await;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.expect("the stream ends");
}

async fn read_until(stream: &mut TcpStream, text: &mut String, wanted: &str) {
    let mut buffer = [0; 4096];
    while !text.contains(wanted) {
        let count = stream.read(&mut buffer).await.expect("it is read");
        assert!(count > 0, "the stream ended before {wanted:?}: {text}");
        text.push_str(std::str::from_utf8(&buffer[..count]).expect("text"));
    }
}

#[tokio::test]
async fn what_does_not_fit_the_queue_is_dropped_and_counted() {
    let gate =
        Gate::start_in(tempfile::TempDir::new().expect("a directory"), |settings| settings.exchange_queue_bytes = 10).await;
    gate.records.send(batch(&[record(1, "a", "allowed"), record(2, "a", "allowed")])).await.expect("it takes records");
    while gate.metrics.records_dropped.value() < 2 {
        tokio::task::yield_now().await;
    }
    assert!(gate.get("/metrics").await.text.contains("tidegate_exchange_records_dropped_total 2"));
}

#[tokio::test]
async fn queued_records_survive_a_stop_and_old_ones_are_removed() {
    let gate = Gate::start_in(tempfile::TempDir::new().expect("a directory"), keep_for_ever).await;
    for number in 0..50 {
        gate.records.send(batch(&[record(number, "a", "allowed")])).await.expect("it takes records");
    }
    let directory = gate.stop().await;
    let path = directory.path().join("exchanges.db");
    let mut connection = SqliteConnectOptions::new().filename(&path).connect().await.expect("it opens");
    let twenty = sqlx::query_scalar::<_, i64>("SELECT SUM(bytes) FROM (SELECT bytes FROM batch ORDER BY number DESC LIMIT 20)");
    let twenty = twenty.fetch_one(&mut connection).await.expect("they are there");
    connection.close().await.expect("it closes");
    let gate = Gate::start_in(directory, |settings| {
        keep_for_ever(settings);
        settings.exchange_max_bytes = twenty.try_into().expect("a size");
    })
    .await;
    assert!(gate.metrics.records_stored.value() == 0);
    loop {
        // The first look for old records comes with the start.
        let page = gate.get("/v1/exchanges").await.is(200).json();
        let kept = numbers(&page);
        assert_eq!(kept.first(), Some(&49), "all were stored, and the newest are kept");
        if kept.len() == 20 {
            break;
        }
        assert_eq!(kept.len(), 50);
    }
    let directory = gate.stop().await;
    let gate = Gate::start_in(directory, |settings| settings.exchange_max_age = std::time::Duration::from_secs(1)).await;
    while !numbers(&gate.get("/v1/exchanges").await.is(200).json()).is_empty() {}
}

#[tokio::test]
async fn records_of_before_they_were_packed_are_read_and_damaged_ones_left_out() {
    let lines: Vec<_> = (0..200).map(|number| record(number, "a", "allowed")).collect();
    let gate = Gate::start_in(tempfile::TempDir::new().expect("a directory"), keep_for_ever).await;
    for _ in 0..3 {
        gate.records.send(batch(&lines)).await.expect("it takes records");
    }
    let directory = gate.stop().await;
    let path = directory.path().join("exchanges.db");
    let mut connection = SqliteConnectOptions::new().filename(&path).connect().await.expect("it opens");
    let sizes = sqlx::query_as::<_, (i64, i64, i64)>("SELECT bytes, LENGTH(lines), unpacked FROM batch WHERE number = 1");
    let (bytes, stored, unpacked) = sizes.fetch_one(&mut connection).await.expect("it is there");
    let plain = lines.concat();
    assert_eq!((bytes, unpacked), (stored, i64::try_from(plain.len()).expect("few")), "what it takes, and what it was");
    assert!(stored * 4 < unpacked, "{stored} of {unpacked}");
    let as_before = sqlx::query("UPDATE batch SET unpacked = NULL, bytes = ?, lines = ? WHERE number = 1");
    as_before.bind(unpacked).bind(plain.into_bytes()).execute(&mut connection).await.expect("it is changed");
    sqlx::query("UPDATE batch SET unpacked = unpacked - 1 WHERE number = 2")
        .execute(&mut connection)
        .await
        .expect("it is changed");
    connection.close().await.expect("it closes");
    let gate = Gate::start_in(directory, keep_for_ever).await;
    let page = gate.get("/v1/exchanges?limit=400").await.is(200).json();
    let whole = || (0..200).rev();
    assert_eq!(numbers(&page), whole().chain(whole()).collect::<Vec<_>>());
    assert_eq!(gate.metrics.batches_unreadable.value(), 1);
}

#[tokio::test]
async fn a_slow_follower_is_told_how_many_records_it_missed() {
    let gate = Gate::start().await;
    let mut stream = TcpStream::connect(gate.address).await.expect("it listens");
    let request = format!("GET /v1/exchanges?follow=1 HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {}\r\n\r\n", gate.token);
    stream.write_all(request.as_bytes()).await.expect("it is sent");
    let mut text = String::new();
    read_until(&mut stream, &mut text, ": following").await;
    // More than the socket's buffers and the lag allowed can hold, while nobody reads.
    let long = "x".repeat(60_000);
    for number in 0..1_000 {
        gate.records.send(batch(&[record(number, &long, "allowed")])).await.expect("it takes records");
    }
    let mut seen = 0_u64;
    let mut reader = tokio::io::BufReader::new(stream);
    let missed = loop {
        let mut line = String::new();
        let count = tokio::io::AsyncBufReadExt::read_line(&mut reader, &mut line).await.expect("it is read");
        assert!(count > 0, "the stream ended");
        seen += u64::from(line.starts_with("data: {\"id\""));
        if let Some(rest) = line.strip_prefix("data: {\"records\":") {
            break rest.trim_end().trim_end_matches('}').parse::<u64>().expect("a number");
        }
    };
    assert!(missed > 0 && seen + missed < 1_000, "{seen} seen, {missed} missed");
    assert_eq!(gate.metrics.records_missed.value(), missed);
}
