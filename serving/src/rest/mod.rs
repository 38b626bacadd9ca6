//! REST: one router over the parts that a process has; every refusal is a problem document.
//!
//! [`parts`] is what the routes stand on, [`params`] reads query parameters, [`body`] and [`object`] read bodies, [`fail`]
//! turns errors into RFC 9457 problems, [`metrics`] is what `/metrics` says, [`signals`] the golden signals, [`live`]
//! server-sent events, [`page`] the dashboard's files, [`docs`] a page to try the routes, [`openapi`] makes the document of
//! the routes, and [`asked`] describes the parameters that many of them take; the rest is a file a group of routes.
//! A part that a process lacks has no routes.

mod asked;
mod audits;
mod body;
mod dead;
mod docs;
mod entities;
mod etag;
mod events;
mod fail;
mod filters;
mod imports;
mod jobs;
mod listens;
mod live;
mod many;
mod metrics;
mod named;
mod object;
mod openapi;
mod page;
mod params;
mod parts;
mod questions;
mod serve;
mod signals;
mod sql;
mod state;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, Uri};
use axum::middleware::{self, Next};
use axum::response::Response;
use reckon_data::problem::Problem;

use crate::sql::Samples;

pub use fail::Failure;
pub use listens::{Counted, Listens};
pub use metrics::MetricsText;
pub use page::{Asset, Page};
pub use parts::{Health, PartReadiness, Readiness, Replay, ReplayReport, ReplayRequest, RestParts, Totals};
pub use serve::serve;
pub use signals::Signals;
use state::Routes;

/// The routes of everything that `parts` holds.
pub fn router(parts: RestParts) -> Router {
    open(parts).0
}

/// As [`router`], and what the table `metrics` shows, for whoever else answers SQL.
pub fn open(parts: RestParts) -> (Router, Arc<dyn Samples>) {
    let shared = Arc::new(state::Shared::new(parts));
    let samples: Arc<dyn Samples> = Arc::clone(&shared) as _;
    let (always, first) = always_of(&shared.parts).split_for_parts();
    let (admitted, others) = routes_of(&shared.parts).split_for_parts();
    shared.describe(&openapi::document([first, others]));
    if shared.parts.serving.is_some() {
        live::start(&shared);
    }
    let admitted = admitted
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), admit));
    let router = always
        .method_not_allowed_fallback(not_allowed)
        .merge(admitted)
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), note))
        .with_state(shared);
    (router, samples)
}

/// The routes that take no turn of a request: live streams last as long as somebody looks, and files of the page cost
/// nothing.
fn always_of(parts: &RestParts) -> Routes {
    let mut routes = state::routes();
    if parts.serving.is_some() {
        routes = routes.merge(live::routes());
    }
    if parts.page.is_some() {
        routes = routes.merge(page::routes());
    }
    routes
}

/// The routes that wait their turn: a line a group.
fn routes_of(parts: &RestParts) -> Routes {
    let mut routes = openapi::routes().merge(docs::routes());
    if parts.ingest.is_some() {
        routes = routes.merge(events::routes()).merge(dead::bury_routes());
    }
    if parts.serving.is_some() {
        routes = routes
            .merge(questions::routes().layer(middleware::from_fn(etag::validate)))
            .merge(sql::routes())
            .merge(dead::list_routes());
        routes = routes.merge(many::routes()).merge(filters::routes());
    }
    if parts.serving.as_ref().is_some_and(|serving| serving.entities().is_some()) {
        routes = routes.merge(entities::routes());
    }
    if parts.jobs.is_some() {
        routes = routes.merge(jobs::routes());
    }
    if parts.audits.is_some() {
        routes = routes.merge(audits::routes());
    }
    if parts.imports.is_some() {
        routes = routes.merge(imports::routes());
    }
    if parts.replay.is_some() {
        routes = routes.merge(dead::replay_routes());
    }
    routes
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
