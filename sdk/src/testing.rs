//! A test driver: runs a filter against scripted exchanges, natively, with a host of its own on the test's thread.
//!
//! It keeps to what the gateway does with headers, so that a change the gateway refuses is refused here too; limits on
//! time, memory and size are only in the gateway.

use crate::{
    ConfigError, Exchange, Filter, Flow, Headers, Reply,
    attributes::Value,
    audit::Outcome,
    config,
    host::{Emitted, RawHeaders, WORLD, World},
    log::Level,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use std::cell::Cell;

/// A configured filter.
#[derive(Debug)]
pub struct Driver<F: Filter> {
    filter: F,
    next: Cell<u64>,
}

/// One exchange with the filter, and what it left behind.
#[derive(Debug)]
pub struct Scripted<'a, F: Filter> {
    filter: &'a F,
    exchange: Exchange<F::State>,
    headers: HeaderMap,
    reply: Option<Reply>,
}

/// An audit event that a filter emitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The filter's word for it.
    pub kind: String,
    /// How the exchange stood.
    pub outcome: Outcome,
    /// Its fields, in order.
    pub fields: Vec<(String, Value)>,
}

impl Event {
    /// The field of this name.
    pub fn field(&self, name: &str) -> Option<&Value> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value)
    }
}

impl<F: Filter> Driver<F> {
    /// Makes the filter from `config`, as the gateway would.
    pub fn new(config: serde_json::Value) -> Result<Self, ConfigError> {
        let filter = config::start(config.to_string().as_bytes())?;
        Ok(Self { filter, next: Cell::new(1) })
    }

    /// Begins an exchange. Attributes, events and log of the one before are forgotten.
    pub fn exchange(&self) -> Scripted<'_, F> {
        WORLD.with_borrow_mut(|world| *world = World::default());
        let exchange = Exchange::begin(self.next.replace(self.next.get() + 1));
        Scripted { filter: &self.filter, exchange, headers: HeaderMap::new(), reply: None }
    }
}

impl<F: Filter> Scripted<'_, F> {
    /// Lets the gateway know something.
    #[must_use]
    pub fn attribute(self, name: &str, value: impl Into<Value>) -> Self {
        WORLD.with_borrow_mut(|world| world.attributes.insert(name.to_owned(), value.into()));
        self
    }

    /// Shows a request's head without a body.
    ///
    /// # Panics
    /// Where a header is not valid, since the script is wrong then.
    #[must_use]
    pub fn request<const N: usize>(mut self, headers: [(&str, &str); N]) -> Self {
        let raw = raw(headers);
        let flow = self.filter.on_request(&mut self.exchange, &mut Headers::new(raw.clone()), true);
        self.keep(raw, flow);
        self
    }

    /// Shows a response's head without a body.
    ///
    /// # Panics
    /// Where a header is not valid, since the script is wrong then.
    #[must_use]
    pub fn response<const N: usize>(mut self, status: StatusCode, headers: [(&str, &str); N]) -> Self {
        let raw = raw(headers);
        let flow = self.filter.on_response(&mut self.exchange, status, &mut Headers::new(raw.clone()), true);
        self.keep(raw, flow);
        self
    }

    /// Ends the exchange.
    #[must_use]
    pub fn log(mut self) -> Self {
        self.filter.on_log(&mut self.exchange);
        self
    }

    /// The headers of the message shown last, as the filter left them.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The filter's own answer, if it gave one.
    pub fn replied(&self) -> Option<&Reply> {
        self.reply.as_ref()
    }

    /// What the filter remembers.
    pub fn state(&self) -> &F::State {
        &self.exchange.state
    }

    /// The events emitted so far.
    pub fn events(&self) -> Vec<Event> {
        WORLD.with_borrow(|world| {
            let event =
                |(kind, outcome, fields): &Emitted| Event { kind: kind.clone(), outcome: *outcome, fields: fields.clone() };
            world.events.iter().map(event).collect()
        })
    }

    /// The messages logged so far.
    pub fn logged(&self) -> Vec<(Level, String)> {
        WORLD.with_borrow(|world| world.log.clone())
    }

    fn keep(&mut self, raw: RawHeaders, flow: Flow) {
        self.headers = raw.0.take();
        if let Flow::Reply(reply) = flow {
            self.reply = Some(reply);
        }
    }
}

fn raw<const N: usize>(headers: [(&str, &str); N]) -> RawHeaders {
    let raw = RawHeaders::default();
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header name in the script");
        raw.0.borrow_mut().append(name, HeaderValue::from_str(value).expect("a header value in the script"));
    }
    raw
}
