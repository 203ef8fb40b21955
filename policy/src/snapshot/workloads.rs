//! Which workload a source address belongs to: the longest network, by one hash look-up for each prefix length in use.

use crate::{
    Identity, Name,
    identity::{Caller, Proof},
    workload::Workload,
};
use foldhash::HashMap;
use ipnet::IpNet;
use std::{collections::hash_map::Entry, net::IpAddr, sync::Arc};

/// Callers by network.
#[derive(Debug, Default)]
pub(super) struct WorkloadIndex {
    callers: Vec<Arc<Caller>>,
    networks: HashMap<IpNet, u32>,
    /// Prefix lengths in use, the longest first.
    v4_lengths: Vec<u8>,
    v6_lengths: Vec<u8>,
}

impl WorkloadIndex {
    /// Adds a caller and its position.
    pub(super) fn add_caller(&mut self, name: &Name, workload: &Workload) -> u32 {
        let shared = |text: &Option<String>| text.as_deref().map(Arc::from);
        self.callers.push(Arc::new(Caller {
            proof: Proof::Network { workload: name.clone() },
            principal: shared(&workload.principal),
            namespace: shared(&workload.namespace),
            service_account: shared(&workload.service_account),
            labels: workload.labels.clone(),
            claims: serde_json::Map::new(),
        }));
        u32::try_from(self.callers.len() - 1).unwrap_or(u32::MAX)
    }

    /// Says that `network` is the caller's at `position`, or whose it is already.
    pub(super) fn insert(&mut self, network: IpNet, position: u32) -> Result<(), &Proof> {
        let lengths = if network.addr().is_ipv4() { &mut self.v4_lengths } else { &mut self.v6_lengths };
        if let Err(at) = lengths.binary_search_by(|length| network.prefix_len().cmp(length)) {
            lengths.insert(at, network.prefix_len());
        }
        match self.networks.entry(network.trunc()) {
            Entry::Occupied(entry) => Err(&self.callers[*entry.get() as usize].proof),
            Entry::Vacant(entry) => {
                entry.insert(position);
                Ok(())
            }
        }
    }

    pub(super) fn caller_at(&self, source: IpAddr) -> Identity {
        let source = source.to_canonical();
        let lengths = if source.is_ipv4() { &self.v4_lengths } else { &self.v6_lengths };
        lengths
            .iter()
            .filter_map(|&length| IpNet::new(source, length).ok())
            .find_map(|network| self.networks.get(&network.trunc()))
            .map_or_else(
                || Identity::unknown(source),
                |&position| Identity { source, caller: Arc::clone(&self.callers[position as usize]) },
            )
    }
}
