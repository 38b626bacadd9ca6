//! A record of the log that cannot be read, and the dead record that takes its place when it is given up.
//!
//! Nobody can count what it held, and as long as it stands there its partition ends with it. A dead record in its place
//! says what was lost, in `dead_letters` with its bytes as they were found unless the archiver is past it, and lets
//! counter and archiver go on.
//! Its append time must not move log time, which the records after it are judged by, and should not hold it back: where
//! segments behind it are sealed with the log time that the record gave them, the counter goes on from that.

use bytes::Bytes;

use crate::dead::DeadLetter;
use crate::event::{Reason, Refusal};
use crate::log::embedded::EmbeddedLog;
use crate::log::{Log as _, LogError};
use crate::record::{Header, RecordError, decode_header, encode_dead};

/// Records on either side that are looked at for one that can be read.
const NEIGHBOURS_MAX: u64 = 1_000;

/// A record that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostRecord {
    /// The log partition.
    pub partition: u32,
    /// The record's offset.
    pub offset: u64,
    /// What does not fit.
    pub reason: String,
    /// Its bytes as they were found; none where not even those can be read.
    pub bytes: Option<Bytes>,
    /// What its header says, if it can be read. It may be damaged too.
    pub header: Option<Header>,
    /// The append time that the record in its place gets, microseconds.
    pub append_time: i64,
}

impl LostRecord {
    /// The record at a place; none when it can be read. `now` is the time of day: no record was appended later.
    ///
    /// # Errors
    /// What the log says.
    pub async fn find(log: &EmbeddedLog, partition: u32, offset: u64, now: i64) -> Result<Option<Self>, LogError> {
        let Some(remains) = log.remains(partition, offset).await? else { return Ok(None) };
        let header = remains.bytes.as_ref().and_then(|bytes| decode_header(bytes).ok());
        let extent = log.extent(partition).await?;
        let before = (extent.start..offset).rev();
        let before = append_time_in(log, partition, before).await?;
        let after = append_time_in(log, partition, offset + 1..extent.end).await?;
        let append_time = append_time(header.map(|header| header.append_time), before, after, now);
        Ok(Some(Self { partition, offset, reason: remains.reason, bytes: remains.bytes, header, append_time }))
    }

    /// The record that takes its place: one dead letter, with the bytes as they were found, or their length and hash.
    ///
    /// # Errors
    /// Never, unless limits disagree.
    pub fn instead(&self) -> Result<Bytes, RecordError> {
        let events = self.header.map_or_else(
            || "how many events it held cannot be read".to_owned(),
            |header| format!("its header says that it held {} events", header.events),
        );
        let found = if self.bytes.is_some() { "" } else { ", and none of its bytes are there" };
        let message = format!("a record of the log was damaged and given up ({}): {events}{found}", self.reason);
        let source = format!("log partition {}, offset {}", self.partition, self.offset);
        let refusal = Refusal::whole(Reason::DamagedRecord, message);
        let letter = DeadLetter::new(&refusal, Some(&source), self.bytes.as_deref().unwrap_or_default());
        encode_dead(&[letter], 0, self.append_time)
    }
}

/// The append time of the first of these records that can be read.
async fn append_time_in(
    log: &EmbeddedLog,
    partition: u32,
    offsets: impl Iterator<Item = u64>,
) -> Result<Option<i64>, LogError> {
    for offset in offsets.take(usize::try_from(NEIGHBOURS_MAX).unwrap_or(usize::MAX)) {
        let records = match log.read(partition, offset, 0).await {
            Err(LogError::Corrupt { .. }) => continue,
            records => records?,
        };
        if let Some(header) = records.first().and_then(|record| decode_header(&record.bytes).ok()) {
            return Ok(Some(header.append_time));
        }
    }
    Ok(None)
}

/// The append time of a dead record: what the damaged header says, as long as that lies between its neighbours, where it
/// cannot move log time further than they do; otherwise that of the one before. Where there is none before, log time
/// begins with the one after, or with the time of day: too early a beginning would hold it back for good, since what
/// one record may add to it is bounded.
fn append_time(said: Option<i64>, before: Option<i64>, after: Option<i64>, now: i64) -> i64 {
    let after = after.unwrap_or(now);
    match (before, said) {
        (Some(before), Some(said)) if before <= said && said <= after => said,
        (Some(before), _) => before,
        (None, _) => after,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead::BODY_BYTES_MAX;
    use crate::log::ANY_RECORD_BYTES_MAX;
    use crate::record::{Body, Kind, decode};

    #[test]
    fn log_time_neither_jumps_nor_lags() {
        assert_eq!(append_time(Some(15), Some(10), Some(20), 99), 15, "as it was");
        assert_eq!(append_time(Some(21), Some(10), Some(20), 99), 10);
        assert_eq!(append_time(Some(-1), Some(10), Some(20), 99), 10);
        assert_eq!(append_time(None, Some(10), None, 99), 10);
        assert_eq!(append_time(Some(50), Some(10), None, 99), 50, "the last record of its partition");
        assert_eq!(append_time(Some(100), Some(10), None, 99), 10);
        assert_eq!(append_time(Some(0), None, Some(20), 99), 20);
        assert_eq!(append_time(None, None, None, 99), 99);
    }

    #[test]
    fn one_letter_says_what_is_lost() {
        let header = Header { kind: Kind::Events, routing: 0, append_time: 7, events: 120 };
        let lost = |bytes: Option<Vec<u8>>| LostRecord {
            partition: 3,
            offset: 17,
            reason: "its checksum".to_owned(),
            header: bytes.as_ref().map(|_| header),
            bytes: bytes.map(Bytes::from),
            append_time: 7,
        };
        let letter = |lost: &LostRecord| {
            let record = decode(&lost.instead().unwrap()).unwrap();
            assert_eq!((record.header.append_time, record.header.events), (7, 1));
            let Body::Dead(mut letters) = record.body else { panic!("no dead record") };
            letters.remove(0)
        };
        let kept = letter(&lost(Some(vec![1, 2])));
        assert_eq!((kept.reason.as_str(), kept.body), ("damaged_record", Some(vec![1, 2])));
        assert_eq!(kept.source.as_deref(), Some("log partition 3, offset 17"));
        assert!(kept.message.contains("120 events"), "{}", kept.message);
        let long = letter(&lost(Some(vec![1; ANY_RECORD_BYTES_MAX])));
        assert_eq!((long.body, long.body_bytes), (None, ANY_RECORD_BYTES_MAX as u64));
        let longest = letter(&lost(Some(vec![1; BODY_BYTES_MAX])));
        assert_eq!(longest.body.map(|body| body.len()), Some(BODY_BYTES_MAX));
        assert!(letter(&lost(None)).message.ends_with("none of its bytes are there"));
    }
}
