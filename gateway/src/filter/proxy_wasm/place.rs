//! A place on a route as a worker has it: its VM, which other places may share, and its root context there.

use super::{
    Setup,
    agenda::Agenda,
    inspect::Ready,
    setup::Key,
    state::{Policy, Surroundings},
    vm::{Entered, Settled, Vm},
};
use crate::filter::{
    chain::Filter,
    inspect::{Code, Compiled},
    outbound::Errands,
};
use foldhash::HashMap;
use std::{
    cell::RefCell,
    fmt,
    rc::{Rc, Weak},
    sync::Arc,
    time::Instant,
};
use tidegate_policy::{Snapshot, grants::Grants};

/// The VMs of one worker.
#[derive(Default)]
pub(in crate::filter) struct Machines {
    vms: RefCell<HashMap<Arc<Key>, Weak<Vm>>>,
    pub(in crate::filter) agenda: Rc<Agenda>,
    policy: Rc<Policy>,
}

/// A place on a route.
pub(in crate::filter) struct Place {
    id: u64,
    pub(super) vm: Rc<Vm>,
    compiled: Arc<Compiled>,
    pub(super) setup: Arc<Setup>,
    grants: Arc<Grants>,
}

impl Machines {
    /// The place of `filter`, in the VM that it shares with others of its kind.
    pub(in crate::filter) fn place(&self, filter: &Filter, ready: &Ready, errands: Option<&Errands>) -> Rc<Place> {
        let mut vms = self.vms.borrow_mut();
        vms.retain(|_, vm| vm.strong_count() > 0);
        let key = key(filter);
        let there = vms.get(&key).and_then(Weak::upgrade);
        let vm = there.unwrap_or_else(|| {
            let (agenda, policy) = (Rc::clone(&self.agenda), Rc::clone(&self.policy));
            let worker = Surroundings { errands: errands.cloned(), agenda, policy };
            let vm = Vm::new(filter, Arc::new(key.clone()), ready.version, Some(worker));
            vms.insert(Arc::new(key), Rc::downgrade(&vm));
            vm
        });
        Rc::new(Place::in_vm(filter, vm))
    }

    /// Has calls outside of exchanges held against this policy from now on.
    pub(in crate::filter) fn put_in_force(&self, policy: Arc<Snapshot>) {
        self.policy.put_in_force(policy);
    }
}

fn key(filter: &Filter) -> Key {
    Key { plugin: filter.plugin.clone(), digest: filter.made.digest, machine: filter.made.setup.machine.clone() }
}

impl Place {
    /// A place with a VM of its own.
    pub(super) fn new(filter: &Filter, ready: &Ready) -> Self {
        Self::in_vm(filter, Vm::new(filter, Arc::new(key(filter)), ready.version, None))
    }

    fn in_vm(filter: &Filter, vm: Rc<Vm>) -> Self {
        Self {
            id: filter.id,
            vm,
            compiled: Arc::clone(&filter.compiled),
            setup: Arc::clone(&filter.made.setup),
            grants: Arc::clone(&filter.place.grants),
        }
    }

    /// What its module is.
    pub(super) fn ready(&self) -> Entered<&Ready> {
        match &self.compiled.code {
            Code::Proxy(ready) => Ok(ready),
            Code::Typed(_) => Err("it is no Proxy-Wasm module".into()),
        }
    }

    /// The number of the machine that runs, and the root context there.
    pub(super) fn root(&self) -> Entered<(u64, u32)> {
        self.vm.root(&self.described()?)
    }

    fn described(&self) -> Entered<Settled<'_>> {
        let ready = self.ready()?;
        Ok(Settled { id: self.id, setup: &self.setup, grants: &self.grants, ready })
    }

    /// Has it run from now on although no exchange has come.
    pub(in crate::filter) fn is_to_stand(&self) {
        self.vm.is_to_stand(self.id);
    }

    /// Whether it is to run now, and does not.
    pub(in crate::filter) fn is_down(&self) -> bool {
        self.vm.is_down(self.id, Instant::now())
    }

    /// Starts it. What fails is logged and tried again later.
    pub(in crate::filter) fn stand(&self) {
        if let Ok(described) = self.described() {
            self.vm.stand(&described);
        }
    }

    /// Whether it has something to do without an exchange.
    pub(in crate::filter) fn is_at_work(&self) -> bool {
        self.vm.is_at_work()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.vm.retire(self.id);
    }
}

impl fmt::Debug for Machines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machines").field("vms", &self.vms.borrow().len()).finish_non_exhaustive()
    }
}
