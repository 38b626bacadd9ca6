//! What all routes share, and how the process is.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use tokio::sync::Semaphore;
use utoipa::ToSchema;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::Room;
use super::fail::{Failure, internal};
use super::live::Live;
use super::metrics::{MetricsText, Requests};
use super::parts::{PartReadiness, Readiness, RestParts};
use crate::Serving;
use crate::query::Status;
use crate::sql::Samples;

/// Requests under way at once.
pub const REQUESTS_MAX: usize = 2_048;
/// Imports of entities under way at once: each holds a whole body, and the records in it.
const ENTITY_IMPORTS_MAX: usize = 8;

/// What all routes share.
#[derive(Debug)]
pub struct Shared {
    pub parts: RestParts,
    pub turns: Semaphore,
    pub room: Room,
    pub requests: Requests,
    pub live: Live,
    pub entity_imports: Arc<Semaphore>,
    /// The OpenAPI document, once all routes are known.
    pub document: OnceLock<Bytes>,
}

impl Shared {
    pub fn new(parts: RestParts) -> Self {
        let room = Room::for_bodies_of(parts.body_bytes_max);
        Self {
            parts,
            turns: Semaphore::new(REQUESTS_MAX),
            room,
            requests: Requests::default(),
            live: Live::default(),
            entity_imports: Arc::new(Semaphore::new(ENTITY_IMPORTS_MAX)),
            document: OnceLock::new(),
        }
    }

    /// Keeps the document that describes the routes.
    pub fn describe(&self, document: &OpenApi) {
        match document.to_json() {
            // Described once, in `router`.
            Ok(text) => drop(self.document.set(Bytes::from(text))),
            Err(error) => tracing::error!(%error, "the OpenAPI document cannot be written"),
        }
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
        let under_way = REQUESTS_MAX - self.turns.available_permits().min(REQUESTS_MAX);
        let help = "Requests under way, those for health and metrics left out.";
        text.single("reckon_http_requests_under_way", "gauge", help, under_way);
        text.single("reckon_http_requests_under_way_max", "gauge", "Most requests under way at once.", REQUESTS_MAX);
        self.parts.listens.write(&mut text);
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

/// A group of routes, each of them described.
pub type Routes = OpenApiRouter<Arc<Shared>>;

/// Routes that every process has, and that are answered however much is under way.
pub fn routes() -> Routes {
    Routes::new().routes(routes!(healthz)).routes(routes!(readyz)).routes(routes!(metrics))
}

/// The process lives.
#[derive(Serialize, ToSchema)]
struct Alive {
    /// Always `ok`.
    #[schema(example = "ok")]
    status: &'static str,
}

/// Whether the process lives.
///
/// It is answered however much is under way.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "process",
    responses((status = 200, description = "It does.", body = Alive)),
)]
async fn healthz() -> Json<Alive> {
    Json(Alive { status: "ok" })
}

/// How a process is.
#[derive(Serialize, ToSchema)]
struct Ready {
    #[serde(flatten)]
    readiness: Readiness,
    /// What it listens at besides REST: names and addresses.
    listens: BTreeMap<String, String>,
    /// Where the serving layer stands, in a process that answers questions.
    #[serde(skip_serializing_if = "Option::is_none")]
    serving: Option<Status>,
}

/// Whether the process can do its work, and how far it is.
///
/// `parts` says which part is not ready, and why. It is answered however much is under way.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "process",
    responses(
        (status = 200, description = "It can.", body = Ready),
        (status = 503, description = "It cannot, and why.", body = Ready),
    ),
)]
async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    let mut readiness = shared.parts.health.ready();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let serving = shared.parts.serving.as_ref().map(|serving| serving.status());
    readiness.parts.extend(serving.as_ref().map(|status| PartReadiness::with_all("serving", &status.troubles())));
    if shared.parts.serving.as_ref().is_some_and(|serving| serving.entities().is_some()) {
        let trouble = serving.as_ref().and_then(|status| status.entities_trouble.clone());
        readiness.parts.push(PartReadiness::new("entities", trouble));
    }
    let listens = shared.parts.listens.addresses();
    (status, Json(Ready { readiness, listens, serving })).into_response()
}

/// What it counts, for Prometheus.
///
/// It is answered however much is under way.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "process",
    responses((status = 200, description = "Metrics.", body = String, content_type = "text/plain")),
)]
async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], shared.text()).into_response()
}
