//! The seven collections: what each holds, what its entries refer to, and everything that is in force.

use crate::{credential::CredentialFacts, document};
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc};
use tidegate_policy::{
    Mistake, Name, Rows,
    credential::Credential,
    issuer::Issuer,
    plugin::Plugin,
    publication::{Content, Module, ModuleStore},
    route::Route,
    rule::Rule,
    service::{Service, Trust},
    workload::Workload,
};

/// A collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Noun {
    Services,
    Routes,
    Rules,
    Workloads,
    Issuers,
    Credentials,
    Plugins,
}

/// One entry of a collection, checked by itself.
#[derive(Debug, Clone)]
pub(crate) enum Entry {
    Service(Arc<Service>),
    Route(Arc<Route>),
    Rule(Arc<Rule>),
    Workload(Arc<Workload>),
    Issuer(Arc<Issuer>),
    Credential(Arc<Credential>, CredentialFacts),
    Plugin(Arc<Plugin>, Module),
}

/// A reference from one entry to another.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    /// JSON pointer into the referring document.
    pub(crate) pointer: String,
    pub(crate) to: Noun,
    pub(crate) name: Name,
}

/// Everything that is in force: the rows, the key material and the modules.
#[derive(Debug, Clone, Default)]
pub(crate) struct Held {
    pub(crate) rows: Rows,
    pub(crate) credentials: BTreeMap<Name, Arc<Credential>>,
    pub(crate) modules: BTreeMap<Name, Module>,
}

impl Noun {
    pub(crate) const ALL: [Self; 7] =
        [Self::Services, Self::Routes, Self::Rules, Self::Workloads, Self::Issuers, Self::Credentials, Self::Plugins];

    /// The collection's name in URLs, and its table's.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::Routes => "routes",
            Self::Rules => "rules",
            Self::Workloads => "workloads",
            Self::Issuers => "issuers",
            Self::Credentials => "credentials",
            Self::Plugins => "plugins",
        }
    }

    /// What one of its entries is called.
    pub(crate) const fn singular(self) -> &'static str {
        match self {
            Self::Services => "service",
            Self::Routes => "route",
            Self::Rules => "rule",
            Self::Workloads => "workload",
            Self::Issuers => "issuer",
            Self::Credentials => "credential",
            Self::Plugins => "plugin",
        }
    }

    pub(crate) fn named(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|noun| noun.as_str() == text)
    }

    /// Reads an entry from a document. A plugin has no document to send; see `api::plugins`.
    pub(crate) fn read(self, body: &[u8]) -> Result<Entry, Vec<Mistake>> {
        match self {
            Self::Services => document::read(body).map(Arc::new).map(Entry::Service),
            Self::Routes => document::read(body).map(Arc::new).map(Entry::Route),
            Self::Rules => document::read(body).map(Arc::new).map(Entry::Rule),
            Self::Workloads => document::read(body).map(Arc::new).map(Entry::Workload),
            Self::Issuers => document::read(body).map(Arc::new).map(Entry::Issuer),
            Self::Credentials => {
                crate::credential::read(body).map(|(sealed, facts)| Entry::Credential(Arc::new(sealed), facts))
            }
            Self::Plugins => Err(vec![Mistake::at("", "a plugin is sent as the bytes of its module")]),
        }
    }
}

impl Entry {
    /// The document as it is stored and answered: never key material.
    pub(crate) fn document(&self) -> Result<Value, serde_json::Error> {
        match self {
            Self::Service(service) => serde_json::to_value(service),
            Self::Route(route) => serde_json::to_value(route),
            Self::Rule(rule) => serde_json::to_value(rule),
            Self::Workload(workload) => serde_json::to_value(workload),
            Self::Issuer(issuer) => serde_json::to_value(issuer),
            Self::Credential(_, facts) => serde_json::to_value(facts),
            Self::Plugin(plugin, _) => serde_json::to_value(plugin),
        }
    }

    /// What the entry refers to.
    pub(crate) fn references(&self) -> Vec<Reference> {
        let refer = |pointer: String, to, name: &Name| Reference { pointer, to, name: name.clone() };
        match self {
            Self::Service(service) => {
                let trust = service.tls.as_ref().and_then(|tls| match &tls.trust {
                    Trust::Credential(name) => Some(refer("/tls/trust".to_owned(), Noun::Credentials, name)),
                    Trust::System => None,
                });
                let certificate = service.tls.as_ref().and_then(|tls| tls.certificate.as_ref());
                let certificate = certificate.map(|name| refer("/tls/certificate".to_owned(), Noun::Credentials, name));
                trust.into_iter().chain(certificate).collect()
            }
            Self::Route(route) => {
                let service = refer("/service".to_owned(), Noun::Services, &route.service);
                let destinations = route.destinations.iter().enumerate().map(|(index, destination)| {
                    refer(format!("/destinations/{index}/service"), Noun::Services, &destination.service)
                });
                let filters = route.filters.iter().enumerate().flat_map(|(index, filter)| {
                    let plugin = refer(format!("/filters/{index}/plugin"), Noun::Plugins, &filter.plugin);
                    let granted = |field: &str, to: Noun, names: &[Name]| {
                        let name = |(at, name)| refer(format!("/filters/{index}/grants/{field}/{at}"), to, name);
                        names.iter().enumerate().map(name).collect::<Vec<_>>()
                    };
                    let services = granted("services", Noun::Services, &filter.grants.services);
                    let credentials = granted("credentials", Noun::Credentials, &filter.grants.credentials);
                    std::iter::once(plugin).chain(services).chain(credentials)
                });
                std::iter::once(service).chain(destinations).chain(filters).collect()
            }
            Self::Rule(rule) => {
                let services = rule.to.iter().enumerate().flat_map(|(at, to)| {
                    to.services
                        .iter()
                        .enumerate()
                        .map(move |(index, name)| refer(format!("/to/{at}/services/{index}"), Noun::Services, name))
                });
                services.collect()
            }
            Self::Workload(_) | Self::Issuer(_) | Self::Credential(..) | Self::Plugin(..) => Vec::new(),
        }
    }
}

impl Held {
    /// Puts `entry` under `name`, in place of what was there.
    pub(crate) fn insert(&mut self, name: Name, entry: Entry) {
        let rows = &mut self.rows;
        match entry {
            Entry::Service(service) => drop(rows.services.insert(name, service)),
            Entry::Route(route) => drop(rows.routes.insert(name, route)),
            Entry::Rule(rule) => drop(rows.rules.insert(name, rule)),
            Entry::Workload(workload) => drop(rows.workloads.insert(name, workload)),
            Entry::Issuer(issuer) => drop(rows.issuers.insert(name, issuer)),
            Entry::Credential(credential, _) => {
                rows.credentials.insert(name.clone(), credential.kind());
                self.credentials.insert(name, credential);
            }
            Entry::Plugin(plugin, module) => {
                rows.plugins.insert(name.clone(), plugin);
                self.modules.insert(name, module);
            }
        }
    }

    /// Lets go of the bytes of this plugin's module, which are in this store now.
    pub(crate) fn stored(&mut self, plugin: &Name, store: Arc<dyn ModuleStore>) {
        if let Some(module) = self.modules.get_mut(plugin) {
            module.content = Content::Stored(store);
        }
    }

    /// Takes `name` out of `noun`.
    pub(crate) fn remove(&mut self, noun: Noun, name: &Name) {
        let rows = &mut self.rows;
        match noun {
            Noun::Services => drop(rows.services.remove(name)),
            Noun::Routes => drop(rows.routes.remove(name)),
            Noun::Rules => drop(rows.rules.remove(name)),
            Noun::Workloads => drop(rows.workloads.remove(name)),
            Noun::Issuers => drop(rows.issuers.remove(name)),
            Noun::Credentials => {
                rows.credentials.remove(name);
                self.credentials.remove(name);
            }
            Noun::Plugins => {
                rows.plugins.remove(name);
                self.modules.remove(name);
            }
        }
    }

    /// Whether putting `entry` under `name` would change nothing.
    pub(crate) fn holds(&self, name: &Name, entry: &Entry) -> bool {
        let rows = &self.rows;
        match entry {
            Entry::Service(service) => rows.services.get(name) == Some(service),
            Entry::Route(route) => rows.routes.get(name) == Some(route),
            Entry::Rule(rule) => rows.rules.get(name) == Some(rule),
            Entry::Workload(workload) => rows.workloads.get(name) == Some(workload),
            Entry::Issuer(issuer) => rows.issuers.get(name) == Some(issuer),
            Entry::Credential(credential, _) => self
                .credentials
                .get(name)
                .is_some_and(|held| *crate::credential::material(held) == *crate::credential::material(credential)),
            Entry::Plugin(plugin, _) => rows.plugins.get(name) == Some(plugin),
        }
    }
}
