//! Exchange records as they are kept: one row per batch of JSON lines, packed, appended, read newest first, removed by age and size.

use super::{
    EXCHANGES, Purpose,
    pack::{pack, unpack},
};
use crate::{StartError, clock};
use sqlx::{Connection, SqliteConnection, SqlitePool};
use std::{path::Path, sync::Arc, thread, time::Duration};
use tidegate_policy::exchange::Batch;
use tokio::{runtime::Handle, sync::oneshot};

/// The record database.
pub(crate) struct ExchangeStore {
    writer: SqlitePool,
    readers: SqlitePool,
}

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retention {
    pub(crate) max_age: Duration,
    pub(crate) max_bytes: u64,
}

/// A batch as it is stored.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct StoredBatch {
    pub(crate) number: i64,
    count: u32,
    unpacked: Option<i64>,
    lines: Vec<u8>,
}

impl StoredBatch {
    /// Its lines, or in a sentence why they cannot be read.
    pub(crate) fn lines(self) -> Result<Vec<u8>, String> {
        let unpacked = self.unpacked.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        unpack(self.lines, unpacked, self.count)
    }
}

/// The newest batches up to a number that have records between two times. What is asked first is answered by the index.
const NEWEST: &str = "SELECT number, count, unpacked, lines FROM batch WHERE number IN (
    SELECT number FROM batch WHERE number <= ? AND last_us >= ? AND first_us <= ? ORDER BY number DESC LIMIT ?)
    ORDER BY number DESC";
const REMOVE_OLD: &str = "DELETE FROM batch WHERE number IN (SELECT number FROM batch WHERE last_us < ?)";
const REMOVE_MORE: &str = "DELETE FROM batch WHERE number <= (
    SELECT MAX(number) FROM (SELECT number, SUM(bytes) OVER (ORDER BY number DESC) AS kept FROM batch) WHERE kept > ?)";

impl ExchangeStore {
    /// Opens `DIR/exchanges.db` for writing, after [`super::look`]. That is done from a thread that gives way: a connection works on a
    /// thread of its own, which inherits it.
    pub(crate) async fn open(data_dir: &Path, give_way: fn()) -> Result<Self, StartError> {
        let path = data_dir.join("exchanges.db");
        let (runtime, at) = (Handle::current(), path.clone());
        let opening = move || {
            give_way();
            runtime.block_on(super::open(&at, &EXCHANGES, Purpose::Exchanges))
        };
        let unreadable = |detail: String| StartError::DatabaseUnreadable { path: path.clone(), detail };
        let (done, opened) = oneshot::channel();
        let thread = thread::Builder::new().name("store-opener".to_owned()).spawn(move || drop(done.send(opening())));
        thread.map_err(|error| unreadable(format!("no thread could be started for it: {error}")))?;
        let (writer, readers) =
            opened.await.unwrap_or_else(|_| Err(unreadable("the thread that opened it failed".to_owned())))?;
        Ok(Self { writer, readers })
    }

    /// Appends batches in one transaction.
    pub(crate) async fn append(&self, batches: impl Iterator<Item = Arc<Batch>> + Send) -> sqlx::Result<()> {
        let mut writer = self.writer.acquire().await?;
        let appended = append(&mut writer, batches).await;
        if appended.is_err() {
            // As with a change: a connection whose transaction the engine has ended is of no more use.
            writer.close_on_drop();
        }
        appended
    }

    /// The newest batches up to `number` that have records between the times (microseconds, both included), newest first and no
    /// more than `most`.
    pub(crate) async fn newest(&self, number: i64, between_us: (i64, i64), most: u32) -> sqlx::Result<Vec<StoredBatch>> {
        let (since, until) = between_us;
        sqlx::query_as(NEWEST).bind(number).bind(since).bind(until).bind(most).fetch_all(&self.readers).await
    }

    /// Removes what is too old, then the oldest of what is too much.
    pub(crate) async fn retain(&self, retention: Retention) -> sqlx::Result<()> {
        let age_us = i64::try_from(retention.max_age.as_micros()).unwrap_or(i64::MAX);
        let oldest_us = (clock::now_ms() * 1000).saturating_sub(age_us);
        sqlx::query(REMOVE_OLD).bind(oldest_us).execute(&self.writer).await?;
        let max_bytes = i64::try_from(retention.max_bytes).unwrap_or(i64::MAX);
        sqlx::query(REMOVE_MORE).bind(max_bytes).execute(&self.writer).await?;
        sqlx::query("PRAGMA incremental_vacuum(4000)").execute(&self.writer).await.map(drop)
    }

    pub(crate) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

async fn append(writer: &mut SqliteConnection, batches: impl Iterator<Item = Arc<Batch>> + Send) -> sqlx::Result<()> {
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let mut transaction = writer.begin().await?;
    for batch in batches {
        let Batch { count, first_us, last_us, lines } = &*batch;
        let (stored, unpacked) = pack(lines);
        sqlx::query("INSERT INTO batch (first_us, last_us, count, bytes, unpacked, lines) VALUES (?, ?, ?, ?, ?, ?)")
            .bind(signed(*first_us))
            .bind(signed(*last_us))
            .bind(count)
            .bind(signed(stored.len() as u64))
            .bind(unpacked.map(|bytes| signed(bytes as u64)))
            .bind(stored.into_owned())
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlx::Row as _;

    #[tokio::test]
    async fn no_lines_are_read_for_what_batches_are_looked_for_by() {
        let directory = tempfile::TempDir::new().unwrap();
        let store = ExchangeStore::open(directory.path(), || ()).await.unwrap();
        for sql in [NEWEST, REMOVE_OLD, REMOVE_MORE] {
            let plan = sqlx::query(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}")));
            let steps: Vec<String> =
                plan.fetch_all(&store.readers).await.unwrap().iter().map(|step| step.get("detail")).collect();
            let looking = steps.iter().filter(|step| step.contains("batch") && !step.contains("INTEGER PRIMARY KEY (rowid"));
            let looking: Vec<_> = looking.collect();
            assert!(!looking.is_empty(), "{steps:?}");
            assert!(looking.iter().all(|step| step.contains("COVERING INDEX batch_without_lines")), "{steps:?}");
        }
        store.close().await;
    }
}
