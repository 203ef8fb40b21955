//! The same Proxy-Wasm modules and the same requests through a real Envoy and through the gateway: what the caller gets, what the
//! upstream sees and what the filter is shown must be the same. `make envoy` installs Envoy; where it is missing, a test says so and
//! passes.

mod answers;
mod assembly;
mod bodies;
mod calls;
mod facts;
mod faults;
mod heads;
mod outcome;
mod pauses;
mod replies;
mod shape;
mod sides;
