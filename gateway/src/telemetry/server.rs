//! The metrics listener: `/metrics`, `/healthz` and `/readyz`, and nothing that changes anything.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, StatusCode, body::Incoming, service::service_fn};
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::Semaphore};

/// Scrapes and probes at once; a Prometheus pair, the kubelet and a person need a handful.
const MAX_CONNECTIONS: usize = 64;
/// How long a connection may take from its beginning to its end, so that none is held for ever.
const CONNECTION_TIME: Duration = Duration::from_secs(60);

/// Whether the gateway is ready for exchanges; the error says what is missing.
pub type Readiness = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Reads everything that is counted, as Prometheus text.
pub type Text = Arc<dyn Fn() -> String + Send + Sync>;

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener, metrics: Text, ready: Readiness) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(error = %error, "the metrics listener could not accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (metrics, ready) = (Arc::clone(&metrics), Arc::clone(&ready));
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let answer = answer(&request, &metrics, &ready);
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(hyper_util::rt::TokioTimer::new())
                .serve_connection(hyper_util::rt::TokioIo::new(stream), service);
            // A caller that goes away or breaks HTTP concerns nobody else.
            let _ = tokio::time::timeout(CONNECTION_TIME, connection).await;
            drop(place);
        });
    }
}

fn answer(request: &Request<Incoming>, metrics: &Text, ready: &Readiness) -> Response<Full<Bytes>> {
    const TEXT: &str = "text/plain; charset=utf-8";
    if !matches!(*request.method(), hyper::Method::GET | hyper::Method::HEAD) {
        return reply(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD are answered here\n".to_owned());
    }
    match request.uri().path() {
        "/metrics" => reply(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics()),
        "/healthz" => reply(StatusCode::OK, TEXT, "alive\n".to_owned()),
        "/readyz" => match ready() {
            Ok(()) => reply(StatusCode::OK, TEXT, "ready\n".to_owned()),
            Err(missing) => reply(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{missing}\n")),
        },
        _ => reply(StatusCode::NOT_FOUND, TEXT, "there is /metrics, /healthz and /readyz\n".to_owned()),
    }
}

fn reply(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(::http::header::CONTENT_TYPE, ::http::HeaderValue::from_static(kind));
    response
}
