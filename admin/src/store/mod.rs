//! The store: all SQL of the control plane. One connection writes, a few read. It knows rows and bytes; what they mean is
//! decided elsewhere.

mod check;
pub(crate) mod exchanges;
mod load;
mod rows;

pub(crate) use rows::{Change, Row, Who, delete, put, referrers, row};

use crate::StartError;
use sqlx::{
    ConnectOptions, SqliteConnection, SqlitePool,
    migrate::Migrator,
    sqlite::{SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::sync::Mutex;

/// Readers: lists and single reads of an operator's tools.
const READERS: u32 = 4;
/// Only a foreign process (a backup) can hold the database; it gets this long.
const BUSY: Duration = Duration::from_secs(5);

static CONFIGURATION: Migrator = sqlx::migrate!("../migrations");
static EXCHANGES: Migrator = sqlx::migrate!("../migrations/exchanges");

/// The configuration database.
#[derive(Clone)]
pub(crate) struct Store {
    path: PathBuf,
    /// The one connection that writes. Whoever holds it decides alone what comes next.
    pub(crate) writer: Arc<Mutex<SqliteConnection>>,
    readers: SqlitePool,
}

impl Store {
    /// Opens `DIR/tidegate.db`: checked first, so that a database that cannot be used is left as it was.
    pub(crate) async fn open(data_dir: &Path) -> Result<Self, StartError> {
        let path = data_dir.join("tidegate.db");
        let (writer, readers) = open(&path, &CONFIGURATION, SqliteSynchronous::Full).await?;
        Ok(Self { path, writer: Arc::new(Mutex::new(writer)), readers })
    }

    /// Ends the readers and waits for the writer to be done.
    pub(crate) async fn close(&self) {
        self.readers.close().await;
        drop(self.writer.lock().await);
    }
}

async fn open(
    path: &Path,
    migrations: &Migrator,
    synchronous: SqliteSynchronous,
) -> Result<(SqliteConnection, SqlitePool), StartError> {
    check::file(path, migrations).await?;
    let options = SqliteConnectOptions::new().filename(path).busy_timeout(BUSY).foreign_keys(true);
    let mut writer = options
        .clone()
        .create_if_missing(true)
        .auto_vacuum(SqliteAutoVacuum::Incremental)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(synchronous)
        // Deleted rows are overwritten: a credential that was removed is not left in a free page.
        .pragma("secure_delete", "ON")
        .connect()
        .await
        .map_err(|error| check::refused(path, &error))?;
    migrations.run(&mut writer).await.map_err(|error| StartError::DatabaseUnreadable {
        path: path.to_owned(),
        detail: format!("its schema could not be brought up to date: {error}"),
    })?;
    let readers = SqlitePoolOptions::new().max_connections(READERS).connect_lazy_with(options.read_only(true));
    Ok((writer, readers))
}
