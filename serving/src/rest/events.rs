//! Events in.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use bytes::Bytes;
use futures::StreamExt as _;
use reckon_data::ingest::{Compression, Framing, Submission, SubmitError};
use reckon_data::problem::Problem;
use reckon_data::receipt::Receipt;

use super::fail::{Failure, bad, busy, internal};
use super::state::{Routes, Shared};

/// How long a body may take to arrive.
const BODY_TIME_MAX: std::time::Duration = std::time::Duration::from_secs(60);
/// How much of a body over the limit is read and thrown away.
const DISCARDED_BYTES_MAX: usize = 64 << 20;

pub fn routes() -> Routes {
    Router::new().route("/v1/events", post(submit))
}

async fn submit(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Body) -> Result<Response, Failure> {
    let ingest = shared.parts.ingest.as_ref().ok_or_else(|| internal("this process takes no events"))?;
    let submission = Submission {
        framing: framing(&headers)?,
        compression: compression(&headers)?,
        idempotency_key: text(&headers, "idempotency-key")?,
        source: text(&headers, "reckon-source")?.or_else(|| Some("http".to_owned())),
        internal: false,
        body: collect(&headers, body, shared.parts.body_bytes_max).await?,
    };
    let receipt = ingest.submit(submission).await?;
    Ok(answer(receipt))
}

fn answer(receipt: Receipt) -> Response {
    if receipt.accepted > 0 || receipt.refused == 0 {
        return Json(receipt).into_response();
    }
    let first = receipt.errors.first();
    let detail = first.map_or_else(String::new, |error| error.message.clone());
    let mut problem = Problem::new(422, "refused", "Every event was refused", detail);
    problem.field = first.and_then(|error| error.field.clone());
    problem.receipt = Some(receipt);
    Failure(problem).into_response()
}

fn framing(headers: &HeaderMap) -> Result<Framing, Failure> {
    let Some(kind) = text(headers, header::CONTENT_TYPE.as_str())? else { return Ok(Framing::Json) };
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match kind.as_str() {
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" | "application/x-jsonlines" => {
            Ok(Framing::Lines)
        }
        "" | "application/json" | "text/plain" | "application/octet-stream" | "application/x-www-form-urlencoded" => {
            Ok(Framing::Json)
        }
        other => Err(unsupported("content-type", other, "application/json and application/x-ndjson")),
    }
}

fn compression(headers: &HeaderMap) -> Result<Compression, Failure> {
    match text(headers, header::CONTENT_ENCODING.as_str())?.as_deref() {
        None | Some("" | "identity") => Ok(Compression::Identity),
        Some("gzip" | "x-gzip") => Ok(Compression::Gzip),
        Some("zstd") => Ok(Compression::Zstd),
        Some(other) => Err(unsupported("content-encoding", other, "identity, gzip and zstd")),
    }
}

fn unsupported(name: &str, found: &str, known: &str) -> Failure {
    let detail = format!("{name} {found:?} is not known here; there are {known}");
    Failure(
        Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE.as_u16(), "unsupported", "The body cannot be read", detail)
            .with_field(name),
    )
}

fn text(headers: &HeaderMap, name: &str) -> Result<Option<String>, Failure> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let text = value.to_str().map_err(|_| bad(name, format!("header {name} is not text")))?;
    Ok(Some(text.to_owned()))
}

/// The whole body, unless it is larger than `limit` bytes or takes too long.
async fn collect(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, Failure> {
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    match tokio::time::timeout(BODY_TIME_MAX, read(body, declared.unwrap_or(0), limit)).await {
        Ok(Ok(Some(bytes))) => Ok(bytes),
        Ok(Ok(None)) => Err(SubmitError::TooLarge { limit: limit as u64 }.into()),
        Ok(Err(error)) => Err(bad("body", format!("the body did not arrive whole: {error}"))),
        Err(_) => Err(busy(format!("the body took longer than {} s to arrive", BODY_TIME_MAX.as_secs()))),
    }
}

/// Reads a body; none when it is too large. What is over the limit is read as well, up to a point, and thrown
/// away: a client that is still sending would not see the answer.
async fn read(body: Body, declared: usize, limit: usize) -> Result<Option<Bytes>, axum::Error> {
    let most = limit.saturating_add(DISCARDED_BYTES_MAX);
    let (mut stream, mut seen) = (body.into_data_stream(), 0_usize);
    let mut bytes = Vec::with_capacity(if declared > limit { 0 } else { declared });
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        seen = seen.saturating_add(chunk.len());
        if seen > most || declared > most {
            break;
        }
        if seen <= limit && declared <= limit {
            bytes.extend_from_slice(&chunk);
        } else {
            bytes = Vec::new();
        }
    }
    Ok((seen <= limit && declared <= limit).then(|| Bytes::from(bytes)))
}
