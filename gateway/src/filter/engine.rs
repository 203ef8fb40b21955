//! The engine: how filters are compiled and bounded, and the clock that ends those that run too long.

use super::{
    holdings::Holdings,
    limits::{Limits, Metrics},
    time::TICKS_AT_ONCE,
};
use std::{sync::Arc, thread, time::Duration};
use wasmtime::{Config, Engine, OptLevel, Result};

/// How often the epoch moves on.
const TICK: Duration = Duration::from_millis(TICKS_AT_ONCE);

/// How often it moves on while no worker has an instance: a canary's limits need no better, and an idle gateway sleeps.
const IDLE_TICK: Duration = Duration::from_millis(20);

/// How often values are removed whose time is over. Nobody sees them after it; this is when their room is free.
const SWEEP: Duration = Duration::from_secs(1);

/// What everything that runs filters shares.
pub(super) struct Shared {
    pub(super) engine: Engine,
    pub(super) limits: Limits,
    pub(super) metrics: Arc<Metrics>,
    /// What plugins hold beyond the life of their instances.
    pub(super) holdings: Arc<Holdings>,
}

impl Shared {
    pub(super) fn start(limits: Limits) -> Result<Self> {
        let engine = Engine::new(&config())?;
        let metrics = Arc::<Metrics>::default();
        let (ticking, counted) = (engine.weak(), Arc::clone(&metrics));
        // The thread ends when the last user of the engine has gone.
        thread::Builder::new().name("filter-clock".to_owned()).spawn(move || {
            while let Some(engine) = ticking.upgrade() {
                (0..TICKS_AT_ONCE).for_each(|_| engine.increment_epoch());
                drop(engine);
                thread::sleep(if counted.instances.value() > 0 { TICK } else { IDLE_TICK });
            }
        })?;
        let holdings = Arc::new(Holdings::new(limits, Arc::clone(&metrics)));
        let swept = Arc::downgrade(&holdings);
        // So does this one.
        thread::Builder::new().name("filter-sweep".to_owned()).spawn(move || {
            while let Some(holdings) = swept.upgrade() {
                holdings.sweep();
                drop(holdings);
                thread::sleep(SWEEP);
            }
        })?;
        Ok(Self { engine, limits, metrics, holdings })
    }
}

/// Instances are kept for many exchanges, so they are allocated on demand: the pooling allocator would save ten of some
/// forty microseconds per start, and reserve room for the most that there could ever be.
pub(super) fn config() -> Config {
    let mut config = Config::new();
    config.wasm_component_model(true);
    config.concurrency_support(false);
    config.epoch_interruption(true);
    config.cranelift_opt_level(OptLevel::Speed);
    config.parallel_compilation(true);
    // A trap is told by its kind; the frames would only name what `strip` has taken from filters.
    config.wasm_backtrace_max_frames(None);
    // Nor is there anybody else who reads these, a seventh of what a compiled filter takes of memory.
    config.generate_address_map(false);
    config.native_unwind_info(false);
    // What toolchains for filters do not use, an attacker cannot either.
    config.wasm_memory64(false);
    config.wasm_multi_memory(false);
    config.wasm_tail_call(false);
    config.wasm_relaxed_simd(false);
    config
}
