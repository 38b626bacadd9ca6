//! Trimming gives the disk its space back, while appending goes on and after a restart.

use std::path::Path;

use super::{Log, Options, content, open, small};

const RECORD_BYTES: usize = 100_000;
const KEPT: u64 = 20;

/// Bytes of the files that hold records, journals aside.
fn record_bytes(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().map(Result::unwrap);
    entries
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => record_bytes(&entry.path()),
            Ok(meta) => meta.len(),
            // Dropped in the meantime.
            Err(_) => 0,
        })
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn trimming_as_one_goes_bounds_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let files = dir.path().join("store/keyspaces");
    let options = Options { memtable_bytes: 1 << 20, write_buffer_bytes: 8 << 20, ..small(2) };
    let log = open(dir.path(), options.clone()).unwrap();
    let mut most = 0;
    // 250 MB to one partition, a little to the other, which is idle afterwards.
    log.append(1, vec![content(1, RECORD_BYTES)]).await.unwrap();
    for number in 0..250u64 {
        let records = (0..10).map(|i| content(number * 10 + i, RECORD_BYTES)).collect();
        let end = log.append(0, records).await.unwrap().end;
        log.trim(0, end.saturating_sub(KEPT)).await.unwrap();
        most = most.max(record_bytes(&files));
    }
    assert!(most < 24 << 20, "files took up to {most} bytes for {KEPT} records of {RECORD_BYTES}");
    let journals = record_bytes(&dir.path().join("store")) - record_bytes(&files);
    assert!(journals < 256 << 20, "journals take {journals} bytes");

    log.trim(1, 1).await.unwrap();
    log.trim(0, 2500).await.unwrap();
    drop(log);
    let log = open(dir.path(), options).unwrap();
    assert_eq!(log.extent(0).await.unwrap(), 2500..2500);
    assert_eq!(log.append(0, vec![content(0, 10)]).await.unwrap(), 2500..2501);
    assert_eq!(log.append(1, vec![content(0, 10)]).await.unwrap(), 1..2);
}
