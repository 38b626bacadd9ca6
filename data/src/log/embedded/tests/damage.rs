//! A flipped bit is found: by the reader, or already at opening. It never gives wrong bytes, or a shorter log.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::{Log, LogError, Remains, content, open, small};
use crate::dead::DeadLetter;
use crate::event::{Reason, Refusal};
use crate::lost::LostRecord;
use crate::record::{Body, decode, encode_dead};

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

const NOW: i64 = 1_790_000_000_000_000;

/// A record that can be decoded.
fn record(number: u64) -> Bytes {
    let refusal = Refusal::whole(Reason::Malformed, "bad".to_owned());
    let letter = DeadLetter::new(&refusal, None, &content(number, RECORD_BYTES));
    encode_dead(&[letter], 0, NOW + i64::try_from(number).unwrap()).unwrap()
}

/// A closed log of records that can be decoded, most of them in files, and one of those damaged; its offset.
async fn make_damaged(dir: &Path) -> u64 {
    let log = open(dir, small(2)).unwrap();
    for number in 0..RECORDS {
        log.append(1, vec![record(number)]).await.unwrap();
        if number % 20 == 19 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
    log.close().await.unwrap();
    drop(log);
    let mut names = Vec::new();
    files(dir, &mut names);
    let is_blob = |name: &&PathBuf| name.to_string_lossy().contains("blobs");
    let blob = names.iter().filter(is_blob).max_by_key(|name| fs::metadata(name).unwrap().len()).unwrap();
    // In the middle of its letter's body, whichever record that is.
    flip(blob, usize::try_from(fs::metadata(blob).unwrap().len()).unwrap() / 2);
    let log = open(dir, small(2)).unwrap();
    let mut damaged = Vec::new();
    for offset in 0..RECORDS {
        if log.read(1, offset, 0).await.is_err() {
            damaged.push(offset);
        }
    }
    assert_eq!(damaged.len(), 1, "{damaged:?}");
    damaged[0]
}

/// Everything but the record that was set aside is as it was.
async fn check_set_aside(log: &super::EmbeddedLog, at: u64, instead: &Bytes, end: u64) {
    assert_eq!(log.extent(1).await.unwrap(), 0..end);
    let mut offset = 0;
    while offset < end {
        // Many at once, as counter and archiver read.
        for stored in log.read(1, offset, 200_000).await.unwrap() {
            let expected = if offset == at { instead.clone() } else { record(offset) };
            assert_eq!((stored.offset, stored.bytes), (offset, expected));
            offset += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_record_is_set_aside_for_good_and_nothing_else_is() {
    let dir = tempfile::tempdir().unwrap();
    let at = make_damaged(dir.path()).await;
    let log = open(dir.path(), small(2)).unwrap();
    let lost = LostRecord::find(&log, 1, at, i64::MAX).await.unwrap().unwrap();
    let header = lost.header.unwrap();
    assert_eq!((header.events, header.append_time), (1, NOW + i64::try_from(at).unwrap()));
    assert_eq!(lost.append_time, header.append_time);
    // The bytes as they lie there: all but one bit.
    let (found, whole) = (lost.bytes.clone().unwrap(), record(at));
    assert_eq!(found.len(), whole.len());
    let bits: u32 = found.iter().zip(&whole).map(|(found, whole)| (found ^ whole).count_ones()).sum();
    assert_eq!(bits, 1);

    let instead = lost.instead().unwrap();
    log.set_aside(1, at, instead.clone()).await.unwrap();
    check_set_aside(&log, at, &instead, RECORDS).await;
    drop(log);
    // It is durable, and files are written and removed as before: the crate takes no value over another there.
    let log = open(dir.path(), small(2)).unwrap();
    check_set_aside(&log, at, &instead, RECORDS).await;
    for number in RECORDS..3 * RECORDS {
        log.append(1, vec![record(number)]).await.unwrap();
    }
    check_set_aside(&log, at, &instead, 3 * RECORDS).await;
    log.close().await.unwrap();
    drop(log);
    let log = open(dir.path(), small(2)).unwrap();
    check_set_aside(&log, at, &instead, 3 * RECORDS).await;
    let Body::Dead(letters) = decode(&log.read(1, at, 0).await.unwrap()[0].bytes).unwrap().body else { panic!() };
    assert_eq!((letters[0].reason.as_str(), letters[0].body.as_deref()), ("damaged_record", Some(&found[..])));
    log.trim(1, 2 * RECORDS).await.unwrap();
    assert!(matches!(log.read(1, at, 0).await, Err(LogError::Trimmed { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_cannot_be_read_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let at = make_damaged(dir.path()).await;
    let log = open(dir.path(), small(2)).unwrap();
    let other = (at + 1) % RECORDS;
    assert_eq!(log.remains(1, other).await.unwrap(), None);
    assert_eq!(LostRecord::find(&log, 1, other, NOW).await.unwrap(), None);
    let refused = log.set_aside(1, other, record(0)).await.unwrap_err();
    assert!(matches!(refused, LogError::Whole { partition: 1, offset } if offset == other), "{refused}");
    // The same place in another partition, past the end, and in no partition.
    assert!(matches!(log.set_aside(0, at, record(0)).await, Err(LogError::PastEnd { .. })));
    assert!(matches!(log.set_aside(1, RECORDS, record(0)).await, Err(LogError::PastEnd { .. })));
    assert!(matches!(log.set_aside(2, at, record(0)).await, Err(LogError::UnknownPartition { .. })));
    // Once is enough.
    assert!(matches!(log.remains(1, at).await.unwrap(), Some(Remains { bytes: Some(_), .. })));
    log.set_aside(1, at, record(at)).await.unwrap();
    let refused = log.set_aside(1, at, record(at)).await.unwrap_err();
    assert!(matches!(refused, LogError::Whole { .. }), "{refused}");
}
