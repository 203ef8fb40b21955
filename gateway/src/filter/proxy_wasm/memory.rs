//! A guest's memory as host functions use it: every pointer and length is checked, and what is handed over goes where the
//! guest's own allocator puts it.

use super::{
    abi::{Answer, Status},
    state::State,
};
use wasmtime::{Caller, Memory};

/// A guest's call of a host function.
pub(super) type Call<'a> = Caller<'a, State>;

/// Why a host function ends early.
#[derive(Debug)]
pub(super) enum Stop {
    /// The guest is told.
    Status(Status),
    /// The guest has failed within the call.
    Trap(wasmtime::Error),
}

/// What comes of a host function.
pub(super) type Done<T = ()> = Result<T, Stop>;

impl From<Status> for Stop {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl From<wasmtime::Error> for Stop {
    fn from(error: wasmtime::Error) -> Self {
        Self::Trap(error)
    }
}

/// The guest's memory, and what the host keeps of it.
pub(super) fn split<'a>(call: &'a mut Call<'_>) -> Answer<(&'a mut [u8], &'a mut State)> {
    let memory = memory(call)?;
    Ok(memory.data_and_store_mut(call))
}

/// A module's start function may call before the host has its instance; then the memory is the caller's.
fn memory(call: &mut Call<'_>) -> Answer<Memory> {
    if let Some(memory) = call.data().memory {
        return Ok(memory);
    }
    let memory = call.get_export("memory").and_then(wasmtime::Extern::into_memory);
    memory.ok_or(Status::InvalidMemoryAccess)
}

/// The bytes at `at`.
pub(super) fn range(memory: &[u8], at: u32, length: u32) -> Answer<&[u8]> {
    let start = at as usize;
    let end = start.checked_add(length as usize).ok_or(Status::InvalidMemoryAccess)?;
    memory.get(start..end).ok_or(Status::InvalidMemoryAccess)
}

/// The text at `at`.
pub(super) fn text(memory: &[u8], at: u32, length: u32) -> Answer<&str> {
    std::str::from_utf8(range(memory, at, length)?).map_err(|_| Status::BadArgument)
}

/// Writes a number of 32 bits.
pub(super) fn put_u32(memory: &mut [u8], at: u32, number: u32) -> Answer {
    put(memory, at, &number.to_le_bytes())
}

/// Writes a number of 64 bits.
pub(super) fn put_u64(memory: &mut [u8], at: u32, number: u64) -> Answer {
    put(memory, at, &number.to_le_bytes())
}

pub(super) fn put(memory: &mut [u8], at: u32, bytes: &[u8]) -> Answer {
    let start = at as usize;
    let end = start.checked_add(bytes.len()).ok_or(Status::InvalidMemoryAccess)?;
    memory.get_mut(start..end).ok_or(Status::InvalidMemoryAccess)?.copy_from_slice(bytes);
    Ok(())
}

/// Hands `bytes` over: allocates room for them in the guest, and writes where they are and how long to `at` and `size`.
pub(super) fn give(call: &mut Call<'_>, bytes: &[u8], at: u32, size: u32) -> Done {
    let length = u32::try_from(bytes.len()).map_err(|_| Status::InternalFailure)?;
    {
        let (memory, _) = split(call)?;
        // Looked at before the guest allocates what it then could not find.
        range(memory, at, 4)?;
        range(memory, size, 4)?;
    }
    let place = if bytes.is_empty() { 0 } else { allocate(call, length)? };
    let (memory, _) = split(call)?;
    put(memory, place, bytes)?;
    put_u32(memory, at, place)?;
    put_u32(memory, size, length)?;
    Ok(())
}

/// Has the guest's allocator make room. Meanwhile the guest may call nothing of the host but its log and clock.
fn allocate(call: &mut Call<'_>, length: u32) -> Done<u32> {
    let Some(allocator) = call.data().allocator.clone() else { return Err(Status::InternalFailure.into()) };
    call.data_mut().allocating = true;
    let place = allocator.call(&mut *call, length);
    call.data_mut().allocating = false;
    match place? {
        0 => Err(Status::InvalidMemoryAccess.into()),
        place => Ok(place),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_of_the_memory_is_reached() {
        let mut memory = vec![0; 16];
        for (at, length, good) in
            [(0, 16, true), (16, 0, true), (0, 17, false), (17, 0, false), (u32::MAX, 1, false), (8, u32::MAX, false)]
        {
            assert_eq!(range(&memory, at, length).is_ok(), good, "{at} {length}");
        }
        assert_eq!(put_u32(&mut memory, 13, 1), Err(Status::InvalidMemoryAccess));
        assert_eq!(put_u64(&mut memory, u32::MAX, 1), Err(Status::InvalidMemoryAccess));
        assert_eq!(put_u64(&mut memory, 8, u64::MAX), Ok(()));
        memory[0] = 0xff;
        assert_eq!(text(&memory, 0, 1), Err(Status::BadArgument));
    }
}
