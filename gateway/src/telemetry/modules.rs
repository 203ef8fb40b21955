//! Names and meanings of the numbers that other modules count.

use super::page::{Kind, Page};
use crate::upstream;

/// Writes what the way out counts.
pub fn upstream(page: &mut Page, metrics: &upstream::Metrics) {
    let help = "Names needed, by where their addresses came from.";
    let names = page.family(Kind::Counter, "tidegate_resolve_total", help);
    names.add(&[("from", "cache")], metrics.resolve_cached.value());
    names.add(&[("from", "lookup")], metrics.resolve_lookups.value());
    let help = "Lookups that found no address, by kind: there is none, or nobody answered.";
    let failures = page.family(Kind::Counter, "tidegate_resolve_failures_total", help);
    failures.add(&[("kind", "negative")], metrics.resolve_negative.value());
    failures.add(&[("kind", "no_answer")], metrics.resolve_failures.value());
    page.gauge("tidegate_resolve_names", "Names that workers remember.", metrics.resolve_names.value());
    let refused = metrics.addresses_refused.value();
    page.counter("tidegate_addresses_refused_total", "Addresses that the guard refused to dial.", refused);
    let attempts = metrics.connect_attempts.value();
    page.counter("tidegate_upstream_connect_attempts_total", "TCP connection attempts.", attempts);
    let help = "TCP connection attempts that failed.";
    let failed = page.family(Kind::Counter, "tidegate_upstream_connect_failures_total", help);
    failed.add(&[("kind", "refused")], metrics.connect_failures.value());
    failed.add(&[("kind", "timeout")], metrics.connect_timeouts.value());
    page.counter("tidegate_upstream_put_aside_total", "Times an address was put aside.", metrics.put_aside.value());
    let help = "Exchanges that found a connection in the pool.";
    page.counter("tidegate_upstream_reused_total", help, metrics.reused.value());
    let help = "TLS handshakes with upstreams, by how they went.";
    let handshakes = page.family(Kind::Counter, "tidegate_upstream_tls_handshakes_total", help);
    handshakes.add(&[("outcome", "full")], metrics.handshakes_full.value());
    handshakes.add(&[("outcome", "resumed")], metrics.handshakes_resumed.value());
    handshakes.add(&[("outcome", "failed")], metrics.handshakes_failed.value());
    let open = metrics.connections_open.value();
    page.gauge("tidegate_upstream_connections_open", "Upstream connections open, tunnels among them.", open);
    let idle = metrics.connections_idle.value();
    page.gauge("tidegate_upstream_connections_idle", "Upstream connections idle in pools.", idle);
    let help = "Exchanges refused because a limit on upstream connections was reached.";
    page.counter("tidegate_upstream_overloaded_total", help, metrics.overloaded.value());
}
