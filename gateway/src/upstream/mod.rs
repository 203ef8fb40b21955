//! The way out: resolve, select, dial, TLS, pool. Nothing here opens a socket without a permit.

pub mod tls;

use crate::{
    fault::Fault,
    http::{Request, Response},
    live::Live,
    stream::Stream,
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tidegate_policy::Permit;

/// One worker's connections to the outside.
#[derive(Debug)]
pub struct Upstreams {}

/// A connection that is ready for one request.
#[derive(Debug)]
pub struct Connection {
    /// What is known of it, for the record and the span.
    pub facts: Facts,
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

impl Upstreams {
    /// A connection for one HTTP request: an idle one of the pool, a stream of a shared HTTP/2 one, or a new one.
    pub async fn connect(&self, _live: &Live, _permit: &Permit, _request: &Request) -> Result<Connection, Fault> {
        unimplemented!()
    }

    /// A stream of its own, for a tunnel. TLS is not originated: the caller's bytes pass through.
    pub async fn tunnel(&self, _live: &Live, _permit: &Permit) -> Result<(Stream, Facts), Fault> {
        unimplemented!()
    }
}

impl Connection {
    /// Sends the request and waits for the response's head. Whichever of the two bodies is still under way goes on while
    /// the response's body is read. The connection returns to its pool when both have ended well.
    pub async fn send(self, _request: Request) -> Result<Response, Fault> {
        unimplemented!()
    }
}
