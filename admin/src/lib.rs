//! The control plane: the REST API, the store, and what is published to the data plane.

mod auth;
mod clock;
mod credential;
mod document;
mod plane;
mod problem;
mod seal;
mod secret_file;
mod settings;
mod start;

pub use auth::{Role, mint_token};
pub use plane::{DataPlane, Inspection};
pub use settings::Settings;
pub use start::StartError;
