//! Exchange records on their way into the store: handed to followers, queued up to a limit, written in batches.

use crate::{
    Settings,
    control::Control,
    metrics::Metrics,
    store::{
        advice,
        exchanges::{ExchangeStore, Retention},
    },
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tidegate_policy::exchange::Batch;
use tokio::sync::{Semaphore, broadcast, mpsc};

/// Batches a slow follower may lag behind before it misses some: 16 MiB of them, shared by all followers.
const FOLLOW_BATCHES: usize = 64;
/// Batches written in one transaction: more do not make a record cheaper.
const TRANSACTION_BATCHES: usize = 64;
/// How long a batch waits for others to share its transaction: what a transaction costs is spread over them, and readers
/// see a record little later.
const GATHERING: Duration = Duration::from_millis(50);
/// How often old records are looked for.
const RETENTION_EVERY: Duration = Duration::from_secs(30);

/// The records, for the API: what is stored and what is just coming in.
pub(crate) struct Records {
    pub(crate) store: ExchangeStore,
    pub(crate) followers: Arc<Semaphore>,
    pub(crate) metrics: Arc<Metrics>,
    news: broadcast::Sender<News>,
    retention: Retention,
    queue_bytes: usize,
}

/// A batch as followers get it.
#[derive(Debug, Clone)]
pub(crate) struct News {
    pub(crate) batch: Arc<Batch>,
    /// Records that came before it since the start.
    pub(crate) before: u64,
}

impl Records {
    pub(crate) fn new(store: ExchangeStore, settings: &Settings, metrics: Arc<Metrics>) -> Self {
        Self {
            store,
            metrics,
            followers: Arc::new(Semaphore::new(settings.exchange_followers)),
            news: broadcast::Sender::new(FOLLOW_BATCHES),
            retention: Retention { max_age: settings.exchange_max_age, max_bytes: settings.exchange_max_bytes },
            queue_bytes: settings.exchange_queue_bytes,
        }
    }

    /// The records from now on.
    pub(crate) fn follow(&self) -> broadcast::Receiver<News> {
        self.news.subscribe()
    }

    pub(crate) async fn close(&self) {
        self.store.close().await;
    }
}

/// Takes batches until their channel closes. Taking never waits for the disk: what does not fit the queue is dropped and
/// counted, so that records never slow an exchange.
pub(crate) async fn store(control: Arc<Control>, mut incoming: mpsc::Receiver<Batch>) {
    let waiting_bytes = Arc::new(AtomicUsize::new(0));
    let (queue, queued) = mpsc::unbounded_channel();
    let writer = tokio::spawn(write(Arc::clone(&control), queued, Arc::clone(&waiting_bytes)));
    let records = &control.records;
    let mut before = 0;
    while let Some(batch) = incoming.recv().await {
        let batch = Arc::new(batch);
        let (count, bytes) = (u64::from(batch.count), batch.lines.len());
        // Nobody following is not an error.
        records.news.send(News { batch: Arc::clone(&batch), before }).ok();
        before += count;
        // The queue's own channel is unbounded; this count is what bounds it, in the unit that matters.
        let fits = waiting_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes <= records.queue_bytes;
        if !fits || queue.send(batch).is_err() {
            waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            records.metrics.records_dropped.add(count);
        }
    }
    drop(queue);
    if let Err(error) = writer.await {
        tracing::error!(%error, "the task that writes exchange records failed");
    }
}

async fn write(control: Arc<Control>, mut queued: mpsc::UnboundedReceiver<Arc<Batch>>, waiting_bytes: Arc<AtomicUsize>) {
    let records = &control.records;
    let mut batches = Vec::with_capacity(TRANSACTION_BATCHES);
    let mut retention = tokio::time::interval(RETENTION_EVERY);
    loop {
        tokio::select! {
            taken = queued.recv_many(&mut batches, TRANSACTION_BATCHES) => {
                if taken == 0 {
                    return;
                }
                tokio::time::sleep(GATHERING).await;
                while batches.len() < TRANSACTION_BATCHES && let Ok(batch) = queued.try_recv() {
                    batches.push(batch);
                }
                let count: u64 = batches.iter().map(|batch| u64::from(batch.count)).sum();
                let bytes: usize = batches.iter().map(|batch| batch.lines.len()).sum();
                match records.store.append(batches.drain(..)).await {
                    Ok(()) => records.metrics.records_stored.add(count),
                    Err(error) => {
                        records.metrics.records_dropped.add(count);
                        tracing::error!(%error, count, "exchange records could not be stored in exchanges.db; {}", advice(&error));
                    }
                }
                waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            }
            _ = retention.tick() => {
                if let Err(error) = records.store.retain(records.retention).await {
                    tracing::error!(%error, "old exchange records could not be removed from exchanges.db; {}", advice(&error));
                }
            }
        }
    }
}
