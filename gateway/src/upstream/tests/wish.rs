//! What filters chose, over real sockets: whose certificate is shown on which connection, and which endpoint is dialled.

use super::{
    dns,
    fixture::{self, local, name, request},
    tls::{Server, authority, service, trusting},
};
use crate::{
    fault::Fault,
    live::Live,
    upstream::{
        Connection, Upstreams, Wish,
        wish::{Terms, TlsSettings},
    },
};
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use std::{cell::RefCell, collections::BTreeMap, net::SocketAddr, rc::Rc, sync::Arc};
use tidegate_policy::{Name, Permit, Reason, credential::Credential, grants::Grants, service::TlsMode, target::Form};

type Credentials = BTreeMap<Name, Arc<Credential>>;
type Shown = Rc<RefCell<Vec<Option<CertificateDer<'static>>>>>;

/// What a filter that is granted everything here wishes with `make`.
fn wish(live: &Live, permit: &Permit, make: impl FnOnce(&mut Wish, &Terms<'_>)) -> Wish {
    let grants = json!({"endpoints": true, "credentials": ["a", "b"], "loosen_tls": true});
    let grants: Grants = serde_json::from_value(grants).expect("grants");
    let mut wish = Wish::default();
    make(&mut wish, &Terms { snapshot: &live.snapshot, credentials: &live.credentials, permit, grants: &grants });
    wish
}

fn showing(certificate: &str) -> TlsSettings {
    TlsSettings { mode: Some(TlsMode::Mutual), certificate: Some(certificate.to_owned()), ..TlsSettings::default() }
}

/// Connects as an exchange whose filter had this tenant's certificate shown; as one without a filter where none is named.
async fn connect(upstreams: &Upstreams, live: &Live, address: SocketAddr, tenant: Option<&str>) -> Result<Connection, Fault> {
    let permit = fixture::decide(live, Form::Plain, "api.example", address.port());
    let originate = |tenant| wish(live, &permit, |wish, terms| wish.originate_tls(&showing(tenant), terms).expect("granted"));
    let wish = tenant.map(originate);
    upstreams.connect(live, &permit, &request(), wish.as_ref()).await
}

/// The certificate of connection `at`, once its server has seen it.
async fn shown(seen: &Shown, at: usize) -> Option<CertificateDer<'static>> {
    while seen.borrow().len() <= at {
        tokio::task::yield_now().await;
    }
    seen.borrow()[at].clone()
}

#[tokio::test]
async fn a_tenants_certificate_serves_no_other_tenant() {
    local(async {
        let (ca, clients) = (authority("Test CA"), authority("Client CA"));
        let mut credentials: Credentials = trusting(&ca);
        let mut certificates = Vec::new();
        for tenant in ["a", "b"] {
            let (certificate, key) = clients.issue(&[&format!("{tenant}.example")], |_| {});
            certificates.push(certificate.der().clone());
            let own = Credential::Certificate { chain: certificate.pem(), key: key.serialize_pem().into() };
            credentials.insert(name(tenant), Arc::new(own));
        }
        let [a, b] = [certificates[0].clone(), certificates[1].clone()].map(Some);
        let versions: [&[&rustls::SupportedProtocolVersion]; 2] = [&[&rustls::version::TLS12], &[&rustls::version::TLS13]];
        for (alpn, versions) in [b"http/1.1".as_slice(), b"h2"].into_iter().zip(versions) {
            let offered = [alpn];
            let server = Server { clients: Some(&clients), alpn: &offered, versions, ..Server::new(&ca, &["api.example"]) };
            let (address, seen) = (server.start().await, Rc::clone(&server.shown));
            let dns = dns::serve(&["127.0.0.1"]).await;
            let upstreams = fixture::upstreams(dns.address, |_| {});
            let document = service(address, &json!({"mode": "simple", "trust": "ca"}));
            let live = fixture::live(&document, &credentials, &Live::default());

            let first = connect(&upstreams, &live, address, Some("a")).await.expect("a connection");
            assert!(!first.facts.reused);
            first.release();
            assert_eq!(shown(&seen, 0).await, a);
            let other = connect(&upstreams, &live, address, Some("b")).await.expect("a connection");
            assert!(!other.facts.reused, "the idle one is another tenant's");
            other.release();
            assert_eq!(shown(&seen, 1).await, b);
            let nobody = connect(&upstreams, &live, address, None).await;
            assert!(
                !nobody.is_ok_and(|nobody| nobody.facts.reused),
                "an exchange without a wish shows no tenant's certificate"
            );
            for tenant in ["a", "b"] {
                let again = connect(&upstreams, &live, address, Some(tenant)).await.expect("a connection");
                assert!(again.facts.reused, "{tenant} has one of its own");
                again.release();
            }

            // A change elsewhere ends nothing; another certificate under the same name ends the reuse.
            let next = fixture::live(&document, &credentials, &live);
            assert!(connect(&upstreams, &next, address, Some("a")).await.expect("a connection").facts.reused);
            let mut replaced = credentials.clone();
            replaced.insert(name("a"), Arc::clone(&credentials[&name("b")]));
            let next = fixture::live(&document, &replaced, &next);
            let before = seen.borrow().len();
            assert!(!connect(&upstreams, &next, address, Some("a")).await.expect("a connection").facts.reused);
            assert_eq!(shown(&seen, before).await, b, "the new certificate is shown");
        }
    })
    .await;
}

#[tokio::test]
async fn a_tenants_session_is_resumed_by_no_other_tenant() {
    local(async {
        let (ca, clients) = (authority("Test CA"), authority("Client CA"));
        let mut credentials: Credentials = trusting(&ca);
        for tenant in ["a", "b"] {
            let (certificate, key) = clients.issue(&[&format!("{tenant}.example")], |_| {});
            let own = Credential::Certificate { chain: certificate.pem(), key: key.serialize_pem().into() };
            credentials.insert(name(tenant), Arc::new(own));
        }
        let versions: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12];
        let server = Server { clients: Some(&clients), versions, ..Server::new(&ca, &["api.example"]) };
        let address = server.start().await;
        let dns = dns::serve(&["127.0.0.1"]).await;
        let upstreams = fixture::upstreams(dns.address, |_| {});
        let live = fixture::live(&service(address, &json!({"mode": "simple", "trust": "ca"})), &credentials, &Live::default());
        let metrics = &upstreams.shared.metrics;
        let handshakes = || (metrics.handshakes_full.value(), metrics.handshakes_resumed.value());
        for (tenant, expected) in [("a", (1, 0)), ("b", (2, 0)), ("a", (2, 1)), ("b", (2, 2))] {
            drop(connect(&upstreams, &live, address, Some(tenant)).await.expect("a connection"));
            assert_eq!(handshakes(), expected, "{tenant}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_wish_for_what_is_registered_shares_what_is_there() {
    local(async {
        let ca = authority("Test CA");
        let address = Server::new(&ca, &["api.example"]).start().await;
        let dns = dns::serve(&["127.0.0.1"]).await;
        let upstreams = fixture::upstreams(dns.address, |_| {});
        let document = service(address, &json!({"mode": "simple", "trust": "ca"}));
        let live = fixture::live(&document, &trusting(&ca), &Live::default());
        connect(&upstreams, &live, address, None).await.expect("a connection").release();
        let permit = fixture::decide(&live, Form::Plain, "api.example", address.port());
        let same = TlsSettings { mode: Some(TlsMode::Simple), ..TlsSettings::default() };
        let same = wish(&live, &permit, |wish, terms| wish.originate_tls(&same, terms).expect("nothing changes"));
        let connection = upstreams.connect(&live, &permit, &request(), Some(&same)).await.expect("a connection");
        assert!(connection.facts.reused);
        connection.release();
        let stricter = TlsSettings { names: Some(vec!["other.example".to_owned()]), ..TlsSettings::default() };
        let stricter = wish(&live, &permit, |wish, terms| wish.originate_tls(&stricter, terms).expect("it is granted"));
        let fault = upstreams.connect(&live, &permit, &request(), Some(&stricter)).await.err().expect("another name");
        assert_eq!(fault.reason(), Reason::TlsFailed);
        assert!(fault.detail().contains("not for other.example"), "{fault}");
    })
    .await;
}

fn spread(addresses: &[SocketAddr], networks: &Value) -> Value {
    let endpoint = |address: &SocketAddr| json!({"address": address.ip(), "port": address.port()});
    let endpoints: Vec<Value> = addresses.iter().map(endpoint).collect();
    json!({"hosts": ["api.example"], "ports": [{"number": 80, "protocol": "http"}], "resolution": "static",
        "endpoints": endpoints, "networks": networks})
}

#[tokio::test]
async fn the_endpoint_that_was_chosen_is_the_one_dialled() {
    local(async {
        let ((_one, one), (_other, other)) = (fixture::listen().await, fixture::listen().await);
        let closed = fixture::closed_port();
        let upstreams = fixture::upstreams(fixture::closed_port(), |_| {});
        let document = spread(&[one, other, closed], &json!(["127.0.0.0/8"]));
        let (live, permit) = fixture::plain(&document, "api.example");
        let at = |live: &Live, address: SocketAddr| {
            wish(live, &permit, |wish, terms| {
                wish.select_endpoint(&address.ip().to_string(), address.port(), terms).expect("it is registered");
            })
        };
        for address in [one, other, one, one, other, other] {
            let wish = at(&live, address);
            let connection = upstreams.connect(&live, &permit, &request(), Some(&wish)).await.expect("a connection");
            assert_eq!(connection.facts.address, address);
            connection.release();
        }
        let fault = upstreams.connect(&live, &permit, &request(), Some(&at(&live, closed))).await.err().expect("it is closed");
        assert_eq!(fault.reason(), Reason::ConnectFailed, "no other endpoint is tried in its place: {fault}");
        assert_eq!(fault.reached().and_then(|reached| reached.address), Some(closed));

        let (live, permit) = fixture::plain(&spread(&[one, other], &json!([])), "api.example");
        let wish = wish(&live, &permit, |wish, terms| {
            wish.select_endpoint(&one.ip().to_string(), one.port(), terms).expect("it is registered");
        });
        let fault = upstreams.connect(&live, &permit, &request(), Some(&wish)).await.err().expect("it is guarded");
        assert_eq!(fault.reason(), Reason::AddressRefused, "{fault}");
        let (live, permit) = fixture::plain(
            &json!({"hosts": ["api.example"], "ports": [{"number": 80, "protocol": "http"}], "networks": ["127.0.0.0/8"]}),
            "api.example",
        );
        let fault = upstreams.connect(&live, &permit, &request(), Some(&wish)).await.err().expect("it has no such endpoint");
        assert_eq!(fault.reason(), Reason::Internal, "{fault}");
    })
    .await;
}

#[tokio::test]
async fn plaintext_that_was_chosen_is_kept_apart_from_tls() {
    local(async {
        let ca = authority("Test CA");
        let address = Server::new(&ca, &["api.example"]).start().await;
        let dns = dns::serve(&["127.0.0.1"]).await;
        let upstreams = fixture::upstreams(dns.address, |_| {});
        let document = service(address, &json!({"mode": "simple", "trust": "ca"}));
        let live = fixture::live(&document, &trusting(&ca), &Live::default());
        let permit = fixture::decide(&live, Form::Plain, "api.example", address.port());
        let clear = TlsSettings { mode: Some(TlsMode::Disabled), ..TlsSettings::default() };
        let clear = wish(&live, &permit, |wish, terms| wish.originate_tls(&clear, terms).expect("it is granted"));
        let connection = upstreams.connect(&live, &permit, &request(), Some(&clear)).await.expect("a connection");
        assert_eq!((connection.facts.tls_peer.as_deref(), connection.facts.protocol), (None, "HTTP/1.1"));
        connection.release();
        let encrypted = connect(&upstreams, &live, address, None).await.expect("a connection");
        assert!(!encrypted.facts.reused && encrypted.facts.tls_peer.is_some());
        encrypted.release();
        let connection = upstreams.connect(&live, &permit, &request(), Some(&clear)).await.expect("a connection");
        assert!(connection.facts.reused && connection.facts.tls_peer.is_none());
    })
    .await;
}
