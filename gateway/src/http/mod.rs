//! HTTP on both sides. `exchange` is the spine; the rest is what it calls, named for its stage.

pub mod body;
pub mod clock;
pub mod downstream;
pub mod drain;
pub mod exchange;
pub mod forward;
pub mod h1;
pub mod limits;
mod recorded;
pub mod reply;
pub mod target;

/// A request in the making, whatever version of HTTP it came by.
pub type Request = ::http::Request<body::Body>;
/// A response in the making.
pub type Response = ::http::Response<body::Body>;
