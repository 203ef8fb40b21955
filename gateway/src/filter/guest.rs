//! A filter's exports, in either form that it may have been compiled to. What is handed to them is numbers alone, so that the
//! two only differ in how they are called.

use super::{
    component,
    core::guest as core,
    instance::{Answer, Callback},
    lent::{Lent, Part},
    slot::at_once,
    state::State,
};
use std::pin::pin;
use wasmtime::{InstancePre, Result, Store};

/// What a filter exports.
pub(super) const HANDLER: &str = "tidegate:filter/handler@0.1.0";

/// Whether an instance's calls may suspend. That is a property of its store, which wasmtime enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Calls {
    Plain,
    Suspending,
}

/// A filter that can be started.
pub(super) enum Ready {
    Core(InstancePre<State>),
    Component(component::guest::Ready),
}

/// An instance's exports.
pub(super) enum Guest {
    Core(Box<core::Guest>),
    Component(Box<component::guest::Guest>),
}

/// What a callback hands over. Handles are there for all that could be lent; the callback says which of them are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Handed {
    pub(super) exchange: u32,
    pub(super) id: u64,
    pub(super) head: u32,
    /// The head's, where it is here still.
    pub(super) held: Option<u32>,
    pub(super) body: u32,
    pub(super) trailers: u32,
}

impl Ready {
    /// Whether calls of its instances may suspend.
    pub(super) fn calls(&self) -> Calls {
        match self {
            // The one interface whose functions suspend is for components only.
            Self::Core(_) => Calls::Plain,
            Self::Component(ready) => ready.calls,
        }
    }

    /// Starts an instance and has it read its configuration; the inner error is what it says against that.
    pub(super) async fn start(&self, store: &mut Store<State>) -> Result<(Guest, std::result::Result<(), String>)> {
        match self {
            Self::Core(ready) => {
                core::start(store, ready).map(|(guest, configured)| (Guest::Core(Box::new(guest)), configured))
            }
            Self::Component(ready) => {
                let (guest, configured) = Box::pin(component::guest::start(store, ready)).await?;
                Ok((Guest::Component(Box::new(guest)), configured))
            }
        }
    }
}

impl Guest {
    /// Makes one callback.
    pub(super) async fn call(&self, store: &mut Store<State>, with: &Handed, callback: Callback) -> Result<Answer> {
        match self {
            Self::Core(guest) => guest.call(store, with, callback),
            // The future is large, and would be part of that of every callback.
            Self::Component(guest) => Box::pin(guest.call(store, with, callback)).await,
        }
    }

    /// The same, of an instance whose calls never suspend.
    pub(super) fn call_at_once(&self, store: &mut Store<State>, with: &Handed, callback: Callback) -> Result<Answer> {
        match self {
            Self::Core(guest) => guest.call(store, with, callback),
            Self::Component(guest) => at_once(pin!(guest.call(store, with, callback))),
        }
    }
}

impl Handed {
    pub(super) fn of(lent: &Lent, exchange: u32, id: u64) -> Self {
        let head = lent.handle(Part::Head);
        Self {
            exchange,
            id,
            head,
            held: lent.shown.head.is_some().then_some(head),
            body: lent.handle(Part::Body),
            trailers: lent.handle(Part::Trailers),
        }
    }
}
