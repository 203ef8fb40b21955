//! What became of calls, as guests are told of it.

use super::{
    callouts::{self, Answered},
    vm::Machine,
};
use crate::filter::{CallError, outbound::Collected};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use std::borrow::Cow;

/// How a call of gRPC ended: its code and a text.
pub(super) type Ended = (u32, Cow<'static, str>);

/// Codes of gRPC.
pub(super) const OK: u32 = 0;
pub(super) const UNKNOWN: u32 = 2;
pub(super) const PERMISSION_DENIED: u32 = 7;
pub(super) const RESOURCE_EXHAUSTED: u32 = 8;
pub(super) const INTERNAL: u32 = 13;
pub(super) const UNAVAILABLE: u32 = 14;

pub(super) const CLOSED_BY_STATUS: Ended = (UNAVAILABLE, Cow::Borrowed("the answer was none of gRPC"));
pub(super) const NO_ROOM: Ended = (RESOURCE_EXHAUSTED, Cow::Borrowed("more was held of bodies than filter_held_bytes"));
pub(super) const NO_STATUS: Ended = (UNKNOWN, Cow::Borrowed("the answer ended without a status"));

impl Machine {
    pub(super) fn http_answered(&mut self, id: u32, answer: Result<Response<Collected>, CallError>) -> wasmtime::Result<()> {
        let answered = match answer {
            Ok(response) => {
                let (head, Collected { body, trailers }) = response.into_parts();
                Answered { status: Some(head.status), headers: head.headers, body, trailers }
            }
            Err(error) => unanswered(error),
        };
        let Self { store, guest, .. } = self;
        let Some(open) = store.data_mut().callouts.close(id) else { return Ok(()) };
        let Some(callback) = &guest.http_call_response else { return Ok(()) };
        let fields = answered.headers.keys_len() + usize::from(answered.status.is_some());
        let numbers = [fields, answered.body.len(), answered.trailers.keys_len()];
        let [fields, body, trailers] = numbers.map(|number| u32::try_from(number).unwrap_or(u32::MAX));
        store.data_mut().callouts.show_http(answered);
        callback.call(&mut *store, (open.root, id, fields, body, trailers))?;
        store.data_mut().callouts.put_away();
        Ok(())
    }

    pub(super) fn grpc_answered(&mut self, id: u32, answer: Result<Response<Collected>, CallError>) -> wasmtime::Result<()> {
        let limit = self.store.data().limits.call_bytes;
        match answered(answer, limit) {
            Ok((headers, message)) => {
                self.grpc_initial(id, headers)?;
                self.grpc_received(id, message)?;
                self.store.data_mut().callouts.close(id);
                Ok(())
            }
            Err((code, text)) => self.grpc_closed(id, code, text.into_owned()),
        }
    }

    pub(super) fn grpc_initial(&mut self, id: u32, metadata: HeaderMap) -> wasmtime::Result<()> {
        let Self { store, guest, .. } = self;
        let Some(root) = store.data_mut().callouts.get_mut(id).map(|open| open.root) else { return Ok(()) };
        let Some(callback) = &guest.grpc_initial_metadata else { return Ok(()) };
        let fields = u32::try_from(metadata.keys_len()).unwrap_or(u32::MAX);
        store.data_mut().callouts.show_metadata(metadata);
        callback.call(&mut *store, (root, id, fields))?;
        store.data_mut().callouts.put_away();
        Ok(())
    }

    pub(super) fn grpc_received(&mut self, id: u32, message: Bytes) -> wasmtime::Result<()> {
        let Self { store, guest, .. } = self;
        let Some(root) = store.data_mut().callouts.get_mut(id).map(|open| open.root) else { return Ok(()) };
        let Some(callback) = &guest.grpc_receive else { return Ok(()) };
        let size = u32::try_from(message.len()).unwrap_or(u32::MAX);
        store.data_mut().current = root;
        store.data_mut().callouts.show_message(message);
        callback.call(&mut *store, (root, id, size))?;
        store.data_mut().callouts.put_away();
        Ok(())
    }

    pub(super) fn grpc_trailing(&mut self, id: u32, metadata: HeaderMap) -> wasmtime::Result<()> {
        let Self { store, guest, .. } = self;
        let Some(root) = store.data_mut().callouts.get_mut(id).map(|open| open.root) else { return Ok(()) };
        let Some(callback) = &guest.grpc_trailing_metadata else { return Ok(()) };
        let fields = u32::try_from(metadata.keys_len()).unwrap_or(u32::MAX);
        store.data_mut().callouts.show_metadata(metadata);
        callback.call(&mut *store, (root, id, fields))?;
        store.data_mut().callouts.put_away();
        Ok(())
    }

    pub(super) fn grpc_closed(&mut self, id: u32, code: u32, text: String) -> wasmtime::Result<()> {
        let Self { store, guest, .. } = self;
        let Some(open) = store.data_mut().callouts.close(id) else { return Ok(()) };
        let Some(callback) = &guest.grpc_close else { return Ok(()) };
        store.data_mut().callouts.show_status(code, text);
        callback.call(&mut *store, (open.root, id, code))?;
        store.data_mut().callouts.put_away();
        Ok(())
    }
}

/// What an answer says, as gRPC: its message, or how it failed.
fn answered(answer: Result<Response<Collected>, CallError>, limit: usize) -> Result<(HeaderMap, Bytes), Ended> {
    let (head, Collected { body, trailers }) = answer.map_err(failure)?.into_parts();
    if head.status != StatusCode::OK {
        return Err(CLOSED_BY_STATUS);
    }
    let (code, text) = callouts::grpc_status(&trailers).or_else(|| callouts::grpc_status(&head.headers)).ok_or(NO_STATUS)?;
    if code != OK {
        return Err((code, text.into()));
    }
    match callouts::unframe(&mut BytesMut::from(&body[..]), limit) {
        Ok(Some(message)) => Ok((head.headers, message)),
        Ok(None) | Err(_) => Err((INTERNAL, "the answer has no whole message".into())),
    }
}

/// What a filter is told in place of an answer: what Envoy would have answered for the upstream.
fn unanswered(error: CallError) -> Answered {
    let (status, text) = match error {
        CallError::Timeout => (StatusCode::GATEWAY_TIMEOUT, "upstream request timeout"),
        CallError::NotPermitted | CallError::UnknownTarget => (StatusCode::FORBIDDEN, "the rules do not allow this call"),
        CallError::TooLarge | CallError::Budget | CallError::Invalid => {
            (StatusCode::SERVICE_UNAVAILABLE, "the call is beyond a limit, or is no valid request")
        }
        CallError::Connect | CallError::Tls | CallError::Protocol => {
            (StatusCode::SERVICE_UNAVAILABLE, "upstream connect error or disconnect/reset before headers")
        }
    };
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"))].into_iter().collect();
    Answered { status: Some(status), headers, body: Bytes::from_static(text.as_bytes()), trailers: HeaderMap::new() }
}

/// What of a failed call gRPC has a code for.
pub(super) fn failure(error: CallError) -> Ended {
    match error {
        CallError::Timeout => (UNAVAILABLE, "it took too long".into()),
        CallError::NotPermitted | CallError::UnknownTarget => (PERMISSION_DENIED, "the rules do not allow it".into()),
        CallError::TooLarge | CallError::Budget => (RESOURCE_EXHAUSTED, "it is beyond a limit".into()),
        CallError::Invalid => (INTERNAL, "it is no valid request".into()),
        CallError::Connect | CallError::Tls | CallError::Protocol => (UNAVAILABLE, "there was no answer".into()),
    }
}
