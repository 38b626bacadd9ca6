//! The stream's segments: their own numbers, and the rows of counts that they hold.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;
use polars::prelude::{ChunkCompareEq as _, DataFrame};
use reckon_data::logtime::LogTime;
use reckon_data::run::Granularity;
use reckon_data::table::{DataFile, Table};
use reckon_tables::schema::{KIND_COUNT, KIND_SUMMARY};

use super::columns::Columns;
use super::counts::{self, Counts};
use super::held::Reading;
use super::load::{Loaded, Unreadable, load};
use super::scan::{BadFile, FileHashes, Scanner, busy};
use super::weigh::{Cell, place};
use crate::error::AuditError;

/// Where a segment begins: (partition, first offset).
pub type SegmentKey = (u32, u64);

/// What a segment says of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Said {
    /// Offset after its last.
    pub end: u64,
    /// Events accepted.
    pub accepted: u64,
    /// Events counted.
    pub counted: u64,
    /// Repeats dropped.
    pub duplicate: u64,
    /// Events refused.
    pub dead: u64,
    /// Sum of the hashes counted.
    pub fingerprint: u64,
    /// Log time at its end.
    pub log_time: LogTime,
    /// From where the repeats of whoever comes behind it are to be looked for.
    pub refill_offset: u64,
    /// Log time before the record there.
    pub refill_log_time: LogTime,
    /// What it was counted with.
    pub definition: u64,
}

/// A segment: what it says, and what its rows add up to.
#[derive(Debug, Clone)]
pub struct Segment {
    /// Its summary; none when it is missing.
    pub said: Option<Said>,
    /// Summaries there are.
    pub summaries: u64,
    /// Its rows, weighed.
    pub rows: Cell,
    /// Wrapping sum of their fingerprints.
    pub fingerprint: u64,
    /// The first minute that it counts; far in the future when it counts none.
    pub minute_min: i64,
    /// The file, for whoever looks closer.
    pub file: String,
}

impl Default for Segment {
    fn default() -> Self {
        Self {
            said: None,
            summaries: 0,
            rows: Cell::default(),
            fingerprint: 0,
            minute_min: i64::MAX,
            file: String::new(),
        }
    }
}

/// All segments of the stream's counts.
#[derive(Debug, Default)]
pub struct Segments {
    /// By their places.
    pub all: BTreeMap<SegmentKey, Segment>,
    /// Files that could not be read.
    pub bad: Vec<BadFile>,
}

const PLACE_COLUMNS: [&str; 4] = ["kind", "log_partition", "segment_start", "segment_end"];
const SUMMARY_COLUMNS: [&str; 7] =
    ["accepted", "counted", "duplicate", "dead", "log_time", "refill_offset", "refill_log_time"];

impl Scanner {
    /// Reads the stream's counts.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn segments(
        &self,
        files: &[DataFile],
        reading: &Arc<Reading>,
        hashes: &mut FileHashes,
    ) -> Result<Segments, AuditError> {
        let mut segments = Segments::default();
        let wanted: Vec<&str> =
            counts::columns(&reading.counting).into_iter().chain(PLACE_COLUMNS).chain(SUMMARY_COLUMNS).collect();
        for file in files {
            let read = match load(&self.store, Table::StreamCounts, file, &wanted).await? {
                Ok(loaded) => {
                    hashes.note(Table::StreamCounts, &file.path, loaded.hash);
                    let reading = Arc::clone(reading);
                    busy(move || read_segments(&loaded, &reading)).await?
                }
                Err(why) => Err(why),
            };
            match read {
                Ok(read) => read.into_iter().for_each(|(key, part)| segments.add(key, part)),
                Err(why) => segments.bad.push(BadFile {
                    table: Table::StreamCounts,
                    path: file.path.clone(),
                    granularity: None,
                    why,
                }),
            }
        }
        Ok(segments)
    }

    /// The rows of counts of one segment.
    ///
    /// # Errors
    /// When the store fails, or the file does not say what it said before.
    pub async fn rows_of_segment(
        &self,
        files: &[DataFile],
        path: &str,
        key: SegmentKey,
        reading: &Reading,
    ) -> Result<Vec<DataFrame>, AuditError> {
        let wanted: Vec<&str> = counts::columns(&reading.counting).into_iter().chain(PLACE_COLUMNS).collect();
        let mut frames = Vec::new();
        for file in files.iter().filter(|file| file.path == path) {
            let changed = |why: Unreadable| AuditError::Store { path: path.to_owned(), reason: format!("{why:?}") };
            let loaded = load(&self.store, Table::StreamCounts, file, &wanted).await?.map_err(changed)?;
            for slice in loaded.slices() {
                let frame = loaded.frame(slice).map_err(changed)?;
                let mask = rows_of(&frame, key).map_err(changed)?;
                let rows = filtered(&frame, &mask)?;
                let counts = Counts::of(rows, &reading.counting).map_err(changed)?;
                frames.push(counts.kept(&vec![true; counts.len()])?);
            }
        }
        Ok(frames)
    }
}

impl Segments {
    fn add(&mut self, key: SegmentKey, part: Segment) {
        let own = self.all.entry(key).or_default();
        own.said = own.said.or(part.said);
        own.summaries += part.summaries;
        own.rows.merge(part.rows);
        own.fingerprint = own.fingerprint.wrapping_add(part.fingerprint);
        own.minute_min = own.minute_min.min(part.minute_min);
        if own.file.is_empty() {
            own.file = part.file;
        }
    }
}

/// The rows of a mask.
fn filtered(frame: &DataFrame, mask: &[bool]) -> Result<DataFrame, AuditError> {
    use polars::prelude::{NamedFrom as _, Series};
    Ok(frame.filter(Series::new("".into(), mask).bool()?)?)
}

fn rows_of(frame: &DataFrame, (partition, start): SegmentKey) -> Result<Vec<bool>, Unreadable> {
    let columns = Columns(frame);
    let (kinds, partitions, starts) =
        (columns.text("kind")?, columns.small("log_partition")?, columns.whole("segment_start")?);
    let is = |row: usize| {
        kinds.get(row) == Some(KIND_COUNT)
            && partitions.get(row).is_some_and(|found| found.cast_unsigned() == partition)
            && starts.get(row).is_some_and(|found| found.cast_unsigned() == start)
    };
    Ok((0..frame.height()).map(is).collect())
}

fn read_segments(file: &Loaded, reading: &Reading) -> Result<BTreeMap<SegmentKey, Segment>, Unreadable> {
    let broken = |error: polars::error::PolarsError| Unreadable::Corrupt(error.to_string());
    let mut segments: BTreeMap<SegmentKey, Segment> = BTreeMap::new();
    let path = file.file.path.clone();
    for slice in file.slices() {
        let frame = file.frame(slice)?;
        read_summaries(&frame, &path, &mut segments)?;
        let is_count = Columns(&frame).text("kind")?.equal(KIND_COUNT);
        let rows = frame.filter(&is_count).map_err(broken)?;
        let keys = keys(&rows)?;
        let counts = Counts::of(rows, &reading.counting)?;
        for (row, key) in keys.into_iter().enumerate() {
            let segment = segments.entry(key).or_default();
            let amount = &counts.amount[row];
            segment.rows.add(amount, place(counts.group[row], Granularity::Minute, counts.minute[row]));
            segment.fingerprint = segment.fingerprint.wrapping_add(amount.fingerprint);
            segment.minute_min = segment.minute_min.min(counts.minute[row]);
            if segment.file.is_empty() {
                segment.file.clone_from(&path);
            }
        }
    }
    Ok(segments)
}

fn keys(frame: &DataFrame) -> Result<Vec<SegmentKey>, Unreadable> {
    let columns = Columns(frame);
    let null = || Unreadable::Corrupt("a row has no segment".to_owned());
    let (partitions, starts) = (columns.small("log_partition")?, columns.whole("segment_start")?);
    (partitions.iter().zip(starts.iter()))
        .map(|(partition, start)| {
            let (partition, start) = partition.zip(start).ok_or_else(null)?;
            Ok((partition.cast_unsigned(), start.cast_unsigned()))
        })
        .collect()
}

fn read_summaries(
    frame: &DataFrame,
    path: &str,
    segments: &mut BTreeMap<SegmentKey, Segment>,
) -> Result<(), Unreadable> {
    let broken = |error: polars::error::PolarsError| Unreadable::Corrupt(error.to_string());
    let is_summary = Columns(frame).text("kind")?.equal(KIND_SUMMARY);
    let frame = frame.filter(&is_summary).map_err(broken)?;
    let columns = Columns(&frame);
    let mut numbers = HashMap::new();
    for name in ["segment_end", "fingerprint", "definition"].into_iter().chain(SUMMARY_COLUMNS) {
        numbers.insert(name, columns.whole(name)?);
    }
    for (row, key) in keys(&frame)?.into_iter().enumerate() {
        let number = |name: &str| numbers.get(name).and_then(|column| column.get(row));
        let whole = |name: &str| {
            let null = || Unreadable::Corrupt(format!("a summary has no {name}"));
            number(name).map(i64::cast_unsigned).ok_or_else(null)
        };
        let time = |name: &str| number(name).map_or(LogTime::UNSET, LogTime::at);
        let count = |name: &str| {
            let number = whole(name)?;
            let negative = || Unreadable::Corrupt(format!("a summary has {} as {name}", number.cast_signed()));
            i64::try_from(number).map(|_| number).map_err(|_| negative())
        };
        let said = Said {
            end: count("segment_end")?,
            accepted: count("accepted")?,
            counted: count("counted")?,
            duplicate: count("duplicate")?,
            dead: count("dead")?,
            fingerprint: whole("fingerprint")?,
            log_time: time("log_time"),
            refill_offset: count("refill_offset")?,
            refill_log_time: time("refill_log_time"),
            definition: whole("definition")?,
        };
        let segment = segments.entry(key).or_default();
        segment.said = Some(said);
        segment.summaries += 1;
        path.clone_into(&mut segment.file);
    }
    Ok(())
}
