//! The numbers of exchanges: by service, verdict, reason and status class, their bytes and their durations.
//!
//! Each worker counts in its own shard, so that no cache line is fought over; a scrape adds the shards up. Labels are
//! bounded: the first services seen get series of their own, the rest share `other`.

use super::{
    Counter,
    page::{Kind, Page},
};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tidegate_policy::{Name, Reason, exchange::Verdict};

/// Services that get series of their own unless told otherwise: some 10,000 numbers at the very most in what a scrape
/// reads, which Prometheus takes from one target without notice.
pub const DEFAULT_SERVICE_SERIES: usize = 256;

/// Upper bounds of the histograms' buckets in microseconds: from what a filter takes to the longest patience.
const BUCKETS_US: [u64; 16] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000, 30_000_000,
];

const VERDICTS: [(Verdict, &str); 3] =
    [(Verdict::Allowed, "allowed"), (Verdict::Denied, "denied"), (Verdict::Invalid, "invalid")];
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// The phases that durations are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// From the request's head to the response's last byte.
    Total,
    /// Resolving the name.
    Resolve,
    /// Connecting.
    Connect,
    /// TLS handshake with the upstream.
    Tls,
    /// In filters.
    Filters,
    /// From sending the request to the response's head.
    FirstByte,
}

const PHASES: [(Phase, &str); 6] = [
    (Phase::Total, "total"),
    (Phase::Resolve, "resolve"),
    (Phase::Connect, "connect"),
    (Phase::Tls, "tls"),
    (Phase::Filters, "filters"),
    (Phase::FirstByte, "first_byte"),
];

/// Name and meaning of a number that is added up by service, and where it is.
type Sum = (&'static str, &'static str, fn(&Series) -> u64);

/// All workers' shards and the services that have series of their own.
#[derive(Debug)]
pub struct Exchanges {
    shards: Mutex<Vec<Arc<Shard>>>,
    admitted: Mutex<Vec<Name>>,
    limit: usize,
}

/// One worker's numbers.
#[derive(Debug, Default)]
struct Shard {
    /// Touched by a scrape, and by the worker once per service.
    services: Mutex<BTreeMap<Arc<str>, Arc<Series>>>,
    phases: [Histogram; PHASES.len()],
}

/// The numbers of one service on one worker.
#[derive(Debug)]
struct Series {
    outcomes: [[Counter; Reason::ALL.len()]; VERDICTS.len()],
    classes: [Counter; CLASSES.len()],
    request_bytes: Counter,
    response_bytes: Counter,
    duration_us: Counter,
}

#[derive(Debug, Default)]
struct Histogram {
    buckets: [AtomicU64; BUCKETS_US.len() + 1],
    sum_us: AtomicU64,
}

/// What is counted of one exchange.
#[derive(Debug, Clone, Copy)]
pub struct Counted<'a> {
    /// Its service; none where its host is not registered.
    pub service: Option<&'a Name>,
    /// What became of it.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// Status sent to the caller.
    pub status: Option<u16>,
    /// Body bytes from the caller.
    pub request_bytes: u64,
    /// Body bytes to the caller.
    pub response_bytes: u64,
    /// How long each phase took.
    pub durations: tidegate_policy::exchange::Durations,
}

/// A worker's way to its shard.
#[derive(Debug)]
pub struct Tally {
    exchanges: Arc<Exchanges>,
    shard: Arc<Shard>,
    /// Series by service, so that a label is resolved once. Bounded, because names come and go with publications.
    known: RefCell<std::collections::HashMap<Name, Arc<Series>, foldhash::fast::RandomState>>,
    unregistered: Arc<Series>,
    other: Arc<Series>,
}

impl Exchanges {
    /// Numbers in which at most `limit` services have series of their own.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { shards: Mutex::default(), admitted: Mutex::default(), limit })
    }

    /// A shard for one more worker.
    pub fn tally(self: &Arc<Self>) -> Tally {
        let shard = Arc::new(Shard::default());
        locked(&self.shards).push(Arc::clone(&shard));
        let (unregistered, other) = (shard.series("unregistered"), shard.series("other"));
        Tally { exchanges: Arc::clone(self), shard, known: RefCell::default(), unregistered, other }
    }

    /// Whether `service` has series of its own: it has once it was among the first.
    fn admits(&self, service: &Name) -> bool {
        let mut admitted = locked(&self.admitted);
        if admitted.contains(service) {
            return true;
        }
        let room = admitted.len() < self.limit;
        if room {
            admitted.push(service.clone());
        }
        room
    }

    /// Adds the shards up and writes them to `page`.
    pub fn write(&self, page: &mut Page) {
        let shards = locked(&self.shards).clone();
        let mut services: BTreeMap<Arc<str>, Vec<Arc<Series>>> = BTreeMap::new();
        for shard in &shards {
            for (name, series) in locked(&shard.services).iter() {
                services.entry(Arc::clone(name)).or_default().push(Arc::clone(series));
            }
        }
        write_outcomes(page, &services);
        write_classes(page, &services);
        let sums: [Sum; 3] = [
            ("tidegate_request_body_bytes_total", "Body bytes received from callers.", |series| series.request_bytes.value()),
            ("tidegate_response_body_bytes_total", "Body bytes sent to callers.", |series| series.response_bytes.value()),
            (
                "tidegate_exchange_time_microseconds_total",
                "Time that exchanges took in all, by service; divided by their number it is their mean.",
                |series| series.duration_us.value(),
            ),
        ];
        for (name, help, read) in sums {
            let family = page.family(Kind::Counter, name, help);
            for (service, series) in &services {
                match series.iter().map(|one| read(one)).sum() {
                    0 => {}
                    sum => family.add(&[("service", service)], sum),
                }
            }
        }
        write_phases(page, &shards);
    }
}

fn write_outcomes(page: &mut Page, services: &BTreeMap<Arc<str>, Vec<Arc<Series>>>) {
    let family =
        page.family(Kind::Counter, "tidegate_exchanges_total", "Exchanges that ended, by service, verdict and reason.");
    for (service, series) in services {
        for (place, (_, verdict)) in VERDICTS.iter().enumerate() {
            for (reason, word) in Reason::ALL.iter().enumerate() {
                let count = series.iter().map(|one| one.outcomes[place][reason].value()).sum();
                if count > 0 {
                    family.add(&[("service", service), ("verdict", verdict), ("reason", word.as_str())], count);
                }
            }
        }
    }
}

fn write_classes(page: &mut Page, services: &BTreeMap<Arc<str>, Vec<Arc<Series>>>) {
    let help = "Answers by service and status class; none where the exchange ended without an answer.";
    let family = page.family(Kind::Counter, "tidegate_answers_total", help);
    for (service, series) in services {
        for (class, word) in CLASSES.iter().enumerate() {
            let count = series.iter().map(|one| one.classes[class].value()).sum();
            if count > 0 {
                family.add(&[("service", service), ("class", word)], count);
            }
        }
    }
}

fn write_phases(page: &mut Page, shards: &[Arc<Shard>]) {
    let help = "How long the phases of exchanges took, in seconds.";
    let family = page.family(Kind::Histogram, "tidegate_phase_duration_seconds", help);
    for (place, (_, phase)) in PHASES.iter().enumerate() {
        let read = |bucket: usize| -> u64 {
            shards.iter().map(|shard| shard.phases[place].buckets[bucket].load(Ordering::Relaxed)).sum()
        };
        let mut below: u64 = 0;
        for (bucket, bound) in BUCKETS_US.iter().enumerate() {
            below += read(bucket);
            let bound = (*bound as f64 / 1e6).to_string();
            family.put("_bucket", &[("phase", phase), ("le", &bound)], below as f64);
        }
        below += read(BUCKETS_US.len());
        let sum_us: u64 = shards.iter().map(|shard| shard.phases[place].sum_us.load(Ordering::Relaxed)).sum();
        family.put("_bucket", &[("phase", phase), ("le", "+Inf")], below as f64);
        family.put("_sum", &[("phase", phase)], sum_us as f64 / 1e6);
        family.put("_count", &[("phase", phase)], below as f64);
    }
}

impl Tally {
    /// Local names that are remembered; beyond, they are counted as `other` without a look-up.
    const REMEMBERED: usize = 4096;

    /// Counts one exchange that ended.
    pub fn count(&self, exchange: &Counted<'_>) {
        let known = self.known.borrow();
        let series = match exchange.service {
            None => &self.unregistered,
            Some(service) => match known.get(service) {
                Some(series) => series,
                None => {
                    drop(known);
                    return self.learn(service).count(exchange, &self.shard);
                }
            },
        };
        series.count(exchange, &self.shard);
    }

    fn learn(&self, service: &Name) -> Arc<Series> {
        let mut known = self.known.borrow_mut();
        if known.len() >= Self::REMEMBERED {
            return Arc::clone(&self.other);
        }
        let admitted = self.exchanges.admits(service);
        let series = if admitted { self.shard.series(service.as_str()) } else { Arc::clone(&self.other) };
        known.insert(service.clone(), Arc::clone(&series));
        series
    }
}

impl Shard {
    fn series(&self, service: &str) -> Arc<Series> {
        Arc::clone(locked(&self.services).entry(Arc::from(service)).or_default())
    }
}

impl Default for Series {
    fn default() -> Self {
        Self {
            outcomes: std::array::from_fn(|_| std::array::from_fn(|_| Counter::default())),
            classes: Default::default(),
            request_bytes: Counter::default(),
            response_bytes: Counter::default(),
            duration_us: Counter::default(),
        }
    }
}

impl Series {
    fn count(&self, exchange: &Counted<'_>, shard: &Shard) {
        let durations = &exchange.durations;
        self.outcomes[exchange.verdict as usize][exchange.reason as usize].add(1);
        self.classes[exchange.status.map_or(0, |status| usize::from(status / 100).min(5))].add(1);
        self.request_bytes.add(exchange.request_bytes);
        self.response_bytes.add(exchange.response_bytes);
        self.duration_us.add(durations.total_us);
        let phases = [
            (Phase::Total, Some(durations.total_us)),
            (Phase::Resolve, durations.resolve_us),
            (Phase::Connect, durations.connect_us),
            (Phase::Tls, durations.tls_us),
            (Phase::Filters, durations.filters_us),
            (Phase::FirstByte, durations.first_byte_us),
        ];
        for (phase, taken) in phases {
            if let Some(taken) = taken {
                shard.phases[phase as usize].observe(Duration::from_micros(taken));
            }
        }
    }
}

impl Histogram {
    fn observe(&self, taken: Duration) {
        let taken_us = u64::try_from(taken.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_US.partition_point(|bound| *bound < taken_us);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(taken_us, Ordering::Relaxed);
    }
}

/// The data behind a lock is counters and lists that are whole at every step, so a panic elsewhere does not spoil them.
fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(service: Option<&Name>) -> Counted<'_> {
        Counted {
            service,
            verdict: Verdict::Allowed,
            reason: Reason::AllowedByRule,
            status: Some(204),
            request_bytes: 3,
            response_bytes: 4,
            durations: tidegate_policy::exchange::Durations { total_us: 700, tls_us: Some(60_000_000), ..Default::default() },
        }
    }

    #[test]
    fn reasons_and_verdicts_index_their_tables() {
        for (place, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, place, "{reason}");
        }
        for (place, (verdict, _)) in VERDICTS.iter().enumerate() {
            assert_eq!(*verdict as usize, place);
        }
        for (place, (phase, _)) in PHASES.iter().enumerate() {
            assert_eq!(*phase as usize, place);
        }
    }

    #[test]
    fn workers_add_up_and_services_beyond_the_limit_share_a_series() {
        let exchanges = Exchanges::new(1);
        let (first, second) = (exchanges.tally(), exchanges.tally());
        let names: Vec<Name> = ["one", "two", "three"].iter().map(|name| name.parse().unwrap()).collect();
        first.count(&exchange(Some(&names[0])));
        second.count(&exchange(Some(&names[0])));
        second.count(&exchange(Some(&names[1])));
        first.count(&exchange(Some(&names[2])));
        first.count(&exchange(None));
        let mut page = Page::default();
        exchanges.write(&mut page);
        let text = page.text();
        let expect = [
            "tidegate_exchanges_total{service=\"one\",verdict=\"allowed\",reason=\"allowed_by_rule\"} 2\n",
            "tidegate_exchanges_total{service=\"other\",verdict=\"allowed\",reason=\"allowed_by_rule\"} 2\n",
            "tidegate_exchanges_total{service=\"unregistered\",verdict=\"allowed\",reason=\"allowed_by_rule\"} 1\n",
            "tidegate_answers_total{service=\"one\",class=\"2xx\"} 2\n",
            "tidegate_request_body_bytes_total{service=\"other\"} 6\n",
            "tidegate_phase_duration_seconds_bucket{phase=\"total\",le=\"0.0005\"} 0\n",
            "tidegate_phase_duration_seconds_bucket{phase=\"total\",le=\"0.001\"} 5\n",
            "tidegate_phase_duration_seconds_bucket{phase=\"tls\",le=\"30\"} 0\n",
            "tidegate_phase_duration_seconds_bucket{phase=\"tls\",le=\"+Inf\"} 5\n",
            "tidegate_phase_duration_seconds_count{phase=\"total\"} 5\n",
        ];
        for line in expect {
            assert!(text.contains(line), "{line}\nis not in\n{text}");
        }
        assert!(!text.contains("\"two\"") && !text.contains("\"three\""), "{text}");
    }
}
