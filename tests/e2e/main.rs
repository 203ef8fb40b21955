//! The end-to-end tests: the built gateway, driven over sockets by real peers. One file per scenario.
//!
//! They know the gateway's public interfaces and its files, and nothing of its insides. Run them with `make test`, or one of
//! them with `cargo nextest run -p tidegate-tests NAME` after `make build filters`.

mod addresses;
mod answers;
mod auditing;
mod authors;
mod beside_envoy;
mod bodies;
mod choosing_tls;
mod clients;
mod compiling;
mod credentials;
mod durability;
mod entries;
mod explain;
mod filters;
mod framing;
mod grpc_web;
mod holding;
mod hostility;
mod invariants;
mod json_grpc;
mod languages;
mod lifecycle;
mod listener;
mod load;
mod open_files;
mod origination;
mod phases;
mod protocol;
mod records;
mod redaction;
mod replacement;
mod rest;
mod retention;
mod secrets;
mod soap;
mod start;
mod suspended;
mod telemetry;
mod tunnels;
mod unasked;
