//! A service: an external API that the gateway may reach.

use crate::{Host, HostPattern, Mistake, Name, credential::CredentialKind, selector::check_networks, snapshot::Rows};
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
    pub address: Host,
    /// The port to dial; absent, the port that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Its share among endpoints of the same priority, 1 to 1000.
    #[serde(default = "one")]
    pub weight: u32,
    /// Region, zone and sub-zone, as `region/zone/sub-zone`. Of endpoints of the same priority those nearest to the gateway
    /// (its setting `locality`) are tried first.
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
    pub sni: Option<Host>,
    /// Names of which the certificate must hold one; absent, the server name sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<Host>,
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

/// The largest share of an endpoint: two decimal places more than percent, and sums stay far from overflowing.
const MAX_WEIGHT: u32 = 1000;

impl Service {
    /// What is wrong with it, by itself and beside `rows`.
    pub(crate) fn check(&self, rows: &Rows) -> Vec<Mistake> {
        let mut mistakes = check_networks("networks", &self.networks);
        if self.hosts.is_empty() {
            mistakes.push(Mistake::at("/hosts", "name at least one host: nothing could reach the service"));
        }
        for (at, network) in self.networks.iter().enumerate().filter(|(_, network)| network.prefix_len() == 0) {
            let detail = format!("{network} would turn the address guard off: name the ranges that the service is in");
            mistakes.push(Mistake::at(format!("/networks/{at}"), detail));
        }
        self.check_ports(&mut mistakes);
        self.check_resolution(&mut mistakes);
        if let Some(tls) = &self.tls {
            tls.check(self, rows, &mut mistakes);
        }
        if self.connections.max == 0 {
            mistakes.push(Mistake::at("/connections/max", "is 0, which would refuse every exchange: give at least 1"));
        }
        if self.connections.idle_timeout.length().is_zero() {
            let detail = "is 0: to keep no idle connections, set max_idle to 0";
            mistakes.push(Mistake::at("/connections/idle_timeout", detail));
        }
        mistakes
    }

    fn check_ports(&self, mistakes: &mut Vec<Mistake>) {
        if self.ports.is_empty() {
            mistakes.push(Mistake::at("/ports", "name at least one port: nothing could reach the service"));
        }
        for (at, port) in self.ports.iter().enumerate() {
            let pointer = format!("/ports/{at}/number");
            if port.number == 0 {
                mistakes.push(Mistake::at(pointer, "a port is a number from 1 to 65535"));
            } else if self.ports[..at].iter().any(|other| other.number == port.number) {
                mistakes.push(Mistake::at(pointer, format!("port {} is listed twice: it speaks one protocol", port.number)));
            }
        }
    }

    fn check_resolution(&self, mistakes: &mut Vec<Mistake>) {
        let wildcard = self.hosts.iter().position(|host| matches!(host, HostPattern::Suffix(_)));
        match (self.resolution, self.endpoints.is_empty(), wildcard) {
            (Resolution::Dns, true, Some(at)) => {
                let detail = "a pattern has no address of its own: set resolution to forward, or list endpoints";
                mistakes.push(Mistake::at(format!("/hosts/{at}"), detail));
            }
            (Resolution::Static, true, _) => {
                mistakes.push(Mistake::at("/endpoints", "a static service is where its endpoints are: list at least one"));
            }
            (Resolution::Forward, false, _) => {
                let detail = "a forward service is where the requested name is: remove the endpoints, or set resolution to dns";
                mistakes.push(Mistake::at("/endpoints", detail));
            }
            _ => {}
        }
        for (at, endpoint) in self.endpoints.iter().enumerate() {
            endpoint.check(self.resolution, &format!("/endpoints/{at}"), mistakes);
        }
    }
}

/// The parts of a locality: region, zone, sub-zone.
const PARTS: u8 = 3;

/// Whether `text` can be a locality.
///
/// # Errors
/// How to write one.
pub fn check_locality(text: &str) -> Result<(), &'static str> {
    let parts = text.split('/').count() <= usize::from(PARTS) && text.split('/').all(|part| !part.is_empty());
    if parts { Ok(()) } else { Err("write up to three parts, none of them empty, as region/zone/sub-zone") }
}

impl Endpoint {
    /// How far it is from `locality`: the parts, of three, that the two do not share from the left. One without a locality
    /// is as far away as can be.
    pub fn distance_from(&self, locality: &str) -> u8 {
        let Some(own) = &self.locality else { return PARTS };
        let mut distance = PARTS;
        for (one, other) in own.split('/').zip(locality.split('/')) {
            if one != other {
                break;
            }
            distance = distance.saturating_sub(1);
        }
        distance
    }

    fn check(&self, resolution: Resolution, pointer: &str, mistakes: &mut Vec<Mistake>) {
        if let (Resolution::Static, Host::Name(name)) = (resolution, &self.address) {
            let detail = format!("{name} is a name: a static service has IP addresses, or set resolution to dns");
            mistakes.push(Mistake::at(format!("{pointer}/address"), detail));
        }
        if self.port == Some(0) {
            mistakes.push(Mistake::at(format!("{pointer}/port"), "a port is a number from 1 to 65535"));
        }
        if !(1..=MAX_WEIGHT).contains(&self.weight) {
            mistakes
                .push(Mistake::at(format!("{pointer}/weight"), format!("is {}: a weight is 1 to {MAX_WEIGHT}", self.weight)));
        }
        if let Some(Err(detail)) = self.locality.as_deref().map(check_locality) {
            mistakes.push(Mistake::at(format!("{pointer}/locality"), detail));
        }
    }
}

impl Tls {
    fn check(&self, service: &Service, rows: &Rows, mistakes: &mut Vec<Mistake>) {
        for (at, port) in service.ports.iter().enumerate() {
            if self.mode == TlsMode::Disabled && port.protocol == Protocol::Https {
                let detail = "https without TLS is http: change the protocol, or tls.mode";
                mistakes.push(Mistake::at(format!("/ports/{at}/protocol"), detail));
            }
            if port.protocol == Protocol::Grpc && !self.alpn.is_empty() && !self.alpn.contains(&Alpn::H2) {
                mistakes.push(Mistake::at("/tls/alpn", format!("port {} speaks grpc, which needs h2 here", port.number)));
            }
        }
        if let Some(Host::Address(address)) = &self.sni {
            let detail = format!("{address} is an address: a server name is a name (RFC 6066 section 3)");
            mistakes.push(Mistake::at("/tls/sni", detail));
        }
        if let Some(at) = (1..self.alpn.len()).find(|&at| self.alpn[..at].contains(&self.alpn[at])) {
            mistakes.push(Mistake::at(format!("/tls/alpn/{at}"), "is listed twice"));
        }
        match (self.mode, &self.certificate) {
            (TlsMode::Mutual, None) => {
                mistakes.push(Mistake::at(
                    "/tls/certificate",
                    "mutual TLS shows a certificate: name a credential of kind certificate",
                ));
            }
            (TlsMode::Mutual, Some(name)) => {
                check_credential(name, CredentialKind::Certificate, "/tls/certificate", rows, mistakes);
            }
            (_, Some(_)) => {
                mistakes.push(Mistake::at("/tls/certificate", "is shown only in mode mutual: change the mode, or remove it"));
            }
            (_, None) => {}
        }
        if let Trust::Credential(name) = &self.trust {
            check_credential(name, CredentialKind::Trust, "/tls/trust", rows, mistakes);
        }
    }
}

fn check_credential(name: &Name, wanted: CredentialKind, pointer: &str, rows: &Rows, mistakes: &mut Vec<Mistake>) {
    let detail = match rows.credentials.get(name) {
        Some(kind) if *kind == wanted => return,
        Some(kind) => format!("the credential {name} is of kind {kind}: one of kind {wanted} is needed"),
        None => format!("there is no credential {name}: create one of kind {wanted} first"),
    };
    mistakes.push(Mistake::at(pointer, detail));
}
