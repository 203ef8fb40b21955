//! Resolving against a real DNS server over UDP, written with hickory's codec.

use super::fixture::{self, local};
use crate::upstream::{Metrics, ResolveSettings, Resolver, resolve::Names};
use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, AAAA, SOA},
    },
};
use serde_json::json;
use std::{
    cell::Cell,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tidegate_policy::Reason;
use tokio::net::UdpSocket;

/// A DNS server on loopback and how many questions it has had.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) questions: Rc<Cell<u32>>,
}

/// What it answers, by the first label: `ttl-N` its addresses with that TTL; `gone` NXDOMAIN, `empty` nothing, `broken`
/// SERVFAIL, `silent` not at all.
pub(super) async fn serve(addresses: &[&str]) -> Server {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let address = socket.local_addr().expect("an address");
    let questions = Rc::new(Cell::new(0));
    let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().expect("an address")).collect();
    let counting = Rc::clone(&questions);
    tokio::task::spawn_local(async move {
        let mut buffer = [0; 2048];
        loop {
            let (length, peer) = socket.recv_from(&mut buffer).await.expect("a question");
            counting.set(counting.get() + 1);
            let question = Message::from_vec(&buffer[..length]).expect("a message");
            if let Some(answer) = answer(question, &addresses) {
                socket.send_to(&answer.to_vec().expect("bytes"), peer).await.expect("it is sent");
            }
        }
    });
    Server { address, questions }
}

fn answer(question: Message, addresses: &[IpAddr]) -> Option<Message> {
    let query = question.queries.first().cloned().expect("a query");
    let (name, kind) = (query.name().clone(), query.query_type());
    let mut answer = question.into_response();
    let label = name.to_lowercase().to_string();
    let soa = || {
        let data = SOA::new(Name::root(), Name::root(), 1, 1, 1, 1, 600);
        Record::from_rdata(Name::root(), 600, RData::SOA(data))
    };
    match label.split('.').next().unwrap_or_default() {
        "silent" => return None,
        "broken" => answer.metadata.response_code = ResponseCode::ServFail,
        "gone" => {
            answer.metadata.response_code = ResponseCode::NXDomain;
            answer.add_authority(soa());
        }
        "empty" => {
            answer.add_authority(soa());
        }
        first => {
            let ttl = first.strip_prefix("ttl-").and_then(|ttl| ttl.parse().ok()).unwrap_or(60);
            for address in addresses {
                let data = match (address, kind) {
                    (IpAddr::V4(v4), RecordType::A) => RData::A(A(*v4)),
                    (IpAddr::V6(v6), RecordType::AAAA) => RData::AAAA(AAAA(*v6)),
                    _ => continue,
                };
                answer.add_answer(Record::from_rdata(name.clone(), ttl, data));
            }
            if answer.answers.is_empty() {
                answer.add_authority(soa());
            }
        }
    }
    Some(answer)
}

fn names(server: &Server, change: impl FnOnce(&mut ResolveSettings)) -> (Names, Arc<Metrics>) {
    let mut settings = ResolveSettings { servers: vec![server.address], hosts_file: false, ..ResolveSettings::default() };
    change(&mut settings);
    let metrics = Arc::new(Metrics::default());
    let resolver = Resolver::start(&settings, tokio::runtime::Handle::current()).expect("a resolver");
    (Names::new(resolver, Arc::clone(&metrics)), metrics)
}

async fn sentence(names: &Names, name: &str) -> String {
    let fault = names.resolve(&name.into()).await.0.expect_err("no address").fault();
    assert_eq!(fault.reason(), Reason::ResolveFailed);
    fault.detail().to_owned()
}

#[tokio::test]
async fn both_families_are_asked_once_and_kept_as_long_as_their_ttl() {
    local(async {
        let server = serve(&["192.0.2.1", "192.0.2.2", "2001:db8::1"]).await;
        let (names, metrics) = names(&server, |settings| settings.min_ttl = Duration::from_millis(1));
        let name = Arc::from("ttl-60.example");
        let (first, second) = tokio::join!(names.resolve(&name), names.resolve(&name));
        let mut found: Vec<String> = first.0.expect("addresses").iter().map(IpAddr::to_string).collect();
        found.sort();
        assert_eq!(found, ["192.0.2.1", "192.0.2.2", "2001:db8::1"]);
        assert!(second.0.is_ok());
        assert_eq!(server.questions.get(), 2, "one for each family, however many wait");
        assert!(names.resolve(&name).await.0.is_ok());
        assert_eq!((server.questions.get(), metrics.resolve_cached.value()), (2, 1));

        // A TTL of zero is over at once, so the next exchange asks again.
        let name = Arc::from("ttl-0.example");
        while server.questions.get() < 6 {
            names.resolve(&name).await.0.expect("addresses");
        }
        assert!(metrics.resolve_lookups.value() >= 3);
    })
    .await;
}

#[tokio::test]
async fn the_shortest_ttl_kept_is_a_setting() {
    local(async {
        let server = serve(&["192.0.2.1"]).await;
        let (names, _) = names(&server, |settings| settings.min_ttl = Duration::from_secs(60));
        for _ in 0..20 {
            names.resolve(&"ttl-0.example".into()).await.0.expect("an address");
        }
        assert_eq!(server.questions.get(), 2);
    })
    .await;
}

#[tokio::test]
async fn absence_is_remembered_and_said_apart_from_failure() {
    local(async {
        let server = serve(&[]).await;
        let (names, metrics) = names(&server, |settings| {
            settings.attempts = 0;
            settings.failure_ttl = Duration::from_secs(60);
        });
        assert!(sentence(&names, "gone.example").await.contains("NXDOMAIN"));
        let asked = server.questions.get();
        assert!(sentence(&names, "gone.example").await.contains("NXDOMAIN"));
        assert_eq!(server.questions.get(), asked, "absence is remembered");
        assert!(sentence(&names, "empty.example").await.contains("neither A nor AAAA"));
        let broken = sentence(&names, "broken.example").await;
        assert!(broken.contains("SERVFAIL"), "{broken}");
        let asked = server.questions.get();
        assert!(sentence(&names, "broken.example").await.contains("SERVFAIL"));
        assert_eq!(server.questions.get(), asked, "servers in trouble are left alone for a while");
        assert_eq!((metrics.resolve_negative.value(), metrics.resolve_failures.value()), (2, 1));
    })
    .await;
}

#[tokio::test]
async fn silence_ends_with_the_limit() {
    local(async {
        let server = serve(&[]).await;
        let (names, _) = names(&server, |settings| settings.timeout = Duration::from_millis(50));
        assert!(sentence(&names, "silent.example").await.contains("within 50 ms"));
    })
    .await;
}

#[tokio::test]
async fn what_is_remembered_is_bounded() {
    local(async {
        let server = serve(&["192.0.2.1"]).await;
        let (names, metrics) = names(&server, |settings| settings.names = 8);
        for index in 0..50 {
            names.resolve(&format!("ttl-60.host{index}.example").into()).await.0.expect("an address");
            assert!(metrics.resolve_names.value() <= 8, "{}", metrics.resolve_names.value());
        }
        assert!(metrics.resolve_evicted.value() > 0);
        drop(names);
        assert_eq!(metrics.resolve_names.value(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_name_with_refused_answers_is_dialled_at_the_others_alone() {
    local(async {
        let (_listener, address) = fixture::listen().await;
        let server = serve(&["10.255.255.1", "127.0.0.1"]).await;
        let upstreams = fixture::upstreams(server.address, |_| {});
        let service = json!({"hosts": ["*.example"], "ports": [{"number": address.port(), "protocol": "tcp"}],
            "resolution": "forward", "networks": ["127.0.0.0/8"]});
        let live = fixture::live(&service, &Default::default(), &Default::default());
        let permit = fixture::decide(&live, tidegate_policy::target::Form::Tunnel, "both.example", address.port());
        let tunnel = upstreams.tunnel(&live, &permit).await.expect("a tunnel");
        assert_eq!((tunnel.facts.address, tunnel.facts.protocol), (address, "tunnel"));
        assert!(tunnel.facts.resolve.is_some());
        assert_eq!(upstreams.shared.metrics.addresses_refused.value(), 1);
    })
    .await;
}

#[tokio::test]
async fn private_answers_and_literals_are_refused() {
    local(async {
        let server = serve(&["127.0.0.1"]).await;
        let upstreams = fixture::upstreams(server.address, |_| {});
        let service = json!({"hosts": ["*.example", "127.0.0.1"], "ports": [{"number": 443, "protocol": "tcp"}], "resolution": "forward"});
        let live = fixture::live(&service, &Default::default(), &Default::default());
        for host in ["rebound.example", "127.0.0.1", "169.254.169.254"] {
            let permit = fixture::decide(&live, tidegate_policy::target::Form::Tunnel, host, 443);
            let fault = upstreams.tunnel(&live, &permit).await.expect_err(host);
            assert_eq!(fault.reason(), Reason::AddressRefused, "{host}: {fault}");
        }
        assert_eq!(upstreams.shared.metrics.connect_attempts.value(), 0);
    })
    .await;
}
