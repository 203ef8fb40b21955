//! Proxy-Wasm modules, written as text, as routes run them.

mod driven;
mod lifecycle;
mod messages;
mod pauses;
mod upload;
mod written;
