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
    fn on_request(&self, _exchange: &mut Exchange<Self::State>, _head: &mut Headers<'_>, _end: bool) -> Flow {
        Flow::Proceed
    }

    /// A piece of the request's body has come. `end` says that nothing follows; before trailers it is never said.
    fn on_request_body(&self, _exchange: &mut Exchange<Self::State>, _body: &mut Body<'_>, _end: bool) -> BodyFlow {
        BodyFlow::Forward
    }

    /// The request's trailers have come: its end.
    fn on_request_trailers(&self, _exchange: &mut Exchange<Self::State>, _trailers: &mut Trailers<'_>) -> TrailerFlow {
        TrailerFlow::Forward
    }

    /// The response's head has come. `end` says that no body follows.
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
    fn on_response_body(&self, _exchange: &mut Exchange<Self::State>, _body: &mut Body<'_>, _end: bool) -> BodyFlow {
        BodyFlow::Forward
    }

    /// The response's trailers have come: its end.
    fn on_response_trailers(&self, _exchange: &mut Exchange<Self::State>, _trailers: &mut Trailers<'_>) -> TrailerFlow {
        TrailerFlow::Forward
    }

    /// The exchange has ended, well or not. The last callback: the place for an audit event about all of it.
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
