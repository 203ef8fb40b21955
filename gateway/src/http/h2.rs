//! HTTP/2 downstream: hyper speaks the protocol, each stream is one exchange. hyper's own defences against floods of
//! resets (CVE-2023-44487) and of local errors are left at their defaults.

use super::{
    Request,
    body::Body,
    downstream::{Downstream, Within},
    exchange::{self, Answer},
    metrics::Open,
    stall::Watch,
    target,
};
use crate::{fault::Fault, listen::Peer, stream::Stream, worker::Worker};
use ::http::{HeaderMap, Method, header};
use bytes::Bytes;
use hyper::{body::Incoming, server::conn::http2::Builder, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    fmt,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};
use tidegate_policy::Reason;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Most bytes of one response that wait for a caller who does not read. Four frames keep a link busy, and the 250 streams of
/// a connection hold 16 MiB at most; hyper's 400 KiB would be 100.
const SEND_BUFFER_BYTES: usize = 64 * 1024;

/// Limits on what one HTTP/2 connection may ask for.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Exchanges open at once on one connection (`http2_streams`). 250: sidecars multiplex many callers, and RFC 9113
    /// section 6.5.2 asks for at least 100.
    pub streams: u32,
    /// Largest header section, in bytes (`http2_head_bytes`), like that of HTTP/1.1; counted as RFC 9113 section 6.5.2
    /// says, with 32 bytes for each field.
    pub head_bytes: u32,
    /// How often a connection with open streams is pinged (`http2_ping_interval`).
    pub ping_interval: Duration,
    /// How long a ping may stay unanswered (`http2_ping_timeout`).
    pub ping_timeout: Duration,
    /// Bytes received and not yet read, of one stream (`http2_stream_window_bytes`): 1 MiB carries 100 Mbit/s over 80 ms.
    pub stream_window_bytes: u32,
    /// The same, of one connection (`http2_connection_window_bytes`): what one slow upstream can make it hold.
    pub connection_window_bytes: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            streams: 250,
            head_bytes: 64 * 1024,
            ping_interval: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(20),
            stream_window_bytes: 1 << 20,
            connection_window_bytes: 4 << 20,
        }
    }
}

/// Runs hyper's tasks on the worker's own thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OnThisThread;

impl<F: Future + 'static> hyper::rt::Executor<F> for OnThisThread {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

/// A stream of which some bytes have been read already.
#[derive(Debug)]
struct Rewound {
    read: Bytes,
    stream: Stream,
}

/// Serves an HTTP/2 connection, perhaps `within` a tunnel, until either side ends it or the worker drains.
pub async fn serve(worker: &Rc<Worker>, peer: &Rc<Peer>, within: Option<&Within>, stream: Stream, read: Bytes) {
    let limits = worker.http.settings.h2;
    let targets: Rc<target::Cache> = Rc::default();
    let watch = Rc::new(Watch::new(worker.http.settings.h1.write_timeout));
    let service = service_fn(|request: ::http::Request<Incoming>| {
        let mut downstream = Downstream::stream(Rc::clone(peer), Rc::clone(&targets));
        downstream.within = within.cloned();
        let downstream = Rc::new(downstream);
        let (worker, watch) = (Rc::clone(worker), Rc::clone(&watch));
        async move {
            let response = exchange_stream(worker, downstream, request).await?;
            Ok::<_, Withheld>(response.map(|body| watch.over(body)))
        }
    });
    let connection = Builder::new(OnThisThread)
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        // Above this, hyper answers a bare 431 that says nothing and leaves no record; up to it, the spine can refuse.
        .max_header_list_size(limits.head_bytes.saturating_mul(2))
        .initial_stream_window_size(limits.stream_window_bytes)
        .initial_connection_window_size(limits.connection_window_bytes)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .keep_alive_interval(limits.ping_interval)
        .keep_alive_timeout(limits.ping_timeout)
        .serve_connection(TokioIo::new(Rewound { read, stream }), service);
    let mut connection = pin!(connection);
    let _registered = worker.drain.register().await;
    let mut told = false;
    let ended = poll_fn(|cx| {
        if worker.drain.begun() && !told {
            worker.http.metrics.drained.add(1);
            connection.as_mut().graceful_shutdown();
            told = true;
        }
        watch.poll(cx);
        connection.as_mut().poll(cx)
    });
    if let Err(error) = ended.await {
        tracing::debug!(%error, peer.address = %peer.address, "an HTTP/2 connection ended");
    }
}

/// One stream: one exchange.
async fn exchange_stream(
    worker: Rc<Worker>,
    downstream: Rc<Downstream>,
    mut request: ::http::Request<Incoming>,
) -> Result<super::Response, Withheld> {
    worker.http.metrics.streams.add(1);
    let _open = Open::one(&worker.http.metrics, |metrics| &metrics.streams_open);
    let upgrade = (*request.method() == Method::CONNECT).then(|| hyper::upgrade::on(&mut request));
    let mut request: Request = request.map(|incoming| if upgrade.is_some() { Body::empty() } else { Body::from_h2(incoming) });
    if section_bytes(request.headers()) > worker.http.settings.h2.head_bytes as usize {
        let fault = Fault::new(Reason::HeaderTooLarge, "the request's header section is larger than http2_head_bytes");
        worker.http.metrics.head_refused(fault.reason());
        return Ok(exchange::refuse(&worker, &downstream, &request, &fault));
    }
    let Answer { mut response, takeover, withheld } = exchange::exchange(&worker, &downstream, &mut request).await;
    drop(request);
    if withheld {
        return Err(Withheld);
    }
    // Connection fields mean nothing here, and make the response malformed (RFC 9113 section 8.2.2).
    for name in [header::CONNECTION, header::UPGRADE, header::TRANSFER_ENCODING] {
        response.headers_mut().remove(name);
    }
    *response.version_mut() = ::http::Version::HTTP_2;
    if let (Some(takeover), Some(upgrade)) = (takeover, upgrade) {
        tokio::task::spawn_local(async move {
            // Without its stream the takeover is dropped, and with it the record, which says that the caller left.
            if let Ok(upgraded) = upgrade.await {
                takeover(Stream::Tunnel(TokioIo::new(upgraded)), Bytes::new()).await;
            }
        });
    }
    Ok(response)
}

/// No answer is to be given: hyper resets the stream.
#[derive(Debug)]
struct Withheld;

impl fmt::Display for Withheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no answer is to be given")
    }
}

impl std::error::Error for Withheld {}

/// What header fields count for (RFC 9113 section 6.5.2).
fn section_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum()
}

impl AsyncRead for Rewound {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let count = self.read.len().min(buffer.remaining());
        buffer.put_slice(&self.read.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
