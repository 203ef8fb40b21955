//! Proxy-Wasm modules, written as text, as routes run them.

mod calls;
pub(crate) mod driven;
mod lifecycle;
mod messages;
mod misuse;
mod pauses;
pub(crate) mod random;
mod shared;
mod upload;
pub(crate) mod written;
