//! Calls into the test driver: a small host on the test's own thread.
//!
//! The driver puts its [`World`] in place for the length of a callback; outside of callbacks there is an empty one.

mod gateway;
mod message;
mod upstream;

pub(crate) use gateway::*;
pub(crate) use message::*;
pub(crate) use upstream::*;

use crate::{attributes::Value, audit::Outcome, log::Level, outbound::Call, testing::Chosen};
use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

thread_local! {
    pub(crate) static WORLD: RefCell<World> = RefCell::default();
}

/// An event as it was emitted: kind, outcome, fields.
pub(crate) type Emitted = (String, Outcome, Vec<(String, Value)>);

/// What the calls of one exchange read and leave behind.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) gateway: Rc<Gateway>,
    pub(crate) attributes: BTreeMap<String, Value>,
    pub(crate) events: Vec<Emitted>,
    pub(crate) log: Vec<(Level, String)>,
    pub(crate) here: Here,
    pub(crate) rewritten: Option<(String, String)>,
    pub(crate) status: Option<u16>,
    pub(crate) chosen: Chosen,
    pub(crate) calls: Vec<Call>,
}

/// What of the message at hand is here. While it is the request's head, the filter may choose the way, too.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Here {
    /// A request is at hand, and its head.
    pub(crate) request_line: bool,
    /// A response is at hand, and its head.
    pub(crate) response_line: bool,
}

/// A world in its place; back where it came from on drop.
pub(crate) struct Entered<'a>(&'a mut World);

impl World {
    pub(crate) fn of(gateway: &Rc<Gateway>) -> Self {
        Self { gateway: Rc::clone(gateway), ..Self::default() }
    }

    pub(crate) fn enter(&mut self) -> Entered<'_> {
        WORLD.with_borrow_mut(|world| std::mem::swap(world, self));
        Entered(self)
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        WORLD.with_borrow_mut(|world| std::mem::swap(world, self.0));
    }
}

/// The driver's gateway, which outlives exchanges. Cloned out, so that no call holds the world while it works.
fn gateway() -> Rc<Gateway> {
    WORLD.with_borrow(|world| Rc::clone(&world.gateway))
}
