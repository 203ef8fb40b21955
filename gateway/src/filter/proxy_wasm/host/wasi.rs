//! What modules have of WASI: standard output and error as a log, clocks, random numbers and an environment. There are no
//! files and no sockets; what else modules import says so.

use super::{Offered, telemetry::write};
use crate::filter::{
    bindings::tidegate::filter::telemetry::Level,
    proxy_wasm::{
        abi::{Answer, Status},
        memory::{Call, put, put_u32, put_u64, range, split},
        state::State,
    },
};
use std::time::SystemTime;
use wasmtime::{Linker, Result};

/// Numbers of errors, as WASI has them.
#[derive(Debug, Clone, Copy)]
enum Errno {
    Success = 0,
    BadDescriptor = 8,
    Fault = 21,
    Invalid = 28,
    Io = 29,
}

/// Most bytes that are written or made up in one call.
const MOST_BYTES: u32 = 64 << 10;
/// Most pieces that are written in one call.
const MOST_PIECES: u32 = 128;

/// A guest has ended itself.
#[derive(Debug, thiserror::Error)]
#[error("it ended itself with proc_exit({0})")]
pub(in crate::filter::proxy_wasm) struct Exit(pub(in crate::filter::proxy_wasm) u32);

pub(super) fn link(offered: &mut Offered) -> Result<()> {
    for module in ["wasi_snapshot_preview1", "wasi_unstable"] {
        link_one(offered, module)?;
    }
    Ok(())
}

/// Offers one function of WASI, whose answer is an error's number.
macro_rules! offer_wasi {
    ($offered:ident, $module:ident, $name:literal, $function:path $(, $argument:ident: $kind:ty)*) => {
        $offered.add_to($module, $name, |linker: &mut Linker<State>, module, name| {
            linker
                .func_wrap(module, name, |mut call: Call<'_> $(, $argument: $kind)*| {
                    match $function(&mut call $(, $argument)*) {
                        Ok(()) => Errno::Success as u32,
                        Err(error) => error as u32,
                    }
                })
                .map(drop)
        })?;
    };
}

fn link_one(offered: &mut Offered, module: &'static str) -> Result<()> {
    offer_wasi!(offered, module, "fd_write", fd_write, fd: u32, pieces: u32, count: u32, written: u32);
    offer_wasi!(offered, module, "clock_time_get", clock_time_get, clock: u32, precision: u64, at: u32);
    offer_wasi!(offered, module, "clock_res_get", clock_res_get, clock: u32, at: u32);
    offer_wasi!(offered, module, "random_get", random_get, at: u32, size: u32);
    offer_wasi!(offered, module, "environ_sizes_get", environ_sizes_get, count: u32, size: u32);
    offer_wasi!(offered, module, "environ_get", environ_get, pointers: u32, texts: u32);
    offer_wasi!(offered, module, "args_sizes_get", args_sizes_get, count: u32, size: u32);
    offer_wasi!(offered, module, "args_get", args_get, pointers: u32, texts: u32);
    offer_wasi!(offered, module, "sched_yield", sched_yield);
    offer_wasi!(offered, module, "fd_prestat_get", no_descriptor, fd: u32, at: u32);
    offer_wasi!(offered, module, "fd_fdstat_get", fd_fdstat_get, fd: u32, at: u32);
    offered.add_to(module, "proc_exit", |linker, module, name| {
        linker.func_wrap(module, name, |_: Call<'_>, code: u32| -> Result<()> { Err(Exit(code).into()) }).map(drop)
    })
}

/// What of the memory is not there is a fault.
fn checked<T>(answer: Answer<T>) -> std::result::Result<T, Errno> {
    answer.map_err(|status| if status == Status::InvalidMemoryAccess { Errno::Fault } else { Errno::Io })
}

/// A write to standard output is a message of the log, and one to standard error is a mistake's.
fn fd_write(call: &mut Call<'_>, fd: u32, pieces: u32, count: u32, written: u32) -> std::result::Result<(), Errno> {
    let level = match fd {
        1 => Level::Info,
        2 => Level::Error,
        _ => return Err(Errno::BadDescriptor),
    };
    let (memory, state) = checked(split(call))?;
    checked(range(memory, written, 4))?;
    let mut message = Vec::new();
    let mut size = 0_u32;
    for piece in 0..count.min(MOST_PIECES) {
        let at = pieces.checked_add(piece * 8).ok_or(Errno::Fault)?;
        let (start, length) = checked(number(memory, at).and_then(|start| Ok((start, number(memory, at.saturating_add(4))?))))?;
        let bytes = checked(range(memory, start, length))?;
        size = size.saturating_add(length);
        let room = (MOST_BYTES as usize).saturating_sub(message.len());
        message.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
    let message = message.trim_ascii_end();
    if !message.is_empty() {
        write(state, level, message);
    }
    checked(put_u32(memory, written, size))
}

fn number(memory: &[u8], at: u32) -> Answer<u32> {
    let bytes = range(memory, at, 4)?;
    bytes.first_chunk().map(|bytes| u32::from_le_bytes(*bytes)).ok_or(Status::InvalidMemoryAccess)
}

fn clock_time_get(call: &mut Call<'_>, clock: u32, _precision: u64, at: u32) -> std::result::Result<(), Errno> {
    let (memory, state) = checked(split(call))?;
    let nanoseconds = match clock {
        0 => SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos(),
        // Go ends itself where this clock is 0.
        1..=3 => state.started.elapsed().as_nanos().max(1),
        _ => return Err(Errno::Invalid),
    };
    checked(put_u64(memory, at, u64::try_from(nanoseconds).unwrap_or(u64::MAX)))
}

fn clock_res_get(call: &mut Call<'_>, clock: u32, at: u32) -> std::result::Result<(), Errno> {
    let (memory, _) = checked(split(call))?;
    if clock > 3 { Err(Errno::Invalid) } else { checked(put_u64(memory, at, 1)) }
}

fn random_get(call: &mut Call<'_>, at: u32, size: u32) -> std::result::Result<(), Errno> {
    let (memory, _) = checked(split(call))?;
    if size > MOST_BYTES {
        return Err(Errno::Invalid);
    }
    let start = at as usize;
    let end = start.checked_add(size as usize).ok_or(Errno::Fault)?;
    let bytes = memory.get_mut(start..end).ok_or(Errno::Fault)?;
    aws_lc_rs::rand::fill(bytes).map_err(|_| Errno::Io)
}

fn environ_sizes_get(call: &mut Call<'_>, count: u32, size: u32) -> std::result::Result<(), Errno> {
    let (memory, state) = checked(split(call))?;
    let environment = &state.key.machine.environment;
    let bytes: usize = environment.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    checked(put_u32(memory, count, u32::try_from(environment.len()).unwrap_or(u32::MAX)))?;
    checked(put_u32(memory, size, u32::try_from(bytes).unwrap_or(u32::MAX)))
}

fn environ_get(call: &mut Call<'_>, pointers: u32, texts: u32) -> std::result::Result<(), Errno> {
    let (memory, state) = checked(split(call))?;
    let (mut pointer, mut text) = (pointers, texts);
    for (name, value) in &state.key.machine.environment {
        let whole = [name.as_bytes(), b"=", value.as_bytes(), b"\0"].concat();
        checked(put_u32(memory, pointer, text))?;
        checked(put(memory, text, &whole))?;
        pointer = pointer.checked_add(4).ok_or(Errno::Fault)?;
        text = u32::try_from(whole.len()).ok().and_then(|length| text.checked_add(length)).ok_or(Errno::Fault)?;
    }
    Ok(())
}

fn args_sizes_get(call: &mut Call<'_>, count: u32, size: u32) -> std::result::Result<(), Errno> {
    let (memory, _) = checked(split(call))?;
    checked(put_u32(memory, count, 0))?;
    checked(put_u32(memory, size, 0))
}

fn args_get(_: &mut Call<'_>, _pointers: u32, _texts: u32) -> std::result::Result<(), Errno> {
    Ok(())
}

fn sched_yield(_: &mut Call<'_>) -> std::result::Result<(), Errno> {
    Ok(())
}

/// There are no directories, which is how programs learn that there are no files.
fn no_descriptor(_: &mut Call<'_>, _fd: u32, _at: u32) -> std::result::Result<(), Errno> {
    Err(Errno::BadDescriptor)
}

/// Standard output and error are character devices that can be written to.
fn fd_fdstat_get(call: &mut Call<'_>, fd: u32, at: u32) -> std::result::Result<(), Errno> {
    if !(1..=2).contains(&fd) {
        return Err(Errno::BadDescriptor);
    }
    let (memory, _) = checked(split(call))?;
    let mut status = [0; 24];
    status[0] = 2;
    status[8] = 1 << 6;
    checked(put(memory, at, &status))
}
