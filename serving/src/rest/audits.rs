//! Audits: started, shown, and their reports, as JSON and as pages.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use reckon_data::jobs::{Audits, RunState, RunStatus};
use serde_json::{Value, json};
use uuid::Uuid;

use super::fail::{Failure, bad, busy, internal, missing};
use super::state::{Routes, Shared};

/// What a page may do: show itself. It has its styles and pictures with it, runs nothing and loads nothing.
const PAGE_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

type App = State<Arc<Shared>>;

pub fn routes() -> Routes {
    Routes::new()
        .route("/v1/audit/runs", get(list).post(start))
        .route("/v1/audit/runs/{id}", get(one))
        .route("/v1/audit/runs/{id}/page", get(page))
        .route("/v1/audit/page", get(latest_page))
}

fn audits(shared: &Shared) -> Result<&Arc<dyn Audits>, Failure> {
    shared.parts.audits.as_ref().ok_or_else(|| internal("this process runs no audits"))
}

async fn start(State(shared): App, body: Bytes) -> Result<Response, Failure> {
    let request = if body.is_empty() {
        json!({})
    } else {
        serde_json::from_slice(&body).map_err(|error| bad("body", format!("the request cannot be read: {error}")))?
    };
    let run = audits(&shared)?.start(request).await?;
    let location = format!("/v1/audit/runs/{}", run.id);
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(run)).into_response())
}

async fn list(State(shared): App) -> Result<Response, Failure> {
    Ok(Json(json!({ "runs": audits(&shared)?.list() })).into_response())
}

async fn one(State(shared): App, Path(id): Path<String>) -> Result<Response, Failure> {
    let id = id_of(&id)?;
    let audits = audits(&shared)?;
    if let Some(run) = audits.get(id) {
        return Ok(Json(run).into_response());
    }
    let report = audits.stored(id).await.map_err(busy)?;
    let report = report.ok_or_else(|| missing(format!("audit {id} neither runs here nor is it stored")))?;
    Ok(Json(finished(id, report)).into_response())
}

async fn page(State(shared): App, Path(id): Path<String>) -> Result<Response, Failure> {
    let id = id_of(&id)?;
    let page = audits(&shared)?.page(Some(id)).await.map_err(busy)?;
    page.map(html).ok_or_else(|| missing(format!("there is no report of an audit {id}")))
}

async fn latest_page(State(shared): App) -> Result<Response, Failure> {
    let page = audits(&shared)?.page(None).await.map_err(busy)?;
    page.map(html).ok_or_else(|| missing("there is no report yet: no audit has ended"))
}

fn id_of(text: &str) -> Result<Uuid, Failure> {
    text.parse::<Uuid>().map_err(|error| bad("id", format!("{text} is no audit's id: {error}")))
}

/// A run that another process may have made, as its report tells it.
fn finished(id: Uuid, report: Value) -> RunStatus {
    let text = |name: &str| report[name].as_str().map(str::to_owned);
    let dates = report["dates"].as_array().into_iter().flatten();
    let events = dates.filter_map(|date| date["raw"].as_u64()).fold(0, u64::saturating_add);
    RunStatus {
        id,
        state: RunState::Succeeded,
        started_at: text("started_at").unwrap_or_default(),
        finished_at: text("finished_at"),
        step: "stored".to_owned(),
        done: 1,
        total: 1,
        events,
        report: Some(report),
        error: None,
    }
}

fn html(page: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, PAGE_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, page).into_response()
}
