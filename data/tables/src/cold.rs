//! The colder store of a data directory: whose it is, and how files get there.
//!
//! ```text
//! copy to cold ─▶ read it back, checksums hold? ─▶ delete in the data directory
//!      a crash anywhere leaves one copy at least; a file in both is the same in both
//! ```
//!
//! The table's log is not touched: paths stay as they are ([`crate::tiered`]). A mark in each place says that they belong
//! together: in the data directory, that some of its files lie elsewhere, and where; in the colder store, which data
//! directory it is of. So no process reads the one without the other, and no two data directories share a colder store,
//! whose files each would take for its own and delete.

use std::collections::HashMap;
use std::sync::Arc;

use futures::TryStreamExt as _;
use object_store::buffered::BufWriter;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions};
use parking_lot::Mutex;
use reckon_data::table::{DataFile, Table};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;
use uuid::Uuid;

use crate::store::Storage;
use crate::sums::{Summer, Sums};
use crate::tiered::TieredStore;

/// The mark in the data directory.
const HOME: &str = "cold.json";
/// The mark in the colder store.
const OWNER: &str = "reckon-cold.json";
/// What is said of a colder store that lacks its mark.
const UNMARKED: &str = "its mark, reckon-cold.json, is not there: is it mounted, and whole?";

/// Why files cannot be moved to the colder store. All of them are still where they were.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ColdError {
    /// A store failed, or the file is damaged where it lies.
    #[error("the colder store {url}")]
    Store {
        /// The colder store.
        url: String,
        /// What failed.
        #[source]
        source: Error,
    },
    /// What is read of the copy is not what was read of the file.
    #[error("file {path} is another one in the colder store {url}: it stays where it was")]
    Changed {
        /// The file.
        path: String,
        /// The colder store.
        url: String,
    },
    /// The two places do not belong together.
    #[error("the colder store {url} cannot be used: {reason}")]
    Mark {
        /// The colder store.
        url: String,
        /// Why not.
        reason: String,
    },
}

/// Which data directory and which colder store belong together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// What both have in common.
    id: Uuid,
    /// Where files were moved to first.
    url: String,
    /// In the data directory: the colder store has its mark, and must have it from then on. A disk that is not mounted is
    /// an empty folder.
    #[serde(default)]
    is_claimed: bool,
}

/// How much lies where, of the files that `events` refers to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TierSizes {
    /// Bytes in the data directory.
    pub hot_bytes: u64,
    /// Files there.
    pub hot_files: u64,
    /// Bytes in the colder store.
    pub cold_bytes: u64,
    /// Files there.
    pub cold_files: u64,
}

/// The colder store of a data directory. Clones are the same.
#[derive(Debug, Clone)]
pub struct ColdStore {
    url: String,
    tiered: TieredStore,
    /// As others read: what is read is checked.
    checked: Arc<dyn ObjectStore>,
    /// The roots of both places, for the marks.
    roots: [Arc<dyn ObjectStore>; 2],
    sizes: Arc<Mutex<Option<TierSizes>>>,
}

impl ColdStore {
    /// `roots` are those of the data directory and of the colder store.
    #[must_use]
    pub fn new(
        url: &str,
        tiered: TieredStore,
        checked: Arc<dyn ObjectStore>,
        roots: [Arc<dyn ObjectStore>; 2],
    ) -> Self {
        Self { url: url.to_owned(), tiered, checked, roots, sizes: Arc::default() }
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// How much lies where, as of when that was last looked at; none as long as nobody has.
    #[must_use]
    pub fn sizes(&self) -> Option<TierSizes> {
        *self.sizes.lock()
    }

    /// Notes how much lies where; `hot` are the files that lie in the data directory.
    pub fn note_sizes(&self, files: &[DataFile], hot: &HashMap<Path, u64>) {
        let mut sizes = TierSizes::default();
        for file in files {
            if hot.contains_key(&Storage::path(Table::Events, &file.path)) {
                (sizes.hot_bytes, sizes.hot_files) = (sizes.hot_bytes + file.bytes, sizes.hot_files + 1);
            } else {
                (sizes.cold_bytes, sizes.cold_files) = (sizes.cold_bytes + file.bytes, sizes.cold_files + 1);
            }
        }
        *self.sizes.lock() = Some(sizes);
    }

    /// The files of raw events that lie in the data directory, with their sizes.
    ///
    /// # Errors
    /// [`ColdError::Store`].
    pub async fn hot_files(&self) -> Result<HashMap<Path, u64>, ColdError> {
        let files = self.tiered.hot().list(Some(&Path::from(Table::Events.name())));
        let files = files.map_ok(|file| (file.location, file.size));
        files.try_collect().await.map_err(|source| self.store(source))
    }

    /// Marks both places as belonging together, unless they are. Before that nothing may move.
    ///
    /// # Errors
    /// [`ColdError::Mark`] when the colder store is another's, or is the data directory itself.
    pub async fn claim(&self, id: Uuid) -> Result<(), ColdError> {
        let failed = |source| self.store(source);
        let refused = |reason: &str| ColdError::Mark { url: self.url.clone(), reason: reason.to_owned() };
        let [home, cold] = &self.roots;
        let (mark, owner) = (read(home, HOME).await.map_err(failed)?, read(cold, OWNER).await.map_err(failed)?);
        if owner.as_ref().is_some_and(|owner| mark.as_ref().is_none_or(|mark| mark.id != owner.id)) {
            return Err(refused("it is that of another data directory; each needs a folder or a path of its own"));
        }
        if mark.as_ref().is_some_and(|mark| mark.is_claimed) {
            return if owner.is_some() { Ok(()) } else { Err(refused(UNMARKED)) };
        }
        // By another name it may be the same place, and what is deleted here would be gone there.
        if mark.is_none() && is_same_place(home, cold, id).await.map_err(failed)? {
            return Err(refused("it is the data directory itself; it must be another folder or path"));
        }
        // First that something lies elsewhere: what has moved must never be looked for here alone.
        let mark = Mark { id, url: self.url.clone(), is_claimed: false };
        let mark = create(home, HOME, &mark).await.map_err(failed)?;
        let owner = create(cold, OWNER, &mark).await.map_err(failed)?;
        if owner.id != mark.id {
            return Err(refused("another data directory has taken it just now"));
        }
        write(home, HOME, &Mark { is_claimed: true, ..mark }).await.map_err(failed)
    }

    /// Moves a file of raw events, unless it has moved: whether there was anything to do. Its copy has been read back whole
    /// before it goes.
    ///
    /// # Errors
    /// [`ColdError`]; the file is where it was then.
    pub async fn move_file(&self, file: &DataFile) -> Result<bool, ColdError> {
        let path = Storage::path(Table::Events, &file.path);
        let failed = |source| self.store(source);
        let (hot, cold) = (self.tiered.hot(), self.tiered.cold());
        let bytes = match hot.head(&path).await {
            Err(Error::NotFound { .. }) => return Ok(false),
            found => found.map_err(failed)?.size,
        };
        // It is this one that is read now, whatever was moved before.
        self.tiered.not_moved(&path);
        // A copy that is there already is written anew: nobody knows whether it would outlast the power. Unless this one has
        // another size than it should: then that one may be the better of the two.
        let sums = self.copy(&path, bytes == file.bytes).await.map_err(failed)?;
        if sums.bytes() != file.bytes || sums_of(cold, &path).await.map_err(failed)? != sums {
            return Err(ColdError::Changed { path: file.path.clone(), url: self.url.clone() });
        }
        self.tiered.moved(&path);
        match hot.delete(&path).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(true),
            Err(source) => Err(failed(source)),
        }
    }

    /// Reads a file as others read it, and writes it to the colder store if it is to be; its checksums.
    async fn copy(&self, path: &Path, write: bool) -> Result<Sums, Error> {
        let mut bytes = self.checked.get(path).await?.into_stream();
        let mut writer = write.then(|| BufWriter::new(Arc::clone(self.tiered.cold()), path.clone()));
        let mut summer = Summer::new();
        let copied = async {
            while let Some(part) = bytes.try_next().await? {
                summer.add(&part);
                if let Some(writer) = &mut writer {
                    writer.put(part).await?;
                }
            }
            Ok::<_, Error>(())
        };
        let copied = copied.await;
        let Some(mut writer) = writer else { return copied.map(|()| summer.finish()) };
        if let Err(error) = copied {
            if let Err(left) = writer.abort().await {
                tracing::debug!(%path, error = %left, "an unfinished copy was left behind");
            }
            return Err(error);
        }
        // One whose shutdown has failed must not be aborted: that panics.
        writer.shutdown().await.map_err(|error| Error::Generic { store: "cold", source: Box::new(error) })?;
        Ok(summer.finish())
    }

    fn store(&self, source: Error) -> ColdError {
        ColdError::Store { url: self.url.clone(), source }
    }
}

/// Whether what is written to the one place can be read in the other.
async fn is_same_place(home: &Arc<dyn ObjectStore>, cold: &Arc<dyn ObjectStore>, id: Uuid) -> Result<bool, Error> {
    let probe = Path::from(format!("reckon-probe-{id}"));
    cold.put(&probe, "whether this is one place or two".into()).await?;
    let is_same = home.head(&probe).await.is_ok();
    cold.delete(&probe).await?;
    Ok(is_same)
}

/// The checksums of what is read of a file.
async fn sums_of(store: &Arc<dyn ObjectStore>, path: &Path) -> Result<Sums, Error> {
    let mut bytes = store.get(path).await?.into_stream();
    let mut summer = Summer::new();
    while let Some(part) = bytes.try_next().await? {
        summer.add(&part);
    }
    Ok(summer.finish())
}

/// Writes a mark, unless there is one; the one that is there then.
async fn create(store: &Arc<dyn ObjectStore>, name: &str, mark: &Mark) -> Result<Mark, Error> {
    if let Some(there) = read(store, name).await? {
        return Ok(there);
    }
    let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    match store.put_opts(&Path::from(name), text_of(name, mark)?.into(), options).await {
        Ok(_) => Ok(mark.clone()),
        Err(Error::AlreadyExists { .. }) => match read(store, name).await? {
            Some(there) => Ok(there),
            None => Ok(mark.clone()),
        },
        Err(error) => Err(error),
    }
}

/// Writes a mark in the place of the one that is there.
async fn write(store: &Arc<dyn ObjectStore>, name: &str, mark: &Mark) -> Result<(), Error> {
    store.put(&Path::from(name), text_of(name, mark)?.into()).await.map(|_| ())
}

fn text_of(name: &str, mark: &Mark) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(mark).map_err(|error| unreadable(name, error))
}

/// A mark, if there is one.
async fn read(store: &Arc<dyn ObjectStore>, name: &str) -> Result<Option<Mark>, Error> {
    let bytes = match store.get(&Path::from(name)).await {
        Err(Error::NotFound { .. }) => return Ok(None),
        found => found?.bytes().await?,
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| unreadable(name, error))
}

fn unreadable(name: &str, error: serde_json::Error) -> Error {
    Error::Generic { store: "reckon", source: format!("{name} cannot be read: {error}").into() }
}

/// Whether a data directory may be opened with this colder store; `roots` as of [`ColdStore::new`], the second one if there
/// is a colder store, and `url` its URL.
///
/// # Errors
/// A sentence that names the colder store and says what to do.
pub(crate) async fn check(
    home: &Arc<dyn ObjectStore>,
    cold: Option<(&Arc<dyn ObjectStore>, &str)>,
) -> Result<(), String> {
    let mark = read(home, HOME).await.map_err(|error| error.to_string())?;
    let Some((cold, url)) = cold else {
        return mark.map_or(Ok(()), |mark| {
            Err(format!(
                "older raw events of it lie in {}: set retention.cold_url to that, or to where they were moved since; if \
                 they were copied back, remove {HOME} from the data directory",
                mark.url
            ))
        });
    };
    let owner = read(cold, OWNER).await.map_err(|error| format!("the colder store {url} cannot be read: {error}"))?;
    match (mark, owner) {
        (None, None) => Ok(()),
        (Some(mark), Some(owner)) if mark.id == owner.id => Ok(()),
        // A first claim that was cut short between the two marks.
        (Some(mark), None) if mark.url == url && !mark.is_claimed => Ok(()),
        (Some(mark), None) if mark.url == url => {
            Err(format!("older raw events of it were moved to the colder store {url}; {UNMARKED}"))
        }
        (Some(mark), _) => Err(format!(
            "older raw events of it were moved to {}, and {url} is another place: retention.cold_url has to name where \
             they are",
            mark.url
        )),
        (None, Some(_)) => Err(format!(
            "{url} is the colder store of another data directory: retention.cold_url has to name a folder or a path of \
             its own"
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;
    use std::fmt;

    use async_trait::async_trait;
    use futures::stream::BoxStream;
    use object_store::memory::InMemory;
    use object_store::prefix::PrefixStore;
    use object_store::{
        CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, PutMultipartOptions, PutPayload,
        PutResult,
    };

    use super::*;
    use crate::checked::CheckedStore;

    const FILE: &str = "event_date=2013-02-08/a.parquet";

    /// What the next put does.
    #[derive(Debug, Clone, Copy)]
    enum Fault {
        Fails,
        Flips,
    }

    /// A store whose puts can be made to go wrong.
    #[derive(Debug, Default)]
    struct Poor {
        inner: InMemory,
        next: Mutex<Option<Fault>>,
    }

    impl fmt::Display for Poor {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "Poor")
        }
    }

    #[async_trait]
    impl ObjectStore for Poor {
        async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult, Error> {
            let fault = self.next.lock().take();
            match fault {
                Some(Fault::Fails) => Err(Error::Generic { store: "Poor", source: "the connection broke".into() }),
                Some(Fault::Flips) => self.inner.put_opts(location, "ROWS".into(), opts).await,
                None => self.inner.put_opts(location, payload, opts).await,
            }
        }

        async fn put_multipart_opts(
            &self,
            location: &Path,
            opts: PutMultipartOptions,
        ) -> Result<Box<dyn MultipartUpload>, Error> {
            self.inner.put_multipart_opts(location, opts).await
        }

        async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult, Error> {
            self.inner.get_opts(location, options).await
        }

        fn delete_stream(
            &self,
            locations: BoxStream<'static, Result<Path, Error>>,
        ) -> BoxStream<'static, Result<Path, Error>> {
            self.inner.delete_stream(locations)
        }

        fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta, Error>> {
            self.inner.list(prefix)
        }

        async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult, Error> {
            self.inner.list_with_delimiter(prefix).await
        }

        async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<(), Error> {
            self.inner.copy_opts(from, to, options).await
        }
    }

    fn store() -> Arc<dyn ObjectStore> {
        Arc::new(InMemory::new())
    }

    fn cold_of(home: &Arc<dyn ObjectStore>, cold: &Arc<dyn ObjectStore>) -> ColdStore {
        let tables = |root: &Arc<dyn ObjectStore>| -> Arc<dyn ObjectStore> {
            Arc::new(PrefixStore::new(Arc::clone(root), "tables"))
        };
        let tiered = TieredStore::new(tables(home), tables(cold));
        let checked = Arc::new(CheckedStore::new(Arc::new(tiered.clone())));
        ColdStore::new("cold", tiered, checked, [Arc::clone(home), Arc::clone(cold)])
    }

    fn file(bytes: u64) -> DataFile {
        let (path, nothing) = (FILE.to_owned(), BTreeMap::new());
        DataFile { path, bytes, rows: 1, partition: BTreeMap::new(), min: nothing.clone(), max: nothing }
    }

    #[tokio::test]
    async fn a_file_moves_once_and_is_read_from_where_it_is() {
        let (home, cold) = (store(), store());
        let moving = cold_of(&home, &cold);
        let path = Storage::path(Table::Events, FILE);
        moving.checked.put(&path, "rows".into()).await.unwrap();
        moving.claim(Uuid::from_u128(1)).await.unwrap();
        moving.claim(Uuid::from_u128(2)).await.unwrap();
        assert!(moving.move_file(&file(4)).await.unwrap());
        assert!(!moving.move_file(&file(4)).await.unwrap());
        assert!(moving.hot_files().await.unwrap().is_empty());
        for reader in [&moving, &cold_of(&home, &cold)] {
            assert_eq!(reader.checked.get(&path).await.unwrap().bytes().await.unwrap().as_ref(), b"rows");
        }
        moving.note_sizes(&[file(4)], &HashMap::new());
        assert_eq!(moving.sizes(), Some(TierSizes { cold_bytes: 4, cold_files: 1, ..TierSizes::default() }));
    }

    #[tokio::test]
    async fn a_file_stays_until_its_copy_is_right() {
        let (home, cold) = (store(), store());
        let moving = cold_of(&home, &cold);
        let path = Storage::path(Table::Events, FILE);
        moving.checked.put(&path, "rows".into()).await.unwrap();
        // A copy of the same size that something else has written, or a bit has flipped in, is written anew.
        moving.tiered.cold().put(&path, "ROWS".into()).await.unwrap();
        assert!(moving.move_file(&file(4)).await.unwrap());
        assert_eq!(moving.checked.get(&path).await.unwrap().bytes().await.unwrap().as_ref(), b"rows");
        // A crash before the file was deleted: it lies in both.
        moving.tiered.hot().put(&path, "rows".into()).await.unwrap();
        assert!(moving.move_file(&file(4)).await.unwrap());
        assert!(moving.hot_files().await.unwrap().is_empty());
        assert_eq!(moving.checked.get(&path).await.unwrap().bytes().await.unwrap().as_ref(), b"rows");
        // One that is damaged where it lies does not move.
        let other = moving.tiered.hot();
        moving.checked.put(&path, "rows".into()).await.unwrap();
        other.put(&path, "rowS".into()).await.unwrap();
        moving.tiered.cold().delete(&path).await.unwrap();
        let fresh = cold_of(&home, &cold);
        assert!(fresh.move_file(&file(5)).await.is_err(), "another size than the table says");
        assert_eq!(moving.hot_files().await.unwrap().len(), 1);
        // Nor does it take the place of a copy that may be the better one.
        moving.tiered.cold().put(&path, "rows!".into()).await.unwrap();
        assert!(matches!(fresh.move_file(&file(5)).await, Err(ColdError::Changed { .. })));
        assert_eq!(moving.tiered.cold().head(&path).await.unwrap().size, 5);
    }

    #[tokio::test]
    async fn a_copy_that_failed_or_is_another_one_is_made_anew() {
        let (home, poor) = (store(), Arc::new(Poor::default()));
        let cold: Arc<dyn ObjectStore> = Arc::<Poor>::clone(&poor);
        let moving = cold_of(&home, &cold);
        let path = Storage::path(Table::Events, FILE);
        moving.checked.put(&path, "rows".into()).await.unwrap();
        for fault in [Fault::Fails, Fault::Flips] {
            *poor.next.lock() = Some(fault);
            assert!(moving.move_file(&file(4)).await.is_err(), "{fault:?}");
            assert_eq!(moving.hot_files().await.unwrap().len(), 1, "{fault:?}");
            assert_eq!(moving.checked.get(&path).await.unwrap().bytes().await.unwrap().as_ref(), b"rows");
        }
        assert!(moving.move_file(&file(4)).await.unwrap());
        assert!(moving.hot_files().await.unwrap().is_empty());
        assert_eq!(moving.checked.get(&path).await.unwrap().bytes().await.unwrap().as_ref(), b"rows");
    }

    #[tokio::test]
    async fn what_does_not_belong_together_is_refused_by_name() {
        let (home, cold, other) = (store(), store(), store());
        let url = "s3://bucket/cold";
        assert!(check(&home, None).await.is_ok());
        assert!(check(&home, Some((&cold, url))).await.is_ok());
        cold_of(&home, &cold).claim(Uuid::from_u128(1)).await.unwrap();
        assert!(check(&home, Some((&cold, "elsewhere"))).await.is_ok(), "it may have another name since");
        assert!(check(&home, None).await.unwrap_err().contains("lie in cold"));
        assert!(check(&home, Some((&other, url))).await.unwrap_err().contains(url));
        assert!(check(&other, Some((&cold, url))).await.unwrap_err().contains("another data directory"));
        assert!(matches!(cold_of(&other, &cold).claim(Uuid::from_u128(3)).await, Err(ColdError::Mark { .. })));
        let same = cold_of(&other, &other).claim(Uuid::from_u128(4)).await;
        assert!(matches!(same, Err(ColdError::Mark { reason, .. }) if reason.contains("itself")));
        // A disk that is not mounted: the folder is there, and nothing in it.
        cold.delete(&Path::from(OWNER)).await.unwrap();
        assert!(check(&home, Some((&cold, "cold"))).await.unwrap_err().contains("mounted"));
        assert!(matches!(cold_of(&home, &cold).claim(Uuid::from_u128(5)).await, Err(ColdError::Mark { .. })));
        assert!(read(&cold, OWNER).await.unwrap().is_none());
        // A first claim that was cut short between the two marks.
        let mark = read(&home, HOME).await.unwrap().unwrap();
        write(&home, HOME, &Mark { is_claimed: false, ..mark }).await.unwrap();
        assert!(check(&home, Some((&cold, "cold"))).await.is_ok());
        assert!(cold_of(&home, &cold).claim(Uuid::from_u128(6)).await.is_ok());
        assert!(read(&home, HOME).await.unwrap().unwrap().is_claimed);
    }
}
