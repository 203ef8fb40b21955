//! The ranges of settings: which values let a gateway work at all. Owns no setting.

use super::{DEFINITIONS, Settings};
use tidegate_policy::service::check_locality;

/// Settings of which zero would refuse or fail every exchange, every connection or every document. Of the others it means
/// something: none is kept, or there is no waiting.
const NEVER_ZERO: &[&str] = &[
    "max_connections",
    "first_byte_timeout",
    "mtls_handshake_timeout",
    "record_queue_batches",
    "otlp_metrics_interval",
    "http_head_bytes",
    "http_head_timeout",
    "http_idle_timeout",
    "http_write_timeout",
    "http_first_byte_timeout",
    "http_body_timeout",
    "http_tunnel_timeout",
    "http_hello_timeout",
    "http2_streams",
    "http2_head_bytes",
    "http2_ping_interval",
    "http2_ping_timeout",
    "document_bytes",
    "api_body_bytes",
    "api_connections",
    "api_header_timeout",
    "api_body_timeout",
    "connect_timeout",
    "handshake_timeout",
    "upstream_keepalive",
    "addresses_tried",
    "endpoints_tried",
    "streams_per_connection",
    "resolve_timeout",
    "resolve_attempt_timeout",
    "resolve_attempts",
    "filter_memory_bytes",
    "filter_callback_timeout",
    "filter_configure_timeout",
    "filter_hostcall_bytes",
    "filter_handles",
    "filter_exchanges",
    "filter_module_bytes",
    "filter_compile_timeout",
    "filter_compile_memory_bytes",
    "filter_compilers",
];

/// The settings that leave their range: name, and a sentence that says what would be right.
pub(super) fn leaves(settings: &Settings) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    if !(1..=256).contains(&settings.workers.workers) {
        found.push(("workers", format!("{} is out of range: give 1 to 256", settings.workers.workers)));
    }
    let is_zero = |text: &str| text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic()) == "0";
    for definition in DEFINITIONS.iter().filter(|definition| NEVER_ZERO.contains(&definition.name)) {
        if is_zero(&(definition.show)(settings)) {
            found.push((definition.name, "0 would let nothing through: give more, or leave it out for the default".to_owned()));
        }
    }
    // The bound is the semaphore's and the queue's own.
    let bounded = [
        ("max_connections", settings.listen.max_connections),
        ("record_queue_batches", settings.record.queue_batches),
        ("api_connections", settings.control.connections),
        ("exchange_followers", settings.control.followers),
    ];
    for (name, _) in bounded.iter().filter(|(_, value)| *value > 10_000_000) {
        found.push((name, "is more than any machine can hold: give at most 10000000".to_owned()));
    }
    let h2 = &settings.http.h2;
    let windows =
        [("http2_stream_window_bytes", h2.stream_window_bytes), ("http2_connection_window_bytes", h2.connection_window_bytes)];
    for (name, window) in windows {
        // RFC 9113 sections 6.5.2 and 6.9.1; below the protocol's own first window a connection only gets slower.
        if !(65_535..=(1 << 31) - 1).contains(&window) {
            found.push((name, format!("{window} is out of range: give 65535 to 2147483647")));
        }
    }
    if let Some(Err(detail)) = settings.upstream.locality.as_deref().map(check_locality) {
        found.push(("locality", detail.to_owned()));
    }
    if !(0.0..=1.0).contains(&settings.otlp.sample_ratio) {
        found.push(("trace_sample_ratio", format!("{} is out of range: give 0 to 1", settings.otlp.sample_ratio)));
    }
    if let Some(endpoint) = &settings.otlp.endpoint
        && !(endpoint.starts_with("http://") || endpoint.starts_with("https://"))
    {
        found.push(("otlp_endpoint", format!("{endpoint:?} is not a URL: give http://HOST:PORT or https://HOST:PORT")));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_a_mistake_where_nothing_could_pass() {
        let default = Settings::default();
        assert_eq!(leaves(&default), []);
        for name in NEVER_ZERO {
            let definition = DEFINITIONS.iter().find(|definition| definition.name == *name).expect(name);
            let mut settings = default.clone();
            let zero = if definition.kind == "DURATION" { "0s" } else { "0" };
            (definition.read)(&mut settings, zero).unwrap();
            let found = leaves(&settings);
            assert!(found.len() == 1 && found[0].0 == *name && found[0].1.starts_with("0 would"), "{name}: {found:?}");
        }
    }
}
