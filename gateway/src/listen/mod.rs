//! Accepting: sockets to peers, sniffed, counted, and handed to the least loaded worker.
//!
//! `accept` takes connections in on a thread of its own, `greet` does what comes before HTTP on the worker. The PROXY
//! protocol is not spoken: a load balancer in front must keep source addresses by other means.

pub mod accept;
pub mod greet;
#[cfg(test)]
mod tests;
pub mod tls;

pub use accept::{Listeners, Metrics};

use crate::stream::Stream;
use bytes::BytesMut;
use std::{
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};
use tidegate_policy::identity::Caller;
use tokio::sync::OwnedSemaphorePermit;

/// Who is at the other end of a downstream connection.
#[derive(Debug)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// The address it connected to.
    pub local: SocketAddr,
    /// Whom its client certificate names, on the mutual TLS listener.
    pub certificate: Option<Arc<Caller>>,
    /// The server name it sent (SNI), on the mutual TLS listener.
    pub server_name: Option<Arc<str>>,
}

/// Which listener a connection came in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// In the clear.
    Plain,
    /// Over mutual TLS.
    Mutual,
}

/// A connection on its way to a worker.
#[derive(Debug)]
pub struct Accepted {
    /// The socket, not blocking.
    pub socket: std::net::TcpStream,
    /// The other end's address.
    pub address: SocketAddr,
    /// Which listener it came in by.
    pub entry: Entry,
    /// Its place among the connections.
    pub held: Held,
}

/// A place among the open connections, given back when this is dropped.
#[derive(Debug)]
pub struct Held {
    entry: Entry,
    metrics: Arc<Metrics>,
    load: Arc<AtomicUsize>,
    _place: OwnedSemaphorePermit,
}

/// A connection of which is known who is there and what it speaks.
#[derive(Debug)]
pub struct Connection {
    /// Who is there.
    pub peer: Rc<Peer>,
    /// The bytes.
    pub stream: Stream,
    /// Bytes read already, which come before the stream's.
    pub first: BytesMut,
    /// What it speaks.
    pub spoken: Spoken,
    /// Its place; to be dropped when the connection has ended.
    pub held: Held,
}

/// The version of HTTP that a caller speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoken {
    /// HTTP/1.1 or 1.0, or something else that its codec will refuse.
    Http1,
    /// HTTP/2, by ALPN or by prior knowledge.
    Http2,
}

/// What serves connections on a worker.
pub trait Serve: 'static {
    /// Serves one connection until it ends.
    fn serve(self: Rc<Self>, accepted: Accepted) -> impl Future<Output = ()>;
    /// Runs beside the connections for as long as the worker lives.
    fn keep(self: Rc<Self>) -> impl Future<Output = ()>;
    /// Tells connections to end after what is under way.
    fn drain(&self);
    /// Called when the time for that is up, right before the connections that are still open are dropped.
    fn cut(&self);
    /// Called once when the last connection has ended.
    fn finish(self: Rc<Self>) -> impl Future<Output = ()>;
}

/// Knobs of the listeners.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where callers connect in the clear.
    pub proxy: SocketAddr,
    /// Where callers connect over mutual TLS.
    pub mutual: SocketAddr,
    /// Connections open at once on both; more wait in the kernel's backlog. 16,384 of some 20 KiB each are 320 MiB.
    pub max_connections: usize,
    /// Connections that the kernel completes ahead of the gateway; the kernel's own limit is often 4096.
    pub backlog: u32,
    /// How long callers may take to begin.
    pub timeouts: Timeouts,
}

/// How long callers may take to begin.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// From the connection to its first bytes. 60 s leaves room for connections that are opened ahead of their use.
    pub first_byte: Duration,
    /// For the TLS handshake. 10 s suffices with a lost packet or two on the worst link.
    pub handshake: Duration,
}

impl Default for Settings {
    // Pods connect from everywhere, so the proxy listens on every address; the design names the ports.
    fn default() -> Self {
        Self {
            proxy: SocketAddr::from(([0, 0, 0, 0], 3128)),
            mutual: SocketAddr::from(([0, 0, 0, 0], 15008)),
            max_connections: 16_384,
            backlog: 4096,
            timeouts: Timeouts { first_byte: Duration::from_secs(60), handshake: Duration::from_secs(10) },
        }
    }
}
