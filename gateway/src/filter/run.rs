//! One exchange's way through its route's chain: what its filters have been shown, what became of each, and what their
//! failures mean for the exchange.

mod answer;
mod conduit;
mod failure;
mod overdue;

pub use conduit::{Conduit, Way};

use self::overdue::UnderWay;

use super::{
    Closing, Facts,
    attributes::Known,
    bindings::tidegate::filter::types::LocalReply,
    chain::{Chain, Filter, Link},
    filtered::Filtered,
    instance::{Answer, Callback, Trail, Visit},
    lent::Shown,
    message::{Kind, Line},
    passage::{Halt, Passage},
    proxy_wasm::Place,
    reply,
    share::{NoRoom, Share},
    slot::{Seat, Slot, at_once},
};
use crate::{
    fault::Fault,
    http::{Request, Response, body::Body, reply::Dialect},
    upstream::{self, Wish},
};
use ::http::{request, response};
use http_body::Body as _;
use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    fmt,
    future::poll_fn,
    pin::pin,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};
use tidegate_policy::{
    Reason,
    exchange::FilterFacts,
    route::{OnError, Traffic},
};

/// One exchange on its way through a route's chain. Its record closes it.
#[derive(Debug, Clone)]
pub struct Run(Rc<Steps>);

/// What the chain makes of a message.
#[derive(Debug)]
pub enum Outcome<M> {
    /// It goes on, perhaps changed.
    Continue(M),
    /// This response is sent in its place. The reason is `FilterDenied` for status 400 and above.
    Reply(Response),
}

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
    reply: RefCell<Option<Response>>,
    /// Whether a filter has answered the request: what goes back is that, and not the upstream's response.
    answered: Cell<bool>,
    /// What filters chose for the way out.
    wish: RefCell<Option<Box<Wish>>>,
    /// When the last callback of a row of them ended.
    lap: Cell<Instant>,
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
        let (known, dialect) = (Arc::new(Known::new(facts)), facts.dialect);
        let (reply, answered) = (RefCell::default(), Cell::new(false));
        let (wish, lap) = (RefCell::default(), Cell::new(Instant::now()));
        let (chain, suspends_at_end, suspends) = (Arc::clone(chain), suspends, suspends || holds);
        let steps = Steps { chain, known, dialect, each, suspends, suspends_at_end, holds, reply, answered, wish, lap };
        Ok(Self(Rc::new(steps)))
    }

    /// Shows the request to every filter in order: its head now, and its body as it is read, unless filters hold the head
    /// until they have seen of the body what they want to.
    pub async fn request(&self, mut head: request::Parts, body: Body) -> Result<Outcome<Request>, Fault> {
        self.0.known.requested(&head);
        let passage = Passage::new(&self.0, Kind::Request, std::mem::take(&mut head.headers));
        let ended = body.is_end_stream();
        let (line, headers, body) = match self.pass(passage, body, ended).await? {
            Outcome::Continue(passed) => passed,
            Outcome::Reply(reply) => return Box::pin(self.answer(reply)).await.map(Outcome::Reply),
        };
        head.headers = headers;
        self.0.wish.replace(line.wish);
        if let Some((method, path)) = line.rewritten {
            head.method = method;
            let mut uri = std::mem::take(&mut head.uri).into_parts();
            uri.path_and_query = Some(path);
            head.uri = ::http::Uri::from_parts(uri).map_err(|error| Fault::new(Reason::FilterFailed, error.to_string()))?;
        }
        Ok(Outcome::Continue(Request::from_parts(head, body)))
    }

    /// Shows the response to every filter in reverse order, as `request` does.
    pub async fn response(&self, mut head: response::Parts, body: Body) -> Result<Outcome<Response>, Fault> {
        self.0.known.responded(head.status);
        let mut passage = Passage::new(&self.0, Kind::Response, std::mem::take(&mut head.headers));
        passage.status = head.status.as_u16();
        passage.may_have_body = !self.0.known.asked_for_head() && !matches!(head.status.as_u16(), 100..=199 | 204 | 205 | 304);
        // What follows a switch of protocols is no body.
        let ended = body.is_end_stream() || head.status == ::http::StatusCode::SWITCHING_PROTOCOLS;
        let (line, headers, body) = match self.pass(passage, body, ended).await? {
            Outcome::Continue(passed) => passed,
            Outcome::Reply(reply) => return Ok(Outcome::Reply(reply)),
        };
        head.headers = headers;
        head.status = line.status.unwrap_or(head.status);
        Ok(Outcome::Continue(Response::from_parts(head, body)))
    }

    /// What the filters chose for the way out, once the request has passed them.
    pub fn wish(&self) -> Option<Box<Wish>> {
        self.0.wish.take()
    }

    /// Notes the connection that the response came by.
    pub fn connected(&self, facts: &upstream::Facts, service: Option<&str>, first_byte: Duration) {
        self.0.known.connected(facts, service, first_byte);
    }

    /// The answer, for `answer`, that a filter gave after the request's head had gone on; the request's body has failed by it.
    pub fn late_reply(&self) -> Option<Response> {
        self.0.reply.take()
    }

    /// Whether the last calls to its filters may suspend.
    pub fn suspends_at_end(&self) -> bool {
        self.0.suspends_at_end
    }

    /// Ends the filters' part, and says for the record what each did. Ready at once unless calls may suspend.
    pub async fn close(self, closing: Closing) -> Vec<FilterFacts<'static>> {
        self.0.known.closes(closing);
        self.0.close().await;
        self.0.facts()
    }

    async fn pass(
        &self,
        mut passage: Passage,
        mut body: Body,
        ended: bool,
    ) -> Result<Outcome<(Line, ::http::HeaderMap, Body)>, Fault> {
        let begun = match self.0.suspends {
            true => beside_upload(passage.begin(ended), &mut body).await,
            false => at_once(pin!(passage.begin(ended))),
        };
        let body = match begun {
            Ok(()) if passage.follows() => {
                let mut filtered = Box::new(Filtered::new(passage, body));
                if let Err(halt) = filtered.until_head_is_out().await {
                    return self.halted(halt);
                }
                let (line, headers) = filtered.head()?;
                return Ok(Outcome::Continue((line, headers, Body::filtered(filtered))));
            }
            Ok(()) => body,
            Err(halt) => return self.halted(halt),
        };
        let (line, headers) = passage.head()?;
        Ok(Outcome::Continue((line, headers, body)))
    }

    fn halted<M>(&self, halt: Halt) -> Result<Outcome<M>, Fault> {
        match halt {
            Halt::Reply(response) => Ok(Outcome::Reply(*response)),
            Halt::Fault(fault) => Err(fault),
        }
    }
}

/// Runs work that may suspend, and goes on with the upload that a response came before the end of: a filter that has
/// suspended itself in the one direction may be what the other waits for.
async fn beside_upload<T>(work: impl Future<Output = T>, body: &mut Body) -> T {
    let mut work = pin!(work);
    poll_fn(|cx| {
        let polled = work.as_mut().poll(cx);
        if polled.is_pending() {
            body.poll_upload(cx);
        }
        polled
    })
    .await
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
    pub(super) fn keep_reply(&self, response: Response) {
        self.reply.replace(Some(response));
    }

    /// Makes one callback. None where the filter failed and is left out from now on.
    pub(super) async fn show(&self, index: usize, callback: Callback, shown: &mut Box<Shown>) -> Result<Option<Answer>, Halt> {
        let (link, step) = (&self.chain.links[index], &self.each[index]);
        // It may have been left out in the other direction meanwhile; its instance is not to be asked about it again.
        let (Some(seat), Ok(filter), true) = (&step.seat, &link.filter, self.takes_part(index)) else {
            return Ok(None);
        };
        let visit = Visit { callback, known: &self.known, shown: Some(shown), undoable: link.on_error == OnError::Skip };
        let under_way = UnderWay::begin(&step.calls);
        let answer = seat.visit(filter, &step.trail, visit).await;
        drop(under_way);
        self.visited(index, answer)
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

    /// Something was to be held for the filter, and as much is held for all as may be.
    pub(super) fn no_room(&self, index: usize) -> Halt {
        let link = &self.chain.links[index];
        let limit = link.filter.as_ref().map_or(0, |filter| filter.shared.limits.held_bytes);
        let detail = format!(
            "more was to be held for the filter {} than is left of the {limit} bytes that are held for all exchanges together (setting filter_held_bytes)",
            link.plugin
        );
        Halt::Fault(Fault::new(Reason::Overloaded, detail))
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

    /// The last call to every filter that has the exchange open. A failure in it is recorded; there is nothing left to
    /// refuse. Its time is not the exchange's, which has ended.
    async fn close(&self) {
        for (index, (link, step)) in self.chain.links.iter().zip(&self.each).enumerate() {
            let (Some(seat), Ok(filter)) = (&step.seat, &link.filter) else { continue };
            if !seat.is_open(&step.trail) {
                seat.forget(&step.trail);
                continue;
            }
            let visit = Visit { callback: Callback::Close, known: &self.known, shown: None, undoable: false };
            match seat.visit(filter, &step.trail, visit).await {
                // The exchange ended while its first call was under way.
                Ok(_) if step.fate.get() == Fate::Waiting => step.fate.set(Fate::Continued),
                Ok(_) => {}
                Err(error) => self.failed_at_end(index, error),
            }
        }
    }

    /// What the record says of each filter.
    fn facts(&self) -> Vec<FilterFacts<'static>> {
        let reached = |(link, step): &(&Link, &Step)| match step.fate.get() {
            Fate::Elsewhere => false,
            Fate::Waiting => link.required,
            _ => true,
        };
        let facts = self.chain.links.iter().zip(&self.each).filter(reached).map(|(link, step)| {
            let events = std::mem::take(&mut step.trail.borrow_mut().events);
            let silent = link.required && events.is_empty();
            if silent && let Ok(filter) = &link.filter {
                filter.shared.metrics.silent.add(1);
            }
            FilterFacts {
                plugin: Cow::Owned(link.plugin.as_str().to_owned()),
                outcome: Cow::Borrowed(step.fate.get().as_str()),
                time_us: u64::try_from(step.time.get().as_micros()).unwrap_or(u64::MAX),
                error: step.error.borrow().as_ref().map(|error| Cow::Owned(error.to_string())),
                silent,
                events,
            }
        });
        facts.collect()
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
