//! The WebAssembly host: compiles modules, keeps one instance of each filter per worker, and runs chains of them on
//! exchanges. A filter that traps, spins or grows costs its own exchange and nothing else.

use crate::{fault::Fault, http::Response, record::OpenRecord};

use tidegate_policy::{Identity, Name, Permit, publication::Module};

/// The process-wide half: the engine, the linker, compiled modules by digest, and the epoch ticker.
#[derive(Debug)]
pub struct Host {}

/// What inspection found in a module.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// The world, such as `tidegate:filter/filter@0.1.0`.
    pub world: String,
    /// The host interfaces it imports.
    pub imports: Vec<String>,
}

/// The chain of each route that has filters, compiled and configured, by route name.
#[derive(Debug, Default)]
pub struct Chains {
    // HashMap<Name, Arc<Chain>>: helper F
}

/// The per-worker half: live instances.
#[derive(Debug, Default)]
pub struct Instances {}

/// One exchange on its way through a route's chain. Dropping it ends the filters' own exchange resources.
#[derive(Debug)]
pub struct Run {}

/// What the chain wants done with a message whose head it has seen.
#[derive(Debug)]
pub enum Flow {
    /// It goes on.
    Continue,
    /// This response is sent in its place. The reason is `FilterDenied` for status 400 and above.
    Reply(Response),
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
}

impl Host {
    /// Starts the engine and its ticker.
    pub fn start(_limits: Limits) -> Result<Self, wasmtime::Error> {
        unimplemented!()
    }

    /// Compiles and inspects uploaded bytes. Every reason to refuse them is a sentence for the operator.
    pub fn inspect(&self, _bytes: &[u8]) -> Result<Inspection, Vec<String>> {
        unimplemented!()
    }

    /// Starts a filter on a canary instance with `config`, as a route would: the filter's own `configure` decides.
    pub fn configure(&self, _module: &Module, _config: &[u8]) -> Result<(), String> {
        unimplemented!()
    }
}

/// Limits on what a filter may use. Each has a setting and a metric.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Linear memory of one instance, in bytes.
    pub memory_bytes: usize,
    /// Table elements of one instance.
    pub table_elements: usize,
    /// Time for one callback.
    pub callback: std::time::Duration,
    /// Bytes a filter may hand to the host in one call.
    pub hostcall_bytes: usize,
    /// Uploaded size.
    pub module_bytes: usize,
}

impl Chains {
    /// Compiles the chains of `permit`-able routes; what did not change since `before` is shared.
    pub fn prepare(
        _host: &Host,
        _snapshot: &tidegate_policy::Snapshot,
        _modules: &std::collections::BTreeMap<Name, Module>,
        _before: &Self,
    ) -> Self {
        unimplemented!()
    }
}

impl Instances {
    /// Begins a run of the permit's route's chain; `None` where it has no filters.
    pub fn begin(&self, _chains: &Chains, _facts: Facts<'_>) -> Option<Result<Run, Fault>> {
        unimplemented!()
    }
}

impl Run {
    /// Shows the request's head to every filter in order. `end` says that no body follows.
    pub fn on_request(&mut self, _head: &mut ::http::request::Parts, _end: bool) -> Result<Flow, Fault> {
        unimplemented!()
    }

    /// Shows the response's head to every filter in reverse order.
    pub fn on_response(&mut self, _head: &mut ::http::response::Parts, _end: bool) -> Result<Flow, Fault> {
        unimplemented!()
    }

    /// Runs `on-log` and writes what each filter did into the record.
    pub fn finish(self, _record: &mut OpenRecord) {
        unimplemented!()
    }
}
