//! The SOAP filter's glue. A call's request and its answer are each held until they are whole: what cannot be converted is
//! answered in its place, and nothing of it goes on.

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

use config::Config;
use operations::Call;
use problem::Problem;
use service::{Answered, Service};
use tidegate_sdk::{
    Body, BodyFlow, ConfigError, Exchange, Filter, Flow, Headers, Reply, StatusCode, TrailerFlow, Trailers, attributes, log,
    message::{self, LineError},
    metrics::Counter,
};

/// The filter.
#[derive(Debug)]
pub struct SoapJson {
    service: Service,
    refused: Counter,
    faults: Counter,
    unreadable: Counter,
}

/// Where an exchange stands.
#[derive(Debug, Default)]
pub struct Progress {
    /// The call, until its envelope is made.
    call: Option<Call>,
    /// The operation, once its envelope is made.
    operation: Option<usize>,
    /// The answer, from its head to its conversion.
    answer: Option<(u16, Answered)>,
}

impl Filter for SoapJson {
    type Config = Config;
    type State = Progress;

    fn new(config: Config) -> Result<Self, ConfigError> {
        let service = config.check()?;
        Ok(Self {
            service,
            refused: Counter::new("requests_refused"),
            faults: Counter::new("faults"),
            unreadable: Counter::new("answers_unreadable"),
        })
    }

    fn on_request(&self, exchange: &mut Exchange<Progress>, head: &mut Headers<'_>, end: bool) -> Flow {
        match self.begin(head, end) {
            Ok(call) => {
                exchange.state.call = Some(call);
                Flow::Buffer
            }
            Err(problem) => Flow::Reply(self.refusal(&problem)),
        }
    }

    fn on_request_body(&self, exchange: &mut Exchange<Progress>, body: &mut Body<'_>, _end: bool) -> BodyFlow {
        match self.ask(&mut exchange.state, body) {
            Ok(()) => BodyFlow::Forward,
            Err(problem) => BodyFlow::Reply(self.refusal(&problem)),
        }
    }

    fn on_request_trailers(&self, exchange: &mut Exchange<Progress>, trailers: &mut Trailers<'_>) -> TrailerFlow {
        match self.ask(&mut exchange.state, trailers.body()) {
            Ok(()) => TrailerFlow::Forward,
            Err(problem) => TrailerFlow::Reply(self.refusal(&problem)),
        }
    }

    fn on_response(&self, exchange: &mut Exchange<Progress>, status: StatusCode, head: &mut Headers<'_>, end: bool) -> Flow {
        if exchange.state.operation.is_none() {
            return Flow::Proceed;
        }
        let (kind, encoding) = (head.text("content-type"), head.text("content-encoding"));
        match self.service.answered(status.as_u16(), kind.as_deref(), encoding.as_deref(), end) {
            Answered::AsItIs => Flow::Proceed,
            answered => {
                exchange.state.answer = Some((status.as_u16(), answered));
                Flow::Buffer
            }
        }
    }

    fn on_response_body(&self, exchange: &mut Exchange<Progress>, body: &mut Body<'_>, _end: bool) -> BodyFlow {
        match self.answer(&mut exchange.state, body) {
            Ok(()) => BodyFlow::Forward,
            Err(problem) => BodyFlow::Reply(reply(&problem)),
        }
    }

    fn on_response_trailers(&self, exchange: &mut Exchange<Progress>, trailers: &mut Trailers<'_>) -> TrailerFlow {
        match self.answer(&mut exchange.state, trailers.body()) {
            Ok(()) => TrailerFlow::Forward,
            Err(problem) => TrailerFlow::Reply(reply(&problem)),
        }
    }
}

impl SoapJson {
    /// Which call a request's head is; the request is on its way to the service from here on.
    fn begin(&self, head: &Headers<'_>, end: bool) -> Result<Call, Problem> {
        let attribute = |name: &str| attributes::text(name).unwrap_or_default();
        let call = self.service.call(&attribute("request.method"), &attribute("request.path"), &attribute("request.query"))?;
        if !end {
            self.service.accepts(head.text("content-type").as_deref(), head.text("content-encoding").as_deref())?;
        }
        message::rewrite("POST", &self.service.path).map_err(|error| {
            let path = &self.service.path;
            if error == LineError::NotPermitted {
                log::error(&format!("the route does not grant the path {path:?}; name it in the filter's grants.paths"));
            }
            misplaced(format!("the request cannot be sent to {path:?}: {error}"))
        })?;
        Ok(call)
    }

    /// Puts the envelope in the place of the request's body.
    fn ask(&self, progress: &mut Progress, body: &mut Body<'_>) -> Result<(), Problem> {
        let Some(call) = progress.call.take() else { return Ok(()) };
        let envelope = match usize::try_from(body.len()) {
            Ok(length) if length <= self.service.limits.bytes => self.service.envelope(&call, &body.take())?,
            _ => return Err(self.service.too_large()),
        };
        body.replace(envelope).map_err(|error| Problem::new(413, "the request is too large", error.to_string()))?;
        let headers = self.service.request_headers(call.operation)?;
        let head = body.head().ok_or_else(|| misplaced("the request's head has gone on already"))?;
        let mut changes = head.change().insert("accept-encoding", "identity");
        // An action that the caller names would be carried out by services that go by it.
        for name in OF_THE_BYTES.into_iter().chain(OF_A_READING).chain(["soapaction"]) {
            changes = changes.remove(name);
        }
        for (name, value) in &headers {
            changes = changes.insert(name, value);
        }
        changes.apply().map_err(|error| misplaced(error.to_string()))?;
        progress.operation = Some(call.operation);
        Ok(())
    }

    /// Puts JSON in the place of the answer's body. An error is what the gateway must answer with.
    fn answer(&self, progress: &mut Progress, body: &mut Body<'_>) -> Result<(), Problem> {
        let (Some((status, answered)), Some(operation)) = (progress.answer.take(), progress.operation) else { return Ok(()) };
        let read = match (answered, usize::try_from(body.len())) {
            (Answered::AsItIs, _) => return Ok(()),
            (Answered::Other(problem), _) => Err(problem),
            (Answered::Envelope, Ok(length)) if length <= self.service.limits.bytes => {
                self.service.answer(operation, status, &body.take())
            }
            (Answered::Envelope, _) => Err(self.service.answer_too_large()),
        };
        let (status, kind, text) = match read {
            Ok(json) => (status, "application/json", json),
            Err(problem) => {
                if problem.is_fault {
                    self.faults.add(1)
                } else {
                    self.unreadable.add(1)
                }
                (problem.status, problem::MEDIA_TYPE, problem.body())
            }
        };
        body.replace(text).map_err(|error| Problem::response(error.to_string()))?;
        message::set_status(status).map_err(|error| misplaced(error.to_string()))?;
        let head = body.head().ok_or_else(|| misplaced("the answer's head has gone on already"))?;
        let mut changes = head.change().insert("content-type", kind);
        for name in OF_THE_BYTES.into_iter().chain(OF_THE_ENVELOPE) {
            changes = changes.remove(name);
        }
        changes.apply().map_err(|error| misplaced(error.to_string()))
    }

    fn refusal(&self, problem: &Problem) -> Reply {
        self.refused.add(1);
        reply(problem)
    }
}

/// What a head says of the bytes that are no longer its body.
const OF_THE_BYTES: [&str; 5] = ["content-encoding", "content-md5", "digest", "content-digest", "repr-digest"];
/// What a request's head says that means nothing, or something else, now that it is a POST (RFC 9110 sections 13.1 and 14.2).
const OF_A_READING: [&str; 6] = ["range", "if-range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since"];
/// What an answer's head says besides of what it answered with.
const OF_THE_ENVELOPE: [&str; 3] = ["etag", "last-modified", "accept-ranges"];

/// Something is not as this filter needs it on its route.
fn misplaced(detail: impl Into<String>) -> Problem {
    Problem::new(500, "the route's soap-json filter cannot do its work", detail)
}

fn reply(problem: &Problem) -> Reply {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let reply = Reply::new(status).header("content-type", problem::MEDIA_TYPE).body(problem.body()).details(&*problem.detail);
    match &problem.allow {
        Some(methods) => reply.header("allow", methods.as_str()),
        None => reply,
    }
}

tidegate_sdk::export!(SoapJson);

#[cfg(test)]
mod tests;
