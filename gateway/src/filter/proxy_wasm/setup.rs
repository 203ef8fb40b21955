//! What a route's entry says to a Proxy-Wasm filter: what its VM is told from others by, and what its root context is made
//! of. Pure.

use std::{collections::BTreeMap, sync::Arc};
use tidegate_policy::{plugin::Digest, route::FilterUse};

/// What tells VMs of one worker apart. The plugin is part of it, so that what a VM logs, counts, shares and calls is always
/// one plugin's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) plugin: Arc<str>,
    pub(super) digest: Digest,
    pub(super) machine: Machine,
}

/// What an entry says of the VM.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Machine {
    pub(super) vm_id: Arc<str>,
    pub(super) vm_config: Arc<[u8]>,
    pub(super) environment: BTreeMap<String, String>,
}

/// What an entry says to the filter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(in crate::filter) struct Setup {
    pub(super) machine: Machine,
    pub(super) root_id: Arc<str>,
    pub(super) config: Arc<[u8]>,
    /// Whether a stop at the head stops the head alone.
    pub(super) stops_head_only: bool,
    /// What the property `metadata` has, as JSON text.
    pub(super) metadata: Arc<str>,
}

impl Setup {
    /// What this entry says.
    pub(in crate::filter) fn of(used: &FilterUse) -> Self {
        Self {
            machine: Machine {
                vm_id: used.vm_id.as_str().into(),
                vm_config: bytes(&used.vm_config),
                environment: used.environment.clone(),
            },
            root_id: used.root_id.as_str().into(),
            config: bytes(&used.config),
            stops_head_only: used.allow_on_headers_stop_iteration,
            metadata: serde_json::Value::from(used.metadata.clone()).to_string().into(),
        }
    }
}

/// A configuration as a filter reads it: a string's bytes as they are, nothing for `null`, and of all else its JSON.
fn bytes(config: &serde_json::Value) -> Arc<[u8]> {
    match config {
        serde_json::Value::Null => Arc::default(),
        serde_json::Value::String(text) => text.as_bytes().into(),
        other => other.to_string().into_bytes().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_string_is_its_bytes_and_all_else_is_json() {
        assert_eq!(&*bytes(&json!(null)), b"");
        assert_eq!(&*bytes(&json!("as it is")), b"as it is");
        assert_eq!(&*bytes(&json!({"a": 1})), br#"{"a":1}"#);
    }
}
