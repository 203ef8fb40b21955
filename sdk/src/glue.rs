//! Joins the exported world to the [`Filter`] trait. Not for filters: `export!` uses it.

use crate::{
    Body, BodyFlow, Exchange, Filter, Flow, Headers, Reply, TrailerFlow, Trailers,
    bindings::{
        exports::tidegate::filter::handler::Guest,
        tidegate::filter::{message, types},
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

/// Where `export!` keeps what a module has one of.
pub trait Installed: 'static {
    /// The type of its filter.
    type Filter: Filter;
    /// The place.
    fn place() -> &'static LocalKey<Place<Self::Filter>>;
}

/// A module's one filter, which lives as long as its instance, and the exchanges that are open on it.
pub struct Place<F: Filter> {
    filter: Cell<Option<&'static F>>,
    /// By their numbers, which are small and used again.
    exchanges: RefCell<Vec<Option<Exchange<F::State>>>>,
}

/// What the module exports for the filter that is kept in `I`.
pub struct Component<I>(PhantomData<I>);

impl<F: Filter> Place<F> {
    /// One without a filter yet.
    pub const fn new() -> Self {
        Self { filter: Cell::new(None), exchanges: RefCell::new(Vec::new()) }
    }

    fn filter(&self) -> &'static F {
        let Some(filter) = self.filter.get() else { unreachable!("configure comes before any exchange") };
        filter
    }

    /// Makes a callback about the exchange of this number. The gateway makes none about one that is not open.
    fn show<T>(&self, number: u32, callback: impl FnOnce(&'static F, &mut Exchange<F::State>) -> T) -> T {
        let mut exchanges = self.exchanges.borrow_mut();
        let Some(Some(exchange)) = exchanges.get_mut(number as usize) else { unreachable!("it begins with open") };
        callback(self.filter(), exchange)
    }

    fn open(&self, number: u32, exchange: Exchange<F::State>) {
        let (number, mut exchanges) = (number as usize, self.exchanges.borrow_mut());
        if exchanges.len() <= number {
            exchanges.resize_with(number + 1, || None);
        }
        exchanges[number] = Some(exchange);
    }

    fn close(&self, number: u32) -> Option<Exchange<F::State>> {
        self.exchanges.borrow_mut().get_mut(number as usize)?.take()
    }
}

impl<I: Installed> Guest for Component<I> {
    fn configure() -> Result<(), String> {
        std::panic::set_hook(Box::new(tell));
        let filter = config::start::<I::Filter>(&crate::host::config()).map_err(|error| error.to_string())?;
        I::place().with(|place| place.filter.set(Some(Box::leak(Box::new(filter)))));
        Ok(())
    }

    fn open(number: u32, id: u64, head: &types::Headers, end: bool) -> types::Flow {
        I::place().with(|place| {
            let mut exchange = Exchange::begin(id);
            let flow = place.filter().on_request(&mut exchange, &mut headers(head), end);
            if flow != Flow::Done {
                place.open(number, exchange);
            }
            wire(flow)
        })
    }

    fn on_request_body(number: u32, head: Option<&types::Headers>, body: &types::Body, end: bool) -> types::BodyFlow {
        show::<I, _>(number, |filter, exchange| filter.on_request_body(exchange, &mut offer(head, body), end).into())
    }

    fn on_request_trailers(
        number: u32,
        head: Option<&types::Headers>,
        body: &types::Body,
        trailers: &types::Headers,
    ) -> types::TrailerFlow {
        let mut trailers = Trailers::new(headers(trailers), offer(head, body));
        show::<I, _>(number, |filter, exchange| filter.on_request_trailers(exchange, &mut trailers).into())
    }

    fn on_response_headers(number: u32, status: u16, head: &types::Headers, end: bool) -> types::Flow {
        // The host hands over what http::StatusCode holds; a filter has no use for a panic about it.
        let status = StatusCode::from_u16(status).unwrap_or_default();
        let flow = show::<I, _>(number, |filter, exchange| filter.on_response(exchange, status, &mut headers(head), end));
        if flow == Flow::Done {
            I::place().with(|place| drop(place.close(number)));
        }
        wire(flow)
    }

    fn on_response_body(number: u32, head: Option<&types::Headers>, body: &types::Body, end: bool) -> types::BodyFlow {
        show::<I, _>(number, |filter, exchange| filter.on_response_body(exchange, &mut offer(head, body), end).into())
    }

    fn on_response_trailers(
        number: u32,
        head: Option<&types::Headers>,
        body: &types::Body,
        trailers: &types::Headers,
    ) -> types::TrailerFlow {
        let mut trailers = Trailers::new(headers(trailers), offer(head, body));
        show::<I, _>(number, |filter, exchange| filter.on_response_trailers(exchange, &mut trailers).into())
    }

    fn close(number: u32) {
        I::place().with(|place| {
            if let Some(mut exchange) = place.close(number) {
                place.filter().on_log(&mut exchange);
            }
        });
    }
}

fn show<I: Installed, T>(
    number: u32,
    callback: impl FnOnce(&'static I::Filter, &mut Exchange<<I::Filter as Filter>::State>) -> T,
) -> T {
    I::place().with(|place| place.show(number, callback))
}

/// Says in the gateway's log where the filter panicked, which a trap alone does not. Only a message that is in the source is
/// shown: one that is made at run time may hold what callers sent.
fn tell(panic: &PanicHookInfo<'_>) {
    let message = panic.payload().downcast_ref::<&str>().copied().unwrap_or("with a message made at run time");
    let place = panic.location().map(|place| format!("{}:{}", place.file(), place.line())).unwrap_or_default();
    log::write(log::Level::Critical, &format!("the filter panicked at {place}: {message}"));
}

fn headers(lent: &types::Headers) -> Headers<'_> {
    Headers::new(RawHeaders(lent))
}

fn offer<'a>(head: Option<&'a types::Headers>, body: &'a types::Body) -> Body<'a> {
    Body::new(RawBody(body), head.map(headers))
}

fn wire(flow: Flow) -> types::Flow {
    match flow {
        Flow::Done => types::Flow::Done,
        Flow::Proceed => types::Flow::Proceed,
        Flow::Trailers => types::Flow::Trailers,
        Flow::Stream => types::Flow::Stream,
        Flow::Hold => types::Flow::Hold,
        Flow::Buffer => types::Flow::Buffer,
        Flow::Reply(reply) => {
            answer(reply);
            types::Flow::Reply
        }
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
            BodyFlow::Reply(reply) => {
                answer(reply);
                Self::Reply
            }
            BodyFlow::Reset => Self::Reset,
        }
    }
}

impl From<TrailerFlow> for types::TrailerFlow {
    fn from(flow: TrailerFlow) -> Self {
        match flow {
            TrailerFlow::Forward => Self::Forward,
            TrailerFlow::Reply(reply) => {
                answer(reply);
                Self::Reply
            }
            TrailerFlow::Reset => Self::Reset,
        }
    }
}

/// Hands an answer over; the callback's own answer says that it is to be sent.
fn answer(reply: Reply) {
    let headers: Vec<_> = reply.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
    message::answer(types::LocalReply {
        status: reply.status.as_u16(),
        headers: &headers,
        body: &reply.body,
        grpc_status: reply.grpc_status,
        details: &reply.details,
    });
}
