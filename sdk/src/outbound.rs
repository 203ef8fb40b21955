//! Requests of the filter's own.
//!
//! [`send`] waits for the answer, while the gateway goes on with other exchanges. A filter that calls it anywhere is of
//! another world for the gateway: each exchange takes an instance of its own from a pool while it is open.
//!
//! ```
//! # use tidegate_sdk::{*, testing::{Driver, Message}};
//! # struct Example;
//! # impl Filter for Example {
//! #     type Config = (); type State = (); fn new((): ()) -> Result<Self, ConfigError> { Ok(Self) }
//! fn on_request(&self, _: &mut Exchange<()>, head: &mut Headers<'_>, _end: bool) -> Flow {
//!     let call = outbound::Call::get("https://policy.example.com/may").header("x-user", head.get("x-user").unwrap_or_default());
//!     match outbound::send(call.timeout(std::time::Duration::from_millis(200))) {
//!         Ok(answer) if answer.status == StatusCode::OK => Flow::Proceed,
//!         Ok(_) => Flow::Reply(Reply::new(StatusCode::FORBIDDEN).details("the policy service says no")),
//!         Err(error) => Flow::Reply(Reply::new(StatusCode::BAD_GATEWAY).details(error.to_string())),
//!     }
//! }
//! # }
//! # let driver = || Driver::<Example>::new(serde_json::json!(null)).unwrap();
//! let driver = driver().answers(|call| {
//!     let known = call.headers().iter().any(|(name, value)| name == "x-user" && value == b"ann");
//!     let status = if known { StatusCode::OK } else { StatusCode::NOT_FOUND };
//!     Ok(outbound::Answer { status, headers: Vec::new(), body: Vec::new() })
//! });
//! assert!(driver.exchange().request([("x-user", "ann")]).upstream().is_some());
//! assert_eq!(driver.exchange().request([("x-user", "bob")]).status(), Some(StatusCode::FORBIDDEN));
//! ```

use crate::host;
use http::{Method, StatusCode};
use std::{fmt, time::Duration};

/// A request, decided by the rules like any other, with the principal `filter/<plugin>`. It takes the route of its service, but
/// no filters run on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub(crate) method: Method,
    pub(crate) url: String,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
    pub(crate) timeout_ms: u32,
}

/// The answer to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers, names in lower case.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Its body.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallError {
    /// Not an absolute URL of a registered service.
    UnknownTarget,
    /// No rule allows it, or a rule denies it.
    NotPermitted,
    /// It took too long.
    Timeout,
    /// The name was not resolved, no address passed, or none could be connected to.
    Connect,
    /// TLS failed.
    Tls,
    /// The answer was not HTTP, or broke off.
    Protocol,
    /// The request or the answer is larger than the gateway's limit.
    TooLarge,
    /// The filter has as many calls open as it may, or there is no room for what this one sends or brings.
    Budget,
    /// A method, header or URL that is not valid.
    Invalid,
}

/// Sends the call and waits for its answer.
pub fn send(call: Call) -> Result<Answer, CallError> {
    host::send(call)
}

impl Call {
    /// A call of this method to an absolute `http://` or `https://` URL.
    pub fn new(method: Method, url: impl Into<String>) -> Self {
        Self { method, url: url.into(), headers: Vec::new(), body: Vec::new(), timeout_ms: 0 }
    }

    /// A `GET`.
    pub fn get(url: impl Into<String>) -> Self {
        Self::new(Method::GET, url)
    }

    /// A `POST`.
    pub fn post(url: impl Into<String>) -> Self {
        Self::new(Method::POST, url)
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Waits no longer than this. Without it, or when it is longer, the gateway's limit holds.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        // 0 stands for the gateway's limit, and no time at all was meant then.
        self.timeout_ms = crate::kv::milliseconds(timeout).max(1);
        self
    }

    /// Its method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Its URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its headers.
    pub fn headers(&self) -> &[(String, Vec<u8>)] {
        &self.headers
    }

    /// Its body.
    pub fn body_bytes(&self) -> &[u8] {
        &self.body
    }
}

impl Answer {
    /// The first header of this name.
    pub fn header(&self, name: impl AsRef<str>) -> Option<&[u8]> {
        let named = self.headers.iter().find(|(field, _)| field.eq_ignore_ascii_case(name.as_ref()));
        named.map(|(_, value)| value.as_slice())
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownTarget => "not an absolute URL of a registered service",
            Self::NotPermitted => "no rule allows the filter's call: allow the principal filter/<plugin>",
            Self::Timeout => "the call took too long: longer than its own timeout, or than the setting filter_call_timeout",
            Self::Connect => "no connection to the service",
            Self::Tls => "TLS to the service failed",
            Self::Protocol => "the answer was not HTTP, or broke off",
            Self::TooLarge => "the request or the answer is too large (settings filter_call_bytes and filter_header_count)",
            Self::Budget => "too many calls, or too much held for them (settings filter_calls, filter_calls_per_exchange and filter_held_bytes)",
            Self::Invalid => "the method, a header or the URL is not valid",
        })
    }
}

impl std::error::Error for CallError {}
