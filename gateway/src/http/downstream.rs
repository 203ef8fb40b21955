//! What the exchanges of one downstream connection share: its peer, its clock, what it last asked for; and the meter on
//! a request's body.

use super::{body::Body, clock::Clock, target};
use crate::{fault::Fault, listen::Peer};
use bytes::Bytes;
use http_body::{Body as _, Frame};
use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tidegate_policy::{Identity, Reason, Target};

/// One downstream connection; for HTTP/2, one stream of it.
#[derive(Debug)]
pub struct Downstream {
    /// Who is at the other end.
    pub peer: Rc<Peer>,
    /// The timer of the exchange under way.
    pub clock: Clock,
    /// The last target, which the next request most often names again.
    pub targets: Rc<target::Cache>,
    /// The tunnel its requests come through, where they do.
    pub within: Option<Within>,
    /// The filter that asks, where one does.
    pub filter: Option<Identity>,
    /// Bytes of the current request's body that have gone up.
    pub(super) request_bytes: Cell<u64>,
    /// Whether the exchange waits for the caller to go on with the request's body.
    pub(super) awaited: Cell<bool>,
}

/// A CONNECT tunnel to a port that speaks HTTP in the clear: what comes through it is decided request by request, like
/// what comes without a tunnel.
#[derive(Debug, Clone)]
pub struct Within {
    /// What the tunnel was opened to: no request in it may go elsewhere.
    pub target: Target,
    /// Who opened it.
    pub identity: Identity,
}

/// A request's body with its bytes counted, its size limited and its pace watched.
#[derive(Debug)]
pub struct Metered {
    body: Body,
    downstream: Rc<Downstream>,
    pace: Pace,
}

/// What a request's body is held to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Most bytes.
    pub(super) bytes: Option<u64>,
    /// Longest pause between two pieces.
    pub(super) idle: Duration,
    /// Longest wait for the response's head after the last piece.
    pub(super) first_byte: Duration,
}

impl Downstream {
    /// A connection on which nothing has been asked for yet.
    pub fn new(peer: Rc<Peer>) -> Self {
        Self::stream(peer, Rc::default())
    }

    /// The inside of a tunnel.
    pub fn within(peer: Rc<Peer>, within: Within) -> Self {
        Self { within: Some(within), ..Self::new(peer) }
    }

    /// A filter that makes a call of its own.
    pub fn of_filter(peer: Rc<Peer>, filter: Identity) -> Self {
        Self { filter: Some(filter), ..Self::new(peer) }
    }

    /// A stream of an HTTP/2 connection, which shares its targets with the others.
    pub fn stream(peer: Rc<Peer>, targets: Rc<target::Cache>) -> Self {
        Self {
            peer,
            clock: Clock::default(),
            targets,
            within: None,
            filter: None,
            request_bytes: Cell::new(0),
            awaited: Cell::new(false),
        }
    }
}

impl Metered {
    pub(super) fn new(body: Body, downstream: Rc<Downstream>, pace: Pace) -> Self {
        Self { body, downstream, pace }
    }

    pub(super) fn inner(&self) -> &Body {
        &self.body
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        self.downstream.awaited.set(true);
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.downstream.awaited.set(false);
        let clock = &self.downstream.clock;
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            let bytes = self.downstream.request_bytes.get() + data.len() as u64;
            if self.pace.bytes.is_some_and(|limit| bytes > limit) {
                let detail = "the request's body is larger than its route's limits.request_body_bytes";
                return Poll::Ready(Some(Err(Fault::new(Reason::BodyTooLarge, detail))));
            }
            self.downstream.request_bytes.set(bytes);
            clock.arm(if self.body.is_end_stream() { self.pace.first_byte } else { self.pace.idle });
        } else if !matches!(frame, Some(Err(_))) {
            clock.arm(self.pace.first_byte);
        }
        Poll::Ready(frame)
    }
}
