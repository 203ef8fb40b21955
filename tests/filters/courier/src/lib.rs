//! A filter that makes calls of its own, and tells in one audit event, of kind `courier`, how they were answered. It is the one
//! filter of the tests that imports `outbound`.

use std::time::Duration;
use tidegate_sdk::{
    Body, BodyFlow, ConfigError, Exchange, Filter, Flow, Headers, Method, StatusCode, audit,
    outbound::{self, Call},
};

/// Its configuration.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// When it calls. At a body it calls for each piece.
    at: Phase,
    /// One after the other.
    calls: Vec<Errand>,
    /// What it does when they are answered.
    #[serde(default)]
    then: Then,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Phase {
    Request,
    RequestBody,
    Response,
    ResponseBody,
    Log,
}

/// A call, and how often it is made.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Errand {
    #[serde(default = "get")]
    method: String,
    url: String,
    #[serde(default)]
    headers: Vec<(String, String)>,
    #[serde(default)]
    body: String,
    /// Sends so many bytes in place of `body`.
    body_bytes: Option<usize>,
    timeout_ms: Option<u64>,
    #[serde(default = "once")]
    times: u32,
}

/// What it does when its calls are answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Then {
    #[default]
    Nothing,
    /// Puts the last answer's body into the header `x-courier` of the message at hand.
    Header,
    /// Traps.
    Trap,
    /// Never ends.
    Loop,
}

/// What was answered, one line for each call.
#[derive(Debug, Default)]
pub struct Answered(Vec<String>);

/// The filter.
#[derive(Debug)]
pub struct Courier(Config);

impl Filter for Courier {
    type Config = Config;
    type State = Answered;

    fn new(config: Config) -> Result<Self, ConfigError> {
        match config.calls.iter().position(|errand| Method::from_bytes(errand.method.as_bytes()).is_err()) {
            Some(index) => Err(ConfigError::new(format!("/calls/{index}/method"), "not a method (RFC 9110 section 9.1)")),
            None => Ok(Self(config)),
        }
    }

    fn on_request(&self, exchange: &mut Exchange<Answered>, head: &mut Headers<'_>, _end: bool) -> Flow {
        self.at(Phase::Request, &mut exchange.state, Some(head));
        if self.0.at == Phase::RequestBody { Flow::Stream } else { Flow::Proceed }
    }

    fn on_request_body(&self, exchange: &mut Exchange<Answered>, body: &mut Body<'_>, _end: bool) -> BodyFlow {
        self.at(Phase::RequestBody, &mut exchange.state, body.head());
        BodyFlow::Forward
    }

    fn on_response(&self, exchange: &mut Exchange<Answered>, _: StatusCode, head: &mut Headers<'_>, _end: bool) -> Flow {
        self.at(Phase::Response, &mut exchange.state, Some(head));
        if self.0.at == Phase::ResponseBody { Flow::Stream } else { Flow::Proceed }
    }

    fn on_response_body(&self, exchange: &mut Exchange<Answered>, body: &mut Body<'_>, _end: bool) -> BodyFlow {
        self.at(Phase::ResponseBody, &mut exchange.state, body.head());
        BodyFlow::Forward
    }

    fn on_log(&self, exchange: &mut Exchange<Answered>) {
        self.at(Phase::Log, &mut exchange.state, None);
        let answered = exchange.state.0.join("\n");
        audit::Event::new("courier", audit::Outcome::Allowed).field("answered", answered).emit();
    }
}

impl Courier {
    fn at(&self, phase: Phase, answered: &mut Answered, head: Option<&mut Headers<'_>>) {
        if self.0.at != phase {
            return;
        }
        let mut last = Vec::new();
        for errand in &self.0.calls {
            for _ in 0..errand.times {
                match outbound::send(errand.call()) {
                    Ok(answer) => {
                        answered.0.push(format!("{} {} bytes", answer.status.as_u16(), answer.body.len()));
                        last = answer.body;
                    }
                    Err(error) => answered.0.push(error.to_string()),
                }
            }
        }
        match (self.0.then, head) {
            (Then::Trap, _) => panic!("told to trap when its calls are answered"),
            (Then::Loop, _) => while std::hint::black_box(true) {},
            (Then::Header, Some(head)) => {
                if let Err(error) = head.insert("x-courier", last) {
                    answered.0.push(error.to_string());
                }
            }
            _ => {}
        }
    }
}

impl Errand {
    fn call(&self) -> Call {
        let method = Method::from_bytes(self.method.as_bytes()).unwrap_or_default();
        let body = self.body_bytes.map_or_else(|| self.body.clone().into_bytes(), |bytes| vec![b'x'; bytes]);
        let call = Call::new(method, &self.url).body(body);
        let call = self.headers.iter().fold(call, |call, (name, value)| call.header(name, value.as_str()));
        self.timeout_ms.map(Duration::from_millis).into_iter().fold(call, Call::timeout)
    }
}

fn get() -> String {
    "GET".to_owned()
}

fn once() -> u32 {
    1
}

tidegate_sdk::export!(Courier);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tidegate_sdk::{
        outbound::{Answer, CallError},
        testing::Driver,
    };

    #[test]
    fn it_calls_and_tells() {
        let calls = json!([{"url": "https://tokens.example/"}, {"url": "https://none.example/", "times": 2}]);
        let driver = Driver::<Courier>::new(json!({"at": "response", "calls": calls, "then": "header"})).unwrap();
        let driver = driver.answers(|call| match call.url() {
            "https://tokens.example/" => Ok(Answer { status: StatusCode::OK, headers: Vec::new(), body: b"token".to_vec() }),
            _ => Err(CallError::UnknownTarget),
        });
        let exchange = driver.exchange().request([]).response(StatusCode::OK, []).log();
        assert_eq!(exchange.calls().len(), 3);
        assert_eq!(exchange.caller().unwrap().header("x-courier"), Some("token"));
        let none = "not an absolute URL of a registered service";
        let answered = format!("200 5 bytes\n{none}\n{none}");
        assert_eq!(exchange.events()[0].field("answered"), Some(&answered.into()));
    }
}
