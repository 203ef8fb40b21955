//! One direction of an exchange: its body passes the detectors piece by piece. Masked pieces go on; of a body that may be refused
//! none does before the last one has been looked at.

use crate::{
    config::{Action, Checked, Unreadable},
    reading::{Beginning, Head, Reader, Reading},
};
use std::rc::Rc;
use tidegate_sdk::{Body, BodyFlow, Flow, Headers, Reply, StatusCode, TrailerFlow, Trailers, attributes::Value, log};

/// What a sender said of the bytes of a body (RFC 9530, and its predecessors), which is not true of a masked one.
const DIGESTS: [&str; 4] = ["content-digest", "repr-digest", "digest", "content-md5"];
/// Bytes that are masked at a time. A mask can be some hundred times as long as what it stands for.
const AT_A_TIME: usize = 4 << 10;
/// Most bytes that one piece of a body may become, whatever the gateway holds for a filter, which has little memory itself.
const MASKED: usize = 4 << 20;
/// `PERMISSION_DENIED`, for gRPC callers.
const GRPC_PERMISSION_DENIED: u32 = 7;

/// What is done with the messages of one direction.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) checked: Rc<Checked>,
    pub(crate) name: &'static str,
    pub(crate) action: Action,
    /// What is answered in the place of one that is refused.
    pub(crate) status: StatusCode,
}

/// What of a body follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Follows {
    Nothing,
    /// A part of something larger (RFC 9110 section 14).
    Part,
    Whole,
}

/// The message of one exchange.
#[derive(Debug, Default)]
pub(crate) struct Direction {
    reader: Option<Reader>,
    beginning: Beginning,
    /// How much of a body that is held was looked at.
    seen: u64,
    /// Why its body cannot be looked at, once that is known.
    unreadable: Option<&'static str>,
    refused: bool,
    masked: bool,
}

impl Message {
    pub(crate) fn head(&self, direction: &mut Direction, head: &mut Headers<'_>, follows: Follows) -> Flow {
        if follows == Follows::Nothing || self.action == Action::Pass {
            return Flow::Proceed;
        }
        let (content_types, codings) = (head.get_all("content-type"), head.get_all("content-encoding"));
        let reading = self.checked.reading(&Head { content_types, codings, partial: follows == Follows::Part });
        if let Reading::Unreadable(reason) = reading {
            return self.unreadable(direction, reason).map_or(Flow::Proceed, Flow::Reply);
        }
        direction.reader = Reader::new(&reading, self.action);
        match (&direction.reader, self.action) {
            (None, _) | (_, Action::Pass) => Flow::Proceed,
            (Some(_), Action::Refuse) => Flow::Hold,
            (Some(_), Action::Mask) => {
                let change = DIGESTS.iter().fold(head.change(), |change, name| change.remove(name));
                match change.apply() {
                    Ok(()) => Flow::Stream,
                    Err(error) => Flow::Reply(self.refusal(&format!("the {}'s digests cannot be removed: {error}", self.name))),
                }
            }
        }
    }

    pub(crate) fn piece(&self, direction: &mut Direction, body: &mut Body<'_>, end: bool) -> BodyFlow {
        let Some(reader) = direction.reader.as_mut().filter(|_| direction.unreadable.is_none()) else {
            return BodyFlow::Forward;
        };
        if self.action == Action::Refuse {
            return match self.judge(direction, body, end) {
                Some(reply) => BodyFlow::Reply(reply),
                None if end || direction.unreadable.is_some() => BodyFlow::Forward,
                None => BodyFlow::Hold,
            };
        }
        let bytes = body.bytes();
        let mut masked = Vec::with_capacity(bytes.len());
        match direction.beginning.unreadable(reader, &bytes) {
            None => {
                for piece in bytes.chunks(AT_A_TIME) {
                    reader.feed(&self.checked, piece, false, &mut masked);
                    if masked.len() > MASKED {
                        return self.unmasked(&format!("a piece of {} bytes would become more than {MASKED}", bytes.len()));
                    }
                }
                if end {
                    reader.feed(&self.checked, &[], true, &mut masked);
                }
            }
            Some(reason) => {
                // What is held back of its first byte goes on with the rest, if that does.
                reader.feed(&self.checked, &[], true, &mut masked);
                masked.extend_from_slice(&bytes);
                if let Some(reply) = self.unreadable(direction, reason) {
                    return BodyFlow::Reply(reply);
                }
            }
        }
        if masked == bytes {
            return BodyFlow::Forward;
        }
        direction.masked = direction.reader.iter().any(|reader| reader.findings(&self.checked).next().is_some());
        if masked.is_empty() && !end {
            return BodyFlow::Drop;
        }
        match body.replace(masked) {
            Ok(()) => BodyFlow::Forward,
            Err(error) => self.unmasked(&error.to_string()),
        }
    }

    /// The body cannot be masked, and part of it may have gone on.
    fn unmasked(&self, why: &str) -> BodyFlow {
        log::error(&format!("the {}'s body cannot be masked: {why}", self.name));
        BodyFlow::Reset
    }

    pub(crate) fn trailers(&self, direction: &mut Direction, trailers: &mut Trailers<'_>) -> TrailerFlow {
        let Some(reader) = direction.reader.as_mut().filter(|_| direction.unreadable.is_none()) else {
            return TrailerFlow::Forward;
        };
        if self.action == Action::Refuse {
            return match self.judge(direction, trailers.body(), true) {
                Some(reply) => TrailerFlow::Reply(reply),
                None => TrailerFlow::Forward,
            };
        }
        let mut rest = Vec::new();
        reader.feed(&self.checked, &[], true, &mut rest);
        direction.masked |= reader.findings(&self.checked).next().is_some();
        let appended = if rest.is_empty() { Ok(()) } else { trailers.body().append(rest) };
        let removed = DIGESTS.iter().fold(trailers.change(), |change, name| change.remove(name)).apply();
        match (appended, removed) {
            (Ok(()), Ok(())) => TrailerFlow::Forward,
            (appended, removed) => {
                log::error(&format!("the {}'s end cannot be masked: {appended:?}, {removed:?}", self.name));
                TrailerFlow::Reset
            }
        }
    }

    /// Looks at what has come since the last time of a body that is held; at its end, says what is answered if something was
    /// found.
    fn judge(&self, direction: &mut Direction, body: &Body<'_>, end: bool) -> Option<Reply> {
        let checked = &self.checked;
        let reader = direction.reader.as_mut()?;
        let mut unused = Vec::new();
        for piece in body.pieces_from(direction.seen) {
            direction.seen += piece.len() as u64;
            if let Some(reason) = direction.beginning.unreadable(reader, &piece) {
                return self.unreadable(direction, reason);
            }
            reader.feed(checked, &piece, false, &mut unused);
            unused.clear();
        }
        if !end {
            return None;
        }
        reader.feed(checked, &[], true, &mut unused);
        let found: Vec<_> = reader.findings(checked).map(|(detector, _)| detector).collect();
        direction.refused = !found.is_empty();
        direction.refused.then(|| self.refusal(&format!("the {}'s body holds {}", self.name, found.join(", "))))
    }

    /// The body cannot be looked at, for this reason: the answer, unless it passes all the same.
    fn unreadable(&self, direction: &mut Direction, reason: &'static str) -> Option<Reply> {
        direction.unreadable = Some(reason);
        direction.refused = self.checked.unreadable == Unreadable::Refuse;
        direction.refused.then(|| self.refusal(&format!("the {}'s body has {reason}, and cannot be looked at", self.name)))
    }

    /// The answer in the place of a message that is refused.
    pub(crate) fn refusal(&self, detail: &str) -> Reply {
        let problem =
            format!(r#"{{"title":"refused by the redact filter","status":{},"detail":"{detail}"}}"#, self.status.as_u16());
        Reply::new(self.status)
            .header("content-type", "application/problem+json")
            .body(problem)
            .grpc_status(GRPC_PERMISSION_DENIED)
            .details(detail)
    }
}

impl Direction {
    pub(crate) fn is_refused(&self) -> bool {
        self.refused
    }

    pub(crate) fn is_masked(&self) -> bool {
        self.masked
    }

    /// What an event says of it: detectors and how often they found something, never what.
    pub(crate) fn fields(&self, message: &Message, fields: &mut Vec<(String, Value)>) {
        let before = fields.len();
        for (detector, count) in self.reader.iter().flat_map(|reader| reader.findings(&message.checked)) {
            fields.push((format!("{}.{detector}", message.name), Value::from(u64::from(count))));
        }
        if let Some(reason) = self.unreadable {
            fields.push((format!("{}.unreadable", message.name), Value::from(reason)));
        }
        if fields.len() > before {
            let became = match (self.refused, self.masked) {
                (true, _) => "refused",
                (false, true) => "masked",
                (false, false) => "passed",
            };
            fields.push((message.name.to_owned(), Value::from(became)));
        }
    }
}
