//! Records from the open exchange to the recorder and its log: written once, counted, handed over, dropped or waited for.

use super::{
    Ledger, OpenRecord,
    ledger::{self, BATCH_LINES, WhenFull},
    recorder::{self, Log, Recorder},
};
use crate::{
    fault::Fault,
    http::{Request, body::Body},
    listen::Peer,
    telemetry::{exchanges::Exchanges, spans},
};
use std::{rc::Rc, sync::Arc, time::Duration};
use tidegate_policy::{
    Reason,
    exchange::{Batch, Exchange, Verdict},
};
use tokio::{sync::mpsc, task::LocalSet};

struct Fixture {
    ledger: Rc<Ledger>,
    batches: mpsc::Receiver<Batch>,
    metrics: Arc<ledger::Metrics>,
    spans: mpsc::Receiver<spans::Finished>,
}

fn fixture(queue: usize, when_full: WhenFull) -> Fixture {
    let (outbox, batches) = mpsc::channel(queue);
    let (spans_out, spans) = spans::queue(Arc::default());
    let metrics = Arc::new(ledger::Metrics::default());
    let tally = Exchanges::new(8).tally();
    let counted = Arc::clone(&metrics);
    let parts = ledger::Parts { worker: 3, outbox, when_full, tally, spans: Some(spans_out), metrics: counted };
    Fixture { ledger: Ledger::new(parts), batches, metrics, spans }
}

fn open(ledger: &Rc<Ledger>, uri: &str) -> OpenRecord {
    let peer = Peer {
        address: "192.0.2.7:4711".parse().unwrap(),
        local: "192.0.2.1:3128".parse().unwrap(),
        certificate: None,
        server_name: None,
    };
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = uri.parse().unwrap();
    let parent = format!("00-{}-{}-01", "ab".repeat(16), "cd".repeat(8));
    request.headers_mut().insert("traceparent", parent.parse().unwrap());
    OpenRecord::open(ledger, &peer, &request)
}

fn lines(batch: &Batch) -> Vec<Exchange<'static>> {
    let text = std::str::from_utf8(&batch.lines).unwrap();
    assert!(text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_record_says_what_is_known_and_leaves_secrets_out() {
    let mut fixture = fixture(1, WhenFull::Drop);
    let mut record = open(&fixture.ledger, "http://user:password@api.example.com/v1/charges?key=secret");
    let context = *record.trace();
    record.request_bytes(10);
    record.response_bytes(20);
    record.response_bytes(1);
    record.failed(&Fault::new(Reason::ResolveFailed, "the name has no address"));
    record.failed(&Fault::new(Reason::DownstreamClosed, "a consequence"));
    record.answered(::http::StatusCode::BAD_GATEWAY);
    let id = record.id_text();
    drop(record);
    fixture.ledger.flush();
    let batch = fixture.batches.try_recv().unwrap();
    assert_eq!(batch.count, 1);
    let text = String::from_utf8(batch.lines.clone()).unwrap();
    for secret in ["password", "user", "secret", "?"] {
        assert!(!text.contains(secret), "{secret} is in {text}");
    }
    let exchange = &lines(&batch)[0];
    assert_eq!(exchange.id, id);
    assert_eq!(exchange.trace_id, "ab".repeat(16));
    assert_eq!(context.parent, Some([0xcd; 8]));
    assert_eq!(exchange.target, "http://api.example.com/v1/charges");
    assert_eq!(
        (exchange.source.as_ref(), exchange.method.as_ref(), exchange.protocol.as_ref()),
        ("192.0.2.7", "GET", "HTTP/1.1")
    );
    assert_eq!((exchange.verdict, exchange.reason), (Some(Verdict::Allowed), Some(Reason::ResolveFailed)));
    assert_eq!((exchange.request_bytes, exchange.response_bytes, exchange.status), (10, 21, Some(502)));
    assert_eq!(exchange.fault.as_deref(), Some("the name has no address"));
    let span = fixture.spans.try_recv().unwrap();
    assert_eq!((span.target.as_str(), span.context.span_id), ("http://api.example.com/v1/charges", context.span_id));
}

#[test]
fn a_record_that_is_dropped_unanswered_is_written_once() {
    let mut fixture = fixture(1, WhenFull::Drop);
    drop(open(&fixture.ledger, "http://api.example.com/"));
    assert_eq!(fixture.metrics.open.value(), 0);
    fixture.ledger.flush();
    fixture.ledger.flush();
    let exchange = lines(&fixture.batches.try_recv().unwrap());
    assert_eq!(exchange.len(), 1);
    assert_eq!((exchange[0].reason, exchange[0].status), (Some(Reason::DownstreamClosed), None));
    assert!(fixture.batches.try_recv().is_err());
}

#[test]
fn a_batch_says_when_the_first_and_the_last_of_its_exchanges_began() {
    let mut fixture = fixture(2, WhenFull::Drop);
    let [early, between, late, next] = [(); 4].map(|()| open(&fixture.ledger, "http://api.example.com/"));
    let ids = [&early, &between, &late, &next].map(OpenRecord::id);
    assert!(ids.is_sorted());
    // They end in another order than they began in.
    [between, late, early].into_iter().for_each(drop);
    fixture.ledger.flush();
    drop(next);
    fixture.ledger.flush();
    for span in [(ids[0], ids[2]), (ids[3], ids[3])] {
        let batch = fixture.batches.try_recv().unwrap();
        assert_eq!((batch.first_us, batch.last_us), span);
    }
}

#[test]
fn a_full_queue_drops_and_counts() {
    let mut fixture = fixture(1, WhenFull::Drop);
    for _ in 0..2 * BATCH_LINES + 1 {
        drop(open(&fixture.ledger, "http://api.example.com/"));
    }
    fixture.ledger.flush();
    let queued = fixture.metrics.queued.value();
    assert!(queued > 1, "a whole batch was queued");
    assert_eq!(queued, fixture.batches.try_recv().map(|batch| u64::from(batch.count)).unwrap());
    assert_eq!(fixture.metrics.dropped.value(), u64::from(2 * BATCH_LINES + 1) - queued);
}

#[tokio::test]
async fn a_full_queue_can_hold_exchanges_back_and_loses_nothing() {
    let mut fixture = fixture(1, WhenFull::Wait);
    let ledger = Rc::clone(&fixture.ledger);
    LocalSet::new()
        .run_until(async {
            let keeper = tokio::task::spawn_local(Rc::clone(&ledger).keep());
            for _ in 0..2 * BATCH_LINES {
                drop(open(&ledger, "http://api.example.com/"));
            }
            assert!(tokio::time::timeout(Duration::from_millis(100), ledger.room()).await.is_err(), "there is no room");
            let first = fixture.batches.recv().await.unwrap();
            ledger.room().await;
            let second = fixture.batches.recv().await.unwrap();
            assert_eq!(first.count + second.count, 2 * BATCH_LINES);
            keeper.abort();
        })
        .await;
    assert_eq!((fixture.metrics.dropped.value(), fixture.metrics.waits.value()), (0, 1));
}

#[tokio::test]
async fn a_lonely_record_is_handed_over_by_its_age() {
    let mut fixture = fixture(1, WhenFull::Drop);
    let ledger = Rc::clone(&fixture.ledger);
    LocalSet::new()
        .run_until(async {
            tokio::task::spawn_local(Rc::clone(&ledger).keep());
            drop(open(&ledger, "http://api.example.com/"));
            assert_eq!(fixture.batches.recv().await.unwrap().count, 1);
        })
        .await;
}

#[test]
fn the_recorder_writes_forwards_and_opens_its_file_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.jsonl");
    let (sender, batches) = mpsc::channel(4);
    let (forward, mut forwarded) = mpsc::channel(4);
    let metrics = Arc::new(recorder::Metrics::default());
    let counted = Arc::clone(&metrics);
    let parts = recorder::Parts { log: Log::File(path.clone()), when_full: WhenFull::Drop, batches, forward, metrics: counted };
    let recorder = Recorder::start(parts).unwrap();
    let batch = |text: &str| Batch { count: 1, first_us: 1, last_us: 1, lines: text.as_bytes().to_vec() };
    sender.blocking_send(batch("one\n")).unwrap();
    assert_eq!(forwarded.blocking_recv().unwrap().lines, b"one\n");
    std::fs::rename(&path, folder.path().join("rotated")).unwrap();
    recorder.reopener().store(true, std::sync::atomic::Ordering::Relaxed);
    sender.blocking_send(batch("two\n")).unwrap();
    drop(sender);
    recorder.join();
    assert_eq!(std::fs::read(folder.path().join("rotated")).unwrap(), b"one\n");
    assert_eq!(std::fs::read(path).unwrap(), b"two\n");
    assert_eq!((metrics.logged.value(), metrics.forwarded.value()), (2, 2));
}

#[test]
fn a_log_that_cannot_be_opened_is_refused_at_the_start() {
    let (_sender, batches) = mpsc::channel(1);
    let (forward, _forwarded) = mpsc::channel(1);
    let log = Log::File("/nonexistent/records.jsonl".into());
    let parts = recorder::Parts { log, when_full: WhenFull::Drop, batches, forward, metrics: Arc::default() };
    assert!(Recorder::start(parts).unwrap_err().contains("change record_log or its permissions"));
}

#[test]
fn what_could_not_be_reached_says_how_far_it_got() {
    let mut fixture = fixture(1, WhenFull::Wait);
    let mut record = open(&fixture.ledger, "http://api.example.com/");
    record.failed(&Fault::new(Reason::TlsFailed, "no handshake").reached_so_far(|reached| {
        reached.address = Some(([192, 0, 2, 1], 443).into());
        reached.connect = Some(Duration::from_millis(2));
        reached.handshake = Some(Duration::from_millis(3));
    }));
    drop(record);
    drop(fixture.ledger);
    let batch = fixture.batches.try_recv().unwrap();
    let records = lines(&batch);
    let record = &records[0];
    assert_eq!(record.endpoint.as_ref().map(|endpoint| &*endpoint.address), Some("192.0.2.1:443"));
    let durations = record.durations;
    assert_eq!((durations.resolve_us, durations.connect_us, durations.tls_us), (None, Some(2000), Some(3000)));
    assert_eq!(durations.first_byte_us, None);
}

#[test]
fn what_a_stop_cuts_off_says_so_and_is_handed_over_however_late_it_ends() {
    let mut fixture = fixture(1, WhenFull::Wait);
    let mut left = open(&fixture.ledger, "http://api.example.com/left");
    let mut failed = open(&fixture.ledger, "http://api.example.com/failed");
    failed.failed(&Fault::new(Reason::Timeout, "the upstream did not answer"));
    let unanswered = open(&fixture.ledger, "http://api.example.com/unanswered");
    fixture.ledger.cut();
    left.failed(&Fault::new(Reason::DownstreamClosed, "a consequence"));
    drop((left, failed, unanswered));
    drop(fixture.ledger);
    let records = lines(&fixture.batches.try_recv().unwrap());
    let reasons: Vec<_> = records.iter().filter_map(|record| record.reason).collect();
    assert_eq!(reasons, [Reason::Draining, Reason::Timeout, Reason::Draining]);
}
