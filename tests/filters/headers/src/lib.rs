//! A Proxy-Wasm filter that reads a header and adds another in each direction: what most filters do, and the least that a host's cost
//! can be told by.

use proxy_wasm::{
    traits::{Context, HttpContext, RootContext},
    types::{Action, ContextType},
};

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::new(Root));
}}

struct Root;

impl Context for Root {}

impl RootContext for Root {
    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _context: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Headers))
    }
}

struct Headers;

impl Context for Headers {}

impl HttpContext for Headers {
    fn on_http_request_headers(&mut self, _count: usize, _end: bool) -> Action {
        let team = self.get_http_request_header("x-team");
        self.add_http_request_header("x-checked-team", team.as_deref().unwrap_or("nobody"));
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _count: usize, _end: bool) -> Action {
        let kind = self.get_http_response_header("content-type");
        self.add_http_response_header("x-checked-type", kind.as_deref().unwrap_or("none"));
        Action::Continue
    }
}
