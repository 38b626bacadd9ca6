//! Where is my event?

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::StreamExt;
use memchr::memmem::Finder;
use reckon_data::minute::format_date;
use reckon_data::paths::Transaction;
use reckon_data::table::{DataFile, Snapshot, Table};

use super::Serving;
use super::dead::{DeadLetterRow, LETTER_COLUMNS, letters};
use super::events::PLACE_ORDER;
use super::rows::{bytes, natural, quoted, texts, whole};
use super::types::{Archived, EventCopy, LocateAnswer, Verdict};
use crate::ServingError;
use crate::metrics::Question;
use crate::sql::engine::collect;
use crate::view::Missing;

/// Most copies of an answer.
const COPIES_MAX: usize = 1_000;
/// Most dead letters of an answer.
const LETTERS_MAX: usize = 100;

impl Serving {
    /// All copies of an event, which of them counts, and the dead letters that mention its id. `entity` and
    /// `date` (days since 1970) narrow the search.
    ///
    /// # Errors
    /// [`ServingError::BadRequest`], and those of an SQL query. That nothing was found is an answer: the event
    /// may lie in the log alone.
    pub async fn locate(
        &self,
        event_id: &str,
        entity: Option<&str>,
        date: Option<i32>,
    ) -> Result<LocateAnswer, ServingError> {
        self.metrics.measure(Question::Locate, self.locate_unmeasured(event_id, entity, date)).await
    }

    async fn locate_unmeasured(
        &self,
        event_id: &str,
        entity: Option<&str>,
        date: Option<i32>,
    ) -> Result<LocateAnswer, ServingError> {
        if event_id.is_empty() {
            return Err(ServingError::bad("event_id", "it is empty"));
        }
        let date = date.map(format_date);
        let events = self.snapshots.newest(Table::Events).await?;
        let dead = self.snapshots.newest(Table::DeadLetters).await?;
        let (copies, more_copies) = self.copies(&events, event_id, entity, date.as_deref()).await?;
        let (letters, more_letters) = self.letters_with(&dead, event_id).await?;
        let archived = self.archived(&events, &dead);
        let lags = |at: &Archived| at.durable_end.is_none_or(|end| at.events < end || at.dead_letters < end);
        Ok(LocateAnswer {
            event_id: event_id.to_owned(),
            copies,
            dead: letters,
            truncated: more_copies || more_letters,
            may_be_in_log: archived.iter().any(lags),
            archived,
            missing: self.lost_of(&events),
        })
    }

    async fn copies(
        &self,
        events: &Snapshot,
        event_id: &str,
        entity: Option<&str>,
        date: Option<&str>,
    ) -> Result<(Vec<EventCopy>, bool), ServingError> {
        let of_date =
            |file: &&DataFile| date.is_none() || file.partition.get("event_date").and_then(Option::as_deref) == date;
        let files = events.files.iter().filter(of_date).cloned().collect();
        let mut only = format!("event_id = {}", quoted(event_id));
        if let Some(entity) = entity {
            only = format!("{only} AND entity_id = {}", quoted(entity));
        }
        let query = format!(
            "SELECT entity_id, event_type, event_date, event_time, received_at, {PLACE_ORDER} FROM events WHERE {only} \
             ORDER BY event_date, entity_id, event_type, {PLACE_ORDER} LIMIT {}",
            COPIES_MAX + 1
        );
        let turn = self.engine.turn().await?;
        let context = self.engine.context()?;
        context.register_table("events", Arc::new(self.pinned_table(Table::Events, files)?))?;
        let mut limits = self.engine.limits();
        limits.rows = COPIES_MAX;
        let work = async move {
            let frame = context.sql(&query).await.map_err(|error| limits.of_query(&error))?;
            collect(frame, limits).await
        };
        let (_, batches, truncated) = self.engine.run(turn, work).await?;
        let coverage = self.current.get().coverage.clone();
        let mut copies = Vec::new();
        for batch in &batches {
            add_copies(batch, &coverage, &mut copies)?;
        }
        Box::pin(self.follow(events, event_id, &mut copies)).await?;
        Ok((copies, truncated))
    }

    async fn letters_with(&self, dead: &Snapshot, event_id: &str) -> Result<(Vec<DeadLetterRow>, bool), ServingError> {
        let turn = self.engine.turn().await?;
        let context = self.engine.context()?;
        let table = self.pinned_table(Table::DeadLetters, dead.files.to_vec())?;
        context.register_table("dead_letters", Arc::new(table))?;
        let (limits, finder) = (self.engine.limits(), Finder::new(event_id.as_bytes()).into_owned());
        let work = async move {
            let query = format!("SELECT {LETTER_COLUMNS} FROM dead_letters WHERE body IS NOT NULL");
            let frame = context.sql(&query).await.map_err(|error| limits.of_query(&error))?;
            let mut stream = frame.execute_stream().await.map_err(|error| limits.of_query(&error))?;
            let mut found = Vec::new();
            while let Some(batch) = stream.next().await {
                let batch = batch.map_err(|error| limits.of_query(&error))?;
                let bodies = bytes(&batch, "body")?;
                for row in (0..batch.num_rows()).filter(|row| finder.find(bodies.value(*row)).is_some()) {
                    if found.len() == LETTERS_MAX {
                        return Ok((found, true));
                    }
                    found.extend(letters(&batch.slice(row, 1))?);
                }
            }
            Ok((found, false))
        };
        let (mut found, truncated) = self.engine.run(turn, work).await?;
        found.sort_by_key(|letter: &DeadLetterRow| letter.place);
        Ok((found, truncated))
    }

    /// What had gone from the log before it was archived, by this version of `events`, as far as nobody has accepted that.
    pub(super) fn lost_of(&self, events: &Snapshot) -> Vec<Missing> {
        self.current.get().lost_of(events, self.parts.log)
    }

    /// How far events and dead letters of every partition are archived.
    pub(crate) fn archived(&self, events: &Snapshot, dead: &Snapshot) -> Vec<Archived> {
        let log = self.parts.log;
        (0..self.parts.tails.partitions())
            .map(|partition| Archived {
                partition,
                events: reached(events, &Transaction::Archive(log, partition)),
                dead_letters: reached(dead, &Transaction::Dead(log, partition)),
                durable_end: self.parts.tails.position(partition).ok().map(|position| position.durable_end),
            })
            .collect()
    }
}

/// The offset that a table has reached.
pub(super) fn reached(snapshot: &Snapshot, transaction: &Transaction) -> u64 {
    u64::try_from(snapshot.transaction(&transaction.to_string())).unwrap_or(0)
}

/// Adds copies that come ordered by key and place: the first of each key counts.
fn add_copies(batch: &RecordBatch, coverage: &[u64], into: &mut Vec<EventCopy>) -> Result<(), ServingError> {
    let (entities, types, dates) =
        (texts(batch, "entity_id")?, texts(batch, "event_type")?, whole(batch, "event_date")?);
    let (times, received) = (whole(batch, "event_time")?, whole(batch, "received_at")?);
    let [partitions, offsets, indexes] =
        [whole(batch, "log_partition")?, whole(batch, "log_offset")?, whole(batch, "log_index")?];
    let mut seen: BTreeSet<(String, String, String)> = into
        .last()
        .map(|last| (last.event_date.clone(), last.entity_id.clone(), last.event_type.clone()))
        .into_iter()
        .collect();
    for row in 0..batch.num_rows() {
        let event_date = format_date(natural(&dates, row)?);
        let (entity_id, event_type) = (entities.value(row).to_owned(), types.value(row).to_owned());
        let first = seen.insert((event_date.clone(), entity_id.clone(), event_type.clone()));
        let (partition, offset): (u32, u64) = (natural(&partitions, row)?, natural(&offsets, row)?);
        into.push(EventCopy {
            verdict: if first { Verdict::Counted } else { Verdict::Duplicate },
            partition,
            offset,
            index: natural(&indexes, row)?,
            received_at: received.value(row),
            event_time: times.value(row),
            event_date,
            entity_id,
            event_type,
            covered: coverage.get(partition as usize).is_some_and(|covered| offset < *covered),
            stages: None,
        });
    }
    Ok(())
}
