//! Joins the exported world to the [`Filter`] trait. Not for filters: `export!` uses it.

use crate::{
    Body, BodyFlow, Exchange, Filter, Flow, Headers, Reply, TrailerFlow, Trailers,
    bindings::{
        exports::tidegate::filter::handler::{self, Guest, GuestExchange},
        tidegate::filter::types,
    },
    config,
    host::{RawBody, RawHeaders},
    log,
};
use http::StatusCode;
use std::{
    cell::{Cell, RefCell},
    marker::PhantomData,
    panic::PanicHookInfo,
    thread::LocalKey,
};

/// Where `export!` keeps the one filter of a module, which lives as long as its instance.
pub trait Installed: 'static {
    /// Its type.
    type Filter: Filter;
    /// Its place.
    fn place() -> &'static LocalKey<Cell<Option<&'static Self::Filter>>>;
}

/// What the module exports for the filter that is kept in `I`.
pub struct Component<I>(PhantomData<I>);

/// One exchange in the filter; `None` once the filter is done with it.
pub struct Handler<I: Installed>(RefCell<Option<Exchange<<I::Filter as Filter>::State>>>);

impl<I: Installed> Guest for Component<I> {
    type Exchange = Handler<I>;

    fn configure() -> Result<(), String> {
        std::panic::set_hook(Box::new(tell));
        let filter = config::start::<I::Filter>(&crate::host::config()).map_err(|error| error.to_string())?;
        I::place().set(Some(Box::leak(Box::new(filter))));
        Ok(())
    }

    fn open(id: u64, head: &types::Headers, end: bool) -> (Option<handler::Exchange>, types::Flow) {
        let mut exchange = Exchange::begin(id);
        match filter::<I>().on_request(&mut exchange, &mut headers(head), end) {
            Flow::Done => (None, types::Flow::Proceed),
            flow => (Some(handler::Exchange::new(Handler::<I>(RefCell::new(Some(exchange))))), wire(flow)),
        }
    }

    fn close(exchange: handler::Exchange) {
        let Handler::<I>(exchange) = exchange.into_inner();
        if let Some(mut exchange) = exchange.into_inner() {
            filter::<I>().on_log(&mut exchange);
        }
    }
}

impl<I: Installed> GuestExchange for Handler<I> {
    fn on_request_body(&self, head: Option<&types::Headers>, body: &types::Body, end: bool) -> types::BodyFlow {
        self.show(types::BodyFlow::SkipRest, |filter, exchange| {
            filter.on_request_body(exchange, &mut offer(head, body), end).into()
        })
    }

    fn on_request_trailers(
        &self,
        head: Option<&types::Headers>,
        body: &types::Body,
        trailers: &types::Headers,
    ) -> types::TrailerFlow {
        self.show(types::TrailerFlow::Forward, |filter, exchange| {
            filter.on_request_trailers(exchange, &mut Trailers::new(headers(trailers), offer(head, body))).into()
        })
    }

    fn on_response_headers(&self, status: u16, head: &types::Headers, end: bool) -> types::Flow {
        // The host hands over what http::StatusCode holds; a filter has no use for a panic about it.
        let status = StatusCode::from_u16(status).unwrap_or_default();
        let flow = self.show(Flow::Done, |filter, exchange| filter.on_response(exchange, status, &mut headers(head), end));
        if flow == Flow::Done {
            self.0.take();
        }
        wire(flow)
    }

    fn on_response_body(&self, head: Option<&types::Headers>, body: &types::Body, end: bool) -> types::BodyFlow {
        self.show(types::BodyFlow::SkipRest, |filter, exchange| {
            filter.on_response_body(exchange, &mut offer(head, body), end).into()
        })
    }

    fn on_response_trailers(
        &self,
        head: Option<&types::Headers>,
        body: &types::Body,
        trailers: &types::Headers,
    ) -> types::TrailerFlow {
        self.show(types::TrailerFlow::Forward, |filter, exchange| {
            filter.on_response_trailers(exchange, &mut Trailers::new(headers(trailers), offer(head, body))).into()
        })
    }
}

impl<I: Installed> Handler<I> {
    /// Runs a callback, or answers `done` where the filter has nothing more to do with the exchange.
    fn show<T>(
        &self,
        done: T,
        callback: impl FnOnce(&'static I::Filter, &mut Exchange<<I::Filter as Filter>::State>) -> T,
    ) -> T {
        match self.0.borrow_mut().as_mut() {
            Some(exchange) => callback(filter::<I>(), exchange),
            None => done,
        }
    }
}

/// Says in the gateway's log where the filter panicked, which a trap alone does not. Only a message that is in the source is
/// shown: one that is made at run time may hold what callers sent.
fn tell(panic: &PanicHookInfo<'_>) {
    let message = panic.payload().downcast_ref::<&str>().copied().unwrap_or("with a message made at run time");
    let place = panic.location().map(|place| format!("{}:{}", place.file(), place.line())).unwrap_or_default();
    log::write(log::Level::Critical, &format!("the filter panicked at {place}: {message}"));
}

fn filter<I: Installed>() -> &'static I::Filter {
    let Some(filter) = I::place().get() else { unreachable!("configure comes before any exchange") };
    filter
}

fn headers(lent: &types::Headers) -> Headers<'_> {
    Headers::new(RawHeaders(lent))
}

fn offer<'a>(head: Option<&'a types::Headers>, body: &'a types::Body) -> Body<'a> {
    Body::new(RawBody(body), head.map(headers))
}

fn wire(flow: Flow) -> types::Flow {
    match flow {
        Flow::Proceed | Flow::Done => types::Flow::Proceed,
        Flow::Trailers => types::Flow::Trailers,
        Flow::Stream => types::Flow::Stream,
        Flow::Hold => types::Flow::Hold,
        Flow::Buffer => types::Flow::Buffer,
        Flow::Reply(reply) => types::Flow::Reply(reply.into()),
        Flow::Reset => types::Flow::Reset,
    }
}

impl From<BodyFlow> for types::BodyFlow {
    fn from(flow: BodyFlow) -> Self {
        match flow {
            BodyFlow::Forward => Self::Forward,
            BodyFlow::Hold => Self::Hold,
            BodyFlow::Drop => Self::Drop,
            BodyFlow::SkipRest => Self::SkipRest,
            BodyFlow::Reply(reply) => Self::Reply(reply.into()),
            BodyFlow::Reset => Self::Reset,
        }
    }
}

impl From<TrailerFlow> for types::TrailerFlow {
    fn from(flow: TrailerFlow) -> Self {
        match flow {
            TrailerFlow::Forward => Self::Forward,
            TrailerFlow::Reply(reply) => Self::Reply(reply.into()),
            TrailerFlow::Reset => Self::Reset,
        }
    }
}

impl From<Reply> for types::LocalReply {
    fn from(reply: Reply) -> Self {
        Self {
            status: reply.status.as_u16(),
            headers: reply.headers,
            body: reply.body,
            grpc_status: reply.grpc_status,
            details: reply.details,
        }
    }
}
