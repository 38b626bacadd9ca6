//! Commits whose outcome is not known, and owners that slept too long.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use reckon_data::clock::{Clock as _, ManualClock, SystemClock};
use reckon_data::minute::MICROS_PER_DAY;
use reckon_data::table::{Table, TableError, Tables};

use super::{NAMES, again, at, local};
use crate::conformance::{adding, file, step};
use crate::log::{TableLog, Written};
use crate::store::Folders;
use crate::{DeltaTables, Storage};

/// A store whose next puts fail: before they have done their work, or after.
#[derive(Debug, Default)]
struct Failing {
    inner: InMemory,
    before: AtomicU32,
    after: AtomicU32,
}

fn due(counter: &AtomicU32) -> bool {
    counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
}

fn broken() -> Error {
    Error::Generic { store: "Failing", source: "the connection broke".into() }
}

impl fmt::Display for Failing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Failing")
    }
}

#[async_trait]
impl ObjectStore for Failing {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        if due(&self.before) {
            return Err(broken());
        }
        let result = self.inner.put_opts(location, payload, opts).await?;
        if due(&self.after) { Err(broken()) } else { Ok(result) }
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[tokio::test]
async fn a_commit_with_an_unknown_outcome_is_settled() {
    let store = Arc::new(Failing::default());
    let held: Arc<dyn ObjectStore> = Arc::<Failing>::clone(&store);
    let tables = DeltaTables::new(Storage::in_store(held), Arc::new(SystemClock)).unwrap();
    let table = Table::Events;
    tables.snapshot(table).await.unwrap();
    for (at, (before, after)) in [(0, 1), (1, 0), (2, 1), (3, 0)].into_iter().enumerate() {
        store.before.store(before, Ordering::SeqCst);
        store.after.store(after, Ordering::SeqCst);
        let at = i64::try_from(at).unwrap();
        let commit = adding(table, &NAMES, vec![step("archive/0", at, at + 1)], vec![file(table, &NAMES, 1)]);
        let version = tables.commit(commit).await.unwrap();
        assert_eq!(version, at.unsigned_abs() + 1, "committed exactly once");
    }
    assert_eq!(tables.snapshot(table).await.unwrap().files.len(), 4);
}

#[tokio::test]
async fn a_store_that_stays_broken_is_reported_and_nothing_is_committed() {
    let store = Arc::new(Failing::default());
    let held: Arc<dyn ObjectStore> = Arc::<Failing>::clone(&store);
    let tables = DeltaTables::new(Storage::in_store(held), Arc::new(SystemClock)).unwrap();
    tables.snapshot(Table::Events).await.unwrap();
    store.before.store(1_000, Ordering::SeqCst);
    let commit = adding(Table::Events, &NAMES, vec![step("archive/0", 0, 1)], Vec::new());
    let failed = tables.commit(commit.clone()).await;
    assert!(matches!(failed, Err(TableError::Storage { .. })), "{failed:?}");
    store.before.store(0, Ordering::SeqCst);
    assert_eq!(tables.commit(commit).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_had_succeeded_is_known_again_after_a_restart() {
    let (folder, tables) = local();
    let table = Table::StreamCounts;
    let commit = adding(table, &NAMES, vec![step("stream/0", 0, 5)], vec![file(table, &NAMES, 1)]);
    assert_eq!(tables.commit(commit.clone()).await.unwrap(), 1);
    tables.commit(adding(table, &NAMES, vec![step("stream/1", 0, 5)], Vec::new())).await.unwrap();
    // With a checkpoint, the token is only in a log entry that is not read on opening.
    tables.checkpoint(table).await.unwrap();
    let restarted = again(&folder);
    assert_eq!(restarted.commit(commit.clone()).await.unwrap(), 1);
    let rival = adding(table, &NAMES, vec![step("stream/0", 0, 5)], Vec::new());
    let fenced = restarted.commit(rival).await;
    assert!(matches!(fenced, Err(TableError::Fenced { found: 5, expected: 0, .. })), "{fenced:?}");
}

/// Folders that cannot be synced so many times.
#[derive(Debug, Default)]
struct Unsynced {
    failures: AtomicU32,
    synced: AtomicU32,
}

#[async_trait]
impl Folders for Unsynced {
    async fn sync_folder(&self, folder: &Path) -> Result<()> {
        assert_eq!(folder.as_ref(), "events/_delta_log");
        self.synced.fetch_add(1, Ordering::SeqCst);
        if due(&self.failures) { Err(broken()) } else { Ok(()) }
    }
}

#[tokio::test]
async fn a_commit_that_can_be_read_is_no_success_before_it_is_durable() {
    let (store, folders) = (Arc::new(Failing::default()), Arc::new(Unsynced::default()));
    let held: Arc<dyn ObjectStore> = Arc::<Failing>::clone(&store);
    let storage = Storage::in_store(held).with_folders(Arc::<Unsynced>::clone(&folders));
    let tables = DeltaTables::new(storage, Arc::new(SystemClock)).unwrap();
    tables.snapshot(Table::Events).await.unwrap();
    // The entry got its name, and then the folder could not be synced, nor later.
    store.after.store(1, Ordering::SeqCst);
    folders.failures.store(1_000, Ordering::SeqCst);
    let commit = adding(Table::Events, &NAMES, vec![step("archive/0", 0, 1)], vec![file(Table::Events, &NAMES, 1)]);
    let failed = tables.commit(commit.clone()).await;
    assert!(matches!(failed, Err(TableError::Storage { .. })), "{failed:?}");
    folders.failures.store(0, Ordering::SeqCst);
    let before = folders.synced.load(Ordering::SeqCst);
    assert_eq!(tables.commit(commit).await.unwrap(), 1);
    assert_eq!(folders.synced.load(Ordering::SeqCst), before + 1);
}

/// An owner wrote its next version after the log had been cleaned past the one before, and could not find that
/// out: what it wrote is no version, however often it is looked at.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_below_a_cleaned_log_is_not_read() {
    let (folder, other) = local();
    let table = Table::StreamCounts;
    other.commit(adding(table, &NAMES, vec![step("stream/0", 0, 1)], Vec::new())).await.unwrap();
    let sleeper = TableLog::new(table, other.storage(), Arc::new(SystemClock)).unwrap();
    assert_eq!(Box::pin(sleeper.refresh()).await.unwrap().version, 1);
    let stray = sleeper.read(1).await.unwrap().unwrap();

    let later = SystemClock.now() + 400 * MICROS_PER_DAY;
    let other = at(&folder, Arc::new(ManualClock::at(later)));
    for from in 1..6 {
        other.commit(adding(table, &NAMES, vec![step("stream/0", from, from + 1)], Vec::new())).await.unwrap();
    }
    other.checkpoint(table).await.unwrap();
    assert!(other.vacuum(table, MICROS_PER_DAY).await.unwrap() > 0);
    assert!(matches!(sleeper.create(2, stray).await.unwrap(), Written::Yes), "version 2 was cleaned away");
    for _ in 0..2 {
        let state = Box::pin(sleeper.refresh()).await.unwrap();
        assert_eq!((state.version, state.transaction("stream/0")), (6, 6));
    }
}

/// The log entry after an owner's version was cleaned away while it slept: its next version would not
/// exist, and could be created, far below the table's newest.
#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_slept_while_the_log_was_cleaned_is_fenced() {
    let (folder, sleeper) = local();
    let table = Table::StreamCounts;
    sleeper.commit(adding(table, &NAMES, vec![step("stream/0", 0, 1)], Vec::new())).await.unwrap();

    let later = SystemClock.now() + 400 * MICROS_PER_DAY;
    let other = at(&folder, Arc::new(ManualClock::at(later)));
    for from in 1..6 {
        let add = vec![file(table, &NAMES, 1)];
        other.commit(adding(table, &NAMES, vec![step("stream/0", from, from + 1)], add)).await.unwrap();
    }
    other.checkpoint(table).await.unwrap();
    assert!(other.vacuum(table, MICROS_PER_DAY).await.unwrap() > 0, "log entries go");
    assert!(!folder.path().join("tables/stream_counts/_delta_log/00000000000000000002.json").exists());

    let add = vec![file(table, &NAMES, 1)];
    let late = sleeper.commit(adding(table, &NAMES, vec![step("stream/0", 1, 2)], add)).await;
    assert!(matches!(late, Err(TableError::Fenced { found: 6, expected: 1, .. })), "{late:?}");
    assert_eq!(sleeper.snapshot(table).await.unwrap(), other.snapshot(table).await.unwrap());
    assert_eq!(again(&folder).snapshot(table).await.unwrap(), other.snapshot(table).await.unwrap());
}
