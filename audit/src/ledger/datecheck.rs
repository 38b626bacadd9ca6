//! One date: its raw events against its counts per minute, hour and day.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use polars::prelude::DataFrame;
use reckon_data::minute::{MINUTES_PER_DAY, MINUTES_PER_HOUR, format_date, format_time, start_of_minute};
use reckon_data::rolled::Rolled;
use reckon_data::run::Granularity;
use reckon_data::table::Table;

use super::compare::{RowDiff, RowEvent, RowKey, differences, events, firsts};
use super::explain::ROWS_MAX;
use super::held::{ByPlace, Reading};
use super::pin::{DateFiles, granularity_of};
use super::place::Place;
use super::raw::PLACE;
use super::reduce::DateCells;
use super::rows::stack;
use super::scan::{BadFile, CountScan, FileHashes, RawScan, Scanner, is_covered, note_bad};
use super::served::{Sample, sample};
use super::weigh::{BUCKETS, mix};
use crate::error::AuditError;
use crate::finding::{Class, Finding, Repair};
use crate::report::model::{DateTotals, HourTotals};

#[cfg(test)]
mod tests;

/// Events up to which every row of a date is compared one by one, where memory has room for them.
const ALL_ROWS: u64 = 1 << 20;

/// What the check of dates goes by.
#[derive(Debug)]
pub struct DateCheck<'a> {
    /// Reads files.
    pub scanner: &'a Scanner,
    /// Up to which offset batch has counted.
    pub coverage: Arc<Vec<u64>>,
    /// Chooses the rows that are compared one by one.
    pub seed: u64,
    /// Entities of which answers are asked, of each date.
    pub served: usize,
    /// Dates before this one may have lost raw events to retention.
    pub closed: i64,
    /// How far the counts have been rolled up.
    pub rolled: Rolled,
}

/// What has been found of a date; the rows that differ are explained later.
#[derive(Debug)]
pub struct DateChecked {
    /// The date.
    pub date: i32,
    /// The line of the report.
    pub totals: DateTotals,
    /// The granularities that it has counts of, or should have, the finest first: those it was rolled up from are not
    /// among them.
    pub due: Vec<Granularity>,
    /// Its hours.
    pub hours: Vec<HourTotals>,
    /// The rows that differ, as far as they were looked at: of each granularity one more than are explained at most.
    pub diffs: BTreeMap<Granularity, Vec<RowDiff>>,
    /// How many others were found to differ.
    pub left_out: BTreeMap<Granularity, u64>,
    /// The events that count in those of the rows that are of the finest granularity.
    pub events: HashMap<RowKey, Vec<RowEvent>>,
    /// Files that could not be read.
    pub bad: Vec<BadFile>,
    /// Whether all its raw events could be read.
    pub raw_whole: bool,
    /// Buckets that were looked at row by row.
    pub compared: u64,
    /// Whether there is more that differs than was looked at.
    pub more: bool,
    /// Whether counts were compared that several definitions made.
    pub coarse: bool,
    /// Rows with a count below 1 or a time that is no minute.
    pub malformed: u64,
    /// The granularities that agree with the raw events throughout.
    pub agreeing: Vec<Granularity>,
    /// Of a closed date, hours and days that its minutes do not make.
    pub closed_rollups: Vec<Finding>,
    /// Places of events whose stored hash is wrong, with their ids.
    pub wrong_hash: Vec<(Place, String)>,
    /// Questions for the serving layer, with what is to be answered.
    pub samples: Vec<Sample>,
    /// What else was found of its raw events.
    pub reduced: super::reduce::Reduced,
    /// Below this offset every event of a partition is counted, by the events that are missing.
    pub last_covered: BTreeMap<u32, u64>,
}

impl DateChecked {
    /// Whether its raw events can be held against the log: all could be read, with everything that is counted of them.
    #[must_use]
    pub const fn is_held_against_log(&self) -> bool {
        self.raw_whole && !self.coarse
    }

    /// The finest counts that it has, or should have: minutes, unless it is rolled up.
    #[must_use]
    pub fn finest(&self) -> Granularity {
        self.due.first().copied().unwrap_or(Granularity::Day)
    }

    /// Whether all rows of the finest granularity that differ are kept.
    #[must_use]
    pub fn has_all_finest(&self) -> bool {
        !(self.more || self.left_out.contains_key(&self.finest()))
    }

    /// How many more rows that differ are kept.
    fn room(&self, granularity: Granularity) -> usize {
        (ROWS_MAX + 1).saturating_sub(self.diffs.get(&granularity).map_or(0, Vec::len))
    }

    /// Keeps rows that differ, and counts those that there is no room for: where nearly all do, on many dates, they would
    /// take more memory than all else.
    fn keep(&mut self, granularity: Granularity, mut diffs: Vec<RowDiff>) {
        let room = self.room(granularity);
        if diffs.len() > room {
            *self.left_out.entry(granularity).or_default() += (diffs.len() - room) as u64;
            diffs.truncate(room);
        }
        self.diffs.entry(granularity).or_default().extend(diffs);
    }

    /// Whether all counts of a granularity could be read.
    fn has(&self, granularity: Granularity) -> bool {
        !self.bad.iter().any(|bad| bad.granularity == Some(granularity))
    }

    /// Takes in the files that could not be read when the date was read once more. What was found before still holds,
    /// but what was to be looked at is not, and that sums agreed shows no longer that the raw events are there.
    fn not_read_again(&mut self, bad: Vec<BadFile>) {
        let before = self.bad.len();
        self.raw_whole &= bad.iter().all(|bad| bad.table != Table::Events);
        note_bad(&mut self.bad, bad);
        self.more |= self.bad.len() > before;
        let agreeing = std::mem::take(&mut self.agreeing);
        self.agreeing = agreeing.into_iter().filter(|granularity| self.raw_whole && self.has(*granularity)).collect();
    }
}

impl DateCheck<'_> {
    /// Checks a date. `by_place` and `hashes` take in what they are about.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn run(
        &self,
        date: i32,
        files: &DateFiles,
        by_place: &mut ByPlace,
        hashes: &mut FileHashes,
    ) -> Result<DateChecked, AuditError> {
        let rows = rows_of(files);
        let buckets = self.sampled(date, rows);
        let mut reading = self.reading(false, buckets);
        let mut counts = self.scanner.counts(date, &files.counts, &reading, hashes).await?;
        if !counts.uniform {
            reading = self.reading(true, buckets);
            counts = self.scanner.counts(date, &files.counts, &reading, hashes).await?;
        }
        let is_too_hot =
            |bucket: &usize| buckets >> bucket & 1 == 1 && counts.cells.of_bucket(*bucket) > self.scanner.rows_max();
        if rows > ALL_ROWS && (0..BUCKETS).any(|bucket| is_too_hot(&bucket)) {
            reading = self.reading(reading.counting.lateness.is_none(), 0);
            counts.kept.clear();
        }
        let raw = self.scanner.raw(date, &files.events, &reading, &self.coverage, by_place, hashes).await?;
        let closed = i64::from(date) < self.closed;
        let due = self.due(date, files);
        let (mut checked, kept_raw) = self.outline((date, due), &reading, raw, &counts, closed);
        let kept_counts = std::mem::take(&mut counts.kept);
        self.compare(&mut checked, &reading, kept_raw, kept_counts, closed)?;
        let unseen = self.unseen(&checked, &counts.cells, reading.buckets, closed);
        if unseen != 0 {
            self.look(&mut checked, files, unseen, rows).await?;
        }
        Ok(checked)
    }

    /// The buckets whose rows are compared one by one whatever their sums say; none where already one has too many.
    fn sampled(&self, date: i32, rows: u64) -> u64 {
        let rows_max = self.scanner.rows_max();
        if rows <= ALL_ROWS.min(rows_max) {
            u64::MAX
        } else if rows / BUCKETS as u64 > rows_max {
            0
        } else {
            1 << (mix(self.seed ^ date as u64) % BUCKETS as u64)
        }
    }

    /// The granularities that a date should have counts of. What is there is looked at whether it has to be or not; and what
    /// is gone without having been rolled up is missed.
    fn due(&self, date: i32, files: &DateFiles) -> Vec<Granularity> {
        let is_there = |granularity: Granularity| files.counts.iter().any(|f| granularity_of(f) == Some(granularity));
        let all = Granularity::ALL.into_iter();
        all.filter(|granularity| !self.rolled.may_lack(date, *granularity) || is_there(*granularity)).collect()
    }

    fn reading(&self, coarse: bool, buckets: u64) -> Arc<Reading> {
        Arc::new(Reading::new(&self.scanner.definition, coarse, buckets))
    }

    fn outline(
        &self,
        (date, due): (i32, Vec<Granularity>),
        reading: &Reading,
        raw: RawScan,
        counts: &CountScan,
        closed: bool,
    ) -> (DateChecked, Vec<DataFrame>) {
        let (expected, found) = (&raw.reduced.cells, &counts.cells);
        let differs = |granularity| expected.differing(found, granularity) != 0;
        let raw_whole = raw.bad.is_empty();
        let is_bad = |granularity| counts.bad.iter().any(|bad| bad.granularity == Some(granularity));
        let finest = due.first().copied().unwrap_or(Granularity::Day);
        let agreeing = (due.iter().copied())
            .filter(|granularity| raw_whole && !is_bad(*granularity) && !differs(*granularity))
            // Nothing agrees with nothing.
            .filter(|granularity| expected.count(*granularity) > 0)
            .collect();
        let totals = DateTotals {
            date: format_date(date),
            raw: raw.rows,
            repeats: raw.reduced.repeats,
            expected: expected.count(Granularity::Minute),
            uncovered: raw.reduced.uncovered,
            minute: found.count(Granularity::Minute),
            hour: found.count(Granularity::Hour),
            day: found.count(Granularity::Day),
            reserved: raw.reduced.reserved,
            rolled_up: (finest > Granularity::Minute).then_some(finest),
            doubtful: false,
            coarse: reading.counting.lateness.is_none(),
            closed,
            balanced: closed || !due.iter().copied().any(differs),
        };
        let bad = raw.bad.into_iter().chain(counts.bad.iter().cloned()).collect();
        let checked = DateChecked {
            date,
            hours: if closed { Vec::new() } else { hours(date, expected, found, finest) },
            totals,
            diffs: BTreeMap::new(),
            left_out: BTreeMap::new(),
            events: HashMap::new(),
            bad,
            raw_whole,
            compared: reading.buckets,
            more: false,
            coarse: reading.counting.lateness.is_none(),
            malformed: counts.malformed,
            agreeing,
            closed_rollups: if closed { closed_rollups(date, counts, &due) } else { Vec::new() },
            wrong_hash: raw.wrong_hash,
            samples: Vec::new(),
            reduced: raw.reduced,
            last_covered: BTreeMap::new(),
            due,
        };
        (checked, raw.kept)
    }

    /// The buckets that differ and were not looked at.
    fn unseen(&self, checked: &DateChecked, found: &DateCells, seen: u64, closed: bool) -> u64 {
        if closed || !checked.raw_whole {
            return 0;
        }
        let differing = |granularity| checked.reduced.cells.differing(found, granularity);
        let whole = checked.due.iter().copied().filter(|granularity| checked.has(*granularity));
        whole.fold(0, |bits, granularity| bits | differing(granularity)) & !seen
    }

    /// Reads the date once more for buckets that differ.
    async fn look(
        &self,
        checked: &mut DateChecked,
        files: &DateFiles,
        unseen: u64,
        rows: u64,
    ) -> Result<(), AuditError> {
        let (mut chosen, mut room) = (0_u64, self.scanner.rows_max());
        for bucket in (0..BUCKETS).filter(|bucket| unseen >> bucket & 1 == 1) {
            // An entity that is hot lies in one bucket: some are larger than others.
            // Events that batch has not covered, and repeats, lie in all of them alike.
            let of_bucket = checked.reduced.cells.of_bucket(bucket).max(rows / BUCKETS as u64);
            if of_bucket > room {
                checked.more = true;
                continue;
            }
            room -= of_bucket;
            chosen |= 1 << bucket;
        }
        if chosen == 0 {
            return Ok(());
        }
        let reading = self.reading(checked.coarse, chosen);
        let mut hashes = FileHashes::default();
        let counts = self.scanner.counts(checked.date, &files.counts, &reading, &mut hashes).await?;
        let (raw, bad) = self.scanner.raw_rows(&files.events, &reading).await?;
        checked.not_read_again(bad.into_iter().chain(counts.bad).collect());
        if checked.raw_whole {
            checked.compared |= chosen;
        }
        self.compare(checked, &reading, raw, counts.kept, false)
    }

    /// Compares rows one by one.
    fn compare(
        &self,
        checked: &mut DateChecked,
        reading: &Reading,
        raw: Vec<DataFrame>,
        counts: BTreeMap<Granularity, Vec<DataFrame>>,
        closed: bool,
    ) -> Result<(), AuditError> {
        let all = stack(raw)?;
        if let Some(all) = &all
            && checked.samples.is_empty()
            && !closed
        {
            let is_large = checked.totals.raw > ALL_ROWS;
            let finest = checked.finest();
            checked.samples = sample(all, checked.date, &self.coverage, self.served, self.seed, is_large, finest)?;
        }
        if closed || !checked.raw_whole {
            return Ok(());
        }
        let firsts = all.map(|all| self.firsts(all)).transpose()?;
        let bad: Vec<Option<Granularity>> = checked.bad.iter().map(|bad| bad.granularity).collect();
        let mut counts = counts;
        let due = checked.due.clone();
        for granularity in due.into_iter().filter(|granularity| !bad.contains(&Some(*granularity))) {
            let rows = stack(counts.remove(&granularity).unwrap_or_default())?;
            let diffs = match (&firsts, &rows) {
                (Some(firsts), Some(rows)) => differences(firsts, rows, granularity, &reading.counting)?,
                (Some(firsts), None) => super::compare::all_missing(firsts, granularity, &reading.counting)?,
                (None, Some(rows)) => super::compare::all_extra(rows, granularity, &reading.counting)?,
                (None, None) => continue,
            };
            if diffs.is_empty() {
                continue;
            }
            if granularity == checked.finest() {
                if let Some(firsts) = &firsts {
                    note_events(checked, firsts, &diffs, &reading.counting)?;
                }
                checked.totals.balanced = false;
            }
            checked.keep(granularity, diffs);
        }
        Ok(())
    }

    /// The first event below coverage of each key.
    fn firsts(&self, all: DataFrame) -> Result<DataFrame, AuditError> {
        use polars::prelude::{NamedFrom as _, Series};
        let places = all.column(PLACE)?.u64()?;
        let mask: Vec<bool> = places
            .iter()
            .map(|place| place.is_some_and(|bits| is_covered(&self.coverage, Place::from_bits(bits))))
            .collect();
        let covered = all.filter(Series::new("".into(), mask).bool()?)?;
        // What follows copies them once more.
        drop(all);
        firsts(&covered)
    }
}

/// Rows of a date: of its raw events, or of a granularity of its counts that has more.
fn rows_of(files: &DateFiles) -> u64 {
    let events: u64 = files.events.iter().map(|file| file.rows).sum();
    let counts = Granularity::ALL.into_iter().map(|granularity| -> u64 {
        let own = files.counts.iter().filter(|file| granularity_of(file) == Some(granularity));
        own.map(|file| file.rows).sum()
    });
    counts.fold(events, u64::max)
}

/// Keeps the events of those rows that differ and are kept, and up to where those go that are in no row that differs.
fn note_events(
    checked: &mut DateChecked,
    firsts: &DataFrame,
    diffs: &[RowDiff],
    counting: &super::raw::Counting,
) -> Result<(), AuditError> {
    let finest = checked.finest();
    let (kept, left_out) = diffs.split_at(checked.room(finest).min(diffs.len()));
    let (kept, left_out) = (keys(kept), keys(left_out));
    for (key, event) in events(firsts, finest, counting)? {
        if kept.contains(&key) {
            checked.events.entry(key).or_default().push(event);
        } else if !left_out.contains(&key) {
            let last = checked.last_covered.entry(event.place.partition()).or_default();
            *last = (*last).max(event.place.offset() + 1);
        }
    }
    Ok(())
}

fn keys(diffs: &[RowDiff]) -> HashSet<&RowKey> {
    diffs.iter().map(|diff| &diff.key).collect()
}

/// The hours and days of a date whose raw events may be gone, against its minutes; or, where it is rolled up, its days
/// against its hours.
fn closed_rollups(date: i32, counts: &CountScan, due: &[Granularity]) -> Vec<Finding> {
    if !counts.bad.is_empty() {
        return Vec::new();
    }
    let finest = due.first().copied().unwrap_or(Granularity::Day);
    // Where the finest are gone that should be there, nothing makes the coarser ones.
    let is_gone = counts.finest.is_some_and(|there| there != finest);
    let differs = |granularity: &Granularity| is_gone || counts.rolled.differing(&counts.cells, *granularity) != 0;
    let finding = |granularity: Granularity| {
        let text = format!("a {granularity} that its {finest}s do not make, on a date whose raw events are gone");
        let mut finding = Finding::new(Class::RollupMismatch, "batch_counts", text);
        finding.date = Some(format_date(date));
        finding.granularity = Some(granularity.name().to_owned());
        finding.expected = i64::try_from(counts.rolled.count(granularity)).ok();
        finding.found = i64::try_from(counts.cells.count(granularity)).ok();
        finding.repair = Repair::Impossible;
        "retention has removed its raw events: restore the table from a copy".clone_into(&mut finding.action);
        finding
    };
    let coarser = Granularity::ALL.into_iter().filter(|granularity| *granularity > finest);
    coarser.filter(differs).map(finding).collect()
}

/// Hour by hour, by the finest counts that the date has; none where those are days.
fn hours(date: i32, expected: &DateCells, found: &DateCells, finest: Granularity) -> Vec<HourTotals> {
    if finest > Granularity::Hour {
        return Vec::new();
    }
    let of = |hour: i64| i64::from(date) * MINUTES_PER_DAY + hour * MINUTES_PER_HOUR;
    (0..24_usize)
        .filter_map(|hour| {
            let (expected, found) = (expected.of_hour(finest, hour), found.of_hour(finest, hour));
            (expected.count != 0 || found.count != 0).then(|| HourTotals {
                hour: format_time(start_of_minute(of(hour as i64))),
                expected: expected.count,
                found: found.count,
                differs: expected != found,
            })
        })
        .collect()
}
