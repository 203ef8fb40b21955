//! What the control plane hands to the data plane: one committed state of everything.

use crate::{Name, Snapshot, credential::Credential, plugin::Digest};
use std::{collections::BTreeMap, sync::Arc};

/// One committed state. The default is that before the first: nothing is registered, so everything is refused.
#[derive(Debug, Clone, Default)]
pub struct Publication {
    /// The revision it is the state after; 0 before anything was registered.
    pub revision: u64,
    /// The compiled policy.
    pub snapshot: Arc<Snapshot>,
    /// Key material by name, unsealed for use.
    pub credentials: BTreeMap<Name, Arc<Credential>>,
    /// Modules by plugin name.
    pub modules: BTreeMap<Name, Module>,
}

/// An uploaded module. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Module {
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// The bytes as they were uploaded.
    pub content: Content,
}

/// The bytes of a module. They are needed to compile it, which is seldom, and are not kept in memory for that.
#[derive(Clone)]
pub enum Content {
    /// Of one that is not stored yet.
    Here(Arc<[u8]>),
    /// Of one that is, and where.
    Stored(Arc<dyn ModuleStore>),
}

/// Where modules are stored.
pub trait ModuleStore: Send + Sync {
    /// The bytes of this module. Blocks meanwhile, so it is called from threads that may.
    ///
    /// # Errors
    /// [`Unread`] says why they are not to be had.
    fn read(&self, digest: Digest) -> Result<Arc<[u8]>, Unread>;
}

/// Why a module's bytes are not to be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unread {
    /// They are not stored any more. Another state, in which nobody needs them, may have been committed meanwhile.
    Gone,
    /// They cannot be read; a sentence for the operator.
    Failed(String),
}

impl Module {
    /// One that is not stored yet.
    pub fn here(digest: Digest, bytes: impl Into<Arc<[u8]>>) -> Self {
        Self { digest, content: Content::Here(bytes.into()) }
    }

    /// Its bytes, read where they are not here. Blocks meanwhile.
    ///
    /// # Errors
    /// [`Unread`] says why they are not to be had.
    pub fn read(&self) -> Result<Arc<[u8]>, Unread> {
        match &self.content {
            Content::Here(bytes) => Ok(Arc::clone(bytes)),
            Content::Stored(store) => store.read(self.digest),
        }
    }
}

impl std::fmt::Display for Unread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Gone => {
                f.write_str("its module is missing from the database: upload it again, or restore the database from a backup")
            }
            Self::Failed(reason) => f.write_str(reason),
        }
    }
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Here(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::Stored(_) => f.write_str("stored"),
        }
    }
}
