//! SQL.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use bytes::Bytes;
use serde::Deserialize;

use super::fail::{Failure, bad};
use super::state::{Routes, Shared};

/// What asks for an Arrow IPC stream.
const ARROW_STREAM: &str = "application/vnd.apache.arrow.stream";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    query: String,
}

pub fn routes() -> Routes {
    Router::new().route("/v1/sql", post(ask))
}

async fn ask(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Result<Response, Failure> {
    let example = "{\"query\": \"select …\"}";
    let question: Question = serde_json::from_slice(&body)
        .map_err(|error| bad("query", format!("the body must be {example}; query cannot be read: {error}")))?;
    let answer = shared.serving()?.sql(&question.query).await?;
    let wants_arrow = headers.get(header::ACCEPT).is_some_and(|accept| accept.as_bytes() == ARROW_STREAM.as_bytes());
    if wants_arrow {
        return Ok(([(header::CONTENT_TYPE, ARROW_STREAM)], answer.to_ipc()?).into_response());
    }
    Ok(Json(answer.to_json()?).into_response())
}
