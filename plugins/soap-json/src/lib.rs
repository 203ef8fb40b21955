//! The SOAP filter's glue.

mod answer;
mod compose;
mod config;
mod convert;
mod fault;
mod hints;
mod json;
mod names;
mod operations;
mod parse;
mod problem;
mod service;
