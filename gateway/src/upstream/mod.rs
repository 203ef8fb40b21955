//! The way out: resolve, guard, select, dial, TLS, pool. Nothing here opens a socket without a permit, and none to an
//! address that the guard has not passed.

mod attempt;
mod connect;
mod dial;
mod guard;
mod http1;
mod http2;
mod load;
mod pool;
mod resolve;
mod select;
pub mod settings;
#[cfg(test)]
mod tests;
pub mod tls;
pub mod wish;

pub use guard::Listeners;
pub use load::{Lease, Loads};
pub use resolve::Resolver;
pub use settings::{Metrics, ResolveSettings, Settings};
pub use wish::Wish;

use crate::{
    fault::Fault,
    http::{Request, Response},
    stream::Stream,
};
use http1::{Exchanger, Recycle};
use http2::Place;
use pool::{Line, Pools};
use resolve::Names;
use select::{Destinations, Health};
use std::{
    cell::Cell,
    net::SocketAddr,
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};
use tidegate_policy::Reason;

/// How often idle connections are looked through. 1 s: a connection that its peer has closed is noticed when it is
/// wanted in any case; this only frees the socket.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// What all workers share of the way out.
#[derive(Clone)]
pub struct Shared {
    /// Asks DNS.
    pub resolver: Resolver,
    /// The gateway's own listeners, which are never dialled.
    pub listeners: Listeners,
    /// The knobs.
    pub settings: Arc<Settings>,
    /// The counts.
    pub metrics: Arc<Metrics>,
}

/// One worker's connections to the outside.
pub struct Upstreams {
    shared: Shared,
    names: Names,
    health: Health,
    destinations: Destinations,
    /// TLS profiles that filters wished for.
    wished: tls::Wished,
    pools: Rc<Pools>,
}

/// A connection that is ready for one request.
pub struct Connection {
    /// What is known of it, for the record and the span.
    pub facts: Facts,
    carrier: Carrier,
}

enum Carrier {
    Http1(Exchanger, Rc<Line>),
    Http2(Place),
}

/// A connection of a tunnel's own.
#[derive(Debug)]
pub struct Tunnel {
    /// The bytes.
    pub stream: Stream,
    /// What is known of it.
    pub facts: Facts,
    /// Its place among the service's connections: keep it as long as the stream.
    pub lease: Lease,
}

/// What is known of a connection.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The address dialled.
    pub address: SocketAddr,
    /// Whether it had carried an exchange before.
    pub reused: bool,
    /// The TLS version, where TLS was originated.
    pub tls_version: Option<&'static str>,
    /// The name that was verified in the peer's certificate.
    pub tls_peer: Option<Arc<str>>,
    /// `HTTP/1.1`, `HTTP/2` or `tunnel`.
    pub protocol: &'static str,
    /// How long resolving took; none where it was not needed.
    pub resolve: Option<Duration>,
    /// How long connecting took.
    pub connect: Option<Duration>,
    /// How long the TLS handshake took.
    pub handshake: Option<Duration>,
}

/// How far an attempt at a connection got before it failed. Each phase that was begun says how long it took.
#[derive(Debug, Clone, Default)]
pub struct Reached {
    /// The address dialled, the last one where several were; none where resolving failed already.
    pub address: Option<SocketAddr>,
    /// How long resolving took; none where it was not needed.
    pub resolve: Option<Duration>,
    /// How long connecting took.
    pub connect: Option<Duration>,
    /// How long the TLS handshake took.
    pub handshake: Option<Duration>,
}

impl Facts {
    /// As what is known of a connection that failed before it carried anything.
    fn reached(&self, reached: &mut Reached) {
        reached.address = Some(self.address);
        reached.resolve = self.resolve;
        reached.connect = self.connect;
        reached.handshake = reached.handshake.or(self.handshake);
    }
}

impl Upstreams {
    /// A worker's own half. Must be called within the worker's `LocalSet`: a task that lets idle connections go is
    /// spawned there, and ends with the `Upstreams`.
    pub fn start(shared: Shared) -> Self {
        thread_local!(static SEED: Cell<u64> = Cell::new(rand_seed()));
        let pools = Rc::new(Pools::new(&shared.settings, Arc::clone(&shared.metrics)));
        tokio::task::spawn_local(keep_sweeping(Rc::downgrade(&pools)));
        Self {
            names: Names::new(shared.resolver.clone(), Arc::clone(&shared.metrics)),
            health: Health::new(SEED.get()),
            destinations: Destinations::default(),
            wished: tls::Wished::default(),
            shared,
            pools,
        }
    }
}

/// A number that differs from thread to thread and from start to start.
fn rand_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::thread::current().id())
}

async fn keep_sweeping(pools: Weak<Pools>) {
    let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
    loop {
        ticks.tick().await;
        let Some(pools) = pools.upgrade() else { return };
        pools.sweep();
    }
}

impl Connection {
    /// Sends the request and waits for the response's head. Whichever of the two bodies is still under way goes on while
    /// the response's body is read. The connection returns to its pool when both have ended well.
    ///
    /// After a retryable fault the request is whole again; where `facts.reused` holds as well, the peer has most likely
    /// closed an idle connection just now, and another attempt is due without any route asking for retries.
    pub async fn send(self, request: &mut Request) -> Result<Response, Fault> {
        match self.carrier {
            Carrier::Http2(place) => place.send(request).await,
            Carrier::Http1(exchanger, line) => {
                let wanting = line.certificate_wanting && !self.facts.reused;
                let outcome = exchanger.send(request, line).await;
                match outcome {
                    // With TLS 1.3 a server refuses the lack of a certificate only after the handshake.
                    Err(fault) if wanting && matches!(fault.reason(), Reason::UpstreamProtocol | Reason::TlsFailed) => {
                        let demanded = Fault::new(Reason::TlsFailed, tls::CERTIFICATE_DEMANDED);
                        Err(if fault.retryable() { demanded.before_send() } else { demanded })
                    }
                    outcome => outcome,
                }
            }
        }
    }

    /// Gives the connection back unused.
    pub fn release(self) {
        if let Carrier::Http1(exchanger, line) = self.carrier {
            line.recycle(exchanger);
        }
    }
}
