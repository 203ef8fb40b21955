//! Names and meanings of the numbers that other modules count.

use super::page::{Kind, Page};
use crate::{filter, upstream};

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

/// Writes what the filter host counts.
pub fn filter(page: &mut Page, metrics: &filter::Metrics) {
    let help = "Failed callbacks of filters, by kind.";
    let failures = page.family(Kind::Counter, "tidegate_filter_failures_total", help);
    let timeouts = metrics.timeouts.value();
    failures.add(&[("kind", "timeout")], timeouts);
    failures.add(&[("kind", "other")], metrics.failures.value().saturating_sub(timeouts));
    let help = "Exchanges that met a filter which could not run just then.";
    page.counter("tidegate_filter_unavailable_total", help, metrics.unavailable.value());
    page.counter("tidegate_filter_replies_total", "Answers filters gave.", metrics.replies.value());
    page.counter("tidegate_filter_starts_total", "Filter instances started.", metrics.starts.value());
    page.gauge("tidegate_filter_instances", "Filter instances alive.", metrics.instances.value());
    let help = "What filters asked for beyond a limit, by kind.";
    let refused = page.family(Kind::Counter, "tidegate_filter_refused_total", help);
    refused.add(&[("kind", "memory")], metrics.memory_refused.value());
    refused.add(&[("kind", "header")], metrics.headers_refused.value());
    refused.add(&[("kind", "event")], metrics.events_dropped.value());
    refused.add(&[("kind", "log")], metrics.logs_dropped.value());
    refused.add(&[("kind", "compile")], metrics.compile_refused.value());
    page.counter("tidegate_filter_compiled_total", "Modules compiled.", metrics.compiled.value());
}
