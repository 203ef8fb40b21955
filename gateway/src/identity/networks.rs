//! Callers who are known by their address, so that the workloads' networks are searched once for each address and snapshot
//! rather than once for each exchange. Never decides anything: the snapshot does.

use foldhash::HashMap;
use std::{cell::RefCell, net::IpAddr, sync::Arc};
use tidegate_policy::{Identity, Snapshot, identity::Caller};

/// Addresses remembered by one worker. 4096 at some 50 bytes are 200 kB; beyond, all are forgotten at once, since finding
/// one again costs a search of a microsecond.
const ADDRESSES: usize = 4096;

/// The callers found by one worker since the snapshot in force came.
#[derive(Debug, Default)]
pub(super) struct Networks(RefCell<Found>);

#[derive(Debug, Default)]
struct Found {
    /// Held, so that its address is not another's.
    snapshot: Arc<Snapshot>,
    callers: HashMap<IpAddr, Arc<Caller>>,
}

impl Networks {
    /// Who calls from `source` (canonical), as `snapshot` has it.
    pub(super) fn caller_at(&self, snapshot: &Arc<Snapshot>, source: IpAddr) -> Identity {
        let mut found = self.0.borrow_mut();
        if !Arc::ptr_eq(&found.snapshot, snapshot) {
            found.callers.clear();
            found.snapshot = Arc::clone(snapshot);
        }
        if let Some(caller) = found.callers.get(&source) {
            return Identity { source, caller: Arc::clone(caller) };
        }
        let identity = snapshot.caller_at(source);
        if found.callers.len() >= ADDRESSES {
            found.callers.clear();
        }
        found.callers.insert(source, Arc::clone(&identity.caller));
        identity
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use tidegate_policy::Rows;

    fn snapshot(workload: &str, network: &str) -> Arc<Snapshot> {
        let mut rows = Rows::default();
        let document = serde_json::json!({"networks": [network]});
        rows.workloads
            .insert(workload.parse().expect("a name"), Arc::new(serde_json::from_value(document).expect("a workload")));
        Arc::new(Snapshot::compile(&rows).expect("a snapshot"))
    }

    #[test]
    fn a_caller_is_found_once_and_again_after_a_publication() {
        let (networks, source) = (Networks::default(), IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3)));
        let label = |snapshot: &Arc<Snapshot>| networks.caller_at(snapshot, source).caller.label();
        let (shop, billing) = (snapshot("shop", "10.1.0.0/16"), snapshot("billing", "10.1.2.0/24"));
        for _ in 0..2 {
            assert_eq!(label(&shop).as_deref(), Some("shop"));
        }
        assert_eq!(networks.0.borrow().callers.len(), 1);
        assert_eq!(label(&billing).as_deref(), Some("billing"), "another snapshot, another answer");
        for last in 0..5000_u32 {
            networks.caller_at(&billing, IpAddr::V4(Ipv4Addr::from_bits(last)));
        }
        assert!(networks.0.borrow().callers.len() <= ADDRESSES);
    }
}
