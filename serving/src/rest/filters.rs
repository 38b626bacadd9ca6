//! Named filters: those of the configuration, and those that were added while Reckon was running.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use reckon_data::filter::Filter;
use reckon_data::problem::Problem;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::fail::{Failure, PROBLEM_JSON, bad, internal, missing};
use super::object::Object;
use super::openapi::Refusals;
use super::state::{Routes, Shared};
use crate::Serving;
use crate::query::NamedFilters;
use crate::query::named::{NameError, check_id, parse_condition};

/// Longest body.
const BODY_BYTES_MAX: usize = 16 << 10;

type App = State<Arc<Shared>>;

pub fn routes() -> Routes {
    Routes::new().routes(routes!(list)).routes(routes!(get, put, remove))
}

/// A named filter.
#[derive(Serialize, ToSchema)]
struct FilterAnswer {
    /// Its id, which `filter=` takes.
    id: String,
    /// What it lets through.
    #[schema(example = "country = 'US'")]
    condition: String,
    /// Who named it.
    named_by: NamedBy,
    /// What questions with it are answered from; where counts lack one of its columns, because they were made by another
    /// definition, from raw events too.
    answered_from: AnsweredFrom,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum NamedBy {
    /// The configuration: it cannot be changed here.
    Configuration,
    /// A request.
    Request,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum AnsweredFrom {
    /// All its columns are dimensions.
    Counts,
    /// Some column is no dimension.
    Events,
}

/// All named filters.
#[derive(Serialize, ToSchema)]
struct FilterList {
    /// By id.
    filters: Vec<FilterAnswer>,
}

/// What a filter lets through.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct FilterCondition {
    /// `column = 'value'`, `column in ('a', 'b')` or `column is null`, any number of them with `and` between; columns are
    /// country, user_id and ip.
    #[schema(example = "country in ('US', 'CA') and ip is null")]
    condition: String,
}

fn answer(serving: &Serving, id: &str, filter: &Filter, named_by: NamedBy) -> FilterAnswer {
    let answered_from =
        if serving.conditions(Some(filter)).is_some() { AnsweredFrom::Counts } else { AnsweredFrom::Events };
    FilterAnswer { id: id.to_owned(), condition: filter.to_string(), named_by, answered_from }
}

fn named(serving: &Serving) -> Result<&Arc<NamedFilters>, Failure> {
    serving.named().ok_or_else(|| internal("this process has no place for filters"))
}

/// All named filters.
///
/// Those of the configuration, and those that requests have named.
#[utoipa::path(
    get,
    path = "/v1/filters",
    operation_id = "list_filters",
    tag = "counts",
    responses(Refusals, (status = 200, description = "The filters, by id.", body = FilterList)),
)]
async fn list(State(shared): App) -> Result<Json<FilterList>, Failure> {
    let serving = shared.serving()?;
    let configured = &serving.definition().filters;
    let mut filters: Vec<FilterAnswer> =
        configured.iter().map(|(id, filter)| answer(serving, id, filter, NamedBy::Configuration)).collect();
    let added = serving.named().map(|named| named.list()).unwrap_or_default();
    let added = added.iter().filter(|own| !configured.contains_key(&own.id));
    filters.extend(added.map(|own| answer(serving, &own.id, &own.filter, NamedBy::Request)));
    filters.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(Json(FilterList { filters }))
}

/// What a name means.
///
/// Who gave it, and what questions with it are answered from.
#[utoipa::path(
    get,
    path = "/v1/filters/{filter_id}",
    operation_id = "get_filter",
    tag = "counts",
    params(("filter_id" = String, Path, description = "The filter's id.", min_length = 1, example = json!("us"))),
    responses(Refusals, (status = 200, description = "The filter.", body = FilterAnswer)),
)]
async fn get(State(shared): App, Path(id): Path<String>) -> Result<Json<FilterAnswer>, Failure> {
    let serving = shared.serving()?;
    if let Some(filter) = serving.definition().filters.get(&id) {
        return Ok(Json(answer(serving, &id, filter, NamedBy::Configuration)));
    }
    let filter = serving.named().and_then(|named| named.get(&id));
    let filter = filter.ok_or_else(|| missing(format!("filter {id} was not found")))?;
    Ok(Json(answer(serving, &id, &filter, NamedBy::Request)))
}

/// Give a filter a name.
///
/// A filter is only a name for a condition: questions with it are about all events, those from before it too. A name means the
/// same for ever, so that no two answers under it are about different things: with another condition it is refused, also after
/// it was removed. Other serving nodes know the name within ten seconds.
#[utoipa::path(
    put,
    path = "/v1/filters/{filter_id}",
    operation_id = "put_filter",
    tag = "counts",
    params(("filter_id" = String, Path, description = "1 to 64 letters, digits, dots, dashes, underscores.", min_length = 1, example = json!("us"))),
    request_body(content = FilterCondition, description = "What the filter lets through."),
    responses(
        Refusals,
        (status = 200, description = "It had that name already.", body = FilterAnswer),
        (status = 201, description = "The filter.", body = FilterAnswer),
        (status = 409, description = "The name means something else.", body = Problem, content_type = PROBLEM_JSON),
    ),
)]
async fn put(State(shared): App, Path(id): Path<String>, headers: HeaderMap, body: Body) -> Result<Response, Failure> {
    let body = shared.room.collect(&headers, body, BODY_BYTES_MAX).await?;
    let example = "{\"condition\": \"country = 'US'\"}";
    let Object(given) = serde_json::from_slice::<Object<FilterCondition>>(&body)
        .map_err(|error| bad("condition", format!("the body must be like {example}; it cannot be read: {error}")))?;
    check_id(&id)?;
    let filter = parse_condition(&given.condition)?;
    let serving = shared.serving()?;
    if let Some(own) = serving.definition().filters.get(&id) {
        if *own == filter {
            return Ok(Json(answer(serving, &id, own, NamedBy::Configuration)).into_response());
        }
        return Err(conflict(format!("{id} is the name of {:?} in the configuration", own.to_string())));
    }
    let is_new = named(serving)?.put(&id, &filter).await.map_err(refused)?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(answer(serving, &id, &filter, NamedBy::Request))).into_response())
}

/// Take a name away.
///
/// Questions cannot name it any more. It stays reserved for what it meant.
#[utoipa::path(
    delete,
    path = "/v1/filters/{filter_id}",
    operation_id = "delete_filter",
    tag = "counts",
    params(("filter_id" = String, Path, description = "The filter's id.", min_length = 1, example = json!("us"))),
    responses(
        Refusals,
        (status = 204, description = "The name is gone."),
        (status = 409, description = "The configuration named it.", body = Problem, content_type = PROBLEM_JSON),
    ),
)]
async fn remove(State(shared): App, Path(id): Path<String>) -> Result<StatusCode, Failure> {
    let serving = shared.serving()?;
    if serving.definition().filters.contains_key(&id) {
        return Err(conflict(format!("{id} is named by the configuration: take it out there")));
    }
    if named(serving)?.remove(&id).await.map_err(refused)? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(missing(format!("filter {id} was not found")))
    }
}

fn conflict(detail: String) -> Failure {
    Failure::of(Problem::new(409, "taken", "The name means something else", detail).with_field("filter_id"))
}

fn refused(error: NameError) -> Failure {
    match error {
        NameError::Serving(error) => error.into(),
        taken @ NameError::Taken { .. } => conflict(taken.to_string()),
    }
}
