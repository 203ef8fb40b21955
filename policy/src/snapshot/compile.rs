//! From rows to a snapshot: checks every document and every reference between them, and builds the look-ups.

use super::{CompiledRoute, CompiledService, HostIndex, Name, Registered, Rows, RuleIndex, Snapshot, WorkloadIndex};
use crate::{Mistake, identity::Proof, service::Service};
use foldhash::HashMap;
use std::{collections::BTreeMap, sync::Arc};

impl Snapshot {
    /// Compiles `rows` as [`Snapshot::compile`] does, keeping from `before` the compiled entries whose documents are the
    /// very same allocation, so that whatever holds on to them sees that they did not change.
    pub fn compile_after(rows: &Rows, before: Option<&Self>) -> Result<Self, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let registered = Registered::of(rows, before, &mut mistakes);
        let workloads = workloads(rows, &mut mistakes);
        documents(rows, &mut mistakes);
        if !mistakes.is_empty() {
            mistakes.sort();
            mistakes.dedup();
            return Err(mistakes);
        }
        let (routes, route_starts) = routes(rows, before, &registered.by_name);
        Ok(Self {
            mode: rows.mode,
            registered,
            routes,
            route_starts,
            rules: RuleIndex::new(rows.rules.iter()),
            workloads,
            issuers: rows.issuers.clone(),
        })
    }
}

impl Registered {
    /// Those of `rows`, with the mistakes of their hosts; those of `before` where none is another.
    fn of(rows: &Rows, before: Option<&Snapshot>, mistakes: &mut Vec<Mistake>) -> Arc<Self> {
        if let Some(before) = before.filter(|before| before.registered.are(&rows.services)) {
            return Arc::clone(&before.registered);
        }
        let hosts = hosts(rows, mistakes);
        let services = services(rows, before);
        let by_name = services.iter().zip(0..).map(|(service, at)| (service.name.clone(), at)).collect();
        Arc::new(Self { services, by_name, hosts })
    }

    /// Whether they were compiled from these very documents.
    fn are(&self, services: &BTreeMap<Name, Arc<Service>>) -> bool {
        let same = |(there, (name, document)): (&Arc<CompiledService>, (&Name, &Arc<Service>))| {
            Arc::ptr_eq(&there.document, document) && there.name == *name
        };
        self.services.len() == services.len() && self.services.iter().zip(services).all(same)
    }
}

/// Every document's own mistakes, and those of its references.
fn documents(rows: &Rows, mistakes: &mut Vec<Mistake>) {
    collect("services", &rows.services, mistakes, |service| service.check(rows));
    collect("routes", &rows.routes, mistakes, |route| route.check(rows));
    collect("rules", &rows.rules, mistakes, |rule| rule.check(rows));
    collect("workloads", &rows.workloads, mistakes, |workload| workload.check());
    let mut seen = BTreeMap::new();
    for (name, issuer) in &rows.issuers {
        if let Some(other) = seen.insert(issuer.issuer.as_str(), name) {
            let detail = format!("is the issuer {other}'s already: no two may believe the same `iss`");
            mistakes.push(Mistake::at(format!("/issuers/{name}/issuer"), detail));
        }
    }
    collect("issuers", &rows.issuers, mistakes, |issuer| issuer.check());
}

fn collect<T>(
    collection: &str,
    documents: &BTreeMap<Name, Arc<T>>,
    mistakes: &mut Vec<Mistake>,
    check: impl Fn(&T) -> Vec<Mistake>,
) {
    for (name, document) in documents {
        mistakes.extend(check(document).into_iter().map(|mistake| mistake.under(&format!("/{collection}/{name}"))));
    }
}

fn hosts(rows: &Rows, mistakes: &mut Vec<Mistake>) -> HostIndex {
    let mut index = HostIndex::with_capacity(rows.services.len());
    let names: Vec<&Name> = rows.services.keys().collect();
    for ((name, service), position) in rows.services.iter().zip(0..) {
        for (at, host) in service.hosts.iter().enumerate() {
            if let Err(other) = index.insert(host, position) {
                let owner = names[other as usize];
                let detail = format!("{host} is registered by the service {owner} already: each host belongs to one service");
                mistakes.push(Mistake::at(format!("/services/{name}/hosts/{at}"), detail));
            }
        }
    }
    index
}

fn workloads(rows: &Rows, mistakes: &mut Vec<Mistake>) -> WorkloadIndex {
    let mut index = WorkloadIndex::default();
    for (name, workload) in &rows.workloads {
        let position = index.add_caller(name, workload);
        for (at, network) in workload.networks.iter().enumerate() {
            if let Err(Proof::Network { workload: other }) = index.insert(*network, position) {
                let detail =
                    format!("{network} is the workload {other}'s already: name a longer prefix, or remove one of them");
                mistakes.push(Mistake::at(format!("/workloads/{name}/networks/{at}"), detail));
            }
        }
    }
    index
}

fn services(rows: &Rows, before: Option<&Snapshot>) -> Vec<Arc<CompiledService>> {
    let compiled = rows.services.iter().map(|(name, document)| {
        let kept = before.and_then(|before| before.service(name.as_str()));
        match kept.filter(|kept| Arc::ptr_eq(&kept.document, document)) {
            Some(kept) => Arc::clone(kept),
            None => Arc::new(CompiledService { name: name.clone(), document: Arc::clone(document) }),
        }
    });
    compiled.collect()
}

/// The routes by service and order, and where each service's begin.
fn routes(rows: &Rows, before: Option<&Snapshot>, by_name: &HashMap<Name, u32>) -> (Vec<Arc<CompiledRoute>>, Vec<u32>) {
    let old: HashMap<&Name, &Arc<CompiledRoute>> =
        before.into_iter().flat_map(Snapshot::routes).map(|route| (&route.name, route)).collect();
    let mut placed: Vec<(u32, Arc<CompiledRoute>)> = Vec::with_capacity(rows.routes.len());
    for (name, document) in &rows.routes {
        // A route whose service does not exist was a mistake, and nothing is compiled from mistakes.
        let Some(&service) = by_name.get(&document.service) else { continue };
        let route = match old.get(name).filter(|kept| Arc::ptr_eq(&kept.document, document)) {
            Some(kept) => Arc::clone(kept),
            None => Arc::new(CompiledRoute { name: name.clone(), document: Arc::clone(document) }),
        };
        placed.push((service, route));
    }
    // Stable, and the rows are in the order of their names.
    placed.sort_by_key(|(service, route)| (*service, route.document.order));
    let mut starts = Vec::with_capacity(by_name.len() + 1);
    let mut at = 0;
    for service in 0..u32::try_from(by_name.len()).unwrap_or(u32::MAX) {
        starts.push(u32::try_from(at).unwrap_or(u32::MAX));
        at += placed[at..].iter().take_while(|(of, _)| *of == service).count();
    }
    starts.push(u32::try_from(at).unwrap_or(u32::MAX));
    (placed.into_iter().map(|(_, route)| route).collect(), starts)
}
