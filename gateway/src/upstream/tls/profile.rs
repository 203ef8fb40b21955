//! One way of originating TLS: a document, the key material it names, and the configuration made of both.

use super::verify::AnyName;
use crate::credentials::{Credentials, Digest};
use rustls::{
    ClientConfig, RootCertStore,
    client::{ResolvesClientCert, Resumption, WebPkiServerVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    sign::CertifiedKey,
};
use std::{
    cell::Cell,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};
use tidegate_policy::{
    Host, Name,
    credential::Credential,
    service::{Alpn, Protocol, Tls, TlsMode, TlsVersion, Trust},
};

/// Sessions remembered for resumption where a service has a document of its own; their memory is set aside at once (some
/// 8 kB), so it must be small where services are many. A forgotten session costs a full handshake.
pub(super) const SESSIONS: usize = 256;

/// The same for all that share the default: registered hosts without a document, and unregistered ones.
pub(super) const SHARED_SESSIONS: usize = 8192;

/// A way of originating TLS, ready for use.
#[derive(Debug)]
pub struct Profile {
    /// Unique in this process: pools tell connections apart by it, so a changed document or key ends their reuse.
    pub(in crate::upstream) id: u64,
    /// Offers what the port's protocol implies, or the document says.
    pub(super) config: Arc<ClientConfig>,
    /// Offers HTTP/1.1 alone, for upgrades; none where the document does not offer HTTP/1.1.
    pub(super) http1: Option<Arc<ClientConfig>>,
    /// The name sent; none means the requested host.
    pub(super) sni: Option<ServerName<'static>>,
    /// The names of which the certificate must hold one; empty means the name sent.
    pub(super) names: Arc<[ServerName<'static>]>,
}

/// What a profile is made of. Equal keys make interchangeable profiles.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    tls: Tls,
    alpn: Vec<Alpn>,
    /// Digests of the key material named, so that replaced material makes a new profile.
    trust: Option<Digest>,
    certificate: Option<Digest>,
}

impl Key {
    pub(super) fn new(tls: &Tls, protocol: Protocol, credentials: &Credentials) -> Self {
        let alpn = match protocol {
            Protocol::Grpc => vec![Alpn::H2],
            _ if tls.alpn.is_empty() => vec![Alpn::H2, Alpn::Http1],
            _ => tls.alpn.clone(),
        };
        let (trust, certificate) = digests(tls, credentials);
        Self { tls: tls.clone(), alpn, trust, certificate }
    }

    /// Whether the key material it was made with is still what `credentials` hold.
    pub(super) fn holds(&self, credentials: &Credentials) -> bool {
        digests(&self.tls, credentials) == (self.trust, self.certificate)
    }
}

/// The digests of what `tls` is verified by, and of what is shown.
fn digests(tls: &Tls, credentials: &Credentials) -> (Option<Digest>, Option<Digest>) {
    let trust = if let Trust::Credential(name) = &tls.trust { Some(name) } else { None };
    let digest = |name: Option<&Name>| name.and_then(|name| credentials.digest(name.as_str()));
    (digest(trust), digest(tls.certificate.as_ref()))
}

impl Profile {
    /// Makes the configuration. The error is a sentence for the operator, without key material.
    pub(super) fn build(key: &Key, credentials: &Credentials, sessions: usize) -> Result<Self, String> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let provider = provider();
        let roots = match &key.tls.trust {
            Trust::System => system_roots()?,
            Trust::Credential(name) => Arc::new(trust(name, credentials)?),
        };
        let names: Arc<[ServerName<'static>]> = key.tls.names.iter().map(server_name).collect::<Result<_, _>>()?;
        let inner = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
            .build()
            .map_err(|error| format!("the certificates in `tls.trust` cannot be used: {error}"))?;
        let own = match (key.tls.mode, &key.tls.certificate) {
            (TlsMode::Mutual, Some(name)) => Some(certificate(name, credentials, &provider)?),
            (TlsMode::Mutual, None) => return Err("`tls.mode` is mutual and `tls.certificate` names no credential".to_owned()),
            _ => None,
        };
        let versions: &[&rustls::SupportedProtocolVersion] = match key.tls.min_version {
            TlsVersion::V1_2 => &[&rustls::version::TLS13, &rustls::version::TLS12],
            TlsVersion::V1_3 => &[&rustls::version::TLS13],
        };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(|error| format!("no TLS version can be spoken: {error}"))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyName { inner, names: Arc::clone(&names) }))
            .with_client_cert_resolver(Arc::new(OwnCertificate(own)));
        config.resumption = Resumption::in_memory_sessions(sessions);
        let http1 = key.alpn.contains(&Alpn::Http1).then(|| {
            let mut only = config.clone();
            only.alpn_protocols = vec![b"http/1.1".to_vec()];
            Arc::new(only)
        });
        config.alpn_protocols = key
            .alpn
            .iter()
            .map(|protocol| match protocol {
                Alpn::H2 => b"h2".to_vec(),
                Alpn::Http1 => b"http/1.1".to_vec(),
            })
            .collect();
        let sni = key.tls.sni.as_ref().map(server_name).transpose()?;
        Ok(Self { id: NEXT.fetch_add(1, Ordering::Relaxed), config: Arc::new(config), http1, sni, names })
    }
}

impl Profile {
    /// Whether HTTP/2 is among the protocols offered.
    pub(in crate::upstream) fn offers_h2(&self) -> bool {
        self.config.alpn_protocols.iter().any(|protocol| protocol == b"h2")
    }
}

/// The one crypto provider, made once.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));
    Arc::clone(&PROVIDER)
}

/// The operating system's trust store, read once per process.
fn system_roots() -> Result<Arc<RootCertStore>, String> {
    static ROOTS: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
        let loaded = rustls_native_certs::load_native_certs();
        for error in &loaded.errors {
            tracing::warn!(%error, "a part of the system's trust store cannot be read");
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(loaded.certs);
        Arc::new(roots)
    });
    if ROOTS.is_empty() {
        return Err("the system's trust store is empty: install the ca-certificates package (or set SSL_CERT_FILE), \
                    or name a trust credential in `tls.trust`"
            .to_owned());
    }
    Ok(Arc::clone(&ROOTS))
}

fn trust(name: &Name, credentials: &Credentials) -> Result<RootCertStore, String> {
    let Some(Credential::Trust { pem }) = credentials.find(name.as_str()) else {
        return Err(format!("there is no credential {name} of kind trust: create it, or change `tls.trust`"));
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(name, pem)? {
        roots
            .add(certificate)
            .map_err(|error| format!("credential {name} holds a certificate that cannot be a root: {error}"))?;
    }
    Ok(roots)
}

fn certificate(name: &Name, credentials: &Credentials, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, String> {
    let Some(Credential::Certificate { chain, key }) = credentials.find(name.as_str()) else {
        return Err(format!("there is no credential {name} of kind certificate: create it, or change `tls.certificate`"));
    };
    let key = PrivateKeyDer::from_pem_slice(key.reveal().as_bytes())
        .map_err(|_| format!("the key of credential {name} is not a PEM private key: upload it again"))?;
    CertifiedKey::from_der(certificates(name, chain)?, key, provider).map(Arc::new).map_err(|error| {
        format!("credential {name} cannot be used ({error}): check that its key belongs to its first certificate")
    })
}

fn certificates(name: &Name, pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match parsed {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) | Err(_) => Err(format!("credential {name} holds no PEM certificate: upload it again")),
    }
}

/// `host` as rustls has it.
pub(super) fn server_name(host: &Host) -> Result<ServerName<'static>, String> {
    match host {
        Host::Address(ip) => Ok(ServerName::IpAddress((*ip).into())),
        Host::Name(name) => {
            ServerName::try_from(name.to_string()).map_err(|_| format!("{name} cannot stand in a certificate: set `tls.sni`"))
        }
    }
}

thread_local! {
    /// Whether the handshake that is being driven on this thread was asked for a client certificate.
    static ASKED: Cell<bool> = const { Cell::new(false) };
}

/// Whether a client certificate was asked for since the last call.
pub(super) fn take_asked() -> bool {
    ASKED.take()
}

/// The client certificate, or the lack of one. Notes when it is asked for.
#[derive(Debug)]
struct OwnCertificate(Option<Arc<CertifiedKey>>);

impl ResolvesClientCert for OwnCertificate {
    fn resolve(&self, _root_hints: &[&[u8]], schemes: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let own = self.0.as_ref().filter(|own| own.key.choose_scheme(schemes).is_some()).cloned();
        ASKED.set(own.is_none());
        own
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}
