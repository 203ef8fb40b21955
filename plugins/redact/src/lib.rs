//! The redact filter's glue: shows both bodies to the detectors, and masks or refuses what they find.

mod config;
mod direction;
mod reading;

use config::{Action, Config};
use direction::{Direction, Follows, Message};
use std::rc::Rc;
use tidegate_sdk::{Body, BodyFlow, ConfigError, Exchange, Filter, Flow, Headers, StatusCode, TrailerFlow, Trailers, audit};

/// What the gateway knows and an event repeats.
const ATTRIBUTES: [(&str, &str); 6] = [
    ("principal", "caller.principal"),
    ("namespace", "caller.namespace"),
    ("service_account", "caller.service-account"),
    ("service", "service"),
    ("host", "target.host"),
    ("method", "request.method"),
];

/// The filter.
#[derive(Debug)]
pub struct Redact {
    request: Message,
    response: Message,
}

/// What is remembered of one exchange.
#[derive(Debug, Default)]
pub struct Exchanged {
    request: Direction,
    response: Direction,
}

impl Filter for Redact {
    type Config = Config;
    type State = Exchanged;

    fn new(config: Config) -> Result<Self, ConfigError> {
        let checked = config.check()?;
        let status = StatusCode::from_u16(checked.status).map_err(|error| ConfigError::new("/status", error.to_string()))?;
        let checked = Rc::new(checked);
        let message = |name, action, status| Message { checked: Rc::clone(&checked), name, action, status };
        Ok(Self {
            request: message("request", checked.request, status),
            response: message("response", checked.response, StatusCode::BAD_GATEWAY),
        })
    }

    fn on_request(&self, exchange: &mut Exchange<Exchanged>, head: &mut Headers<'_>, end: bool) -> Flow {
        if self.response.action != Action::Pass {
            // What comes back has to be readable and whole. `identity` rather than nothing, which would leave every coding
            // to the API's choice (RFC 9110 section 12.5.3).
            let change = head.change().insert("accept-encoding", "identity").remove("range").remove("if-range");
            if let Err(error) = change.apply() {
                return Flow::Reply(self.request.refusal(&format!("accept-encoding cannot be set: {error}")));
            }
        }
        self.request.head(&mut exchange.state.request, head, if end { Follows::Nothing } else { Follows::Whole })
    }

    fn on_request_body(&self, exchange: &mut Exchange<Exchanged>, body: &mut Body<'_>, end: bool) -> BodyFlow {
        self.request.piece(&mut exchange.state.request, body, end)
    }

    fn on_request_trailers(&self, exchange: &mut Exchange<Exchanged>, trailers: &mut Trailers<'_>) -> TrailerFlow {
        self.request.trailers(&mut exchange.state.request, trailers)
    }

    fn on_response(&self, exchange: &mut Exchange<Exchanged>, status: StatusCode, head: &mut Headers<'_>, end: bool) -> Flow {
        let follows = match status {
            _ if end => Follows::Nothing,
            // Another protocol, not a body.
            StatusCode::SWITCHING_PROTOCOLS => Follows::Nothing,
            StatusCode::PARTIAL_CONTENT => Follows::Part,
            _ => Follows::Whole,
        };
        self.response.head(&mut exchange.state.response, head, follows)
    }

    fn on_response_body(&self, exchange: &mut Exchange<Exchanged>, body: &mut Body<'_>, end: bool) -> BodyFlow {
        self.response.piece(&mut exchange.state.response, body, end)
    }

    fn on_response_trailers(&self, exchange: &mut Exchange<Exchanged>, trailers: &mut Trailers<'_>) -> TrailerFlow {
        self.response.trailers(&mut exchange.state.response, trailers)
    }

    fn on_log(&self, exchange: &mut Exchange<Exchanged>) {
        let Exchanged { request, response } = &exchange.state;
        let sides = [(&self.request, request), (&self.response, response)];
        let mut fields = Vec::new();
        for (message, direction) in sides {
            direction.fields(message, &mut fields);
        }
        if fields.is_empty() {
            return;
        }
        let outcome = match () {
            () if sides.iter().any(|(_, direction)| direction.is_refused()) => audit::Outcome::Denied,
            () if sides.iter().any(|(_, direction)| direction.is_masked()) => audit::Outcome::Modified,
            () => audit::Outcome::Allowed,
        };
        let mut event = audit::Event::new("redaction", outcome).known(&ATTRIBUTES);
        for (name, value) in fields {
            event = event.field(name, value);
        }
        event.emit();
    }
}

tidegate_sdk::export!(Redact);

#[cfg(test)]
mod tests;
