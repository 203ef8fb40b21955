//! The way out over real sockets: a DNS server, TLS servers and plain ones, all on loopback.

mod dns;
pub(super) mod fixture;
mod pool;
mod send;
mod tls;
mod wish;
