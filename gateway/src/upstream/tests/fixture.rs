//! What the tests of this folder share: permits that were decided, servers, and an `Upstreams`.

use crate::{
    credentials::Credentials,
    http::{Request, body::Body},
    live::Live,
    upstream::{
        Listeners, Loads, Metrics, ResolveSettings, Resolver, Settings, Shared, Upstreams,
        guard::{self, Asked, Checked},
        tls::Origination,
    },
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::SystemTime,
};
use tidegate_policy::{
    Host, Identity, Name, Permit, Rows, Snapshot, Target,
    credential::{Credential, CredentialKind},
    snapshot::Mode,
    target::{self, Form},
};
use tokio::net::{TcpListener, TcpStream};

pub(in crate::upstream) fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

pub(in crate::upstream) fn host(text: &str) -> Host {
    text.parse().expect("a host")
}

/// Everything in force, with one service called `api` and a rule that allows everything.
pub(in crate::upstream) fn live(service: &Value, credentials: &BTreeMap<Name, Arc<Credential>>, before: &Live) -> Live {
    live_with(service, &json!({"action": "allow"}), credentials, before)
}

/// The same with a rule of the test's own.
pub(in crate::upstream) fn live_with(
    service: &Value,
    rule: &Value,
    credentials: &BTreeMap<Name, Arc<Credential>>,
    before: &Live,
) -> Live {
    let mut rows = Rows { mode: Mode::Open, ..Rows::default() };
    rows.services.insert(name("api"), Arc::new(serde_json::from_value(service.clone()).expect("a service")));
    rows.rules.insert(name("all"), Arc::new(serde_json::from_value(rule.clone()).expect("a rule")));
    let kinds = credentials.iter().map(|(name, credential)| (name.clone(), credential.kind()));
    rows.credentials = kinds.collect::<BTreeMap<Name, CredentialKind>>();
    let snapshot = Snapshot::compile(&rows).expect("a snapshot");
    let credentials = Credentials::of(credentials);
    Live {
        revision: before.revision + 1,
        origination: Arc::new(Origination::prepare(&snapshot, &credentials, &before.origination)),
        credentials,
        loads: Arc::new(Loads::prepare(&snapshot, &before.loads)),
        snapshot: Arc::new(snapshot),
        ..Live::default()
    }
}

pub(in crate::upstream) fn decide(live: &Live, form: Form, host: &str, port: u16) -> Permit {
    let target = Target { form, host: self::host(host), port };
    let request = target::Request {
        target: &target,
        method: &::http::Method::GET,
        path: "/",
        query: None,
        headers: &::http::HeaderMap::new(),
        time: SystemTime::now(),
    };
    live.snapshot.decide(&Identity::unknown(IpAddr::V4(Ipv4Addr::LOCALHOST)), &request).expect("a permit")
}

/// A plain request to port 80 of `service`.
pub(in crate::upstream) fn plain(service: &Value, host: &str) -> (Live, Permit) {
    let live = live(service, &BTreeMap::new(), &Live::default());
    let permit = decide(&live, Form::Plain, host, 80);
    (live, permit)
}

/// Any permit.
pub(in crate::upstream) fn permit() -> Permit {
    plain(&json!({"hosts": ["api.example"], "ports": [{"number": 80, "protocol": "http"}]}), "api.example").1
}

/// `address`, passed by the guard.
pub(in crate::upstream) fn checked(address: SocketAddr) -> Vec<Checked> {
    let networks = ["127.0.0.0/8", "::1/128"].map(|network| network.parse().expect("a network"));
    let asked = Asked { host: &Host::Address(address.ip()), port: address.port(), networks: &networks };
    guard::check(&asked, &[address.ip()], &Listeners::default(), 1, &Metrics::default()).expect("it passes")
}

/// An address on which nothing listens.
pub(in crate::upstream) fn closed_port() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    listener.local_addr().expect("an address")
}

/// An address that answers nothing: a listener whose queue of unaccepted connections is full.
pub(in crate::upstream) async fn silent_listener() -> (SocketAddr, (socket2::Socket, Vec<TcpStream>)) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("an address");
    socket.listen(0).expect("it listens");
    let address = socket.local_addr().ok().and_then(|address| address.as_socket()).expect("an address");
    let mut held = Vec::new();
    let limit = std::time::Duration::from_millis(100);
    while let Ok(connected) = tokio::time::timeout(limit, TcpStream::connect(address)).await {
        held.push(connected.expect("a connection"));
    }
    (address, (socket, held))
}

pub(in crate::upstream) async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

/// An `Upstreams` that asks the DNS server at `dns`.
pub(in crate::upstream) fn upstreams(dns: SocketAddr, change: impl FnOnce(&mut Settings)) -> Upstreams {
    let mut settings = Settings {
        resolve: ResolveSettings { servers: vec![dns], hosts_file: false, ..ResolveSettings::default() },
        ..Settings::default()
    };
    change(&mut settings);
    let resolver = Resolver::start(&settings.resolve, tokio::runtime::Handle::current()).expect("a resolver");
    let metrics = Arc::new(Metrics::default());
    Upstreams::start(Shared { resolver, listeners: Listeners::default(), settings: Arc::new(settings), metrics })
}

pub(in crate::upstream) fn request() -> Request {
    Request::new(Body::empty())
}

/// Runs `future` as a worker would.
pub(in crate::upstream) async fn local<T>(future: impl Future<Output = T>) -> T {
    tokio::task::LocalSet::new().run_until(future).await
}
