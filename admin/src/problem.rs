//! Every error the API answers, as problem+json (RFC 9457).

use crate::store;
use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use tidegate_policy::Mistake;

/// An error answer. Boxed, since it travels in the error side of nearly every result here.
#[derive(Debug)]
pub(crate) struct Problem(Box<Said>);

/// What an error answer says. `detail` says what to do next; it never holds a secret.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
#[schema(as = Problem)]
pub(crate) struct Said {
    /// What kind of problem it is, as a relative reference: `/problems/<kind>`.
    #[serde(rename = "type")]
    kind: String,
    /// The same in words, always alike for one type.
    title: String,
    /// The status of the answer.
    status: u16,
    /// What happened this time and what to do about it.
    detail: String,
    /// Everything wrong with the document that was sent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mistakes: Vec<Mistake>,
    /// What refers to the thing that was to be deleted, as `/routes/charges/service`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    referrers: Vec<String>,
    #[serde(skip)]
    challenge: bool,
    #[serde(skip)]
    methods: Option<&'static str>,
}

impl Problem {
    /// A problem of this status and detail.
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let (kind, title) = kind_of(status);
        Self(Box::new(Said {
            kind: format!("/problems/{kind}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            mistakes: Vec::new(),
            referrers: Vec::new(),
            challenge: status == StatusCode::UNAUTHORIZED,
            methods: None,
        }))
    }

    /// A document with mistakes.
    pub(crate) fn mistakes(mistakes: Vec<Mistake>) -> Self {
        let detail = match mistakes.len() {
            1 => "the document has a mistake; nothing was changed".to_owned(),
            count => format!("the document has {count} mistakes; nothing was changed"),
        };
        let mut problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail);
        problem.0.mistakes = mistakes;
        problem
    }

    /// Something still refers to what was to be deleted.
    pub(crate) fn referred(what: &str, referrers: Vec<String>) -> Self {
        let detail = format!("{what} is still referred to by {}: change or delete that first", referrers.join(", "));
        let mut problem = Self::new(StatusCode::CONFLICT, detail);
        problem.0.referrers = referrers;
        problem
    }

    /// A method that the resource does not have.
    pub(crate) fn method(allowed: &'static str) -> Self {
        let detail = format!("this resource understands {allowed}");
        let mut problem = Self::new(StatusCode::METHOD_NOT_ALLOWED, detail);
        problem.0.methods = Some(allowed);
        problem
    }

    /// A failure of the gateway's own; what exactly goes to the log, where it is handled.
    pub(crate) fn internal(what: &str, error: &dyn std::fmt::Display) -> Self {
        tracing::error!(error = %error, "the API could not {what}");
        let detail = format!("the gateway could not {what}; nothing was changed. Its log says why");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    }

    /// Whether the gateway failed, and not the caller.
    pub(crate) fn is_own_failure(&self) -> bool {
        self.0.status >= 500
    }

    /// A failure of the database.
    pub(crate) fn database(what: &str, error: &sqlx::Error) -> Self {
        tracing::error!(%error, advice = store::advice(error), "the API could not {what}");
        let detail = format!(
            "the gateway could not {what} and nothing was changed: the database answers {error}; {}",
            store::advice(error)
        );
        let status = if store::is_full(error) { StatusCode::INSUFFICIENT_STORAGE } else { StatusCode::INTERNAL_SERVER_ERROR };
        Self::new(status, detail)
    }
}

fn kind_of(status: StatusCode) -> (&'static str, &'static str) {
    match status.as_u16() {
        400 => ("bad-request", "The request cannot be understood"),
        401 => ("unauthenticated", "A valid token is needed"),
        403 => ("forbidden", "The token's role does not permit this"),
        404 => ("not-found", "There is no such thing"),
        405 => ("method", "The resource has no such method"),
        408 => ("too-slow", "The request took too long to arrive"),
        409 => ("conflict", "Something else depends on it"),
        412 => ("precondition", "The resource is not in the expected state"),
        413 => ("too-large", "The body is too large"),
        415 => ("media-type", "The content type is not understood"),
        422 => ("invalid", "The document has mistakes"),
        429 => ("too-many", "Too many at once"),
        507 => ("disk-full", "The disk is full"),
        503 => ("unavailable", "Not at the moment"),
        _ => ("internal", "The gateway failed"),
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self.0).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.0.challenge {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"tidegate\""));
        }
        if let Some(methods) = self.0.methods {
            headers.insert(header::ALLOW, HeaderValue::from_static(methods));
        }
        response
    }
}
