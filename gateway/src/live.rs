//! What is in force: a publication made ready for use, swapped whole.

use crate::{filter, identity, upstream};
use arc_swap::ArcSwap;
use std::sync::Arc;
use tidegate_policy::{Publication, Snapshot};
use tokio::sync::watch;

/// A publication with everything compiled that the request path needs. Parts that did not change are shared with its
/// predecessor, so pools, limits and filter instances live on.
#[derive(Debug, Default)]
pub struct Live {
    /// The revision in force.
    pub revision: u64,
    /// The policy.
    pub snapshot: Arc<Snapshot>,
    /// TLS client configurations: see `upstream::tls`.
    pub origination: upstream::tls::Origination,
    /// Open connections by service: see `upstream`.
    pub loads: upstream::Loads,
    /// Verification keys: see `identity`.
    pub issuers: identity::Issuers,
    /// Compiled chains by route: see `filter`.
    pub chains: filter::Chains,
}

impl Live {
    /// Makes `publication` ready, taking over from `before` what did not change. Runs on the control plane. What cannot
    /// be made ready (a certificate that does not parse) is logged and refuses only the exchanges that need it.
    pub fn prepare(publication: &Publication, before: &Self, filters: &filter::Host) -> Self {
        let snapshot = &publication.snapshot;
        Self {
            revision: publication.revision,
            origination: upstream::tls::Origination::prepare(snapshot, &publication.credentials, &before.origination),
            loads: upstream::Loads::prepare(snapshot, &before.loads),
            issuers: identity::Issuers::prepare(snapshot, &before.issuers),
            chains: filter::Chains::prepare(filters, snapshot, &publication.modules, &before.chains),
            snapshot: Arc::clone(snapshot),
        }
    }
}

/// Puts every publication in force until there are no more. Workers load `live` once for each exchange, so the next
/// exchange of every worker sees it; exchanges under way keep what they began with.
///
/// Preparing may compile filters, so it runs where blocking harms nobody. Publications that come meanwhile are not queued:
/// the newest is prepared next.
pub async fn follow(mut publications: watch::Receiver<Arc<Publication>>, live: Arc<ArcSwap<Live>>, filters: Arc<filter::Host>) {
    publications.mark_changed();
    while publications.changed().await.is_ok() {
        let publication = Arc::clone(&publications.borrow_and_update());
        let (before, filters) = (live.load_full(), Arc::clone(&filters));
        let prepared = tokio::task::spawn_blocking(move || Live::prepare(&publication, &before, &filters)).await;
        match prepared {
            Ok(prepared) => {
                tracing::info!(revision = prepared.revision, "a revision is in force");
                live.store(Arc::new(prepared));
            }
            Err(error) => tracing::error!(%error, "a revision could not be made ready; the one before it stays in force"),
        }
    }
}
