//! The json-grpc filter.
#![expect(dead_code, reason = "called by the glue, which waits for the contract of bodies")]

#[cfg(test)]
mod calls;
mod config;
mod deadline;
mod descriptor;
mod fields;
mod framing;
#[cfg(test)]
mod mapping;
mod problem;
mod request;
mod response;
mod routes;
#[cfg(test)]
mod samples;
mod scalar;
mod schema;
mod status;
mod stream;
mod time;
mod wire;
