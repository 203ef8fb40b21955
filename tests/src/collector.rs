//! A collector that receives what the gateway exports over OTLP/HTTP (protobuf) and keeps it for tests to read.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::{
    collector::{metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{AnyValue, any_value::Value},
    trace::v1::Span,
};
use prost::Message;
use std::{
    collections::BTreeSet,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use tokio::net::TcpListener;

/// A collector. It listens until it is dropped.
pub struct Collector {
    /// Where it listens, as an OTLP endpoint.
    pub address: SocketAddr,
    received: Arc<Mutex<Received>>,
    task: tokio::task::AbortHandle,
}

#[derive(Default)]
struct Received {
    spans: Vec<Span>,
    metrics: BTreeSet<String>,
}

impl Collector {
    /// Starts listening.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port is free");
        let address = listener.local_addr().expect("a bound socket has an address");
        let received = Arc::new(Mutex::new(Received::default()));
        let keeping = Arc::clone(&received);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let keeping = Arc::clone(&keeping);
                let service = service_fn(move |request| receive(request, Arc::clone(&keeping)));
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, received, task: task.abort_handle() }
    }

    /// The endpoint as an exporter is told it.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The spans received so far.
    pub fn spans(&self) -> Vec<Span> {
        self.received.lock().expect("nobody panics within").spans.clone()
    }

    /// The names of the metrics received so far.
    pub fn metrics(&self) -> BTreeSet<String> {
        self.received.lock().expect("nobody panics within").metrics.clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn receive(request: Request<Incoming>, received: Arc<Mutex<Received>>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let Ok(body) = request.into_body().collect().await.map(http_body_util::Collected::to_bytes) else {
        return Ok(answer(400));
    };
    let kept = match path.as_str() {
        "/v1/traces" => ExportTraceServiceRequest::decode(body).map(|request| {
            let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
            let spans = scopes.flat_map(|scope| scope.spans);
            received.lock().expect("nobody panics within").spans.extend(spans);
        }),
        "/v1/metrics" => ExportMetricsServiceRequest::decode(body).map(|request| {
            let scopes = request.resource_metrics.into_iter().flat_map(|resource| resource.scope_metrics);
            let names = scopes.flat_map(|scope| scope.metrics).map(|metric| metric.name);
            received.lock().expect("nobody panics within").metrics.extend(names);
        }),
        _ => return Ok(answer(404)),
    };
    Ok(answer(if kept.is_ok() { 200 } else { 400 }))
}

fn answer(status: u16) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = http::StatusCode::from_u16(status).expect("a status of our own");
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/x-protobuf"));
    response
}

/// A span's attribute as text.
pub fn attribute(span: &Span, key: &str) -> Option<String> {
    let value = span.attributes.iter().find(|attribute| attribute.key == key)?.value.clone()?;
    text(value)
}

fn text(value: AnyValue) -> Option<String> {
    Some(match value.value? {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        Value::BoolValue(flag) => flag.to_string(),
        Value::DoubleValue(number) => number.to_string(),
        _ => return None,
    })
}

/// An id of a span or a trace, in hexadecimal.
pub fn hex(id: &[u8]) -> String {
    id.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
