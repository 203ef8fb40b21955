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
#[derive(Clone)]
pub struct Module {
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// The bytes as they were uploaded.
    pub bytes: Arc<[u8]>,
}

impl std::fmt::Debug for Module {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Module({}, {} bytes)", self.digest, self.bytes.len())
    }
}
