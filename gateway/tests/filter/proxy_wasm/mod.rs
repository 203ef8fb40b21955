//! Proxy-Wasm modules, written as text, as routes run them.

mod lifecycle;
mod messages;
mod upload;
mod written;
