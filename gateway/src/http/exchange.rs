//! The life of one exchange, from its request's head to its record: the spine of the data plane.

use super::{Request, Response};
use crate::{listen::Peer, stream::Stream, worker::Worker};
use std::{pin::Pin, rc::Rc};

/// What the caller gets.
pub struct Answer {
    /// The response; its body closes the record when its last byte has gone, or when it is dropped.
    pub response: Response,
    /// For a CONNECT that was answered 2xx and an upgrade that was answered 101: who takes the connection over. It is
    /// handed the downstream stream and the bytes already read from it.
    pub takeover: Option<Takeover>,
}

/// Takes a downstream connection over once its answer has been written.
pub type Takeover = Box<dyn FnOnce(Stream, bytes::Bytes) -> Pin<Box<dyn Future<Output = ()>>>>;

/// Handles one request. Never fails: what goes wrong becomes the answer, and exactly one record is written.
pub async fn exchange(_worker: &Rc<Worker>, _peer: &Rc<Peer>, _request: Request) -> Answer {
    unimplemented!()
}
