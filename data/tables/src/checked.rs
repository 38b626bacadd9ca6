//! A store that sums up the data files that are written to it, and checks what is read of them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
    UploadPart,
};
use parking_lot::Mutex;
use reckon_data::damage::{Damage, Damaged};

use crate::sums::{Summer, Sums};

/// Damaged files that are remembered.
const DAMAGED_MAX: usize = 1_000;
/// Bytes that are read at once of a longer range.
const READ_BYTES: u64 = 8 << 20;

/// What is known of data files.
#[derive(Debug, Default)]
struct Known {
    sums: HashMap<Path, Arc<Sums>>,
    /// Those that are no longer part of their tables; whoever has an older version still reads them.
    removed: HashSet<Path>,
    damaged: BTreeMap<String, Damaged>,
}

/// A store of data files with their checksums. Clones are the same store.
#[derive(Debug, Clone)]
pub struct CheckedStore {
    inner: Arc<dyn ObjectStore>,
    known: Arc<Mutex<Known>>,
}

impl CheckedStore {
    /// Files in `inner`; nothing is known of them yet.
    #[must_use]
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, known: Arc::default() }
    }

    /// Says what a file's checksums are: from now on it is read with them.
    pub fn know(&self, path: Path, sums: Sums) {
        self.known.lock().sums.insert(path, Arc::new(sums));
    }

    /// The checksums of a file, as far as they are known.
    #[must_use]
    pub fn sums(&self, path: &Path) -> Option<Arc<Sums>> {
        self.known.lock().sums.get(path).cloned()
    }

    /// A file is no longer part of its table: that it is damaged concerns nobody.
    pub fn removed(&self, location: &Path) {
        let mut known = self.known.lock();
        known.damaged.remove(location.as_ref());
        if known.sums.contains_key(location) {
            known.removed.insert(location.clone());
        }
    }

    /// The range of a file that somebody asks for, where it can be checked.
    fn checkable(&self, location: &Path, options: &GetOptions) -> Option<(Arc<Sums>, Range<u64>)> {
        let sums = self.sums(location).filter(|_| !options.head)?;
        let range = match options.range.clone() {
            None => 0..sums.bytes(),
            Some(GetRange::Bounded(range)) => range.start..range.end.min(sums.bytes()),
            Some(GetRange::Offset(start)) => start..sums.bytes(),
            Some(GetRange::Suffix(length)) => sums.bytes().saturating_sub(length)..sums.bytes(),
        };
        // What is wrong with another range, the store says.
        (!range.is_empty()).then_some((sums, range))
    }

    /// Checks whole blocks, which have to fill `range`.
    fn check(&self, location: &Path, sums: &Sums, range: &Range<u64>, blocks: &[u8]) -> Result<()> {
        let end = range.start + blocks.len() as u64;
        let short = (end != range.end).then_some(end.min(range.end));
        match sums.first_changed(range.start, blocks).or(short) {
            Some(offset) => Err(self.damage(location, offset)),
            None => Ok(()),
        }
    }

    /// Notes that a file has changed, and says so.
    fn damage(&self, location: &Path, offset: u64) -> Error {
        let damaged = Damaged { path: location.to_string(), offset };
        let mut known = self.known.lock();
        let is_new = !known.damaged.contains_key(&damaged.path) && !known.removed.contains(location);
        if is_new && known.damaged.len() < DAMAGED_MAX {
            tracing::error!(%damaged, "a data file is not what was written");
            known.damaged.insert(damaged.path.clone(), damaged.clone());
        }
        Error::Generic { store: "reckon", source: Box::new(damaged) }
    }

    /// What a failed read means: a file of another size is damaged too.
    async fn failed(&self, location: &Path, sums: &Sums, error: Error) -> Error {
        match self.inner.head(location).await {
            Ok(meta) if meta.size != sums.bytes() => self.damage(location, meta.size.min(sums.bytes())),
            _ => error,
        }
    }

    /// One range of a file, checked; with what else the store says of it.
    async fn read(
        &self,
        location: &Path,
        sums: &Sums,
        range: &Range<u64>,
        options: GetOptions,
    ) -> Result<(Bytes, ObjectMeta, object_store::Attributes)> {
        let around = sums.around(range);
        let options = GetOptions { range: Some(GetRange::Bounded(around.clone())), ..options };
        let result = match self.inner.get_opts(location, options).await {
            Ok(result) => result,
            Err(error) => return Err(self.failed(location, sums, error).await),
        };
        let (meta, attributes) = (result.meta.clone(), result.attributes.clone());
        let blocks = match result.bytes().await {
            Ok(blocks) => blocks,
            Err(error) => return Err(self.failed(location, sums, error).await),
        };
        self.check(location, sums, &around, &blocks)?;
        if meta.size != sums.bytes() {
            return Err(self.damage(location, meta.size.min(sums.bytes())));
        }
        Ok((part(&blocks, around.start, range), meta, attributes))
    }

    /// Forgets what was removed below a folder and is not among those that are there.
    pub(crate) fn forget_gone(&self, folder: &Path, there: &HashSet<Path>) {
        let is_gone = |file: &&Path| file.prefix_matches(folder) && !there.contains(*file);
        let gone: Vec<Path> = self.known.lock().removed.iter().filter(is_gone).cloned().collect();
        gone.iter().for_each(|file| self.forget(file));
    }

    /// A file is no longer there: nothing is known of it any more.
    fn forget(&self, location: &Path) {
        let mut known = self.known.lock();
        known.sums.remove(location);
        known.removed.remove(location);
        known.damaged.remove(location.as_ref());
    }
}

impl Damage for CheckedStore {
    fn damaged(&self) -> Vec<Damaged> {
        self.known.lock().damaged.values().cloned().collect()
    }
}

/// `range` out of bytes that begin at `start` and reach over it.
fn part(bytes: &Bytes, start: u64, range: &Range<u64>) -> Bytes {
    let at = |offset: u64| usize::try_from(offset.saturating_sub(start)).unwrap_or(usize::MAX).min(bytes.len());
    bytes.slice(at(range.start)..at(range.end))
}

/// Whether sums are kept of what is written there.
fn is_data(location: &Path) -> bool {
    location.extension() == Some("parquet") && location.parts().all(|part| part.as_ref() != "_delta_log")
}

impl fmt::Display for CheckedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "checked {}", self.inner)
    }
}

#[async_trait]
impl ObjectStore for CheckedStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let sums = is_data(location).then(|| {
            let mut summer = Summer::new();
            payload.iter().for_each(|bytes| summer.add(bytes));
            summer.finish()
        });
        let result = self.inner.put_opts(location, payload, opts).await?;
        if let Some(sums) = sums {
            self.know(location.clone(), sums);
        }
        Ok(result)
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let inner = self.inner.put_multipart_opts(location, opts).await?;
        if !is_data(location) {
            return Ok(inner);
        }
        Ok(Box::new(CheckedUpload { inner, summer: Summer::new(), store: self.clone(), location: location.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let Some((sums, range)) = self.checkable(location, &options) else {
            return self.inner.get_opts(location, options).await;
        };
        let step = |start: u64| start..range.end.min(sums.around(&(start..start.saturating_add(READ_BYTES))).end);
        let first = step(range.start);
        let (bytes, meta, attributes) = self.read(location, &sums, &first, options).await?;
        let (store, place, end) = (self.clone(), location.clone(), range.end);
        let rest = stream::try_unfold(first.end, move |at| {
            let (store, place, sums) = (store.clone(), place.clone(), Arc::clone(&sums));
            let next = at..end.min(sums.around(&(at..at.saturating_add(READ_BYTES))).end);
            async move {
                if next.is_empty() {
                    return Ok(None);
                }
                let (bytes, ..) = store.read(&place, &sums, &next, GetOptions::default()).await?;
                Ok(Some((bytes, next.end)))
            }
        });
        let payload = GetResultPayload::Stream(stream::once(async { Ok(bytes) }).chain(rest).boxed());
        Ok(GetResult { payload, meta, range, attributes })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let Some(sums) = self.sums(location).filter(|sums| ranges.iter().all(|range| range.end <= sums.bytes())) else {
            return self.inner.get_ranges(location, ranges).await;
        };
        let blocks = merged(ranges.iter().filter(|range| !range.is_empty()).map(|range| sums.around(range)));
        let read = match self.inner.get_ranges(location, &blocks).await {
            Ok(read) => read,
            Err(error) => return Err(self.failed(location, &sums, error).await),
        };
        for (blocks, bytes) in blocks.iter().zip(&read) {
            self.check(location, &sums, blocks, bytes)?;
        }
        let one = |range: &Range<u64>| {
            let at = blocks.partition_point(|blocks| blocks.end < range.end);
            let found = blocks.get(at).zip(read.get(at)).filter(|_| !range.is_empty());
            found.map_or_else(Bytes::new, |(blocks, bytes)| part(bytes, blocks.start, range))
        };
        Ok(ranges.iter().map(one).collect())
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let deleted = self.inner.delete_stream(locations);
        deleted.inspect(move |location| location.iter().for_each(|location| store.forget(location))).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await?;
        self.forget(to);
        Ok(())
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await?;
        self.forget(from);
        self.forget(to);
        Ok(())
    }
}

/// Ranges, ascending, those that meet or overlap made one.
fn merged(ranges: impl Iterator<Item = Range<u64>>) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = ranges.collect();
    ranges.sort_unstable_by_key(|range| (range.start, range.end));
    ranges.dedup_by(|next, before| {
        let meets = next.start <= before.end;
        if meets {
            before.end = before.end.max(next.end);
        }
        meets
    });
    ranges
}

/// A file that is being written.
#[derive(Debug)]
struct CheckedUpload {
    inner: Box<dyn MultipartUpload>,
    summer: Summer,
    store: CheckedStore,
    location: Path,
}

#[async_trait]
impl MultipartUpload for CheckedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        // Parts are handed over in their order, whenever they arrive.
        data.iter().for_each(|bytes| self.summer.add(bytes));
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let result = self.inner.complete().await?;
        self.store.know(self.location.clone(), std::mem::take(&mut self.summer).finish());
        Ok(result)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}
