//! A log whose damaged records are made anew from the tables, as far as those hold them.
//!
//! Once the archiver has passed a record, every event and dead letter of it is a row that says where it lay. From
//! these rows the record can be made again, exactly as whoever counts reads it: its events in their order with their
//! key hashes, and its append time.
//!
//! A record that lacks an event would be a wrong count that looks right, so nothing is made when retention has removed
//! raw events, or when the rows are not numbered through. That the last rows of a record are there, only the table can
//! say: raw events that were removed from it by somebody else are not missed here.
//!
//! Of a cut no table has anything, and its append time, which moves log time, cannot be guessed: it stays damaged.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array as _, AsArray as _, RecordBatch, UInt64Array};
use arrow::compute::{concat_batches, lexsort_to_indices, take_record_batch};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use arrow::error::ArrowError;
use async_trait::async_trait;
use bytes::Bytes;
use object_store::ObjectStore;
use parking_lot::Mutex;
use reckon_data::columns::EVENT_SCHEMA;
use reckon_data::damage::{Damaged, DamagedRecord, Outcome};
use reckon_data::dead::DeadLetter;
use reckon_data::log::{Log, LogCounter, LogError, Stored};
use reckon_data::paths::Transaction;
use reckon_data::record::{RecordError, encode_dead, encode_events};
use reckon_data::table::{Snapshot, Table, TableError, Tables};
use tokio::sync::watch;
use uuid::Uuid;

use crate::read::rows_at;
use crate::schema::file_schema;

/// Damaged records that are remembered.
const FOUND_MAX: usize = 1_000;

/// Why a record cannot be made anew.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unmendable {
    /// There are no rows of it, nor have to be.
    #[error("it is not archived yet")]
    NotArchived,
    /// There are rows of it, and there may have been more.
    #[error("it is archived, but raw events were removed by retention, and whether some of it were cannot be told")]
    Expired,
    /// There are rows of it, and not all.
    #[error("it is archived, but the tables do not hold all of it")]
    Incomplete,
    /// There are no rows of it, though it is archived.
    #[error("the tables hold nothing of it: it was a cut, or what it held is gone")]
    Nothing,
    /// A table cannot be read.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The rows are not what was written.
    #[error(transparent)]
    Columns(#[from] ArrowError),
    /// No record can be made of the rows.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// A log with the tables that it is archived to. Reads of a damaged record give it as the tables have it, or fail as
/// before.
#[derive(Debug)]
pub struct MendedLog {
    log: Arc<dyn Log>,
    tables: Arc<dyn Tables>,
    store: Arc<dyn ObjectStore>,
    found: Mutex<BTreeMap<(u32, u64), DamagedRecord>>,
}

impl MendedLog {
    /// `log`, archived to `tables`, whose files lie in `store`.
    #[must_use]
    pub fn new(log: Arc<dyn Log>, tables: Arc<dyn Tables>, store: Arc<dyn ObjectStore>) -> Self {
        Self { log, tables, store, found: Mutex::default() }
    }

    /// The log as it is, with what is damaged in it.
    #[must_use]
    pub fn inner(&self) -> &Arc<dyn Log> {
        &self.log
    }

    /// The damaged records that were met, until they can be read again or the log is trimmed past them.
    #[must_use]
    pub fn damaged(&self) -> Vec<DamagedRecord> {
        self.found.lock().values().cloned().collect()
    }

    /// Makes a damaged record anew, and remembers what became of it.
    async fn mend(&self, partition: u32, offset: u64, reason: String) -> Result<Bytes, LogError> {
        let (outcome, result) = match self.rebuild(partition, offset).await {
            Ok(bytes) => (Outcome::Mended, Ok(bytes)),
            // The tables may answer the next time: then it is not yet known what becomes of the record.
            Err(Unmendable::Table(error)) if Damaged::cause(&error).is_none() => {
                (Outcome::Unknown(error.to_string()), Err(LogError::Storage(error.to_string())))
            }
            Err(error) => {
                let corrupt = LogError::Corrupt { partition, offset, reason: format!("{reason}; {error}") };
                (Outcome::Lost(error.to_string()), Err(corrupt))
            }
        };
        let damaged = DamagedRecord { partition, offset, reason, outcome };
        let mut found = self.found.lock();
        if found.get(&(partition, offset)) != Some(&damaged) {
            tracing::error!(%damaged, "a record of the log is not what was written");
            if found.len() < FOUND_MAX || found.contains_key(&(partition, offset)) {
                found.insert((partition, offset), damaged);
            }
        }
        result
    }

    /// These records are as they were written.
    fn forget(&self, partition: u32, read: &[Stored]) {
        let mut found = self.found.lock();
        if !found.is_empty() {
            read.iter().for_each(|record| drop(found.remove(&(partition, record.offset))));
        }
    }

    /// A record as its rows in the tables make it.
    ///
    /// # Errors
    /// Why it cannot be made.
    pub async fn rebuild(&self, partition: u32, offset: u64) -> Result<Bytes, Unmendable> {
        Archive::open(self, partition).await?.record(offset).await
    }
}

/// Both tables of one partition's records, as they are now.
struct Archive<'a> {
    of: &'a MendedLog,
    partition: u32,
    events: Snapshot,
    dead: Snapshot,
}

impl<'a> Archive<'a> {
    async fn open(of: &'a MendedLog, partition: u32) -> Result<Self, Unmendable> {
        let events = of.tables.snapshot(Table::Events).await?;
        let dead = of.tables.snapshot(Table::DeadLetters).await?;
        Ok(Self { of, partition, events, dead })
    }

    /// Whether a table holds what it will ever hold of the record.
    fn has(&self, table: &Snapshot, transaction: fn(Uuid, u32) -> Transaction, offset: u64) -> bool {
        let name = transaction(self.of.log.identity(), self.partition).to_string();
        u64::try_from(table.transaction(&name)).is_ok_and(|end| end > offset)
    }

    /// The record, from its rows.
    async fn record(&self, offset: u64) -> Result<Bytes, Unmendable> {
        let events = self.rows(&self.events, Transaction::Archive, offset).await?;
        let dead = self.rows(&self.dead, Transaction::Dead, offset).await?;
        match (events, dead) {
            (Some(_), None) if self.is_expired() => Err(Unmendable::Expired),
            (Some(Rows { batch, append_time }), None) => Ok(encode_events(&event_columns(&batch)?, 0, append_time)?),
            (None, Some(Rows { batch, append_time })) => Ok(encode_dead(&letters(&batch)?, 0, append_time)?),
            (Some(_), Some(_)) => Err(Unmendable::Incomplete),
            (None, None) if self.is_archived(offset) => Err(Unmendable::Nothing),
            (None, None) => Err(Unmendable::NotArchived),
        }
    }

    /// Whether retention may have removed some of a record's rows.
    fn is_expired(&self) -> bool {
        self.events.transaction(&Transaction::Closed.to_string()) != 0
    }

    fn is_archived(&self, offset: u64) -> bool {
        self.has(&self.events, Transaction::Archive, offset) && self.has(&self.dead, Transaction::Dead, offset)
    }

    /// A record's rows in their order; none if the table has none.
    async fn rows(
        &self,
        table: &Snapshot,
        transaction: fn(Uuid, u32) -> Transaction,
        offset: u64,
    ) -> Result<Option<Rows>, Unmendable> {
        if !self.has(table, transaction, offset) {
            return Ok(None);
        }
        let (partition, offset) = (self.partition.cast_signed(), i64::try_from(offset).unwrap_or(i64::MAX));
        let mut batches = Vec::new();
        for file in table.files.iter() {
            let within = |column, value| {
                file.min_i64(column).is_none_or(|min| min <= value)
                    && file.max_i64(column).is_none_or(|max| value <= max)
            };
            if within("log_offset", offset) && within("log_partition", i64::from(partition)) {
                let store = Arc::clone(&self.of.store);
                batches.extend(rows_at(store, table.table, file, partition, offset).await?);
            }
        }
        Rows::of(&concat_batches(&file_schema(table.table), &batches)?)
    }
}

/// All rows of one record.
struct Rows {
    batch: RecordBatch,
    append_time: i64,
}

impl Rows {
    fn of(batch: &RecordBatch) -> Result<Option<Self>, Unmendable> {
        if batch.num_rows() == 0 {
            return Ok(None);
        }
        let column = |name: &str| batch.column_by_name(name).cloned().ok_or(Unmendable::Incomplete);
        let order = arrow::compute::SortColumn { values: column("log_index")?, options: None };
        let batch = take_record_batch(batch, &lexsort_to_indices(&[order], None)?)?;
        let column = |name: &str| batch.column_by_name(name).ok_or(Unmendable::Incomplete);
        let indices = column("log_index")?.as_primitive::<Int32Type>();
        let times = column("received_at")?.as_primitive::<TimestampMicrosecondType>();
        let append_time = times.value(0);
        let is_whole = indices.values().iter().zip(0..).all(|(index, row)| *index == row)
            && times.values().iter().all(|time| *time == append_time);
        if is_whole { Ok(Some(Self { batch, append_time })) } else { Err(Unmendable::Incomplete) }
    }
}

/// Rows of `events` as a record holds them.
fn event_columns(rows: &RecordBatch) -> Result<RecordBatch, Unmendable> {
    let columns = EVENT_SCHEMA.fields().iter().map(|field| {
        let column = rows.column_by_name(field.name()).ok_or(Unmendable::Incomplete)?;
        Ok(match field.name().as_str() {
            // The same 64 bits: tables know no unsigned numbers.
            "key_hash" => {
                let hashes = column.as_primitive::<Int64Type>().values().inner().clone();
                Arc::new(UInt64Array::new(hashes.into(), None))
            }
            _ => Arc::clone(column),
        })
    });
    let columns = columns.collect::<Result<Vec<_>, Unmendable>>()?;
    Ok(RecordBatch::try_new(Arc::clone(&EVENT_SCHEMA), columns)?)
}

/// Rows of `dead_letters` as letters.
fn letters(rows: &RecordBatch) -> Result<Vec<DeadLetter>, Unmendable> {
    let column = |name: &str| rows.column_by_name(name).ok_or(Unmendable::Incomplete);
    let texts = |name: &str| Ok::<_, Unmendable>(column(name)?.as_string::<i32>());
    let (reasons, fields, messages) = (texts("reason")?, texts("field")?, texts("message")?);
    let (sources, hashes) = (texts("source")?, texts("body_hash")?);
    let bodies = column("body")?.as_binary::<i32>();
    let sizes = column("body_bytes")?.as_primitive::<Int64Type>();
    let optional = |of: &arrow::array::StringArray, row: usize| of.is_valid(row).then(|| of.value(row).to_owned());
    let letter = |row: usize| DeadLetter {
        reason: reasons.value(row).to_owned(),
        field: optional(fields, row),
        message: messages.value(row).to_owned(),
        source: optional(sources, row),
        body: bodies.is_valid(row).then(|| bodies.value(row).to_vec()),
        body_bytes: sizes.value(row).cast_unsigned(),
        body_hash: hashes.value(row).to_owned(),
    };
    Ok((0..rows.num_rows()).map(letter).collect())
}

#[async_trait]
impl Log for MendedLog {
    fn partitions(&self) -> u32 {
        self.log.partitions()
    }

    fn identity(&self) -> Uuid {
        self.log.identity()
    }

    async fn append(&self, partition: u32, records: Vec<Bytes>) -> Result<Range<u64>, LogError> {
        self.log.append(partition, records).await
    }

    async fn read(&self, partition: u32, from: u64, max_bytes: usize) -> Result<Vec<Stored>, LogError> {
        match self.log.read(partition, from, max_bytes).await {
            Err(LogError::Corrupt { offset, reason, .. }) if offset == from => {
                let bytes = self.mend(partition, offset, reason).await?;
                Ok(vec![Stored { offset, bytes }])
            }
            read => read.inspect(|records| self.forget(partition, records)),
        }
    }

    async fn extent(&self, partition: u32) -> Result<Range<u64>, LogError> {
        self.log.extent(partition).await
    }

    fn watch_end(&self, partition: u32) -> Result<watch::Receiver<u64>, LogError> {
        self.log.watch_end(partition)
    }

    async fn trim(&self, partition: u32, below: u64) -> Result<(), LogError> {
        self.log.trim(partition, below).await?;
        self.found.lock().retain(|(of, offset), _| *of != partition || *offset >= below);
        Ok(())
    }

    fn trims(&self) -> bool {
        self.log.trims()
    }

    fn drops_by_itself(&self) -> bool {
        self.log.drops_by_itself()
    }

    fn counters(&self) -> Vec<LogCounter> {
        self.log.counters()
    }

    async fn close(&self) -> Result<(), LogError> {
        self.log.close().await
    }
}
