//! The store: all SQL of the control plane. One connection writes, a few read. It knows rows and bytes; what they mean is
//! decided elsewhere.

mod check;
pub(crate) mod exchanges;
mod load;
mod modules;
mod pack;
mod rows;

pub(crate) use rows::{Change, Row, Who, delete, put, put_bytes, referrers, row};

use crate::StartError;
use check::Depth;
use sqlx::{
    SqlitePool,
    migrate::Migrator,
    sqlite::{SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tidegate_policy::publication::ModuleStore;

/// Readers: lists and single reads of an operator's tools.
const READERS: u32 = 4;
/// Only a foreign process (a backup) can hold the database; it gets this long.
const BUSY: Duration = Duration::from_secs(5);

static CONFIGURATION: Migrator = sqlx::migrate!("../migrations");
static EXCHANGES: Migrator = sqlx::migrate!("../migrations/exchanges");

/// Looks at both databases without changing them: the seal check, if credentials were ever sealed here.
///
/// # Errors
/// When one of them cannot be used by this release.
pub(crate) async fn look(data_dir: &Path) -> Result<Option<Vec<u8>>, StartError> {
    let path = data_dir.join("tidegate.db");
    let configuration = check::file(&path, &CONFIGURATION, Depth::Whole).await?;
    let sealed = match configuration {
        Some(connection) => check::seal(connection).await,
        None => None,
    };
    if let Some(connection) = check::file(&data_dir.join("exchanges.db"), &EXCHANGES, Depth::Schema).await? {
        check::close(connection).await;
    }
    Ok(sealed)
}

/// The configuration database.
#[derive(Clone)]
pub(crate) struct Store {
    path: PathBuf,
    /// The one connection that writes. Whoever holds it decides alone what comes next.
    pub(crate) writer: SqlitePool,
    readers: SqlitePool,
    modules: Arc<dyn ModuleStore>,
}

/// What to do about a database that does not work, for the log and for callers.
pub(crate) fn advice(error: &sqlx::Error) -> &'static str {
    match primary_code(error) {
        Some(FULL) => "its disk is full: free some space",
        Some(8) => "its disk is mounted for reading only: mount it for writing",
        Some(10) => "its disk fails: check it, and the system's log",
        Some(11 | 26) => "it is damaged: stop the gateway and restore it from a backup, or move it away to begin anew",
        _ => "check the disk that holds the data directory",
    }
}

/// Whether the disk is full.
pub(crate) fn is_full(error: &sqlx::Error) -> bool {
    primary_code(error) == Some(FULL)
}

/// `SQLITE_FULL`
const FULL: u32 = 13;

/// SQLite's primary result code, the low byte of what it answers.
fn primary_code(error: &sqlx::Error) -> Option<u32> {
    let code = error.as_database_error()?.code()?.parse::<u32>().ok()?;
    Some(code & 0xff)
}

impl Store {
    /// Opens `DIR/tidegate.db` for writing; [`look`] comes first, so that a database that cannot be used is left as it was.
    pub(crate) async fn open(data_dir: &Path) -> Result<Self, StartError> {
        let path = data_dir.join("tidegate.db");
        let (writer, readers) = open(&path, &CONFIGURATION, Purpose::Configuration).await?;
        let modules = Arc::new(modules::Modules::new(readers.clone()));
        Ok(Self { path, writer, readers, modules })
    }

    /// Where the bytes of stored modules are.
    pub(crate) fn modules(&self) -> Arc<dyn ModuleStore> {
        Arc::clone(&self.modules)
    }

    /// Ends the readers and waits for the writer to be done.
    pub(crate) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// What the two databases are to their writers.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    /// Small rows that must survive a power cut, and must be gone once they are deleted.
    Configuration,
    /// Large rows, written all the time, of which a power cut may take the last moments.
    Exchanges,
}

impl Purpose {
    fn options(self, options: SqliteConnectOptions) -> SqliteConnectOptions {
        match self {
            // Deleted rows are overwritten: a credential that was removed is not left in a free page.
            Self::Configuration => options.synchronous(SqliteSynchronous::Full).pragma("secure_delete", "ON"),
            // A page is a system call or two, and a transaction writes the last one of the table and of its index anew: so large that
            // a batch is two of them.
            Self::Exchanges => options.synchronous(SqliteSynchronous::Normal).page_size(16_384),
        }
    }
}

async fn open(path: &Path, migrations: &Migrator, purpose: Purpose) -> Result<(SqlitePool, SqlitePool), StartError> {
    // KiB of pages that each connection keeps. What is read again is in the system's own cache, and the modules of filters would
    // fill the usual two MiB of each.
    let options = SqliteConnectOptions::new().filename(path).busy_timeout(BUSY).foreign_keys(true).pragma("cache_size", "-256");
    let writing = purpose
        .options(options.clone())
        .create_if_missing(true)
        .auto_vacuum(SqliteAutoVacuum::Incremental)
        .journal_mode(SqliteJournalMode::Wal);
    // A pool of one, since a pool can be closed in order: the log is then folded into the database before a stop ends.
    let writer = SqlitePoolOptions::new()
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .connect_with(writing)
        .await
        .map_err(|error| check::refused(path, &error))?;
    migrations.run(&writer).await.map_err(|error| StartError::DatabaseUnreadable {
        path: path.to_owned(),
        detail: format!("its schema could not be brought up to date: {error}"),
    })?;
    let readers = SqlitePoolOptions::new().max_connections(READERS).connect_lazy_with(options.read_only(true));
    Ok((writer, readers))
}
