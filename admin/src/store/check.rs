//! Is this file a database that this release can use? Asked before anything is written, and without writing.

use crate::StartError;
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection, migrate::Migrator, sqlite::SqliteConnectOptions};
use std::{io::ErrorKind, path::Path};

/// What every SQLite database begins with.
const MAGIC: &[u8] = b"SQLite format 3\0";

/// How much of a database is read before it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Every page.
    Whole,
    /// Header and schema: of a large database whose loss would not be one of configuration.
    Schema,
}

/// Checks the file at `path` and gives the connection that read it; an absent or empty one is fine, it will be made.
pub(super) async fn file(path: &Path, migrations: &Migrator, depth: Depth) -> Result<Option<SqliteConnection>, StartError> {
    match read_start(path) {
        Ok(start) if start.is_empty() => return Ok(None),
        Ok(start) if start != MAGIC => {
            return Err(damaged(path, "it does not begin as an SQLite database does"));
        }
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StartError::DatabaseUnreadable { path: path.to_owned(), detail: error.to_string() }),
    }
    // A log beside it belongs to it: read through it. Without one the file is complete, and reading it as immutable
    // leaves no new files beside it.
    let log = path.with_file_name(format!("{}-wal", path.file_name().unwrap_or_default().to_string_lossy()));
    let has_log = log.metadata().is_ok_and(|log| log.len() > 0);
    let options = SqliteConnectOptions::new().filename(path).read_only(true).immutable(!has_log);
    let mut connection = options.connect().await.map_err(|error| refused(path, &error))?;
    let question = match depth {
        Depth::Whole => "PRAGMA quick_check(1)",
        // Whatever is asked, the engine reads the whole schema first.
        Depth::Schema => "SELECT 'ok' FROM (SELECT COUNT(*) FROM sqlite_schema)",
    };
    let verdict = sqlx::query_scalar::<_, String>(question).fetch_one(&mut connection).await;
    match verdict.as_deref() {
        Ok("ok") => {}
        Ok(finding) => return Err(damaged(path, finding)),
        Err(error) => return Err(refused(path, error)),
    }
    let applied = sqlx::query("SELECT MAX(version) FROM _sqlx_migrations").fetch_one(&mut connection).await;
    // No such table: a database that was made and not yet migrated.
    let found = applied.ok().and_then(|row| row.try_get::<Option<i64>, _>(0).ok().flatten()).unwrap_or(0);
    let known = migrations.iter().map(|migration| migration.version).max().unwrap_or(0);
    if found > known {
        return Err(StartError::DatabaseNewer { path: path.to_owned(), found, known });
    }
    Ok(Some(connection))
}

/// The seal check; none where nothing was sealed, or no table is there yet.
pub(super) async fn seal(mut connection: SqliteConnection) -> Option<Vec<u8>> {
    let sealed = sqlx::query_scalar("SELECT sealed FROM seal_check").fetch_optional(&mut connection).await;
    close(connection).await;
    sealed.ok().flatten()
}

/// Ends a look at a database. What it only read it cannot have harmed, so there is nothing to refuse for.
pub(super) async fn close(connection: SqliteConnection) {
    if let Err(error) = connection.close().await {
        tracing::debug!(%error, "a database that was only read did not close cleanly");
    }
}

fn read_start(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut start = Vec::with_capacity(MAGIC.len());
    std::io::Read::read_to_end(&mut std::io::Read::take(std::fs::File::open(path)?, MAGIC.len() as u64), &mut start)?;
    Ok(start)
}

/// What the database engine's refusal means for the operator.
pub(super) fn refused(path: &Path, error: &sqlx::Error) -> StartError {
    // 11 is SQLITE_CORRUPT, 26 SQLITE_NOTADB.
    match super::primary_code(error) {
        Some(11 | 26) => damaged(path, &error.to_string()),
        _ => StartError::DatabaseUnreadable { path: path.to_owned(), detail: error.to_string() },
    }
}

fn damaged(path: &Path, detail: &str) -> StartError {
    StartError::DatabaseDamaged { path: path.to_owned(), detail: detail.to_owned() }
}
