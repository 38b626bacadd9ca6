//! One pass over sorted rows: equal ones added up, hours and days made of the minutes.
//!
//! ```text
//! rows in order ──equal added──▶ minute rows ──end of hour──▶ hour rows ──end of day──▶ day rows
//! ```
//!
//! A date that is rolled up has rows from the hour on, or from the day on. Its rows of before come as rows of the first minute of
//! their hour or day, so what is new adds up with them, and finer rows are not written.
//!
//! A level holds the rows of one (entity, type, step) below it and lets go of them, added up per dimensions,
//! when a row of another one comes.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};
use reckon_data::run::Granularity;
use reckon_data::table::DataFile;

use super::error::BatchError;
use super::merge::{Counted, Entities, Merge, Rows};
use super::output::{CountFiles, RowKey, Target};
use super::spill::SortedRun;

/// Combinations of dimensions remembered at most between two entities.
const DIMS_KEPT: usize = 64 * 1024;

type Dims = [Option<Box<str>>; 3];

/// What a fold has written.
#[derive(Debug, Default)]
pub struct Folded {
    /// The files, stored but not committed.
    pub files: Vec<DataFile>,
    /// Events counted in the rows of any one granularity.
    pub events: u64,
}

/// Merges the rows of `runs` whose entities lie in `range` and writes them. Keeps a processor busy.
///
/// # Errors
/// When a run cannot be read, a file cannot be written, or numbers cannot be counts.
pub async fn fold(runs: &[SortedRun], range: Entities, target: &Target, definition: u64) -> Result<Folded, BatchError> {
    let mut merge = Merge::open(runs, range)?;
    let mut folder = Folder::new(target, definition);
    while let Some((rows, row)) = merge.peek() {
        folder.take(rows, row)?;
        merge.advance()?;
        folder.write().await?;
    }
    Box::pin(folder.finish()).await
}

/// The combinations of dimensions that were met, numbered.
#[derive(Default)]
struct DimTable {
    numbers: HashTable<u32>,
    hasher: DefaultHashBuilder,
    values: Vec<Dims>,
}

impl DimTable {
    fn number(&mut self, rows: &Rows, row: usize, last: Option<u32>) -> u32 {
        let dims: [Option<&str>; 3] = std::array::from_fn(|at| rows.dim(at, row));
        let same = |number: u32| (0..3).all(|at| self.values[number as usize][at].as_deref() == dims[at]);
        if let Some(last) = last.filter(|last| same(*last)) {
            return last;
        }
        let hash = self.hasher.hash_one(dims);
        if let Some(number) = self.numbers.find(hash, |number| same(*number)) {
            return *number;
        }
        let number = self.values.len() as u32;
        self.values.push(dims.map(|value| value.map(Into::into)));
        let (hasher, values) = (&self.hasher, &self.values);
        self.numbers.insert_unique(hash, number, |number| {
            hasher.hash_one(values[*number as usize].each_ref().map(Option::as_deref))
        });
        number
    }
}

/// The rows of one step of a granularity that are not written yet.
struct Level {
    granularity: Granularity,
    start: i32,
    rows: Vec<(u32, Counted)>,
}

impl Level {
    const fn new(granularity: Granularity) -> Self {
        Self { granularity, start: 0, rows: Vec::new() }
    }

    fn start_of(&self, minute: i32) -> i32 {
        // The start of a step lies in its date, which fits as its minutes do.
        i32::try_from(self.granularity.start_of(minute.into())).unwrap_or(i32::MIN)
    }

    /// Adds up what the step has per dimensions, in their order.
    fn close(&mut self, dims: &DimTable, definition: u64) -> Result<(), BatchError> {
        if self.rows.len() < 2 {
            return Ok(());
        }
        self.rows.sort_by(|a, b| dims.values[a.0 as usize].cmp(&dims.values[b.0 as usize]));
        let mut added = Ok(());
        self.rows.dedup_by(|next, sum| {
            let same = next.0 == sum.0;
            if same && added.is_ok() {
                added = sum.1.add(&next.1, definition);
            }
            same
        });
        added
    }
}

struct Folder {
    entity: String,
    kind: String,
    minute: i32,
    /// The row being added up: its dimensions and what it counts.
    row: Option<(u32, Counted)>,
    dims: DimTable,
    hour: Level,
    day: Level,
    minutes: CountFiles,
    hours: CountFiles,
    days: CountFiles,
    /// Finer rows are added up and not written.
    finest: Granularity,
    definition: u64,
    events: u64,
}

impl Folder {
    fn new(target: &Target, definition: u64) -> Self {
        let files = |granularity| CountFiles::new(target.clone(), granularity);
        Self {
            entity: String::new(),
            kind: String::new(),
            minute: 0,
            row: None,
            dims: DimTable::default(),
            hour: Level::new(Granularity::Hour),
            day: Level::new(Granularity::Day),
            minutes: files(Granularity::Minute),
            hours: files(Granularity::Hour),
            days: files(Granularity::Day),
            finest: target.finest,
            definition,
            events: 0,
        }
    }

    fn take(&mut self, rows: &Rows, row: usize) -> Result<(), BatchError> {
        let counted = rows.counted(row)?;
        let same_kind = self.row.is_some() && self.entity == rows.entity(row) && self.kind == rows.kind(row);
        let dim = self.dims.number(rows, row, self.row.as_ref().map(|(dim, _)| *dim));
        if same_kind
            && self.minute == rows.minute(row)
            && let Some((last, sum)) = &mut self.row
            && *last == dim
        {
            return sum.add(&counted, self.definition);
        }
        self.end_row()?;
        if same_kind {
            self.end_steps(rows.minute(row))?;
            self.row = Some((dim, counted));
        } else {
            self.end_kind()?;
            self.entity.clear();
            self.entity.push_str(rows.entity(row));
            self.kind.clear();
            self.kind.push_str(rows.kind(row));
            if self.dims.values.len() > DIMS_KEPT {
                self.dims = DimTable::default();
            }
            let dim = self.dims.number(rows, row, None);
            self.row = Some((dim, counted));
        }
        self.minute = rows.minute(row);
        Ok(())
    }

    /// The minute row is complete.
    fn end_row(&mut self) -> Result<(), BatchError> {
        let Some((dim, counted)) = self.row.take() else { return Ok(()) };
        if self.finest == Granularity::Minute {
            let dims = &self.dims.values[dim as usize];
            self.minutes
                .push(RowKey { entity: &self.entity, kind: &self.kind, minute: self.minute, dims }, &counted)?;
        }
        self.events += counted.count;
        self.hour.start = self.hour.start_of(self.minute);
        self.hour.rows.push((dim, counted));
        Ok(())
    }

    /// Hour and day are complete if `minute`, the next one, lies in others.
    fn end_steps(&mut self, minute: i32) -> Result<(), BatchError> {
        if self.hour.start_of(minute) != self.hour.start {
            self.end_hour()?;
            if self.day.start_of(minute) != self.day.start {
                self.end_day()?;
            }
        }
        Ok(())
    }

    fn end_kind(&mut self) -> Result<(), BatchError> {
        self.end_hour()?;
        self.end_day()
    }

    fn end_hour(&mut self) -> Result<(), BatchError> {
        self.hour.close(&self.dims, self.definition)?;
        for (dim, counted) in self.hour.rows.drain(..) {
            if self.finest <= Granularity::Hour {
                let dims = &self.dims.values[dim as usize];
                let key = RowKey { entity: &self.entity, kind: &self.kind, minute: self.hour.start, dims };
                self.hours.push(key, &counted)?;
            }
            self.day.start = self.day.start_of(self.hour.start);
            self.day.rows.push((dim, counted));
        }
        Ok(())
    }

    fn end_day(&mut self) -> Result<(), BatchError> {
        self.day.close(&self.dims, self.definition)?;
        for (dim, counted) in self.day.rows.drain(..) {
            let dims = &self.dims.values[dim as usize];
            let key = RowKey { entity: &self.entity, kind: &self.kind, minute: self.day.start, dims };
            self.days.push(key, &counted)?;
        }
        Ok(())
    }

    /// Writes what is enough to be worth it.
    async fn write(&mut self) -> Result<(), BatchError> {
        for files in [&mut self.minutes, &mut self.hours, &mut self.days] {
            if files.is_ready() {
                files.write().await?;
            }
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<Folded, BatchError> {
        self.end_row()?;
        self.end_kind()?;
        let mut files = self.minutes.finish().await?;
        files.extend(self.hours.finish().await?);
        files.extend(self.days.finish().await?);
        Ok(Folded { files, events: self.events })
    }
}
