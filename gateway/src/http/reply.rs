//! The one place that turns a fault into an answer.

use super::Response;
use crate::fault::Fault;

/// The answer for `fault`: its status, `x-tidegate-reason`, and a problem+json body (RFC 9457); for a gRPC caller, 200
/// with the matching `grpc-status` and `grpc-message` as trailers-only.
pub fn to(_fault: &Fault, _request: &::http::request::Parts) -> Response {
    unimplemented!()
}
