//! SQL.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde::Deserialize;

use super::fail::{Failure, bad};
use super::state::{Routes, Shared};
use crate::ServingError;
use crate::query::AsOf;
use crate::sql::{Form, QUERY_BYTES_MAX, SqlOptions};

/// What asks for an Arrow IPC stream.
const ARROW_STREAM: &str = "application/vnd.apache.arrow.stream";
const JSON: &str = "application/json";
/// Longest body: JSON may write a query longer than it is.
const BODY_BYTES_MAX: usize = 2 * QUERY_BYTES_MAX;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    query: String,
    /// See [`AsOf`].
    #[serde(default)]
    as_of: Option<Moment>,
}

/// A time or a version as text, or epoch milliseconds as a number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Moment {
    Text(String),
    Millis(i64),
}

impl Moment {
    fn as_of(&self) -> Result<AsOf, ServingError> {
        match self {
            Self::Text(text) => text.parse(),
            Self::Millis(millis) => millis.to_string().parse(),
        }
    }
}

pub fn routes() -> Routes {
    Routes::new().route("/v1/sql", post(ask))
}

async fn ask(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Body) -> Result<Response, Failure> {
    let body = shared.room.collect(&headers, body, BODY_BYTES_MAX).await?;
    let example = "{\"query\": \"select …\"}";
    let question: Question = serde_json::from_slice(&body)
        .map_err(|error| bad("query", format!("the body must be {example}; query cannot be read: {error}")))?;
    let (form, kind) = if wants_arrow(&headers) { (Form::Arrow, ARROW_STREAM) } else { (Form::Json, JSON) };
    let as_of = question.as_of.as_ref().map(Moment::as_of).transpose()?;
    let options = SqlOptions { as_of, samples: Some(&*shared) };
    let answer = shared.serving()?.sql_as(&question.query, options, form).await?;
    Ok(([(header::CONTENT_TYPE, kind)], answer).into_response())
}

/// Whether `Accept` names the Arrow stream, and likes it no less than JSON.
fn wants_arrow(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let (mut arrow, mut json) = (0.0, 0.0);
    for range in accepted.flat_map(|list| list.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let quality: f32 = quality.map_or(1.0, |quality| quality.parse().unwrap_or(0.0));
        if name.eq_ignore_ascii_case(ARROW_STREAM) {
            arrow = quality;
        } else if name.eq_ignore_ascii_case(JSON) {
            json = quality;
        }
    }
    arrow > 0.0 && arrow >= json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_is_a_list() {
        let wants = |values: &[&'static str]| {
            let pairs = values.iter().map(|value| (header::ACCEPT, value.parse().unwrap()));
            wants_arrow(&pairs.collect::<HeaderMap>())
        };
        for values in [
            &[ARROW_STREAM][..],
            &["Application/Vnd.Apache.Arrow.Stream"],
            &["application/vnd.apache.arrow.stream, */*;q=0.1"],
            &["application/json;q=0.5, application/vnd.apache.arrow.stream ; q=0.9"],
            &["application/json", ARROW_STREAM],
        ] {
            assert!(wants(values), "{values:?}");
        }
        for values in [
            &[][..],
            &["*/*"],
            &["application/json"],
            &["application/vnd.apache.arrow.stream;q=0"],
            &["application/json, application/vnd.apache.arrow.stream;q=0.5"],
        ] {
            assert!(!wants(values), "{values:?}");
        }
    }
}
