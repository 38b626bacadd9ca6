//! What is worth doing, from what the tables say of their files. Pure functions.

use std::collections::BTreeMap;

use reckon_data::minute::parse_date;
use reckon_data::run::Granularity;
use reckon_data::table::DataFile;

/// A group of files is read and written in pieces of so many times the target size at the most.
const PIECE_TARGETS: u64 = 4;

/// When files are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Size that files should have, bytes.
    pub target_bytes: u64,
    /// A group of no more than so many small files is left alone.
    pub files_min: usize,
}

impl Rules {
    /// A file is small below a quarter of the target.
    #[must_use]
    pub const fn is_small(self, file: &DataFile) -> bool {
        file.bytes < self.target_bytes / 4
    }
}

/// The log partition and offsets of a file's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// First and last log partition.
    pub partitions: (u32, u32),
    /// First offset.
    pub start: u64,
    /// Offset after the last.
    pub end: u64,
}

impl Place {
    /// Where a file of raw events lies; none if its statistics don't say.
    #[must_use]
    pub fn of_events(file: &DataFile) -> Option<Self> {
        let end = unsigned(file.max_i64("log_offset"))?.checked_add(1)?;
        Some(Self { partitions: partitions(file)?, start: unsigned(file.min_i64("log_offset"))?, end })
    }

    /// Where a file of stream counts lies; none if its statistics don't say.
    #[must_use]
    pub fn of_segments(file: &DataFile) -> Option<Self> {
        let (start, end) = (unsigned(file.min_i64("segment_start"))?, unsigned(file.max_i64("segment_end"))?);
        Some(Self { partitions: partitions(file)?, start, end })
    }

    /// Whether everything in the file lies below its partition's offset.
    #[must_use]
    pub fn is_below(self, offsets: &[u64]) -> bool {
        self.among(offsets).is_some_and(|mut offsets| offsets.all(|offset| self.end <= *offset))
    }

    /// Whether nothing in the file lies below its partition's offset.
    #[must_use]
    pub fn is_above(self, offsets: &[u64]) -> bool {
        self.among(offsets).is_some_and(|mut offsets| offsets.all(|offset| self.start >= *offset))
    }

    fn among(self, offsets: &[u64]) -> Option<std::slice::Iter<'_, u64>> {
        Some(offsets.get(self.partitions.0 as usize..=self.partitions.1 as usize)?.iter())
    }
}

fn unsigned(number: Option<i64>) -> Option<u64> {
    u64::try_from(number?).ok()
}

fn partitions(file: &DataFile) -> Option<(u32, u32)> {
    let number = |number: Option<i64>| u32::try_from(number?).ok();
    let (first, last) = (number(file.min_i64("log_partition"))?, number(file.max_i64("log_partition"))?);
    (first <= last).then_some((first, last))
}

/// Files to be put together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Values of the table's partition columns.
    pub partition: BTreeMap<String, Option<String>>,
    /// Where the rows lie.
    pub place: Place,
    /// The files.
    pub files: Vec<DataFile>,
}

/// Raw events to be put together, of one date if one is given: the small files of a date and log partition.
///
/// Files below coverage and files above it stay apart, so that a batch run still sees from a file's
/// statistics whether it holds anything new.
#[must_use]
pub fn event_pieces(files: &[DataFile], date: Option<i32>, coverage: &[u64], rules: Rules) -> Vec<Piece> {
    let mut groups: BTreeMap<(i32, u32, bool), Vec<(Place, DataFile)>> = BTreeMap::new();
    for file in files.iter().filter(|file| rules.is_small(file)) {
        let (Some(on), Some(place)) = (date_of_file(file, "event_date"), Place::of_events(file)) else { continue };
        let (first, last) = place.partitions;
        if first == last && date.is_none_or(|date| date == on) {
            groups.entry((on, first, place.is_below(coverage))).or_default().push((place, file.clone()));
        }
    }
    groups.into_values().flat_map(|group| pieces(group, rules)).collect()
}

/// Stream counts to be put together: small files above coverage. Those below are about to be dropped.
#[must_use]
pub fn segment_pieces(files: &[DataFile], coverage: &[u64], rules: Rules) -> Vec<Piece> {
    let mut groups: BTreeMap<(u32, u32), Vec<(Place, DataFile)>> = BTreeMap::new();
    for file in files.iter().filter(|file| rules.is_small(file)) {
        if let Some(place) = Place::of_segments(file).filter(|place| place.is_above(coverage)) {
            groups.entry(place.partitions).or_default().push((place, file.clone()));
        }
    }
    groups.into_values().flat_map(|group| pieces(group, rules)).collect()
}

/// Cuts a group of files, in log order, into pieces that are worth the work.
fn pieces(mut group: Vec<(Place, DataFile)>, rules: Rules) -> Vec<Piece> {
    if group.len() <= rules.files_min {
        return Vec::new();
    }
    group.sort_by(|(a, f), (b, g)| (a.start, a.end, &f.path).cmp(&(b.start, b.end, &g.path)));
    let mut pieces: Vec<Piece> = Vec::new();
    let mut bytes = 0;
    for (place, file) in group {
        bytes += file.bytes;
        match pieces.last_mut() {
            Some(piece) if bytes <= PIECE_TARGETS * rules.target_bytes => {
                piece.place.start = piece.place.start.min(place.start);
                piece.place.end = piece.place.end.max(place.end);
                piece.files.push(file);
            }
            _ => {
                bytes = file.bytes;
                pieces.push(Piece { partition: file.partition.clone(), place, files: vec![file] });
            }
        }
    }
    pieces.retain(|piece| piece.files.len() > 1);
    pieces
}

/// Files of stream counts that nobody needs any more: all their segments have been covered for long enough
/// (`covered`), and none can be a partition's last, which recovery begins at (`sealed`).
#[must_use]
pub fn covered_files(files: &[DataFile], covered: &[u64], sealed: &[u64]) -> Vec<DataFile> {
    let holds_last = |place: Place| {
        // A file of several partitions may hold the last segment of any of them.
        place.among(sealed).is_none_or(|mut sealed| sealed.any(|sealed| place.start < *sealed && *sealed <= place.end))
    };
    let is_dropped =
        |file: &&DataFile| Place::of_segments(file).is_some_and(|place| place.is_below(covered) && !holds_last(place));
    files.iter().filter(is_dropped).cloned().collect()
}

/// Raw events that are older than they are kept: dates before `cutoff`, each whole, and only when coverage has
/// passed all of it. A late event is counted first; and a date that had lost some of its events only could be
/// taken for a whole one by a recount.
#[must_use]
pub fn expired_events(files: &[DataFile], cutoff: i32, coverage: &[u64]) -> Vec<DataFile> {
    let mut dates: BTreeMap<i32, Vec<&DataFile>> = BTreeMap::new();
    for file in files {
        if let Some(date) = date_of_file(file, "event_date").filter(|date| *date < cutoff) {
            dates.entry(date).or_default().push(file);
        }
    }
    let is_counted = |file: &&DataFile| Place::of_events(file).is_some_and(|place| place.is_below(coverage));
    dates.into_values().filter(|files| files.iter().all(is_counted)).flatten().cloned().collect()
}

/// Raw events that move to the colder store: of dates before `cutoff`, and counted. What is not counted yet is read soon, and
/// put together with others.
#[must_use]
pub fn cold_files(files: &[DataFile], cutoff: i32, coverage: &[u64]) -> Vec<DataFile> {
    let is_old = |file: &DataFile| date_of_file(file, "event_date").is_some_and(|date| date < cutoff);
    let is_counted = |file: &DataFile| Place::of_events(file).is_some_and(|place| place.is_below(coverage));
    files.iter().filter(|file| is_old(file) && is_counted(file)).cloned().collect()
}

/// The files of dates from `cutoff` on: what is about to move, or has moved, is not put together any more.
#[must_use]
pub fn not_cold(files: &[DataFile], cutoff: i32) -> Vec<DataFile> {
    let is_kept = |file: &&DataFile| date_of_file(file, "event_date").is_none_or(|date| date >= cutoff);
    files.iter().filter(is_kept).cloned().collect()
}

/// Counts of a date that coarser ones stand for from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RollUp {
    /// The date, days since 1970.
    pub date: i32,
    /// What goes: minutes, or hours, or both.
    pub gone: BTreeMap<Granularity, Vec<DataFile>>,
    /// What stays.
    pub kept: BTreeMap<Granularity, Vec<DataFile>>,
}

impl RollUp {
    /// Bytes of all its files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.gone.values().chain(self.kept.values()).flatten().map(|file| file.bytes).sum()
    }
}

/// The dates that are older than their minutes (dates before `minutes`) or hours (dates before `hours`) are kept, and still
/// have some. One that lacks anything coarser stays as it is: nothing would stand for what goes.
#[must_use]
pub fn roll_ups(files: &[DataFile], minutes: Option<i32>, hours: Option<i32>) -> Vec<RollUp> {
    let mut dates: BTreeMap<i32, BTreeMap<Granularity, Vec<DataFile>>> = BTreeMap::new();
    for file in files {
        if let (Some(date), Some(granularity)) = (date_of_file(file, "event_date"), granularity_of(file)) {
            dates.entry(date).or_default().entry(granularity).or_default().push(file.clone());
        }
    }
    let goes = |date: i32, granularity: Granularity| match granularity {
        Granularity::Minute => minutes.is_some_and(|cutoff| date < cutoff),
        Granularity::Hour => hours.is_some_and(|cutoff| date < cutoff),
        Granularity::Day => false,
    };
    let roll_up = |(date, sets): (i32, BTreeMap<Granularity, Vec<DataFile>>)| {
        let (gone, kept): (BTreeMap<_, _>, BTreeMap<_, _>) =
            sets.into_iter().partition(|(granularity, _)| goes(date, *granularity));
        let stays = |granularity: &Granularity| goes(date, *granularity) || kept.contains_key(granularity);
        let is_whole = [Granularity::Hour, Granularity::Day].iter().all(stays);
        (!gone.is_empty() && is_whole).then_some(RollUp { date, gone, kept })
    };
    dates.into_iter().filter_map(roll_up).collect()
}

fn granularity_of(file: &DataFile) -> Option<Granularity> {
    file.partition.get("granularity")?.as_deref()?.parse().ok()
}

/// Dead letters that are older than they are kept.
#[must_use]
pub fn expired_dead(files: &[DataFile], cutoff: i32) -> Vec<DataFile> {
    let is_old = |file: &&DataFile| date_of_file(file, "received_date").is_some_and(|date| date < cutoff);
    files.iter().filter(is_old).cloned().collect()
}

fn date_of_file(file: &DataFile, column: &str) -> Option<i32> {
    parse_date(file.partition.get(column)?.as_deref()?)
}

/// Remembers when coverage was seen where, to tell what has been covered for long enough.
///
/// Kept in memory only: after a restart things are dropped later, never sooner.
#[derive(Debug, Default)]
pub struct CoverageHistory {
    /// (time in microseconds, coverage), oldest first.
    seen: Vec<(i64, Vec<u64>)>,
}

impl CoverageHistory {
    /// Notes that coverage is here now, and returns what it was `age` microseconds ago, or before that if
    /// nobody looked then; zeroes if it was never seen.
    pub fn note(&mut self, now: i64, coverage: &[u64], age: i64) -> Vec<u64> {
        // The clock was set back: what was seen "later" is as if seen now.
        for (time, _) in &mut self.seen {
            *time = (*time).min(now);
        }
        if self.seen.last().is_none_or(|(_, last)| last != coverage) {
            self.seen.push((now, coverage.to_vec()));
        }
        let old = self.seen.partition_point(|(time, _)| *time <= now.saturating_sub(age));
        // What came before the newest that is old enough says nothing any more.
        self.seen.drain(..old.saturating_sub(1));
        match self.seen.first() {
            Some((_, coverage)) if old > 0 => coverage.clone(),
            _ => vec![0; coverage.len()],
        }
    }
}
