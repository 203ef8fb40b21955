//! A downstream HTTP/1 connection's bytes, shared by its loop and the body of the request under way. Borrowed only within
//! a poll, and never while a body is asked anything: the response's may be the request's.

use super::{
    FIRST_READ_BYTES, client,
    decode::{Decoded, Decoder},
    encode::{Outgoing, Sending},
};
use crate::{fault::Fault, http::metrics::Metrics, stream::Stream};
use ::http::HeaderMap;
use bytes::{Bytes, BytesMut};
use http_body::Frame;
use std::{
    cell::RefCell,
    fmt, io,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};
use tidegate_policy::Reason;

/// Most bytes that are read ahead of a body while nobody reads it, so that its caller is seen to leave: more than most bodies that
/// filters are shown have, and little beside what an exchange takes.
const BODY_AHEAD_BYTES: usize = 16 * 1024;

/// Most bytes that are read ahead behind it: pipelined requests, or what follows a CONNECT.
const READ_AHEAD_BYTES: usize = 64 * 1024;

/// A downstream connection, shared by its loop and the body of the request under way. Borrowed only within a poll.
pub(super) struct Wire {
    pub(super) stream: Stream,
    pub(super) incoming: BytesMut,
    read_bytes: usize,
    pub(super) outgoing: Outgoing,
    pub(super) decoder: Decoder,
    /// `100 Continue` is still owed to the downstream.
    pub(super) continue_owed: bool,
    /// The response's head has been put on its way: it is too late for `100 Continue`.
    pub(super) answered: bool,
    /// The loop, where the body is read by another task.
    watcher: Option<Waker>,
    /// Whether the body's reader waits for bytes.
    pub(super) is_awaited: bool,
    gone: bool,
    /// The body's framing is broken: where the next request begins is unknown.
    broken: bool,
    /// Which request this is, so that a body that outlives its exchange never reads the next one's.
    pub(super) serial: u64,
    metrics: Arc<Metrics>,
}

/// A request's body on its way in.
pub struct Incoming {
    wire: Rc<RefCell<Wire>>,
    serial: u64,
}

impl Wire {
    /// A connection on which no request is under way; `read` has been read from it.
    pub(super) fn new(stream: Stream, read: BytesMut, metrics: &Arc<Metrics>) -> Self {
        Self {
            stream,
            incoming: read,
            read_bytes: FIRST_READ_BYTES,
            outgoing: Outgoing::default(),
            decoder: Decoder::Length(0),
            continue_owed: false,
            answered: false,
            watcher: None,
            is_awaited: false,
            gone: false,
            broken: false,
            serial: 0,
            metrics: Arc::clone(metrics),
        }
    }

    /// Whether the next request's beginning is not known: the body's framing broke, or the body was held back by a
    /// `100 Continue` that was never sent, so that whether it comes is unknown.
    pub(super) fn must_close(&self) -> bool {
        self.broken || (self.continue_owed && !self.decoder.ended())
    }

    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing.poll_write(&mut self.stream, cx)
    }

    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        client::poll_read(&mut self.stream, &mut self.incoming, &mut self.read_bytes, cx)
    }

    /// Keeps no memory for bytes that may be long in coming.
    pub(super) fn rest(&mut self) {
        if self.incoming.is_empty() {
            self.incoming = BytesMut::new();
        }
        self.outgoing.rest();
    }

    /// Ready when the downstream has gone. What it sends meanwhile is kept, up to a bound: a caller that leaves behind more than that
    /// of a body that nobody reads is not seen to leave (decision 0014).
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.gone {
            return Poll::Ready(());
        }
        let mut most = READ_AHEAD_BYTES;
        if !self.decoder.ended() {
            if self.watcher.as_ref().is_none_or(|watcher| !watcher.will_wake(cx.waker())) {
                self.watcher = Some(cx.waker().clone());
            }
            // The body's reader sees the end before anyone else; it may be another task, and the socket wakes only one.
            if self.is_awaited {
                return Poll::Pending;
            }
            most = BODY_AHEAD_BYTES;
        }
        while self.incoming.len() < most {
            if !matches!(ready!(self.poll_read(cx)), Ok(count) if count > 0) {
                self.gone = true;
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }

    /// The next frame of the request's body.
    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let polled = self.poll_rest(cx);
        self.is_awaited = polled.is_pending();
        polled
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        if self.continue_owed && !self.answered {
            self.continue_owed = false;
            if self.incoming.is_empty() {
                self.metrics.continues.add(1);
                self.outgoing.put(b"HTTP/1.1 100 Continue\r\n\r\n");
            }
        }
        if !self.answered && !self.outgoing.is_empty() && ready!(self.outgoing.poll_write(&mut self.stream, cx)).is_err() {
            return self.lost();
        }
        loop {
            let decoded = match self.decoder.decode(&mut self.incoming) {
                Ok(decoded) => decoded,
                Err(framing) => {
                    // The rest cannot be made sense of, so the connection cannot be used again.
                    self.decoder = Decoder::Close;
                    self.broken = true;
                    return Poll::Ready(Some(Err(framing.downstream())));
                }
            };
            if self.decoder.ended()
                && let Some(watcher) = self.watcher.take()
                && !watcher.will_wake(cx.waker())
            {
                watcher.wake();
            }
            match decoded {
                Decoded::Data(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Decoded::Trailers(trailers) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Decoded::End => return Poll::Ready(None),
                Decoded::More => match ready!(self.poll_read(cx)) {
                    Ok(count) if count > 0 => {}
                    _ => return self.lost(),
                },
            }
        }
    }

    fn lost(&mut self) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        self.gone = true;
        if let Some(watcher) = self.watcher.take() {
            watcher.wake();
        }
        let detail = "the downstream closed before its request was complete";
        Poll::Ready(Some(Err(Fault::new(Reason::DownstreamClosed, detail))))
    }

    /// Puts one frame of the response on its way: whether the body has ended, or none when it failed. `last` says that no
    /// frame follows; the body itself stays outside, since it may be the request's and borrow this.
    pub(super) fn encode(
        &mut self,
        frame: Option<Result<Frame<Bytes>, Fault>>,
        last: bool,
        sending: &mut Sending,
    ) -> Option<bool> {
        let trailers: Option<HeaderMap> = match frame {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    self.outgoing.data(sending, data).ok()?;
                    // Behind a large piece there is no room for what ends the chunks: that comes with the next poll.
                    if !last || (*sending == Sending::Chunked && !self.outgoing.has_room()) {
                        return Some(false);
                    }
                    None
                }
                Err(other) => other.into_trailers().ok(),
            },
            Some(Err(_)) => return None,
            None => None,
        };
        self.outgoing.end(*sending, trailers.as_ref()).ok()?;
        Some(true)
    }
}

impl Incoming {
    /// The body of the request that `wire` has just begun.
    pub(super) fn of(wire: &Rc<RefCell<Wire>>, serial: u64) -> Self {
        Self { wire: Rc::clone(wire), serial }
    }

    /// The next frame of the request's body.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let mut wire = self.wire.borrow_mut();
        if wire.serial != self.serial {
            let detail = "the exchange ended before its request's body did";
            return Poll::Ready(Some(Err(Fault::new(Reason::DownstreamClosed, detail))));
        }
        wire.poll_body(cx)
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        let wire = self.wire.borrow();
        wire.serial == self.serial && wire.decoder.ended()
    }

    /// Bytes still to come, where that is known.
    pub(crate) fn remaining(&self) -> Option<u64> {
        self.wire.borrow().decoder.remaining()
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Ok(mut wire) = self.wire.try_borrow_mut()
            && wire.serial == self.serial
        {
            wire.is_awaited = false;
        }
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").finish_non_exhaustive()
    }
}
