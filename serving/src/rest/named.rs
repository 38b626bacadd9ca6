//! What is known of entities, joined into top lists; and lists by channel.

use axum::Json;
use axum::response::{IntoResponse, Response};
use reckon_data::metric::{Answer, Function};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::fail::{Failure, bad, internal};
use super::params::Params;
use super::state::Shared;
use crate::Serving;
use crate::entities::Record;
use crate::query::{Change, TopChannelsAnswer, TopQuery, Window};
use crate::view::Provenance;

/// What `/v1/top` answers.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "it describes what is written")]
pub enum TopBody {
    /// Entities, with what is known of them.
    Entities(NamedTop),
    /// Channels.
    Channels(TopChannelsAnswer),
}

/// A top list of entities.
#[derive(Serialize, ToSchema)]
pub struct NamedTop {
    /// What the list is ordered by, when that was asked for.
    #[schema(required = false)]
    function: Option<Function>,
    /// The entities.
    entities: Vec<NamedEntity>,
    /// The window in whole minutes.
    window: Window,
    /// The period before, with `compare=previous`.
    #[schema(required = false)]
    previous_window: Option<Window>,
    /// Where it comes from.
    provenance: Provenance,
}

/// An entity of a top list.
#[derive(Serialize, ToSchema)]
struct NamedEntity {
    /// Its id.
    entity_id: String,
    /// What the function makes of it, of a list with `function` or `compare`.
    #[schema(required = false)]
    value: Answer,
    /// How often.
    count: u64,
    /// What the function made of the period before, with `compare=previous`; null when nothing was there that it could be made of.
    #[schema(required = false)]
    previous: Answer,
    /// How it has changed since.
    #[schema(required = false)]
    change: Option<Change>,
    /// What people call it, when that is known.
    #[schema(required = false)]
    title: Option<String>,
    /// What it belongs to.
    #[schema(required = false)]
    channel: Option<String>,
    /// Whose it is.
    #[schema(required = false)]
    owner: Option<String>,
}

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
