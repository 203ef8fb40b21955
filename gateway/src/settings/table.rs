//! The table of settings. One entry per knob; whoever adds a knob adds one entry, and the rest follows.

use super::{Settings, value::Value};
use std::fmt::Write as _;

/// One setting.
pub struct Definition {
    /// Its name in the file; `--name` with hyphens as a flag, `TIDEGATE_NAME` in the environment.
    pub name: &'static str,
    /// What its values look like.
    pub kind: &'static str,
    /// What it means, in a sentence or two.
    pub doc: &'static str,
    /// Reads a value into the settings.
    pub(super) read: fn(&mut Settings, &str) -> Result<(), String>,
    /// The value as it would be written.
    pub(super) show: fn(&Settings) -> String,
}

/// The value's kind, from the field it goes to.
const fn kind_of<T: Value>(_: fn(&Settings) -> &T) -> &'static str {
    T::KIND
}

macro_rules! settings {
    ($($name:literal => $($field:ident).+, $doc:literal;)*) => {
        /// Every setting.
        pub const DEFINITIONS: &[Definition] = &[$(Definition {
            name: $name,
            kind: kind_of(|settings| &settings.$($field).+),
            doc: $doc,
            read: |settings, text| {
                settings.$($field).+ = Value::read(text)?;
                Ok(())
            },
            show: |settings| Value::show(&settings.$($field).+),
        },)*];
    };
}

settings! {
    "data_dir" => data_dir, "Where the databases, keys and the first admin token live. Made if absent; one gateway at a time.";
    "proxy_listen" => listen.proxy, "Where callers connect in the clear. Port 0 takes any free one, here and elsewhere.";
    "mtls_listen" => listen.mutual, "Where callers connect over mutual TLS, once it has a certificate.";
    "mtls_certificate" => mutual.certificate, "The gateway's certificate chain for mutual TLS, a PEM file.";
    "mtls_key" => mutual.key, "The key of that certificate, a PEM file.";
    "mtls_client_ca" => mutual.client_ca, "Whose client certificates are believed, a PEM file.";
    "admin_listen" => admin_listen, "Where the REST API listens.";
    "metrics_listen" => metrics_listen, "Where /metrics, /healthz and /readyz are served.";
    "mode" => mode, "What becomes of exchanges that no rule matches: refused (registered) or let through (open).";
    "resolver" => upstream.resolve.servers, "DNS servers that are asked instead of the system's; port 53 unless given.";
    "workers" => workers.workers, "Worker threads, 1 to 256; by default as many as there are cores.";
    "drain_timeout" => workers.drain_timeout, "How long open exchanges may take to finish at a stop before they are cut off.";
    "max_connections" => listen.max_connections, "Caller connections open at once; more wait in the kernel's backlog.";
    "backlog" => listen.backlog, "Connections the kernel completes ahead of the gateway; its own limit may be lower.";
    "first_byte_timeout" => listen.timeouts.first_byte, "How long a new connection may stay silent.";
    "mtls_handshake_timeout" => listen.timeouts.handshake, "How long a caller's TLS handshake may take.";
    "record_log" => record.log, "Where records go as JSON lines, besides the database; a file is opened again on SIGHUP.";
    "records_when_full" => record.when_full, "When records come faster than they are taken: drop and count them, or let new exchanges wait.";
    "record_queue_batches" => record.queue_batches, "Batches of records, of at most 256 KiB or 1,024 lines each, that may wait for the recorder.";
    "service_series" => service_series, "Services with metric series of their own; those seen later share the label other.";
    "otlp_endpoint" => otlp.endpoint, "Base URL of the OTLP receiver (HTTP, protobuf) for spans and metrics; OTEL_EXPORTER_OTLP_ENDPOINT is read too.";
    "otlp_metrics_interval" => otlp.metrics_interval, "How often metrics are exported.";
    "otlp_service_name" => otlp.service_name, "What exported telemetry calls this gateway (service.name).";
    "trace_sample_ratio" => otlp.sample_ratio, "Share of the traces begun here that are recorded, 0 to 1; a caller's own choice is honoured.";
    "log" => log, "What the gateway logs about itself to standard error: a level, or target=level pairs with commas.";
    "log_format" => log_format, "How it is written.";
    "http_head_bytes" => http.h1.head_bytes, "Largest request or response head of HTTP/1, in bytes.";
    "http_head_timeout" => http.h1.head_timeout, "Time for a request's head, from its first byte.";
    "http_idle_timeout" => http.h1.idle_timeout, "How long a caller's connection may stay idle between requests.";
    "http_write_timeout" => http.h1.write_timeout, "How long a caller that does not take its response is waited for.";
    "http_drain_bytes" => http.h1.drain_bytes, "Most bytes of a request body that are thrown away to use a connection again.";
    "http_drain_timeout" => http.h1.drain_timeout, "How long such bytes, or the end of a connection being closed, are waited for.";
    "http_continue_timeout" => http.h1.continue_timeout, "How long an upstream may take over 100 Continue before the body is sent anyway.";
    "http_first_byte_timeout" => http.first_byte_timeout, "How long an upstream may take from the request's last byte to its response, where a route says nothing.";
    "http_body_timeout" => http.body_timeout, "Longest pause between two pieces of a body, where a route says nothing.";
    "http_tunnel_timeout" => http.tunnel_timeout, "How long a tunnel may stay silent both ways, where a route says nothing.";
    "http_hello_timeout" => http.hello_timeout, "How long a caller may take over its TLS ClientHello in a tunnel.";
    "http_tunnel_pipes" => http.tunnel_pipes, "Pipes that each worker's tunnels may have in use at once, two descriptors each, and a sixteenth of the open files at most for all workers; bytes for which there is none are copied.";
    "http_pseudonym" => pseudonym, "What the gateway calls itself in Via; by default tidegate- and 8 digits that are kept in the data directory.";
    "http2_streams" => http.h2.streams, "Exchanges open at once on one HTTP/2 connection of a caller.";
    "http2_head_bytes" => http.h2.head_bytes, "Largest header section of HTTP/2, on both sides.";
    "http2_ping_interval" => http.h2.ping_interval, "How often an HTTP/2 connection with open streams is pinged, on both sides.";
    "http2_ping_timeout" => http.h2.ping_timeout, "How long such a ping may stay unanswered.";
    "http2_stream_window_bytes" => http.h2.stream_window_bytes, "Bytes received and not yet read of one HTTP/2 stream, on both sides.";
    "http2_connection_window_bytes" => http.h2.connection_window_bytes, "The same, of one HTTP/2 connection.";
    "token_cache" => identity.tokens, "Verified tokens each worker remembers.";
    "token_cache_time" => identity.remembered, "The longest a verified token is remembered, whatever its expiry.";
    "document_bytes" => control.document_bytes, "Largest JSON document the REST API takes.";
    "api_body_bytes" => control.body_bytes, "Bytes of bodies of REST API requests in memory at once; what comes beyond is answered 503.";
    "api_connections" => control.connections, "REST API connections open at once; more are closed.";
    "api_header_timeout" => control.header_timeout, "How long a caller of the REST API may take over a request's head.";
    "api_body_timeout" => control.body_timeout, "How long it may take over the body, and over taking a part of its answer.";
    "api_drain_timeout" => control.drain_timeout, "How long open API requests, and then queued records, may take to finish at a stop.";
    "exchange_queue_bytes" => control.queue_bytes, "Records waiting for the database, in bytes; more are dropped there and counted.";
    "exchange_max_age" => control.max_age, "How long the database keeps records.";
    "exchange_max_bytes" => control.max_bytes, "How many bytes of records, packed as they are, the database keeps; the oldest go first. A file from before they were packed may become twice as large.";
    "exchange_followers" => control.followers, "Callers that may follow the records live at once.";
    "connect_timeout" => upstream.connect_timeout, "Limit on one TCP connection attempt, where a route says nothing.";
    "attempt_delay" => upstream.attempt_delay, "How long one address is tried before the next is tried beside it.";
    "handshake_timeout" => upstream.handshake_timeout, "Limit on one TLS handshake with an upstream.";
    "upstream_keepalive" => upstream.keepalive, "Silence after which the kernel probes an upstream connection.";
    "locality" => upstream.locality, "Where the gateway runs, as region/zone/sub-zone: of endpoints of one priority the nearest go first.";
    "addresses_tried" => upstream.addresses, "Addresses of one name that are tried.";
    "endpoints_tried" => upstream.endpoints, "Endpoints of one service that are tried for one exchange.";
    "aside_after" => upstream.aside_after, "Failures in a row after which an address is put aside.";
    "aside_first" => upstream.aside_first, "How long it is put aside at first; doubled with each further failure.";
    "aside_longest" => upstream.aside_longest, "The longest it is put aside.";
    "idle_connections" => upstream.idle_connections, "Idle upstream connections kept by one worker.";
    "streams_per_connection" => upstream.streams_per_connection, "Exchanges on one upstream HTTP/2 connection at once.";
    "unregistered_connections" => upstream.unregistered_connections, "Connections open at once to hosts that no service registers (mode open).";
    "resolve_hosts_file" => upstream.resolve.hosts_file, "Whether the hosts file goes before DNS.";
    "resolve_timeout" => upstream.resolve.timeout, "Limit on resolving one name, all servers and attempts together.";
    "resolve_attempt_timeout" => upstream.resolve.attempt_timeout, "Limit on one question to one DNS server.";
    "resolve_attempts" => upstream.resolve.attempts, "Questions to each DNS server before giving up.";
    "resolve_min_ttl" => upstream.resolve.min_ttl, "The shortest time an answer is kept.";
    "resolve_max_ttl" => upstream.resolve.max_ttl, "The longest time an answer is kept.";
    "resolve_max_negative_ttl" => upstream.resolve.max_negative_ttl, "The longest time a name's absence is kept.";
    "resolve_failure_ttl" => upstream.resolve.failure_ttl, "How long a failure to get any answer is kept.";
    "resolve_names" => upstream.resolve.names, "Names each worker remembers.";
    "filter_memory_bytes" => filter.memory_bytes, "Linear memory of one filter instance.";
    "filter_table_elements" => filter.table_elements, "Table elements of one filter instance.";
    "filter_callback_timeout" => filter.callback, "Time for one callback of a filter.";
    "filter_configure_timeout" => filter.configure, "Time for starting a filter instance and for its configure.";
    "filter_hostcall_bytes" => filter.hostcall_bytes, "Bytes a filter may hand to the host in one call.";
    "filter_handles" => filter.handles, "Handles an instance may hold: its metrics, and what it is lent in a callback.";
    "filter_exchanges" => filter.exchanges, "Exchanges that may be open on one instance.";
    "filter_module_bytes" => filter.module_bytes, "Largest filter module, when it is uploaded and when it is compiled.";
    "filter_compile_timeout" => filter.compile, "Time for compiling a module.";
    "filter_compile_memory_bytes" => filter.compile_memory_bytes, "Address space of the process that compiles a filter module.";
    "filter_compilers" => filter.compilers, "Modules compiled at once.";
    "filter_compiled_modules" => filter.compiled, "Compiled modules kept although no route uses them.";
    "filter_header_count" => filter.header_count, "Fields of a message that a filter wrote to.";
    "filter_header_bytes" => filter.header_bytes, "Bytes of names and values of a message that a filter wrote to.";
    "filter_body_bytes" => filter.body_bytes, "Bytes of a message's body that are held for one filter.";
    "filter_held_bytes" => filter.held_bytes, "Bytes of bodies that are held for filters and their own calls, all exchanges together; one that needs more is refused.";
    "filter_own_instances" => filter.own_instances, "Exchanges of one worker that may have an instance of a filter to themselves.";
    "filter_own_memory_bytes" => filter.own_memory_bytes, "Linear memory of all those instances together; an exchange that needs more is refused.";
    "filter_calls" => filter.calls, "Requests of its own that one filter may have open.";
    "filter_calls_per_exchange" => filter.calls_per_exchange, "Requests of its own that one filter may make in one exchange.";
    "filter_call_timeout" => filter.call_timeout, "Longest time for a request of a filter's own.";
    "filter_call_bytes" => filter.call_bytes, "Bytes of the body of a request of a filter's own, and of its answer's.";
    "filter_attribute_count" => filter.attribute_count, "Attributes that the filters of one exchange may set.";
    "filter_attribute_bytes" => filter.attribute_bytes, "Bytes of names and values of those.";
    "filter_event_count" => filter.event_count, "Audit events of one filter in one exchange.";
    "filter_event_bytes" => filter.event_bytes, "Bytes of audit events of one filter in one exchange.";
    "filter_log_rate" => filter.log_rate, "Log messages of one instance in a second.";
    "filter_log_bytes" => filter.log_bytes, "Bytes of one log message of a filter; longer ones are cut.";
    "filter_back_off" => filter.back_off, "Longest wait before an instance that keeps failing is started again.";
    "filter_artefacts" => filter.artefacts, "Compiled modules kept in the data directory, so that a restart compiles nothing; 0 keeps none.";
    "filter_artefact_bytes" => filter.artefact_bytes, "Bytes of them, all together; those used longest ago go first.";
    "filter_idle_timeout" => filter.idle, "How long a filter instance may serve nothing before it is dropped; the next exchange starts another.";
    "filter_kv_entries" => filter.kv_entries, "Values that the instances of one plugin may share.";
    "filter_kv_bytes" => filter.kv_bytes, "Bytes of their keys and values, all together.";
    "filter_kv_key_bytes" => filter.kv_key_bytes, "Bytes of one key.";
    "filter_kv_value_bytes" => filter.kv_value_bytes, "Bytes of one value.";
    "filter_queues" => filter.queues, "Queues that the Proxy-Wasm VMs of one vm_id may share.";
    "filter_queue_messages" => filter.queue_messages, "Messages that may wait in one of them.";
    "filter_queue_bytes" => filter.queue_bytes, "Bytes of those.";
    "filter_metrics" => filter.instruments, "Metrics that one plugin may define.";
}

impl Definition {
    /// As a flag, without the leading hyphens.
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// As an environment variable.
    pub fn variable(&self) -> String {
        format!("TIDEGATE_{}", self.name.to_uppercase())
    }

    /// Its value unless set, as it would be written; empty where it is unset. The number of workers is the machine's.
    pub fn default_text(&self) -> String {
        match self.name {
            "workers" => "cores".to_owned(),
            _ => (self.show)(&Settings::default()),
        }
    }
}

/// The page `docs/settings.md`.
pub fn document() -> String {
    let mut page = String::from(
        "# Settings\n\n\
         Every setting can be given as a flag, in the environment, or in a TOML file named by `--config` (or\n\
         `TIDEGATE_CONFIG`); a flag goes before the environment, and the environment before the file. `data_dir` is\n\
         `--data-dir`, `TIDEGATE_DATA_DIR` and `data_dir = \"…\"`. Durations are a whole number and one of ms, s, m, h, d.\n\
         Unknown keys in the file are refused. This page is made from the table in the code and checked by a test.\n\n\
         | setting | value | default | meaning |\n| --- | --- | --- | --- |\n",
    );
    for definition in DEFINITIONS {
        let kind = definition.kind.replace('|', "\\|");
        let default = match definition.default_text().as_str() {
            "" => String::new(),
            text => format!("`{text}`"),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(page, "| `{}` | {kind} | {default} | {} |", definition.name, definition.doc);
    }
    page
}
