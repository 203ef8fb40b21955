//! Whom a verified client certificate names: the SPIFFE ID among its URIs (SPIFFE X.509-SVID, section 2).

use rustls::pki_types::CertificateDer;
use std::sync::Arc;
use tidegate_policy::identity::{Caller, Proof};
use x509_parser::{extensions::GeneralName, prelude::FromDer};

/// Longest SPIFFE ID (SPIFFE ID, section 2.3).
const MAX_ID_BYTES: usize = 2048;

/// The caller that `certificate` names. The chain has been verified; only the name is read here.
///
/// # Errors
/// The certificate cannot be read, or holds no SPIFFE ID or more than one URI.
pub fn caller(certificate: &CertificateDer<'_>) -> Result<Arc<Caller>, String> {
    let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(certificate)
        .map_err(|error| format!("the client certificate cannot be read: {error}"))?;
    let names =
        parsed.subject_alternative_name().map_err(|error| format!("the client certificate's names cannot be read: {error}"))?;
    let mut uris = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => named(uri).map(Arc::new),
        (None, _) => Err("the client certificate has no SPIFFE ID: it needs one URI name, spiffe://DOMAIN/PATH".to_owned()),
        (Some(_), Some(_)) => {
            Err("the client certificate has more than one URI name, so whom it names is not clear".to_owned())
        }
    }
}

/// The caller that a SPIFFE ID names; `/ns/NAMESPACE/sa/ACCOUNT` is what Istio and SPIRE issue in Kubernetes.
fn named(uri: &str) -> Result<Caller, String> {
    let rest = uri.strip_prefix("spiffe://").filter(|_| uri.len() <= MAX_ID_BYTES);
    let (domain, path) = rest.and_then(|rest| rest.split_once('/')).unwrap_or_default();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/');
    let segments: Vec<&str> = path.split('/').collect();
    if domain.is_empty()
        || !domain.bytes().all(|byte| plain(byte) && !byte.is_ascii_uppercase())
        || !path.bytes().all(plain)
        || segments.iter().any(|segment| matches!(*segment, "" | "." | ".."))
    {
        return Err(format!("the client certificate's URI name {uri:?} is not a SPIFFE ID"));
    }
    let (namespace, account) = match segments.as_slice() {
        ["ns", namespace, "sa", account] => (Some(Arc::from(*namespace)), Some(Arc::from(*account))),
        _ => (None, None),
    };
    Ok(Caller {
        proof: Proof::Certificate,
        principal: Some(Arc::from(uri)),
        namespace,
        service_account: account,
        ..Caller::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(uris: &[&str]) -> CertificateDer<'static> {
        let mut parameters = rcgen::CertificateParams::new(vec!["pod.example".to_owned()]).unwrap();
        for uri in uris {
            parameters.subject_alt_names.push(rcgen::SanType::URI((*uri).try_into().unwrap()));
        }
        let key = rcgen::KeyPair::generate().unwrap();
        parameters.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn the_spiffe_id_says_who_calls() {
        let caller = caller(&certificate(&["spiffe://cluster.local/ns/shop/sa/checkout"])).unwrap();
        assert_eq!(caller.proof, Proof::Certificate);
        assert_eq!(caller.principal.as_deref(), Some("spiffe://cluster.local/ns/shop/sa/checkout"));
        assert_eq!((caller.namespace.as_deref(), caller.service_account.as_deref()), (Some("shop"), Some("checkout")));
    }

    #[test]
    fn what_names_nobody_clearly_is_refused() {
        assert!(caller(&certificate(&[])).is_err());
        assert!(caller(&certificate(&["spiffe://one/a", "spiffe://two/b"])).is_err());
        for uri in [
            "https://cluster.local/a",
            "spiffe://cluster.local",
            "spiffe:///a",
            "spiffe://a/../b",
            "spiffe://A/b",
            "spiffe://a/b?c",
            "spiffe://user@a/b",
        ] {
            assert!(caller(&certificate(&[uri])).is_err(), "{uri}");
        }
    }
}
