//! A write that was answered 2xx has survived: the gateway is killed in the middle of writing, fifty times, and in the middle
//! of forwarding.

use serde_json::json;
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};
use tidegate_tests::{Gateway, Options, gateway::Directory, until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const ROUNDS: usize = 50;
const WRITERS: usize = 4;
/// Writes acknowledged before the axe falls. Varied a little by round, so that it falls at different moments.
const AT_LEAST: usize = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_write_is_lost_by_fifty_kills() {
    let directory = Directory::new();
    let options = Options { workers: 1, ..Options::default() };
    let mut acknowledged = BTreeSet::new();
    let mut deleted = BTreeSet::new();
    for round in 0..ROUNDS {
        let mut gateway = Gateway::start_in(Arc::clone(&directory), &options).await;
        survived(&gateway, &acknowledged, &deleted).await;
        let written = Arc::new(Mutex::new(Vec::new()));
        let writers: Vec<_> =
            (0..WRITERS).map(|writer| tokio::spawn(write(gateway.rest(), round, writer, Arc::clone(&written)))).collect();
        let enough = AT_LEAST + round % 7;
        until("writes to be acknowledged", async || {
            (written.lock().expect("nobody panics within").len() >= enough).then_some(())
        })
        .await;
        if let Some(name) = acknowledged.pop_first() {
            let gone = gateway.rest().delete(&format!("/v1/workloads/{name}")).await;
            assert!(matches!(gone.status, 200 | 204), "{gone:?}");
            deleted.insert(name);
        }
        gateway.kill();
        for writer in writers {
            writer.await.expect("a writer ends when the gateway does");
        }
        acknowledged.extend(written.lock().expect("nobody panics within").drain(..));
    }
    let gateway = Gateway::start_in(directory, &options).await;
    survived(&gateway, &acknowledged, &deleted).await;
    assert!(acknowledged.len() >= ROUNDS * (AT_LEAST - 1), "{} writes were tried", acknowledged.len());
}

/// Writes until the gateway is gone; what was answered 2xx is kept in `written`.
async fn write(rest: tidegate_tests::Rest, round: usize, writer: usize, written: Arc<Mutex<Vec<String>>>) {
    for at in 0.. {
        let name = format!("w-{round}-{writer}-{at}");
        // A network of its own, since no two workloads may name the same one.
        let network = format!("10.{round}.{}.{}/32", writer * 60 + at / 250, at % 250);
        let body = json!({"networks": [network], "principal": name}).to_string().into_bytes();
        match rest.try_call("PUT", &format!("/v1/workloads/{name}"), &[("content-type", "application/json")], body).await {
            Ok(reply) if matches!(reply.status, 200 | 201) => written.lock().expect("nobody panics within").push(name),
            Ok(reply) => panic!("{name}: {reply:?}\n{}", reply.text()),
            Err(_) => return,
        }
    }
}

async fn survived(gateway: &Gateway, acknowledged: &BTreeSet<String>, deleted: &BTreeSet<String>) {
    let rest = gateway.rest();
    let mut there = BTreeSet::new();
    let mut cursor = String::new();
    loop {
        let page = rest.get(&format!("/v1/workloads?limit=500{cursor}")).await;
        assert_eq!(page.status, 200, "{}", page.text());
        let page = page.json();
        let next = page["next"].as_str().map(|next| format!("&cursor={next}"));
        let items = tidegate_tests::rest::items(page);
        there.extend(items.iter().filter_map(|item| item["name"].as_str().map(str::to_owned)));
        match next {
            Some(next) => cursor = next,
            None => break,
        }
    }
    let lost: Vec<_> = acknowledged.difference(&there).collect();
    assert!(lost.is_empty(), "acknowledged, and gone after the kill: {lost:?}");
    let back: Vec<_> = deleted.intersection(&there).collect();
    assert!(back.is_empty(), "deleted, and back after the kill: {back:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_killed_under_load_leaves_databases_that_open() {
    let directory = Directory::new();
    let mut stored = 0;
    for round in 0..5 {
        let mut gateway = Gateway::start_in(Arc::clone(&directory), &Options::default()).await;
        let kept = all_records(&gateway).await;
        assert!(kept >= stored, "round {round}: {kept} of {stored} records that were read before");
        let callers: Vec<_> = (0..4).map(|_| tokio::spawn(ask_until_it_dies(gateway.addresses.proxy))).collect();
        // Killed in the middle of its work: some records are stored, others are on their way.
        stored = until("more records to be stored", async || {
            let count = all_records(&gateway).await;
            (count >= kept + 200).then_some(count)
        })
        .await;
        gateway.kill();
        for caller in callers {
            caller.await.expect("a caller ends when the gateway does");
        }
    }
    let gateway = Gateway::start_in(directory, &Options::default()).await;
    assert!(all_records(&gateway).await >= stored, "what could be read before the kill is still there");
}

/// Asks over one connection for as long as there is an answer.
async fn ask_until_it_dies(proxy: std::net::SocketAddr) {
    let Ok(mut stream) = TcpStream::connect(proxy).await else { return };
    let mut piece = [0; 4096];
    loop {
        let request = b"GET http://unknown.example.com/ HTTP/1.1\r\nHost: unknown.example.com\r\n\r\n";
        if stream.write_all(request).await.is_err() || !matches!(stream.read(&mut piece).await, Ok(1..)) {
            return;
        }
    }
}

/// How many records the API lists, all pages together.
async fn all_records(gateway: &Gateway) -> usize {
    let rest = gateway.rest();
    let (mut count, mut cursor) = (0, String::new());
    loop {
        let page = rest.get(&format!("/v1/exchanges?limit=500{cursor}")).await;
        assert_eq!(page.status, 200, "{}", page.text());
        let page = page.json();
        let next = page["next"].as_str().map(|next| format!("&cursor={next}"));
        count += tidegate_tests::rest::items(page).len();
        match next {
            Some(next) => cursor = next,
            None => return count,
        }
    }
}
