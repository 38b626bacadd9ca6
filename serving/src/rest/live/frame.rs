//! What a live view holds at one second, and what of it has changed.

use std::collections::BTreeMap;

use reckon_data::minute::format_time;
use serde_json::{Value, json};

use super::super::fail::Failure;
use super::super::named::named;
use super::super::state::Shared;
use super::view::{Ask, View};
use crate::query::{PartsAnswer, PartsPoint, PartsQuery};

/// A second of a view.
#[derive(Debug)]
pub struct Frame {
    /// 1, 2, 3, … of a view.
    pub id: u64,
    /// The event `tick`, in JSON.
    pub tick: String,
    /// Whether all steps are to be told: there was no answer before that `tick` could hold the changes of.
    pub whole: bool,
    /// The steps, of which `tick` holds what has changed since the frame before; none when no entity is followed, or when
    /// there is no answer.
    pub parts: Option<Parts>,
}

/// The steps of an entity.
#[derive(Debug)]
pub struct Parts {
    pub entity: String,
    pub answer: PartsAnswer,
}

impl Parts {
    /// The event `series`, in JSON.
    pub fn series(&self) -> String {
        let mut value = self.about();
        value["points"] = json!(self.answer.points);
        value.to_string()
    }

    /// All but the steps.
    fn about(&self) -> Value {
        let of = &self.answer;
        json!({
            "entity_id": self.entity,
            "step_minutes": of.step_minutes,
            "count": of.count,
            "batch": of.batch,
            "stream": of.stream,
            "window": of.window,
            "provenance": of.provenance,
        })
    }
}

/// Makes the frame after `before`.
pub async fn make(shared: &Shared, view: &View, before: Option<&Frame>) -> Frame {
    let now = shared.parts.clock.now();
    let id = before.map_or(1, |before| before.id + 1);
    let mut tick = shared.live.pulse.tell(shared);
    tick["id"] = json!(id);
    tick["now"] = json!(format_time(now));
    let asked = shared.serving().and_then(|serving| view.ask(serving, now).map(|ask| (serving, ask)));
    let parts = match asked {
        Err(failure) => {
            (tick["series"], tick["top"]) = (trouble(&failure), trouble(&failure));
            None
        }
        Ok((serving, Ask { parts, top })) => {
            let (list, steps) = tokio::join!(Box::pin(serving.top_of_counts(&top)), async {
                match &parts {
                    Some(query) => Some(Box::pin(serving.parts_by_step(query)).await),
                    None => None,
                }
            });
            tick["top"] = match list {
                Err(error) => trouble(&error.into()),
                Ok(list) => named(serving, &list).await.map_or_else(|failure| trouble(&failure), ranked),
            };
            steps_of(parts, steps.map(|steps| steps.map_err(Failure::from)), before, &mut tick)
        }
    };
    let whole = parts.is_some() && before.is_none_or(|before| before.parts.is_none());
    Frame { id, tick: tick.to_string(), whole, parts }
}

/// Writes the steps that have changed into `tick`.
fn steps_of(
    query: Option<PartsQuery>,
    answer: Option<Result<PartsAnswer, Failure>>,
    before: Option<&Frame>,
    tick: &mut Value,
) -> Option<Parts> {
    tick["series"] = Value::Null;
    match answer? {
        Err(failure) => {
            tick["series"] = trouble(&failure);
            None
        }
        Ok(answer) => {
            let parts = Parts { entity: query?.entity, answer };
            let known = before.and_then(|before| before.parts.as_ref()).unwrap_or(&parts);
            let change = Change::between(&known.answer.points, &parts.answer.points);
            tick["series"] = parts.about();
            tick["series"]["changed"] = json!(change.changed);
            tick["series"]["gone"] = change.gone.iter().map(|start| format_time(*start)).collect();
            Some(parts)
        }
    }
}

/// Why there is no answer.
fn trouble(failure: &Failure) -> Value {
    json!({ "error": failure.0.detail })
}

/// A list with its ranks.
fn ranked(mut list: Value) -> Value {
    if let Some(entities) = list["entities"].as_array_mut() {
        for (rank, entity) in (1..).zip(entities) {
            entity["rank"] = json!(rank);
        }
    }
    list
}

/// What makes one list of steps of another.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// New ones, and those with other counts.
    pub changed: Vec<PartsPoint>,
    /// Starts of those that are no longer there: the window has moved on.
    pub gone: Vec<i64>,
}

impl Change {
    /// What makes `after` of `before`.
    pub fn between(before: &[PartsPoint], after: &[PartsPoint]) -> Self {
        let mut old: BTreeMap<i64, &PartsPoint> = before.iter().map(|point| (point.start, point)).collect();
        let changed = after.iter().filter(|point| old.remove(&point.start) != Some(*point)).copied().collect();
        Self { changed, gone: old.into_keys().collect() }
    }
}
