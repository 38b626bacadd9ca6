//! Log, tables, store and an archiver that does as it is told.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray as _, Decimal128Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::Int64Type;
use async_trait::async_trait;
use bytesize::ByteSize;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt as _};
use parking_lot::Mutex;
use reckon_data::clock::{ManualClock, Names, SeededNames};
use reckon_data::definition::Definition;
use reckon_data::files::{FileWriter, WriteOptions};
use reckon_data::jobs::{Follower, RunRequest};
use reckon_data::log::{Log, memory::MemoryLog};
use reckon_data::minute::{MICROS_PER_DAY, date_of, format_date};
use reckon_data::paths::{Transaction, partition_folder, segment_file};
use reckon_data::record::encode_cut;
use reckon_data::table::{Commit, DataFile, Snapshot, Step, Table, Tables};
use reckon_tables::read::read_file;
use reckon_tables::schema::{VALUE_TYPE, file_schema};
use reckon_tables::{CheckedStore, MemoryTables, Storage};
use tempfile::TempDir;
use uuid::Uuid;

use super::oracle::{Counts, Placed, Row, read};
use crate::recompute::{BatchError, Cluster, Recompute, RecomputeParts, RunReport, Settings};

/// 2024-01-10T00:00:00Z.
pub const DAY: i64 = 19_732 * MICROS_PER_DAY;
/// A minute, microseconds.
pub const MINUTE: i64 = reckon_data::minute::MICROS_PER_MINUTE;

#[derive(Debug)]
pub struct World {
    pub clock: Arc<ManualClock>,
    pub definition: Arc<Definition>,
    pub archive: Arc<Archive>,
    spill: TempDir,
}

/// The archiver, and what it works with.
#[derive(Debug)]
pub struct Archive {
    pub log: MemoryLog,
    pub tables: Arc<MemoryTables>,
    pub store: Arc<dyn ObjectStore>,
    /// The same with what it knows of damage, and what lies below.
    pub checked: CheckedStore,
    disk: Arc<InMemory>,
    pub names: Arc<SeededNames>,
    pending: Mutex<Vec<Placed>>,
    /// Appended when the next run waits: these lie above its cuts.
    pub late: Mutex<Vec<(u32, Vec<Row>)>>,
    /// Says so instead of committing.
    pub broken: Mutex<Option<String>>,
    /// Rows of a file at most.
    file_rows: usize,
}

impl World {
    pub fn new(partitions: u32) -> Self {
        Self::with(partitions, Definition::default(), usize::MAX)
    }

    pub fn with(partitions: u32, definition: Definition, file_rows: usize) -> Self {
        let names = Arc::new(SeededNames::new(7));
        let clock = Arc::new(ManualClock::at(DAY + MICROS_PER_DAY / 2));
        let disk = Arc::new(InMemory::new());
        let checked = CheckedStore::new(Arc::clone(&disk) as Arc<dyn ObjectStore>);
        let archive = Archive {
            log: MemoryLog::new(partitions, &*names),
            tables: Arc::new(MemoryTables::new(clock.clone())),
            store: Arc::new(checked.clone()),
            checked,
            disk,
            names,
            pending: Mutex::default(),
            late: Mutex::default(),
            broken: Mutex::default(),
            file_rows,
        };
        Self { clock, definition: Arc::new(definition), archive: Arc::new(archive), spill: TempDir::new().unwrap() }
    }

    /// Appends a record with such events and returns them with their places.
    pub async fn add(&self, partition: u32, rows: Vec<Row>) -> Vec<Placed> {
        self.archive.add(partition, rows).await
    }

    pub fn recompute(&self, threads: usize) -> Recompute {
        self.recompute_on(threads, None)
    }

    pub fn recompute_on(&self, threads: usize, cluster: Option<Arc<dyn Cluster>>) -> Recompute {
        let parts = RecomputeParts {
            cluster,
            damage: Arc::new(self.archive.checked.clone()),
            log: Arc::new(self.archive.log.clone()),
            tables: self.archive.tables.clone(),
            store: Arc::clone(&self.archive.store),
            spill_dir: self.spill.path().to_owned(),
            definition: Arc::clone(&self.definition),
            routing: 1,
            clock: self.clock.clone(),
            names: self.archive.names.clone(),
            // So little that every chunk has the smallest size there is.
            settings: Settings { memory: ByteSize::mib(64), ..Settings::default() },
            followers: vec![self.archive.clone()],
        };
        Recompute::with_threads(parts, threads).unwrap()
    }

    pub async fn try_run(&self, request: &RunRequest) -> Result<RunReport, BatchError> {
        self.recompute(2).run(request, self.archive.names.fresh(), &|_| {}).await
    }

    pub async fn run(&self) -> RunReport {
        self.try_run(&RunRequest::default()).await.unwrap()
    }

    pub async fn run_full(&self) -> RunReport {
        self.try_run(&RunRequest { full: true, ..RunRequest::default() }).await.unwrap()
    }

    pub async fn snapshot(&self, table: Table) -> Snapshot {
        self.archive.tables.snapshot(table).await.unwrap()
    }

    /// Everything in `batch_counts`.
    pub async fn counts(&self) -> Counts {
        let mut counts = Counts::new();
        for file in self.snapshot(Table::BatchCounts).await.files.iter() {
            let granularity = match file.partition["granularity"].as_deref().unwrap() {
                "minute" => "minute",
                "hour" => "hour",
                "day" => "day",
                other => panic!("{other}"),
            };
            let batches = read_file(Arc::clone(&self.archive.store), Table::BatchCounts, file).await.unwrap();
            read(granularity, &batches, &mut counts);
        }
        counts
    }

    /// Flips a bit in the middle of all files of a table that are of a kind, and has the damage found.
    pub async fn flip(&self, table: Table, is_meant: impl Fn(&DataFile) -> bool) {
        let snapshot = self.snapshot(table).await;
        for file in snapshot.files.iter().filter(|file| is_meant(file)) {
            let path = Storage::path(table, &file.path);
            let mut bytes = self.archive.disk.get(&path).await.unwrap().bytes().await.unwrap().to_vec();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            self.archive.disk.put(&path, bytes.into()).await.unwrap();
            let read = self.archive.store.get(&path).await;
            assert!(read.is_err() || read.unwrap().bytes().await.is_err(), "{path} was read");
        }
    }

    /// Deletes all files of a table that are of a kind; the table refers to them all the same.
    pub async fn lose(&self, table: Table, is_meant: impl Fn(&DataFile) -> bool) {
        let snapshot = self.snapshot(table).await;
        for file in snapshot.files.iter().filter(|file| is_meant(file)) {
            self.archive.disk.delete(&Storage::path(table, &file.path)).await.unwrap();
        }
    }

    /// Nobody has met any damage yet.
    pub async fn restart(&mut self) {
        let checked = CheckedStore::new(Arc::clone(&self.archive.disk) as Arc<dyn ObjectStore>);
        for table in [Table::Events, Table::BatchCounts] {
            for file in self.snapshot(table).await.files.iter() {
                let path = Storage::path(table, &file.path);
                let sums = self.archive.checked.sums(&path).unwrap();
                checked.know(path, (*sums).clone());
            }
        }
        let archive = Arc::get_mut(&mut self.archive).unwrap();
        archive.store = Arc::new(checked.clone());
        archive.checked = checked;
    }

    /// The sum of the counts of one granularity.
    pub async fn counted(&self, granularity: &str) -> i64 {
        let mut sum = 0;
        for file in self.snapshot(Table::BatchCounts).await.files.iter() {
            if file.partition["granularity"].as_deref() == Some(granularity) {
                for batch in read_file(Arc::clone(&self.archive.store), Table::BatchCounts, file).await.unwrap() {
                    sum += batch["count"].as_primitive::<Int64Type>().values().iter().sum::<i64>();
                }
            }
        }
        sum
    }

    /// Removes all raw events of a date, as retention does.
    pub async fn forget(&self, date: i32) {
        let text = Some(format_date(date));
        let files = self.snapshot(Table::Events).await.files;
        self.remove(files.iter().filter(|file| file.partition["event_date"] == text).cloned().collect()).await;
    }

    /// Removes raw events, and nobody says why.
    pub async fn remove(&self, gone: Vec<DataFile>) {
        let name = Transaction::Maintain(Table::Events).to_string();
        let from = self.snapshot(Table::Events).await.transaction(&name);
        let steps = vec![Step { name, from, to: from + 1 }];
        self.archive.commit(steps, Vec::new(), gone).await;
    }
}

impl World {
    /// Removes raw events of a date as retention does, and closes all dates up to it.
    pub async fn expire(&self, date: i32, gone: Vec<DataFile>) {
        let before = self.snapshot(Table::Events).await;
        let step = |transaction: Transaction, to: fn(i64, i32) -> i64| {
            let name = transaction.to_string();
            let from = before.transaction(&name);
            Step { name, from, to: to(from, date) }
        };
        let closed = step(Transaction::Closed, |_, date| i64::from(date) + 1);
        let counted = step(Transaction::Maintain(Table::Events), |from, _| from + 1);
        self.archive.commit(vec![closed, counted], Vec::new(), gone).await;
    }
}

impl Archive {
    async fn add(&self, partition: u32, rows: Vec<Row>) -> Vec<Placed> {
        let offset = self.log.append(partition, vec![encode_cut(Uuid::nil(), 0, 0)]).await.unwrap().start;
        let placed: Vec<Placed> =
            (0..).zip(rows).map(|(index, row)| Placed { partition, offset, index, row }).collect();
        self.pending.lock().extend(placed.iter().cloned());
        placed
    }

    async fn commit(&self, steps: Vec<Step>, add: Vec<DataFile>, remove: Vec<DataFile>) {
        let commit = Commit {
            table: Table::Events,
            steps,
            add,
            remove,
            data_change: true,
            token: self.names.fresh(),
            operation: "test".to_owned(),
        };
        self.tables.commit(commit).await.unwrap();
    }

    async fn archive(&self) {
        let late = std::mem::take(&mut *self.late.lock());
        for (partition, rows) in late {
            self.add(partition, rows).await;
        }
        let mut groups: BTreeMap<(i32, u32), Vec<Placed>> = BTreeMap::new();
        for placed in std::mem::take(&mut *self.pending.lock()) {
            groups.entry((date_of(placed.row.time), placed.partition)).or_default().push(placed);
        }
        let mut files = Vec::new();
        for ((date, partition), rows) in groups {
            for rows in rows.chunks(self.file_rows) {
                files.push(self.file(date, partition, rows).await);
            }
        }
        let before = self.tables.snapshot(Table::Events).await.unwrap();
        let mut steps = Vec::new();
        for partition in 0..self.log.partitions() {
            let name = Transaction::Archive(self.log.identity(), partition).to_string();
            let (from, end) = (before.transaction(&name), self.log.extent(partition).await.unwrap().end);
            steps.push(Step { name, from, to: end as i64 });
        }
        self.commit(steps, files, Vec::new()).await;
    }

    async fn file(&self, date: i32, partition: u32, rows: &[Placed]) -> DataFile {
        let (date, range) = (format_date(date), (rows[0].offset, rows[rows.len() - 1].offset + 1));
        let name = segment_file(partition, range.0, range.1, self.names.fresh());
        let path = format!("{}{name}", partition_folder("event_date", &date));
        let values = BTreeMap::from([("event_date".to_owned(), Some(date))]);
        let options = WriteOptions {
            row_group_rows: 1_000,
            stats: vec!["log_partition".to_owned(), "log_offset".to_owned(), "entity_id".to_owned()],
            ..WriteOptions::default()
        };
        let (schema, store) = (file_schema(Table::Events), Arc::clone(&self.store));
        let mut writer = FileWriter::create(store, Table::Events, path, &schema, &options, values).unwrap();
        writer.write(&batch(rows)).await.unwrap();
        writer.close().await.unwrap()
    }
}

fn batch(rows: &[Placed]) -> RecordBatch {
    let texts = |of: fn(&Row) -> Option<&str>| -> ArrayRef {
        Arc::new(rows.iter().map(|placed| of(&placed.row)).collect::<StringArray>())
    };
    let times = |of: fn(&Row) -> i64| -> ArrayRef {
        let times: TimestampMicrosecondArray = rows.iter().map(|placed| Some(of(&placed.row))).collect();
        Arc::new(times.with_timezone("UTC"))
    };
    let received: TimestampMicrosecondArray = rows.iter().map(|placed| Some(placed.received_at())).collect();
    let received: ArrayRef = Arc::new(received.with_timezone("UTC"));
    let values: Decimal128Array = rows.iter().map(|placed| placed.row.value.map(i128::from)).collect();
    let hashes: Int64Array = rows.iter().map(|placed| Some(placed.row.key_hash().cast_signed())).collect();
    let partitions: Int32Array = rows.iter().map(|placed| Some(placed.partition as i32)).collect();
    let offsets: Int64Array = rows.iter().map(|placed| Some(placed.offset as i64)).collect();
    let indexes: Int32Array = rows.iter().map(|placed| Some(placed.index as i32)).collect();
    let columns: Vec<ArrayRef> = vec![
        texts(|row| Some(&row.id)),
        texts(|row| Some(row.kind)),
        texts(|row| Some(&row.entity)),
        times(|row| row.time),
        texts(|row| row.user),
        texts(|_| None),
        texts(|row| row.country),
        Arc::new(values.with_data_type(VALUE_TYPE)),
        texts(|_| None),
        Arc::new(hashes),
        received,
        Arc::new(partitions),
        Arc::new(offsets),
        Arc::new(indexes),
    ];
    RecordBatch::try_new(file_schema(Table::Events), columns).unwrap()
}

#[async_trait]
impl Follower for Archive {
    async fn reach(&self, _offsets: &[u64]) -> Result<(), String> {
        if let Some(reason) = self.broken.lock().take() {
            return Err(reason);
        }
        self.archive().await;
        Ok(())
    }

    fn committed(&self) -> Vec<u64> {
        Vec::new()
    }
}
