//! The mutual TLS listener's configuration: the gateway shows its own certificate and demands the caller's.

use crate::upstream::tls::provider;
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
    sign::{CertifiedKey, SingleCertAndKey},
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Where the listener's key material is. All three files are PEM.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The gateway's certificate chain, leaf first.
    pub certificate: PathBuf,
    /// Its private key: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
    /// The authorities whose client certificates are believed.
    pub client_ca: PathBuf,
}

/// The listener's configuration: TLS 1.2 and 1.3, client certificates required, `h2` and `http/1.1` agreed by ALPN. The
/// error names the file and says what to do.
pub fn configure(settings: &Settings) -> Result<Arc<ServerConfig>, String> {
    let provider = provider();
    let chain = certificates(&settings.certificate, "certificate")?;
    let key = PrivateKeyDer::from_pem_slice(&read(&settings.key, "key")?).map_err(|_| {
        format!("the key {} holds no PEM private key: give an unencrypted PKCS#8, PKCS#1 or SEC1 key", settings.key.display())
    })?;
    let certified = CertifiedKey::from_der(chain, key, &provider).map_err(|error| {
        format!(
            "the certificate {} and the key {} cannot be used together ({error}): give the key that belongs to the first certificate",
            settings.certificate.display(),
            settings.key.display()
        )
    })?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&settings.client_ca, "client CA")? {
        roots.add(certificate).map_err(|error| {
            format!("the client CA {} holds a certificate that cannot be a root: {error}", settings.client_ca.display())
        })?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|error| format!("the client CA {} cannot be used: {error}", settings.client_ca.display()))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("no TLS version can be spoken: {error}"))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(path: &Path, what: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path, what)?).collect();
    match parsed {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) | Err(_) => Err(format!("the {what} {} holds no PEM certificate: check the file", path.display())),
    }
}

fn read(path: &Path, what: &str) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| {
        format!(
            "the {what} {} cannot be read ({error}): check the path, and that the gateway's user may read it",
            path.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};

    struct Files {
        folder: tempfile::TempDir,
        settings: Settings,
    }

    fn files() -> Files {
        let folder = tempfile::tempdir().expect("a folder");
        let key = KeyPair::generate().expect("a key");
        let certificate = CertificateParams::new(vec!["gateway.example".to_owned()]).expect("parameters").self_signed(&key);
        let pem = certificate.expect("a certificate").pem();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("it is written");
            path
        };
        let settings = Settings {
            certificate: write("certificate.pem", &pem),
            key: write("key.pem", &key.serialize_pem()),
            client_ca: write("ca.pem", &pem),
        };
        Files { folder, settings }
    }

    #[test]
    fn good_files_make_a_configuration() {
        let config = configure(&files().settings).expect("a configuration");
        assert_eq!(config.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
    }

    #[test]
    fn mistakes_name_the_file_and_what_to_do() {
        let files = files();
        let other = files.folder.path().join("other.pem");
        std::fs::write(&other, KeyPair::generate().expect("a key").serialize_pem()).expect("it is written");
        let missing = files.folder.path().join("missing.pem");
        let good = &files.settings;
        let cases = [
            (Settings { certificate: missing.clone(), ..good.clone() }, "missing.pem cannot be read"),
            (Settings { certificate: good.key.clone(), ..good.clone() }, "key.pem holds no PEM certificate"),
            (Settings { key: good.certificate.clone(), ..good.clone() }, "certificate.pem holds no PEM private key"),
            (Settings { key: other, ..good.clone() }, "cannot be used together"),
            (Settings { client_ca: missing, ..good.clone() }, "the client CA"),
        ];
        for (settings, expected) in cases {
            let error = configure(&settings).expect_err(expected);
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }
}
