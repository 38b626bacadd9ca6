//! How fast a log takes records and gives them back, and whether all of them come back.

use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, bail};
use bytes::{BufMut as _, Bytes, BytesMut};
use reckon_data::log::Log;
use serde::Serialize;
use tokio::task::JoinSet;

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Records in all, shared among the partitions.
    pub records: u64,
    /// Bytes of a record, at least 16.
    pub bytes: usize,
    /// Records of one append.
    pub append_records: u64,
    /// Appends to a partition that wait at once.
    pub appends: u64,
    /// Bytes that are read at once.
    pub read_bytes: usize,
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Records appended, and read back in their order without a hole.
    pub records: u64,
    /// Bytes of a record.
    pub bytes: usize,
    /// Appended so many a second.
    pub appended_per_second: f64,
    /// MB a second.
    pub append_mb_per_second: f64,
    /// Read so many a second.
    pub read_per_second: f64,
    /// MB a second.
    pub read_mb_per_second: f64,
    /// What the log counts of itself.
    pub counters: Vec<(String, u64)>,
}

/// Appends and reads.
///
/// # Errors
/// When the log fails, and when what is read is not what was appended.
pub async fn run(log: Arc<dyn Log>, options: Options, say: &dyn Fn(&str)) -> Result<Report> {
    if options.bytes < 16 || options.append_records == 0 || options.appends == 0 {
        bail!("records have 16 bytes at least, and appends a record");
    }
    let partitions = u64::from(log.partitions());
    let share = |partition: u64| options.records / partitions + u64::from(partition < options.records % partitions);
    say(&format!("appending {} records of {} bytes", options.records, options.bytes));
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for partition in 0..log.partitions() {
        tasks.spawn(append(Arc::clone(&log), partition, share(u64::from(partition)), options));
    }
    let mut appended = Vec::new();
    while let Some(task) = tasks.join_next().await {
        appended.push(task??);
    }
    let append_seconds = begun.elapsed().as_secs_f64();
    say("reading them");
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for (partition, places) in appended {
        tasks.spawn(read(Arc::clone(&log), partition, places, options));
    }
    let mut read = 0;
    while let Some(task) = tasks.join_next().await {
        read += task??;
    }
    let read_seconds = begun.elapsed().as_secs_f64();
    if read != options.records {
        bail!("{read} of {} records were read", options.records);
    }
    let megabytes = options.records as f64 * options.bytes as f64 / 1e6;
    Ok(Report {
        records: read,
        bytes: options.bytes,
        appended_per_second: read as f64 / append_seconds,
        append_mb_per_second: megabytes / append_seconds,
        read_per_second: read as f64 / read_seconds,
        read_mb_per_second: megabytes / read_seconds,
        counters: log.counters().into_iter().map(|counter| (counter.name.to_owned(), counter.value)).collect(),
    })
}

/// A record that says which it is.
fn record(partition: u32, number: u64, bytes: usize) -> Bytes {
    let mut record = BytesMut::with_capacity(bytes);
    record.put_u64(u64::from(partition));
    record.put_u64(number);
    // Nothing that compresses away.
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    while record.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let rest = (bytes - record.len()).min(8);
        record.put_slice(&state.to_le_bytes()[..rest]);
    }
    record.freeze()
}

/// A batch of records, and where it was put.
type Place = (Range<u64>, Range<u64>);

async fn append(log: Arc<dyn Log>, partition: u32, records: u64, options: Options) -> Result<(u32, Vec<Place>)> {
    let mut tasks: JoinSet<Result<Place>> = JoinSet::new();
    let (mut places, mut next) = (Vec::new(), 0);
    loop {
        while next < records && (tasks.len() as u64) < options.appends {
            let numbers = next..(next + options.append_records).min(records);
            next = numbers.end;
            let log = Arc::clone(&log);
            tasks.spawn(async move {
                let batch = numbers.clone().map(|number| record(partition, number, options.bytes)).collect();
                Ok((log.append(partition, batch).await?, numbers))
            });
        }
        match tasks.join_next().await {
            Some(place) => places.push(place??),
            None => break,
        }
    }
    places.sort_by_key(|(offsets, _)| offsets.start);
    Ok((partition, places))
}

/// Reads what was appended to a partition; how many records came, each in its place.
async fn read(log: Arc<dyn Log>, partition: u32, places: Vec<Place>, options: Options) -> Result<u64> {
    let Some((first, _)) = places.first() else { return Ok(0) };
    let (mut next, mut read) = (first.start, 0);
    let mut expected = places.iter().flat_map(|(offsets, numbers)| offsets.clone().zip(numbers.clone()));
    let mut wanted = expected.next();
    while wanted.is_some() {
        for stored in log.read(partition, next, options.read_bytes).await? {
            if stored.offset != next {
                bail!("partition {partition}: offset {} comes after {next}", stored.offset);
            }
            next += 1;
            let Some((offset, number)) = wanted else { break };
            if offset != stored.offset {
                // Somebody else's.
                continue;
            }
            if stored.bytes != record(partition, number, options.bytes) {
                bail!("partition {partition}, offset {offset}: it is not what was appended");
            }
            read += 1;
            wanted = expected.next();
        }
    }
    Ok(read)
}

impl Report {
    /// The report in lines.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!(
            "{} records of {} bytes, read back in order without a hole\nappended {:.0}/s ({:.1} MB/s), read {:.0}/s ({:.1} MB/s)",
            self.records,
            self.bytes,
            self.appended_per_second,
            self.append_mb_per_second,
            self.read_per_second,
            self.read_mb_per_second
        );
        for (name, value) in &self.counters {
            // A string takes whatever is written.
            let _ = write!(text, "\n{name} {value}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use reckon_data::clock::RandomNames;
    use reckon_data::log::memory::MemoryLog;

    use super::*;

    const OPTIONS: Options = Options { records: 1_003, bytes: 40, append_records: 7, appends: 3, read_bytes: 1_000 };

    #[tokio::test]
    async fn all_that_is_appended_is_read() {
        let log: Arc<dyn Log> = Arc::new(MemoryLog::new(3, &RandomNames));
        log.append(1, vec![Bytes::from_static(b"somebody else's")]).await.unwrap();
        let report = run(Arc::clone(&log), OPTIONS, &|_| {}).await.unwrap();
        assert_eq!(report.records, 1_003);
        assert!(report.text().contains("1003 records of 40 bytes"), "{}", report.text());
    }

    #[test]
    fn every_record_is_another() {
        assert_eq!(record(1, 2, 100).len(), 100);
        assert_ne!(record(1, 2, 100)[16..], record(1, 3, 100)[16..]);
    }
}
