//! What all routes share, and how the process is.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use tokio::sync::Semaphore;

use super::body::Room;
use super::fail::{Failure, internal};
use super::metrics::{MetricsText, Requests};
use super::parts::RestParts;
use crate::Serving;
use crate::sql::Samples;

/// Requests under way at once.
pub const REQUESTS_MAX: usize = 2_048;

/// What all routes share.
#[derive(Debug)]
pub struct Shared {
    pub parts: RestParts,
    pub turns: Semaphore,
    pub room: Room,
    pub requests: Requests,
}

impl Shared {
    pub fn new(parts: RestParts) -> Self {
        let room = Room::for_bodies_of(parts.body_bytes_max);
        Self { parts, turns: Semaphore::new(REQUESTS_MAX), room, requests: Requests::default() }
    }

    /// The part that questions are asked of; its routes exist only when it does.
    pub fn serving(&self) -> Result<&Arc<Serving>, Failure> {
        self.parts.serving.as_ref().ok_or_else(|| internal("this process answers no questions"))
    }
}

impl Samples for Shared {
    fn text(&self) -> String {
        let mut text = MetricsText::default();
        self.parts.health.metrics(&mut text);
        self.requests.write(&mut text);
        if let Some(serving) = &self.parts.serving {
            serving.metrics().write(text.raw());
            cache_metrics(serving, &mut text);
        }
        text.finish()
    }
}

fn cache_metrics(serving: &Serving, into: &mut MetricsText) {
    let (hits, misses, bytes) = serving.cache_counts();
    into.single("reckon_cache_hits_total", "counter", "Sums of batch that were found in the cache.", hits);
    into.single("reckon_cache_misses_total", "counter", "Sums of batch that had to be added up.", misses);
    into.single("reckon_cache_bytes", "gauge", "Memory of the sums that are kept, bytes.", bytes);
}

/// A group of routes.
pub type Routes = Router<Arc<Shared>>;

/// Routes that every process has, and that are answered however much is under way.
pub fn routes() -> Routes {
    Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz)).route("/metrics", get(metrics))
}

async fn healthz() -> Json<serde_json::Value> {
    Json(json!({ "status": "ok" }))
}

async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    let readiness = shared.parts.health.ready();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut answer = json!(readiness);
    if let (Some(serving), Some(map)) = (&shared.parts.serving, answer.as_object_mut()) {
        map.insert("serving".to_owned(), json!(serving.status()));
    }
    (status, Json(answer)).into_response()
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], shared.text()).into_response()
}
