//! The API over real sockets, with a real database in a temporary directory. Only the data plane is stood in for.

mod harness;

mod collections;
mod exchanges;
mod secrets;
mod start;
