//! Data files of which a bit has flipped.

use futures::TryStreamExt as _;
use object_store::{GetOptions, ObjectStore as _, ObjectStoreExt as _};
use reckon_data::damage::{Damage as _, Damaged};
use reckon_data::table::{DataFile, Table, Tables as _};

use super::*;
use crate::CheckedStore;
use crate::conformance::{adding, step};
use crate::read::read_file;

const TABLE: Table = Table::Imports;

/// Bytes of a file that is longer than one read.
const LENGTH: usize = (9 << 20) + 12_345;

fn content() -> Vec<u8> {
    (0..LENGTH).map(|at| (at * 7 + at / 1_000) as u8).collect()
}

/// A file in a folder, and the store with its checksums.
async fn stored() -> (TempDir, CheckedStore, object_store::path::Path) {
    let folder = tempfile::tempdir().unwrap();
    let inner = object_store::local::LocalFileSystem::new_with_prefix(folder.path()).unwrap();
    let (store, path) = (CheckedStore::new(Arc::new(inner)), object_store::path::Path::from("a.parquet"));
    let mut writer = object_store::buffered::BufWriter::with_capacity(Arc::new(store.clone()), path.clone(), 5 << 20);
    writer.put(content().into()).await.unwrap();
    tokio::io::AsyncWriteExt::shutdown(&mut writer).await.unwrap();
    (folder, store, path)
}

fn flip(folder: &TempDir, at: usize) {
    let path = folder.path().join("a.parquet");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn every_way_of_reading_gives_what_was_written() {
    let (_folder, store, path) = stored().await;
    let content = content();
    assert_eq!(store.sums(&path).unwrap().bytes(), LENGTH as u64);
    assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), content);
    for range in [0..1, 65_535..65_537, 100..9 << 20, LENGTH - 1..LENGTH, 3 << 20..LENGTH] {
        let bytes = store.get_range(&path, range.start as u64..range.end as u64).await.unwrap();
        assert_eq!(bytes, content[range.clone()], "{range:?}");
    }
    let ranges = [5..10_u64, 70_000..70_001, 8..200_000, LENGTH as u64 - 3..LENGTH as u64];
    let parts = store.get_ranges(&path, &ranges).await.unwrap();
    for (range, part) in ranges.iter().zip(parts) {
        assert_eq!(part, content[range.start as usize..range.end as usize], "{range:?}");
    }
    let suffix = GetOptions { range: Some(object_store::GetRange::Suffix(10)), ..GetOptions::default() };
    let end = store.get_opts(&path, suffix).await.unwrap();
    assert_eq!((end.range.clone(), end.meta.size), (LENGTH as u64 - 10..LENGTH as u64, LENGTH as u64));
    assert_eq!(end.bytes().await.unwrap(), content[LENGTH - 10..]);
    assert_eq!(store.head(&path).await.unwrap().size, LENGTH as u64);
    assert!(store.get_range(&path, LENGTH as u64..LENGTH as u64 + 1).await.is_err());
    assert!(store.damaged().is_empty());
}

#[tokio::test]
async fn a_flipped_bit_is_an_error_wherever_it_is_read_and_nowhere_else() {
    for at in [0, 70_000, 5 << 20, LENGTH - 1] {
        let (folder, store, path) = stored().await;
        flip(&folder, at);
        let elsewhere = if at < LENGTH / 2 { LENGTH - 200_000 } else { 0 } as u64;
        assert!(store.get_range(&path, elsewhere..elsewhere + 10).await.is_ok(), "{at}");
        assert!(store.damaged().is_empty());
        let near = at as u64..at as u64 + 1;
        let errors = [
            store.get_range(&path, near.clone()).await.unwrap_err(),
            store.get_ranges(&path, &[0..1, near, 9 << 20..(9 << 20) + 1]).await.unwrap_err(),
            match store.get(&path).await {
                Ok(whole) => whole.into_stream().try_collect::<Vec<_>>().await.unwrap_err(),
                Err(error) => error,
            },
        ];
        for error in errors {
            let damaged = Damaged::cause(&error).unwrap_or_else(|| panic!("{error}"));
            assert_eq!(damaged.path, "a.parquet");
            assert!(damaged.offset <= at as u64 && at as u64 - damaged.offset < 1 << 20, "{damaged}");
        }
        assert_eq!(store.damaged().len(), 1);
        store.delete(&path).await.unwrap();
        assert!(store.damaged().is_empty() && store.sums(&path).is_none());
    }
}

#[tokio::test]
async fn a_file_that_is_cut_short_is_damaged() {
    for length in [0, 65_536, 5 << 20, LENGTH - 1] {
        let (folder, store, path) = stored().await;
        std::fs::File::options()
            .write(true)
            .open(folder.path().join("a.parquet"))
            .unwrap()
            .set_len(length as u64)
            .unwrap();
        let end = LENGTH as u64 - 10..LENGTH as u64;
        let errors = [
            store.get_range(&path, end.clone()).await.unwrap_err(),
            store.get_ranges(&path, &[end]).await.unwrap_err(),
            match store.get(&path).await {
                Ok(whole) => whole.into_stream().try_collect::<Vec<_>>().await.unwrap_err(),
                Err(error) => error,
            },
        ];
        for error in errors {
            assert!(Damaged::cause(&error).is_some(), "{length} bytes: {error}");
        }
        assert_eq!(store.damaged().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_remembers_what_its_files_were() {
    let (folder, tables) = local();
    let described = sweep::written(&tables, 42).await;
    tables.commit(adding(TABLE, &NAMES, vec![step("imports", 0, 1)], vec![described.clone()])).await.unwrap();
    let path = folder.path().join("tables").join(TABLE.name()).join(&described.path);
    let whole = std::fs::read(&path).unwrap();
    // As other processes open it: from the commit, and from a checkpoint.
    for checkpoint in [false, true] {
        if checkpoint {
            again(&folder).checkpoint(TABLE).await.unwrap();
        }
        for at in (0..whole.len()).step_by(whole.len() / 50) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            std::fs::write(&path, &bytes).unwrap();
            let tables = again(&folder);
            let file: DataFile = tables.snapshot(TABLE).await.unwrap().files[0].clone();
            let error = read_file(tables.storage().store(), TABLE, &file).await.unwrap_err();
            assert!(error.to_string().contains("is damaged"), "byte {at}: {error}");
            assert_eq!(tables.storage().damaged().len(), 1);
        }
        std::fs::write(&path, &whole).unwrap();
        let tables = again(&folder);
        let file = tables.snapshot(TABLE).await.unwrap().files[0].clone();
        read_file(tables.storage().store(), TABLE, &file).await.unwrap();
    }
}
