//! A flipped bit is found: by the reader, or already at opening. It never gives wrong bytes, or a shorter log.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Log, LogError, content, open, small};

const RECORDS: u64 = 60;
const RECORD_BYTES: usize = 20_000;

/// A closed log: most records in files, the last ones only in the journal.
async fn make(dir: &Path) {
    let log = open(dir, small(1)).unwrap();
    for number in 0..RECORDS {
        log.append(0, vec![content(number, RECORD_BYTES)]).await.unwrap();
        if number % 20 == 19 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
    log.close().await.unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else if entry.path().extension().is_some_and(|ext| ext == "jnl") {
            // Mostly zeros, 64 MiB of them.
            let bytes = fs::read(entry.path()).unwrap();
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            fs::write(&target, &bytes[..used]).unwrap();
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() { files(&entry.path(), found) } else { found.push(entry.path()) }
    }
}

/// Opens and reads everything; the first error, if there is one.
async fn read_everything(dir: &Path, what: &str) -> Result<(), LogError> {
    let log = open(dir, small(1))?;
    assert_eq!(log.extent(0).await?, 0..RECORDS, "{what}: the log opens whole or not at all");
    let mut first_error = Ok(());
    for offset in 0..RECORDS {
        match log.read(0, offset, 1).await {
            Ok(records) => assert_eq!(records[0].bytes, content(offset, RECORD_BYTES), "{what}: wrong bytes"),
            Err(LogError::Corrupt { partition, offset: at, reason }) => {
                assert_eq!((partition, at), (0, offset), "{what}");
                first_error = first_error.and(Err(LogError::Corrupt { partition, offset, reason }));
            }
            Err(other) => panic!("{what}: {other}"),
        }
    }
    first_error
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, damaged) = (dir.path().join("whole"), dir.path().join("damaged"));
    make(&whole).await;
    copy(&whole, &damaged);
    let mut names = Vec::new();
    files(&damaged, &mut names);
    let (mut journal_errors, mut blob_errors) = (0, 0);
    for name in names.iter().map(|name| name.strip_prefix(&damaged).unwrap()) {
        let bytes = fs::metadata(damaged.join(name)).unwrap().len() as usize;
        for nth in 0..6.min(bytes) {
            let at = bytes * nth / 6;
            let what = format!("{} with byte {at} of {bytes} changed", name.display());
            flip(&damaged.join(name), at);
            let outcome = read_everything(&damaged, &what).await;
            let path = name.to_string_lossy();
            journal_errors += usize::from(outcome.is_err() && path.ends_with("jnl"));
            blob_errors += usize::from(matches!(outcome, Err(LogError::Corrupt { .. })) && path.contains("blobs"));
            fs::remove_dir_all(&damaged).unwrap();
            copy(&whole, &damaged);
        }
    }
    assert!(journal_errors >= 3, "damage of the journal was found {journal_errors} times");
    assert!(blob_errors >= 5, "damage of records was found {blob_errors} times");
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

/// The storage crate takes a journal that ends early for a crash in mid-write; the mark knows better.
#[tokio::test(flavor = "multi_thread")]
async fn a_journal_cut_short_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), small(1)).unwrap();
    for number in 0..4 {
        log.append(0, vec![content(number, 5000)]).await.unwrap();
    }
    drop(log);
    let journal = dir.path().join("store/0.jnl");
    fs::File::options().write(true).open(journal).unwrap().set_len(12_000).unwrap();
    for _ in 0..2 {
        let refused = open(dir.path(), small(1)).unwrap_err();
        assert!(matches!(refused, LogError::Corrupt { partition: 0, offset: 2, .. }), "{refused}");
    }
}

#[test]
fn a_log_without_its_version_is_not_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path(), small(1)).unwrap());
    fs::remove_file(dir.path().join("store/version")).unwrap();
    let refused = open(dir.path(), small(1)).unwrap_err();
    assert!(refused.to_string().contains("version file is gone"), "{refused}");
}
