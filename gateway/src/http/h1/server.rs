//! The downstream side of HTTP/1.1: one task per connection reads a head, runs the exchange, writes the answer, and
//! begins again. The connection is shared with the request's body and with nobody else.

use super::{
    Framing, Limits,
    decode::Decoder,
    encode::Sending,
    head::{self, RequestHead},
    wire::{Incoming, Wire},
};
use crate::{
    fault::Fault,
    http::{
        Request, Response,
        body::Body,
        clock::Clock,
        drain::Drain,
        exchange::{Answer, Takeover},
        metrics::Metrics,
        together::together,
    },
    stream::Stream,
};
use ::http::{Method, StatusCode, Version};
use bytes::{Buf, Bytes, BytesMut};
use http_body::Body as _;
use std::{
    cell::RefCell,
    future::poll_fn,
    mem,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tidegate_policy::Reason;
use tokio::io::AsyncWrite;

/// What a connection does with the requests it reads.
pub trait Handler {
    /// Handles one request; what goes wrong becomes the answer.
    fn exchange(&self, request: &mut Request) -> impl Future<Output = Answer>;

    /// The answer to bytes that are not a request. The connection is closed after it.
    fn refuse(&self, fault: Fault) -> Response;
}

/// What a connection is served under.
#[derive(Clone, Copy)]
pub struct Terms<'a> {
    /// What its times, and the handler's exchanges, are timed with.
    pub clock: &'a Clock,
    /// Whether the worker shuts down.
    pub drain: &'a Drain,
    /// What the connection may ask for.
    pub limits: Limits,
    /// What is counted.
    pub metrics: &'a Arc<Metrics>,
}

/// How writing an answer ended.
enum Written {
    Whole,
    /// The connection cannot be used any further.
    Broken,
}

/// One connection's loop.
struct Connection<'a, H> {
    wire: Rc<RefCell<Wire>>,
    handler: &'a H,
    terms: Terms<'a>,
}

/// Serves `stream`, of which `read` has been read already, until either side ends it, it stays idle, or the worker
/// drains.
pub async fn serve<H: Handler>(stream: Stream, read: BytesMut, handler: &H, terms: Terms<'_>) {
    let wire = Wire::new(stream, read, terms.metrics);
    let connection = Connection { wire: Rc::new(RefCell::new(wire)), handler, terms };
    let _registered = terms.drain.register().await;
    if let Some(takeover) = connection.run().await
        && let Ok(wire) = Rc::try_unwrap(connection.wire)
    {
        // The connection belongs to another protocol from here on.
        let wire = wire.into_inner();
        takeover(wire.stream, wire.incoming.freeze()).await;
    }
}

impl<H: Handler> Connection<'_, H> {
    /// Runs until the connection ends, or is taken over by what it returns.
    async fn run(&self) -> Option<Takeover> {
        loop {
            let mut head = match self.head().await {
                Ok(Some(head)) => head,
                Ok(None) => return None,
                Err(fault) => {
                    self.refuse(fault).await;
                    return None;
                }
            };
            *head.request.body_mut() = self.body(head.decoder, head.expects_continue);
            let (method, version) = (head.request.method().clone(), head.request.version());
            let Answer { response, takeover, withheld } = self.exchange(&mut head.request).await?;
            drop(head.request);
            if withheld {
                return None;
            }
            together().await;
            let switched = takeover.is_some();
            // After a switch that was refused, bytes sent in the hope of it must not be taken for a request (RFC 9931).
            let keep_alive =
                head.keep_alive && !head.may_switch && !self.wire.borrow().must_close() && !self.terms.drain.begun();
            let (Written::Whole, keep_alive) = self.answer(response, &method, version, keep_alive || switched).await else {
                return None;
            };
            if takeover.is_some() {
                return takeover;
            }
            if !keep_alive || !self.rest_read().await {
                self.close().await;
                return None;
            }
        }
    }

    /// The next request's head; none when the connection has ended or stayed idle.
    async fn head(&self) -> Result<Option<RequestHead>, Fault> {
        let mut scan = head::Scan::default();
        let mut begun = false;
        self.terms.clock.limit(None);
        loop {
            {
                let wire = &mut *self.wire.borrow_mut();
                // One empty line before a request is ignored (RFC 9112 section 2.2).
                if !begun && wire.incoming.starts_with(b"\r\n") {
                    wire.incoming.advance(2);
                }
                if let Some(length) = scan.advance(&wire.incoming).map_err(Framing::downstream)? {
                    if length > self.terms.limits.head_bytes {
                        return Err(too_large());
                    }
                    let bytes = wire.incoming.split_to(length).freeze();
                    self.terms.clock.disarm();
                    return head::parse_request(&bytes).map(Some).map_err(Framing::downstream);
                }
                if wire.incoming.len() > self.terms.limits.head_bytes {
                    return Err(too_large());
                }
                if !begun {
                    begun = !wire.incoming.is_empty() && !matches!(&wire.incoming[..], b"\r");
                    self.terms.clock.arm(if begun { self.terms.limits.head_timeout } else { self.terms.limits.idle_timeout });
                }
            }
            let read = poll_fn(|cx| {
                if let Poll::Ready(read) = self.wire.borrow_mut().poll_read(cx) {
                    return Poll::Ready(Some(read));
                }
                if !begun {
                    self.wire.borrow_mut().rest();
                }
                if !begun && self.terms.drain.begun() {
                    self.terms.metrics.drained.add(1);
                    return Poll::Ready(None);
                }
                self.terms.clock.poll_expired(cx).map(|()| None)
            });
            match read.await {
                Some(Ok(count)) if count > 0 => {}
                Some(Ok(_)) if begun => return Err(Fault::new(Reason::BadFraming, "the connection ended within a head")),
                None if begun => {
                    return Err(Fault::new(
                        Reason::DownstreamTimeout,
                        "the request's head was not complete within http_head_timeout",
                    ));
                }
                Some(_) | None => return Ok(None),
            }
        }
    }

    fn body(&self, decoder: Decoder, expects_continue: bool) -> Body {
        let mut wire = self.wire.borrow_mut();
        wire.continue_owed = expects_continue;
        wire.answered = false;
        wire.is_awaited = false;
        wire.decoder = decoder;
        wire.serial += 1;
        if wire.decoder.ended() {
            return Body::empty();
        }
        Body::from_h1_request(Incoming::of(&self.wire, wire.serial))
    }

    /// Runs the exchange; none when the downstream went away meanwhile, which ends the exchange.
    async fn exchange(&self, request: &mut Request) -> Option<Answer> {
        let mut exchange = pin!(self.handler.exchange(request));
        poll_fn(|cx| {
            if let Poll::Ready(answer) = exchange.as_mut().poll(cx) {
                return Poll::Ready(Some(answer));
            }
            self.wire.borrow_mut().poll_gone(cx).map(|()| None)
        })
        .await
    }

    /// Writes an answer. Returns whether the connection could go on afterwards.
    async fn answer(&self, response: Response, method: &Method, version: Version, keep_alive: bool) -> (Written, bool) {
        let (parts, mut body) = response.into_parts();
        let (mut sending, keep_alive) = plan(&parts, &body, method, version, keep_alive);
        {
            let wire = &mut *self.wire.borrow_mut();
            wire.answered = true;
            wire.outgoing.response_head((parts.status, &parts.headers), version, sending, keep_alive);
        }
        let bodiless = sending == Sending::Nothing;
        let mut ended = bodiless || body.is_end_stream();
        if ended && !bodiless {
            let _nothing_left = self.wire.borrow_mut().outgoing.end(sending, None);
        }
        let mut stalled = false;
        let written = poll_fn(|cx| self.poll_answer(cx, &mut body, &mut sending, &mut ended, &mut stalled)).await;
        (written, keep_alive)
    }

    /// Moves the body into the outgoing buffer and that to the downstream, whichever can go on.
    fn poll_answer(
        &self,
        cx: &mut Context<'_>,
        body: &mut Body,
        sending: &mut Sending,
        ended: &mut bool,
        stalled: &mut bool,
    ) -> Poll<Written> {
        loop {
            let mut waiting = false;
            if !*ended && self.wire.borrow().outgoing.has_room() {
                // The body may read the request's from this connection: nothing is borrowed here.
                let encoded = match Pin::new(&mut *body).poll_frame(cx) {
                    Poll::Ready(frame) => {
                        let last = body.is_end_stream();
                        Some(self.wire.borrow_mut().encode(frame, last, sending))
                    }
                    Poll::Pending => None,
                };
                match encoded {
                    None => waiting = true,
                    Some(Some(whole)) => *ended = whole,
                    Some(None) => {
                        // What came before the failure still goes, as far as it can at once.
                        let _whatever_goes = self.wire.borrow_mut().poll_write(cx);
                        return Poll::Ready(Written::Broken);
                    }
                }
                if !waiting && !*ended {
                    continue;
                }
            }
            let written = self.wire.borrow_mut().poll_write(cx);
            match written {
                Poll::Ready(Ok(())) => {
                    if mem::take(stalled) {
                        self.terms.clock.disarm();
                    }
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Written::Broken),
                Poll::Pending => {
                    if !mem::replace(stalled, true) {
                        self.terms.clock.arm(self.terms.limits.write_timeout);
                    }
                    // While the downstream does not take its response, the request's body may still go up.
                    body.poll_upload(cx);
                    return self.terms.clock.poll_expired(cx).map(|()| Written::Broken);
                }
            }
            if *ended {
                return Poll::Ready(Written::Whole);
            }
            if waiting {
                return self.wire.borrow_mut().poll_gone(cx).map(|()| Written::Broken);
            }
        }
    }

    async fn refuse(&self, fault: Fault) {
        let response = self.handler.refuse(fault);
        self.wire.borrow_mut().decoder = Decoder::Close;
        if let (Written::Whole, _) = self.answer(response, &Method::GET, Version::HTTP_11, false).await {
            self.close().await;
        }
    }

    /// Reads what is left of the request's body and throws it away, up to the limit. Whether it has ended.
    async fn rest_read(&self) -> bool {
        // From here on the exchange's own body, if anything still holds it, reads nothing.
        self.wire.borrow_mut().serial += 1;
        if self.wire.borrow().decoder.ended() {
            return true;
        }
        let mut left = self.terms.limits.drain_bytes;
        self.terms.clock.limit(None);
        self.terms.clock.arm(self.terms.limits.drain_timeout);
        poll_fn(|cx| {
            loop {
                match self.wire.borrow_mut().poll_body(cx) {
                    Poll::Ready(Some(Ok(frame))) => match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
                        Some(less) => left = less,
                        None => return Poll::Ready(false),
                    },
                    Poll::Ready(Some(Err(_))) => return Poll::Ready(false),
                    Poll::Ready(None) => return Poll::Ready(true),
                    Poll::Pending => return self.terms.clock.poll_expired(cx).map(|()| false),
                }
            }
        })
        .await
    }

    /// Closes so that the answer arrives: what the downstream still sends is read for a while, since closing a socket
    /// with unread bytes resets it and can destroy what was written.
    async fn close(&self) {
        self.terms.clock.limit(None);
        self.terms.clock.arm(self.terms.limits.drain_timeout);
        let mut left = self.terms.limits.drain_bytes * 16;
        let mut shut = false;
        poll_fn(|cx| {
            let wire = &mut *self.wire.borrow_mut();
            if !shut {
                let _either_way = ready!(Pin::new(&mut wire.stream).poll_shutdown(cx));
                shut = true;
            }
            loop {
                wire.incoming.clear();
                match wire.poll_read(cx) {
                    Poll::Ready(Ok(count)) if count > 0 && count < left => left -= count,
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => return self.terms.clock.poll_expired(cx),
                }
            }
        })
        .await;
    }
}

fn too_large() -> Fault {
    Fault::new(Reason::HeaderTooLarge, "the request's head is larger than http_head_bytes")
}

/// How the answer is framed, and whether the connection can go on after it.
fn plan(parts: &::http::response::Parts, body: &Body, method: &Method, version: Version, keep_alive: bool) -> (Sending, bool) {
    let status = parts.status;
    let bodiless = *method == Method::HEAD
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || (*method == Method::CONNECT && status.is_success());
    match body.size_hint().exact() {
        _ if bodiless => (Sending::Nothing, keep_alive),
        Some(length) => (Sending::Length(length), keep_alive),
        None if version == Version::HTTP_11 => (Sending::Chunked, keep_alive),
        None => (Sending::Close, false),
    }
}
