//! Verbs that make calls of the filter's own, and what comes back.

use crate::{
    exchange::{Exchange, shown},
    raw,
    script::Step,
};
use proxy_wasm::{hostcalls, types::BufferType, types::MapType};
use std::time::Duration;

/// The methods of the gRPC service that the tests have.
const SERVICE: &str = "tide.v1.Harbour";

/// Whether the step's verb is one of calls; it is done then.
pub(crate) fn act(exchange: &mut Exchange, step: &Step) -> bool {
    match step.verb.as_str() {
        // call UPSTREAM PATH MILLISECONDS [BODY]
        "call" => {
            let authority = format!("{}.example.com", step.word(0));
            let method = if step.word(3).is_empty() { "GET" } else { "POST" };
            let headers =
                vec![(":method", method), (":path", step.word(1)), (":authority", authority.as_str()), ("x-by", "shapes")];
            let body = Some(step.word(3).as_bytes()).filter(|body| !body.is_empty());
            let timeout = Duration::from_millis(step.number(2) as u64);
            let sent = hostcalls::dispatch_http_call(step.word(0), headers, body, Vec::new(), timeout);
            keep(exchange, "call", sent.map_err(|status| status as u32));
        }
        // bare-call UPSTREAM: a call without the pseudo-headers that it needs
        "bare-call" => {
            let sent =
                hostcalls::dispatch_http_call(step.word(0), vec![("x-by", "shapes")], None, Vec::new(), Duration::from_secs(5));
            keep(exchange, "bare-call", sent.map_err(|status| status as u32));
        }
        // grpc UPSTREAM METHOD NAME MILLISECONDS
        "grpc" => {
            let timeout = Duration::from_millis(step.number(3) as u64);
            let message = named(step.word(2));
            let metadata = vec![("x-by", b"shapes".as_slice())];
            let sent = hostcalls::dispatch_grpc_call(step.word(0), SERVICE, step.word(1), metadata, Some(&message), timeout);
            keep(exchange, "grpc", sent.map_err(|status| status as u32));
        }
        // stream UPSTREAM METHOD
        "stream" => {
            let metadata = vec![("x-by", b"shapes".as_slice())];
            let sent = hostcalls::open_grpc_stream(step.word(0), SERVICE, step.word(1), metadata);
            keep(exchange, "stream", sent.map_err(|status| status as u32));
        }
        // send NAME [end]
        "send" => {
            let status = raw::grpc_send(exchange.call, &named(step.word(0)), step.word(1) == "end");
            exchange.status("send", status);
        }
        "grpc-cancel" => exchange.note(format!("grpc-cancel: {}", raw::grpc_cancel(exchange.call))),
        "grpc-close" => exchange.note(format!("grpc-close: {}", raw::grpc_close(exchange.call))),
        _ => return false,
    }
    true
}

/// As [`act`], with the call's number given, whether there is such a call or not.
pub(crate) fn attempt(_: &mut Exchange, verb: &str, step: &Step) -> Option<u32> {
    let call = || step.number(0) as u32;
    Some(match verb {
        "grpc-cancel" => raw::grpc_cancel(call()),
        "grpc-close" => raw::grpc_close(call()),
        "grpc-send" => raw::grpc_send(call(), b"", false),
        "effective" => raw::effective(call()),
        _ => return None,
    })
}

fn keep(exchange: &mut Exchange, verb: &str, sent: Result<u32, u32>) {
    match sent {
        Ok(call) => exchange.call = call,
        Err(status) => exchange.note(format!("{verb}: status {status}")),
    }
}

/// What an HTTP call brought; nothing at all where it failed.
pub(crate) fn answered(exchange: &Exchange, headers: usize, body: usize, trailers: usize) {
    if headers == 0 {
        return exchange.note(format!("answer: none, body {body}, trailers {trailers}"));
    }
    let status = hostcalls::get_map_value(MapType::HttpCallResponseHeaders, ":status").ok().flatten().unwrap_or_default();
    if status.starts_with('5') {
        // The host's own, in its own words.
        return exchange.note(format!("answer: {status}"));
    }
    let read = hostcalls::get_buffer(BufferType::HttpCallResponseBody, 0, usize::MAX);
    let text = read.map(|bytes| bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()));
    exchange.note(format!("answer: {status} {text:?}, body {body}, trailers {trailers}"));
}

/// How a unary gRPC call ended.
pub(crate) fn grpc_answered(exchange: &Exchange, status: u32, size: usize) {
    exchange.note(format!("grpc answer: status {status}, {} of {size}", message(size)));
    if status != 0 {
        exchange.note(format!("grpc status: {}", ended()));
    }
}

/// What a gRPC stream brought.
pub(crate) fn grpc_told(exchange: &Exchange, what: &str, number: usize) {
    let told = match what {
        "message" => message(number),
        "initial" => of_service(MapType::GrpcReceiveInitialMetadata),
        "trailing" => of_service(MapType::GrpcReceiveTrailingMetadata),
        _ => format!("{number} {}", ended()),
    };
    exchange.note(format!("grpc {what}: {told}"));
}

/// How the latest call ended: the number, and what the service said of it. Hosts put words of their own behind that, in braces, and
/// say those alone where the service said nothing or was never reached.
fn ended() -> String {
    const UNAVAILABLE: u32 = 14;
    match hostcalls::get_grpc_status() {
        Ok((status, _)) if status == 0 || status == UNAVAILABLE => status.to_string(),
        Ok((status, message)) => format!("{status} {:?}", message.as_deref().unwrap_or_default().split('{').next()),
        Err(status) => format!("{status:?}"),
    }
}

fn of_service(map: MapType) -> String {
    shown(hostcalls::get_map(map).unwrap_or_default())
}

fn message(size: usize) -> String {
    if size == 0 {
        return "nothing".to_owned();
    }
    let read = hostcalls::get_buffer(BufferType::GrpcReceiveBuffer, 0, usize::MAX);
    read.ok().flatten().map_or_else(|| "nothing".to_owned(), |bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A message whose first field is a text.
fn named(name: &str) -> Vec<u8> {
    let mut message = vec![0x0a, name.len() as u8];
    message.extend(name.as_bytes());
    message
}
