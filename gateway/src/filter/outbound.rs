//! Requests of a filter's own: checked here, sent by the worker as exchanges that the rules decide, answered to the filter
//! that has suspended itself meanwhile.

use super::{
    share::{self, Held, NoRoom},
    state::State,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};
use wasmtime::{
    Result, StoreContextMut,
    component::{ComponentType, Lift, Linker, Lower},
};

/// What a filter asks for, as the contract has it.
#[derive(ComponentType, Lift)]
#[component(record)]
struct Call {
    method: String,
    url: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    #[component(name = "timeout-ms")]
    timeout_ms: u32,
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct Answered {
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

/// Why a call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ComponentType, Lift, Lower)]
#[component(enum)]
#[repr(u8)]
pub enum CallError {
    /// Not a registered service.
    #[component(name = "unknown-target")]
    UnknownTarget,
    /// The rules do not allow it.
    #[component(name = "not-permitted")]
    NotPermitted,
    /// It took too long.
    #[component(name = "timeout")]
    Timeout,
    /// Nothing could be connected to.
    #[component(name = "connect")]
    Connect,
    /// The TLS handshake failed.
    #[component(name = "tls")]
    Tls,
    /// The answer was not HTTP, or broke off.
    #[component(name = "protocol")]
    Protocol,
    /// Request or answer are larger than the limit.
    #[component(name = "too-large")]
    TooLarge,
    /// Too many calls, or no room for what one sends or brings.
    #[component(name = "budget")]
    Budget,
    /// Not a valid request.
    #[component(name = "invalid")]
    Invalid,
}

/// A call on its way to the worker that makes it.
#[derive(Debug)]
pub struct Errand {
    /// The plugin that asks.
    pub plugin: Arc<str>,
    /// What for, in absolute form.
    pub request: Request<Sent>,
    /// The longest it may take.
    pub timeout: Duration,
    /// The largest body of an answer.
    pub body_bytes: usize,
    /// What is held of it while it comes.
    pub held: Held,
    /// Where the answer goes.
    pub answer: Answer,
}

/// What a call sends.
#[derive(Debug)]
pub enum Sent {
    /// A body, and trailers behind it.
    Whole(Bytes, HeaderMap),
    /// Pieces as they come.
    Streamed(mpsc::Receiver<Bytes>),
}

/// Where what a call brings goes.
#[derive(Debug)]
pub enum Answer {
    /// All of it, once.
    Whole(oneshot::Sender<std::result::Result<Response<Collected>, CallError>>),
    /// As it comes.
    Streamed(mpsc::Sender<Received>),
}

/// A whole answer's body and trailers.
#[derive(Debug, Clone, Default)]
pub struct Collected {
    /// The body.
    pub body: Bytes,
    /// The trailers.
    pub trailers: HeaderMap,
}

/// A piece of an answer.
#[derive(Debug)]
pub enum Received {
    /// Its head.
    Head(Box<http::response::Parts>),
    /// A piece of its body.
    Data(Bytes),
    /// Its trailers.
    Trailers(HeaderMap),
    /// That it is over.
    Ended,
    /// That it broke off.
    Failed(CallError),
}

/// The way to the worker that makes the calls of its instances.
pub type Errands = mpsc::Sender<Errand>;

/// A call that is open, counted until it is answered or given up.
#[derive(Debug)]
pub(super) struct OpenCall(Arc<AtomicUsize>);

impl OpenCall {
    pub(super) fn begin(open: &Arc<AtomicUsize>, limit: usize) -> Option<Self> {
        let one = Self(Arc::clone(open));
        (one.0.fetch_add(1, Ordering::Relaxed) < limit).then_some(one)
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Offers the interface `outbound`. A module that imports it has a store whose calls may suspend.
pub(super) fn link(linker: &mut Linker<State>) -> Result<()> {
    let mut outbound = linker.instance("tidegate:filter/outbound@0.1.0")?;
    outbound.func_wrap_async("send", |mut context: StoreContextMut<'_, State>, (call,): (Call,)| {
        Box::new(async move {
            let answer = send(context.data_mut(), call).await;
            // Others have used the worker meanwhile: what they took is not this call's.
            let state = context.data_mut();
            if answer.is_err() {
                state.metrics.calls_failed.add(1);
            }
            let ticks = state.allowance.resume();
            context.set_epoch_deadline(ticks);
            Ok((answer,))
        })
    })
}

async fn send(state: &mut State, call: Call) -> std::result::Result<Answered, CallError> {
    let limits = state.limits;
    state.metrics.calls.add(1);
    let mut given_up = state.given_up.subscribe();
    // Outside of an exchange there is nothing that a call could belong to, nor when its caller has left.
    let belongs = state.known.is_some() && !*given_up.borrow();
    let errands = state.errands.clone().filter(|_| belongs).ok_or(CallError::NotPermitted)?;
    state.calls += 1;
    if state.calls > limits.calls_per_exchange {
        return Err(CallError::Budget);
    }
    let _open = OpenCall::begin(&state.open_calls, limits.calls).ok_or(CallError::Budget)?;
    if call.body.len() > limits.call_bytes {
        return Err(CallError::TooLarge);
    }
    let asked = Some(Duration::from_millis(call.timeout_ms.into())).filter(|asked| !asked.is_zero());
    let timeout = asked.map_or(limits.call_timeout, |asked| asked.min(limits.call_timeout));
    let (answer, answered) = oneshot::channel();
    let (answer, plugin) = (Answer::Whole(answer), Arc::clone(&state.plugin));
    let (head, body) = request(call, limits.header_count)?.into_parts();
    let body = share::counted(body, &limits, &state.metrics).map_err(|NoRoom| CallError::Budget)?;
    let request = Request::from_parts(head, Sent::Whole(body, HeaderMap::new()));
    let held = Held::nothing(&limits, &state.metrics);
    let errand = Errand { plugin, request, timeout, body_bytes: limits.call_bytes, held, answer };
    errands.try_send(errand).map_err(|_| CallError::Budget)?;
    let response = tokio::select! {
        // The worker answers in any case, unless it ends.
        answered = answered => answered.unwrap_or(Err(CallError::Protocol))?,
        _either_way = given_up.wait_for(|given_up| *given_up) => return Err(CallError::Protocol),
    };
    let (head, Collected { body, .. }) = response.into_parts();
    let headers = head.headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()));
    Ok(Answered { status: head.status.as_u16(), headers: headers.collect(), body: body.to_vec() })
}

/// The request that a filter means. What frames it and where it goes is not the headers' to say.
fn request(call: Call, header_count: usize) -> std::result::Result<Request<Bytes>, CallError> {
    let invalid = |_| CallError::Invalid;
    let mut request = Request::new(Bytes::from(call.body));
    *request.method_mut() = call.method.parse::<Method>().map_err(|_| CallError::Invalid)?;
    *request.uri_mut() = call.url.parse::<Uri>().map_err(|_| CallError::Invalid)?;
    let absolute = matches!(request.uri().scheme_str(), Some("http" | "https")) && request.uri().authority().is_some();
    if !absolute || *request.method() == Method::CONNECT {
        return Err(CallError::Invalid);
    }
    if call.headers.len() > header_count {
        return Err(CallError::TooLarge);
    }
    for (name, value) in call.headers {
        let name: HeaderName = super::headers::writable(name.as_bytes()).map_err(invalid)?;
        let value: HeaderValue = super::headers::value(&value).map_err(invalid)?;
        request.headers_mut().append(name, value);
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(method: &str, url: &str, headers: &[(&str, &str)]) -> Call {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
        Call { method: method.to_owned(), url: url.to_owned(), headers, body: Vec::new(), timeout_ms: 0 }
    }

    #[test]
    fn only_what_a_caller_could_send_is_sent() {
        let good = request(call("POST", "https://api.example/v1?a=b", &[("x-a", "1")]), 2).unwrap();
        assert_eq!((good.method(), good.uri().path()), (&Method::POST, "/v1"));
        let bad = [
            call("GET", "/v1", &[]),
            call("GET", "ftp://api.example/", &[]),
            call("GET", "https://", &[]),
            call("G T", "https://api.example/", &[]),
            call("CONNECT", "https://api.example/", &[]),
            call("GET", "https://api.example/", &[("host", "other.example")]),
            call("GET", "https://api.example/", &[("content-length", "5")]),
            call("GET", "https://api.example/", &[("x-a", "1\r\nx-b: 2")]),
            call("GET", "https://api.example/", &[("proxy-authorization", "Bearer x")]),
        ];
        for call in bad {
            let shown = format!("{} {} {:?}", call.method, call.url, call.headers);
            assert_eq!(request(call, 2).unwrap_err(), CallError::Invalid, "{shown}");
        }
        let many = [("x-a", "1"), ("x-b", "1"), ("x-c", "1")];
        assert_eq!(request(call("GET", "https://api.example/", &many), 2).unwrap_err(), CallError::TooLarge);
    }

    #[test]
    fn open_calls_are_counted() {
        let open = Arc::new(AtomicUsize::new(0));
        let one = OpenCall::begin(&open, 1).unwrap();
        assert!(OpenCall::begin(&open, 1).is_none());
        drop(one);
        assert!(OpenCall::begin(&open, 1).is_some());
    }
}
