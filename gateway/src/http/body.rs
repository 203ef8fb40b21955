//! A message body: a stream of chunks and perhaps trailers, from whichever codec reads it.

use super::{downstream::Metered, h1, recorded::Recorded, stall::Watched};
use crate::{fault::Fault, filter::Filtered, stream::Stream};
use ::http::{HeaderMap, HeaderName};
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tidegate_policy::Reason;
use tokio::sync::mpsc;

/// A message body. Never buffered whole; dropping it ends what it was reading from.
#[derive(Debug)]
pub struct Body(Kind);

#[derive(Debug)]
enum Kind {
    Empty,
    Full(Option<Bytes>),
    /// All here as well, with what comes behind it.
    Whole(Option<Bytes>, Option<Box<HeaderMap>>),
    /// One that was written down before, piece by piece.
    Scripted(VecDeque<Frame<Bytes>>),
    /// A request's of a filter's own, piece by piece as it sends them.
    Piped(mpsc::Receiver<Bytes>),
    /// A request's, from a downstream HTTP/2 connection.
    H2(hyper::body::Incoming),
    /// A response's, from a shared upstream HTTP/2 connection, whose place is kept for as long.
    Held(hyper::body::Incoming, #[expect(dead_code, reason = "kept for its Drop")] Held),
    /// A request's, from a downstream HTTP/1 connection.
    H1Request(h1::wire::Incoming),
    /// A response's, from an upstream HTTP/1 connection.
    H1Response(h1::client::Incoming),
    /// A request's, counted and limited.
    Metered(Box<Metered>),
    /// One that filters follow.
    Filtered(Box<Filtered>),
    /// A response's, with the record that its end closes.
    Recorded(Box<Recorded>),
    /// A response's, to a downstream HTTP/2 connection that looks after it.
    Watched(Watched),
}

/// What is kept for as long as a body: never looked at, only dropped.
struct Held {
    _kept: Box<dyn std::any::Any>,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Held")
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl Body {
    /// No body.
    pub fn empty() -> Self {
        Self(Kind::Empty)
    }

    /// A body that is all here.
    pub fn full(bytes: Bytes) -> Self {
        Self(if bytes.is_empty() { Kind::Empty } else { Kind::Full(Some(bytes)) })
    }

    /// A body that comes in these pieces, and then perhaps trailers.
    pub fn scripted(pieces: impl IntoIterator<Item = Bytes>, trailers: Option<HeaderMap>) -> Self {
        let pieces = pieces.into_iter().map(Frame::data).chain(trailers.map(Frame::trailers));
        Self(Kind::Scripted(pieces.collect()))
    }

    /// A body that is all here, with trailers.
    pub fn whole(bytes: Bytes, trailers: HeaderMap) -> Self {
        Self(Kind::Whole(Some(bytes).filter(|bytes| !bytes.is_empty()), Some(Box::new(trailers))))
    }

    /// A body whose pieces come by a channel, until that is closed.
    pub fn piped(pieces: mpsc::Receiver<Bytes>) -> Self {
        Self(Kind::Piped(pieces))
    }

    /// A request's body, from a downstream HTTP/2 connection.
    pub fn from_h2(incoming: hyper::body::Incoming) -> Self {
        Self(if incoming.is_end_stream() { Kind::Empty } else { Kind::H2(incoming) })
    }

    /// A response's body, from an upstream HTTP/2 connection; `kept` is dropped with it.
    pub fn held(incoming: hyper::body::Incoming, kept: Box<dyn std::any::Any>) -> Self {
        Self(Kind::Held(incoming, Held { _kept: kept }))
    }

    pub(super) fn from_h1_request(incoming: h1::wire::Incoming) -> Self {
        Self(Kind::H1Request(incoming))
    }

    pub(super) fn from_h1_response(incoming: h1::client::Incoming) -> Self {
        Self(Kind::H1Response(incoming))
    }

    pub(super) fn metered(metered: Box<Metered>) -> Self {
        Self(Kind::Metered(metered))
    }

    pub(crate) fn filtered(filtered: Box<Filtered>) -> Self {
        Self(Kind::Filtered(filtered))
    }

    pub(super) fn recorded(recorded: Box<Recorded>) -> Self {
        Self(Kind::Recorded(recorded))
    }

    pub(super) fn watched(watched: Watched) -> Self {
        Self(Kind::Watched(watched))
    }

    /// Longest pause between two pieces of a response that is being recorded.
    pub(super) fn idle(&self) -> Option<std::time::Duration> {
        match &self.0 {
            Kind::Recorded(recorded) => Some(recorded.idle()),
            _ => None,
        }
    }

    /// Ends a response's body before its time; its record says why.
    pub(super) fn fail(&mut self, fault: Fault) {
        if let Kind::Recorded(recorded) = &mut self.0 {
            let _answered_by_nobody = recorded.fail(fault);
        }
    }

    /// After a response of status 101 from an HTTP/1 upstream: its stream, and what was read from it beyond the head.
    pub fn take_upgrade(&mut self) -> Option<(Stream, Bytes)> {
        match &mut self.0 {
            Kind::H1Response(incoming) => incoming.take_upgrade(),
            _ => None,
        }
    }

    /// Goes on with whatever is under way in the other direction, without taking a frame: for when the frames that
    /// were taken cannot be written yet.
    pub(crate) fn poll_upload(&mut self, cx: &mut Context<'_>) {
        match &mut self.0 {
            Kind::H1Response(incoming) => incoming.poll_upload(cx),
            Kind::Recorded(recorded) => recorded.body().poll_upload(cx),
            Kind::Filtered(filtered) => filtered.poll_upload(cx),
            _ => {}
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        match &mut self.get_mut().0 {
            Kind::Empty => Poll::Ready(None),
            Kind::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Scripted(frames) => Poll::Ready(frames.pop_front().map(Ok)),
            Kind::Piped(pieces) => pieces.poll_recv(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece)))),
            Kind::Whole(bytes, trailers) => Poll::Ready(match bytes.take() {
                Some(bytes) => Some(Ok(Frame::data(bytes))),
                None => trailers.take().map(|trailers| Ok(Frame::trailers(*trailers))),
            }),
            Kind::H1Request(incoming) => incoming.poll_frame(cx),
            Kind::H1Response(incoming) => incoming.poll_frame(cx),
            Kind::Metered(metered) => metered.poll_frame(cx),
            Kind::Filtered(filtered) => filtered.poll_frame(cx),
            Kind::Recorded(recorded) => recorded.poll_frame(cx),
            Kind::Watched(watched) => watched.poll_frame(cx),
            Kind::H2(incoming) => poll_h2(incoming, cx).map_err(|error| {
                let reason = if error.is_timeout() { Reason::DownstreamTimeout } else { Reason::DownstreamClosed };
                Fault::new(reason, format!("the request's HTTP/2 stream failed in its body: {error}"))
            }),
            Kind::Held(incoming, _) => poll_h2(incoming, cx).map_err(|error| {
                let reason = if error.is_timeout() { Reason::Timeout } else { Reason::UpstreamProtocol };
                Fault::new(reason, format!("the response's HTTP/2 stream failed in its body: {error}"))
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty | Kind::Full(None) => true,
            Kind::Full(Some(_)) => false,
            Kind::Whole(bytes, trailers) => bytes.is_none() && trailers.is_none(),
            Kind::Scripted(frames) => frames.is_empty(),
            Kind::Piped(pieces) => pieces.is_closed() && pieces.is_empty(),
            Kind::H2(incoming) | Kind::Held(incoming, _) => incoming.is_end_stream(),
            Kind::H1Request(incoming) => incoming.is_end_stream(),
            Kind::H1Response(incoming) => incoming.is_end_stream(),
            Kind::Metered(metered) => metered.inner().is_end_stream(),
            Kind::Filtered(filtered) => filtered.is_end_stream(),
            Kind::Recorded(recorded) => recorded.is_end_stream(),
            Kind::Watched(watched) => watched.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty | Kind::Full(None) => SizeHint::with_exact(0),
            Kind::Full(Some(bytes)) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Whole(bytes, _) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Kind::H2(incoming) | Kind::Held(incoming, _) => incoming.size_hint(),
            Kind::Scripted(_) | Kind::Piped(_) => SizeHint::default(),
            Kind::H1Request(incoming) => hint(incoming.remaining()),
            Kind::H1Response(incoming) => hint(incoming.remaining()),
            Kind::Metered(metered) => metered.inner().size_hint(),
            Kind::Filtered(filtered) => filtered.size_hint(),
            Kind::Recorded(recorded) => recorded.inner().size_hint(),
            Kind::Watched(watched) => watched.size_hint(),
        }
    }
}

/// The next frame of an HTTP/2 stream. Its trailers are held to what HTTP/1.1's are: what frames, routes or authorises does
/// not come late, and `Proxy-Authorization` in particular never leaves.
fn poll_h2(incoming: &mut hyper::body::Incoming, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
    let frame = ready!(Pin::new(incoming).poll_frame(cx));
    Poll::Ready(frame.map(|frame| frame.map(with_fit_trailers)))
}

fn with_fit_trailers(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            let unfit: Vec<HeaderName> = trailers.keys().filter(|name| h1::forbidden_in_trailers(name)).cloned().collect();
            for name in &unfit {
                trailers.remove(name);
            }
            Frame::trailers(trailers)
        }
        Err(data) => data,
    }
}

fn hint(remaining: Option<u64>) -> SizeHint {
    remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
}
