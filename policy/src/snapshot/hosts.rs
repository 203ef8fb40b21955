//! Which service registers a host: by hash for exact hosts, by the hash of each parent for suffixes.

use crate::{
    Host, HostPattern,
    host::{MAX_LABELS, parents},
};
use foldhash::HashMap;
use std::{collections::hash_map::Entry, net::IpAddr, sync::Arc};

/// Positions of services by what they register.
#[derive(Debug, Default)]
pub(super) struct HostIndex {
    names: HashMap<Arc<str>, u32>,
    addresses: HashMap<IpAddr, u32>,
    suffixes: HashMap<Arc<str>, u32>,
    /// How many labels the registered suffixes have, so that no other parent is looked up.
    depths: Depths,
}

/// A set of label counts.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Depths(u128);

impl Depths {
    /// Adds the number of labels of `suffix`.
    pub(super) fn insert(&mut self, suffix: &str) {
        let labels = 1 + suffix.bytes().filter(|&byte| byte == b'.').count();
        self.0 |= 1 << labels.min(MAX_LABELS);
    }

    /// The parents of `name` that have as many labels as some suffix, the nearest first.
    pub(super) fn parents(self, name: &str) -> impl Iterator<Item = &str> {
        // Nothing is split where no suffix is registered.
        let name = if self.0 == 0 { "" } else { name };
        parents(name).filter(move |&(labels, _)| self.0 >> labels.min(MAX_LABELS) & 1 == 1).map(|(_, parent)| parent)
    }
}

impl HostIndex {
    pub(super) fn with_capacity(services: usize) -> Self {
        Self { names: HashMap::with_capacity_and_hasher(services, foldhash::fast::RandomState::default()), ..Self::default() }
    }

    /// Registers `pattern` for the service at `position`, or says which service has it already.
    pub(super) fn insert(&mut self, pattern: &HostPattern, position: u32) -> Result<(), u32> {
        match pattern {
            HostPattern::Exact(Host::Name(name)) => claim(&mut self.names, Arc::clone(name), position),
            HostPattern::Exact(Host::Address(address)) => claim(&mut self.addresses, *address, position),
            HostPattern::Suffix(suffix) => {
                self.depths.insert(suffix);
                claim(&mut self.suffixes, Arc::clone(suffix), position)
            }
        }
    }

    pub(super) fn find(&self, host: &Host) -> Option<u32> {
        match host {
            Host::Address(address) => self.addresses.get(address).copied(),
            Host::Name(name) => self
                .names
                .get(name.as_ref())
                .or_else(|| self.depths.parents(name).find_map(|parent| self.suffixes.get(parent)))
                .copied(),
        }
    }
}

fn claim<K: std::hash::Hash + Eq>(map: &mut HashMap<K, u32>, key: K, position: u32) -> Result<(), u32> {
    match map.entry(key) {
        Entry::Occupied(entry) => Err(*entry.get()),
        Entry::Vacant(entry) => {
            entry.insert(position);
            Ok(())
        }
    }
}
