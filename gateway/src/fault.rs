//! What can go wrong with an exchange, in one type. `http::reply` is the one place that turns it into an answer.

use crate::upstream::Reached;
use ::http::StatusCode;
use std::{borrow::Cow, fmt};
use tidegate_policy::Reason;

/// Why an exchange failed or was refused.
#[derive(Debug, Clone)]
pub struct Fault {
    reason: Reason,
    detail: Cow<'static, str>,
    retry: Retry,
    /// Where the caller gets another status than the reason's own.
    status: Option<StatusCode>,
    /// How far the way out got, where it ended before the request was sent.
    reached: Option<Box<Reached>>,
}

/// Whether another attempt may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Retry {
    Never,
    /// Nothing of the request has been taken by the upstream.
    Safe,
}

/// Who is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The caller.
    Downstream,
    /// The external API, or the way to it.
    Upstream,
    /// Nobody: policy said no.
    Policy,
    /// A filter.
    Filter,
    /// The gateway.
    Gateway,
}

impl Fault {
    /// A fault for `reason`; `detail` is a sentence for the caller and the record, without secrets.
    pub fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, detail: detail.into(), retry: Retry::Never, status: None, reached: None }
    }

    /// The same fault, known to have happened before the upstream took anything of the request.
    #[must_use]
    pub fn before_send(self) -> Self {
        Self { retry: Retry::Safe, ..self }
    }

    /// The same fault, answered with `status`: for a route that says which one to inject.
    #[must_use]
    pub fn answered_with(self, status: StatusCode) -> Self {
        Self { status: Some(status), ..self }
    }

    /// The same fault, with what `note` knows of how far the way out got.
    #[must_use]
    pub fn reached_so_far(mut self, note: impl FnOnce(&mut Reached)) -> Self {
        note(self.reached.get_or_insert_default());
        self
    }

    /// How far the way out got; none where the fault is not about reaching an upstream.
    pub fn reached(&self) -> Option<&Reached> {
        self.reached.as_deref()
    }

    /// Its reason.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// What happened, in a sentence.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The status its caller gets.
    pub fn status(&self) -> StatusCode {
        self.status.unwrap_or(self.reason.status())
    }

    /// Whether the attempt may be made again without the upstream seeing the request twice.
    pub fn retryable(&self) -> bool {
        self.retry == Retry::Safe
    }

    /// Who is at fault.
    pub fn source(&self) -> Source {
        match self.reason {
            Reason::MalformedTarget
            | Reason::BadFraming
            | Reason::CredentialsRequired
            | Reason::CredentialsInvalid
            | Reason::HeaderTooLarge
            | Reason::BodyTooLarge
            | Reason::AuthorityMismatch
            | Reason::LoopDetected
            | Reason::DownstreamTimeout
            | Reason::DownstreamClosed => Source::Downstream,
            Reason::AllowedByRule
            | Reason::OpenMode
            | Reason::UnregisteredHost
            | Reason::DeniedByRule
            | Reason::NoRuleAllows
            | Reason::AddressRefused
            | Reason::RateLimited
            | Reason::FaultInjected => Source::Policy,
            Reason::FilterDenied | Reason::FilterFailed | Reason::FilterReset | Reason::SecretExposed => Source::Filter,
            Reason::ResolveFailed
            | Reason::ConnectFailed
            | Reason::TlsFailed
            | Reason::UpstreamProtocol
            | Reason::NoHealthyEndpoint
            | Reason::Timeout => Source::Upstream,
            Reason::Overloaded | Reason::Draining | Reason::Internal => Source::Gateway,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.detail)
    }
}

impl std::error::Error for Fault {}
