//! The response's direction: the API's messages as JSON, its status as HTTP's. The head is held until it is known which of the two
//! it will be.

use crate::ask::{Asking, is, text};
use crate::config::Checked;
use crate::framing::{FrameError, Frames};
use crate::problem::Problem;
use crate::response::{self, Extract, Unwritable};
use crate::routes::Binding;
use crate::status::{Code, Status};
use crate::stream::{Format, Sequence};
use tidegate_sdk::{Body, BodyFlow, Headers, StatusCode, Trailers, message};

/// A call that the API has not answered yet.
#[derive(Debug)]
pub(crate) struct Waiting {
    binding: usize,
    format: Format,
}

/// A response under way.
#[derive(Debug)]
pub(crate) enum Answering {
    /// One message is awaited, and the status after it.
    One { binding: usize },
    /// Messages go on as they come.
    Many { binding: usize, frames: Frames, sequence: Sequence, format: Format },
    /// This is what the caller gets, whatever the body is.
    Settled { body: Vec<u8> },
    /// The caller was told in the stream that it failed.
    Failed,
}

/// Where a status is, in a head or in trailers.
const STATUS: [&str; 3] = ["grpc-status", "grpc-message", "grpc-status-details-bin"];

impl From<&Asking> for Waiting {
    fn from(asking: &Asking) -> Self {
        Self { binding: asking.binding, format: asking.format }
    }
}

impl Waiting {
    /// Looks at the head.
    pub(crate) fn begin(
        self,
        api: &Checked,
        http: StatusCode,
        head: &mut Headers<'_>,
        end: bool,
    ) -> Result<Answering, Problem> {
        let Self { binding, format } = self;
        let streams = api.schema.methods()[api.routes.binding(binding).method].server_streaming;
        if let Some(status) = status_in(head) {
            if status.code != Code::OK {
                return settle(api, head, &status);
            }
            if end && streams {
                rewrite_head(head, format.content_type())?;
                let mut body = Vec::new();
                Sequence::new(format).end(&mut body);
                return Ok(Answering::Settled { body });
            }
            if end {
                return Err(Problem::bad_answer("it has a status, but no message"));
            }
        } else if http != StatusCode::OK {
            return settle(api, head, &Status::of_http(http.as_u16()));
        } else if end {
            return Err(Problem::bad_answer("it has neither a message nor a status"));
        }
        let content_type = head.get("content-type").map(text).unwrap_or_default();
        if !is(&content_type, "application/grpc") {
            return Err(Problem::bad_answer(format!("it is {content_type:?}, not application/grpc")));
        }
        if !streams {
            return Ok(Answering::One { binding });
        }
        let frames = Frames::new(api.max_response_bytes);
        Ok(Answering::Many { binding, frames, sequence: Sequence::new(format), format })
    }
}

impl Answering {
    /// A piece of the body has come.
    pub(crate) fn body(&mut self, api: &Checked, body: &mut Body<'_>, end: bool) -> Result<BodyFlow, Problem> {
        match self {
            Self::Settled { body: answer } if end => {
                let answer = std::mem::take(answer);
                body.replace(answer).map_err(Problem::bad_answer)?;
                Ok(BodyFlow::Forward)
            }
            Self::Settled { .. } => Ok(BodyFlow::Drop),
            Self::One { .. } if end => Err(Problem::bad_answer("it ended without a gRPC status")),
            Self::One { .. } => {
                // What will not be taken need not be waited for.
                let mut frames = Frames::new(api.max_response_bytes);
                frames.push(&body.read(0, 5), |_| Ok(())).map_err(|error: FrameError| Problem::bad_answer(error))?;
                Ok(BodyFlow::Hold)
            }
            Self::Many { .. } => self.messages(api, body, end),
            Self::Failed if end => Ok(BodyFlow::Drop),
            Self::Failed => Ok(BodyFlow::Reset),
        }
    }

    /// The trailers have come: with them the status.
    pub(crate) fn trailers(&mut self, api: &Checked, trailers: &mut Trailers<'_>) -> Result<(), Problem> {
        let status = status_in(trailers).unwrap_or_else(|| Status::new(Code::UNKNOWN, "the API said no status"));
        match self {
            Self::Settled { body } => {
                let answer = std::mem::take(body);
                trailers.body().replace(answer).map_err(Problem::bad_answer)?;
            }
            Self::One { binding } => one(api, api.routes.binding(*binding), trailers, &status)?,
            Self::Many { frames, sequence, format, .. } => {
                let status = match frames.end() {
                    Err(error) if status.code == Code::OK => Status::new(Code::INTERNAL, error.to_string()),
                    _ => status,
                };
                many(api, sequence, *format, trailers, &status)?;
            }
            Self::Failed => {}
        }
        let changes = STATUS.iter().fold(trailers.change(), |changes, name| changes.remove(*name));
        changes.apply().map_err(Problem::bad_answer)
    }

    /// Converts what messages the piece completes.
    fn messages(&mut self, api: &Checked, body: &mut Body<'_>, end: bool) -> Result<BodyFlow, Problem> {
        let Self::Many { binding, frames, sequence, format } = self else { return Ok(BodyFlow::Forward) };
        let binding = api.routes.binding(*binding);
        let chunk = body.take();
        let (begun, mut out) = (*sequence, Vec::with_capacity(chunk.len() * 2));
        let pushed = frames.push(&chunk, |message| -> Result<(), Problem> {
            let before = (*sequence, out.len());
            sequence.before(&mut out);
            if let Err(unwritable) = write(api, binding, message, &mut out) {
                *sequence = before.0;
                out.truncate(before.1);
                return Err(Problem::unwritable(unwritable));
            }
            sequence.after(&mut out);
            Ok(())
        });
        let ended = if end { Err(Problem::bad_answer("it ended without a gRPC status")) } else { Ok(()) };
        let failed = |problem: Problem| Status::new(Code::INTERNAL, problem.detail).json(&api.schema, api.style);
        if let Err(problem) = pushed.and(ended) {
            if body.head().is_some() && out.is_empty() {
                return Err(problem);
            }
            sequence.fail(&failed(problem), &mut out);
        }
        if out.is_empty() {
            return Ok(BodyFlow::Drop);
        }
        if let Err(error) = body.replace(&out) {
            let problem = Problem::bad_answer(error);
            if body.head().is_some() {
                return Err(problem);
            }
            // The messages before this piece have gone to the caller, who is told in their way.
            (*sequence, out) = (begun, Vec::new());
            sequence.fail(&failed(problem), &mut out);
            body.replace(out).map_err(Problem::bad_answer)?;
        }
        if let Some(head) = body.head() {
            rewrite_head(head, format.content_type())?;
        }
        if sequence.has_failed() {
            *self = Self::Failed;
        }
        Ok(BodyFlow::Forward)
    }
}

/// The one message of a unary call, or what became of it.
fn one(api: &Checked, binding: &Binding, trailers: &mut Trailers<'_>, status: &Status) -> Result<(), Problem> {
    let framed = trailers.body().take();
    if status.code != Code::OK {
        let Some(head) = trailers.head() else { return Err(Problem::bad_answer("its head had gone on")) };
        let body = settled(api, head, status)?;
        return trailers.body().replace(body).map_err(Problem::bad_answer);
    }
    let mut frames = Frames::new(api.max_response_bytes);
    let mut out = Vec::with_capacity(framed.len() * 2);
    let mut count = 0u32;
    frames.push(&framed, |message| {
        count += 1;
        if count > 1 {
            return Err(Problem::bad_answer("it has more than the one message of a unary call"));
        }
        write(api, binding, message, &mut out).map_err(Problem::unwritable)
    })?;
    frames.end().map_err(Problem::bad_answer)?;
    if count == 0 {
        return Err(Problem::bad_answer("it has a status, but no message"));
    }
    if let Some(head) = trailers.head() {
        rewrite_head(head, "application/json")?;
    }
    trailers.body().replace(out).map_err(Problem::bad_answer)
}

/// The end of a stream.
fn many(
    api: &Checked,
    sequence: &mut Sequence,
    format: Format,
    trailers: &mut Trailers<'_>,
    status: &Status,
) -> Result<(), Problem> {
    let mut out = Vec::new();
    match trailers.head() {
        // Nothing has gone to the caller yet, so that HTTP's status can say it.
        Some(head) if status.code != Code::OK => out = settled(api, head, status)?,
        Some(head) => {
            rewrite_head(head, format.content_type())?;
            sequence.end(&mut out);
        }
        None if status.code != Code::OK => sequence.fail(&status.json(&api.schema, api.style), &mut out),
        None => sequence.end(&mut out),
    }
    trailers.body().append(out).map_err(Problem::bad_answer)
}

fn write(api: &Checked, binding: &Binding, message: &[u8], out: &mut Vec<u8>) -> Result<(), Unwritable> {
    let output = api.schema.methods()[binding.method].output;
    let extract = binding.response_body.map_or(Extract::All, Extract::Field);
    response::convert(&api.schema, api.style, output, extract, message, out)
}

fn settle(api: &Checked, head: &mut Headers<'_>, status: &Status) -> Result<Answering, Problem> {
    settled(api, head, status).map(|body| Answering::Settled { body })
}

/// Makes the head say what the status says; the answer is the body that goes with it.
fn settled(api: &Checked, head: &mut Headers<'_>, status: &Status) -> Result<Vec<u8>, Problem> {
    rewrite_head(head, "application/json")?;
    message::set_status(status.code.http()).map_err(Problem::bad_answer)?;
    Ok(status.json(&api.schema, api.style))
}

fn status_in(headers: &Headers<'_>) -> Option<Status> {
    let values = headers.get_many(&STATUS);
    let value = |index: usize| values.get(index).and_then(|value| value.as_deref());
    Status::read(value(0), value(1), value(2))
}

fn rewrite_head(head: &mut Headers<'_>, content_type: &str) -> Result<(), Problem> {
    let changes = head.change().insert("content-type", content_type).remove("grpc-encoding").remove("grpc-accept-encoding");
    STATUS.iter().fold(changes, |changes, name| changes.remove(*name)).apply().map_err(Problem::bad_answer)
}

impl From<FrameError> for Problem {
    fn from(error: FrameError) -> Self {
        Self::bad_answer(error)
    }
}
