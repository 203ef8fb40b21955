//! Compiled modules by digest, in memory and on disk, and the quota under which they are compiled.

use super::{
    archive::Archive,
    compiler::{Process, STACK_BYTES},
    component,
    core::{self, contract::Contract},
    engine::Shared,
    inspect::{self, Compiled, Linkers},
    outbound, proxy_wasm,
};
use foldhash::HashMap;
use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, mpsc},
    thread,
};
use tidegate_artefact::Native;
use tidegate_policy::{
    plugin::Digest,
    publication::{Module, Unread},
};
use wasmtime::component::Linker;

/// Compiled modules. Used by the control plane only; workers hold what they run.
pub(super) struct Library {
    shared: Arc<Shared>,
    linkers: Arc<Linkers>,
    shelf: Mutex<Shelf>,
    /// What outlives the process, where there is a place for it.
    archive: OnceLock<Archive>,
    /// The program that compiles modules in processes of their own; without one that is done here.
    program: OnceLock<PathBuf>,
    compilers: Arc<Compilers>,
}

/// What becomes of a module whose turn to be compiled has not come, since every compiler is at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// It is refused: whoever uploads it can try again.
    Now,
    /// It waits: what is published has nobody who would try again.
    Wait,
}

/// Why a module is not compiled.
#[derive(Debug, Clone)]
pub(super) enum NotCompiled {
    /// Its bytes are not to be had.
    Unread(Unread),
    /// Every reason to refuse it, each a sentence for the operator.
    Refused(Vec<String>),
}

impl NotCompiled {
    pub(super) fn reasons(self) -> Vec<String> {
        match self {
            Self::Unread(unread) => vec![unread.to_string()],
            Self::Refused(reasons) => reasons,
        }
    }
}

impl From<Vec<String>> for NotCompiled {
    fn from(reasons: Vec<String>) -> Self {
        Self::Refused(reasons)
    }
}

impl From<Unread> for NotCompiled {
    fn from(unread: Unread) -> Self {
        Self::Unread(unread)
    }
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

/// How many compilers are at work.
#[derive(Default)]
struct Compilers {
    busy: Mutex<usize>,
    done: Condvar,
}

/// A compiler that is at work, counted until it ends.
struct Compiler(Arc<Compilers>);

impl Drop for Compiler {
    fn drop(&mut self) {
        *self.0.busy() -= 1;
        self.0.done.notify_one();
    }
}

impl Compilers {
    fn busy(&self) -> MutexGuard<'_, usize> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Library {
    pub(super) fn open(shared: Arc<Shared>) -> wasmtime::Result<Self> {
        let mut linker = Linker::new(&shared.engine);
        component::link(&mut linker)?;
        outbound::link(&mut linker)?;
        let linkers = Linkers {
            component: linker,
            core: core::linker(&shared.engine)?,
            contract: Contract::read()?,
            proxy: proxy_wasm::Linkage::new(&shared.engine)?,
        };
        Ok(Self {
            shared,
            linkers: Arc::new(linkers),
            shelf: Mutex::default(),
            archive: OnceLock::new(),
            program: OnceLock::new(),
            compilers: Arc::default(),
        })
    }

    /// Keeps what is compiled in this data directory from now on, and takes from there what was compiled before.
    pub(super) fn keep_in(&self, data_dir: &Path) -> io::Result<()> {
        let archive = Archive::open(data_dir, self.shared.limits, Arc::clone(&self.shared.metrics))?;
        // One that is open already goes on.
        let _ = self.archive.set(archive);
        Ok(())
    }

    /// Compiles in processes of their own from now on, which `program` is asked for.
    pub(super) fn compile_apart(&self, program: PathBuf) {
        // One that is known already is as good.
        let _ = self.program.set(program);
    }

    /// The module, compiled now unless it was already; its bytes are only read for that.
    pub(super) fn compiled(&self, module: &Module, turn: Turn) -> Result<Arc<Compiled>, NotCompiled> {
        let digest = module.digest;
        if let Some(compiled) = self.find(digest) {
            return Ok(compiled);
        }
        if let Some(compiled) = self.unarchive(digest) {
            return Ok(self.shelve(digest, compiled));
        }
        let (native, compiled) = self.compile(digest, module.read()?, turn)?;
        let compiled = self.shelve(digest, compiled);
        if let Some(archive) = self.archive.get() {
            archive.keep(digest, &native, |kept| self.in_use(kept));
        }
        Ok(compiled)
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, digest: Digest) -> Option<Arc<Compiled>> {
        let mut shelf = self.shelf();
        shelf.uses += 1;
        let used = shelf.uses;
        let volume = shelf.modules.get_mut(&digest)?;
        volume.used = used;
        Some(Arc::clone(&volume.compiled))
    }

    /// What was compiled in an earlier life, if it is still a filter of today's contract.
    fn unarchive(&self, digest: Digest) -> Option<Compiled> {
        let native = self.archive.get()?.find(&self.shared.engine, digest)?;
        inspect::ready(&self.shared.engine, &self.linkers, &native).ok()
    }

    fn in_use(&self, digest: Digest) -> bool {
        self.shelf().modules.get(&digest).is_some_and(|volume| Arc::strong_count(&volume.compiled) > 1)
    }

    /// Keeps a module, and lets go of those used longest ago that no route runs, above the limit. Where another thread was
    /// faster, its module is the one that everybody shares.
    fn shelve(&self, digest: Digest, compiled: Compiled) -> Arc<Compiled> {
        let mut shelf = self.shelf();
        let used = shelf.uses;
        let volume = shelf.modules.entry(digest).or_insert_with(|| Volume { compiled: Arc::new(compiled), used });
        let compiled = Arc::clone(&volume.compiled);
        let mut idle: Vec<_> = shelf
            .modules
            .iter()
            .filter(|(_, volume)| Arc::strong_count(&volume.compiled) == 1)
            .map(|(kept, volume)| (volume.used, *kept))
            .collect();
        idle.sort_unstable();
        let surplus = idle.len().saturating_sub(self.shared.limits.compiled);
        for (_, kept) in idle.into_iter().take(surplus) {
            shelf.modules.remove(&kept);
        }
        compiled
    }

    /// A compiler, when it is this module's turn.
    fn compiler(&self, turn: Turn) -> Result<Compiler, String> {
        let limits = self.shared.limits;
        let mut busy = self.compilers.busy();
        if turn == Turn::Wait {
            let waited = self.compilers.done.wait_timeout_while(busy, limits.compile, |busy| *busy >= limits.compilers);
            (busy, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        if *busy >= limits.compilers {
            return Err(format!(
                "{busy} modules are being compiled, which is the limit (setting filter_compilers); try again later"
            ));
        }
        *busy += 1;
        Ok(Compiler(Arc::clone(&self.compilers)))
    }

    /// Compiles on a thread of its own, so that a module that takes too long can be given up on. A process is ended then;
    /// what is done here cannot be, so it goes on counting against the number of compilers until it ends.
    fn compile(&self, digest: Digest, bytes: Arc<[u8]>, turn: Turn) -> Result<(Native, Compiled), Vec<String>> {
        let limits = self.shared.limits;
        let refused = |reason: String| {
            self.shared.metrics.compile_refused.add(1);
            vec![reason]
        };
        let compiler = self.compiler(turn).map_err(refused)?;
        let (done, outcome) = mpsc::sync_channel(1);
        let (shared, linkers) = (Arc::clone(&self.shared), Arc::clone(&self.linkers));
        let (program, process) = (self.program.get().cloned(), Process::default());
        let ending = process.clone();
        thread::Builder::new()
            .name("filter-compiler".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let _compiler = compiler;
                let native = match program {
                    Some(program) => process.compile(&program, &shared.engine, &shared.limits, digest, &bytes),
                    None => inspect::compile(&shared.engine, &shared.limits, &bytes),
                };
                let compiled = native.and_then(|native| {
                    let ready = inspect::ready(&shared.engine, &linkers, &native)?;
                    Ok((native, ready))
                });
                // Nobody may be waiting any more.
                let _ = done.send(compiled);
            })
            .map_err(|error| refused(format!("no thread could be started to compile it: {error}; try again later")))?;
        match outcome.recv_timeout(limits.compile) {
            Ok(compiled) => {
                self.shared.metrics.compiled.add(1);
                compiled
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                ending.end();
                let seconds = limits.compile.as_secs();
                Err(refused(format!(
                    "compiling it took longer than {seconds} s (setting filter_compile_timeout); make it smaller"
                )))
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                Err(vec!["the compiler failed on it; rebuild it with a current toolchain".to_owned()])
            }
        }
    }
}
