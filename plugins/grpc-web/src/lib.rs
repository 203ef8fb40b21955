//! The gRPC-Web filter's glue.

mod call;
mod config;
mod frames;
mod media;
mod origins;
mod status;
mod text;
