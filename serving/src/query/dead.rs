//! Lists of dead letters.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use reckon_data::table::{Snapshot, Table};

use super::Serving;
use super::rows::{bytes, natural, quoted, text_at, texts, whole};
use super::types::{DeadLetterRow, DeadLettersAnswer, DeadLettersQuery, Place};
use crate::ServingError;
use crate::metrics::Question;
use crate::sql::engine::collect;

/// The columns that [`letters`] reads.
pub(super) const LETTER_COLUMNS: &str =
    "received_at, log_partition, log_offset, log_index, reason, field, message, source, body, body_bytes, body_hash";
/// All bodies of an answer take at most this part of a query's memory.
const BODIES_PART: u64 = 8;

impl Serving {
    /// Dead letters in the order of their places, from after `query.after` on.
    ///
    /// # Errors
    /// [`ServingError::BadRequest`], and those of an SQL query.
    pub async fn dead_letters(&self, query: &DeadLettersQuery) -> Result<DeadLettersAnswer, ServingError> {
        self.metrics.measure(Question::DeadLetters, self.dead_letters_unmeasured(query)).await
    }

    async fn dead_letters_unmeasured(&self, query: &DeadLettersQuery) -> Result<DeadLettersAnswer, ServingError> {
        if !(1..=DeadLettersQuery::LIMIT_MAX).contains(&query.limit) {
            let message = format!("{} is not between 1 and {}", query.limit, DeadLettersQuery::LIMIT_MAX);
            return Err(ServingError::bad("limit", message));
        }
        let dead = self.snapshots.newest(Table::DeadLetters).await?;
        let events = self.snapshots.newest(Table::Events).await?;
        let (last, more) = self.last_place(&dead, query).await?;
        let archived = self.archived(&events, &dead);
        let missing = self.lost_of(&events);
        let Some(last) = last else {
            return Ok(DeadLettersAnswer { letters: Vec::new(), next: None, archived, missing });
        };
        let text =
            format!("SELECT {LETTER_COLUMNS} FROM dead_letters WHERE {} AND NOT {}", selected(query), after(last));
        let mut found = Vec::new();
        for batch in self.of_letters(&dead, text).await? {
            found.extend(letters(&batch)?);
        }
        found.sort_by_key(|letter| letter.place);
        Ok(DeadLettersAnswer { letters: found, next: more.then_some(last), archived, missing })
    }

    /// The place that the answer ends at, so that its bodies fit memory, and whether there is more after it.
    async fn last_place(
        &self,
        dead: &Snapshot,
        query: &DeadLettersQuery,
    ) -> Result<(Option<Place>, bool), ServingError> {
        let text = format!(
            "SELECT log_partition, log_offset, log_index, CASE WHEN body IS NULL THEN 0 ELSE body_bytes END AS body_bytes \
             FROM dead_letters WHERE {} ORDER BY log_partition, log_offset, log_index LIMIT {}",
            selected(query),
            query.limit + 1
        );
        let room = self.engine.limits().memory / BODIES_PART;
        let (mut last, mut listed, mut taken) = (None, 0, 0_u64);
        for batch in self.of_letters(dead, text).await? {
            let sizes = whole(&batch, "body_bytes")?;
            for (row, place) in places(&batch)?.into_iter().enumerate() {
                taken = taken.saturating_add(natural(&sizes, row)?);
                if listed == query.limit || (taken > room && last.is_some()) {
                    return Ok((last, true));
                }
                last = Some(place);
                listed += 1;
            }
        }
        Ok((last, false))
    }

    pub(super) async fn of_letters(&self, dead: &Snapshot, query: String) -> Result<Vec<RecordBatch>, ServingError> {
        let turn = self.engine.turn().await?;
        let context = self.engine.context()?;
        let table = self.pinned_table(Table::DeadLetters, dead.files.to_vec())?;
        context.register_table("dead_letters", Arc::new(table))?;
        let mut limits = self.engine.limits();
        limits.rows = DeadLettersQuery::LIMIT_MAX + 1;
        let work = async move {
            let frame = context.sql(&query).await.map_err(|error| limits.of_query(&error))?;
            collect(frame, limits).await
        };
        let (_, batches, truncated) = self.engine.run(turn, work).await?;
        if truncated {
            // Half a list would look like a whole one.
            return Err(ServingError::MemoryLimit { limit_bytes: limits.memory, message: "dead letters".to_owned() });
        }
        Ok(batches)
    }
}

fn selected(query: &DeadLettersQuery) -> String {
    let reason =
        query.reason.as_ref().map_or_else(|| "true".to_owned(), |reason| format!("reason = {}", quoted(reason)));
    query.after.map_or_else(|| reason.clone(), |place| format!("{reason} AND {}", after(place)))
}

fn after(place: Place) -> String {
    let Place { partition, offset, index } = place;
    format!(
        "(log_partition > {partition} OR (log_partition = {partition} AND (log_offset > {offset} \
         OR (log_offset = {offset} AND log_index > {index}))))"
    )
}

fn places(batch: &RecordBatch) -> Result<Vec<Place>, ServingError> {
    let [partitions, offsets, indexes] =
        [whole(batch, "log_partition")?, whole(batch, "log_offset")?, whole(batch, "log_index")?];
    let place = |row| {
        Ok(Place {
            partition: natural(&partitions, row)?,
            offset: natural(&offsets, row)?,
            index: natural(&indexes, row)?,
        })
    };
    (0..batch.num_rows()).map(place).collect()
}

/// The dead letters of a batch of [`LETTER_COLUMNS`].
pub(super) fn letters(batch: &RecordBatch) -> Result<Vec<DeadLetterRow>, ServingError> {
    let (received, sizes, bodies) = (whole(batch, "received_at")?, whole(batch, "body_bytes")?, bytes(batch, "body")?);
    let (reason, field, message) = (texts(batch, "reason")?, texts(batch, "field")?, texts(batch, "message")?);
    let (source, hash) = (texts(batch, "source")?, texts(batch, "body_hash")?);
    let letter = |(row, place)| {
        Ok(DeadLetterRow {
            place,
            received_at: received.value(row),
            reason: reason.value(row).to_owned(),
            field: text_at(&field, row),
            message: message.value(row).to_owned(),
            source: text_at(&source, row),
            body: bodies.is_valid(row).then(|| bodies.value(row).to_vec()),
            body_bytes: natural(&sizes, row)?,
            body_hash: hash.value(row).to_owned(),
        })
    };
    places(batch)?.into_iter().enumerate().map(letter).collect()
}
