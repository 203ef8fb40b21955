//! Names to addresses. The resolver asks on the control runtime; each worker remembers the answers for as long as their
//! TTL says, without locks, and asks for a name once however many exchanges wait for it. Nothing here judges an address:
//! that is `guard`'s.

use super::settings::{Metrics, ResolveSettings};
use crate::fault::Fault;
use foldhash::HashMap;
use futures_util::{
    FutureExt,
    future::{LocalBoxFuture, Shared},
};
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::op::ResponseCode,
};
use std::{
    cell::RefCell,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tidegate_policy::Reason;
use tokio::runtime::Handle;

/// Asks DNS, on the runtime it was started on. Shared by all workers.
#[derive(Clone)]
pub struct Resolver {
    runtime: Handle,
    hickory: TokioResolver,
    settings: Arc<ResolveSettings>,
}

/// What a name resolves to, or why it does not.
pub(super) type Answer = Result<Arc<[IpAddr]>, Failure>;

/// Why a name does not resolve, in a sentence.
#[derive(Debug, Clone)]
pub(super) struct Failure(Arc<str>);

/// An answer and how long it may be kept.
#[derive(Debug, Clone)]
struct Dated {
    answer: Answer,
    until: Instant,
}

/// What one worker remembers of names.
pub(super) struct Names {
    resolver: Resolver,
    metrics: Arc<Metrics>,
    known: RefCell<HashMap<Arc<str>, Known>>,
}

enum Known {
    Answer(Dated),
    /// Asked, and not answered yet. Whoever polls it drives it for all.
    Asked(Shared<LocalBoxFuture<'static, Dated>>),
}

impl Resolver {
    /// A resolver that works on `runtime` (the control plane's). Fails where the system's configuration cannot be read.
    pub fn start(settings: &ResolveSettings, runtime: Handle) -> Result<Self, String> {
        let hickory = build(settings)?;
        Ok(Self { runtime, hickory, settings: Arc::new(settings.clone()) })
    }

    async fn lookup(self, name: Arc<str>, metrics: Arc<Metrics>) -> Dated {
        // The final dot says that the name is whole: a search list must not turn a registered name into another one.
        let absolute = format!("{name}.");
        let (hickory, settings) = (self.hickory, self.settings);
        let limit = settings.timeout;
        let task = self.runtime.spawn(async move { tokio::time::timeout(limit, hickory.lookup_ip(absolute)).await });
        let outcome = match task.await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_elapsed)) => Err(NetError::Timeout),
            Err(_stopped) => Err(NetError::Message("the resolver has stopped")),
        };
        let now = Instant::now();
        match outcome {
            Ok(found) => {
                let ttl = found.as_lookup().valid_until().saturating_duration_since(now);
                let addresses: Arc<[IpAddr]> = found.iter().collect();
                if addresses.is_empty() {
                    metrics.resolve_negative.add(1);
                    return Dated { answer: Err(absent(&name)), until: now + settings.min_ttl };
                }
                Dated { answer: Ok(addresses), until: now + ttl.clamp(settings.min_ttl, settings.max_ttl) }
            }
            Err(error) => {
                let (failure, ttl) = explain(&name, &error, &settings, &metrics);
                Dated { answer: Err(failure), until: now + ttl }
            }
        }
    }
}

fn build(settings: &ResolveSettings) -> Result<TokioResolver, String> {
    if settings.min_ttl > settings.max_ttl {
        return Err("the shortest time an answer is kept is above the longest: lower min_ttl, or raise max_ttl".to_owned());
    }
    let mut builder = if settings.servers.is_empty() {
        TokioResolver::builder_tokio().map_err(|error| {
            format!(
                "the system's DNS configuration cannot be read: {error}; mend /etc/resolv.conf or name servers with --resolver"
            )
        })?
    } else {
        let servers = settings.servers.iter().map(|server| {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                connection.port = server.port();
                connection
            });
            NameServerConfig::new(server.ip(), true, connections.into())
        });
        let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    let options = builder.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
    options.timeout = settings.attempt_timeout;
    options.attempts = settings.attempts;
    options.use_hosts_file = if settings.hosts_file { ResolveHosts::Always } else { ResolveHosts::Never };
    options.positive_min_ttl = Some(settings.min_ttl);
    options.positive_max_ttl = Some(settings.max_ttl);
    options.negative_min_ttl = Some(settings.min_ttl);
    options.negative_max_ttl = Some(settings.max_negative_ttl.max(settings.min_ttl));
    options.cache_size = settings.names as u64;
    builder.build().map_err(|error| format!("the resolver cannot be started: {error}"))
}

/// The sentence for a failed lookup, and how long to believe it.
fn explain(name: &str, error: &NetError, settings: &ResolveSettings, metrics: &Metrics) -> (Failure, Duration) {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) if none.response_code != ResponseCode::ServFail => {
            metrics.resolve_negative.add(1);
            let ttl = none.negative_ttl.map_or(settings.min_ttl, |seconds| Duration::from_secs(seconds.into()));
            let failure = if none.response_code == ResponseCode::NXDomain {
                Failure(format!("{name} does not exist (NXDOMAIN): check the spelling, or whether it is known to the gateway's DNS servers").into())
            } else {
                absent(name)
            };
            (failure, ttl.clamp(settings.min_ttl, settings.max_negative_ttl.max(settings.min_ttl)))
        }
        _ => {
            metrics.resolve_failures.add(1);
            let why = match error {
                NetError::Timeout => format!(
                    "no DNS server answered within {} ms: check that the gateway reaches its DNS servers",
                    settings.timeout.as_millis()
                ),
                NetError::Dns(DnsError::ResponseCode(ResponseCode::ServFail)) => {
                    "the DNS server failed (SERVFAIL): look at the server's log, or at the zone's own servers".to_owned()
                }
                NetError::Dns(DnsError::ResponseCode(code)) => format!("the DNS server refused to answer ({code})"),
                other => format!("the DNS servers could not be asked: {other}"),
            };
            (Failure(format!("{name} could not be resolved: {why}").into()), settings.failure_ttl)
        }
    }
}

fn absent(name: &str) -> Failure {
    Failure(format!("{name} exists and has no address (neither A nor AAAA)").into())
}

impl Failure {
    /// As what the caller gets. Nothing has been sent.
    pub(super) fn fault(&self) -> Fault {
        Fault::new(Reason::ResolveFailed, self.0.to_string()).before_send()
    }
}

/// Whether an answer was at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// It was remembered.
    Remembered,
    /// It was asked for, or waited for.
    Asked,
}

impl Names {
    /// Nothing remembered.
    pub(super) fn new(resolver: Resolver, metrics: Arc<Metrics>) -> Self {
        Self { resolver, metrics, known: RefCell::default() }
    }

    /// What `name` (canonical, without a final dot) resolves to, and until when that holds.
    pub(super) async fn resolve(&self, name: &Arc<str>) -> (Answer, Found, Instant) {
        let asked = match self.known.borrow().get(name) {
            Some(Known::Answer(dated)) if dated.until > Instant::now() => {
                self.metrics.resolve_cached.add(1);
                return (dated.answer.clone(), Found::Remembered, dated.until);
            }
            Some(Known::Asked(asked)) => Some(asked.clone()),
            Some(Known::Answer(_)) | None => None,
        };
        let asked = asked.unwrap_or_else(|| self.ask(name));
        let dated = asked.await;
        let (answer, until) = (dated.answer.clone(), dated.until);
        // Each that waited writes the same answer; what has been forgotten meanwhile stays forgotten.
        if let Some(known) = self.known.borrow_mut().get_mut(name) {
            *known = Known::Answer(dated);
        }
        (answer, Found::Asked, until)
    }

    fn ask(&self, name: &Arc<str>) -> Shared<LocalBoxFuture<'static, Dated>> {
        self.metrics.resolve_lookups.add(1);
        let lookup = self.resolver.clone().lookup(Arc::clone(name), Arc::clone(&self.metrics));
        let asked = lookup.boxed_local().shared();
        let mut known = self.known.borrow_mut();
        if !known.contains_key(name) {
            self.make_room(&mut known);
            self.metrics.resolve_names.add(1);
        }
        known.insert(Arc::clone(name), Known::Asked(asked.clone()));
        asked
    }

    /// Forgets what has expired, or anything that is not being asked for, once the limit is reached.
    fn make_room(&self, known: &mut HashMap<Arc<str>, Known>) {
        let limit = self.resolver.settings.names;
        if known.len() < limit {
            return;
        }
        let (before, now) = (known.len(), Instant::now());
        known.retain(|_, entry| match entry {
            Known::Answer(dated) => dated.until > now,
            Known::Asked(_) => true,
        });
        // An eighth goes at once, so that a full cache is not searched through for each new name.
        let mut excess = if known.len() < limit { 0 } else { (limit / 8).max(1) };
        known.retain(|_, entry| {
            let goes = excess > 0 && matches!(entry, Known::Answer(_));
            excess -= usize::from(goes);
            self.metrics.resolve_evicted.add(u64::from(goes));
            !goes
        });
        self.metrics.resolve_names.add(known.len() as i64 - before as i64);
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.metrics.resolve_names.add(-(self.known.borrow().len() as i64));
    }
}
