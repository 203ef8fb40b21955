//! What the callbacks answer: how the message goes on.

use crate::Reply;

/// What becomes of the message whose head was shown, and what more of it the filter wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flow {
    /// It goes on, with the changes made to its head. Nothing more of it is shown.
    Proceed,
    /// It goes on. The body passes unseen; trailers are shown.
    Trailers,
    /// The head goes on. The body is shown piece by piece, then trailers.
    Stream,
    /// The head stays here, and can be changed, until the filter forwards a piece of the body or the body ends. The body is
    /// shown piece by piece, then trailers. A message without a body is shown an empty one, with `end`, so that it can be
    /// given one; a response that cannot have one (to HEAD, with status 204, 205 or 304) is not held.
    Hold,
    /// Head and body stay here until the body is complete, up to the gateway's limit. They are shown once, in the callback for
    /// the body, with `end` unless there are trailers, which are shown then before anything goes on. Without a body as `Hold`.
    Buffer,
    /// It goes on, and the filter has nothing more to do with the exchange: no other callback comes, not even `on_log`.
    Done,
    /// The caller gets this answer in its place.
    Reply(Reply),
    /// The exchange ends without an answer: its connection is closed, or its stream reset.
    Reset,
}

/// What becomes of the piece of a body that is on offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BodyFlow {
    /// It goes on, and the head before it.
    Forward,
    /// The gateway keeps it, up to its limit, and offers it again with what comes next. When the body ends, it goes on.
    Hold,
    /// It is thrown away.
    Drop,
    /// It goes on, and nothing more of this message is shown, trailers included.
    SkipRest,
    /// The caller gets this answer. Once the response's head has gone to the caller it is too late for one: the exchange fails.
    Reply(Reply),
    /// The exchange ends without an answer, or in the middle of one.
    Reset,
}

/// What becomes of trailers, and of what was held before them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrailerFlow {
    /// They go on.
    Forward,
    /// As [`BodyFlow::Reply`].
    Reply(Reply),
    /// As [`BodyFlow::Reset`].
    Reset,
}
