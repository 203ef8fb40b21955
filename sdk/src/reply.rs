//! A filter's own answer.

use http::StatusCode;

/// An answer that the gateway gives in the upstream's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
    pub(crate) grpc_status: Option<u32>,
    pub(crate) details: String,
}

impl Reply {
    /// An empty answer with this status, which must be 200 or more. From 400 on the exchange counts as denied.
    pub fn new(status: StatusCode) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), grpc_status: None, details: String::new() }
    }

    /// Adds a header. Framing headers are the gateway's own; naming one fails the exchange.
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

    /// Answers a gRPC caller with this status code (such as 7, `PERMISSION_DENIED`) and the details as its message, instead
    /// of status and body. It means nothing to other callers, so it can always be given.
    #[must_use]
    pub fn grpc_status(mut self, code: u32) -> Self {
        self.grpc_status = Some(code);
        self
    }

    /// Says why, for the record. Only gRPC callers see it.
    #[must_use]
    pub fn details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// Its status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Its body.
    pub fn body_bytes(&self) -> &[u8] {
        &self.body
    }

    /// Why, for the record.
    pub fn reason(&self) -> &str {
        &self.details
    }
}
