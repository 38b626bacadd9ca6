//! The local store: whole or not at all, never over what is there, and nothing left over.

use futures::TryStreamExt as _;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions};

use crate::SyncedLocal;

fn create() -> PutOptions {
    PutOptions { mode: PutMode::Create, ..PutOptions::default() }
}

#[tokio::test]
async fn a_created_object_is_never_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let store = SyncedLocal::open(&folder.path().join("a/b")).unwrap();
    let path = Path::from("x/y=1/0.json");
    store.put_opts(&path, "one".into(), create()).await.unwrap();
    let second = store.put_opts(&path, "two".into(), create()).await;
    assert!(matches!(second, Err(Error::AlreadyExists { .. })), "{second:?}");
    assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "one");
    store.put(&path, "three".into()).await.unwrap();
    assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "three");
    let names: Vec<_> =
        std::fs::read_dir(folder.path().join("a/b/x/y=1")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["0.json"], "no staging file is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_creators_one_wins_and_readers_see_it_whole() {
    let folder = tempfile::tempdir().unwrap();
    let store = SyncedLocal::open(folder.path()).unwrap();
    let path = Path::from("log/1.json");
    let tasks: Vec<_> = (0..8_u8)
        .map(|who| {
            let (store, path) = (store.clone(), path.clone());
            tokio::spawn(async move { store.put_opts(&path, vec![who; 100_000].into(), create()).await.is_ok() })
        })
        .collect();
    let mut winners = Vec::new();
    for (who, task) in tasks.into_iter().enumerate() {
        if task.await.unwrap() {
            winners.push(u8::try_from(who).unwrap());
        }
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), vec![winners[0]; 100_000]);
}

#[tokio::test]
async fn uploads_copies_and_renames_arrive() {
    let folder = tempfile::tempdir().unwrap();
    let store = SyncedLocal::open(folder.path()).unwrap();
    let mut upload = store.put_multipart(&Path::from("deep/er/big")).await.unwrap();
    upload.put_part("one".into()).await.unwrap();
    upload.put_part("two".into()).await.unwrap();
    upload.complete().await.unwrap();
    store.copy(&Path::from("deep/er/big"), &Path::from("else/where")).await.unwrap();
    store.rename(&Path::from("else/where"), &Path::from("else/there/now")).await.unwrap();
    let mut found: Vec<String> = store.list(None).map_ok(|o| o.location.to_string()).try_collect().await.unwrap();
    found.sort();
    assert_eq!(found, ["deep/er/big", "else/there/now"]);
    assert_eq!(store.get(&Path::from("else/there/now")).await.unwrap().bytes().await.unwrap(), "onetwo");
}

#[tokio::test]
async fn a_folder_that_somebody_removed_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = SyncedLocal::open(folder.path()).unwrap();
    let path = Path::from("x/y/z");
    store.put(&path, "one".into()).await.unwrap();
    std::fs::remove_dir_all(folder.path().join("x")).unwrap();
    store.put(&path, "two".into()).await.unwrap();
    assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "two");
}

#[tokio::test]
async fn what_comes_after_an_offset_is_listed_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let store = SyncedLocal::open(folder.path()).unwrap();
    for at in [17, 3, 41, 28, 5, 30, 12, 9, 22] {
        store.put(&Path::from(format!("log/{at:03}")), "x".into()).await.unwrap();
    }
    let found = store.list_with_offset(Some(&Path::from("log")), &Path::from("log/009"));
    let found: Vec<String> = found.map_ok(|object| object.location.to_string()).try_collect().await.unwrap();
    assert_eq!(found, ["log/012", "log/017", "log/022", "log/028", "log/030", "log/041"]);
}
