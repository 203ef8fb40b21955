//! Modules as they are read when one has to be compiled. That is once in its life, so the database keeps them and memory does not.

use super::advice;
use crate::credential::sha256;
use sqlx::SqlitePool;
use std::sync::Arc;
use tidegate_policy::{
    plugin::Digest,
    publication::{ModuleStore, Unread},
};
use tokio::runtime::Handle;

/// The stored modules.
pub(super) struct Modules {
    readers: SqlitePool,
    runtime: Handle,
}

impl Modules {
    /// Those that these connections read, with the help of the runtime that this is called in.
    pub(super) fn new(readers: SqlitePool) -> Self {
        Self { readers, runtime: Handle::current() }
    }
}

impl ModuleStore for Modules {
    fn read(&self, digest: Digest) -> Result<Arc<[u8]>, Unread> {
        let query = sqlx::query_scalar("SELECT bytes FROM module WHERE digest = ?").bind(digest.to_string());
        let found: sqlx::Result<Option<Vec<u8>>> = self.runtime.block_on(query.fetch_optional(&self.readers));
        match found {
            Ok(Some(bytes)) if Digest::new(sha256(&bytes)) == digest => Ok(bytes.into()),
            Ok(Some(_)) => Err(Unread::Failed(
                "the database holds other bytes than were uploaded for it: upload it again, or restore the database from a backup"
                    .to_owned(),
            )),
            Ok(None) => Err(Unread::Gone),
            Err(sqlx::Error::PoolClosed) => Err(Unread::Failed("the gateway is stopping".to_owned())),
            Err(error) => Err(Unread::Failed(format!("it could not be read from the database ({error}): {}", advice(&error)))),
        }
    }
}
