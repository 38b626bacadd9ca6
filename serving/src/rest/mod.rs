//! REST: one router over the parts that a process has; every refusal is a problem document.
//!
//! [`parts`] is what the routes stand on, [`params`] reads query parameters, [`body`] reads bodies, [`fail`] turns
//! errors into RFC 9457 problems, [`metrics`] is what `/metrics` says; the rest is a file a group of routes.
//! A part that a process lacks has no routes.

mod audits;
mod body;
mod dead;
mod entities;
mod events;
mod fail;
mod imports;
mod jobs;
mod metrics;
mod named;
mod openapi;
mod params;
mod parts;
mod questions;
mod serve;
mod sql;
mod state;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, Uri};
use axum::middleware::{self, Next};
use axum::response::Response;
use reckon_data::problem::Problem;

pub use fail::Failure;
pub use metrics::MetricsText;
pub use parts::{Health, Readiness, Replay, ReplayReport, ReplayRequest, RestParts, Totals};
pub use serve::serve;

/// The routes of everything that `parts` holds.
pub fn router(parts: RestParts) -> Router {
    let shared = Arc::new(state::Shared::new(parts));
    let mut routes = openapi::routes();
    if shared.parts.ingest.is_some() {
        routes = routes.merge(events::routes()).merge(dead::bury_routes());
    }
    if shared.parts.serving.is_some() {
        routes = routes.merge(questions::routes()).merge(sql::routes()).merge(dead::list_routes());
    }
    if shared.parts.serving.as_ref().is_some_and(|serving| serving.entities().is_some()) {
        routes = routes.merge(entities::routes());
    }
    if shared.parts.jobs.is_some() {
        routes = routes.merge(jobs::routes());
    }
    if shared.parts.audits.is_some() {
        routes = routes.merge(audits::routes());
    }
    if shared.parts.imports.is_some() {
        routes = routes.merge(imports::routes());
    }
    if shared.parts.replay.is_some() {
        routes = routes.merge(dead::replay_routes());
    }
    let admitted = routes
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), admit));
    state::routes()
        .method_not_allowed_fallback(not_allowed)
        .merge(admitted)
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), note))
        .with_state(shared)
}

async fn not_found(uri: Uri) -> Failure {
    let detail = format!("there is nothing at {}; /openapi.json lists what there is", uri.path());
    Failure::of(Problem::new(404, "not-found", "There is nothing here", detail))
}

async fn not_allowed(method: Method, uri: Uri) -> Failure {
    let detail = format!("{} does not take {method}; /openapi.json says what it takes", uri.path());
    Failure::of(Problem::new(405, "method-not-allowed", "The method is not allowed", detail))
}

/// Bounds the requests that are under way.
async fn admit(State(shared): State<Arc<state::Shared>>, request: Request, next: Next) -> Result<Response, Failure> {
    let Ok(_turn) = shared.turns.try_acquire() else {
        return Err(fail::busy("too many requests are under way"));
    };
    Ok(next.run(request).await)
}

/// Times requests, and sees to it that every refusal is a problem document.
async fn note(State(shared): State<Arc<state::Shared>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<axum::extract::MatchedPath>().map(|path| path.as_str().to_owned());
    let start = std::time::Instant::now();
    let response = fail::as_problem(next.run(request).await).await;
    shared.requests.note(route, response.status().as_u16(), start.elapsed());
    response
}

#[cfg(test)]
mod tests;
