//! Values and queues that VMs share.

use super::{Offered, offer};
use crate::filter::{
    kv::Refusal,
    proxy_wasm::{
        abi::Status,
        jobs,
        memory::{Call, Done, give, put_u32, range, split},
        queues::{Commons, Full, key_of},
        state::{Context, State},
    },
};
use std::sync::Arc;
use wasmtime::Result;

pub(super) fn link(offered: &mut Offered) -> Result<()> {
    offer!(offered, "proxy_get_shared_data", get, key: u32, key_size: u32, at: u32, size: u32, cas: u32);
    offer!(offered, "proxy_set_shared_data", set, key: u32, key_size: u32, value: u32, value_size: u32, cas: u32);
    offer!(offered, "proxy_register_shared_queue", register, name: u32, name_size: u32, id: u32);
    offer!(offered, "proxy_resolve_shared_queue", resolve, vm: u32, vm_size: u32, name: u32, name_size: u32, id: u32);
    offer!(offered, "proxy_enqueue_shared_queue", enqueue, id: u32, at: u32, size: u32);
    offer!(offered, "proxy_dequeue_shared_queue", dequeue, id: u32, at: u32, size: u32);
    Ok(())
}

/// A version as guests compare it: of 32 bits, and never 0, which asks for no comparison.
fn cas_of(version: u64) -> u32 {
    u32::try_from(version % u64::from(u32::MAX)).unwrap_or_default() + 1
}

fn get(call: &mut Call<'_>, key: u32, key_size: u32, at: u32, size: u32, cas: u32) -> Done {
    let (memory, state) = split(call)?;
    let key = key_of(range(memory, key, key_size)?);
    range(memory, cas, 4)?;
    let entry = state.commons().store.get(&key).ok_or(Status::NotFound)?;
    give(call, &entry.value, at, size)?;
    let (memory, _) = split(call)?;
    Ok(put_u32(memory, cas, cas_of(entry.version))?)
}

fn set(call: &mut Call<'_>, key: u32, key_size: u32, value: u32, value_size: u32, cas: u32) -> Done {
    let (memory, state) = split(call)?;
    let (key, value) = (key_of(range(memory, key, key_size)?), range(memory, value, value_size)?);
    let store = &state.commons().store;
    let stored = match (cas, store.get(&key)) {
        (0, _) => store.set(&key, value, None),
        (_, None) => store.compare_and_set(&key, value, 0, None),
        (cas, Some(there)) if cas_of(there.version) == cas => store.compare_and_set(&key, value, there.version, None),
        (_, Some(_)) => Err(Refusal::Mismatch),
    };
    match stored {
        Ok(_) => Ok(()),
        Err(Refusal::Mismatch) => Err(Status::CasMismatch.into()),
        Err(Refusal::TooLarge | Refusal::Full) => Err(Status::InternalFailure.into()),
    }
}

/// Makes a queue, or finds it, and has its messages told to this VM.
fn register(call: &mut Call<'_>, name: u32, name_size: u32, id: u32) -> Done {
    let (memory, state) = split(call)?;
    let name = key_of(range(memory, name, name_size)?);
    range(memory, id, 4)?;
    let queue = state.commons().queues.register(&name).ok_or(Status::InternalFailure)?;
    let root = state.root_id().ok_or(Status::BadArgument)?;
    if let Some(outside) = &state.outside {
        jobs::listen(outside, &queue, root);
    }
    if let Some(Context::Root(root)) = state.contexts.get_mut(root) {
        root.listens = true;
    }
    put_u32(memory, id, queue.id())?;
    state.queues.insert(queue.id(), queue);
    Ok(())
}

fn resolve(call: &mut Call<'_>, vm: u32, vm_size: u32, name: u32, name_size: u32, id: u32) -> Done {
    let (memory, state) = split(call)?;
    let (vm, name) = (range(memory, vm, vm_size)?, key_of(range(memory, name, name_size)?));
    range(memory, id, 4)?;
    let queue = state.commons_of(vm).and_then(|commons| commons.queues.named(&name)).ok_or(Status::NotFound)?;
    put_u32(memory, id, queue.id())?;
    state.queues.insert(queue.id(), queue);
    Ok(())
}

fn enqueue(call: &mut Call<'_>, id: u32, at: u32, size: u32) -> Done {
    let (memory, state) = split(call)?;
    let message = range(memory, at, size)?;
    let queue = state.queues.get(&id).ok_or(Status::NotFound)?;
    queue.push(message).map_err(|Full| {
        state.metrics.queues_refused.add(1);
        Status::InternalFailure.into()
    })
}

fn dequeue(call: &mut Call<'_>, id: u32, at: u32, size: u32) -> Done {
    let (memory, state) = split(call)?;
    let queue = state.queues.get(&id).ok_or(Status::NotFound)?;
    range(memory, at, 4)?;
    range(memory, size, 4)?;
    let message = queue.pop().ok_or(Status::Empty)?;
    give(call, &message, at, size)
}

impl State {
    /// What this VM shares: with all of its `vm_id`, or where it has none with those of its plugin.
    fn commons(&self) -> &Commons {
        &self.commons
    }

    /// What the VMs of this `vm_id` share, where there are any.
    fn commons_of(&self, vm: &[u8]) -> Option<Arc<Commons>> {
        if vm == self.key.machine.vm_id.as_bytes() {
            return Some(Arc::clone(&self.commons));
        }
        self.shared.holdings.commons_there(std::str::from_utf8(vm).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_version_is_zero() {
        for version in [0, 1, u64::from(u32::MAX) - 1, u64::from(u32::MAX), u64::from(u32::MAX) + 1, u64::MAX] {
            assert_ne!(cas_of(version), 0, "{version}");
        }
        assert_ne!(cas_of(1), cas_of(2));
    }
}
