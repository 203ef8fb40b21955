//! Joins the exported world to the [`Filter`] trait. Not for filters: `export!` uses it.

use crate::{
    Exchange, Filter, Flow, Headers, Reply,
    bindings::{exports::tidegate::filter::handler::GuestExchange, tidegate::filter::types},
    config,
};
use http::StatusCode;
use std::{cell::RefCell, rc::Rc};

/// Where `export!` keeps the one filter of a module.
pub trait Installed: 'static {
    /// Its type.
    type Filter: Filter;
    /// Keeps it; a second one is ignored.
    fn install(filter: Self::Filter);
    /// It.
    fn installed() -> Rc<Self::Filter>;
}

/// One exchange in the filter.
pub struct Handler<I: Installed> {
    filter: Rc<I::Filter>,
    exchange: RefCell<Exchange<<I::Filter as Filter>::State>>,
}

/// Reads the configuration, makes the filter and installs it.
pub fn configure<I: Installed>() -> Result<(), String> {
    let filter = config::start::<I::Filter>(&crate::host::config()).map_err(|error| error.to_string())?;
    I::install(filter);
    Ok(())
}

impl<I: Installed> GuestExchange for Handler<I> {
    fn new(id: u64) -> Self {
        Self { filter: I::installed(), exchange: RefCell::new(Exchange::begin(id)) }
    }

    fn on_request_headers(&self, headers: &types::Headers, end: bool) -> types::Flow {
        let mut headers = Headers::over(headers);
        self.filter.on_request(&mut self.exchange.borrow_mut(), &mut headers, end).into()
    }

    fn on_response_headers(&self, status: u16, headers: &types::Headers, end: bool) -> types::Flow {
        let mut headers = Headers::over(headers);
        // The host hands over what http::StatusCode holds; a filter has no use for a panic about it.
        let status = StatusCode::from_u16(status).unwrap_or_default();
        self.filter.on_response(&mut self.exchange.borrow_mut(), status, &mut headers, end).into()
    }

    fn on_log(&self) {
        self.filter.on_log(&mut self.exchange.borrow_mut());
    }
}

impl From<Flow> for types::Flow {
    fn from(flow: Flow) -> Self {
        match flow {
            Flow::Proceed => Self::Proceed,
            Flow::Reply(reply) => Self::Reply(reply.into()),
        }
    }
}

impl From<Reply> for types::LocalReply {
    fn from(reply: Reply) -> Self {
        Self { status: reply.status.as_u16(), headers: reply.headers, body: reply.body, details: reply.details }
    }
}
