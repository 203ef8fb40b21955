//! What filters may know of an exchange that is not in its headers, by name. The list of names is in `sdk/wit`.

use super::{Facts, bindings::tidegate::filter::types::Attr};
use std::cell::{Cell, OnceCell};
use tidegate_policy::{Identity, Permit, identity::Proof, target::Form};

/// What is known of one exchange, shared by its run and the instances it visits.
#[derive(Debug)]
pub(super) struct Known {
    id: u64,
    identity: Identity,
    permit: Permit,
    request: OnceCell<(http::Method, http::Uri)>,
    status: Cell<u16>,
}

impl Known {
    pub(super) fn new(facts: Facts<'_>) -> Self {
        Self {
            id: facts.id,
            identity: facts.identity.clone(),
            permit: facts.permit.clone(),
            request: OnceCell::new(),
            status: Cell::new(0),
        }
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Notes the request's line; that of the first attempt stays.
    pub(super) fn requested(&self, head: &http::request::Parts) {
        self.request.get_or_init(|| (head.method.clone(), head.uri.clone()));
    }

    /// Notes the response's status.
    pub(super) fn responded(&self, status: http::StatusCode) {
        self.status.set(status.as_u16());
    }

    /// The attribute of this name, if it is known by now.
    pub(super) fn attribute(&self, name: &str) -> Option<Attr> {
        let caller = &self.identity.caller;
        let permit = &self.permit;
        let text = |text: &str| Some(Attr::Text(text.to_owned()));
        let optional = |value: Option<&str>| value.and_then(text);
        match name {
            "exchange.id" => Some(Attr::Uint(self.id)),
            "caller.address" => Some(Attr::Text(self.identity.source.to_string())),
            "caller.principal" => optional(caller.principal.as_deref()),
            "caller.namespace" => optional(caller.namespace.as_deref()),
            "caller.service-account" => optional(caller.service_account.as_deref()),
            "caller.workload" | "caller.issuer" | "caller.proof" => proof(name, &caller.proof).and_then(text),
            // An exchange that reaches a filter was allowed; what a filter makes of it comes later.
            "verdict" => text("allowed"),
            "reason" => text(permit.reason().as_str()),
            "rule" => optional(permit.rule().map(tidegate_policy::Name::as_str)),
            "service" => optional(permit.service().map(|service| service.name.as_str())),
            "route" => optional(permit.route().map(|route| route.name.as_str())),
            "target.host" => Some(Attr::Text(permit.target().host.to_string())),
            "target.port" => Some(Attr::Uint(permit.target().port.into())),
            "target.form" => text(form(permit.target().form)),
            "upstream.port" => Some(Attr::Uint(permit.port().number.into())),
            "request.method" => optional(self.request.get().map(|(method, _)| method.as_str())),
            "request.path" => optional(self.request.get().map(|(_, uri)| uri.path())),
            "request.query" => optional(self.request.get().and_then(|(_, uri)| uri.query())),
            "response.status" => Some(self.status.get()).filter(|status| *status > 0).map(|status| Attr::Uint(status.into())),
            _ => optional(name.strip_prefix("caller.label.").and_then(|label| caller.labels.get(label)).map(String::as_str)),
        }
    }
}

fn proof<'a>(name: &str, proof: &'a Proof) -> Option<&'a str> {
    match (name, proof) {
        ("caller.workload", Proof::Network { workload }) => Some(workload.as_str()),
        ("caller.issuer", Proof::Token { issuer }) => Some(issuer.as_str()),
        ("caller.proof", Proof::None) => Some("none"),
        ("caller.proof", Proof::Network { .. }) => Some("network"),
        ("caller.proof", Proof::Certificate) => Some("certificate"),
        ("caller.proof", Proof::Token { .. }) => Some("token"),
        _ => None,
    }
}

fn form(form: Form) -> &'static str {
    match form {
        Form::Plain => "plain",
        Form::Secure => "secure",
        Form::Tunnel => "tunnel",
    }
}
