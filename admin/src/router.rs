//! The whole API on one page.

use crate::{
    api::{collections, docs, exchanges, explain, status},
    auth,
    control::Control,
    problem::Problem,
};
use axum::{
    Router,
    extract::{RawPathParams, Request, State, rejection::RawPathParamsRejection},
    http::StatusCode,
    middleware::{self, Next},
    response::Response,
    routing::{get, post},
};
use std::sync::Arc;

/// Every resource of the API. What needs which role is `auth::needed`; what is outside `/v1` needs none.
pub(crate) fn router(control: Arc<Control>) -> Router {
    let guarded = Router::new()
        .route("/v1/explain", post(explain::explain))
        .route("/v1/exchanges", get(exchanges::list))
        // services, routes, rules, workloads, issuers, credentials, plugins
        .route("/v1/{collection}", get(collections::list))
        .route(
            "/v1/{collection}/{name}",
            get(collections::read).put(collections::put).post(collections::upload).delete(collections::delete),
        )
        .route_layer(middleware::from_fn_with_state(Arc::clone(&control), authenticate));
    Router::new()
        .merge(guarded)
        .route("/healthz", get(status::alive))
        .route("/readyz", get(status::ready))
        .route("/metrics", get(status::metrics))
        .route("/openapi.json", get(docs::openapi))
        .route("/docs", get(docs::page))
        .fallback(nothing_here)
        .method_not_allowed_fallback(no_such_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&control), count))
        .with_state(control)
}

/// Lets a request on with its caller, or answers 401 or 403.
async fn authenticate(
    State(control): State<Arc<Control>>,
    parameters: Result<RawPathParams, RawPathParamsRejection>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let caller = control.verifier.caller(request.headers())?;
    let parameters = parameters.map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.body_text()))?;
    let collection = parameters.iter().find_map(|(name, value)| (name == "collection").then_some(value));
    let needed = auth::needed(request.method(), collection);
    if caller.role < needed {
        let (has, needs) = (caller.role.as_str(), needed.as_str());
        let detail = format!(
            "the token has the role {has} and this needs {needs}: use another token, or mint one with `tidegate token --role {needs}`"
        );
        return Err(Problem::new(StatusCode::FORBIDDEN, detail));
    }
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

async fn count(State(control): State<Arc<Control>>, request: Request, next: Next) -> Response {
    control.metrics.requests.add(1);
    next.run(request).await
}

async fn nothing_here(request: Request) -> Problem {
    let path = request.uri().path();
    Problem::new(StatusCode::NOT_FOUND, format!("{path:?} is not a resource of this API; /docs lists those that are"))
}

async fn no_such_method(request: Request) -> Problem {
    let detail = format!("this resource has no method {}; the Allow header lists those that it has", request.method());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
}
