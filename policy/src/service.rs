//! A service: an external API that the gateway may reach.

use crate::{HostPattern, Name};
use ipnet::IpNet;

/// An external API: its names, its ports, how it is resolved and how TLS to it is originated.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Service {
    /// The names callers use: exact (`api.example.com`, or an IP address) or `*.suffix`.
    pub hosts: Vec<HostPattern>,
    /// The ports it listens on.
    pub ports: Vec<Port>,
    /// How its addresses are found.
    #[serde(default)]
    pub resolution: Resolution,
    /// Where it is, when that is not what its name resolves to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<Endpoint>,
    /// Ranges that are refused to every other service and that this one may resolve to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub networks: Vec<IpNet>,
    /// How TLS to it is originated; absent, `simple` with the requested name and the system's trust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Limits on the connections that the gateway keeps to it.
    #[serde(default, skip_serializing_if = "ConnectionLimits::is_default")]
    pub connections: ConnectionLimits,
}

impl Service {
    pub(crate) fn check(&self, _rows: &crate::snapshot::Rows) -> Vec<crate::Mistake> {
        Vec::new()
    }
}

/// One port of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Port {
    /// 1 to 65535.
    pub number: u16,
    /// What the service speaks there.
    pub protocol: Protocol,
}

/// What a service speaks on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Protocol {
    /// HTTP/1.1 without TLS.
    Http,
    /// HTTP over TLS; the version is agreed by ALPN.
    Https,
    /// HTTP/2 without TLS, by prior knowledge (RFC 9113 section 3.3).
    Http2,
    /// gRPC: HTTP/2 over TLS, or without it where `tls.mode` is `disabled`.
    Grpc,
    /// Opaque TLS, routed by SNI; tunnels only.
    Tls,
    /// Opaque bytes; tunnels only.
    Tcp,
}

/// How a service's addresses are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Resolution {
    /// The endpoints' names are resolved, or the service's own exact host where it lists none; TTLs are kept.
    #[default]
    Dns,
    /// Only the endpoints, which must be IP addresses.
    Static,
    /// The requested name itself is resolved: what a wildcard host needs.
    Forward,
}

/// A place where a service can be reached.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Endpoint {
    /// An IP address or a host name.
    pub address: crate::Host,
    /// The port to dial; absent, the port that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Its share among endpoints of the same priority, 1 to 1000.
    #[serde(default = "one")]
    pub weight: u32,
    /// Region, zone and sub-zone, as `region/zone/sub-zone`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locality: Option<String>,
    /// Lower is tried first; a higher one only when all lower ones fail.
    #[serde(default)]
    pub priority: u32,
}

fn one() -> u32 {
    1
}

/// How TLS to a service is originated.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Tls {
    /// Whether and how.
    pub mode: TlsMode,
    /// The server name sent (RFC 6066 section 3); absent, the requested host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<crate::Host>,
    /// Names of which the certificate must hold one; absent, the server name sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<crate::Host>,
    /// Whose certificates are believed: `system`, or the name of a trust credential.
    #[serde(default = "Trust::system")]
    pub trust: Trust,
    /// The client certificate's credential; needed by and only for `mutual`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Name>,
    /// The lowest TLS version spoken.
    #[serde(default)]
    pub min_version: TlsVersion,
    /// Protocols offered, in order (RFC 7301); absent, what the port's protocol implies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alpn: Vec<Alpn>,
}

/// Whether and how TLS is originated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum TlsMode {
    /// None.
    Disabled,
    /// The server is verified.
    Simple,
    /// The server is verified and the gateway shows its own certificate.
    Mutual,
    /// The caller's own TLS is passed through; only tunnels reach such a service.
    Passthrough,
}

/// Whose certificates are believed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Trust {
    /// The operating system's store.
    System,
    /// The credential of this name, of kind `trust`.
    Credential(Name),
}

impl Trust {
    fn system() -> Self {
        Self::System
    }
}

impl TryFrom<String> for Trust {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "system" { Ok(Self::System) } else { text.parse().map(Self::Credential) }
    }
}

impl From<Trust> for String {
    fn from(trust: Trust) -> Self {
        match trust {
            Trust::System => "system".to_owned(),
            Trust::Credential(name) => name.into(),
        }
    }
}

/// A TLS version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    #[default]
    #[serde(rename = "1.2")]
    V1_2,
    /// TLS 1.3 (RFC 8446).
    #[serde(rename = "1.3")]
    V1_3,
}

/// A protocol that ALPN can agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Alpn {
    /// HTTP/2.
    #[serde(rename = "h2")]
    H2,
    /// HTTP/1.1.
    #[serde(rename = "http/1.1")]
    Http1,
}

/// Limits on the connections that the gateway keeps to one service, all workers together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ConnectionLimits {
    /// Open at once; one more exchange than they can carry is refused as `overloaded`.
    pub max: u32,
    /// Kept idle for the next exchange, per worker.
    pub max_idle: u32,
    /// How long an idle one is kept.
    pub idle_timeout: crate::duration::Span,
}

impl ConnectionLimits {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for ConnectionLimits {
    // 1024 is what Envoy's circuit breakers allow unless told otherwise; 90 s stays below the two minutes after which
    // common load balancers drop an idle connection.
    fn default() -> Self {
        Self { max: 1024, max_idle: 64, idle_timeout: crate::duration::Span::new(std::time::Duration::from_secs(90)) }
    }
}
