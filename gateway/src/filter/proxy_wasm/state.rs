//! What a VM's store holds: its contexts, what is at hand in the callback that runs, and where calls of its own go.

use super::{
    abi::{Answer, Status, Version},
    agenda::Agenda,
    callouts::Callouts,
    contexts::Contexts,
    metrics::Metrics as Defined,
    queues::{Commons, Queue},
    setup::{Key, Setup},
    stream::Stream,
};
use crate::filter::{
    engine::Shared,
    holdings::Holding,
    limits::{Limits, Metrics},
    message::Kind,
    names::Names,
    outbound::Errands,
    share::NoRoom,
    state::{Guard, LogBudget},
    time::Allowance,
};
use foldhash::HashMap;
use std::{
    cell::RefCell,
    rc::{Rc, Weak},
    sync::{Arc, atomic::AtomicUsize},
    time::{Duration, Instant},
};
use tidegate_policy::{Snapshot, grants::Grants};
use wasmtime::{Memory, TypedFunc};

/// What a store holds.
pub(super) struct State {
    pub(super) plugin: Arc<str>,
    pub(super) key: Arc<Key>,
    pub(super) version: Version,
    pub(super) limits: Limits,
    pub(super) metrics: Arc<Metrics>,
    pub(super) shared: Arc<Shared>,
    pub(super) guard: Guard,
    pub(super) allowance: Allowance,
    pub(super) log: LogBudget,
    /// What its plugin holds beyond the life of its VMs.
    pub(super) holding: Arc<Holding>,
    /// What it shares with the VMs of its `vm_id`.
    pub(super) commons: Arc<Commons>,
    /// The queues that it has found, by number: no others can be reached.
    pub(super) queues: HashMap<u32, Arc<Queue>>,
    /// What it counts with.
    pub(super) defined: Defined,
    /// The guest's memory and allocator, as soon as its instance is there.
    pub(super) memory: Option<Memory>,
    pub(super) allocator: Option<TypedFunc<u32, u32>>,
    /// Whether the guest's allocator is running.
    pub(super) allocating: bool,
    pub(super) contexts: Contexts<Context>,
    /// The context that host functions are about.
    pub(super) current: u32,
    /// The names of fields that the guest uses.
    pub(super) names: RefCell<Names>,
    /// Calls of its own, and what came of the one whose callback runs.
    pub(super) callouts: Callouts,
    /// What a foreign function was handed.
    pub(super) foreign: bytes::Bytes,
    /// What is around it; nothing on the control plane, where a filter is only tried.
    pub(super) outside: Option<Outside>,
    pub(super) open_calls: Arc<AtomicUsize>,
    pub(super) started: Instant,
    /// Contexts whose end the guest has put off, and has come now.
    pub(super) ended: Vec<u32>,
}

/// The world of a VM on a worker.
#[derive(Clone)]
pub(super) struct Outside {
    pub(super) worker: Surroundings,
    pub(super) vm: Weak<super::vm::Vm>,
    /// Which of the VM's machines it is.
    pub(super) number: u64,
}

/// What the VMs of one worker have in common.
#[derive(Clone)]
pub(super) struct Surroundings {
    /// Where calls go; nowhere in a worker that makes none.
    pub(super) errands: Option<Errands>,
    pub(super) agenda: Rc<Agenda>,
    pub(super) policy: Rc<Policy>,
}

/// The policy that calls outside of exchanges are held against: the one in force, or where a worker was not told of any the one
/// of its first exchange.
#[derive(Default)]
pub(super) struct Policy(RefCell<Option<Arc<Snapshot>>>);

impl Policy {
    pub(super) fn now(&self) -> Option<Arc<Snapshot>> {
        self.0.borrow().clone()
    }

    pub(super) fn put_in_force(&self, policy: Arc<Snapshot>) {
        self.0.replace(Some(policy));
    }

    pub(super) fn seen(&self, policy: &Arc<Snapshot>) {
        self.0.borrow_mut().get_or_insert_with(|| Arc::clone(policy));
    }
}

/// One context.
pub(super) enum Context {
    Root(Root),
    Stream(Box<Stream>),
}

/// The context of one place on a route.
pub(super) struct Root {
    pub(super) setup: Arc<Setup>,
    pub(super) grants: Arc<Grants>,
    pub(super) timer: Option<Timer>,
    /// Whether it is told of messages in a queue.
    pub(super) listens: bool,
    /// Whether it is gone as soon as the guest says that it is done.
    pub(super) ending: bool,
}

impl Root {
    /// Whether it has something to do without an exchange.
    pub(super) fn is_at_work(&self) -> bool {
        self.timer.is_some() || self.listens
    }
}

/// When a context wants to be called.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timer {
    pub(super) period: Duration,
    pub(super) next: Instant,
}

impl State {
    /// The exchange that host functions are about.
    pub(super) fn stream(&self) -> Option<&Stream> {
        match self.contexts.get(self.current)? {
            Context::Stream(stream) => Some(stream),
            Context::Root(_) => None,
        }
    }

    pub(super) fn stream_mut(&mut self) -> Option<&mut Stream> {
        self.stream_of(self.current)
    }

    /// The exchange of this context.
    pub(super) fn stream_of(&mut self, context: u32) -> Option<&mut Stream> {
        match self.contexts.get_mut(context)? {
            Context::Stream(stream) => Some(stream),
            Context::Root(_) => None,
        }
    }

    /// Holds what is here of a message's body.
    pub(super) fn hold(&mut self, context: u32, kind: Kind) -> Result<(), NoRoom> {
        let (limits, metrics) = (self.limits, Arc::clone(&self.metrics));
        self.stream_of(context).map_or(Ok(()), |stream| stream.message_mut(kind).hold(&limits, &metrics))
    }

    /// The root context of the current one; itself where it is one.
    pub(super) fn root_id(&self) -> Option<u32> {
        match self.contexts.get(self.current)? {
            Context::Stream(stream) => Some(stream.root),
            Context::Root(_) => Some(self.current),
        }
    }

    pub(super) fn root(&self) -> Option<&Root> {
        match self.contexts.get(self.root_id()?)? {
            Context::Root(root) => Some(root),
            Context::Stream(_) => None,
        }
    }

    /// Makes host functions be about another context. One that has ended is about nothing.
    pub(super) fn turn_to(&mut self, context: u32) -> Answer {
        if !self.contexts.was_given(context) {
            return Err(Status::BadArgument);
        }
        self.current = context;
        Ok(())
    }
}
