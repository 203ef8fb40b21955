//! A gRPC service that counts, on tonic, over TLS: unary calls, a stream that a test lets on message by message, and the ways in
//! which calls fail. It remembers the headers that it was sent.

use futures_util::{Stream, stream};
use http::{HeaderMap, Request, Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_rustls::TlsAcceptor;
use tonic::{Status, body::Body, metadata::MetadataValue};
use tonic_prost::ProstCodec;

/// What is asked for.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Ask {
    /// How far to count.
    #[prost(uint32, tag = "1")]
    pub upto: u32,
    /// Repeated in every answer.
    #[prost(string, tag = "2")]
    pub note: String,
}

/// One number.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Count {
    /// The number.
    #[prost(uint32, tag = "1")]
    pub value: u32,
    /// What was asked with it.
    #[prost(string, tag = "2")]
    pub note: String,
}

/// A gRPC service. It serves until it is dropped.
pub struct Counting {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<State>,
    task: tokio::task::AbortHandle,
}

struct State {
    seen: Mutex<Vec<HeaderMap>>,
    /// One permit for each message of a stream that may go out.
    gate: Semaphore,
}

/// The path of a method, such as `Once`.
pub fn path(method: &str) -> String {
    format!("/tidegate.test.Counting/{method}")
}

impl Counting {
    /// Starts serving HTTP/2 over TLS.
    pub async fn start(config: Arc<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port can be bound");
        let address = listener.local_addr().expect("a bound socket has an address");
        let state = Arc::new(State { seen: Mutex::default(), gate: Semaphore::new(0) });
        let serving = Arc::clone(&state);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, state) = (TlsAcceptor::from(Arc::clone(&config)), Arc::clone(&serving));
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
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

    /// The headers of the calls so far.
    pub fn seen(&self) -> Vec<HeaderMap> {
        self.state.seen.lock().expect("nobody panics within").clone()
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(request: Request<Incoming>, state: Arc<State>) -> Result<Response<Body>, Infallible> {
    state.seen.lock().expect("nobody panics within").push(request.headers().clone());
    let mut grpc = tonic::server::Grpc::new(ProstCodec::<Count, Ask>::new());
    let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    Ok(match method.as_str() {
        "Once" => grpc.unary(tower::service_fn(once), request).await,
        "Fail" => grpc.unary(tower::service_fn(fail), request).await,
        "Up" => grpc.server_streaming(tower::service_fn(move |ask| up(ask, Arc::clone(&state))), request).await,
        other => Status::unimplemented(format!("there is no method {other}")).into_http(),
    })
}

async fn once(ask: tonic::Request<Ask>) -> Result<tonic::Response<Count>, Status> {
    let Ask { upto, note } = ask.into_inner();
    let mut response = tonic::Response::new(Count { value: upto, note });
    response.metadata_mut().insert("x-first", MetadataValue::from_static("said before"));
    Ok(response)
}

async fn fail(ask: tonic::Request<Ask>) -> Result<tonic::Response<Count>, Status> {
    let mut status = Status::not_found(format!("no {}: 100 % sure", ask.into_inner().note));
    status.metadata_mut().insert_bin("x-detail-bin", MetadataValue::from_bytes(b"\0\xff"));
    Err(status)
}

type Counts = std::pin::Pin<Box<dyn Stream<Item = Result<Count, Status>> + Send>>;

/// Counts up to what is asked for, and fails behind it where the note says so.
async fn up(ask: tonic::Request<Ask>, state: Arc<State>) -> Result<tonic::Response<Counts>, Status> {
    let Ask { upto, note } = ask.into_inner();
    let counts = stream::unfold(1, move |value| {
        let (state, note) = (Arc::clone(&state), note.clone());
        async move {
            if value > upto {
                return (note == "fail" && value == upto + 1).then(|| (Err(Status::aborted("that was enough")), value + 1));
            }
            state.gate.acquire().await.ok()?.forget();
            Some((Ok(Count { value, note }), value + 1))
        }
    });
    Ok(tonic::Response::new(Box::pin(counts)))
}
