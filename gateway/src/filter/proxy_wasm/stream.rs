//! One exchange as a VM knows it: what is lent to it of both messages, what it has stopped, and what it asked for.

use super::{
    abi::EndedBy,
    fields::{self, View},
    kept::Kept,
};
use crate::filter::{
    attributes::Known,
    bindings::tidegate::filter::types::LocalReply,
    lent::Shown,
    limits::{Limits, Metrics},
    message::{Kind, Line},
    share::{NoRoom, Share},
    state::Phase,
};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, uri::PathAndQuery};
use std::{rc::Rc, sync::Arc, task::Waker};
use tidegate_policy::{exchange::AuditEvent, target::Form};
use tokio::sync::Notify;

/// One exchange.
pub(super) struct Stream {
    pub(super) root: u32,
    pub(super) known: Arc<Known>,
    pub(super) phase: Phase,
    pub(super) request: Message,
    pub(super) response: Message,
    /// The answer that it gives; the first wins.
    pub(super) reply: Option<LocalReply>,
    /// Whether it wants the exchange to end without one.
    pub(super) closes: bool,
    pub(super) end: End,
    /// Calls of its own that it made.
    pub(super) calls: u32,
    pub(super) events: Vec<AuditEvent>,
    pub(super) event_bytes: usize,
    pub(super) event_count: usize,
    /// Whether a failure must leave messages as they were.
    pub(super) undoable: bool,
    /// Rung when something that it waits for has happened.
    bell: Option<Rc<Notify>>,
    /// Its ends, where it is a tunnel: then the messages are what flows from downstream and from upstream.
    pub(super) ends: Option<Ends>,
    /// Woken with the bell.
    waker: Option<Waker>,
}

/// A tunnel's ends.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ends {
    pub(super) downstream: EndedBy,
    pub(super) upstream: EndedBy,
    /// Whether the guest has heard that the upstream's is over.
    pub(super) upstream_told: bool,
}

/// How far its end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    NotYet,
    /// The exchange is over, and the filter has something left to do.
    PutOff,
}

/// One direction of it.
#[derive(Debug, Default)]
pub(super) struct Message {
    /// The head's fields, as long as it is lent.
    pub(super) fields: Option<HeaderMap>,
    /// As they were when it went on.
    kept: Option<Kept>,
    pub(super) trailers: Option<HeaderMap>,
    /// What is on offer or held of the body.
    pub(super) body: Bytes,
    /// What is held of it counts here.
    pub(super) share: Share,
    /// Body bytes that were shown so far.
    pub(super) body_seen: u64,
    /// The first line, and for a request its way out.
    pub(super) line: Line,
    pub(super) has_trailers: bool,
    pub(super) wait: Wait,
    /// Whether it may go on although it waits.
    pub(super) resumed: bool,
    /// What it was before the first change in a callback.
    before: Option<Box<Before>>,
}

/// What of a direction waits for the filter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Wait {
    #[default]
    Nothing,
    /// All of it.
    Everything,
    /// What is held, while more of it comes.
    Held,
    /// The same, and what comes beyond the limit is left where it is.
    HeldToWatermark,
}

#[derive(Debug)]
struct Before {
    fields: Option<HeaderMap>,
    trailers: Option<HeaderMap>,
    body: Bytes,
    line: Line,
}

impl Stream {
    pub(super) fn new(root: u32, known: &Arc<Known>) -> Self {
        Self {
            root,
            known: Arc::clone(known),
            phase: Phase::RequestHeaders,
            request: Message::of(Kind::Request),
            response: Message::of(Kind::Response),
            reply: None,
            closes: false,
            end: End::NotYet,
            calls: 0,
            events: Vec::new(),
            event_bytes: 0,
            event_count: 0,
            undoable: false,
            bell: None,
            ends: (known.permit().target().form == Form::Tunnel).then(Ends::default),
            waker: None,
        }
    }

    pub(super) fn message(&self, kind: Kind) -> &Message {
        match kind {
            Kind::Request => &self.request,
            Kind::Response => &self.response,
        }
    }

    /// Whether a body is there to be changed: while it or its trailers are shown, and while some of it is held.
    pub(super) fn offers_body(&self, kind: Kind) -> bool {
        let shown = match kind {
            Kind::Request => matches!(self.phase, Phase::RequestBody | Phase::RequestTrailers),
            Kind::Response => matches!(self.phase, Phase::ResponseBody | Phase::ResponseTrailers),
        };
        shown || !self.message(kind).body.is_empty()
    }

    pub(super) fn message_mut(&mut self, kind: Kind) -> &mut Message {
        match kind {
            Kind::Request => &mut self.request,
            Kind::Response => &mut self.response,
        }
    }

    /// The message, to change it: what it was is kept where a failure must undo it.
    pub(super) fn changed(&mut self, kind: Kind) -> &mut Message {
        // An empty body is lent, too, to be given something.
        let (undoable, offers) = (self.undoable, self.offers_body(kind));
        let message = self.message_mut(kind);
        if undoable && (offers || message.is_lent()) {
            message.keep_before();
        }
        message
    }

    /// The bell that is rung when it may go on.
    pub(super) fn bell(&mut self) -> Rc<Notify> {
        Rc::clone(self.bell.get_or_insert_with(Rc::default))
    }

    /// Has this woken with the bell, in place of what was before.
    pub(super) fn wake(&mut self, waker: &Waker) {
        match &mut self.waker {
            Some(there) => there.clone_from(waker),
            None => self.waker = Some(waker.clone()),
        }
    }

    /// Wakes whoever waits for it.
    pub(super) fn ring(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
        if let Some(bell) = &self.bell {
            bell.notify_waiters();
        }
    }

    /// Whether a message of it is in the VM.
    pub(super) fn is_lent(&self) -> bool {
        self.request.is_lent() || self.response.is_lent()
    }

    /// A head's fields, as they are now.
    pub(super) fn head(&self, kind: Kind) -> Option<View<'_>> {
        let message = self.message(kind);
        let line = match kind {
            Kind::Request => {
                let (method, path) = match &message.line.rewritten {
                    Some((method, path)) => (method, Some(path)),
                    None => (self.known.method()?, self.known.path_and_query()),
                };
                let secure = self.known.permit().target().form == Form::Secure;
                let scheme = if secure { "https" } else { "http" };
                fields::Line::Request { method, path, authority: self.known.authority(), scheme }
            }
            Kind::Response => fields::Line::Response(self.status()?),
        };
        Some(View { line, fields: message.fields()? })
    }

    /// A message's trailers, as they are now.
    pub(super) fn trailers(&self, kind: Kind) -> Option<View<'_>> {
        Some(View { line: fields::Line::None, fields: self.message(kind).trailers.as_ref()? })
    }

    /// The response's status.
    pub(super) fn status(&self) -> Option<StatusCode> {
        self.response.line.status.or_else(|| self.known.status())
    }

    /// What the request is to go on with.
    pub(super) fn line(&self) -> Option<(Method, PathAndQuery)> {
        if let Some(rewritten) = &self.request.line.rewritten {
            return Some(rewritten.clone());
        }
        let path = self.known.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        Some((self.known.method()?.clone(), path))
    }
}

impl Message {
    fn of(kind: Kind) -> Self {
        Self { line: Line { kind, ..Line::default() }, ..Self::default() }
    }

    /// The head's fields, lent or as they were.
    pub(super) fn fields(&self) -> Option<&HeaderMap> {
        self.fields.as_ref().or_else(|| self.kept.as_ref().map(Kept::fields))
    }

    /// Takes what is shown in a callback; what is held of the body goes before it. The line goes with the head: without that, it
    /// is another filter's.
    pub(super) fn lend(&mut self, shown: &mut Shown) {
        if shown.head.is_some() {
            let next = Line { kind: shown.line.kind, ..Line::default() };
            (self.fields, self.kept) = (shown.head.take(), None);
            self.line = std::mem::replace(&mut shown.line, next);
        }
        if shown.trailers.is_some() {
            (self.trailers, self.has_trailers) = (shown.trailers.take(), true);
        }
        if let Some(body) = shown.body.take() {
            self.body_seen += body.len() as u64;
            self.body = crate::filter::passage::join(std::mem::take(&mut self.body), body);
        }
        self.before = None;
        // What was let go of while it was held goes on, whatever is answered about what comes behind it.
        self.resumed &= self.wait != Wait::Nothing;
    }

    /// Gives back what is lent, as the filter left it. The fields are kept, for the callbacks that follow.
    pub(super) fn give_back(&mut self, shown: &mut Shown) {
        self.before = None;
        (self.wait, self.resumed) = (Wait::Nothing, false);
        shown.body = Some(std::mem::take(&mut self.share).cover(std::mem::take(&mut self.body)));
        if let Some(head) = self.fields.take() {
            self.kept = Some(Kept::of(&head));
            shown.head = Some(head);
            let kept =
                Line { rewritten: self.line.rewritten.clone(), kind: self.line.kind, status: self.line.status, wish: None };
            shown.line = std::mem::replace(&mut self.line, kept);
        }
        if std::mem::take(&mut self.has_trailers) {
            shown.trailers = self.trailers.clone();
        }
    }

    /// The same, for whoever has shown nothing.
    pub(super) fn take(&mut self) -> Shown {
        let mut shown = Shown::default();
        self.give_back(&mut shown);
        shown
    }

    /// Holds the body that is here. Where no more may be held it is gone, and the exchange ends.
    pub(super) fn hold(&mut self, limits: &Limits, metrics: &Arc<Metrics>) -> Result<(), NoRoom> {
        let held = self.share.resize(self.body.len(), limits, metrics);
        if held.is_err() {
            (self.body, self.share, self.before) = (Bytes::new(), Share::default(), None);
        }
        held
    }

    /// Gives it back as it was before the callback that failed.
    pub(super) fn undo(&mut self) -> Shown {
        if let Some(before) = self.before.take() {
            let Before { fields, trailers, body, line } = *before;
            (self.fields, self.trailers, self.body, self.line) = (fields, trailers, body, line);
        }
        self.take()
    }

    pub(super) fn is_lent(&self) -> bool {
        self.fields.is_some() || self.has_trailers || !self.body.is_empty() || self.wait != Wait::Nothing
    }

    /// Whether something is held, to be let go of between two pieces.
    pub(super) fn is_held(&self) -> bool {
        matches!(self.wait, Wait::Held | Wait::HeldToWatermark)
    }

    fn keep_before(&mut self) {
        if self.before.is_none() {
            let Self { fields, trailers, body, line, .. } = self;
            let before = Before { fields: fields.clone(), trailers: trailers.clone(), body: body.clone(), line: line.clone() };
            self.before = Some(Box::new(before));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn shown(body: &'static [u8]) -> Shown {
        Shown { head: Some(HeaderMap::new()), body: Some(Bytes::from_static(body)), ..Shown::default() }
    }

    #[test]
    fn what_is_held_goes_before_what_comes() {
        let mut message = Message::default();
        message.lend(&mut shown(b"one "));
        message.wait = Wait::Held;
        assert!(message.is_lent() && message.is_held());
        message.lend(&mut Shown { body: Some(Bytes::from_static(b"two")), ..Shown::default() });
        let taken = message.take();
        assert_eq!((taken.body.as_deref(), message.body_seen), (Some(&b"one two"[..]), 7));
        assert!(taken.head.is_some() && !message.is_lent(), "the head went with it");
        assert!(message.fields().is_some(), "and a copy is left");
    }

    #[test]
    fn a_failure_is_undone() {
        let mut message = Message::default();
        message.lend(&mut shown(b"body"));
        message.keep_before();
        message.fields.as_mut().unwrap().insert("x-a", HeaderValue::from_static("1"));
        message.body = Bytes::new();
        let before = message.undo();
        assert_eq!((before.head, before.body.as_deref()), (Some(HeaderMap::new()), Some(&b"body"[..])));
    }
}
