//! A message body: a stream of chunks and perhaps trailers, from whichever codec reads it.

use crate::fault::Fault;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use std::{
    pin::Pin,
    task::{Context, Poll},
};

/// A message body. Never buffered whole; dropping it ends what it was reading from.
#[derive(Debug)]
pub struct Body(Kind);

#[derive(Debug)]
enum Kind {
    Empty,
    Full(Option<Bytes>),
    /// From an HTTP/2 connection, either side.
    H2(hyper::body::Incoming),
    /// The same, with something that lives as long.
    Held(hyper::body::Incoming, Box<dyn std::any::Any>),
    // H1(super::h1::Incoming): helper H
}

impl Body {
    /// No body.
    pub fn empty() -> Self {
        Self(Kind::Empty)
    }

    /// A body from an HTTP/2 connection; `hold` is dropped with it.
    pub fn held(incoming: hyper::body::Incoming, hold: Box<dyn std::any::Any>) -> Self {
        Self(Kind::Held(incoming, hold))
    }

    /// A body that is all here.
    pub fn full(bytes: Bytes) -> Self {
        Self(Kind::Full(Some(bytes)))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        unimplemented!()
    }

    fn is_end_stream(&self) -> bool {
        unimplemented!()
    }

    fn size_hint(&self) -> SizeHint {
        unimplemented!()
    }
}
