//! A filter's own answer, checked before it may be sent.

use super::{Limits, bindings::tidegate::filter::types::LocalReply, headers};
use crate::http::{
    Response,
    body::Body,
    reply::{self, Dialect},
};
use http::StatusCode;
use std::sync::Arc;

/// A status that a filter may give a response: a final one (RFC 9110 section 15).
pub(super) fn status(code: u16) -> Option<StatusCode> {
    StatusCode::from_u16(code).ok().filter(|_| (200..600).contains(&code))
}

/// The response for `local` to a caller of this dialect, or why it cannot be one.
pub(super) fn checked(local: LocalReply, dialect: Dialect, limits: &Limits) -> Result<Response, Arc<str>> {
    let Some(status) = status(local.status) else {
        return Err(format!("it answered with status {}, which is not one of 200 to 599", local.status).into());
    };
    let (count, limit) = (local.headers.len(), limits.header_count);
    if count > limit {
        return Err(format!("it answered with {count} headers, over the limit of {limit} (setting filter_header_count)").into());
    }
    if status == StatusCode::RESET_CONTENT && !local.body.is_empty() {
        return Err("it answered with status 205 and a body, which such an answer cannot have (RFC 9110 section 15.3.6)".into());
    }
    let mut response = match (dialect.grpc(), local.grpc_status) {
        (Some(kind), Some(code)) => reply::trailers_only(kind, code, &local.details),
        _ => {
            let mut response = Response::new(Body::full(local.body.into()));
            *response.status_mut() = status;
            response
        }
    };
    let mut size = 0;
    for (place, (name, value)) in local.headers.into_iter().enumerate() {
        size += name.len() + value.len();
        let header = headers::writable(name.as_bytes()).and_then(|name| Ok((name, headers::value(&value)?)));
        // By its place: the name may be anything, and is not for the record.
        let (name, value) =
            header.map_err(|_| format!("the header at place {place} of its answer is not valid, or not a filter's to set"))?;
        response.headers_mut().append(name, value);
    }
    let limit = limits.header_bytes;
    if size > limit {
        let detail = format!("it answered with {size} bytes of headers, over the limit of {limit}");
        return Err(format!("{detail} (setting filter_header_bytes)").into());
    }
    Ok(response)
}
