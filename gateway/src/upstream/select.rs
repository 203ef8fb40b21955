//! Which endpoint an exchange goes to: by priority, then by weight, those that failed lately last. Health is passive: it
//! is learnt from connections that fail, by each worker for itself, and forgotten with the first that succeeds.

use super::settings::{Metrics, Settings};
use crate::live::Live;
use foldhash::HashMap;
use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    sync::Arc,
    time::Instant,
};
use tidegate_policy::{
    Host, Permit,
    service::{Endpoint, Port, Resolution},
    snapshot::CompiledService,
};

/// Where an exchange goes: the permit's own service, or the route's destination.
#[derive(Debug, Clone)]
pub(super) struct Destination {
    /// The service; none for an unregistered host.
    pub(super) service: Option<Arc<CompiledService>>,
    /// The port of it.
    pub(super) port: Port,
}

/// A place to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// A name to resolve or an address.
    pub(super) host: Host,
    /// The port to dial.
    pub(super) port: u16,
}

/// What one worker has seen of endpoints lately.
pub(super) struct Health {
    seen: RefCell<HashMap<(Host, u16), Failures>>,
    draws: Cell<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    in_a_row: u32,
    aside_until: Option<Instant>,
}

/// Failing endpoints remembered by one worker; beyond, the oldest are forgotten, which only means that they are tried.
const REMEMBERED: usize = 4096;

impl Destination {
    /// Where the exchange of `permit` goes. Of a route's destinations one is drawn by weight; one that is no longer
    /// registered is left out.
    pub(super) fn of(live: &Live, permit: &Permit, health: &Health) -> Self {
        let own = Self { service: permit.service().cloned(), port: permit.port() };
        let Some(route) = permit.route().filter(|route| !route.document.destinations.is_empty()) else { return own };
        let choices = route.document.destinations.iter().filter_map(|destination| {
            let service = live.snapshot.service(destination.service.as_str())?;
            Some((service, destination.weight))
        });
        let total: u64 = choices.clone().map(|(_, weight)| u64::from(weight)).sum();
        let Some(mut drawn) = health.draw(total) else { return own };
        for (service, weight) in choices {
            if drawn < u64::from(weight) {
                return Self { service: Some(Arc::clone(service)), port: port_of(service, permit.port()) };
            }
            drawn -= u64::from(weight);
        }
        own
    }

    /// The places that may be tried, best first. Never empty.
    pub(super) fn places(&self, permit: &Permit, health: &Health) -> Vec<Place> {
        let registered = self.service.as_ref().map(|service| &service.document);
        let endpoints = match registered {
            Some(service) if service.resolution != Resolution::Forward => service.endpoints.as_slice(),
            Some(_) | None => &[],
        };
        if endpoints.is_empty() {
            return vec![Place { host: permit.target().host.clone(), port: self.port.number }];
        }
        let place =
            |endpoint: &Endpoint| Place { host: endpoint.address.clone(), port: endpoint.port.unwrap_or(self.port.number) };
        if let [only] = endpoints {
            return vec![place(only)];
        }
        let now = Instant::now();
        let mut keyed: Vec<(bool, u32, f64, &Endpoint)> = endpoints
            .iter()
            .map(|endpoint| {
                let aside = health.is_aside(&endpoint.address, endpoint.port.unwrap_or(self.port.number), now);
                (aside, endpoint.priority, health.lot(endpoint.weight), endpoint)
            })
            .collect();
        keyed.sort_by(|one, other| (one.0, one.1).cmp(&(other.0, other.1)).then(one.2.total_cmp(&other.2)));
        keyed.into_iter().map(|(_, _, _, endpoint)| place(endpoint)).collect()
    }
}

/// The destination's port that stands for the decided one: the same number, else the same protocol, else its first.
fn port_of(service: &CompiledService, decided: Port) -> Port {
    let ports = &service.document.ports;
    let same_number = ports.iter().find(|port| port.number == decided.number);
    let same_protocol = || ports.iter().find(|port| port.protocol == decided.protocol);
    same_number.or_else(same_protocol).or(ports.first()).copied().unwrap_or(decided)
}

impl Health {
    /// Nothing seen. `seed` keeps workers from drawing the same lots.
    pub(super) fn new(seed: u64) -> Self {
        Self { seen: RefCell::default(), draws: Cell::new(seed | 1) }
    }

    /// Whether it failed so often lately that others go first.
    pub(super) fn is_aside(&self, host: &Host, port: u16, now: Instant) -> bool {
        let seen = self.seen.borrow();
        if seen.is_empty() {
            return false;
        }
        seen.get(&(host.clone(), port)).and_then(|failures| failures.aside_until).is_some_and(|until| until > now)
    }

    /// That it was connected to.
    pub(super) fn succeeded(&self, host: &Host, port: u16) {
        let mut seen = self.seen.borrow_mut();
        if !seen.is_empty() {
            seen.remove(&(host.clone(), port));
        }
    }

    /// That it could not be connected to.
    pub(super) fn failed(&self, host: &Host, port: u16, settings: &Settings, metrics: &Metrics) {
        let mut seen = self.seen.borrow_mut();
        let now = Instant::now();
        if seen.len() >= REMEMBERED {
            seen.retain(|_, failures| failures.aside_until.is_some_and(|until| until > now));
        }
        if seen.len() >= REMEMBERED {
            seen.clear();
        }
        let failures = seen.entry((host.clone(), port)).or_insert(Failures { in_a_row: 0, aside_until: None });
        failures.in_a_row = failures.in_a_row.saturating_add(1);
        if let Some(beyond) = failures.in_a_row.checked_sub(settings.aside_after) {
            let back_off = settings.aside_first.saturating_mul(1 << beyond.min(16)).min(settings.aside_longest);
            failures.aside_until = Some(now + back_off);
            metrics.put_aside.add(1);
        }
    }

    /// The same, for an address.
    pub(super) fn address_failed(&self, address: SocketAddr, settings: &Settings, metrics: &Metrics) {
        self.failed(&Host::Address(address.ip()), address.port(), settings, metrics);
    }

    /// The same, for an address.
    pub(super) fn address_succeeded(&self, address: SocketAddr) {
        self.succeeded(&Host::Address(address.ip()), address.port());
    }

    /// A number below `total`; none for 0.
    fn draw(&self, total: u64) -> Option<u64> {
        self.next().checked_rem(total)
    }

    /// A place in the queue, earlier the greater the weight: sorting by these draws by weight without replacement.
    fn lot(&self, weight: u32) -> f64 {
        // 53 bits are what a double holds; the half keeps the logarithm finite.
        let unit = ((self.next() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        -unit.ln() / f64::from(weight.max(1))
    }

    /// A rotation for addresses that are as good as each other.
    pub(super) fn turn(&self, count: usize) -> usize {
        self.draw(count as u64).map_or(0, |turn| turn as usize)
    }

    /// xorshift64*: spreading load needs no better randomness.
    fn next(&self) -> u64 {
        let mut x = self.draws.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.draws.set(x);
        x.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::fixture, *};
    use std::time::Duration;

    fn first_choices(service: &serde_json::Value, health: &Health, draws: usize) -> HashMap<String, usize> {
        let (live, permit) = fixture::plain(service, "api.example");
        let destination = Destination::of(&live, &permit, health);
        let mut counts = HashMap::default();
        for _ in 0..draws {
            *counts.entry(destination.places(&permit, health)[0].host.to_string()).or_default() += 1;
        }
        counts
    }

    #[test]
    fn weights_share_a_priority_and_the_lower_priority_waits() {
        let service = serde_json::json!({"hosts": ["api.example"], "ports": [{"number": 80, "protocol": "http"}], "resolution": "static",
            "networks": ["127.0.0.0/8"],
            "endpoints": [{"address": "127.0.0.1", "weight": 3}, {"address": "127.0.0.2"}, {"address": "127.0.0.3", "priority": 1}]});
        let health = Health::new(7);
        let counts = first_choices(&service, &health, 4000);
        let heavy = counts["127.0.0.1"];
        assert!((2700..3300).contains(&heavy), "{counts:?}");
        assert!(!counts.contains_key("127.0.0.3"), "{counts:?}");

        let (settings, metrics) = (Settings { aside_after: 1, ..Settings::default() }, Metrics::default());
        for down in ["127.0.0.1:80", "127.0.0.2:80"] {
            health.address_failed(down.parse().expect("an address"), &settings, &metrics);
        }
        assert_eq!(first_choices(&service, &health, 10)["127.0.0.3"], 10, "the next priority takes over");
        health.address_succeeded("127.0.0.2:80".parse().expect("an address"));
        assert_eq!(first_choices(&service, &health, 10)["127.0.0.2"], 10, "and gives back");
    }

    #[test]
    fn back_off_begins_after_some_failures_and_doubles() {
        let health = Health::new(1);
        let settings = Settings {
            aside_after: 3,
            aside_first: Duration::from_secs(100),
            aside_longest: Duration::from_secs(300),
            ..Settings::default()
        };
        let host: Host = "10.0.0.1".parse().expect("a host");
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        for _ in 0..2 {
            health.failed(&host, 80, &settings, &Metrics::default());
        }
        assert!(!health.is_aside(&host, 80, now));
        health.failed(&host, 80, &settings, &Metrics::default());
        assert!(health.is_aside(&host, 80, at(99)) && !health.is_aside(&host, 80, at(110)));
        health.failed(&host, 80, &settings, &Metrics::default());
        assert!(health.is_aside(&host, 80, at(199)) && !health.is_aside(&host, 80, at(210)));
        for _ in 0..40 {
            health.failed(&host, 80, &settings, &Metrics::default());
        }
        assert!(health.is_aside(&host, 80, at(299)) && !health.is_aside(&host, 80, at(310)));
    }
}
