//! A filter that does what its configuration says, to try every function of the contract but `outbound`, and that tells in one
//! audit event, of kind `witness`, what it was shown and how its calls were answered.

mod act;

use act::{Act, Answer, Pieces};
use tidegate_sdk::{Body, BodyFlow, ConfigError, Exchange, Filter, Flow, Headers, StatusCode, TrailerFlow, Trailers, audit};

/// Its configuration: what is done in each phase, in order, and how each is answered.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    request: Vec<Act>,
    request_body: Vec<Act>,
    request_trailers: Vec<Act>,
    response: Vec<Act>,
    response_body: Vec<Act>,
    response_trailers: Vec<Act>,
    log: Vec<Act>,
}

/// The filter.
#[derive(Debug)]
pub struct Witness(Config);

/// What it has seen of an exchange, one line for each thing.
#[derive(Debug, Default)]
pub struct Seen {
    lines: Vec<String>,
    request: Pieces,
    response: Pieces,
}

/// What is at hand in a callback.
pub(crate) enum Hand<'a, 'b> {
    Nothing,
    Head(&'a mut Headers<'b>),
    Body(&'a mut Body<'b>),
    Trailers(&'a mut Trailers<'b>),
}

impl Filter for Witness {
    type Config = Config;
    type State = Seen;

    fn new(config: Config) -> Result<Self, ConfigError> {
        Ok(Self(config))
    }

    fn on_request(&self, exchange: &mut Exchange<Seen>, head: &mut Headers<'_>, end: bool) -> Flow {
        exchange.state.lines.push(line("request", end));
        act::all(&self.0.request, &mut exchange.state.lines, Hand::Head(head)).map_or(Flow::Proceed, Answer::head)
    }

    fn on_request_body(&self, exchange: &mut Exchange<Seen>, body: &mut Body<'_>, end: bool) -> BodyFlow {
        let Seen { lines, request, .. } = &mut exchange.state;
        lines.push(piece("request_body", body, end));
        act::all(&self.0.request_body, lines, Hand::Body(body)).map_or(BodyFlow::Forward, |answer| answer.piece(request))
    }

    fn on_request_trailers(&self, exchange: &mut Exchange<Seen>, trailers: &mut Trailers<'_>) -> TrailerFlow {
        let lines = &mut exchange.state.lines;
        lines.push(piece("request_trailers", trailers.body(), true));
        act::all(&self.0.request_trailers, lines, Hand::Trailers(trailers)).map_or(TrailerFlow::Forward, Answer::trailers)
    }

    fn on_response(&self, exchange: &mut Exchange<Seen>, status: StatusCode, head: &mut Headers<'_>, end: bool) -> Flow {
        exchange.state.lines.push(line(&format!("response {}", status.as_u16()), end));
        act::all(&self.0.response, &mut exchange.state.lines, Hand::Head(head)).map_or(Flow::Proceed, Answer::head)
    }

    fn on_response_body(&self, exchange: &mut Exchange<Seen>, body: &mut Body<'_>, end: bool) -> BodyFlow {
        let Seen { lines, response, .. } = &mut exchange.state;
        lines.push(piece("response_body", body, end));
        act::all(&self.0.response_body, lines, Hand::Body(body)).map_or(BodyFlow::Forward, |answer| answer.piece(response))
    }

    fn on_response_trailers(&self, exchange: &mut Exchange<Seen>, trailers: &mut Trailers<'_>) -> TrailerFlow {
        let lines = &mut exchange.state.lines;
        lines.push(piece("response_trailers", trailers.body(), true));
        act::all(&self.0.response_trailers, lines, Hand::Trailers(trailers)).map_or(TrailerFlow::Forward, Answer::trailers)
    }

    fn on_log(&self, exchange: &mut Exchange<Seen>) {
        let lines = &mut exchange.state.lines;
        lines.push("log".to_owned());
        act::all(&self.0.log, lines, Hand::Nothing);
        audit::Event::new("witness", audit::Outcome::Allowed).field("seen", lines.join("\n")).emit();
    }
}

/// Such as `request end`.
fn line(phase: &str, end: bool) -> String {
    format!("{phase}{}", if end { " end" } else { "" })
}

/// Such as `request_body 5 head end`: so many bytes are on offer, and the head is here.
fn piece(phase: &str, body: &mut Body<'_>, end: bool) -> String {
    let head = if body.head().is_some() { " head" } else { "" };
    line(&format!("{phase} {}{head}", body.len()), end)
}

tidegate_sdk::export!(Witness);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tidegate_sdk::testing::{Driver, Message};

    fn seen(exchange: &tidegate_sdk::testing::Scripted<'_, Witness>) -> Vec<String> {
        let events = exchange.events();
        let Some(tidegate_sdk::attributes::Value::Text(text)) = events.last().unwrap().field("seen") else {
            panic!("{events:?}")
        };
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn it_does_as_told_and_tells() {
        let config = json!({
            "request": [{"set": ["x-a", "1"]}, {"set": ["host", "b"]}, {"get": "x-a"}, {"rewrite": ["GET", "/b"]}, {"flow": "hold"}],
            "request_body": [{"read": [0, 9]}, {"head": {"set": ["x-b", "2"]}}, {"append_body": "!"}, {"flows": ["hold", "forward"]}],
            "response": [{"increment": ["seen", 1]}, {"count": ["seen", 1]}, {"flow": "buffer"}],
            "response_body": [{"flow": "hold"}],
            "response_trailers": [{"replace": "whole"}, {"set": ["x-t", "1"]}],
            "log": [{"kv_get": "seen"}, {"attribute": "route"}],
        });
        let driver = Driver::<Witness>::new(config).unwrap().grants(json!({"paths": ["/b"]}));
        let exchange = driver
            .exchange()
            .attribute("route", "r")
            .request(Message::new([]).body(["one", "two"]))
            .response(StatusCode::OK, Message::new([]).body(["three"]).trailers([("x-u", "1")]))
            .log();
        let expected = [
            "request",
            "set host: a header that filters may not write",
            "get x-a: 1",
            "request_body 3 head",
            "read: one",
            "request_body 7 head end",
            "read: one!two",
            "response 200",
            "increment seen: 1",
            "response_body 5 head",
            "response_trailers 5 head end",
            "log",
            "kv_get seen: 1 0100000000000000",
            "attribute route: r",
        ];
        assert_eq!(seen(&exchange), expected);
        let upstream = exchange.upstream().unwrap();
        assert_eq!((upstream.body.as_slice(), upstream.header("x-b")), (b"one!two!".as_slice(), Some("2")));
        assert_eq!((exchange.rewritten(), driver.counter("seen")), (Some(("GET", "/b")), 1));
        let caller = exchange.caller().unwrap();
        assert_eq!((caller.body.as_slice(), caller.trailers.as_ref().unwrap().len()), (b"whole".as_slice(), 2));
    }

    #[test]
    fn mistakes_are_pointed_at() {
        let error = |config| Driver::<Witness>::new(config).unwrap_err().to_string();
        assert!(error(json!({"request": [{"jump": 1}]})).starts_with("/request/0: unknown variant `jump`"));
        assert!(error(json!({"request": [{"set": ["a"]}]})).starts_with("/request/0/set: invalid length 1"));
        assert!(error(json!({"log": [{"flow": "sideways"}]})).starts_with("/log/0/flow"));
    }
}
