//! Chains: what runs on the exchanges of each route, compiled and configured before the first of them comes.

use super::{Host, engine::Shared, inspect::Compiled, instance::Instance};
use foldhash::HashMap;
use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tidegate_policy::{
    Name, Snapshot,
    plugin::Digest,
    publication::Module,
    route::{FilterUse, OnError},
};

/// The chain of each route that has filters, compiled and configured, by route name.
#[derive(Default)]
pub struct Chains {
    /// Tells workers that something changed.
    pub(super) generation: u64,
    routes: HashMap<Name, Arc<Chain>>,
    filters: HashMap<FilterKey, Arc<Filter>>,
}

/// The filters of one route, in the order in which they see the request.
pub(super) struct Chain {
    pub(super) links: Vec<Link>,
}

/// One filter's place in a chain.
pub(super) struct Link {
    pub(super) plugin: Name,
    pub(super) on_error: OnError,
    /// The filter, or why there is none: `on_error` decides what becomes of its exchanges.
    pub(super) filter: Result<Arc<Filter>, Arc<str>>,
}

/// What tells filters apart: the module and its configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct FilterKey {
    digest: Digest,
    config: Arc<[u8]>,
}

/// A module with its configuration. Each worker has one instance of it.
pub(super) struct Filter {
    /// Unique in this process.
    pub(super) id: u64,
    /// The plugin that it was first used as, for its log.
    pub(super) plugin: Arc<str>,
    pub(super) config: Arc<[u8]>,
    pub(super) compiled: Arc<Compiled>,
    pub(super) shared: Arc<Shared>,
}

impl Filter {
    pub(super) fn new(shared: &Arc<Shared>, plugin: &str, compiled: Arc<Compiled>, config: Arc<[u8]>) -> Self {
        static IDS: AtomicU64 = AtomicU64::new(1);
        Self { id: IDS.fetch_add(1, Ordering::Relaxed), plugin: plugin.into(), config, compiled, shared: Arc::clone(shared) }
    }
}

impl Chains {
    /// Compiles the chains of the snapshot's routes; what did not change since `before` is shared. What cannot be made
    /// ready is logged, and its exchanges meet `on_error`.
    pub fn prepare(host: &Host, snapshot: &Snapshot, modules: &BTreeMap<Name, Module>, before: &Self) -> Self {
        static GENERATIONS: AtomicU64 = AtomicU64::new(1);
        let mut chains = Self { generation: GENERATIONS.fetch_add(1, Ordering::Relaxed), ..Self::default() };
        for route in snapshot.routes() {
            if route.document.filters.is_empty() {
                continue;
            }
            let links = route.document.filters.iter().map(|place| chains.link(host, place, modules, before)).collect();
            let chain = Chain { links };
            let chain = match before.routes.get(&route.name) {
                Some(unchanged) if unchanged.same(&chain) => Arc::clone(unchanged),
                _ => Arc::new(chain),
            };
            chains.routes.insert(route.name.clone(), chain);
        }
        chains
    }

    /// The chain of this route.
    pub(super) fn of(&self, route: &str) -> Option<&Arc<Chain>> {
        self.routes.get(route)
    }

    /// How many filters there are in all chains.
    pub(super) fn filter_count(&self) -> usize {
        self.filters.len()
    }

    fn link(&mut self, host: &Host, place: &FilterUse, modules: &BTreeMap<Name, Module>, before: &Self) -> Link {
        let filter = self.filter(host, place, modules, before).map_err(|reason| {
            tracing::error!(plugin = %place.plugin, reason, "a filter cannot be run; its exchanges meet on_error");
            Arc::from(reason)
        });
        Link { plugin: place.plugin.clone(), on_error: place.on_error, filter }
    }

    fn filter(
        &mut self,
        host: &Host,
        place: &FilterUse,
        modules: &BTreeMap<Name, Module>,
        before: &Self,
    ) -> Result<Arc<Filter>, String> {
        let module = modules.get(&place.plugin).ok_or("its module is not here; upload it again")?;
        let config = place.config.to_string().into_bytes().into();
        let key = FilterKey { digest: module.digest, config };
        if let Some(filter) = self.filters.get(&key).or_else(|| before.filters.get(&key)) {
            let filter = Arc::clone(filter);
            self.filters.insert(key, Arc::clone(&filter));
            return Ok(filter);
        }
        let compiled = host.compiled(module).map_err(|reasons| reasons.join("; "))?;
        let filter = Arc::new(Filter::new(&host.shared, place.plugin.as_str(), compiled, Arc::clone(&key.config)));
        Instance::start(&filter)?;
        self.filters.insert(key, Arc::clone(&filter));
        Ok(filter)
    }
}

impl Chain {
    fn same(&self, other: &Self) -> bool {
        let same = |one: &Link, other: &Link| {
            one.plugin == other.plugin
                && one.on_error == other.on_error
                && matches!((&one.filter, &other.filter), (Ok(one), Ok(other)) if Arc::ptr_eq(one, other))
        };
        self.links.len() == other.links.len() && self.links.iter().zip(&other.links).all(|(one, other)| same(one, other))
    }
}

impl fmt::Debug for Chains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chains").field("generation", &self.generation).field("routes", &self.routes.len()).finish()
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.links.iter().map(|link| &link.plugin)).finish()
    }
}
