//! What each plugin holds beyond the life of its instances: the values they share and the instruments they count with. Made
//! when a publication first has the plugin, and dropped with the first that has it no more.
//!
//! Workers reach them through the filters that they run; the lock here is for the control plane, the page and the sweep.

use super::{
    instruments::{self, Instruments},
    kv,
    limits::{Limits, Metrics},
    proxy_wasm::Commons,
};
use crate::telemetry::page::{Kind, Page};
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};
use tidegate_policy::Name;

/// The holdings of all plugins, by their names.
pub(super) struct Holdings {
    by_plugin: Mutex<BTreeMap<Name, Arc<Holding>>>,
    /// What Proxy-Wasm VMs of one `vm_id` share, for as long as there are any.
    by_vm: Mutex<BTreeMap<Box<str>, Weak<Commons>>>,
    limits: Limits,
    metrics: Arc<Metrics>,
}

/// What the instances of one plugin share, on all workers and routes.
#[derive(Debug)]
pub(super) struct Holding {
    pub(super) store: kv::Store,
    /// What its Proxy-Wasm VMs share that have no `vm_id`.
    pub(super) commons: Arc<Commons>,
    pub(super) instruments: Instruments,
}

impl Holdings {
    pub(super) fn new(limits: Limits, metrics: Arc<Metrics>) -> Self {
        Self { by_plugin: Mutex::default(), by_vm: Mutex::default(), limits, metrics }
    }

    /// That of this plugin, made if absent.
    pub(super) fn of(&self, plugin: &Name) -> Arc<Holding> {
        let mut by_plugin = self.lock();
        match by_plugin.get(plugin) {
            Some(holding) => Arc::clone(holding),
            None => {
                let holding = self.detached();
                by_plugin.insert(plugin.clone(), Arc::clone(&holding));
                holding
            }
        }
    }

    /// One that belongs to no plugin: what a canary leaves behind is nobody's.
    pub(super) fn detached(&self) -> Arc<Holding> {
        let store = kv::Store::new(self.limits, Arc::clone(&self.metrics));
        let commons = Arc::new(Commons::new(self.limits, Arc::clone(&self.metrics)));
        Arc::new(Holding { store, commons, instruments: Instruments::new(self.limits, Arc::clone(&self.metrics)) })
    }

    /// What Proxy-Wasm VMs of this `vm_id` share, made if absent; those that have none share with their plugin's alone.
    pub(super) fn commons(&self, vm_id: &str, holding: &Holding) -> Arc<Commons> {
        if vm_id.is_empty() {
            return Arc::clone(&holding.commons);
        }
        let mut by_vm = self.by_vm.lock().unwrap_or_else(PoisonError::into_inner);
        by_vm.retain(|_, commons| commons.strong_count() > 0);
        if let Some(commons) = by_vm.get(vm_id).and_then(Weak::upgrade) {
            return commons;
        }
        let commons = Arc::new(Commons::new(self.limits, Arc::clone(&self.metrics)));
        by_vm.insert(vm_id.into(), Arc::downgrade(&commons));
        commons
    }

    /// What Proxy-Wasm VMs of this `vm_id` share, where there are any.
    pub(super) fn commons_there(&self, vm_id: &str) -> Option<Arc<Commons>> {
        self.by_vm.lock().unwrap_or_else(PoisonError::into_inner).get(vm_id)?.upgrade()
    }

    /// Drops those of plugins that are not there any more. Exchanges under way keep what they began with.
    pub(super) fn retain(&self, is_there: impl Fn(&Name) -> bool) {
        self.lock().retain(|plugin, _| is_there(plugin));
    }

    /// Removes the values whose time is over.
    pub(super) fn sweep(&self) {
        for (_, holding) in self.all() {
            holding.store.sweep();
        }
    }

    /// Writes how much each plugin holds, and what it counts, to `page`.
    pub(super) fn write(&self, page: &mut Page) {
        let holdings = self.all();
        let sizes: Vec<_> = holdings.iter().map(|(plugin, holding)| (plugin.as_str(), holding.store.size())).collect();
        let help = "Values that a plugin's instances share.";
        let family = page.family(Kind::Gauge, "tidegate_filter_kv_entries", help);
        for (plugin, (entries, _)) in sizes.iter().filter(|(_, (entries, _))| *entries > 0) {
            family.put("", &[("plugin", plugin)], *entries as f64);
        }
        let family = page.family(Kind::Gauge, "tidegate_filter_kv_bytes", "Bytes of their keys and values.");
        for (plugin, (_, bytes)) in sizes.iter().filter(|(_, (entries, _))| *entries > 0) {
            family.put("", &[("plugin", plugin)], *bytes as f64);
        }
        instruments::write(page, holdings.iter().map(|(plugin, holding)| (plugin.as_str(), &holding.instruments)));
    }

    fn all(&self) -> Vec<(Name, Arc<Holding>)> {
        self.lock().iter().map(|(plugin, holding)| (plugin.clone(), Arc::clone(holding))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, Arc<Holding>>> {
        self.by_plugin.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Holdings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Holdings").field("plugins", &self.lock().len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> Name {
        name.parse().unwrap()
    }

    #[test]
    fn a_plugin_keeps_what_it_holds_until_it_is_deleted() {
        let holdings = Holdings::new(Limits::default(), Arc::default());
        let one = holdings.of(&name("one"));
        one.store.set("key", b"value", None).unwrap();
        one.instruments.counter("seen").unwrap().add(1);
        assert!(holdings.of(&name("two")).store.get("key").is_none(), "plugins do not see each other's values");
        holdings.retain(|_| true);
        assert_eq!(holdings.of(&name("one")).store.get("key").unwrap().value, b"value");
        let text = || {
            let mut page = Page::default();
            holdings.write(&mut page);
            page.text()
        };
        assert!(text().contains("tidegate_filter_kv_bytes{plugin=\"one\"} 8"), "{}", text());
        assert!(text().contains("tidegate_plugin_counter_total{plugin=\"one\",metric=\"seen\"} 1"), "{}", text());
        holdings.retain(|plugin| plugin.as_str() != "one");
        assert!(!text().contains("plugin=\"one\""), "{}", text());
        assert!(holdings.of(&name("one")).store.get("key").is_none());
        assert!(one.store.get("key").is_some(), "an exchange under way keeps what it began with");
    }
}
