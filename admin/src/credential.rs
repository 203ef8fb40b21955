//! Credentials as they come in and as they may be shown. Messages here never repeat anything of what was sent: it may be
//! the secret itself, in the wrong field.

use crate::document::{parse_json, pointer_of};
use rustls::{
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use serde_json::{Map, Value};
use tidegate_policy::{
    Mistake,
    credential::{Credential, CredentialKind, Secret},
};
use x509_parser::{extensions::GeneralName, prelude::FromDer, time::ASN1Time};

/// Largest secret value, in bytes: header values beyond it are refused by common servers.
const MAX_SECRET_BYTES: usize = 8 * 1024;

/// All that is ever shown of a credential.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub(crate) struct CredentialFacts {
    /// What kind it is.
    pub(crate) kind: CredentialKind,
    /// Its certificates, in the order given; none for a secret.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) certificates: Vec<CertificateFacts>,
}

/// What a certificate says in public.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub(crate) struct CertificateFacts {
    /// Its subject.
    pub(crate) subject: String,
    /// Who issued it.
    pub(crate) issuer: String,
    /// Its subject alternative names, as `DNS:api.example.com`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) names: Vec<String>,
    /// Valid from, RFC 3339.
    pub(crate) not_before: String,
    /// Valid until, RFC 3339.
    pub(crate) not_after: String,
    /// SHA-256 of the certificate, hexadecimal.
    pub(crate) fingerprint: String,
}

/// Reads a credential and checks that its material is what it says.
pub(crate) fn read(body: &[u8]) -> Result<(Credential, CredentialFacts), Vec<Mistake>> {
    let (value, mut mistakes) = parse_json(body)?;
    let Value::Object(mut fields) = value else {
        return Err(vec![Mistake::at("", "a credential is a JSON object with the field `kind`")]);
    };
    let kind = match fields.remove("kind").as_ref().and_then(Value::as_str) {
        Some("certificate") => CredentialKind::Certificate,
        Some("trust") => CredentialKind::Trust,
        Some("secret") => CredentialKind::Secret,
        _ => {
            mistakes.push(Mistake::at("/kind", "give one of `certificate`, `trust`, `secret`"));
            return Err(mistakes);
        }
    };
    let credential = match kind {
        CredentialKind::Certificate => {
            let chain = text(&mut fields, "chain", &mut mistakes);
            let key = text(&mut fields, "key", &mut mistakes);
            Credential::Certificate { chain, key: Secret::from(key) }
        }
        CredentialKind::Trust => Credential::Trust { pem: text(&mut fields, "pem", &mut mistakes) },
        CredentialKind::Secret => Credential::Secret { value: Secret::from(text(&mut fields, "value", &mut mistakes)) },
    };
    for field in fields.keys() {
        let known = match kind {
            CredentialKind::Certificate => "`kind`, `chain` and `key`",
            CredentialKind::Trust => "`kind` and `pem`",
            CredentialKind::Secret => "`kind` and `value`",
        };
        mistakes.push(Mistake::at(pointer_of("", field), format!("unknown field; a credential of this kind has {known}")));
    }
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    facts(&credential).map(|facts| (credential, facts))
}

/// The credential as JSON, to be sealed and nothing else.
pub(crate) fn material(credential: &Credential) -> zeroize::Zeroizing<Vec<u8>> {
    let fields: &[(&str, &str)] = match credential {
        Credential::Certificate { chain, key } => &[("kind", "certificate"), ("chain", chain), ("key", key.reveal())],
        Credential::Trust { pem } => &[("kind", "trust"), ("pem", pem)],
        Credential::Secret { value } => &[("kind", "secret"), ("value", value.reveal())],
    };
    let room = fields.iter().map(|(_, text)| text.len() * 6 + 32).sum();
    let mut json = zeroize::Zeroizing::new(Vec::with_capacity(room));
    let map: std::collections::BTreeMap<_, _> = fields.iter().copied().collect();
    // Writing text to a vector cannot fail.
    serde_json::to_writer(&mut *json, &map).ok();
    json
}

fn text(fields: &mut Map<String, Value>, field: &str, mistakes: &mut Vec<Mistake>) -> String {
    match fields.remove(field) {
        Some(Value::String(text)) if !text.is_empty() => return text,
        Some(_) => mistakes.push(Mistake::at(format!("/{field}"), "this must be text, and not empty")),
        None => mistakes.push(Mistake::at("", format!("the field `{field}` is missing"))),
    }
    String::new()
}

fn facts(credential: &Credential) -> Result<CredentialFacts, Vec<Mistake>> {
    let mut mistakes = Vec::new();
    let kind = credential.kind();
    let certificates = match credential {
        Credential::Certificate { chain, key } => {
            let chain = certificates(chain, "/chain", &mut mistakes);
            check_key(&chain, key, &mut mistakes);
            chain
        }
        Credential::Trust { pem } => certificates(pem, "/pem", &mut mistakes),
        Credential::Secret { value } => {
            if value.reveal().len() > MAX_SECRET_BYTES {
                mistakes.push(Mistake::at("/value", format!("a secret has at most {MAX_SECRET_BYTES} bytes")));
            }
            if value.reveal().bytes().any(|byte| byte != b'\t' && byte.is_ascii_control()) {
                let detail =
                    "a secret is sent as a header's value: leave out the line break at its end, and all control characters";
                mistakes.push(Mistake::at("/value", detail));
            }
            Vec::new()
        }
    };
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let certificates = certificates.into_iter().map(|(_, facts)| facts).collect();
    Ok(CredentialFacts { kind, certificates })
}

type Certificates = Vec<(CertificateDer<'static>, CertificateFacts)>;

fn certificates(pem: &str, pointer: &str, mistakes: &mut Vec<Mistake>) -> Certificates {
    let mut found = Vec::new();
    for (index, item) in CertificateDer::pem_slice_iter(pem.as_bytes()).enumerate() {
        let number = index + 1;
        let Ok(certificate) = item else {
            mistakes.push(Mistake::at(pointer, format!("certificate {number} is not PEM")));
            break;
        };
        match certificate_facts(&certificate) {
            Some(facts) => found.push((certificate, facts)),
            None => mistakes.push(Mistake::at(pointer, format!("certificate {number} is not an X.509 certificate"))),
        }
    }
    if found.is_empty() && mistakes.is_empty() {
        mistakes.push(Mistake::at(pointer, "there is no certificate in this: PEM with BEGIN CERTIFICATE is needed"));
    }
    found
}

fn check_key(chain: &Certificates, key: &Secret, mistakes: &mut Vec<Mistake>) {
    let Ok(key) = PrivateKeyDer::from_pem_slice(key.reveal().as_bytes()) else {
        mistakes
            .push(Mistake::at("/key", "this is not a PEM private key: PKCS#8, PKCS#1 or SEC1 without a passphrase is needed"));
        return;
    };
    let certificates: Vec<_> = chain.iter().map(|(certificate, _)| certificate.clone()).collect();
    let Ok(signing) = default_provider().key_provider.load_private_key(key) else {
        mistakes.push(Mistake::at("/key", "this private key cannot be used: RSA of 2048 bits and more, ECDSA and Ed25519 can"));
        return;
    };
    if !certificates.is_empty() && CertifiedKey::new(certificates, signing).keys_match().is_err() {
        mistakes.push(Mistake::at("/key", "the key does not belong to the first certificate of the chain"));
    }
}

fn certificate_facts(der: &CertificateDer<'_>) -> Option<CertificateFacts> {
    let (rest, certificate) = x509_parser::certificate::X509Certificate::from_der(der).ok()?;
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.iter().flat_map(|extension| &extension.value.general_names).map(|name| match name {
        GeneralName::DNSName(name) => format!("DNS:{name}"),
        GeneralName::URI(uri) => format!("URI:{uri}"),
        GeneralName::RFC822Name(address) => format!("email:{address}"),
        GeneralName::IPAddress(bytes) => match (<[u8; 4]>::try_from(*bytes), <[u8; 16]>::try_from(*bytes)) {
            (Ok(bytes), _) => format!("IP:{}", std::net::Ipv4Addr::from(bytes)),
            (_, Ok(bytes)) => format!("IP:{}", std::net::Ipv6Addr::from(bytes)),
            _ => "other".to_owned(),
        },
        _ => "other".to_owned(),
    });
    let fingerprint = tidegate_policy::plugin::Digest::new(sha256(der));
    rest.is_empty().then(|| CertificateFacts {
        subject: certificate.subject().to_string(),
        issuer: certificate.issuer().to_string(),
        names: names.collect(),
        not_before: written(&certificate.validity().not_before),
        not_after: written(&certificate.validity().not_after),
        fingerprint: fingerprint.to_string(),
    })
}

/// SHA-256 of `bytes`.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let mut array = [0; 32];
    array.copy_from_slice(digest.as_ref());
    array
}

fn written(time: &ASN1Time) -> String {
    crate::clock::rfc3339(time.timestamp().saturating_mul(1000))
}
