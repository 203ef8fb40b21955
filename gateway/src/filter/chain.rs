//! Chains: what runs on the exchanges of each route, compiled and configured before the first of them comes.

use super::{
    Host,
    engine::Shared,
    guest::Calls,
    holdings::Holding,
    inspect::{Code, Compiled},
    library::{NotCompiled, Turn},
    proxy_wasm::Setup,
    rehearsal::Rehearsal,
};
use foldhash::HashMap;
use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};
use tidegate_policy::{
    Name, Snapshot,
    grants::Grants,
    plugin::Digest,
    publication::{Module, Unread},
    route::{FilterUse, Isolation, OnError, Traffic},
};

/// The chain of each route that has filters, compiled and configured, by route name.
#[derive(Default)]
pub struct Chains {
    /// Tells workers that something changed.
    pub(super) generation: u64,
    routes: HashMap<Name, Arc<Chain>>,
    /// The filters that run although no exchange has come.
    pub(super) standing: Arc<[Arc<Filter>]>,
    /// What came of trying each module with each configuration, so that routes that agree in both try them once.
    tried: HashMap<Made, Result<(), Arc<str>>>,
    /// The modules that could not be read, by the plugin.
    pub(crate) unread: BTreeMap<Name, Unread>,
}

/// The filters of one route, in the order in which they see the request.
pub(super) struct Chain {
    pub(super) links: Vec<Link>,
}

/// One filter's place in a chain.
pub(super) struct Link {
    pub(super) plugin: Name,
    pub(super) on_error: OnError,
    /// Whether it must leave an event.
    pub(super) required: bool,
    pub(super) traffic: Traffic,
    /// The filter, or why there is none: `on_error` decides what becomes of its exchanges.
    pub(super) filter: Result<Arc<Filter>, Arc<str>>,
}

/// A module with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Made {
    pub(super) digest: Digest,
    pub(super) config: Arc<[u8]>,
    /// What a Proxy-Wasm filter is told beside or in place of that.
    pub(super) setup: Arc<Setup>,
}

/// A filter at its place on its route. Each worker has one instance of it, which no other place shares, even where
/// module and configuration are the same: when it fails, only exchanges of its own route are lost.
pub(super) struct Filter {
    /// Unique in this process.
    pub(super) id: u64,
    /// The name it is used by, for its log.
    pub(super) plugin: Arc<str>,
    pub(super) made: Made,
    pub(super) place: Place,
    pub(super) compiled: Arc<Compiled>,
    pub(super) shared: Arc<Shared>,
    /// What it shares with the other filters of its plugin.
    pub(super) holding: Arc<Holding>,
    /// Calls of its own that are open.
    pub(super) open_calls: Arc<AtomicUsize>,
}

/// How a route uses a filter, beyond its configuration.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Place {
    pub(super) isolation: Isolation,
    pub(super) grants: Arc<Grants>,
}

impl Filter {
    fn new(shared: &Arc<Shared>, plugin: &Name, compiled: Arc<Compiled>, made: Made, place: Place) -> Self {
        Self::holding(shared.holdings.of(plugin), shared, plugin.as_str(), compiled, made, place)
    }

    /// A filter on no route, to see whether it starts.
    pub(super) fn canary(shared: &Arc<Shared>, compiled: Arc<Compiled>, made: Made) -> Self {
        Self::holding(shared.holdings.detached(), shared, "canary", compiled, made, Place::default())
    }

    fn holding(
        holding: Arc<Holding>,
        shared: &Arc<Shared>,
        plugin: &str,
        compiled: Arc<Compiled>,
        made: Made,
        place: Place,
    ) -> Self {
        static IDS: AtomicU64 = AtomicU64::new(1);
        let id = IDS.fetch_add(1, Ordering::Relaxed);
        let open_calls = Arc::default();
        Self { id, plugin: plugin.into(), made, place, compiled, shared: Arc::clone(shared), holding, open_calls }
    }
}

impl Filter {
    /// Whether calls into it may suspend. Those into a VM never do: what a guest has stopped is waited for outside of it.
    pub(super) fn calls(&self) -> Calls {
        match &self.compiled.code {
            Code::Typed(ready) => ready.calls(),
            Code::Proxy(_) => Calls::Plain,
        }
    }
}

impl Chains {
    /// Compiles the chains of the snapshot's routes; what did not change since `before` is shared. What cannot be made
    /// ready is logged, and its exchanges meet `on_error`.
    pub fn prepare(host: &Host, snapshot: &Snapshot, modules: &BTreeMap<Name, Module>, before: &Self) -> Self {
        static GENERATIONS: AtomicU64 = AtomicU64::new(1);
        let mut chains = Self { generation: GENERATIONS.fetch_add(1, Ordering::Relaxed), ..Self::default() };
        let rehearsal = rehearse(host, snapshot, modules, before);
        for route in snapshot.routes() {
            if route.document.filters.is_empty() {
                continue;
            }
            let same_place = before.routes.get(&route.name);
            let places = route.document.filters.iter().enumerate();
            let links = places.map(|(position, place)| {
                let occupant = same_place.and_then(|chain| chain.links.get(position)?.filter.as_ref().ok());
                chains.link(host, place, modules, &Before { occupant, rehearsal: &rehearsal })
            });
            let chain = Chain { links: links.collect() };
            let chain = match same_place {
                Some(unchanged) if unchanged.same(&chain) => Arc::clone(unchanged),
                _ => Arc::new(chain),
            };
            chains.routes.insert(route.name.clone(), chain);
        }
        host.shared.holdings.retain(|plugin| modules.contains_key(plugin));
        let filters = chains.routes.values().flat_map(|chain| chain.links.iter().filter_map(|link| link.filter.as_ref().ok()));
        chains.standing = filters.filter(|filter| matches!(filter.compiled.code, Code::Proxy(_))).cloned().collect();
        chains
    }

    /// Notes why there is no compiled module; the same as a sentence.
    fn note(&mut self, plugin: &Name, reason: NotCompiled) -> Arc<str> {
        if let NotCompiled::Unread(unread) = &reason {
            self.unread.insert(plugin.clone(), unread.clone());
        }
        reason.reasons().join("; ").into()
    }

    /// The chain of this route.
    pub(super) fn of(&self, route: &str) -> Option<&Arc<Chain>> {
        self.routes.get(route)
    }

    fn link(&mut self, host: &Host, place: &FilterUse, modules: &BTreeMap<Name, Module>, before: &Before<'_>) -> Link {
        let filter = self.filter(host, place, modules, before).inspect_err(|reason| {
            tracing::error!(plugin = %place.plugin, reason = &**reason, "a filter cannot be run; its exchanges meet on_error");
        });
        let &FilterUse { on_error, required, traffic, .. } = place;
        Link { plugin: place.plugin.clone(), on_error, required, traffic, filter }
    }

    fn filter(
        &mut self,
        host: &Host,
        used: &FilterUse,
        modules: &BTreeMap<Name, Module>,
        before: &Before<'_>,
    ) -> Result<Arc<Filter>, Arc<str>> {
        let module = modules.get(&used.plugin).ok_or("its module is not here; upload it again")?;
        let made = Made::at(used, module);
        let place = Place { isolation: used.isolation, grants: Arc::new(used.grants.clone()) };
        if let Some(unchanged) = before.occupant.filter(|filter| filter.made == made && filter.place == place) {
            self.tried.insert(made, Ok(()));
            return Ok(Arc::clone(unchanged));
        }
        let compiled = match before.rehearsal.compiled.get(&module.digest) {
            Some(compiled) => compiled.clone(),
            None => host.compiled(module, Turn::Wait),
        };
        let compiled = compiled.map_err(|reason| self.note(&used.plugin, reason))?;
        // What was not tried now was tried before, or there was no time, and its first exchange will show.
        let started = before.rehearsal.tried.get(&made).cloned().unwrap_or(Ok(()));
        self.tried.insert(made.clone(), started.clone());
        started.map(|()| Arc::new(Filter::new(&host.shared, &used.plugin, compiled, made, place)))
    }
}

/// Makes ready what the snapshot's routes need and has not run yet. What did not start before is tried again: it may have
/// run out of time on a busy machine.
fn rehearse(host: &Host, snapshot: &Snapshot, modules: &BTreeMap<Name, Module>, before: &Chains) -> Rehearsal {
    let places = snapshot.routes().flat_map(|route| route.document.filters.iter());
    let mut wanted = HashMap::default();
    for (place, module) in places.filter_map(|place| Some((place, modules.get(&place.plugin)?))) {
        let made = Made::at(place, module);
        if before.tried.get(&made) != Some(&Ok(())) {
            wanted.insert(made, module);
        }
    }
    let modules = wanted.values().map(|module| (module.digest, *module)).collect();
    Rehearsal::of(host, &modules, &wanted.keys().collect::<Vec<_>>())
}

impl Made {
    /// What a place on a route makes of a module.
    pub(super) fn at(place: &FilterUse, module: &Module) -> Self {
        let config = place.config.to_string().into_bytes().into();
        Self { digest: module.digest, config, setup: Arc::new(Setup::of(place)) }
    }
}

/// What is known of a place before its filter is made.
struct Before<'a> {
    /// The filter that the chains before have there.
    occupant: Option<&'a Arc<Filter>>,
    rehearsal: &'a Rehearsal,
}

impl Chain {
    fn same(&self, other: &Self) -> bool {
        let same = |one: &Link, other: &Link| {
            one.plugin == other.plugin
                && one.on_error == other.on_error
                && one.required == other.required
                && one.traffic == other.traffic
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
