//! What is in force: a publication made ready for use, swapped whole.

use std::sync::Arc;
use tidegate_policy::{Publication, Snapshot};

/// A publication with everything compiled that the request path needs. Parts that did not change are shared with its
/// predecessor, so pools, limits and filter instances live on.
#[derive(Debug, Default)]
pub struct Live {
    /// The revision in force.
    pub revision: u64,
    /// The policy.
    pub snapshot: Arc<Snapshot>,
    /// TLS client configurations: see `upstream::tls`.
    pub origination: crate::upstream::tls::Origination,
    /// Verification keys: see `identity`.
    pub issuers: crate::identity::Issuers,
    /// Compiled chains by route: see `filter`.
    pub chains: crate::filter::Chains,
}

impl Live {
    /// Makes `publication` ready, taking over from `before` what did not change. Runs on the control plane. What cannot
    /// be made ready (a certificate that does not parse) is logged and refuses only the exchanges that need it.
    pub fn prepare(_publication: &Publication, _before: &Self, _filters: &crate::filter::Host) -> Self {
        unimplemented!()
    }
}
