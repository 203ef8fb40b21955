//! The policy around a described exchange: its service, a route with the one filter, a rule that allows it, and whatever the
//! filter's grants name.

use super::{Refused, Trial, script};
use crate::{
    credentials::Credentials,
    filter::{Chains, Host, Inspection},
    http::{reply::Dialect, target},
    live::Live,
};
use serde_json::json;
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::SystemTime};
use tidegate_policy::{
    Identity, Mistake, Name, Permit, Snapshot, Target,
    credential::{Credential, CredentialKind},
    identity::{Caller, Proof},
    plugin::Plugin,
    publication::Module,
    route::FilterUse,
    service::Service,
    snapshot::Rows,
    target::{Form, Request},
};

/// The route and the service are called so, and so is the rule.
const NAME: &str = "trial";

/// What the exchange takes place on.
pub(super) struct Stage {
    pub(super) live: Live,
    pub(super) identity: Identity,
    pub(super) permit: Arc<Permit>,
    pub(super) dialect: Dialect,
    /// The filter's place on the route.
    pub(super) used: FilterUse,
}

impl Stage {
    pub(super) fn set(
        host: &Host,
        trial: &Trial,
        (module, size_bytes, inspection): (Module, u64, Inspection),
        head: &http::request::Parts,
    ) -> Result<Self, Refused> {
        let asked = http::Request::from_parts(head.clone(), ());
        let named = target::of(&asked, &target::Cache::default()).map_err(|fault| at("/url", fault.detail()))?;
        let target = named.target.clone();
        let name: Name = NAME.parse().map_err(|detail: String| at("", &detail))?;
        let plugin = Plugin { digest: module.digest, size_bytes, world: inspection.world, imports: inspection.imports };
        let credentials = kinds(trial);
        let services = services(trial, &name, &target)?;
        let named: Vec<_> = services.keys().collect();
        let rule = json!({"action": "allow", "to": [{"services": named}]});
        let used: FilterUse = document(trial.entry())?;
        let route = json!({"service": NAME, "filters": [used]});
        let rows = Rows {
            rules: [(name.clone(), Arc::new(document(rule)?))].into(),
            routes: [(name.clone(), Arc::new(document(route)?))].into(),
            services,
            credentials: credentials.clone(),
            plugins: [(trial.plugin.clone(), Arc::new(plugin))].into(),
            ..Rows::default()
        };
        let snapshot = Arc::new(Snapshot::compile(&rows).map_err(Refused::Script)?);
        let modules = BTreeMap::from([(trial.plugin.clone(), module)]);
        let live = Live {
            chains: Chains::prepare(host, &snapshot, &modules, &Chains::default()),
            credentials: Credentials::of(
                &credentials.into_iter().map(|(name, kind)| (name, Arc::new(stand_in(kind)))).collect(),
            ),
            snapshot,
            ..Live::default()
        };
        let identity = identity(&trial.request.caller, name);
        let request = Request {
            target: &target,
            method: &head.method,
            path: head.uri.path(),
            query: head.uri.query(),
            headers: &head.headers,
            time: SystemTime::now(),
        };
        let permit = live.snapshot.decide(&identity, &request).map_err(|denial| at("/service", &denial.explanation()))?;
        Ok(Self { live, identity, permit: Arc::new(permit), dialect: Dialect::of(&head.headers), used })
    }

    /// The connection that the response would have come by.
    pub(super) fn connection(&self) -> crate::upstream::Facts {
        let tls = self.permit.service().is_some_and(|service| service.document.originates(self.permit.port()));
        crate::upstream::Facts {
            // Of the addresses for documentation (RFC 5737).
            address: SocketAddr::from(([192, 0, 2, 1], self.permit.port().number)),
            reused: false,
            tls_version: tls.then_some("TLSv1.3"),
            tls_peer: tls.then(|| self.permit.target().host.to_string().into()),
            protocol: "HTTP/1.1",
            resolve: None,
            connect: None,
            handshake: None,
        }
    }
}

fn at(pointer: &str, detail: &str) -> Refused {
    Refused::Script(vec![Mistake::at(pointer, detail)])
}

fn document<T: serde::de::DeserializeOwned>(document: serde_json::Value) -> Result<T, Refused> {
    serde_json::from_value(document).map_err(|error| at("", &error.to_string()))
}

/// The service that is asked, and the others.
fn services(trial: &Trial, name: &Name, target: &Target) -> Result<BTreeMap<Name, Arc<Service>>, Refused> {
    // A request in the clear to the scheme's own port is the case that origination is for.
    let (port, protocol) = match (target.form, target.port) {
        (Form::Plain, 80) | (Form::Secure | Form::Tunnel, 443) => (443, "https"),
        (Form::Plain, port) => (port, "http"),
        (_, port) => (port, "https"),
    };
    let made_up =
        |host: String| document::<Service>(json!({"hosts": [host], "ports": [{"number": port, "protocol": protocol}]}));
    let own = match &trial.request.service {
        Some(own) => (**own).clone(),
        None => made_up(target.host.to_string())?,
    };
    let mut services = BTreeMap::from([(name.clone(), Arc::new(own))]);
    for (name, service) in &trial.request.services {
        services.insert(name.clone(), Arc::new(service.clone()));
    }
    for granted in &trial.grants.services {
        if !services.contains_key(granted) {
            services.insert(granted.clone(), Arc::new(made_up(format!("{granted}.example"))?));
        }
    }
    Ok(services)
}

/// The credentials that there are: those that the grants name, and those that are described.
fn kinds(trial: &Trial) -> BTreeMap<Name, CredentialKind> {
    let granted = trial.grants.credentials.iter().map(|name| (name.clone(), CredentialKind::Secret));
    granted.chain(trial.request.credentials.iter().map(|(name, kind)| (name.clone(), *kind))).collect()
}

/// A credential of this kind. Nothing is ever sent with it.
fn stand_in(kind: CredentialKind) -> Credential {
    let secret = || String::from("stand-in").into();
    match kind {
        CredentialKind::Certificate => Credential::Certificate { chain: String::new(), key: secret() },
        CredentialKind::Trust => Credential::Trust { pem: String::new() },
        CredentialKind::Secret => Credential::Secret { value: secret() },
    }
}

fn identity(caller: &script::Caller, workload: Name) -> Identity {
    let known = caller.principal.is_some()
        || caller.namespace.is_some()
        || caller.service_account.is_some()
        || !caller.labels.is_empty();
    let text = |text: &Option<String>| text.as_deref().map(Arc::from);
    let who = Caller {
        proof: if known { Proof::Network { workload } } else { Proof::None },
        principal: text(&caller.principal),
        namespace: text(&caller.namespace),
        service_account: text(&caller.service_account),
        labels: caller.labels.clone(),
        ..Caller::default()
    };
    Identity { source: caller.address, caller: Arc::new(who) }
}
