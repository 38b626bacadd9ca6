//! Batches to records and back.
//!
//! A record that we append has a key: [`KEY_MAGIC`] and the log's identity. So a topic that was deleted and made anew is
//! noticed at whatever offset it is read. Records of other producers have other keys, or none.

use bytes::Bytes;
use fluvio_protocol::record::{
    BATCH_HEADER_SIZE, Batch, ProducerBatchHeader as _, RawRecords, Record, RecordKey, RecordSet,
};
use uuid::Uuid;

/// How the key of a record begins that Reckon has appended.
const KEY_MAGIC: &[u8; 7] = b"reckon:";
/// Microseconds of a millisecond, which Fluvio's times are in.
const MICROS: i64 = 1_000;

/// A record as a topic holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fetched {
    pub offset: u64,
    /// Whose it is; none if another producer has appended it.
    pub log: Option<Uuid>,
    /// When its producer made it, microseconds since 1970; none if it does not say.
    pub time: Option<i64>,
    pub value: Bytes,
}

/// What an answer holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Whole records that follow each other, from the offset that was asked for.
    pub records: Vec<Fetched>,
    /// The answer ended within a batch: the rest of it has to be asked for.
    pub cut: bool,
}

/// One batch of `records`, which the leader stores whole or not at all, next to each other.
pub(crate) fn batch(log: Option<Uuid>, records: &[Bytes], now: i64) -> Result<Batch<RawRecords>, String> {
    let records: Vec<Record> = records.iter().map(|value| Record::new_key_value(key(log), value.clone())).collect();
    let mut batch = Batch::from(records);
    batch.header.set_first_timestamp(now.div_euclid(MICROS));
    batch.header.set_max_time_stamp(now.div_euclid(MICROS));
    Batch::<RawRecords>::try_from(batch).map_err(|error| error.to_string())
}

fn key(log: Option<Uuid>) -> RecordKey {
    log.map_or(RecordKey::NULL, |log| [&KEY_MAGIC[..], log.as_bytes()].concat().into())
}

fn identity(key: &[u8]) -> Option<Uuid> {
    Uuid::from_slice(key.strip_prefix(KEY_MAGIC)?).ok()
}

/// The records of an answer from `from` on.
///
/// # Errors
/// What is wrong with it: offsets that do not follow each other, bytes that cannot be read.
pub(crate) fn records(set: &RecordSet<RawRecords>, from: u64) -> Result<Answer, String> {
    let mut answer = Answer::default();
    let mut next = from;
    let last = set.batches.len().saturating_sub(1);
    for (at, batch) in set.batches.iter().enumerate() {
        let base = u64::try_from(batch.get_base_offset()).map_err(|_| "a batch has a negative offset".to_owned())?;
        let expected = base + batch.records_len() as u64;
        if expected <= next {
            continue;
        }
        if base > next {
            return Err(format!("offset {next} was expected, and the next batch begins at {base}"));
        }
        // The last batch of an answer may have been cut off anywhere; a compressed one cannot be read then.
        let whole = is_whole(batch);
        if !whole && at != last {
            return Err(format!("the batch at offset {base} is cut off, and is not the last one"));
        }
        let found = match batch.memory_records() {
            Ok(found) => found,
            Err(_) if !whole => Vec::new(),
            Err(error) => return Err(format!("the batch at offset {base} cannot be read: {error}")),
        };
        answer.cut = !whole;
        let first_time = batch.get_base_timestamp();
        for (offset, record) in numbered(base, found) {
            // A producer's filter may have left records out of a batch that has numbers for them.
            answer.records.extend((next..offset).map(nothing));
            if offset >= next {
                answer.records.push(fetched(offset, first_time, record));
                next = offset + 1;
            }
        }
        if whole {
            answer.records.extend((next..expected).map(nothing));
            next = next.max(expected);
        }
    }
    Ok(answer)
}

/// Whether all of a batch came.
fn is_whole(batch: &Batch<RawRecords>) -> bool {
    let schema = if batch.header.has_schema() { size_of::<u32>() } else { 0 };
    usize::try_from(batch.batch_len()).is_ok_and(|bytes| batch.records().0.len() + schema + BATCH_HEADER_SIZE >= bytes)
}

/// Records with their offsets: those that they say, where these grow, otherwise one after the other.
fn numbered(base: u64, records: Vec<Record>) -> Vec<(u64, Record)> {
    let own = |record: &Record| base.checked_add_signed(record.offset_delta()).unwrap_or(base);
    if records.is_sorted_by(|one, next| own(one) < own(next)) && records.first().is_none_or(|first| own(first) >= base)
    {
        return records.into_iter().map(|record| (own(&record), record)).collect();
    }
    (base..).zip(records).collect()
}

/// What stands at an offset that no record came for.
const fn nothing(offset: u64) -> Fetched {
    Fetched { offset, log: None, time: None, value: Bytes::new() }
}

fn fetched(offset: u64, first_time: i64, record: Record) -> Fetched {
    let time = (first_time >= 0).then(|| first_time.saturating_add(record.timestamp_delta()).saturating_mul(MICROS));
    let log = record.key().and_then(|key| identity(key.as_ref()));
    // The crate gives its bytes away as a shared buffer only behind a reference.
    let value: Bytes = Bytes::clone(record.value());
    Fetched { offset, log, time, value }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use fluvio_protocol::{Decoder as _, Encoder as _};
    use proptest::prelude::*;

    use super::*;

    const LOG: Uuid = Uuid::from_u128(7);

    fn values(count: usize, bytes: usize) -> Vec<Bytes> {
        (0..count).map(|at| Bytes::from(vec![u8::try_from(at % 251).unwrap(); bytes])).collect()
    }

    /// The batches as a leader would send them, cut off after so many bytes.
    fn sent(batches: Vec<(i64, Vec<Bytes>)>, limit: usize) -> RecordSet<RawRecords> {
        let mut bytes = Vec::new();
        for (base, values) in batches {
            let mut batch = batch(Some(LOG), &values, 5_000_000).unwrap();
            batch.set_base_offset(base);
            batch.encode(&mut bytes, 0).unwrap();
        }
        bytes.truncate(limit);
        let mut framed = i32::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
        framed.extend(bytes);
        let mut set = RecordSet::default();
        set.decode(&mut framed.as_slice(), 0).unwrap();
        set
    }

    #[test]
    fn what_is_appended_is_read_from_any_offset() {
        let set = sent(vec![(10, values(3, 100)), (13, values(2, 50))], usize::MAX);
        for from in 10..15 {
            let answer = records(&set, from).unwrap();
            assert!(!answer.cut);
            assert!(answer.records.iter().map(|record| record.offset).eq(from..15), "{from}");
            assert!(answer.records.iter().all(|record| record.log == Some(LOG) && record.time == Some(5_000_000)));
        }
        assert_eq!(records(&set, 10).unwrap().records[1].value, values(3, 100)[1]);
        assert_eq!(records(&set, 15).unwrap(), Answer::default());
    }

    #[test]
    fn a_hole_is_an_error() {
        let set = sent(vec![(10, values(3, 10)), (14, values(2, 10))], usize::MAX);
        assert!(records(&set, 10).unwrap_err().contains("offset 13 was expected"));
        assert!(records(&set, 9).unwrap_err().contains("offset 9 was expected"));
    }

    #[test]
    fn records_that_a_filter_left_out_are_empty_ones() {
        let mut batch = batch(Some(LOG), &values(3, 10), 5_000_000).unwrap();
        let mut kept = batch.memory_records().unwrap();
        kept.remove(1);
        let mut bytes = Vec::new();
        kept.encode(&mut bytes, 0).unwrap();
        let mut filtered = Batch::<RawRecords>::new_with_len(i32::try_from(BATCH_HEADER_SIZE + bytes.len()).unwrap());
        filtered.header = batch.get_mut_header().clone();
        filtered.set_offset_delta(3);
        *filtered.mut_records() = RawRecords(bytes.into());
        filtered.set_base_offset(10);
        let answer = records(&RecordSet { batches: vec![filtered] }, 10).unwrap();
        let found: Vec<(u64, usize)> =
            answer.records.iter().map(|record| (record.offset, record.value.len())).collect();
        assert_eq!(found, [(10, 10), (11, 0), (12, 10), (13, 0)]);
    }

    #[test]
    fn keys_of_others_are_no_identities() {
        assert_eq!(identity(b"reckon:short"), None);
        assert_eq!(identity(&[1; 23]), None);
    }

    proptest! {
        /// Wherever an answer is cut off, what is read of it is right, and reading on from there gives the rest.
        #[test]
        fn an_answer_that_is_cut_off_loses_nothing(limit in 0_usize..700, from in 0_u64..9) {
            let batches = vec![(0, values(4, 40)), (4, values(1, 10)), (5, values(4, 60))];
            let whole = records(&sent(batches.clone(), usize::MAX), from).unwrap().records;
            let part = records(&sent(batches, limit), from).unwrap();
            prop_assert_eq!(&part.records[..], &whole[..part.records.len()]);
            if part.records.len() < whole.len() && limit > 600 {
                prop_assert!(part.cut);
            }
        }
    }
}
