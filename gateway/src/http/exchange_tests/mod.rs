//! The spine over real sockets: a worker with a policy, upstreams that answer, and the records that come out.

mod delivery;
mod tunnels;
mod versions;
mod wishes;

use super::{Caller, Context, Settings, downstream::Downstream, h1, h2, limits::Limiters};
use crate::{
    credentials::Credentials,
    filter::Instances,
    identity::TokenCache,
    listen::{Peer, Timeouts},
    live::Live,
    record::{Ledger, ledger},
    stream::Stream,
    telemetry::exchanges::Exchanges,
    upstream::{Listeners, Loads, ResolveSettings, Resolver, Shared, Upstreams, tls::Origination},
    worker::Worker,
};
use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::{cell::RefCell, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};
use tidegate_policy::{Name, Rows, Snapshot, exchange::Batch};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::LocalSet,
};

/// What a test has in hand.
struct Stage {
    worker: Rc<Worker>,
    gate: SocketAddr,
    records: mpsc::Receiver<Batch>,
}

impl Stage {
    /// The records so far, once there are `count`.
    async fn records(&mut self, count: usize) -> Vec<Value> {
        let mut lines = Vec::new();
        while lines.len() < count {
            self.worker.ledger.flush();
            match self.records.try_recv() {
                Ok(batch) => lines.extend(
                    batch
                        .lines
                        .split(|&byte| byte == b'\n')
                        .filter(|line| !line.is_empty())
                        .map(|line| serde_json::from_slice(line).unwrap()),
                ),
                Err(_) => tokio::task::yield_now().await,
            }
        }
        lines
    }

    /// Sends `bytes` and returns everything that comes until the connection ends.
    async fn talk(&self, bytes: &str) -> String {
        let mut socket = TcpStream::connect(self.gate).await.unwrap();
        socket.write_all(bytes.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _reset_or_end = socket.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }
}

fn rows(documents: &Value) -> Rows {
    let mut rows = Rows::default();
    let entries = |kind: &str| documents[kind].as_object().cloned().unwrap_or_default().into_iter();
    let name = |text: String| -> Name { text.parse().unwrap() };
    rows.services
        .extend(entries("services").map(|(key, document)| (name(key), Arc::new(serde_json::from_value(document).unwrap()))));
    rows.rules.extend(entries("rules").map(|(key, document)| (name(key), Arc::new(serde_json::from_value(document).unwrap()))));
    rows.routes
        .extend(entries("routes").map(|(key, document)| (name(key), Arc::new(serde_json::from_value(document).unwrap()))));
    rows
}

fn live(documents: &Value) -> Live {
    let snapshot = Snapshot::compile(&rows(documents)).unwrap();
    Live {
        revision: 1,
        origination: Arc::new(Origination::prepare(&snapshot, &Credentials::default(), &Origination::default())),
        loads: Arc::new(Loads::prepare(&snapshot, &Loads::default())),
        snapshot: Arc::new(snapshot),
        ..Live::default()
    }
}

fn worker(documents: &Value) -> (Worker, mpsc::Receiver<Batch>) {
    let settings = crate::upstream::Settings::default();
    let resolve = ResolveSettings { servers: vec![SocketAddr::from(([127, 0, 0, 1], 9))], ..ResolveSettings::default() };
    let resolver = Resolver::start(&resolve, tokio::runtime::Handle::current()).unwrap();
    let shared = Shared { resolver, listeners: Listeners::default(), settings: Arc::new(settings), metrics: Arc::default() };
    let (outbox, records) = mpsc::channel(64);
    let parts = ledger::Parts {
        worker: 0,
        outbox,
        when_full: ledger::WhenFull::Drop,
        tally: Exchanges::new(10).tally(),
        spans: None,
        metrics: Arc::default(),
    };
    let h1 = h1::Limits { write_timeout: Duration::from_millis(400), ..h1::Limits::default() };
    let settings = Settings { hello_timeout: Duration::from_secs(5), h1, ..Settings::default() };
    let worker = Worker {
        live: Arc::new(ArcSwap::from_pointee(live(documents))),
        in_force: tokio::sync::watch::channel(0).1,
        upstreams: Upstreams::start(shared),
        instances: Instances::default(),
        errands: RefCell::default(),
        tokens: TokenCache::default(),
        http: Context::new(settings, Arc::new(Limiters::default()), Arc::default()),
        ledger: Ledger::new(parts),
        drain: super::drain::Drain::default(),
        timeouts: Timeouts { first_byte: Duration::from_secs(5), handshake: Duration::from_secs(5) },
        mutual: None,
    };
    (worker, records)
}

/// Runs `test` with a gate in front of a policy made of `documents`.
async fn stage(documents: Value, test: impl AsyncFnOnce(Stage)) {
    stage_with(documents, |_| {}, test).await;
}

/// The same, with a worker that `change` has changed.
async fn stage_with(documents: Value, change: impl FnOnce(&mut Worker), test: impl AsyncFnOnce(Stage)) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gate = listener.local_addr().unwrap();
    let run = async {
        let (mut worker, records) = worker(&documents);
        change(&mut worker);
        let worker = Rc::new(worker);
        let serving = Rc::clone(&worker);
        tokio::task::spawn_local(async move {
            while let Ok((socket, address)) = listener.accept().await {
                let worker = Rc::clone(&serving);
                tokio::task::spawn_local(serve(worker, socket, address));
            }
        });
        tokio::time::timeout(Duration::from_secs(20), test(Stage { worker, gate, records })).await.expect("the test hangs");
    };
    LocalSet::new().run_until(run).await;
}

async fn serve(worker: Rc<Worker>, socket: TcpStream, address: SocketAddr) {
    let peer = Rc::new(Peer { address, local: address, certificate: None, server_name: None });
    let mut start = [0; 3];
    if socket.peek(&mut start).await.is_ok() && &start == b"PRI" {
        return h2::serve(&worker, &peer, None, Stream::Plain(socket), Bytes::new()).await;
    }
    let caller = Caller { downstream: Rc::new(Downstream::new(peer)), worker };
    let limits = h1::Limits { drain_timeout: Duration::from_millis(50), ..h1::Limits::default() };
    let terms = h1::server::Terms { limits, ..caller.worker.terms(&caller.downstream.clock) };
    h1::server::serve(Stream::Plain(socket), BytesMut::new(), &caller, terms).await;
}

/// An upstream that answers every connection with what it was sent: `head` at once, then an echo of what follows.
async fn api(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut heard = Vec::new();
                while socket.read_buf(&mut heard).await.is_ok_and(|count| count > 0) {
                    while let Some(end) = heard.windows(4).position(|window| window == b"\r\n\r\n") {
                        let head = String::from_utf8_lossy(&heard[..end]).to_string();
                        heard.drain(..end + 4);
                        let answer = answer.replace("{head}", &head).replace("{length}", &head.len().to_string());
                        if socket.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    address
}

const ECHO_HEAD: &str =
    "HTTP/1.1 200 OK\r\nConnection: keep-alive, x-hop\r\nX-Hop: 1\r\nContent-Length: {length}\r\n\r\n{head}";

fn registered(address: SocketAddr) -> Value {
    json!({
        "services": {"api": {
            "hosts": ["api.example"], "ports": [{"number": 80, "protocol": "http"}, {"number": 443, "protocol": "tls"}],
            "resolution": "static", "endpoints": [{"address": "127.0.0.1", "port": address.port()}], "networks": ["127.0.0.0/8"]}},
        "rules": {"allow": {"action": "allow", "to": [{"paths": ["/v1/*"]}]}, "tunnels": {"action": "allow", "to": [{"methods": ["CONNECT"]}]}},
    })
}

#[tokio::test]
async fn a_permitted_request_goes_out_and_leaves_one_record() {
    let address = api(ECHO_HEAD).await;
    stage(registered(address), async |mut stage| {
        let two = "GET http://API.example/v1/a?b HTTP/1.1\r\nHost: api.example\r\nProxy-Connection: x\r\n\r\n\
                   GET /v1/b HTTP/1.1\r\nHost: api.example\r\nConnection: close\r\n\r\n";
        let answer = stage.talk(two).await;
        assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2, "{answer}");
        assert!(
            answer.contains("GET /v1/a?b HTTP/1.1\r\nhost: api.example\r\n") && !answer.contains("proxy-connection"),
            "{answer}"
        );
        assert!(!answer.contains("x-hop") && answer.matches("via: 1.1 tidegate").count() == 4, "{answer}");
        let records = stage.records(2).await;
        assert_eq!(
            (&records[0]["verdict"], &records[0]["reason"]),
            (&json!("allowed"), &json!("allowed_by_rule")),
            "{}",
            records[0]
        );
        assert_eq!((&records[0]["status"], &records[1]["endpoint"]["reused"]), (&json!(200), &json!(true)), "{}", records[1]);
    })
    .await;
}

#[tokio::test]
async fn every_refusal_says_why_and_is_recorded() {
    let address = api(ECHO_HEAD).await;
    let rows = [
        ("GET /v2 HTTP/1.1\r\nHost: api.example\r\n", 403, "no_rule_allows"),
        ("GET /v1/ HTTP/1.1\r\nHost: other.example\r\n", 403, "unregistered_host"),
        ("GET /v1/ HTTP/1.1\r\nHost: 0x7f.1\r\n", 400, "malformed_target"),
        ("GET ftp://api.example/v1/ HTTP/1.1\r\nHost: api.example\r\n", 400, "malformed_target"),
        ("GET http://u@api.example/v1/ HTTP/1.1\r\nHost: api.example\r\n", 400, "malformed_target"),
        ("GET http://api.example/v1/ HTTP/1.1\r\nHost: other.example\r\n", 421, "authority_mismatch"),
        ("GET http://api.example/v1/ HTTP/1.1\r\nHost: api.example:81\r\n", 421, "authority_mismatch"),
        ("GET /v1/ HTTP/1.1\r\nHost: api.example\r\nVia: 1.1 tidegate\r\n", 508, "loop_detected"),
        ("CONNECT api.example HTTP/1.1\r\nHost: api.example\r\n", 400, "malformed_target"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n", 400, "bad_framing"),
    ];
    stage(registered(address), async |mut stage| {
        for (request, status, reason) in rows {
            let answer = stage.talk(&format!("{request}Connection: close\r\n\r\n")).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
            assert!(answer.contains(&format!("x-tidegate-reason: {reason}\r\n")), "{request}: {answer}");
            let record = stage.records(1).await.remove(0);
            assert_eq!((&record["reason"], &record["status"]), (&json!(reason), &json!(status)), "{request}: {record}");
            assert!(answer.contains(record["id"].as_str().unwrap()), "{request}: {answer}");
        }
        let grpc = "POST /v2 HTTP/1.1\r\nHost: api.example\r\nContent-Type: application/grpc\r\nConnection: close\r\n\r\n";
        let answer = stage.talk(grpc).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("grpc-status: 7\r\n"), "{answer}");
    })
    .await;
}

#[tokio::test]
async fn a_tunnel_carries_bytes_and_counts_them() {
    let address = api("HTTP/1.1 200 OK\r\n\r\n{head}").await;
    stage(registered(address), async |mut stage| {
        let mut socket = TcpStream::connect(stage.gate).await.unwrap();
        socket.write_all(b"CONNECT api.example:443 HTTP/1.1\r\nHost: api.example:443\r\n\r\nping\r\n\r\n").await.unwrap();
        socket.shutdown().await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("HTTP/1.1 200 OK\r\n\r\nping"), "{answer}");
        let record = stage.records(1).await.remove(0);
        assert_eq!((&record["request_bytes"], &record["response_bytes"]), (&json!(8), &json!(23)), "{record}");
    })
    .await;
}

#[tokio::test]
async fn a_tunnel_whose_server_name_leads_elsewhere_ends() {
    let address = api(ECHO_HEAD).await;
    stage(registered(address), async |mut stage| {
        for (name, reason) in [("api.example", "allowed_by_rule"), ("other.example", "authority_mismatch")] {
            let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth();
            let mut tls = rustls::ClientConnection::new(Arc::new(config), name.try_into().unwrap()).unwrap();
            let mut hello = Vec::new();
            tls.write_tls(&mut hello).unwrap();
            let mut socket = TcpStream::connect(stage.gate).await.unwrap();
            socket.write_all(b"CONNECT api.example:443 HTTP/1.1\r\nHost: api.example:443\r\n\r\n").await.unwrap();
            // In pieces, so that it has to be held.
            for piece in hello.chunks(50) {
                let _may_have_ended = socket.write_all(piece).await;
                tokio::task::yield_now().await;
            }
            let _may_have_ended = socket.shutdown().await;
            let _reset_or_end = socket.read_to_end(&mut Vec::new()).await;
            let record = stage.records(1).await.remove(0);
            assert_eq!(record["reason"], reason, "{name}: {record}");
            assert_eq!(record["request_bytes"] == json!(hello.len()), reason == "allowed_by_rule", "{name}: {record}");
        }
    })
    .await;
}

#[tokio::test]
async fn http_2_goes_to_http_1_and_back() {
    let address = api(ECHO_HEAD).await;
    stage(registered(address), async |mut stage| {
        let socket = TcpStream::connect(stage.gate).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(hyper_util::rt::TokioExecutor::new(), TokioIo::new(socket)).await.unwrap();
        tokio::task::spawn_local(connection);
        let request = ::http::Request::builder().uri("http://api.example/v1/x").header("cookie", "a=1").header("cookie", "b=2");
        let response = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
        assert_eq!((response.status().as_u16(), response.headers().contains_key("connection")), (200, false));
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let head = String::from_utf8_lossy(&body);
        assert!(
            head.contains("GET /v1/x HTTP/1.1") && head.contains("cookie: a=1; b=2") && head.contains("via: 2 tidegate"),
            "{head}"
        );
        let refused = ::http::Request::builder().uri("http://other.example/").body(Empty::<Bytes>::new()).unwrap();
        let response = sender.send_request(refused).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["x-tidegate-reason"]),
            (403, &::http::HeaderValue::from_static("unregistered_host"))
        );
        let records = stage.records(2).await;
        assert_eq!(records[0]["protocol"], "HTTP/2", "{}", records[0]);
    })
    .await;
}

#[tokio::test]
async fn limits_and_faults_of_a_route_are_applied() {
    let address = api(ECHO_HEAD).await;
    let mut documents = registered(address);
    documents["routes"] = json!({
        "slow": {"service": "api", "match": [{"path": "/v1/slow*"}], "limits": {"rate": {"per_second": 1, "burst": 1}}},
        "small": {"service": "api", "match": [{"path": "/v1/small"}], "limits": {"request_body_bytes": 4}},
        "torn": {"service": "api", "match": [{"path": "/v1/torn"}], "fault": {"abort": 599}},
        "moved": {"service": "api", "match": [{"path": "/v1/old/*"}],
                  "rewrite": {"path_prefix": "/v1/new/", "set_headers": {"x-set": "1"}, "remove_headers": ["x-gone"]}},
    });
    stage(documents, async |stage| {
        let get = |path: &str, more: &str| {
            format!("GET {path} HTTP/1.1\r\nHost: api.example\r\nConnection: close\r\nX-Gone: 1\r\n{more}\r\n")
        };
        assert!(stage.talk(&get("/v1/slow", "")).await.starts_with("HTTP/1.1 200"));
        assert!(stage.talk(&get("/v1/slow", "")).await.starts_with("HTTP/1.1 429"));
        assert!(stage.talk(&get("/v1/torn", "")).await.starts_with("HTTP/1.1 599"));
        assert!(stage.talk(&(get("/v1/small", "Content-Length: 5\r\n") + "large")).await.starts_with("HTTP/1.1 413"));
        let chunks = get("/v1/small", "Transfer-Encoding: chunked\r\n") + "5\r\nlarge\r\n0\r\n\r\n";
        let answer = stage.talk(&chunks).await;
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
        let answer = stage.talk(&get("/v1/old/x?y", "")).await;
        assert!(
            answer.contains("GET /v1/new/x?y HTTP/1.1") && answer.contains("x-set: 1") && !answer.contains("x-gone"),
            "{answer}"
        );
    })
    .await;
}

#[tokio::test]
async fn what_is_refused_and_what_is_tunnelled_keeps_its_trace() {
    let address = api(ECHO_HEAD).await;
    stage(registered(address), async |mut stage| {
        let trace = "0af7651916cd43dd8448eb211c80319c";
        let w3c = format!("traceparent: 00-{trace}-b7ad6b7169203331-01\r\nConnection: close\r\n\r\n");
        let b3 = format!("b3: {trace}-b7ad6b7169203331-1\r\nConnection: close\r\n\r\n");
        stage.talk(&format!("GET http://other.example/ HTTP/1.1\r\nHost: other.example\r\n{w3c}")).await;
        stage.talk(&format!("GET http://api.example/denied HTTP/1.1\r\nHost: api.example\r\n{b3}")).await;
        stage.talk(&format!("CONNECT api.example HTTP/1.1\r\nHost: api.example\r\n{w3c}")).await;
        stage.talk("GET / HTTP/1.1\nHost: api.example\r\n\r\n").await;
        let records = stage.records(4).await;
        let traces: Vec<_> = records.iter().map(|record| record["trace_id"].as_str().unwrap_or_default()).collect();
        assert_eq!(traces[..3], [trace; 3], "{records:?}");
        assert!(traces[3].len() == 32 && traces[3] != trace, "one is begun where none can be read: {records:?}");
    })
    .await;
}
