//! Values that the instances of one plugin share, on all workers and routes: a map with versions, times to live and bounds.
//!
//! Lookups and changes are lock-free: papaya's map was chosen since it alone, of those that are well kept, computes a change
//! from what is there and applies it only if that is still so, without a lock on a shard; its readers never wait for its
//! writers. (Only who finds the table full allocates the next one while others spin.)

use super::limits::{Limits, Metrics};
use papaya::{Compute, Guard as _, HashMap, Operation};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// The values of one plugin.
pub(super) struct Store {
    /// Keys may be made of what callers send, so they are hashed by the standard library's keyed hash.
    map: HashMap<Box<str>, Value>,
    /// Entries, and the bytes of their keys and values; counted before they are there, so never too few.
    entries: AtomicUsize,
    bytes: AtomicUsize,
    /// The version given last. A key that was removed and comes back has no version that it had before.
    version: AtomicU64,
    began: Instant,
    limits: Limits,
    metrics: Arc<Metrics>,
}

/// A value and its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) value: Vec<u8>,
    pub(super) version: u64,
}

/// Why nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The key or the value is larger than the limit.
    TooLarge,
    /// The limit on entries or bytes is reached.
    Full,
    /// The value is not of the version that was expected, or no number.
    Mismatch,
}

struct Value {
    bytes: Box<[u8]>,
    version: u64,
    /// When it is forgotten.
    expires: Option<Moment>,
}

/// Time since the store was made.
type Moment = Duration;

/// What a change leaves behind, once it is known what was there.
struct Next {
    bytes: Box<[u8]>,
    expires: Option<Moment>,
}

impl Store {
    pub(super) fn new(limits: Limits, metrics: Arc<Metrics>) -> Self {
        Self {
            map: HashMap::new(),
            entries: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            version: AtomicU64::new(0),
            began: Instant::now(),
            limits,
            metrics,
        }
    }

    /// The value of `key`, unless it was forgotten.
    pub(super) fn get(&self, key: &str) -> Option<Entry> {
        self.get_at(key, self.began.elapsed())
    }

    /// Sets the value, whatever it was, for `ttl` or for good; its version.
    pub(super) fn set(&self, key: &str, value: &[u8], ttl: Option<Duration>) -> Result<u64, Refusal> {
        self.set_at(key, value, ttl, self.began.elapsed())
    }

    /// Sets the value if it has the version `expected` still, which is 0 where there is none; its new version.
    pub(super) fn compare_and_set(
        &self,
        key: &str,
        value: &[u8],
        expected: u64,
        ttl: Option<Duration>,
    ) -> Result<u64, Refusal> {
        self.compare_and_set_at(key, value, expected, ttl, self.began.elapsed())
    }

    /// Adds to a number, which is 0 where there is none, and stops at the ends of its range; the sum. `ttl` counts from the
    /// first.
    pub(super) fn increment(&self, key: &str, delta: i64, ttl: Option<Duration>) -> Result<i64, Refusal> {
        self.increment_at(key, delta, ttl, self.began.elapsed())
    }

    /// Removes the value, if there is one.
    pub(super) fn remove(&self, key: &str) {
        let guard = self.map.guard();
        if let Some((key, value)) = self.map.remove_entry(key, &guard) {
            self.release(key, value);
        }
    }

    /// Removes what was forgotten. Called from time to time, never by a worker.
    pub(super) fn sweep(&self) {
        self.sweep_at(self.began.elapsed());
    }

    /// Entries, and the bytes of their keys and values.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.entries.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    fn get_at(&self, key: &str, now: Moment) -> Option<Entry> {
        let guard = self.map.guard();
        let value = self.map.get(key, &guard).filter(|value| value.lives(now))?;
        Some(Entry { value: value.bytes.to_vec(), version: value.version })
    }

    fn set_at(&self, key: &str, value: &[u8], ttl: Option<Duration>, now: Moment) -> Result<u64, Refusal> {
        self.change(key, value.len(), now, |_| Ok(Next::new(value, ttl, now)), |stored| stored.version)
    }

    fn compare_and_set_at(
        &self,
        key: &str,
        value: &[u8],
        expected: u64,
        ttl: Option<Duration>,
        now: Moment,
    ) -> Result<u64, Refusal> {
        let next = |there: Option<&Value>| {
            let version = there.map_or(0, |there| there.version);
            if version == expected { Ok(Next::new(value, ttl, now)) } else { Err(Refusal::Mismatch) }
        };
        self.change(key, value.len(), now, next, |stored| stored.version)
    }

    fn increment_at(&self, key: &str, delta: i64, ttl: Option<Duration>, now: Moment) -> Result<i64, Refusal> {
        let next = |there: Option<&Value>| {
            let (number, expires) = match there {
                Some(value) => (value.number()?, value.expires),
                None => (0, deadline(ttl, now)),
            };
            Ok(Next { bytes: Box::new(number.saturating_add(delta).to_le_bytes()), expires })
        };
        self.change(key, size_of::<i64>(), now, next, Value::number)?
    }

    /// Puts what `next` makes of the value that is there in its place, if that is still there then; what `read`
    /// reads in the new one, whose length is `length`. `next` may be asked several times, and an earlier answer be taken.
    ///
    /// The room for it is taken first and given back after: so whatever happens at the same time, the bounds hold.
    fn change<R>(
        &self,
        key: &str,
        length: usize,
        now: Moment,
        next: impl Fn(Option<&Value>) -> Result<Next, Refusal>,
        read: impl FnOnce(&Value) -> R,
    ) -> Result<R, Refusal> {
        let Limits { kv_key_bytes, kv_value_bytes, kv_entries, kv_bytes, .. } = self.limits;
        if key.len() > kv_key_bytes || length > kv_value_bytes {
            return Err(self.refused(Refusal::TooLarge));
        }
        let version = self.version.fetch_add(1, Ordering::Relaxed) + 1;
        let size = key.len() + length;
        self.entries.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(size, Ordering::Relaxed);
        let guard = self.map.guard();
        let compute = |there: Option<(&Box<str>, &Value)>| {
            // What has expired is not there any more, but its room is free only when it is replaced.
            let (entries, bytes) = there.map_or((0, 0), |(key, value)| (1, key.len() + value.bytes.len()));
            let next = match next(there.map(|(_, value)| value).filter(|value| value.lives(now))) {
                Ok(next) => next,
                Err(refusal) => return Operation::Abort(refusal),
            };
            let full = self.entries.load(Ordering::Relaxed).saturating_sub(entries) > kv_entries
                || self.bytes.load(Ordering::Relaxed).saturating_sub(bytes) > kv_bytes;
            if full {
                return Operation::Abort(Refusal::Full);
            }
            Operation::Insert(Value { bytes: next.bytes, version, expires: next.expires })
        };
        match self.map.compute(key.into(), compute, &guard) {
            Compute::Inserted(_, value) => Ok(read(value)),
            Compute::Updated { old: (key, value), new: (_, stored) } => {
                self.release(key, value);
                Ok(read(stored))
            }
            Compute::Aborted(refusal) => {
                self.entries.fetch_sub(1, Ordering::Relaxed);
                self.bytes.fetch_sub(size, Ordering::Relaxed);
                Err(self.refused(refusal))
            }
            // Nothing is removed by a change.
            Compute::Removed(..) => Err(Refusal::Mismatch),
        }
    }

    fn sweep_at(&self, now: Moment) {
        let guard = self.map.guard();
        for (key, value) in self.map.iter(&guard) {
            if value.lives(now) {
                continue;
            }
            let forget = |there: Option<(&Box<str>, &Value)>| match there {
                Some((_, value)) if !value.lives(now) => Operation::Remove,
                _ => Operation::Abort(()),
            };
            if let Compute::Removed(key, value) = self.map.compute(key.clone(), forget, &guard) {
                self.release(key, value);
                self.metrics.kv_expired.add(1);
            }
        }
        // What was removed is freed when enough of it has gathered, or now.
        guard.flush();
    }

    fn release(&self, key: &str, value: &Value) {
        self.entries.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(key.len() + value.bytes.len(), Ordering::Relaxed);
    }

    /// Counts a refusal by a limit; that of a comparison is an answer.
    fn refused(&self, refusal: Refusal) -> Refusal {
        if refusal != Refusal::Mismatch {
            self.metrics.kv_refused.add(1);
        }
        refusal
    }
}

impl Value {
    fn lives(&self, now: Moment) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }

    fn number(&self) -> Result<i64, Refusal> {
        let bytes = <[u8; 8]>::try_from(&*self.bytes).map_err(|_| Refusal::Mismatch)?;
        Ok(i64::from_le_bytes(bytes))
    }
}

impl Next {
    fn new(bytes: &[u8], ttl: Option<Duration>, now: Moment) -> Self {
        Self { bytes: bytes.into(), expires: deadline(ttl, now) }
    }
}

fn deadline(ttl: Option<Duration>, now: Moment) -> Option<Moment> {
    ttl.map(|ttl| now.saturating_add(ttl))
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is in it is the filter's and may be a secret.
        f.debug_struct("Store").field("size", &self.size()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
