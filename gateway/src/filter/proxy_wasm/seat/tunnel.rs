//! A tunnel's side of a VM: shows it the bytes of each direction, and says whether they may go on.

use crate::filter::{
    attributes::Known,
    instance::{Callback, Trail},
    lent::Shown,
    message::Kind,
    passage::join,
    proxy_wasm::{
        abi::EndedBy,
        place::Place,
        stream::{Stream, Wait},
        vm::{Entered, Machine},
    },
    share::NoRoom,
};
use bytes::Bytes;
use std::{cell::RefCell, sync::Arc, task::Waker};
use wasmtime::Result;

/// How a filter stands towards one direction of a tunnel.
pub(in crate::filter) enum Standing {
    /// Bytes may be shown to it, beside as many that it holds.
    Open { held: usize },
    /// It has stopped the connection as it began: nothing passes it.
    Stopped,
    /// This, which it held, may go on.
    LetsGo(Bytes),
    /// It ends the tunnel.
    Closes,
    /// Its VM is lost.
    Lost,
}

/// What becomes of bytes that were shown.
pub(in crate::filter) enum Passed {
    On(Bytes),
    /// The filter holds them.
    Held,
    /// It was to hold them, and too much is held already.
    NoRoom,
}

/// What is left of a filter that failed: why, and what it had of both directions.
pub(in crate::filter) struct Fallen {
    pub(in crate::filter) reason: Arc<str>,
    pub(in crate::filter) request: Bytes,
    pub(in crate::filter) response: Bytes,
}

impl Place {
    /// Makes the tunnel's context, and tells the guest that it begins.
    pub(in crate::filter) fn connected(&self, trail: &RefCell<Trail>, known: &Arc<Known>) -> Entered<()> {
        let at = self.open(trail, known)?;
        let begun = self.vm.enter(at, |machine| {
            let Machine { store, guest, .. } = machine;
            let stops = match &guest.connection.new {
                Some(callback) => callback.call(&mut *store, at.1)? != 0,
                None => false,
            };
            if let Some(stream) = store.data_mut().stream_of(at.1) {
                let resumed = std::mem::take(&mut stream.request.resumed);
                stream.request.wait = if stops && !resumed { Wait::Everything } else { Wait::Nothing };
            }
            Ok(())
        });
        begun.map_err(|reason| self.fallen(trail, (Kind::Request, Bytes::new()), Some(reason)).reason)
    }

    /// Has `waker` woken when the guest does something about the tunnel outside of callbacks about it; whether the guest
    /// ends it now.
    pub(in crate::filter) fn watch(&self, trail: &RefCell<Trail>, waker: &Waker) -> bool {
        let watched = |stream: &mut Stream| {
            stream.wake(waker);
            closes(stream)
        };
        self.of(trail).and_then(|at| self.vm.look(at, watched)).unwrap_or_default()
    }

    /// Whether nothing passes the guest in either direction.
    pub(in crate::filter) fn stops(&self, trail: &RefCell<Trail>) -> bool {
        self.of(trail).and_then(|at| self.vm.look(at, |stream| stops(stream) || closes(stream))).unwrap_or_default()
    }

    /// How the guest stands towards one direction.
    pub(in crate::filter) fn standing(&self, trail: &RefCell<Trail>, kind: Kind) -> Standing {
        let stands = |stream: &mut Stream| {
            if closes(stream) {
                return Standing::Closes;
            }
            if stops(stream) {
                return Standing::Stopped;
            }
            let message = stream.message_mut(kind);
            match message.is_held() {
                true if message.resumed => Standing::LetsGo(message.take().body.unwrap_or_default()),
                true => Standing::Open { held: message.body.len() },
                false => Standing::Open { held: 0 },
            }
        };
        self.of(trail).and_then(|at| self.vm.look(at, stands)).unwrap_or(Standing::Lost)
    }

    /// Shows bytes of one direction, behind what is held of it; what becomes of all that.
    pub(in crate::filter) fn pass(
        &self,
        trail: &RefCell<Trail>,
        kind: Kind,
        (bytes, end): (Bytes, bool),
        undoable: bool,
    ) -> std::result::Result<Passed, Fallen> {
        let Some(at) = self.of(trail) else { return Err(self.fallen(trail, (kind, bytes), None)) };
        let mut bytes = Some(bytes);
        let called = self.vm.enter(at, |machine| {
            let Some(stream) = machine.store.data_mut().stream_of(at.1) else {
                wasmtime::bail!("its context is not there any more")
            };
            (stream.undoable, stream.phase) = (undoable, phase_of(kind).phase());
            stream.message_mut(kind).lend(&mut Shown { body: bytes.take(), ..Shown::default() });
            machine.pass(at.1, kind, end)
        });
        called.map_err(|reason| self.fallen(trail, (kind, bytes.unwrap_or_default()), Some(reason)))
    }

    /// Notes that the end that `kind` comes from was ended by whoever is there.
    pub(in crate::filter) fn hung_up(&self, trail: &RefCell<Trail>, kind: Kind) {
        let Some(at) = self.of(trail) else { return };
        self.vm.look(at, |stream| {
            if let Some(ends) = &mut stream.ends {
                match kind {
                    Kind::Request => ends.downstream = EndedBy::Remote,
                    Kind::Response => ends.upstream = EndedBy::Remote,
                }
            }
        });
    }

    /// The guest is lost to the tunnel. What it had of it comes back, as it was before the callback that failed where the
    /// tunnel is to go on, and behind that what it was not shown any more.
    pub(in crate::filter) fn fallen(
        &self,
        trail: &RefCell<Trail>,
        (kind, unseen): (Kind, Bytes),
        reason: Option<Arc<str>>,
    ) -> Fallen {
        let reason = reason.unwrap_or_else(|| self.lost());
        let at = self.of(trail);
        trail.borrow_mut().open = None;
        let had = at.and_then(|at| {
            self.vm.lost(at, |stream| {
                let stream = stream?;
                trail.borrow_mut().events.append(&mut stream.events);
                let undoable = stream.undoable;
                let mut back = |of: Kind| {
                    let message = stream.message_mut(of);
                    let shown = if undoable && of == kind { message.undo() } else { message.take() };
                    shown.body.unwrap_or_default()
                };
                Some((back(Kind::Request), back(Kind::Response)))
            })
        });
        let (mut request, mut response) = had.unwrap_or_default();
        match kind {
            Kind::Request => request = join(request, unseen),
            Kind::Response => response = join(response, unseen),
        }
        Fallen { reason, request, response }
    }
}

impl Machine {
    /// Calls the guest about what was lent, and takes its answer.
    fn pass(&mut self, context: u32, kind: Kind, end: bool) -> Result<Passed> {
        let Self { store, guest, .. } = self;
        let size = store.data_mut().stream_of(context).map_or(0, |stream| stream.message(kind).body.len());
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        let callback = match kind {
            Kind::Request => &guest.connection.downstream_data,
            Kind::Response => &guest.connection.upstream_data,
        };
        let stops = match callback {
            Some(callback) => callback.call(&mut *store, (context, size, end.into()))? != 0,
            None => false,
        };
        if end && kind == Kind::Response {
            self.tell_upstream_is_over(context, EndedBy::Remote)?;
        }
        let Some(stream) = self.store.data_mut().stream_of(context) else { return Ok(Passed::Held) };
        let stays = closes(stream);
        let message = stream.message_mut(kind);
        if stays || (stops && !message.resumed) {
            message.wait = Wait::Held;
            return Ok(match self.store.data_mut().hold(context, kind) {
                Ok(()) => Passed::Held,
                Err(NoRoom) => Passed::NoRoom,
            });
        }
        Ok(Passed::On(message.take().body.unwrap_or_default()))
    }

    /// Tells the guest of the ends of a tunnel, before the last callbacks about it; of requests there is nothing to tell.
    pub(super) fn hang_up(&mut self, context: u32) -> Result<()> {
        let Some(ends) = self.store.data_mut().stream_of(context).and_then(|stream| stream.ends) else { return Ok(()) };
        self.store.data_mut().current = context;
        if let Some(close) = &self.guest.connection.downstream_close {
            close.call(&mut self.store, (context, ends.downstream as u32))?;
        }
        self.tell_upstream_is_over(context, ends.upstream)?;
        self.store.data_mut().current = context;
        Ok(())
    }

    /// Tells the guest that the upstream's end of a tunnel is over, unless it has heard.
    fn tell_upstream_is_over(&mut self, context: u32, by: EndedBy) -> Result<()> {
        let state = self.store.data_mut();
        state.current = context;
        let ends = state.stream_of(context).and_then(|stream| stream.ends.as_mut());
        let told = ends.is_none_or(|ends| std::mem::replace(&mut ends.upstream_told, true));
        match &self.guest.connection.upstream_close {
            Some(close) if !told => close.call(&mut self.store, (context, by as u32)),
            _ => Ok(()),
        }
    }
}

/// Whether the guest ends the tunnel. An answer of HTTP has no place in one, and whoever gives one wants it to end.
fn closes(stream: &Stream) -> bool {
    stream.closes || stream.reply.is_some()
}

/// Whether the guest has stopped the connection as it began, and has not let it go since.
fn stops(stream: &mut Stream) -> bool {
    let message = &mut stream.request;
    if message.wait == Wait::Everything && message.resumed {
        (message.wait, message.resumed) = (Wait::Nothing, false);
    }
    message.wait == Wait::Everything
}

/// The callback of requests that is made at the same point.
fn phase_of(kind: Kind) -> Callback {
    match kind {
        Kind::Request => Callback::RequestBody { end: false },
        Kind::Response => Callback::ResponseBody { end: false },
    }
}
