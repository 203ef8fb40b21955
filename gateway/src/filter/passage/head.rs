//! The part of a passage that is about the head: as far as nothing has to be waited for that is done at once, and costs no future.

use super::{Follows, Halt, Passage, Stage};
use crate::{
    fault::Fault,
    filter::{
        bindings::tidegate::filter::types::Flow,
        instance::{Answer, Callback},
        message::{Kind, Line},
        run::AtOnce,
    },
};
use http::HeaderMap;

/// How far a head has come without a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::filter) enum Begun {
    /// It is out, or held by a filter that wants to see of the body first.
    Shown,
    /// It has to be waited for: `go_on_with_head` is next.
    Waits,
}

/// What becomes of a head that a filter was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Filter,
    Held,
}

impl Passage {
    /// Whether every filter has let the head go on.
    pub(in crate::filter) fn head_is_out(&self) -> bool {
        self.let_on == self.steps.len()
    }

    /// The first line and the fields, to be sent on.
    pub(in crate::filter) fn head(&mut self) -> Result<(Line, HeaderMap), Fault> {
        let line = std::mem::take(&mut self.shown.line);
        // The body that follows is still of this kind.
        self.shown.line.kind = self.kind;
        Ok((line, self.shown.take_head()?))
    }

    /// The same, where nothing behind the head is followed.
    pub(in crate::filter) fn into_head(mut self) -> Result<(Line, HeaderMap), Fault> {
        let head = self.head();
        self.steps.spare.put(self.shown);
        head
    }

    /// Goes on from where `begin_at_once` had to stop.
    pub(in crate::filter) async fn go_on_with_head(&mut self, end: bool) -> Result<(), Halt> {
        if let Some((callback, bell)) = self.awaited.take() {
            let answer = self.steps.wait(self.place(self.let_on), (callback, &bell), &mut self.shown).await?;
            if self.after_head(answer, end)? == Next::Held {
                return Ok(());
            }
        }
        self.show_head(end).await
    }

    /// Shows the head to the first filters, as far as nothing has to be waited for. `end` says that nothing follows it.
    pub(in crate::filter) fn begin_at_once(&mut self, end: bool) -> Result<Begun, Halt> {
        while let Some(callback) = self.next_head(end) {
            let answer = match self.steps.show_at_once(self.place(self.let_on), callback, &mut self.shown)? {
                AtOnce::Answered(answer) => answer,
                AtOnce::MaySuspend => return Ok(Begun::Waits),
                AtOnce::Waits(bell) => {
                    self.awaited = Some((callback, bell));
                    return Ok(Begun::Waits);
                }
            };
            if self.after_head(answer, end)? == Next::Held {
                break;
            }
        }
        Ok(Begun::Shown)
    }

    /// Shows the head from where it is, as far as filters let it go on.
    async fn show_head(&mut self, end: bool) -> Result<(), Halt> {
        while let Some(callback) = self.next_head(end) {
            let answer = self.steps.show(self.place(self.let_on), callback, &mut self.shown).await?;
            if self.after_head(answer, end)? == Next::Held {
                break;
            }
        }
        Ok(())
    }

    /// The callback about the head that is next to be made, of the filter where it is now; none where it has passed them all.
    fn next_head(&mut self, end: bool) -> Option<Callback> {
        while !self.head_is_out() && !self.steps.takes_part(self.place(self.let_on)) {
            self.let_on += 1;
        }
        let set = self.shown.line.status;
        (!self.head_is_out()).then(|| match self.kind {
            Kind::Request => Callback::Open { end },
            Kind::Response => Callback::ResponseHeaders { status: set.map_or(self.status, |set| set.as_u16()), end },
        })
    }

    /// What the filter where the head is has answered about it: whether it goes on to the next.
    fn after_head(&mut self, answer: Option<Answer>, end: bool) -> Result<Next, Halt> {
        let (stage, place) = (self.let_on, self.place(self.let_on));
        let flow = match answer {
            Some(Answer::Head(flow)) => flow,
            _ => Flow::Done,
        };
        let (follows, holds) = match flow {
            Flow::Done | Flow::Proceed => (Follows::Nothing, false),
            Flow::Trailers => (Follows::Trailers, false),
            Flow::Stream => (Follows::Pieces, false),
            Flow::Hold => (Follows::Pieces, true),
            Flow::Buffer => (Follows::Whole, true),
            Flow::Reply => {
                self.steps.replied(place, self.shown.reply.take())?;
                (Follows::Nothing, false)
            }
            Flow::Reset => return Err(self.steps.reset(place)),
        };
        // What has no body can be given one by a filter that holds its head, where HTTP lets it have one.
        let more = !end || (holds && self.may_have_body);
        // A filter that is done with the exchange has nothing more to see.
        if follows != Follows::Nothing && more && self.steps.takes_part(place) {
            self.stages.resize_with(self.steps.len(), Stage::default);
            self.stages[stage].follows = follows;
            if holds {
                return Ok(Next::Held);
            }
        }
        self.let_on += 1;
        Ok(Next::Filter)
    }

    /// Lets the head go on from this stage, where it is here.
    pub(super) async fn release(&mut self, stage: usize, end: bool) -> Result<(), Halt> {
        if self.let_on == stage {
            self.let_on += 1;
            self.show_head(end).await?;
        }
        Ok(())
    }
}
