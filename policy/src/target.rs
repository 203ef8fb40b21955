//! What a caller asks for.

use crate::Host;

/// Where an exchange is to go, in canonical form.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// How it was asked for.
    pub form: Form,
    /// The host.
    pub host: Host,
    /// The port that was asked for, or the scheme's own.
    pub port: u16,
}

/// How a target was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// A request in the clear: the gateway originates TLS where the service speaks it.
    Plain,
    /// A request with an `https` URL, which the gateway is trusted to originate TLS for.
    Secure,
    /// CONNECT: bytes that the gateway does not read.
    Tunnel,
}

/// All of a request that a decision may depend on.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Where it is to go.
    pub target: &'a Target,
    /// Its method.
    pub method: &'a http::Method,
    /// Its path as sent, without the query; empty for a tunnel.
    pub path: &'a str,
    /// Its query, without the question mark.
    pub query: Option<&'a str>,
    /// Its headers.
    pub headers: &'a http::HeaderMap,
    /// When it came.
    pub time: std::time::SystemTime,
}
