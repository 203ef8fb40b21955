//! Calls into the gateway that concern the way to the upstream, and calls of the filter's own.

use crate::{
    bindings::tidegate::filter::{outbound, upstream},
    outbound::{Answer, Call, CallError},
    upstream::{Alpn, PolicyError, Tls, TlsMode, TlsVersion},
};
use http::StatusCode;

pub(crate) fn select_service(name: &str) -> Result<(), PolicyError> {
    upstream::select_service(name).map_err(policy_error)
}

pub(crate) fn select_endpoint(address: &str, port: u16) -> Result<(), PolicyError> {
    upstream::select_endpoint(address, port).map_err(policy_error)
}

pub(crate) fn originate_tls(tls: &Tls) -> Result<(), PolicyError> {
    let names: Option<Vec<_>> = tls.names.as_ref().map(|names| names.iter().map(String::as_str).collect());
    let alpn: Option<Vec<_>> = tls.alpn.as_ref().map(|alpn| alpn.iter().copied().map(protocol).collect());
    let settings = upstream::TlsSettings {
        mode: tls.mode.map(|mode| match mode {
            TlsMode::Disabled => upstream::TlsMode::Disabled,
            TlsMode::Simple => upstream::TlsMode::Simple,
            TlsMode::Mutual => upstream::TlsMode::Mutual,
        }),
        sni: tls.sni.as_deref(),
        names: names.as_deref(),
        trust: tls.trust.as_deref(),
        min_version: tls.min_version.map(|version| match version {
            TlsVersion::Tls12 => upstream::TlsVersion::Tls12,
            TlsVersion::Tls13 => upstream::TlsVersion::Tls13,
        }),
        alpn: alpn.as_deref(),
        certificate: tls.certificate.as_deref(),
    };
    upstream::originate_tls(settings).map_err(policy_error)
}

fn protocol(protocol: Alpn) -> upstream::Alpn {
    match protocol {
        Alpn::Http11 => upstream::Alpn::Http11,
        Alpn::H2 => upstream::Alpn::H2,
    }
}

pub(crate) fn inject_secret(header: &str, credential: &str, prefix: &str) -> Result<(), PolicyError> {
    upstream::inject_secret(header, credential, prefix).map_err(policy_error)
}

fn policy_error(error: upstream::PolicyError) -> PolicyError {
    match error {
        upstream::PolicyError::UnknownName => PolicyError::UnknownName,
        upstream::PolicyError::NotPermitted => PolicyError::NotPermitted,
        upstream::PolicyError::TooLate => PolicyError::TooLate,
        upstream::PolicyError::Conflict => PolicyError::Conflict,
        upstream::PolicyError::Invalid => PolicyError::Invalid,
    }
}

pub(crate) fn send(call: Call) -> Result<Answer, CallError> {
    let headers: Vec<_> = call.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
    let answer = outbound::send(outbound::Call {
        method: call.method.as_str(),
        url: &call.url,
        headers: &headers,
        body: &call.body,
        timeout_ms: call.timeout_ms,
    });
    match answer {
        Ok(answer) => Ok(Answer {
            // The host checks what it received; a filter has no use for a panic about it.
            status: StatusCode::from_u16(answer.status).unwrap_or_default(),
            headers: answer.headers,
            body: answer.body,
        }),
        Err(error) => Err(match error {
            outbound::CallError::UnknownTarget => CallError::UnknownTarget,
            outbound::CallError::NotPermitted => CallError::NotPermitted,
            outbound::CallError::Timeout => CallError::Timeout,
            outbound::CallError::Connect => CallError::Connect,
            outbound::CallError::Tls => CallError::Tls,
            outbound::CallError::Protocol => CallError::Protocol,
            outbound::CallError::TooLarge => CallError::TooLarge,
            outbound::CallError::Budget => CallError::Budget,
            outbound::CallError::Invalid => CallError::Invalid,
        }),
    }
}
