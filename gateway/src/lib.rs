//! The data plane: accepts what pods forward, decides, runs filters, originates TLS, forwards, records.
//!
//! One OS thread per core does all of it for its own connections and shares nothing mutable with the others. This crate
//! never reads the database and never writes policy; it is handed publications and hands back records.

pub mod background;
pub mod credentials;
mod descriptors;
pub mod fault;
pub mod filter;
pub mod http;
pub mod identity;
pub mod listen;
pub mod live;
pub mod plane;
pub mod record;
pub mod settings;
pub mod stream;
pub mod telemetry;
pub mod trial;
pub mod tunnel;
pub mod upstream;
pub mod worker;
