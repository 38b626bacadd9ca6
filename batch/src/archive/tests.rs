//! The archiver against a log, tables and a store in memory, which outlive it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod exactly_once;
mod gap;
mod stuck;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use bytes::Bytes;
use bytesize::ByteSize;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use reckon_data::clock::{ManualClock, Names, RandomNames, SeededNames};
use reckon_data::columns::EventBuilder;
use reckon_data::config;
use reckon_data::dead::DeadLetter;
use reckon_data::event::{Event, Reason, Refusal};
use reckon_data::jobs::Follower;
use reckon_data::log::Log;
use reckon_data::log::memory::MemoryLog;
use reckon_data::minute::{MICROS_PER_DAY, date_of, format_date};
use reckon_data::paths::Transaction;
use reckon_data::record::{encode_cut, encode_dead, encode_events};
use reckon_data::table::{Commit, Step, Table, TableError, Tables};
use reckon_tables::MemoryTables;
use reckon_tables::read::read_file;

use super::{ArchiveError, Archiver, ArchiverParts};

const NOW: i64 = 1_790_000_000_000_000;

/// What outlives an archiver.
struct World {
    log: MemoryLog,
    tables: Arc<dyn Tables>,
    store: Arc<dyn ObjectStore>,
    settings: config::Archive,
}

impl World {
    fn new(partitions: u32) -> Self {
        Self {
            log: MemoryLog::new(partitions, &SeededNames::new(7)),
            tables: Arc::new(MemoryTables::new(Arc::new(ManualClock::at(NOW)))),
            store: Arc::new(InMemory::new()),
            settings: config::Archive { commit_every: Duration::from_millis(5), ..config::Archive::default() },
        }
    }

    /// Commits when asked to only.
    fn patient(mut self) -> Self {
        self.settings.commit_every = Duration::from_secs(3_600);
        self
    }

    fn parts(&self) -> ArchiverParts {
        ArchiverParts {
            log: Arc::new(self.log.clone()),
            partitions: (0..self.log.partitions()).collect(),
            tables: Arc::clone(&self.tables),
            store: Arc::clone(&self.store),
            clock: Arc::new(ManualClock::at(NOW)),
            names: Arc::new(RandomNames),
            settings: self.settings.clone(),
        }
    }

    async fn start(&self) -> Arc<Archiver> {
        Archiver::start(self.parts()).await.unwrap()
    }

    async fn append(&self, partition: u32, record: Bytes) -> u64 {
        self.log.append(partition, vec![record]).await.unwrap().end
    }

    async fn ends(&self) -> Vec<u64> {
        let mut ends = Vec::new();
        for partition in 0..self.log.partitions() {
            ends.push(self.log.extent(partition).await.unwrap().end);
        }
        ends
    }

    /// Archives everything there is.
    async fn settle(&self) {
        let archiver = self.start().await;
        let ends = self.ends().await;
        tokio::time::timeout(Duration::from_secs(20), archiver.reach(&ends)).await.expect("in time").unwrap();
        archiver.stop().await.unwrap();
        assert_eq!(archiver.committed(), ends);
    }

    /// Every row of `events`, as partition, offset, index → date of the file, event id.
    async fn events(&self) -> BTreeMap<(i32, i64, i32), (String, String)> {
        let mut rows = BTreeMap::new();
        for (date, batch) in self.rows(Table::Events, "event_date").await {
            for (row, place) in places(&batch).into_iter().enumerate() {
                let id = batch.column_by_name("event_id").unwrap().as_string::<i32>().value(row).to_owned();
                let times = batch.column_by_name("event_time").unwrap().as_primitive::<TimestampMicrosecondType>();
                assert_eq!(format_date(date_of(times.value(row))), date);
                assert!(rows.insert(place, (date.clone(), id)).is_none(), "{place:?} is there twice");
            }
        }
        rows
    }

    async fn rows(&self, table: Table, column: &str) -> Vec<(String, RecordBatch)> {
        let mut rows = Vec::new();
        for file in self.tables.snapshot(table).await.unwrap().files.iter() {
            let date = file.partition[column].clone().unwrap();
            assert!(file.path.starts_with(&format!("{column}={date}/p")), "{}", file.path);
            assert_eq!(file.min_i64("log_partition"), file.max_i64("log_partition"));
            for batch in read_file(Arc::clone(&self.store), table, file).await.unwrap() {
                for (_, offset, _) in places(&batch) {
                    assert!(
                        file.min_i64("log_offset").unwrap() <= offset && offset <= file.max_i64("log_offset").unwrap()
                    );
                }
                rows.push((date.clone(), batch));
            }
        }
        rows
    }
}

fn places(batch: &RecordBatch) -> Vec<(i32, i64, i32)> {
    let partition = batch.column_by_name("log_partition").unwrap().as_primitive::<Int32Type>();
    let offset = batch.column_by_name("log_offset").unwrap().as_primitive::<Int64Type>();
    let index = batch.column_by_name("log_index").unwrap().as_primitive::<Int32Type>();
    (0..batch.num_rows()).map(|row| (partition.value(row), offset.value(row), index.value(row))).collect()
}

/// A record of events at these times, with ids that begin with `tag`.
fn events_at(tag: &str, times: &[i64]) -> Bytes {
    let mut builder = EventBuilder::default();
    for (index, time) in times.iter().enumerate() {
        let id = format!("{tag}/{index}");
        let event = Event {
            event_id: &id,
            event_type: "view",
            entity_id: "video-1",
            event_time: *time,
            user_id: Some("u"),
            ip: None,
            country: Some("SE"),
            value: Some(-1_500_000),
            properties: None,
        };
        builder.push(&event, u64::MAX - index as u64);
    }
    encode_events(&builder.finish().unwrap(), 0, NOW).unwrap()
}

fn dead(body: &[u8]) -> Bytes {
    let refusal = Refusal::new(Reason::Malformed, "value", "not a number".to_owned());
    encode_dead(&[DeadLetter::new(&refusal, Some("clicks.gz:7"), body)], 0, NOW).unwrap()
}

fn cut() -> Bytes {
    encode_cut(SeededNames::new(1).fresh(), 0, NOW)
}

#[tokio::test]
async fn rows_carry_their_place_and_all_columns() {
    let world = World::new(2);
    world.append(1, events_at("a", &[NOW, NOW + 1])).await;
    world.settle().await;
    let rows = world.rows(Table::Events, "event_date").await;
    let [(_, batch)] = &rows[..] else { panic!("one file, one batch") };
    assert_eq!(batch.schema(), reckon_tables::schema::file_schema(Table::Events));
    assert_eq!(places(batch), [(1, 0, 0), (1, 0, 1)]);
    let hashes = batch.column_by_name("key_hash").unwrap().as_primitive::<Int64Type>();
    assert_eq!(hashes.values().to_vec(), [-1, -2], "the hash's bits are kept");
    let received = batch.column_by_name("received_at").unwrap().as_primitive::<TimestampMicrosecondType>();
    assert_eq!(received.values().to_vec(), [NOW, NOW]);
}

#[tokio::test]
async fn a_record_over_several_dates_is_split_and_its_order_kept() {
    let world = World::new(1);
    let times = [NOW, NOW - MICROS_PER_DAY, NOW + 1, NOW - 3 * MICROS_PER_DAY, NOW - MICROS_PER_DAY + 1];
    world.append(0, events_at("a", &times)).await;
    world.append(0, events_at("b", &[NOW - MICROS_PER_DAY])).await;
    world.settle().await;
    let events = world.events().await;
    assert_eq!(events.len(), 6);
    let on = |offset, index| events[&(0, offset, index)].0.clone();
    assert_eq!(on(0, 3), format_date(date_of(NOW) - 3));
    assert_eq!(on(1, 0), format_date(date_of(NOW) - 1));
    for (_, batch) in world.rows(Table::Events, "event_date").await {
        assert!(places(&batch).is_sorted(), "rows lie in log order");
    }
    assert_eq!(world.tables.snapshot(Table::Events).await.unwrap().files.len(), 3, "one file a date");
}

#[tokio::test]
async fn dead_letters_keep_their_bytes() {
    let world = World::new(1);
    world.append(0, dead(&[0xff, 0, b'{'])).await;
    world.settle().await;
    let rows = world.rows(Table::DeadLetters, "received_date").await;
    let [(date, batch)] = &rows[..] else { panic!("one dead letter") };
    assert_eq!(*date, format_date(date_of(NOW)));
    assert_eq!(batch.column_by_name("body").unwrap().as_binary::<i32>().value(0), [0xff, 0, b'{']);
    assert_eq!(batch.column_by_name("body_bytes").unwrap().as_primitive::<Int64Type>().value(0), 3);
    assert_eq!(batch.column_by_name("source").unwrap().as_string::<i32>().value(0), "clicks.gz:7");
    assert!(world.events().await.is_empty());
}

#[tokio::test]
async fn reach_commits_at_once_and_cuts_count() {
    let world = World::new(3).patient();
    let archiver = world.start().await;
    world.append(0, events_at("a", &[NOW])).await;
    let mut cuts = Vec::new();
    for partition in 0..3 {
        cuts.push(world.append(partition, cut()).await);
    }
    tokio::time::timeout(Duration::from_secs(10), archiver.reach(&cuts)).await.expect("in time").unwrap();
    assert_eq!(archiver.committed(), [2, 1, 1]);
    let snapshot = world.tables.snapshot(Table::Events).await.unwrap();
    let identity = world.log.identity();
    let at = |partition| snapshot.transaction(&Transaction::Archive(identity, partition).to_string());
    assert_eq!([at(0), at(1), at(2)], [2, 1, 1]);
    assert_eq!(snapshot.files.len(), 1);
    assert_eq!(archiver.stats().lag_records, 0);
    assert!(archiver.reach(&[1]).await.unwrap_err().contains("3 partitions"));
    archiver.stop().await.unwrap();
    assert!(archiver.reach(&[9, 9, 9]).await.unwrap_err().contains("stopped"));
}

#[tokio::test]
async fn stop_commits_what_was_read() {
    let world = World::new(1).patient();
    let archiver = world.start().await;
    world.append(0, events_at("a", &[NOW])).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(archiver.committed(), [0], "nobody was in a hurry");
    archiver.stop().await.unwrap();
    assert_eq!(world.events().await.len(), 1);
    assert_eq!(archiver.stats().events, 1);
}

#[tokio::test]
async fn a_second_archiver_fences_the_first_off() {
    let world = World::new(1).patient();
    let first = world.start().await;
    world.append(0, events_at("a", &[NOW])).await;
    world.settle().await;
    let error = first.reach(&[1]).await.unwrap_err();
    assert!(error.contains("fenced"), "{error}");
    assert!(matches!(*first.failure().unwrap(), ArchiveError::Fenced(TableError::Fenced { .. })));
    assert_eq!(world.events().await.len(), 1);
}

#[tokio::test]
async fn a_log_that_does_not_reach_back_is_refused() {
    let world = World::new(1);
    for _ in 0..3 {
        world.append(0, cut()).await;
    }
    world.log.trim(0, 2).await.unwrap();
    let error = Archiver::start(world.parts()).await.unwrap_err();
    assert!(matches!(error, ArchiveError::Trimmed { partition: 0, archived: 0, start: 2 }), "{error}");

    let behind = World::new(1);
    let name = Transaction::Archive(behind.log.identity(), 0).to_string();
    behind.tables.commit(steps(Table::Events, name, 0, 5)).await.unwrap();
    let error = Archiver::start(behind.parts()).await.unwrap_err();
    assert!(matches!(error, ArchiveError::LogBehind { archived: 5, end: 0, .. }), "{error}");
}

#[tokio::test]
async fn tables_at_different_places_are_brought_together() {
    let world = World::new(1);
    world.append(0, events_at("a", &[NOW])).await;
    world.append(0, dead(b"x")).await;
    // Events were committed once, and then the archiver died.
    let name = Transaction::Archive(world.log.identity(), 0).to_string();
    world.tables.commit(steps(Table::Events, name, 0, 1)).await.unwrap();
    world.append(0, events_at("b", &[NOW])).await;
    world.settle().await;
    assert_eq!(world.events().await.into_keys().collect::<Vec<_>>(), [(0, 2, 0)]);
    assert_eq!(world.rows(Table::DeadLetters, "received_date").await.len(), 1);
}

#[tokio::test]
async fn another_log_is_refused_whatever_its_offsets() {
    let world = World::new(1);
    world.append(0, events_at("a", &[NOW])).await;
    world.settle().await;
    let mut other = World::new(1);
    other.log = MemoryLog::new(1, &SeededNames::new(8));
    other.tables = Arc::clone(&world.tables);
    for n in 0..3 {
        other.append(0, events_at(&format!("b{n}"), &[NOW])).await;
    }
    let error = Archiver::start(other.parts()).await.unwrap_err();
    assert!(matches!(&error, ArchiveError::OtherLog { log, .. } if *log == other.log.identity()), "{error}");
    assert!(error.to_string().contains(&world.log.identity().to_string()), "{error}");
    assert_eq!(world.events().await.len(), 1);
}

/// Tables whose commits panic.
#[derive(Debug)]
struct Panicking(Arc<dyn Tables>);

#[async_trait::async_trait]
impl Tables for Panicking {
    async fn snapshot(&self, table: Table) -> Result<reckon_data::table::Snapshot, TableError> {
        self.0.snapshot(table).await
    }

    async fn version(&self, table: Table) -> Result<u64, TableError> {
        self.0.version(table).await
    }

    async fn commit(&self, _: Commit) -> Result<u64, TableError> {
        std::panic::resume_unwind(Box::new("a defect"))
    }

    async fn vacuum(&self, table: Table, retention_micros: i64) -> Result<u64, TableError> {
        self.0.vacuum(table, retention_micros).await
    }
}

#[tokio::test]
async fn a_panic_in_its_task_is_told_to_whoever_waits() {
    let mut world = World::new(1);
    world.tables = Arc::new(Panicking(Arc::clone(&world.tables)));
    let archiver = world.start().await;
    let end = world.append(0, events_at("a", &[NOW])).await;
    let reached = tokio::time::timeout(Duration::from_secs(20), archiver.reach(&[end])).await.expect("in time");
    assert!(reached.unwrap_err().contains("panicked"));
    assert!(matches!(*archiver.failure().unwrap(), ArchiveError::Thread(_)));
    assert!(archiver.stop().await.is_err());
}

fn steps(table: Table, name: String, from: i64, to: i64) -> Commit {
    Commit {
        table,
        steps: vec![Step { name, from, to }],
        add: Vec::new(),
        remove: Vec::new(),
        data_change: false,
        token: RandomNames.fresh(),
        operation: "test".to_owned(),
    }
}

#[tokio::test]
async fn large_files_are_streamed_and_end_a_round() {
    let mut world = World::new(1).patient();
    world.settings.file_size = ByteSize::kib(256);
    let archiver = world.start().await;
    let times: Vec<i64> = (0..2_000).map(|n| NOW + n).collect();
    for record in 0..100 {
        world.append(0, events_at(&format!("{record}-{}", RandomNames.fresh()), &times)).await;
    }
    tokio::time::timeout(Duration::from_secs(20), async {
        while archiver.committed()[0] == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("size alone makes it commit");
    archiver.stop().await.unwrap();
    world.settle().await;
    assert_eq!(world.events().await.len(), 200_000);
}

#[tokio::test]
async fn hundreds_of_dates_in_a_record_are_taken() {
    let world = World::new(1);
    let times: Vec<i64> = (0..1_200).map(|n| NOW - n % 400 * MICROS_PER_DAY).collect();
    for record in 0..3 {
        world.append(0, events_at(&record.to_string(), &times)).await;
    }
    world.settle().await;
    assert_eq!(world.events().await.len(), 3_600);
}

/// Partitions of one log in archivers of their own, as processes have them.
#[tokio::test(flavor = "multi_thread")]
async fn two_archivers_share_a_log() {
    let world = World::new(2);
    for partition in 0..2 {
        world.append(partition, events_at("a", &[NOW, NOW + 1])).await;
    }
    let start = |partition| Archiver::start(ArchiverParts { partitions: BTreeSet::from([partition]), ..world.parts() });
    let (one, two) = (start(0).await.unwrap(), start(1).await.unwrap());
    let ends = world.ends().await;
    one.reach(&ends).await.unwrap();
    assert_eq!(one.committed(), [ends[0], 0]);
    assert_eq!(world.events().await.len(), 2, "the other partition is the other's");
    two.reach(&ends).await.unwrap();
    one.stop().await.unwrap();
    two.stop().await.unwrap();
    assert_eq!(world.events().await.len(), 4);
}
