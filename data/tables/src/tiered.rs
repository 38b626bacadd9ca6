//! Two stores as one: files of raw events lie in the one or, when they are old, in a colder one.
//!
//! ```text
//! read ─▶ hot ──not there──▶ cold          write ─▶ hot
//! list ─▶ both                             delete ─▶ both
//! ```
//!
//! A file has the same path in both, so the table's log says nothing of where it lies, and whoever reads it need not know.
//! A file that lies in both for a while is the same in both. Nothing else is ever looked for in the cold store: no log of
//! a table, and no other table.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};
use parking_lot::Mutex;
use reckon_data::table::Table;

/// Files deleted at the same time.
const DELETES: usize = 16;
/// Files remembered to have moved; beyond that the memory starts anew.
const MOVED_MAX: usize = 1 << 20;

/// A store, and a colder one for old files of raw events. Clones are the same store.
#[derive(Debug, Clone)]
pub struct TieredStore {
    hot: Arc<dyn ObjectStore>,
    cold: Arc<dyn ObjectStore>,
    /// Files that were found in the cold store alone: they never come back, and need not be looked for twice.
    moved: Arc<Mutex<HashSet<Path>>>,
}

impl TieredStore {
    /// Both are rooted at the tables' folder.
    #[must_use]
    pub fn new(hot: Arc<dyn ObjectStore>, cold: Arc<dyn ObjectStore>) -> Self {
        Self { hot, cold, moved: Arc::default() }
    }

    /// The store of what is not old.
    #[must_use]
    pub const fn hot(&self) -> &Arc<dyn ObjectStore> {
        &self.hot
    }

    /// The store of old files.
    #[must_use]
    pub const fn cold(&self) -> &Arc<dyn ObjectStore> {
        &self.cold
    }

    /// A file lies in the cold store from now on.
    pub fn moved(&self, location: &Path) {
        let mut moved = self.moved.lock();
        if moved.len() >= MOVED_MAX {
            moved.clear();
        }
        moved.insert(location.clone());
    }

    /// A file lies in the hot store, though it may have been moved before.
    pub fn not_moved(&self, location: &Path) {
        self.moved.lock().remove(location);
    }

    fn has_moved(&self, location: &Path) -> bool {
        self.moved.lock().contains(location)
    }

    /// Deletes a file wherever it lies.
    async fn delete_both(&self, location: &Path) -> Result<()> {
        if !may_move(location) {
            return self.hot.delete(location).await;
        }
        let (hot, cold) = (self.hot.delete(location).await, self.cold.delete(location).await);
        self.moved.lock().remove(location);
        match (hot, cold) {
            (Ok(()), Ok(()) | Err(Error::NotFound { .. })) | (Err(Error::NotFound { .. }), Ok(())) => Ok(()),
            (Err(error), Ok(()) | Err(Error::NotFound { .. })) | (_, Err(error)) => Err(error),
        }
    }
}

/// Whether a file may lie in the cold store: raw events do, nothing else.
#[must_use]
pub fn may_move(location: &Path) -> bool {
    reaches(Some(location)) && location.extension() == Some("parquet")
}

/// Whether there may be such files below a folder.
fn reaches(folder: Option<&Path>) -> bool {
    let mut parts = folder.into_iter().flat_map(Path::parts);
    match parts.next() {
        None => true,
        Some(first) if first.as_ref() == Table::Events.name() => parts.all(|part| part.as_ref() != "_delta_log"),
        Some(_) => false,
    }
}

impl fmt::Display for TieredStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, and colder {}", self.hot, self.cold)
    }
}

#[async_trait]
impl ObjectStore for TieredStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.hot.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.hot.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if !may_move(location) {
            return self.hot.get_opts(location, options).await;
        }
        if self.has_moved(location) {
            match self.cold.get_opts(location, options.clone()).await {
                Err(Error::NotFound { .. }) => {}
                found => return found,
            }
        }
        let gone = match self.hot.get_opts(location, options.clone()).await {
            Err(gone @ Error::NotFound { .. }) => gone,
            found => return found,
        };
        match self.cold.get_opts(location, options).await {
            Err(Error::NotFound { .. }) => Err(gone),
            found => {
                if found.is_ok() {
                    self.moved(location);
                }
                found
            }
        }
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        if !may_move(location) {
            return self.hot.get_ranges(location, ranges).await;
        }
        if self.has_moved(location) {
            match self.cold.get_ranges(location, ranges).await {
                Err(Error::NotFound { .. }) => {}
                found => return found,
            }
        }
        let gone = match self.hot.get_ranges(location, ranges).await {
            Err(gone @ Error::NotFound { .. }) => gone,
            found => return found,
        };
        match self.cold.get_ranges(location, ranges).await {
            Err(Error::NotFound { .. }) => Err(gone),
            found => {
                if found.is_ok() {
                    self.moved(location);
                }
                found
            }
        }
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let deleted = locations.map(move |location| {
            let store = store.clone();
            async move {
                let location = location?;
                store.delete_both(&location).await.map(|()| location)
            }
        });
        deleted.buffered(DELETES).boxed()
    }

    /// What lies in both is listed twice.
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let hot = self.hot.list(prefix);
        if !reaches(prefix) {
            return hot;
        }
        let cold = self.cold.list(prefix).try_filter(|file| futures::future::ready(may_move(&file.location)));
        hot.chain(cold).boxed()
    }

    /// Of the hot store: this is how the tables' logs are read.
    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.hot.list_with_offset(prefix, offset)
    }

    /// Of the hot store: this is how the tables' logs are read.
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.hot.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.hot.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.hot.rename_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use object_store::memory::InMemory;

    use super::*;

    const OLD: &str = "events/event_date=2013-02-08/a.parquet";

    async fn held(store: &impl ObjectStore) -> Vec<String> {
        let mut files: Vec<String> =
            store.list(None).map_ok(|file| file.location.to_string()).try_collect().await.unwrap();
        files.sort();
        files
    }

    #[tokio::test]
    async fn an_old_file_is_read_wherever_it_lies_and_deleted_everywhere() {
        let (hot, cold) = (Arc::new(InMemory::new()), Arc::new(InMemory::new()));
        let store = TieredStore::new(Arc::clone(&hot) as _, Arc::clone(&cold) as _);
        let old = Path::from(OLD);
        store.put(&old, "rows".into()).await.unwrap();
        assert_eq!((held(&*hot).await.len(), held(&*cold).await.len()), (1, 0));
        cold.put(&old, "rows".into()).await.unwrap();
        hot.delete(&old).await.unwrap();
        for _ in 0..2 {
            assert_eq!(store.get(&old).await.unwrap().bytes().await.unwrap().as_ref(), b"rows");
            assert_eq!(store.get_ranges(&old, &[1..3]).await.unwrap()[0].as_ref(), b"ow");
            assert_eq!(store.head(&old).await.unwrap().size, 4);
        }
        assert_eq!(held(&store).await, [OLD]);
        store.delete(&old).await.unwrap();
        assert!(matches!(store.get(&old).await, Err(Error::NotFound { .. })));
        assert!(held(&*cold).await.is_empty());
        assert!(matches!(store.delete(&old).await, Ok(()) | Err(Error::NotFound { .. })));
    }

    #[tokio::test]
    async fn nothing_but_raw_events_is_looked_for_in_the_cold_store() {
        let (hot, cold) = (Arc::new(InMemory::new()), Arc::new(InMemory::new()));
        let store = TieredStore::new(Arc::clone(&hot) as _, Arc::clone(&cold) as _);
        let log = "events/_delta_log/00000000000000000001.checkpoint.parquet";
        for path in [log, "batch_counts/a.parquet", "events/a.txt"] {
            cold.put(&Path::from(path), "x".into()).await.unwrap();
            assert!(matches!(store.get(&Path::from(path)).await, Err(Error::NotFound { .. })), "{path}");
            store.put(&Path::from(path), "x".into()).await.unwrap();
            let _ = store.delete(&Path::from(path)).await;
        }
        assert_eq!(held(&*cold).await.len(), 3, "and nothing else is deleted there");
        assert!(held(&store).await.is_empty());
    }
}
