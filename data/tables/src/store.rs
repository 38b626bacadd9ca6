//! Where the tables lie: an object store rooted at the data directory's `tables/`.

use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use reckon_data::table::Table;
use url::Url;

use crate::synced::SyncedLocal;

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

/// The object store that all tables lie in.
#[derive(Debug, Clone)]
pub struct Storage {
    store: Arc<dyn ObjectStore>,
    folder: Option<PathBuf>,
}

impl Storage {
    /// Opens a data directory: the path of a folder, which is created if need be, or a `file://` URL.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn open(data_dir: &str) -> Result<Self, StorageError> {
        let folder = local_folder(data_dir)?.join(FOLDER);
        let store = SyncedLocal::open(&folder)
            .map_err(|source| StorageError::Store { data_dir: data_dir.to_owned(), source })?;
        Ok(Self { store: Arc::new(store), folder: Some(folder) })
    }

    /// Tables in a store that is open already and rooted at the data directory, S3 for example.
    ///
    /// It must honour `PutMode::Create`: on that all commits rest. And what it has acknowledged must be durable.
    #[must_use]
    pub fn in_store(store: Arc<dyn ObjectStore>) -> Self {
        Self { store: Arc::new(PrefixStore::new(store, FOLDER)), folder: None }
    }

    /// The store, rooted at `tables/`. Data files lie at [`Storage::path`].
    #[must_use]
    pub fn store(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.store)
    }

    /// The folder `tables/` if it is a local one.
    #[must_use]
    pub fn folder(&self) -> Option<&FilePath> {
        self.folder.as_deref()
    }

    /// Where a data file of a table lies in the store.
    #[must_use]
    pub fn path(table: Table, file: &str) -> Path {
        let whole = format!("{}/{file}", table.name());
        // Other writers' names may hold characters that `From` would encode once more.
        Path::parse(&whole).unwrap_or_else(|_| Path::from(whole))
    }
}

fn local_folder(data_dir: &str) -> Result<PathBuf, StorageError> {
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
        return Err(unsupported(&format!("a store of kind {} is not built in", url.scheme())));
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
        for refused in ["", "gopher://x/y"] {
            assert!(matches!(local_folder(refused), Err(StorageError::Unsupported { .. })), "{refused}");
        }
    }

    #[test]
    fn a_path_keeps_the_partition_folder_as_it_is() {
        let path = Storage::path(Table::Events, "event_date=2013-02-08/p0003-a.parquet");
        assert_eq!(path.as_ref(), "events/event_date=2013-02-08/p0003-a.parquet");
    }
}
