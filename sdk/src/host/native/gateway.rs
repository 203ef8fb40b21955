//! What concerns no exchange: log, metrics, shared values, clocks.

use super::{Grants, WORLD, gateway};
use crate::{
    kv::{Entry, KvError},
    log::Level,
    outbound::{Answer, Call, CallError},
};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fmt,
};

/// What outlives an exchange: one for each driver.
#[derive(Debug, Default)]
pub(crate) struct Gateway {
    pub(crate) grants: RefCell<Grants>,
    pub(crate) answers: RefCell<Answers>,
    pub(crate) counters: RefCell<BTreeMap<String, u64>>,
    pub(crate) gauges: RefCell<BTreeMap<String, i64>>,
    pub(crate) histograms: RefCell<BTreeMap<String, Vec<u64>>>,
    pub(crate) now_ns: Cell<u64>,
    values: RefCell<BTreeMap<String, Stored>>,
    version: Cell<u64>,
    random: Cell<u8>,
}

/// The test's answers to the filter's own calls.
#[derive(Default)]
pub(crate) struct Answers(pub(crate) Option<Box<AnswerTo>>);

type AnswerTo = dyn Fn(&Call) -> Result<Answer, CallError>;

#[derive(Debug)]
struct Stored {
    entry: Entry,
    /// By the driver's clock.
    until_ns: Option<u64>,
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers").field("scripted", &self.0.is_some()).finish()
    }
}

impl Gateway {
    pub(crate) fn get(&self, key: &str) -> Option<Entry> {
        let mut values = self.values.borrow_mut();
        values.retain(|_, stored| stored.until_ns.is_none_or(|until| self.now_ns.get() < until));
        values.get(key).map(|stored| stored.entry.clone())
    }

    pub(crate) fn set(&self, key: &str, value: &[u8], ttl_ms: Option<u32>) -> u64 {
        let until_ns = ttl_ms.map(|ttl| self.now_ns.get().saturating_add(u64::from(ttl) * 1_000_000));
        let version = self.version.get() + 1;
        self.version.set(version);
        let entry = Entry { value: value.to_vec(), version };
        self.values.borrow_mut().insert(key.to_owned(), Stored { entry, until_ns });
        version
    }

    fn increment(&self, key: &str, delta: i64, ttl_ms: Option<u32>) -> Result<i64, KvError> {
        let Some(entry) = self.get(key) else {
            self.set(key, &delta.to_le_bytes(), ttl_ms);
            return Ok(delta);
        };
        let number = i64::from_le_bytes(entry.value.try_into().map_err(|_| KvError::Mismatch)?);
        let sum = number.saturating_add(delta);
        let until_ns = self.values.borrow().get(key).and_then(|stored| stored.until_ns);
        self.set(key, &sum.to_le_bytes(), None);
        if let Some(stored) = self.values.borrow_mut().get_mut(key) {
            stored.until_ns = until_ns;
        }
        Ok(sum)
    }
}

pub(crate) fn kv_get(key: &str) -> Option<Entry> {
    gateway().get(key)
}

pub(crate) fn kv_set(key: &str, value: &[u8], ttl_ms: Option<u32>) -> Result<u64, KvError> {
    Ok(gateway().set(key, value, ttl_ms))
}

pub(crate) fn kv_compare_and_set(key: &str, value: &[u8], expect: u64, ttl_ms: Option<u32>) -> Result<u64, KvError> {
    let gateway = gateway();
    let version = gateway.get(key).map_or(0, |entry| entry.version);
    if version == expect { Ok(gateway.set(key, value, ttl_ms)) } else { Err(KvError::Mismatch) }
}

pub(crate) fn kv_increment(key: &str, delta: i64, ttl_ms: Option<u32>) -> Result<i64, KvError> {
    gateway().increment(key, delta, ttl_ms)
}

pub(crate) fn kv_remove(key: &str) {
    gateway().values.borrow_mut().remove(key);
}

/// A metric is known by its name; one whose name is not valid counts nothing.
fn metric(name: &str) -> Option<String> {
    let valid = name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.len() <= 64
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    valid.then(|| name.to_owned())
}

/// A counter of the driver.
#[derive(Debug)]
pub(crate) struct Counter(Option<String>);

impl Counter {
    pub(crate) fn new(name: &str) -> Self {
        Self(metric(name))
    }

    pub(crate) fn add(&self, amount: u64) {
        if let Some(name) = &self.0 {
            *gateway().counters.borrow_mut().entry(name.clone()).or_default() += amount;
        }
    }
}

/// A gauge of the driver.
#[derive(Debug)]
pub(crate) struct Gauge(Option<String>);

impl Gauge {
    pub(crate) fn new(name: &str) -> Self {
        Self(metric(name))
    }

    pub(crate) fn set(&self, value: i64) {
        if let Some(name) = &self.0 {
            gateway().gauges.borrow_mut().insert(name.clone(), value);
        }
    }

    pub(crate) fn add(&self, amount: i64) {
        if let Some(name) = &self.0 {
            *gateway().gauges.borrow_mut().entry(name.clone()).or_default() += amount;
        }
    }
}

/// A histogram of the driver, which keeps every value.
#[derive(Debug)]
pub(crate) struct Histogram(Option<String>);

impl Histogram {
    pub(crate) fn new(name: &str) -> Self {
        Self(metric(name))
    }

    pub(crate) fn observe(&self, value: u64) {
        if let Some(name) = &self.0 {
            gateway().histograms.borrow_mut().entry(name.clone()).or_default().push(value);
        }
    }
}

pub(crate) fn log_enabled(_level: Level) -> bool {
    true
}

pub(crate) fn log(level: Level, message: &str) {
    WORLD.with_borrow_mut(|world| world.log.push((level, message.to_owned())));
}

pub(crate) fn now_ns() -> u64 {
    gateway().now_ns.get()
}

pub(crate) fn monotonic_ns() -> u64 {
    now_ns()
}

/// Counts up, so that tests are repeatable.
pub(crate) fn random(count: u32) -> Vec<u8> {
    let gateway = gateway();
    let next = || {
        gateway.random.set(gateway.random.get().wrapping_add(1));
        gateway.random.get()
    };
    (0..count).map(|_| next()).collect()
}
