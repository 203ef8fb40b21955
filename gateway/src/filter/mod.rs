//! The WebAssembly host: compiles modules, keeps one instance of each filter per worker, and runs chains of them on
//! exchanges. A filter that traps, spins or grows costs its own exchange and nothing else.
//!
//! In order: `inspect` and `library` turn uploaded bytes into compiled modules, `chain` puts them on routes, `slot` keeps
//! instances, each an `instance` of a `guest`; `run` takes an exchange through them, a `passage` in each direction, whose
//! bodies are `filtered`. `message`, `attributes`, `audit`, `calls` and `outbound` are what filters may call, about what they are `lent` or beyond it.

mod attributes;
mod audit;
mod bindings;
mod calls;
mod chain;
mod engine;
mod filtered;
mod guest;
mod headers;
mod inspect;
mod instance;
mod lent;
mod library;
mod limits;
mod message;
mod outbound;
mod passage;
mod reply;
mod run;
mod slot;
mod state;
mod time;

pub use attributes::Closing;
pub use chain::Chains;
pub use filtered::Filtered;
pub use inspect::Inspection;
pub use limits::{Limits, Metrics};
pub use outbound::{CallError, Errand, Errands};
pub use run::{Outcome, Run};
pub use slot::Instances;

use crate::http::reply::Dialect;
use std::{fmt, sync::Arc};
use tidegate_policy::{Identity, Permit, plugin::Digest, publication::Module};

/// The process-wide half: the engine, the linker, compiled modules by digest, and the epoch ticker.
pub struct Host {
    shared: Arc<engine::Shared>,
    library: library::Library,
}

/// What the filters may know of the exchange.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Its id.
    pub id: u64,
    /// The caller.
    pub identity: &'a Identity,
    /// The permit.
    pub permit: &'a Permit,
    /// How the caller reads failures.
    pub dialect: Dialect,
}

impl Host {
    /// Starts the engine and its ticker.
    pub fn start(limits: Limits) -> Result<Self, wasmtime::Error> {
        let shared = Arc::new(engine::Shared::start(limits)?);
        Ok(Self { library: library::Library::open(Arc::clone(&shared))?, shared })
    }

    /// Compiles and inspects uploaded bytes: a component, or a core module that holds its component type. Every reason
    /// to refuse them is a sentence for the operator.
    pub fn inspect(&self, bytes: &[u8]) -> Result<Inspection, Vec<String>> {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest.as_ref());
        self.library.compiled(Digest::new(sha256), bytes.into()).map(|compiled| compiled.inspection.clone())
    }

    /// Starts a filter on a canary instance with `config`, as a route would: the filter's own `configure` decides.
    pub fn configure(&self, module: &Module, config: &[u8]) -> Result<(), String> {
        let compiled = self.compiled(module).map_err(|reasons| reasons.join("; "))?;
        let filter = chain::Filter::canary(&self.shared, compiled, module.digest, config);
        instance::try_start(&filter)
    }

    /// What is counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.shared.metrics
    }

    fn compiled(&self, module: &Module) -> Result<Arc<inspect::Compiled>, Vec<String>> {
        self.library.compiled(module.digest, Arc::clone(&module.bytes))
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("limits", &self.shared.limits).finish_non_exhaustive()
    }
}
