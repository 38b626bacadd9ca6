//! Tables and a store that fail now and then, for tests.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use reckon_data::table::{Commit, Snapshot, Table, TableError, Tables};

/// A sequence of numbers that follows from its seed.
#[derive(Debug)]
struct Dice(AtomicU64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// A number below `sides`; splitmix64.
    fn roll(&self, sides: u64) -> u64 {
        let mut number = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (number ^ (number >> 31)) % sides
    }
}

/// Tables whose commits fail now and then, before or after they have happened.
#[derive(Debug)]
pub(super) struct FailingTables {
    inner: Arc<dyn Tables>,
    dice: Dice,
}

impl FailingTables {
    pub(super) fn new(inner: Arc<dyn Tables>, seed: u64) -> Self {
        Self { inner, dice: Dice::new(seed) }
    }
}

#[async_trait]
impl Tables for FailingTables {
    async fn snapshot(&self, table: Table) -> std::result::Result<Snapshot, TableError> {
        self.inner.snapshot(table).await
    }

    async fn version(&self, table: Table) -> std::result::Result<u64, TableError> {
        self.inner.version(table).await
    }

    async fn commit(&self, commit: Commit) -> std::result::Result<u64, TableError> {
        let failed = || Err(TableError::Storage { table: commit.table.name(), reason: "as the dice fell".to_owned() });
        match self.dice.roll(4) {
            0 => failed(),
            1 => {
                self.inner.commit(commit.clone()).await?;
                failed()
            }
            _ => self.inner.commit(commit).await,
        }
    }

    async fn vacuum(&self, table: Table, retention_micros: i64) -> std::result::Result<u64, TableError> {
        self.inner.vacuum(table, retention_micros).await
    }
}

/// A store whose writes fail now and then.
#[derive(Debug)]
pub(super) struct FailingStore {
    inner: Arc<dyn ObjectStore>,
    dice: Dice,
}

impl FailingStore {
    pub(super) fn new(inner: Arc<dyn ObjectStore>, seed: u64) -> Self {
        Self { inner, dice: Dice::new(!seed) }
    }

    fn maybe_fail(&self) -> Result<()> {
        if self.dice.roll(5) > 0 {
            return Ok(());
        }
        Err(Error::Generic { store: "failing", source: "as the dice fell".into() })
    }
}

impl fmt::Display for FailingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failing({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for FailingStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.maybe_fail()?;
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.maybe_fail()?;
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
