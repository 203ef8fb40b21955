//! Metrics and traces: what modules count, read as one page; trace context; spans; their export.

pub mod counter;
pub mod exchanges;
pub mod modules;
pub mod otlp;
pub mod page;
pub mod process;
pub mod registry;
pub mod server;
pub mod spans;
pub mod trace;

pub use counter::{Counter, Gauge};
pub use registry::Registry;
