//! Whom a client certificate names, by SPIFFE (X.509-SVID: exactly one URI among the subject alternative names).

use std::sync::Arc;
use tidegate_policy::identity::{Caller, Proof};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The caller that a verified client certificate (DER) names; none where it has no SPIFFE identity, or several. Computed
/// once for each connection.
///
/// Namespace and service account are read from paths of the form `/ns/<namespace>/sa/<service account>`.
pub fn caller(der: &[u8]) -> Option<Arc<Caller>> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let uri = uris.next().filter(|_| uris.next().is_none())?;
    named(uri).map(Arc::new)
}

fn named(uri: &str) -> Option<Caller> {
    let (trust_domain, path) = uri.strip_prefix("spiffe://")?.split_once('/')?;
    if trust_domain.is_empty() || path.is_empty() {
        return None;
    }
    let mut steps = path.split('/');
    let workload = match (steps.next(), steps.next(), steps.next(), steps.next(), steps.next()) {
        (Some("ns"), Some(namespace), Some("sa"), Some(account), None) => Some((namespace, account)),
        _ => None,
    };
    Some(Caller {
        proof: Proof::Certificate,
        principal: Some(Arc::from(uri)),
        namespace: workload.map(|(namespace, _)| Arc::from(namespace)),
        service_account: workload.map(|(_, account)| Arc::from(account)),
        ..Caller::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    fn with_uris(uris: &[&str]) -> Option<Arc<Caller>> {
        let mut params = CertificateParams::new(vec!["pod.example".to_owned()]).expect("parameters");
        params.subject_alt_names.extend(uris.iter().map(|uri| SanType::URI((*uri).try_into().expect("ASCII"))));
        let certificate = params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate");
        caller(certificate.der())
    }

    #[test]
    fn the_uri_names_the_caller() {
        let caller = with_uris(&["spiffe://cluster.local/ns/shop/sa/checkout"]).expect("a caller");
        assert_eq!(caller.proof, Proof::Certificate);
        assert_eq!(caller.principal.as_deref(), Some("spiffe://cluster.local/ns/shop/sa/checkout"));
        assert_eq!((caller.namespace.as_deref(), caller.service_account.as_deref()), (Some("shop"), Some("checkout")));
        let other = with_uris(&["spiffe://corp.example/vm/7"]).expect("a caller");
        assert_eq!((other.namespace.as_deref(), other.service_account.as_deref()), (None, None));
    }

    #[test]
    fn no_uri_several_uris_and_other_schemes_name_nobody() {
        for uris in [&[][..], &["https://a.example/x"], &["spiffe://a/b", "spiffe://a/c"], &["spiffe:///b"]] {
            assert!(with_uris(uris).is_none(), "{uris:?}");
        }
    }
}
