//! How a count came about: the row of batch, the segments of the stream, the raw events, and whether they agree.
//!
//! ```text
//! view ─▶ rows of batch_counts ┐
//!      ─▶ segments and tail    ├─▶ counts ─▶ check ◀─ distinct raw events
//! older versions of batch ─────▶ history
//! ```
//!
//! [`found`] reads the rows that count, [`raw`] the events, [`check`] holds them against each other, [`types`] is what
//! is said.

mod check;
mod found;
mod raw;
mod types;

use std::collections::BTreeMap;
use std::sync::Arc;

use reckon_data::minute::{date_of_minute, start_of_minute};
use reckon_data::paths::Transaction;
use reckon_data::table::{Snapshot, Table};

use super::Serving;
use super::events::missing_dates;
use super::gather::{Outcome, exact};
use super::locate::reached;
use crate::ServingError;
use crate::index::split::spans;
use crate::metrics::Question;
use crate::view::{AsOfVersion, BatchView, Part};

pub use check::{Check, CheckVerdict};
pub use types::{WhyAnswer, WhyCount, WhyEvent, WhyEvents, WhyPiece, WhyQuery, WhyRow, WhyVersion};

use check::{Known, Sum};
use found::{About, FromStream, Key, Row, hexadecimal};
use raw::{Raw, Reach, window_of};

/// What counts, as one view has it.
type Counted = (Vec<(Row, String)>, FromStream);

impl Serving {
    /// How the counts of an entity and a minute came about.
    ///
    /// # Errors
    /// When files cannot be read, and those of an SQL query; [`ServingError::RolledUp`] where counts by the minute are no
    /// longer kept.
    pub async fn why(&self, query: &WhyQuery) -> Result<WhyAnswer, ServingError> {
        self.metrics.measure(Question::Why, Box::pin(self.why_unmeasured(query))).await
    }

    async fn why_unmeasured(&self, query: &WhyQuery) -> Result<WhyAnswer, ServingError> {
        let about = Arc::new(About {
            entity: query.entity.clone(),
            minute: query.minute,
            event_type: query.event_type.clone(),
            dimensions: Arc::clone(self.index.files().dimensions()),
        });
        let window = window_of(query.minute)?;
        let (view, (rows, stream)) = self
            .with_view(|view| {
                let about = Arc::clone(&about);
                async move { self.counted(&view, &about).await }
            })
            .await?;
        // Of a minute that is rolled up there is no row to be taken apart.
        spans(&view, &(query.minute..query.minute.saturating_add(1)), None)?;
        let events = self.snapshots.newest(Table::Events).await?;
        let reach = Reach { coverage: view.coverage.clone(), ends: ends(&view, &stream.parts) };
        let behind = self.is_behind(&events, &reach);
        let raw = self.raw_events(&events, &about, window, reach).await?;
        let FromStream { asked, parts, pieces, missing } = stream;
        let (mut batch, mut streamed) = (Sum::default(), Sum::default());
        rows.iter().for_each(|(row, _)| batch.add(row.sum.count, row.sum.fingerprint));
        pieces.iter().for_each(|(_, sum, _)| streamed.add(sum.count, sum.fingerprint));
        let late: u64 = rows.iter().map(|(row, _)| row.late).chain(pieces.iter().map(|(.., piece)| piece.late)).sum();
        let counts = Some((exact(batch.count)?, exact(streamed.count)?));
        let provenance = self.provenance(&view, asked, &parts, missing, window, counts).with_late(late);
        let known = Known {
            batch,
            stream: streamed,
            raw_covered: raw.covered,
            raw_uncovered: raw.uncovered,
            raw: raw.total,
            complete: provenance.complete,
            behind,
            gone: is_closed(&events, query.minute) || !missing_dates(&view, &events, window).is_empty(),
        };
        let Raw { types, distinct, .. } = raw;
        let counts = by_key(&about, rows, pieces, distinct);
        Ok(WhyAnswer {
            entity_id: query.entity.clone(),
            minute: start_of_minute(query.minute),
            event_type: query.event_type.clone(),
            counts_total: counts.len() as u64,
            counts: counts.into_iter().take(WhyAnswer::COUNTS_MAX).collect(),
            events: types.into_values().collect(),
            check: known.check(),
            history: self.over_versions(&about).await?,
            provenance,
        })
    }

    async fn counted(&self, view: &BatchView, about: &Arc<About>) -> Result<Outcome<Counted>, ServingError> {
        let stream = self.stream_pieces(view, about).await?;
        let rows = self.batch_rows(view, about).await?;
        Ok(stream.map(|stream| (rows, stream)))
    }

    /// Whether the raw events of some partition do not reach as far as the stream.
    fn is_behind(&self, events: &Snapshot, reach: &Reach) -> bool {
        let archived = |partition| reached(events, &Transaction::Archive(self.parts.log, partition));
        (0_u32..).zip(&reach.ends).any(|(partition, end)| archived(partition) < *end)
    }

    /// What the versions of batch that are still there counted. Where the files stay the same, so does the count.
    async fn over_versions(&self, about: &Arc<About>) -> Result<Vec<WhyVersion>, ServingError> {
        let versions = self.versions(WhyAnswer::VERSIONS_MAX).await?;
        let (mut told, mut held): (Vec<WhyVersion>, Option<(u128, Sum)>) = (Vec::new(), None);
        for version in versions.iter().take(WhyAnswer::VERSIONS_MAX) {
            let number = AsOfVersion { version: version.version, committed_at: Some(version.committed_at) };
            let past = match self.past_at(number).await {
                Ok(past) => past,
                // Its files are vacuumed, and so are those of all before it.
                Err(ServingError::BadRequest { .. }) => break,
                Err(error) => return Err(error),
            };
            let id = about.set(&past.view).map_or(0, |set| set.id);
            let sum = match held {
                Some((same, sum)) if same == id => sum,
                _ => {
                    let mut sum = Sum::default();
                    let rows = self.batch_rows(&past.view, about).await?;
                    rows.iter().for_each(|(row, _)| sum.add(row.sum.count, row.sum.fingerprint));
                    sum
                }
            };
            held = Some((id, sum));
            told.push(WhyVersion {
                version: version.version,
                committed_at: version.committed_at,
                operation: version.operation.clone(),
                count: sum.count,
                fingerprint: hexadecimal(sum.fingerprint),
            });
        }
        Ok(told)
    }
}

/// Where the stream stands; where it does not say so, what lies above coverage is in no answer.
fn ends(view: &BatchView, parts: &[Part]) -> Vec<u64> {
    let end = |(partition, coverage): (u32, &u64)| {
        let part = parts.iter().find(|part| part.partition == partition);
        part.and_then(Part::position).map_or(*coverage, |position| position.offset.max(*coverage))
    };
    (0_u32..).zip(&view.coverage).map(end).collect()
}

/// Whether retention may have taken raw events of the minute's date.
fn is_closed(events: &Snapshot, minute: i64) -> bool {
    i64::from(date_of_minute(minute)) < events.transaction(&Transaction::Closed.to_string())
}

/// Puts together what belongs to one key.
fn by_key(
    about: &About,
    rows: Vec<(Row, String)>,
    pieces: Vec<(Key, Sum, WhyPiece)>,
    distinct: BTreeMap<Key, u64>,
) -> Vec<WhyCount> {
    let mut counts: BTreeMap<Key, WhyCount> = BTreeMap::new();
    for (Row { key, sum, late, definition, .. }, file) in rows {
        let count = counts.entry(key).or_default();
        count.count = count.count.saturating_add(sum.count);
        let (fingerprint, definition) = (hexadecimal(sum.fingerprint), hexadecimal(definition));
        count.batch.push(WhyRow { count: sum.count, fingerprint, late, definition, file });
    }
    for (key, sum, piece) in pieces {
        let count = counts.entry(key).or_default();
        count.count = count.count.saturating_add(sum.count);
        count.stream.push(piece);
    }
    for (key, events) in distinct {
        counts.entry(key).or_default().raw_distinct = events;
    }
    let named = |((event_type, values), count): (Key, WhyCount)| {
        let columns = about.dimensions.iter().map(|dimension| dimension.column());
        WhyCount { event_type, dimensions: columns.zip(values).collect(), ..count }
    };
    counts.into_iter().map(named).collect()
}

#[cfg(test)]
mod tests;
