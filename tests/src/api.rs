//! An external API: HTTP/1.1 and HTTP/2, with or without TLS, that does what its path says and remembers what it was asked.

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::BoxBody};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Version,
    body::{Body, Frame, Incoming},
    service::service_fn,
    upgrade::Upgraded,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use serde_json::json;
use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
};
use tokio_rustls::TlsAcceptor;

type ReplyBody = BoxBody<Bytes, hyper::Error>;

/// An external API. It serves until it is dropped.
pub struct Api {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<State>,
    task: tokio::task::AbortHandle,
}

#[derive(Default)]
struct State {
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
    handshakes: AtomicUsize,
    resumed: AtomicUsize,
    waiting: AtomicUsize,
    gate: Notify,
}

/// What the API saw of a request.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its method.
    pub method: Method,
    /// Its target: the path over HTTP/1.1, the whole URL over HTTP/2.
    pub uri: http::Uri,
    /// Its version.
    pub version: Version,
    /// Its headers.
    pub headers: HeaderMap,
    /// The name the client sent in its TLS handshake.
    pub server_name: Option<String>,
    /// Whether the client showed a certificate.
    pub client_certificate: bool,
    /// The certificate that it showed, in DER.
    pub client_leaf: Option<Vec<u8>>,
}

/// How an API is spoken to.
#[derive(Clone)]
pub enum Speaks {
    /// HTTP/1.1 in the clear.
    Http1,
    /// HTTP/2 in the clear, by prior knowledge.
    Http2,
    /// TLS; the version is agreed by ALPN, HTTP/1.1 where none is.
    Tls(Arc<ServerConfig>),
}

#[derive(Clone, Default)]
struct Connection {
    server_name: Option<String>,
    client_leaf: Option<Vec<u8>>,
}

impl Api {
    /// Starts serving.
    pub async fn start(speaks: Speaks) -> Self {
        Self::start_at("127.0.0.1:0", speaks).await
    }

    /// Starts serving at `address`.
    pub async fn start_at(address: &str, speaks: Speaks) -> Self {
        let listener = TcpListener::bind(address).await.unwrap_or_else(|error| panic!("{address} cannot be bound: {error}"));
        let address = listener.local_addr().expect("a bound socket has an address");
        let state = Arc::new(State::default());
        let serving = Arc::clone(&state);
        let task = tokio::spawn(async move {
            // The connections are children of this task: dropping the API ends them too, as a crash would.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(connection(stream, speaks.clone(), Arc::clone(&serving)));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, state, task: task.abort_handle() }
    }

    /// The requests so far, in the order in which they came.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().expect("nobody panics within").clone()
    }

    /// The request whose path is `path`.
    ///
    /// # Panics
    /// When there was none.
    pub fn saw(&self, path: &str) -> Seen {
        let seen = self.seen();
        seen.iter().rfind(|seen| seen.uri.path() == path).cloned().unwrap_or_else(|| panic!("no request to {path} in {seen:?}"))
    }

    /// Whether a request to `path` came.
    pub fn was_asked(&self, path: &str) -> bool {
        self.seen().iter().any(|seen| seen.uri.path() == path)
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// TLS handshakes done so far.
    pub fn handshakes(&self) -> usize {
        self.state.handshakes.load(Ordering::Relaxed)
    }

    /// Those of them that resumed an earlier session.
    pub fn resumed(&self) -> usize {
        self.state.resumed.load(Ordering::Relaxed)
    }

    /// Requests to `/gate` that wait now.
    pub fn waiting(&self) -> usize {
        self.state.waiting.load(Ordering::Relaxed)
    }

    /// Answers every request that waits at `/gate`.
    pub fn open_gate(&self) {
        self.state.gate.notify_waiters();
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connection(stream: TcpStream, speaks: Speaks, state: Arc<State>) {
    state.connections.fetch_add(1, Ordering::Relaxed);
    // Without it every small answer would wait for the kernel to gather more.
    let _: std::io::Result<()> = stream.set_nodelay(true);
    match speaks {
        Speaks::Http1 => http1(stream, Connection::default(), state).await,
        Speaks::Http2 => http2(stream, Connection::default(), state).await,
        Speaks::Tls(config) => {
            let Ok(stream) = TlsAcceptor::from(config).accept(stream).await else { return };
            state.handshakes.fetch_add(1, Ordering::Relaxed);
            let session = stream.get_ref().1;
            if session.handshake_kind() == Some(rustls::HandshakeKind::Resumed) {
                state.resumed.fetch_add(1, Ordering::Relaxed);
            }
            let known = Connection {
                server_name: session.server_name().map(str::to_owned),
                client_leaf: session.peer_certificates().and_then(|chain| chain.first()).map(|leaf| leaf.to_vec()),
            };
            match session.alpn_protocol() {
                Some(b"h2") => http2(stream, known, state).await,
                _ => http1(stream, known, state).await,
            }
        }
    }
}

async fn http1(stream: impl crate::wire::Wire + 'static, known: Connection, state: Arc<State>) {
    let service = service_fn(move |request| answer(request, known.clone(), Arc::clone(&state)));
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // How a connection ends is the caller's business.
    let _: hyper::Result<()> = connection.with_upgrades().await;
}

async fn http2(stream: impl crate::wire::Wire + 'static, known: Connection, state: Arc<State>) {
    let service = service_fn(move |request| answer(request, known.clone(), Arc::clone(&state)));
    let connection =
        hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
    let _: hyper::Result<()> = connection.await;
}

async fn answer(request: Request<Incoming>, known: Connection, state: Arc<State>) -> Result<Response<ReplyBody>, Infallible> {
    let seen = Seen {
        method: request.method().clone(),
        uri: request.uri().clone(),
        version: request.version(),
        headers: request.headers().clone(),
        server_name: known.server_name,
        client_certificate: known.client_leaf.is_some(),
        client_leaf: known.client_leaf,
    };
    state.seen.lock().expect("nobody panics within").push(seen);
    let path = request.uri().path().to_owned();
    let mut words = path.trim_start_matches('/').splitn(2, '/');
    let word = words.next().unwrap_or_default();
    let number = words.next().and_then(|rest| rest.parse::<u64>().ok());
    Ok(match word {
        "echo" => echo(request),
        "sink" => sink(request).await,
        "mirror" => mirror(request).await,
        "zeroes" => zeroes(number.unwrap_or(0)),
        "status" => status(number.unwrap_or(200)),
        "trailers" => trailers(),
        "headers" => all_headers(request.headers()),
        "upgrade" => upgrade(request),
        "gate" => gate(&state).await,
        "never" => std::future::pending().await,
        "stalls" => stalls(),
        _ => charges(request, &path).await,
    })
}

/// The body as it came, trailers and type included.
fn echo(request: Request<Incoming>) -> Response<ReplyBody> {
    let mut response = Response::new(BoxBody::default());
    // hyper sends trailers over HTTP/1.1 only where they are announced.
    for name in ["content-type", "trailer"] {
        if let Some(value) = request.headers().get(name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    *response.body_mut() = request.into_body().boxed();
    response
}

/// How many bytes came.
async fn sink(request: Request<Incoming>) -> Response<ReplyBody> {
    let mut body = request.into_body();
    let mut count = 0_u64;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => count += frame.data_ref().map_or(0, |data| data.len() as u64),
            Err(_) => return status(400),
        }
    }
    json_body(&json!({ "bytes": count }))
}

/// Everything that came, as JSON.
async fn mirror(request: Request<Incoming>) -> Response<ReplyBody> {
    let pairs = |headers: &HeaderMap| {
        let pairs = headers.iter().map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())));
        pairs.collect::<Vec<_>>()
    };
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return status(400) };
    let trailers = body.trailers().map(pairs);
    let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    let target = head.uri.path_and_query().map(ToString::to_string);
    let seen = json!({"method": head.method.as_str(), "target": target, "headers": pairs(&head.headers), "body": text});
    json_body(&json!({"mirror": seen, "trailers": trailers}))
}

/// As many zeroes, streamed.
fn zeroes(count: u64) -> Response<ReplyBody> {
    const PIECE: u64 = 64 * 1024;
    static ZEROES: [u8; 64 * 1024] = [0; 64 * 1024];
    let pieces = stream::unfold(count, |left| async move {
        let size = left.min(PIECE);
        let piece = Bytes::from_static(&ZEROES[..usize::try_from(size).unwrap_or_default()]);
        (size > 0).then(|| (Ok(Frame::data(piece)), left - size))
    });
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(pieces)));
    response.headers_mut().insert("content-length", count.into());
    response
}

fn status(code: u64) -> Response<ReplyBody> {
    let mut response = text_body("as you wish");
    let code = u16::try_from(code).ok().and_then(|code| StatusCode::from_u16(code).ok());
    *response.status_mut() = code.unwrap_or(StatusCode::BAD_REQUEST);
    response
}

/// A body in two pieces, then trailers.
fn trailers() -> Response<ReplyBody> {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", http::HeaderValue::from_static("abc123"));
    let frames = [Frame::data(Bytes::from_static(b"one ")), Frame::data(Bytes::from_static(b"two")), Frame::trailers(trailers)];
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(stream::iter(frames.map(Ok)))));
    response.headers_mut().insert("trailer", http::HeaderValue::from_static("x-checksum"));
    response
}

/// The request's headers, as JSON.
fn all_headers(headers: &HeaderMap) -> Response<ReplyBody> {
    let pairs: Vec<_> =
        headers.iter().map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())])).collect();
    json_body(&json!(pairs))
}

/// Switches protocols and then says back what it hears, as a WebSocket echo does without the framing.
fn upgrade(mut request: Request<Incoming>) -> Response<ReplyBody> {
    let Some(protocol) = request.headers().get("upgrade").cloned() else { return status(426) };
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(upgraded) = upgraded.await {
            say_back(TokioIo::new(upgraded)).await;
        }
    });
    let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert("connection", http::HeaderValue::from_static("upgrade"));
    response.headers_mut().insert("upgrade", protocol);
    response
}

async fn say_back(mut wire: TokioIo<Upgraded>) {
    let mut piece = [0; 4096];
    while let Ok(count @ 1..) = wire.read(&mut piece).await {
        if wire.write_all(&piece[..count]).await.is_err() || wire.flush().await.is_err() {
            return;
        }
    }
}

/// Answers when the gate is opened.
async fn gate(state: &State) -> Response<ReplyBody> {
    let opened = state.gate.notified();
    state.waiting.fetch_add(1, Ordering::Relaxed);
    opened.await;
    state.waiting.fetch_sub(1, Ordering::Relaxed);
    let mut response = text_body("open");
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("text/plain"));
    response
}

/// A head and the first piece of a body that never goes on.
fn stalls() -> Response<ReplyBody> {
    let first = stream::iter([Ok(Frame::data(Bytes::from_static(b"first")))]);
    Response::new(BodyExt::boxed(StreamBody::new(first.chain(stream::pending()))))
}

/// What a payments API would say. It reads a body of known length first where it came over HTTP/2: a stream that is answered before it
/// has ended is reset, which may overtake the answer at callers that still send (RFC 9113 section 8.1).
async fn charges(request: Request<Incoming>, path: &str) -> Response<ReplyBody> {
    let (head, body) = request.into_parts();
    let method = head.method;
    let known = body.size_hint().exact().is_some();
    if head.version == Version::HTTP_2 && known && body.collect().await.is_err() {
        return status(400);
    }
    json_body(&json!({"id": "ch_1", "status": "succeeded", "method": method.as_str(), "path": path}))
}

fn json_body(value: &serde_json::Value) -> Response<ReplyBody> {
    let mut response = text_body(&value.to_string());
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    response
}

fn text_body(text: &str) -> Response<ReplyBody> {
    let body = Full::new(Bytes::copy_from_slice(text.as_bytes()));
    debug_assert!(body.size_hint().exact().is_some());
    Response::new(body.map_err(|never| match never {}).boxed())
}
