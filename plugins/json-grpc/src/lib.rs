//! The json-grpc filter: callers of REST and JSON reach a gRPC API. This is the glue; what it joins knows nothing of the gateway.

mod answer;
mod ask;
#[cfg(test)]
mod calls;
mod config;
mod deadline;
mod descriptor;
mod fields;
#[cfg(test)]
mod filter_tests;
mod framing;
#[cfg(test)]
mod mapping;
mod problem;
mod request;
mod response;
mod routes;
#[cfg(test)]
mod samples;
mod scalar;
mod schema;
mod status;
mod stream;
mod time;
mod wire;

pub use config::Config;
use tidegate_sdk::{
    Body, BodyFlow, ConfigError, Exchange, Filter, Flow, Headers, Reply, StatusCode, TrailerFlow, Trailers, log,
    metrics::Counter,
};

/// The filter.
#[derive(Debug)]
pub struct JsonGrpc {
    api: config::Checked,
    calls: Counter,
    refusals: Counter,
    bad_answers: Counter,
}

/// How far the conversion of one exchange is.
#[derive(Debug, Default)]
pub struct Call {
    stage: Stage,
}

#[derive(Debug, Default)]
enum Stage {
    /// Not ours: nothing is changed.
    #[default]
    Aside,
    /// The request's body is awaited.
    Asking(ask::Asking),
    /// The request has gone on, the response is awaited.
    Waiting(answer::Waiting),
    /// The response is under way.
    Answering(answer::Answering),
}

impl Filter for JsonGrpc {
    type Config = Config;
    type State = Call;

    fn new(config: Config) -> Result<Self, ConfigError> {
        let api = config.check().map_err(|mistake| ConfigError::new(mistake.pointer, mistake.detail))?;
        Ok(Self {
            api,
            calls: Counter::new("calls"),
            refusals: Counter::new("refusals"),
            bad_answers: Counter::new("bad_answers"),
        })
    }

    fn on_request(&self, exchange: &mut Exchange<Call>, head: &mut Headers<'_>, end: bool) -> Flow {
        match ask::begin(&self.api, head, end) {
            Ok(Some(asking)) => {
                exchange.state.stage = Stage::Asking(asking);
                self.calls.add(1);
                Flow::Buffer
            }
            Ok(None) => Flow::Done,
            Err(problem) => Flow::Reply(self.refusal(&problem)),
        }
    }

    fn on_request_body(&self, exchange: &mut Exchange<Call>, body: &mut Body<'_>, _end: bool) -> BodyFlow {
        match self.ask(&mut exchange.state.stage, body) {
            Ok(()) => BodyFlow::Forward,
            Err(problem) => BodyFlow::Reply(self.refusal(&problem)),
        }
    }

    fn on_request_trailers(&self, exchange: &mut Exchange<Call>, trailers: &mut Trailers<'_>) -> TrailerFlow {
        // A body that ends with trailers comes with them, or has come before.
        let asked = self.ask(&mut exchange.state.stage, trailers.body());
        match asked.and_then(|()| ask::drop_trailers(trailers)) {
            Ok(()) => TrailerFlow::Forward,
            Err(problem) => TrailerFlow::Reply(self.refusal(&problem)),
        }
    }

    fn on_response(&self, exchange: &mut Exchange<Call>, status: StatusCode, head: &mut Headers<'_>, end: bool) -> Flow {
        let Stage::Waiting(waiting) = std::mem::take(&mut exchange.state.stage) else { return Flow::Proceed };
        match waiting.begin(&self.api, status, head, end) {
            Ok(answering) => {
                exchange.state.stage = Stage::Answering(answering);
                Flow::Hold
            }
            Err(problem) => Flow::Reply(self.bad_answer(&problem)),
        }
    }

    fn on_response_body(&self, exchange: &mut Exchange<Call>, body: &mut Body<'_>, end: bool) -> BodyFlow {
        let Stage::Answering(answering) = &mut exchange.state.stage else { return BodyFlow::Forward };
        match answering.body(&self.api, body, end) {
            Ok(flow) => flow,
            Err(problem) => BodyFlow::Reply(self.bad_answer(&problem)),
        }
    }

    fn on_response_trailers(&self, exchange: &mut Exchange<Call>, trailers: &mut Trailers<'_>) -> TrailerFlow {
        let Stage::Answering(answering) = &mut exchange.state.stage else { return TrailerFlow::Forward };
        match answering.trailers(&self.api, trailers) {
            Ok(()) => TrailerFlow::Forward,
            Err(problem) => TrailerFlow::Reply(self.bad_answer(&problem)),
        }
    }
}

impl JsonGrpc {
    /// Puts the message into the place of the body that was awaited; nothing where it has been done.
    fn ask(&self, stage: &mut Stage, body: &mut Body<'_>) -> Result<(), problem::Problem> {
        let Stage::Asking(asking) = stage else { return Ok(()) };
        ask::convert(&self.api, asking, body)?;
        *stage = Stage::Waiting(answer::Waiting::from(&*asking));
        Ok(())
    }

    fn refusal(&self, problem: &problem::Problem) -> Reply {
        self.refusals.add(1);
        reply(problem)
    }

    fn bad_answer(&self, problem: &problem::Problem) -> Reply {
        self.bad_answers.add(1);
        log::warn(&problem.detail);
        reply(problem)
    }
}

fn reply(problem: &problem::Problem) -> Reply {
    // Only statuses that HTTP knows are ever given.
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let reply = Reply::new(status)
        .header("content-type", "application/problem+json")
        .header("cache-control", "no-store")
        .body(problem.json())
        .details(problem.detail.as_str());
    match &problem.allow {
        Some(allow) => reply.header("allow", allow.as_str()),
        None => reply,
    }
}

tidegate_sdk::export!(JsonGrpc);
