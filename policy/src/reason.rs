//! Why an exchange ended as it did: the closed list that records, answers and metrics share.

use crate::exchange::Verdict;
use http::StatusCode;

/// The reason for an outcome. Every refusal and every failure has exactly one; so has every permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Reason {
    /// An allow rule matched.
    AllowedByRule,
    /// Nothing matched, and the gateway runs in `open` mode.
    OpenMode,
    /// The request's target is not one that can be dialled: bad host, port, scheme or authority.
    MalformedTarget,
    /// The message breaks the framing or syntax rules of HTTP (RFC 9112, RFC 9113).
    BadFraming,
    /// No credentials were brought where they are needed.
    CredentialsRequired,
    /// Credentials were brought and do not hold.
    CredentialsInvalid,
    /// No service registers this host (or this port of it).
    UnregisteredHost,
    /// A deny rule matched.
    DeniedByRule,
    /// The host is registered and no allow rule matched.
    NoRuleAllows,
    /// The host has an address that the gateway refuses to dial.
    AddressRefused,
    /// A filter answered in the upstream's place.
    FilterDenied,
    /// A filter failed and its route says to refuse.
    FilterFailed,
    /// A filter ended the exchange without an answer.
    FilterReset,
    /// A filter had a secret injected, and the request would have shown it: without TLS, or as a TRACE that is echoed.
    SecretExposed,
    /// The request line or header section is larger than the limit.
    HeaderTooLarge,
    /// The body is larger than the limit.
    BodyTooLarge,
    /// CONNECT authority, SNI and Host name different services.
    AuthorityMismatch,
    /// The route's rate limit is spent.
    RateLimited,
    /// The request has passed through this gateway already.
    LoopDetected,
    /// The host name could not be resolved.
    ResolveFailed,
    /// No address of the host could be connected to.
    ConnectFailed,
    /// The TLS handshake with the upstream failed.
    TlsFailed,
    /// The upstream broke HTTP, or closed before it answered.
    UpstreamProtocol,
    /// A limit on exchanges or connections is reached.
    Overloaded,
    /// The service has no endpoint that may be tried now.
    NoHealthyEndpoint,
    /// The gateway is shutting down.
    Draining,
    /// The downstream did not send its request in time.
    DownstreamTimeout,
    /// The upstream did not connect, answer or go on in time.
    Timeout,
    /// The downstream went away before the exchange ended.
    DownstreamClosed,
    /// The route injected this fault.
    FaultInjected,
    /// The gateway itself failed; its log says how.
    Internal,
}

impl Reason {
    /// Every reason, for tables and metrics.
    pub const ALL: [Self; 31] = [
        Self::AllowedByRule,
        Self::OpenMode,
        Self::MalformedTarget,
        Self::BadFraming,
        Self::CredentialsRequired,
        Self::CredentialsInvalid,
        Self::UnregisteredHost,
        Self::DeniedByRule,
        Self::NoRuleAllows,
        Self::AddressRefused,
        Self::FilterDenied,
        Self::FilterFailed,
        Self::FilterReset,
        Self::SecretExposed,
        Self::HeaderTooLarge,
        Self::BodyTooLarge,
        Self::AuthorityMismatch,
        Self::RateLimited,
        Self::LoopDetected,
        Self::ResolveFailed,
        Self::ConnectFailed,
        Self::TlsFailed,
        Self::UpstreamProtocol,
        Self::Overloaded,
        Self::NoHealthyEndpoint,
        Self::Draining,
        Self::DownstreamTimeout,
        Self::Timeout,
        Self::DownstreamClosed,
        Self::FaultInjected,
        Self::Internal,
    ];

    /// The word used in records, in `x-tidegate-reason` and as a metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AllowedByRule => "allowed_by_rule",
            Self::OpenMode => "open_mode",
            Self::MalformedTarget => "malformed_target",
            Self::BadFraming => "bad_framing",
            Self::CredentialsRequired => "credentials_required",
            Self::CredentialsInvalid => "credentials_invalid",
            Self::UnregisteredHost => "unregistered_host",
            Self::DeniedByRule => "denied_by_rule",
            Self::NoRuleAllows => "no_rule_allows",
            Self::AddressRefused => "address_refused",
            Self::FilterDenied => "filter_denied",
            Self::FilterFailed => "filter_failed",
            Self::FilterReset => "filter_reset",
            Self::SecretExposed => "secret_exposed",
            Self::HeaderTooLarge => "header_too_large",
            Self::BodyTooLarge => "body_too_large",
            Self::AuthorityMismatch => "authority_mismatch",
            Self::RateLimited => "rate_limited",
            Self::LoopDetected => "loop_detected",
            Self::ResolveFailed => "resolve_failed",
            Self::ConnectFailed => "connect_failed",
            Self::TlsFailed => "tls_failed",
            Self::UpstreamProtocol => "upstream_protocol",
            Self::Overloaded => "overloaded",
            Self::NoHealthyEndpoint => "no_healthy_endpoint",
            Self::Draining => "draining",
            Self::DownstreamTimeout => "downstream_timeout",
            Self::Timeout => "timeout",
            Self::DownstreamClosed => "downstream_closed",
            Self::FaultInjected => "fault_injected",
            Self::Internal => "internal",
        }
    }

    /// What becomes of an exchange that ends for this reason. Nothing where the reason does not say so: a caller that
    /// leaves, a drain and a failure of the gateway itself leave the decision as it was.
    pub const fn verdict(self) -> Option<Verdict> {
        match self {
            // What fails on the other side was permitted.
            Self::AllowedByRule
            | Self::OpenMode
            | Self::ResolveFailed
            | Self::ConnectFailed
            | Self::TlsFailed
            | Self::UpstreamProtocol
            | Self::NoHealthyEndpoint
            | Self::Timeout => Some(Verdict::Allowed),
            // A rule, the mode, the guard, a limit, a filter or the route said no.
            Self::UnregisteredHost
            | Self::DeniedByRule
            | Self::NoRuleAllows
            | Self::AddressRefused
            | Self::FilterDenied
            | Self::FilterFailed
            | Self::FilterReset
            | Self::SecretExposed
            | Self::BodyTooLarge
            | Self::RateLimited
            | Self::Overloaded
            | Self::FaultInjected => Some(Verdict::Denied),
            // Something about the request itself is wrong, whoever sends it.
            Self::MalformedTarget
            | Self::BadFraming
            | Self::CredentialsRequired
            | Self::CredentialsInvalid
            | Self::HeaderTooLarge
            | Self::AuthorityMismatch
            | Self::LoopDetected => Some(Verdict::Invalid),
            Self::Draining | Self::DownstreamTimeout | Self::DownstreamClosed | Self::Internal => None,
        }
    }

    /// The status a caller gets when an exchange is refused or fails for this reason. A permission has 200.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::AllowedByRule | Self::OpenMode => StatusCode::OK,
            Self::MalformedTarget | Self::BadFraming => StatusCode::BAD_REQUEST,
            Self::CredentialsRequired | Self::CredentialsInvalid => StatusCode::PROXY_AUTHENTICATION_REQUIRED,
            Self::UnregisteredHost
            | Self::DeniedByRule
            | Self::NoRuleAllows
            | Self::AddressRefused
            | Self::FilterDenied
            | Self::SecretExposed => StatusCode::FORBIDDEN,
            Self::HeaderTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::AuthorityMismatch => StatusCode::MISDIRECTED_REQUEST,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::LoopDetected => StatusCode::LOOP_DETECTED,
            Self::ResolveFailed | Self::ConnectFailed | Self::TlsFailed | Self::UpstreamProtocol => StatusCode::BAD_GATEWAY,
            Self::Overloaded | Self::NoHealthyEndpoint | Self::Draining | Self::FaultInjected => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::DownstreamTimeout | Self::DownstreamClosed => StatusCode::REQUEST_TIMEOUT,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::FilterFailed | Self::FilterReset | Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_goes_with_the_status() {
        for reason in Reason::ALL {
            let status = reason.status().as_u16();
            match reason.verdict() {
                Some(Verdict::Allowed) => assert!(status == 200 || matches!(status, 502..=504), "{reason}: {status}"),
                Some(Verdict::Denied) => assert!(matches!(status, 403 | 413 | 429 | 500 | 503), "{reason}: {status}"),
                Some(Verdict::Invalid) => assert!(matches!(status, 400 | 407 | 421 | 431 | 508), "{reason}: {status}"),
                None => assert!(matches!(status, 408 | 500 | 503), "{reason}: {status}"),
            }
        }
        let denied = Reason::ALL.into_iter().filter(|reason| reason.verdict() == Some(Verdict::Denied));
        assert_eq!(
            denied.map(Reason::as_str).collect::<Vec<_>>(),
            [
                "unregistered_host",
                "denied_by_rule",
                "no_rule_allows",
                "address_refused",
                "filter_denied",
                "filter_failed",
                "filter_reset",
                "secret_exposed",
                "body_too_large",
                "rate_limited",
                "overloaded",
                "fault_injected"
            ]
        );
    }
}
