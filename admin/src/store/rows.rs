//! Rows: reading them, and the one transaction that a change is.

use super::Store;
use crate::noun::{Noun, Reference};
use sqlx::{AssertSqlSafe, Sqlite, SqliteConnection, Transaction};
use tidegate_policy::publication::{Content, Module};

/// An entry as it is stored.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// The document, JSON text.
    pub(crate) document: String,
    pub(crate) revision: i64,
    pub(crate) created_ms: i64,
    pub(crate) updated_ms: i64,
}

/// Whose change it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Who<'a> {
    pub(crate) who: &'a str,
    pub(crate) role: &'a str,
    pub(crate) at_ms: i64,
}

/// A row to write.
#[derive(Debug)]
pub(crate) struct Change<'a> {
    pub(crate) noun: Noun,
    pub(crate) name: &'a str,
    pub(crate) document: &'a str,
    pub(crate) references: &'a [Reference],
    /// Sealed key material and its kind, of a credential.
    pub(crate) sealed: Option<(&'a str, Vec<u8>)>,
    /// The module, of a plugin.
    pub(crate) module: Option<&'a Module>,
}

impl Store {
    /// One row.
    pub(crate) async fn row(&self, noun: Noun, name: &str) -> sqlx::Result<Option<Row>> {
        row(&mut *self.readers.acquire().await?, noun, name).await
    }

    /// Up to `limit` rows whose names follow `after`, by name.
    pub(crate) async fn list(&self, noun: Noun, after: &str, limit: i64) -> sqlx::Result<Vec<Row>> {
        let sql = format!("SELECT * FROM {} WHERE name > ? ORDER BY name LIMIT ?", noun.as_str());
        sqlx::query_as(AssertSqlSafe(sql)).bind(after).bind(limit).fetch_all(&self.readers).await
    }
}

/// One row, as the transaction sees it.
pub(crate) async fn row(connection: &mut SqliteConnection, noun: Noun, name: &str) -> sqlx::Result<Option<Row>> {
    let sql = format!("SELECT * FROM {} WHERE name = ?", noun.as_str());
    sqlx::query_as(AssertSqlSafe(sql)).bind(name).fetch_optional(connection).await
}

/// What refers to `name`, as `/routes/charges/service`.
pub(crate) async fn referrers(connection: &mut SqliteConnection, noun: Noun, name: &str) -> sqlx::Result<Vec<String>> {
    let sql = "SELECT '/' || from_collection || '/' || from_name || pointer FROM reference WHERE to_collection = ? AND to_name = ? ORDER BY 1";
    sqlx::query_scalar(sql).bind(noun.as_str()).bind(name).fetch_all(connection).await
}

/// Writes a row, its revision and its audit entry. The answer is the row as it now stands.
pub(crate) async fn put(
    transaction: &mut Transaction<'_, Sqlite>,
    change: &Change<'_>,
    before: Option<&Row>,
    who: Who<'_>,
) -> sqlx::Result<Row> {
    let action = if before.is_some() { "replaced" } else { "created" };
    let (noun, name) = (change.noun, change.name);
    let audited = Audited { action, noun, name, before: before.map(|row| &*row.document), after: Some(change.document) };
    let revision = record(transaction, audited, who).await?;
    let created_ms = before.map_or(who.at_ms, |row| row.created_ms);
    let sql = format!(
        "INSERT INTO {} (name, document, revision, created_ms, updated_ms) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT (name) DO UPDATE SET document = excluded.document, revision = excluded.revision, updated_ms = excluded.updated_ms",
        noun.as_str()
    );
    let insert = sqlx::query(AssertSqlSafe(sql)).bind(name).bind(change.document).bind(revision);
    insert.bind(created_ms).bind(who.at_ms).execute(&mut **transaction).await?;
    if let Some((kind, sealed)) = &change.sealed {
        let sql = "INSERT INTO credential_material (name, kind, sealed) VALUES (?, ?, ?)
                   ON CONFLICT (name) DO UPDATE SET kind = excluded.kind, sealed = excluded.sealed";
        sqlx::query(sql).bind(name).bind(*kind).bind(sealed).execute(&mut **transaction).await?;
    }
    if let Some(module) = change.module {
        put_module(transaction, name, module).await?;
    }
    sqlx::query("DELETE FROM reference WHERE from_collection = ? AND from_name = ?")
        .bind(noun.as_str())
        .bind(name)
        .execute(&mut **transaction)
        .await?;
    for reference in change.references {
        let sql = "INSERT INTO reference (from_collection, from_name, pointer, to_collection, to_name) VALUES (?, ?, ?, ?, ?)";
        let insert = sqlx::query(sql).bind(noun.as_str()).bind(name).bind(&reference.pointer);
        insert.bind(reference.to.as_str()).bind(reference.name.as_str()).execute(&mut **transaction).await?;
    }
    let document = change.document.to_owned();
    Ok(Row { name: name.to_owned(), document, revision, created_ms, updated_ms: who.at_ms })
}

/// Deletes a row, and writes its revision and audit entry.
pub(crate) async fn delete(
    transaction: &mut Transaction<'_, Sqlite>,
    noun: Noun,
    before: &Row,
    who: Who<'_>,
) -> sqlx::Result<i64> {
    let name = &*before.name;
    let audited = Audited { action: "deleted", noun, name, before: Some(&before.document), after: None };
    let revision = record(transaction, audited, who).await?;
    let sql = format!("DELETE FROM {} WHERE name = ?", noun.as_str());
    sqlx::query(AssertSqlSafe(sql)).bind(name).execute(&mut **transaction).await?;
    sqlx::query("DELETE FROM reference WHERE from_collection = ? AND from_name = ?")
        .bind(noun.as_str())
        .bind(name)
        .execute(&mut **transaction)
        .await?;
    drop_unused_modules(transaction).await?;
    Ok(revision)
}

struct Audited<'a> {
    action: &'static str,
    noun: Noun,
    name: &'a str,
    before: Option<&'a str>,
    after: Option<&'a str>,
}

async fn record(transaction: &mut Transaction<'_, Sqlite>, audited: Audited<'_>, who: Who<'_>) -> sqlx::Result<i64> {
    let sql = "INSERT INTO revision (at_ms, who, action, collection, name) VALUES (?, ?, ?, ?, ?) RETURNING number";
    let insert = sqlx::query_scalar(sql).bind(who.at_ms).bind(who.who).bind(audited.action);
    let revision: i64 = insert.bind(audited.noun.as_str()).bind(audited.name).fetch_one(&mut **transaction).await?;
    let insert =
        sqlx::query("INSERT INTO audit (revision, role, before, after) VALUES (?, ?, ?, ?)").bind(revision).bind(who.role);
    insert.bind(audited.before).bind(audited.after).execute(&mut **transaction).await?;
    Ok(revision)
}

/// Stores the bytes of a module that was uploaded; whether they were not there, or others were.
pub(crate) async fn put_bytes(transaction: &mut Transaction<'_, Sqlite>, module: &Module) -> sqlx::Result<bool> {
    let Content::Here(bytes) = &module.content else { return Ok(false) };
    let sql = "INSERT INTO module (digest, bytes) VALUES (?, ?)
        ON CONFLICT (digest) DO UPDATE SET bytes = excluded.bytes WHERE bytes IS NOT excluded.bytes";
    let put = sqlx::query(sql).bind(module.digest.to_string()).bind(&**bytes).execute(&mut **transaction).await?;
    Ok(put.rows_affected() > 0)
}

async fn put_module(transaction: &mut Transaction<'_, Sqlite>, name: &str, module: &Module) -> sqlx::Result<()> {
    let digest = module.digest.to_string();
    put_bytes(transaction, module).await?;
    let sql =
        "INSERT INTO plugin_module (name, digest) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET digest = excluded.digest";
    sqlx::query(sql).bind(name).bind(&digest).execute(&mut **transaction).await?;
    drop_unused_modules(transaction).await
}

async fn drop_unused_modules(transaction: &mut Transaction<'_, Sqlite>) -> sqlx::Result<()> {
    let sql = "DELETE FROM module WHERE digest NOT IN (SELECT digest FROM plugin_module)";
    sqlx::query(sql).execute(&mut **transaction).await.map(drop)
}
