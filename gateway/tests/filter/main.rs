//! Filters as they are uploaded, run by the host as routes run them.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking; clippy knows that only inside of test functions")]

mod archive;
mod company;
mod course;
mod forms;
mod hostile;
mod interpreter;
mod lifecycle;
mod misuse;
mod numbers;
mod own;
mod pieces;
mod proxy_wasm;
mod random;
mod rehearsal;
mod replacement;
mod script;
mod seeds;
mod setting;
mod steps;
mod upload;
mod whole;
mod written;
