//! Dead letters: in, out, and once more.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::JsonRejection;
use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use reckon_data::dead::DeadLetter;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::fail::{Failure, bad, busy, internal};
use super::object::Object;
use super::openapi::{Refusals, TooLarge};
use super::params::Params;
use super::parts::{ReplayReport, ReplayRequest};
use super::state::{Routes, Shared};
use crate::query::{DeadLettersAnswer, DeadLettersQuery};

/// Most letters of an answer.
const LETTERS_MAX: usize = 1_000;
/// A page of letters may hold sixteen of the largest, and base64 makes them a third larger.
const BURY_BYTES_MAX: usize = 24 << 20;

type App = State<Arc<Shared>>;

pub fn bury_routes() -> Routes {
    Routes::new().routes(routes!(bury))
}

pub fn list_routes() -> Routes {
    Routes::new().routes(routes!(list))
}

pub fn replay_routes() -> Routes {
    Routes::new().routes(routes!(replay))
}

/// They are buried.
#[derive(Serialize, ToSchema)]
struct Buried {
    /// How many.
    buried: usize,
}

/// Bury events that were refused elsewhere, by an importer.
///
/// Durable when it is answered. Length and hash of a body are taken from the body, where there is one.
#[utoipa::path(
    post,
    path = "/v1/dead-letters",
    operation_id = "bury_dead_letters",
    tag = "dead letters",
    request_body(content = Vec<DeadLetter>, description = "The letters; at most 24 MiB.", content_type = "application/json"),
    responses(Refusals, (status = 200, description = "How many.", body = Buried)),
)]
async fn bury(State(shared): App, headers: HeaderMap, body: Body) -> Result<Json<Buried>, Failure> {
    let ingest = shared.parts.ingest.as_ref().ok_or_else(|| internal("this process takes no events"))?;
    let body = shared.room.collect(&headers, body, BURY_BYTES_MAX).await?;
    let letters: Vec<Object<DeadLetter>> = serde_json::from_slice(&body)
        .map_err(|error| bad("body", format!("the body is no list of dead letters: {error}")))?;
    let buried = letters.len();
    // What a sender says of a body may be wrong; a length that no table holds would be in the log for good.
    let letters = letters.into_iter().map(|Object(letter)| letter.verified()).collect::<Result<_, _>>();
    let letters = letters.map_err(|error| bad("body_bytes", error.to_string()))?;
    ingest.bury(letters).await?;
    Ok(Json(Buried { buried }))
}

/// What was refused, by place.
///
/// With reason and bytes, a page at a time: `next` is the `after` of the next page, and null on the last one.
#[utoipa::path(
    get,
    path = "/v1/dead-letters",
    operation_id = "list_dead_letters",
    tag = "dead letters",
    params(
        ("limit" = Option<usize>, Query, description = "How many, 1 to 1000; 100 when absent.", minimum = 1, maximum = 1000),
        (
            "after" = Option<String>,
            Query,
            description = "The place at which the answer before ended: its `next`.",
            pattern = r"^\+?[0-9]+-\+?[0-9]+-\+?[0-9]+$",
        ),
        ("reason" = Option<String>, Query, description = "With this reason only.", min_length = 1),
    ),
    responses(Refusals, (status = 200, description = "The letters.", body = DeadLettersAnswer), TooLarge),
)]
async fn list(State(shared): App, RawQuery(query): RawQuery) -> Result<Json<DeadLettersAnswer>, Failure> {
    let params = Params::read(query.as_deref(), &["limit", "after", "reason"])?;
    let query = DeadLettersQuery {
        limit: params.number("limit", 100, LETTERS_MAX)?,
        after: params.parse("after")?,
        reason: params.text("reason"),
    };
    Ok(Json(shared.serving()?.dead_letters(&query).await?))
}

/// Try dead letters once more; each is counted once.
///
/// What is taken now is counted and does not come back; what is refused still stays where it is.
#[utoipa::path(
    post,
    path = "/v1/dead-letters/replay",
    operation_id = "replay_dead_letters",
    tag = "dead letters",
    request_body(content = ReplayRequest, description = "Which ones; `{}` is all."),
    responses(Refusals, (status = 200, description = "What came of it.", body = ReplayReport)),
)]
async fn replay(
    State(shared): App,
    request: Result<Json<Object<ReplayRequest>>, JsonRejection>,
) -> Result<Json<ReplayReport>, Failure> {
    let replay = shared.parts.replay.as_ref().ok_or_else(|| internal("this process replays nothing"))?;
    let Json(Object(request)) = request?;
    replay.replay(request).await.map(Json).map_err(busy)
}
