//! The host for Proxy-Wasm modules (ABI 0.1.0 to 0.2.1), so that filters written for Envoy and Istio run unchanged.
//!
//! In order: `inspect` and `guest` turn bytes into a module that is known to fit, `setup` is what a route's entry says to
//! it. A `vm` runs it once on each worker, with a root context for each `place` on a route and a `stream` for each exchange;
//! `seat` is the exchange's side. `host` is what guests call, in their `memory`; `maps`, `fields`, `properties` and
//! `contexts` are pure. What goes on between callbacks is on the worker's `agenda`. Nothing here ever blocks: a guest that
//! waits has stopped its exchange, and is called when what it waits for has come.

mod abi;
mod agenda;
mod answers;
mod callouts;
mod contexts;
mod fields;
mod guest;
mod host;
mod inspect;
mod jobs;
mod kept;
mod maps;
mod memory;
mod metrics;
mod place;
mod properties;
mod queues;
mod seat;
mod setup;
mod state;
mod stream;
mod vm;

pub(super) use inspect::{Linkage, Ready, is_compiled, is_one};
pub(super) use place::{Machines, Place};
pub(super) use queues::Commons;
pub(super) use seat::{Called, Fallen, Passed, Standing};
pub(super) use setup::Setup;
pub(super) use vm::try_start;
