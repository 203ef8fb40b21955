//! Listeners over real sockets: what is told apart, what is timed, what is limited, and how connections are shared out.

use super::{Accepted, Connection, Listeners, Metrics, Serve, Settings, Spoken, Timeouts, greet};
use crate::{
    http::drain::Drain,
    worker::{self, Door, Workers},
};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    rc::Rc,
    sync::{Arc, mpsc},
    time::Duration,
};

/// Long enough for anything that is going to happen.
const PATIENCE: Duration = Duration::from_secs(10);

/// Says what was greeted and holds the connection until the caller or the drain ends it.
struct Stub {
    number: u32,
    drain: Drain,
    timeouts: Timeouts,
    seen: mpsc::Sender<(u32, Spoken, Vec<u8>)>,
    ended: mpsc::Sender<u32>,
}

impl Serve for Stub {
    async fn serve(self: Rc<Self>, accepted: Accepted) {
        let Some(connection) = greet::greet(accepted, self.timeouts, None, &self.drain).await else { return };
        let Connection { first, spoken, held: _held, stream, .. } = connection;
        let panics = first.starts_with(b"PANIC");
        self.seen.send((self.number, spoken, first.to_vec())).unwrap();
        assert!(!panics, "as the caller wished");
        let _registered = self.drain.register().await;
        let crate::stream::Stream::Plain(stream) = stream else { return };
        std::future::poll_fn(|context| {
            if self.drain.begun() {
                return std::task::Poll::Ready(());
            }
            stream.poll_read_ready(context).map(|_| ())
        })
        .await;
    }

    async fn keep(self: Rc<Self>) {
        std::future::pending().await
    }

    fn drain(&self) {
        self.drain.begin();
    }

    fn cut(&self) {}

    async fn finish(self: Rc<Self>) {
        self.ended.send(self.number).unwrap();
    }
}

struct Running {
    address: SocketAddr,
    accepting: super::accept::Accepting,
    workers: Workers,
    doors: Vec<Door>,
    metrics: Arc<Metrics>,
    seen: mpsc::Receiver<(u32, Spoken, Vec<u8>)>,
    ended: mpsc::Receiver<u32>,
}

fn start(workers: usize, adjust: impl FnOnce(&mut Settings)) -> Running {
    let mut settings = Settings { proxy: SocketAddr::from(([127, 0, 0, 1], 0)), ..Settings::default() };
    adjust(&mut settings);
    let metrics = Arc::new(Metrics::default());
    let listeners = Listeners::bind(&settings, false, Arc::clone(&metrics)).unwrap();
    let (_, address) = listeners.addresses().next().unwrap();
    let ((seen, seen_there), (ended, ended_there)) = (mpsc::channel(), mpsc::channel());
    let of_workers = worker::Settings { workers, drain_timeout: PATIENCE };
    let make = move |number| {
        Rc::new(Stub { number, drain: Drain::default(), timeouts: settings.timeouts, seen: seen.clone(), ended: ended.clone() })
    };
    let (workers, doors) = Workers::start(&of_workers, make).unwrap();
    let accepting = listeners.accept(doors.clone()).unwrap();
    Running { address, accepting, workers, doors, metrics, seen: seen_there, ended: ended_there }
}

fn connect(address: SocketAddr, first: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(first).unwrap();
    stream
}

#[test]
fn the_first_bytes_tell_the_protocol_and_are_kept() {
    let running = start(1, |_| {});
    let mut caller = connect(running.address, b"PRI * HTTP/2.0\r\n");
    caller.write_all(b"\r\nSM\r\n\r\nmore").unwrap();
    let (_, spoken, first) = running.seen.recv_timeout(PATIENCE).unwrap();
    assert_eq!(spoken, Spoken::Http2);
    assert!(first.starts_with(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
    for start in [&b"GET / HTTP/1.1\r\n"[..], b"PRI * HTTP/1.1\r\n", b"\x16\x03\x01"] {
        let _caller = connect(running.address, start);
        let (_, spoken, first) = running.seen.recv_timeout(PATIENCE).unwrap();
        assert_eq!((spoken, first.as_slice()), (Spoken::Http1, start));
    }
}

#[test]
fn connections_go_to_the_worker_with_the_fewest() {
    let running = start(2, |_| {});
    let mut callers = Vec::new();
    let mut by_worker = [0; 2];
    for _ in 0..8 {
        callers.push(connect(running.address, b"GET"));
        by_worker[running.seen.recv_timeout(PATIENCE).unwrap().0 as usize] += 1;
    }
    assert_eq!(by_worker, [4, 4]);
    assert_eq!(running.doors.iter().map(Door::load).collect::<Vec<_>>(), [4, 4]);
    assert_eq!((running.metrics.plain.value(), running.metrics.plain_open.value()), (8, 8));
}

#[test]
fn a_connection_beyond_the_limit_waits_for_a_place() {
    let running = start(1, |settings| settings.max_connections = 1);
    let first = connect(running.address, b"one");
    assert_eq!(running.seen.recv_timeout(PATIENCE).unwrap().2, b"one");
    let _second = connect(running.address, b"two");
    assert!(running.seen.recv_timeout(Duration::from_millis(200)).is_err(), "there is no place for it yet");
    drop(first);
    assert_eq!(running.seen.recv_timeout(PATIENCE).unwrap().2, b"two");
    assert!(running.metrics.saturated.value() >= 1);
}

#[test]
fn a_panic_costs_its_own_connection_only() {
    let running = start(1, |_| {});
    let mut unlucky = connect(running.address, b"PANIC");
    running.seen.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(unlucky.read(&mut [0; 1]), Ok(0) | Err(_)), "its connection is closed");
    let _lucky = connect(running.address, b"GET");
    assert_eq!(running.seen.recv_timeout(PATIENCE).unwrap().2, b"GET");
}

#[test]
fn a_silent_connection_is_closed() {
    let running = start(1, |settings| settings.timeouts.first_byte = Duration::from_millis(50));
    let mut silent = connect(running.address, b"");
    assert_eq!(silent.read(&mut [0; 1]).unwrap(), 0);
    assert!(running.seen.try_recv().is_err());
}

#[test]
fn draining_closes_the_listener_and_ends_connections_and_workers() {
    let Running { address, accepting, workers, doors, seen, ended, metrics } = start(2, |_| {});
    let mut greeted = connect(address, b"GET");
    seen.recv_timeout(PATIENCE).unwrap();
    let mut silent = connect(address, b"");
    while metrics.plain.value() < 2 {
        std::thread::yield_now();
    }
    drop(doors);
    accepting.stop();
    workers.join();
    assert_eq!(greeted.read(&mut [0; 1]).unwrap(), 0);
    assert!(matches!(silent.read(&mut [0; 1]), Ok(0) | Err(_)));
    assert!(TcpStream::connect(address).is_err());
    assert_eq!(ended.iter().take(2).sum::<u32>(), 1, "workers 0 and 1 have both ended");
    assert_eq!(metrics.plain_open.value(), 0);
}

#[test]
fn a_taken_port_is_said_with_its_setting() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = Settings { proxy: taken.local_addr().unwrap(), ..Settings::default() };
    let mistakes = Listeners::bind(&settings, false, Arc::default()).unwrap_err();
    assert_eq!(mistakes.len(), 1);
    assert!(mistakes[0].starts_with("proxy_listen: 127.0.0.1:") && mistakes[0].contains("another program"), "{mistakes:?}");
}

#[tokio::test]
async fn mutual_tls_names_the_caller_by_its_spiffe_identity() {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
    use rustls::pki_types::{PrivateKeyDer, ServerName};
    let authority_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(params, authority_key);
    let issue = |names: Vec<SanType>| {
        let (mut params, key) = (CertificateParams::new(Vec::new()).unwrap(), KeyPair::generate().unwrap());
        params.subject_alt_names = names;
        (params.signed_by(&key, &issuer).unwrap(), key)
    };
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (own, own_key) = issue(vec![SanType::DnsName("gateway.example".try_into().unwrap())]);
    let settings = super::tls::Settings {
        certificate: write("certificate.pem", &own.pem()),
        key: write("key.pem", &own_key.serialize_pem()),
        client_ca: write("ca.pem", &authority.pem()),
    };
    let mutual = greet::Mutual { config: super::tls::configure(&settings).unwrap() };

    let spiffe = "spiffe://cluster.local/ns/shop/sa/checkout";
    let (client, client_key) = issue(vec![SanType::URI(spiffe.try_into().unwrap())]);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(crate::upstream::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![client.der().clone()], PrivateKeyDer::Pkcs8(client_key.serialize_der().into()))
        .unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let calling = tokio::spawn(async move {
        let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("gateway.example").unwrap();
        let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"GET / HTTP/1.1\r\n").await.unwrap();
        stream
    });
    let (socket, address) = listener.accept().await.unwrap();
    let places = Arc::new(tokio::sync::Semaphore::new(1));
    let held = super::Held {
        entry: super::Entry::Mutual,
        metrics: Arc::default(),
        load: Arc::new(std::sync::atomic::AtomicUsize::new(1)),
        _place: places.acquire_owned().await.unwrap(),
    };
    let accepted = Accepted { socket: socket.into_std().unwrap(), address, entry: super::Entry::Mutual, held };
    let timeouts = Timeouts { first_byte: PATIENCE, handshake: PATIENCE };
    let greeted = greet::greet(accepted, timeouts, Some(&mutual), &Drain::default()).await.expect("it is greeted");
    let caller = greeted.peer.certificate.as_ref().expect("a caller");
    assert_eq!((caller.principal.as_deref(), caller.namespace.as_deref()), (Some(spiffe), Some("shop")));
    assert_eq!((greeted.spoken, greeted.peer.server_name.as_deref()), (Spoken::Http1, Some("gateway.example")));
    assert!(greeted.first.starts_with(b"GET / "));
    drop(calling.await.unwrap());
}
