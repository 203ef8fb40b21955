//! The vocabulary of the gateway and its decision, as pure values.
//!
//! This crate owns every noun an operator can register, the canonical form of names and addresses, and the one
//! function that says whether an exchange may leave. It never reads a file, a socket, a clock or a database.

#![warn(missing_docs)]

pub mod address;
pub mod answer;
pub mod credential;
pub mod decide;
pub mod duration;
pub mod exchange;
mod filter_use;
pub mod grants;
pub mod host;
pub mod identity;
pub mod issuer;
pub mod mistake;
pub mod name;
pub mod path;
pub mod plugin;
pub mod publication;
mod query;
pub mod reason;
pub mod route;
pub mod rule;
#[cfg(feature = "openapi")]
mod schema;
pub mod selector;
pub mod service;
pub mod snapshot;
pub mod target;
pub mod workload;

pub use answer::{Denial, Permit};
pub use host::{Host, HostPattern};
pub use identity::Identity;
pub use mistake::Mistake;
pub use name::Name;
pub use publication::Publication;
pub use reason::Reason;
pub use snapshot::{Rows, Snapshot};
pub use target::{Request, Target};
