//! What guests call. Each function reads its arguments from the guest's memory, does what it is for in the store's state,
//! and answers with a status; the groups are a file each.

mod buffers;
mod callouts;
mod foreign;
mod headers;
mod metrics;
mod properties;
mod shared;
mod stream;
mod telemetry;
mod wasi;

pub(super) use wasi::Exit;

use super::{
    abi::Status,
    memory::{Call, Done, Stop},
    state::State,
};
use wasmtime::{Engine, Linker, Result};

/// Offers a function of the module `env` that may not be called while the guest's allocator runs.
macro_rules! offer {
    ($offered:ident, $name:literal, $function:path $(, $argument:ident: $kind:ty)*) => {
        $offered.add($name, |linker, name| {
            linker
                .func_wrap("env", name, |mut call: $crate::filter::proxy_wasm::memory::Call<'_> $(, $argument: $kind)*| {
                    $crate::filter::proxy_wasm::host::answer(&mut call, |call| $function(call $(, $argument)*))
                })
                .map(drop)
        })?;
    };
}
use offer;

/// Everything that is offered, by name.
pub(super) struct Offered {
    pub(super) linker: Linker<State>,
    names: Vec<(&'static str, &'static str)>,
}

impl Offered {
    /// All of it.
    pub(super) fn all(engine: &Engine) -> Result<Self> {
        let mut offered = Self { linker: Linker::new(engine), names: Vec::new() };
        telemetry::link(&mut offered)?;
        headers::link(&mut offered)?;
        buffers::link(&mut offered)?;
        stream::link(&mut offered)?;
        properties::link(&mut offered)?;
        shared::link(&mut offered)?;
        metrics::link(&mut offered)?;
        callouts::link(&mut offered)?;
        foreign::link(&mut offered)?;
        wasi::link(&mut offered)?;
        Ok(offered)
    }

    /// Whether there is a function of this name.
    pub(super) fn has(&self, module: &str, name: &str) -> bool {
        self.names.contains(&(module, name))
    }

    fn add(&mut self, name: &'static str, define: impl FnOnce(&mut Linker<State>, &'static str) -> Result<()>) -> Result<()> {
        self.names.push(("env", name));
        define(&mut self.linker, name)
    }

    fn add_to(
        &mut self,
        module: &'static str,
        name: &'static str,
        define: impl FnOnce(&mut Linker<State>, &'static str, &'static str) -> Result<()>,
    ) -> Result<()> {
        self.names.push((module, name));
        define(&mut self.linker, module, name)
    }
}

/// Offers those functions of ABI 0.1.0 that have no result in its text and one in most toolchains.
pub(super) fn without_answer(linker: &mut Linker<State>, name: &str) -> Result<()> {
    let what: fn(&mut Call<'_>) -> Done = match name {
        "proxy_continue_request" => stream::continue_request,
        "proxy_continue_response" => stream::continue_response,
        "proxy_clear_route_cache" => stream::clear_route_cache,
        _ => wasmtime::bail!("the ABI has it answer with a status"),
    };
    linker.func_wrap("env", name, move |mut call: Call<'_>| answer(&mut call, what).map(drop))?;
    Ok(())
}

/// What the guest is told of a call. The guest's allocator runs within calls of the host and gets nothing from it.
fn answer(call: &mut Call<'_>, what: impl FnOnce(&mut Call<'_>) -> Done) -> Result<u32> {
    let done = if call.data().allocating { Err(Status::InternalFailure.into()) } else { what(call) };
    told(done)
}

fn told(done: Done) -> Result<u32> {
    match done {
        Ok(()) => Ok(Status::Ok as u32),
        Err(Stop::Status(status)) => Ok(status as u32),
        Err(Stop::Trap(error)) => Err(error),
    }
}
