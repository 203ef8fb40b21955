//! The control plane: the REST API, the store, and what is published to the data plane.
//!
//! It owns everything registered and who may change it. It never sees an exchange: records come to it, decisions do not.

mod api;
mod auth;
mod clock;
mod control;
mod credential;
mod document;
mod metrics;
mod noun;
mod openapi;
mod plane;
mod problem;
mod records;
mod router;
mod seal;
mod secret_file;
mod serve;
mod settings;
mod start;
mod store;
mod write;

pub use auth::{Role, mint_token};
pub use control::{ControlPlane, open};
pub use metrics::{Counter, Metrics};
pub use plane::{DataPlane, Inspection};
pub use settings::Settings;
pub use start::StartError;
