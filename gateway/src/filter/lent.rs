//! What a filter is lent for one callback: the head, the body on offer and the trailers of the message at hand. Handles
//! carry the callback's number, so that one that was kept is worth nothing in the next.

use super::{bindings::tidegate::filter::types::LocalReply, message::Line};
use crate::fault::Fault;
use bytes::Bytes;
use http::HeaderMap;
use std::cell::Cell;
use tidegate_policy::Reason;

/// The host's side of a `headers` handle. Never made: the handle's number says what it was lent for.
#[derive(Debug)]
#[expect(unreachable_pub, reason = "the generated bindings re-export it")]
pub enum HeadersView {}

/// The host's side of a `body` handle. Never made, like `HeadersView`.
#[derive(Debug)]
#[expect(unreachable_pub, reason = "the generated bindings re-export it")]
pub enum BodyView {}

/// What of a message is shown in a callback.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// The head's fields, as long as it is here.
    pub(super) head: Option<HeaderMap>,
    /// The trailers, when they have come.
    pub(super) trailers: Option<HeaderMap>,
    /// The body on offer, in callbacks about it.
    pub(super) body: Option<Bytes>,
    /// The first line.
    pub(super) line: Line,
    /// The answer that the filter wants given in the message's place.
    pub(super) reply: Option<Box<LocalReply>>,
}

/// An empty `Shown` for a worker's next message. It is large, and most heads are shown at once.
#[derive(Default)]
pub(super) struct Spare(Cell<Option<Box<Shown>>>);

impl Spare {
    pub(super) fn take(&self) -> Box<Shown> {
        self.0.take().unwrap_or_default()
    }

    /// Keeps it without anything of what was shown in it.
    pub(super) fn put(&self, mut shown: Box<Shown>) {
        let Shown { head, trailers, body, line, reply } = &mut *shown;
        (*head, *trailers, *body, *line, *reply) = (None, None, None, Line::default(), None);
        self.0.set(Some(shown));
    }
}

impl Shown {
    /// The head's fields, to be sent on. Nothing is sent without them.
    pub(super) fn take_head(&mut self) -> Result<HeaderMap, Fault> {
        let lost = || Fault::new(Reason::FilterFailed, "the message's head is not there any more: it was lost with a filter");
        self.head.take().ok_or_else(lost)
    }
}

/// Which part of the message a handle is for: its two lowest bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Head = 0,
    Trailers = 1,
    Body = 2,
}

/// What is lent now.
#[derive(Debug, Default)]
pub(super) struct Lent {
    /// Counts callbacks.
    serial: u32,
    during_callback: bool,
    /// An empty one between callbacks. It is large, and goes from hand to hand in every callback, so it never moves.
    pub(super) shown: Box<Shown>,
    /// Whether a failure must leave the message as it was.
    undoable: bool,
    /// What it was before the first change.
    before: Option<Box<Before>>,
}

#[derive(Debug)]
struct Before {
    head: Option<HeaderMap>,
    trailers: Option<HeaderMap>,
    line: Line,
}

impl Lent {
    /// Lends what is shown for one callback, if anything is; `end` or `undo` give it back.
    pub(super) fn begin(&mut self, shown: Option<&mut Box<Shown>>, undoable: bool) {
        self.serial = self.serial.wrapping_add(1);
        (self.during_callback, self.undoable) = (true, undoable);
        if let Some(shown) = shown {
            std::mem::swap(&mut self.shown, shown);
        }
        self.shown.reply = None;
    }

    /// Gives it back with the changes that were made.
    pub(super) fn end(&mut self, shown: Option<&mut Box<Shown>>) {
        self.during_callback = false;
        self.before = None;
        if let Some(shown) = shown {
            std::mem::swap(&mut self.shown, shown);
        }
    }

    /// Gives it back after a failure: without the changes, where it is to go on without the filter.
    pub(super) fn undo(&mut self, shown: Option<&mut Box<Shown>>) {
        if let Some(before) = self.before.take() {
            let Before { head, trailers, line } = *before;
            (self.shown.head, self.shown.trailers, self.shown.line) = (head, trailers, line);
        }
        self.end(shown);
    }

    /// The number of the handle to `part`.
    pub(super) fn handle(&self, part: Part) -> u32 {
        self.serial << 2 | part as u32
    }

    /// The header map that a handle of this number was lent for.
    pub(super) fn headers(&self, handle: u32) -> Option<&HeaderMap> {
        match self.part(handle)? {
            Part::Head => self.shown.head.as_ref(),
            Part::Trailers => self.shown.trailers.as_ref(),
            Part::Body => None,
        }
    }

    /// As `headers`, to change it: what it was is kept where a failure must undo it.
    pub(super) fn headers_mut(&mut self, handle: u32) -> Option<&mut HeaderMap> {
        let part = self.part(handle)?;
        self.keep_before();
        match part {
            Part::Head => self.shown.head.as_mut(),
            Part::Trailers => self.shown.trailers.as_mut(),
            Part::Body => None,
        }
    }

    /// Takes away the header map that a handle of this number was lent for; `put_headers` has to follow before the callback
    /// goes on.
    pub(super) fn take_headers(&mut self, handle: u32) -> Option<HeaderMap> {
        match self.part(handle)? {
            Part::Head => self.shown.head.take(),
            Part::Trailers => self.shown.trailers.take(),
            Part::Body => None,
        }
    }

    /// Puts back what `take_headers` took.
    pub(super) fn put_headers(&mut self, handle: u32, headers: HeaderMap) {
        match self.part(handle) {
            Some(Part::Head) => self.shown.head = Some(headers),
            Some(Part::Trailers) => self.shown.trailers = Some(headers),
            Some(Part::Body) | None => {}
        }
    }

    /// The body that a handle of this number was lent for.
    pub(super) fn body(&self, handle: u32) -> Option<&Bytes> {
        self.part(handle).filter(|part| *part == Part::Body).and(self.shown.body.as_ref())
    }

    /// As `body`, to change it. A body needs no copy to be undone: who shows it keeps a share of the old one.
    pub(super) fn body_mut(&mut self, handle: u32) -> Option<&mut Bytes> {
        self.part(handle).filter(|part| *part == Part::Body).and(self.shown.body.as_mut())
    }

    /// The first line, to change it; none once the head has gone on.
    pub(super) fn line_mut(&mut self) -> Option<&mut Line> {
        if !self.during_callback || self.shown.head.is_none() {
            return None;
        }
        self.keep_before();
        Some(&mut self.shown.line)
    }

    fn part(&self, handle: u32) -> Option<Part> {
        let part = match handle & 3 {
            0 => Part::Head,
            1 => Part::Trailers,
            2 => Part::Body,
            _ => return None,
        };
        (self.during_callback && handle >> 2 == self.serial & (u32::MAX >> 2)).then_some(part)
    }

    fn keep_before(&mut self) {
        if self.undoable && self.before.is_none() {
            let Shown { head, trailers, line, .. } = &*self.shown;
            self.before = Some(Box::new(Before { head: head.clone(), trailers: trailers.clone(), line: line.clone() }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_worth_nothing_after_its_callback() {
        let mut lent = Lent::default();
        let mut shown = Box::new(Shown { head: Some(HeaderMap::new()), body: Some(Bytes::new()), ..Shown::default() });
        lent.begin(Some(&mut shown), false);
        let (head, body) = (lent.handle(Part::Head), lent.handle(Part::Body));
        assert!(lent.headers(head).is_some() && lent.body(body).is_some());
        assert!(lent.headers(body).is_none() && lent.body(head).is_none(), "a handle is for one part");
        assert!(lent.headers(lent.handle(Part::Trailers)).is_none(), "there are none");
        lent.end(Some(&mut shown));
        assert!(lent.headers(head).is_none() && shown.head.is_some());
        lent.begin(Some(&mut shown), false);
        assert!(lent.headers(head).is_none() && lent.body(body).is_none());
    }

    #[test]
    fn nothing_goes_on_without_its_head() {
        let mut shown = Shown { head: Some(HeaderMap::new()), ..Shown::default() };
        assert!(shown.take_head().is_ok_and(|head| head.is_empty()));
        let fault = shown.take_head().unwrap_err();
        assert_eq!(fault.reason(), Reason::FilterFailed);
        assert!(fault.detail().contains("head is not there"), "{}", fault.detail());
    }

    #[test]
    fn nothing_of_a_message_is_in_the_next() {
        let spare = Spare::default();
        let mut shown = spare.take();
        let (headers, body, details, grpc_status) = (Vec::new(), Vec::new(), String::new(), None);
        let reply = LocalReply { status: 403, headers, body, details, grpc_status };
        let line = Line { status: Some(http::StatusCode::OK), ..Line::default() };
        *shown = Shown {
            head: Some(HeaderMap::new()),
            trailers: Some(HeaderMap::new()),
            body: Some(Bytes::from_static(b"body")),
            line,
            reply: Some(Box::new(reply)),
        };
        let place: *const Shown = &*shown;
        spare.put(shown);
        let Shown { head, trailers, body, line, reply } = &*spare.take();
        assert!(head.is_none() && trailers.is_none() && body.is_none() && line.status.is_none() && reply.is_none());
        assert!(!std::ptr::eq(place, &*spare.take()), "it was taken");
    }

    #[test]
    fn a_failure_is_undone() {
        let mut lent = Lent::default();
        let mut shown = Box::new(Shown { head: Some(HeaderMap::new()), ..Shown::default() });
        lent.begin(Some(&mut shown), true);
        let head = lent.handle(Part::Head);
        lent.headers_mut(head).unwrap().insert("x-a", http::HeaderValue::from_static("1"));
        lent.undo(Some(&mut shown));
        assert!(shown.head.unwrap().is_empty());
    }
}
