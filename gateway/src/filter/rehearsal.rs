//! Before a publication is in force: its modules are compiled and its configurations tried on canaries, on every core, so
//! that a start with many filters takes as long as the slowest of them and not as all of them together.

use super::{
    Host,
    chain::Filter,
    chain::Made,
    inspect::Code,
    inspect::Compiled,
    instance,
    library::{NotCompiled, Turn},
    proxy_wasm,
};
use foldhash::HashMap;
use std::{
    num::NonZero,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use tidegate_policy::{plugin::Digest, publication::Module};

/// After this long no more canaries are started: filters that take their time to be configured must not hold up all
/// routes. Those that were not tried are started by their first exchange, which meets `on_error` where that fails.
const TRIALS: Duration = Duration::from_millis(500);

/// What came of it.
#[derive(Default)]
pub(super) struct Rehearsal {
    /// The modules, kept here until routes hold them.
    pub(super) compiled: HashMap<Digest, Result<Arc<Compiled>, NotCompiled>>,
    /// The configurations that there was time to try.
    pub(super) tried: HashMap<Made, Result<(), Arc<str>>>,
}

impl Rehearsal {
    /// Compiles these modules and tries these configurations of them, each once.
    pub(super) fn of(host: &Host, modules: &HashMap<Digest, &Module>, made: &[&Made]) -> Self {
        let modules: Vec<_> = modules.values().collect();
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        // No more at once than may be compiled: one that waits too long for its turn would be given up on.
        let compiled = on_threads(cores.min(host.shared.limits.compilers), &modules, |module| {
            let compiled = host.compiled(module, Turn::Wait);
            Some((module.digest, compiled))
        });
        let compiled: HashMap<_, _> = compiled.into_iter().collect();
        let began = Instant::now();
        let tried = on_threads(cores, made, |made| {
            let compiled = compiled.get(&made.digest)?.as_ref().ok()?;
            let has_time = began.elapsed() < TRIALS;
            has_time.then(|| ((*made).clone(), canary(host, compiled, made)))
        });
        let ready = made.iter().filter(|made| compiled.get(&made.digest).is_some_and(Result::is_ok)).count();
        let untried = ready - tried.len();
        if untried > 0 {
            tracing::info!(filters = untried, "filters were not tried before their first exchange");
        }
        Self { tried: tried.into_iter().collect(), compiled }
    }
}

/// Starts a filter and lets it read its configuration, to see whether it does.
fn canary(host: &Host, compiled: &Arc<Compiled>, made: &Made) -> Result<(), Arc<str>> {
    let filter = Filter::canary(&host.shared, Arc::clone(compiled), made.clone());
    try_start(&filter).map_err(Arc::from)
}

/// Starts a filter of either kind to see whether it does.
pub(super) fn try_start(filter: &Filter) -> Result<(), String> {
    match &filter.compiled.code {
        Code::Typed(_) => instance::try_start(filter),
        Code::Proxy(ready) => proxy_wasm::try_start(filter, ready),
    }
}

/// What `work` makes of each of `jobs`, done by so many threads, this one among them.
fn on_threads<J: Sync, R: Send>(threads: usize, jobs: &[J], work: impl Fn(&J) -> Option<R> + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::with_capacity(jobs.len()));
    let run = || {
        while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Some(result) = work(job) {
                results.lock().unwrap_or_else(PoisonError::into_inner).push(result);
            }
        }
    };
    thread::scope(|scope| {
        for number in 1..threads.min(jobs.len()) {
            let thread = thread::Builder::new().name(format!("filter-trial-{number}"));
            if let Err(error) = thread.spawn_scoped(scope, run) {
                // This thread does what is left.
                tracing::warn!(%error, "no thread could be started to prepare filters; it takes longer");
            }
        }
        run();
    });
    results.into_inner().unwrap_or_else(PoisonError::into_inner)
}
