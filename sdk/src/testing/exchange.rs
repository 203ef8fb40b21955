//! One scripted exchange: plays the script's messages to the filter, and keeps what came of them.

use super::{
    Chosen, Driver, Event, Message, Received,
    direction::{After, Direction, Interest, Next, Stage, Stop},
    message::fields,
};
use crate::{
    Body, BodyFlow, Exchange, Filter, Flow, Headers, Reply, TrailerFlow, Trailers,
    attributes::Value,
    host::{Emitted, Here, RawBody, RawHeaders, World, valid},
    log::Level,
    outbound::Call,
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use std::cell::RefCell;

/// One exchange with the filter, and what it left behind.
///
/// `request` and `response` play whole messages. Where the two overlap, or a test looks at what has gone on in between,
/// they are played step by step: a head, pieces of the body, then an end or trailers.
#[derive(Debug)]
pub struct Scripted<'a, F: Filter> {
    driver: &'a Driver<F>,
    exchange: Exchange<F::State>,
    world: World,
    request: Direction,
    response: Direction,
    status: StatusCode,
    /// Whether the caller speaks gRPC, whose answers have a status of their own.
    grpc: bool,
    /// The head shown last, as the filter left it.
    head: HeaderMap,
    done: bool,
    ending: Option<Ending>,
}

#[derive(Debug)]
enum Ending {
    Replied(Reply, Box<Received>),
    Reset,
    Failed(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Request,
    Response,
}

impl Kind {
    /// What is here when a message of this kind is at hand, with or without its head.
    fn here(self, head: bool) -> Here {
        Here { request_line: head && self == Self::Request, response_line: head && self == Self::Response }
    }
}

impl<'a, F: Filter> Scripted<'a, F> {
    pub(super) fn begin(driver: &'a Driver<F>, exchange: Exchange<F::State>) -> Self {
        Self {
            driver,
            exchange,
            world: World::of(&driver.gateway),
            request: Direction::default(),
            response: Direction::default(),
            status: StatusCode::OK,
            grpc: false,
            head: HeaderMap::new(),
            done: false,
            ending: None,
        }
    }

    /// Lets the gateway know something.
    #[must_use]
    pub fn attribute(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.world.attributes.insert(name.to_owned(), value.into());
        self
    }

    /// The caller sends a whole request: an array of headers, or a [`Message`].
    ///
    /// # Panics
    /// Where a header is not valid or a request has begun already, since the script is wrong then.
    #[must_use]
    pub fn request(mut self, request: impl Into<Message>) -> Self {
        let Message { head, pieces, trailers } = request.into();
        let end = pieces.is_empty() && trailers.is_none();
        self.head(Kind::Request, head, end);
        self.rest(Kind::Request, pieces, trailers)
    }

    /// The upstream sends a whole response: an array of headers, or a [`Message`].
    ///
    /// # Panics
    /// Where a header is not valid or a response has begun already, since the script is wrong then.
    #[must_use]
    pub fn response(mut self, status: StatusCode, response: impl Into<Message>) -> Self {
        let Message { head, pieces, trailers } = response.into();
        let end = pieces.is_empty() && trailers.is_none();
        self.status = status;
        self.head(Kind::Response, head, end);
        self.rest(Kind::Response, pieces, trailers)
    }

    /// The caller begins a request that has a body.
    ///
    /// # Panics
    /// As [`Self::request`].
    #[must_use]
    pub fn request_head<const N: usize>(mut self, headers: [(&str, &str); N]) -> Self {
        self.head(Kind::Request, fields(headers), false);
        self
    }

    /// A piece of the request's body comes.
    ///
    /// # Panics
    /// Where the request has not begun or has ended, since the script is wrong then.
    #[must_use]
    pub fn request_body(mut self, piece: impl AsRef<[u8]>) -> Self {
        self.piece(Kind::Request, piece.as_ref(), false);
        self
    }

    /// The request ends, without trailers.
    ///
    /// # Panics
    /// As [`Self::request_body`].
    #[must_use]
    pub fn request_end(mut self) -> Self {
        self.piece(Kind::Request, b"", true);
        self
    }

    /// The request ends with these trailers.
    ///
    /// # Panics
    /// As [`Self::request_body`].
    #[must_use]
    pub fn request_trailers<const N: usize>(mut self, trailers: [(&str, &str); N]) -> Self {
        self.trailers(Kind::Request, fields(trailers));
        self
    }

    /// The upstream begins a response that has a body.
    ///
    /// # Panics
    /// As [`Self::response`].
    #[must_use]
    pub fn response_head<const N: usize>(mut self, status: StatusCode, headers: [(&str, &str); N]) -> Self {
        self.status = status;
        self.head(Kind::Response, fields(headers), false);
        self
    }

    /// A piece of the response's body comes.
    ///
    /// # Panics
    /// Where the response has not begun or has ended, since the script is wrong then.
    #[must_use]
    pub fn response_body(mut self, piece: impl AsRef<[u8]>) -> Self {
        self.piece(Kind::Response, piece.as_ref(), false);
        self
    }

    /// The response ends, without trailers.
    ///
    /// # Panics
    /// As [`Self::response_body`].
    #[must_use]
    pub fn response_end(mut self) -> Self {
        self.piece(Kind::Response, b"", true);
        self
    }

    /// The response ends with these trailers.
    ///
    /// # Panics
    /// As [`Self::response_body`].
    #[must_use]
    pub fn response_trailers<const N: usize>(mut self, trailers: [(&str, &str); N]) -> Self {
        self.trailers(Kind::Response, fields(trailers));
        self
    }

    /// Ends the exchange.
    pub fn log(mut self) -> Self {
        self.callback(Here::default(), |filter, exchange| filter.on_log(exchange));
        self.done = true;
        self
    }

    /// What the upstream received; nothing as long as the head is here.
    pub fn upstream(&self) -> Option<&Received> {
        self.request.received.as_ref()
    }

    /// What the caller received: the response or the filter's own answer; nothing as long as the head is here.
    pub fn caller(&self) -> Option<&Received> {
        match &self.ending {
            Some(Ending::Replied(_, received)) => Some(received),
            _ => self.response.received.as_ref(),
        }
    }

    /// The status that the caller received.
    pub fn status(&self) -> Option<StatusCode> {
        if let Some(Ending::Replied(reply, _)) = &self.ending {
            let grpc = self.grpc && reply.grpc_status.is_some();
            return Some(if grpc { StatusCode::OK } else { reply.status });
        }
        let changed = self.world.status.and_then(|status| StatusCode::from_u16(status).ok());
        self.caller().map(|_| changed.unwrap_or(self.status))
    }

    /// The headers of the head shown last, as the filter left them.
    pub fn headers(&self) -> &HeaderMap {
        &self.head
    }

    /// The filter's own answer, if it gave one.
    pub fn replied(&self) -> Option<&Reply> {
        match &self.ending {
            Some(Ending::Replied(reply, _)) => Some(reply),
            _ => None,
        }
    }

    /// Whether the filter ended the exchange without an answer.
    pub fn is_reset(&self) -> bool {
        matches!(self.ending, Some(Ending::Reset))
    }

    /// Why the exchange failed, if the filter answered what the gateway does not accept.
    pub fn failure(&self) -> Option<&str> {
        match self.ending {
            Some(Ending::Failed(reason)) => Some(reason),
            _ => None,
        }
    }

    /// The method and the path that the request was rewritten to.
    pub fn rewritten(&self) -> Option<(&str, &str)> {
        self.world.rewritten.as_ref().map(|(method, path)| (method.as_str(), path.as_str()))
    }

    /// Where the filter sent the request, and how.
    pub fn chosen(&self) -> &Chosen {
        &self.world.chosen
    }

    /// The filter's own calls.
    pub fn calls(&self) -> &[Call] {
        &self.world.calls
    }

    /// What the filter remembers.
    pub fn state(&self) -> &F::State {
        &self.exchange.state
    }

    /// The attribute of this name, such as one that the filter set.
    pub fn known(&self, name: &str) -> Option<&Value> {
        self.world.attributes.get(name)
    }

    /// The events emitted so far.
    pub fn events(&self) -> Vec<Event> {
        let event = |(kind, outcome, fields): &Emitted| Event { kind: kind.clone(), outcome: *outcome, fields: fields.clone() };
        self.world.events.iter().map(event).collect()
    }

    /// The messages logged so far.
    pub fn logged(&self) -> Vec<(Level, String)> {
        self.world.log.clone()
    }
}

impl<F: Filter> Scripted<'_, F> {
    fn direction(&mut self, kind: Kind) -> &mut Direction {
        match kind {
            Kind::Request => &mut self.request,
            Kind::Response => &mut self.response,
        }
    }

    fn rest(mut self, kind: Kind, pieces: Vec<Vec<u8>>, trailers: Option<HeaderMap>) -> Self {
        let last = pieces.len();
        for (index, piece) in pieces.into_iter().enumerate() {
            self.piece(kind, &piece, index + 1 == last && trailers.is_none());
        }
        if let Some(trailers) = trailers {
            self.trailers(kind, trailers);
        }
        self
    }

    fn head(&mut self, kind: Kind, head: HeaderMap, end: bool) {
        let direction = self.direction(kind);
        assert!(direction.stage == Stage::Waiting, "the script sends a second head");
        direction.stage = Stage::Open;
        if self.ending.is_some() {
            return;
        }
        if kind == Kind::Request {
            self.grpc = head.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        }
        let here = kind.here(true);
        let status = self.status;
        let head = RefCell::new(head);
        let shown = self.callback(here, |filter, exchange| {
            let mut headers = Headers::new(RawHeaders(&head));
            match kind {
                Kind::Request => filter.on_request(exchange, &mut headers, end),
                Kind::Response => filter.on_response(exchange, status, &mut headers, end),
            }
        });
        let flow = shown.unwrap_or(Flow::Proceed);
        self.done |= flow == Flow::Done;
        self.head = head.borrow().clone();
        self.direction(kind).head = Some(head.into_inner());
        let after = match (end, kind) {
            (false, _) => After::Body,
            (true, Kind::Request) => After::RoomForABody,
            (true, Kind::Response) if self.may_have_body() => After::RoomForABody,
            (true, Kind::Response) => After::Nothing,
        };
        self.settle(kind, |direction| direction.after_head(flow, after));
        if after == After::RoomForABody && self.ending.is_none() && self.direction(kind).stage == Stage::Open {
            self.piece(kind, b"", true);
        }
    }

    /// Whether HTTP lets the response have a body.
    fn may_have_body(&self) -> bool {
        let to_head = self.world.attributes.get("request.method") == Some(&"HEAD".into());
        !to_head && !matches!(self.status.as_u16(), 204 | 205 | 304)
    }

    fn piece(&mut self, kind: Kind, piece: &[u8], end: bool) {
        if !self.goes_on(kind, end) {
            return;
        }
        match self.direction(kind).takes(piece, end) {
            Ok(true) => self.show_piece(kind, if end { Next::End } else { Next::More }),
            Ok(false) => {}
            Err(stop) => self.stop(stop),
        }
    }

    /// Shows what is held of a body.
    fn show_piece(&mut self, kind: Kind, next: Next) {
        let end = next == Next::End;
        let (head, body) = self.lend(kind);
        let here = kind.here(head.is_some());
        let shown = self.callback(here, |filter, exchange| {
            let head = head.as_ref().map(|head| Headers::new(RawHeaders(head)));
            let mut body = Body::new(RawBody(&body), head);
            match kind {
                Kind::Request => filter.on_request_body(exchange, &mut body, end),
                Kind::Response => filter.on_response_body(exchange, &mut body, end),
            }
        });
        self.give_back(kind, head, body);
        self.settle(kind, |direction| direction.after_piece(shown.unwrap_or(BodyFlow::SkipRest), next));
    }

    fn trailers(&mut self, kind: Kind, trailers: HeaderMap) {
        if !self.goes_on(kind, true) {
            return;
        }
        if self.direction(kind).interest == Interest::Whole {
            self.show_piece(kind, Next::Trailers);
        }
        if self.ending.is_some() {
            return;
        }
        if self.direction(kind).interest == Interest::Nothing {
            return self.settle(kind, |direction| direction.after_trailers(TrailerFlow::Forward, trailers));
        }
        let (head, body) = self.lend(kind);
        let here = kind.here(head.is_some());
        let trailers = RefCell::new(trailers);
        let shown = self.callback(here, |filter, exchange| {
            let head = head.as_ref().map(|head| Headers::new(RawHeaders(head)));
            let mut trailers = Trailers::new(Headers::new(RawHeaders(&trailers)), Body::new(RawBody(&body), head));
            match kind {
                Kind::Request => filter.on_request_trailers(exchange, &mut trailers),
                Kind::Response => filter.on_response_trailers(exchange, &mut trailers),
            }
        });
        self.give_back(kind, head, body);
        let flow = shown.unwrap_or(TrailerFlow::Forward);
        self.settle(kind, |direction| direction.after_trailers(flow, trailers.into_inner()));
    }

    /// Whether there is still an exchange for the script's next step.
    fn goes_on(&mut self, kind: Kind, end: bool) -> bool {
        let stopped = self.ending.is_some();
        let direction = self.direction(kind);
        assert!(direction.stage == Stage::Open, "the script sends a body without a head, or after its end");
        if stopped && end {
            direction.stage = Stage::Ended;
        }
        !stopped
    }

    fn lend(&mut self, kind: Kind) -> (Option<RefCell<HeaderMap>>, RefCell<Vec<u8>>) {
        let direction = self.direction(kind);
        (direction.head.take().map(RefCell::new), RefCell::new(std::mem::take(&mut direction.held)))
    }

    fn give_back(&mut self, kind: Kind, head: Option<RefCell<HeaderMap>>, body: RefCell<Vec<u8>>) {
        if let Some(head) = &head {
            self.head = head.borrow().clone();
        }
        let direction = self.direction(kind);
        direction.head = head.map(RefCell::into_inner);
        direction.held = body.into_inner();
    }

    /// Makes a callback, unless the filter has nothing more to do with the exchange.
    fn callback<T>(&mut self, here: Here, callback: impl FnOnce(&F, &mut Exchange<F::State>) -> T) -> Option<T> {
        if self.done {
            return None;
        }
        self.world.here = here;
        let entered = self.world.enter();
        let answer = callback(&self.driver.filter, &mut self.exchange);
        drop(entered);
        Some(answer)
    }

    fn settle(&mut self, kind: Kind, answered: impl FnOnce(&mut Direction) -> Result<(), Stop>) {
        if kind == Kind::Request {
            self.request.replaced = self.world.chosen.secrets.iter().map(|secret| secret.header.clone()).collect();
        }
        if let Err(stop) = answered(self.direction(kind)) {
            self.stop(stop);
        }
    }

    fn stop(&mut self, stop: Stop) {
        self.ending = Some(match stop {
            Stop::Reset => Ending::Reset,
            Stop::TooLarge => Ending::Failed("more of a body was to be held than the gateway holds for a filter"),
            Stop::Reply(_) if self.response.received.is_some() => {
                Ending::Failed("it answered when the response's head had gone to the caller")
            }
            Stop::Reply(reply) => match received(&reply, self.grpc) {
                Ok(received) => Ending::Replied(reply, Box::new(received)),
                Err(reason) => Ending::Failed(reason),
            },
        });
    }
}

/// A filter's own answer as the caller receives it, or why the gateway does not send it.
fn received(reply: &Reply, grpc: bool) -> Result<Received, &'static str> {
    if !(200..600).contains(&reply.status.as_u16()) {
        return Err("it answered with a status that is not one of 200 to 599");
    }
    let mut headers = HeaderMap::new();
    for (name, value) in &reply.headers {
        let field = Headers::writable(name).and_then(|name| Ok((name, valid(value)?)));
        let (name, value) = field.map_err(|_| "it answered with a header that is not valid or not its to set")?;
        headers.append(name, value);
    }
    let Some(code) = reply.grpc_status.filter(|_| grpc) else {
        return Ok(Received { headers, body: reply.body.clone(), trailers: None, complete: true });
    };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(code));
    if let Ok(message) = HeaderValue::try_from(percent_encoded(&reply.details)) {
        headers.insert("grpc-message", message);
    }
    Ok(Received { headers, body: Vec::new(), trailers: None, complete: true })
}

/// As gRPC has it for messages (its `PROTOCOL-HTTP2.md`): whatever is not printable ASCII, and the percent sign.
fn percent_encoded(message: &str) -> String {
    let plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'%';
    message.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
