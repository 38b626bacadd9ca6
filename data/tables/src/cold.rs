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

#[cfg(test)]
mod tests;

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
