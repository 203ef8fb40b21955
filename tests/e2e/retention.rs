//! What is kept of the records, and what happens when they come faster than they are taken away.

use std::{io::Read, path::Path, sync::Arc};
use tidegate_tests::{
    Gateway, Options, Raw, Rest, World,
    api::{Api, Speaks},
    gateway::Directory,
    until,
    world::POD,
};

async fn targets(rest: &Rest) -> Vec<String> {
    let records = rest.records("").await;
    records.iter().filter_map(|record| record["target"].as_str().map(str::to_owned)).collect()
}

async fn unregistered(raw: &mut Raw, at: usize) {
    let reply = raw.get(&format!("http://unknown.example.com/{at}"), "unknown.example.com", "").await;
    assert_eq!(reply.reason(), "unregistered_host", "{reply:?}");
}

#[tokio::test]
async fn records_are_kept_for_their_age_and_up_to_their_size() {
    let directory = Directory::new();
    let mut gateway = Gateway::start_in(Arc::clone(&directory), &Options::default()).await;
    let rest = gateway.rest();
    let mut raw = Raw::connect_from(POD, gateway.addresses.proxy).await;
    for at in 0..20 {
        unregistered(&mut raw, at).await;
        // One batch each: what is removed is whole batches.
        until("the record to be stored", async || (targets(&rest).await.len() == at + 1).then_some(())).await;
    }
    gateway.terminate();
    assert!(gateway.ended().await.success());

    // Old records are looked for at every start, and then from time to time.
    let small = Options::default().flag("--exchange-max-bytes", 3000);
    let mut gateway = Gateway::start_in(Arc::clone(&directory), &small).await;
    let rest = gateway.rest();
    let left = until("the oldest records to go", async || {
        let left = targets(&rest).await;
        (left.len() < 20).then_some(left)
    })
    .await;
    assert!((1..15).contains(&left.len()), "{left:?}");
    assert!(left[0].ends_with("/19") && !left.iter().any(|target| target.ends_with("/0")), "the newest stay: {left:?}");
    gateway.terminate();
    assert!(gateway.ended().await.success());

    let brief = Options::default().flag("--exchange-max-age", "1ms");
    let gateway = Gateway::start_in(directory, &brief).await;
    let rest = gateway.rest();
    until("all old records to go", async || targets(&rest).await.is_empty().then_some(())).await;
}

/// A pipe for the record log that nobody reads, until the test does.
fn pipe(path: &Path) -> std::fs::File {
    let made = std::process::Command::new("mkfifo").arg(path).status().expect("mkfifo can be run");
    assert!(made.success());
    // Opened for both, so that neither side waits for the other.
    std::fs::File::options().read(true).write(true).open(path).expect("a pipe can be opened")
}

fn stuck(folder: &Path, when_full: &str) -> (Options, std::fs::File) {
    let path = folder.join("log");
    let pipe = pipe(&path);
    let options = Options { workers: 1, ..Options::default() };
    let options = options.flag("--record-log", path.display()).flag("--record-queue-batches", 1);
    (options.flag("--records-when-full", when_full), pipe)
}

#[tokio::test]
async fn records_that_find_no_room_are_dropped_and_counted_and_exchanges_go_on() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let (options, pipe) = stuck(folder.path(), "drop");
    let gateway = Gateway::start(&options).await;
    let mut raw = Raw::connect_from(POD, gateway.addresses.proxy).await;
    let mut sent = 0;
    until("records to be dropped", async || {
        for _ in 0..100 {
            unregistered(&mut raw, sent).await;
            sent += 1;
        }
        (gateway.metric("tidegate_records_dropped_total", "").await > 0.0).then_some(())
    })
    .await;
    drain(pipe);
    let dropped = gateway.metric("tidegate_records_dropped_total", "").await;
    let queued = async || gateway.metric("tidegate_records_queued_total", "").await;
    until("the last record to be handed over or dropped", async || {
        let dropped = gateway.metric("tidegate_records_dropped_total", "").await;
        (queued().await + dropped >= f64::from(u32::try_from(sent).expect("a few thousand"))).then_some(())
    })
    .await;
    assert!(dropped > 0.0 && queued().await > 0.0, "{sent} sent, {dropped} dropped");
}

#[tokio::test]
async fn where_no_record_may_be_lost_exchanges_wait_for_room() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let (options, pipe) = stuck(folder.path(), "wait");
    let world = World::start_with(options).await;
    let api = Api::start(Speaks::Http1).await;
    world.open_plain("plain", "plain.example.com", api.address).await;
    let proxy = world.gateway.addresses.proxy;
    let caller = tokio::spawn(async move {
        let mut raw = Raw::connect_from(POD, proxy).await;
        for at in 0..2000 {
            unregistered(&mut raw, at).await;
        }
    });
    until("exchanges to be held back", async || {
        (world.gateway.metric("tidegate_records_waits_total", "").await > 0.0).then_some(())
    })
    .await;
    assert!(!caller.is_finished(), "the caller waits");
    drain(pipe);
    tidegate_tests::wait::soon("the caller to be answered to its end", caller).await.expect("every exchange was answered");
    until("all records to be handed over", async || {
        (world.gateway.metric("tidegate_records_queued_total", "").await >= 2000.0).then_some(())
    })
    .await;
    assert_eq!(world.gateway.metric("tidegate_records_dropped_total", "").await, 0.0);
}

/// Reads the pipe from now on.
fn drain(mut pipe: std::fs::File) {
    std::thread::spawn(move || {
        let mut piece = [0; 64 * 1024];
        while pipe.read(&mut piece).is_ok_and(|count| count > 0) {}
    });
}
