//! The trait that a filter implements.

use crate::{Body, BodyFlow, ConfigError, Flow, Headers, TrailerFlow, Trailers};
use http::StatusCode;
use serde::de::DeserializeOwned;

/// A filter: made once from its configuration, then shown many exchanges, several of which may be open at once.
///
/// Each direction begins with its head; the [`Flow`] that the filter answers says what else of it is shown. The response
/// may begin before the request has ended.
///
/// Callbacks must be quick: the gateway ends one that runs for longer than its limit, and treats a panic, an endless
/// loop or too much memory as a failure of the exchange that it happened in.
pub trait Filter: Sized + 'static {
    /// The configuration, read from the route's JSON. Use `#[serde(deny_unknown_fields)]`, so that a misspelt field is
    /// refused when the route is written. `()` for a filter that has none.
    type Config: DeserializeOwned;
    /// What the filter remembers of one exchange from callback to callback; `()` for nothing.
    type State: Default + 'static;

    /// Makes the filter, or says what is wrong with its configuration beyond its syntax.
    fn new(config: Self::Config) -> Result<Self, ConfigError>;

    /// The request's head has come. `end` says that no body follows.
    ///
    /// A caller names its team, or is answered:
    ///
    /// ```
    /// # use tidegate_sdk::{*, testing::{Driver, Message}};
    /// # struct Teams;
    /// # impl Filter for Teams {
    /// #     type Config = (); type State = (); fn new((): ()) -> Result<Self, ConfigError> { Ok(Self) }
    /// fn on_request(&self, _: &mut Exchange<()>, head: &mut Headers<'_>, _end: bool) -> Flow {
    ///     match head.text("x-team") {
    ///         Some(_) => Flow::Proceed,
    ///         None => Flow::Reply(Reply::new(StatusCode::FORBIDDEN).body("name your team\n").details("no team named")),
    ///     }
    /// }
    /// # }
    /// # let driver = Driver::<Teams>::new(serde_json::json!(null)).unwrap();
    /// assert!(driver.exchange().request([("x-team", "checkout")]).upstream().is_some());
    /// assert_eq!(driver.exchange().request([]).status(), Some(StatusCode::FORBIDDEN));
    /// ```
    fn on_request(&self, _exchange: &mut Exchange<Self::State>, _head: &mut Headers<'_>, _end: bool) -> Flow {
        Flow::Proceed
    }

    /// A piece of the request's body has come. `end` says that nothing follows; before trailers it is never said.
    ///
    /// Orders are read whole, before anything of them goes on:
    ///
    /// ```
    /// # use tidegate_sdk::{*, testing::{Driver, Message}};
    /// # struct Orders;
    /// # impl Filter for Orders {
    /// #     type Config = (); type State = (); fn new((): ()) -> Result<Self, ConfigError> { Ok(Self) }
    /// fn on_request(&self, _: &mut Exchange<()>, head: &mut Headers<'_>, _end: bool) -> Flow {
    ///     if head.text("content-type").as_deref() == Some("application/json") { Flow::Buffer } else { Flow::Done }
    /// }
    ///
    /// fn on_request_body(&self, _: &mut Exchange<()>, body: &mut Body<'_>, _end: bool) -> BodyFlow {
    ///     let Ok(order) = serde_json::from_slice::<serde_json::Value>(&body.bytes()) else {
    ///         return BodyFlow::Reply(Reply::new(StatusCode::BAD_REQUEST).details("the order is not JSON"));
    ///     };
    ///     // The head is still here.
    ///     if let Some(head) = body.head()
    ///         && head.insert("x-order", order["id"].to_string()).is_err()
    ///     {
    ///         return BodyFlow::Reply(Reply::new(StatusCode::BAD_REQUEST).details("the order's id is no header value"));
    ///     }
    ///     BodyFlow::Forward
    /// }
    /// # }
    /// # let driver = Driver::<Orders>::new(serde_json::json!(null)).unwrap();
    /// let json = || Message::new([("content-type", "application/json")]);
    /// let exchange = driver.exchange().request(json().body([r#"{"id""#, r#":7}"#]));
    /// assert_eq!(exchange.upstream().unwrap().header("x-order"), Some("7"));
    /// let exchange = driver.exchange().request(json().body(["id=7"]));
    /// assert_eq!(exchange.status(), Some(StatusCode::BAD_REQUEST));
    /// ```
    fn on_request_body(&self, _exchange: &mut Exchange<Self::State>, _body: &mut Body<'_>, _end: bool) -> BodyFlow {
        BodyFlow::Forward
    }

    /// The request's trailers have come: its end.
    ///
    /// A checksum that the caller sends behind the body is not for the upstream:
    ///
    /// ```
    /// # use tidegate_sdk::{*, testing::{Driver, Message}};
    /// # struct Checksums;
    /// # impl Filter for Checksums {
    /// #     type Config = (); type State = (); fn new((): ()) -> Result<Self, ConfigError> { Ok(Self) }
    /// fn on_request(&self, _: &mut Exchange<()>, _: &mut Headers<'_>, _end: bool) -> Flow {
    ///     Flow::Trailers
    /// }
    ///
    /// fn on_request_trailers(&self, _: &mut Exchange<()>, trailers: &mut Trailers<'_>) -> TrailerFlow {
    ///     match trailers.remove("x-checksum") {
    ///         Ok(()) => TrailerFlow::Forward,
    ///         Err(_) => TrailerFlow::Reset,
    ///     }
    /// }
    /// # }
    /// # let driver = Driver::<Checksums>::new(serde_json::json!(null)).unwrap();
    /// let request = Message::new([]).body(["text"]).trailers([("x-checksum", "5f"), ("x-other", "1")]);
    /// let exchange = driver.exchange().request(request);
    /// assert_eq!(exchange.upstream().unwrap().trailers.as_ref().unwrap().len(), 1);
    /// ```
    fn on_request_trailers(&self, _exchange: &mut Exchange<Self::State>, _trailers: &mut Trailers<'_>) -> TrailerFlow {
        TrailerFlow::Forward
    }

    /// The response's head has come. `end` says that no body follows.
    ///
    /// What is not found upstream is gone for the caller:
    ///
    /// ```
    /// # use tidegate_sdk::{*, testing::{Driver, Message}};
    /// # struct Gone;
    /// # impl Filter for Gone {
    /// #     type Config = (); type State = (); fn new((): ()) -> Result<Self, ConfigError> { Ok(Self) }
    /// fn on_response(&self, _: &mut Exchange<()>, status: StatusCode, head: &mut Headers<'_>, _end: bool) -> Flow {
    ///     let changed = match status {
    ///         StatusCode::NOT_FOUND => message::set_status(StatusCode::GONE),
    ///         _ => Ok(()),
    ///     };
    ///     match (changed, head.remove("server")) {
    ///         (Ok(()), Ok(())) => Flow::Proceed,
    ///         _ => Flow::Reset,
    ///     }
    /// }
    /// # }
    /// # let driver = Driver::<Gone>::new(serde_json::json!(null)).unwrap();
    /// let exchange = driver.exchange().request([]).response(StatusCode::NOT_FOUND, [("server", "secret/1.0")]);
    /// assert_eq!(exchange.status(), Some(StatusCode::GONE));
    /// assert!(exchange.caller().unwrap().headers.is_empty());
    /// ```
    fn on_response(
        &self,
        _exchange: &mut Exchange<Self::State>,
        _status: StatusCode,
        _head: &mut Headers<'_>,
        _end: bool,
    ) -> Flow {
        Flow::Proceed
    }

    /// A piece of the response's body has come. `end` says that nothing follows; before trailers it is never said.
    ///
    /// Lines are counted as they stream; a piece that does not end with a line waits for its rest:
    ///
    /// ```
    /// # use tidegate_sdk::{*, testing::{Driver, Message}};
    /// # struct Lines;
    /// # impl Filter for Lines {
    /// #     type Config = (); type State = u64; fn new((): ()) -> Result<Self, ConfigError> { Ok(Self) }
    /// fn on_response(&self, _: &mut Exchange<u64>, _: StatusCode, _: &mut Headers<'_>, _end: bool) -> Flow {
    ///     Flow::Stream
    /// }
    ///
    /// fn on_response_body(&self, exchange: &mut Exchange<u64>, body: &mut Body<'_>, end: bool) -> BodyFlow {
    ///     let bytes = body.bytes();
    ///     if !end && bytes.last() != Some(&b'\n') {
    ///         return BodyFlow::Hold;
    ///     }
    ///     exchange.state += bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count() as u64;
    ///     BodyFlow::Forward
    /// }
    /// # }
    /// # let driver = Driver::<Lines>::new(serde_json::json!(null)).unwrap();
    /// let response = Message::new([]).body(["one\ntw", "o\n", "three"]);
    /// let exchange = driver.exchange().request([]).response(StatusCode::OK, response);
    /// assert_eq!((*exchange.state(), exchange.caller().unwrap().body.as_slice()), (3, b"one\ntwo\nthree".as_slice()));
    /// ```
    fn on_response_body(&self, _exchange: &mut Exchange<Self::State>, _body: &mut Body<'_>, _end: bool) -> BodyFlow {
        BodyFlow::Forward
    }

    /// The response's trailers have come: its end.
    ///
    /// The status of a gRPC call is in its trailers:
    ///
    /// ```
    /// # use tidegate_sdk::{*, testing::{Driver, Message}};
    /// # struct Statuses;
    /// # impl Filter for Statuses {
    /// #     type Config = (); type State = Option<String>; fn new((): ()) -> Result<Self, ConfigError> { Ok(Self) }
    /// fn on_response(&self, _: &mut Exchange<Option<String>>, _: StatusCode, _: &mut Headers<'_>, _end: bool) -> Flow {
    ///     Flow::Trailers
    /// }
    ///
    /// fn on_response_trailers(&self, exchange: &mut Exchange<Option<String>>, trailers: &mut Trailers<'_>) -> TrailerFlow {
    ///     exchange.state = trailers.text("grpc-status");
    ///     TrailerFlow::Forward
    /// }
    /// # }
    /// # let driver = Driver::<Statuses>::new(serde_json::json!(null)).unwrap();
    /// let response = Message::new([]).body(["..."]).trailers([("grpc-status", "5")]);
    /// let exchange = driver.exchange().request([]).response(StatusCode::OK, response);
    /// assert_eq!(exchange.state().as_deref(), Some("5"));
    /// ```
    fn on_response_trailers(&self, _exchange: &mut Exchange<Self::State>, _trailers: &mut Trailers<'_>) -> TrailerFlow {
        TrailerFlow::Forward
    }

    /// The exchange has ended, well or not. The last callback: the place for an audit event about all of it.
    ///
    /// One event tells of the whole exchange:
    ///
    /// ```
    /// # use tidegate_sdk::{*, testing::{Driver, Message}};
    /// # struct Times;
    /// # impl Filter for Times {
    /// #     type Config = (); type State = (); fn new((): ()) -> Result<Self, ConfigError> { Ok(Self) }
    /// fn on_log(&self, exchange: &mut Exchange<()>) {
    ///     // The gateway fills these in itself, where they are known.
    ///     let known = [("caller", "caller.principal"), ("took_us", "duration.total-us")];
    ///     audit::Event::new("call", audit::Outcome::Allowed).known(&known).field("number", exchange.id()).emit();
    /// }
    /// # }
    /// # let driver = Driver::<Times>::new(serde_json::json!(null)).unwrap();
    /// let exchange = driver.exchange().attribute("duration.total-us", 1200_u64).request([]).response(StatusCode::OK, []).log();
    /// assert_eq!(exchange.events()[0].field("took_us"), Some(&1200_u64.into()));
    /// ```
    fn on_log(&self, _exchange: &mut Exchange<Self::State>) {}
}

/// One exchange, with what the filter remembers of it.
#[derive(Debug)]
pub struct Exchange<S> {
    id: u64,
    /// What the filter remembers.
    pub state: S,
}

impl<S> Exchange<S> {
    /// The number that its record is known by.
    pub fn id(&self) -> u64 {
        self.id
    }
}

impl<S: Default> Exchange<S> {
    pub(crate) fn begin(id: u64) -> Self {
        Self { id, state: S::default() }
    }
}
