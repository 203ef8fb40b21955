//! The end-to-end harness: the built gateway as a process, and everything that stands around it.
//!
//! It owns the peers a gateway has (callers, external APIs, a name server, a collector, an issuer of tokens), all real, all
//! on loopback ports that the system picks. It never reaches into the gateway: what a test learns, it learns over a socket,
//! from the process's output, or from its files. Waiting is always for a condition, with a limit and a word for what failed.

pub mod api;
pub mod certificates;
pub mod collector;
pub mod dns;
pub mod entry;
pub mod envoy;
pub mod gateway;
pub mod h2;
pub mod harbour;
pub mod peers;
pub mod plugins;
pub mod raw;
pub mod rest;
pub mod soap;
pub mod tokens;
pub mod wait;
pub mod wire;
pub mod world;

pub use gateway::{Gateway, Options};
pub use raw::Raw;
pub use rest::Rest;
pub use wait::until;
pub use world::World;
