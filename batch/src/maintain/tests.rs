//! Maintenance over tables and a store in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod commits;
mod plans;
mod tiers;
mod trims;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{Int64Type, SchemaRef};
use arrow::util::pretty::pretty_format_batches;
use bytesize::ByteSize;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use proptest::prelude::*;
use reckon_data::clock::{Clock, ManualClock, Names, RandomNames, SeededNames};
use reckon_data::config;
use reckon_data::files::{FileWriter, WriteOptions};
use reckon_data::minute::{MICROS_PER_DAY, MICROS_PER_HOUR, date_of, format_date, parse_date};
use reckon_data::paths::{Transaction, partition_folder, segment_file};
use reckon_data::table::{Commit, DataFile, Snapshot, Step, Table, Tables};
use reckon_tables::MemoryTables;
use reckon_tables::read::read_file;
use reckon_tables::schema::file_schema;
use uuid::Uuid;

use super::*;
use crate::archive::properties;

const NOW: i64 = 1_790_000_000_000_000;
const LOG: Uuid = Uuid::from_u128(42);

/// A row of raw events: date (days before today), entity, microseconds into the day, log partition.
type Row = (i32, u8, i64, i32);

struct World {
    clock: Arc<ManualClock>,
    tables: Arc<MemoryTables>,
    store: Arc<dyn ObjectStore>,
    settings: config::Settings,
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::at(NOW));
        let tables = Arc::new(MemoryTables::new(Arc::<ManualClock>::clone(&clock)));
        Self { clock, tables, store: Arc::new(InMemory::new()), settings: config::Settings::default() }
    }

    fn maintainer(&self) -> Maintainer {
        Maintainer::new(MaintainerParts {
            tables: Arc::<MemoryTables>::clone(&self.tables),
            store: Arc::clone(&self.store),
            cold: None,
            clock: Arc::<ManualClock>::clone(&self.clock),
            names: Arc::new(RandomNames),
            log: LOG,
            partitions: 2,
            archive: self.settings.archive.clone(),
            retention: self.settings.retention.clone(),
            compact: true,
            memory: 64 << 20,
            spill_dir: None,
        })
    }

    async fn snapshot(&self, table: Table) -> Snapshot {
        self.tables.snapshot(table).await.unwrap()
    }

    async fn step(&self, table: Table, transaction: Transaction, to: i64, add: Vec<DataFile>) {
        let name = transaction.to_string();
        let from = self.snapshot(table).await.transaction(&name);
        let commit = Commit {
            table,
            steps: vec![Step { name, from, to }],
            add,
            remove: Vec::new(),
            data_change: true,
            token: RandomNames.fresh(),
            operation: "test".to_owned(),
        };
        self.tables.commit(commit).await.unwrap();
    }

    async fn cover(&self, coverage: [i64; 2]) {
        for (partition, offset) in (0..).zip(coverage) {
            self.step(Table::BatchCounts, Transaction::Batch(LOG, partition), offset, Vec::new()).await;
        }
    }

    /// Writes one file; `rows` must be of one date and partition.
    async fn write(
        &self,
        table: Table,
        partition: &[(&str, String)],
        rows: &RecordBatch,
        options: &WriteOptions,
    ) -> DataFile {
        self.write_as(table, partition, rows, &file_schema(table), options).await
    }

    async fn write_as(
        &self,
        table: Table,
        partition: &[(&str, String)],
        rows: &RecordBatch,
        schema: &SchemaRef,
        options: &WriteOptions,
    ) -> DataFile {
        let folder: String = partition.iter().map(|(column, value)| partition_folder(column, value)).collect();
        let path = folder + &segment_file(0, 0, 0, RandomNames.fresh());
        let values = partition.iter().map(|(column, value)| ((*column).to_owned(), Some(value.clone()))).collect();
        let mut file = FileWriter::create(Arc::clone(&self.store), table, path, schema, options, values).unwrap();
        file.write(rows).await.unwrap();
        file.close().await.unwrap()
    }

    /// Adds a file of raw events at offset `offset`, as the archiver would.
    async fn add_events(&self, date: i32, partition: i32, offset: i64, rows: &[Row]) {
        let batch = event_rows(date, partition, offset, rows);
        let options = properties::log_ordered_events();
        let file = self.write(Table::Events, &[("event_date", format_date(date))], &batch, &options).await;
        let transaction = Transaction::Archive(LOG, partition.cast_unsigned());
        self.step(Table::Events, transaction, offset + 1, vec![file]).await;
    }

    /// Adds a file with the segment [start, end): two counts and a summary.
    async fn add_segment(&self, partition: i32, start: i64, end: i64, counts: usize) {
        let batch = segment_rows(partition, start, end, counts);
        let file = self.write(Table::StreamCounts, &[], &batch, &properties::stream_counts()).await;
        self.step(Table::StreamCounts, Transaction::Stream(LOG, partition.cast_unsigned()), end, vec![file]).await;
    }

    /// The same as a version of before wrote it: without late events.
    async fn add_old_segment(&self, partition: i32, start: i64, end: i64, counts: usize) {
        let mut batch = segment_rows(partition, start, end, counts);
        batch.remove_column(batch.schema().index_of("late").unwrap());
        let (schema, options) = (batch.schema(), properties::stream_counts());
        let file = self.write_as(Table::StreamCounts, &[], &batch, &schema, &options).await;
        self.step(Table::StreamCounts, Transaction::Stream(LOG, partition.cast_unsigned()), end, vec![file]).await;
    }

    /// Every row of a table as text, sorted; with the partition columns of its file.
    async fn rows(&self, table: Table) -> Vec<String> {
        let mut rows = Vec::new();
        for file in self.snapshot(table).await.files.iter() {
            for batch in read_file(Arc::clone(&self.store), table, file).await.unwrap() {
                let text = pretty_format_batches(&[batch]).unwrap().to_string();
                rows.extend(text.lines().skip(3).filter(|line| line.starts_with('|')).map(|line| {
                    format!("{:?} {}", file.partition, line.split_whitespace().collect::<Vec<_>>().join(" "))
                }));
            }
        }
        rows.sort();
        rows
    }
}

fn column<'a>(columns: &'a [(&str, ArrayRef)], name: &str) -> Option<&'a ArrayRef> {
    columns.iter().find(|(of, _)| *of == name).map(|(_, column)| column)
}

/// A batch of a table; columns that are not given are null.
fn batch(table: Table, rows: usize, columns: &[(&str, ArrayRef)]) -> RecordBatch {
    let schema = file_schema(table);
    let all = schema
        .fields()
        .iter()
        .map(|field| column(columns, field.name()).cloned().unwrap_or_else(|| new_null_array(field.data_type(), rows)));
    RecordBatch::try_new(Arc::clone(&schema), all.collect()).unwrap()
}

fn times(micros: Vec<i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(micros).with_timezone("UTC"))
}

fn event_rows(date: i32, partition: i32, offset: i64, rows: &[Row]) -> RecordBatch {
    let n = rows.len();
    let text = |of: &dyn Fn(usize) -> String| Arc::new(StringArray::from_iter_values((0..n).map(of))) as ArrayRef;
    let day = i64::from(date) * MICROS_PER_DAY;
    batch(
        Table::Events,
        n,
        &[
            ("event_id", text(&|row| format!("e{partition}-{offset}-{row}"))),
            ("event_type", text(&|_| "view".to_owned())),
            ("entity_id", text(&|row| format!("video-{}", rows[row].1))),
            ("event_time", times(rows.iter().map(|row| day + row.2).collect())),
            ("key_hash", Arc::new(Int64Array::from_iter_values((0..n).map(|row| row as i64 - offset)))),
            ("received_at", times(vec![NOW; n])),
            ("log_partition", Arc::new(Int32Array::from_value(partition, n))),
            ("log_offset", Arc::new(Int64Array::from_value(offset, n))),
            ("log_index", Arc::new(Int32Array::from_iter_values(0..i32::try_from(n).unwrap()))),
        ],
    )
}

/// A segment of so many counts, and its summary.
fn segment_rows(partition: i32, start: i64, end: i64, counts: usize) -> RecordBatch {
    let rows = counts + 1;
    let number = |value: i64| Arc::new(Int64Array::from_value(value, rows)) as ArrayRef;
    let counted =
        |of: &dyn Fn(usize) -> i64| (0..counts).map(|row| Some(of(row))).chain([None]).collect::<Int64Array>();
    let kinds = std::iter::repeat_n("count", counts).chain(["summary"]);
    let entities = (0..counts).map(|row| Some(format!("entity-{row}"))).chain([None]);
    batch(
        Table::StreamCounts,
        rows,
        &[
            ("kind", Arc::new(kinds.map(Some).collect::<StringArray>())),
            ("log_partition", Arc::new(Int32Array::from_value(partition, rows))),
            ("segment_start", number(start)),
            ("segment_end", number(end)),
            ("entity_id", Arc::new(entities.collect::<StringArray>())),
            ("count", Arc::new(counted(&|row| if row % 2 == 0 { start } else { end }))),
            (
                "accepted",
                Arc::new(std::iter::repeat_n(None, counts).chain([Some(start + end)]).collect::<Int64Array>()),
            ),
        ],
    )
}

fn today() -> i32 {
    date_of(NOW)
}

async fn fill(world: &World, rows: &[Row]) {
    let mut offsets = [0_i64; 2];
    for chunk in rows.chunks(3) {
        let mut files: BTreeMap<(i32, i32), Vec<Row>> = BTreeMap::new();
        for row in chunk {
            files.entry((today() - row.0, row.3)).or_default().push(*row);
        }
        for ((date, partition), rows) in files {
            let offset = &mut offsets[usize::try_from(partition).unwrap()];
            world.add_events(date, partition, *offset, &rows).await;
            *offset += 1;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Compaction lays rows out anew and changes none.
    #[test]
    fn compaction_keeps_the_rows(rows in proptest::collection::vec((0..2_i32, 0..5_u8, 0..1_000_i64, 0..2_i32), 1..150), coverage in 0..30_i64) {
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let world = World::new();
            fill(&world, &rows).await;
            world.cover([coverage, coverage]).await;
            let before = world.rows(Table::Events).await;
            let maintainer = world.maintainer();
            maintainer.compact_events(None).await.unwrap();
            assert_eq!(world.rows(Table::Events).await, before);
            let Outcome::Done(again) = maintainer.compact_events(None).await.unwrap() else { panic!("nobody else is there") };
            assert_eq!(again.commits, 0, "what is compact is left alone");
        });
    }
}

#[tokio::test]
async fn compacted_files_are_sorted_and_their_statistics_right() {
    let world = World::new();
    let rows: Vec<Row> = (0..60).map(|n| (0, (n * 7 % 5) as u8, 1_000 - n, 1)).collect();
    fill(&world, &rows).await;
    world.add_events(today() - 1, 0, 0, &rows[..1]).await;
    let Outcome::Done(done) = world.maintainer().compact_events(Some(today())).await.unwrap() else { panic!("alone") };
    assert_eq!((done.commits, done.files_before, done.files_after, done.rows), (1, 20, 1, 60));
    let snapshot = world.snapshot(Table::Events).await;
    assert_eq!(snapshot.transaction("maintain/events"), 1);
    assert_eq!(snapshot.files.len(), 2);
    let file = snapshot.files.iter().find(|file| file.rows == 60).unwrap();
    assert_eq!((file.min_i64("log_offset"), file.max_i64("log_offset")), (Some(0), Some(19)));
    assert_eq!((file.min_i64("log_partition"), file.max_i64("log_partition")), (Some(1), Some(1)));
    let batches = read_file(Arc::clone(&world.store), Table::Events, file).await.unwrap();
    let all = concat_batches(&file_schema(Table::Events), &batches).unwrap();
    let entities = all.column_by_name("entity_id").unwrap().as_string::<i32>();
    let times = all.column_by_name("event_time").unwrap().as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
    let order: Vec<(&str, i64)> = (0..60).map(|row| (entities.value(row), times.value(row))).collect();
    assert!(order.is_sorted());
}

#[tokio::test]
async fn files_on_both_sides_of_coverage_stay_apart() {
    let world = World::new();
    let rows: Vec<Row> = (0..60).map(|n| (0, 1, n, 0)).collect();
    fill(&world, &rows).await;
    world.cover([10, 0]).await;
    world.maintainer().compact_events(None).await.unwrap();
    let files = world.snapshot(Table::Events).await.files;
    let mut ends: Vec<_> =
        files.iter().map(|file| (file.min_i64("log_offset").unwrap(), file.max_i64("log_offset").unwrap())).collect();
    ends.sort_unstable();
    assert_eq!(ends, [(0, 9), (10, 19)]);
}

#[tokio::test]
async fn stream_counts_are_put_together_and_covered_ones_dropped_after_a_while() {
    let world = World::new();
    for start in 0..20 {
        world.add_segment(0, start * 10, start * 10 + 10, 2).await;
        world.add_segment(1, start * 10, start * 10 + 10, 2).await;
    }
    let before = world.rows(Table::StreamCounts).await;
    assert_eq!(before.len(), 120);
    let maintainer = world.maintainer();
    let Outcome::Done(done) = maintainer.compact_stream_counts().await.unwrap() else { panic!("alone") };
    assert_eq!((done.files_before, done.files_after), (40, 2));
    assert_eq!(world.rows(Table::StreamCounts).await, before, "every row, and its segment, is kept");
    let Outcome::Done(again) = maintainer.compact_stream_counts().await.unwrap() else { panic!("alone") };
    assert_eq!(again.commits, 0, "what is compact is left alone");

    for start in 20..24 {
        world.add_segment(0, start * 10, start * 10 + 10, 2).await;
    }
    world.cover([220, 200]).await;
    assert_eq!(maintainer.drop_covered().await.unwrap(), Outcome::Done(0), "a query may still read them");
    world.clock.advance(2 * MICROS_PER_HOUR);
    assert_eq!(maintainer.drop_covered().await.unwrap(), Outcome::Done(3));
    let files = world.snapshot(Table::StreamCounts).await.files;
    let mut left: Vec<_> = files
        .iter()
        .map(|file| {
            (
                file.min_i64("log_partition").unwrap(),
                file.min_i64("segment_start").unwrap(),
                file.max_i64("segment_end").unwrap(),
            )
        })
        .collect();
    left.sort_unstable();
    // Partition 1 is covered whole, but recovery begins at its last summary.
    assert_eq!(left, [(0, 220, 230), (0, 230, 240), (1, 0, 200)]);
}

#[tokio::test]
async fn files_without_late_events_are_put_together_with_others() {
    let (world, other) = (World::new(), World::new());
    for start in 0..20 {
        let (from, to) = (start * 10, start * 10 + 10);
        other.add_segment(0, from, to, 2).await;
        if start % 2 == 0 {
            world.add_segment(0, from, to, 2).await
        } else {
            world.add_old_segment(0, from, to, 2).await
        }
    }
    for world in [&world, &other] {
        let Outcome::Done(done) = world.maintainer().compact_stream_counts().await.unwrap() else { panic!("alone") };
        assert_eq!((done.files_before, done.files_after), (20, 1));
    }
    assert_eq!(world.rows(Table::StreamCounts).await, other.rows(Table::StreamCounts).await);
}

/// who finds some of a segment's rows in a file has found all of them.
#[tokio::test]
async fn a_segment_is_not_parted_where_a_file_is_full() {
    let mut world = World::new();
    for start in 0..20 {
        world.add_segment(0, start, start + 1, 3_000).await;
    }
    let before = world.rows(Table::StreamCounts).await;
    let bytes: u64 = world.snapshot(Table::StreamCounts).await.files.iter().map(|file| file.bytes).sum();
    // A file is full after a quarter of them, and rows come in batches that end within a segment.
    world.settings.archive.file_size = ByteSize::b(bytes / 2);
    let Outcome::Done(done) = world.maintainer().compact_stream_counts().await.unwrap() else { panic!("alone") };
    assert!(done.files_after > 2, "{done:?}");
    assert_eq!(world.rows(Table::StreamCounts).await, before);
    let mut files_of: BTreeMap<i64, usize> = BTreeMap::new();
    for file in world.snapshot(Table::StreamCounts).await.files.iter() {
        let mut segments: Vec<i64> = Vec::new();
        for batch in read_file(Arc::clone(&world.store), Table::StreamCounts, file).await.unwrap() {
            segments.extend(batch["segment_start"].as_primitive::<Int64Type>().values());
        }
        segments.dedup();
        segments.into_iter().for_each(|segment| *files_of.entry(segment).or_default() += 1);
    }
    assert_eq!(files_of, (0..20).map(|segment| (segment, 1)).collect(), "files of each segment");
}

#[tokio::test]
async fn old_events_go_once_they_are_counted_and_their_dates_are_closed() {
    let mut world = World::new();
    world.settings.retention.events_days = Some(30);
    let row: Row = (0, 1, 5, 0);
    world.add_events(today() - 31, 0, 0, &[row]).await;
    world.add_events(today() - 30, 0, 1, &[row]).await;
    world.add_events(today() - 40, 1, 0, &[row]).await;
    world.add_events(today() - 40, 0, 2, &[row]).await;
    world.cover([2, 1]).await;
    let maintainer = world.maintainer();
    assert_eq!(maintainer.expire_events().await.unwrap(), Outcome::Done(1));
    let snapshot = world.snapshot(Table::Events).await;
    let dates: Vec<_> = snapshot
        .files
        .iter()
        .map(|file| parse_date(file.partition["event_date"].as_deref().unwrap()).unwrap() - today())
        .collect();
    assert_eq!(dates.len(), 3);
    assert!(dates.contains(&-30), "it is kept 30 days");
    assert!(dates.contains(&-40), "a late event is counted first, and a date goes whole");
    assert_eq!(snapshot.transaction(&Transaction::Closed.to_string()), i64::from(today() - 30));
    world.cover([3, 1]).await;
    assert_eq!(maintainer.expire_events().await.unwrap(), Outcome::Done(2));
    assert_eq!(maintainer.expire_events().await.unwrap(), Outcome::Done(0));
}

#[tokio::test]
async fn old_dead_letters_go_and_a_round_reports() {
    let mut world = World::new();
    world.settings.retention.dead_letters_days = Some(7);
    world.settings.retention.removed_files = Duration::ZERO;
    let rows = batch(
        Table::DeadLetters,
        1,
        &[
            ("received_at", times(vec![NOW])),
            ("log_partition", Arc::new(Int32Array::from(vec![0]))),
            ("log_offset", Arc::new(Int64Array::from(vec![0]))),
            ("log_index", Arc::new(Int32Array::from(vec![0]))),
            ("reason", Arc::new(StringArray::from(vec!["malformed"]))),
            ("message", Arc::new(StringArray::from(vec!["m"]))),
            ("body_bytes", Arc::new(Int64Array::from(vec![0]))),
            ("body_hash", Arc::new(StringArray::from(vec!["0"]))),
        ],
    );
    for (offset, days) in (0_i64..).zip([7, 8]) {
        let date = format_date(today() - days);
        let file =
            world.write(Table::DeadLetters, &[("received_date", date)], &rows, &properties::dead_letters()).await;
        world.step(Table::DeadLetters, Transaction::Dead(LOG, 0), offset + 1, vec![file]).await;
    }
    world.clock.advance(1);
    let report = world.maintainer().run().await;
    assert_eq!((report.expired_dead_files, report.expired_event_files), (1, 0));
    assert_eq!((report.failed.len(), report.skipped.len()), (0, 0), "{report:?}");
    assert_eq!(world.snapshot(Table::DeadLetters).await.files.len(), 1);
}

#[tokio::test]
async fn a_file_that_lies_about_its_rows_is_not_replaced() {
    let mut world = World::new();
    world.settings.archive.file_size = ByteSize::mib(1);
    let rows: Vec<Row> = (0..60).map(|n| (0, 1, n, 0)).collect();
    fill(&world, &rows).await;
    let file = world.snapshot(Table::Events).await.files[0].clone();
    let batch = event_rows(today(), 0, 99, &rows[..1]);
    let mut wrong = world
        .write(Table::Events, &[("event_date", format_date(today()))], &batch, &properties::log_ordered_events())
        .await;
    wrong.rows = 2;
    world.step(Table::Events, Transaction::Archive(LOG, 0), 100, vec![wrong]).await;
    let before = world.snapshot(Table::Events).await;
    let error = world.maintainer().compact_events(None).await.unwrap_err();
    assert!(matches!(error, MaintainError::Rows { found: 61, expected: 62, .. }), "{error}");
    assert_eq!(world.snapshot(Table::Events).await, before);
    assert!(before.files.contains(&file));
}
