//! The WebAssembly host: compiles modules, keeps one instance of each filter per worker, and runs chains of them on
//! exchanges. A filter that traps, spins or grows costs its own exchange and nothing else.
//!
//! In order: `inspect`, `library` and `archive` turn uploaded bytes into compiled modules, `rehearsal` tries them, `chain`
//! puts them on routes. `slot` keeps a worker's instances, each an `instance` of a `guest`, `standing` starts those that wait
//! for no exchange, and `sweep` lets them go. `run` takes an exchange through them, a `passage` in each direction, whose bodies
//! are `filtered`, or a tunnel by a `conduit`.
//!
//! A typed filter is a core module (`core`) or a `component`, which differ in how the guest is called and calls. What it may
//! do is the same for both: `message`, `attributes`, `upstream`, `audit`, `calls`, `shared` and `outbound`, about what it is
//! `lent` or beyond it, and `holdings` (`kv`, `instruments`) is what outlives instances. `proxy_wasm` is all of this for the
//! other filters, from the `Seat` inwards.

mod archive;
mod attributes;
mod audit;
mod bindings;
mod calls;
mod chain;
pub mod compiler;
mod component;
mod core;
mod engine;
mod filtered;
mod guest;
pub(crate) mod headers;
mod holdings;
mod inspect;
mod instance;
mod instruments;
mod kv;
mod lent;
mod library;
mod limits;
mod message;
mod names;
mod outbound;
mod passage;
mod proxy_wasm;
mod rehearsal;
mod reply;
mod run;
mod share;
mod shared;
mod slot;
mod standing;
mod state;
mod sweep;
mod time;
mod upstream;

pub use attributes::Closing;
pub use chain::Chains;
pub use filtered::Filtered;
pub use inspect::Inspection;
pub use limits::{Limits, Metrics};
pub use outbound::{Answer, CallError, Collected, Errand, Errands, Received, Sent};
pub use run::{Answering, Conduit, Ended, Run, Way};
pub use share::Held;
pub use slot::Instances;

use crate::{http::reply::Dialect, live::Live, telemetry::page::Page};
use http::{Method, Request, Uri, Version};
use library::{NotCompiled, Turn};
use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};
use tidegate_policy::{Identity, Permit, plugin::Digest, publication::Module, route::FilterUse};

/// The process-wide half: the engine, the linker, compiled modules by digest, and the epoch ticker.
pub struct Host {
    shared: Arc<engine::Shared>,
    modules: library::Library,
}

/// What the filters may know of the exchange.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Its id.
    pub id: u64,
    /// The caller.
    pub identity: &'a Identity,
    /// The request's line as the caller wrote it; none of what opens a tunnel.
    pub asked: Option<Asked<'a>>,
    /// The permit.
    pub permit: &'a Arc<Permit>,
    /// What is in force.
    pub live: &'a Live,
    /// How the caller reads failures.
    pub dialect: Dialect,
    /// Where its connection comes from.
    pub peer: SocketAddr,
    /// Where its connection was accepted.
    pub local: SocketAddr,
}

/// A request's line.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its target.
    pub uri: &'a Uri,
    /// Its version.
    pub version: Version,
}

impl<'a> Asked<'a> {
    /// The line of this request.
    pub fn of<B>(request: &'a Request<B>) -> Self {
        Self { method: request.method(), uri: request.uri(), version: request.version() }
    }
}

impl Host {
    /// Starts the engine and its ticker.
    pub fn start(limits: Limits) -> Result<Self, wasmtime::Error> {
        let shared = Arc::new(engine::Shared::start(limits)?);
        Ok(Self { modules: library::Library::open(Arc::clone(&shared))?, shared })
    }

    /// Compiles and inspects uploaded bytes: a component, or a core module that holds its component type. Every reason
    /// to refuse them is a sentence for the operator.
    pub fn inspect(&self, bytes: &[u8]) -> Result<Inspection, Vec<String>> {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest.as_ref());
        self.compiled(&Module::here(Digest::new(sha256), bytes), Turn::Now)
            .map(|compiled| compiled.inspection.clone())
            .map_err(NotCompiled::reasons)
    }

    /// Starts a filter on a canary instance as a route uses it: the filter's own `configure` decides.
    pub fn configure(&self, module: &Module, used: &FilterUse) -> Result<(), String> {
        let compiled = self.compiled(module, Turn::Now).map_err(|refused| refused.reasons().join("; "))?;
        compiled.serves(used.traffic)?;
        rehearsal::try_start(&chain::Filter::canary(&self.shared, compiled, chain::Made::at(used, module)))
    }

    /// Keeps compiled modules in this data directory, which is the gateway's own by now, and takes from there what an
    /// earlier run compiled. Where that cannot be, a start compiles everything.
    pub fn keep_in(&self, data_dir: &Path) {
        if let Err(error) = self.modules.keep_in(data_dir) {
            let data_dir = data_dir.display();
            tracing::warn!(%data_dir, %error, "compiled filters cannot be kept; the next start compiles them again");
        }
    }

    /// Compiles modules in processes of their own from now on. `program` is asked for them, with the command
    /// [`compiler::COMMAND`].
    pub fn compile_apart(&self, program: PathBuf) {
        self.modules.compile_apart(program);
    }

    /// What is counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.shared.metrics
    }

    /// Writes what plugins hold and count to `page`.
    pub fn write(&self, page: &mut Page) {
        self.shared.holdings.write(page);
    }

    fn compiled(&self, module: &Module, turn: Turn) -> Result<Arc<inspect::Compiled>, NotCompiled> {
        self.modules.compiled(module, turn)
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("limits", &self.shared.limits).finish_non_exhaustive()
    }
}
