//! Origination against real rustls servers with certificates made for the test.

use super::{
    dns,
    fixture::{self, local, name, request},
};
use crate::{
    fault::Fault,
    live::Live,
    upstream::{Connection, Upstreams, tls::provider},
};
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
};
use serde_json::{Value, json};
use std::{cell::RefCell, collections::BTreeMap, net::SocketAddr, rc::Rc, sync::Arc};
use tidegate_policy::{Name, Reason, credential::Credential, target::Form};
use tokio_rustls::TlsAcceptor;

pub(super) struct Authority {
    pub(super) pem: String,
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

pub(super) fn authority(common_name: &str) -> Authority {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let mut subject = DistinguishedName::new();
    subject.push(rcgen::DnType::CommonName, common_name);
    params.distinguished_name = subject;
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    Authority { pem: certificate.pem(), der: certificate.der().clone(), issuer: Issuer::new(params, key) }
}

impl Authority {
    pub(super) fn issue(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> (rcgen::Certificate, KeyPair) {
        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).expect("parameters");
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        (params.signed_by(&key, &self.issuer).expect("a certificate"), key)
    }
}

pub(super) struct Server<'a> {
    pub(super) authority: &'a Authority,
    pub(super) names: &'a [&'a str],
    pub(super) alpn: &'a [&'a [u8]],
    pub(super) clients: Option<&'a Authority>,
    pub(super) expired: bool,
    pub(super) versions: &'a [&'static rustls::SupportedProtocolVersion],
    /// The client certificate of each connection, in order; none where none was shown.
    pub(super) shown: Rc<RefCell<Vec<Option<CertificateDer<'static>>>>>,
}

impl<'a> Server<'a> {
    pub(super) fn new(authority: &'a Authority, names: &'a [&'a str]) -> Self {
        let versions = rustls::ALL_VERSIONS;
        Self { authority, names, alpn: &[], clients: None, expired: false, versions, shown: Rc::default() }
    }

    /// Accepts and keeps connections open until the test ends.
    pub(super) async fn start(&self) -> SocketAddr {
        let (certificate, key) = self.authority.issue(self.names, |params| {
            if self.expired {
                params.not_before = date_time_ymd(2020, 1, 1);
                params.not_after = date_time_ymd(2021, 1, 1);
            }
        });
        let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(self.versions).expect("versions");
        let builder = match self.clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let mut roots = RootCertStore::empty();
                roots.add(clients.der.clone()).expect("a root");
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build().expect("a verifier");
                builder.with_client_cert_verifier(verifier)
            }
        };
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let mut config = builder.with_single_cert(vec![certificate.der().clone()], key).expect("a configuration");
        config.alpn_protocols = self.alpn.iter().map(|protocol| protocol.to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (listener, address) = fixture::listen().await;
        let shown = Rc::clone(&self.shown);
        tokio::task::spawn_local(async move {
            loop {
                let (tcp, _) = listener.accept().await.expect("a connection");
                let (acceptor, shown) = (acceptor.clone(), Rc::clone(&shown));
                tokio::task::spawn_local(async move {
                    if let Ok(mut stream) = acceptor.accept(tcp).await {
                        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first().cloned());
                        shown.borrow_mut().push(certificate);
                        let mut byte = [0; 1];
                        while tokio::io::AsyncReadExt::read(&mut stream, &mut byte).await.is_ok_and(|read| read > 0) {}
                    }
                });
            }
        });
        address
    }
}

pub(super) fn service(address: SocketAddr, tls: &Value) -> Value {
    json!({"hosts": ["api.example"], "ports": [{"number": address.port(), "protocol": "https"}], "networks": ["127.0.0.0/8"], "tls": tls})
}

pub(super) fn trusting(authority: &Authority) -> BTreeMap<Name, Arc<Credential>> {
    BTreeMap::from([(name("ca"), Arc::new(Credential::Trust { pem: authority.pem.clone() }))])
}

async fn connect(upstreams: &Upstreams, live: &Live, address: SocketAddr) -> Result<Connection, Fault> {
    let permit = fixture::decide(live, Form::Plain, "api.example", address.port());
    upstreams.connect(live, &permit, &request(), None).await
}

/// Connects to `server` with the given document; `ca` is its authority.
async fn once(server: &Server<'_>, tls: &Value) -> Result<Connection, Fault> {
    let address = server.start().await;
    let dns = dns::serve(&["127.0.0.1"]).await;
    let upstreams = fixture::upstreams(dns.address, |_| {});
    let live = fixture::live(&service(address, tls), &trusting(server.authority), &Live::default());
    connect(&upstreams, &live, address).await
}

fn sentence(outcome: Result<Connection, Fault>) -> String {
    let fault = outcome.err().expect("no connection");
    assert_eq!(fault.reason(), Reason::TlsFailed, "{fault}");
    if let Some(reached) = fault.reached() {
        assert!(reached.address.is_some() && reached.connect.is_some(), "{reached:?}");
    }
    fault.detail().to_owned()
}

#[tokio::test]
async fn the_requested_host_is_verified_and_named() {
    local(async {
        let ca = authority("Test CA");
        let server = Server { alpn: &[b"http/1.1"], ..Server::new(&ca, &["api.example"]) };
        let facts = once(&server, &json!({"mode": "simple", "trust": "ca"})).await.expect("a connection").facts;
        assert_eq!(
            (facts.tls_version, facts.tls_peer.as_deref(), facts.protocol),
            (Some("TLSv1.3"), Some("api.example"), "HTTP/1.1")
        );
        assert!(facts.handshake.is_some() && facts.connect.is_some() && facts.resolve.is_some());
        let server = Server { alpn: &[b"h2"], versions: &[&rustls::version::TLS12], ..server };
        let facts = once(&server, &json!({"mode": "simple", "trust": "ca"})).await.expect("a connection").facts;
        assert_eq!((facts.tls_version, facts.protocol), (Some("TLSv1.2"), "HTTP/2"));
    })
    .await;
}

#[tokio::test]
async fn bad_certificates_are_said_apart() {
    local(async {
        let (ca, other) = (authority("Test CA"), authority("Other CA"));
        let simple = json!({"mode": "simple", "trust": "ca"});
        let wrong_name = sentence(once(&Server::new(&ca, &["else.example"]), &simple).await);
        assert!(wrong_name.contains("not for api.example") && wrong_name.contains("else.example"), "{wrong_name}");
        let expired = sentence(once(&Server { expired: true, ..Server::new(&ca, &["api.example"]) }, &simple).await);
        assert!(expired.contains("expired"), "{expired}");

        let address = Server::new(&other, &["api.example"]).start().await;
        let dns = dns::serve(&["127.0.0.1"]).await;
        let upstreams = fixture::upstreams(dns.address, |_| {});
        let live = fixture::live(&service(address, &simple), &trusting(&ca), &Live::default());
        let unknown = sentence(connect(&upstreams, &live, address).await);
        assert!(unknown.contains("unknown issuer"), "{unknown}");
        assert_eq!(upstreams.shared.metrics.handshakes_failed.value(), 1);
        assert_eq!(upstreams.shared.metrics.connections_open.value(), 0);
    })
    .await;
}

#[tokio::test]
async fn one_of_several_names_suffices_and_is_the_one_named() {
    local(async {
        let ca = authority("Test CA");
        let server = Server::new(&ca, &["b.example"]);
        let tls = json!({"mode": "simple", "trust": "ca", "sni": "b.example", "names": ["a.example", "b.example"]});
        let facts = once(&server, &tls).await.expect("a connection").facts;
        assert_eq!(facts.tls_peer.as_deref(), Some("b.example"));
        let tls = json!({"mode": "simple", "trust": "ca", "names": ["a.example", "c.example"]});
        let wrong = sentence(once(&server, &tls).await);
        assert!(wrong.contains("a.example or c.example"), "{wrong}");
    })
    .await;
}

#[tokio::test]
async fn client_certificates_are_shown_where_mutual_and_missed_where_not() {
    local(async {
        let (ca, clients) = (authority("Test CA"), authority("Client CA"));
        let (certificate, key) = clients.issue(&["gateway.example"], |_| {});
        let mut credentials = trusting(&ca);
        let own = Credential::Certificate { chain: certificate.pem(), key: key.serialize_pem().into() };
        credentials.insert(name("own"), Arc::new(own));
        let tls12: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12];
        let server = Server { clients: Some(&clients), ..Server::new(&ca, &["api.example"]) };
        let address = server.start().await;
        let dns = dns::serve(&["127.0.0.1"]).await;
        let upstreams = fixture::upstreams(dns.address, |_| {});
        let mutual = json!({"mode": "mutual", "trust": "ca", "certificate": "own"});
        let live = fixture::live(&service(address, &mutual), &credentials, &Live::default());
        connect(&upstreams, &live, address).await.expect("a connection");

        // With TLS 1.3 the server refuses after the handshake, when the request is under way.
        let connection = once(&server, &json!({"mode": "simple", "trust": "ca"})).await.expect("a connection so far");
        let late = connection.send(&mut request()).await.expect_err("refused");
        assert_eq!(late.reason(), Reason::TlsFailed, "{late}");
        assert!(late.detail().contains("demands a client certificate"), "{late}");

        let server = Server { versions: tls12, ..server };
        let missing = sentence(once(&server, &json!({"mode": "simple", "trust": "ca"})).await);
        assert!(missing.contains("demands a client certificate"), "{missing}");
    })
    .await;
}

#[tokio::test]
async fn min_version_and_protocol_mismatches_are_explained() {
    local(async {
        let ca = authority("Test CA");
        let server = Server { versions: &[&rustls::version::TLS12], ..Server::new(&ca, &["api.example"]) };
        let old = sentence(once(&server, &json!({"mode": "simple", "trust": "ca", "min_version": "1.3"})).await);
        assert!(old.contains("min_version"), "{old}");
        let server = Server { alpn: &[b"h2"], ..Server::new(&ca, &["api.example"]) };
        let alpn = sentence(once(&server, &json!({"mode": "simple", "trust": "ca", "alpn": ["http/1.1"]})).await);
        assert!(alpn.contains("tls.alpn"), "{alpn}");
    })
    .await;
}

#[tokio::test]
async fn what_did_not_change_is_shared_and_what_did_ends_reuse() {
    local(async {
        let ca = authority("Test CA");
        let address = Server::new(&ca, &["api.example"]).start().await;
        let dns = dns::serve(&["127.0.0.1"]).await;
        let upstreams = fixture::upstreams(dns.address, |_| {});
        let metrics = &upstreams.shared.metrics;
        let simple = service(address, &json!({"mode": "simple", "trust": "ca"}));
        let first = fixture::live(&simple, &trusting(&ca), &Live::default());
        connect(&upstreams, &first, address).await.expect("a connection").release();
        let same = fixture::live(&simple, &trusting(&ca), &first);
        let again = connect(&upstreams, &same, address).await.expect("a connection");
        assert!(again.facts.reused && again.facts.tls_peer.is_some());
        again.release();
        let changed = service(address, &json!({"mode": "simple", "trust": "ca", "min_version": "1.3"}));
        let changed = fixture::live(&changed, &trusting(&ca), &same);
        assert!(!connect(&upstreams, &changed, address).await.expect("a connection").facts.reused);
        assert_eq!(metrics.handshakes_full.value(), 2, "another document, another session store");

        let other = authority("Other CA");
        let replaced = fixture::live(&simple, &trusting(&other), &changed);
        assert!(sentence(connect(&upstreams, &replaced, address).await).contains("unknown issuer"));
    })
    .await;
}

#[tokio::test]
async fn an_unusable_credential_refuses_its_own_service_alone() {
    local(async {
        let credentials = BTreeMap::from([(name("ca"), Arc::new(Credential::Trust { pem: "nonsense".to_owned() }))]);
        let address = fixture::closed_port();
        let dns = dns::serve(&["127.0.0.1"]).await;
        let upstreams = fixture::upstreams(dns.address, |_| {});
        let live = fixture::live(&service(address, &json!({"mode": "simple", "trust": "ca"})), &credentials, &Live::default());
        let why = sentence(connect(&upstreams, &live, address).await);
        assert!(why.contains("credential ca"), "{why}");
        assert_eq!(upstreams.shared.metrics.connect_attempts.value(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_server_that_does_not_speak_tls_is_said_so() {
    local(async {
        let (listener, address) = fixture::listen().await;
        tokio::task::spawn_local(async move {
            while let Ok((mut tcp, _)) = listener.accept().await {
                tokio::io::AsyncWriteExt::write_all(&mut tcp, b"HTTP/1.1 400 Bad Request\r\n\r\n").await.expect("it is sent");
            }
        });
        let ca = authority("Test CA");
        let dns = dns::serve(&["127.0.0.1"]).await;
        let upstreams = fixture::upstreams(dns.address, |_| {});
        let live =
            fixture::live(&service(address, &json!({"mode": "simple", "trust": "ca"})), &trusting(&ca), &Live::default());
        let why = sentence(connect(&upstreams, &live, address).await);
        assert!(why.contains("does not speak TLS"), "{why}");
    })
    .await;
}

#[tokio::test]
async fn a_client_certificate_that_is_refused_after_the_handshake_is_a_failure_of_tls() {
    local(async {
        let (ca, clients, strangers) = (authority("Test CA"), authority("Client CA"), authority("Other CA"));
        let (certificate, key) = strangers.issue(&["gateway.example"], |_| {});
        let mut credentials = trusting(&ca);
        let own = Credential::Certificate { chain: certificate.pem(), key: key.serialize_pem().into() };
        credentials.insert(name("own"), Arc::new(own));
        let missing = json!({"mode": "simple", "trust": "ca"});
        let wrong = json!({"mode": "mutual", "trust": "ca", "certificate": "own"});
        for alpn in [b"http/1.1".as_slice(), b"h2"] {
            for (document, expected) in [(&missing, "demands a client certificate"), (&wrong, "refused the gateway's client")] {
                let server = Server { clients: Some(&clients), alpn: &[alpn], ..Server::new(&ca, &["api.example"]) };
                let address = server.start().await;
                let dns = dns::serve(&["127.0.0.1"]).await;
                let upstreams = fixture::upstreams(dns.address, |_| {});
                let live = fixture::live(&service(address, document), &credentials, &Live::default());
                for body in ["", "some"] {
                    let connection = connect(&upstreams, &live, address).await.expect("a connection so far");
                    let body = crate::http::body::Body::full(bytes::Bytes::from(body));
                    let request = ::http::Request::post("/").header("host", "api.example").body(body);
                    let fault = connection.send(&mut request.expect("a request")).await.expect_err("refused");
                    assert_eq!(fault.reason(), Reason::TlsFailed, "{fault}");
                    assert!(fault.detail().contains(expected), "{fault}");
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn banners_are_not_tls_and_silence_is_a_timeout() {
    local(async {
        let ca = authority("Test CA");
        let dns = dns::serve(&["127.0.0.1"]).await;
        let banners: [&'static [u8]; 3] = [b"SSH-2.0-server\r\n", b"220 mail.example ESMTP\r\n", b"\x4a\0\0\0\x0a8.0.36\0"];
        for banner in banners {
            let (listener, address) = fixture::listen().await;
            tokio::task::spawn_local(async move {
                let (mut tcp, _) = listener.accept().await.expect("a connection");
                tokio::io::AsyncWriteExt::write_all(&mut tcp, banner).await.expect("it is sent");
                std::future::pending::<()>().await;
            });
            let upstreams = fixture::upstreams(dns.address, |_| {});
            let tls = json!({"mode": "simple", "trust": "ca"});
            let live = fixture::live(&service(address, &tls), &trusting(&ca), &Live::default());
            let why = sentence(connect(&upstreams, &live, address).await);
            assert!(why.contains("does not speak TLS"), "{why}");
        }
        let (_listener, address) = fixture::listen().await;
        let limit = std::time::Duration::from_millis(50);
        let upstreams = fixture::upstreams(dns.address, |settings| settings.handshake_timeout = limit);
        let live =
            fixture::live(&service(address, &json!({"mode": "simple", "trust": "ca"})), &trusting(&ca), &Live::default());
        let fault = connect(&upstreams, &live, address).await.err().expect("silence");
        assert_eq!(fault.reason(), Reason::Timeout, "{fault}");
    })
    .await;
}

#[tokio::test]
async fn sessions_resume_and_outlive_a_publication_that_changes_a_rule() {
    local(async {
        let ca = authority("Test CA");
        let server = Server { versions: &[&rustls::version::TLS12], ..Server::new(&ca, &["api.example"]) };
        let address = server.start().await;
        let dns = dns::serve(&["127.0.0.1"]).await;
        let upstreams = fixture::upstreams(dns.address, |_| {});
        let metrics = &upstreams.shared.metrics;
        let document = service(address, &json!({"mode": "simple", "trust": "ca"}));
        let before = fixture::live(&document, &trusting(&ca), &Live::default());
        drop(connect(&upstreams, &before, address).await.expect("a connection"));
        let kept = connect(&upstreams, &before, address).await.expect("a connection");
        assert_eq!((metrics.handshakes_full.value(), metrics.handshakes_resumed.value()), (1, 1));
        kept.release();

        let rule = json!({"action": "allow", "to": [{"methods": ["GET", "CONNECT"]}]});
        let after = fixture::live_with(&document, &rule, &trusting(&ca), &before);
        assert!(!Arc::ptr_eq(&before.snapshot, &after.snapshot));
        let pooled = connect(&upstreams, &after, address).await.expect("a connection");
        assert!(pooled.facts.reused, "the pool is kept");
        drop(connect(&upstreams, &after, address).await.expect("a second connection"));
        assert_eq!((metrics.handshakes_full.value(), metrics.handshakes_resumed.value()), (1, 2), "and so are the sessions");
    })
    .await;
}

#[tokio::test]
async fn a_cold_start_shares_the_connections_that_are_being_made() {
    local(async {
        let ca = authority("Test CA");
        let server = Server { alpn: &[b"h2"], ..Server::new(&ca, &["api.example"]) };
        let address = server.start().await;
        let dns = dns::serve(&["127.0.0.1"]).await;
        let upstreams = fixture::upstreams(dns.address, |settings| settings.streams_per_connection = 100);
        let live =
            fixture::live(&service(address, &json!({"mode": "simple", "trust": "ca"})), &trusting(&ca), &Live::default());
        let all = (0..1000).map(|_| connect(&upstreams, &live, address));
        let connections: Vec<Connection> =
            futures_util::future::join_all(all).await.into_iter().map(|made| made.expect("a stream")).collect();
        let metrics = &upstreams.shared.metrics;
        assert_eq!((metrics.connect_attempts.value(), metrics.connections_open.value()), (10, 10));
        assert!(connections.iter().all(|connection| connection.facts.protocol == "HTTP/2"));

        let server = Server { alpn: &[b"http/1.1"], ..server };
        let address = server.start().await;
        let live = fixture::live(&service(address, &json!({"mode": "simple", "trust": "ca"})), &trusting(&ca), &live);
        let all = (0..10).map(|_| connect(&upstreams, &live, address));
        for made in futures_util::future::join_all(all).await {
            assert_eq!(made.expect("a connection").facts.protocol, "HTTP/1.1", "each has its own");
        }
    })
    .await;
}

#[tokio::test]
async fn who_waits_for_an_attempt_is_woken_when_it_is_abandoned() {
    local(async {
        let ca = authority("Test CA");
        let (_silent, address) = fixture::listen().await;
        let dns = dns::serve(&["127.0.0.1"]).await;
        let upstreams = Rc::new(fixture::upstreams(dns.address, |_| {}));
        let tls = json!({"mode": "simple", "trust": "ca"});
        let live = Rc::new(fixture::live(&service(address, &tls), &trusting(&ca), &Live::default()));
        let attempts = |upstreams: &Upstreams| upstreams.shared.metrics.connect_attempts.value();
        let start = || {
            let (upstreams, live) = (Rc::clone(&upstreams), Rc::clone(&live));
            tokio::task::spawn_local(async move { connect(&upstreams, &live, address).await.map(drop) })
        };
        let leader = start();
        while upstreams.shared.metrics.connections_open.value() == 0 || attempts(&upstreams) == 0 {
            tokio::task::yield_now().await;
        }
        let waiting = [start(), start()];
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(attempts(&upstreams), 1, "two wait for the first");
        leader.abort();
        while attempts(&upstreams) < 2 {
            tokio::task::yield_now().await;
        }
        waiting.iter().for_each(tokio::task::JoinHandle::abort);
    })
    .await;
}
