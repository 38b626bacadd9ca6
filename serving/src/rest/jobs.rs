//! Batch runs.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use reckon_data::jobs::{Jobs, RunRequest, RunStatus};
use reckon_data::problem::Problem;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;
use uuid::Uuid;

use super::fail::{Failure, PROBLEM_JSON, bad, internal, missing};
use super::object::Object;
use super::openapi::Refusals;
use super::state::{Routes, Shared};

type App = State<Arc<Shared>>;

pub fn routes() -> Routes {
    Routes::new().routes(routes!(list, start)).routes(routes!(one))
}

fn jobs(shared: &Shared) -> Result<&Arc<dyn Jobs>, Failure> {
    shared.parts.jobs.as_ref().ok_or_else(|| internal("this process runs no batch"))
}

/// Start a batch run.
///
/// It is answered at once; `Location` says where to ask how far it is. Without a body what has changed is recounted.
#[utoipa::path(
    post,
    path = "/v1/batch/runs",
    operation_id = "start_batch_run",
    tag = "jobs",
    request_body(content = Option<RunRequest>, description = "What to recount; nothing is the same as `{}`."),
    responses(
        Refusals,
        (
            status = 202,
            description = "The run.",
            body = RunStatus,
            headers(("Location" = String, description = "Where to ask how far it is.")),
        ),
        (status = 409, description = "A run is going on.", body = Problem, content_type = PROBLEM_JSON),
    ),
)]
async fn start(State(shared): App, body: Bytes) -> Result<Response, Failure> {
    let request = if body.is_empty() {
        RunRequest::default()
    } else {
        let request: Option<Object<RunRequest>> = serde_json::from_slice(&body)
            .map_err(|error| bad("body", format!("the request cannot be read: {error}")))?;
        request.map(|Object(request)| request).unwrap_or_default()
    };
    let run = jobs(&shared)?.start(request).await?;
    let location = format!("/v1/batch/runs/{}", run.id);
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(run)).into_response())
}

/// Batch runs.
#[derive(Serialize, ToSchema)]
struct BatchRuns {
    /// The newest first.
    runs: Vec<RunStatus>,
}

/// The latest batch runs.
///
/// Those of this process; what older ones committed shows in the versions of `batch_counts`.
#[utoipa::path(
    get,
    path = "/v1/batch/runs",
    operation_id = "list_batch_runs",
    tag = "jobs",
    responses(Refusals, (status = 200, description = "The runs, newest first.", body = BatchRuns)),
)]
async fn list(State(shared): App) -> Result<Json<BatchRuns>, Failure> {
    Ok(Json(BatchRuns { runs: jobs(&shared)?.list() }))
}

/// A batch run.
///
/// How far it is, and what it found when it has ended.
#[utoipa::path(
    get,
    path = "/v1/batch/runs/{id}",
    operation_id = "get_batch_run",
    tag = "jobs",
    params(("id" = String, Path, description = "Its id.", format = "uuid")),
    responses(Refusals, (status = 200, description = "The run.", body = RunStatus)),
)]
async fn one(State(shared): App, Path(id): Path<String>) -> Result<Response, Failure> {
    let id: Uuid = id.parse().map_err(|error| bad("id", format!("{id} is no run's id: {error}")))?;
    let run = jobs(&shared)?.get(id).ok_or_else(|| missing(format!("run {id} is not known to this process")))?;
    Ok(Json(run).into_response())
}
