//! Counts by channel, exact over any window: of all entities, and not of those on a list.

use std::cmp::Reverse;

use reckon_data::kept::Needs;
use reckon_data::key::entity_hash;
use reckon_data::offload::offload;
use reckon_data::run::EntitySums;
use serde::Serialize;
use utoipa::ToSchema;

use super::Serving;
use super::gather::{Outcome, StreamRuns, exact};
use super::top::{check_n, top_selection};
use super::types::{TopQuery, Window};
use crate::ServingError;
use crate::entities::View;
use crate::metrics::Question;
use crate::view::Provenance;

/// The counts of the channels: count descending, then channel ascending, entities without a channel last among equals.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct TopChannelsAnswer {
    /// The channels with the largest counts, at most as many as asked for.
    pub channels: Vec<ChannelCount>,
    /// How many there are in all, entities without a channel being one.
    pub groups: usize,
    /// The counts of all of them.
    pub total: u64,
    /// The window in whole minutes.
    pub window: Window,
    /// Where it comes from.
    pub provenance: Provenance,
}

/// A channel of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ChannelCount {
    /// Its name; none for all entities that have none, or no record.
    pub channel: Option<String>,
    /// How often something happened to its entities.
    pub count: u64,
    /// How many of its entities something happened to.
    pub entities: usize,
}

impl Serving {
    /// The channels to whose entities something happened most often, Reckon's own entities left out. Entities are in the channels
    /// that they have now.
    ///
    /// # Errors
    /// [`ServingError::BadRequest`], and when files or the records of entities cannot be read.
    pub async fn top_channels(&self, query: &TopQuery) -> Result<TopChannelsAnswer, ServingError> {
        self.metrics.measure(Question::Top, self.top_channels_unmeasured(query)).await
    }

    async fn top_channels_unmeasured(&self, query: &TopQuery) -> Result<TopChannelsAnswer, ServingError> {
        let window = Window::around(query.from, query.to)?;
        check_n(query)?;
        let Some(conditions) = self.conditions(query.filter.as_ref()) else {
            let message = "a column that is no dimension is answered from raw events, which group=channel is not: ask in SQL, with \
                           events joined to entities";
            return Err(ServingError::bad("filter", message));
        };
        let entities = self.entities().ok_or_else(|| ServingError::unavailable("this process knows no entities"))?;
        let _turn = self.top_turns.acquire().await.map_err(ServingError::internal)?;
        let records = entities.view().await?;
        let top = top_selection(self, query, window, conditions);
        let top = &top;
        let needs = &Needs::of(query.filter.as_ref(), &[]);
        let (view, summed) = self
            .with_view(|view| async move {
                if !self.holds(&view, window, needs) {
                    return Ok(Outcome::Answer(None));
                }
                Ok(self.all_sums(&view, top).await?.map(Some))
            })
            .await?;
        let held = match &summed {
            Some((_, stream)) => self.sealed_hold(&view, &stream.parts, needs).await?,
            None => false,
        };
        let Some((sums, stream)) = summed.filter(|_| held) else {
            let message = "some of these counts were made before its column was a dimension, and group=channel is not answered \
                           from raw events: ask in SQL, with events joined to entities, or run `reckon batch --full`";
            return Err(ServingError::bad("filter", message));
        };
        let total = exact(u64::try_from(sums.total()).unwrap_or(u64::MAX))?;
        let grouped = offload(move || by_channel(&sums, &records)).await.map_err(ServingError::internal)?;
        let mut channels = grouped?;
        let groups = channels.len();
        channels.truncate(query.n);
        let StreamRuns { asked, parts, missing, .. } = stream;
        let provenance = self.provenance(&view, asked, &parts, missing, window, None);
        Ok(TopChannelsAnswer { channels, groups, total, window, provenance })
    }
}

/// All channels with a count, in the order of the answer.
fn by_channel(sums: &EntitySums, records: &View) -> Result<Vec<ChannelCount>, ServingError> {
    let mut found: Vec<ChannelCount> = Vec::new();
    let (mut counted, mut known) = (0_u128, 0);
    for pair in records.channels_and_ids() {
        let (channel, entity_id) = pair?;
        let Some(count) = sums.get(entity_hash(&entity_id), &entity_id) else { continue };
        // They come by channel.
        if found.last().is_none_or(|last| last.channel.as_deref() != Some(channel.as_str())) {
            found.push(ChannelCount { channel: Some(channel), count: 0, entities: 0 });
        }
        if let Some(last) = found.last_mut() {
            last.count = last.count.saturating_add(count);
            last.entities += 1;
        }
        counted += u128::from(count);
        known += 1;
    }
    let without = sums.len() - known;
    if without > 0 {
        let count = u64::try_from(sums.total() - counted).unwrap_or(u64::MAX);
        found.push(ChannelCount { channel: None, count, entities: without });
    }
    // Stable: channels that count the same stay by name, and what has none stays last.
    found.sort_by_key(|channel| Reverse(channel.count));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entities::testing::{Place, input};

    #[tokio::test]
    async fn every_count_is_in_one_channel() {
        let place = Place::new();
        let entities = place.start().await;
        for (entity, channel) in [("a", Some("x")), ("b", Some("y")), ("c", Some("x")), ("d", None), ("far", Some("z"))]
        {
            entities.put(entity.to_owned(), input(channel), crate::entities::Condition::Any).await.unwrap();
        }
        let mut sums = EntitySums::new();
        for (entity, count) in [("a", 1), ("b", 3), ("c", 2), ("d", 5), ("unknown", 7)] {
            sums.add(entity_hash(entity), entity, count);
        }
        let found = by_channel(&sums, &entities.view().await.unwrap()).unwrap();
        let found: Vec<_> =
            found.iter().map(|channel| (channel.channel.as_deref(), channel.count, channel.entities)).collect();
        assert_eq!(found, [(None, 12, 2), (Some("x"), 3, 2), (Some("y"), 3, 1)]);
        assert_eq!(sums.total(), 18);
    }
}
