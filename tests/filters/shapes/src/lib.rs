//! A Proxy-Wasm filter on the Rust SDK that does what each request asks of it: its header `x-do` lists what to do in which phase
//! (`script.rs`), its header `x-shape` is the name under which it notes what it was shown. `x-told: NAME` asks for those notes.
//!
//! The notes lie in the module's own memory, so that reading them needs of a host no more than a local response.

mod calls;
mod exchange;
mod raw;
mod script;
mod shared;

use exchange::Exchange;
use proxy_wasm::{
    hostcalls,
    traits::{Context, HttpContext, RootContext},
    types::{Action, ContextType, LogLevel, MapType},
};
use std::{cell::RefCell, rc::Rc, time::Duration};

/// How often the timer comes. Long against a call of the filter, short against everything that waits for it.
const TICK: Duration = Duration::from_millis(20);

thread_local! {
    /// The exchanges that asked for the timer.
    static WAITING: RefCell<Vec<Rc<RefCell<Exchange>>>> = const { RefCell::new(Vec::new()) };
}

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Warn);
    proxy_wasm::set_root_context(|_| Box::new(Root::default()));
}}

#[derive(Default)]
struct Root {
    /// What its steps and notes begin with, where there are several of its kind: `as NAME` is its configuration then.
    name: Option<Rc<str>>,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _size: usize) -> bool {
        // A configuration that says no is refused as one: the tests of what a host does then.
        let configuration = self.get_plugin_configuration().unwrap_or_default();
        let name = std::str::from_utf8(&configuration).ok().and_then(|text| text.strip_prefix("as "));
        self.name = name.map(Rc::from);
        self.set_tick_period(TICK);
        configuration != b"refuse"
    }

    fn on_tick(&mut self) {
        for exchange in WAITING.take() {
            let mut exchange = exchange.borrow_mut();
            if hostcalls::set_effective_context(exchange.context).is_ok() {
                exchange.note("tick");
                exchange.run("tick");
            }
        }
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, context: u32) -> Option<Box<dyn HttpContext>> {
        let name = self.name.clone();
        Some(Box::new(Shape(Rc::new(RefCell::new(Exchange { context, name, ..Exchange::default() })))))
    }
}

struct Shape(Rc<RefCell<Exchange>>);

impl Shape {
    /// Notes that it was called, and does what it is asked to do in `phase`; at the end of a stream also what is asked for there.
    fn run(&self, phase: &str, seen: String, end: bool) -> Action {
        let mut exchange = self.0.borrow_mut();
        exchange.note(if end { format!("{seen} end") } else { seen });
        let mut action = exchange.run(phase);
        let at_end = format!("{phase}-end");
        if end && exchange.has_steps(&at_end) {
            action = exchange.run(&at_end);
        }
        if action == Action::Pause {
            self.await_tick(&exchange);
        }
        action
    }

    /// Begins to wait for the timer, where anything is to be done then. Only what is stopped waits: what else the timer found of an
    /// exchange would depend on how fast that is.
    fn await_tick(&self, exchange: &Exchange) {
        if exchange.has_steps("tick") {
            WAITING.with_borrow_mut(|waiting| {
                waiting.retain(|other| !Rc::ptr_eq(other, &self.0));
                waiting.push(Rc::clone(&self.0));
            });
        }
    }
}

impl HttpContext for Shape {
    fn on_http_request_headers(&mut self, _count: usize, end: bool) -> Action {
        let header = |name: &str| hostcalls::get_map_value(MapType::HttpRequestHeaders, name).ok().flatten();
        if let Some(shape) = header("x-told") {
            self.send_http_response(200, Vec::new(), Some(exchange::told(&shape).as_bytes()));
            return Action::Pause;
        }
        {
            let mut exchange = self.0.borrow_mut();
            exchange.shape = header("x-shape").unwrap_or_default();
            exchange.steps = script::steps(&header("x-do").unwrap_or_default());
        }
        self.run("request", "request".to_owned(), end)
    }

    fn on_http_request_body(&mut self, size: usize, end: bool) -> Action {
        self.run("request-body", format!("request-body {size}"), end)
    }

    fn on_http_request_trailers(&mut self, count: usize) -> Action {
        self.run("request-trailers", format!("request-trailers {count}"), false)
    }

    fn on_http_response_headers(&mut self, _count: usize, end: bool) -> Action {
        self.run("response", "response".to_owned(), end)
    }

    fn on_http_response_body(&mut self, size: usize, end: bool) -> Action {
        self.run("response-body", format!("response-body {size}"), end)
    }

    fn on_http_response_trailers(&mut self, count: usize) -> Action {
        self.run("response-trailers", format!("response-trailers {count}"), false)
    }

    fn on_log(&mut self) {
        self.run("log", "log".to_owned(), false);
    }
}

impl Context for Shape {
    fn on_http_call_response(&mut self, _call: u32, headers: usize, body: usize, trailers: usize) {
        calls::answered(&self.0.borrow(), headers, body, trailers);
        self.0.borrow_mut().answered();
    }

    fn on_grpc_call_response(&mut self, _call: u32, status: u32, size: usize) {
        calls::grpc_answered(&self.0.borrow(), status, size);
        self.0.borrow_mut().answered();
    }

    fn on_grpc_stream_initial_metadata(&mut self, _call: u32, count: u32) {
        calls::grpc_told(&self.0.borrow(), "initial", count as usize);
    }

    fn on_grpc_stream_message(&mut self, _call: u32, size: usize) {
        calls::grpc_told(&self.0.borrow(), "message", size);
    }

    fn on_grpc_stream_trailing_metadata(&mut self, _call: u32, count: u32) {
        calls::grpc_told(&self.0.borrow(), "trailing", count as usize);
    }

    fn on_grpc_stream_close(&mut self, _call: u32, status: u32) {
        calls::grpc_told(&self.0.borrow(), "close", status as usize);
        self.0.borrow_mut().answered();
    }
}
