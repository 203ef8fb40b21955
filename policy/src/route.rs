//! A route: what happens to exchanges with a service.

use crate::{
    Name,
    duration::Span,
    selector::{From, MethodName, PathPattern, TextPattern},
};
use std::collections::BTreeMap;

/// What happens to exchanges with one service. Of a service's routes the first that matches is taken, in the order of
/// `order` and then of their names; where none matches, the exchange is forwarded as it is and no filter runs.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Route {
    /// The service it is for.
    pub service: Name,
    /// Its place among the service's routes; lower is tried first.
    #[serde(default)]
    pub order: u32,
    /// Exchanges it is for; one entry that matches suffices, and none means all.
    #[serde(default, rename = "match", skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<Match>,
    /// Services that the exchanges are spread over by weight; none means `service` itself. The decision was made for
    /// `service`; a destination adds no permission, it must be registered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub destinations: Vec<Destination>,
    /// Changes to the request before it leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<Rewrite>,
    /// Time limits; what is absent is the gateway's own setting.
    #[serde(default, skip_serializing_if = "Timeouts::is_default")]
    pub timeouts: Timeouts,
    /// When and how often a failed attempt is made again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<Retries>,
    /// Faults to inject, to see how callers take them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<FaultInjection>,
    /// Limits on what passes.
    #[serde(default, skip_serializing_if = "Limits::is_default")]
    pub limits: Limits,
    /// WebAssembly filters, in the order in which they see the request; they see the response in the reverse order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<FilterUse>,
}

impl Route {
    pub(crate) fn check(&self, _rows: &crate::snapshot::Rows) -> Vec<crate::Mistake> {
        Vec::new()
    }
}

/// Exchanges that a route is for. All fields that are given must hold.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Match {
    /// The path, exact or ending in `*`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathPattern>,
    /// Methods, of which one must be the request's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<MethodName>,
    /// Headers by lower-case name, all of which must be present and match.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, TextPattern>,
    /// Query parameters by name, all of which must be present and match.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub query: BTreeMap<String, TextPattern>,
    /// Callers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<From>,
}

/// A share of a route's exchanges.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Destination {
    /// The service they go to.
    pub service: Name,
    /// Their share, 0 to 1000, relative to the other destinations' weights.
    pub weight: u32,
}

/// Changes to the request before it leaves.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rewrite {
    /// Replaces the part of the path that the match's prefix covered (the whole path for an exact match).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_prefix: Option<String>,
    /// Headers set on the request, by lower-case name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub set_headers: BTreeMap<String, String>,
    /// Headers removed from the request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove_headers: Vec<String>,
}

/// Time limits of a route's exchanges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Timeouts {
    /// From the request's head to the response's last byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<Span>,
    /// One TCP connection attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect: Option<Span>,
    /// From the request's last byte to the response's head.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_byte: Option<Span>,
    /// Between two pieces of a body or of a tunnel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<Span>,
}

impl Timeouts {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// When and how often a failed attempt is made again. Only requests whose body has not begun to leave are repeated.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Retries {
    /// Attempts after the first, 1 to 10.
    pub attempts: u32,
    /// Limit on each attempt, from its start to the response's head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_try_timeout: Option<Span>,
    /// What is worth another attempt.
    #[serde(default = "RetryOn::connection")]
    pub on: Vec<RetryOn>,
}

/// What is worth another attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum RetryOn {
    /// No connection could be made.
    ConnectFailure,
    /// The connection ended before the response's head.
    Reset,
    /// 502, 503 or 504 from the upstream, to a request whose method is idempotent (RFC 9110 section 9.2.2).
    GatewayError,
}

impl RetryOn {
    fn connection() -> Vec<Self> {
        vec![Self::ConnectFailure, Self::Reset]
    }
}

/// Faults to inject.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FaultInjection {
    /// Wait this long before going on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<Span>,
    /// Answer with this status, 400 to 599, in the upstream's place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort: Option<u16>,
    /// Share of exchanges it happens to, 1 to 100.
    #[serde(default = "all")]
    pub percent: u8,
}

fn all() -> u8 {
    100
}

/// Limits on what passes a route, all workers together.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Limits {
    /// Exchanges a second, and how many may come at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Exchanges open at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrent: Option<u32>,
    /// Largest request body, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_body_bytes: Option<u64>,
}

impl Limits {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A rate, as a token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rate {
    /// Tokens added each second, at least 1.
    pub per_second: u32,
    /// Tokens the bucket holds; absent, as many as are added in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
}

/// A filter's place on a route.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FilterUse {
    /// The plugin that is run.
    pub plugin: Name,
    /// What the filter is told when it starts, any JSON value.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub config: serde_json::Value,
    /// What becomes of the exchange when the filter fails.
    #[serde(default)]
    pub on_error: OnError,
}

/// What becomes of an exchange whose filter failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum OnError {
    /// It is refused as `filter_failed`.
    #[default]
    Deny,
    /// It goes on without the filter, and the record says so.
    Skip,
}
