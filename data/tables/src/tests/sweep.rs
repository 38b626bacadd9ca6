//! Reading files, and vacuum over real ones.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use futures::TryStreamExt as _;
use object_store::ObjectStoreExt as _;
use parquet::arrow::ArrowWriter;
use reckon_data::clock::{Clock as _, ManualClock, SystemClock};
use reckon_data::minute::MICROS_PER_DAY;
use reckon_data::table::{Commit, DataFile, Table, TableError, Tables};

use super::{NAMES, at, local};
use crate::conformance::{adding, file, step};
use crate::read::{read_file, stream_file};
use crate::schema::file_schema;
use crate::{DeltaTables, Storage};

const TABLE: Table = Table::Imports;

fn import(lines: i64) -> RecordBatch {
    let text = || Arc::new(StringArray::from(vec!["x"])) as ArrayRef;
    let number = |n| Arc::new(Int64Array::from(vec![n])) as ArrayRef;
    let time = TimestampMicrosecondArray::from(vec![1_360_358_940_000_000]).with_timezone("UTC");
    let finished: ArrayRef = Arc::new(BooleanArray::from(vec![true]));
    let columns = vec![
        text(),
        text(),
        text(),
        number(7),
        number(lines),
        finished,
        Arc::new(time),
        number(lines),
        number(0),
        number(0),
    ];
    RecordBatch::try_new(file_schema(TABLE), columns).unwrap()
}

/// Writes a file with one row, and describes it.
pub(super) async fn written(tables: &DeltaTables, lines: i64) -> DataFile {
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, file_schema(TABLE), None).unwrap();
    writer.write(&import(lines)).unwrap();
    writer.close().unwrap();
    let described = DataFile { bytes: bytes.len() as u64, ..file(TABLE, &NAMES, 1) };
    tables.storage().store().put(&Storage::path(TABLE, &described.path), bytes.into()).await.unwrap();
    described
}

async fn on_disk(tables: &DeltaTables) -> BTreeSet<String> {
    let found = tables.storage().store().list(Some(&TABLE.name().into()));
    let paths: Vec<String> = found.map_ok(|object| object.location.to_string()).try_collect().await.unwrap();
    paths.into_iter().filter(|path| !path.contains("_delta_log")).collect()
}

#[tokio::test]
async fn a_file_is_read_back_whole_and_by_column() {
    let (_folder, tables) = local();
    let described = written(&tables, 42).await;
    let store = tables.storage().store();
    assert_eq!(read_file(Arc::clone(&store), TABLE, &described).await.unwrap(), [import(42)]);
    let mut lines = stream_file(Arc::clone(&store), TABLE, &described, Some(&["lines", "name"])).await.unwrap();
    let batch = lines.try_next().await.unwrap().unwrap();
    assert_eq!((batch.num_columns(), batch.num_rows()), (2, 1));
    assert!(matches!(
        stream_file(Arc::clone(&store), TABLE, &described, Some(&["nothing"])).await.err(),
        Some(TableError::Unusable { .. })
    ));
    let short = DataFile { rows: 2, ..described };
    assert!(matches!(read_file(store, TABLE, &short).await, Err(TableError::Storage { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn vacuum_deletes_what_nothing_refers_to_any_more() {
    let (folder, tables) = local();
    let [live, removed, orphan] = [written(&tables, 1).await, written(&tables, 2).await, written(&tables, 3).await];
    let both = adding(TABLE, &NAMES, vec![step("imports", 0, 1)], vec![live.clone(), removed.clone()]);
    tables.commit(both).await.unwrap();
    let gone =
        Commit { remove: vec![removed.clone()], ..adding(TABLE, &NAMES, vec![step("imports", 1, 2)], Vec::new()) };
    tables.commit(gone).await.unwrap();

    // Now: the orphan may be about to be committed, and an older version still refers to the removed one.
    assert_eq!(tables.vacuum(TABLE, 0).await.unwrap(), 0, "an hour is always left");
    assert_eq!(on_disk(&tables).await.len(), 3);

    let clock = Arc::new(ManualClock::at(SystemClock.now() + 2 * MICROS_PER_DAY));
    let later = at(&folder, clock);
    assert_eq!(later.vacuum(TABLE, 3 * MICROS_PER_DAY).await.unwrap(), 0);
    assert_eq!(later.vacuum(TABLE, MICROS_PER_DAY).await.unwrap(), 2);
    let left = on_disk(&tables).await;
    assert_eq!(left, BTreeSet::from([Storage::path(TABLE, &live.path).to_string()]));
    assert!(!left.iter().any(|path| path.contains(&orphan.path)));
    assert_eq!(tables.snapshot(TABLE).await.unwrap().files.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_whose_files_are_vacuumed_is_refused_and_the_oldest_one_left_is_named() {
    let (folder, tables) = local();
    let [live, removed] = [written(&tables, 1).await, written(&tables, 2).await];
    let both = adding(TABLE, &NAMES, vec![step("imports", 0, 1)], vec![live.clone(), removed.clone()]);
    tables.commit(both).await.unwrap();
    let first = tables.snapshot(TABLE).await.unwrap();
    let gone =
        Commit { remove: vec![removed.clone()], ..adding(TABLE, &NAMES, vec![step("imports", 1, 2)], Vec::new()) };
    tables.commit(gone).await.unwrap();
    tables.checkpoint(TABLE).await.unwrap();
    let more = adding(TABLE, &NAMES, vec![step("imports", 2, 3)], vec![written(&tables, 3).await]);
    tables.commit(more).await.unwrap();

    // By this process, and by one that has never seen the file; what is read is checked.
    for tables in [&tables, &super::again(&folder)] {
        assert_eq!(tables.snapshot_at(TABLE, 1).await.unwrap(), first);
        let older = first.files.iter().find(|file| file.path == removed.path).unwrap();
        assert_eq!(read_file(tables.storage().store(), TABLE, older).await.unwrap(), [import(2)]);
        assert_eq!(tables.snapshot(TABLE).await.unwrap().version, 3, "it stays as it is");
    }
    let clock = Arc::new(ManualClock::at(SystemClock.now() + 2 * MICROS_PER_DAY));
    at(&folder, clock).vacuum(TABLE, MICROS_PER_DAY).await.unwrap();
    let refused = tables.snapshot_at(TABLE, 1).await;
    let named = matches!(refused, Err(TableError::NoVersion { version: 1, oldest: 2, newest: 3, .. }));
    assert!(named, "{refused:?}");
    assert!(tables.storage().sums(TABLE, &removed.path).is_none(), "nothing is kept of what is gone");
    assert!(tables.storage().sums(TABLE, &live.path).is_some());
    assert_eq!(tables.snapshot_at(TABLE, 2).await.unwrap().files.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_come_by_themselves() {
    let (folder, tables) = local();
    for from in 0..70 {
        tables.commit(adding(TABLE, &NAMES, vec![step("imports", from, from + 1)], Vec::new())).await.unwrap();
    }
    let hint = folder.path().join("tables/imports/_delta_log/_last_checkpoint");
    for _ in 0..100 {
        if hint.exists() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(hint.exists(), "a checkpoint was written");
    assert_eq!(super::again(&folder).snapshot(TABLE).await.unwrap(), tables.snapshot(TABLE).await.unwrap());
}
