//! A gRPC service about ships, on tonic, over HTTP/2 in the clear, and its descriptor set: unary calls, a stream that a test lets
//! on message by message, and the ways in which calls fail. It remembers the calls that it got.

use bytes::Bytes;
use futures_util::{Stream, stream};
use http::{HeaderMap, Request, Response};
use http_body_util::StreamBody;
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};
use std::{
    convert::Infallible,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{net::TcpListener, sync::Semaphore};
use tonic::{Code, Status, body::Body};
use tonic_prost::ProstCodec;

/// Which ship.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ShipRequest {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// Which port, and how many ships.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct WatchRequest {
    /// The port's name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// How many ships.
    #[prost(uint32, tag = "2")]
    pub ships: u32,
}

/// A ship.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Ship {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// What it displaces.
    #[prost(int64, tag = "2")]
    pub tonnage: i64,
    /// The flags it has sailed under.
    #[prost(string, repeated, tag = "3")]
    pub flags: Vec<String>,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Eq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

/// A gRPC service. It serves until it is dropped.
pub struct Harbour {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<State>,
    task: tokio::task::AbortHandle,
}

struct State {
    calls: Mutex<Vec<(String, HeaderMap)>>,
    /// One permit for each message of a stream that may go out.
    gate: Semaphore,
}

/// The descriptor set of the service, with what it imports.
pub fn descriptors() -> Vec<u8> {
    let mut resolver = ChainFileResolver::new();
    resolver.add(Sources);
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).open_file("harbour.proto").expect("the harness's own source compiles");
    compiler.encode_file_descriptor_set()
}

struct Sources;

impl FileResolver for Sources {
    fn resolve_path(&self, path: &Path) -> Option<String> {
        path.to_str().map(str::to_owned)
    }

    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match name {
            "harbour.proto" => File::from_source(name, include_str!("harbour.proto")),
            "google/api/annotations.proto" => {
                File::from_source(name, include_str!("../../plugins/json-grpc/src/samples/annotations.proto"))
            }
            _ => Err(protox::Error::file_not_found(name)),
        }
    }
}

impl Harbour {
    /// Starts serving.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port can be bound");
        let address = listener.local_addr().expect("a bound socket has an address");
        let state = Arc::new(State { calls: Mutex::default(), gate: Semaphore::new(0) });
        let serving = Arc::clone(&state);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&serving);
                connections.spawn(async move {
                    let service = service_fn(move |request| answer(request, Arc::clone(&state)));
                    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    // How a connection ends is the caller's business.
                    drop(server.serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        Self { address, state, task: task.abort_handle() }
    }

    /// Lets one message more of a stream go out.
    pub fn let_on(&self) {
        self.state.gate.add_permits(1);
    }

    /// The paths and headers of the calls so far.
    pub fn calls(&self) -> Vec<(String, HeaderMap)> {
        self.state.calls.lock().expect("nobody panics within").clone()
    }
}

impl Drop for Harbour {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(request: Request<Incoming>, state: Arc<State>) -> Result<Response<Body>, Infallible> {
    let (path, headers) = (request.uri().path().to_owned(), request.headers().clone());
    // What strict servers ask of their clients.
    let proper = headers.get("te").is_some_and(|te| te == "trailers") && request.method() == http::Method::POST;
    state.calls.lock().expect("nobody panics within").push((path.clone(), headers));
    if !proper {
        return Ok(Status::internal("this is no call of a gRPC client").into_http());
    }
    let mut of_ship = tonic::server::Grpc::new(ProstCodec::<Ship, ShipRequest>::new());
    Ok(match path.strip_prefix("/tide.v1.Harbour/") {
        Some("GetShip") => of_ship.unary(tower::service_fn(ship), request).await,
        Some("Wait") => of_ship.unary(tower::service_fn(wait), request).await,
        Some("Cut") => cut(),
        Some("Register") => {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<Ship, Ship>::new());
            grpc.unary(tower::service_fn(register), request).await
        }
        Some("Watch") => {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<Ship, WatchRequest>::new());
            grpc.server_streaming(tower::service_fn(move |ask| watch(ask, Arc::clone(&state))), request).await
        }
        _ => Status::unimplemented(format!("there is no {path}")).into_http(),
    })
}

async fn ship(ask: tonic::Request<ShipRequest>) -> Result<tonic::Response<Ship>, Status> {
    let ShipRequest { name } = ask.into_inner();
    if name == "ships/flying-dutchman" {
        return Err(Status::not_found("nobody has seen it: 100 % sure"));
    }
    Ok(tonic::Response::new(Ship { name, tonnage: 5_000_000_000, flags: vec!["GB".to_owned(), "ü".to_owned()] }))
}

async fn register(ship: tonic::Request<Ship>) -> Result<tonic::Response<Ship>, Status> {
    let ship = ship.into_inner();
    if ship.tonnage >= 0 {
        return Ok(tonic::Response::new(ship));
    }
    // `tide.v1.Refusal` with a rule.
    let value = Bytes::from_static(b"\x0a\x07tonnage");
    let any = Any { type_url: "type.googleapis.com/tide.v1.Refusal".to_owned(), value };
    let status = RpcStatus { code: 3, message: "it would sink".to_owned(), details: vec![any] };
    Err(Status::with_details(Code::InvalidArgument, "it would sink", status.encode_to_vec().into()))
}

/// Waits as long as the caller does, as servers with deadlines do.
async fn wait(ask: tonic::Request<ShipRequest>) -> Result<tonic::Response<Ship>, Status> {
    let timeout = ask.metadata().get("grpc-timeout").and_then(|timeout| timeout.to_str().ok());
    let millis = timeout.and_then(|timeout| timeout.strip_suffix('m')?.parse().ok());
    let millis = millis.ok_or_else(|| Status::internal(format!("no deadline in milliseconds: {timeout:?}")))?;
    let never = std::future::pending::<Result<tonic::Response<Ship>, Status>>();
    let in_time = tokio::time::timeout(Duration::from_millis(millis), never).await;
    in_time.unwrap_or_else(|_| Err(Status::deadline_exceeded("it took too long")))
}

/// Half of a message, and a status as if it were whole.
fn cut() -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    let half = Bytes::from_static(&[0, 0, 0, 0, 9, 0x0a, 7, b'h', b'a']);
    let frames = [Ok::<_, Infallible>(Frame::data(half)), Ok(Frame::trailers(trailers))];
    let body = Body::new(StreamBody::new(stream::iter(frames)));
    Response::builder().header("content-type", "application/grpc").body(body).expect("a response")
}

type Ships = std::pin::Pin<Box<dyn Stream<Item = Result<Ship, Status>> + Send>>;

async fn watch(ask: tonic::Request<WatchRequest>, state: Arc<State>) -> Result<tonic::Response<Ships>, Status> {
    let WatchRequest { name, ships } = ask.into_inner();
    if name == "ports/atlantis" {
        return Err(Status::not_found("it has sunk"));
    }
    let ships = stream::unfold(1, move |number| {
        let (state, name) = (Arc::clone(&state), name.clone());
        async move {
            if number > ships {
                return (name == "ports/storm" && number == ships + 1).then(|| (Err(Status::aborted("the storm")), number + 1));
            }
            state.gate.acquire().await.ok()?.forget();
            Some((Ok(Ship { name: format!("ships/{number}"), ..Ship::default() }), number + 1))
        }
    });
    Ok(tonic::Response::new(Box::pin(ships)))
}
