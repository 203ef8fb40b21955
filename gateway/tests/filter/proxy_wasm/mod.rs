//! Proxy-Wasm modules, written as text, as routes run them.

mod calls;
mod driven;
mod lifecycle;
mod messages;
mod misuse;
mod pauses;
mod random;
mod seeds;
mod shared;
mod upload;
mod written;
