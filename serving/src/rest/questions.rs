//! Counts, statistics, top lists, how a count came about, and where an event is.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use reckon_data::metric::Function;
use reckon_data::minute::parse_date;
use serde::Serialize;

use super::fail::{Failure, bad, missing};
use super::named as named_lists;
use super::params::Params;
use super::state::{Routes, Shared};
use crate::query::{CountQuery, StatsQuery, Step, TopQuery, WhyQuery};
use crate::view::Missing;

/// Most entities of a top list.
const TOP_MAX: usize = TopQuery::N_MAX;

type App = State<Arc<Shared>>;

pub fn routes() -> Routes {
    Router::new()
        .route("/v1/events/{event_id}", get(locate))
        .route("/v1/entities/{entity_id}/count", get(count))
        .route("/v1/entities/{entity_id}/stats", get(stats))
        .route("/v1/entities/{entity_id}/why", get(why))
        .route("/v1/top", get(top))
        .route("/v1/ads/popular_ads", get(popular_ads))
        .route("/v1/ads/{ad_id}/aggregated_count", get(clicks))
        .route("/v1/videos/{video_id}/views", get(views))
}

async fn count(State(shared): App, Path(entity): Path<String>, RawQuery(query): RawQuery) -> Result<Response, Failure> {
    let params = Params::read(query.as_deref(), &["type", "from", "to", "window", "filter", "as_of"])?;
    let event_type = params.text("type");
    answer_count(&shared, entity, event_type, &params).await
}

async fn clicks(State(shared): App, Path(ad): Path<String>, RawQuery(query): RawQuery) -> Result<Response, Failure> {
    let params = Params::read(query.as_deref(), &["type", "from", "to", "window", "filter"])?;
    let event_type = params.text("type").unwrap_or_else(|| "click".to_owned());
    answer_count(&shared, ad, Some(event_type), &params).await
}

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

/// An answer that says what it is about.
#[derive(Serialize)]
struct Named<'a, T> {
    entity_id: &'a str,
    event_type: Option<&'a str>,
    #[serde(flatten)]
    answer: &'a T,
}

fn named(entity_id: &str, event_type: Option<&str>, answer: &impl Serialize) -> Response {
    Json(Named { entity_id, event_type, answer }).into_response()
}

async fn stats(State(shared): App, Path(entity): Path<String>, RawQuery(query): RawQuery) -> Result<Response, Failure> {
    let known = ["type", "function", "from", "to", "window", "step", "filter", "as_of"];
    let params = Params::read(query.as_deref(), &known)?;
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

async fn why(State(shared): App, Path(entity): Path<String>, RawQuery(query): RawQuery) -> Result<Response, Failure> {
    let params = Params::read(query.as_deref(), &["minute", "type"])?;
    let query = WhyQuery { entity, minute: params.minute("minute")?, event_type: params.text("type") };
    Ok(Json(shared.serving()?.why(&query).await?).into_response())
}

async fn top(State(shared): App, RawQuery(query): RawQuery) -> Result<Response, Failure> {
    let params = Params::read(query.as_deref(), &["type", "n", "window", "from", "to", "filter", "as_of", "group"])?;
    let n = params.number("n", 10, TOP_MAX)?;
    answer_top(&shared, params.text("type"), n, &params).await
}

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
