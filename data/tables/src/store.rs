//! Where the tables lie: an object store rooted at the data directory's `tables/`.

use std::collections::HashSet;
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use deltalake_core::kernel::Add;
use object_store::ObjectStore;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use reckon_data::damage::{Damage, Damaged};
use reckon_data::table::{Table, TableError};
use url::Url;

use crate::checked::CheckedStore;
use crate::cold::{self, ColdStore};
use crate::sums::Sums;
use crate::synced::SyncedLocal;
use crate::tiered::TieredStore;
use crate::{actions, format, remote};

/// The folder of the data directory in which the tables lie.
pub const FOLDER: &str = "tables";

/// Why a data directory cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The text is no folder and no URL of a kind that is built in.
    #[error("data directory {data_dir} cannot be used: {reason}")]
    Unsupported {
        /// What was given.
        data_dir: String,
        /// Why not.
        reason: String,
    },
    /// It does not go with the colder store that is named, or that is not.
    #[error("data directory {data_dir} cannot be opened: {reason}")]
    Cold {
        /// What was given.
        data_dir: String,
        /// What does not go with it, and what to do.
        reason: String,
    },
    /// The store failed.
    #[error("data directory {data_dir} cannot be opened")]
    Store {
        /// What was given.
        data_dir: String,
        /// What failed.
        #[source]
        source: object_store::Error,
    },
}

/// A store in which what an object is called, and whether it is there, must be made durable by itself.
#[async_trait]
pub(crate) trait Folders: Debug + Send + Sync {
    /// Makes the names of all objects in a folder durable.
    async fn sync_folder(&self, folder: &Path) -> object_store::Result<()>;
}

/// The object store that all tables lie in.
#[derive(Debug, Clone)]
pub struct Storage {
    store: Arc<dyn ObjectStore>,
    /// The same, for data files.
    checked: CheckedStore,
    /// None where everything that was acknowledged is durable.
    folders: Option<Arc<dyn Folders>>,
    home: Home,
    /// Where older raw events lie.
    cold: Option<ColdStore>,
}

/// The data directory.
#[derive(Debug, Clone)]
enum Home {
    Folder(PathBuf),
    Store(Arc<dyn ObjectStore>),
}

impl Storage {
    /// Opens a data directory: the path of a folder, which is created if need be, or a URL, `file://`, `s3://` or that
    /// of another store.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn open(data_dir: &str) -> Result<Self, StorageError> {
        let unsupported = |reason| StorageError::Unsupported { data_dir: data_dir.to_owned(), reason };
        if let Some(url) = remote_url(data_dir)? {
            return Ok(Self::in_store(remote::open(&url).map_err(unsupported)?));
        }
        let failed = |source| StorageError::Store { data_dir: data_dir.to_owned(), source };
        let folder = local_folder(data_dir)?;
        let store = SyncedLocal::open(&folder.join(FOLDER)).map_err(failed)?;
        // A process that was killed may have left commits that can be read and are not durable.
        for table in Table::ALL {
            store.sync_folder_now(&log_folder(table)).map_err(failed)?;
        }
        let folders: Arc<dyn Folders> = Arc::new(store.clone());
        Ok(Self::of(Arc::new(store), Some(folders), Home::Folder(folder)))
    }

    /// Tables in a store that is open already and rooted at the data directory, S3 for example.
    ///
    /// It must honour `PutMode::Create`: on that all commits rest. And what it has acknowledged must be durable.
    #[must_use]
    pub fn in_store(store: Arc<dyn ObjectStore>) -> Self {
        Self::of(Arc::new(PrefixStore::new(Arc::clone(&store), FOLDER)), None, Home::Store(store))
    }

    fn of(store: Arc<dyn ObjectStore>, folders: Option<Arc<dyn Folders>>, home: Home) -> Self {
        Self { checked: CheckedStore::new(Arc::clone(&store)), store, folders, home, cold: None }
    }

    /// Opens a data directory whose older raw events lie in a colder store, or will: a folder or a URL, as a data directory
    /// is; none if `cold_url` is empty.
    ///
    /// # Errors
    /// [`StorageError`]; [`StorageError::Cold`] when raw events were moved elsewhere.
    pub async fn open_with_cold(data_dir: &str, cold_url: &str) -> Result<Self, StorageError> {
        let storage = Self::open(data_dir)?;
        let refused = |reason| StorageError::Cold { data_dir: data_dir.to_owned(), reason };
        let home = storage.root()?;
        if cold_url.is_empty() {
            cold::check(&home, None).await.map_err(refused)?;
            return Ok(storage);
        }
        let other = Self::open_place(cold_url)?;
        cold::check(&home, Some((&other, cold_url))).await.map_err(refused)?;
        let tables: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(Arc::clone(&other), FOLDER));
        let tiered = TieredStore::new(storage.store, tables);
        let mut both = Self::of(Arc::new(tiered.clone()), storage.folders, storage.home);
        both.cold = Some(ColdStore::new(cold_url, tiered, both.store(), [home, other]));
        Ok(both)
    }

    /// A folder, which is created if need be, or what lies at a URL.
    fn open_place(place: &str) -> Result<Arc<dyn ObjectStore>, StorageError> {
        if let Some(url) = remote_url(place)? {
            let unsupported = |reason| StorageError::Unsupported { data_dir: place.to_owned(), reason };
            return remote::open(&url).map_err(unsupported);
        }
        let failed = |source| StorageError::Store { data_dir: place.to_owned(), source };
        Ok(Arc::new(SyncedLocal::open(&local_folder(place)?).map_err(failed)?))
    }

    /// The data directory itself, as a store.
    fn root(&self) -> Result<Arc<dyn ObjectStore>, StorageError> {
        match &self.home {
            Home::Store(store) => Ok(Arc::clone(store)),
            Home::Folder(home) => {
                let failed = |source| StorageError::Store { data_dir: home.display().to_string(), source };
                Ok(Arc::new(SyncedLocal::open(home).map_err(failed)?))
            }
        }
    }

    /// The colder store of older raw events, if there is one.
    #[must_use]
    pub const fn cold(&self) -> Option<&ColdStore> {
        self.cold.as_ref()
    }

    /// A folder of the data directory beside the tables', for what processes have to agree on.
    ///
    /// # Errors
    /// [`StorageError::Store`].
    pub fn beside(&self, folder: &str) -> Result<Arc<dyn ObjectStore>, StorageError> {
        match &self.home {
            Home::Store(store) => Ok(Arc::new(PrefixStore::new(Arc::clone(store), folder))),
            Home::Folder(home) => {
                let failed = |source| StorageError::Store { data_dir: home.display().to_string(), source };
                Ok(Arc::new(SyncedLocal::open(&home.join(folder)).map_err(failed)?))
            }
        }
    }

    /// The same with folders to be synced.
    #[cfg(test)]
    pub(crate) fn with_folders(self, folders: Arc<dyn Folders>) -> Self {
        Self { folders: Some(folders), ..self }
    }

    /// The store, rooted at `tables/`. Data files lie at [`Storage::path`]; what is read of them is checked.
    #[must_use]
    pub fn store(&self) -> Arc<dyn ObjectStore> {
        Arc::new(self.checked.clone())
    }

    /// The store as it is, for the tables' logs.
    pub(crate) fn plain(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.store)
    }

    /// A data file is no longer part of its table.
    pub(crate) fn removed(&self, table: Table, file: &str) {
        self.checked.removed(&Self::path(table, file));
    }

    /// Of a table's files that are no longer part of it, only those are there.
    pub(crate) fn forget_gone(&self, table: Table, there: &HashSet<Path>) {
        self.checked.forget_gone(&Path::from(table.name()), there);
    }

    /// The checksums of a data file as text, if they are known.
    pub(crate) fn sums(&self, table: Table, file: &str) -> Option<String> {
        Some(self.checked.sums(&Self::path(table, file))?.encode())
    }

    /// Takes the checksums of a data file from what a table's log says of it.
    pub(crate) fn know(&self, table: Table, add: &Add) -> Result<(), TableError> {
        let Some(text) = actions::sums(add) else { return Ok(()) };
        let sums = u64::try_from(add.size).ok().and_then(|bytes| Sums::decode(text, bytes));
        let unfit = || format::unusable(table, format!("the checksums of file {} do not fit it", add.path));
        self.checked.know(Self::path(table, &add.path), sums.ok_or_else(unfit)?);
        Ok(())
    }

    /// Makes durable what can be read in a folder, should it not be.
    pub(crate) async fn sync(&self, folder: &Path) -> object_store::Result<()> {
        match &self.folders {
            Some(folders) => folders.sync_folder(folder).await,
            None => Ok(()),
        }
    }

    /// Where a data file of a table lies in the store.
    #[must_use]
    pub fn path(table: Table, file: &str) -> Path {
        let whole = format!("{}/{file}", table.name());
        // Other writers' names may hold characters that `From` would encode once more.
        Path::parse(&whole).unwrap_or_else(|_| Path::from(whole))
    }
}

impl Damage for Storage {
    fn damaged(&self) -> Vec<Damaged> {
        self.checked.damaged()
    }
}

/// The folder of a table's log in the store.
pub(crate) fn log_folder(table: Table) -> Path {
    Path::from_iter([table.name(), "_delta_log"])
}

/// The URL that a data directory is; none when it is a folder.
fn remote_url(data_dir: &str) -> Result<Option<Url>, StorageError> {
    if !data_dir.contains("://") {
        return Ok(None);
    }
    match Url::parse(data_dir) {
        Ok(url) => Ok((url.scheme() != "file").then_some(url)),
        Err(error) => Err(StorageError::Unsupported { data_dir: data_dir.to_owned(), reason: error.to_string() }),
    }
}

/// Whether a data directory is a folder of this machine.
#[must_use]
pub fn is_local(data_dir: &str) -> bool {
    matches!(remote_url(data_dir), Ok(None))
}

/// The folder that a data directory is: the text itself, or what a `file://` URL names.
///
/// # Errors
/// [`StorageError::Unsupported`].
pub fn local_folder(data_dir: &str) -> Result<PathBuf, StorageError> {
    let unsupported =
        |reason: &str| StorageError::Unsupported { data_dir: data_dir.to_owned(), reason: reason.to_owned() };
    if data_dir.is_empty() {
        return Err(unsupported("it is empty"));
    }
    if !data_dir.contains("://") {
        return Ok(PathBuf::from(data_dir));
    }
    let url = Url::parse(data_dir).map_err(|error| unsupported(&error.to_string()))?;
    if url.scheme() != "file" {
        return Err(unsupported("it is no folder of this machine"));
    }
    url.to_file_path().map_err(|()| unsupported("its url names no local folder"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_file_urls_are_understood_and_others_refused() {
        assert_eq!(local_folder("data").expect("a folder"), PathBuf::from("data"));
        assert_eq!(local_folder("file:///srv/reckon").expect("a folder"), PathBuf::from("/srv/reckon"));
        for refused in ["", "gopher://x/y", "s3://bucket/x"] {
            assert!(matches!(local_folder(refused), Err(StorageError::Unsupported { .. })), "{refused}");
        }
    }

    #[test]
    fn a_path_keeps_the_partition_folder_as_it_is() {
        let path = Storage::path(Table::Events, "event_date=2013-02-08/p0003-a.parquet");
        assert_eq!(path.as_ref(), "events/event_date=2013-02-08/p0003-a.parquet");
    }
}
