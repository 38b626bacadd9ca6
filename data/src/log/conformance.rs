//! The conformance suite: what every implementation of [`Log`] must do, as one function that tests call.
//!
//! It fails by panicking, with a message that says which promise was broken.

#![allow(clippy::expect_used, clippy::panic, reason = "a suite fails by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::{BoxFuture, join_all};

use super::{ANY_RECORD_BYTES_MAX, APPEND_BYTES_MAX, Log, LogError, Stored};

type Opening = BoxFuture<'static, Result<Arc<dyn Log>, LogError>>;

/// What a log may do otherwise than others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Whether a trim removes records; otherwise it does nothing.
    pub trims: bool,
    /// How many records of its own each partition of a new log begins with.
    pub first: u64,
}

impl Kind {
    /// It removes what is trimmed, and begins empty.
    pub const PLAIN: Self = Self { trims: true, first: 0 };
}

/// Holds an implementation to the contract of [`Log`].
///
/// `open(name)` opens the log of that name, or makes it, with at least two partitions. The suite drops every
/// handle of a log before it opens the same name again. It needs a runtime with more than one thread.
///
/// # Panics
/// When a promise is broken.
pub async fn conformance<F: Fn(&str) -> Opening>(open: F, kind: Kind) {
    let Kind { trims, first } = kind;
    numbers_without_holes(&opened(&open, "numbers").await, first).await;
    reads_keep_their_limits(&opened(&open, "limits").await, first).await;
    the_ends_are_errors(&opened(&open, "ends").await, first).await;
    odd_records(&opened(&open, "odd").await, first).await;
    reads_follow_appends(&opened(&open, "follow").await, first).await;
    if trims {
        trims_remove_a_prefix(&opened(&open, "trim").await, first).await;
    } else {
        trims_do_nothing(&opened(&open, "trim").await, first).await;
    }
    reopening_changes_nothing(&open, kind).await;
}

async fn opened<F: Fn(&str) -> Opening>(open: &F, name: &str) -> Arc<dyn Log> {
    let log = open(name).await.unwrap_or_else(|e| panic!("log {name} opens: {e}"));
    assert!(log.partitions() >= 2, "the suite needs two partitions");
    log
}

/// A record whose content says what it is.
fn record(what: &str, bytes: usize) -> Bytes {
    let mut record = what.as_bytes().to_vec();
    let seed = record.iter().fold(7u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(*byte));
    record.extend((0..bytes.saturating_sub(what.len())).map(|i| seed.wrapping_add((i % 251) as u8)));
    Bytes::from(record)
}

async fn append(log: &Arc<dyn Log>, partition: u32, records: Vec<Bytes>) -> std::ops::Range<u64> {
    log.append(partition, records).await.expect("an append succeeds")
}

async fn read(log: &Arc<dyn Log>, partition: u32, from: u64, max_bytes: usize) -> Vec<Stored> {
    log.read(partition, from, max_bytes).await.expect("a read succeeds")
}

/// Everything from `from` to the durable end, with many small reads.
async fn read_all(log: &Arc<dyn Log>, partition: u32, from: u64) -> Vec<Bytes> {
    let mut records = Vec::new();
    loop {
        let next = from + records.len() as u64;
        let some = read(log, partition, next, 3000).await;
        if some.is_empty() {
            return records;
        }
        for (stored, offset) in some.into_iter().zip(next..) {
            assert_eq!(stored.offset, offset, "reads return consecutive records");
            records.push(stored.bytes);
        }
    }
}

async fn numbers_without_holes(log: &Arc<dyn Log>, first: u64) {
    let appender = |task: u64| {
        let log = Arc::clone(log);
        tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            for nth in 0..25u64 {
                let partition = ((task + nth) % 2) as u32;
                let count = 1 + (task * 7 + nth) % 3;
                let records: Vec<_> = (0..count).map(|i| record(&format!("{task}.{nth}.{i}"), 300)).collect();
                let offsets = append(&log, partition, records.clone()).await;
                assert_eq!(offsets.end - offsets.start, count, "an offset for each record");
                acknowledged.push((partition, offsets, records));
            }
            acknowledged
        })
    };
    let mut expected = [BTreeMap::new(), BTreeMap::new()];
    for task in join_all((0..6).map(appender)).await {
        let mut before = [0, 0];
        for (partition, offsets, records) in task.expect("an appender runs to its end") {
            let partition = partition as usize;
            assert!(offsets.start >= before[partition], "a later append has a later offset");
            before[partition] = offsets.end;
            for (offset, record) in offsets.zip(records) {
                assert!(expected[partition].insert(offset, record).is_none(), "offset {offset} was given twice");
            }
        }
    }
    for (partition, expected) in (0..).zip(expected) {
        let end = first + expected.len() as u64;
        assert!(expected.keys().copied().eq(first..end), "offsets are 0, 1, 2, … without holes");
        assert_eq!(log.extent(partition).await.expect("an extent"), 0..end);
        assert!(
            read_all(log, partition, first).await.into_iter().eq(expected.into_values()),
            "records at their offsets"
        );
    }
}

async fn reads_keep_their_limits(log: &Arc<dyn Log>, first: u64) {
    let records: Vec<_> = (0..10).map(|i| record(&format!("r{i}"), 100)).collect();
    append(log, 0, records.clone()).await;
    append(log, 1, vec![record("elsewhere", 100)]).await;
    for (max_bytes, count) in [(0, 1), (1, 1), (99, 1), (100, 1), (199, 1), (200, 2), (999, 9), (1000, 10), (5000, 10)]
    {
        let some = read(log, 0, first, max_bytes).await;
        assert_eq!(some.len(), count, "{max_bytes} bytes hold {count} records of 100");
        assert!(some.iter().zip(&records).all(|(stored, record)| stored.bytes == *record));
    }
    let last = read(log, 0, first + 9, 1 << 20).await;
    assert_eq!(last, [Stored { offset: first + 9, bytes: records[9].clone() }]);
}

async fn the_ends_are_errors(log: &Arc<dyn Log>, first: u64) {
    let end = first + 1;
    let is_past = |error: Option<LogError>| {
        let found = matches!(error, Some(LogError::PastEnd { partition: 0, offset, end: of }) if (offset, of) == (end + 1, end));
        assert!(found, "{error:?}");
    };
    assert_eq!(log.extent(0).await.expect("an extent"), 0..first, "a new log is empty");
    assert!(read(log, 0, first, 100).await.is_empty(), "nothing to read at the durable end");
    append(log, 0, vec![record("one", 10)]).await;
    assert!(read(log, 0, end, 100).await.is_empty(), "nothing to read at the durable end");
    is_past(log.read(0, end + 1, 100).await.err());
    is_past(log.trim(0, end + 1).await.err());

    let none = log.partitions();
    let unknown = |error: Option<LogError>| {
        assert!(matches!(error, Some(LogError::UnknownPartition { partition }) if partition == none), "{error:?}");
    };
    unknown(log.append(none, vec![record("x", 1)]).await.err());
    unknown(log.read(none, 0, 1).await.err());
    unknown(log.extent(none).await.err());
    unknown(log.watch_end(none).err());
    unknown(log.trim(none, 0).await.err());
}

async fn odd_records(log: &Arc<dyn Log>, first: u64) {
    assert_eq!(append(log, 0, Vec::new()).await, first..first, "appending nothing takes no offset");
    let too_large = Bytes::from(vec![1; ANY_RECORD_BYTES_MAX + 1]);
    let refused = log.append(0, vec![record("fits", 10), too_large]).await;
    assert!(
        matches!(refused, Err(LogError::TooLarge { bytes, limit }) if bytes == limit + 1 && limit == ANY_RECORD_BYTES_MAX),
        "{refused:?}"
    );
    let many = (0..=APPEND_BYTES_MAX / (256 << 10)).map(|_| Bytes::from(vec![1; 256 << 10])).collect();
    let refused = log.append(0, many).await;
    assert!(matches!(refused, Err(LogError::TooLarge { limit: APPEND_BYTES_MAX, .. })), "{refused:?}");
    assert_eq!(log.extent(0).await.expect("an extent"), 0..first, "a refused append stores nothing of it");
    let largest = record("largest", ANY_RECORD_BYTES_MAX);
    assert_eq!(append(log, 0, vec![Bytes::new(), largest.clone(), Bytes::new()]).await, first..first + 3);
    let sizes: Vec<_> = read(log, 0, first, usize::MAX).await.iter().map(|stored| stored.bytes.len()).collect();
    assert_eq!(sizes, [0, ANY_RECORD_BYTES_MAX, 0]);
    let one = [Stored { offset: first + 1, bytes: largest }];
    assert_eq!(read(log, 0, first + 1, 10).await, one, "one record, however large");
}

/// Two readers follow the end while records are appended: what the end allows can be read, at once.
async fn reads_follow_appends(log: &Arc<dyn Log>, first: u64) {
    const RECORDS: u64 = 150;
    let last = first + RECORDS;
    let reader = |partition| {
        let log = Arc::clone(log);
        tokio::spawn(async move {
            let mut end = log.watch_end(partition).expect("a watch");
            let mut next = first;
            while next < last {
                let seen = *end.wait_for(|end| *end > next).await.expect("the log is open");
                let some = read(&log, partition, seen - 1, 1).await;
                assert_eq!(some.first().map(|stored| stored.offset), Some(seen - 1), "an end can be read up to");
                for stored in read(&log, partition, next, 4096).await {
                    assert_eq!(stored.offset, next);
                    assert_eq!(stored.bytes, record(&format!("{partition}/{next}"), 700));
                    next += 1;
                }
                assert!(*end.borrow() >= next, "a read never passes the watched end");
            }
        })
    };
    let readers = [reader(0), reader(1), reader(0)];
    let appender = |partition| async move {
        for nth in first..last {
            let offsets = append(log, partition, vec![record(&format!("{partition}/{nth}"), 700)]).await;
            assert_eq!(offsets, nth..nth + 1);
            assert!(*log.watch_end(partition).expect("a watch").borrow() > nth, "acknowledged means visible");
        }
    };
    futures::join!(appender(0), appender(1));
    for reader in readers {
        reader.await.expect("a reader reads to the end");
    }
}

async fn trims_do_nothing(log: &Arc<dyn Log>, first: u64) {
    append(log, 0, (0..5).map(|i| record(&format!("t{i}"), 50)).collect()).await;
    log.trim(0, first + 3).await.expect("a trim");
    assert_eq!(log.extent(0).await.expect("an extent"), 0..first + 5);
}

async fn trims_remove_a_prefix(log: &Arc<dyn Log>, first: u64) {
    assert_eq!(first, 0, "a log that trims begins empty");
    append(log, 0, (0..20).map(|i| record(&format!("t{i}"), 50)).collect()).await;
    append(log, 1, vec![record("untouched", 50)]).await;
    log.trim(0, 8).await.expect("a trim");
    assert_trimmed(log, 8, 20).await;
    log.trim(0, 3).await.expect("a trim below an earlier one does nothing");
    assert_trimmed(log, 8, 20).await;
    assert_eq!(log.extent(1).await.expect("an extent"), 0..1, "a trim concerns one partition");
    log.trim(0, 20).await.expect("a trim of everything");
    assert_trimmed(log, 20, 20).await;
    assert_eq!(append(log, 0, vec![record("after", 50)]).await, 20..21, "offsets go on");
    assert_eq!(read_all(log, 0, 20).await, [record("after", 50)]);
}

async fn assert_trimmed(log: &Arc<dyn Log>, start: u64, end: u64) {
    assert_eq!(log.extent(0).await.expect("an extent"), start..end);
    for offset in [0, start - 1] {
        let gone = log.read(0, offset, 100).await;
        assert!(
            matches!(gone, Err(LogError::Trimmed { partition: 0, offset: o, start: s }) if o == offset && s == start),
            "{gone:?}"
        );
    }
    assert_eq!(read_all(log, 0, start).await.len() as u64, end - start);
}

async fn reopening_changes_nothing<F: Fn(&str) -> Opening>(open: &F, Kind { trims, first }: Kind) {
    let log = opened(open, "reopen").await;
    let identity = log.identity();
    append(&log, 0, (0..30).map(|i| record(&format!("k{i}"), 500)).collect()).await;
    append(&log, 1, vec![record("other", 500)]).await;
    log.trim(0, 10).await.expect("a trim");
    log.trim(1, first + 1).await.expect("a trim of everything");
    drop(log);
    let start = |offset| if trims { offset } else { 0 };

    let log = opened(open, "reopen").await;
    assert_eq!(log.identity(), identity, "the same log has the same identity");
    if trims {
        assert_trimmed(&log, 10, 30).await;
    }
    let end = first + 30;
    assert_eq!(*log.watch_end(0).expect("a watch").borrow(), end, "the watch starts at the durable end");
    let expected: Vec<_> = (10..30).map(|i| record(&format!("k{i}"), 500)).collect();
    assert_eq!(read_all(&log, 0, first + 10).await, expected);
    assert_eq!(append(&log, 0, vec![record("later", 5)]).await, end..end + 1, "offsets go on");
    let again = first + 1..first + 2;
    assert_eq!(append(&log, 1, vec![record("later", 5)]).await, again, "also after everything was trimmed");
    drop(log);

    let log = opened(open, "reopen").await;
    assert_eq!(log.extent(0).await.expect("an extent"), start(10)..first + 31);
    assert_eq!(log.extent(1).await.expect("an extent"), start(first + 1)..first + 2);
    assert_ne!(opened(open, "another").await.identity(), identity, "another log has another identity");
}
