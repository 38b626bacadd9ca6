//! Dead letters: in, out, and once more.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::JsonRejection;
use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use reckon_data::dead::DeadLetter;
use serde_json::json;

use super::fail::{Failure, bad, busy, internal};
use super::params::Params;
use super::parts::{ReplayReport, ReplayRequest};
use super::state::{Routes, Shared};
use crate::query::DeadLettersQuery;

/// Most letters of an answer.
const LETTERS_MAX: usize = 1_000;
/// A page of letters may hold sixteen of the largest, and base64 makes them a third larger.
const BURY_BYTES_MAX: usize = 24 << 20;

type App = State<Arc<Shared>>;

pub fn bury_routes() -> Routes {
    Routes::new().route("/v1/dead-letters", post(bury))
}

pub fn list_routes() -> Routes {
    Routes::new().route("/v1/dead-letters", get(list))
}

pub fn replay_routes() -> Routes {
    Routes::new().route("/v1/dead-letters/replay", post(replay))
}

async fn bury(State(shared): App, headers: HeaderMap, body: Body) -> Result<Response, Failure> {
    let ingest = shared.parts.ingest.as_ref().ok_or_else(|| internal("this process takes no events"))?;
    let body = shared.room.collect(&headers, body, BURY_BYTES_MAX).await?;
    let letters: Vec<DeadLetter> = serde_json::from_slice(&body)
        .map_err(|error| bad("body", format!("the body is no list of dead letters: {error}")))?;
    let buried = letters.len();
    // What a sender says of a body may be wrong; a length that no table holds would be in the log for good.
    let letters = letters.into_iter().map(DeadLetter::verified).collect::<Result<_, _>>();
    let letters = letters.map_err(|error| bad("body_bytes", error.to_string()))?;
    ingest.bury(letters).await?;
    Ok(Json(json!({ "buried": buried })).into_response())
}

async fn list(State(shared): App, RawQuery(query): RawQuery) -> Result<Response, Failure> {
    let params = Params::read(query.as_deref(), &["limit", "after", "reason"])?;
    let query = DeadLettersQuery {
        limit: params.number("limit", 100, LETTERS_MAX)?,
        after: params.parse("after")?,
        reason: params.text("reason"),
    };
    Ok(Json(shared.serving()?.dead_letters(&query).await?).into_response())
}

async fn replay(
    State(shared): App,
    request: Result<Json<ReplayRequest>, JsonRejection>,
) -> Result<Json<ReplayReport>, Failure> {
    let replay = shared.parts.replay.as_ref().ok_or_else(|| internal("this process replays nothing"))?;
    let Json(request) = request?;
    replay.replay(request).await.map(Json).map_err(busy)
}
