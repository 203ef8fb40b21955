//! What went wrong with TLS, in a sentence that says what to do.

use crate::fault::Fault;
use rustls::{AlertDescription, CertificateError, Error, pki_types::ServerName};
use std::io;
use tidegate_policy::Reason;

/// The fault for an input or output error that TLS caused, at the handshake or after it (a server that speaks TLS 1.3
/// refuses a client's certificate only then); none for any other error. Whether another attempt is safe depends on what of
/// the request is gone by then, so the caller says it.
pub fn explain(error: &io::Error) -> Option<Fault> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    Some(Fault::new(Reason::TlsFailed, sentence(error, &[])))
}

/// The sentence for `error`, where one of `names` was expected.
pub(super) fn sentence(error: &Error, names: &[ServerName<'_>]) -> String {
    match error {
        Error::InvalidCertificate(certificate) => self::certificate(certificate, names),
        Error::AlertReceived(alert) => self::alert(*alert),
        Error::InvalidMessage(_) => {
            "the upstream does not speak TLS on this port: check the port, or set its protocol to http".to_owned()
        }
        Error::PeerIncompatible(incompatible) => {
            format!(
                "the upstream and the gateway have no TLS version or cipher suite in common ({incompatible:?}): check `tls.min_version`"
            )
        }
        Error::NoApplicationProtocol => {
            "the upstream speaks none of the protocols offered: check `tls.alpn` and the port's protocol".to_owned()
        }
        other => format!("TLS with the upstream failed: {other}"),
    }
}

fn certificate(error: &CertificateError, names: &[ServerName<'_>]) -> String {
    match error {
        CertificateError::UnknownIssuer => {
            "the upstream's certificate was issued by an authority that is not believed (unknown issuer): \
             name its certificates in `tls.trust`"
                .to_owned()
        }
        CertificateError::Expired => "the upstream's certificate has expired: its owner must renew it".to_owned(),
        CertificateError::ExpiredContext { time, not_after } => format!(
            "the upstream's certificate expired {} s ago: its owner must renew it, or the gateway's clock is wrong",
            time.as_secs().saturating_sub(not_after.as_secs())
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the upstream's certificate is not valid yet: check the gateway's clock".to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let expected = if names.len() > 1 {
                names.iter().map(|name| name.to_str().into_owned()).collect::<Vec<_>>().join(" or ")
            } else {
                expected.to_str().into_owned()
            };
            let presented = if presented.is_empty() { "no name at all".to_owned() } else { presented.join(", ") };
            format!("the upstream's certificate is not for {expected} but for {presented}: check `tls.sni` and `tls.names`")
        }
        CertificateError::NotValidForName => {
            "the upstream's certificate is for another name: check `tls.sni` and `tls.names`".to_owned()
        }
        CertificateError::Revoked => "the upstream's certificate has been revoked".to_owned(),
        other => format!("the upstream's certificate cannot be verified: {other:?}"),
    }
}

fn alert(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateRequired => CERTIFICATE_DEMANDED.to_owned(),
        AlertDescription::UnknownCA
        | AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateRevoked
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::AccessDenied => {
            format!(
                "the upstream refused the gateway's client certificate ({alert:?}): check the credential named in `tls.certificate`"
            )
        }
        AlertDescription::ProtocolVersion => {
            "the upstream speaks no TLS version that is permitted: check `tls.min_version`".to_owned()
        }
        AlertDescription::NoApplicationProtocol => {
            "the upstream speaks none of the protocols offered: check `tls.alpn` and the port's protocol".to_owned()
        }
        AlertDescription::UnrecognisedName => {
            "the upstream does not know the server name that was sent: check `tls.sni`".to_owned()
        }
        other => format!("the upstream ended the TLS handshake ({other:?})"),
    }
}

/// What is said where a server wants a certificate that no document names.
pub(in crate::upstream) const CERTIFICATE_DEMANDED: &str =
    "the upstream demands a client certificate: set `tls.mode` to mutual and name a credential in `tls.certificate`";
