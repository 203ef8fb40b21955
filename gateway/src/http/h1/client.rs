//! The upstream side of HTTP/1.1: one request, one response, and the connection handed back when both have ended well.
//! It drives the request's body while the response is waited for and read, in the task that reads the response.

use super::{
    FIRST_READ_BYTES, Framing, LARGEST_READ_BYTES, Limits,
    decode::{Decoded, Decoder},
    encode::{Outgoing, Sending},
    head::{self, ResponseHead},
};
use crate::{
    fault::Fault,
    http::{Request, Response, body::Body},
    stream::Stream,
    upstream,
};
use ::http::{Method, StatusCode, Version, header};
use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame};
use std::{
    fmt,
    future::poll_fn,
    io, mem,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};
use tidegate_policy::Reason;
use tokio::time::{Instant, Sleep};

/// Most informational responses before the final one: more are an upstream playing for time.
const MAX_INFORMATIONAL: u32 = 16;

/// Takes back a connection on which an exchange has ended well, so that the next one can use it.
pub trait Recycle {
    /// Called at most once for each exchange.
    fn recycle(&self, exchanger: Exchanger);
}

/// An HTTP/1.1 connection to an upstream that is ready for one request.
pub struct Exchanger {
    wire: Box<Wire>,
}

/// The state of the connection; boxed once for its whole life, so that handing it on costs nothing.
struct Wire {
    stream: Stream,
    limits: Limits,
    incoming: BytesMut,
    read_bytes: usize,
    outgoing: Outgoing,
    upload: Upload,
    scan: head::Scan,
    used: bool,
    /// Whether a byte of the current response has come.
    answered: bool,
    /// Whether a piece of the current request's body was taken.
    body_begun: bool,
    informational: u32,
}

/// What is still to be sent of the request's body.
enum Upload {
    Done,
    /// Held until the upstream asks for it, or the timer fires.
    Waiting(Body, Sending, Pin<Box<Sleep>>),
    Going(Body, Sending),
    /// The upstream takes no more; the response is what counts.
    Broken(Fault),
}

/// A response's body on its way in, with the upload that may still be under way.
pub struct Incoming {
    exchanger: Option<Exchanger>,
    decoder: Decoder,
    keep_alive: bool,
    recycle: Rc<dyn Recycle>,
    /// After 101: the stream is the caller's.
    switched: bool,
}

impl Exchanger {
    /// A connection over `stream`, on which nothing has been sent or read yet.
    pub fn new(stream: Stream, limits: Limits) -> Self {
        Self {
            wire: Box::new(Wire {
                stream,
                limits,
                incoming: BytesMut::new(),
                read_bytes: FIRST_READ_BYTES,
                outgoing: Outgoing::default(),
                upload: Upload::Done,
                scan: head::Scan::default(),
                used: false,
                answered: false,
                body_begun: false,
                informational: 0,
            }),
        }
    }

    /// Whether it has carried an exchange.
    pub fn used(&self) -> bool {
        self.wire.used
    }

    /// Whether neither its end nor stray bytes have arrived while it was idle. No system call is made unless the
    /// runtime has seen the socket become readable.
    pub fn is_open(&self) -> bool {
        let Some(socket) = self.wire.stream.socket() else { return false };
        if !self.wire.incoming.is_empty() {
            return false;
        }
        let mut cx = Context::from_waker(Waker::noop());
        match socket.poll_read_ready(&mut cx) {
            Poll::Pending => true,
            // Readiness can be stale. Under TLS, what can be read may be a session ticket: rather than guess, the
            // connection is given up.
            Poll::Ready(Ok(())) => {
                matches!(self.wire.stream, Stream::Plain(_))
                    && matches!(socket.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            }
            Poll::Ready(Err(_)) => false,
        }
    }

    /// Sends `request` (its target in origin form, its fields as they are but for those that frame it) and waits for the
    /// response's head. Whichever body is still under way goes on while the response's body is read; once both have ended
    /// well, `recycle` gets the connection back.
    ///
    /// The request's body is taken. After a fault that is [retryable](Fault::retryable) the request is whole again.
    pub async fn send(mut self, request: &mut Request, recycle: Rc<dyn Recycle>) -> Result<Response, Fault> {
        let upgrade = request.headers().contains_key(header::UPGRADE);
        self.wire.begin(request);
        let method = request.method();
        let head = poll_fn(|cx| self.wire.poll_head(cx, method, upgrade)).await;
        let head = match head {
            Ok(head) => head,
            Err(fault) => {
                let callers =
                    matches!(&self.wire.upload, Upload::Broken(broken) if broken.source() != crate::fault::Source::Upstream);
                let replayable = !self.wire.answered && !self.wire.body_begun && !callers;
                // Without its body, or without an effect that a second time would add to, a request may be sent again.
                // So may one whose server ended TLS on a fresh connection: it has not seen it.
                let harmless = fault.reason() == Reason::TlsFailed
                    || request.method().is_idempotent()
                    || !matches!(self.wire.upload, Upload::Done | Upload::Broken(_));
                if let Upload::Waiting(body, ..) | Upload::Going(body, _) = mem::replace(&mut self.wire.upload, Upload::Done)
                    && replayable
                {
                    *request.body_mut() = body;
                }
                return Err(if replayable && harmless { fault.before_send() } else { fault });
            }
        };
        Ok(self.respond(head, recycle))
    }

    fn respond(mut self, head: ResponseHead, recycle: Rc<dyn Recycle>) -> Response {
        let ResponseHead { status, version, headers, decoder, keep_alive } = head;
        let switched = status == StatusCode::SWITCHING_PROTOCOLS;
        let wire = &mut *self.wire;
        wire.used = true;
        // An upstream that answered without asking for the body does not get it, and the connection cannot go on.
        let keep_alive = keep_alive && !switched && !matches!(wire.upload, Upload::Waiting(..) | Upload::Broken(_));
        if matches!(wire.upload, Upload::Waiting(..)) {
            wire.upload = Upload::Done;
        }
        let mut incoming = Incoming { exchanger: Some(self), decoder, keep_alive, recycle, switched };
        if incoming.decoder.ended() && !switched && incoming.uploaded() {
            incoming.finish();
        }
        let body = if incoming.exchanger.is_none() { Body::empty() } else { Body::from_h1_response(incoming) };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.version_mut() = if version == Version::HTTP_10 { version } else { Version::HTTP_11 };
        *response.headers_mut() = headers;
        response
    }
}

impl Wire {
    /// Puts the head, and what is ready of the body, into the outgoing buffer.
    fn begin(&mut self, request: &mut Request) {
        let body = mem::take(request.body_mut());
        let sending = match (body.is_end_stream(), body.size_hint().exact()) {
            (true, _) if !needs_length(request) => Sending::Nothing,
            (true, _) => Sending::Length(0),
            (false, Some(length)) => Sending::Length(length),
            (false, None) => Sending::Chunked,
        };
        self.outgoing.request_head(request.method(), request.uri(), request.headers(), sending);
        (self.answered, self.body_begun, self.informational) = (false, false, 0);
        let expects =
            request.headers().get(header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        self.upload = match sending {
            Sending::Nothing | Sending::Length(0) => Upload::Done,
            _ if expects => {
                let patience = Instant::now() + self.limits.continue_timeout;
                Upload::Waiting(body, sending, Box::pin(tokio::time::sleep_until(patience)))
            }
            _ => Upload::Going(body, sending),
        };
    }

    /// Sends what can be sent. Ready when nothing is left, or when nothing more will be taken.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Upload::Waiting(_, _, patience) = &mut self.upload
                && patience.as_mut().poll(cx).is_ready()
            {
                self.release();
            }
            if let Upload::Going(body, sending) = &mut self.upload
                && self.outgoing.has_room()
            {
                let frame = Pin::new(&mut *body).poll_frame(cx);
                self.body_begun |= matches!(frame, Poll::Ready(Some(Ok(_))));
                match frame {
                    Poll::Ready(frame) => {
                        if let Some(next) = encode(&mut self.outgoing, frame, body, sending) {
                            self.upload = next;
                        }
                        continue;
                    }
                    Poll::Pending if self.outgoing.is_empty() => return Poll::Pending,
                    Poll::Pending => {}
                }
            }
            if !self.outgoing.is_empty() {
                if let Err(error) = ready!(self.outgoing.poll_write(&mut self.stream, cx)) {
                    let fault = Fault::new(Reason::UpstreamProtocol, format!("the upstream stopped reading: {error}"));
                    self.outgoing = Outgoing::default();
                    // The body stays where it was if it has not begun, so that another attempt can take it.
                    if self.body_begun || matches!(self.upload, Upload::Done) {
                        self.upload = Upload::Broken(fault);
                    }
                    return Poll::Ready(());
                }
                continue;
            }
            return match self.upload {
                Upload::Done | Upload::Broken(_) => Poll::Ready(()),
                Upload::Waiting(..) | Upload::Going(..) => Poll::Pending,
            };
        }
    }

    fn release(&mut self) {
        self.upload = match mem::replace(&mut self.upload, Upload::Done) {
            Upload::Waiting(body, sending, _) => Upload::Going(body, sending),
            other => other,
        };
    }

    /// Drives the upload and reads until the final response's head is here.
    fn poll_head(&mut self, cx: &mut Context<'_>, method: &Method, upgrade: bool) -> Poll<Result<ResponseHead, Fault>> {
        loop {
            let _going_on = self.poll_upload(cx);
            if let Upload::Broken(fault) = &self.upload
                && fault.source() != crate::fault::Source::Upstream
            {
                // The caller's own body failed: no response can be the answer to half a request.
                return Poll::Ready(Err(fault.clone()));
            }
            while let Some(length) = self.scan.advance(&self.incoming).map_err(Framing::upstream)? {
                let bytes = self.incoming.split_to(length).freeze();
                let head = head::parse_response(&bytes, method).map_err(Framing::upstream)?;
                match head.status {
                    StatusCode::SWITCHING_PROTOCOLS if upgrade => return Poll::Ready(Ok(head)),
                    StatusCode::SWITCHING_PROTOCOLS => {
                        return Poll::Ready(Err(Fault::new(
                            Reason::UpstreamProtocol,
                            "the upstream switched protocols unasked",
                        )));
                    }
                    status if status.is_informational() => {
                        self.informational += 1;
                        if self.informational > MAX_INFORMATIONAL {
                            let detail = "the upstream sent more than 16 informational responses";
                            return Poll::Ready(Err(Fault::new(Reason::UpstreamProtocol, detail)));
                        }
                        if status == StatusCode::CONTINUE {
                            self.release();
                            let _going_on = self.poll_upload(cx);
                        }
                    }
                    _ => return Poll::Ready(Ok(head)),
                }
            }
            if self.incoming.len() > self.limits.head_bytes {
                return Poll::Ready(Err(Framing::TooLarge("its head is larger than http_head_bytes").upstream()));
            }
            let count = ready!(self.poll_read(cx)).map_err(|error| self.unanswered(&error))?;
            self.answered |= count > 0;
            if count == 0 {
                return Poll::Ready(Err(Fault::new(Reason::UpstreamProtocol, "the upstream closed before it answered")));
            }
        }
    }

    /// Why no response came. With TLS 1.3 a server refuses a client certificate only when the first bytes after the
    /// handshake are read.
    fn unanswered(&self, error: &io::Error) -> Fault {
        let fresh = !self.used && !self.answered;
        fresh.then(|| upstream::tls::explain(error)).flatten().unwrap_or_else(|| {
            Fault::new(Reason::UpstreamProtocol, format!("the upstream's connection failed before it answered: {error}"))
        })
    }

    /// Reads once into the buffer; how many bytes came, zero at the end.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        poll_read(&mut self.stream, &mut self.incoming, &mut self.read_bytes, cx)
    }
}

/// Reads once, growing the next read where this one was filled.
pub(super) fn poll_read(
    stream: &mut Stream,
    buffer: &mut BytesMut,
    read_bytes: &mut usize,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    if buffer.capacity() - buffer.len() < *read_bytes / 2 {
        buffer.reserve(*read_bytes);
    }
    let room = buffer.capacity() - buffer.len();
    let count = ready!(tokio_util::io::poll_read_buf(Pin::new(stream), cx, buffer))?;
    if count == room {
        *read_bytes = (*read_bytes * 2).min(LARGEST_READ_BYTES);
    }
    Poll::Ready(Ok(count))
}

/// Puts one frame of the request's body on its way; what the upload becomes, if it changes.
fn encode(
    outgoing: &mut Outgoing,
    frame: Option<Result<Frame<Bytes>, Fault>>,
    body: &Body,
    sending: &mut Sending,
) -> Option<Upload> {
    let ended = match frame {
        Some(Ok(frame)) => match frame.into_data() {
            Ok(data) => match outgoing.data(sending, data) {
                // Behind a large piece there is no room for what ends the chunks: that comes with the next poll.
                Ok(()) if body.is_end_stream() && (outgoing.has_room() || *sending != Sending::Chunked) => {
                    outgoing.end(*sending, None)
                }
                Ok(()) => return None,
                Err(wrong) => Err(wrong),
            },
            Err(other) => outgoing.end(*sending, other.trailers_ref()),
        },
        Some(Err(fault)) => return Some(Upload::Broken(fault)),
        None => outgoing.end(*sending, None),
    };
    Some(match ended {
        Ok(()) => Upload::Done,
        Err(_) => Upload::Broken(Fault::new(Reason::BadFraming, "the request's body is not as long as it was said to be")),
    })
}

/// Whether a request without content says so: where its method would lead one to expect some, or where it did.
fn needs_length(request: &Request) -> bool {
    matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH)
        || request.headers().contains_key(header::CONTENT_LENGTH)
}

impl Incoming {
    /// The next frame of the response. Drives the upload too.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        loop {
            let Some(exchanger) = &mut self.exchanger else { return Poll::Ready(None) };
            let wire = &mut *exchanger.wire;
            let _going_on = wire.poll_upload(cx);
            let decoded = match self.decoder.decode(&mut wire.incoming) {
                Ok(decoded) => decoded,
                Err(framing) => return self.fail(framing.upstream()),
            };
            match decoded {
                Decoded::Data(data) => {
                    if self.decoder.ended() {
                        self.finish();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Decoded::Trailers(trailers) => {
                    self.finish();
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                Decoded::End => {
                    self.finish();
                    return Poll::Ready(None);
                }
                Decoded::More => match ready!(wire.poll_read(cx)) {
                    Ok(0) if matches!(self.decoder, Decoder::Close) => {
                        self.exchanger = None;
                        return Poll::Ready(None);
                    }
                    Ok(0) => {
                        let detail = "the upstream closed before its response was complete";
                        return self.fail(Fault::new(Reason::UpstreamProtocol, detail));
                    }
                    Ok(_) => {}
                    Err(error) => {
                        let detail = format!("the upstream's connection failed in its response: {error}");
                        return self.fail(Fault::new(Reason::UpstreamProtocol, detail));
                    }
                },
            }
        }
    }

    /// Goes on with the upload without asking for more of the response.
    pub(crate) fn poll_upload(&mut self, cx: &mut Context<'_>) {
        if let Some(exchanger) = &mut self.exchanger {
            let _going_on = exchanger.wire.poll_upload(cx);
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.exchanger.is_none()
    }

    /// Bytes still to come, where that is known.
    pub(crate) fn remaining(&self) -> Option<u64> {
        self.decoder.remaining()
    }

    /// After 101: the stream, and what was read from it beyond the head.
    pub(crate) fn take_upgrade(&mut self) -> Option<(Stream, Bytes)> {
        let exchanger = self.exchanger.take_if(|_| self.switched)?;
        let wire = *exchanger.wire;
        Some((wire.stream, wire.incoming.freeze()))
    }

    fn uploaded(&mut self) -> bool {
        self.exchanger
            .as_ref()
            .is_some_and(|exchanger| matches!(exchanger.wire.upload, Upload::Done) && exchanger.wire.outgoing.is_empty())
    }

    /// The response has ended: the connection goes back if the request has too, and is closed otherwise.
    fn finish(&mut self) {
        let reusable = self.keep_alive && self.uploaded();
        if let Some(exchanger) = self.exchanger.take()
            && reusable
            && exchanger.wire.incoming.is_empty()
        {
            self.recycle.recycle(exchanger);
        }
    }

    fn fail(&mut self, fault: Fault) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        self.exchanger = None;
        Poll::Ready(Some(Err(fault)))
    }
}

impl fmt::Debug for Exchanger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchanger").field("stream", &self.wire.stream).field("used", &self.wire.used).finish_non_exhaustive()
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").field("decoder", &self.decoder).finish_non_exhaustive()
    }
}
