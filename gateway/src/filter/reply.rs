//! A filter's own answer, checked before it may be sent.

use super::{Limits, bindings::tidegate::filter::types::LocalReply, headers};
use crate::http::{
    Response,
    body::Body,
    reply::{self, Dialect},
};
use http::StatusCode;
use std::sync::Arc;

/// The response for `local` to a caller of this dialect, or why it cannot be one.
pub(super) fn checked(local: LocalReply, dialect: Dialect, limits: &Limits) -> Result<Response, Arc<str>> {
    let status = StatusCode::from_u16(local.status)
        .ok()
        .filter(|status| (200..600).contains(&status.as_u16()))
        .ok_or_else(|| format!("it answered with status {}, which is not one of 200 to 599", local.status))?;
    let mut size = 0;
    if local.headers.len() > limits.header_count {
        return Err(
            format!("it answered with {} headers, over the limit of {}", local.headers.len(), limits.header_count).into()
        );
    }
    let mut response = match (dialect.grpc(), local.grpc_status) {
        (Some(kind), Some(code)) => reply::trailers_only(kind, code, &local.details),
        _ => {
            let mut response = Response::new(Body::full(local.body.into()));
            *response.status_mut() = status;
            response
        }
    };
    for (name, value) in local.headers {
        size += name.len() + value.len();
        let header = headers::writable(&name).and_then(|name| Ok((name, headers::value(&value)?)));
        let (name, value) = header.map_err(|_| "it answered with a header that is not valid or not its to set".to_owned())?;
        response.headers_mut().append(name, value);
    }
    if size > limits.header_bytes {
        return Err(format!("it answered with {size} bytes of headers, over the limit of {}", limits.header_bytes).into());
    }
    Ok(response)
}
