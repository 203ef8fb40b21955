//! What filters may know of an exchange that is not in its headers, by name. The list of names is in `sdk/wit`.

use super::{Asked, Facts, bindings::tidegate::filter::types::Attr, state::State};
use crate::{credentials::Credentials, upstream};
use std::{
    borrow::Cow,
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};
use tidegate_policy::{Identity, Name, Permit, Snapshot, exchange::Verdict, identity::Proof, target::Form};

/// What filters set of their own begins with this.
const STATE: &str = "state.";

/// What is known of one exchange, shared by its run and the instances it visits. Nothing in it is waited for: a worker
/// runs one callback at a time, so the lock is only there because a store may be moved between threads.
#[derive(Debug)]
pub(super) struct Known {
    id: u64,
    began: Instant,
    identity: Identity,
    ends: (SocketAddr, SocketAddr),
    permit: Arc<Permit>,
    snapshot: Arc<Snapshot>,
    credentials: Credentials,
    asked: Option<Line>,
    connected: OnceLock<Connected>,
    status: AtomicU16,
    closing: OnceLock<Closing>,
    state: Mutex<BTreeMap<String, Attr>>,
}

#[derive(Debug)]
struct Line {
    method: http::Method,
    uri: http::Uri,
    version: http::Version,
}

impl Line {
    fn of(asked: Asked<'_>) -> Self {
        Self { method: asked.method.clone(), uri: asked.uri.clone(), version: asked.version }
    }
}

#[derive(Debug)]
struct Connected {
    facts: upstream::Facts,
    service: Option<Name>,
    first_byte: Duration,
}

/// What an attribute says, before anybody has a copy of it.
#[derive(Debug)]
pub(super) enum Fact<'a> {
    Text(Cow<'a, str>),
    Uint(u64),
    Flag(bool),
    /// What a filter has set.
    Set(Attr),
}

/// What is known of an exchange when it closes.
#[derive(Debug)]
pub struct Closing {
    /// What became of it.
    pub verdict: Verdict,
    /// Why.
    pub reason: tidegate_policy::Reason,
    /// What went wrong, in a sentence without secrets.
    pub fault: Option<String>,
    /// From the request's head until now.
    pub total: Duration,
    /// Body bytes from the caller.
    pub request_bytes: u64,
    /// Body bytes to the caller.
    pub response_bytes: u64,
}

impl Known {
    /// Of an exchange whose way through its filters begins now.
    pub(super) fn new(facts: Facts<'_>, began: Instant) -> Self {
        Self {
            id: facts.id,
            began,
            identity: facts.identity.clone(),
            ends: (facts.peer, facts.local),
            permit: Arc::clone(facts.permit),
            snapshot: Arc::clone(&facts.live.snapshot),
            credentials: facts.live.credentials.clone(),
            asked: facts.asked.map(Line::of),
            connected: OnceLock::new(),
            status: AtomicU16::new(0),
            closing: OnceLock::new(),
            state: Mutex::default(),
        }
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// When its way through its filters began.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// The decision.
    pub(super) fn permit(&self) -> &Permit {
        &self.permit
    }

    /// The policy that it was made by.
    pub(super) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The same, to be kept.
    pub(super) fn shared_snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// The caller.
    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Where the caller's connection comes from, and where it was accepted.
    pub(super) fn ends(&self) -> (SocketAddr, SocketAddr) {
        self.ends
    }

    /// The request's method, as the caller wrote it.
    pub(super) fn method(&self) -> Option<&http::Method> {
        self.asked.as_ref().map(|line| &line.method)
    }

    /// The request's path, as the caller wrote it.
    pub(super) fn path_and_query(&self) -> Option<&http::uri::PathAndQuery> {
        self.asked.as_ref()?.uri.path_and_query()
    }

    /// The request's authority, where its first line had one.
    pub(super) fn authority(&self) -> Option<&http::uri::Authority> {
        self.asked.as_ref()?.uri.authority()
    }

    /// The request's version.
    pub(super) fn version(&self) -> Option<http::Version> {
        self.asked.as_ref().map(|line| line.version)
    }

    /// The response's status, as it came.
    pub(super) fn status(&self) -> Option<http::StatusCode> {
        http::StatusCode::from_u16(self.status.load(Ordering::Relaxed)).ok()
    }

    /// The connection that the response came by.
    pub(super) fn upstream(&self) -> Option<&upstream::Facts> {
        self.connected.get().map(|connected| &connected.facts)
    }

    /// How it ended, once it has.
    pub(super) fn closing(&self) -> Option<&Closing> {
        self.closing.get()
    }

    /// The key material in force with it.
    pub(super) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Whether the caller asked for a head alone.
    pub(super) fn asked_for_head(&self) -> bool {
        self.asked.as_ref().is_some_and(|line| line.method == http::Method::HEAD)
    }

    /// Notes the connection that the response came by.
    pub(super) fn connected(&self, facts: &upstream::Facts, service: Option<&Name>, first_byte: Duration) {
        self.connected.get_or_init(|| Connected { facts: facts.clone(), service: service.cloned(), first_byte });
    }

    /// Notes the response's status.
    pub(super) fn responded(&self, status: http::StatusCode) {
        self.status.store(status.as_u16(), Ordering::Relaxed);
    }

    /// Notes how it ends.
    pub(super) fn closes(&self, closing: Closing) {
        self.closing.get_or_init(|| closing);
    }

    /// The attribute of this name, if it is known by now.
    pub(super) fn attribute(&self, name: &str) -> Option<Attr> {
        self.fact(name).map(Attr::from)
    }

    /// The same, where it lies.
    pub(super) fn fact(&self, name: &str) -> Option<Fact<'_>> {
        // Names are short: a search that is made for long texts takes longer than to look at each byte.
        let area = name.bytes().position(|byte| byte == b'.').and_then(|dot| name.get(..dot));
        match area {
            Some("caller") => self.of_caller(name),
            Some("request" | "response" | "exchange" | "duration") | None => self.of_exchange(name),
            Some("state") => self.state.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned().map(Fact::Set),
            Some(_) => self.of_way(name),
        }
    }

    fn of_caller(&self, name: &str) -> Option<Fact<'_>> {
        let caller = &self.identity.caller;
        match name {
            "caller.address" => Some(Fact::Text(self.identity.source.to_string().into())),
            "caller.principal" => text(caller.principal.as_deref()?),
            "caller.namespace" => text(caller.namespace.as_deref()?),
            "caller.service-account" => text(caller.service_account.as_deref()?),
            "caller.workload" | "caller.issuer" | "caller.proof" => proof(name, &caller.proof).and_then(text),
            _ => text(caller.labels.get(name.strip_prefix("caller.label.")?)?),
        }
    }

    fn of_exchange(&self, name: &str) -> Option<Fact<'_>> {
        let permit = &self.permit;
        let line = || self.asked.as_ref();
        let closing = || self.closing.get();
        match name {
            "exchange.id" => Some(Fact::Uint(self.id)),
            // An exchange that reaches a filter was allowed; what a filter makes of it comes later.
            "verdict" => text(match closing().map(|closing| closing.verdict) {
                None | Some(Verdict::Allowed) => "allowed",
                Some(Verdict::Denied) => "denied",
                Some(Verdict::Invalid) => "invalid",
            }),
            "reason" => text(closing().map_or(permit.reason(), |closing| closing.reason).as_str()),
            "fault" => text(closing()?.fault.as_deref()?),
            "rule" => text(permit.rule()?.as_str()),
            "service" => text(permit.service()?.name.as_str()),
            "route" => text(permit.route()?.name.as_str()),
            "request.method" => text(line()?.method.as_str()),
            "request.path" => text(line()?.uri.path()),
            "request.query" => text(line()?.uri.query()?),
            "request.protocol" => text(if line()?.version == http::Version::HTTP_2 { "HTTP/2" } else { "HTTP/1.1" }),
            "request.bytes" => Some(Fact::Uint(closing()?.request_bytes)),
            "response.bytes" => Some(Fact::Uint(closing()?.response_bytes)),
            "response.status" => {
                Some(self.status.load(Ordering::Relaxed)).filter(|status| *status > 0).map(|status| Fact::Uint(status.into()))
            }
            "duration.total-us" => micros(Some(closing()?.total)),
            "duration.resolve-us" => micros(self.connected.get()?.facts.resolve),
            "duration.connect-us" => micros(self.connected.get()?.facts.connect),
            "duration.tls-us" => micros(self.connected.get()?.facts.handshake),
            "duration.first-byte-us" => micros(Some(self.connected.get()?.first_byte)),
            _ => None,
        }
    }

    fn of_way(&self, name: &str) -> Option<Fact<'_>> {
        let permit = &self.permit;
        let facts = || self.connected.get().map(|connected| &connected.facts);
        match name {
            "target.host" => Some(Fact::Text(permit.target().host.to_string().into())),
            "target.port" => Some(Fact::Uint(permit.target().port.into())),
            "target.form" => text(form(permit.target().form)),
            "upstream.port" => Some(Fact::Uint(permit.port().number.into())),
            "upstream.tls" => {
                Some(Fact::Flag(permit.service().is_some_and(|service| service.document.originates(permit.port()))))
            }
            "upstream.address" => Some(Fact::Text(facts()?.address.to_string().into())),
            "upstream.service" => text(self.connected.get()?.service.as_ref()?.as_str()),
            "upstream.protocol" => text(facts()?.protocol),
            "upstream.reused" => Some(Fact::Flag(facts()?.reused)),
            "tls.version" => text(facts()?.tls_version?),
            "tls.peer" => text(facts()?.tls_peer.as_deref()?),
            _ => None,
        }
    }

    /// Sets an attribute of the filters' own; false where it may not be.
    pub(super) fn set(&self, name: &str, value: Attr, (count, bytes): (usize, usize)) -> bool {
        if name.strip_prefix(STATE).is_none_or(str::is_empty) {
            return false;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let others = state.iter().filter(|(other, _)| *other != name);
        let (kept, size) = others.fold((0, 0), |(kept, size), (name, value)| (kept + 1, size + name.len() + value.size()));
        let fits = kept < count && size + name.len() + value.size() <= bytes;
        if fits {
            state.insert(name.to_owned(), value);
        }
        fits
    }
}

impl State {
    /// The attribute of this name of the exchange that is being served, if it is known by now.
    pub(super) fn attribute(&self, name: &str) -> Option<Attr> {
        self.known.as_ref()?.attribute(name)
    }

    /// Sets an attribute of the filters' own; false where it may not be.
    pub(super) fn set_attribute(&self, name: &str, value: Attr) -> bool {
        let room = (self.limits.attribute_count, self.limits.attribute_bytes);
        let set = self.known.as_ref().is_some_and(|known| known.set(name, value, room));
        if !set {
            self.metrics.attributes_refused.add(1);
        }
        set
    }
}

impl From<Fact<'_>> for Attr {
    fn from(fact: Fact<'_>) -> Self {
        match fact {
            Fact::Text(text) => Self::Text(text.into_owned()),
            Fact::Uint(number) => Self::Uint(number),
            Fact::Flag(flag) => Self::Flag(flag),
            Fact::Set(attr) => attr,
        }
    }
}

impl Attr {
    /// What it counts for against limits, in bytes.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Blob(bytes) => bytes.len() * 2,
            Self::Int(_) | Self::Uint(_) | Self::Flag(_) | Self::TimeNs(_) => 8,
        }
    }
}

fn text(text: &str) -> Option<Fact<'_>> {
    Some(Fact::Text(text.into()))
}

fn micros(length: Option<Duration>) -> Option<Fact<'static>> {
    length.map(|length| Fact::Uint(u64::try_from(length.as_micros()).unwrap_or(u64::MAX)))
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
