//! A route: what happens to exchanges with a service.

use crate::{
    Mistake, Name,
    duration::Span,
    mistake::step,
    selector::{From, MethodName, PathPattern, TextPattern},
    snapshot::Rows,
};
use http::{HeaderName, HeaderValue};
use std::collections::BTreeMap;

pub use crate::filter_use::{FilterUse, Isolation, OnError, Traffic};

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

/// The largest weight of a destination: two decimal places more than percent, and sums stay far from overflowing.
const MAX_WEIGHT: u32 = 1000;
/// The most retries: beyond ten, an upstream in trouble is only given more of it.
const MAX_RETRIES: u32 = 10;
/// The most filters on one route: each costs every exchange, and chains longer than this are better written as one.
const MAX_FILTERS: usize = 64;

impl Route {
    /// What is wrong with it, by itself and beside `rows`.
    pub(crate) fn check(&self, rows: &Rows) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        check_service(&self.service, "/service", rows, &mut mistakes);
        for (at, entry) in self.matches.iter().enumerate() {
            mistakes.extend(entry.check().into_iter().map(|mistake| mistake.under(&format!("/match/{at}"))));
        }
        self.check_destinations(rows, &mut mistakes);
        if let Some(rewrite) = &self.rewrite {
            mistakes.extend(rewrite.check().into_iter().map(|mistake| mistake.under("/rewrite")));
        }
        self.check_times(&mut mistakes);
        self.check_counts(&mut mistakes);
        if self.filters.len() > MAX_FILTERS {
            mistakes.push(Mistake::at("/filters", format!("a route runs at most {MAX_FILTERS} filters")));
        }
        for (at, filter) in self.filters.iter().enumerate() {
            let mistaken = filter.check(&self.service, rows);
            mistakes.extend(mistaken.into_iter().map(|mistake| mistake.under(&format!("/filters/{at}"))));
        }
        mistakes
    }

    fn check_destinations(&self, rows: &Rows, mistakes: &mut Vec<Mistake>) {
        for (at, destination) in self.destinations.iter().enumerate() {
            let pointer = format!("/destinations/{at}");
            check_service(&destination.service, &format!("{pointer}/service"), rows, mistakes);
            if destination.weight > MAX_WEIGHT {
                let detail = format!("is {}: a weight is 0 to {MAX_WEIGHT}", destination.weight);
                mistakes.push(Mistake::at(format!("{pointer}/weight"), detail));
            }
            if self.destinations[..at].iter().any(|other| other.service == destination.service) {
                mistakes.push(Mistake::at(format!("{pointer}/service"), "is listed twice: add the weights up"));
            }
            if let (Some(from), Some(to)) = (rows.services.get(&self.service), rows.services.get(&destination.service))
                && !from.ports.iter().any(|port| to.port_like(*port).is_some())
            {
                let detail = format!("{} has no port that could take over one of {}'s", destination.service, self.service);
                mistakes.push(Mistake::at(format!("{pointer}/service"), detail));
            }
        }
        if !self.destinations.is_empty() && self.destinations.iter().all(|destination| destination.weight == 0) {
            mistakes.push(Mistake::at("/destinations", "every weight is 0, so no exchange could go anywhere"));
        }
    }

    fn check_times(&self, mistakes: &mut Vec<Mistake>) {
        let Timeouts { total, connect, first_byte, idle } = self.timeouts;
        let retries = self.retries.as_ref();
        let times = [
            ("/timeouts/total", total),
            ("/timeouts/connect", connect),
            ("/timeouts/first_byte", first_byte),
            ("/timeouts/idle", idle),
            ("/retries/per_try_timeout", retries.and_then(|retries| retries.per_try_timeout)),
        ];
        for (pointer, _) in times.into_iter().filter(|(_, time)| time.is_some_and(|time| time.length().is_zero())) {
            mistakes
                .push(Mistake::at(pointer, "is 0, so nothing could succeed: give a length, or leave it out for the default"));
        }
    }

    fn check_counts(&self, mistakes: &mut Vec<Mistake>) {
        if let Some(retries) = &self.retries {
            if !(1..=MAX_RETRIES).contains(&retries.attempts) {
                let detail = format!("is {}: give 1 to {MAX_RETRIES}, or leave retries out", retries.attempts);
                mistakes.push(Mistake::at("/retries/attempts", detail));
            }
            if retries.on.is_empty() {
                mistakes
                    .push(Mistake::at("/retries/on", "nothing is worth another attempt: name a cause, or leave retries out"));
            }
        }
        if let Some(fault) = &self.fault {
            if fault.delay.is_none() && fault.abort.is_none() {
                mistakes.push(Mistake::at("/fault", "injects nothing: give a delay or an abort"));
            }
            if fault.abort.is_some_and(|status| !(400..=599).contains(&status)) {
                mistakes.push(Mistake::at("/fault/abort", "is no error: give a status from 400 to 599"));
            }
            if !(1..=100).contains(&fault.percent) {
                mistakes.push(Mistake::at("/fault/percent", format!("is {}: give 1 to 100", fault.percent)));
            }
        }
        let Limits { rate, concurrent, request_body_bytes: _ } = &self.limits;
        let refuses = "is 0, which would refuse every exchange: give at least 1";
        let counts = [
            ("/limits/rate/per_second", rate.map(|rate| rate.per_second)),
            ("/limits/rate/burst", rate.and_then(|rate| rate.burst)),
            ("/limits/concurrent", *concurrent),
        ];
        let zeros = counts.into_iter().filter(|(_, count)| *count == Some(0));
        mistakes.extend(zeros.map(|(pointer, _)| Mistake::at(pointer, refuses)));
    }
}

impl Match {
    fn check(&self) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        if *self == Self::default() {
            mistakes.push(Mistake::at("", "an empty entry matches every exchange: say what it is about, or leave `match` out"));
        }
        let wrong = self.headers.keys().filter(|name| !is_header_name(name));
        mistakes.extend(wrong.map(|name| Mistake::at(format!("/headers/{}", step(name)), NOT_A_HEADER)));
        if let Some(from) = &self.from {
            mistakes.extend(from.check().into_iter().map(|mistake| mistake.under("/from")));
        }
        mistakes
    }
}

impl Rewrite {
    fn check(&self) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        if let Some(prefix) = &self.path_prefix {
            let known = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'\\');
            if !prefix.starts_with('/') || !prefix.bytes().all(known) {
                let detail =
                    "is not a path: begin it with '/', percent-encode what is not ASCII, and leave out query and fragment";
                mistakes.push(Mistake::at("/path_prefix", detail));
            }
        }
        for (name, value) in &self.set_headers {
            let pointer = format!("/set_headers/{}", step(name));
            mistakes.extend(why_not_rewritten(name).map(|why| Mistake::at(&pointer, why)));
            if HeaderValue::from_str(value).is_err() {
                mistakes.push(Mistake::at(pointer, "a header value has no line breaks and no control characters"));
            }
        }
        for (at, name) in self.remove_headers.iter().enumerate() {
            mistakes.extend(why_not_rewritten(name).map(|why| Mistake::at(format!("/remove_headers/{at}"), why)));
        }
        mistakes
    }
}

const NOT_A_HEADER: &str = "is not a header name in lower case";

fn is_header_name(name: &str) -> bool {
    HeaderName::from_lowercase(name.as_bytes()).is_ok()
}

/// Why a rewrite must leave this header alone: it says where a message ends, how a connection is used or where it goes
/// (RFC 9110 section 7.6.1, RFC 9112 section 6), or the gateway itself writes it.
fn why_not_rewritten(name: &str) -> Option<&'static str> {
    if !is_header_name(name) {
        return Some(NOT_A_HEADER);
    }
    match name {
        "content-length" | "transfer-encoding" | "trailer" => Some("frames the message: the gateway alone writes it"),
        "connection" | "keep-alive" | "proxy-connection" | "te" | "upgrade" | "http2-settings" => {
            Some("belongs to one connection: the gateway alone writes it")
        }
        "proxy-authorization" | "proxy-authenticate" | "proxy-authentication-info" => {
            Some("belongs to the gateway and its caller, and never leaves")
        }
        "host" => Some("is the decided target: use destinations to go elsewhere"),
        "via" | "expect" => Some("is written by the gateway, which relies on it"),
        _ => None,
    }
}

fn check_service(name: &Name, pointer: &str, rows: &Rows, mistakes: &mut Vec<Mistake>) {
    if !rows.services.contains_key(name) {
        mistakes.push(Mistake::at(pointer, format!("there is no service {name}: register it first")));
    }
}
