//! Events in.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use reckon_data::ingest::{CANARY_HEADER, Compression, Framing, Submission};
use reckon_data::problem::Problem;
use reckon_data::receipt::Receipt;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, ObjectBuilder, SchemaType, Type};
use utoipa_axum::routes;

use super::asked::Sending;
use super::fail::{self, Failure, PROBLEM_JSON, bad};
use super::openapi::Refusals;
use super::state::{Routes, Shared};

pub fn routes() -> Routes {
    Routes::new().routes(routes!(submit))
}

/// One thing that happened. It is described here, and read by the gateway.
#[derive(Serialize, ToSchema)]
#[allow(dead_code, reason = "it is a description")]
#[serde(deny_unknown_fields)]
#[schema(as = Event)]
struct EventBody {
    /// What its sender calls it; one is derived where it is absent, from `Idempotency-Key` if there is one.
    #[schema(example = "e-1")]
    event_id: Option<String>,
    /// What happened.
    #[schema(example = "view", min_length = 1)]
    event_type: String,
    /// What is counted: a video, an ad, a page.
    #[schema(example = "v1", min_length = 1)]
    entity_id: String,
    /// When it happened.
    #[schema(schema_with = event_time)]
    event_time: String,
    /// Who did it.
    user_id: Option<String>,
    /// From which address.
    ip: Option<String>,
    /// From which country.
    #[schema(example = "US")]
    country: Option<String>,
    /// A number that goes with it.
    #[schema(schema_with = event_value, required = false)]
    value: String,
    /// Anything else.
    #[schema(value_type = Option<Object>)]
    properties: Option<String>,
}

fn event_time() -> Object {
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::String, Type::Integer]))
        .description(Some("RFC 3339, or epoch milliseconds."))
        .examples(["2013-02-08T10:00:00Z"])
        .build()
}

fn event_value() -> Object {
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Number, Type::String, Type::Null]))
        .description(Some("A number that goes with it: a decimal with at most 6 places. Text is exact."))
        .build()
}

/// Events: one, or an array of them.
#[derive(Serialize, ToSchema)]
#[allow(dead_code, clippy::large_enum_variant, reason = "it is a description")]
#[serde(untagged)]
enum Events {
    /// One.
    One(EventBody),
    /// Several.
    Several(Vec<EventBody>),
}

/// Take events: one, an array, or one a line; gzip and zstd.
///
/// It is answered when everything is durable. A receipt tells where the events lie in the log, and every refused event
/// with its index and reason: those are dead letters. One refused event does not keep the others out.
#[utoipa::path(
    post,
    path = "/v1/events",
    operation_id = "send_events",
    tag = "events",
    params(Sending),
    request_body(
        description = "The events; at most as long as gateway.body says, as received and decompressed alike.",
        content((Events = "application/json"), (String = "application/x-ndjson")),
    ),
    responses(
        Refusals,
        (status = 200, description = "The verdicts; everything is durable.", body = Receipt),
        (
            status = 403,
            description = "Reckon-Canary is another token than the server's.",
            body = Problem,
            content_type = PROBLEM_JSON,
        ),
        (
            status = 422,
            description = "Every event was refused; `receipt` says why.",
            body = Problem,
            content_type = PROBLEM_JSON,
        ),
    ),
)]
async fn submit(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Body) -> Result<Response, Failure> {
    let ingest = shared.parts.ingest.as_ref().ok_or_else(|| fail::internal("this process takes no events"))?;
    let submission = Submission {
        framing: framing(&headers)?,
        compression: compression(&headers)?,
        idempotency_key: text(&headers, "idempotency-key")?,
        source: text(&headers, "reckon-source")?.or_else(|| Some("http".to_owned())),
        first_line: line(&headers, "reckon-first-line")?,
        internal: internal(&headers, shared.parts.canary_token.as_deref())?,
        body: shared.room.collect(&headers, body, shared.parts.body_bytes_max).await?,
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
    Failure::of(problem).into_response()
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
    let name = text(headers, header::CONTENT_ENCODING.as_str())?.unwrap_or_default();
    match name.trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(Compression::Identity),
        "gzip" | "x-gzip" => Ok(Compression::Gzip),
        "zstd" => Ok(Compression::Zstd),
        _ => Err(unsupported("content-encoding", &name, "identity, gzip and zstd")),
    }
}

fn unsupported(name: &str, found: &str, known: &str) -> Failure {
    let detail = format!("{name} {found:?} is not known here; there are {known}");
    Failure::of(
        Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE.as_u16(), "unsupported", "The body cannot be read", detail)
            .with_field(name),
    )
}

fn line(headers: &HeaderMap, name: &str) -> Result<Option<u64>, Failure> {
    let Some(text) = text(headers, name)? else { return Ok(None) };
    let line = text.parse().map_err(|_| bad(name, format!("header {name} is not the number of a line")))?;
    Ok(Some(line))
}

/// Whether a request may bring events of reserved entities. Who says so and does not know the token is told: that its
/// events are refused one by one would not say why.
fn internal(headers: &HeaderMap, token: Option<&str>) -> Result<bool, Failure> {
    let Some(given) = headers.get(CANARY_HEADER) else { return Ok(false) };
    if token.is_some_and(|token| is_same(token.as_bytes(), given.as_bytes())) {
        return Ok(true);
    }
    let detail = format!(
        "the value of header {CANARY_HEADER} is not this server's; canary.token has to be the same here and where the canary runs"
    );
    Err(Failure::of(Problem::new(403, "forbidden", "The canary is not known here", detail).with_field(CANARY_HEADER)))
}

/// Compares in a time that does not tell how much of a guess is right.
fn is_same(token: &[u8], given: &[u8]) -> bool {
    let differences = token.iter().zip(given).fold(0, |differences, (a, b)| differences | (a ^ b));
    token.len() == given.len() && std::hint::black_box(differences) == 0
}

fn text(headers: &HeaderMap, name: &str) -> Result<Option<String>, Failure> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    // Not `to_str`, which takes ASCII only: a source may be a file with any name.
    let text = std::str::from_utf8(value.as_bytes()).map_err(|_| bad(name, format!("header {name} is not UTF-8")))?;
    Ok(Some(text.to_owned()))
}
