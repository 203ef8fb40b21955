//! Where the request goes, and how TLS is originated to it: by names, which the gateway resolves against what the route's
//! `grants` allow. Key material never gets here. To be called while the request's head is here; the last filter to choose
//! something wins.
//!
//! ```
//! # use tidegate_sdk::{*, testing::{Driver, Message}};
//! # struct Example;
//! # impl Filter for Example {
//! #     type Config = (); type State = (); fn new((): ()) -> Result<Self, ConfigError> { Ok(Self) }
//! fn on_request(&self, _: &mut Exchange<()>, head: &mut Headers<'_>, _end: bool) -> Flow {
//!     let tenant = head.text("x-tenant").unwrap_or_default();
//!     let certificate = Some(format!("client-{tenant}"));
//!     let tls = upstream::Tls { mode: Some(upstream::TlsMode::Mutual), certificate, ..upstream::Tls::default() };
//!     let chosen = upstream::originate_tls(&tls)
//!         .and_then(|()| upstream::inject_secret("authorization", "payments-token", "Bearer "));
//!     match chosen {
//!         Ok(()) => Flow::Proceed,
//!         Err(error) => Flow::Reply(Reply::new(StatusCode::FORBIDDEN).details(error.to_string())),
//!     }
//! }
//! # }
//! # let driver = || Driver::<Example>::new(serde_json::json!(null)).unwrap();
//! let driver = driver().grants(serde_json::json!({"credentials": ["client-blue", "payments-token"]}));
//! let exchange = driver.exchange().request([("x-tenant", "blue")]);
//! assert_eq!(exchange.chosen().tls.as_ref().unwrap().certificate.as_deref(), Some("client-blue"));
//! assert_eq!(exchange.chosen().secrets[0].credential, "payments-token");
//! let exchange = driver.exchange().request([("x-tenant", "red")]);
//! assert_eq!(exchange.status(), Some(StatusCode::FORBIDDEN));
//! ```

use crate::host;
use std::fmt;

/// What of TLS origination differs from what the service registers; what is `None` is as registered.
///
/// It can be part of a filter's configuration, where it is written as the service's own `tls` is.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Whether there is TLS, and who shows a certificate.
    pub mode: Option<TlsMode>,
    /// The server name that is sent (RFC 6066 section 3).
    pub sni: Option<String>,
    /// The names of which the server's certificate must bear one.
    pub names: Option<Vec<String>>,
    /// The name of a credential of kind `trust`, or `system`.
    pub trust: Option<String>,
    /// The lowest version.
    pub min_version: Option<TlsVersion>,
    /// The protocols that are offered, best first.
    pub alpn: Option<Vec<Alpn>>,
    /// The name of a credential of kind `certificate`.
    pub certificate: Option<String>,
}

/// Whether there is TLS, and who shows a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TlsMode {
    /// Plaintext.
    Disabled,
    /// The server shows a certificate.
    Simple,
    /// Both do.
    Mutual,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[serde(rename = "1.2")]
    Tls12,
    /// TLS 1.3.
    #[serde(rename = "1.3")]
    Tls13,
}

/// A protocol that TLS negotiates (RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
pub enum Alpn {
    /// HTTP/1.1.
    #[serde(rename = "http/1.1")]
    Http11,
    /// HTTP/2.
    #[serde(rename = "h2")]
    H2,
}

/// Why a choice was refused. What was chosen before stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyError {
    /// No such service, endpoint or credential, or a credential of another kind.
    UnknownName,
    /// The route's `grants` do not allow it.
    NotPermitted,
    /// The request's head has gone on.
    TooLate,
    /// It contradicts itself or what the service registers, such as a certificate without TLS.
    Conflict,
    /// Not a host name, address or header name.
    Invalid,
}

/// Sends the request to another service, which the route must grant (`grants.services`). The decision is made again for it:
/// a rule must allow it, too. To be called before what belongs to the service: endpoint and TLS.
pub fn select_service(name: impl AsRef<str>) -> Result<(), PolicyError> {
    host::select_service(name.as_ref())
}

/// Sends the request to this one of the service's registered endpoints. The route must grant it (`grants.endpoints`).
pub fn select_endpoint(address: impl AsRef<str>, port: u16) -> Result<(), PolicyError> {
    host::select_endpoint(address.as_ref(), port)
}

/// Originates TLS so; what is `None` stays as it was chosen before, else as it is registered. The route must grant the
/// credentials that are named (`grants.credentials`), and what loosens verification (`grants.loosen_tls`): plaintext where the
/// service registers TLS, other names, a lower version.
pub fn originate_tls(tls: &Tls) -> Result<(), PolicyError> {
    host::originate_tls(tls)
}

/// Has the gateway write a header of `prefix` and a credential of kind `secret` after the last filter has run: no filter
/// reads it and no record shows it. The header's other values go. The route must grant the credential
/// (`grants.credentials`). A request that would carry it in plaintext is refused.
pub fn inject_secret(header: impl AsRef<str>, credential: impl AsRef<str>, prefix: impl AsRef<str>) -> Result<(), PolicyError> {
    host::inject_secret(header.as_ref(), credential.as_ref(), prefix.as_ref())
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownName => "no such service, endpoint or credential",
            Self::NotPermitted => "the route's grants do not allow it",
            Self::TooLate => "the head of the request has gone on",
            Self::Conflict => "it contradicts itself or what the service registers",
            Self::Invalid => "not a host name, address or header name",
        })
    }
}

impl std::error::Error for PolicyError {}
