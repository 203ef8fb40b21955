//! A response's body on its way to the caller, with what ends when it ends: the record, and with it the filters' part; the
//! places taken under limits.

use super::{body::Body, downstream::Downstream, limits::Place};
use crate::{fault::Fault, record::OpenRecord};
use bytes::Bytes;
use http_body::{Body as _, Frame};
use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};
use tidegate_policy::Reason;

/// A response's body. The record is closed by its last byte, or by its being dropped.
pub(super) struct Recorded {
    body: Body,
    bytes: u64,
    idle: Duration,
    waiting: bool,
    failed: bool,
    downstream: Rc<Downstream>,
    record: Option<OpenRecord>,
    _place: Option<Place>,
}

/// What ends with a response.
pub(super) struct Ending {
    pub(super) record: OpenRecord,
    pub(super) place: Option<Place>,
    /// Longest pause between two pieces of the body.
    pub(super) idle: Duration,
}

impl Recorded {
    pub(super) fn new(body: Body, downstream: Rc<Downstream>, ending: Ending) -> Self {
        let Ending { record, place, idle } = ending;
        Self { body, bytes: 0, idle, waiting: false, failed: false, downstream, record: Some(record), _place: place }
    }

    pub(super) fn inner(&self) -> &Body {
        &self.body
    }

    pub(super) fn body(&mut self) -> &mut Body {
        &mut self.body
    }

    pub(super) fn idle(&self) -> Duration {
        self.idle
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.waiting = false;
                self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(fault))) => self.fail(fault),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                if !std::mem::replace(&mut self.waiting, true) {
                    self.downstream.clock.arm(self.idle);
                }
                match self.downstream.clock.poll_expired(cx) {
                    Poll::Ready(()) => {
                        let of_filter = self.record.as_ref().and_then(OpenRecord::overdue);
                        let late = || Fault::new(Reason::Timeout, "the response's body did not go on in time");
                        self.fail(of_filter.unwrap_or_else(late))
                    }
                    Poll::Pending => Poll::Pending,
                }
            }
        }
    }

    pub(super) fn fail(&mut self, fault: Fault) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        self.failed = true;
        if let Some(record) = &mut self.record {
            record.failed(&fault);
        }
        self.body = Body::empty();
        Poll::Ready(Some(Err(fault)))
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        self.downstream.clock.limit(None);
        let Some(mut record) = self.record.take() else { return };
        if !self.failed && !self.body.is_end_stream() {
            let detail = "the downstream went away before the response was complete";
            record.failed(&Fault::new(Reason::DownstreamClosed, detail));
        }
        record.request_bytes(self.downstream.request_bytes.get());
        record.response_bytes(self.bytes);
    }
}

impl std::fmt::Debug for Recorded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorded").field("body", &self.body).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}
