//! The knobs of HTTP, and what one worker's exchanges share beside its pools and filters.

use super::{
    forward::Pseudonym,
    h1, h2,
    limits::{Known, Limiters},
    metrics::Metrics,
};
use crate::tunnel::{Buffers, Pipes, Spares};
use std::{cell::Cell, hash::BuildHasher, rc::Rc, sync::Arc, time::Duration};

/// Knobs of HTTP and of tunnels.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Limits of HTTP/1 connections.
    pub h1: h1::Limits,
    /// Limits of HTTP/2 connections.
    pub h2: h2::Limits,
    /// How the gateway calls itself in `Via`. Gateways that forward to each other need different ones.
    pub pseudonym: Pseudonym,
    /// From the request's last byte to the response's head, where a route says nothing (`http_first_byte_timeout`).
    /// 60 s: what nginx waits, and longer than the slowest ordinary API.
    pub first_byte_timeout: Duration,
    /// Between two pieces of a body, where a route says nothing (`http_body_timeout`). 5 minutes leave event streams
    /// their pauses.
    pub body_timeout: Duration,
    /// How long a tunnel may stay silent both ways, where a route says nothing (`http_tunnel_timeout`). One hour, as
    /// Envoy has it: tunnels carry connections that pools keep.
    pub tunnel_timeout: Duration,
    /// How long a caller may take over its TLS ClientHello in a tunnel (`http_hello_timeout`); it is held until then.
    pub hello_timeout: Duration,
    /// Pipes that one worker's tunnels may have in use at once (`http_tunnel_pipes`), two descriptors each; bytes for which
    /// there is none are copied. Only directions with bytes on their way hold one; 64 of 256 KiB are a quarter of what Linux
    /// lets the pipes of one user hold.
    pub tunnel_pipes: usize,
}

/// What one worker's exchanges share.
#[derive(Debug)]
pub struct Context {
    /// The knobs.
    pub settings: Settings,
    /// Routes' limits, shared by all workers.
    pub limiters: Arc<Limiters>,
    /// What is counted, by all workers.
    pub metrics: Arc<Metrics>,
    /// What tunnels' bytes are moved with.
    pub spares: Rc<Spares>,
    pub(super) known: Known,
    random: Cell<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            h1: h1::Limits::default(),
            h2: h2::Limits::default(),
            pseudonym: Pseudonym::default(),
            first_byte_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(300),
            tunnel_timeout: Duration::from_secs(3600),
            hello_timeout: Duration::from_secs(5),
            tunnel_pipes: 64,
        }
    }
}

impl Context {
    /// A worker's own context; `limiters` and `metrics` are those of all workers.
    pub fn new(settings: Settings, limiters: Arc<Limiters>, metrics: Arc<Metrics>) -> Self {
        let seed = foldhash::fast::RandomState::default().hash_one(std::thread::current().id());
        let pipes = Pipes::new(settings.tunnel_pipes, Arc::clone(&metrics));
        let spares = Rc::new(Spares { buffers: Buffers::default(), pipes });
        Self { settings, limiters, metrics, spares, known: Known::default(), random: Cell::new(seed | 1) }
    }

    /// A number below `bound`, for shares of exchanges; not for secrets.
    pub(super) fn random(&self, bound: u64) -> u64 {
        let mut state = self.random.get();
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.random.set(state);
        (state >> 16) % bound.max(1)
    }
}
