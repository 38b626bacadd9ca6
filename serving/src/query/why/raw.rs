//! The raw events of a minute of an entity: which count, which repeat others.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::StreamExt as _;
use reckon_data::minute::start_of_minute;
use reckon_data::run::Dimension;
use reckon_data::table::{Snapshot, Table};

use super::check::Sum;
use super::found::{About, Key};
use super::types::{WhyAnswer, WhyEvent, WhyEvents};
use crate::ServingError;
use crate::query::events::{PLACE_ORDER, files_of, numbered_copies, within};
use crate::query::rows::{natural, quoted, text_at, texts, whole};
use crate::query::{Serving, Verdict, Window};

/// How far each partition's raw events are looked at: below coverage, and below where the stream stands.
#[derive(Debug, Clone)]
pub(super) struct Reach {
    pub(super) coverage: Vec<u64>,
    pub(super) ends: Vec<u64>,
}

/// What the raw events of the minute are.
#[derive(Debug, Default)]
pub(super) struct Raw {
    pub(super) types: BTreeMap<String, WhyEvents>,
    /// Distinct events by key.
    pub(super) distinct: BTreeMap<Key, u64>,
    /// Distinct events below coverage.
    pub(super) covered: Sum,
    /// Distinct events from there on.
    pub(super) uncovered: Sum,
    /// All of them.
    pub(super) total: u64,
}

impl Serving {
    /// The raw events of the minute, as far as the stream has counted.
    pub(super) async fn raw_events(
        &self,
        events: &Snapshot,
        about: &About,
        window: Window,
        reach: Reach,
    ) -> Result<Raw, ServingError> {
        let turn = self.engine.turn().await?;
        let context = self.engine.context()?;
        let table = self.pinned_table(Table::Events, files_of(events, window))?;
        context.register_table("events", Arc::new(table))?;
        let (query, limits) = (query_of(about, window), self.engine.limits());
        let dimensions = Arc::clone(&about.dimensions);
        let work = async move {
            let frame = context.sql(&query).await.map_err(|error| limits.of_query(&error))?;
            let mut stream = frame.execute_stream().await.map_err(|error| limits.of_query(&error))?;
            let mut raw = Raw::default();
            while let Some(batch) = stream.next().await {
                let batch = batch.map_err(|error| limits.of_query(&error))?;
                raw.add(&batch, &dimensions, &reach)?;
            }
            Ok(raw)
        };
        self.engine.run(turn, work).await
    }
}

fn query_of(about: &About, window: Window) -> String {
    // Only parts of the key may stand within: another copy would come first.
    let mut only = format!("entity_id = {}", quoted(&about.entity));
    if let Some(event_type) = &about.event_type {
        only = format!("{only} AND event_type = {}", quoted(event_type));
    }
    let dimensions: String = about.dimensions.iter().map(|dimension| format!("{}, ", dimension.column())).collect();
    format!(
        "SELECT event_id, event_type, {dimensions}event_time, received_at, key_hash, copy_number, {PLACE_ORDER} \
         FROM ({}) WHERE {} ORDER BY event_type, {PLACE_ORDER}",
        numbered_copies(&only),
        within(window)
    )
}

impl Raw {
    fn add(&mut self, batch: &RecordBatch, dimensions: &[Dimension], reach: &Reach) -> Result<(), ServingError> {
        let (ids, types) = (texts(batch, "event_id")?, texts(batch, "event_type")?);
        let (times, received) = (whole(batch, "event_time")?, whole(batch, "received_at")?);
        let (hashes, numbers) = (whole(batch, "key_hash")?, whole(batch, "copy_number")?);
        let [partitions, offsets, indexes] =
            [whole(batch, "log_partition")?, whole(batch, "log_offset")?, whole(batch, "log_index")?];
        let values = dimensions.iter().map(|dimension| texts(batch, dimension.column()));
        let values = values.collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            let (partition, offset): (u32, u64) = (natural(&partitions, row)?, natural(&offsets, row)?);
            if !is_below(&reach.ends, partition, offset) {
                // The stream has not counted it when it was asked.
                continue;
            }
            let is_first = numbers.value(row) == 1;
            let event = WhyEvent {
                event_id: ids.value(row).to_owned(),
                verdict: if is_first { Verdict::Counted } else { Verdict::Duplicate },
                partition,
                offset,
                index: natural(&indexes, row)?,
                received_at: received.value(row),
                event_time: times.value(row),
                covered: is_below(&reach.coverage, partition, offset),
            };
            if is_first {
                let sum = if event.covered { &mut self.covered } else { &mut self.uncovered };
                sum.add(1, hashes.value(row).cast_unsigned());
                let values = values.iter().map(|column| text_at(column, row)).collect();
                *self.distinct.entry((types.value(row).to_owned(), values)).or_default() += 1;
            }
            self.list(types.value(row), event);
        }
        Ok(())
    }

    fn list(&mut self, event_type: &str, event: WhyEvent) {
        self.total += 1;
        let of_type = self
            .types
            .entry(event_type.to_owned())
            .or_insert_with(|| WhyEvents { event_type: event_type.to_owned(), ..WhyEvents::default() });
        of_type.total += 1;
        of_type.distinct += u64::from(event.verdict == Verdict::Counted);
        if of_type.listed.len() < WhyAnswer::EVENTS_MAX {
            of_type.listed.push(event);
        }
    }
}

/// Whether an offset lies below a partition's bound.
fn is_below(bounds: &[u64], partition: u32, offset: u64) -> bool {
    bounds.get(partition as usize).is_some_and(|bound| offset < *bound)
}

/// The window that is one minute.
pub(super) fn window_of(minute: i64) -> Result<Window, ServingError> {
    Window::around(start_of_minute(minute), start_of_minute(minute.saturating_add(1)))
}
