//! Errors as problem documents.

use axum::extract::rejection::JsonRejection;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use reckon_data::ingest::SubmitError;
use reckon_data::jobs::JobError;
use reckon_data::problem::Problem;

use crate::ServingError;

/// The media type of a refusal.
pub const PROBLEM_JSON: &str = "application/problem+json";
/// Longest text of a refusal, bytes.
const TEXT_BYTES_MAX: usize = 16 << 10;
/// When to come again after 503 and 429, seconds.
const RETRY_AFTER_SECONDS: u32 = 1;

/// A refused request.
#[derive(Debug)]
pub struct Failure(pub Box<Problem>);

impl Failure {
    /// The answer that this document is.
    pub fn of(problem: Problem) -> Self {
        Self(Box::new(problem))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self.0).unwrap_or_default();
        let mut response = (status, [(header::CONTENT_TYPE, PROBLEM_JSON)], body).into_response();
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS.into());
        }
        response
    }
}

/// A request that is wrong in `field`.
pub fn bad(field: impl Into<String>, detail: impl Into<String>) -> Failure {
    Failure::of(Problem::new(400, "bad-request", "The request cannot be carried out", detail).with_field(field))
}

/// There is no such thing.
pub fn missing(detail: impl Into<String>) -> Failure {
    Failure::of(Problem::new(404, "not-found", "There is no such thing", detail))
}

/// Not now.
pub fn busy(detail: impl Into<String>) -> Failure {
    Failure::of(Problem::new(503, "unavailable", "Not now", detail))
}

/// Something is broken.
pub fn internal(detail: impl Into<String>) -> Failure {
    Failure::of(Problem::new(500, "internal", "Something is broken here", detail))
}

impl From<ServingError> for Failure {
    fn from(error: ServingError) -> Self {
        let detail = error.to_string();
        Self::of(match &error {
            ServingError::BadRequest { field, .. } => return bad(*field, detail),
            ServingError::RolledUp(rolled) => {
                Problem::new(400, "rolled-up", "The date is no longer counted so finely", detail)
                    .with_field(rolled.field())
            }
            ServingError::NotFound { .. } => return missing(detail),
            ServingError::Timeout { .. } => {
                let advice = format!("{detail}; ask for less, or raise serving.query_time");
                Problem::new(504, "query-timeout", "The query took too long", advice)
            }
            ServingError::MemoryLimit { .. } => {
                let advice = format!("{detail}; ask for less, or raise serving.query_memory");
                Problem::new(507, "query-memory", "The query needs too much memory", advice)
            }
            ServingError::Damaged { .. } => Problem::new(500, "damaged-file", "A data file is damaged", detail),
            ServingError::Unavailable { .. } => return busy(detail),
            ServingError::Internal { .. } => return internal(detail),
        })
    }
}

impl From<SubmitError> for Failure {
    fn from(error: SubmitError) -> Self {
        let detail = error.to_string();
        Self::of(match error {
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
            JobError::AlreadyRunning(_) => Self::of(Problem::new(409, "already-running", "A run is going on", detail)),
            _ => bad("request", detail),
        }
    }
}

impl From<JsonRejection> for Failure {
    fn from(rejection: JsonRejection) -> Self {
        let status = match rejection.status() {
            // That is the status of a body whose every event was refused.
            StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
            other => other,
        };
        Self::of(refusal(status, rejection.body_text()).with_field("body"))
    }
}

/// A request that was refused before it reached a route's own code.
fn refusal(status: StatusCode, detail: String) -> Problem {
    let (kind, title) = match status {
        StatusCode::PAYLOAD_TOO_LARGE => ("too-large", "The body is too large"),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => ("unsupported", "The body cannot be read"),
        _ => ("bad-request", "The request cannot be carried out"),
    };
    Problem::new(status.as_u16(), kind, title, detail)
}

/// Makes a problem document of a refusal in plain text, as the HTTP framework writes it: a path that is not UTF-8.
pub async fn as_problem(response: Response) -> Response {
    let kind = response.headers().get(header::CONTENT_TYPE);
    let plain = kind.is_none_or(|kind| kind.as_bytes().starts_with(b"text/plain"));
    if !(plain && response.status().is_client_error()) {
        return response;
    }
    let status = response.status();
    let text = axum::body::to_bytes(response.into_body(), TEXT_BYTES_MAX).await.unwrap_or_default();
    Failure::of(refusal(status, String::from_utf8_lossy(&text).into_owned())).into_response()
}
