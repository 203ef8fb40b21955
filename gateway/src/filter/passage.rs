//! A message's way through the filters in one direction. Pieces of it go from filter to filter; where one holds the head,
//! nothing passes it.

mod head;

pub(super) use head::Begun;

use super::{
    bindings::tidegate::filter::types::{BodyFlow, TrailerFlow},
    instance::{Answer, Callback},
    lent::Shown,
    message::Kind,
    run::Steps,
    share::Share,
};
use crate::{fault::Fault, http::Response};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use std::rc::Rc;
use tokio::sync::Notify;

/// Most bytes of what has come that a typed filter is shown at a time, beside what it holds itself. One that looks at every byte needs milliseconds for so many,
/// and too long for the MiB that another filter may have held and let go of.
const AT_A_TIME: usize = 64 << 10;

/// A message on its way.
pub(super) struct Passage {
    steps: Rc<Steps>,
    /// The response's status, as it came.
    pub(super) status: u16,
    /// Whether HTTP lets it have a body at all (RFC 9110 section 6.4.1).
    pub(super) may_have_body: bool,
    kind: Kind,
    /// What is shown of it. The head's fields are gone once it is out.
    shown: Box<Shown>,
    /// How many filters have let the head go on.
    let_on: usize,
    /// The callback about the head that a VM has stopped, and what it rings when it goes on.
    awaited: Option<(Callback, Rc<Notify>)>,
    /// What of each filter, in the order of this direction, is left to show; empty as long as none wants to see more.
    stages: Vec<Stage>,
}

/// One filter's part in a direction after the head.
#[derive(Debug, Default)]
struct Stage {
    follows: Follows,
    /// What it asked the host to hold.
    held: Bytes,
    share: Share,
    /// What has come to it behind what it was shown last. As long as a filter has such a rest, nothing more comes to those before it.
    rest: Option<Box<Piece>>,
}

/// What of a message a filter wants to see after its head.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Follows {
    #[default]
    Nothing,
    Trailers,
    Pieces,
    /// The whole body, once.
    Whole,
}

/// A piece of a message behind its head.
#[derive(Debug, Default)]
pub(super) struct Piece {
    pub(super) data: Bytes,
    pub(super) end: Option<End>,
}

/// How a message ends.
#[derive(Debug)]
pub(super) enum End {
    Plain,
    Trailers(HeaderMap),
}

/// What ends a passage.
#[derive(Debug)]
pub(super) enum Halt {
    /// A filter's own answer.
    Reply(Box<Response>),
    Fault(Fault),
}

impl Piece {
    fn is_nothing(&self) -> bool {
        self.data.is_empty() && self.end.is_none()
    }

    /// Leaves what a filter is shown at once, at most so many bytes, and says what comes behind it. Trailers come by themselves.
    fn cut(&mut self, most: usize) -> Option<Box<Self>> {
        let all = self.data.len() <= most && !matches!(self.end, Some(End::Trailers(_)));
        if all || self.data.is_empty() {
            return None;
        }
        let data = self.data.split_off(self.data.len().min(most));
        Some(Box::new(Self { data, end: self.end.take() }))
    }

    /// Whether this is the end, without trailers.
    fn ends_plainly(&self) -> bool {
        matches!(self.end, Some(End::Plain))
    }
}

impl Passage {
    pub(super) fn new(steps: &Rc<Steps>, kind: Kind, head: HeaderMap) -> Self {
        let mut shown = steps.spare.take();
        shown.head = Some(head);
        shown.line.kind = kind;
        let steps = Rc::clone(steps);
        Self { steps, status: 0, may_have_body: true, kind, shown, let_on: 0, awaited: None, stages: Vec::new() }
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    pub(super) fn steps(&self) -> &Steps {
        &self.steps
    }

    /// Whether a filter wants to see more than the head.
    pub(super) fn follows(&self) -> bool {
        !self.stages.is_empty()
    }

    /// Whether calls into its filters may suspend.
    pub(super) fn suspends(&self) -> bool {
        self.steps.suspends
    }

    /// Shows a piece to the filters that it comes to; what passes the last of them is handed out.
    pub(super) async fn push(&mut self, piece: Piece) -> Result<Piece, Halt> {
        self.steps.lap();
        self.go(0, piece).await
    }

    /// Whether something waits to be shown that has come already.
    pub(super) fn has_rest(&self) -> bool {
        self.stages.iter().any(|stage| stage.rest.is_some())
    }

    /// Whether the message's end is a part of that.
    pub(super) fn has_end(&self) -> bool {
        self.stages.iter().any(|stage| stage.rest.as_ref().is_some_and(|rest| rest.end.is_some()))
    }

    /// Shows the next part of what waits for that; what passes the last filter is handed out.
    pub(super) async fn go_on(&mut self) -> Result<Piece, Halt> {
        self.steps.lap();
        // What is further on its way is before the rest.
        let last = self.stages.iter_mut().enumerate().rev().find_map(|(stage, it)| it.rest.take().map(|rest| (stage, rest)));
        match last {
            Some((stage, rest)) => self.go(stage, *rest).await,
            None => Ok(Piece::default()),
        }
    }

    /// The bells that VMs ring when they let go of what they hold between two pieces; none where none holds anything.
    pub(super) fn bells(&self) -> Vec<Rc<Notify>> {
        if !self.steps.holds || self.stages.is_empty() {
            return Vec::new();
        }
        let vms = (0..self.steps.len()).filter_map(|index| self.steps.vm(index));
        vms.filter_map(|(vm, trail)| vm.held(trail, self.kind)).collect()
    }

    /// Whether a VM has let go of something that it held.
    pub(super) fn lets_go(&self) -> bool {
        self.steps.holds && (0..self.steps.len()).any(|index| self.steps.lets_go(index, self.kind))
    }

    /// Has what VMs have let go of go on; what passes the last filter is handed out.
    pub(super) async fn resume(&mut self) -> Result<Piece, Halt> {
        self.steps.lap();
        self.go(0, Piece::default()).await
    }

    /// Has a piece go from filter to filter, from this one on, behind what the VM of each has let go of: one may have while this was
    /// read, or while another filter took its time.
    async fn go(&mut self, from: usize, mut piece: Piece) -> Result<Piece, Halt> {
        for stage in from..self.steps.len() {
            let place = self.place(stage);
            if self.steps.holds && self.steps.lets_go(place, self.kind) {
                let elsewhere = self.shown.head.take();
                let answer = self.steps.let_go(place, self.kind, &mut self.shown);
                self.shown.head = self.shown.head.take().or(elsewhere);
                let data = self.shown.body.take().unwrap_or_default();
                let let_go = self.after_body(stage, answer?, Piece { data, end: None }).await?;
                // What comes from the filters before is behind what was held here.
                let behind = if piece.is_nothing() { piece } else { self.stage(stage, piece).await? };
                piece = Piece { data: join(let_go.data, behind.data), end: behind.end };
            } else if !piece.is_nothing() {
                piece = self.stage(stage, piece).await?;
            }
            if self.let_on <= stage || (piece.is_nothing() && !self.steps.holds) {
                break;
            }
        }
        Ok(piece)
    }

    /// The place in the route's chain of the filter at this place of the direction.
    fn place(&self, stage: usize) -> usize {
        match self.kind {
            Kind::Request => stage,
            Kind::Response => self.steps.len() - 1 - stage,
        }
    }

    /// Shows a piece to one filter, or the first part of it, and says what goes on from it.
    async fn stage(&mut self, stage: usize, mut piece: Piece) -> Result<Piece, Halt> {
        let place = self.place(stage);
        let follows = self.stages[stage].follows;
        if follows == Follows::Pieces {
            // VMs are shown pieces as they come, as elsewhere.
            let most = if self.steps.vm(place).is_some() { usize::MAX } else { AT_A_TIME };
            self.stages[stage].rest = piece.cut(most);
        }
        match (follows, &piece.end) {
            (Follows::Nothing, _) | (Follows::Trailers, None | Some(End::Plain)) => Ok(piece),
            (Follows::Trailers, Some(End::Trailers(_))) => self.trailers(stage, piece).await,
            (Follows::Pieces | Follows::Whole, _) => {
                let held = std::mem::take(&mut self.stages[stage].held);
                let offer = self.joined(place, held, piece.data)?;
                let whole = follows == Follows::Whole;
                if whole && piece.end.is_none() {
                    return self.hold(stage, offer).map(|()| Piece::default());
                }
                let piece = Piece { data: offer, end: piece.end };
                // Trailers that come by themselves are shown with what is held; a whole body is always shown by itself.
                if matches!(piece.end, Some(End::Trailers(_))) && !whole {
                    self.stages[stage].held = piece.data;
                    return self.trailers(stage, Piece { data: Bytes::new(), end: piece.end }).await;
                }
                self.body(stage, piece).await
            }
        }
    }

    async fn body(&mut self, stage: usize, piece: Piece) -> Result<Piece, Halt> {
        let end = piece.ends_plainly();
        let callback = match self.kind {
            Kind::Request => Callback::RequestBody { end },
            Kind::Response => Callback::ResponseBody { end },
        };
        self.shown.body = Some(piece.data);
        let answer = self.show(stage, callback).await?;
        let data = self.shown.body.take().unwrap_or_default();
        self.after_body(stage, answer, Piece { data, end: piece.end }).await
    }

    /// What a filter has answered about a piece of the body, and left of it.
    async fn after_body(&mut self, stage: usize, answer: Option<Answer>, mut out: Piece) -> Result<Piece, Halt> {
        let (place, end) = (self.place(stage), out.ends_plainly());
        let flow = match answer {
            Some(Answer::Body(flow)) => flow,
            // Left out from now on.
            _ => BodyFlow::SkipRest,
        };
        match flow {
            BodyFlow::Forward => {}
            BodyFlow::Hold if end => {}
            BodyFlow::Hold => {
                self.hold(stage, std::mem::take(&mut out.data))?;
                if out.end.is_some() {
                    return self.trailers(stage, out).await;
                }
                return Ok(Piece::default());
            }
            BodyFlow::Drop => {
                out.data = self.let_go(stage, Bytes::new());
                if out.end.is_none() {
                    return Ok(Piece::default());
                }
            }
            BodyFlow::SkipRest => self.stages[stage].follows = Follows::Nothing,
            BodyFlow::Reply => {
                self.steps.replied(place, self.shown.reply.take())?;
                self.stages[stage].follows = Follows::Nothing;
            }
            BodyFlow::Reset => return Err(self.steps.reset(place)),
        }
        if matches!(out.end, Some(End::Trailers(_))) && self.stages[stage].follows != Follows::Nothing {
            return self.trailers(stage, out).await;
        }
        out.data = self.let_go(stage, out.data);
        self.release(stage, out.ends_plainly() && out.data.is_empty()).await?;
        Ok(out)
    }

    /// Shows trailers and what is held; both go on, behind what is on its way already.
    async fn trailers(&mut self, stage: usize, piece: Piece) -> Result<Piece, Halt> {
        let place = self.place(stage);
        let Piece { data, end: Some(End::Trailers(trailers)) } = piece else { return Ok(piece) };
        let held = std::mem::take(&mut self.stages[stage].held);
        let callback = match self.kind {
            Kind::Request => Callback::RequestTrailers,
            Kind::Response => Callback::ResponseTrailers,
        };
        (self.shown.body, self.shown.trailers) = (Some(held), Some(trailers));
        let answer = self.show(stage, callback).await?;
        let (held, trailers) = (self.shown.body.take(), self.shown.trailers.take());
        self.stages[stage].follows = Follows::Nothing;
        match answer {
            Some(Answer::Trailers(TrailerFlow::Reply)) => self.steps.replied(place, self.shown.reply.take())?,
            Some(Answer::Trailers(TrailerFlow::Reset)) => return Err(self.steps.reset(place)),
            _ => {}
        }
        let data = self.let_go(stage, join(data, held.unwrap_or_default()));
        let end = match trailers {
            Some(trailers) if !trailers.is_empty() => End::Trailers(trailers),
            _ => End::Plain,
        };
        let out = Piece { data, end: Some(end) };
        self.release(stage, out.ends_plainly() && out.data.is_empty()).await?;
        Ok(out)
    }

    /// Makes a callback about what is in `shown`, with the head where it is with this filter.
    async fn show(&mut self, stage: usize, callback: Callback) -> Result<Option<Answer>, Halt> {
        let place = self.place(stage);
        let elsewhere = if self.let_on == stage { None } else { self.shown.head.take() };
        let answer = self.steps.show(place, callback, &mut self.shown).await;
        if elsewhere.is_some() {
            self.shown.head = elsewhere;
        }
        answer
    }

    /// Holds this for a filter, in place of what was held for it.
    fn hold(&mut self, stage: usize, data: Bytes) -> Result<(), Halt> {
        let place = self.place(stage);
        let Stage { held, share, .. } = &mut self.stages[stage];
        self.steps.share(place, share, data.len())?;
        *held = data;
        Ok(())
    }

    /// What was held for a filter and goes on, as the filter has left it.
    fn let_go(&mut self, stage: usize, data: Bytes) -> Bytes {
        std::mem::take(&mut self.stages[stage].share).cover(data)
    }

    /// What is held and what has come, together, within the limit on what is held.
    fn joined(&self, place: usize, held: Bytes, data: Bytes) -> Result<Bytes, Halt> {
        let kind = self.kind;
        let in_vm = self.steps.vm(place).map_or(0, |(vm, trail)| vm.held_bytes(trail, kind));
        if in_vm > 0 && in_vm + data.len() > self.steps.body_bytes(place) {
            return Err(self.steps.too_large(place, kind));
        }
        if !held.is_empty() && held.len() + data.len() > self.steps.body_bytes(place) {
            return Err(self.steps.too_large(place, self.kind));
        }
        Ok(join(held, data))
    }
}

/// One behind the other. What was joined before grows in place.
pub(super) fn join(first: Bytes, second: Bytes) -> Bytes {
    if first.is_empty() {
        return second;
    }
    if second.is_empty() {
        return first;
    }
    let mut joined = first.try_into_mut().unwrap_or_else(|shared| {
        let mut own = BytesMut::with_capacity(shared.len() + second.len());
        own.extend_from_slice(&shared);
        own
    });
    joined.extend_from_slice(&second);
    joined.freeze()
}
