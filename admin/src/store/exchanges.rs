//! Exchange records as they are kept: one row per batch of JSON lines, appended, read newest first, removed by age and size.

use super::{EXCHANGES, Purpose};
use crate::{StartError, clock};
use sqlx::{Connection, SqliteConnection, SqlitePool};
use std::{path::Path, sync::Arc, time::Duration};
use tidegate_policy::exchange::Batch;

/// Every line begins so, and goes on with 16 hexadecimal digits of microseconds since 1970.
const ID: &[u8] = b"{\"id\":\"";

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

/// A stored batch.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct StoredBatch {
    pub(crate) number: i64,
    pub(crate) lines: Vec<u8>,
}

impl ExchangeStore {
    /// Opens `DIR/exchanges.db` for writing, after [`super::look`].
    pub(crate) async fn open(data_dir: &Path) -> Result<Self, StartError> {
        let (writer, readers) = super::open(&data_dir.join("exchanges.db"), &EXCHANGES, Purpose::Exchanges).await?;
        Ok(Self { writer, readers })
    }

    /// Appends batches in one transaction.
    pub(crate) async fn append(&self, batches: &[Arc<Batch>]) -> sqlx::Result<()> {
        let mut writer = self.writer.acquire().await?;
        let appended = append(&mut writer, batches).await;
        if appended.is_err() {
            // As with a change: a connection whose transaction the engine has ended is of no more use.
            writer.close_on_drop();
        }
        appended
    }

    /// The newest batch up to `number` that has records between the times (microseconds, both included).
    pub(crate) async fn newest(&self, number: i64, since_us: i64, until_us: i64) -> sqlx::Result<Option<StoredBatch>> {
        let sql =
            "SELECT number, lines FROM batch WHERE number <= ? AND last_us >= ? AND first_us <= ? ORDER BY number DESC LIMIT 1";
        let query = sqlx::query_as(sql).bind(number).bind(since_us).bind(until_us);
        query.fetch_optional(&self.readers).await
    }

    /// Removes what is too old, then the oldest of what is too much.
    pub(crate) async fn retain(&self, retention: Retention) -> sqlx::Result<()> {
        let age_us = i64::try_from(retention.max_age.as_micros()).unwrap_or(i64::MAX);
        let oldest_us = (clock::now_ms() * 1000).saturating_sub(age_us);
        sqlx::query("DELETE FROM batch WHERE last_us < ?").bind(oldest_us).execute(&self.writer).await?;
        let sql = "DELETE FROM batch WHERE number <= (
                       SELECT MAX(number) FROM (
                           SELECT number, SUM(bytes) OVER (ORDER BY number DESC) AS kept FROM batch
                       ) WHERE kept > ?)";
        let max_bytes = i64::try_from(retention.max_bytes).unwrap_or(i64::MAX);
        sqlx::query(sql).bind(max_bytes).execute(&self.writer).await?;
        sqlx::query("PRAGMA incremental_vacuum(1000)").execute(&self.writer).await.map(drop)
    }

    pub(crate) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

async fn append(writer: &mut SqliteConnection, batches: &[Arc<Batch>]) -> sqlx::Result<()> {
    let mut transaction = writer.begin().await?;
    for batch in batches {
        let (first_us, last_us) = span(&batch.lines);
        sqlx::query("INSERT INTO batch (first_us, last_us, count, bytes, lines) VALUES (?, ?, ?, ?, ?)")
            .bind(first_us)
            .bind(last_us)
            .bind(batch.count)
            .bind(i64::try_from(batch.lines.len()).unwrap_or(i64::MAX))
            .bind(batch.lines.as_slice())
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await
}

/// The times of the earliest and the latest record, read from their ids.
fn span(lines: &[u8]) -> (i64, i64) {
    let times = lines.split(|&byte| byte == b'\n').filter_map(|line| {
        let digits = line.strip_prefix(ID)?.get(..16)?;
        i64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    });
    let (first, last) = times.fold((i64::MAX, i64::MIN), |(first, last), time| (first.min(time), last.max(time)));
    if first > last {
        let now_us = clock::now_ms() * 1000;
        return (now_us, now_us);
    }
    (first, last)
}
