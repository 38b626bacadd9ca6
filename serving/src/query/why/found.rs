//! The rows that count a minute of an entity: of batch by file, of the stream by segment and in memory.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, Int64Array, RecordBatch, StringViewArray};
use futures::future::join_all;
use reckon_data::minute::{date_of_minute, start_of_minute};
use reckon_data::paths::Transaction;
use reckon_data::run::{Dimension, Granularity, LATE_COLUMN};
use reckon_data::table::{DataFile, Table};
use reckon_data::tail::{Tail, TailError};
use reckon_tables::stats::{max_micros, min_micros};

use super::check::Sum;
use super::types::WhyPiece;
use crate::ServingError;
use crate::index::load::{Columns, Wanted};
use crate::index::may_hold;
use crate::query::Serving;
use crate::query::gather::Outcome;
use crate::query::locate::reached;
use crate::query::rows::{natural, text_at, texts, whole};
use crate::view::{BatchView, FileSet, Given, Missing, Part};

/// Event type, and the value of each configured dimension, in their order.
pub(super) type Key = (String, Vec<Option<String>>);

/// Log partition, and the segments that are wanted of it, by their starts.
type Segments = (u32, Arc<[u64]>);

/// What is asked.
#[derive(Debug)]
pub(super) struct About {
    pub(super) entity: String,
    pub(super) minute: i64,
    pub(super) event_type: Option<String>,
    pub(super) dimensions: Arc<[Dimension]>,
}

/// A row of counts.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) key: Key,
    /// The segment of a row of `stream_counts`.
    pub(super) segment: Option<Range<u64>>,
    pub(super) sum: Sum,
    pub(super) late: u64,
    pub(super) definition: u64,
}

/// What the stream adds, and what of it could not be had.
#[derive(Debug, Default)]
pub(super) struct FromStream {
    /// The clock before anybody was asked.
    pub(super) asked: i64,
    pub(super) parts: Vec<Part>,
    pub(super) pieces: Vec<(Key, Sum, WhyPiece)>,
    pub(super) missing: Vec<Missing>,
}

impl About {
    fn is_meant(&self, event_type: &str) -> bool {
        self.event_type.as_deref().is_none_or(|wanted| wanted == event_type)
    }

    /// Adds the rows of a batch that count the minute; all are of the entity.
    fn add(&self, rows: &mut Vec<Row>, batch: &RecordBatch) -> Result<(), ServingError> {
        let (minutes, types) = (whole(batch, "minute")?, texts(batch, "event_type")?);
        let (counts, prints) = (whole(batch, "count")?, whole(batch, "fingerprint")?);
        let (late, definitions) = (optional(batch, LATE_COLUMN)?, whole(batch, "definition")?);
        let segments = (optional(batch, "segment_start")?, optional(batch, "segment_end")?);
        let dimensions = self.dimensions.iter().map(|dimension| {
            let column = dimension.column();
            batch.column_by_name(column).map(|_| texts(batch, column)).transpose()
        });
        let dimensions = dimensions.collect::<Result<Vec<Option<StringViewArray>>, _>>()?;
        let start = start_of_minute(self.minute);
        let wanted = |row: &usize| minutes.value(*row) == start && self.is_meant(types.value(*row));
        for row in (0..batch.num_rows()).filter(wanted) {
            let values = dimensions.iter().map(|column| column.as_ref().and_then(|column| text_at(column, row)));
            rows.push(Row {
                key: (types.value(row).to_owned(), values.collect()),
                segment: match &segments {
                    (Some(starts), Some(ends)) => Some(natural(starts, row)?..natural(ends, row)?),
                    _ => None,
                },
                sum: Sum { count: natural(&counts, row)?, fingerprint: prints.value(row).cast_unsigned() },
                late: match late.as_ref().filter(|late| late.is_valid(row)) {
                    Some(late) => natural(late, row)?,
                    None => 0,
                },
                definition: definitions.value(row).cast_unsigned(),
            });
        }
        Ok(())
    }

    /// The files that count the minute in a version of batch.
    pub(super) fn set<'a>(&self, view: &'a BatchView) -> Option<&'a Arc<FileSet>> {
        view.dates.get(&date_of_minute(self.minute))?.get(&Granularity::Minute)
    }

    fn may_be_in(&self, file: &DataFile) -> bool {
        let start = start_of_minute(self.minute);
        let near = min_micros(file, "minute").is_none_or(|min| min <= start)
            && max_micros(file, "minute").is_none_or(|max| start <= max);
        near && may_hold(file, &self.entity)
    }

    /// What the counts of a tail in memory have, by key.
    fn in_memory(&self, tail: &Tail) -> BTreeMap<Key, (Sum, u64)> {
        let mut sums: BTreeMap<Key, (Sum, u64)> = BTreeMap::new();
        for run in &tail.runs {
            run.for_each_of(&self.entity, &(self.minute..self.minute + 1), |row| {
                if self.is_meant(row.event_type) {
                    let mut values: Vec<Option<String>> =
                        row.dims.iter().map(|value| value.as_deref().map(str::to_owned)).collect();
                    values.resize(self.dimensions.len(), None);
                    let (sum, late) = sums.entry((row.event_type.to_owned(), values)).or_default();
                    sum.add(row.count, row.fingerprint);
                    *late += row.late;
                }
            });
        }
        sums
    }
}

fn optional(batch: &RecordBatch, name: &str) -> Result<Option<Int64Array>, ServingError> {
    batch.column_by_name(name).map(|_| whole(batch, name)).transpose()
}

impl Serving {
    /// The rows that count the minute in a version of batch, each with its file.
    pub(super) async fn batch_rows(
        &self,
        view: &BatchView,
        about: &Arc<About>,
    ) -> Result<Vec<(Row, String)>, ServingError> {
        let mut found = Vec::new();
        let files = about.set(view).map_or(&[][..], |set| set.files.as_slice());
        for file in files.iter().filter(|file| about.may_be_in(file)) {
            let rows = self.rows_in(Table::BatchCounts, file, about, None).await?;
            found.extend(rows.into_iter().map(|row| (row, file.path.clone())));
        }
        Ok(found)
    }

    async fn rows_in(
        &self,
        table: Table,
        file: &DataFile,
        about: &Arc<About>,
        segments: Option<Segments>,
    ) -> Result<Vec<Row>, ServingError> {
        let wanted = Wanted { entity: Some(about.entity.as_str().into()), segments, ..Wanted::default() };
        let about = Arc::clone(about);
        let add = move |rows: &mut Vec<Row>, batch: &RecordBatch| about.add(rows, batch);
        self.index.files().fold(table, vec![file.clone()], Columns::Told, wanted, Vec::new(), add).await
    }

    /// What the stream adds to a version of batch: sealed segments one by one, then what is counted in memory.
    pub(super) async fn stream_pieces(
        &self,
        view: &BatchView,
        about: &Arc<About>,
    ) -> Result<Outcome<FromStream>, ServingError> {
        let snapshot = self.snapshots.newest(Table::StreamCounts).await?;
        let asked = self.parts.clock.now();
        let ask = (0_u32..).zip(&view.coverage).map(|(partition, &coverage)| {
            let sealed = reached(&snapshot, &Transaction::Stream(self.parts.log, partition)).max(coverage);
            async move { (partition, coverage, sealed, self.parts.tails.tail(partition, sealed).await) }
        });
        let mut found = FromStream { asked, ..FromStream::default() };
        let mut stale = false;
        for (partition, coverage, sealed, answer) in join_all(ask).await {
            match answer {
                Ok(tail) => {
                    let part = part_of(coverage, sealed, &tail);
                    self.add_sealed(view, &part, about, &mut found).await?;
                    add_tail(sealed, &tail, about, &mut found.pieces);
                    found.parts.push(part);
                }
                Err(error) => {
                    stale |= matches!(error, TailError::Gone { .. });
                    found.parts.push(Part::nothing(partition, coverage, error));
                }
            }
        }
        Ok(if stale { Outcome::Stale(found) } else { Outcome::Answer(found) })
    }

    async fn add_sealed(
        &self,
        view: &BatchView,
        part: &Part,
        about: &Arc<About>,
        found: &mut FromStream,
    ) -> Result<(), ServingError> {
        let on_disk = self.on_disk(view, part, None).await?;
        found.missing.extend(on_disk.missing);
        for chunk in &on_disk.chunks {
            let starts: Arc<[u64]> = chunk.segments.iter().map(|segment| segment.start).collect();
            let mut pieces = Vec::new();
            for file in chunk.files.iter().filter(|file| about.may_be_in(file)) {
                let segments = Some((chunk.partition, Arc::clone(&starts)));
                match self.rows_in(Table::StreamCounts, file, about, segments).await {
                    Err(ServingError::Damaged { damaged }) => {
                        // Half a chunk would be taken for all of it.
                        found.missing.extend(chunk.missing(&damaged));
                        pieces.clear();
                        break;
                    }
                    rows => pieces.extend(rows?.into_iter().filter_map(|row| sealed_piece(chunk.partition, row))),
                }
            }
            found.pieces.append(&mut pieces);
        }
        Ok(())
    }
}

/// The part that a tail from `sealed` on is of all from `coverage` on: what lies between is on disk.
fn part_of(coverage: u64, sealed: u64, tail: &Tail) -> Part {
    let mut on_disk = Vec::new();
    if coverage < sealed {
        on_disk.push(coverage..sealed);
    }
    on_disk.extend(tail.on_disk.iter().cloned());
    Part { partition: tail.partition, from: coverage, given: Given::Counts { position: tail.position, on_disk } }
}

fn sealed_piece(partition: u32, row: Row) -> Option<(Key, Sum, WhyPiece)> {
    let Row { key, segment, sum, late, .. } = row;
    let Range { start, end } = segment?;
    let piece = WhyPiece {
        partition,
        start,
        end,
        sealed: true,
        count: sum.count,
        fingerprint: hexadecimal(sum.fingerprint),
        late,
    };
    Some((key, sum, piece))
}

fn add_tail(sealed: u64, tail: &Tail, about: &About, pieces: &mut Vec<(Key, Sum, WhyPiece)>) {
    let start = tail.on_disk.iter().map(|range| range.end).max().unwrap_or(sealed);
    for (key, (sum, late)) in about.in_memory(tail) {
        let piece = WhyPiece {
            partition: tail.partition,
            start,
            end: tail.position.offset,
            sealed: false,
            count: sum.count,
            fingerprint: hexadecimal(sum.fingerprint),
            late,
        };
        pieces.push((key, sum, piece));
    }
}

/// As fingerprints and definition versions are written.
pub(super) fn hexadecimal(number: u64) -> String {
    format!("{number:016x}")
}
