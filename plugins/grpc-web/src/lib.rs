//! The gRPC-Web filter's glue. A request is held until it is whole; its answer streams.

mod call;
mod config;
mod frames;
mod media;
mod origins;
mod status;
mod text;

use call::{Answer, Piece, Stage};
use config::Config;
use media::Media;
use origins::{Caller, Origins, VARY};
use status::{Code, Status};
use tidegate_sdk::{
    Body, BodyFlow, ConfigError, Exchange, Filter, Flow, HeaderError, Headers, Reply, StatusCode, TrailerFlow, Trailers,
    attributes, log, message,
};

/// The filter.
#[derive(Debug)]
pub struct GrpcWeb {
    origins: Origins,
}

/// One call.
#[derive(Debug)]
pub struct Call {
    request: Media,
    /// What the caller wants its answer in.
    wanted: Media,
    /// What the page's browser is told.
    page: Vec<(&'static str, String)>,
    /// The answer, once its head has come.
    answer: Option<Answer>,
}

impl Filter for GrpcWeb {
    type Config = Config;
    type State = Option<Call>;

    fn new(config: Config) -> Result<Self, ConfigError> {
        Ok(Self { origins: config.check()? })
    }

    fn on_request(&self, exchange: &mut Exchange<Option<Call>>, head: &mut Headers<'_>, end: bool) -> Flow {
        let method = attributes::text("request.method").unwrap_or_default();
        let origin = head.text("origin");
        if method == "OPTIONS" && origin.is_some() && head.contains("access-control-request-method") {
            return Flow::Reply(self.preflight(origin.as_deref()));
        }
        let Some(request) = head.text("content-type").and_then(|kind| Media::of_request(&kind)) else { return Flow::Done };
        let wanted = request.of_answer(head.text("accept").as_deref());
        let page = match self.origins.caller(origin.as_deref()) {
            Caller::Program => Vec::new(),
            Caller::Page(headers) => headers.into_iter().chain([self.origins.exposed()]).collect(),
            Caller::Stranger => {
                let status = Status::new(Code::PermissionDenied, "pages of this origin may not call");
                return Flow::Reply(Call { request, wanted, page: Vec::new(), answer: None }.reply(&status));
            }
        };
        let call = Call { request, wanted, page, answer: None };
        let refused = match head.text("content-encoding") {
            _ if method != "POST" => Some("gRPC-Web calls by POST"),
            Some(encoding) if !encoding.eq_ignore_ascii_case("identity") => Some("the request has a content encoding"),
            _ => None,
        };
        if let Some(refused) = refused {
            return Flow::Reply(call.reply(&Status::new(Code::Unimplemented, refused)));
        }
        if let Err(error) = call.send(head) {
            return Flow::Reply(call.reply(&misplaced(&error.to_string())));
        }
        exchange.state = Some(call);
        if end { Flow::Proceed } else { Flow::Buffer }
    }

    fn on_request_body(&self, exchange: &mut Exchange<Option<Call>>, body: &mut Body<'_>, _end: bool) -> BodyFlow {
        match exchange.state.as_ref().map(|call| (call, call.ask(body))) {
            Some((call, Err(status))) => BodyFlow::Reply(call.reply(&status)),
            _ => BodyFlow::Forward,
        }
    }

    fn on_request_trailers(&self, exchange: &mut Exchange<Option<Call>>, trailers: &mut Trailers<'_>) -> TrailerFlow {
        match exchange.state.as_ref().map(|call| (call, call.ask(trailers.body()))) {
            Some((call, Err(status))) => TrailerFlow::Reply(call.reply(&status)),
            _ => TrailerFlow::Forward,
        }
    }

    fn on_response(
        &self,
        exchange: &mut Exchange<Option<Call>>,
        status: StatusCode,
        head: &mut Headers<'_>,
        end: bool,
    ) -> Flow {
        let Some(call) = &mut exchange.state else { return Flow::Proceed };
        let kind = head.text("content-type").and_then(|kind| call.wanted.answering(&kind));
        let (told, stage) = match kind {
            None => (call.tell(head, &Status::of_http(status.as_u16())), Stage::Told),
            Some(_) if end && !head.contains("grpc-status") => {
                (call.tell(head, &Status::new(Code::Unknown, "the service's answer ended without a status")), Stage::Told)
            }
            Some(kind) if head.contains("grpc-status") => (call.mark(head, &kind, &[]), Stage::InHead),
            Some(kind) => (call.mark(head, &kind, &[]), Stage::Open),
        };
        if let Err(status) = told {
            return Flow::Reply(call.reply(&status));
        }
        if end {
            return Flow::Proceed;
        }
        call.answer = Some(Answer::new(call.wanted.coding, stage));
        Flow::Stream
    }

    fn on_response_body(&self, exchange: &mut Exchange<Option<Call>>, body: &mut Body<'_>, end: bool) -> BodyFlow {
        let Some(answer) = exchange.state.as_mut().and_then(|call| call.answer.as_mut()) else { return BodyFlow::Forward };
        let written = match answer.push(&body.bytes()) {
            Piece::AsItCame => Ok(()),
            Piece::Instead(bytes) => body.replace(bytes),
        };
        let Ok(()) = written else { return BodyFlow::Reset };
        if !end {
            return BodyFlow::Forward;
        }
        match answer.finish(None).map(|rest| body.append(rest)) {
            Ok(Ok(())) => BodyFlow::Forward,
            _ => BodyFlow::Reset,
        }
    }

    fn on_response_trailers(&self, exchange: &mut Exchange<Option<Call>>, trailers: &mut Trailers<'_>) -> TrailerFlow {
        let Some(answer) = exchange.state.as_mut().and_then(|call| call.answer.as_mut()) else { return TrailerFlow::Forward };
        let fields = trailers.entries();
        let written = answer.finish(Some(&fields)).map(|frame| trailers.body().append(frame));
        let mut changes = trailers.change();
        for (name, _) in &fields {
            changes = changes.remove(name);
        }
        match (written, changes.apply()) {
            (Ok(Ok(())), Ok(())) => TrailerFlow::Forward,
            _ => TrailerFlow::Reset,
        }
    }
}

impl GrpcWeb {
    fn preflight(&self, origin: Option<&str>) -> Reply {
        let Caller::Page(headers) = self.origins.caller(origin) else {
            return Reply::new(StatusCode::FORBIDDEN)
                .header("vary", VARY)
                .header("content-type", "text/plain; charset=utf-8")
                .body("pages of this origin may not call")
                .details("the page's origin is none of those that the route allows");
        };
        let reply = Reply::new(StatusCode::NO_CONTENT).header("vary", VARY);
        headers.into_iter().chain(self.origins.preflight()).fold(reply, |reply, (name, value)| reply.header(name, value))
    }
}

impl Call {
    /// Makes the head gRPC's.
    fn send(&self, head: &mut Headers<'_>) -> Result<(), HeaderError> {
        let kind = self.request.grpc();
        let changes =
            head.change().insert("content-type", &kind).remove("x-grpc-web").remove("accept").remove("accept-encoding");
        changes.apply()
    }

    /// Makes the body gRPC's, or says why it cannot be.
    fn ask(&self, body: &mut Body<'_>) -> Result<(), Status> {
        let frames = call::request(&self.request, body.bytes())?;
        match self.request.coding {
            media::Coding::Binary => Ok(()),
            media::Coding::Text => body.replace(frames).map_err(|error| misplaced(&error.to_string())),
        }
    }

    /// Makes the answer's head gRPC-Web's, of this content type and with these fields more.
    fn mark(&self, head: &mut Headers<'_>, kind: &str, fields: &[(&'static str, String)]) -> Result<(), Status> {
        let mut changes = head.change().insert("content-type", kind).append("vary", VARY);
        for (name, value) in fields.iter().chain(&self.page) {
            changes = changes.insert(name, value);
        }
        changes.apply().map_err(|error| misplaced(&error.to_string()))
    }

    /// Makes the service's answer one that tells this status, and has no body that a caller could read.
    fn tell(&self, head: &mut Headers<'_>, status: &Status) -> Result<(), Status> {
        self.mark(head, &self.wanted.own(), &status.fields())?;
        head.remove("content-encoding").map_err(|error| misplaced(&error.to_string()))?;
        message::set_status(StatusCode::OK).map_err(|error| misplaced(&error.to_string()))
    }

    /// An answer of the filter's own, which tells a status.
    fn reply(&self, status: &Status) -> Reply {
        let reply = Reply::new(StatusCode::OK).header("content-type", self.wanted.own()).header("vary", VARY);
        let fields = status.fields().into_iter().chain(self.page.iter().cloned());
        fields.fold(reply, |reply, (name, value)| reply.header(name, value)).details(&*status.message)
    }
}

/// The gateway did not let the filter do its work.
fn misplaced(error: &str) -> Status {
    log::warn(&format!("a call could not be converted: {error}"));
    Status::new(Code::Internal, error)
}

tidegate_sdk::export!(GrpcWeb);

#[cfg(test)]
mod tests;
