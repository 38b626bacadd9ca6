//! Log, tables and object store as one process sees them: the models, with faults before and after.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult,
};
use parking_lot::Mutex;
use reckon_data::log::memory::MemoryLog;
use reckon_data::log::{Log, LogError, Stored};
use reckon_data::table::{Commit, Snapshot, Table, TableError, Tables, Version};
use reckon_tables::vacuum::{Swept, sweep};
use reckon_tables::{CheckedStore, MemoryTables, Storage, Sums};
use tokio::sync::watch;
use uuid::Uuid;

use crate::faults::{Fate, Io};
use crate::shelf::Shelf;

/// What every I/O says that fails on purpose.
pub const FAULT: &str = "a fault of the simulation";

/// Everything that was ever appended, trimmed or not: partition, offset, record.
pub type History = Arc<Mutex<Vec<Vec<Bytes>>>>;

/// What has become of the log on its disk.
#[derive(Debug, Default)]
pub struct Flips {
    /// Records in which a bit has flipped: partition and offset.
    pub records: BTreeSet<(u32, u64)>,
    /// It is the only copy of something: nobody may trim it.
    pub keeps: bool,
}

/// The same for all who use the log.
pub type Flipped = Arc<Mutex<Flips>>;

/// The log, with faults.
#[derive(Debug)]
pub struct FaultyLog {
    /// The model.
    pub log: MemoryLog,
    /// What was appended to it.
    pub history: History,
    /// What has become of it on its disk.
    pub flipped: Flipped,
    /// Whose I/O it is.
    pub io: Io,
}

impl FaultyLog {
    /// What a read gives: records up to one that is damaged, which is an error if it is the first.
    fn checked(&self, partition: u32, mut records: Vec<Stored>) -> Result<Vec<Stored>, LogError> {
        let flipped = self.flipped.lock();
        let damaged = records.iter().position(|record| flipped.records.contains(&(partition, record.offset)));
        match (damaged, records.first()) {
            (Some(0), Some(Stored { offset, .. })) => {
                Err(LogError::Corrupt { partition, offset: *offset, reason: "a bit has flipped".to_owned() })
            }
            (at, _) => {
                records.truncate(at.unwrap_or(records.len()));
                Ok(records)
            }
        }
    }

    async fn store(&self, partition: u32, records: Vec<Bytes>) -> Result<Range<u64>, LogError> {
        let offsets = self.log.append(partition, records.clone()).await?;
        self.history.lock()[partition as usize].extend(records);
        Ok(offsets)
    }
}

fn storage() -> LogError {
    LogError::Storage(FAULT.to_owned())
}

#[async_trait]
impl Log for FaultyLog {
    fn partitions(&self) -> u32 {
        self.log.partitions()
    }

    fn identity(&self) -> Uuid {
        self.log.identity()
    }

    async fn append(&self, partition: u32, mut records: Vec<Bytes>) -> Result<Range<u64>, LogError> {
        match self.io.fate("log append", &partition.to_string()).await {
            Fate::Fine => self.store(partition, records).await,
            Fate::Error => Err(storage()),
            Fate::ErrorAfter => {
                self.store(partition, records).await?;
                Err(storage())
            }
            Fate::CrashBefore => self.io.die().await,
            Fate::CrashAfter => {
                // In part, perhaps, but without a hole.
                records.truncate(1 + self.io.below(records.len()));
                self.store(partition, records).await?;
                self.io.die().await
            }
        }
    }

    async fn read(&self, partition: u32, from: u64, max_bytes: usize) -> Result<Vec<Stored>, LogError> {
        match self.io.fate("log read", &format!("{partition}/{from}")).await {
            Fate::Fine => self.checked(partition, self.log.read(partition, from, max_bytes).await?),
            Fate::Error | Fate::ErrorAfter => Err(storage()),
            Fate::CrashBefore | Fate::CrashAfter => self.io.die().await,
        }
    }

    async fn extent(&self, partition: u32) -> Result<Range<u64>, LogError> {
        match self.io.fate("log extent", &partition.to_string()).await {
            Fate::Fine => self.log.extent(partition).await,
            Fate::Error | Fate::ErrorAfter => Err(storage()),
            Fate::CrashBefore | Fate::CrashAfter => self.io.die().await,
        }
    }

    fn watch_end(&self, partition: u32) -> Result<watch::Receiver<u64>, LogError> {
        self.log.watch_end(partition)
    }

    async fn trim(&self, partition: u32, below: u64) -> Result<(), LogError> {
        if self.flipped.lock().keeps {
            return Err(storage());
        }
        match self.io.fate("log trim", &format!("{partition}/{below}")).await {
            Fate::Fine => self.log.trim(partition, below).await,
            Fate::Error => Err(storage()),
            Fate::ErrorAfter => {
                self.log.trim(partition, below).await?;
                Err(storage())
            }
            Fate::CrashBefore => self.io.die().await,
            Fate::CrashAfter => {
                self.log.trim(partition, below).await?;
                self.io.die().await
            }
        }
    }

    fn drops_by_itself(&self) -> bool {
        self.log.drops_by_itself()
    }
}

/// The tables, with faults. Their model has no files; those of the store are swept as Delta Lake's are.
#[derive(Debug)]
pub struct FaultyTables {
    /// The model.
    pub tables: Arc<MemoryTables>,
    /// The checksums of their files.
    pub sums: FileSums,
    /// The process's files, which it reads with those.
    pub files: CheckedStore,
    /// What lies in the store.
    pub shelf: Shelf,
    /// Whose I/O it is.
    pub io: Io,
}

/// The checksums of data files, as the tables' logs have them.
pub type FileSums = Arc<Mutex<HashMap<Path, Sums>>>;

impl FaultyTables {
    /// A snapshot, after which its files are read with their checksums.
    async fn open(&self, table: Table) -> Result<Snapshot, TableError> {
        let snapshot = self.tables.snapshot(table).await?;
        let sums = self.sums.lock();
        for path in snapshot.files.iter().map(|file| Storage::path(table, &file.path)) {
            if let Some(of_file) = sums.get(&path).filter(|_| self.files.sums(&path).is_none()) {
                self.files.know(path, of_file.clone());
            }
        }
        Ok(snapshot)
    }

    async fn change(&self, commit: Commit) -> Result<u64, TableError> {
        let table = commit.table;
        let version = self.tables.commit(commit.clone()).await?;
        self.shelf.commit(&commit, version);
        let Commit { add: added, remove: removed, .. } = commit;
        for path in added.iter().map(|file| Storage::path(table, &file.path)) {
            if let Some(of_file) = self.files.sums(&path) {
                self.sums.lock().insert(path, (*of_file).clone());
            }
        }
        removed.iter().for_each(|file| self.files.removed(&Storage::path(table, &file.path)));
        Ok(version)
    }
}

fn unknown(table: Table) -> TableError {
    TableError::Storage { table: table.name(), reason: FAULT.to_owned() }
}

#[async_trait]
impl Tables for FaultyTables {
    async fn snapshot(&self, table: Table) -> Result<Snapshot, TableError> {
        match self.io.fate("table snapshot", table.name()).await {
            Fate::Fine => self.open(table).await,
            Fate::Error | Fate::ErrorAfter => Err(unknown(table)),
            Fate::CrashBefore | Fate::CrashAfter => self.io.die().await,
        }
    }

    async fn version(&self, table: Table) -> Result<u64, TableError> {
        match self.io.fate("table version", table.name()).await {
            Fate::Fine => self.tables.version(table).await,
            Fate::Error | Fate::ErrorAfter => Err(unknown(table)),
            Fate::CrashBefore | Fate::CrashAfter => self.io.die().await,
        }
    }

    async fn commit(&self, commit: Commit) -> Result<u64, TableError> {
        let table = commit.table;
        match self.io.fate("table commit", table.name()).await {
            Fate::Fine => self.change(commit).await,
            Fate::Error => Err(unknown(table)),
            Fate::ErrorAfter => {
                self.change(commit).await?;
                Err(unknown(table))
            }
            Fate::CrashBefore => self.io.die().await,
            Fate::CrashAfter => {
                // Refused or not, nobody hears of it.
                let _ = self.change(commit).await;
                self.io.die().await
            }
        }
    }

    async fn vacuum(&self, table: Table, retention_micros: i64) -> Result<u64, TableError> {
        match self.io.fate("table vacuum", table.name()).await {
            Fate::Fine => {
                let store = Arc::new(self.files.clone()) as Arc<dyn ObjectStore>;
                sweep(&SweptTable { tables: self, table }, &store, self.shelf.now() - retention_micros).await
            }
            Fate::Error | Fate::ErrorAfter => Err(unknown(table)),
            Fate::CrashBefore | Fate::CrashAfter => self.io.die().await,
        }
    }

    async fn snapshot_at(&self, table: Table, version: u64) -> Result<Snapshot, TableError> {
        self.tables.snapshot_at(table, version).await
    }

    async fn history(&self, table: Table, limit: usize) -> Result<Vec<Version>, TableError> {
        self.tables.history(table, limit).await
    }
}

/// A table as it is swept.
struct SweptTable<'a> {
    tables: &'a FaultyTables,
    table: Table,
}

#[async_trait]
impl Swept for SweptTable<'_> {
    fn table(&self) -> Table {
        self.table
    }

    async fn newest(&self) -> Result<(u64, Vec<Path>), TableError> {
        let snapshot = self.tables.snapshot(self.table).await?;
        Ok((snapshot.version, snapshot.files.iter().map(|file| Storage::path(self.table, &file.path)).collect()))
    }

    async fn removed_by(&self, version: u64) -> Result<Option<Vec<Path>>, TableError> {
        Ok(self.tables.shelf.removed_by(self.table, version))
    }
}

/// The object store, with faults.
#[derive(Debug)]
pub struct FaultyStore {
    /// The model.
    pub store: Arc<InMemory>,
    /// What lies in it.
    pub shelf: Shelf,
    /// Whose I/O it is.
    pub io: Io,
}

impl std::fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a simulated store")
    }
}

fn broken() -> object_store::Error {
    object_store::Error::Generic { store: "simulation", source: FAULT.into() }
}

fn gone(at: &Path) -> object_store::Error {
    object_store::Error::NotFound { path: at.to_string(), source: "a simulated file".into() }
}

/// Runs an I/O with an effect, as its fate will have it.
async fn with_effect<T, E>(
    io: &Io,
    op: &str,
    place: &str,
    error: impl Fn() -> E,
    effect: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    match io.fate(op, place).await {
        Fate::Fine => effect.await,
        Fate::Error => Err(error()),
        Fate::ErrorAfter => {
            effect.await?;
            Err(error())
        }
        Fate::CrashBefore => io.die().await,
        Fate::CrashAfter => {
            let _ = effect.await;
            io.die().await
        }
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, at: &Path, payload: PutPayload, opts: PutOptions) -> object_store::Result<PutResult> {
        let put = async {
            let put = self.store.put_opts(at, payload, opts).await?;
            self.shelf.put(at);
            Ok(put)
        };
        with_effect(&self.io, "store put", at.as_ref(), broken, put).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        opts: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        let begin = self.store.put_multipart_opts(at, opts);
        let upload = with_effect(&self.io, "store begin upload", at.as_ref(), broken, begin).await?;
        Ok(Box::new(FaultyUpload { upload, at: at.clone(), shelf: self.shelf.clone(), io: self.io.clone() }))
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        with_effect(&self.io, "store get", at.as_ref(), broken, self.store.get_opts(at, options)).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        let (store, shelf, io) = (Arc::clone(&self.store), self.shelf.clone(), self.io.clone());
        locations
            .then(move |at| {
                let (store, shelf, io) = (Arc::clone(&store), shelf.clone(), io.clone());
                async move {
                    let at = at?;
                    let one = futures::stream::once(std::future::ready(Ok(at.clone()))).boxed();
                    let delete = async {
                        if !shelf.delete(&at) {
                            return Err(gone(&at));
                        }
                        let mut deleted = store.delete_stream(one);
                        deleted.next().await.unwrap_or_else(|| Err(broken()))
                    };
                    with_effect(&io, "store delete", at.as_ref(), broken, delete).await
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let (shelf, io, prefix) = (self.shelf.clone(), self.io.clone(), prefix.cloned().unwrap_or_default());
        let listed = async move {
            let list = async { Ok(shelf.list(&prefix, io.shown(), &io)) };
            match with_effect(&io, "store list", prefix.as_ref(), broken, list).await {
                Ok(found) => found.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            }
        };
        futures::stream::once(listed).flat_map(futures::stream::iter).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        let place = prefix.map_or("", Path::as_ref);
        with_effect(&self.io, "store list", place, broken, self.store.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        with_effect(&self.io, "store copy", from.as_ref(), broken, self.store.copy_opts(from, to, options)).await
    }
}

#[derive(Debug)]
struct FaultyUpload {
    upload: Box<dyn MultipartUpload>,
    at: Path,
    shelf: Shelf,
    io: Io,
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> object_store::UploadPart {
        let part = self.upload.put_part(data);
        let io = self.io.clone();
        Box::pin(async move { with_effect(&io, "store put part", "", broken, part).await })
    }

    async fn complete(&mut self) -> object_store::Result<PutResult> {
        let io = self.io.clone();
        let complete = async {
            let complete = self.upload.complete().await?;
            self.shelf.put(&self.at);
            Ok(complete)
        };
        with_effect(&io, "store complete upload", "", broken, complete).await
    }

    async fn abort(&mut self) -> object_store::Result<()> {
        let io = self.io.clone();
        with_effect(&io, "store abort upload", "", broken, self.upload.abort()).await
    }
}
