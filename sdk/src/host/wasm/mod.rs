//! Calls into the gateway, by what they concern.

mod gateway;
mod message;
mod upstream;

pub(crate) use gateway::*;
pub(crate) use message::*;
pub(crate) use upstream::*;
