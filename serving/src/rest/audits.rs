//! Audits: started, shown, and their reports, as JSON and as pages.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use reckon_data::jobs::{AuditSummary, Audits, RunState, RunStatus};
use reckon_data::problem::Problem;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::routes;
use uuid::Uuid;

use super::fail::{Failure, PROBLEM_JSON, bad, busy, internal, missing};
use super::object::Object;
use super::openapi::Refusals;
use super::state::{Routes, Shared};

/// What a page may do: show itself. It has its styles and pictures with it, runs nothing and loads nothing.
const PAGE_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

type App = State<Arc<Shared>>;

pub fn routes() -> Routes {
    Routes::new().routes(routes!(list, start)).routes(routes!(one)).routes(routes!(page)).routes(routes!(latest_page))
}

fn audits(shared: &Shared) -> Result<&Arc<dyn Audits>, Failure> {
    shared.parts.audits.as_ref().ok_or_else(|| internal("this process runs no audits"))
}

/// What an audit is asked to do. It is described here, and read by the audit.
#[derive(Default, Deserialize, Serialize, ToSchema)]
#[allow(dead_code, reason = "it is a description")]
#[serde(deny_unknown_fields, default)]
struct AuditRequest {
    /// These dates; none is all.
    dates: Vec<String>,
    /// Make good what can be made good, and audit again.
    repair: bool,
}

/// Start an audit: recount the raw events on their own, and hold every count and answer to them.
///
/// It is answered at once; `Location` says where to ask how far it is. Without a body all dates are audited.
#[utoipa::path(
    post,
    path = "/v1/audit/runs",
    operation_id = "start_audit",
    tag = "jobs",
    request_body(content = Option<AuditRequest>, description = "What to audit; nothing is the same as `{}`."),
    responses(
        Refusals,
        (
            status = 202,
            description = "The run.",
            body = RunStatus,
            headers(("Location" = String, description = "Where to ask how far it is.")),
        ),
        (status = 409, description = "An audit is going on.", body = Problem, content_type = PROBLEM_JSON),
    ),
)]
async fn start(State(shared): App, body: Bytes) -> Result<Response, Failure> {
    let unreadable = |error: serde_json::Error| bad("body", format!("the request cannot be read: {error}"));
    let request: Option<Object<Map<String, Value>>> =
        if body.is_empty() { None } else { serde_json::from_slice(&body).map_err(unreadable)? };
    let request = request.map(|Object(request)| request).unwrap_or_default();
    let run = audits(&shared)?.start(Value::Object(request)).await?;
    let location = format!("/v1/audit/runs/{}", run.id);
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(run)).into_response())
}

/// Audits.
#[derive(Serialize, ToSchema)]
struct AuditRuns {
    /// The newest first.
    runs: Vec<AuditSummary>,
}

/// The latest audits of this process, without their reports.
///
/// Reports that other processes stored are in the SQL tables `audit_runs` and `audit_findings`.
#[utoipa::path(
    get,
    path = "/v1/audit/runs",
    operation_id = "list_audits",
    tag = "jobs",
    responses(Refusals, (status = 200, description = "The runs, newest first.", body = AuditRuns)),
)]
async fn list(State(shared): App) -> Result<Json<AuditRuns>, Failure> {
    Ok(Json(AuditRuns { runs: audits(&shared)?.list() }))
}

/// An audit, going on or stored, with its report.
///
/// `report` is as the audit wrote it: its verdict, its dates and its findings.
#[utoipa::path(
    get,
    path = "/v1/audit/runs/{id}",
    operation_id = "get_audit",
    tag = "jobs",
    params(("id" = String, Path, description = "Its id.", format = "uuid")),
    responses(Refusals, (status = 200, description = "The run.", body = RunStatus)),
)]
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

/// The report of an audit as a page.
///
/// It has its styles and pictures with it, runs nothing and loads nothing.
#[utoipa::path(
    get,
    path = "/v1/audit/runs/{id}/page",
    operation_id = "get_audit_page",
    tag = "jobs",
    params(("id" = String, Path, description = "Its id.", format = "uuid")),
    responses(Refusals, (status = 200, description = "The page.", body = String, content_type = "text/html")),
)]
async fn page(State(shared): App, Path(id): Path<String>) -> Result<Response, Failure> {
    let id = id_of(&id)?;
    let page = audits(&shared)?.page(Some(id)).await.map_err(busy)?;
    page.map(html).ok_or_else(|| missing(format!("there is no report of an audit {id}")))
}

/// The latest report as a page.
///
/// Whoever made it: the newest that is stored.
#[utoipa::path(
    get,
    path = "/v1/audit/page",
    operation_id = "get_latest_audit_page",
    tag = "jobs",
    responses(Refusals, (status = 200, description = "The page.", body = String, content_type = "text/html")),
)]
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
