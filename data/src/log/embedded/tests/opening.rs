//! Opening, closing, refusing.

use bytes::Bytes;

use super::super::meta::tests::{NEWER, set_format};
use super::{Log, LogError, Options, open, small};

#[tokio::test]
async fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), small(1)).unwrap();
    let refused = open(dir.path(), small(1)).unwrap_err();
    assert!(refused.to_string().contains("another process has it open"), "{refused}");
    drop(log);
    open(dir.path(), small(1)).unwrap();
}

#[tokio::test]
async fn another_number_of_partitions_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path(), small(3)).unwrap());
    let refused = open(dir.path(), small(4)).unwrap_err();
    assert!(matches!(&refused, LogError::Mismatch(what) if what.contains("set partitions to 3")), "{refused}");
    open(dir.path(), small(3)).unwrap();
}

#[tokio::test]
async fn a_newer_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), small(1)).unwrap();
    set_format(log.store.db(), NEWER);
    drop(log);
    let refused = open(dir.path(), small(1)).unwrap_err();
    assert!(matches!(&refused, LogError::Mismatch(what) if what.contains("newer release")), "{refused}");
}

#[test]
fn options_out_of_range_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let good = small(1);
    for bad in [
        Options { partitions: 0, ..good.clone() },
        Options { partitions: 257, ..good.clone() },
        Options { journal_bytes: 1, ..good.clone() },
        Options { write_buffer_bytes: good.memtable_bytes, ..good.clone() },
        Options { queue_bytes_max: 0, ..good.clone() },
        Options { commit_appends_max: 0, ..good },
    ] {
        assert!(matches!(open(dir.path(), bad.clone()), Err(LogError::Mismatch(_))), "{bad:?}");
    }
    assert!(!dir.path().join("store").exists());
}

#[tokio::test]
async fn a_closed_log_reads_and_takes_nothing_more() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), small(1)).unwrap();
    log.append(0, vec![Bytes::from_static(b"kept")]).await.unwrap();
    log.close().await.unwrap();
    log.close().await.unwrap();
    let refused = log.append(0, vec![Bytes::from_static(b"late")]).await;
    assert!(matches!(refused, Err(LogError::Storage(_))), "{refused:?}");
    assert_eq!(log.read(0, 0, 100).await.unwrap().len(), 1);
    drop(log);
    assert_eq!(open(dir.path(), small(1)).unwrap().extent(0).await.unwrap(), 0..1);
}

/// What waits in the queue when the log is closed is committed, or refused, never lost between.
#[tokio::test(flavor = "multi_thread")]
async fn closing_answers_every_append() {
    let dir = tempfile::tempdir().unwrap();
    let log = std::sync::Arc::new(open(dir.path(), small(2)).unwrap());
    let append = |nth: u32| {
        let log = std::sync::Arc::clone(&log);
        tokio::spawn(async move { log.append(nth % 2, vec![Bytes::from(vec![1; 5000])]).await.is_ok() })
    };
    let appends: Vec<_> = (0..200).map(append).collect();
    log.close().await.unwrap();
    let mut stored = 0;
    for append in appends {
        stored += u64::from(append.await.unwrap());
    }
    drop(log);
    let log = open(dir.path(), small(2)).unwrap();
    assert_eq!(log.extent(0).await.unwrap().end + log.extent(1).await.unwrap().end, stored);
}

/// A full disk refuses appends, without harm to what is there; with room again they go on.
#[tokio::test]
async fn a_full_disk_refuses_appends_only() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), small(1)).unwrap();
    log.append(0, vec![Bytes::from_static(b"a"), Bytes::from_static(b"b")]).await.unwrap();
    drop(log);
    let log = open(dir.path(), Options { disk_reserve_bytes: u64::MAX, ..small(1) }).unwrap();
    for _ in 0..2 {
        let refused = log.append(0, vec![Bytes::from_static(b"c")]).await;
        assert!(matches!(refused, Err(LogError::Full)), "{refused:?}");
    }
    assert_eq!(log.read(0, 0, 100).await.unwrap().len(), 2);
    log.trim(0, 1).await.unwrap();
    drop(log);
    let log = open(dir.path(), small(1)).unwrap();
    assert_eq!(log.extent(0).await.unwrap(), 1..2);
    assert_eq!(log.append(0, vec![Bytes::from_static(b"c")]).await.unwrap(), 2..3);
}

/// Whoever moves the folder takes from the log the place to ask for free space, and nothing else.
#[cfg(unix)]
#[tokio::test]
async fn appends_go_on_when_free_space_is_not_known() {
    let dir = tempfile::tempdir().unwrap();
    let (home, elsewhere) = (dir.path().join("log"), dir.path().join("elsewhere"));
    let log = open(&home, small(1)).unwrap();
    std::fs::rename(&home, &elsewhere).unwrap();
    assert_eq!(log.append(0, vec![Bytes::from_static(b"a")]).await.unwrap(), 0..1);
    std::fs::rename(&elsewhere, &home).unwrap();
    assert_eq!(log.append(0, vec![Bytes::from_static(b"b")]).await.unwrap(), 1..2);
}

/// A log whose making was cut short is made again.
#[test]
fn half_a_log_is_thrown_away() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("store.new/keyspaces")).unwrap();
    std::fs::write(dir.path().join("store.new/0.jnl"), b"half").unwrap();
    open(dir.path(), small(1)).unwrap();
    assert!(!dir.path().join("store.new").exists());
}
