//! What the control plane asks of the data plane, and nothing more.

use tidegate_policy::{publication::Module, route::FilterUse};

/// The data plane, as the control plane sees it. Called from blocking threads, so it may take its time.
pub trait DataPlane: Send + Sync + 'static {
    /// Compiles and inspects an uploaded module, or says every reason to refuse it.
    fn inspect(&self, bytes: &[u8]) -> Result<Inspection, Vec<String>>;
    /// Starts a filter as a route uses it; the error is the filter's own message.
    fn configure(&self, module: &Module, used: &FilterUse) -> Result<(), String>;
    /// Its metrics in the Prometheus text format.
    fn metrics(&self) -> String;
    /// Whether it takes traffic, or why not.
    fn ready(&self) -> Result<(), String>;
}

/// What inspection found in a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// The world, such as `tidegate:filter/filter@0.1.0`.
    pub world: String,
    /// The host interfaces it imports.
    pub imports: Vec<String>,
}
