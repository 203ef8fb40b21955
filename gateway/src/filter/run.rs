//! One exchange's way through its route's chain: what its filters have been shown, what became of each, and what their
//! failures mean for the exchange.

mod answer;
mod conduit;
mod failure;
mod heads;
mod overdue;

pub use conduit::{Conduit, Way};
pub use heads::Answering;

use self::overdue::UnderWay;

use super::{
    Closing, Facts,
    attributes::Known,
    bindings::tidegate::filter::types::LocalReply,
    chain::{Chain, Filter, Link},
    instance::{Answer, Callback, Trail, Visit},
    lent::{Shown, Spare},
    message::Kind,
    passage::Halt,
    proxy_wasm::{Called, Place},
    reply,
    share::{NoRoom, Share},
    slot::{Seat, Slot, Visited},
};
use crate::{
    fault::Fault,
    http::{Response, reply::Dialect},
    upstream::{self, Wish},
};
use futures_util::future::{Either, LocalBoxFuture};
use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    fmt,
    future::{Ready, ready},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};
use tidegate_policy::{
    Name, Reason,
    exchange::FilterFacts,
    route::{OnError, Traffic},
};
use tokio::sync::Notify;

/// What the record says of each filter: known at once unless a filter's last call may suspend itself.
pub type Ended = Either<Ready<Vec<FilterFacts<'static>>>, LocalBoxFuture<'static, Vec<FilterFacts<'static>>>>;

/// One exchange on its way through a route's chain. Its record closes it.
#[derive(Debug, Clone)]
pub struct Run(Rc<Steps>);

/// What the two directions of an exchange share.
pub(super) struct Steps {
    chain: Arc<Chain>,
    known: Arc<Known>,
    dialect: Dialect,
    each: Vec<Step>,
    /// Whether a call of any of its filters may suspend.
    pub(super) suspends: bool,
    /// Whether the last call to any of them may.
    suspends_at_end: bool,
    /// Whether any of them may hold something between two pieces of a body.
    pub(super) holds: bool,
    /// The answer that a filter gave while the request's body was under way.
    reply: RefCell<Option<Box<Response>>>,
    /// Whether a filter has answered the request: what goes back is that, and not the upstream's response.
    answered: Cell<bool>,
    /// What filters chose for the way out.
    wish: RefCell<Option<Box<Wish>>>,
    /// When the last callback of a row of them ended.
    lap: Cell<Instant>,
    /// For the next message to be shown in.
    pub(super) spare: Rc<Spare>,
}

/// One filter's part in it.
pub(super) struct Step {
    /// Where its instance is; none where it cannot be run.
    seat: Option<Seat>,
    trail: RefCell<Trail>,
    fate: Cell<Fate>,
    error: RefCell<Option<Arc<str>>>,
    time: Cell<Duration>,
    /// Callbacks under way: one that has suspended itself, or whose message the filter has stopped.
    calls: Cell<u32>,
}

/// What comes of a callback that is made without a wait.
pub(super) enum AtOnce {
    /// The answer; none where the filter is left out.
    Answered(Option<Answer>),
    /// A VM has stopped what it is about, and rings when it goes on.
    Waits(Rc<Notify>),
    /// It was not made, since it may suspend itself.
    MaySuspend,
}

/// What became of a filter in an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is for other traffic.
    Elsewhere,
    /// It has not been called yet.
    Waiting,
    Continued,
    /// It wants to hear no more.
    Done,
    Replied,
    /// It has answered, and failed since.
    Undone,
    Reset,
    Failed,
    Skipped,
}

impl Fate {
    const fn as_str(self) -> &'static str {
        match self {
            // The exchange ended before it came to this filter.
            Self::Elsewhere | Self::Waiting => "not_reached",
            Self::Continued | Self::Done => "continued",
            Self::Replied | Self::Undone => "replied",
            Self::Reset => "reset",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

impl Run {
    pub(super) fn begin(
        chain: &Arc<Chain>,
        (facts, traffic): (Facts<'_>, Traffic),
        spare: &Rc<Spare>,
        slot: impl Fn(&Arc<Filter>) -> Rc<Slot>,
    ) -> Result<Self, Fault> {
        let mut here = chain.links.iter().filter(|link| link.traffic.covers(traffic));
        if let Some(link) = here.find(|link| link.filter.is_err() && link.on_error == OnError::Deny) {
            return Err(refused(link));
        }
        let (mut suspends, mut holds) = (false, false);
        let step = |link: &Link| Step {
            seat: link.filter.as_ref().ok().filter(|_| link.traffic.covers(traffic)).map(|filter| {
                suspends |= Seat::suspends(filter);
                let seat = Seat::take(filter, slot(filter));
                holds |= seat.vm().is_some();
                seat
            }),
            trail: RefCell::default(),
            fate: Cell::new(match &link.filter {
                _ if !link.traffic.covers(traffic) => Fate::Elsewhere,
                Ok(_) => Fate::Waiting,
                Err(_) => Fate::Skipped,
            }),
            error: RefCell::new(link.filter.as_ref().err().cloned()),
            time: Cell::new(Duration::ZERO),
            calls: Cell::new(0),
        };
        let each = chain.links.iter().map(step).collect();
        let began = Instant::now();
        let (known, dialect) = (Arc::new(Known::new(facts, began)), facts.dialect);
        let (reply, answered) = (RefCell::default(), Cell::new(false));
        let (wish, lap) = (RefCell::default(), Cell::new(began));
        let (chain, suspends_at_end, suspends) = (Arc::clone(chain), suspends, suspends || holds);
        let spare = Rc::clone(spare);
        let steps = Steps { chain, known, dialect, each, suspends, suspends_at_end, holds, reply, answered, wish, lap, spare };
        Ok(Self(Rc::new(steps)))
    }

    /// What the filters chose for the way out, once the request has passed them.
    pub fn wish(&self) -> Option<Box<Wish>> {
        self.0.wish.take()
    }

    /// Notes the connection that the response came by.
    pub fn connected(&self, facts: &upstream::Facts, service: Option<&Name>, first_byte: Duration) {
        self.0.known.connected(facts, service, first_byte);
    }

    /// The answer, for `answer`, that a filter gave after the request's head had gone on; the request's body has failed by it.
    pub fn late_reply(&self) -> Option<Response> {
        self.0.reply.take().map(|reply| *reply)
    }

    /// Ends the filters' part, and says for the record what each did.
    pub fn close(self, closing: Closing) -> Ended {
        if !self.0.suspends_at_end {
            self.0.close_at_once(closing);
            return Either::Left(ready(self.0.facts()));
        }
        Either::Right(Box::pin(async move {
            self.0.close(closing).await;
            self.0.facts()
        }))
    }
}

impl Steps {
    /// The time since the last lap.
    pub(super) fn lap(&self) -> Duration {
        let now = Instant::now();
        now.saturating_duration_since(self.lap.replace(now))
    }

    /// How many filters there are.
    pub(super) fn len(&self) -> usize {
        self.each.len()
    }

    /// Keeps the answer that a filter gave in the middle of the request's body for when the delivery has failed by it.
    pub(super) fn keep_reply(&self, response: Box<Response>) {
        self.reply.replace(Some(response));
    }

    /// Makes one callback. None where the filter failed and is left out from now on.
    pub(super) async fn show(&self, index: usize, callback: Callback, shown: &mut Box<Shown>) -> Result<Option<Answer>, Halt> {
        let Some((seat, filter, undoable)) = self.to_visit(index) else { return Ok(None) };
        let step = &self.each[index];
        let visit = Visit { callback, known: &self.known, shown: Some(shown), undoable };
        let under_way = UnderWay::begin(&step.calls);
        let answer = seat.visit(filter, &step.trail, visit).await;
        drop(under_way);
        self.visited(index, answer)
    }

    /// The same as far as that needs no wait.
    pub(super) fn show_at_once(&self, index: usize, callback: Callback, shown: &mut Box<Shown>) -> Result<AtOnce, Halt> {
        let Some((seat, filter, undoable)) = self.to_visit(index) else { return Ok(AtOnce::Answered(None)) };
        let visit = Visit { callback, known: &self.known, shown: Some(shown), undoable };
        match seat.visit_at_once(filter, &self.each[index].trail, visit) {
            Some(Called::Done(answer)) => self.visited(index, answer).map(AtOnce::Answered),
            Some(Called::Waits(bell)) => Ok(AtOnce::Waits(bell)),
            None => Ok(AtOnce::MaySuspend),
        }
    }

    /// Waits until a VM goes on with a callback that it has stopped.
    pub(super) async fn wait(
        &self,
        index: usize,
        (callback, bell): (Callback, &Notify),
        shown: &mut Box<Shown>,
    ) -> Result<Option<Answer>, Halt> {
        let step = &self.each[index];
        let Some(vm) = step.seat.as_ref().and_then(Seat::vm) else { return Ok(None) };
        let under_way = UnderWay::begin(&step.calls);
        let answer = vm.wait(&step.trail, (callback, bell), shown).await;
        drop(under_way);
        self.visited(index, answer)
    }

    /// Where the filter is visited, and whether a failure must leave the message as it was; none where it is left out. It may have
    /// been in the other direction meanwhile: its instance is not to be asked about it again.
    fn to_visit(&self, index: usize) -> Option<(&Seat, &Arc<Filter>, bool)> {
        let (link, step) = (&self.chain.links[index], &self.each[index]);
        match (&step.seat, &link.filter) {
            (Some(seat), Ok(filter)) if self.takes_part(index) => Some((seat, filter, link.on_error == OnError::Skip)),
            _ => None,
        }
    }

    /// What a callback means for the filter; none where it failed and is left out from now on.
    fn visited(&self, index: usize, answer: Result<Answer, Arc<str>>) -> Result<Option<Answer>, Halt> {
        let step = &self.each[index];
        step.time.set(step.time.get() + self.lap());
        match answer {
            Ok(Answer::NoRoom) => Err(self.no_room(index)),
            Ok(Answer::NoMemory) => Err(self.no_memory(index)),
            Ok(answer) => {
                let open = step.trail.borrow().open.is_some();
                if step.fate.get() != Fate::Replied {
                    step.fate.set(if open { Fate::Continued } else { Fate::Done });
                }
                Ok(Some(answer))
            }
            Err(error) => self.failed(index, error).map(|()| None),
        }
    }

    /// The VM of the filter at this place, and its part in the exchange, where it may hold something of a body.
    pub(super) fn vm(&self, index: usize) -> Option<(&Place, &RefCell<Trail>)> {
        let step = &self.each[index];
        Some((step.seat.as_ref()?.vm()?, &step.trail)).filter(|_| self.takes_part(index))
    }

    /// Whether a VM has let go of something that it held between two pieces. One whose filter was left out when it failed at the
    /// other message has.
    pub(super) fn lets_go(&self, index: usize, kind: Kind) -> bool {
        let step = &self.each[index];
        let vm = step.seat.as_ref().and_then(Seat::vm);
        let concerned = self.takes_part(index) || matches!(step.fate.get(), Fate::Skipped | Fate::Undone);
        vm.is_some_and(|vm| concerned && vm.lets_go(&step.trail, kind))
    }

    /// Takes what a VM has let go of between two pieces; none where the filter is left out from now on.
    pub(super) fn let_go(&self, index: usize, kind: Kind, shown: &mut Box<Shown>) -> Result<Option<Answer>, Halt> {
        let step = &self.each[index];
        let Some(vm) = step.seat.as_ref().and_then(Seat::vm) else { return Ok(None) };
        let answer = vm.let_go(&step.trail, kind, shown);
        if !self.takes_part(index) {
            return Ok(None);
        }
        self.visited(index, answer)
    }

    /// What becomes of a filter's own answer; none where it is not valid and the filter is left out.
    pub(super) fn replied(&self, index: usize, local: Option<Box<LocalReply>>) -> Result<(), Halt> {
        let (link, step) = (&self.chain.links[index], &self.each[index]);
        let Ok(filter) = &link.filter else { return Ok(()) };
        let Some(local) = local else {
            filter.shared.metrics.failures.add(1);
            return self.failed(index, "it answered `reply` without having given an answer to `message.answer`".into());
        };
        let details = Some(Arc::<str>::from(local.details.as_str())).filter(|details| !details.is_empty());
        match reply::checked(*local, self.dialect, &filter.shared.limits) {
            Ok(response) => {
                filter.shared.metrics.replies.add(1);
                step.fate.set(Fate::Replied);
                step.error.replace(details);
                Err(Halt::Reply(Box::new(response)))
            }
            Err(error) => {
                filter.shared.metrics.failures.add(1);
                self.failed(index, error)
            }
        }
    }

    /// A filter wants the exchange to end without an answer.
    pub(super) fn reset(&self, index: usize) -> Halt {
        let (link, step) = (&self.chain.links[index], &self.each[index]);
        step.fate.set(Fate::Reset);
        Halt::Fault(Fault::new(Reason::FilterReset, format!("the filter {} ended the exchange", link.plugin)))
    }

    /// More of a body was to be held for the filter than may be.
    pub(super) fn too_large(&self, index: usize, kind: Kind) -> Halt {
        let link = &self.chain.links[index];
        let limit = link.filter.as_ref().map_or(0, |filter| {
            filter.shared.metrics.bodies_refused.add(1);
            filter.shared.limits.body_bytes
        });
        let plugin = &link.plugin;
        let detail = |of: &str| {
            format!(
                "the {of}'s body is larger than the {limit} bytes that are held for the filter {plugin} (setting filter_body_bytes)"
            )
        };
        Halt::Fault(match kind {
            Kind::Request => Fault::new(Reason::BodyTooLarge, detail("request")),
            Kind::Response => {
                // What other hosts of Proxy-Wasm answer, whose filters meet the same limit.
                let status = match self.vm(index) {
                    Some(_) => ::http::StatusCode::INTERNAL_SERVER_ERROR,
                    None => ::http::StatusCode::BAD_GATEWAY,
                };
                Fault::new(Reason::BodyTooLarge, detail("response")).answered_with(status)
            }
        })
    }

    /// Makes `share` one of so many bytes that are held for a filter.
    pub(super) fn share(&self, index: usize, share: &mut Share, bytes: usize) -> Result<(), Halt> {
        let Ok(filter) = &self.chain.links[index].filter else { return Ok(()) };
        share.resize(bytes, &filter.shared.limits, &filter.shared.metrics).map_err(|NoRoom| self.no_room(index))
    }

    /// Most bytes of a body that are held for a filter.
    pub(super) fn body_bytes(&self, index: usize) -> usize {
        self.chain.links[index].filter.as_ref().map_or(0, |filter| filter.shared.limits.body_bytes)
    }

    /// Notes how the exchange ends, where a filter is to hear of it.
    fn note_end(&self, closing: Closing) {
        if self.each.iter().any(|step| step.seat.as_ref().is_some_and(|seat| seat.is_open(&step.trail))) {
            self.known.closes(closing);
        }
    }

    /// The last call to every filter that has the exchange open. A failure in it is recorded; there is nothing left to
    /// refuse. Its time is not the exchange's, which has ended.
    async fn close(&self, closing: Closing) {
        self.note_end(closing);
        for index in 0..self.each.len() {
            if let Some((seat, filter, visit)) = self.last_visit(index) {
                let visited = seat.visit(filter, &self.each[index].trail, visit).await;
                self.after_last_visit(index, visited);
            }
        }
    }

    /// The same, where no call suspends itself.
    fn close_at_once(&self, closing: Closing) {
        self.note_end(closing);
        for index in 0..self.each.len() {
            let Some((seat, filter, visit)) = self.last_visit(index) else { continue };
            match seat.visit_at_once(filter, &self.each[index].trail, visit) {
                Some(Called::Done(visited)) => self.after_last_visit(index, visited),
                // Nobody is there to hear of it.
                Some(Called::Waits(_)) | None => {}
            }
        }
    }

    /// The last call to a filter, where it has the exchange open.
    fn last_visit(&self, index: usize) -> Option<(&Seat, &Arc<Filter>, Visit<'_>)> {
        let (link, step) = (&self.chain.links[index], &self.each[index]);
        let (Some(seat), Ok(filter)) = (&step.seat, &link.filter) else { return None };
        if !seat.is_open(&step.trail) {
            seat.forget(&step.trail);
            return None;
        }
        Some((seat, filter, Visit { callback: Callback::Close, known: &self.known, shown: None, undoable: false }))
    }

    /// What came of it.
    fn after_last_visit(&self, index: usize, visited: Visited) {
        let step = &self.each[index];
        match visited {
            // The exchange ended while its first call was under way.
            Ok(_) if step.fate.get() == Fate::Waiting => step.fate.set(Fate::Continued),
            Ok(_) => {}
            Err(error) => self.failed_at_end(index, error),
        }
    }

    /// What the record says of each filter.
    fn facts(&self) -> Vec<FilterFacts<'static>> {
        let mut facts = Vec::with_capacity(self.each.len());
        for (link, step) in self.chain.links.iter().zip(&self.each) {
            let reached = match step.fate.get() {
                Fate::Elsewhere => false,
                Fate::Waiting => link.required,
                _ => true,
            };
            if !reached {
                continue;
            }
            let events = std::mem::take(&mut step.trail.borrow_mut().events);
            let silent = link.required && events.is_empty();
            if silent && let Ok(filter) = &link.filter {
                filter.shared.metrics.silent.add(1);
            }
            facts.push(FilterFacts {
                plugin: link.plugin.clone(),
                outcome: Cow::Borrowed(step.fate.get().as_str()),
                time_us: u64::try_from(step.time.get().as_micros()).unwrap_or(u64::MAX),
                error: step.error.borrow().as_ref().map(|error| Cow::Owned(error.to_string())),
                silent,
                events,
            });
        }
        facts
    }
}

impl fmt::Debug for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Steps").field("chain", &self.chain).finish_non_exhaustive()
    }
}

/// What the caller is told: which filter, and not what of it.
fn refused(link: &Link) -> Fault {
    Fault::new(Reason::FilterFailed, format!("the filter {} failed; the exchange's record says how", link.plugin))
}
