//! Reading everything that is kept of a date: its raw events, and its rows of counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};
use object_store::ObjectStore;
use polars::prelude::DataFrame;
use reckon_data::definition::Definition;
use reckon_data::offload::offload;
use reckon_data::run::Granularity;
use reckon_data::table::{DataFile, Table};
use xxhash_rust::xxh3::Xxh3;

use super::counts::{self, Counts};
use super::held::{ByPlace, EVENT_BYTES, FileFacts, Held, Keep, Reading, read_file, read_kept};
use super::load::{Loaded, Unreadable, load};
use super::pin::granularity_of;
use super::place::Place;
use super::reduce::{DateCells, Reduced, reduce};
use crate::error::AuditError;

/// Files that are read side by side.
const FILES_AT_ONCE: usize = 2;
/// Bytes that an event takes in memory while rows are compared one by one: itself, its copies while events are sorted
/// and grouped, and the rows of counts beside it.
const ROW_BYTES: u64 = 1 << 10;

/// A file that says nothing.
#[derive(Debug, Clone)]
pub struct BadFile {
    /// Its table.
    pub table: Table,
    /// Its path.
    pub path: String,
    /// Its granularity, of counts.
    pub granularity: Option<Granularity>,
    /// Why.
    pub why: Unreadable,
}

/// The raw events of a date.
#[derive(Debug)]
pub struct RawScan {
    /// Events read.
    pub rows: u64,
    /// What they have come to.
    pub reduced: Reduced,
    /// Those of the buckets that are looked at row by row.
    pub kept: Vec<DataFrame>,
    /// Places of events whose stored hash is wrong, some of them.
    pub wrong_hash: Vec<(Place, String)>,
    /// Files that could not be read: the rest says less than there is.
    pub bad: Vec<BadFile>,
}

/// The counts of a date.
#[derive(Debug)]
pub struct CountScan {
    /// What they add up to.
    pub cells: DateCells,
    /// What the finest rows make of coarser ones: hours and days of minutes.
    pub rolled: DateCells,
    /// The granularity of those; none where there is no file.
    pub finest: Option<Granularity>,
    /// Rows of the buckets that are looked at one by one.
    pub kept: BTreeMap<Granularity, Vec<DataFrame>>,
    /// Whether all were counted as the definition in force says.
    pub uniform: bool,
    /// Rows whose count is below 1 or whose time is no whole minute.
    pub malformed: u64,
    /// Files that could not be read.
    pub bad: Vec<BadFile>,
}

/// Reads files.
#[derive(Debug, Clone)]
pub struct Scanner {
    /// Where they lie.
    pub store: Arc<dyn ObjectStore>,
    /// What is counted.
    pub definition: Arc<Definition>,
    /// The stream's dedup window, minutes.
    pub window: i64,
    /// Events that are held at once; a date that has more is read several times.
    pub events_max: u64,
}

/// Hashes of files, as they were read.
#[derive(Debug, Default)]
pub struct FileHashes(BTreeMap<String, u128>);

impl FileHashes {
    /// Notes a file.
    pub fn note(&mut self, table: Table, path: &str, hash: u128) {
        self.0.insert(format!("{}/{path}", table.name()), hash);
    }

    /// One hash over all, in the order of their paths, hexadecimal.
    #[must_use]
    pub fn all(&self) -> String {
        let mut all = Xxh3::new();
        for (path, hash) in &self.0 {
            all.update(path.as_bytes());
            all.update(&hash.to_le_bytes());
        }
        format!("{:032x}", all.digest128())
    }
}

impl Scanner {
    /// Rows that are compared one by one at once: as many as the memory for events that are held has room for.
    #[must_use]
    pub const fn rows_max(&self) -> u64 {
        self.events_max.saturating_mul(EVENT_BYTES) / ROW_BYTES
    }

    /// Reads the raw events of a date. `by_place` and `hashes` take in what they are about.
    ///
    /// # Errors
    /// When the store fails, or there is no room for a place.
    pub async fn raw(
        &self,
        date: i32,
        files: &[DataFile],
        reading: &Arc<Reading>,
        coverage: &Arc<Vec<u64>>,
        by_place: &mut ByPlace,
        hashes: &mut FileHashes,
    ) -> Result<RawScan, AuditError> {
        let rows: u64 = files.iter().map(|file| file.rows).sum();
        let slices = rows.div_ceil(self.events_max.max(1)).max(1);
        let mut all: Option<RawScan> = None;
        for index in 0..slices {
            let keep = if slices == 1 { Keep::All } else { Keep::Slice { index, of: slices } };
            let reading = Arc::new(Reading { keep, ..(**reading).clone() });
            let part = self.slice((date, rows / slices), files, &reading, coverage, by_place, hashes).await?;
            match &mut all {
                None => all = Some(part),
                Some(all) => {
                    all.rows += part.rows;
                    // Read again, a file may be another: then nothing is known of the date.
                    note_bad(&mut all.bad, part.bad);
                    all.reduced.merge(part.reduced);
                }
            }
        }
        all.ok_or_else(|| AuditError::Stopped("a date without slices".to_owned()))
    }

    /// Reads the part of a date's raw events that is held at once.
    async fn slice(
        &self,
        (date, rows): (i32, u64),
        files: &[DataFile],
        reading: &Arc<Reading>,
        coverage: &Arc<Vec<u64>>,
        by_place: &mut ByPlace,
        hashes: &mut FileHashes,
    ) -> Result<RawScan, AuditError> {
        let (mut held, mut kept, mut wrong_hash) = (Held::default(), Vec::new(), Vec::new());
        held.reserve(usize::try_from(rows).unwrap_or(0));
        let wanted = reading.counting.columns();
        let reading = Arc::clone(reading);
        let read = move |file: &Loaded| read_file(file, &reading);
        let take = |file: DataFile, hash: u128, facts: FileFacts| {
            hashes.note(Table::Events, &file.path, hash);
            let FileFacts { held: more, kept: rows, by_place: places, wrong_hash: wrong } = facts;
            held.append(more);
            kept.extend(rows);
            by_place.merge(places);
            wrong_hash.extend(wrong);
        };
        let bad = self.walk(Table::Events, files.to_vec(), &wanted, read, take).await?;
        let (rows, coverage) = (held.len() as u64, Arc::clone(coverage));
        let window = self.window;
        let reduced = busy(move || reduce(&held, date, window, &|place| is_covered(&coverage, place))).await?;
        Ok(RawScan { rows, reduced, kept, wrong_hash, bad })
    }

    /// Reads those raw events of a date that are looked at row by row, and does nothing else with any. Also the files
    /// that could not be read: without these they are not all.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn raw_rows(
        &self,
        files: &[DataFile],
        reading: &Arc<Reading>,
    ) -> Result<(Vec<DataFrame>, Vec<BadFile>), AuditError> {
        let mut kept = Vec::new();
        let wanted = reading.counting.columns();
        let reading = Arc::clone(reading);
        let read = move |file: &Loaded| read_kept(file, &reading);
        let take = |_: DataFile, _: u128, rows: Vec<DataFrame>| kept.extend(rows);
        let bad = self.walk(Table::Events, files.to_vec(), &wanted, read, take).await?;
        Ok((kept, bad))
    }

    /// Reads the counts of a date.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn counts(
        &self,
        date: i32,
        files: &[DataFile],
        reading: &Arc<Reading>,
        hashes: &mut FileHashes,
    ) -> Result<CountScan, AuditError> {
        let finest = finest_of(files);
        let mut scan = CountScan {
            cells: DateCells::new(date),
            rolled: DateCells::new(date),
            finest,
            kept: BTreeMap::new(),
            uniform: true,
            malformed: 0,
            bad: Vec::new(),
        };
        let wanted = counts::columns(&reading.counting);
        let reading = Arc::clone(reading);
        let read = move |file: &Loaded| count_file(file, date, finest, &reading);
        let definition = self.definition.version().cast_signed();
        let take = |file: DataFile, hash: u128, part: CountPart| {
            hashes.note(Table::BatchCounts, &file.path, hash);
            scan.cells.merge(&part.cells);
            scan.rolled.merge(&part.rolled);
            scan.uniform &= part.definitions.iter().all(|found| *found == definition);
            scan.malformed += part.malformed;
            if let Some(granularity) = granularity_of(&file) {
                scan.kept.entry(granularity).or_default().extend(part.kept);
            }
        };
        let bad = self.walk(Table::BatchCounts, files.to_vec(), &wanted, read, take).await?;
        scan.bad = bad;
        Ok(scan)
    }

    /// Reads files of a table, [`FILES_AT_ONCE`] side by side, and gives `take` in their order what `read` makes of
    /// each, with the hash of its bytes. Returns those that could not be read.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn walk<T: Send + 'static>(
        &self,
        table: Table,
        files: Vec<DataFile>,
        wanted: &[&'static str],
        read: impl Fn(&Loaded) -> Result<T, Unreadable> + Clone + Send + 'static,
        mut take: impl FnMut(DataFile, u128, T) + Send,
    ) -> Result<Vec<BadFile>, AuditError> {
        let read_one = move |file: DataFile| {
            let read = read.clone();
            async move {
                let loaded = match load(&self.store, table, &file, wanted).await? {
                    Ok(loaded) => loaded,
                    Err(why) => return Ok((file, Err(why))),
                };
                let hash = loaded.hash;
                let made = busy(move || read(&loaded)).await?;
                Ok::<_, AuditError>((file, made.map(|made| (hash, made))))
            }
        };
        let mut bad = Vec::new();
        let mut reads = futures::stream::iter(files).map(read_one).buffered(FILES_AT_ONCE);
        while let Some((file, made)) = reads.try_next().await? {
            match made {
                Ok((hash, made)) => take(file, hash, made),
                Err(why) => bad.push(BadFile { table, granularity: granularity_of(&file), path: file.path, why }),
            }
        }
        Ok(bad)
    }
}

/// Adds files that could not be read, each once however often that was tried.
pub fn note_bad(all: &mut Vec<BadFile>, more: Vec<BadFile>) {
    for bad in more {
        if !all.iter().any(|known| known.table == bad.table && known.path == bad.path) {
            all.push(bad);
        }
    }
}

/// Whether a place lies below coverage.
#[must_use]
pub fn is_covered(coverage: &[u64], place: Place) -> bool {
    coverage.get(place.partition() as usize).is_some_and(|coverage| place.offset() < *coverage)
}

/// Does work that keeps a processor busy where it holds up nobody.
///
/// # Errors
/// When it panics, or the runtime ends.
pub async fn busy<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, AuditError> {
    offload(work).await.map_err(|error| AuditError::Stopped(error.to_string()))
}

struct CountPart {
    cells: DateCells,
    rolled: DateCells,
    kept: Vec<DataFrame>,
    definitions: Vec<i64>,
    malformed: u64,
}

/// The finest granularity that files are of.
fn finest_of(files: &[DataFile]) -> Option<Granularity> {
    files.iter().filter_map(granularity_of).min()
}

/// Adds up a file of counts; what coarser rows its rows make, if they are of the `finest` granularity of the date.
fn count_file(
    file: &Loaded,
    date: i32,
    finest: Option<Granularity>,
    reading: &Reading,
) -> Result<CountPart, Unreadable> {
    let granularity =
        granularity_of(&file.file).ok_or_else(|| Unreadable::Corrupt("its path names no granularity".to_owned()))?;
    let mut part = CountPart {
        cells: DateCells::new(date),
        rolled: DateCells::new(date),
        kept: Vec::new(),
        definitions: Vec::new(),
        malformed: 0,
    };
    for slice in file.slices() {
        let counts = Counts::of(file.frame(slice)?, &reading.counting)?;
        for row in 0..counts.len() {
            let (group, minute, amount) = (counts.group[row], counts.minute[row], &counts.amount[row]);
            part.cells.add(granularity, group, minute, amount);
            if Some(granularity) == finest {
                for coarser in Granularity::ALL.into_iter().filter(|coarser| *coarser > granularity) {
                    part.rolled.add(coarser, group, minute, amount);
                }
            }
        }
        let mask: Vec<bool> = counts.group.iter().map(|group| reading.keeps(*group)).collect();
        part.malformed += counts.malformed.len() as u64;
        part.definitions.extend(&counts.definitions);
        if mask.iter().any(|kept| *kept) {
            let broken = |error: polars::error::PolarsError| Unreadable::Corrupt(error.to_string());
            part.kept.push(counts.kept(&mask).map_err(broken)?);
        }
    }
    Ok(part)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{DATE, Set};
    use super::*;

    #[tokio::test]
    async fn a_file_that_is_gone_is_told_once_however_often_its_date_is_read() {
        // Twenty events, five at a time.
        let set = Set::new(5);
        let files = [set.events("a", 0..10).await, set.events("b", 10..20).await];
        set.lose(Table::Events, &files[1]).await;
        let reading = Arc::new(Reading::new(&set.0.definition, false, 0));
        let (coverage, mut places, mut hashes) = (Arc::new(vec![20]), ByPlace::new(), FileHashes::default());
        let raw = set.0.raw(DATE, &files, &reading, &coverage, &mut places, &mut hashes).await.unwrap();
        let bad: Vec<&str> = raw.bad.iter().map(|bad| bad.path.as_str()).collect();
        assert_eq!((raw.rows, bad), (10, vec!["b"]));
    }

    #[tokio::test]
    async fn files_are_taken_in_their_order_and_those_that_cannot_be_read_are_named() {
        let set = Set::new(5);
        let files = vec![set.events("b", 0..10).await, set.events("c", 10..12).await, set.events("a", 20..25).await];
        set.lose(Table::Events, &files[1]).await;
        let wanted = Reading::new(&set.0.definition, false, 0).counting.columns();
        let read = |file: &Loaded| Ok::<_, Unreadable>(file.slices().map(|rows| rows.len()).sum::<usize>());
        let mut taken = Vec::new();
        let take = |file: DataFile, _: u128, rows: usize| taken.push((file.path, rows));
        let bad = set.0.walk(Table::Events, files, &wanted, read, take).await.unwrap();
        assert_eq!(taken, [("b".to_owned(), 10), ("a".to_owned(), 5)]);
        let bad: Vec<(&str, bool)> = bad.iter().map(|bad| (&*bad.path, bad.why == Unreadable::Missing)).collect();
        assert_eq!(bad, [("c", true)]);
    }
}
