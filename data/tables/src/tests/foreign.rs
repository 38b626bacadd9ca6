//! Tables that are not ours, or not of this version, are refused and said to be so.

use std::fs;
use std::path::PathBuf;

use reckon_data::table::{Table, TableError, Tables};
use tempfile::TempDir;

use super::{again, local};

fn entry(folder: &TempDir, version: u64) -> PathBuf {
    folder.path().join(format!("tables/events/_delta_log/{version:020}.json"))
}

/// Creates the table, changes its first log entry, and says why a new process refuses it.
async fn refusal_after(change: impl FnOnce(String) -> String) -> String {
    let (folder, tables) = local();
    tables.snapshot(Table::Events).await.unwrap();
    let text = fs::read_to_string(entry(&folder, 0)).unwrap();
    let changed = change(text.clone());
    assert_ne!(text, changed);
    fs::write(entry(&folder, 0), changed).unwrap();
    match again(&folder).snapshot(Table::Events).await {
        Err(TableError::Unusable { reason, .. }) => reason,
        other => panic!("not refused but {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_version_of_the_schemas_is_refused() {
    let reason = refusal_after(|text| text.replace(r#""reckon.schema":"1""#, r#""reckon.schema":"2""#)).await;
    assert!(reason.contains("version 2"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_not_ours_is_refused() {
    let reason = refusal_after(|text| text.replace("reckon.schema", "somebody.else")).await;
    assert!(reason.contains("not ours"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_columns_are_refused() {
    let reason = refusal_after(|text| text.replace("key_hash", "key_hush")).await;
    assert!(reason.contains("columns"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_protocol_is_refused() {
    for (reader, writer) in [(2, 5), (1, 3), (9, 9)] {
        let newer = format!(r#""minReaderVersion":{reader},"minWriterVersion":{writer}"#);
        let reason = refusal_after(|text| text.replace(r#""minReaderVersion":1,"minWriterVersion":2"#, &newer)).await;
        assert!(!reason.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_protocol_that_changes_under_us_is_refused() {
    let (folder, tables) = local();
    tables.snapshot(Table::Events).await.unwrap();
    fs::write(entry(&folder, 1), r#"{"protocol":{"minReaderVersion":2,"minWriterVersion":5}}"#).unwrap();
    let refused = tables.snapshot(Table::Events).await;
    assert!(matches!(refused, Err(TableError::Unusable { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_log_is_refused() {
    let (folder, tables) = local();
    tables.snapshot(Table::Events).await.unwrap();
    for damage in ["", "{\"add\":{\"pa"] {
        fs::write(entry(&folder, 1), damage).unwrap();
        let refused = tables.snapshot(Table::Events).await;
        assert!(matches!(refused, Err(TableError::Unusable { .. })), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_deleted_under_us_is_refused() {
    let (folder, tables) = local();
    tables.snapshot(Table::Events).await.unwrap();
    fs::remove_dir_all(folder.path().join("tables/events")).unwrap();
    let refused = tables.snapshot(Table::Events).await;
    assert!(matches!(refused, Err(TableError::Unusable { .. })), "{refused:?}");
}
