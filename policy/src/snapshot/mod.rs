//! Everything registered, compiled for deciding: the rows, and the look-ups that a decision makes in them. Nothing here
//! decides, and nothing here changes once it is compiled.

mod compile;
mod hosts;
mod rules;
mod workloads;

pub(crate) use rules::RuleIndex;

use crate::{
    Mistake, Name, credential::CredentialKind, host::Host, identity::Identity, issuer::Issuer, plugin::Plugin, route::Route,
    rule::Rule, service::Service, workload::Workload,
};
use foldhash::HashMap;
use hosts::HostIndex;
use std::{collections::BTreeMap, sync::Arc};
use workloads::WorkloadIndex;

/// What becomes of exchanges that no rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// They are refused.
    #[default]
    Registered,
    /// They pass, and are recorded as such.
    Open,
}

/// Everything registered, as it is stored.
#[derive(Debug, Clone, Default)]
pub struct Rows {
    /// What becomes of exchanges that no rule matches.
    pub mode: Mode,
    /// Services by name.
    pub services: BTreeMap<Name, Arc<Service>>,
    /// Routes by name.
    pub routes: BTreeMap<Name, Arc<Route>>,
    /// Rules by name.
    pub rules: BTreeMap<Name, Arc<Rule>>,
    /// Workloads by name.
    pub workloads: BTreeMap<Name, Arc<Workload>>,
    /// Issuers by name.
    pub issuers: BTreeMap<Name, Arc<Issuer>>,
    /// Credentials by name: their kinds, never their material.
    pub credentials: BTreeMap<Name, CredentialKind>,
    /// Plugins by name.
    pub plugins: BTreeMap<Name, Arc<Plugin>>,
}

/// Everything registered, compiled for deciding. Immutable; replaced whole. The default one refuses everything.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub(crate) mode: Mode,
    registered: Arc<Registered>,
    /// By service, then in the order in which they are tried.
    routes: Vec<Arc<CompiledRoute>>,
    /// Where each service's routes begin in `routes`; one more at the end.
    route_starts: Vec<u32>,
    pub(crate) rules: RuleIndex,
    workloads: WorkloadIndex,
    issuers: BTreeMap<Name, Arc<Issuer>>,
}

/// The services and how they are found. Snapshots between which no service has changed share them.
#[derive(Debug, Default)]
struct Registered {
    /// By name.
    services: Vec<Arc<CompiledService>>,
    by_name: HashMap<Name, u32>,
    hosts: HostIndex,
}

/// A service as decisions see it.
#[derive(Debug)]
pub struct CompiledService {
    /// Its name.
    pub name: Name,
    /// Its document.
    pub document: Arc<Service>,
}

/// A route as decisions see it.
#[derive(Debug)]
pub struct CompiledRoute {
    /// Its name.
    pub name: Name,
    /// Its document.
    pub document: Arc<Route>,
}

impl Snapshot {
    /// Compiles everything registered, or says all that is wrong with it. Pointers begin with the collection and the
    /// name: `/services/payments/tls/trust`.
    pub fn compile(rows: &Rows) -> Result<Self, Vec<Mistake>> {
        Self::compile_after(rows, None)
    }

    /// The mode it was compiled for.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The service that registers `host`: an exact match before the longest suffix.
    pub fn service_for(&self, host: &Host) -> Option<&Arc<CompiledService>> {
        self.position_for(host).map(|position| self.service_at(position))
    }

    /// The service of this name.
    pub fn service(&self, name: &str) -> Option<&Arc<CompiledService>> {
        self.registered.by_name.get(name).map(|&position| self.service_at(position))
    }

    /// Every service, by name.
    pub fn services(&self) -> impl Iterator<Item = &Arc<CompiledService>> {
        self.registered.services.iter()
    }

    /// Whether both are known to have the very same services.
    pub fn shares_services(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.registered, &other.registered)
    }

    /// Every route, by service and then in the order in which they are tried.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<CompiledRoute>> {
        self.routes.iter()
    }

    /// The issuers whose tokens are believed.
    pub fn issuers(&self) -> impl Iterator<Item = (&Name, &Arc<Issuer>)> {
        self.issuers.iter()
    }

    /// The caller that comes from `source` and brings no credentials: by the longest network of all workloads. An IPv4
    /// address that a dual-stack socket reports as `::ffff:a.b.c.d` is taken for what it is.
    pub fn caller_at(&self, source: std::net::IpAddr) -> Identity {
        self.workloads.caller_at(source)
    }

    pub(crate) fn position_for(&self, host: &Host) -> Option<u32> {
        self.registered.hosts.find(host)
    }

    pub(crate) fn service_at(&self, position: u32) -> &Arc<CompiledService> {
        &self.registered.services[position as usize]
    }

    /// The routes of the service at `position`, in the order in which they are tried.
    pub(crate) fn routes_at(&self, position: u32) -> &[Arc<CompiledRoute>] {
        let position = position as usize;
        match self.route_starts.get(position..position + 2) {
            Some(&[start, end]) => &self.routes[start as usize..end as usize],
            _ => &[],
        }
    }
}
