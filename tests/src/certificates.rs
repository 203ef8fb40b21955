//! Certificates of every kind a peer can have, good and bad, made afresh for each test.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    SanType, date_time_ymd,
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};
use std::sync::Arc;

/// A certificate authority.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate with its key.
pub struct Leaf {
    /// PEM, leaf first.
    pub chain_pem: String,
    /// PEM, PKCS#8.
    pub key_pem: String,
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
}

impl Authority {
    /// A new authority with a name of its own.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().expect("a key can be made");
        Self { issuer: CertifiedIssuer::self_signed(params, key).expect("an authority signs itself") }
    }

    /// Its certificate, PEM: what an operator registers as a credential of kind `trust`.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Its certificate as the trust of a TLS peer.
    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("a certificate of our own is understood");
        roots
    }

    /// A server's certificate for `names` (host names or addresses).
    pub fn server(&self, names: &[&str]) -> Leaf {
        self.sign(server_params(names))
    }

    /// A server's certificate for `names` that expired in 2020.
    pub fn expired(&self, names: &[&str]) -> Leaf {
        let mut params = server_params(names);
        params.not_before = date_time_ymd(2019, 1, 1);
        params.not_after = date_time_ymd(2020, 1, 1);
        self.sign(params)
    }

    /// A client's certificate with a SPIFFE URI as its subject alternative name.
    pub fn client(&self, spiffe: &str) -> Leaf {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(spiffe.try_into().expect("a URI is ASCII"))];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    fn sign(&self, params: CertificateParams) -> Leaf {
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params.signed_by(&key, &self.issuer).expect("an authority signs");
        Leaf::new(certificate.der().clone(), certificate.pem(), &key)
    }
}

/// A server's certificate that nobody else signed.
pub fn self_signed(names: &[&str]) -> Leaf {
    let key = KeyPair::generate().expect("a key can be made");
    let certificate = server_params(names).self_signed(&key).expect("a certificate signs itself");
    Leaf::new(certificate.der().clone(), certificate.pem(), &key)
}

fn server_params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names are ASCII");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

impl Leaf {
    fn new(certificate: CertificateDer<'static>, chain_pem: String, key: &KeyPair) -> Self {
        Self { chain_pem, key_pem: key.serialize_pem(), chain: vec![certificate], key: key.serialize_der() }
    }

    /// The certificate itself, in DER.
    pub fn der(&self) -> &[u8] {
        self.chain.first().map_or(&[], |certificate| certificate.as_ref())
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.clone()).into()
    }

    /// A server with this certificate that agrees on one of `alpn`.
    pub fn server_config(&self, alpn: &[&str]) -> Arc<ServerConfig> {
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider has the default versions")
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key())
            .expect("certificate and key belong together");
        with_alpn(config, alpn)
    }

    /// A server that speaks nothing newer than TLS 1.2.
    pub fn server_config_of_tls12(&self) -> Arc<ServerConfig> {
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS12])
            .expect("the provider has TLS 1.2")
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key())
            .expect("certificate and key belong together");
        Arc::new(config)
    }

    /// As [`Leaf::server_config`], demanding a certificate that `authority` signed from every client.
    pub fn mutual_server_config(&self, authority: &Authority, alpn: &[&str]) -> Arc<ServerConfig> {
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authority.roots()), provider())
            .build()
            .expect("an authority can verify clients");
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider has the default versions")
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain.clone(), self.key())
            .expect("certificate and key belong together");
        with_alpn(config, alpn)
    }
}

/// A client that believes `authority`, shows `identity` where it has one, and offers `alpn`.
pub fn client_config(authority: &Authority, identity: Option<&Leaf>, alpn: &[&str]) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has the default versions")
        .with_root_certificates(authority.roots());
    let mut config = match identity {
        Some(leaf) => {
            builder.with_client_auth_cert(leaf.chain.clone(), leaf.key()).expect("certificate and key belong together")
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Arc::new(config)
}

fn with_alpn(mut config: ServerConfig, alpn: &[&str]) -> Arc<ServerConfig> {
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Arc::new(config)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
