//! The record of one exchange: its shape on disk, on the wire and in the API, and the batches it travels in.

use crate::{Name, Reason, grants::is_false};
use std::borrow::Cow;

/// What became of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Verdict {
    /// It was permitted, whatever happened then.
    Allowed,
    /// It was refused by policy: a rule, the mode, the guard, a limit, a filter or an injected fault.
    Denied,
    /// The request itself is wrong: malformed, misdirected, in a loop, or without the credentials it needs.
    Invalid,
}

/// The record of one exchange. Written as one JSON line; absent fields are left out. The writer borrows its text from the
/// exchange, readers own it (`Exchange<'static>`).
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Exchange<'a> {
    /// Unique, and ascending with time within one gateway: 16 hexadecimal digits of microseconds since 1970 and 8 of a counter.
    pub id: Cow<'a, str>,
    /// When the request's head was complete, RFC 3339 with microseconds, UTC.
    pub time: Cow<'a, str>,
    /// Trace id (W3C Trace Context), 32 hexadecimal digits.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub trace_id: Cow<'a, str>,
    /// The caller: principal, else workload name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<Cow<'a, str>>,
    /// The caller's address.
    pub source: Cow<'a, str>,
    /// Request method.
    pub method: Cow<'a, str>,
    /// What was asked for: `scheme://host:port/path`, the query left out; `host:port` for a tunnel.
    pub target: Cow<'a, str>,
    /// Request protocol: `HTTP/1.1`, `HTTP/2`.
    pub protocol: Cow<'a, str>,
    /// What became of it.
    pub verdict: Option<Verdict>,
    /// The deciding rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<Cow<'a, str>>,
    /// The reason.
    pub reason: Option<Reason>,
    /// Report rules that matched.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reports: Vec<Cow<'a, str>>,
    /// The route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<Cow<'a, str>>,
    /// The service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<Cow<'a, str>>,
    /// Where it went.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<EndpointFacts<'a>>,
    /// The filters that ran, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<FilterFacts<'a>>,
    /// Status sent to the caller; absent where none was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Body bytes from the caller.
    pub request_bytes: u64,
    /// Body bytes to the caller.
    pub response_bytes: u64,
    /// How long each phase took.
    pub durations: Durations,
    /// What went wrong, in a sentence without secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<Cow<'a, str>>,
}

/// The upstream end of an exchange.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EndpointFacts<'a> {
    /// The address dialled, with its port.
    pub address: Cow<'a, str>,
    /// Whether the connection had carried an exchange before.
    pub reused: bool,
    /// TLS version, `TLSv1.3`; absent without TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_version: Option<Cow<'a, str>>,
    /// The name of the peer's certificate that was verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_peer: Option<Cow<'a, str>>,
    /// Upstream protocol: `HTTP/1.1`, `HTTP/2`, `tunnel`; empty where no connection came about.
    #[serde(default)]
    pub protocol: Cow<'a, str>,
}

/// One filter's part in an exchange.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FilterFacts<'a> {
    /// The plugin.
    pub plugin: Name,
    /// `continued`, `replied`, `reset`, `failed`, `skipped`, or `not_reached`.
    pub outcome: Cow<'a, str>,
    /// Time that the exchange spent in it, in microseconds.
    pub time_us: u64,
    /// What failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Cow<'a, str>>,
    /// That its route requires an audit event of it and it emitted none.
    #[serde(default, skip_serializing_if = "is_false")]
    pub silent: bool,
    /// The audit events it emitted, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<AuditEvent>,
}

/// What a filter wants to be remembered.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditEvent {
    /// The filter's own word for it.
    pub kind: String,
    /// `allowed`, `denied`, `modified` or `error`.
    pub outcome: String,
    /// Typed fields.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub fields: serde_json::Map<String, serde_json::Value>,
}

/// Microseconds by phase; absent phases did not happen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Durations {
    /// From the request's head to the response's last byte.
    pub total_us: u64,
    /// Resolving the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolve_us: Option<u64>,
    /// Connecting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_us: Option<u64>,
    /// TLS handshake with the upstream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_us: Option<u64>,
    /// In filters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filters_us: Option<u64>,
    /// From sending the request to the response's head.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_byte_us: Option<u64>,
}

/// Closed records on their way from a worker to the control plane: JSON lines, oldest first, serialised once and used
/// for the file and the database alike.
#[derive(Debug, Clone)]
pub struct Batch {
    /// How many lines.
    pub count: u32,
    /// When the earliest of its exchanges began, in microseconds since 1970.
    pub first_us: u64,
    /// When the latest began.
    pub last_us: u64,
    /// The lines, each ending in a newline.
    pub lines: Vec<u8>,
}
