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
