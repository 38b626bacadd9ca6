//! Batch runs.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use reckon_data::jobs::{Jobs, RunRequest};
use serde_json::json;
use uuid::Uuid;

use super::fail::{Failure, bad, internal, missing};
use super::state::{Routes, Shared};

type App = State<Arc<Shared>>;

pub fn routes() -> Routes {
    Routes::new().route("/v1/batch/runs", get(list).post(start)).route("/v1/batch/runs/{id}", get(one))
}

fn jobs(shared: &Shared) -> Result<&Arc<dyn Jobs>, Failure> {
    shared.parts.jobs.as_ref().ok_or_else(|| internal("this process runs no batch"))
}

async fn start(State(shared): App, body: Bytes) -> Result<Response, Failure> {
    let request = if body.is_empty() {
        RunRequest::default()
    } else {
        serde_json::from_slice(&body).map_err(|error| bad("body", format!("the request cannot be read: {error}")))?
    };
    let run = jobs(&shared)?.start(request).await?;
    let location = format!("/v1/batch/runs/{}", run.id);
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(run)).into_response())
}

async fn list(State(shared): App) -> Result<Response, Failure> {
    Ok(Json(json!({ "runs": jobs(&shared)?.list() })).into_response())
}

async fn one(State(shared): App, Path(id): Path<String>) -> Result<Response, Failure> {
    let id: Uuid = id.parse().map_err(|error| bad("id", format!("{id} is no run's id: {error}")))?;
    let run = jobs(&shared)?.get(id).ok_or_else(|| missing(format!("run {id} is not known to this process")))?;
    Ok(Json(run).into_response())
}
