//! What is known of entities, joined into top lists; and lists by channel.

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;

use super::fail::{Failure, bad, internal};
use super::params::Params;
use super::state::Shared;
use crate::Serving;
use crate::entities::Record;
use crate::query::TopQuery;

/// The answer of a top list grouped by channel.
pub async fn by_channel(shared: &Shared, query: &TopQuery, params: &Params) -> Result<Response, Failure> {
    if params.text("as_of").is_some() {
        return Err(bad("as_of", "as_of does not go with group=channel: channels are not kept as they were"));
    }
    Ok(Json(shared.serving()?.top_channels(query).await?).into_response())
}

/// Whether a list is to be grouped by channel.
pub fn is_by_channel(params: &Params) -> Result<bool, Failure> {
    match params.text("group").as_deref() {
        None => Ok(false),
        Some("channel") => Ok(true),
        Some(other) => Err(bad("group", format!("group={other}: lists can be grouped by channel"))),
    }
}

/// A top list with the titles, channels and owners that are known. Without them it is as right, so that nothing of them holds it up.
pub async fn named(serving: &Serving, answer: &impl Serialize) -> Result<Value, Failure> {
    let mut answer = serde_json::to_value(answer).map_err(|error| internal(error.to_string()))?;
    let Some(entities) = serving.entities() else { return Ok(answer) };
    let rows = answer.get("entities").and_then(Value::as_array).into_iter().flatten();
    let ids: Vec<String> = rows.filter_map(|row| row["entity_id"].as_str().map(str::to_owned)).collect();
    let found = entities.ask(move |view| ids.iter().map(|id| view.get(id)).collect::<Result<Vec<_>, _>>()).await;
    let records = match found {
        Ok(records) => records,
        Err(error) => {
            tracing::debug!(%error, "a top list without titles");
            return Ok(answer);
        }
    };
    let rows = answer.get_mut("entities").and_then(Value::as_array_mut).into_iter().flatten();
    for (row, record) in rows.zip(records) {
        let (Some(row), Some(Record { entity, .. })) = (row.as_object_mut(), record) else { continue };
        for (name, text) in [("title", entity.title), ("channel", entity.channel), ("owner", entity.owner)] {
            if let Some(text) = text {
                row.insert(name.to_owned(), Value::String(text));
            }
        }
    }
    Ok(answer)
}
