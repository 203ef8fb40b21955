//! Accepting: sockets to peers, sniffed, counted, and handed to the least loaded worker.

pub mod tls;

use std::{net::SocketAddr, sync::Arc};
use tidegate_policy::identity::Caller;

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
