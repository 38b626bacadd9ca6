//! A world for a counter: a log, tables and a store that outlive it, and what must be counted.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use parking_lot::Mutex;
use reckon_data::clock::{ManualClock, RandomNames};
use reckon_data::config::{Counting, Retention};
use reckon_data::definition::Definition;
use reckon_data::log::Log;
use reckon_data::log::memory::MemoryLog;
use reckon_data::logtime::LogTime;
use reckon_data::metric::Cell;
use reckon_data::minute::{MICROS_PER_MINUTE, minute_of};
use reckon_data::paths::Transaction;
use reckon_data::run::{Run, RunBuilder, Selection, StepSums};
use reckon_data::segment::Summary;
use reckon_data::table::{Commit, Step, Table, Tables};
use reckon_data::tail::{Tail, Tails};
use reckon_tables::MemoryTables;
use reckon_tables::read::stream_file;

use crate::counter::file::{SUMMARY_COLUMNS, places, summaries};
use crate::counter::testing::{Appended, Entry, Sample};
use crate::counter::{Counter, CounterError, CounterParts};

pub(super) const MINUTE: i64 = MICROS_PER_MINUTE;
const WINDOW: u32 = 3;

type Key = (String, String, i64, Option<String>);
pub(super) type Counted = BTreeMap<Key, Cell>;

pub(super) fn settings() -> Counting {
    Counting { dedup_minutes: WINDOW, segment_events: 1_000_000, ..Counting::default() }
}

/// A view of an entity, all of them in one minute of event time.
pub(super) fn view(entity: &str, id: u32) -> Sample {
    Sample { id: id.to_string(), event_type: "view".into(), entity: entity.into(), ..Sample::default() }
}

pub(super) struct World {
    pub(super) log: MemoryLog,
    pub(super) tables: Arc<MemoryTables>,
    pub(super) store: Arc<InMemory>,
    pub(super) clock: Arc<ManualClock>,
    appended: Mutex<Vec<Vec<Appended>>>,
}

impl World {
    pub(super) fn new(partitions: u32) -> Self {
        let clock = Arc::new(ManualClock::at(0));
        let clock_too: Arc<ManualClock> = Arc::clone(&clock);
        Self {
            log: MemoryLog::new(partitions, &RandomNames),
            tables: Arc::new(MemoryTables::new(clock_too)),
            store: Arc::new(InMemory::new()),
            clock,
            appended: Mutex::new(vec![Vec::new(); partitions as usize]),
        }
    }

    pub(super) fn parts(&self, settings: Counting) -> CounterParts {
        CounterParts {
            log: Arc::new(self.log.clone()),
            partitions: (0..self.log.partitions()).collect(),
            tables: Arc::clone(&self.tables) as Arc<dyn Tables>,
            store: Arc::clone(&self.store) as Arc<dyn ObjectStore>,
            definition: Arc::new(Definition::default()),
            clock: Arc::clone(&self.clock) as Arc<_>,
            names: Arc::new(RandomNames),
            settings,
            retention: Retention::default(),
        }
    }

    pub(super) async fn try_start(&self, settings: Counting) -> Result<Arc<Counter>, CounterError> {
        Counter::start(self.parts(settings)).await
    }

    pub(super) async fn start(&self, settings: Counting) -> Arc<Counter> {
        self.try_start(settings).await.unwrap()
    }

    /// Appends a record at a time; returns its offset.
    pub(super) async fn append(&self, partition: u32, time: i64, entry: Entry) -> u64 {
        let appended = Appended { time, entry };
        let bytes = appended.encode();
        self.appended.lock()[partition as usize].push(appended);
        self.append_bytes(partition, bytes).await
    }

    pub(super) async fn append_bytes(&self, partition: u32, bytes: Bytes) -> u64 {
        self.log.append(partition, vec![bytes]).await.unwrap().start
    }

    /// Batch has counted a partition below `coverage`.
    pub(super) async fn cover(&self, partition: u32, coverage: u64) {
        let name = Transaction::Batch(self.log.identity(), partition).to_string();
        let commit = Commit {
            table: Table::BatchCounts,
            steps: vec![Step { name, from: 0, to: coverage as i64 }],
            add: Vec::new(),
            remove: Vec::new(),
            data_change: true,
            token: uuid::Uuid::from_u128(7),
            operation: "test".to_owned(),
        };
        self.tables.commit(commit).await.unwrap();
    }

    pub(super) async fn until(&self, is_so: impl Fn() -> bool) {
        let waited = tokio::time::timeout(Duration::from_secs(20), async {
            while !is_so() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        waited.await.expect("it should have come to be");
    }

    pub(super) async fn caught_up(&self, counter: &Counter) {
        for partition in 0..self.log.partitions() {
            let end = self.log.extent(partition).await.unwrap().end;
            self.until(|| counter.position(partition).unwrap().offset == end).await;
        }
    }

    /// What the records of a partition from `from` on count, straight from the definition.
    pub(super) fn oracle(&self, partition: u32, from: u64) -> Counted {
        let mut counted = Counted::new();
        let mut last: HashMap<u64, i64> = HashMap::new();
        let mut log_time = LogTime::UNSET;
        for (offset, appended) in (0..).zip(&self.appended.lock()[partition as usize]) {
            log_time = log_time.after(appended.time);
            let minute = log_time.minute().unwrap();
            let Entry::Events(samples) = &appended.entry else { continue };
            for sample in samples {
                let hash = sample.event().key().hash();
                let before = last.insert(hash, minute);
                if offset >= from && before.is_none_or(|before| before < minute - i64::from(WINDOW)) {
                    let key = (
                        sample.entity.clone(),
                        sample.event_type.clone(),
                        minute_of(sample.time),
                        sample.country.clone(),
                    );
                    let late = key.2 < Definition::default().late_before(appended.time);
                    let cell = Cell::one(hash, sample.value, None);
                    counted.entry(key).or_default().merge(&if late { cell.as_late() } else { cell });
                }
            }
        }
        counted
    }

    /// The tail of every partition is what the oracle counts, from memory and disk together, and so are sums.
    pub(super) async fn check(&self, counter: &Counter, from: &[u64]) {
        for (partition, from) in (0..).zip(from) {
            let expected = self.oracle(partition, *from);
            let tail = counter.tail(partition, *from).await.unwrap();
            assert_eq!(self.counted(&tail).await, expected, "partition {partition} from {from}");
            let mut entities: Vec<&String> = expected.keys().map(|key| &key.0).collect();
            entities.dedup();
            for entity in entities.into_iter().take(50) {
                let found = counter.sum(partition, *from, &Selection::all_of(entity)).await.unwrap();
                let mut sums = StepSums::new();
                sums.add_all(&found.cells);
                for range in found.on_disk {
                    self.read(partition, range).await.sum(&Selection::all_of(entity), &mut sums);
                }
                let of_it = expected.iter().filter(|(key, _)| key.0 == *entity);
                let total = of_it.fold(Cell::default(), |mut sum, (_, cell)| {
                    sum.merge(cell);
                    sum
                });
                assert_eq!(sums.total(), total, "{entity} of partition {partition} from {from}");
            }
        }
    }

    async fn counted(&self, tail: &Tail) -> Counted {
        let mut runs = tail.runs.clone();
        for range in &tail.on_disk {
            runs.push(Arc::new(self.read(tail.partition, range.clone()).await));
        }
        counted(&Run::merge(&runs))
    }

    /// The counts of a range of whole segments, from `stream_counts`.
    async fn read(&self, partition: u32, range: std::ops::Range<u64>) -> Run {
        let mut builder = RunBuilder::new();
        for batch in self.batches(None).await {
            let mut row = 0;
            for rows in places(&batch).unwrap().chunk_by(|a, b| a == b) {
                let (of, start, end, counts) = rows[0];
                if of == partition && counts && start >= range.start && end <= range.end {
                    let part = batch.slice(row, rows.len());
                    builder.add_batch(&part, &Definition::default().dimensions).unwrap();
                }
                row += rows.len();
            }
        }
        builder.finish().unwrap()
    }

    pub(super) async fn batches(&self, columns: Option<&[&str]>) -> Vec<arrow::array::RecordBatch> {
        let mut batches = Vec::new();
        for file in self.tables.snapshot(Table::StreamCounts).await.unwrap().files.iter() {
            let store = Arc::clone(&self.store) as Arc<dyn ObjectStore>;
            let stream = stream_file(store, Table::StreamCounts, file, columns).await.unwrap();
            batches.extend(stream.try_collect::<Vec<_>>().await.unwrap());
        }
        batches
    }

    pub(super) async fn summaries(&self) -> Vec<Summary> {
        let batches = self.batches(Some(&SUMMARY_COLUMNS)).await;
        batches.iter().flat_map(|batch| summaries(batch).unwrap()).collect()
    }

    /// Sealed segments lie next to each other from 0 on and hold what the oracle counts.
    pub(super) async fn check_sealed(&self) {
        let mut ends = vec![0; self.log.partitions() as usize];
        let mut all = self.summaries().await;
        all.sort_by_key(|summary| (summary.partition, summary.start));
        for summary in all {
            assert!(summary.is_balanced());
            let end = &mut ends[summary.partition as usize];
            assert_eq!(summary.start, *end, "partition {}", summary.partition);
            *end = summary.end;
        }
        for (partition, end) in (0..).zip(ends) {
            let sealed = counted(&self.read(partition, 0..end).await);
            let (mut whole, rest) = (self.oracle(partition, 0), self.oracle(partition, end));
            for (key, cell) in rest {
                let own = whole.get_mut(&key).unwrap();
                own.count -= cell.count;
                own.fingerprint = own.fingerprint.wrapping_sub(cell.fingerprint);
            }
            whole.retain(|_, cell| cell.count > 0);
            let plain = |counted: Counted| -> Vec<(Key, u64, u64)> {
                counted.into_iter().map(|(key, cell)| (key, cell.count, cell.fingerprint)).collect()
            };
            assert_eq!(plain(sealed), plain(whole), "partition {partition}");
        }
        // A segment of duplicates or dead letters alone has its summary and no rows that count.
        let batches = self.batches(None).await;
        let counting = batches.iter().flat_map(|batch| places(batch).unwrap()).filter(|place| place.3).count();
        let counted_any = self.summaries().await.iter().any(|summary| summary.counted > 0);
        assert_eq!(counting > 0, counted_any);
    }
}

fn counted(run: &Run) -> Counted {
    let mut counted = Counted::new();
    run.for_each(i64::MIN..i64::MAX, |row| {
        let country = row.dims.first().and_then(Option::as_deref).map(str::to_owned);
        counted.insert((row.entity.to_owned(), row.event_type.to_owned(), row.minute, country), row.cell());
    });
    counted
}
