//! Files that move, and places that do not belong together.
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
    // Two that are cut short alike are not the file either: it stays, and is found to be damaged where it is.
    moving.tiered.cold().put(&path, "rowS".into()).await.unwrap();
    assert!(matches!(fresh.move_file(&file(5)).await, Err(ColdError::Changed { .. })));
    assert_eq!(moving.hot_files().await.unwrap().len(), 1);
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
