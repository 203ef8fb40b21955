//! The exchange's side of a VM: shows it what comes, waits where the guest has stopped it, and says what is to become of
//! what was shown.

mod tunnel;

pub(in crate::filter) use tunnel::{Fallen, Passed, Standing};

use super::{
    abi::{BodyAction, HeadAction, TrailersAction},
    place::Place,
    state::Context,
    stream::{Message, Stream, Wait},
    vm::Machine,
};
use crate::filter::{
    bindings::tidegate::filter::types::{BodyFlow, Flow, TrailerFlow},
    instance::{Answer, Callback, Open, Trail, Visit},
    lent::Shown,
    message::Kind,
    passage::join,
    share::NoRoom,
    slot::Visited,
};
use std::{cell::RefCell, rc::Rc, sync::Arc};
use tokio::sync::Notify;
use wasmtime::Result;

/// What a module wants to see of a direction after its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wants {
    Nothing,
    Trailers,
    Pieces,
}

/// What came of a callback.
enum Turn {
    /// Something is to become of what was shown.
    Settled,
    /// It stays with the VM, and the exchange waits.
    Waits(Rc<Notify>),
    /// It stays with the VM, and more of it may come.
    Holds,
    /// It cannot stay with the VM: too much is held already.
    NoRoom,
}

/// What comes of a visit that is made without a wait.
pub(in crate::filter) enum Called {
    /// It is over.
    Done(Visited),
    /// The guest has stopped what it is about, and this is rung when it goes on: `wait` is next.
    Waits(Rc<Notify>),
}

/// Where in a VM an exchange is: the machine's number, and the context's.
type At = (u64, u32);

impl Place {
    /// Makes one callback, and waits for as long as the guest has stopped what it is about.
    pub(in crate::filter) async fn visit(&self, trail: &RefCell<Trail>, visit: Visit<'_>) -> Visited {
        let Visit { callback, known, mut shown, undoable } = visit;
        let lent = Visit { callback, known, shown: shown.as_deref_mut(), undoable };
        match (self.visit_at_once(trail, lent), shown) {
            (Called::Done(visited), _) => visited,
            (Called::Waits(bell), Some(shown)) => Box::pin(self.wait(trail, (callback, &bell), shown)).await,
            (Called::Waits(_), None) => Ok(Answer::Closed),
        }
    }

    /// Makes one callback.
    pub(in crate::filter) fn visit_at_once(&self, trail: &RefCell<Trail>, visit: Visit<'_>) -> Called {
        let Visit { callback, known, shown, undoable } = visit;
        let open = trail.borrow().open.map(Open::context);
        let at = match (open, callback) {
            (Some(at), Callback::Close) => return Called::Done(self.close(trail, at)),
            (Some(at), _) => at,
            (None, Callback::Open { .. }) => match self.open(trail, known) {
                Ok(at) => at,
                Err(reason) => return Called::Done(Err(reason)),
            },
            (None, _) => return Called::Done(Err(Arc::from("it was called for an exchange that it does not have open"))),
        };
        match shown {
            Some(shown) => self.call(trail, at, (callback, undoable), shown),
            None => Called::Done(Ok(Answer::Closed)),
        }
    }

    /// What is left of what was shown is in its place.
    fn call(&self, trail: &RefCell<Trail>, at: At, (callback, undoable): (Callback, bool), shown: &mut Shown) -> Called {
        let turn = self.vm.enter(at, |machine| {
            let Some(stream) = machine.store.data_mut().stream_of(at.1) else {
                wasmtime::bail!("its context is not there any more")
            };
            stream.undoable = undoable;
            stream.phase = callback.phase();
            stream.message_mut(kind(callback)).lend(shown);
            machine.call(at.1, callback, self.setup.stops_head_only)
        });
        Called::Done(match turn {
            Ok(Turn::Settled) => self.settled(trail, at, callback, shown),
            Ok(Turn::Holds) => Ok(held(callback)),
            Ok(Turn::NoRoom) => Ok(Answer::NoRoom),
            Ok(Turn::Waits(bell)) => return Called::Waits(bell),
            Err(reason) => self.failed(trail, at, (callback, reason), shown),
        })
    }

    /// Waits until something is to become of what was stopped.
    pub(in crate::filter) async fn wait(
        &self,
        trail: &RefCell<Trail>,
        (callback, bell): (Callback, &Notify),
        shown: &mut Shown,
    ) -> Visited {
        let Some(at) = self.of(trail) else { return Err(self.lost()) };
        loop {
            // Made before the look, so that no ring between the two is missed.
            let rung = bell.notified();
            match self.vm.look(at, |stream| is_over(stream, kind(callback))) {
                Some(false) => rung.await,
                Some(true) => return self.settled(trail, at, callback, shown),
                None => return self.failed(trail, at, (callback, self.lost()), shown),
            }
        }
    }

    /// How many bytes of a body the VM holds between two pieces, where there is a limit on them.
    pub(in crate::filter) fn held_bytes(&self, trail: &RefCell<Trail>, kind: Kind) -> usize {
        let held = |stream: &mut Stream| match stream.message(kind) {
            Message { wait: Wait::Held, body, .. } => body.len(),
            _ => 0,
        };
        self.of(trail).and_then(|at| self.vm.look(at, held)).unwrap_or_default()
    }

    /// The bell that is rung when the VM lets something go that it holds between two pieces; none where it holds nothing.
    pub(in crate::filter) fn held(&self, trail: &RefCell<Trail>, kind: Kind) -> Option<Rc<Notify>> {
        let at = self.of(trail)?;
        self.vm.look(at, |stream| stream.message(kind).is_held().then(|| stream.bell())).flatten()
    }

    /// Whether the VM has let go of what it holds, or is lost with it, be it by a callback about the other message.
    pub(in crate::filter) fn lets_go(&self, trail: &RefCell<Trail>, kind: Kind) -> bool {
        let Some(at) = self.of(trail) else { return false };
        let over = self.vm.look(at, |stream| stream.message(kind).is_held() && is_over(stream, kind));
        over.unwrap_or_else(|| self.vm.lost(at, |stream| stream.is_some_and(|stream| stream.message(kind).is_held())))
    }

    /// Takes what the VM has let go of, as if it had been shown just now.
    pub(in crate::filter) fn let_go(&self, trail: &RefCell<Trail>, kind: Kind, shown: &mut Box<Shown>) -> Visited {
        let callback = match kind {
            Kind::Request => Callback::RequestBody { end: false },
            Kind::Response => Callback::ResponseBody { end: false },
        };
        match self.of(trail) {
            Some(at) if self.vm.number() == Some(at.0) => self.settled(trail, at, callback, shown),
            Some(at) => self.failed(trail, at, (callback, self.lost()), shown),
            None => Err(self.lost()),
        }
    }

    fn of(&self, trail: &RefCell<Trail>) -> Option<At> {
        let trail = trail.borrow();
        trail.open.or(trail.lost).map(Open::context)
    }

    /// Drops what a lost VM has of an exchange that is over.
    pub(in crate::filter) fn forget(&self, trail: &RefCell<Trail>) {
        let Some(at) = trail.borrow_mut().lost.take() else { return };
        self.drop_lost(at.context());
    }

    fn drop_lost(&self, at: At) {
        self.vm.lost(at, |stream| {
            if let Some(stream) = stream {
                drop((stream.request.take(), stream.response.take()));
            }
        });
    }

    fn lost(&self) -> Arc<str> {
        format!("its VM was lost in another exchange: {}", self.vm.reason()).into()
    }

    /// Makes the exchange's context. Its guest hears of it with the first callback.
    fn open(&self, trail: &RefCell<Trail>, known: &Arc<crate::filter::attributes::Known>) -> std::result::Result<At, Arc<str>> {
        let (number, root) = self.root()?;
        let context = self.vm.enter((number, root), |machine| {
            let state = machine.store.data_mut();
            let Some(context) = state.contexts.insert(Context::Stream(Box::new(Stream::new(root, known)))) else {
                return Ok(None);
            };
            if let Some(outside) = &state.outside {
                outside.worker.policy.seen(known.shared_snapshot());
            }
            state.current = context;
            if let Some(create) = &machine.guest.context_create {
                create.call(&mut machine.store, (context, root))?;
            }
            Ok(Some(context))
        })?;
        let context = context.ok_or("it has as many contexts as it may (setting filter_exchanges)")?;
        trail.borrow_mut().open = Some(Open { number, exchange: context });
        Ok((number, context))
    }

    /// The last callbacks about an exchange.
    fn close(&self, trail: &RefCell<Trail>, at: At) -> Visited {
        trail.borrow_mut().open = None;
        let ended = self.vm.enter(at, |machine| {
            if let Some(stream) = machine.store.data_mut().stream_of(at.1) {
                stream.phase = Callback::Close.phase();
            }
            machine.hang_up(at.1)?;
            machine.end_stream(at.1)
        });
        // Whatever a lost machine had of it, nobody waits for any more.
        self.drop_lost(at);
        trail.borrow_mut().events.append(&mut ended?);
        Ok(Answer::Closed)
    }

    /// What is to become of what was shown.
    fn settled(&self, trail: &RefCell<Trail>, at: At, callback: Callback, shown: &mut Shown) -> Visited {
        let kind = kind(callback);
        let settled = self.vm.look(at, |stream| {
            trail.borrow_mut().events.append(&mut stream.events);
            shown.reply = stream.reply.take().map(Box::new);
            stream.message_mut(kind).give_back(shown);
            if shown.reply.is_some() {
                answer(callback, Flow::Reply, BodyFlow::Reply, TrailerFlow::Reply)
            } else if stream.closes {
                answer(callback, Flow::Reset, BodyFlow::Reset, TrailerFlow::Reset)
            } else {
                answer(callback, self.flow(kind), BodyFlow::Forward, TrailerFlow::Forward)
            }
        });
        match settled {
            Some(answer) => Ok(answer),
            None => self.failed(trail, at, (callback, self.lost()), shown),
        }
    }

    /// What of the rest of a message is to be shown.
    fn flow(&self, kind: Kind) -> Flow {
        let wants = self.ready().map_or(Wants::Nothing, |ready| match kind {
            Kind::Request => ready.request,
            Kind::Response => ready.response,
        });
        match wants {
            Wants::Nothing => Flow::Proceed,
            Wants::Trailers => Flow::Trailers,
            Wants::Pieces => Flow::Stream,
        }
    }

    /// The machine is lost. What it had of the message comes back, as it was before where the exchange is to go on; what it had of
    /// the other one is let go of from where it was.
    fn failed(&self, trail: &RefCell<Trail>, at: At, (callback, reason): (Callback, Arc<str>), shown: &mut Shown) -> Visited {
        {
            let mut trail = trail.borrow_mut();
            trail.lost = trail.open.take().or(trail.lost);
        }
        let fetched = self.vm.lost(at, |stream| {
            let stream = stream?;
            let undoable = stream.undoable;
            trail.borrow_mut().events.append(&mut stream.events);
            let message = stream.message_mut(kind(callback));
            Some(if undoable { message.undo() } else { message.take() })
        });
        if let Some(Shown { head, trailers, body, line, .. }) = fetched {
            // What the machine was not lent any more is here still, behind what it had.
            let behind = shown.body.take().unwrap_or_default();
            shown.body = Some(join(body.unwrap_or_default(), behind));
            if head.is_some() {
                (shown.head, shown.line) = (head, line);
            }
            shown.trailers = trailers.or(shown.trailers.take());
        }
        Err(reason)
    }
}

fn kind(callback: Callback) -> Kind {
    match callback {
        Callback::Open { .. } | Callback::RequestBody { .. } | Callback::RequestTrailers | Callback::Close => Kind::Request,
        Callback::ResponseHeaders { .. } | Callback::ResponseBody { .. } | Callback::ResponseTrailers => Kind::Response,
    }
}

/// Whether the exchange has to wait no longer.
fn is_over(stream: &Stream, kind: Kind) -> bool {
    stream.reply.is_some() || stream.closes || stream.message(kind).resumed
}

fn answer(callback: Callback, head: Flow, body: BodyFlow, trailers: TrailerFlow) -> Answer {
    match callback {
        Callback::Open { .. } | Callback::ResponseHeaders { .. } => Answer::Head(head),
        Callback::RequestBody { .. } | Callback::ResponseBody { .. } => Answer::Body(body),
        Callback::RequestTrailers | Callback::ResponseTrailers => Answer::Trailers(trailers),
        Callback::Close => Answer::Closed,
    }
}

fn held(callback: Callback) -> Answer {
    answer(callback, Flow::Hold, BodyFlow::Hold, TrailerFlow::Forward)
}

impl Machine {
    /// Calls the guest about what was lent, and takes its answer.
    fn call(&mut self, context: u32, callback: Callback, stops_head_only: bool) -> Result<Turn> {
        let kind = kind(callback);
        let Some(stream) = self.store.data_mut().stream_of(context) else { return Ok(Turn::Settled) };
        // An answer that was given while nothing of the exchange was here.
        if stream.reply.is_some() || stream.closes {
            return Ok(Turn::Settled);
        }
        match callback {
            Callback::Open { end } | Callback::ResponseHeaders { end, .. } => {
                let action = self.head(context, kind, end)?;
                Ok(self.after_head(context, kind, action, (end, stops_head_only)))
            }
            Callback::RequestBody { end } | Callback::ResponseBody { end } => {
                let action = self.body(context, kind, end)?;
                Ok(self.after_body(context, kind, action, end))
            }
            Callback::RequestTrailers | Callback::ResponseTrailers => {
                let action = self.trailers(context, kind)?;
                Ok(self.stops(context, kind, action == TrailersAction::Stop, Wait::Everything))
            }
            Callback::Close => Ok(Turn::Settled),
        }
    }

    fn head(&mut self, context: u32, kind: Kind, end: bool) -> Result<HeadAction> {
        let state = self.store.data_mut();
        let fields = state.stream_of(context).and_then(|stream| stream.head(kind)).map_or(0, |view| view.count());
        let Self { store, guest, .. } = self;
        match &guest.direction(kind).headers {
            Some(callback) => Ok(callback.call(store, context, fields, end)?.into()),
            None => Ok(HeadAction::Continue),
        }
    }

    fn after_head(&mut self, context: u32, kind: Kind, action: HeadAction, (end, stops_head_only): (bool, bool)) -> Turn {
        match action {
            HeadAction::Continue => Turn::Settled,
            HeadAction::Stop if stops_head_only && !end => self.stops(context, kind, true, Wait::Held),
            HeadAction::Stop | HeadAction::StopAll => self.stops(context, kind, true, Wait::Everything),
        }
    }

    fn body(&mut self, context: u32, kind: Kind, end: bool) -> Result<BodyAction> {
        let Self { store, guest, .. } = self;
        let size = store.data_mut().stream_of(context).map_or(0, |stream| stream.message(kind).body.len());
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        match &guest.direction(kind).body {
            Some(callback) => Ok(callback.call(store, (context, size, end.into()))?.into()),
            None => Ok(BodyAction::Continue),
        }
    }

    fn after_body(&mut self, context: u32, kind: Kind, action: BodyAction, end: bool) -> Turn {
        let most = self.store.data().limits.body_bytes;
        let Some(stream) = self.store.data_mut().stream_of(context) else { return Turn::Settled };
        let message = stream.message_mut(kind);
        let wait = match action {
            BodyAction::Continue => return Turn::Settled,
            BodyAction::StopWithoutBuffer => {
                message.body.clear();
                Wait::Held
            }
            BodyAction::StopAndBuffer => Wait::Held,
            // No more is read than may be held.
            BodyAction::StopAndWatermark if message.body.len() >= most => Wait::Everything,
            BodyAction::StopAndWatermark => Wait::HeldToWatermark,
        };
        self.stops(context, kind, true, if end { Wait::Everything } else { wait })
    }

    fn trailers(&mut self, context: u32, kind: Kind) -> Result<TrailersAction> {
        let Self { store, guest, .. } = self;
        let view = store.data_mut().stream_of(context).and_then(|stream| stream.trailers(kind).map(|view| view.count()));
        match &guest.direction(kind).trailers {
            Some(callback) => Ok(callback.call(store, (context, view.unwrap_or_default()))?.into()),
            None => Ok(TrailersAction::Continue),
        }
    }

    /// What comes of a guest that stops, unless it has gone on or answered in the same callback.
    fn stops(&mut self, context: u32, kind: Kind, stops: bool, wait: Wait) -> Turn {
        let Some(stream) = self.store.data_mut().stream_of(context) else { return Turn::Settled };
        if !stops || is_over(stream, kind) {
            return Turn::Settled;
        }
        stream.message_mut(kind).wait = wait;
        let turn = match wait {
            Wait::Nothing => Turn::Settled,
            Wait::Everything => Turn::Waits(stream.bell()),
            Wait::Held | Wait::HeldToWatermark => Turn::Holds,
        };
        match self.store.data_mut().hold(context, kind) {
            Ok(()) => turn,
            Err(NoRoom) => Turn::NoRoom,
        }
    }
}
