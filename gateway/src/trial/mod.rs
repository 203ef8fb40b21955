//! Trials: a filter's module run against a described exchange, by the host that the gateway runs, in memory. Nothing is
//! dialled and nothing is kept.

mod log;
mod report;
pub mod script;
mod stage;
#[cfg(test)]
mod tests;

pub use report::{AnsweredBy, Ended, Logged, Made, Message, Metric, Piece, Report};

use crate::{
    fault::Fault,
    filter::{
        Answer as CallAnswer, Asked, CallError, Closing, Collected, Errand, Facts, Host, Instances, Limits, Received, Run,
    },
    http::{self, body::Body, reply},
};
use ::http::StatusCode;
use bytes::Bytes;
use script::{Answer, Request, Response};
use stage::Stage;
use std::{
    cell::RefCell,
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};
use tidegate_policy::{
    Mistake, Name, Reason,
    exchange::{FilterFacts, Verdict},
    grants::Grants,
    plugin::Digest,
    publication::Module,
    route::{Isolation, OnError},
};
use tokio::sync::mpsc;

/// Calls of the filter's own that may wait for their answer.
const CALLS: usize = 64;
/// The number that the exchange has.
const ID: u64 = 1;

/// What is to be tried.
#[derive(Debug)]
pub struct Trial {
    /// The name that the filter's calls and metrics go by.
    pub plugin: Name,
    /// Its configuration.
    pub config: serde_json::Value,
    /// What it may choose.
    pub grants: Grants,
    /// What becomes of the exchange when it fails.
    pub on_error: OnError,
    /// Whether its exchanges share an instance.
    pub isolation: Isolation,
    /// What its place on a route says beyond that: the fields of an entry that are for Proxy-Wasm filters.
    pub place: serde_json::Map<String, serde_json::Value>,
    /// What it may use.
    pub limits: Limits,
    /// The program that compiles it in a process of its own, with the command `compile`; without one that is done here.
    pub compiler: Option<PathBuf>,
    /// The request.
    pub request: Request,
    /// What the upstream answers.
    pub response: Response,
}

/// Why there was no trial.
#[derive(Debug)]
pub enum Refused {
    /// It is no filter; every reason.
    Module(Vec<String>),
    /// The filter refuses its configuration, in its own words.
    Config(String),
    /// The description has mistakes, or it and the grants do not fit together.
    Script(Vec<Mistake>),
    /// What a trial needs of the system is not there.
    System(String),
}

/// What is known when the exchange is over.
#[derive(Default)]
struct Ending {
    upstream: Option<Message>,
    caller: Option<Message>,
    answered_by: Option<AnsweredBy>,
    /// Whether the filter answered and refused by it.
    refused: bool,
    chosen: Option<crate::upstream::wish::Chosen>,
    fault: Option<Fault>,
}

impl Trial {
    /// Runs it.
    pub fn run(&self, bytes: &[u8]) -> Result<Report, Refused> {
        let (head, response) = (self.request.head().map_err(one)?, self.response.head().map_err(one)?);
        let (request_rest, response_rest) = (self.request.rest().map_err(one)?, self.response.rest().map_err(one)?);
        let answers = self.request.calls.iter().enumerate();
        let answers = answers.map(|(index, answer)| Ok((answer, answer.response(&format!("/calls/{index}"))?)));
        let answers: Vec<_> = answers.collect::<Result<_, Mistake>>().map_err(one)?;
        let host = Host::start(self.limits).map_err(|error| Refused::System(error.to_string()))?;
        if let Some(program) = &self.compiler {
            host.compile_apart(program.clone());
        }
        let inspection = host.inspect(bytes).map_err(Refused::Module)?;
        let module = Module::here(digest(bytes), bytes);
        let stage = Stage::set(&host, self, (module.clone(), bytes.len() as u64, inspection), &head)?;
        host.configure(&module, &stage.used).map_err(Refused::Config)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.map_err(|error| Refused::System(error.to_string()))?;
        let (log, calls) = (log::Log::default(), RefCell::default());
        let (errands, asked) = mpsc::channel(CALLS);
        let instances = Instances::new(errands);
        let request = ::http::Request::from_parts(head, Body::scripted(request_rest.pieces, request_rest.trailers));
        let response = ::http::Response::from_parts(response, Body::scripted(response_rest.pieces, response_rest.trailers));
        let exchange = async {
            tokio::select! {
                ended = exchange(&stage, &instances, request, response) => ended,
                () = instances.keep() => unreachable!("they are looked after for as long as they are there"),
                never = answer(asked, &answers, &calls) => match never {},
            }
        };
        // A call that is given up is brought to its end as a task of its own.
        let tasks = tokio::task::LocalSet::new();
        let (ending, mut facts) = log.during(|| tasks.block_on(&runtime, exchange));
        Ok(Report {
            upstream: ending.upstream,
            caller: ending.caller,
            answered_by: ending.answered_by.unwrap_or(AnsweredBy::Nobody),
            chosen: ending.chosen,
            fault: ending.fault.map(|fault| Ended { reason: fault.reason().as_str(), detail: fault.detail().to_owned() }),
            filter: facts.pop().ok_or_else(|| Refused::System("the route runs no filter".to_owned()))?,
            calls: calls.into_inner(),
            log: log.messages(),
            metrics: report::metrics(&host),
            memory_bytes: host.metrics().memory_bytes.value().try_into().unwrap_or_default(),
        })
    }

    /// Its entry on a route.
    fn entry(&self) -> serde_json::Value {
        let mut entry = serde_json::json!({
            "plugin": self.plugin, "config": self.config, "on_error": self.on_error, "isolation": self.isolation,
            "grants": self.grants,
        });
        if let Some(entry) = entry.as_object_mut() {
            entry.extend(self.place.clone());
        }
        entry
    }
}

/// The digest that a module goes by.
pub fn digest(bytes: &[u8]) -> Digest {
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref());
    Digest::new(sha256)
}

fn one(mistake: Mistake) -> Refused {
    Refused::Script(vec![mistake])
}

/// What the record says of each filter.
type Told = Vec<FilterFacts<'static>>;

/// The exchange, from the request's head to the filter's last callback.
async fn exchange(stage: &Stage, instances: &Instances, request: http::Request, response: http::Response) -> (Ending, Told) {
    let Stage { live, identity, permit, dialect, used: _ } = stage;
    // Of the addresses for documentation (RFC 5737), since there is no connection.
    let local = SocketAddr::from(([192, 0, 2, 2], 3128));
    let peer = SocketAddr::new(identity.source, 49_152);
    let facts = Facts { id: ID, identity, asked: Some(Asked::of(&request)), permit, live, dialect: *dialect, peer, local };
    let began = Instant::now();
    let mut ending = Ending::default();
    let run = match instances.begin(&live.chains, facts) {
        Some(Ok(run)) => run,
        Some(Err(fault)) => {
            ending.fault = Some(fault);
            return (ending, Told::default());
        }
        None => return (ending, Told::default()),
    };
    let answered = requested(&run, request, &mut ending).await;
    let answered = match answered {
        Ok(None) => {
            let came = Instant::now();
            let first_byte = came.saturating_duration_since(began);
            run.connected(&stage.connection(), permit.service().map(|service| &service.name), first_byte);
            responded(&run, response, came).await
        }
        Ok(Some(reply)) => Ok((AnsweredBy::Filter, reply)),
        Err(fault) => Err(fault),
    };
    match answered {
        Ok((by, response)) => {
            ending.answered_by = Some(by);
            ending.refused = by == AnsweredBy::Filter && reply::refuses(&response);
            let (message, fault) = received(response).await;
            (ending.caller, ending.fault) = (Some(message), fault);
        }
        Err(fault) if fault.reason() == Reason::FilterReset => ending.fault = Some(fault),
        Err(fault) => {
            ending.answered_by = Some(AnsweredBy::Gateway);
            ending.caller = Some(received(reply::to(&fault, *dialect, &ID.to_string())).await.0);
            ending.fault = Some(fault);
        }
    }
    let facts = run.close(closing(&ending, began.elapsed())).await;
    (ending, facts)
}

/// The request's way through the filter to the upstream; the filter's answer, where it gave one.
async fn requested(run: &Run, mut request: http::Request, ending: &mut Ending) -> Result<Option<http::Response>, Fault> {
    if let Some(reply) = run.request(&mut request).await? {
        return Ok(Some(*reply));
    }
    ending.chosen = run.wish().filter(|wish| !wish.is_empty()).map(|wish| wish.chosen());
    let (head, body) = request.into_parts();
    let line = format!("{} {}", head.method, head.uri.path_and_query().map_or("/", ::http::uri::PathAndQuery::as_str));
    let (message, fault) = Message::read(line, &head.headers, body).await;
    ending.upstream = Some(message);
    match (fault, run.late_reply()) {
        (_, Some(reply)) => run.answer(reply).await.map(Some),
        (Some(fault), None) => Err(fault),
        (None, None) => Ok(None),
    }
}

/// The response's way through the filter to the caller.
async fn responded(run: &Run, mut response: http::Response, came: Instant) -> Result<(AnsweredBy, http::Response), Fault> {
    let reply = run.response(&mut response, came).await?;
    Ok(reply.map_or((AnsweredBy::Upstream, response), |reply| (AnsweredBy::Filter, *reply)))
}

async fn received(response: http::Response) -> (Message, Option<Fault>) {
    let (head, body) = response.into_parts();
    Message::read(line(head.status), &head.headers, body).await
}

fn line(status: StatusCode) -> String {
    status.to_string()
}

/// How it ended, as the filter's last callback may know it.
fn closing(ending: &Ending, total: Duration) -> Closing {
    let reason = match &ending.fault {
        Some(fault) => fault.reason(),
        None if ending.refused => Reason::FilterDenied,
        None => Reason::AllowedByRule,
    };
    let bytes = |message: &Option<Message>| message.as_ref().map_or(0, Message::body_bytes);
    Closing {
        verdict: reason.verdict().unwrap_or(Verdict::Allowed),
        reason,
        fault: ending.fault.as_ref().map(|fault| fault.detail().to_owned()),
        total,
        request_bytes: bytes(&ending.upstream),
        response_bytes: bytes(&ending.caller),
    }
}

/// Answers the filter's own calls from what is described, for as long as it is let.
async fn answer(
    mut asked: mpsc::Receiver<Errand>,
    answers: &[(&Answer, ::http::Response<Bytes>)],
    made: &RefCell<Vec<Made>>,
) -> std::convert::Infallible {
    while let Some(Errand { request, answer, .. }) = asked.recv().await {
        let url = request.uri().to_string();
        let found = answers.iter().find(|(described, _)| url.starts_with(&described.url)).map(|(_, response)| response.clone());
        let status = found.as_ref().map(|response| response.status().as_u16());
        made.borrow_mut().push(Made { line: format!("{} {url}", request.method()), status });
        // A filter that has been given up waits for no answer.
        match answer {
            CallAnswer::Whole(answer) => {
                let collected = |body| Collected { body, ..Collected::default() };
                let _ = answer.send(found.map(|found| found.map(collected)).ok_or(CallError::UnknownTarget));
            }
            // What is described is no stream.
            CallAnswer::Streamed(answer) => drop(answer.send(Received::Failed(CallError::UnknownTarget)).await),
        }
    }
    std::future::pending().await
}
