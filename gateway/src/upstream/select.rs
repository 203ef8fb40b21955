//! Which endpoint an exchange goes to: by priority and nearness, then the less loaded of two drawn by weight, those that failed lately
//! last. Health is passive: it is learnt from connections that fail, by each worker for itself, and forgotten with the
//! first that succeeds.

use super::{
    guard::Checked,
    pool::{Busy, Key, Pools, Slot},
    settings::{Metrics, Settings},
    tls::{Offer, Profile},
};
use crate::{fault::Fault, live::Live};
use foldhash::{HashMap, fast::RandomState};
use std::{
    cell::{Cell, RefCell},
    cmp::Ordering,
    hash::BuildHasher,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Instant,
};
use tidegate_policy::{
    Host, Permit, Reason,
    service::{Endpoint, Port, Resolution},
    snapshot::CompiledService,
};

/// Where exchanges go, and all that is found out on their way but for the connection.
pub(super) struct Destination {
    revision: u64,
    /// The service; none for an unregistered host. Held, so that its address is not another's.
    pub(super) service: Option<Arc<CompiledService>>,
    /// The port of it.
    pub(super) port: Port,
    host: Host,
    offer: Offer,
    /// Which way of originating TLS was asked for.
    asked: u64,
    /// How TLS is originated; none where it is not.
    pub(super) profile: Option<Arc<Profile>>,
    /// The places that may be tried. Never empty.
    pub(super) candidates: Box<[Candidate]>,
}

/// A place that may be tried.
pub(super) struct Candidate {
    /// The place.
    pub(super) place: Place,
    weight: u32,
    rank: Rank,
    /// Its connections.
    pub(super) slot: Rc<Slot>,
    /// Its addresses, as long as they hold.
    reach: RefCell<Option<Rc<Reach>>>,
}

/// Addresses that the guard has passed.
pub(super) struct Reach {
    /// With the exchanges under way at each.
    pub(super) addresses: Box<[(Checked, Busy)]>,
    /// None: they do not change.
    pub(super) until: Option<Instant>,
}

/// A name to resolve or an address, and the port to dial.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    /// A name to resolve or an address.
    pub(super) host: Host,
    /// The port to dial.
    pub(super) port: u16,
}

/// The destinations that one worker has been to since the revision in force came.
#[derive(Default)]
pub(super) struct Destinations {
    known: RefCell<HashMap<u64, Rc<Destination>>>,
    hasher: RandomState,
}

/// Which way of originating TLS is asked for.
pub(super) enum Origin {
    /// The service's own.
    Registered,
    /// One that filters chose; none for plaintext.
    Wished(Option<Arc<Profile>>),
}

impl Origin {
    /// Tells it from the others. Profiles' ids begin with 1.
    fn id(&self) -> u64 {
        match self {
            Self::Registered => 0,
            Self::Wished(Some(profile)) => profile.id,
            Self::Wished(None) => u64::MAX,
        }
    }
}

/// What a destination's candidates depend on besides its documents.
#[derive(Clone, Copy)]
pub(super) struct Around<'a> {
    /// The worker's connections.
    pub(super) pools: &'a Pools,
    /// Where the gateway runs, where that is set.
    pub(super) locality: Option<&'a str>,
}

/// Destinations remembered by one worker. 4096 at some 500 bytes are 2 MB; all are forgotten at once beyond, since finding
/// one anew costs microseconds.
const DESTINATIONS: usize = 4096;

/// Which candidates go first, as far as documents and settings say: the lower.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    priority: u32,
    /// From the gateway's own locality; 0 for all where it has none.
    distance: u8,
}

/// How a candidate stands among the others.
#[derive(Debug, Clone, Copy)]
struct Standing {
    aside: bool,
    rank: Rank,
    weight: u32,
    load: u32,
}

impl Standing {
    /// Whether it has more to do for its weight than `other`.
    fn is_busier(self, other: Self) -> bool {
        u64::from(self.load) * u64::from(other.weight.max(1)) > u64::from(other.load) * u64::from(self.weight.max(1))
    }
}

impl Destinations {
    /// Where the exchange of `permit` goes: remembered, or looked at anew.
    pub(super) fn of(
        &self,
        live: &Live,
        permit: &Permit,
        offer: Offer,
        origin: &Origin,
        around: Around<'_>,
    ) -> Result<Rc<Destination>, Fault> {
        let (service, host, port, asked) = (permit.service(), &permit.target().host, permit.port(), origin.id());
        let address = service.map_or(0, |service| Arc::as_ptr(service).addr());
        let hash = self.hasher.hash_one((address, host, port, offer, asked));
        if let Some(known) = self.known.borrow().get(&hash)
            && known.revision == live.revision
            && known.offer == offer
            && known.asked == asked
            && known.port == port
            && known.host == *host
            && known.service.as_ref().map(Arc::as_ptr) == service.map(Arc::as_ptr)
        {
            return Ok(Rc::clone(known));
        }
        let profile = match origin {
            Origin::Registered => live.origination.profile(service.map(|service| &**service), port.protocol)?,
            Origin::Wished(profile) => profile.as_ref(),
        };
        let made = Rc::new(Destination { asked, ..Destination::new(live, permit, offer, profile, around) });
        let mut known = self.known.borrow_mut();
        // What the revision before left would keep its services and connections from going.
        if known.len() >= DESTINATIONS || known.values().next().is_some_and(|one| one.revision < live.revision) {
            known.clear();
        }
        known.insert(hash, Rc::clone(&made));
        Ok(made)
    }
}

impl Destination {
    /// Where the exchange of `permit` goes. A route's destinations have been drawn by then: the permit is for the one drawn.
    pub(super) fn new(live: &Live, permit: &Permit, offer: Offer, profile: Option<&Arc<Profile>>, around: Around<'_>) -> Self {
        let (service, host, port) = (permit.service().cloned(), permit.target().host.clone(), permit.port());
        let endpoints = match service.as_ref().map(|service| &service.document) {
            Some(service) if service.resolution != Resolution::Forward => service.endpoints.as_slice(),
            Some(_) | None => &[],
        };
        let candidate = |place: Place, weight, rank| {
            let key = Key {
                service: service.as_ref().map(|service| service.name.clone()),
                host: host.clone(),
                port: port.number,
                profile: profile.map_or(0, |profile| profile.id),
                offer,
                place: place.clone(),
            };
            Candidate { place, weight, rank, slot: around.pools.slot(key), reach: RefCell::default() }
        };
        let of_endpoint = |endpoint: &Endpoint| {
            let place = Place { host: endpoint.address.clone(), port: endpoint.port.unwrap_or(port.number) };
            let distance = around.locality.map_or(0, |locality| endpoint.distance_from(locality));
            candidate(place, endpoint.weight, Rank { priority: endpoint.priority, distance })
        };
        let candidates = if endpoints.is_empty() {
            Box::from([candidate(Place { host: host.clone(), port: port.number }, 1, Rank::default())])
        } else {
            endpoints.iter().map(of_endpoint).collect()
        };
        Self { revision: live.revision, service, port, host, offer, asked: 0, profile: profile.cloned(), candidates }
    }

    /// The candidate to go to.
    pub(super) fn choose(&self, health: &Health) -> usize {
        if self.candidates.len() == 1 {
            return 0;
        }
        let now = Instant::now();
        health.choose(self.candidates.len(), |index| self.candidates[index].standing(health, now))
    }

    /// The candidate at `place`.
    pub(super) fn at(&self, place: &Place) -> Result<&Candidate, Fault> {
        // What filters choose was found among the endpoints of the very same document.
        let missing = || Fault::new(Reason::Internal, "the endpoint that a filter chose is none of the service's");
        self.candidates.iter().find(|candidate| candidate.place == *place).ok_or_else(missing)
    }

    /// The candidates in the order in which to try them, the one chosen first.
    pub(super) fn order(&self, health: &Health) -> Vec<&Candidate> {
        let (first, now) = (self.choose(health), Instant::now());
        let mut keyed: Vec<_> = self
            .candidates
            .iter()
            .enumerate()
            .map(|(index, candidate)| {
                let Standing { aside, rank, weight, .. } = candidate.standing(health, now);
                (index != first, aside, rank, health.lot(weight), candidate)
            })
            .collect();
        keyed.sort_by(|one, other| (one.0, one.1, one.2).cmp(&(other.0, other.1, other.2)).then(one.3.total_cmp(&other.3)));
        keyed.into_iter().map(|(.., candidate)| candidate).collect()
    }
}

impl Candidate {
    fn standing(&self, health: &Health, now: Instant) -> Standing {
        let aside = health.is_aside(&self.place.host, self.place.port, now);
        Standing { aside, rank: self.rank, weight: self.weight, load: self.slot.load() }
    }

    /// Its addresses, if they still hold.
    pub(super) fn reach(&self) -> Option<Rc<Reach>> {
        let reach = self.reach.borrow();
        reach.as_ref().filter(|reach| reach.until.is_none_or(|until| until > Instant::now())).cloned()
    }

    /// Remembers its addresses.
    pub(super) fn reached(&self, addresses: &[Checked], until: Option<Instant>) -> Rc<Reach> {
        let addresses = addresses.iter().map(|checked| (*checked, self.slot.busy(checked.address()))).collect();
        let reach = Rc::new(Reach { addresses, until });
        self.reach.replace(Some(Rc::clone(&reach)));
        reach
    }
}

impl Reach {
    /// The address to go to if there is a choice: the less loaded of two.
    pub(super) fn choose(&self, health: &Health) -> usize {
        match self.addresses.len() {
            0 | 1 => 0,
            count => health.choose(count, |index| Standing {
                aside: false,
                rank: Rank::default(),
                weight: 1,
                load: self.addresses[index].1.get(),
            }),
        }
    }

    /// The addresses in the order in which to dial them: IPv6 first (RFC 8305 leaves that to the system, and the families
    /// take turns in any case), those that failed lately last, and the one chosen before its like.
    pub(super) fn order(&self, health: &Health) -> Vec<Checked> {
        let (first, now) = (self.choose(health), Instant::now());
        let turn = health.draw(self.addresses.len() as u64).unwrap_or(0) as usize;
        let count = self.addresses.len();
        let mut keyed: Vec<_> = (0..count)
            .map(|index| {
                let address = self.addresses[index].0.address();
                let aside = health.is_aside(&Host::Address(address.ip()), address.port(), now);
                ((aside, address.is_ipv4(), index != first, (index + turn) % count), self.addresses[index].0)
            })
            .collect();
        keyed.sort_by_key(|(key, _)| *key);
        keyed.into_iter().map(|(_, checked)| checked).collect()
    }
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

/// Failing endpoints remembered by one worker; beyond, those that are not aside are forgotten, and then all, which only
/// means that they are tried.
const REMEMBERED: usize = 4096;

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

    /// Which of `count` to go to: of those that stand best, two are drawn by weight, and the less loaded one is it.
    fn choose(&self, count: usize, standing: impl Fn(usize) -> Standing) -> usize {
        let rank = |index| {
            let Standing { aside, rank, .. } = standing(index);
            (aside, rank)
        };
        let Some(best) = (0..count).map(rank).min() else { return 0 };
        let eligible = || (0..count).filter(|&index| rank(index).cmp(&best) == Ordering::Equal);
        let whole: u64 = eligible().map(|index| u64::from(standing(index).weight.max(1))).sum();
        let drawn = || {
            let mut left = self.draw(whole).unwrap_or(0);
            eligible().find(|&index| {
                let weight = u64::from(standing(index).weight.max(1));
                let hit = left < weight;
                left = left.saturating_sub(weight);
                hit
            })
        };
        let one = drawn().unwrap_or(0);
        let other = drawn().unwrap_or(one);
        if standing(one).is_busier(standing(other)) { other } else { one }
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
    use super::*;
    use std::time::Duration;

    fn shares(standings: &[Standing], health: &Health) -> Vec<usize> {
        let mut shares = vec![0; standings.len()];
        for _ in 0..4000 {
            shares[health.choose(standings.len(), |index| standings[index])] += 1;
        }
        shares
    }

    const ONE: Standing = Standing { aside: false, rank: Rank { priority: 0, distance: 0 }, weight: 1, load: 0 };

    #[test]
    fn weights_share_a_priority_and_the_lower_priority_waits() {
        let health = Health::new(7);
        let heavy = Standing { weight: 3, ..ONE };
        let later = Standing { rank: Rank { priority: 1, distance: 0 }, ..ONE };
        let shared = shares(&[heavy, ONE, later], &health);
        assert!((2700..3300).contains(&shared[0]) && shared[2] == 0, "{shared:?}");
        let aside = |standing| Standing { aside: true, ..standing };
        assert_eq!(shares(&[aside(heavy), aside(ONE), later], &health), [0, 0, 4000], "the next priority takes over");
        assert_eq!(shares(&[aside(heavy), ONE, later], &health), [0, 4000, 0], "and gives back");
    }

    #[test]
    fn of_two_drawn_the_less_loaded_for_its_weight_is_chosen() {
        let health = Health::new(7);
        let loaded = |load, weight| Standing { load, weight, ..ONE };
        let shared = shares(&[loaded(9, 1), loaded(0, 1)], &health);
        assert!((800..1200).contains(&shared[0]), "only when drawn twice: {shared:?}");
        let mut loads = [0; 4];
        for _ in 0..4000 {
            loads[health.choose(4, |index| loaded(loads[index], 1))] += 1;
        }
        assert!(loads.iter().all(|load| (995..1005).contains(load)), "loads even out: {loads:?}");
        let shared = shares(&[loaded(6, 3), loaded(2, 1)], &health);
        assert!((2700..3300).contains(&shared[0]), "as loaded for their weights, so the weights decide: {shared:?}");
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
