//! A worker: one thread, its connections, its pools, its filter instances. Nothing in it is shared.

use crate::{filter::Instances, identity::TokenCache, live::Live, upstream::Upstreams};
use arc_swap::ArcSwap;
use std::sync::Arc;

/// What one worker owns, and what it reads of the rest.
pub struct Worker {
    /// What is in force; loaded once per exchange.
    pub live: Arc<ArcSwap<Live>>,
    /// Its connections to the outside.
    pub upstreams: Upstreams,
    /// Its filter instances.
    pub instances: Instances,
    /// Its verified tokens.
    pub tokens: TokenCache,
    // metrics, records, settings: helper R
}
