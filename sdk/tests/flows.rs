//! What the test driver does with each answer of a filter, which is what the gateway does with it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking; clippy knows that only inside of test functions")]

use http::StatusCode;
use tidegate_sdk::{
    Body, BodyFlow, ConfigError, Exchange, Filter, Flow, Headers, Reply, TrailerFlow, Trailers, message,
    testing::{Driver, Message, Scripted},
};

/// A filter that answers as it is told to, and remembers what it was shown.
struct Player(Script);

#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Script {
    /// The answer to either head.
    head: Answer,
    /// The answers to the pieces of a body; the last one stands for the rest.
    body: Vec<Answer>,
    trailers: Answer,
    /// Written behind each piece.
    mark: String,
}

#[derive(Default, Clone, Copy, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    #[default]
    Proceed,
    Trailers,
    Stream,
    Hold,
    Buffer,
    Done,
    Drop,
    SkipRest,
    Reply,
    Grpc,
    BadReply,
    Reset,
}

impl Player {
    fn head(&self) -> Flow {
        match self.0.head {
            Answer::Trailers => Flow::Trailers,
            Answer::Stream => Flow::Stream,
            Answer::Hold => Flow::Hold,
            Answer::Buffer => Flow::Buffer,
            Answer::Done => Flow::Done,
            Answer::Reply | Answer::Grpc | Answer::BadReply => Flow::Reply(self.0.head.reply()),
            Answer::Reset => Flow::Reset,
            _ => Flow::Proceed,
        }
    }

    fn piece(&self, seen: &mut Vec<String>, side: &str, body: &mut Body<'_>, end: bool) -> BodyFlow {
        let text = String::from_utf8(body.bytes()).unwrap();
        let head = if body.head().is_some() { "+head" } else { "" };
        seen.push(format!("{side} {text:?}{head}{}", if end { " end" } else { "" }));
        body.append(&self.0.mark).unwrap();
        if let Some(head) = body.head() {
            head.insert("x-held", "1").unwrap();
        }
        let answer = self.0.body.get(seen.len() - 2).or(self.0.body.last()).copied().unwrap_or_default();
        match answer {
            Answer::Hold => BodyFlow::Hold,
            Answer::Drop => BodyFlow::Drop,
            Answer::SkipRest => BodyFlow::SkipRest,
            Answer::Reply => BodyFlow::Reply(answer.reply()),
            Answer::Reset => BodyFlow::Reset,
            _ => BodyFlow::Forward,
        }
    }

    fn trailers(&self, seen: &mut Vec<String>, side: &str, trailers: &mut Trailers<'_>) -> TrailerFlow {
        let head = if trailers.head().is_some() { "+head" } else { "" };
        let body = String::from_utf8(trailers.body().take()).unwrap();
        seen.push(format!("{side} {body:?}{head} {} trailers", trailers.entries().len()));
        trailers.body().append(format!("<{body}>")).unwrap();
        trailers.insert("x-trailer", "1").unwrap();
        match self.0.trailers {
            Answer::Reply => TrailerFlow::Reply(self.0.trailers.reply()),
            Answer::Reset => TrailerFlow::Reset,
            _ => TrailerFlow::Forward,
        }
    }
}

impl Answer {
    fn reply(self) -> Reply {
        let reply = Reply::new(StatusCode::FORBIDDEN).header("x-why", "told so").body("no").details("told to 100%");
        match self {
            Self::Grpc => reply.grpc_status(7),
            Self::BadReply => reply.header("content-length", "7"),
            _ => reply,
        }
    }
}

impl Filter for Player {
    type Config = Script;
    type State = Vec<String>;

    fn new(script: Script) -> Result<Self, ConfigError> {
        Ok(Self(script))
    }

    fn on_request(&self, exchange: &mut Exchange<Vec<String>>, head: &mut Headers<'_>, end: bool) -> Flow {
        exchange.state.push(format!("request {}{}", head.entries().len(), if end { " end" } else { "" }));
        self.head()
    }

    fn on_request_body(&self, exchange: &mut Exchange<Vec<String>>, body: &mut Body<'_>, end: bool) -> BodyFlow {
        self.piece(&mut exchange.state, "request", body, end)
    }

    fn on_request_trailers(&self, exchange: &mut Exchange<Vec<String>>, trailers: &mut Trailers<'_>) -> TrailerFlow {
        self.trailers(&mut exchange.state, "request", trailers)
    }

    fn on_response(&self, exchange: &mut Exchange<Vec<String>>, status: StatusCode, _: &mut Headers<'_>, end: bool) -> Flow {
        exchange.state.push(format!("response {}{}", status.as_u16(), if end { " end" } else { "" }));
        assert_eq!(message::set_status(StatusCode::ACCEPTED), Ok(()));
        self.head()
    }

    fn on_response_body(&self, exchange: &mut Exchange<Vec<String>>, body: &mut Body<'_>, end: bool) -> BodyFlow {
        self.piece(&mut exchange.state, "response", body, end)
    }

    fn on_response_trailers(&self, exchange: &mut Exchange<Vec<String>>, trailers: &mut Trailers<'_>) -> TrailerFlow {
        self.trailers(&mut exchange.state, "response", trailers)
    }

    fn on_log(&self, exchange: &mut Exchange<Vec<String>>) {
        exchange.state.push("log".to_owned());
    }
}

fn driver(script: serde_json::Value) -> Driver<Player> {
    Driver::new(script).unwrap()
}

fn seen<'a>(exchange: &'a Scripted<'_, Player>) -> Vec<&'a str> {
    exchange.state().iter().map(String::as_str).collect()
}

/// The body that the upstream has received so far.
fn sent<'a>(exchange: &'a Scripted<'_, Player>) -> Option<&'a str> {
    exchange.upstream().map(|received| std::str::from_utf8(&received.body).unwrap())
}

#[test]
fn proceed_shows_nothing_more() {
    let driver = driver(serde_json::json!({}));
    let request = Message::new([("content-length", "2"), ("x-a", "1"), ("proxy-authorization", "secret")]);
    let exchange = driver.exchange().request(request.body(["a", "b"]).trailers([("x-t", "1")])).log();
    assert_eq!(seen(&exchange), ["request 2", "log"]);
    let received = exchange.upstream().unwrap();
    assert_eq!((received.body.as_slice(), received.complete), (b"ab".as_slice(), true));
    assert_eq!(received.trailers.as_ref().unwrap().len(), 1);
    assert_eq!(received.header("x-a"), Some("1"));
    assert_eq!(received.headers.len(), 1, "framing and the caller's secret are not passed on");
}

#[test]
fn trailers_shows_them_alone() {
    let driver = driver(serde_json::json!({"head": "trailers"}));
    let exchange = driver.exchange().request(Message::new([]).body(["a"]).trailers([("x-t", "1")]));
    assert_eq!(seen(&exchange), ["request 0", "request \"\" 1 trailers"]);
    assert_eq!(exchange.upstream().unwrap().trailers.as_ref().unwrap().len(), 2);
    assert_eq!(sent(&exchange), Some("a<>"), "a filter may end the body, too");
}

#[test]
fn stream_sends_the_head_and_shows_each_piece() {
    let driver = driver(serde_json::json!({"head": "stream", "mark": "."}));
    let exchange = driver.exchange().request_head([]);
    assert_eq!(sent(&exchange), Some(""));
    let exchange = exchange.request_body("a");
    assert_eq!(sent(&exchange), Some("a."));
    let exchange = exchange.request_body("b").request_end();
    assert_eq!(seen(&exchange), ["request 0", "request \"a\"", "request \"b\"", "request \"\" end"]);
    assert_eq!(sent(&exchange), Some("a.b.."));
    assert!(exchange.upstream().unwrap().complete);
}

#[test]
fn hold_keeps_the_head_until_a_piece_goes_on() {
    let driver = driver(serde_json::json!({"head": "hold", "body": ["hold", "drop", "proceed"], "mark": "."}));
    let exchange = driver.exchange().request_head([]).request_body("a");
    assert!(exchange.upstream().is_none());
    let exchange = exchange.request_body("b");
    assert!(exchange.upstream().is_none(), "what was dropped takes no head with it");
    let exchange = exchange.request_body("c").request_body("d").request_end();
    let shown =
        ["request 0", "request \"a\"+head", "request \"a.b\"+head", "request \"c\"+head", "request \"d\"", "request \"\" end"];
    assert_eq!(seen(&exchange), shown);
    assert_eq!(sent(&exchange), Some("c.d.."));
    assert_eq!(exchange.upstream().unwrap().header("x-held"), Some("1"));
}

#[test]
fn what_is_held_goes_on_when_the_message_ends() {
    let driver = driver(serde_json::json!({"head": "hold", "body": ["hold"]}));
    let exchange = driver.exchange().request(Message::new([]).body(["a", "b"]));
    assert_eq!(seen(&exchange), ["request 0", "request \"a\"+head", "request \"ab\"+head end"]);
    assert_eq!(sent(&exchange), Some("ab"));
    let exchange = driver.exchange().request(Message::new([]).body(["a", "b"]).trailers([("x-t", "1")]));
    assert_eq!(seen(&exchange).last(), Some(&"request \"ab\"+head 1 trailers"));
    assert_eq!(sent(&exchange), Some("<ab>"));
}

#[test]
fn a_request_without_a_body_can_be_given_one() {
    for head in ["hold", "buffer"] {
        let driver = driver(serde_json::json!({"head": head, "mark": "."}));
        let exchange = driver.exchange().request([]);
        assert_eq!(seen(&exchange), ["request 0 end", "request \"\"+head end"], "{head}");
        assert_eq!(sent(&exchange), Some("."), "{head}");
        assert!(exchange.upstream().unwrap().complete, "{head}");
    }
    let driver = driver(serde_json::json!({"head": "stream", "mark": "."}));
    let exchange = driver.exchange().request([]);
    assert_eq!((seen(&exchange), sent(&exchange)), (vec!["request 0 end"], Some("")));
}

#[test]
fn a_response_without_a_body_can_be_given_one() {
    for head in ["hold", "buffer"] {
        let driver = driver(serde_json::json!({"head": head, "mark": "."}));
        let exchange = driver.exchange().request([]).response(StatusCode::NOT_FOUND, []);
        assert_eq!(seen(&exchange)[2..], ["response 404 end", "response \"\"+head end"], "{head}");
        assert_eq!(exchange.caller().unwrap().body, b".", "{head}");
    }
}

#[test]
fn a_response_that_cannot_have_a_body_is_not_held() {
    for (head, method, status) in [("hold", "GET", 204), ("buffer", "GET", 304), ("hold", "HEAD", 200), ("stream", "GET", 200)]
    {
        let driver = driver(serde_json::json!({"head": head, "mark": "."}));
        let status = StatusCode::from_u16(status).unwrap();
        let exchange = driver.exchange().attribute("request.method", method).request([]).response(status, []);
        assert_eq!(seen(&exchange).last(), Some(&format!("response {} end", status.as_u16()).as_str()), "{head} {method}");
        assert_eq!(exchange.caller().unwrap().body, b"", "{head} {method}");
        assert!(exchange.caller().unwrap().complete, "{head} {method}");
    }
}

#[test]
fn buffer_shows_the_whole_once() {
    let driver = driver(serde_json::json!({"head": "buffer", "mark": "."}));
    let exchange = driver.exchange().request_head([]).request_body("a").request_body("b");
    assert!(exchange.upstream().is_none());
    let exchange = exchange.request_end();
    assert_eq!(seen(&exchange), ["request 0", "request \"ab\"+head end"]);
    assert_eq!(sent(&exchange), Some("ab."));
    let exchange = driver.exchange().request(Message::new([]).body(["a", "b"]).trailers([("x-t", "1")]));
    assert_eq!(seen(&exchange), ["request 0", "request \"ab\"+head", "request \"\"+head 1 trailers"]);
    assert_eq!(sent(&exchange), Some("ab.<>"));
    let whole = self::driver(serde_json::json!({"head": "buffer", "body": ["hold"]}));
    let exchange = whole.exchange().request(Message::new([]).body(["a", "b"]).trailers([("x-t", "1")]));
    assert_eq!(seen(&exchange).last(), Some(&"request \"ab\"+head 1 trailers"));
    let unseen = self::driver(serde_json::json!({"head": "buffer", "body": ["skip_rest"]}));
    let exchange = unseen.exchange().request(Message::new([]).body(["a", "b"]).trailers([("x-t", "1")]));
    assert_eq!(seen(&exchange), ["request 0", "request \"ab\"+head"]);
    assert!(exchange.upstream().unwrap().complete);
}

#[test]
fn more_than_the_gateway_holds_is_a_failure() {
    let driver = driver(serde_json::json!({"head": "buffer"}));
    let piece = vec![b'x'; 700 * 1024];
    let exchange = driver.exchange().request_head([]).request_body(&piece);
    assert_eq!(exchange.failure(), None);
    let exchange = exchange.request_body(&piece).request_end();
    assert!(exchange.failure().unwrap().contains("holds"));
    assert!(exchange.upstream().is_none());
}

#[test]
fn dropping_the_whole_leaves_an_empty_body() {
    let driver = driver(serde_json::json!({"head": "buffer", "body": ["drop"]}));
    let exchange = driver.exchange().request(Message::new([]).body(["a", "b"]));
    assert_eq!(sent(&exchange), Some(""));
    assert!(exchange.upstream().unwrap().complete);
}

#[test]
fn skip_rest_lets_the_rest_pass_unseen() {
    let driver = driver(serde_json::json!({"head": "hold", "body": ["hold", "skip_rest"]}));
    let exchange = driver.exchange().request(Message::new([]).body(["a", "b", "c"]).trailers([("x-t", "1")]));
    assert_eq!(seen(&exchange), ["request 0", "request \"a\"+head", "request \"ab\"+head"]);
    assert_eq!(sent(&exchange), Some("abc"));
    assert_eq!(exchange.upstream().unwrap().trailers.as_ref().unwrap().len(), 1);
}

#[test]
fn done_is_the_end_of_it() {
    let driver = driver(serde_json::json!({"head": "done"}));
    let exchange = driver.exchange().request(Message::new([]).body(["a"])).response(StatusCode::OK, []).log();
    assert_eq!(seen(&exchange), ["request 0"]);
    assert_eq!(sent(&exchange), Some("a"));
    assert_eq!(exchange.status(), Some(StatusCode::OK));
}

#[test]
fn a_reply_stands_in_the_place_of_the_response() {
    let driver = driver(serde_json::json!({"head": "reply"}));
    let exchange = driver.exchange().request(Message::new([]).body(["a"])).log();
    assert_eq!(seen(&exchange), ["request 0", "log"]);
    assert!(exchange.upstream().is_none());
    assert_eq!(exchange.status(), Some(StatusCode::FORBIDDEN));
    let received = exchange.caller().unwrap();
    assert_eq!((received.body.as_slice(), received.header("x-why")), (b"no".as_slice(), Some("told so")));
}

#[test]
fn a_reply_in_the_body_comes_before_the_head_or_not_at_all() {
    let script = |head| serde_json::json!({"head": head, "body": ["proceed", "reply"]});
    let held = driver(serde_json::json!({"head": "buffer", "body": ["reply"]}));
    let exchange = held.exchange().response(StatusCode::OK, Message::new([]).body(["a"]));
    assert_eq!(exchange.status(), Some(StatusCode::FORBIDDEN));
    assert_eq!(exchange.caller().unwrap().body, b"no");
    let gone = driver(script("stream"));
    let exchange = gone.exchange().response(StatusCode::OK, Message::new([]).body(["a", "b", "c"]));
    assert!(exchange.replied().is_none());
    assert!(exchange.failure().unwrap().contains("head had gone"));
    assert!(!exchange.caller().unwrap().complete);
}

#[test]
fn a_reply_in_the_trailers_takes_what_is_held() {
    let driver = driver(serde_json::json!({"head": "buffer", "trailers": "reply"}));
    let exchange = driver.exchange().response(StatusCode::OK, Message::new([]).body(["a"]).trailers([("x-t", "1")]));
    assert_eq!(exchange.caller().unwrap().body, b"no");
}

#[test]
fn a_grpc_caller_is_answered_with_a_grpc_status() {
    let driver = driver(serde_json::json!({"head": "grpc"}));
    let exchange = driver.exchange().request([("content-type", "application/grpc+proto")]);
    assert_eq!(exchange.status(), Some(StatusCode::OK));
    let received = exchange.caller().unwrap();
    assert_eq!((received.header("grpc-status"), received.header("grpc-message")), (Some("7"), Some("told to 100%25")));
    assert!(received.body.is_empty());
    let exchange = driver.exchange().request([("content-type", "application/json")]);
    assert_eq!(exchange.status(), Some(StatusCode::FORBIDDEN));
}

#[test]
fn a_reply_that_the_gateway_refuses_is_a_failure() {
    let driver = driver(serde_json::json!({"head": "bad_reply"}));
    let exchange = driver.exchange().request([]);
    assert!(exchange.failure().unwrap().contains("header"));
    assert!(exchange.caller().is_none());
}

#[test]
fn a_reset_is_no_answer() {
    let driver = driver(serde_json::json!({"head": "hold", "body": ["reset"]}));
    let exchange = driver.exchange().request(Message::new([]).body(["a", "b"])).response(StatusCode::OK, []).log();
    assert!(exchange.is_reset());
    assert_eq!(seen(&exchange), ["request 0", "request \"a\"+head", "log"]);
    assert!(exchange.upstream().is_none() && exchange.caller().is_none());
}

#[test]
fn both_directions_overlap() {
    let driver = driver(serde_json::json!({"head": "stream"}));
    let exchange = driver.exchange().request_head([]).request_body("a");
    let exchange = exchange.response_head(StatusCode::OK, []).response_body("x").request_body("b");
    let exchange = exchange.response_trailers([("x-t", "1")]).request_end();
    assert_eq!(sent(&exchange), Some("ab"));
    let received = exchange.caller().unwrap();
    assert_eq!((received.body.as_slice(), received.complete), (b"x<>".as_slice(), true));
    assert_eq!(exchange.status(), Some(StatusCode::ACCEPTED));
}
