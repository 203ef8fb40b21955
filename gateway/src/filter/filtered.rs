//! A body that filters follow: each piece that is read goes through them before it goes on.

use super::{
    message::{Kind, Line},
    passage::{End, Halt, Passage, Piece},
    slot::at_once,
};
use crate::{fault::Fault, http::body::Body};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};
use tidegate_policy::Reason;

/// A body that filters follow.
pub struct Filtered {
    body: Body,
    state: State,
    /// What has passed the filters and is not read yet: pieces, and how it ends.
    passed: VecDeque<Bytes>,
    end: Option<End>,
    ended: bool,
    /// Whether others have had their turn since something was shown.
    has_paused: bool,
    /// Rung when a filter lets go of what it holds.
    rung: Option<Rung>,
    /// Whether the head has been sent on, so that nothing can be answered in its place.
    headless: bool,
}

type Passing = Pin<Box<dyn Future<Output = (Box<Passage>, Result<Piece, Halt>)>>>;

type Rung = Pin<Box<dyn Future<Output = ()>>>;

/// What goes through the filters.
enum Passed {
    Piece(Piece),
    /// The next part of what has come already.
    Rest,
    /// What they held and have let go of.
    LetGo,
}

impl Passed {
    async fn through(self, passage: &mut Passage) -> Result<Piece, Halt> {
        match self {
            Self::Piece(piece) => passage.push(piece).await,
            Self::Rest => passage.go_on().await,
            Self::LetGo => passage.resume().await,
        }
    }
}

enum State {
    Idle(Box<Passage>),
    /// A filter has suspended itself.
    Passing(Passing),
    Halted,
}

impl Filtered {
    pub(super) fn new(passage: Passage, body: Body) -> Self {
        Self {
            body,
            state: State::Idle(Box::new(passage)),
            passed: VecDeque::new(),
            end: None,
            ended: false,
            has_paused: false,
            rung: None,
            headless: false,
        }
    }

    /// Reads and shows the body until no filter holds the head any more. Where all of the body has come by then, the head waits until
    /// it has passed, too, so that it can say how long the body is.
    pub(super) async fn until_head_is_out(&mut self) -> Result<(), Halt> {
        poll_fn(|cx| {
            while !self.head_is_out() || self.end_is_here() {
                if let Err(halt) = ready!(self.poll_passed(cx)) {
                    return Poll::Ready(Err(halt));
                }
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    fn head_is_out(&self) -> bool {
        matches!(&self.state, State::Idle(passage) if passage.head_is_out())
    }

    /// Whether the end of the body has come, and waits to be shown.
    fn end_is_here(&self) -> bool {
        matches!(&self.state, State::Idle(passage) if passage.has_end())
    }

    /// The head, once it is out.
    pub(super) fn head(&mut self) -> Result<(Line, HeaderMap), Fault> {
        self.headless = true;
        let State::Idle(passage) = &mut self.state else { return Err(over()) };
        let (line, mut headers) = passage.head()?;
        // What the body's length will be follows from the body.
        headers.remove(http::header::CONTENT_LENGTH);
        Ok((line, headers))
    }

    /// Goes on with whatever is under way in the other direction.
    pub(crate) fn poll_upload(&mut self, cx: &mut Context<'_>) {
        self.body.poll_upload(cx);
    }

    /// Has one piece more go through the filters.
    fn poll_passed(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Halt>> {
        if let State::Passing(passing) = &mut self.state {
            let Poll::Ready((passage, passed)) = passing.as_mut().poll(cx) else {
                // What it waits for may be a filter that the upload has called.
                self.body.poll_upload(cx);
                return Poll::Pending;
            };
            self.state = State::Idle(passage);
            return Poll::Ready(self.take(passed));
        }
        if matches!(&self.state, State::Idle(passage) if passage.has_rest()) {
            // Each part may take a filter's whole time.
            if !std::mem::replace(&mut self.has_paused, true) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.has_paused = false;
            return self.pass_on(cx, Passed::Rest);
        }
        if self.is_let_go(cx) {
            return self.pass_on(cx, Passed::LetGo);
        }
        let piece = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => Piece { data, end: self.body.is_end_stream().then_some(End::Plain) },
                Err(other) => Piece { data: Bytes::new(), end: other.into_trailers().ok().map(End::Trailers) },
            },
            Some(Err(fault)) => {
                self.state = State::Halted;
                return Poll::Ready(Err(Halt::Fault(fault)));
            }
            None => Piece { data: Bytes::new(), end: Some(End::Plain) },
        };
        self.pass_on(cx, Passed::Piece(piece))
    }

    /// Whether a filter has let go of something that it holds between two pieces; if not, who polls is woken when one does.
    fn is_let_go(&mut self, cx: &mut Context<'_>) -> bool {
        let State::Idle(passage) = &self.state else { return false };
        if passage.lets_go() {
            return true;
        }
        let bells = passage.bells();
        if bells.is_empty() {
            return false;
        }
        let rung = bells.into_iter().map(|bell| Box::pin(async move { bell.notified().await }));
        let mut rung: Rung = Box::pin(futures_util::future::select_all(rung).map(drop));
        // One that rings at once would have been seen above.
        let _ready = rung.as_mut().poll(cx);
        self.rung = Some(rung);
        false
    }

    /// Has a piece go through the filters, or what one of them has let go of.
    fn pass_on(&mut self, cx: &mut Context<'_>, what: Passed) -> Poll<Result<(), Halt>> {
        self.rung = None;
        match std::mem::replace(&mut self.state, State::Halted) {
            State::Idle(mut passage) if passage.suspends() => {
                self.state = State::Passing(Box::pin(async move {
                    let passed = what.through(&mut passage).await;
                    (passage, passed)
                }));
                self.poll_passed(cx)
            }
            State::Idle(mut passage) => {
                let passed = at_once(pin!(what.through(&mut passage)));
                self.state = State::Idle(passage);
                Poll::Ready(self.take(passed))
            }
            State::Passing(_) | State::Halted => Poll::Ready(Err(Halt::Fault(over()))),
        }
    }

    fn take(&mut self, passed: Result<Piece, Halt>) -> Result<(), Halt> {
        match passed {
            Ok(piece) => {
                self.passed.extend(Some(piece.data).filter(|data| !data.is_empty()));
                self.end = piece.end;
                Ok(())
            }
            Err(halt) => {
                let before = std::mem::replace(&mut self.state, State::Halted);
                Err(match (halt, before) {
                    (Halt::Reply(response), State::Idle(passage)) if self.headless => Halt::Fault(late(&passage, response)),
                    (halt, _) => halt,
                })
            }
        }
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        loop {
            if let Some(data) = self.passed.pop_front() {
                self.ended = self.passed.is_empty() && matches!(self.end, Some(End::Plain));
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            if let Some(end) = self.end.take() {
                self.ended = true;
                match end {
                    End::Plain => return Poll::Ready(None),
                    End::Trailers(trailers) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                }
            }
            match ready!(self.poll_passed(cx)) {
                Ok(()) => {}
                Err(Halt::Fault(fault)) => return Poll::Ready(Some(Err(fault))),
                Err(Halt::Reply(_)) => return Poll::Ready(Some(Err(over()))),
            }
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.ended || (self.passed.is_empty() && matches!(self.end, Some(End::Plain)))
    }

    /// Exact once the whole body has passed the filters.
    pub(crate) fn size_hint(&self) -> SizeHint {
        match self.end {
            Some(End::Plain) => SizeHint::with_exact(self.passed.iter().map(|data| data.len() as u64).sum()),
            _ if self.ended => SizeHint::with_exact(0),
            _ => SizeHint::default(),
        }
    }
}

/// A filter's answer in the middle of a body. The caller still gets it while the upstream has not answered.
fn late(passage: &Passage, response: Box<crate::http::Response>) -> Fault {
    match passage.kind() {
        Kind::Request => {
            passage.steps().keep_reply(response);
            Fault::new(Reason::FilterDenied, "a filter answered in the middle of the request's body")
        }
        Kind::Response => {
            Fault::new(Reason::FilterFailed, "a filter answered when the response's head had gone to the caller already")
        }
    }
}

fn over() -> Fault {
    Fault::new(Reason::FilterFailed, "the body was given up by a filter before")
}

impl fmt::Debug for Filtered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filtered").field("body", &self.body).field("ended", &self.ended).finish_non_exhaustive()
    }
}
