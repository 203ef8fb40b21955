//! What a guest does with its exchange: going on with it, ending it, answering it, and turning to another one.

use super::{Offered, offer, telemetry::note};
use crate::filter::{
    bindings::tidegate::filter::types::LocalReply,
    headers::{self, Refusal},
    message::Kind,
    proxy_wasm::{
        abi::{Answer, Status, StreamType},
        maps,
        memory::{Call, Done, range, split},
        state::{Context, State},
        stream::{End, Stream},
    },
};
use bytes::Bytes;
use wasmtime::Result;

pub(super) fn link(offered: &mut Offered) -> Result<()> {
    offer!(offered, "proxy_continue_stream", continue_stream, stream: u32);
    offer!(offered, "proxy_close_stream", close_stream, stream: u32);
    offer!(offered, "proxy_continue_request", continue_request);
    offer!(offered, "proxy_continue_response", continue_response);
    offer!(offered, "proxy_clear_route_cache", clear_route_cache);
    offer!(offered, "proxy_set_effective_context", set_effective_context, context: u32);
    offer!(offered, "proxy_done", done);
    offer!(
        offered, "proxy_send_local_response", send_local_response,
        status: u32, details: u32, details_size: u32, body: u32, body_size: u32, fields: u32, fields_size: u32, grpc: u32
    );
    Ok(())
}

fn continue_stream(call: &mut Call<'_>, stream: u32) -> Done {
    let tunnel = call.data().stream().is_some_and(|stream| stream.ends.is_some());
    match (StreamType::try_from(stream)?, tunnel) {
        (StreamType::Request, false) | (StreamType::Downstream, true) => resume(call.data_mut(), Kind::Request),
        (StreamType::Response, false) | (StreamType::Upstream, true) => resume(call.data_mut(), Kind::Response),
        // Nothing of a tunnel is ever held in an exchange of HTTP, nor the other way round.
        _ => Ok(()),
    }
    .map_err(Into::into)
}

pub(super) fn continue_request(call: &mut Call<'_>) -> Done {
    Ok(resume(call.data_mut(), Kind::Request)?)
}

pub(super) fn continue_response(call: &mut Call<'_>) -> Done {
    Ok(resume(call.data_mut(), Kind::Response)?)
}

/// The route was chosen by the decision, and stays.
pub(super) fn clear_route_cache(_: &mut Call<'_>) -> Done {
    Ok(())
}

fn resume(state: &mut State, kind: Kind) -> Answer {
    let stream = state.stream_mut().ok_or(Status::BadArgument)?;
    stream.message_mut(kind).resumed = true;
    stream.ring();
    Ok(())
}

/// Ends the exchange without an answer, as soon as the callback has returned.
fn close_stream(call: &mut Call<'_>, stream: u32) -> Done {
    StreamType::try_from(stream)?;
    // Outside of an exchange there is nothing to close, and SDKs take any other answer for a failure.
    if let Some(stream) = call.data_mut().stream_mut() {
        stream.closes = true;
        stream.ring();
    }
    Ok(())
}

fn set_effective_context(call: &mut Call<'_>, context: u32) -> Done {
    Ok(call.data_mut().turn_to(context)?)
}

/// What a guest had put off is over.
fn done(call: &mut Call<'_>) -> Done {
    let state = call.data_mut();
    let current = state.current;
    let ends = match state.contexts.get(current) {
        Some(Context::Stream(stream)) => stream.end == End::PutOff,
        Some(Context::Root(root)) => root.ending,
        None => false,
    };
    if ends && !state.ended.contains(&current) {
        state.ended.push(current);
    }
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "the ABI has them")]
fn send_local_response(
    call: &mut Call<'_>,
    status: u32,
    details: u32,
    details_size: u32,
    body: u32,
    body_size: u32,
    fields: u32,
    fields_size: u32,
    grpc: u32,
) -> Done {
    let (memory, state) = split(call)?;
    let details = String::from_utf8_lossy(range(memory, details, details_size)?).into_owned();
    let body = range(memory, body, body_size)?;
    if body.len() > state.limits.body_bytes {
        state.metrics.bodies_refused.add(1);
        return Err(Status::InternalFailure.into());
    }
    let fields = Bytes::copy_from_slice(range(memory, fields, fields_size)?);
    let status = u16::try_from(status).ok().filter(|status| (200..600).contains(status)).ok_or(Status::BadArgument)?;
    let mut headers = answered_with(state, &fields)?;
    let stream = state.stream().ok_or(Status::BadArgument)?;
    if !body.is_empty() && !speaks_grpc(stream) && !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
        headers.push(("content-type".to_owned(), b"text/plain".to_vec()));
    }
    // No such status of gRPC is what -1 says. A caller that speaks gRPC is answered in it all the same.
    let grpc_status = Some(grpc).filter(|grpc| *grpc <= 16).or_else(|| speaks_grpc(stream).then(|| grpc_status_of(status)));
    // What is read of an answer to gRPC is its message, which is the text that others would have had as the body.
    let details = if !body.is_empty() && speaks_grpc(stream) { String::from_utf8_lossy(body).into_owned() } else { details };
    let reply = LocalReply { status, headers, body: body.to_vec(), grpc_status, details };
    let stream = state.stream_mut().ok_or(Status::BadArgument)?;
    stream.reply.get_or_insert(reply);
    stream.ring();
    Ok(())
}

fn speaks_grpc(stream: &Stream) -> bool {
    let fields = stream.request.fields();
    let kind = fields.and_then(|fields| fields.get(http::header::CONTENT_TYPE));
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// The status that gRPC has for one of HTTP (its document on the mapping of statuses).
fn grpc_status_of(status: u16) -> u32 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// The fields of an answer, without those that the gateway writes.
fn answered_with(state: &mut State, fields: &Bytes) -> Answer<Vec<(String, Vec<u8>)>> {
    let mut kept = Vec::new();
    for (name, value) in maps::decode(fields).map_err(|_| Status::BadArgument)? {
        let name = std::str::from_utf8(&name).map_err(|_| Status::BadArgument)?;
        headers::value(&value).map_err(|_| Status::BadArgument)?;
        match headers::writable(name.as_bytes()) {
            Ok(_) => kept.push((name.to_owned(), value.to_vec())),
            Err(Refusal::Immutable) => {
                state.metrics.headers_refused.add(1);
                note(state, format_args!("its answer has the field {name}, which the gateway alone writes: left out"));
            }
            Err(_) => return Err(Status::BadArgument),
        }
    }
    Ok(kept)
}
