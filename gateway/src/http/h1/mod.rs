//! HTTP/1.1 on both sides, in a codec of our own: refusing request smuggling needs the raw bytes, and one task per
//! connection that drives both sides itself needs no channel between them. Parsing is `httparse`'s.

pub mod client;
mod decode;
mod encode;
mod head;
pub(super) use head::forbidden_in_trailers;
pub mod server;
#[cfg(test)]
mod tests;
pub mod wire;

use crate::fault::Fault;
use std::time::Duration;
use tidegate_policy::Reason;

/// Limits on what one HTTP/1 connection may ask for.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest request or response head, in bytes (`http_head_bytes`). 64 KiB is what Envoy and Node allow for at most;
    /// tokens and cookies of real APIs stay far below.
    pub head_bytes: usize,
    /// Time for a request's head, from its first byte (`http_head_timeout`). 10 s suffices on the worst link and keeps
    /// slow writers from holding connections.
    pub head_timeout: Duration,
    /// How long a downstream connection may stay idle between requests (`http_idle_timeout`). Five minutes keeps
    /// sidecars' few, long connections open.
    pub idle_timeout: Duration,
    /// How long a downstream that does not take its response is waited for (`http_write_timeout`).
    pub write_timeout: Duration,
    /// Most bytes of a request body that are read and thrown away so that a connection can be used again
    /// (`http_drain_bytes`). More costs more than a new connection.
    pub drain_bytes: usize,
    /// How long such bytes, or the end of a connection that is being closed, are waited for (`http_drain_timeout`).
    pub drain_timeout: Duration,
    /// How long an upstream may take to ask for a body that waits for `100 Continue` before the body is sent anyway
    /// (`http_continue_timeout`; RFC 9110 section 10.1.1). One second is what curl waits.
    pub continue_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: 64 * 1024,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(300),
            write_timeout: Duration::from_secs(60),
            drain_bytes: 64 * 1024,
            drain_timeout: Duration::from_secs(2),
            continue_timeout: Duration::from_secs(1),
        }
    }
}

/// First size of a read buffer, in bytes: holds an ordinary head and its small body in one read.
const FIRST_READ_BYTES: usize = 8 * 1024;

/// Largest read, in bytes, once a body has shown to be large.
const LARGEST_READ_BYTES: usize = 64 * 1024;

/// How a message breaks the rules of RFC 9112.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// It can be understood in more than one way, or in none.
    Bad(&'static str),
    /// It is larger than a limit.
    TooLarge(&'static str),
}

impl Framing {
    /// The fault where the downstream wrote it.
    fn downstream(self) -> Fault {
        match self {
            Self::Bad(detail) => Fault::new(Reason::BadFraming, detail),
            Self::TooLarge(detail) => Fault::new(Reason::HeaderTooLarge, detail),
        }
    }

    /// The fault where the upstream wrote it.
    fn upstream(self) -> Fault {
        let (Self::Bad(detail) | Self::TooLarge(detail)) = self;
        Fault::new(Reason::UpstreamProtocol, format!("the upstream's response cannot be relied on: {detail}"))
    }
}
