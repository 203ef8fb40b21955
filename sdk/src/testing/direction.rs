//! One direction of a scripted exchange: what is held of its message, what is shown to the filter, what has gone on.
//!
//! Pure: the callbacks are made by the exchange, which tells what they answered.

use super::Received;
use crate::{BodyFlow, Flow, Reply, TrailerFlow, host::BODY_BYTES};
use http::{HeaderMap, header};

#[derive(Debug, Default)]
pub(super) struct Direction {
    pub(super) stage: Stage,
    pub(super) interest: Interest,
    /// The head, as long as it is here.
    pub(super) head: Option<HeaderMap>,
    /// What is held of the body.
    pub(super) held: Vec<u8>,
    /// What the filter let go of while the head still waits for trailers to be shown.
    passing: Vec<u8>,
    pub(super) received: Option<Received>,
    /// Headers that go before the head does: those that the gateway writes itself.
    pub(super) replaced: Vec<String>,
}

/// How far the script has come.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    #[default]
    Waiting,
    Open,
    Ended,
}

/// What of the rest of the message the filter is shown.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interest {
    #[default]
    Nothing,
    Trailers,
    Pieces,
    Whole,
}

/// What comes behind a piece of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    More,
    Trailers,
    End,
}

/// What follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    Body,
    /// No body, but a filter that holds the head may give it one.
    RoomForABody,
    Nothing,
}

/// What ends an exchange before its time.
#[derive(Debug)]
pub(super) enum Stop {
    Reply(Reply),
    Reset,
    TooLarge,
}

impl Direction {
    /// The head was shown.
    pub(super) fn after_head(&mut self, flow: Flow, after: After) -> Result<(), Stop> {
        let (interest, held) = match flow {
            Flow::Proceed | Flow::Done => (Interest::Nothing, false),
            Flow::Trailers => (Interest::Trailers, false),
            Flow::Stream => (Interest::Pieces, false),
            Flow::Hold => (Interest::Pieces, true),
            Flow::Buffer => (Interest::Whole, true),
            Flow::Reply(reply) => return Err(Stop::Reply(reply)),
            Flow::Reset => return Err(Stop::Reset),
        };
        self.interest = interest;
        if !held || after == After::Nothing {
            self.forward();
        }
        self.ends(after == After::Nothing || (after == After::RoomForABody && !held));
        Ok(())
    }

    /// A piece of the body has come. True where it is now to be shown, with what is held.
    pub(super) fn takes(&mut self, piece: &[u8], end: bool) -> Result<bool, Stop> {
        if !self.held.is_empty() && self.held.len() + piece.len() > BODY_BYTES {
            return Err(Stop::TooLarge);
        }
        self.held.extend_from_slice(piece);
        match self.interest {
            Interest::Pieces => Ok(true),
            Interest::Whole => Ok(end),
            Interest::Nothing | Interest::Trailers => {
                self.forward();
                self.ends(end);
                Ok(false)
            }
        }
    }

    /// A piece was shown.
    pub(super) fn after_piece(&mut self, flow: BodyFlow, next: Next) -> Result<(), Stop> {
        match flow {
            BodyFlow::Forward if next == Next::Trailers => self.passing.append(&mut self.held),
            BodyFlow::Forward => self.forward(),
            BodyFlow::Hold => {}
            BodyFlow::Drop => self.held.clear(),
            BodyFlow::SkipRest => {
                self.interest = Interest::Nothing;
                self.forward();
            }
            BodyFlow::Reply(reply) => return Err(Stop::Reply(reply)),
            BodyFlow::Reset => return Err(Stop::Reset),
        }
        self.ends(next == Next::End);
        Ok(())
    }

    /// Trailers were shown, or passed unseen.
    pub(super) fn after_trailers(&mut self, flow: TrailerFlow, trailers: HeaderMap) -> Result<(), Stop> {
        match flow {
            TrailerFlow::Forward => {}
            TrailerFlow::Reply(reply) => return Err(Stop::Reply(reply)),
            TrailerFlow::Reset => return Err(Stop::Reset),
        }
        self.forward();
        if let Some(received) = &mut self.received {
            received.trailers = Some(trailers).filter(|trailers| !trailers.is_empty());
        }
        self.ends(true);
        Ok(())
    }

    /// Lets go of what is held.
    fn forward(&mut self) {
        if let Some(mut headers) = self.head.take() {
            headers.remove(header::CONTENT_LENGTH);
            for name in &self.replaced {
                headers.remove(name);
            }
            self.received = Some(Received { headers, ..Received::default() });
        }
        if let Some(received) = &mut self.received {
            received.body.append(&mut self.passing);
            received.body.append(&mut self.held);
        }
    }

    /// What is still held when the message ends goes on.
    fn ends(&mut self, end: bool) {
        if end {
            self.forward();
            self.stage = Stage::Ended;
            if let Some(received) = &mut self.received {
                received.complete = true;
            }
        }
    }
}
