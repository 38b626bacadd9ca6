//! Lists of dead letters: what is asked, what is answered, and how.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use reckon_data::table::{Snapshot, Table};
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::Serving;
use super::rows::{bytes, natural, quoted, text_at, texts, whole};
use super::types::Archived;
use crate::ServingError;
use crate::metrics::Question;
use crate::sql::engine::collect;
use crate::times::as_time;
use crate::view::Missing;

/// The columns that [`letters`] reads.
pub(super) const LETTER_COLUMNS: &str =
    "received_at, log_partition, log_offset, log_index, reason, field, message, source, body, body_bytes, body_hash";
/// All bodies of an answer take at most this part of a query's memory.
const BODIES_PART: u64 = 8;

/// Which dead letters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadLettersQuery {
    /// Most of them, at most [`DeadLettersQuery::LIMIT_MAX`].
    pub limit: usize,
    /// Where the answer before this one ended.
    pub after: Option<Place>,
    /// With this reason only.
    pub reason: Option<String>,
}

impl DeadLettersQuery {
    /// Most dead letters of an answer.
    pub const LIMIT_MAX: usize = 10_000;
}

/// A place in the log; the order of dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Log partition.
    pub partition: u32,
    /// Record.
    pub offset: u64,
    /// Index in the record.
    pub index: u32,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}-{}", self.partition, self.offset, self.index)
    }
}

impl std::str::FromStr for Place {
    type Err = ServingError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ServingError::bad("after", format!("{text:?} is no place: partition-offset-index"));
        let mut parts = text.split('-');
        let mut next = || parts.next().and_then(|part| part.parse::<u64>().ok()).ok_or_else(bad);
        let (partition, offset, index) = (next()?, next()?, next()?);
        let narrow = |number: u64| u32::try_from(number).map_err(|_| bad());
        let place = Self { partition: narrow(partition)?, offset, index: narrow(index)? };
        if parts.next().is_some() { Err(bad()) } else { Ok(place) }
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Dead letters by place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct DeadLettersAnswer {
    /// The dead letters.
    pub letters: Vec<DeadLetterRow>,
    /// Where to go on; none when these are all.
    #[schema(value_type = Option<String>, example = "0-17-3")]
    pub next: Option<Place>,
    /// Up to where each partition's dead letters are archived.
    pub archived: Vec<Archived>,
    /// What had gone from the log before it was archived: there may have been dead letters among it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Missing>,
}

/// A dead letter as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct DeadLetterRow {
    /// Its place.
    #[schema(value_type = String, example = "0-17-3")]
    pub place: Place,
    /// When it was received, microseconds.
    #[serde(serialize_with = "as_time")]
    #[schema(value_type = String, format = DateTime)]
    pub received_at: i64,
    /// The reason's code.
    pub reason: String,
    /// The field it is wrong with.
    pub field: Option<String>,
    /// What is wrong.
    pub message: String,
    /// Where it came from.
    pub source: Option<String>,
    /// Its bytes as text, where they are text; replaced characters otherwise.
    #[serde(serialize_with = "as_text")]
    #[schema(value_type = Option<String>)]
    pub body: Option<Vec<u8>>,
    /// How many bytes it had.
    pub body_bytes: u64,
    /// XXH3-128 of them, in hexadecimal.
    pub body_hash: String,
}

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

fn as_text<S: Serializer>(body: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
    body.as_deref().map(String::from_utf8_lossy).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_written_and_read_back() {
        let place = Place { partition: 3, offset: u64::MAX, index: 7 };
        assert_eq!(place.to_string().parse::<Place>().unwrap(), place);
        for text in ["", "1-2", "1-2-3-4", "a-b-c", "1-2-99999999999"] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }
}
