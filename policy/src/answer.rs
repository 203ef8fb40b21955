//! The two outcomes of a decision.

use crate::{
    Name, Reason, Target,
    route::Match,
    service::Port,
    snapshot::{CompiledRoute, CompiledService},
};
use std::sync::Arc;

/// Proof that an exchange may leave. Only a decision makes one, and without one no socket can be opened.
#[derive(Debug, Clone)]
pub struct Permit {
    pub(crate) target: Target,
    pub(crate) service: Option<Arc<CompiledService>>,
    pub(crate) port: Port,
    pub(crate) route: Option<Arc<CompiledRoute>>,
    pub(crate) matched: Option<usize>,
    pub(crate) rule: Option<Name>,
    pub(crate) reason: Reason,
    pub(crate) reports: Vec<Name>,
}

/// Where an exchange would go that is sent to another service than the one its caller named. No permit: a decision is due.
#[derive(Debug, Clone)]
pub struct Detour {
    /// The service.
    pub service: Arc<CompiledService>,
    /// Its host and port, asked for as the first ones were.
    pub target: Target,
    /// The port.
    pub port: Port,
}

/// Why an exchange may not leave.
#[derive(Debug, Clone)]
pub struct Denial {
    /// The reason, from the closed list.
    pub reason: Reason,
    /// The rule that denied it, where one did.
    pub rule: Option<Name>,
    /// The service it would have gone to, where its host is registered.
    pub service: Option<Arc<CompiledService>>,
    /// The report rules that matched.
    pub reports: Vec<Name>,
}

impl Denial {
    /// What happened and what whoever runs the gateway can do about it, in a sentence.
    pub fn explanation(&self) -> String {
        let service = self.service.as_ref().map_or("the service", |service| service.name.as_str());
        match (self.reason, &self.rule) {
            (Reason::DeniedByRule, Some(rule)) => format!("The rule {rule} denies it: change that rule if this was not meant."),
            (Reason::UnregisteredHost, _) if self.service.is_some() => {
                format!("{service} does not register this port: add it to the service's ports.")
            }
            (Reason::UnregisteredHost, _) => "No service registers this host: register one that does.".to_owned(),
            (Reason::MalformedTarget, _) => format!(
                "{service} cannot be asked this way: its port speaks another protocol, or servers read the path differently; see its ports and the paths of its routes."
            ),
            (Reason::CredentialsRequired, _) => format!(
                "Some rule allows {service} to callers that prove who they are: send a token in Proxy-Authorization, or a client certificate."
            ),
            (Reason::NoRuleAllows, _) => format!("No allow rule for {service} matches this caller and this request: add one."),
            (reason, _) => format!("It was refused as {reason}."),
        }
    }
}

impl Permit {
    /// The target that was decided, and the only one that may be dialled.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The service that registers the target; none for an unregistered host in `open` mode.
    pub fn service(&self) -> Option<&Arc<CompiledService>> {
        self.service.as_ref()
    }

    /// The service's port that the target maps to (section "service" of the design: a plaintext request to port 80
    /// goes to the first https port of a service that registers no port 80).
    pub fn port(&self) -> Port {
        self.port
    }

    /// The route that was matched; none where the service has none that matches.
    pub fn route(&self) -> Option<&Arc<CompiledRoute>> {
        self.route.as_ref()
    }

    /// The entry of the route's `match` that the request met, whose prefix a rewrite replaces; none where the route takes
    /// everything.
    pub fn matched(&self) -> Option<&Match> {
        self.route.as_ref()?.document.matches.get(self.matched?)
    }

    /// The rule that allowed it; none in `open` mode.
    pub fn rule(&self) -> Option<&Name> {
        self.rule.as_ref()
    }

    /// `AllowedByRule` or `OpenMode`.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// The report rules that matched.
    pub fn reports(&self) -> &[Name] {
        &self.reports
    }
}
