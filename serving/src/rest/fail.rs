//! Errors as problem documents.

use axum::extract::rejection::JsonRejection;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use reckon_data::ingest::SubmitError;
use reckon_data::jobs::JobError;
use reckon_data::problem::Problem;

use crate::ServingError;

/// When to come again after 503 and 429, seconds.
const RETRY_AFTER_SECONDS: u32 = 1;

/// A refused request.
#[derive(Debug)]
pub struct Failure(pub Problem);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self.0).unwrap_or_default();
        let mut response = (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS.into());
        }
        response
    }
}

/// A request that is wrong in `field`.
pub fn bad(field: impl Into<String>, detail: impl Into<String>) -> Failure {
    Failure(Problem::new(400, "bad-request", "The request cannot be carried out", detail).with_field(field))
}

/// There is no such thing.
pub fn missing(detail: impl Into<String>) -> Failure {
    Failure(Problem::new(404, "not-found", "There is no such thing", detail))
}

/// Not now.
pub fn busy(detail: impl Into<String>) -> Failure {
    Failure(Problem::new(503, "unavailable", "Not now", detail))
}

/// Something is broken.
pub fn internal(detail: impl Into<String>) -> Failure {
    Failure(Problem::new(500, "internal", "Something is broken here", detail))
}

impl From<ServingError> for Failure {
    fn from(error: ServingError) -> Self {
        let detail = error.to_string();
        Self(match &error {
            ServingError::BadRequest { field, .. } => return bad(*field, detail),
            ServingError::NotFound { .. } => return missing(detail),
            ServingError::Timeout { .. } => {
                let advice = format!("{detail}; ask for less, or raise serving.query_time");
                Problem::new(504, "query-timeout", "The query took too long", advice)
            }
            ServingError::MemoryLimit { .. } => {
                let advice = format!("{detail}; ask for less, or raise serving.query_memory");
                Problem::new(507, "query-memory", "The query needs too much memory", advice)
            }
            ServingError::Unavailable { .. } => return busy(detail),
            ServingError::Internal { .. } => return internal(detail),
        })
    }
}

impl From<SubmitError> for Failure {
    fn from(error: SubmitError) -> Self {
        let detail = error.to_string();
        Self(match error {
            SubmitError::Busy { .. } => Problem::new(429, "busy", "Too many events are waiting", detail),
            SubmitError::TooLarge { .. } => Problem::new(413, "too-large", "The body is too large", detail),
            SubmitError::Malformed { receipt, .. } => {
                let mut problem = Problem::new(400, "malformed", "The body holds no event that can be read", detail);
                problem.receipt = Some(*receipt);
                problem
            }
            SubmitError::Full => Problem::new(503, "disk-full", "The log's disk is full", detail),
            _ => return busy(detail),
        })
    }
}

impl From<JobError> for Failure {
    fn from(error: JobError) -> Self {
        let detail = error.to_string();
        match error {
            JobError::AlreadyRunning(_) => Self(Problem::new(409, "already-running", "A run is going on", detail)),
            _ => bad("request", detail),
        }
    }
}

impl From<JsonRejection> for Failure {
    fn from(rejection: JsonRejection) -> Self {
        bad("body", rejection.body_text())
    }
}
