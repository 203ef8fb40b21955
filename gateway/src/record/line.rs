//! A closed record as its JSON line. Text that the exchange does not hold as such is made in a scratch string that the
//! worker keeps, so that a line costs no allocation once the buffers have grown.

use super::{Facts, Outcome, clock::Clock, json};
use std::{
    borrow::Cow,
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
};
use tidegate_policy::{
    Host,
    exchange::{Durations, EndpointFacts, Exchange},
    target::Form,
};

/// What is known of the upstream at `address`: of one that could not be reached, the address alone.
fn endpoint<'a>(facts: &'a Facts, address: &'a str) -> EndpointFacts<'a> {
    let upstream = facts.upstream().map(|(upstream, _)| upstream);
    EndpointFacts {
        address: Cow::Borrowed(address),
        reused: upstream.is_some_and(|upstream| upstream.reused),
        tls_version: upstream.and_then(|upstream| upstream.tls_version).map(Cow::Borrowed),
        tls_peer: upstream.and_then(|upstream| upstream.tls_peer.as_deref()).map(Cow::Borrowed),
        protocol: Cow::Borrowed(upstream.map_or("", |upstream| upstream.protocol)),
    }
}

/// Appends the record's line to `lines`, with its newline.
pub(super) fn write(facts: &mut Facts, durations: Durations, clock: &Clock, scratch: &mut String, lines: &mut Vec<u8>) {
    scratch.clear();
    push_ip(scratch, facts.source.ip());
    let source_end = scratch.len();
    push_target(scratch, facts);
    let target_end = scratch.len();
    if let Some(dialled) = facts.address() {
        push_address(scratch, dialled);
    }
    let mut trace_id = [0; 32];
    crate::telemetry::trace::write_hex(&facts.trace.trace_id, &mut trace_id);
    let filters = std::mem::take(&mut facts.filters);
    let (rule, reports, route) = match &facts.outcome {
        Outcome::Permitted(permit) => {
            (permit.rule(), permit.reports(), permit.route().map(|route| Cow::Borrowed(route.name.as_str())))
        }
        Outcome::Denied(denial) => (denial.rule.as_ref(), denial.reports.as_slice(), None),
        Outcome::Undecided => (None, Default::default(), None),
    };
    let (id, time) = (facts.id.digits(), clock.text(&facts.id));
    let label = facts.caller.as_ref().and_then(|caller| caller.label());
    let exchange = Exchange {
        id: ascii(&id),
        time: ascii(&time),
        trace_id: ascii(&trace_id),
        workload: label.as_deref().map(Cow::Borrowed),
        source: Cow::Borrowed(&scratch[..source_end]),
        method: Cow::Borrowed(facts.method.as_str()),
        target: Cow::Borrowed(&scratch[source_end..target_end]),
        protocol: Cow::Borrowed(facts.protocol),
        verdict: Some(facts.verdict()),
        rule: rule.map(|rule| Cow::Borrowed(rule.as_str())),
        reason: Some(facts.reason()),
        reports: reports.iter().map(|rule| Cow::Borrowed(rule.as_str())).collect(),
        route,
        service: facts.service().map(|name| Cow::Borrowed(name.as_str())),
        endpoint: facts.address().map(|_| endpoint(facts, &scratch[target_end..])),
        filters,
        status: facts.status.map(|status| status.as_u16()),
        request_bytes: facts.request_bytes,
        response_bytes: facts.response_bytes,
        durations,
        fault: facts.fault.as_ref().map(|fault| Cow::Borrowed(fault.detail())),
    };
    json::write(&exchange, lines);
    lines.push(b'\n');
}

/// `bytes`, which are ASCII because this program wrote them.
fn ascii(bytes: &[u8]) -> Cow<'_, str> {
    Cow::Borrowed(std::str::from_utf8(bytes).unwrap_or_default())
}

/// `scheme://host:port/path`, or `host:port` for a tunnel: the canonical target where there is one, else what was sent,
/// without query and user information either way.
pub(super) fn push_target(text: &mut String, facts: &Facts) {
    let path = match facts.uri.path() {
        "" => "/",
        path => path,
    };
    let Some(target) = &facts.target else {
        if let Some(authority) = facts.uri.authority() {
            if let Some(scheme) = facts.uri.scheme_str() {
                text.push_str(scheme);
                text.push_str("://");
            }
            // What stands before an "@" is a user's, and may be a password.
            text.push_str(authority.as_str().rsplit('@').next().unwrap_or_default());
        }
        if facts.method != ::http::Method::CONNECT {
            text.push_str(path);
        }
        return;
    };
    match target.form {
        Form::Plain => text.push_str("http://"),
        Form::Secure => text.push_str("https://"),
        Form::Tunnel => {}
    }
    match &target.host {
        Host::Name(name) => text.push_str(name),
        Host::Address(address) => push_host(text, *address),
    }
    text.push(':');
    text.push_str(itoa::Buffer::new().format(target.port));
    if target.form != Form::Tunnel {
        text.push_str(path);
    }
}

/// An address as a URL holds it.
fn push_host(text: &mut String, address: IpAddr) {
    match address {
        IpAddr::V4(_) => push_ip(text, address),
        IpAddr::V6(_) => {
            text.push('[');
            push_ip(text, address);
            text.push(']');
        }
    }
}

fn push_ip(text: &mut String, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            let mut buffer = itoa::Buffer::new();
            for (place, octet) in address.octets().iter().enumerate() {
                if place > 0 {
                    text.push('.');
                }
                text.push_str(buffer.format(*octet));
            }
        }
        // Writing to a String cannot fail.
        IpAddr::V6(address) => {
            let _ = write!(text, "{address}");
        }
    }
}

/// An address with its port.
pub(super) fn push_address(text: &mut String, address: SocketAddr) {
    push_host(text, address.ip());
    text.push(':');
    text.push_str(itoa::Buffer::new().format(address.port()));
}
