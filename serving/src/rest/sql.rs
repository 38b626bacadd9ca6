//! SQL.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::fail::{Failure, bad};
use super::object::Object;
use super::openapi::{Refusals, TooLarge};
use super::state::{Routes, Shared};
use crate::ServingError;
use crate::query::AsOf;
use crate::sql::{Form, QUERY_BYTES_MAX, SqlOptions};
use crate::view::Provenance;

/// What asks for an Arrow IPC stream.
const ARROW_STREAM: &str = "application/vnd.apache.arrow.stream";
const JSON: &str = "application/json";
/// Longest body: JSON may write a query longer than it is.
const BODY_BYTES_MAX: usize = 2 * QUERY_BYTES_MAX;

/// A query.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SqlQuestion)]
struct Question {
    /// In SQL, read-only, one statement; at most 1 MiB.
    #[schema(example = "select event_type, sum(count) as n from stats group by event_type order by n desc")]
    query: String,
    /// As of an older version of batch: its time (RFC 3339 or epoch milliseconds; the newest version committed by then),
    /// or version:N. The answer holds what batch had counted then and nothing of the stream. The tables events,
    /// dead_letters, audit_runs, audit_findings, entities and metrics are refused then, and stats_stream is empty.
    #[serde(default)]
    as_of: Option<Moment>,
}

/// A time or a version as text, or epoch milliseconds as a number.
#[derive(Deserialize, ToSchema)]
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

/// The answer to a query, as [`Form::Json`] writes it.
#[derive(Serialize, ToSchema)]
#[allow(dead_code, reason = "it is a description: rows are written as they come")]
struct SqlRows {
    /// The columns.
    columns: Vec<SqlColumn>,
    /// The rows, a value a column. Whole numbers and floats are numbers, decimals are strings (a float would not be
    /// exact), times are RFC 3339, bytes are hexadecimal.
    rows: Vec<Vec<Value>>,
    /// Whether there were more rows than an answer may have (serving.rows_max).
    truncated: bool,
    /// Where it comes from.
    provenance: Provenance,
}

/// A column.
#[derive(Serialize, ToSchema)]
#[allow(dead_code, reason = "it is a description")]
struct SqlColumn {
    /// Its name.
    name: String,
    /// Its type, as Arrow names it.
    #[serde(rename = "type")]
    kind: String,
}

pub fn routes() -> Routes {
    Routes::new().routes(routes!(ask))
}

/// A query in SQL, read-only.
///
/// Tables: stats, stats_hour, stats_day, stats_batch, stats_stream, events, dead_letters, audit_runs, audit_findings,
/// entities, metrics.
///
/// Entities that are Reckon's own (definition.reserved_prefixes, _reckon/…: what the canary sends) are left out of
/// stats, stats_hour, stats_day, stats_batch, stats_stream and events, so that no total holds them. A query with such a
/// prefix in one of its strings reads them too, in all its tables: where entity_id = '_reckon/canary/1', like
/// '_reckon/%'.
#[utoipa::path(
    post,
    path = "/v1/sql",
    operation_id = "sql",
    tag = "sql",
    request_body(content = Question, description = "The query."),
    responses(
        Refusals,
        (
            status = 200,
            description = "Columns and rows; an Arrow IPC stream when Accept asks for application/vnd.apache.arrow.stream, with reckon.truncated and reckon.provenance in its schema's metadata.",
            content((SqlRows = "application/json"), ("application/vnd.apache.arrow.stream")),
        ),
        TooLarge,
    ),
)]
async fn ask(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Body) -> Result<Response, Failure> {
    let body = shared.room.collect(&headers, body, BODY_BYTES_MAX).await?;
    let example = "{\"query\": \"select …\"}";
    let Object(question) = serde_json::from_slice::<Object<Question>>(&body)
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
