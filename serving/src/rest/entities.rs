//! What is known of entities: written, read, looked for, imported.
//!
//! Entities whose ids are `import` and `query` are at `/v1/entities/%69mport` and `/v1/entities/%71uery`: the paths as they are
//! written there are those of the import and of questions about many entities.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use reckon_data::problem::Problem;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::fail::{Failure, PROBLEM_JSON, bad, busy, internal, missing};
use super::object::Object;
use super::openapi::{Refusals, TooLarge};
use super::params::Params;
use super::state::Shared;
use crate::entities::{Condition, Entities, Entity, EntityError, EntityInput, ListQuery, Record, Version};
use crate::query::{CountQuery, TopQuery};
use crate::times::as_time;

/// Most entities and channels of a page.
const LIST_MAX: usize = 1_000;
/// Refused lines that are told of one by one.
const REFUSED_MAX: usize = 100;
/// Top entities of the last hour among which a search looks for ids without a record.
const TOP_SEARCHED: usize = 1_000;
/// Longest body of a record: JSON may write a text several times as long as it is.
const RECORD_BYTES_MAX: usize = 512 << 10;
/// How long an import waits for others to end.
const TURN_TIME_MAX: Duration = Duration::from_secs(10);
const HOUR_MICROS: i64 = 3_600_000_000;

type App = State<Arc<Shared>>;

pub fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get_one, put_one, delete_one))
        .routes(routes!(import))
        .routes(routes!(channels))
}

impl From<EntityError> for Failure {
    fn from(error: EntityError) -> Self {
        let detail = error.to_string();
        match error {
            EntityError::Invalid { field, .. } => bad(field, detail),
            EntityError::NotFound { .. } => missing(detail),
            EntityError::Changed { .. } => {
                Self::of(Problem::new(412, "changed", "The record is not what the request takes it for", detail))
            }
            EntityError::Unavailable { .. } => busy(detail),
            EntityError::Damaged { .. } => {
                Self::of(Problem::new(503, "damaged-file", "A data file is damaged", detail))
            }
        }
    }
}

/// What is known of an entity.
#[derive(Debug, Serialize, ToSchema)]
struct EntityAnswer {
    /// Its id.
    entity_id: String,
    /// What people call it.
    title: Option<String>,
    /// What it belongs to.
    channel: Option<String>,
    /// Whose it is.
    owner: Option<String>,
    /// Where it can be seen.
    url: Option<String>,
    /// Anything else, by name.
    attributes: BTreeMap<String, String>,
    /// When it was last written.
    #[serde(serialize_with = "as_time")]
    #[schema(value_type = String, format = DateTime)]
    updated_at: i64,
    /// The ETag, for If-Match.
    etag: String,
}

impl From<Record> for EntityAnswer {
    fn from(Record { entity, version }: Record) -> Self {
        let Entity { entity_id, title, channel, owner, url, attributes, updated_at } = entity;
        Self { entity_id, title, channel, owner, url, attributes, updated_at, etag: format!("\"{version}\"") }
    }
}

/// Some entities.
#[derive(Debug, Serialize, ToSchema)]
struct EntitiesAnswer {
    /// They, by id; with a search those first whose ids begin so.
    entities: Vec<EntityAnswer>,
    /// The parameter `after` of the next page; none when there is none. A page may be short, even empty, and have one behind it.
    next: Option<String>,
    /// Ids without a record that have counts, of a search: the very id, and ids that begin so among the 1,000 top
    /// entities of the last hour.
    counted: Vec<String>,
}

/// Some channels.
#[derive(Debug, Serialize, ToSchema)]
struct ChannelsAnswer {
    /// Their names, in order.
    channels: Vec<String>,
    /// The parameter `after` of the next page; none when there is none.
    next: Option<String>,
}

/// A record was removed.
#[derive(Debug, Serialize, ToSchema)]
struct DeletedAnswer {
    /// Whose.
    entity_id: String,
    /// True.
    deleted: bool,
}

/// What became of an import.
#[derive(Debug, Default, Serialize, ToSchema)]
struct ImportAnswer {
    /// Lines that are not blank.
    lines: usize,
    /// Of them, stored; of several of one entity the last counts.
    stored: usize,
    /// Of them, refused.
    refused: usize,
    /// The first 100 refused lines.
    refusals: Vec<RefusedLine>,
}

/// A line that was refused.
#[derive(Debug, Serialize, ToSchema)]
struct RefusedLine {
    /// Its number, from 1; of an array the element's.
    line: usize,
    /// What is wrong with it.
    message: String,
}

/// A record of an import.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ImportLine {
    /// The entity.
    entity_id: String,
    /// What people call it, at most 1,024 bytes.
    #[serde(default)]
    title: Option<String>,
    /// What it belongs to, at most 256 bytes.
    #[serde(default)]
    channel: Option<String>,
    /// Whose it is, at most 256 bytes.
    #[serde(default)]
    owner: Option<String>,
    /// Where it can be seen: http or https, at most 2,048 bytes.
    #[serde(default)]
    url: Option<String>,
    /// Anything else: at most 32 names of 64 bytes with texts of 1,024.
    #[serde(default)]
    attributes: BTreeMap<String, String>,
}

fn known(shared: &Shared) -> Result<&Arc<Entities>, Failure> {
    shared.serving()?.entities().ok_or_else(|| internal("this process knows no entities"))
}

fn answered(status: StatusCode, record: Record) -> Response {
    let answer = EntityAnswer::from(record);
    (status, [(header::ETAG, answer.etag.clone())], Json(answer)).into_response()
}

/// What is known of an entity.
///
/// Its `ETag` is what a change may ask for with `If-Match`.
#[utoipa::path(
    get, path = "/v1/entities/{entity_id}", operation_id = "get_entity", tag = "entities",
    params(("entity_id" = String, Path, description = "The entity.", min_length = 1, example = json!("v1"))),
    responses((status = 200, description = "Its record.", body = EntityAnswer), Refusals)
)]
async fn get_one(State(shared): App, Path(entity): Path<String>) -> Result<Response, Failure> {
    Ok(answered(StatusCode::OK, known(&shared)?.get(&entity).await?))
}

/// Say what is known of an entity.
///
/// What is left out is not known any more.
#[utoipa::path(
    put, path = "/v1/entities/{entity_id}", operation_id = "put_entity", tag = "entities",
    params(
        ("entity_id" = String, Path, description = "The entity.", min_length = 1, example = json!("v1")),
        ("If-Match" = Option<String>, Header, description = "ETags, of which the record must have one; or *, and it must exist."),
        ("If-None-Match" = Option<String>, Header, description = "*: it must not exist."),
    ),
    request_body = EntityInput,
    responses(
        (status = 200, description = "Its record, durable.", body = EntityAnswer),
        (status = 412, description = "The record has been changed since.", body = Problem, content_type = PROBLEM_JSON),
        Refusals
    )
)]
async fn put_one(
    State(shared): App,
    Path(entity): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let body = shared.room.collect(&headers, body, RECORD_BYTES_MAX).await?;
    let Object(input) = serde_json::from_slice::<Object<EntityInput>>(&body)
        .map_err(|error| bad("body", format!("the body is no record of an entity: {error}")))?;
    let record = known(&shared)?.put(entity, input, condition(&headers)?).await?;
    Ok(answered(StatusCode::OK, record))
}

/// Remove what is known of an entity.
///
/// Its counts stay.
#[utoipa::path(
    delete, path = "/v1/entities/{entity_id}", operation_id = "delete_entity", tag = "entities",
    params(
        ("entity_id" = String, Path, description = "The entity.", min_length = 1, example = json!("v1")),
        ("If-Match" = Option<String>, Header, description = "ETags, of which the record must have one."),
    ),
    responses(
        (status = 200, description = "It was removed, durably.", body = DeletedAnswer),
        (status = 412, description = "The record has been changed since.", body = Problem, content_type = PROBLEM_JSON),
        Refusals
    )
)]
async fn delete_one(State(shared): App, Path(entity): Path<String>, headers: HeaderMap) -> Result<Response, Failure> {
    known(&shared)?.delete(entity.clone(), condition(&headers)?).await?;
    Ok(Json(DeletedAnswer { entity_id: entity, deleted: true }).into_response())
}

/// Say what is known of many entities.
///
/// The body is an object a line, or an array of objects. Good lines are stored, whatever the others are; lines that are
/// refused are told by their numbers.
#[utoipa::path(
    post, path = "/v1/entities/import", operation_id = "import_entities", tag = "entities",
    request_body(
        description = "The records; at most as long as gateway.body says.",
        content((Vec<ImportLine> = "application/json"), (String = "application/x-ndjson")),
    ),
    responses((status = 200, description = "What became of the lines.", body = ImportAnswer), Refusals)
)]
async fn import(State(shared): App, headers: HeaderMap, body: Body) -> Result<Response, Failure> {
    let entities = Arc::clone(known(&shared)?);
    if headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        let detail = "an import is not taken compressed: send it as it is";
        let problem = Problem::new(415, "unsupported", "The body cannot be read", detail);
        return Err(Failure::of(problem.with_field("content-encoding")));
    }
    let turn = tokio::time::timeout(TURN_TIME_MAX, Arc::clone(&shared.entity_imports).acquire_owned()).await;
    let Ok(Ok(turn)) = turn else { return Err(busy("too many imports are under way")) };
    let body = shared.room.collect(&headers, body, shared.parts.body_bytes_max).await?;
    let reader = Arc::clone(&entities);
    let read = reckon_data::offload::offload(move || read_lines(&reader, &body)).await;
    let (found, answer) = read.map_err(|error| internal(error.to_string()))??;
    // Whoever goes away leaves what waits to be written: it has its turn until it is.
    let write = async move {
        let _turn = turn;
        entities.put_all(found).await
    };
    tokio::spawn(write).await.map_err(|error| internal(error.to_string()))??;
    Ok(Json(answer).into_response())
}

/// Entities that something is known of.
///
/// By id, a page at a time: `next` is the `after` of the next page, and null on the last one.
#[utoipa::path(
    get, path = "/v1/entities", operation_id = "list_entities", tag = "entities",
    params(
        ("search" = Option<String>, Query, description = "Ids that begin so, then titles that have it in them, whatever the case.", min_length = 1),
        ("channel" = Option<String>, Query, description = "Of a channel.", min_length = 1),
        ("owner" = Option<String>, Query, description = "Of an owner.", min_length = 1),
        ("limit" = Option<usize>, Query, description = "At most so many, 1 to 1000; 100 without it.", minimum = 1, maximum = 1000),
        ("after" = Option<String>, Query, description = "What an earlier page said is next.", min_length = 1),
    ),
    responses((status = 200, description = "A page of them.", body = EntitiesAnswer), Refusals, TooLarge)
)]
async fn list(State(shared): App, RawQuery(query): RawQuery) -> Result<Response, Failure> {
    let params = Params::read(query.as_deref(), &["search", "channel", "owner", "limit", "after"])?;
    let query = ListQuery {
        search: params.text("search"),
        channel: params.text("channel"),
        owner: params.text("owner"),
        limit: params.number("limit", 100, LIST_MAX)?,
        after: params.text("after"),
    };
    let entities = known(&shared)?;
    let asked = query.clone();
    let page = entities.ask(move |view| view.list(&asked)).await?;
    let counted = match &query.search {
        Some(search) if query.channel.is_none() && query.owner.is_none() && query.after.is_none() => {
            counted(&shared, search).await?
        }
        _ => Vec::new(),
    };
    let entities = page.records.into_iter().map(EntityAnswer::from).collect();
    Ok(Json(EntitiesAnswer { entities, next: page.next, counted }).into_response())
}

/// Channels that entities are in.
///
/// By name, a page at a time: `next` is the `after` of the next page, and null on the last one.
#[utoipa::path(
    get, path = "/v1/channels", operation_id = "list_channels", tag = "entities",
    params(
        ("search" = Option<String>, Query, description = "Names that begin so.", min_length = 1),
        ("limit" = Option<usize>, Query, description = "At most so many, 1 to 1000; 100 without it.", minimum = 1, maximum = 1000),
        ("after" = Option<String>, Query, description = "The last name of an earlier page.", min_length = 1),
    ),
    responses((status = 200, description = "A page of them.", body = ChannelsAnswer), Refusals)
)]
async fn channels(State(shared): App, RawQuery(query): RawQuery) -> Result<Response, Failure> {
    let params = Params::read(query.as_deref(), &["search", "limit", "after"])?;
    let (prefix, after) = (params.text("search").unwrap_or_default(), params.text("after"));
    let limit = params.number("limit", 100, LIST_MAX)?;
    let channels = known(&shared)?.ask(move |view| view.channels(&prefix, after.as_deref(), limit)).await?;
    let next = (channels.len() == limit).then(|| channels.last().cloned()).flatten();
    Ok(Json(ChannelsAnswer { channels, next }).into_response())
}

/// Ids without a record that have counts.
async fn counted(shared: &Shared, search: &str) -> Result<Vec<String>, Failure> {
    let serving = shared.serving()?;
    let now = shared.parts.clock.now();
    let all = CountQuery { entity: search.to_owned(), event_type: None, from: i64::MIN, to: i64::MAX, filter: None };
    let mut found = Vec::new();
    if serving.count(&all).await?.count > 0 {
        found.push(search.to_owned());
    }
    let (from, n) = (now.saturating_sub(HOUR_MICROS), TOP_SEARCHED);
    let top = TopQuery { event_type: None, n, from, to: i64::MAX, filter: None };
    let recent = serving.top(&top).await?.entities.into_iter().map(|entity| entity.entity_id);
    found.extend(recent.filter(|id| id.starts_with(search) && id != search));
    let known = known(shared)?;
    let unknown = known.ask(move |view| {
        let mut unknown = Vec::new();
        for id in found {
            if view.get(&id)?.is_none() {
                unknown.push(id);
            }
        }
        Ok(unknown)
    });
    Ok(unknown.await?)
}

/// What `If-Match` and `If-None-Match` ask for.
fn condition(headers: &HeaderMap) -> Result<Condition, Failure> {
    let (wanted, unwanted) = (values(headers, &header::IF_MATCH)?, values(headers, &header::IF_NONE_MATCH)?);
    match (wanted.as_deref(), unwanted.as_deref()) {
        (None, None) => Ok(Condition::Any),
        (Some("*"), None) => Ok(Condition::Exists),
        (None, Some("*")) => Ok(Condition::Absent),
        (None, Some(_)) => Err(bad("if-none-match", "If-None-Match is * here, or left out")),
        (Some(tags), None) => {
            let version = |tag: &str| tag.trim().trim_matches('"').parse::<Version>();
            let versions = tags.split(',').map(version).collect::<Result<Vec<_>, _>>();
            versions.map(Condition::One).map_err(|error| bad("if-match", error))
        }
        _ => Err(bad("if-match", "If-Match and If-None-Match do not go together")),
    }
}

/// The values of a header, as one list; none when it is not there. One that is there and empty may be a variable of a script that was
/// not set: taken as absent it would overwrite whatever there is.
fn values(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, Failure> {
    let values = headers.get_all(name).iter();
    let texts = values.map(|value| value.to_str().map_err(|error| bad(name.as_str(), error.to_string())));
    let texts = texts.collect::<Result<Vec<_>, _>>()?;
    Ok((!texts.is_empty()).then(|| texts.join(",").trim().to_owned()))
}

/// Reads the lines of an import, or the elements of an array.
fn read_lines(entities: &Entities, body: &[u8]) -> Result<(Vec<Entity>, ImportAnswer), Failure> {
    let (mut found, mut answer) = (Vec::new(), ImportAnswer::default());
    let mut take = |line: usize, read: Result<Object<ImportLine>, serde_json::Error>| {
        answer.lines += 1;
        let entity = read.map_err(|error| error.to_string()).and_then(|Object(line)| {
            let ImportLine { entity_id, title, channel, owner, url, attributes } = line;
            let input = EntityInput { title, channel, owner, url, attributes };
            entities.entity(entity_id, input).map_err(|error| error.to_string())
        });
        match entity {
            Ok(entity) => found.push(entity),
            Err(message) => {
                answer.refused += 1;
                if answer.refusals.len() < REFUSED_MAX {
                    answer.refusals.push(RefusedLine { line, message });
                }
            }
        }
    };
    if body.trim_ascii_start().starts_with(b"[") {
        let elements: Vec<&serde_json::value::RawValue> = serde_json::from_slice(body)
            .map_err(|error| bad("body", format!("the body begins like an array and is none: {error}")))?;
        (1..).zip(elements).for_each(|(line, element)| take(line, serde_json::from_str(element.get())));
    } else {
        let lines = (1..).zip(body.split(|byte| *byte == b'\n')).filter(|(_, line)| !line.trim_ascii().is_empty());
        lines.for_each(|(line, text)| take(line, serde_json::from_slice(text)));
    }
    answer.stored = found.len();
    Ok((found, answer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entities::testing::Place;

    #[test]
    fn conditions_of_requests() {
        let of = |pairs: &[(HeaderName, &'static str)]| {
            let pairs = pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap()));
            condition(&pairs.collect::<HeaderMap>())
        };
        assert_eq!(of(&[]).unwrap(), Condition::Any);
        assert_eq!(of(&[(header::IF_MATCH, "*")]).unwrap(), Condition::Exists);
        assert_eq!(of(&[(header::IF_NONE_MATCH, "*")]).unwrap(), Condition::Absent);
        let two = Condition::One(vec![Version(1, 2), Version(3, 0)]);
        assert_eq!(of(&[(header::IF_MATCH, "\"1-2\", \"3-0\"")]).unwrap(), two);
        for wrong in [
            &[(header::IF_MATCH, "W/\"1\"")][..],
            &[(header::IF_NONE_MATCH, "\"1-2\"")],
            &[(header::IF_MATCH, "")],
            &[(header::IF_NONE_MATCH, " ")],
            &[(header::IF_MATCH, "*"), (header::IF_NONE_MATCH, "*")],
        ] {
            assert_eq!(of(wrong).unwrap_err().0.status, 400, "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn lines_are_taken_or_told() {
        let place = Place::new();
        let entities = place.start().await;
        let body = b"{\"entity_id\":\"a\",\"title\":\"A\"}\n\nnothing\n{\"entity_id\":\"b\",\"colour\":1}\n{\"entity_id\":\"\"}\n{\"entity_id\":\"c\"}";
        let (found, answer) = read_lines(&entities, body).unwrap();
        let ids: Vec<&str> = found.iter().map(|entity| entity.entity_id.as_str()).collect();
        assert_eq!((ids, answer.lines, answer.stored, answer.refused), (vec!["a", "c"], 5, 2, 3));
        let told: Vec<usize> = answer.refusals.iter().map(|refused| refused.line).collect();
        assert_eq!(told, [3, 4, 5]);
        assert!(answer.refusals[1].message.contains("colour"), "{answer:?}");
        let (found, answer) = read_lines(&entities, br#" [{"entity_id":"a"}, 7, ["b"]]"#).unwrap();
        assert_eq!((found.len(), answer.refused, answer.refusals[0].line), (1, 2, 2), "{answer:?}");
        assert_eq!(read_lines(&entities, b"[{").err().unwrap().0.status, 400);
    }
}
