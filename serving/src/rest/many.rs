//! Several functions, many entities, and the period before.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use reckon_data::metric::{Answer, Function};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::fail::{Failure, bad, internal};
use super::named as named_lists;
use super::object::Object;
use super::openapi::{Refusals, TooLarge};
use super::params::Params;
use super::questions::named;
use super::state::{Routes, Shared};
use crate::query::{
    Change, CountAnswer, ManyAnswer, ManyEntity, ManyQuery, RankedQuery, StatsAnswer, StatsPoint, Step, TopQuery,
    Window,
};

/// Longest body: room for [`ManyQuery::ENTITIES_MAX`] of the longest ids.
const BODY_BYTES_MAX: usize = 2 << 20;

pub fn routes() -> Routes {
    Routes::new().routes(routes!(query))
}

/// What the period before was, of one function.
#[derive(Serialize, ToSchema)]
pub struct Comparison {
    /// What the function made of the period before; there with `compare=previous`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Answer, required = false)]
    pub previous: Option<Answer>,
    /// How that has changed since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
    /// The period before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_window: Option<Window>,
}

/// An answer, and how it compares.
#[derive(Serialize)]
struct Compared<T> {
    #[serde(flatten)]
    answer: T,
    #[serde(flatten)]
    comparison: Comparison,
}

/// Several functions of one entity.
#[derive(Serialize, ToSchema)]
#[allow(dead_code, reason = "it describes what `named` makes")]
pub struct ManyOfOne {
    /// What is counted.
    entity_id: String,
    /// One event type; null is all.
    event_type: Option<String>,
    #[serde(flatten)]
    answer: ManyAnswer,
}

/// A time as text, or epoch milliseconds as a number.
#[derive(Deserialize, ToSchema)]
#[schema(as = TimeOrVersion)]
#[serde(untagged)]
enum Moment {
    /// RFC 3339 or epoch milliseconds, as text; of `as_of` also `version:N`.
    Text(String),
    /// Epoch milliseconds.
    Millis(i64),
}

impl Moment {
    fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Millis(millis) => millis.to_string(),
        }
    }
}

/// A question about many entities.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct EntitiesQuestion {
    /// The entities: 1 to 1000, each once.
    #[schema(min_items = 1, max_items = 1000, example = json!(["v1", "v2"]))]
    entities: Vec<String>,
    /// One event type; all when absent.
    #[serde(default, rename = "type")]
    event_type: Option<String>,
    /// count, sum, min, max, avg, approx_distinct; count when absent.
    #[serde(default)]
    #[schema(value_type = Option<Vec<Function>>)]
    functions: Option<Vec<String>>,
    /// Inclusive.
    #[serde(default)]
    from: Option<Moment>,
    /// Exclusive; not before `from`.
    #[serde(default)]
    to: Option<Moment>,
    /// Instead of from and to: the last 5m, 1h, 7d.
    #[serde(default)]
    window: Option<String>,
    /// How long a step is: minute, hour, day, 5m, 2h, 7d; without it all is added up in one.
    #[serde(default)]
    step: Option<String>,
    /// A filter's id, or column:value.
    #[serde(default)]
    filter: Option<String>,
    /// `previous`: with the period before.
    #[serde(default)]
    compare: Option<String>,
    /// An older version of batch: its time, or version:N.
    #[serde(default)]
    as_of: Option<Moment>,
}

/// Functions of many entities at once.
///
/// All of it is answered from one view, with one provenance: what the answer says of one entity and of another is as of the
/// same moment.
#[utoipa::path(
    post,
    path = "/v1/entities/query",
    operation_id = "query_entities",
    tag = "counts",
    request_body(content = EntitiesQuestion, description = "Which entities, and what of them."),
    responses(
        Refusals,
        (status = 200, description = "The entities, in the order of the question.", body = ManyAnswer),
        TooLarge,
    ),
)]
async fn query(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Body) -> Result<Response, Failure> {
    let body = shared.room.collect(&headers, body, BODY_BYTES_MAX).await?;
    let example = "{\"entities\": [\"v1\"], \"functions\": [\"count\"], \"window\": \"1h\"}";
    let Object(ask) = serde_json::from_slice::<Object<EntitiesQuestion>>(&body)
        .map_err(|error| bad("body", format!("the body must be like {example}; it cannot be read: {error}")))?;
    let params = Params::of([
        ("type", ask.event_type),
        ("from", ask.from.map(Moment::text)),
        ("to", ask.to.map(Moment::text)),
        ("window", ask.window),
        ("step", ask.step),
        ("filter", ask.filter),
        ("compare", ask.compare),
        ("as_of", ask.as_of.map(Moment::text)),
    ])?;
    let functions = match ask.functions {
        Some(names) => parsed(names.iter().map(String::as_str))?,
        None => vec![Function::Count],
    };
    let query = many_query(&shared, ask.entities, functions, params.parse("step")?, &params)?;
    Ok(Json(shared.serving()?.many(&query).await?).into_response())
}

/// Whether the period before is asked for.
///
/// # Errors
/// When something else is.
pub fn compares(params: &Params) -> Result<bool, Failure> {
    match params.text("compare").as_deref() {
        None => Ok(false),
        Some("previous") => Ok(true),
        Some(other) => Err(bad("compare", format!("compare={other} is not known: there is compare=previous"))),
    }
}

fn parsed<'a>(names: impl Iterator<Item = &'a str>) -> Result<Vec<Function>, Failure> {
    let mut functions: Vec<Function> = Vec::new();
    for name in names {
        let function = name.parse::<Function>().map_err(|error| bad("functions", format!("functions: {error}")))?;
        if functions.contains(&function) {
            return Err(bad("functions", format!("functions: {function} is given twice")));
        }
        functions.push(function);
    }
    Ok(functions)
}

fn many_query(
    shared: &Shared,
    entities: Vec<String>,
    functions: Vec<Function>,
    step: Option<Step>,
    params: &Params,
) -> Result<ManyQuery, Failure> {
    let (from, to) = params.span(shared.parts.clock.now())?;
    Ok(ManyQuery {
        entities,
        event_type: params.text("type"),
        functions,
        from,
        to,
        step,
        filter: params.filter(shared.serving()?)?,
        previous: compares(params)?,
        as_of: params.as_of()?,
    })
}

/// A count with the period before.
pub async fn count(
    shared: &Shared,
    entity: String,
    event_type: Option<String>,
    params: &Params,
) -> Result<Response, Failure> {
    let mut query = many_query(shared, vec![entity], vec![Function::Count], None, params)?;
    query.event_type = event_type;
    let (answer, own) = one(shared.serving()?.many(&query).await?)?;
    let provenance = answer.provenance;
    let comparison = comparison(&own, Function::Count, answer.previous_window);
    let (batch, stream) = (provenance.batch.unwrap_or(0), provenance.stream.unwrap_or(0));
    let answer = CountAnswer { count: own.count, batch, stream, window: answer.window, provenance };
    Ok(named(&own.entity_id, query.event_type.as_deref(), &Compared { answer, comparison }))
}

/// One function step by step, with the period before.
pub async fn stats(shared: &Shared, entity: String, params: &Params) -> Result<Response, Failure> {
    let function: Function = params.parse("function")?.unwrap_or(Function::Count);
    let step: Step = params.parse("step")?.unwrap_or(Step::HOUR);
    let query = many_query(shared, vec![entity], vec![function], Some(step), params)?;
    let (answer, own) = one(shared.serving()?.many(&query).await?)?;
    let comparison = comparison(&own, function, answer.previous_window);
    let value = |values: &crate::query::Values<Answer>| values.get(&function).copied().unwrap_or(Answer::Null);
    let points = own.points.as_deref().unwrap_or_default().iter();
    let answer = StatsAnswer {
        function,
        step_minutes: step.minutes(),
        points: points.map(|at| StatsPoint { start: at.start, value: value(&at.values), late: at.late }).collect(),
        total: value(&own.total),
        window: answer.window,
        provenance: answer.provenance,
    };
    Ok(named(&own.entity_id, query.event_type.as_deref(), &Compared { answer, comparison }))
}

/// Several functions step by step.
pub async fn functions(shared: &Shared, entity: String, params: &Params) -> Result<Response, Failure> {
    if params.text("function").is_some() {
        return Err(bad("functions", "functions goes without function: name all of them in it"));
    }
    let names = params.text("functions").unwrap_or_default();
    let functions = parsed(names.split(','))?;
    let step = params.parse("step")?.unwrap_or(Step::HOUR);
    let query = many_query(shared, vec![entity.clone()], functions, Some(step), params)?;
    let answer = shared.serving()?.many(&query).await?;
    Ok(named(&entity, query.event_type.as_deref(), &answer))
}

/// A top list by some function, or with the period before.
pub async fn top(shared: &Shared, n: usize, params: &Params) -> Result<Response, Failure> {
    let serving = shared.serving()?;
    let (from, to) = params.span(shared.parts.clock.now())?;
    let query = RankedQuery {
        top: TopQuery { event_type: params.text("type"), n, from, to, filter: params.filter(serving)? },
        function: params.parse("function")?.unwrap_or(Function::Count),
        previous: compares(params)?,
        as_of: params.as_of()?,
    };
    let answer = serving.ranked(&query).await?;
    Ok(Json(named_lists::named(serving, &answer).await?).into_response())
}

/// The only entity of an answer.
fn one(mut answer: ManyAnswer) -> Result<(ManyAnswer, ManyEntity), Failure> {
    let own = answer.entities.pop().ok_or_else(|| internal("an answer without its entity"))?;
    Ok((answer, own))
}

fn comparison(own: &ManyEntity, function: Function, previous_window: Option<Window>) -> Comparison {
    Comparison {
        previous: own.previous.as_ref().and_then(|values| values.get(&function).copied()),
        change: own.change.as_ref().and_then(|values| values.get(&function).copied()),
        previous_window,
    }
}
