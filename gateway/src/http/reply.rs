//! The one place that turns a fault into an answer.

use super::{Response, body::Body};
use crate::{fault::Fault, record::OpenRecord};
use ::http::{HeaderName, HeaderValue, StatusCode, header};
use bytes::Bytes;
use tidegate_policy::Reason;

/// The field that says why, in one word.
pub const REASON: HeaderName = HeaderName::from_static("x-tidegate-reason");

/// How a caller reads failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// By HTTP's status.
    Http,
    /// By `grpc-status`.
    Grpc,
    /// By `grpc-status`, over gRPC-Web.
    GrpcWeb,
    /// The same, as base64.
    GrpcWebText,
}

impl Dialect {
    /// What a request's content type says of its sender.
    pub fn of(headers: &::http::HeaderMap) -> Self {
        let kind = headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        match kind {
            kind if kind.starts_with(b"application/grpc-web-text") => Self::GrpcWebText,
            kind if kind.starts_with(b"application/grpc-web") => Self::GrpcWeb,
            kind if kind.starts_with(b"application/grpc") => Self::Grpc,
            _ => Self::Http,
        }
    }

    /// The content type that its gRPC is known by, where it is gRPC.
    pub(crate) fn grpc(self) -> Option<&'static str> {
        match self {
            Self::Http => None,
            Self::Grpc => Some("application/grpc"),
            Self::GrpcWeb => Some("application/grpc-web"),
            Self::GrpcWebText => Some("application/grpc-web-text"),
        }
    }
}

/// The answer for `fault`: its status, `x-tidegate-reason`, and a problem+json body (RFC 9457) that names the exchange;
/// for a gRPC caller, 200 with the matching `grpc-status` and `grpc-message` as trailers-only.
pub fn to(fault: &Fault, dialect: Dialect, exchange: &str) -> Response {
    let reason = fault.reason();
    let mut response = match dialect.grpc() {
        None => problem(fault, exchange),
        Some(kind) => trailers_only(kind, grpc_status(fault), fault.detail()),
    };
    response.headers_mut().insert(REASON, HeaderValue::from_static(reason.as_str()));
    response
}

/// Marks an answer that a filter refused the request with, whatever other filters made of it since.
#[derive(Clone)]
struct Refusal;

/// Whether a filter's answer refuses the request (status 400 and above, or a gRPC status that is not OK), or did when it was
/// given.
pub(crate) fn refuses(response: &Response) -> bool {
    let not_ok = |status: &HeaderValue| status.as_bytes() != b"0";
    response.status().as_u16() >= 400
        || response.headers().get("grpc-status").is_some_and(not_ok)
        || response.extensions().get::<Refusal>().is_some()
}

/// The same response, known to be what became of a refusal.
pub(crate) fn refused(mut response: Response) -> Response {
    response.extensions_mut().insert(Refusal);
    response
}

/// A filter's own answer. One that refuses says so as every refusal does, and in the record.
pub(super) fn of_filter(mut response: Response, record: &mut OpenRecord) -> Response {
    if refuses(&response) {
        let reason = Reason::FilterDenied;
        record.failed(&Fault::new(reason, "a filter answered in the API's place"));
        response.headers_mut().insert(REASON, HeaderValue::from_static(reason.as_str()));
    }
    response
}

fn problem(fault: &Fault, exchange: &str) -> Response {
    let status = fault.status();
    let reason = fault.reason();
    let document = serde_json::json!({
        "type": format!("urn:tidegate:problem:{reason}"),
        "title": status.canonical_reason().unwrap_or("Error"),
        "status": status.as_u16(),
        "detail": fault.detail(),
        "reason": reason.as_str(),
        "instance": format!("urn:tidegate:exchange:{exchange}"),
    });
    let mut response = Response::new(Body::full(Bytes::from(document.to_string())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
        // A token is brought as it is, or as the password of clients that only know Basic.
        headers.append(header::PROXY_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"tidegate\""));
        headers.append(header::PROXY_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"tidegate\", charset=\"UTF-8\""));
    }
    response
}

/// A gRPC answer that is all head.
pub(crate) fn trailers_only(kind: &'static str, status: u32, message: &str) -> Response {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert("grpc-status", HeaderValue::from(status));
    if let Ok(message) = HeaderValue::try_from(percent_encoded(message)) {
        headers.insert("grpc-message", message);
    }
    response
}

/// The gRPC status that says the same (gRPC's `statuscodes.md`).
fn grpc_status(fault: &Fault) -> u32 {
    match (fault.reason(), fault.status().as_u16()) {
        (Reason::DownstreamClosed, _) => 1,
        (Reason::BodyTooLarge | Reason::HeaderTooLarge | Reason::RateLimited, _) | (_, 429) => 8,
        (Reason::LoopDetected, _) => 9,
        (Reason::ConnectFailed | Reason::ResolveFailed | Reason::TlsFailed | Reason::UpstreamProtocol, _) => 14,
        (_, 400 | 421) => 3,
        (_, 401 | 407) => 16,
        (_, 403) => 7,
        (_, 404) => 12,
        (_, 408 | 504) => 4,
        (_, 503) => 14,
        (_, 500..=599) => 13,
        _ => 2,
    }
}

/// gRPC writes messages with everything outside of printable ASCII, and `%`, percent-encoded.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    #[tokio::test]
    async fn a_fault_becomes_a_problem_that_names_reason_and_exchange() {
        let response = to(&Fault::new(Reason::CredentialsRequired, "say who you are"), Dialect::Http, "17");
        assert_eq!(
            (response.status().as_u16(), &response.headers()[REASON]),
            (407, &HeaderValue::from_static("credentials_required"))
        );
        assert_eq!(response.headers().get_all(header::PROXY_AUTHENTICATE).iter().count(), 2);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let document: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(document["instance"], "urn:tidegate:exchange:17");
        assert_eq!(document["type"], "urn:tidegate:problem:credentials_required");
        assert_eq!((&document["reason"], &document["status"]), (&"credentials_required".into(), &407.into()));
    }

    #[test]
    fn grpc_callers_are_answered_in_the_grpc_that_they_speak() {
        let rows = [
            ("application/grpc", "application/grpc"),
            ("application/grpc+proto", "application/grpc"),
            ("application/grpc-web+proto", "application/grpc-web"),
            ("application/grpc-web-text", "application/grpc-web-text"),
            ("application/json", "application/problem+json"),
        ];
        for (sent, answered) in rows {
            let headers = ::http::HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(sent))]);
            let response = to(&Fault::new(Reason::Overloaded, "later"), Dialect::of(&headers), "1");
            assert_eq!(response.headers()[header::CONTENT_TYPE], answered, "{sent}");
            assert_eq!(response.headers().contains_key("grpc-status"), sent != "application/json", "{sent}");
        }
    }

    #[test]
    fn every_reason_has_a_grpc_status() {
        let rows = [
            (Reason::DeniedByRule, 7),
            (Reason::UnregisteredHost, 7),
            (Reason::CredentialsRequired, 16),
            (Reason::RateLimited, 8),
            (Reason::Overloaded, 14),
            (Reason::Timeout, 4),
            (Reason::BadFraming, 3),
            (Reason::ConnectFailed, 14),
            (Reason::Internal, 13),
        ];
        for (reason, status) in rows {
            let response = to(&Fault::new(reason, "50 % \u{e9}"), Dialect::Grpc, "1");
            assert_eq!(response.headers()["grpc-status"], status.to_string(), "{reason}");
            assert_eq!(
                (response.status(), &response.headers()["grpc-message"]),
                (StatusCode::OK, &HeaderValue::from_static("50 %25 %C3%A9"))
            );
        }
        for reason in Reason::ALL {
            assert_ne!(grpc_status(&Fault::new(reason, "")), 0);
        }
    }
}
