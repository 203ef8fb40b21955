//! Everything registered, compiled for deciding.

use crate::{
    Mistake, Name, credential::CredentialKind, host::Host, identity::Identity, issuer::Issuer, plugin::Plugin, route::Route,
    rule::Rule, service::Service, workload::Workload,
};
use std::{collections::BTreeMap, sync::Arc};

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

/// Everything registered, compiled for deciding. Immutable; replaced whole.
#[derive(Debug, Default)]
pub struct Snapshot {
    // look-up structures go here
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
    pub fn compile(_rows: &Rows) -> Result<Self, Vec<Mistake>> {
        unimplemented!()
    }

    /// The service that registers `host`: an exact match before the longest suffix.
    pub fn service_for(&self, _host: &Host) -> Option<&Arc<CompiledService>> {
        unimplemented!()
    }

    /// The service of this name.
    pub fn service(&self, _name: &str) -> Option<&Arc<CompiledService>> {
        unimplemented!()
    }

    /// Every service.
    pub fn services(&self) -> impl Iterator<Item = &Arc<CompiledService>> {
        std::iter::empty()
    }

    /// Every route.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<CompiledRoute>> {
        std::iter::empty()
    }

    /// The issuers whose tokens are believed.
    pub fn issuers(&self) -> impl Iterator<Item = (&Name, &Arc<Issuer>)> {
        std::iter::empty()
    }

    /// The caller that comes from `source` and brings no credentials: by the longest network of all workloads.
    pub fn caller_at(&self, source: std::net::IpAddr) -> Identity {
        Identity::unknown(source)
    }
}
