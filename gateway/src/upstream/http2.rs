//! HTTP/2 connections, shared by the exchanges of one worker. hyper speaks the protocol; this module counts the streams
//! and puts requests into HTTP/2's form.

use super::{
    load::Lease,
    pool::Busy,
    tls::{self, Ending, Watched},
};
use crate::{
    fault::Fault,
    http::{
        Request, Response,
        body::Body,
        h2::{Limits, OnThisThread},
    },
    stream::Stream,
};
use ::http::{HeaderName, HeaderValue, Uri, Version, header, uri::PathAndQuery};
use http_body::Body as _;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    cell::{Cell, RefCell},
    error::Error as _,
    mem,
    rc::Rc,
    time::{Duration, Instant},
};
use tidegate_policy::Reason;

/// One connection and what is under way on it.
pub(super) struct Shared {
    sender: SendRequest<Body>,
    streams: Cell<u32>,
    idle_since: Cell<Instant>,
    scheme: &'static str,
    /// Its place among the service's connections, held until the connection has ended or was given up.
    lease: Rc<RefCell<Option<Lease>>>,
    /// Why TLS ended, once it has.
    ended: Ending,
    /// Whether the server asked for a client certificate and got none.
    certificate_wanting: bool,
    /// Whether a response has come: a server that has answered has accepted the connection.
    answered: Cell<bool>,
    /// The exchanges under way at its address, whichever connection they use.
    busy: Busy,
}

/// How a connection begins.
pub(super) struct Beginning {
    pub(super) limits: Limits,
    /// Limit on the connection preface.
    pub(super) limit: Duration,
    pub(super) lease: Lease,
    /// Whether the server asked for a client certificate and got none.
    pub(super) certificate_wanting: bool,
    /// The exchanges under way at its address.
    pub(super) busy: Busy,
}

/// A stream's place on a connection, held until the response's last byte.
pub(super) struct Place(Rc<Shared>);

impl Shared {
    /// Begins HTTP/2 over `stream`. The connection is driven by a task of this worker.
    pub(super) async fn begin(stream: Stream, beginning: Beginning) -> Result<Self, Fault> {
        match stream {
            Stream::Plain(tcp) => Self::over(TokioIo::new(tcp), "http", Ending::default(), beginning).await,
            Stream::Originated(tls) => {
                let (watched, ended) = Watched::new(tls);
                Self::over(TokioIo::new(watched), "https", ended, beginning).await
            }
            Stream::Accepted(_) | Stream::Tunnel(_) => {
                Err(Fault::new(Reason::Internal, "HTTP/2 over a connection that was not dialled"))
            }
        }
    }

    async fn over<T>(io: T, scheme: &'static str, ended: Ending, beginning: Beginning) -> Result<Self, Fault>
    where
        T: hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
    {
        let Beginning { limits, limit, lease, certificate_wanting, busy } = beginning;
        let mut builder = Builder::new(OnThisThread);
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(limits.stream_window_bytes)
            .initial_connection_window_size(limits.connection_window_bytes)
            .max_header_list_size(limits.head_bytes)
            .keep_alive_interval(limits.ping_interval)
            .keep_alive_timeout(limits.ping_timeout);
        let handshake = tokio::time::timeout(limit, builder.handshake(io)).await;
        let (sender, connection) = handshake
            .map_err(|_elapsed| {
                Fault::new(Reason::Timeout, "HTTP/2 with the upstream could not be begun in time").before_send()
            })?
            .map_err(|error| match ended.get() {
                Some(fault) => fault.clone().before_send(),
                None => Fault::new(Reason::UpstreamProtocol, format!("HTTP/2 with the upstream could not be begun: {error}"))
                    .before_send(),
            })?;
        let lease = Rc::new(RefCell::new(Some(lease)));
        let open = Rc::clone(&lease);
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an HTTP/2 connection to an upstream ended");
            }
            drop(open.take());
        });
        let (streams, idle_since) = (Cell::new(0), Cell::new(Instant::now()));
        Ok(Self { sender, streams, idle_since, scheme, lease, ended, certificate_wanting, answered: Cell::new(false), busy })
    }

    /// Since when it has carried nothing; none while it carries an exchange.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        (self.streams.get() == 0).then(|| self.idle_since.get())
    }

    /// Gives its place among the service's connections to another; it must not be used any more.
    pub(super) fn give_up(&self) {
        drop(self.lease.take());
    }

    /// Whether another worker was refused a connection and this one carries nothing.
    pub(super) fn is_wanted(&self) -> bool {
        self.streams.get() == 0 && self.lease.borrow().as_ref().is_some_and(|lease| lease.load().take_pressed())
    }

    /// The fault for a request that got no response.
    fn unanswered(&self, error: &hyper::Error) -> Fault {
        let first = !self.answered.get();
        match self.ended.get() {
            Some(_) if first && self.certificate_wanting => Fault::new(Reason::TlsFailed, tls::CERTIFICATE_DEMANDED),
            // The reset that follows an alert can overtake it, and hyper may cancel the request before it says why.
            None if first && self.certificate_wanting && lost_connection(error) => {
                Fault::new(Reason::TlsFailed, tls::CERTIFICATE_DEMANDED)
            }
            Some(fault) if first => fault.clone(),
            _ => Fault::new(Reason::UpstreamProtocol, format!("the upstream's HTTP/2 connection failed: {error}")),
        }
    }

    fn stays(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Whether it can carry another exchange.
    pub(super) fn has_room(&self, most: u32) -> bool {
        self.stays() && self.streams.get() < most
    }

    /// Whether it should be let go: closed by the peer (GOAWAY), or without an exchange for `idle`.
    pub(super) fn is_over(&self, now: Instant, idle: Duration) -> bool {
        self.sender.is_closed() || (self.streams.get() == 0 && now.saturating_duration_since(self.idle_since.get()) >= idle)
    }

    /// A place for one more exchange.
    pub(super) fn place(self: &Rc<Self>) -> Place {
        self.streams.set(self.streams.get() + 1);
        self.busy.set(self.busy.get() + 1);
        Place(Rc::clone(self))
    }
}

impl Place {
    /// Sends the request and waits for the response's head. After a retryable fault the request is whole again; one
    /// without a body always is, since only a copy of it leaves.
    pub(super) async fn send(self, request: &mut Request) -> Result<Response, Fault> {
        let bodiless = request.body().is_end_stream();
        let leaving = if bodiless { copy(request) } else { mem::take(request) };
        let ready = in_http2_form(leaving, self.0.scheme)?;
        let mut sender = self.0.sender.clone();
        match sender.try_send_request(ready).await {
            Ok(response) => {
                self.0.answered.set(true);
                Ok(response.map(|incoming| Body::held(incoming, Box::new(self))))
            }
            Err(mut failure) => {
                let unsent = failure.take_message();
                let error = failure.into_error();
                let untouched = unsent.is_some() || (bodiless && was_refused(&error));
                let fault = self.0.unanswered(&error);
                if let Some(unsent) = unsent.filter(|_| !bodiless) {
                    *request = unsent;
                }
                Err(if untouched { fault.before_send() } else { fault })
            }
        }
    }
}

/// The same request; for one without a body.
fn copy(request: &Request) -> Request {
    let mut copy = Request::new(Body::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// Whether the upstream has said that it did nothing with the request: a refused stream (RFC 9113 section 8.7), or one
/// above the last that a graceful GOAWAY promises to serve (section 6.8).
fn was_refused(error: &hyper::Error) -> bool {
    let Some(error) = error.source().and_then(|source| source.downcast_ref::<h2::Error>()) else { return false };
    let reason = error.reason();
    error.is_remote()
        && ((error.is_reset() && reason == Some(h2::Reason::REFUSED_STREAM))
            || (error.is_go_away() && reason == Some(h2::Reason::NO_ERROR)))
}

/// Whether the whole connection failed, rather than this stream of it.
fn lost_connection(error: &hyper::Error) -> bool {
    error.source().and_then(|source| source.downcast_ref::<h2::Error>()).is_none_or(|error| !error.is_reset())
}

impl Drop for Place {
    fn drop(&mut self) {
        let shared = &self.0;
        shared.streams.set(shared.streams.get().saturating_sub(1));
        shared.busy.set(shared.busy.get().saturating_sub(1));
        shared.idle_since.set(Instant::now());
    }
}

/// The same request with its target in the pseudo-header fields, and without what HTTP/2 forbids (RFC 9113 section
/// 8.2.2). Doing it again changes nothing.
fn in_http2_form(mut request: Request, scheme: &'static str) -> Result<Request, Fault> {
    const FORBIDDEN: [HeaderName; 5] = [
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ];
    let host = request.headers_mut().remove(header::HOST);
    for name in &FORBIDDEN {
        request.headers_mut().remove(name);
    }
    let kind = request.headers().get(header::CONTENT_TYPE);
    if kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
        // gRPC asks for it of every client, so that what does not pass trailers is noticed. Calls that filters made of other
        // requests came without, and filters cannot write it.
        request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
    } else if request.headers().get(header::TE).is_some_and(|te| te != "trailers") {
        request.headers_mut().remove(header::TE);
    }
    let authority = host.as_ref().and_then(|host| host.to_str().ok()).or(request.uri().authority().map(|own| own.as_str()));
    let authority =
        authority.ok_or_else(|| Fault::new(Reason::Internal, "a request without a host was about to leave"))?.to_owned();
    let path = request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::builder()
        .scheme(scheme)
        .authority(authority)
        .path_and_query(path)
        .build()
        .map_err(|error| Fault::new(Reason::MalformedTarget, format!("the target cannot be sent by HTTP/2: {error}")))?;
    *request.version_mut() = Version::HTTP_2;
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_take_their_form() {
        let request = ::http::Request::get("/a?b")
            .header("host", "api.example:8443")
            .header("connection", "keep-alive, te")
            .header("te", "gzip")
            .header("x-kept", "1")
            .body(Body::empty())
            .expect("a request");
        let request = in_http2_form(request, "https").expect("a form");
        assert_eq!(request.uri(), "https://api.example:8443/a?b");
        assert_eq!(request.version(), Version::HTTP_2);
        assert_eq!(request.headers().keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-kept"]);
        let again = in_http2_form(request, "https").expect("a form");
        assert_eq!(again.uri(), "https://api.example:8443/a?b");
    }

    #[test]
    fn grpc_calls_ask_for_trailers() {
        let sent = |kind: &str| {
            let request = ::http::Request::post("/a.B/C").header("host", "api.example").header("content-type", kind);
            let request = in_http2_form(request.body(Body::empty()).expect("a request"), "https").expect("a form");
            request.headers().get("te").cloned()
        };
        for kind in ["application/grpc", "application/grpc+proto"] {
            assert_eq!(sent(kind), Some(HeaderValue::from_static("trailers")), "{kind}");
        }
        assert_eq!(sent("application/json"), None);
    }
}
