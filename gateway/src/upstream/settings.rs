//! The knobs of the way out, and what it counts. Owns no behaviour.

use crate::{
    http::{h1, h2},
    telemetry::{Counter, Gauge},
};
use std::{net::SocketAddr, time::Duration};

/// The knobs of the way out. A route's `timeouts.connect` goes before `connect_timeout`.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Names to addresses.
    pub resolve: ResolveSettings,
    /// Limits of HTTP/1 connections: the callers' own.
    pub h1: h1::Limits,
    /// Limits of HTTP/2 connections: the callers' own, but for the streams.
    pub h2: h2::Limits,
    /// Limit on one TCP connection attempt. 5 s: two retransmissions of a lost SYN (1 s, then 2 s more) still fit.
    pub connect_timeout: Duration,
    /// How long one connection attempt is given before the next address is tried beside it: the Connection Attempt
    /// Delay of RFC 8305 section 5, which recommends 250 ms.
    pub attempt_delay: Duration,
    /// Limit on one TLS handshake. 10 s: what slow servers behind a long path need, with a retransmission to spare.
    pub handshake_timeout: Duration,
    /// Silence after which the kernel probes a connection. 60 s stays below the idle limits of common NAT devices.
    pub keepalive: Duration,
    /// Where the gateway runs, as `region/zone/sub-zone`: of a service's endpoints of one priority the nearest go first.
    pub locality: Option<String>,
    /// Addresses of one name that are tried. 8: more have never helped when the first eight were all dead.
    pub addresses: usize,
    /// Endpoints of one service that are tried for one exchange. 4, so that one exchange cannot dial a whole list.
    pub endpoints: usize,
    /// Failures in a row after which an address is put aside. 3: one lost connection is no reason.
    pub aside_after: u32,
    /// How long it is put aside at first; doubled with each further failure.
    pub aside_first: Duration,
    /// The longest it is put aside.
    pub aside_longest: Duration,
    /// Idle connections kept by one worker, all services together. 4096 bounds the memory that silence costs (some
    /// 40 kB each with TLS) to about 160 MB.
    pub idle_connections: usize,
    /// Exchanges on one HTTP/2 connection at once; another connection is opened beyond. 100 is what RFC 9113 section
    /// 6.5.2 recommends peers to allow at least.
    pub streams_per_connection: u32,
    /// Connections open at once to all hosts that no service registers (`open` mode), all workers together.
    pub unregistered_connections: u32,
}

/// How names are resolved.
#[derive(Debug, Clone)]
pub struct ResolveSettings {
    /// The DNS servers asked, over UDP and then TCP; empty means the system's (`/etc/resolv.conf`).
    pub servers: Vec<SocketAddr>,
    /// Whether the hosts file goes before DNS.
    pub hosts_file: bool,
    /// Limit on resolving one name, all servers and attempts together. 5 s, like a connection attempt.
    pub timeout: Duration,
    /// Limit on one question to one server.
    pub attempt_timeout: Duration,
    /// Questions to each server before giving up.
    pub attempts: usize,
    /// The shortest time an answer is kept. 1 s: a TTL of zero must not mean a question per exchange.
    pub min_ttl: Duration,
    /// The longest time an answer is kept. 1 h: a day-long TTL must not outlive a move by a day.
    pub max_ttl: Duration,
    /// The longest time a name's absence is kept (RFC 2308); shortest is `min_ttl`. 30 s: a name that was registered
    /// here before it was created there should not stay unknown for long.
    pub max_negative_ttl: Duration,
    /// How long a failure to get any answer is kept. 1 s: servers in trouble are not asked once per exchange.
    pub failure_ttl: Duration,
    /// Names each worker remembers. 10,000 at some 300 bytes are 3 MB.
    pub names: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            resolve: ResolveSettings::default(),
            h1: h1::Limits::default(),
            h2: h2::Limits::default(),
            connect_timeout: Duration::from_secs(5),
            attempt_delay: Duration::from_millis(250),
            handshake_timeout: Duration::from_secs(10),
            keepalive: Duration::from_secs(60),
            locality: None,
            addresses: 8,
            endpoints: 4,
            aside_after: 3,
            aside_first: Duration::from_secs(1),
            aside_longest: Duration::from_secs(30),
            idle_connections: 4096,
            streams_per_connection: 100,
            unregistered_connections: 1024,
        }
    }
}

impl Default for ResolveSettings {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            hosts_file: true,
            timeout: Duration::from_secs(5),
            attempt_timeout: Duration::from_secs(2),
            attempts: 2,
            min_ttl: Duration::from_secs(1),
            max_ttl: Duration::from_secs(3600),
            max_negative_ttl: Duration::from_secs(30),
            failure_ttl: Duration::from_secs(1),
            names: 10_000,
        }
    }
}

/// What the way out counts, all workers together.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Names found in a worker's cache when a destination was looked at anew.
    pub resolve_cached: Counter,
    /// Names asked for.
    pub resolve_lookups: Counter,
    /// Lookups that found no address: the name or its addresses do not exist.
    pub resolve_negative: Counter,
    /// Lookups that got no answer: timeout, refusal, server failure.
    pub resolve_failures: Counter,
    /// Names remembered now.
    pub resolve_names: Gauge,
    /// Names forgotten before their time because `names` was reached.
    pub resolve_evicted: Counter,
    /// Addresses that the guard refused to dial.
    pub addresses_refused: Counter,
    /// TCP connection attempts.
    pub connect_attempts: Counter,
    /// TCP connection attempts that failed.
    pub connect_failures: Counter,
    /// TCP connection attempts that timed out.
    pub connect_timeouts: Counter,
    /// Times an address was put aside for failing.
    pub put_aside: Counter,
    /// Exchanges that found a connection in the pool.
    pub reused: Counter,
    /// TLS handshakes made in full.
    pub handshakes_full: Counter,
    /// TLS handshakes that resumed a session.
    pub handshakes_resumed: Counter,
    /// TLS handshakes that failed.
    pub handshakes_failed: Counter,
    /// Connections open now, tunnels among them.
    pub connections_open: Gauge,
    /// Connections idle in pools now.
    pub connections_idle: Gauge,
    /// Exchanges refused because a connection limit was reached.
    pub overloaded: Counter,
}
