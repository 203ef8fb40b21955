//! What filters chose for the way out, on whole requests: secrets that are injected, and services that are decided again.

use super::*;
use crate::{
    fault::Fault,
    http::{Request, body::Body, deliver::Delivery, detour, downstream::Pace},
    record::OpenRecord,
    upstream::{Wish, tls::provider, wish::Terms},
};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tidegate_policy::{Identity, Permit, Reason, credential::Credential, grants::Grants};
use tokio_rustls::TlsAcceptor;

const SECRET: &str = "s3cret-of-the-api";

/// An API over TLS that answers each request with its head. Each connection of `drops` is closed after its first request
/// was read, without an answer.
async fn encrypted(drops: usize) -> (SocketAddr, String) {
    let made = rcgen::generate_simple_self_signed(["api.example".to_owned(), "far.example".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        let mut connections = 0;
        while let Ok((socket, _)) = listener.accept().await {
            let (acceptor, dropped) = (acceptor.clone(), connections < drops);
            connections += 1;
            tokio::task::spawn_local(async move {
                let Ok(mut socket) = acceptor.accept(socket).await else { return };
                let mut heard = Vec::new();
                while socket.read_buf(&mut heard).await.is_ok_and(|count| count > 0) {
                    if let Some(end) = heard.windows(4).position(|window| window == b"\r\n\r\n") {
                        if dropped {
                            return;
                        }
                        let head = heard.drain(..end + 4).take(end).collect::<Vec<_>>();
                        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", head.len());
                        socket.write_all(&[answer.as_bytes(), &head].concat()).await.unwrap();
                    }
                }
            });
        }
    });
    (address, made.cert.pem())
}

/// Somebody to believe where nobody is met.
fn authority() -> String {
    rcgen::generate_simple_self_signed(["nobody.example".to_owned()]).unwrap().cert.pem()
}

/// Two services, of which a rule allows the one named `api` and, at `/v1/`, the one named `far`.
fn documents(api: SocketAddr, far: SocketAddr) -> Value {
    let service = |host: &str, address: SocketAddr, protocol: &str| {
        json!({"hosts": [host], "ports": [{"number": 80, "protocol": protocol}], "resolution": "static", "networks": ["127.0.0.0/8"],
            "endpoints": [{"address": address.ip(), "port": address.port()}], "tls": {"mode": "simple", "trust": "ca"}})
    };
    let mut clear = service("clear.example", api, "http");
    clear.as_object_mut().unwrap().remove("tls");
    json!({
        "services": {"api": service("api.example", api, "https"), "far": service("far.example", far, "https"), "clear": clear},
        "rules": {
            "api": {"action": "allow", "to": [{"services": ["api", "clear"]}]},
            "far": {"action": "allow", "to": [{"services": ["far"], "paths": ["/v1/*"]}]},
        },
        "routes": {"retried": {"service": "api", "retries": {"attempts": 1}}},
    })
}

/// A worker under these documents, with `pem` believed and the secret in force.
fn worker_with(documents: &Value, pem: &str, secret: &str) -> (Worker, mpsc::Receiver<Batch>) {
    let credentials =
        [("ca", Credential::Trust { pem: pem.to_owned() }), ("key", Credential::Secret { value: secret.to_owned().into() })];
    let credentials = credentials.map(|(name, credential)| (name.parse::<Name>().unwrap(), Arc::new(credential))).into();
    let mut rows = rows(documents);
    rows.credentials = std::collections::BTreeMap::iter(&credentials).map(|(name, held)| (name.clone(), held.kind())).collect();
    let snapshot = Snapshot::compile(&rows).unwrap();
    let credentials = Credentials::of(&credentials);
    let origination = Arc::new(Origination::prepare(&snapshot, &credentials, &Origination::default()));
    let loads = Arc::new(Loads::prepare(&snapshot, &Loads::default()));
    let (worker, records) = worker(&json!({}));
    worker.live.store(Arc::new(Live {
        revision: 2,
        origination,
        loads,
        credentials,
        snapshot: Arc::new(snapshot),
        ..Live::default()
    }));
    (worker, records)
}

/// One exchange from its decision to its response, as the spine takes it there when filters have chosen.
struct Exchange<'a> {
    worker: &'a Worker,
    live: Arc<Live>,
    downstream: Downstream,
    identity: Identity,
    record: OpenRecord,
    permit: Arc<Permit>,
    request: Request,
}

impl<'a> Exchange<'a> {
    fn begin(worker: &'a Worker, host: &str, path: &str, headers: &[(&'static str, &'static str)]) -> Self {
        let address = SocketAddr::from(([10, 0, 0, 1], 1000));
        let peer = Rc::new(Peer { address, local: address, certificate: None, server_name: None });
        let mut request = ::http::Request::get(path).header("host", host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        let target =
            tidegate_policy::Target { form: tidegate_policy::target::Form::Plain, host: host.parse().unwrap(), port: 80 };
        let asked = tidegate_policy::Request {
            target: &target,
            method: request.method(),
            path,
            query: None,
            headers: request.headers(),
            time: std::time::SystemTime::now(),
        };
        let (live, identity) = (worker.live.load_full(), Identity::unknown(address.ip()));
        let permit = Arc::new(live.snapshot.decide(&identity, &asked).unwrap());
        let mut record = worker.open_record(&peer, &request);
        record.permitted(&permit);
        Self { worker, live, downstream: Downstream::new(peer), identity, record, permit, request }
    }

    fn wish(&self, grants: Value, make: impl FnOnce(&mut Wish, &Terms<'_>)) -> Wish {
        let grants: Grants = serde_json::from_value(grants).unwrap();
        let mut wish = Wish::default();
        let Live { snapshot, credentials, .. } = &*self.live;
        make(&mut wish, &Terms { snapshot, credentials, permit: &self.permit, grants: &grants });
        wish
    }

    fn keyed(&self) -> Wish {
        self.wish(json!({"credentials": ["key"]}), |wish, terms| {
            wish.inject_secret("authorization", "key", "Bearer ", terms).unwrap();
        })
    }

    /// The head that the API got.
    async fn deliver(&mut self, wish: &Wish) -> Result<String, Fault> {
        let Self { worker, live, downstream, identity, record, permit, request } = self;
        let again = detour::decide(live, identity, permit, Some(wish), request, record)?;
        let permit = again.as_ref().unwrap_or(permit);
        let pace = Pace { bytes: None, idle: Duration::from_secs(5), first_byte: Duration::from_secs(5) };
        let delivery = Delivery { worker, live, permit, wish: Some(wish), filters: None, downstream, pace };
        let response = delivery.run(request, record).await?;
        let body = response.into_body().collect().await.unwrap().to_bytes();
        Ok(String::from_utf8_lossy(&body).into_owned())
    }
}

#[tokio::test]
async fn a_secret_goes_over_tls_and_is_gone_afterwards() {
    let run = async {
        // The first connection breaks, so that the secret has to be written a second time.
        let (address, pem) = encrypted(1).await;
        let (worker, _records) = worker_with(&documents(address, address), &pem, SECRET);
        let mut exchange = Exchange::begin(&worker, "api.example", "/", &[("authorization", "Basic eDp5"), ("x-own", "1")]);
        exchange.request.headers_mut().append("authorization", "Basic ejp6".parse().unwrap());
        let wish = exchange.keyed();
        let head = exchange.deliver(&wish).await.unwrap();
        assert!(head.contains(&format!("authorization: Bearer {SECRET}")) && head.contains("x-own: 1"), "{head}");
        assert!(!head.contains("Basic"), "the header's other values go: {head}");
        assert!(!exchange.request.headers().contains_key("authorization"), "nobody reads it afterwards");
        assert!(!format!("{:?} {wish:?} {:?}", exchange.request, worker.live.load()).contains(SECRET));
        assert_eq!(worker.http.metrics.retries.value(), 1);

        for method in ["TRACE", "TRACK", "track"] {
            let mut echoed = Exchange::begin(&worker, "api.example", "/", &[]);
            *echoed.request.method_mut() = method.parse().unwrap();
            let wish = echoed.keyed();
            let fault = echoed.deliver(&wish).await.expect_err("its answer would show the secret");
            assert_eq!(fault.reason(), Reason::SecretExposed, "{method}: {fault}");
            assert!(fault.detail().contains(method), "{fault}");
        }

        // What is registered later is for the exchanges that come later.
        let before = Exchange::begin(&worker, "api.example", "/", &[]);
        let (other, _records) = worker_with(&documents(address, address), &pem, "an0ther");
        worker.live.store(other.live.load_full());
        let after = Exchange::begin(&worker, "api.example", "/", &[]);
        for (exchange, secret) in [(before, SECRET), (after, "an0ther")].iter_mut() {
            let wish = exchange.keyed();
            let head = exchange.deliver(&wish).await.unwrap();
            assert!(head.contains(&format!("authorization: Bearer {secret}")), "{head}");
        }
    };
    LocalSet::new().run_until(tokio::time::timeout(Duration::from_secs(20), run)).await.expect("the test hangs");
}

#[tokio::test]
async fn a_secret_never_leaves_in_plaintext() {
    let run = async {
        let address = api(ECHO_HEAD).await;
        let (worker, mut records) = worker_with(&documents(address, address), &authority(), SECRET);
        let mut exchange = Exchange::begin(&worker, "clear.example", "/", &[]);
        let nothing = Wish::default();
        let head = exchange.deliver(&nothing).await.unwrap();
        assert!(head.contains("GET / HTTP/1.1"), "without a secret it passes: {head}");
        let mut exchange = Exchange::begin(&worker, "clear.example", "/", &[]);
        let wish = exchange.keyed();
        let fault = exchange.deliver(&wish).await.expect_err("it is refused");
        assert_eq!(
            (fault.reason(), fault.retryable(), fault.status().as_u16()),
            (Reason::SecretExposed, false, 403),
            "{fault}"
        );
        assert!(!exchange.request.headers().contains_key("authorization"));
        exchange.record.failed(&fault);
        drop(exchange);
        worker.ledger.flush();
        let lines = String::from_utf8(records.recv().await.unwrap().lines).unwrap();
        assert!(lines.contains("secret_exposed") && !lines.contains(SECRET), "{lines}");
    };
    LocalSet::new().run_until(tokio::time::timeout(Duration::from_secs(20), run)).await.expect("the test hangs");
}

#[tokio::test]
async fn another_service_is_decided_again() {
    let run = async {
        let (address, pem) = encrypted(0).await;
        let (worker, mut records) = worker_with(&documents(address, address), &pem, SECRET);
        let far = |exchange: &Exchange<'_>| {
            exchange.wish(json!({"services": ["far"], "credentials": ["key"]}), |wish, terms| {
                wish.select_service("far", terms).unwrap();
                wish.inject_secret("x-key", "key", "", terms).unwrap();
            })
        };
        let mut exchange = Exchange::begin(&worker, "api.example", "/v1/x", &[]);
        let wish = far(&exchange);
        let head = exchange.deliver(&wish).await.unwrap();
        assert!(head.contains("host: far.example") && head.contains(&format!("x-key: {SECRET}")), "{head}");
        drop(exchange);

        let mut exchange = Exchange::begin(&worker, "api.example", "/v2", &[]);
        let wish = far(&exchange);
        let fault = exchange.deliver(&wish).await.expect_err("no rule allows it there");
        assert_eq!(fault.reason(), Reason::NoRuleAllows, "{fault}");
        assert!(fault.detail().contains("far.example"), "{fault}");
        exchange.record.failed(&fault);
        drop(exchange);
        worker.ledger.flush();
        let mut lines = String::new();
        while lines.lines().count() < 2 {
            lines += &String::from_utf8(records.recv().await.unwrap().lines).unwrap();
        }
        let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((&lines[0]["service"], &lines[0]["rule"]), (&json!("far"), &json!("far")), "{}", lines[0]);
        assert_eq!((&lines[1]["verdict"], &lines[1]["reason"]), (&json!("denied"), &json!("no_rule_allows")), "{}", lines[1]);
        assert_eq!(lines[1]["service"], "far", "{}", lines[1]);
    };
    LocalSet::new().run_until(tokio::time::timeout(Duration::from_secs(20), run)).await.expect("the test hangs");
}
