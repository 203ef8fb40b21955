//! Is it alive, is it ready, what does it count. Open to all: orchestrators and scrapers bring no token.

use crate::{control::Control, problem::Problem};
use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use std::sync::Arc;

/// `GET /healthz`
pub(crate) async fn alive() -> &'static str {
    "alive\n"
}

/// `GET /readyz`
pub(crate) async fn ready(State(control): State<Arc<Control>>) -> Result<&'static str, Problem> {
    match control.plane.ready() {
        Ok(()) => Ok("ready\n"),
        Err(why) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, why)),
    }
}

/// `GET /metrics`
pub(crate) async fn metrics(State(control): State<Arc<Control>>) -> Response {
    let text = control.plane.metrics() + &control.metrics.text();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
