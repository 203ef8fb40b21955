//! The decision: may this caller make this request?
//!
//! A deny rule that matches wins, else an allow rule, else the mode. What the request could mean to a server decides what
//! matches: see [`crate::path`] for paths that servers read differently.

use crate::{
    Denial, Host, Identity, Name, Permit, Reason, Snapshot,
    answer::Detour,
    identity::Proof,
    path::Readings,
    route::Match,
    rule::{Action, Moment, Rule},
    service::{Port, Protocol, Service, TlsMode},
    snapshot::{CompiledRoute, Mode},
    target::{Form, Request, Target},
};
use std::{cell::OnceCell, sync::Arc};

/// The port for requests in the clear: the one that origination is for.
const PLAINTEXT_PORT: u16 = 80;

impl Snapshot {
    /// Decides. Any matching deny rule wins, else any matching allow rule, else the mode; report rules are listed and
    /// change nothing. Of several matching rules of one action the first by name is named.
    ///
    /// In `registered` mode a host that no service registers, and a port that its service does not register, is refused
    /// whatever allow rules say. In `open` mode such a target passes without any service's privileges.
    pub fn decide(&self, identity: &Identity, request: &Request<'_>) -> Result<Permit, Box<Denial>> {
        let target = request.target;
        let position = self.position_for(&target.host);
        let service = position.map(|position| self.service_at(position));
        let port = service.map_or(Err(Reason::UnregisteredHost), |service| service.document.port_for(target));
        let facts = Facts::new(identity, request, service.map(|service| &service.name), port.ok());
        let matched = self.matched(&facts);
        let refuse = |reason, rule: Option<u32>| {
            let rule = rule.map(|number| self.rules.rule(number).name.clone());
            Box::new(Denial { reason, rule, service: service.cloned(), reports: self.names(&matched.reports) })
        };
        if matched.deny.is_some() {
            return Err(refuse(Reason::DeniedByRule, matched.deny));
        }
        let registered = match (port, self.mode) {
            (Ok(port), _) => Some(port),
            (Err(Reason::UnregisteredHost), Mode::Open) => None,
            (Err(reason), _) => return Err(refuse(reason, None)),
        };
        let reason = match (matched.allow, self.mode) {
            (Some(_), _) => Reason::AllowedByRule,
            (None, Mode::Open) => Reason::OpenMode,
            (None, Mode::Registered) => return Err(refuse(self.unmatched(&facts), None)),
        };
        // Routes belong to a service's registered ports.
        let routes = position.filter(|_| registered.is_some()).map_or(&[][..], |position| self.routes_at(position));
        let Ok(choice) = choose(routes, &facts) else { return Err(refuse(Reason::MalformedTarget, None)) };
        Ok(Permit {
            target: target.clone(),
            service: service.filter(|_| registered.is_some()).cloned(),
            port: registered.unwrap_or_else(|| Port { number: target.port, protocol: unregistered_protocol(target.form) }),
            matched: choice.and_then(|choice| choice.entry),
            route: choice.map(|choice| Arc::clone(&routes[choice.route])),
            rule: matched.allow.map(|number| self.rules.rule(number).name.clone()),
            reason,
            reports: self.names(&matched.reports),
        })
    }

    /// The permit for one of the destinations of `permit`'s route: the same request, resolved, dialled and verified as
    /// `service`. Its host becomes that service's first exact host, or stays what it was where the service has only
    /// patterns and they hold it, or lists endpoints of its own. The port is that of the same number, else the first of
    /// the same protocol.
    ///
    /// None where the route does not name `service` as a destination, no such port or host exists, only tunnels reach it,
    /// or the exchange would lose the TLS that it was promised.
    pub fn redirect(&self, permit: &Permit, service: &str) -> Option<Permit> {
        let route = permit.route.as_ref()?;
        route.document.destinations.iter().find(|destination| destination.service.as_str() == service)?;
        let service = self.service(service)?;
        let document = &service.document;
        let port = document.port_like(permit.port)?;
        match permit.target.form {
            Form::Secure if !document.originates(port) => return None,
            Form::Plain if document.passes_through() => return None,
            Form::Plain | Form::Secure | Form::Tunnel => {}
        }
        let host = document.host_like(&permit.target.host)?;
        let target = Target { form: permit.target.form, host, port: port.number };
        Some(Permit { target, port, service: Some(Arc::clone(service)), ..permit.clone() })
    }

    /// Where the exchange of `permit` would go if it were sent to `service`: to that service's first host that is no
    /// pattern, and to the port of the same number, else the first of the same protocol. None where there is no such service,
    /// host or port.
    pub fn detour(&self, permit: &Permit, service: &str) -> Option<Detour> {
        let service = self.service(service)?;
        let port = service.document.port_like(permit.port)?;
        let host = service.document.first_host()?.clone();
        let target = Target { form: permit.target.form, host, port: port.number };
        Some(Detour { service: Arc::clone(service), target, port })
    }

    /// Decides again for an exchange that has a permit and that a filter sends to `service`: the same caller and
    /// `request`, to the target of the [`Snapshot::detour`]. A rule must allow it there as if the caller had named it.
    ///
    /// The route stays that of `permit`, whose filters chose: its times and retries hold, and of the routes of `service`
    /// none applies. Report rules are those of both decisions.
    pub fn decide_again(
        &self,
        permit: &Permit,
        identity: &Identity,
        request: &Request<'_>,
        service: &str,
    ) -> Result<Permit, Box<Denial>> {
        let merge = |new: Vec<Name>| {
            let mut reports = [permit.reports.as_slice(), &new].concat();
            reports.sort_unstable();
            reports.dedup();
            reports
        };
        let Some(Detour { target, .. }) = self.detour(permit, service) else {
            let service = self.service(service).cloned();
            return Err(Box::new(Denial { reason: Reason::UnregisteredHost, rule: None, service, reports: merge(Vec::new()) }));
        };
        match self.decide(identity, &Request { target: &target, ..*request }) {
            Ok(mut new) => {
                let (route, matched) = (permit.route.clone(), permit.matched);
                Ok(Permit { route, matched, reports: merge(std::mem::take(&mut new.reports)), ..new })
            }
            Err(mut denial) => {
                denial.reports = merge(std::mem::take(&mut denial.reports));
                Err(denial)
            }
        }
    }

    fn names(&self, numbers: &[u32]) -> Vec<Name> {
        numbers.iter().map(|&number| self.rules.rule(number).name.clone()).collect()
    }

    /// The rules that match, found through the index.
    fn matched(&self, facts: &Facts<'_>) -> Matched {
        let mut matched = Matched::default();
        let meets = |number: &&u32| facts.meets(&self.rules.rule(**number).document);
        let first = |numbers: &[u32], best: Option<u32>| {
            let better = numbers.iter().take_while(|number| best.is_none_or(|best| **number < best));
            better.clone().find(meets).copied().or(best)
        };
        let caller = &facts.identity.caller;
        self.rules.candidates(facts.service, &facts.request.target.host, caller, |posting| {
            matched.deny = first(posting.denies, matched.deny);
            if matched.deny.is_none() {
                matched.allow = first(posting.allows, matched.allow);
            }
            matched.reports.extend(posting.reports.iter().filter(meets));
        });
        matched.reports.sort_unstable();
        matched.reports.dedup();
        matched
    }

    /// Why a registered target that no rule matched is refused: credentials could help, or not.
    fn unmatched(&self, facts: &Facts<'_>) -> Reason {
        let unknown = facts.identity.caller.proof == Proof::None;
        let host = &facts.request.target.host;
        if unknown && self.rules.challenges(facts.service, host, |rule| facts.is_about(rule) && facts.is_time_of(rule)) {
            Reason::CredentialsRequired
        } else {
            Reason::NoRuleAllows
        }
    }
}

/// The rules that match a request, by number.
#[derive(Debug, Default, PartialEq, Eq)]
struct Matched {
    deny: Option<u32>,
    /// Meaningless where `deny` is given.
    allow: Option<u32>,
    reports: Vec<u32>,
}

/// What rules and routes are compared with. What only some of them ask for is worked out when the first one does.
struct Facts<'a> {
    identity: &'a Identity,
    request: &'a Request<'a>,
    /// The service that registers the host.
    service: Option<&'a Name>,
    /// The service's port that the target maps to.
    port: Option<Port>,
    readings: OnceCell<Readings<'a>>,
    moment: OnceCell<Moment>,
}

impl<'a> Facts<'a> {
    fn new(identity: &'a Identity, request: &'a Request<'a>, service: Option<&'a Name>, port: Option<Port>) -> Self {
        Self { identity, request, service, port, readings: OnceCell::new(), moment: OnceCell::new() }
    }

    fn readings(&self) -> &Readings<'a> {
        self.readings.get_or_init(|| match self.request.target.form {
            Form::Tunnel => Readings::None,
            Form::Plain | Form::Secure => Readings::of(self.request.path),
        })
    }

    fn meets(&self, rule: &Rule) -> bool {
        self.is_about(rule) && self.is_by(rule) && self.is_time_of(rule)
    }

    fn is_by(&self, rule: &Rule) -> bool {
        rule.from.is_empty() || rule.from.iter().any(|from| from.matches(self.identity))
    }

    fn is_time_of(&self, rule: &Rule) -> bool {
        let moment = || *self.moment.get_or_init(|| self.request.time.into());
        rule.when.is_empty() || rule.when.iter().any(|window| window.holds(moment()))
    }

    fn is_about(&self, rule: &Rule) -> bool {
        let target = self.request.target;
        rule.to.is_empty()
            || rule.to.iter().any(|to| {
                let listed = |port| to.ports.contains(&port);
                let on_path = |path: &str| to.paths.iter().any(|pattern| pattern.matches(path));
                (to.services.is_empty() || self.service.is_some_and(|service| to.services.contains(service)))
                    && (to.hosts.is_empty() || to.hosts.iter().any(|pattern| pattern.matches(&target.host)))
                    && (to.ports.is_empty() || listed(target.port) || self.port.is_some_and(|port| listed(port.number)))
                    && (to.methods.is_empty() || to.methods.iter().any(|method| method.matches(self.request.method)))
                    && (to.paths.is_empty()
                        || match rule.action {
                            Action::Allow => self.readings().all(on_path),
                            Action::Deny | Action::Report => self.readings().any(on_path),
                        })
            })
    }
}

/// A route, and which entry of its `match` it was chosen for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Choice {
    route: usize,
    entry: Option<usize>,
}

/// A path that servers read differently leads to different routes.
struct Ambiguous;

/// The first route that matches. Where the readings of the path lead to different ones, none is safe: the filters of one
/// would be slipped past by asking for the other.
fn choose(routes: &[Arc<CompiledRoute>], facts: &Facts<'_>) -> Result<Option<Choice>, Ambiguous> {
    if routes.is_empty() {
        return Ok(None);
    }
    let asks_path = routes.iter().any(|route| route.document.matches.iter().any(|entry| entry.path.is_some()));
    if !asks_path {
        return Ok(first_route(routes, facts, None));
    }
    match facts.readings() {
        Readings::None => Ok(first_route(routes, facts, None)),
        Readings::One(path) => Ok(first_route(routes, facts, Some(path))),
        Readings::Unreadable => Err(Ambiguous),
        Readings::Several(paths) => {
            let mut choices = paths.iter().map(|path| first_route(routes, facts, Some(path)));
            let first = choices.next().flatten();
            if choices.all(|choice| choice == first) { Ok(first) } else { Err(Ambiguous) }
        }
    }
}

fn first_route(routes: &[Arc<CompiledRoute>], facts: &Facts<'_>, path: Option<&str>) -> Option<Choice> {
    routes.iter().enumerate().find_map(|(route, compiled)| {
        let entries = &compiled.document.matches;
        if entries.is_empty() {
            return Some(Choice { route, entry: None });
        }
        let entry = entries.iter().position(|entry| facts.fits(entry, path))?;
        Some(Choice { route, entry: Some(entry) })
    })
}

impl Facts<'_> {
    fn fits(&self, entry: &Match, path: Option<&str>) -> bool {
        let Request { method, query, headers, .. } = *self.request;
        entry.path.as_ref().is_none_or(|pattern| path.is_some_and(|path| pattern.matches(path)))
            && (entry.methods.is_empty() || entry.methods.iter().any(|name| name.matches(method)))
            && entry.from.as_ref().is_none_or(|from| from.matches(self.identity))
            && entry.headers.iter().all(|(name, pattern)| {
                headers.get_all(name.as_str()).iter().any(|value| pattern.matches_bytes(value.as_bytes()))
            })
            && entry.query.iter().all(|(name, pattern)| crate::query::any_value(query.unwrap_or(""), name, pattern))
    }
}

/// What an unregistered target is taken to speak.
const fn unregistered_protocol(form: Form) -> Protocol {
    match form {
        Form::Plain => Protocol::Http,
        Form::Secure => Protocol::Https,
        Form::Tunnel => Protocol::Tcp,
    }
}

impl Service {
    /// The port that `target` maps to, or why there is none.
    fn port_for(&self, target: &Target) -> Result<Port, Reason> {
        let registered = self.ports.iter().find(|port| port.number == target.port).copied();
        let opaque = |port: Port| matches!(port.protocol, Protocol::Tls | Protocol::Tcp);
        match target.form {
            Form::Tunnel => registered.ok_or(Reason::UnregisteredHost),
            Form::Plain | Form::Secure if self.passes_through() => Err(Reason::MalformedTarget),
            Form::Plain => match registered {
                Some(port) if opaque(port) => Err(Reason::MalformedTarget),
                Some(port) => Ok(port),
                None if target.port == PLAINTEXT_PORT => self.origination_port().ok_or(Reason::UnregisteredHost),
                None => Err(Reason::UnregisteredHost),
            },
            Form::Secure => match registered {
                Some(port) if self.originates(port) => Ok(port),
                Some(_) => Err(Reason::MalformedTarget),
                None => Err(Reason::UnregisteredHost),
            },
        }
    }

    /// Where a request in the clear goes when the service has no port for it: its first https port, else its first grpc one.
    fn origination_port(&self) -> Option<Port> {
        let first = |protocol| self.ports.iter().find(|port| port.protocol == protocol).copied();
        first(Protocol::Https).or_else(|| first(Protocol::Grpc))
    }

    /// The port that takes over exchanges meant for another service's `port`.
    pub(crate) fn port_like(&self, port: Port) -> Option<Port> {
        let opaque = |port: &Port| matches!(port.protocol, Protocol::Tls | Protocol::Tcp);
        let fits = |own: &&Port| opaque(own) == opaque(&port);
        let mut ports = self.ports.iter().filter(fits);
        let same_number = ports.clone().find(|own| own.number == port.number);
        same_number.or_else(|| ports.find(|own| own.protocol == port.protocol)).copied()
    }

    fn host_like(&self, asked: &Host) -> Option<Host> {
        let exact = self.first_host().cloned();
        let stays = || !self.endpoints.is_empty() || self.hosts.iter().any(|pattern| pattern.matches(asked));
        exact.or_else(|| stays().then(|| asked.clone()))
    }

    fn mode(&self) -> Option<TlsMode> {
        self.tls.as_ref().map(|tls| tls.mode)
    }

    /// Whether only tunnels reach it.
    pub fn passes_through(&self) -> bool {
        self.mode() == Some(TlsMode::Passthrough)
    }

    /// Whether the gateway originates TLS to `port`.
    pub fn originates(&self, port: Port) -> bool {
        match port.protocol {
            Protocol::Https | Protocol::Grpc => !matches!(self.mode(), Some(TlsMode::Disabled | TlsMode::Passthrough)),
            Protocol::Http | Protocol::Http2 | Protocol::Tls | Protocol::Tcp => false,
        }
    }
}
