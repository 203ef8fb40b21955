//! Tokens that were verified, so that each is verified once per worker and lifetime. Only digests are kept.

use super::{Issuers, networks::Networks};
use crate::{
    fault::Fault,
    telemetry::{Counter, Gauge},
};
use aws_lc_rs::digest::{SHA256, digest};
use foldhash::HashMap;
use std::{
    cell::{Cell, RefCell},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tidegate_policy::identity::Caller;

/// The knobs of identity.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Verified tokens each worker remembers. 10,000 at about 1 kB are 10 MB; one more costs a signature check.
    pub tokens: usize,
    /// The longest a token is remembered, whatever its expiry. 5 min bounds what a wrong clock can do.
    pub remembered: Duration,
}

/// What identity counts, all workers together.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Tokens found among those verified.
    pub tokens_cached: Counter,
    /// Tokens verified.
    pub tokens_verified: Counter,
    /// Tokens that did not hold.
    pub tokens_refused: Counter,
    /// Tokens remembered now.
    pub tokens_remembered: Gauge,
}

/// Tokens that were verified, by their text's digest, so that a token is verified once per worker and lifetime.
#[derive(Debug, Default)]
pub struct TokenCache {
    settings: Settings,
    metrics: Arc<Metrics>,
    generation: Cell<u64>,
    verified: RefCell<HashMap<[u8; 32], Verified>>,
    /// The callers known by their address alone, beside those who bring a token.
    pub(super) networks: Networks,
}

#[derive(Debug)]
struct Verified {
    caller: Arc<Caller>,
    /// Seconds since 1970.
    until: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { tokens: 10_000, remembered: Duration::from_secs(300) }
    }
}

impl TokenCache {
    /// Nothing verified yet.
    pub fn new(settings: Settings, metrics: Arc<Metrics>) -> Self {
        Self { settings, metrics, generation: Cell::default(), verified: RefCell::default(), networks: Networks::default() }
    }

    /// Whose token it is.
    pub(super) fn caller(&self, issuers: &Issuers, token: &str) -> Result<Arc<Caller>, Fault> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.caller_at(issuers, token, now)
    }

    fn caller_at(&self, issuers: &Issuers, token: &str, now: u64) -> Result<Arc<Caller>, Fault> {
        let mut verified = self.verified.borrow_mut();
        if self.generation.replace(issuers.generation) != issuers.generation {
            self.metrics.tokens_remembered.add(-(verified.len() as i64));
            verified.clear();
        }
        let mut key = [0; 32];
        key.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        if let Some(known) = verified.get(&key).filter(|known| known.until > now) {
            self.metrics.tokens_cached.add(1);
            return Ok(Arc::clone(&known.caller));
        }
        let outcome = issuers.verify(token);
        let counter = if outcome.is_ok() { &self.metrics.tokens_verified } else { &self.metrics.tokens_refused };
        counter.add(1);
        let (caller, expires) = outcome?;
        let caller = Arc::new(caller);
        let before = verified.len();
        if before >= self.settings.tokens {
            verified.retain(|_, known| known.until > now);
        }
        if verified.len() >= self.settings.tokens {
            verified.clear();
        }
        let until = expires.min(now + self.settings.remembered.as_secs());
        verified.insert(key, Verified { caller: Arc::clone(&caller), until });
        self.metrics.tokens_remembered.add(verified.len() as i64 - before as i64);
        Ok(caller)
    }
}

impl Drop for TokenCache {
    fn drop(&mut self) {
        self.metrics.tokens_remembered.add(-(self.verified.borrow().len() as i64));
    }
}
