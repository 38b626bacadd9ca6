//! Lists that lack files, or show the state of some time ago: nothing is lost by them, and all goes on after them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use parking_lot::Mutex;
use reckon_data::clock::{Clock as _, ManualClock, SystemClock};
use reckon_data::minute::MICROS_PER_HOUR;
use reckon_data::table::{Commit, DataFile, Table, Tables};

use super::NAMES;
use super::sweep::written;
use crate::conformance::{adding, step};
use crate::{DeltaTables, Storage};

const TABLE: Table = Table::Imports;
const RETENTION: i64 = 6 * MICROS_PER_HOUR;

/// What lies in a store.
type Files = BTreeMap<Path, ObjectMeta>;
/// Which of all that ever lay there, after each change, a list shows.
type Shown = fn(&Listed, &[Files]) -> Files;

/// A store whose lists are not what there is. Clones are the same.
#[derive(Clone)]
struct Listed {
    inner: Arc<InMemory>,
    clock: Arc<ManualClock>,
    past: Arc<Mutex<Vec<Files>>>,
    shown: Arc<Mutex<Shown>>,
    luck: Arc<AtomicU64>,
}

impl Listed {
    fn new(seed: u64) -> Self {
        Self {
            inner: Arc::default(),
            clock: Arc::new(ManualClock::at(SystemClock.now())),
            past: Arc::new(Mutex::new(vec![Files::new()])),
            shown: Arc::new(Mutex::new(whole)),
            luck: Arc::new(AtomicU64::new(seed)),
        }
    }

    fn tables(&self) -> DeltaTables {
        DeltaTables::new(Storage::in_store(Arc::new(self.clone())), Arc::clone(&self.clock) as _).unwrap()
    }

    fn show(&self, shown: Shown) {
        *self.shown.lock() = shown;
    }

    /// Something was written, with so many bytes, or deleted.
    fn note(&self, at: &Path, written: Option<usize>) {
        let mut past = self.past.lock();
        let mut next = past.last().cloned().unwrap();
        next.remove(at);
        if let Some(size) = written {
            let last_modified = DateTime::<Utc>::from_timestamp_micros(self.clock.now()).unwrap();
            let size = u64::try_from(size).unwrap();
            next.insert(
                at.clone(),
                ObjectMeta { location: at.clone(), last_modified, size, e_tag: None, version: None },
            );
        }
        past.push(next);
    }

    fn below(&self, below: usize) -> usize {
        let next =
            |luck: u64| Some(luck.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407));
        let luck = self.luck.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).unwrap();
        usize::try_from(luck >> 33).unwrap() % below
    }

    fn holds(&self, file: &DataFile) -> bool {
        let path = Path::from(format!("tables/{}", Storage::path(TABLE, &file.path)));
        self.past.lock().last().unwrap().contains_key(&path)
    }

    fn data_files(&self) -> usize {
        let past = self.past.lock();
        past.last().unwrap().keys().filter(|path| !is_log(path)).count()
    }
}

fn is_log(path: &Path) -> bool {
    path.as_ref().contains("_delta_log")
}

fn whole(_: &Listed, past: &[Files]) -> Files {
    past.last().cloned().unwrap()
}

fn partial(of: &Listed, past: &[Files]) -> Files {
    whole(of, past).into_iter().filter(|_| of.below(3) > 0).collect()
}

fn stale(of: &Listed, past: &[Files]) -> Files {
    past[of.below(past.len())].clone()
}

fn any(of: &Listed, past: &[Files]) -> Files {
    [whole, partial, stale][of.below(3)](of, past)
}

fn without_log(of: &Listed, past: &[Files]) -> Files {
    whole(of, past).into_iter().filter(|(path, _)| !is_log(path)).collect()
}

fn without_newest_commit(of: &Listed, past: &[Files]) -> Files {
    let mut files = whole(of, past);
    let newest = files.keys().rfind(|path| is_log(path)).cloned().unwrap();
    files.remove(&newest);
    files
}

impl fmt::Debug for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Listed")
    }
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Listed")
    }
}

#[async_trait]
impl ObjectStore for Listed {
    async fn put_opts(&self, at: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let size = payload.content_length();
        let put = self.inner.put_opts(at, payload, opts).await?;
        self.note(at, Some(size));
        Ok(put)
    }

    async fn put_multipart_opts(&self, at: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let inner = self.inner.put_multipart_opts(at, opts).await?;
        Ok(Box::new(Parts { inner, at: at.clone(), size: 0, of: self.clone() }))
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(at, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let of = self.clone();
        let deleted = self.inner.delete_stream(locations);
        deleted.inspect(move |at| at.iter().for_each(|at| of.note(at, None))).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let shown = *self.shown.lock();
        let files = shown(self, &self.past.lock());
        let prefix = prefix.cloned().unwrap_or_default();
        let found = files.into_values().filter(move |file| file.location.prefix_matches(&prefix));
        stream::iter(found.map(Ok)).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// A file that is being written in parts.
#[derive(Debug)]
struct Parts {
    inner: Box<dyn MultipartUpload>,
    at: Path,
    size: usize,
    of: Listed,
}

#[async_trait]
impl MultipartUpload for Parts {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.size += data.content_length();
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let put = self.inner.complete().await?;
        self.of.note(&self.at, Some(self.size));
        Ok(put)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

fn removing(file: &DataFile, at: i64) -> Commit {
    Commit { remove: vec![file.clone()], ..adding(TABLE, &NAMES, vec![step("imports", at, at + 1)], Vec::new()) }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_removed_of_late_outlives_lists_that_lack_the_commit() {
    let store = Listed::new(0);
    let tables = store.tables();
    let file = written(&tables, 1).await;
    tables.commit(adding(TABLE, &NAMES, vec![step("imports", 0, 1)], vec![file.clone()])).await.unwrap();
    store.clock.advance(2 * RETENTION);
    tables.commit(removing(&file, 1)).await.unwrap();
    for shown in [without_newest_commit, without_log, whole] {
        store.show(shown);
        tables.vacuum(TABLE, RETENTION).await.unwrap();
        assert!(store.holds(&file), "a reader may have begun before it was removed");
    }
    store.clock.advance(2 * RETENTION);
    assert_eq!(tables.vacuum(TABLE, RETENTION).await.unwrap(), 1);
}

/// A commit, made until it is: what is tried again is known again.
async fn committed(store: &Listed, tables: &DeltaTables, commit: Commit) {
    if tables.commit(commit.clone()).await.is_err() {
        store.show(whole);
        tables.commit(commit).await.unwrap();
    }
}

async fn at_random(seed: u64) {
    let store = Listed::new(seed);
    let mut tables = store.tables();
    let (mut live, mut removed, mut at) = (Vec::<DataFile>::new(), Vec::<(i64, DataFile)>::new(), 0);
    for _ in 0..80 {
        store.clock.advance(i64::try_from(store.below(4)).unwrap() * MICROS_PER_HOUR / 2);
        store.show(any);
        match store.below(8) {
            0..3 => {
                let file = written(&tables, 1).await;
                let commit = adding(TABLE, &NAMES, vec![step("imports", at, at + 1)], vec![file.clone()]);
                committed(&store, &tables, commit).await;
                live.push(file);
                at += 1;
            }
            3..5 if !live.is_empty() => {
                let file = live.swap_remove(store.below(live.len()));
                committed(&store, &tables, removing(&file, at)).await;
                removed.push((store.clock.now(), file));
                at += 1;
            }
            // These may fail as long as lists are not what there is, and are tried again.
            5 => drop(tables.checkpoint(TABLE).await),
            6 => drop(tables.vacuum(TABLE, RETENTION).await),
            _ => {
                tables = store.tables();
                drop(tables.snapshot(TABLE).await);
            }
        }
        let late = removed.iter().filter(|(when, _)| store.clock.now() - when < RETENTION).map(|(_, file)| file);
        for file in live.iter().chain(late) {
            assert!(store.holds(file), "seed {seed}: {} is gone", file.path);
        }
    }
    store.show(whole);
    let snapshot = tables.snapshot(TABLE).await.unwrap();
    assert_eq!((snapshot.files.len(), snapshot.transaction("imports")), (live.len(), at), "seed {seed}");
    assert_eq!(store.tables().snapshot(TABLE).await.unwrap(), snapshot, "seed {seed}");
    store.clock.advance(2 * RETENTION);
    store.tables().vacuum(TABLE, RETENTION).await.unwrap();
    assert_eq!(store.data_files(), live.len(), "seed {seed}: what nobody refers to goes in the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_that_cannot_be_trusted_lose_nothing() {
    for seed in 0..16 {
        Box::pin(at_random(seed)).await;
    }
}
