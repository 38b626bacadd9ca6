//! What lies in the tables, row by row: to choose what is to be damaged.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array as _, AsArray as _, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Decimal128Type, Int32Type, Int64Type, TimestampMicrosecondType};
use reckon_data::log::Log as _;
use reckon_data::minute::{date_of, minute_of};
use reckon_data::paths::Transaction;
use reckon_data::table::{DataFile, Table};
use reckon_tables::read::read_file;

use super::Auditor;
use crate::node::Durable;

/// A row of a file.
#[derive(Debug, Clone)]
pub(super) struct At {
    pub(super) file: DataFile,
    pub(super) row: usize,
}

/// What is counted together: entity, type, country, minute.
pub(super) type Key = (String, String, Option<String>, i64);

/// A raw event.
#[derive(Debug, Clone)]
pub(super) struct Raw {
    pub(super) at: At,
    pub(super) id: String,
    pub(super) key: Key,
    pub(super) time: i64,
    pub(super) received: i64,
    pub(super) value: Option<i128>,
    pub(super) hash: i64,
    pub(super) partition: u32,
    pub(super) offset: u64,
    pub(super) index: u32,
}

/// A row of counts.
#[derive(Debug, Clone)]
pub(super) struct Counted {
    pub(super) at: At,
    pub(super) key: Key,
    pub(super) count: i64,
    /// Partition, start and end, of the stream's.
    pub(super) segment: Option<(u32, u64, u64)>,
    pub(super) granularity: Option<String>,
}

/// A summary of a segment.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub(super) at: At,
    pub(super) partition: u32,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) accepted: i64,
    pub(super) duplicate: i64,
}

/// A row of counts and the events that it counts, none of which was ever repeated.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub(super) row: Counted,
    pub(super) events: Vec<Raw>,
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) raw: Vec<Raw>,
    pub(super) batch: Vec<Counted>,
    pub(super) stream: Vec<Counted>,
    pub(super) segments: Vec<Segment>,
    pub(super) coverage: Vec<u64>,
    /// How often each key is there.
    copies: HashMap<i64, usize>,
}

/// A file, whole.
pub(super) async fn whole(auditor: &Auditor, table: Table, file: &DataFile) -> RecordBatch {
    let batches = read_file(Arc::new(auditor.files.clone()), table, file).await.unwrap();
    concat_batches(&batches[0].schema(), &batches).unwrap()
}

impl Seen {
    pub(super) async fn of(durable: &Durable) -> Self {
        let auditor = Auditor::new(durable);
        let mut seen = Self::default();
        let counts = auditor.tables.snapshot(Table::BatchCounts).await.unwrap();
        for partition in 0..durable.log.partitions() {
            let name = Transaction::Batch(durable.log.identity(), partition).to_string();
            seen.coverage.push(counts.transaction(&name) as u64);
        }
        for file in counts.files.iter() {
            seen.batch.extend(counted(file, &whole(&auditor, Table::BatchCounts, file).await));
        }
        for file in auditor.tables.snapshot(Table::StreamCounts).await.unwrap().files.iter() {
            let batch = whole(&auditor, Table::StreamCounts, file).await;
            seen.stream.extend(counted(file, &batch));
            seen.segments.extend(segments(file, &batch));
        }
        for file in auditor.tables.snapshot(Table::Events).await.unwrap().files.iter() {
            seen.raw.extend(raw(file, &whole(&auditor, Table::Events, file).await));
        }
        seen.raw.sort_by_key(|event| (event.partition, event.offset, event.index));
        for event in &seen.raw {
            *seen.copies.entry(event.hash).or_default() += 1;
        }
        seen
    }

    pub(super) fn is_covered(&self, event: &Raw) -> bool {
        event.offset < self.coverage[event.partition as usize]
    }

    pub(super) fn is_alone(&self, event: &Raw) -> bool {
        self.copies[&event.hash] == 1
    }

    /// Rows per minute of batch, oldest first, behind whose events others of their date are counted.
    pub(super) fn minutes(&self) -> Vec<Group> {
        let rows = self.batch.iter().filter(|row| row.granularity.as_deref() == Some("minute"));
        let behind = |event: &Raw| {
            self.raw.iter().any(|other| {
                self.is_covered(other)
                    && self.is_alone(other)
                    && other.key != event.key
                    && other.partition == event.partition
                    && other.offset > event.offset
                    && date_of(other.time) == date_of(event.time)
            })
        };
        let groups = rows.filter_map(|row| self.group(row, |event| self.is_covered(event)));
        by_age(groups.filter(|group| group.events.iter().all(behind)).collect())
    }

    /// Rows of the stream that batch has not passed, oldest first.
    pub(super) fn streamed(&self) -> Vec<Group> {
        let groups = self.stream.iter().filter_map(|row| {
            let (partition, start, end) = row.segment?;
            if start < self.coverage[partition as usize] {
                return None;
            }
            self.group(row, |event| event.partition == partition && (start..end).contains(&event.offset))
        });
        by_age(groups.collect())
    }

    fn group(&self, row: &Counted, is_meant: impl Fn(&Raw) -> bool) -> Option<Group> {
        let own = self.raw.iter().filter(|event| event.key == row.key && is_meant(event));
        let events: Vec<Raw> = own.cloned().collect();
        let plain = events.len() as i64 == row.count && events.iter().all(|event| self.is_alone(event));
        plain.then(|| Group { row: row.clone(), events })
    }

    /// Segments that batch has not passed.
    pub(super) fn uncovered(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter().filter(|segment| segment.start >= self.coverage[segment.partition as usize])
    }
}

fn by_age(mut groups: Vec<Group>) -> Vec<Group> {
    groups.sort_by_key(|group| (group.events[0].offset, group.events[0].partition, group.row.key.clone()));
    groups
}

fn text(batch: &RecordBatch, column: &str, row: usize) -> Option<String> {
    let column = batch[column].as_string::<i32>();
    column.is_valid(row).then(|| column.value(row).to_owned())
}

fn long(batch: &RecordBatch, column: &str, row: usize) -> i64 {
    let column = batch[column].as_primitive::<Int64Type>();
    if column.is_valid(row) { column.value(row) } else { 0 }
}

fn int(batch: &RecordBatch, column: &str, row: usize) -> i32 {
    batch[column].as_primitive::<Int32Type>().value(row)
}

fn time(batch: &RecordBatch, column: &str, row: usize) -> i64 {
    batch[column].as_primitive::<TimestampMicrosecondType>().value(row)
}

fn key(batch: &RecordBatch, row: usize, time: i64) -> Key {
    let of = |column| text(batch, column, row);
    (of("entity_id").unwrap(), of("event_type").unwrap(), of("country"), minute_of(time))
}

fn raw(file: &DataFile, batch: &RecordBatch) -> Vec<Raw> {
    let values = batch["value"].as_primitive::<Decimal128Type>();
    let one = |row: usize| {
        let at = time(batch, "event_time", row);
        Raw {
            at: At { file: file.clone(), row },
            id: text(batch, "event_id", row).unwrap(),
            key: key(batch, row, at),
            time: at,
            received: time(batch, "received_at", row),
            value: values.is_valid(row).then(|| values.value(row)),
            hash: long(batch, "key_hash", row),
            partition: int(batch, "log_partition", row) as u32,
            offset: long(batch, "log_offset", row) as u64,
            index: int(batch, "log_index", row) as u32,
        }
    };
    (0..batch.num_rows()).map(one).collect()
}

fn is_kind(batch: &RecordBatch, row: usize, kind: &str) -> bool {
    batch.column_by_name("kind").is_none_or(|kinds| kinds.as_string::<i32>().value(row) == kind)
}

fn place(batch: &RecordBatch, row: usize) -> (u32, u64, u64) {
    let of = |column| long(batch, column, row) as u64;
    (int(batch, "log_partition", row) as u32, of("segment_start"), of("segment_end"))
}

fn counted(file: &DataFile, batch: &RecordBatch) -> Vec<Counted> {
    let of_stream = batch.column_by_name("kind").is_some();
    let rows = (0..batch.num_rows()).filter(|row| is_kind(batch, *row, "count"));
    let one = |row: usize| Counted {
        at: At { file: file.clone(), row },
        key: key(batch, row, time(batch, "minute", row)),
        count: long(batch, "count", row),
        segment: of_stream.then(|| place(batch, row)),
        granularity: file.partition.get("granularity").cloned().flatten(),
    };
    rows.map(one).collect()
}

fn segments(file: &DataFile, batch: &RecordBatch) -> Vec<Segment> {
    let rows = (0..batch.num_rows()).filter(|row| is_kind(batch, *row, "summary"));
    let one = |row: usize| {
        let (partition, start, end) = place(batch, row);
        Segment {
            at: At { file: file.clone(), row },
            partition,
            start,
            end,
            accepted: long(batch, "accepted", row),
            duplicate: long(batch, "duplicate", row),
        }
    };
    rows.map(one).collect()
}
