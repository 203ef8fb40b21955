//! Export by OTLP over HTTP (protobuf): spans from the queue, metrics from the registry, by opentelemetry-otlp with a
//! client of our own on hyper, so that no second HTTP or TLS stack comes in.

use super::{
    Registry,
    page::{Family, Kind},
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use opentelemetry::{KeyValue, metrics::MeterProvider};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{MetricExporter, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    metrics::{PeriodicReader, SdkMeterProvider},
    trace::SpanExporter as _,
};
use std::{pin::Pin, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    runtime::Handle,
};

/// How long one export may take: what the OTLP specification names as the default.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer that is read; a partial-success answer has a few hundred bytes.
const ANSWER_BYTES: usize = 64 * 1024;

/// Knobs of the export.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The receiver's base URL, such as `http://127.0.0.1:4318`; nothing is exported without it.
    pub endpoint: Option<String>,
    /// The share of the traces begun here that are recorded, 0 to 1.
    pub sample_ratio: f64,
    /// How often metrics are exported.
    pub metrics_interval: Duration,
    /// What the exported telemetry calls this gateway (`service.name`).
    pub service_name: String,
}

impl Default for Settings {
    // 60 s is the OpenTelemetry SDK's own default interval.
    fn default() -> Self {
        Self {
            endpoint: None,
            sample_ratio: 1.0,
            metrics_interval: Duration::from_secs(60),
            service_name: "tidegate".to_owned(),
        }
    }
}

/// Sends requests on the control runtime, whichever thread asks.
#[derive(Debug, Clone)]
struct Client {
    runtime: Handle,
    tls: Arc<rustls::ClientConfig>,
}

fn resource(settings: &Settings) -> Resource {
    Resource::builder()
        .with_service_name(settings.service_name.clone())
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build()
}

/// The exporter of spans to `endpoint`.
///
/// # Errors
/// The endpoint is not one that can be exported to; a sentence for the operator.
pub fn span_exporter(settings: &Settings, endpoint: &str, runtime: &Handle) -> Result<SpanExporter, String> {
    let mut exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Client::new(runtime)?)
        .with_endpoint(url(endpoint, "traces"))
        .with_timeout(TIMEOUT)
        .build()
        .map_err(|error| refusal(endpoint, &error))?;
    exporter.set_resource(&resource(settings));
    Ok(exporter)
}

/// Exports every family of `registry` periodically, until the provider is shut down.
///
/// # Errors
/// The endpoint is not one that can be exported to; a sentence for the operator.
pub fn export_metrics(
    settings: &Settings,
    endpoint: &str,
    registry: &Registry,
    runtime: &Handle,
) -> Result<SdkMeterProvider, String> {
    let exporter = MetricExporter::builder()
        .with_http()
        .with_http_client(Client::new(runtime)?)
        .with_endpoint(url(endpoint, "metrics"))
        .with_timeout(TIMEOUT)
        .build()
        .map_err(|error| refusal(endpoint, &error))?;
    let reader = PeriodicReader::builder(exporter).with_interval(settings.metrics_interval).build();
    let provider = SdkMeterProvider::builder().with_reader(reader).with_resource(resource(settings)).build();
    let meter = provider.meter("tidegate");
    for Family { name, help, kind, .. } in registry.read().families().to_vec() {
        let registry = registry.clone();
        let observe = move |report: &mut dyn FnMut(f64, &[KeyValue])| {
            for family in registry.read().families().iter().filter(|family| family.name == name) {
                for sample in &family.samples {
                    let labels = sample.labels.iter().map(|(name, value)| KeyValue::new(*name, value.clone()));
                    let part =
                        (!sample.suffix.is_empty()).then(|| KeyValue::new("part", sample.suffix.trim_start_matches('_')));
                    report(sample.value, &labels.chain(part).collect::<Vec<_>>());
                }
            }
        };
        // There is no observable histogram: its buckets, sum and count go as one counter, told apart by `part`.
        match kind {
            Kind::Counter | Kind::Histogram => {
                let callback = move |observer: &dyn opentelemetry::metrics::AsyncInstrument<f64>| {
                    observe(&mut |value, labels| observer.observe(value, labels));
                };
                let _ = meter.f64_observable_counter(name).with_description(help).with_callback(callback).build();
            }
            Kind::Gauge => {
                let callback = move |observer: &dyn opentelemetry::metrics::AsyncInstrument<f64>| {
                    observe(&mut |value, labels| observer.observe(value, labels));
                };
                let _ = meter.f64_observable_gauge(name).with_description(help).with_callback(callback).build();
            }
        }
    }
    Ok(provider)
}

fn url(endpoint: &str, signal: &str) -> String {
    format!("{}/v1/{signal}", endpoint.trim_end_matches('/'))
}

fn refusal(endpoint: &str, error: &dyn std::fmt::Display) -> String {
    format!("{endpoint:?} cannot be exported to ({error}); give otlp_endpoint as http://HOST:PORT or https://HOST:PORT")
}

impl Client {
    fn new(runtime: &Handle) -> Result<Self, String> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS for the export could not be set up: {error}"))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { runtime: runtime.clone(), tls: Arc::new(tls) })
    }

    async fn send(self, request: ::http::Request<Bytes>) -> Result<::http::Response<Bytes>, HttpError> {
        let uri = request.uri();
        let secure = uri.scheme_str() == Some("https");
        let host = uri.host().ok_or("the URL has no host")?.trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let stream = TcpStream::connect((host.as_str(), port)).await?;
        if secure {
            let name = rustls::pki_types::ServerName::try_from(host)?;
            exchange(tokio_rustls::TlsConnector::from(self.tls).connect(name, stream).await?, request).await
        } else {
            exchange(stream, request).await
        }
    }
}

/// One request on a connection of its own: exports are seconds apart.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: ::http::Request<Bytes>,
) -> Result<::http::Response<Bytes>, HttpError> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await?;
    let driven = tokio::spawn(connection);
    let (mut head, body) = request.into_parts();
    let authority = head.uri.authority().ok_or("the URL has no host")?.as_str();
    let host = ::http::HeaderValue::from_str(authority.rsplit('@').next().unwrap_or_default())?;
    head.headers.insert(::http::header::HOST, host);
    head.uri = head.uri.path_and_query().map_or("/", |path| path.as_str()).parse()?;
    let answer = sender.send_request(::http::Request::from_parts(head, Full::new(body))).await?;
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, ANSWER_BYTES).collect().await?.to_bytes();
    driven.abort();
    Ok(::http::Response::from_parts(head, body))
}

impl HttpClient for Client {
    // What `async_trait` would write; the trait asks for this shape.
    fn send_bytes<'client, 'future>(
        &'client self,
        request: ::http::Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<::http::Response<Bytes>, HttpError>> + Send + 'future>>
    where
        'client: 'future,
        Self: 'future,
    {
        let client = self.clone();
        // The timer belongs to the runtime, so it is made there: metrics are exported from a thread that has none.
        let sent = self.runtime.spawn(async move { tokio::time::timeout(TIMEOUT, client.send(request)).await });
        Box::pin(async move { sent.await?? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{spans, trace::TraceContext};
    use hyper::{Request, Response, body::Incoming, service::service_fn};
    use std::time::SystemTime;
    use tidegate_policy::{
        Reason,
        exchange::{Durations, Verdict},
    };
    use tokio::{net::TcpListener, sync::mpsc};

    /// A receiver that says what it was sent.
    async fn receiver() -> (String, mpsc::UnboundedReceiver<(String, Bytes)>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (seen, received) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let seen = seen.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    let seen = seen.clone();
                    async move {
                        let path = request.uri().path().to_owned();
                        assert_eq!(request.headers()["content-type"], "application/x-protobuf");
                        seen.send((path, request.into_body().collect().await.unwrap().to_bytes())).unwrap();
                        Ok::<_, hyper::Error>(Response::new(Full::new(Bytes::new())))
                    }
                });
                let stream = hyper_util::rt::TokioIo::new(stream);
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(stream, service));
            }
        });
        (endpoint, received)
    }

    fn contains(body: &[u8], part: &[u8]) -> bool {
        body.windows(part.len()).any(|window| window == part)
    }

    #[tokio::test]
    async fn spans_and_metrics_reach_a_receiver() {
        let (endpoint, mut received) = receiver().await;
        let settings = Settings { metrics_interval: Duration::from_millis(50), ..Settings::default() };
        let exporter = span_exporter(&settings, &endpoint, &Handle::current()).unwrap();
        let metrics = Arc::new(spans::Metrics::default());
        let (outbox, finished) = spans::queue(Arc::clone(&metrics));
        let exporting = tokio::spawn(spans::export(exporter, finished, Arc::clone(&metrics)));
        outbox.send(|| spans::Finished {
            context: TraceContext { trace_id: [0xa5; 16], span_id: [0x5a; 8], parent: Some([0x3c; 8]), sampled: true },
            began: SystemTime::now(),
            durations: Durations {
                total_us: 900,
                resolve_us: Some(100),
                connect_us: Some(50),
                tls_us: Some(200),
                filters_us: Some(9),
                first_byte_us: Some(300),
            },
            sent_us: Some(400),
            method: ::http::Method::GET,
            target: "http://api.example.com/".to_owned(),
            address: "192.0.2.1:443".to_owned(),
            protocol: "HTTP/1.1",
            service: Some(Arc::from("payments")),
            rule: None,
            reason: Reason::AllowedByRule,
            verdict: Verdict::Allowed,
            status: Some(200),
            fault: None,
        });
        drop(outbox);
        exporting.await.unwrap();
        assert_eq!((metrics.exported.value(), metrics.failed.value()), (1, 0));
        let (path, body) = received.recv().await.unwrap();
        assert_eq!(path, "/v1/traces");
        for part in [&[0xa5; 16][..], &[0x5a; 8], &[0x3c; 8], b"GET payments", b"tidegate"] {
            assert!(contains(&body, part), "{part:?} was not exported");
        }
        for phase in ["resolve", "connect", "tls", "filters", "upstream"] {
            assert!(contains(&body, phase.as_bytes()), "{phase} was not exported");
        }

        let registry = Registry::default();
        registry.add(|page| page.counter("tidegate_example_total", "An example.", 7));
        let provider = export_metrics(&settings, &endpoint, &registry, &Handle::current()).unwrap();
        let (path, body) = tokio::time::timeout(TIMEOUT, received.recv()).await.unwrap().unwrap();
        assert_eq!(path, "/v1/metrics");
        assert!(contains(&body, b"tidegate_example_total"));
        tokio::task::spawn_blocking(move || provider.shutdown()).await.unwrap().unwrap();
    }
}
