//! The audit filter's glue: collects what is chosen of both messages and emits it when the exchange ends.

mod body;
mod config;
mod following;
mod pointers;
mod redaction;
mod selection;

use body::{Collected, Showing};
use config::{Checked, Config, Message};
use selection::Field;
use tidegate_sdk::{
    Body, BodyFlow, ConfigError, Exchange, Filter, Flow, Headers, StatusCode, TrailerFlow, Trailers, attributes, audit,
};

/// What the gateway knows and an event repeats, so that an event can be read on its own. Absent ones are left out. The path
/// is not among them: it may hold what is to be redacted.
const ATTRIBUTES: [(&str, &str); 8] = [
    ("principal", "caller.principal"),
    ("namespace", "caller.namespace"),
    ("service_account", "caller.service-account"),
    ("workload", "caller.workload"),
    ("address", "caller.address"),
    ("service", "service"),
    ("host", "target.host"),
    ("method", "request.method"),
];

/// The filter.
#[derive(Debug)]
pub struct Audit(Checked);

/// What is collected of one exchange.
#[derive(Debug, Default)]
pub struct Exchanged {
    status: Option<u16>,
    request: Seen,
    response: Seen,
}

/// What is collected of one message.
#[derive(Debug, Default)]
struct Seen {
    headers: Vec<Field>,
    body: Collected,
}

impl Filter for Audit {
    type Config = Config;
    type State = Exchanged;

    fn new(config: Config) -> Result<Self, ConfigError> {
        config.check().map(Self)
    }

    fn on_request(&self, exchange: &mut Exchange<Exchanged>, head: &mut Headers<'_>, end: bool) -> Flow {
        if !self.0.sample.takes(exchange.id()) {
            return Flow::Done;
        }
        self.0.request.head(&mut exchange.state.request, head, end)
    }

    fn on_request_body(&self, exchange: &mut Exchange<Exchanged>, body: &mut Body<'_>, end: bool) -> BodyFlow {
        self.0.request.piece(&mut exchange.state.request, body, end);
        BodyFlow::Forward
    }

    fn on_request_trailers(&self, exchange: &mut Exchange<Exchanged>, trailers: &mut Trailers<'_>) -> TrailerFlow {
        self.0.request.piece(&mut exchange.state.request, trailers.body(), true);
        TrailerFlow::Forward
    }

    fn on_response(&self, exchange: &mut Exchange<Exchanged>, status: StatusCode, head: &mut Headers<'_>, end: bool) -> Flow {
        exchange.state.status = Some(status.as_u16());
        self.0.response.head(&mut exchange.state.response, head, end)
    }

    fn on_response_body(&self, exchange: &mut Exchange<Exchanged>, body: &mut Body<'_>, end: bool) -> BodyFlow {
        self.0.response.piece(&mut exchange.state.response, body, end);
        BodyFlow::Forward
    }

    fn on_response_trailers(&self, exchange: &mut Exchange<Exchanged>, trailers: &mut Trailers<'_>) -> TrailerFlow {
        self.0.response.piece(&mut exchange.state.response, trailers.body(), true);
        TrailerFlow::Forward
    }

    fn on_log(&self, exchange: &mut Exchange<Exchanged>) {
        let seen = std::mem::take(&mut exchange.state);
        let outcome = match seen.status {
            Some(_) => audit::Outcome::Allowed,
            // No response was seen: the exchange ended before the upstream answered.
            None => audit::Outcome::Error,
        };
        let mut event = audit::Event::new(&self.0.kind, outcome).known(&ATTRIBUTES);
        if let Some(path) = attributes::text("request.path") {
            event = event.field("path", self.0.redaction.text(&path));
        }
        if let Some(status) = seen.status {
            event = event.field("status", u64::from(status));
        }
        for (message, seen) in [(&self.0.request, seen.request), (&self.0.response, seen.response)] {
            for field in seen.headers {
                event = event.field(message.headers.label(field.index), field.value);
            }
            for (name, value) in message.body.fields(seen.body) {
                event = event.field(name, value);
            }
        }
        event.emit();
    }
}

impl Message {
    fn head(&self, seen: &mut Seen, head: &Headers<'_>, end: bool) -> Flow {
        seen.headers = self.headers.fields(head.get_many(self.headers.names()), &self.redaction);
        if self.body.is_nothing() {
            return Flow::Proceed;
        }
        let (content_type, coding) = (head.text("content-type"), head.text("content-encoding"));
        let (showing, collected) = self.body.begin(content_type.as_deref(), coding.as_deref());
        seen.body = collected;
        if end {
            self.body.end(&mut seen.body, &self.redaction);
            return Flow::Proceed;
        }
        match showing {
            Showing::Nothing => Flow::Proceed,
            Showing::Pieces => Flow::Stream,
        }
    }

    /// What of a body has come.
    fn piece(&self, seen: &mut Seen, body: &Body<'_>, end: bool) {
        for piece in body.pieces() {
            self.body.piece(&mut seen.body, &self.redaction, &piece);
        }
        if end {
            self.body.end(&mut seen.body, &self.redaction);
        }
    }
}

tidegate_sdk::export!(Audit);

#[cfg(test)]
mod tests;
