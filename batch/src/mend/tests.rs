//! Damaged raw events and damaged records of the log, each made anew from the other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod rebuild;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray as _, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Int32Type, Int64Type};
use bytes::Bytes;
use object_store::memory::InMemory;
use parking_lot::Mutex;
use reckon_data::clock::{ManualClock, Names, RandomNames, SeededNames};
use reckon_data::columns::EventBuilder;
use reckon_data::config;
use reckon_data::damage::{Damaged, Outcome};
use reckon_data::dead::DeadLetter;
use reckon_data::event::{Event, Reason, Refusal};
use reckon_data::files::FileWriter;
use reckon_data::jobs::Follower as _;
use reckon_data::log::memory::MemoryLog;
use reckon_data::log::{LogError, Stored};
use reckon_data::minute::{MICROS_PER_DAY, MICROS_PER_MINUTE};
use reckon_data::record::{Record, decode, encode_cut, encode_dead, encode_events};
use reckon_tables::read::read_file;
use reckon_tables::schema::file_schema;
use reckon_tables::{MemoryTables, MendedLog};
use uuid::Uuid;

use super::*;
use crate::archive::{Archiver, ArchiverParts, properties};
use crate::scratched::Scratched;

const NOW: i64 = 1_790_000_000_000_000;

/// Files that somebody says are damaged.
#[derive(Debug, Default)]
struct Said(Mutex<Vec<Damaged>>);

impl Damage for Said {
    fn damaged(&self) -> Vec<Damaged> {
        self.0.lock().clone()
    }
}

struct World {
    log: Arc<Scratched>,
    tables: Arc<dyn Tables>,
    store: Arc<dyn ObjectStore>,
    damage: Arc<Said>,
}

type Place = (i32, i64, i32);

impl World {
    fn new() -> Self {
        Self {
            log: Arc::new(Scratched::new(MemoryLog::new(2, &SeededNames::new(7)))),
            tables: Arc::new(MemoryTables::new(Arc::new(ManualClock::at(NOW)))),
            store: Arc::new(InMemory::new()),
            damage: Arc::default(),
        }
    }

    /// One with some of everything in its log, archived in several rounds.
    async fn filled() -> Self {
        let world = Self::new();
        for round in 0..4 {
            for partition in 0..2 {
                world.append(partition, events(round * 10, 40)).await;
                world.append(partition, dead(&format!("round {round}"))).await;
                world.append(partition, encode_cut(Uuid::from_u128(5), 1, NOW + 77)).await;
                world.append(partition, events(round * 10 + 5, 3)).await;
            }
            world.archive().await;
        }
        world
    }

    async fn append(&self, partition: u32, record: Bytes) {
        self.log.append(partition, vec![record]).await.unwrap();
    }

    async fn archive(&self) {
        let archiver = Archiver::start(ArchiverParts {
            log: Arc::clone(&self.log) as Arc<dyn Log>,
            partitions: (0..2).collect(),
            tables: Arc::clone(&self.tables),
            store: Arc::clone(&self.store),
            clock: Arc::new(ManualClock::at(NOW)),
            names: Arc::new(RandomNames),
            settings: config::Archive { commit_every: Duration::from_millis(5), ..config::Archive::default() },
        });
        let archiver = archiver.await.unwrap();
        let mut ends = Vec::new();
        for partition in 0..2 {
            ends.push(self.log.extent(partition).await.unwrap().end);
        }
        tokio::time::timeout(Duration::from_secs(20), archiver.reach(&ends)).await.expect("in time").unwrap();
        archiver.stop().await.unwrap();
    }

    fn mender(&self, file_bytes: u64) -> Mender {
        Mender::new(MenderParts {
            log: Arc::clone(&self.log) as Arc<dyn Log>,
            tables: Arc::clone(&self.tables),
            store: Arc::clone(&self.store),
            damage: Arc::clone(&self.damage) as Arc<dyn Damage>,
            names: Arc::new(RandomNames),
            file_bytes,
        })
    }

    fn mended(&self) -> MendedLog {
        MendedLog::new(Arc::clone(&self.log) as Arc<dyn Log>, Arc::clone(&self.tables), Arc::clone(&self.store))
    }

    async fn files(&self, table: Table) -> Vec<DataFile> {
        self.tables.snapshot(table).await.unwrap().files.to_vec()
    }

    fn damage(&self, table: Table, file: &DataFile) {
        let path = Storage::path(table, &file.path).to_string();
        self.damage.0.lock().push(Damaged { path, offset: 0 });
    }

    /// Puts the rows of the first two files of a date and partition into two others, each of which has some from all over.
    async fn interleave(&self) {
        let files = self.files(Table::Events).await;
        let of = |file: &DataFile| (file.partition.clone(), file.min_i64("log_partition"));
        let (first, rest) = files.split_first().unwrap();
        let pair = [first.clone(), rest.iter().find(|file| of(file) == of(first)).unwrap().clone()];
        let mut parts = [Vec::new(), Vec::new()];
        for file in &pair {
            for batch in read_file(Arc::clone(&self.store), Table::Events, file).await.unwrap() {
                for row in 0..batch.num_rows() {
                    parts[row % 2].push(batch.slice(row, 1));
                }
            }
        }
        let mut add = Vec::new();
        for (rows, name) in parts.iter().zip(["a", "b"]) {
            add.push(self.put(first, name, rows.as_slice()).await);
        }
        self.exchange(add, pair.to_vec()).await;
    }

    /// A file with these rows, of the date of another one.
    async fn put(&self, like: &DataFile, name: &str, rows: &[RecordBatch]) -> DataFile {
        let path = format!("{}/{name}.parquet", like.path.rsplit_once('/').unwrap().0);
        let (schema, options) = (file_schema(Table::Events), properties::sorted_events());
        let store = Arc::clone(&self.store);
        let file = FileWriter::create(store, Table::Events, path, &schema, &options, like.partition.clone());
        let mut file = file.unwrap();
        file.write(&concat_batches(&schema, rows).unwrap()).await.unwrap();
        file.close().await.unwrap()
    }

    /// Puts files of raw events in the place of others.
    async fn exchange(&self, add: Vec<DataFile>, remove: Vec<DataFile>) {
        let name = Transaction::Maintain(Table::Events).to_string();
        let from = self.tables.snapshot(Table::Events).await.unwrap().transaction(&name);
        let steps = vec![Step { name, from, to: from + 1 }];
        self.tables.commit(Commit { add, remove, ..commit(Table::Events, steps) }).await.unwrap();
    }

    /// Every row of a table, by its place: the date of its file, and all it says.
    async fn rows(&self, table: Table) -> BTreeMap<Place, String> {
        let mut rows = BTreeMap::new();
        for file in self.files(table).await {
            for batch in read_file(Arc::clone(&self.store), table, &file).await.unwrap() {
                let (of, index) = (batch["log_partition"].as_primitive::<Int32Type>(), &batch["log_index"]);
                let (offset, index) =
                    (batch["log_offset"].as_primitive::<Int64Type>(), index.as_primitive::<Int32Type>());
                for row in 0..batch.num_rows() {
                    let said = format!("{:?} {:?}", file.partition, batch.slice(row, 1).columns());
                    let place = (of.value(row), offset.value(row), index.value(row));
                    assert!(rows.insert(place, said).is_none(), "{place:?} is there twice");
                }
            }
        }
        rows
    }

    async fn records(&self, log: &dyn Log) -> Vec<Record> {
        let mut records = Vec::new();
        for partition in 0..2 {
            let extent = log.extent(partition).await.unwrap();
            for offset in extent {
                let read = log.read(partition, offset, 0).await.unwrap();
                assert_eq!(read[0].offset, offset);
                records.push(decode(&read[0].bytes).unwrap());
            }
        }
        records
    }
}

fn step(transaction: Transaction) -> Step {
    Step { name: transaction.to_string(), from: 0, to: 1 }
}

fn commit(table: Table, steps: Vec<Step>) -> Commit {
    let (token, operation) = (RandomNames.fresh(), "test".to_owned());
    Commit { table, steps, add: Vec::new(), remove: Vec::new(), data_change: true, token, operation }
}

/// A record of events of two dates.
fn events(from: usize, count: usize) -> Bytes {
    let mut builder = EventBuilder::default();
    for number in from..from + count {
        let id = format!("e{number}");
        let event_time = NOW - (number % 2) as i64 * MICROS_PER_DAY;
        let event = Event {
            event_id: &id,
            event_type: "view",
            entity_id: ["v1", "v2", "v3"][number % 3],
            event_time,
            user_id: (number % 4 == 0).then_some("u"),
            ip: None,
            country: (number % 3 == 0).then_some("DE"),
            value: (number % 5 == 0).then_some(-7),
            properties: (number % 7 == 0).then_some("{}"),
        };
        builder.push(&event, u64::MAX - number as u64);
    }
    encode_events(&builder.finish().unwrap(), 1, NOW + from as i64 * MICROS_PER_MINUTE).unwrap()
}

fn dead(text: &str) -> Bytes {
    let refusal = Refusal::new(Reason::TooLong, "event_id", text.to_owned());
    let letters = [DeadLetter::new(&refusal, Some("f:7"), b"{}"), DeadLetter::new(&refusal, None, &[0xff])];
    encode_dead(&letters, 1, NOW).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_written_anew_with_the_same_rows() {
    for table in [Table::Events, Table::DeadLetters] {
        let world = World::filled().await;
        let (before, files) = (world.rows(table).await, world.files(table).await);
        world.damage(table, &files[1]);
        assert_eq!(world.mender(1 << 20).run().await, 1, "{table:?}");
        assert_eq!(world.rows(table).await, before);
        let after = world.files(table).await;
        assert!(!after.contains(&files[1]) && files.iter().filter(|file| !after.contains(file)).count() == 1);
        // There is nothing left to do.
        assert_eq!(world.mender(1 << 20).run().await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_share_their_offsets_are_written_anew_together() {
    let world = World::filled().await;
    let before = world.rows(Table::Events).await;
    world.interleave().await;
    assert_eq!(world.rows(Table::Events).await, before);
    let files = world.files(Table::Events).await;
    world.damage(Table::Events, &files[0]);
    assert_eq!(world.mender(1).run().await, 1);
    assert_eq!(world.rows(Table::Events).await, before);
    let after = world.files(Table::Events).await;
    assert_eq!(files.iter().filter(|file| !after.contains(file)).count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_log_no_longer_holds_is_left_as_it_is() {
    let world = World::filled().await;
    let files = world.files(Table::Events).await;
    let first = files.iter().find(|file| file.min_i64("log_offset") == Some(0)).unwrap();
    world.damage(Table::Events, first);
    let partition = u32::try_from(first.min_i64("log_partition").unwrap()).unwrap();
    world.log.trim(partition, 1).await.unwrap();
    assert_eq!(world.mender(1 << 20).run().await, 0);
    assert_eq!(world.files(Table::Events).await, files);
    // Nor is anything replaced by fewer rows.
    let world = World::filled().await;
    let file = world.files(Table::Events).await[0].clone();
    let path = file.path.replace(".parquet", "x.parquet");
    let more = DataFile { path, rows: file.rows + 1, ..file.clone() };
    world.damage(Table::Events, &more);
    let steps = vec![step(Transaction::Maintain(Table::Events))];
    let commit = Commit { add: vec![more], remove: vec![file], ..commit(Table::Events, steps) };
    world.tables.commit(commit).await.unwrap();
    let files = world.files(Table::Events).await;
    assert_eq!(world.mender(1 << 20).run().await, 0);
    assert_eq!(world.files(Table::Events).await, files);
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_records_are_read_as_they_were() {
    let world = World::filled().await;
    let whole = world.records(&*world.log).await;
    let is_cut = |offset: &u64| offset % 4 == 2;
    for partition in 0..2 {
        world.log.records.lock().extend((0..16).filter(|o| !is_cut(o)).map(|offset| (partition, offset)));
    }
    let mended = world.mended();
    let made = world.records(&mended).await;
    assert_eq!(made.len(), whole.len());
    for (made, whole) in made.iter().zip(&whole) {
        let told = |record: &Record| (record.header.kind, record.header.events, record.header.append_time);
        assert_eq!(told(made), told(whole));
        assert_eq!(format!("{:?}", made.body), format!("{:?}", whole.body));
    }
    assert_eq!(mended.damaged().len(), 24);
    assert!(mended.damaged().iter().all(|record| record.outcome == Outcome::Mended));
    mended.trim(0, 10).await.unwrap();
    assert_eq!(mended.damaged().len(), 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_not_archived_or_may_have_lost_rows_is_not_made_up() {
    let world = World::filled().await;
    world.append(0, events(0, 1)).await;
    world.log.records.lock().extend([(0, 16), (1, 0), (1, 2)]);
    let mended = world.mended();
    let said = |read: Result<Vec<Stored>, LogError>| match read {
        Err(LogError::Corrupt { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    assert!(said(mended.read(0, 16, 0).await).contains("not archived"));
    assert!(mended.read(1, 0, 0).await.is_ok());
    // A cut, of which there is no other copy.
    assert!(said(mended.read(1, 2, 0).await).contains("cut"));
    // Retention removes raw events of some dates: a record may have had some of those.
    world.tables.commit(commit(Table::Events, vec![step(Transaction::Closed)])).await.unwrap();
    assert!(said(mended.read(1, 0, 0).await).contains("retention"));
    assert_eq!(mended.damaged().iter().filter(|record| record.outcome == Outcome::Mended).count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_not_all_there_make_no_record() {
    let world = World::filled().await;
    let files = world.files(Table::Events).await;
    // One of the two dates of the record is gone, and nobody says why.
    let gone = files.iter().find(|file| file.min_i64("log_offset") == Some(0)).unwrap().clone();
    let partition = u32::try_from(gone.min_i64("log_partition").unwrap()).unwrap();
    let steps = vec![step(Transaction::Maintain(Table::Events))];
    world.tables.commit(Commit { remove: vec![gone], ..commit(Table::Events, steps) }).await.unwrap();
    world.log.records.lock().insert((partition, 0));
    let read = world.mended().read(partition, 0, 0).await;
    assert!(matches!(read, Err(LogError::Corrupt { .. })), "{read:?}");
}
