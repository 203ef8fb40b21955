//! What the instances of one plugin count: counters, gauges and histograms by name, the same on all workers and routes.
//! Updating one is an addition to an atomic; finding one by name is lock-free too. The number of names is bounded.

use super::limits::{Limits, Metrics};
use crate::telemetry::{
    Counter, Gauge,
    page::{Family, Kind, Page},
};
use papaya::HashMap;
use std::{
    fmt::{self, Write as _},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

/// The longest name.
const NAME_BYTES: usize = 64;
/// One bucket for 0, and one for each number of bits that a larger value may have.
const BUCKETS: usize = u64::BITS as usize + 1;

/// The instruments of one plugin.
pub(super) struct Instruments {
    by_name: HashMap<Box<str>, Instrument>,
    /// Their number; counted before they are there, so never too few.
    number: AtomicUsize,
    most: usize,
    metrics: Arc<Metrics>,
}

/// A distribution in buckets of powers of two: the bucket of `le` 2^n - 1 holds values of at most n bits.
#[derive(Debug)]
pub(super) struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

#[derive(Clone)]
enum Instrument {
    Counter(Arc<Counter>),
    Gauge(Arc<Gauge>),
    Histogram(Arc<Histogram>),
}

impl Instruments {
    pub(super) fn new(limits: Limits, metrics: Arc<Metrics>) -> Self {
        Self { by_name: HashMap::new(), number: AtomicUsize::new(0), most: limits.instruments, metrics }
    }

    /// The counter of this name, made if absent; none where there cannot be one.
    pub(super) fn counter(&self, name: &str) -> Option<Arc<Counter>> {
        let made = self.instrument(name, || Instrument::Counter(Arc::default()));
        let counter = made.and_then(|made| if let Instrument::Counter(counter) = made { Some(counter) } else { None });
        self.counted(counter)
    }

    /// The gauge of this name, made if absent; none where there cannot be one.
    pub(super) fn gauge(&self, name: &str) -> Option<Arc<Gauge>> {
        let made = self.instrument(name, || Instrument::Gauge(Arc::default()));
        let gauge = made.and_then(|made| if let Instrument::Gauge(gauge) = made { Some(gauge) } else { None });
        self.counted(gauge)
    }

    /// The histogram of this name, made if absent; none where there cannot be one.
    pub(super) fn histogram(&self, name: &str) -> Option<Arc<Histogram>> {
        let made = self.instrument(name, || Instrument::Histogram(Arc::default()));
        let histogram = made.and_then(|made| if let Instrument::Histogram(found) = made { Some(found) } else { None });
        self.counted(histogram)
    }

    fn instrument(&self, name: &str, make: impl FnOnce() -> Instrument) -> Option<Instrument> {
        let guard = self.by_name.guard();
        if let Some(there) = self.by_name.get(name, &guard) {
            return Some(there.clone());
        }
        if !is_name(name) {
            return None;
        }
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let made = if number < self.most { Some(self.by_name.try_insert(name.into(), make(), &guard)) } else { None };
        match made {
            Some(Ok(made)) => Some(made.clone()),
            // Another thread was faster, or there are too many.
            Some(Err(_)) | None => {
                self.number.fetch_sub(1, Ordering::Relaxed);
                self.by_name.get(name, &guard).cloned()
            }
        }
    }

    fn counted<T>(&self, made: Option<T>) -> Option<T> {
        if made.is_none() {
            self.metrics.instruments_refused.add(1);
        }
        made
    }
}

/// Writes the instruments of these plugins to `page`, a family for each kind: a plugin's name is no part of a metric's, for
/// it may be longer and of other letters than those allow.
pub(super) fn write<'a>(page: &mut Page, plugins: impl Iterator<Item = (&'a str, &'a Instruments)> + Clone) {
    let help = "Counters that plugins define.";
    let family = page.family(Kind::Counter, "tidegate_plugin_counter_total", help);
    each(plugins.clone(), |labels, instrument| {
        if let Instrument::Counter(counter) = instrument {
            family.add(&labels, counter.value());
        }
    });
    let help = "Gauges that plugins define.";
    let family = page.family(Kind::Gauge, "tidegate_plugin_gauge", help);
    each(plugins.clone(), |labels, instrument| {
        if let Instrument::Gauge(gauge) = instrument {
            family.put("", &labels, gauge.value() as f64);
        }
    });
    let help = "Histograms that plugins define, in buckets of powers of two.";
    let family = page.family(Kind::Histogram, "tidegate_plugin_histogram", help);
    each(plugins, |labels, instrument| {
        if let Instrument::Histogram(histogram) = instrument {
            histogram.write(family, labels);
        }
    });
}

fn each<'a>(
    plugins: impl Iterator<Item = (&'a str, &'a Instruments)>,
    mut write: impl FnMut([(&'static str, &str); 2], &Instrument),
) {
    for (plugin, instruments) in plugins {
        let guard = instruments.by_name.guard();
        let mut by_name: Vec<_> = instruments.by_name.iter(&guard).collect();
        by_name.sort_unstable_by_key(|(name, _)| *name);
        for (name, instrument) in by_name {
            write([("plugin", plugin), ("metric", name)], instrument);
        }
    }
}

/// A lower-case letter, then at most 63 lower-case letters, digits and underscores: what every reader of metrics takes.
fn is_name(name: &str) -> bool {
    let rest = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    name.len() <= NAME_BYTES && name.starts_with(|first: char| first.is_ascii_lowercase()) && name.bytes().all(rest)
}

impl Histogram {
    /// Counts `value`.
    pub(super) fn observe(&self, value: u64) {
        let bits = u64::BITS - value.leading_zeros();
        self.buckets[bits as usize].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    fn write(&self, family: &mut Family, labels: [(&'static str, &str); 2]) {
        let counts: Vec<u64> = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        let used = counts.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1);
        let mut total = 0;
        let mut bound = String::new();
        let [plugin, metric] = labels;
        for (bits, count) in counts.iter().enumerate().take(used) {
            total += count;
            bound.clear();
            let most = if bits == 0 { 0 } else { u64::MAX >> (BUCKETS - 1 - bits) };
            // Writing to a String cannot fail.
            let _ = write!(bound, "{most}");
            family.put("_bucket", &[plugin, metric, ("le", &bound)], total as f64);
        }
        family.put("_bucket", &[plugin, metric, ("le", "+Inf")], total as f64);
        family.put("_sum", &[plugin, metric], self.sum.load(Ordering::Relaxed) as f64);
        family.put("_count", &[plugin, metric], total as f64);
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; BUCKETS], sum: AtomicU64::new(0) }
    }
}

impl fmt::Debug for Instruments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instruments").field("number", &self.number).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeSet, sync::Barrier, thread};

    fn instruments(most: usize) -> Instruments {
        Instruments::new(Limits { instruments: most, ..Limits::default() }, Arc::default())
    }

    fn page(plugins: &[(&str, &Instruments)]) -> String {
        let mut page = Page::default();
        write(&mut page, plugins.iter().copied());
        page.text()
    }

    #[test]
    fn instruments_are_on_the_page_by_plugin_and_name() {
        let (one, other) = (instruments(9), instruments(9));
        one.counter("seen").unwrap().add(2);
        one.counter("seen").unwrap().add(3);
        other.counter("seen").unwrap().add(1);
        one.gauge("level").unwrap().set(-4);
        let histogram = one.histogram("size").unwrap();
        for value in [0, 1, 2, 3, 1000] {
            histogram.observe(value);
        }
        let text = page(&[("one", &one), ("a\"b", &other)]);
        for line in [
            "tidegate_plugin_counter_total{plugin=\"one\",metric=\"seen\"} 5",
            "tidegate_plugin_counter_total{plugin=\"a\\\"b\",metric=\"seen\"} 1",
            "tidegate_plugin_gauge{plugin=\"one\",metric=\"level\"} -4",
            "tidegate_plugin_histogram_bucket{plugin=\"one\",metric=\"size\",le=\"0\"} 1",
            "tidegate_plugin_histogram_bucket{plugin=\"one\",metric=\"size\",le=\"1\"} 2",
            "tidegate_plugin_histogram_bucket{plugin=\"one\",metric=\"size\",le=\"3\"} 4",
            "tidegate_plugin_histogram_bucket{plugin=\"one\",metric=\"size\",le=\"511\"} 4",
            "tidegate_plugin_histogram_bucket{plugin=\"one\",metric=\"size\",le=\"1023\"} 5",
            "tidegate_plugin_histogram_bucket{plugin=\"one\",metric=\"size\",le=\"+Inf\"} 5",
            "tidegate_plugin_histogram_sum{plugin=\"one\",metric=\"size\"} 1006",
            "tidegate_plugin_histogram_count{plugin=\"one\",metric=\"size\"} 5",
        ] {
            assert!(text.lines().any(|there| there == line), "{line}\nis not in\n{text}");
        }
        assert!(!text.contains("le=\"2047\""), "buckets end where values do: {text}");
    }

    #[test]
    fn the_largest_values_have_a_bucket() {
        let one = instruments(1);
        one.histogram("size").unwrap().observe(u64::MAX);
        assert!(page(&[("one", &one)]).contains(&format!("le=\"{}\"}} 1\n", u64::MAX)));
    }

    #[test]
    fn improper_names_other_kinds_and_too_many_are_refused_and_counted() {
        let one = instruments(2);
        for name in ["", "A", "1st", "_a", "a-b", "a.b", "a{b", "ä", "a\n", &"a".repeat(65)] {
            assert!(one.counter(name).is_none(), "{name:?}");
        }
        assert!(one.counter(&"a".repeat(64)).is_some());
        assert!(one.gauge("a_1").is_some());
        assert!(one.histogram("a_1").is_none(), "it is a gauge");
        assert!(one.counter("third").is_none());
        assert!(one.gauge("a_1").is_some(), "one that is there is found when the limit is reached");
        assert_eq!(one.metrics.instruments_refused.value(), 12);
    }

    #[test]
    fn threads_share_instruments_and_keep_the_limit() {
        const THREADS: u64 = 8;
        let (one, start) = (instruments(5), Barrier::new(THREADS as usize));
        let made: Vec<BTreeSet<u64>> = thread::scope(|scope| {
            let thread = |_| {
                scope.spawn(|| {
                    start.wait();
                    let count = |name: u64| {
                        let counter = one.counter(&format!("n{name}"))?;
                        (0..1000).for_each(|_| counter.add(1));
                        Some(name)
                    };
                    (0..10).filter_map(count).collect()
                })
            };
            (0..THREADS).map(thread).collect::<Vec<_>>().into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let counted: u64 = (0..10).filter_map(|name| one.counter(&format!("n{name}"))).map(|counter| counter.value()).sum();
        assert_eq!(counted, made.iter().map(|names| names.len() as u64 * 1000).sum::<u64>(), "nothing is lost");
        let names: BTreeSet<_> = made.into_iter().flatten().collect();
        assert_eq!(names.len(), 5, "{names:?}");
    }
}
