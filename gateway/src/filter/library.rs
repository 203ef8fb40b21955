//! Compiled modules by digest, and the quota under which they are compiled.

use super::{
    attributes, audit, calls,
    engine::Shared,
    inspect::{self, Compiled},
    message, outbound,
    state::State,
};
use foldhash::HashMap;
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};
use tidegate_policy::plugin::Digest;
use wasmtime::component::Linker;

/// Compiled modules. Used by the control plane only; workers hold what they run.
pub(super) struct Library {
    shared: Arc<Shared>,
    linker: Arc<Linker<State>>,
    shelf: Mutex<Shelf>,
    compilers: Arc<AtomicUsize>,
}

#[derive(Default)]
struct Shelf {
    modules: HashMap<Digest, Volume>,
    /// Counts uses, to tell which was used last.
    uses: u64,
}

struct Volume {
    compiled: Arc<Compiled>,
    used: u64,
}

/// A compiler that is at work, counted until it ends.
struct Compiler(Arc<AtomicUsize>);

impl Drop for Compiler {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Library {
    pub(super) fn open(shared: Arc<Shared>) -> wasmtime::Result<Self> {
        let mut linker = Linker::new(&shared.engine);
        message::link(&mut linker)?;
        attributes::link(&mut linker)?;
        audit::link(&mut linker)?;
        calls::link(&mut linker)?;
        outbound::link(&mut linker)?;
        Ok(Self { shared, linker: Arc::new(linker), shelf: Mutex::default(), compilers: Arc::default() })
    }

    /// The module of this digest, compiled now unless it was already.
    pub(super) fn compiled(&self, digest: Digest, bytes: Arc<[u8]>) -> Result<Arc<Compiled>, Vec<String>> {
        if let Some(compiled) = self.find(digest) {
            return Ok(compiled);
        }
        let compiled = Arc::new(self.compile(bytes)?);
        self.shelve(digest, Arc::clone(&compiled));
        Ok(compiled)
    }

    fn find(&self, digest: Digest) -> Option<Arc<Compiled>> {
        let mut shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        shelf.uses += 1;
        let used = shelf.uses;
        let volume = shelf.modules.get_mut(&digest)?;
        volume.used = used;
        Some(Arc::clone(&volume.compiled))
    }

    /// Keeps a module, and lets go of those used longest ago that no route runs, above the limit.
    fn shelve(&self, digest: Digest, compiled: Arc<Compiled>) {
        let mut shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        let used = shelf.uses;
        shelf.modules.insert(digest, Volume { compiled, used });
        let mut idle: Vec<_> = shelf
            .modules
            .iter()
            .filter(|(kept, volume)| **kept != digest && Arc::strong_count(&volume.compiled) == 1)
            .map(|(kept, volume)| (volume.used, *kept))
            .collect();
        idle.sort_unstable();
        let surplus = idle.len().saturating_sub(self.shared.limits.compiled);
        for (_, kept) in idle.into_iter().take(surplus) {
            shelf.modules.remove(&kept);
        }
    }

    /// Compiles on a thread of its own, so that a module that takes too long can be given up on. It cannot be stopped,
    /// so it goes on counting against the number of compilers until it ends.
    fn compile(&self, bytes: Arc<[u8]>) -> Result<Compiled, Vec<String>> {
        let limits = self.shared.limits;
        let refused = |reason: String| {
            self.shared.metrics.compile_refused.add(1);
            vec![reason]
        };
        let busy = self.compilers.fetch_add(1, Ordering::Relaxed);
        let compiler = Compiler(Arc::clone(&self.compilers));
        if busy >= limits.compilers {
            return Err(refused(format!(
                "{busy} modules are being compiled, which is the limit (setting filter_compilers); try again later"
            )));
        }
        let (done, outcome) = mpsc::sync_channel(1);
        let (shared, linker) = (Arc::clone(&self.shared), Arc::clone(&self.linker));
        thread::Builder::new()
            .name("filter-compiler".to_owned())
            // Validators and compilers recurse; the default of 2 MiB has overflowed on deeply nested blocks elsewhere.
            .stack_size(8 << 20)
            .spawn(move || {
                let _compiler = compiler;
                let compiled = inspect::compile(&shared.engine, &linker, &shared.limits, &bytes);
                // Nobody may be waiting any more.
                let _ = done.send(compiled);
            })
            .map_err(|error| refused(format!("no thread could be started to compile it: {error}; try again later")))?;
        match outcome.recv_timeout(limits.compile) {
            Ok(compiled) => {
                self.shared.metrics.compiled.add(1);
                compiled
            }
            Err(mpsc::RecvTimeoutError::Timeout) => Err(refused(format!(
                "compiling it took longer than {} s (setting filter_compile_timeout); make it smaller",
                limits.compile.as_secs()
            ))),
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                Err(vec!["the compiler failed on it; rebuild it with a current toolchain".to_owned()])
            }
        }
    }
}
