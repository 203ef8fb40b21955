//! Metrics and traces.

pub mod counter;

pub use counter::{Counter, Gauge};
