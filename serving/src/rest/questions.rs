//! Counts, statistics, top lists, how a count came about, and where an event is.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use reckon_data::metric::Function;
use reckon_data::minute::parse_date;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::asked::{Compared, Entity, EventType, Filtered, Minute, Past, Span, Stepped};
use super::fail::{Failure, bad, missing};
use super::many::{self, Comparison, ManyOfOne};
use super::named as named_lists;
use super::openapi::{Refusals, TooLarge};
use super::params::Params;
use super::state::{Routes, Shared};
use crate::query::{
    CountAnswer, CountQuery, LocateAnswer, StatsAnswer, StatsQuery, Step, TopQuery, WhyAnswer, WhyQuery,
};
use crate::view::Missing;

/// Most entities of a top list.
const TOP_MAX: usize = TopQuery::N_MAX;

type App = State<Arc<Shared>>;

pub fn routes() -> Routes {
    Routes::new()
        .routes(routes!(locate))
        .routes(routes!(count))
        .routes(routes!(stats))
        .routes(routes!(why))
        .routes(routes!(top))
        .routes(routes!(popular_ads))
        .routes(routes!(clicks))
        .routes(routes!(views))
}

/// How often something happened to an entity.
///
/// `count = batch + stream`: what batch has counted, and what the stream has counted since.
#[utoipa::path(
    get,
    path = "/v1/entities/{entity_id}/count",
    operation_id = "count",
    tag = "counts",
    params(Entity, EventType, Span, Filtered, Compared, Past),
    responses(
        Refusals,
        (status = 200, description = "The count, its two parts, and its provenance.", body = Count),
        TooLarge,
    ),
)]
async fn count(State(shared): App, Path(entity): Path<String>, RawQuery(query): RawQuery) -> Result<Response, Failure> {
    let params = Params::read(query.as_deref(), &["type", "from", "to", "window", "filter", "compare", "as_of"])?;
    let event_type = params.text("type");
    answer_count(&shared, entity, event_type, &params).await
}

/// How often an ad was clicked.
///
/// The count of `click`, or of another `type`.
#[utoipa::path(
    get,
    path = "/v1/ads/{ad_id}/aggregated_count",
    operation_id = "count_clicks",
    tag = "counts",
    params(
        ("ad_id" = String, Path, description = "The ad.", min_length = 1, example = json!("ad1")),
        EventType,
        Span,
        Filtered,
    ),
    responses(Refusals, (status = 200, description = "The count.", body = Count), TooLarge),
)]
async fn clicks(State(shared): App, Path(ad): Path<String>, RawQuery(query): RawQuery) -> Result<Response, Failure> {
    let params = Params::read(query.as_deref(), &["type", "from", "to", "window", "filter"])?;
    let event_type = params.text("type").unwrap_or_else(|| "click".to_owned());
    answer_count(&shared, ad, Some(event_type), &params).await
}

/// How often a video was viewed.
///
/// The count of `view`.
#[utoipa::path(
    get,
    path = "/v1/videos/{video_id}/views",
    operation_id = "count_views",
    tag = "counts",
    params(
        ("video_id" = String, Path, description = "The video.", min_length = 1, example = json!("v1")),
        Span,
        Filtered,
    ),
    responses(Refusals, (status = 200, description = "The count.", body = Count), TooLarge),
)]
async fn views(State(shared): App, Path(video): Path<String>, RawQuery(query): RawQuery) -> Result<Response, Failure> {
    let params = Params::read(query.as_deref(), &["from", "to", "window", "filter"])?;
    answer_count(&shared, video, Some("view".to_owned()), &params).await
}

async fn answer_count(
    shared: &Shared,
    entity: String,
    event_type: Option<String>,
    params: &Params,
) -> Result<Response, Failure> {
    if many::compares(params)? {
        return many::count(shared, entity, event_type, params).await;
    }
    let serving = shared.serving()?;
    let (from, to) = params.span(shared.parts.clock.now())?;
    let filter = params.filter(serving)?;
    let query = CountQuery { entity, event_type, from, to, filter };
    let answer = match params.as_of()? {
        None => serving.count(&query).await?,
        Some(as_of) => serving.count_as_of(&query, as_of).await?,
    };
    Ok(named(&query.entity, query.event_type.as_deref(), &answer))
}

/// How often something happened to an entity.
#[derive(Serialize, ToSchema)]
#[allow(dead_code, reason = "it describes what `named` makes")]
struct Count {
    /// What is counted.
    entity_id: String,
    /// One event type; null is all.
    event_type: Option<String>,
    #[serde(flatten)]
    answer: CountAnswer,
    #[serde(flatten)]
    comparison: Comparison,
}

/// A function of an entity's events, step by step.
#[derive(Serialize, ToSchema)]
#[allow(dead_code, reason = "it describes what `named` makes")]
struct Stats {
    /// What is counted.
    entity_id: String,
    /// One event type; null is all.
    event_type: Option<String>,
    #[serde(flatten)]
    answer: StatsAnswer,
    #[serde(flatten)]
    comparison: Comparison,
}

/// What `function`, or `functions`, of an entity is answered.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "it describes what `named` makes")]
enum StatsBody {
    /// One function.
    One(Box<Stats>),
    /// Several.
    Many(Box<ManyOfOne>),
}

/// An answer that says what it is about.
#[derive(Serialize)]
struct Named<'a, T> {
    entity_id: &'a str,
    event_type: Option<&'a str>,
    #[serde(flatten)]
    answer: &'a T,
}

pub(super) fn named(entity_id: &str, event_type: Option<&str>, answer: &impl Serialize) -> Response {
    Json(Named { entity_id, event_type, answer }).into_response()
}

/// A function of an entity's events, step by step.
///
/// Steps are aligned to 1970, UTC; those in which nothing happened are left out.
#[utoipa::path(
    get,
    path = "/v1/entities/{entity_id}/stats",
    operation_id = "stats",
    tag = "counts",
    params(
        Entity,
        EventType,
        (
            "function" = inline(Option<Function>),
            Query,
            description = "count, sum, min, max, avg or approx_distinct; count when absent.",
            example = json!("count"),
        ),
        ("functions" = Option<String>, Query, description = "Instead of function: several at once, count,sum,avg.", pattern = "^[a-z_]+(,[a-z_]+)*$"),
        Span,
        Stepped,
        Filtered,
        Compared,
        Past,
    ),
    responses(Refusals, (status = 200, description = "The steps.", body = StatsBody), TooLarge),
)]
async fn stats(State(shared): App, Path(entity): Path<String>, RawQuery(query): RawQuery) -> Result<Response, Failure> {
    let known = ["type", "function", "functions", "from", "to", "window", "step", "filter", "compare", "as_of"];
    let params = Params::read(query.as_deref(), &known)?;
    if params.text("functions").is_some() {
        return many::functions(&shared, entity, &params).await;
    }
    if many::compares(&params)? {
        return many::stats(&shared, entity, &params).await;
    }
    let serving = shared.serving()?;
    let (from, to) = params.span(shared.parts.clock.now())?;
    let query = StatsQuery {
        event_type: params.text("type"),
        function: params.parse("function")?.unwrap_or(Function::Count),
        from,
        to,
        step: params.parse("step")?.unwrap_or(Step::HOUR),
        filter: params.filter(serving)?,
        entity,
    };
    let answer = match params.as_of()? {
        None => serving.stats(&query).await?,
        Some(as_of) => serving.stats_as_of(&query, as_of).await?,
    };
    Ok(named(&query.entity, query.event_type.as_deref(), &answer))
}

/// How a count came about: rows of batch, segments and tail of the stream, raw events, and whether they agree.
///
/// Of one minute. `check` says whether the raw events are what was counted, and why not where they are not.
#[utoipa::path(
    get,
    path = "/v1/entities/{entity_id}/why",
    operation_id = "why",
    tag = "counts",
    params(Entity, Minute, EventType),
    responses(
        Refusals,
        (status = 200, description = "What the counts of the minute are made of.", body = WhyAnswer),
        TooLarge,
    ),
)]
async fn why(State(shared): App, Path(entity): Path<String>, RawQuery(query): RawQuery) -> Result<Response, Failure> {
    let params = Params::read(query.as_deref(), &["minute", "type"])?;
    let query = WhyQuery { entity, minute: params.minute("minute")?, event_type: params.text("type") };
    Ok(Json(shared.serving()?.why(&query).await?).into_response())
}

/// The entities to which something happened most often; exact.
///
/// Of all entities, not of a sample: count descending, then id ascending. With `function` or `compare` the answer names its
/// `function`, and each entity has the function's `value`, by which they are ordered (the largest first, whatever the function;
/// averages as they are, not as they are rounded); entities without a value are left out. With `compare` each has `previous`
/// and `change`.
#[utoipa::path(
    get,
    path = "/v1/top",
    operation_id = "top",
    tag = "counts",
    params(
        EventType,
        ("n" = Option<usize>, Query, description = "How many, 1 to 10000; 10 when absent.", minimum = 1, maximum = 10000),
        (
            "function" = inline(Option<Function>),
            Query,
            description = "What the list is ordered by: count, sum, min, max, avg or approx_distinct; count when absent.",
            example = json!("count"),
        ),
        Span,
        Filtered,
        Compared,
        Past,
        (
            "group" = Option<String>,
            Query,
            description = "`channel`: the channels of all entities instead of entities.",
            pattern = "^channel$",
        ),
    ),
    responses(Refusals, (status = 200, description = "The entities, or the channels.", body = named_lists::TopBody), TooLarge),
)]
async fn top(State(shared): App, RawQuery(query): RawQuery) -> Result<Response, Failure> {
    let known = ["type", "n", "function", "window", "from", "to", "filter", "compare", "as_of", "group"];
    let params = Params::read(query.as_deref(), &known)?;
    let n = params.number("n", 10, TOP_MAX)?;
    if many::compares(&params)? || params.text("function").is_some() {
        if named_lists::is_by_channel(&params)? {
            return Err(bad(
                "group",
                "group=channel goes with neither function nor compare: channels are listed by count",
            ));
        }
        return many::top(&shared, n, &params).await;
    }
    answer_top(&shared, params.text("type"), n, &params).await
}

/// The ads clicked most often.
///
/// The top list of `click`, or of another `type`.
#[utoipa::path(
    get,
    path = "/v1/ads/popular_ads",
    operation_id = "popular_ads",
    tag = "counts",
    params(
        EventType,
        (
            "count" = Option<usize>,
            Query,
            description = "How many, 1 to 10000; 10 when absent.",
            minimum = 1,
            maximum = 10000,
        ),
        Span,
        Filtered,
    ),
    responses(Refusals, (status = 200, description = "The ads.", body = named_lists::NamedTop), TooLarge),
)]
async fn popular_ads(State(shared): App, RawQuery(query): RawQuery) -> Result<Response, Failure> {
    let params = Params::read(query.as_deref(), &["type", "count", "window", "from", "to", "filter"])?;
    let n = params.number("count", 10, TOP_MAX)?;
    let event_type = params.text("type").unwrap_or_else(|| "click".to_owned());
    answer_top(&shared, Some(event_type), n, &params).await
}

async fn answer_top(
    shared: &Shared,
    event_type: Option<String>,
    n: usize,
    params: &Params,
) -> Result<Response, Failure> {
    let serving = shared.serving()?;
    let (from, to) = params.span(shared.parts.clock.now())?;
    let query = TopQuery { event_type, n, from, to, filter: params.filter(serving)? };
    if named_lists::is_by_channel(params)? {
        return named_lists::by_channel(shared, &query, params).await;
    }
    let answer = match params.as_of()? {
        None => serving.top(&query).await?,
        Some(as_of) => serving.top_as_of(&query, as_of).await?,
    };
    Ok(Json(named_lists::named(serving, &answer).await?).into_response())
}

/// Where is my event: counted, duplicate or dead, and its place.
///
/// It is looked up among the raw events, and then followed from the gateway to batch. An event that was just sent lies in
/// the log alone until it is archived, within a minute.
#[utoipa::path(
    get,
    path = "/v1/events/{event_id}",
    operation_id = "locate",
    tag = "events",
    params(
        ("event_id" = String, Path, description = "The event's id.", min_length = 1, example = json!("e-1")),
        ("entity" = Option<String>, Query, description = "Its entity.", min_length = 1),
        (
            "date" = Option<String>,
            Query,
            description = "UTC date of its time, 2013-02-08.",
            pattern = "^[0-9]{4}-[0-9]{2}-[0-9]{2}$",
        ),
    ),
    responses(Refusals, (status = 200, description = "Its copies.", body = LocateAnswer), TooLarge),
)]
async fn locate(State(shared): App, Path(event): Path<String>, RawQuery(query): RawQuery) -> Result<Response, Failure> {
    let params = Params::read(query.as_deref(), &["entity", "date"])?;
    let date = match params.text("date") {
        Some(text) => {
            Some(parse_date(&text).ok_or_else(|| bad("date", format!("date={text} is not written 2013-02-08")))?)
        }
        None => None,
    };
    let answer = shared.serving()?.locate(&event, params.text("entity").as_deref(), date).await?;
    if answer.copies.is_empty() && answer.dead.is_empty() {
        let archived: Vec<String> =
            answer.archived.iter().map(|at| format!("partition {} up to offset {}", at.partition, at.events)).collect();
        let hint = if answer.may_be_in_log { "; it may lie in the log, which is archived within a minute" } else { "" };
        let lost = |lost: &Missing| format!("; of partition {} {}", lost.partition.unwrap_or_default(), lost.reason);
        let lost: String = answer.missing.iter().map(lost).collect();
        return Err(missing(format!("event {event} was not found in {}{hint}{lost}", archived.join(", "))));
    }
    Ok(Json(answer).into_response())
}
