//! Calls of a guest's own. What is wrong with one is said at once; what becomes of it comes by a callback.

use super::{Offered, offer};
use crate::filter::{
    headers,
    outbound::{Answer as AnswerTo, Errand, OpenCall, Sent},
    proxy_wasm::{
        abi::{Answer, Status},
        callouts::{self, Destination, Kind, destination, framed},
        jobs::{self, Unary},
        maps,
        memory::{Call, Done, give, put_u32, range, split, text},
        state::{Outside, State},
    },
    share::{self, Held, NoRoom},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, header};
use std::{sync::Arc, time::Duration};
use tokio::sync::{mpsc, oneshot};
use wasmtime::Result;

/// Messages that a stream of gRPC may have under way in one direction.
pub(in crate::filter::proxy_wasm) const MESSAGES: usize = 16;

/// The most that gRPC's header for it can say: eight digits.
const GRPC_TIMEOUT: u32 = 99_999_999;

pub(super) fn link(offered: &mut Offered) -> Result<()> {
    offer!(
        offered, "proxy_http_call", http_call,
        upstream: u32, upstream_size: u32, fields: u32, fields_size: u32, body: u32, body_size: u32,
        trailers: u32, trailers_size: u32, timeout: u32, id: u32
    );
    offer!(
        offered, "proxy_grpc_call", grpc_call,
        upstream: u32, upstream_size: u32, service: u32, service_size: u32, method: u32, method_size: u32,
        metadata: u32, metadata_size: u32, message: u32, message_size: u32, timeout: u32, id: u32
    );
    offer!(
        offered, "proxy_grpc_stream", grpc_stream,
        upstream: u32, upstream_size: u32, service: u32, service_size: u32, method: u32, method_size: u32,
        metadata: u32, metadata_size: u32, id: u32
    );
    offer!(offered, "proxy_grpc_send", grpc_send, id: u32, message: u32, message_size: u32, end: u32);
    offer!(offered, "proxy_grpc_cancel", grpc_cancel, id: u32);
    offer!(offered, "proxy_grpc_close", grpc_close, id: u32);
    offer!(offered, "proxy_get_status", status, code: u32, at: u32, size: u32);
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "the ABI has them")]
fn http_call(
    call: &mut Call<'_>,
    upstream: u32,
    upstream_size: u32,
    fields: u32,
    fields_size: u32,
    body: u32,
    body_size: u32,
    trailers: u32,
    trailers_size: u32,
    timeout: u32,
    id: u32,
) -> Done {
    let (memory, state) = split(call)?;
    range(memory, id, 4)?;
    let upstream = text(memory, upstream, upstream_size)?;
    let fields = decoded(memory, fields, fields_size)?;
    let trailers = metadata(&decoded(memory, trailers, trailers_size)?, state.limits.header_count)?;
    let body = counted(state, Bytes::copy_from_slice(range(memory, body, body_size)?))?;
    let pseudo = |wanted: &[u8]| fields.iter().find(|(name, _)| &name[..] == wanted).map(|(_, value)| &value[..]);
    let required = |wanted: &[u8]| pseudo(wanted).and_then(|value| std::str::from_utf8(value).ok()).ok_or(Status::BadArgument);
    let method = Method::from_bytes(required(b":method")?.as_bytes()).map_err(|_| Status::BadArgument)?;
    let (path, authority) = (required(b":path")?, required(b":authority")?);
    let to = going(state, upstream, authority, Status::BadArgument)?;
    let mut request = request(method, to, path, Sent::Whole(body, trailers))?;
    *request.headers_mut() = metadata(&fields, state.limits.header_count)?;
    let call_id = begin(state, request, timeout, Unary::Http)?;
    let (memory, _) = split(call)?;
    Ok(put_u32(memory, id, call_id)?)
}

#[expect(clippy::too_many_arguments, reason = "the ABI has them")]
fn grpc_call(
    call: &mut Call<'_>,
    upstream: u32,
    upstream_size: u32,
    service: u32,
    service_size: u32,
    method: u32,
    method_size: u32,
    metadata: u32,
    metadata_size: u32,
    message: u32,
    message_size: u32,
    timeout: u32,
    id: u32,
) -> Done {
    let (memory, state) = split(call)?;
    range(memory, id, 4)?;
    let called = Called {
        upstream: text(memory, upstream, upstream_size)?,
        service: text(memory, service, service_size)?,
        method: text(memory, method, method_size)?,
        metadata: decoded(memory, metadata, metadata_size)?,
    };
    let message = counted(state, framed(range(memory, message, message_size)?))?;
    let mut request = called.request(state, Sent::Whole(message, HeaderMap::new()))?;
    if timeout > 0 {
        let asked = HeaderValue::from_str(&format!("{}m", timeout.min(GRPC_TIMEOUT))).map_err(|_| Status::InternalFailure)?;
        request.headers_mut().insert("grpc-timeout", asked);
    }
    let call_id = begin(state, request, timeout, Unary::Grpc)?;
    let (memory, _) = split(call)?;
    Ok(put_u32(memory, id, call_id)?)
}

#[expect(clippy::too_many_arguments, reason = "the ABI has them")]
fn grpc_stream(
    call: &mut Call<'_>,
    upstream: u32,
    upstream_size: u32,
    service: u32,
    service_size: u32,
    method: u32,
    method_size: u32,
    metadata: u32,
    metadata_size: u32,
    id: u32,
) -> Done {
    let (memory, state) = split(call)?;
    range(memory, id, 4)?;
    let called = Called {
        upstream: text(memory, upstream, upstream_size)?,
        service: text(memory, service, service_size)?,
        method: text(memory, method, method_size)?,
        metadata: decoded(memory, metadata, metadata_size)?,
    };
    let (messages, sent) = mpsc::channel(MESSAGES);
    let request = called.request(state, Sent::Streamed(sent))?;
    let budget = budgeted(state)?;
    let root = state.root_id().ok_or(Status::BadArgument)?;
    let (received, events) = mpsc::channel(MESSAGES);
    let errand = errand(state, request, Duration::MAX, AnswerTo::Streamed(received));
    let outside = state.outside.clone();
    send(state, outside.as_ref(), errand)?;
    let (call_id, given_up) = state.callouts.open(root, Kind::GrpcStream(Some(messages)));
    if let Some(outside) = outside {
        let held = Held::nothing(&state.limits, &state.metrics);
        jobs::hear_stream(&outside, call_id, events, given_up, (budget, held));
    }
    let (memory, _) = split(call)?;
    Ok(put_u32(memory, id, call_id)?)
}

/// A gRPC call as a guest asks for it.
struct Called<'a> {
    upstream: &'a str,
    service: &'a str,
    method: &'a str,
    metadata: Vec<(Bytes, Bytes)>,
}

impl Called<'_> {
    fn request(&self, state: &mut State, sent: Sent) -> Answer<Request<Sent>> {
        let to = going(state, self.upstream, "", Status::ParseFailure)?;
        let mut request = request(Method::POST, to, &format!("/{}/{}", self.service, self.method), sent)?;
        *request.headers_mut() = metadata(&self.metadata, state.limits.header_count)?;
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
        Ok(request)
    }
}

fn decoded(memory: &[u8], at: u32, size: u32) -> Answer<Vec<(Bytes, Bytes)>> {
    maps::decode(&Bytes::copy_from_slice(range(memory, at, size)?)).map_err(|_| Status::BadArgument)
}

/// The fields of a call. What frames it and where it goes is not theirs to say.
fn metadata(pairs: &[(Bytes, Bytes)], most: usize) -> Answer<HeaderMap> {
    let mut fields = HeaderMap::new();
    if pairs.len() > most {
        return Err(Status::BadArgument);
    }
    for (name, value) in pairs.iter().filter(|(name, _)| name.first() != Some(&b':')) {
        let value = headers::value(value).map_err(|_| Status::BadArgument)?;
        match headers::writable(name) {
            Ok(name) => drop(fields.append(name, value)),
            Err(headers::Refusal::Immutable) => {}
            Err(_) => return Err(Status::BadArgument),
        }
    }
    Ok(fields)
}

/// Where a call goes. On the control plane, where a filter is only tried, any service will do.
fn going(state: &State, upstream: &str, authority: &str, unknown: Status) -> Answer<Destination> {
    let outside = || state.outside.as_ref()?.worker.policy.now();
    let policy = state.stream().map(|stream| Arc::clone(stream.known.shared_snapshot())).or_else(outside);
    match policy {
        Some(policy) => destination(&policy, upstream, Some(authority)).ok_or(unknown),
        None => Ok(Destination { scheme: "https", authority: "unknown.invalid".to_owned() }),
    }
}

fn request(method: Method, to: Destination, path: &str, sent: Sent) -> Answer<Request<Sent>> {
    if method == Method::CONNECT || !path.starts_with('/') {
        return Err(Status::BadArgument);
    }
    let uri = http::Uri::builder().scheme(to.scheme).authority(to.authority).path_and_query(path).build();
    let mut request = Request::new(sent);
    (*request.method_mut(), *request.uri_mut()) = (method, uri.map_err(|_| Status::BadArgument)?);
    Ok(request)
}

/// A place among the calls that the filter may have open, and its exchange may make.
fn budgeted(state: &mut State) -> Answer<OpenCall> {
    state.metrics.calls.add(1);
    let most = state.limits.calls_per_exchange;
    let within = state.stream_mut().is_none_or(|stream| {
        stream.calls += 1;
        stream.calls <= most
    });
    let open = OpenCall::begin(&state.open_calls, state.limits.calls).filter(|_| within);
    if open.is_none() {
        state.metrics.calls_failed.add(1);
    }
    open.ok_or(Status::InternalFailure)
}

fn errand(state: &State, request: Request<Sent>, timeout: Duration, answer: AnswerTo) -> Errand {
    let held = Held::nothing(&state.limits, &state.metrics);
    Errand { plugin: Arc::clone(&state.plugin), request, timeout, body_bytes: state.limits.call_bytes, held, answer }
}

/// What is sent counts as what is held of bodies.
fn counted(state: &State, body: Bytes) -> Answer<Bytes> {
    share::counted(body, &state.limits, &state.metrics).map_err(|NoRoom| Status::InternalFailure)
}

/// Sends it, where there is a worker to make it.
fn send(state: &State, outside: Option<&Outside>, errand: Errand) -> Answer {
    // Whoever waits for the answer is told that there is none, where anybody does.
    let Some(errands) = outside.and_then(|outside| outside.worker.errands.as_ref()) else { return Ok(()) };
    errands.try_send(errand).map_err(|_| {
        state.metrics.calls_failed.add(1);
        Status::InternalFailure
    })
}

/// Begins a call that is answered once; its number.
fn begin(state: &mut State, request: Request<Sent>, timeout: u32, unary: Unary) -> Answer<u32> {
    if let Sent::Whole(body, _) = request.body()
        && body.len() > state.limits.call_bytes
    {
        return Err(Status::InternalFailure);
    }
    let budget = budgeted(state)?;
    let root = state.root_id().ok_or(Status::BadArgument)?;
    let asked = Some(Duration::from_millis(timeout.into())).filter(|asked| !asked.is_zero());
    let timeout = asked.map_or(state.limits.call_timeout, |asked| asked.min(state.limits.call_timeout));
    let (answer, answered) = oneshot::channel();
    let errand = errand(state, request, timeout, AnswerTo::Whole(answer));
    let outside = state.outside.clone();
    send(state, outside.as_ref(), errand)?;
    let kind = match unary {
        Unary::Http => Kind::Http,
        Unary::Grpc => Kind::Grpc,
    };
    let (id, given_up) = state.callouts.open(root, kind);
    if let Some(outside) = outside {
        jobs::hear(&outside, (id, unary), answered, given_up, budget);
    }
    Ok(id)
}

/// Sends a message on a stream, and perhaps closes this side of it.
fn grpc_send(call: &mut Call<'_>, id: u32, message: u32, message_size: u32, end: u32) -> Done {
    let (memory, state) = split(call)?;
    let message = range(memory, message, message_size)?;
    if message.len() > state.limits.call_bytes {
        return Err(Status::InternalFailure.into());
    }
    // An empty message that ends the stream is how SDKs close it.
    let message = if message.is_empty() && end != 0 { None } else { Some(counted(state, framed(message))) };
    let open = state.callouts.get_mut(id).ok_or(Status::BadArgument)?;
    let Kind::GrpcStream(Some(sender)) = &mut open.kind else { return Err(Status::BadArgument.into()) };
    let sent = match message {
        None => Ok(()),
        Some(Ok(message)) => sender.try_send(message).map_err(|_| Status::InternalFailure),
        Some(Err(no_room)) => Err(no_room),
    };
    // Whatever became of the message: the guest takes the stream for closed.
    if end != 0 {
        open.kind = Kind::GrpcStream(None);
    }
    Ok(sent?)
}

/// Gives a call up: its guest hears no more of it.
fn grpc_cancel(call: &mut Call<'_>, id: u32) -> Done {
    let callouts = &mut call.data_mut().callouts;
    match callouts.get_mut(id).map(|open| &open.kind) {
        None | Some(Kind::Http) => Err(Status::NotFound.into()),
        Some(Kind::Grpc | Kind::GrpcStream(_)) => {
            callouts.close(id);
            Ok(())
        }
    }
}

/// Closes the guest's side of a stream; what the other side sends is still heard. A call that is no stream is given up.
fn grpc_close(call: &mut Call<'_>, id: u32) -> Done {
    let callouts = &mut call.data_mut().callouts;
    match callouts.get_mut(id).map(|open| &mut open.kind) {
        None | Some(Kind::Http) => return Err(Status::NotFound.into()),
        Some(Kind::GrpcStream(sender)) => *sender = None,
        Some(Kind::Grpc) => drop(callouts.close(id)),
    }
    Ok(())
}

/// The status of the gRPC call whose callback runs, or of the exchange's trailers.
fn status(call: &mut Call<'_>, code: u32, at: u32, size: u32) -> Done {
    let (memory, state) = split(call)?;
    range(memory, code, 4)?;
    let closed = state.callouts.status().map(|(code, text)| (code, text.to_owned()));
    let of_trailers = || state.stream()?.response.trailers.as_ref().and_then(callouts::grpc_status);
    let (number, text) = closed.or_else(of_trailers).unwrap_or_default();
    put_u32(memory, code, number)?;
    give(call, text.as_bytes(), at, size)
}
