//! Names and meanings of the numbers that other modules count.

use super::page::{Kind, Page};
use crate::{filter, http, identity, upstream};

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
    let help = "Names forgotten before their time because resolve_names was reached.";
    page.counter("tidegate_resolve_evicted_total", help, metrics.resolve_evicted.value());
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

/// Writes what HTTP counts.
pub fn http(page: &mut Page, metrics: &http::Metrics) {
    let help = "Requests refused before their head was understood, by reason.";
    let heads = page.family(Kind::Counter, "tidegate_heads_refused_total", help);
    heads.add(&[("reason", "bad_framing")], metrics.heads_malformed.value());
    heads.add(&[("reason", "header_too_large")], metrics.heads_too_large.value());
    heads.add(&[("reason", "downstream_timeout")], metrics.heads_late.value());
    let drained = metrics.drained.value();
    page.counter("tidegate_connections_drained_total", "Caller connections told to close by a drain.", drained);
    page.counter("tidegate_continues_total", "100 Continue answers to callers.", metrics.continues.value());
    page.counter("tidegate_http2_streams_total", "HTTP/2 streams that callers opened.", metrics.streams.value());
    let open = metrics.streams_open.value();
    page.gauge("tidegate_http2_streams_open", "HTTP/2 streams of callers that wait for their response.", open);
    page.counter("tidegate_upgrades_total", "Connections that switched protocols (101).", metrics.upgrades.value());
    page.counter("tidegate_tunnels_total", "CONNECT tunnels opened.", metrics.tunnels.value());
    let open = metrics.tunnels_open.value();
    page.gauge("tidegate_tunnels_open", "Tunnels and switched connections open.", open);
    let spliced = metrics.tunnel_bytes_spliced.value();
    page.counter("tidegate_tunnel_spliced_bytes_total", "Bytes of tunnels moved within the kernel, not copied.", spliced);
    let help = "Pipes open for such bytes; a worker uses at most http_tunnel_pipes at once.";
    page.gauge("tidegate_tunnel_pipes_open", help, metrics.tunnel_pipes.value());
    let help = "Exchanges refused by a route's limits, by limit.";
    let limited = page.family(Kind::Counter, "tidegate_limited_total", help);
    limited.add(&[("limit", "rate")], metrics.limited_rate.value());
    limited.add(&[("limit", "concurrent")], metrics.limited_concurrent.value());
    let help = "Attempts made again: as a route's retries ask, or because a pooled connection had been closed.";
    let retries = page.family(Kind::Counter, "tidegate_retries_total", help);
    retries.add(&[("cause", "route")], metrics.retries.value());
    retries.add(&[("cause", "stale_connection")], metrics.retries_stale.value());
}

/// Writes what is counted of callers' tokens.
pub fn identity(page: &mut Page, metrics: &identity::Metrics) {
    let help = "Tokens that callers brought, by what came of them.";
    let tokens = page.family(Kind::Counter, "tidegate_tokens_total", help);
    tokens.add(&[("outcome", "cached")], metrics.tokens_cached.value());
    tokens.add(&[("outcome", "verified")], metrics.tokens_verified.value());
    tokens.add(&[("outcome", "refused")], metrics.tokens_refused.value());
    page.gauge("tidegate_tokens_remembered", "Verified tokens that workers remember.", metrics.tokens_remembered.value());
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
    page.counter("tidegate_filter_calls_total", "Requests of filters' own.", metrics.calls.value());
    let help = "Requests of filters' own that got no answer; each has a record that says why, unless a limit on them did.";
    page.counter("tidegate_filter_calls_failed_total", help, metrics.calls_failed.value());
    page.gauge("tidegate_filter_instances", "Filter instances alive.", metrics.instances.value());
    page.gauge("tidegate_filter_memory_bytes", "Bytes of their memories.", metrics.memory_bytes.value());
    let help = "Bytes of the memories of instances that exchanges have to themselves.";
    page.gauge("tidegate_filter_own_memory_bytes", help, metrics.own_memory_bytes.value());
    let help = "Of those, of instances that wait for their next exchange.";
    page.gauge("tidegate_filter_own_memory_idle_bytes", help, metrics.own_memory_idle_bytes.value());
    let help = "Bytes of bodies that are held for filters and their own calls, or were and are not sent yet.";
    page.gauge("tidegate_filter_held_bytes", help, metrics.held_bytes.value());
    let help = "What filters asked for beyond a limit, by kind.";
    let refused = page.family(Kind::Counter, "tidegate_filter_refused_total", help);
    refused.add(&[("kind", "memory")], metrics.memory_refused.value());
    refused.add(&[("kind", "own_memory")], metrics.own_memory_refused.value());
    refused.add(&[("kind", "table")], metrics.tables_refused.value());
    refused.add(&[("kind", "line")], metrics.lines_refused.value());
    refused.add(&[("kind", "header")], metrics.headers_refused.value());
    refused.add(&[("kind", "body")], metrics.bodies_refused.value());
    refused.add(&[("kind", "held")], metrics.held_refused.value());
    refused.add(&[("kind", "tunnel")], metrics.tunnels_full.value());
    refused.add(&[("kind", "upstream")], metrics.wishes_refused.value());
    refused.add(&[("kind", "attribute")], metrics.attributes_refused.value());
    refused.add(&[("kind", "event")], metrics.events_dropped.value());
    refused.add(&[("kind", "log")], metrics.logs_dropped.value());
    refused.add(&[("kind", "compile")], metrics.compile_refused.value());
    refused.add(&[("kind", "kv")], metrics.kv_refused.value());
    refused.add(&[("kind", "queue")], metrics.queues_refused.value());
    refused.add(&[("kind", "metric")], metrics.instruments_refused.value());
    let help = "Exchanges on which a filter that is required to leave an audit event left none.";
    page.counter("tidegate_filter_silent_total", help, metrics.silent.value());
    page.counter("tidegate_filter_compiled_total", "Modules compiled.", metrics.compiled.value());
    let help = "Compiled modules found on disk, by what came of them: all but loaded ones are compiled anew.";
    let artefacts = page.family(Kind::Counter, "tidegate_filter_artefacts_total", help);
    artefacts.add(&[("outcome", "loaded")], metrics.artefacts_loaded.value());
    artefacts.add(&[("outcome", "stale")], metrics.artefacts_stale.value());
    artefacts.add(&[("outcome", "refused")], metrics.artefacts_refused.value());
    artefacts.add(&[("outcome", "failed")], metrics.artefacts_failed.value());
    let help = "Compiled modules removed from disk to make room.";
    page.counter("tidegate_filter_artefacts_evicted_total", help, metrics.artefacts_evicted.value());
    page.gauge("tidegate_filter_artefacts", "Compiled modules on disk.", metrics.artefacts.value());
    page.gauge("tidegate_filter_artefact_bytes", "Their bytes.", metrics.artefact_bytes.value());
    let help = "Values of filters forgotten because their time was over.";
    page.counter("tidegate_filter_kv_expired_total", help, metrics.kv_expired.value());
    let help = "Filter instances dropped because they had served nothing for a while.";
    page.counter("tidegate_filter_idle_dropped_total", help, metrics.idle_dropped.value());
}
