//! A small world to ask questions about: a log of events, batch counts up to a coverage, sealed segments,
//! a fake stream layer for the rest, and a naive count as the oracle.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use async_trait::async_trait;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use parking_lot::Mutex;
use reckon_data::clock::{ManualClock, Names, SeededNames};
use reckon_data::config::{Counting, Serving as Settings};
use reckon_data::definition::Definition;
use reckon_data::files::{FileWriter, WriteOptions};
use reckon_data::key::entity_hash;
use reckon_data::logtime::LogTime;
use reckon_data::metric::Cell;
use reckon_data::minute::{MICROS_PER_MINUTE, date_of_minute, format_date, start_of_minute};
use reckon_data::paths::Transaction;
use reckon_data::run::{Granularity, Run, RunBuilder, Selection, StepSums};
use reckon_data::table::{Commit, DataFile, Step, Table, Tables};
use reckon_data::tail::{Position, Tail, TailError, TailSum, Tails};
use reckon_tables::MemoryTables;
use reckon_tables::schema::{KIND_COUNT, KIND_SUMMARY, file_schema};
use uuid::Uuid;

use crate::{Serving, ServingParts};

pub(crate) const LOG: Uuid = Uuid::from_u128(7);

/// An event; its offset is its place in its partition's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ev {
    pub(crate) id: String,
    pub(crate) entity: String,
    pub(crate) event_type: &'static str,
    pub(crate) minute: i64,
    pub(crate) country: Option<&'static str>,
    pub(crate) ip: Option<&'static str>,
    pub(crate) value: Option<i64>,
}

impl Ev {
    fn key(&self) -> (String, String, &'static str, i32) {
        (self.id.clone(), self.entity.clone(), self.event_type, date_of_minute(self.minute))
    }

    fn hash(&self) -> u64 {
        let date = date_of_minute(self.minute);
        reckon_data::key::Key { event_id: &self.id, entity_id: &self.entity, event_type: self.event_type, date }.hash()
    }

    /// Some are late.
    pub(crate) const fn is_late(&self) -> bool {
        self.minute % 4 == 1
    }

    const fn event_time(&self) -> i64 {
        start_of_minute(self.minute) + MICROS_PER_MINUTE / 2
    }

    const fn received_at(&self) -> i64 {
        self.event_time() + if self.is_late() { 5 * MICROS_PER_MINUTE } else { 0 }
    }

    fn add_to(&self, builder: &mut RunBuilder, granularity: Granularity) {
        let minute = granularity.start_of(self.minute);
        let cell = Cell::one(self.hash(), self.value, None);
        let cell = if self.is_late() { cell.as_late() } else { cell };
        builder.add(entity_hash(&self.entity), &self.entity, self.event_type, minute, &[self.country], &cell).unwrap();
    }
}

/// The log, an event an offset. Copies of an event lie in one partition.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log(pub(crate) Vec<Vec<Ev>>);

impl Log {
    /// The events of a range of one partition that count: first of their key.
    pub(crate) fn counted(&self, partition: usize, range: Range<u64>) -> Vec<&Ev> {
        let mut seen = BTreeSet::new();
        let all =
            self.0[partition].iter().enumerate().filter(|(_, event)| seen.insert(event.key())).collect::<Vec<_>>();
        all.into_iter().filter(|(at, _)| range.contains(&(*at as u64))).map(|(_, event)| event).collect()
    }

    pub(crate) fn all(&self) -> Vec<&Ev> {
        (0..self.0.len()).flat_map(|partition| self.counted(partition, 0..u64::MAX)).collect()
    }

    fn run(&self, partition: usize, range: Range<u64>) -> Run {
        let mut builder = RunBuilder::new();
        self.counted(partition, range).into_iter().for_each(|event| event.add_to(&mut builder, Granularity::Minute));
        builder.finish().unwrap()
    }
}

/// A stream layer that has counted the whole log.
#[derive(Debug)]
pub(crate) struct FakeTails {
    log: Log,
    pub(crate) state: Mutex<FakeState>,
}

#[derive(Debug, Default, Clone)]
pub(crate) struct FakeState {
    /// Partitions that do not answer.
    pub(crate) silent: BTreeSet<u32>,
    /// A tail that begins below is gone.
    pub(crate) gone_below: BTreeMap<u32, u64>,
    /// What lies below is on disk.
    pub(crate) on_disk_below: BTreeMap<u32, u64>,
    /// What `covered` was told last.
    pub(crate) covered: BTreeMap<u32, u64>,
    /// A record came last at.
    pub(crate) log_time: i64,
}

#[async_trait]
impl Tails for FakeTails {
    fn partitions(&self) -> u32 {
        self.log.0.len() as u32
    }

    async fn tail(&self, partition: u32, from: u64) -> Result<Tail, TailError> {
        let position = self.position(partition)?;
        let state = self.state.lock().clone();
        if from < state.gone_below.get(&partition).copied().unwrap_or(0) {
            return Err(TailError::Gone { partition, from });
        }
        let disk = state.on_disk_below.get(&partition).copied().unwrap_or(0).max(from);
        // Two runs, as after two segments.
        let middle = disk + (position.offset - disk) / 2;
        let runs =
            [disk..middle, middle..position.offset].map(|range| Arc::new(self.log.run(partition as usize, range)));
        let on_disk = if from < disk { vec![from..disk] } else { vec![] };
        Ok(Tail { partition, from, position, runs: runs.to_vec(), on_disk })
    }

    async fn sum(&self, partition: u32, from: u64, selection: &Selection<'_>) -> Result<TailSum, TailError> {
        let tail = self.tail(partition, from).await?;
        let mut sums = StepSums::new();
        tail.runs.iter().for_each(|run| run.sum(selection, &mut sums));
        Ok(TailSum { position: tail.position, cells: sums.into_cells(), on_disk: tail.on_disk })
    }

    fn position(&self, partition: u32) -> Result<Position, TailError> {
        let state = self.state.lock();
        if state.silent.contains(&partition) {
            return Err(TailError::Unavailable { partition, reason: "it was stopped".to_owned() });
        }
        let events = &self.log.0[partition as usize];
        let event_time_max = events.iter().map(|event| start_of_minute(event.minute)).max().unwrap_or(i64::MIN);
        let offset = events.len() as u64;
        Ok(Position {
            offset,
            log_time: LogTime::at(state.log_time),
            event_time_max,
            sealed: offset,
            durable_end: offset,
        })
    }

    fn covered(&self, partition: u32, coverage: u64) {
        self.state.lock().covered.insert(partition, coverage);
    }
}

/// The whole world.
pub(crate) struct World {
    pub(crate) log: Log,
    pub(crate) tables: Arc<MemoryTables>,
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) tails: Arc<FakeTails>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) names: SeededNames,
    pub(crate) settings: Settings,
    pub(crate) definition: Definition,
}

impl World {
    pub(crate) fn new(log: Log) -> Self {
        let clock = Arc::new(ManualClock::at(0));
        Self {
            tables: Arc::new(MemoryTables::new(clock.clone())),
            store: Arc::new(InMemory::new()),
            tails: Arc::new(FakeTails { log: log.clone(), state: Mutex::default() }),
            names: SeededNames::new(1),
            settings: Settings { queries: 2, ..Settings::default() },
            definition: Definition::default(),
            clock,
            log,
        }
    }

    pub(crate) fn parts(&self) -> ServingParts {
        ServingParts {
            tables: self.tables.clone(),
            store: self.store.clone(),
            tails: self.tails.clone(),
            log: LOG,
            definition: Arc::new(self.definition.clone()),
            settings: self.settings.clone(),
            stream: Counting::default(),
            clock: self.clock.clone(),
        }
    }

    pub(crate) async fn serve(&self) -> Arc<Serving> {
        Serving::start(self.parts()).await.unwrap()
    }

    async fn write(
        &self,
        table: Table,
        partition: &[(&str, String)],
        schema: &SchemaRef,
        batches: &[RecordBatch],
        stats: &[&str],
    ) -> DataFile {
        let folder: String = table
            .partition_columns()
            .iter()
            .map(|column| {
                let value = &partition.iter().find(|(name, _)| name == column).unwrap().1;
                format!("{column}={value}/")
            })
            .collect();
        let path = format!("{folder}{}.parquet", self.names.fresh());
        let values = partition.iter().map(|(name, value)| ((*name).to_owned(), Some(value.clone()))).collect();
        let options =
            WriteOptions { stats: stats.iter().map(|name| (*name).to_owned()).collect(), ..WriteOptions::default() };
        let mut writer = FileWriter::create(self.store.clone(), table, path, schema, &options, values).unwrap();
        for batch in batches {
            writer.write(batch).await.unwrap();
        }
        writer.close().await.unwrap()
    }

    async fn commit(&self, table: Table, step: impl Fn(u32) -> Transaction, to: &[u64], add: Vec<DataFile>) {
        let snapshot = self.tables.snapshot(table).await.unwrap();
        let remove = if table == Table::BatchCounts { snapshot.files.to_vec() } else { Vec::new() };
        let steps = (0_u32..).zip(to).map(|(partition, to)| {
            let name = step(partition).to_string();
            Step { from: snapshot.transaction(&name), name, to: *to as i64 }
        });
        let commit = Commit {
            table,
            steps: steps.collect(),
            add,
            remove,
            data_change: true,
            token: self.names.fresh(),
            operation: "test".to_owned(),
        };
        self.tables.commit(commit).await.unwrap();
    }

    /// Batch counts everything below `coverage`; two files a date, as if made in two goes.
    pub(crate) async fn batch(&self, coverage: &[u64]) {
        let mut builders: BTreeMap<(i32, Granularity, usize), RunBuilder> = BTreeMap::new();
        for (partition, end) in coverage.iter().enumerate() {
            for event in self.log.counted(partition, 0..*end) {
                for granularity in Granularity::ALL {
                    let key = (date_of_minute(event.minute), granularity, partition % 2);
                    event.add_to(builders.entry(key).or_default(), granularity);
                }
            }
        }
        let mut files = Vec::new();
        for ((date, granularity, _), builder) in builders {
            let batches = builder
                .finish()
                .unwrap()
                .to_batches(&self.definition.dimensions, self.definition.version(), 100)
                .unwrap();
            let partition = [("granularity", granularity.name().to_owned()), ("event_date", format_date(date))];
            let schema = file_schema(Table::BatchCounts);
            files.push(
                self.write(Table::BatchCounts, &partition, &schema, &batches, &["entity_id", "minute", "definition"])
                    .await,
            );
        }
        self.commit(Table::BatchCounts, |p| Transaction::Batch(LOG, p), coverage, files).await;
    }

    /// Seals everything below `to`, a segment every `length` offsets, all of a partition in one file; or, if that
    /// is to be torn, in many, none of which has all of a segment.
    pub(crate) async fn seal(&self, to: &[u64], length: u64, torn: bool) {
        let schema = file_schema(Table::StreamCounts);
        let mut files = Vec::new();
        for (partition, end) in to.iter().enumerate() {
            let mut batches = Vec::new();
            let mut start = 0;
            while start < *end {
                let segment = start..(start + length).min(*end);
                let run = self.log.run(partition, segment.clone());
                let rows = if torn { 1 } else { 100 };
                let counts = run.to_batches(&self.definition.dimensions, self.definition.version(), rows).unwrap();
                batches.extend(counts.iter().map(|batch| placed(&schema, KIND_COUNT, partition, &segment, batch)));
                batches.push(placed(
                    &schema,
                    KIND_SUMMARY,
                    partition,
                    &segment,
                    &totals(&run, self.definition.version()),
                ));
                start = segment.end;
            }
            for batches in batches.chunks(if torn { 1 } else { usize::MAX }) {
                let stats = ["log_partition", "segment_start", "segment_end", "definition", "event_time_max"];
                files.push(self.write(Table::StreamCounts, &[], &schema, batches, &stats).await);
            }
        }
        self.commit(Table::StreamCounts, |p| Transaction::Stream(LOG, p), to, files).await;
    }

    /// Takes files away from a table, as nobody should.
    pub(crate) async fn remove(&self, table: Table, remove: Vec<DataFile>) {
        let step = Step { name: Transaction::Maintain(table).to_string(), from: 0, to: 1 };
        let commit = Commit {
            table,
            steps: vec![step],
            add: Vec::new(),
            remove,
            data_change: true,
            token: self.names.fresh(),
            operation: "test".to_owned(),
        };
        self.tables.commit(commit).await.unwrap();
    }

    /// Sets transactions of a table.
    pub(crate) async fn mark(&self, table: Table, marks: &[(Transaction, u64)]) {
        let before = self.tables.snapshot(table).await.unwrap();
        let step = |(transaction, to): &(Transaction, u64)| {
            let name = transaction.to_string();
            Step { from: before.transaction(&name), name, to: *to as i64 }
        };
        let commit = Commit {
            table,
            steps: marks.iter().map(step).collect(),
            add: Vec::new(),
            remove: Vec::new(),
            data_change: true,
            token: self.names.fresh(),
            operation: "test".to_owned(),
        };
        self.tables.commit(commit).await.unwrap();
    }

    /// Archives the raw events below `to`.
    pub(crate) async fn archive(&self, to: &[u64]) {
        let schema = file_schema(Table::Events);
        let mut files = Vec::new();
        for (partition, end) in to.iter().enumerate() {
            let mut dates: BTreeMap<i32, Vec<(u64, &Ev)>> = BTreeMap::new();
            for (offset, event) in (0..*end).zip(&self.log.0[partition]) {
                dates.entry(date_of_minute(event.minute)).or_default().push((offset, event));
            }
            for (date, events) in dates {
                let batch = raw(&schema, partition, &events);
                files.push(
                    self.write(Table::Events, &[("event_date", format_date(date))], &schema, &[batch], &[]).await,
                );
            }
        }
        self.commit(Table::Events, |p| Transaction::Archive(LOG, p), to, files).await;
    }

    /// Archives dead letters of partition 0: (offset, reason, body).
    pub(crate) async fn bury(&self, letters: &[(i64, &str, &str)]) {
        let schema = file_schema(Table::DeadLetters);
        let column = |name: &str| -> ArrayRef {
            let texts = |of: &dyn Fn(&(i64, &str, &str)) -> String| {
                Arc::new(letters.iter().map(|l| Some(of(l))).collect::<StringArray>()) as ArrayRef
            };
            match name {
                "received_at" => times(letters.iter().map(|letter| Some(letter.0))),
                "log_partition" | "log_index" => Arc::new(letters.iter().map(|_| Some(0)).collect::<Int32Array>()),
                "log_offset" => Arc::new(letters.iter().map(|letter| Some(letter.0)).collect::<Int64Array>()),
                "reason" => texts(&|letter| letter.1.to_owned()),
                "message" | "body_hash" => texts(&|_| "x".to_owned()),
                "body" => Arc::new(
                    letters.iter().map(|letter| Some(letter.2.as_bytes())).collect::<arrow::array::BinaryArray>(),
                ),
                "body_bytes" => {
                    Arc::new(letters.iter().map(|letter| Some(letter.2.len() as i64)).collect::<Int64Array>())
                }
                _ => new_null_array(schema.field_with_name(name).unwrap().data_type(), letters.len()),
            }
        };
        let columns = schema.fields().iter().map(|field| column(field.name())).collect();
        let batch = RecordBatch::try_new(schema.clone(), columns).unwrap();
        let file =
            self.write(Table::DeadLetters, &[("received_date", "1970-01-01".to_owned())], &schema, &[batch], &[]).await;
        self.commit(Table::DeadLetters, |p| Transaction::Dead(LOG, p), &[100], vec![file]).await;
    }

    /// An audit with so many findings, stored as the audit does it.
    pub(crate) async fn audit(&self, run_id: &str, findings: usize) {
        let run_date = [("run_date", "1970-01-01".to_owned())];
        for (table, rows) in [(Table::AuditFindings, findings), (Table::AuditRuns, 1)] {
            let schema = file_schema(table);
            let text = |name: &str| match name {
                "run_id" => run_id,
                "verdict" => "findings",
                "class" => "lost",
                _ => "x",
            };
            let column = |field: &FieldRef| -> ArrayRef {
                match field.data_type() {
                    of if field.is_nullable() => new_null_array(of, rows),
                    DataType::Utf8 => Arc::new(StringArray::from(vec![text(field.name()); rows])),
                    DataType::Int64 => Arc::new(Int64Array::from(vec![2; rows])),
                    DataType::Boolean => Arc::new(BooleanArray::from(vec![true; rows])),
                    _ => times((0..rows).map(|_| Some(0))),
                }
            };
            let columns = schema.fields().iter().map(column).collect();
            let batch = RecordBatch::try_new(schema.clone(), columns).unwrap();
            let file = self.write(table, &run_date, &schema, &[batch], &["number"]).await;
            let number = self.tables.snapshot(table).await.unwrap().transaction(&Transaction::AuditRuns.to_string());
            self.commit(table, |_| Transaction::AuditRuns, &[number.unsigned_abs() + 1], vec![file]).await;
        }
    }
}

fn times(micros: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(micros.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
}

/// What the summary of a segment says of its run.
fn totals(run: &Run, definition: u64) -> RecordBatch {
    let number = |number: u64| Arc::new(Int64Array::from(vec![number.cast_signed()])) as ArrayRef;
    let columns = [("counted", number(run.total_count())), ("definition", number(definition))];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn placed(schema: &SchemaRef, kind: &str, partition: usize, segment: &Range<u64>, other: &RecordBatch) -> RecordBatch {
    let rows = other.num_rows();
    let column = |name: &str| -> ArrayRef {
        match name {
            "kind" => Arc::new(StringArray::from(vec![kind; rows])),
            "log_partition" => Arc::new(Int32Array::from(vec![partition as i32; rows])),
            "segment_start" => Arc::new(Int64Array::from(vec![segment.start as i64; rows])),
            "segment_end" => Arc::new(Int64Array::from(vec![segment.end as i64; rows])),
            _ => other
                .column_by_name(name)
                .cloned()
                .unwrap_or_else(|| new_null_array(schema.field_with_name(name).unwrap().data_type(), rows)),
        }
    };
    RecordBatch::try_new(schema.clone(), schema.fields().iter().map(|field| column(field.name())).collect()).unwrap()
}

fn raw(schema: &SchemaRef, partition: usize, events: &[(u64, &Ev)]) -> RecordBatch {
    let column = |name: &str| -> ArrayRef {
        let texts = |of: &dyn Fn(&Ev) -> Option<String>| {
            Arc::new(events.iter().map(|(_, event)| of(event)).collect::<StringArray>()) as ArrayRef
        };
        match name {
            "event_id" => texts(&|event| Some(event.id.clone())),
            "event_type" => texts(&|event| Some(event.event_type.to_owned())),
            "entity_id" => texts(&|event| Some(event.entity.clone())),
            "country" => texts(&|event| event.country.map(str::to_owned)),
            "ip" => texts(&|event| event.ip.map(str::to_owned)),
            "event_time" => times(events.iter().map(|(_, event)| Some(event.event_time()))),
            "received_at" => times(events.iter().map(|(_, event)| Some(event.received_at()))),
            "value" => {
                let values = events
                    .iter()
                    .map(|(_, event)| event.value.map(i128::from))
                    .collect::<arrow::array::Decimal128Array>();
                Arc::new(values.with_precision_and_scale(18, 6).unwrap())
            }
            "key_hash" => {
                Arc::new(events.iter().map(|(_, event)| Some(event.hash().cast_signed())).collect::<Int64Array>())
            }
            "log_partition" => Arc::new(Int32Array::from(vec![partition as i32; events.len()])),
            "log_offset" => Arc::new(events.iter().map(|(offset, _)| Some(*offset as i64)).collect::<Int64Array>()),
            "log_index" => Arc::new(Int32Array::from(vec![0; events.len()])),
            _ => new_null_array(schema.field_with_name(name).unwrap().data_type(), events.len()),
        }
    };
    RecordBatch::try_new(schema.clone(), schema.fields().iter().map(|field| column(field.name())).collect()).unwrap()
}
