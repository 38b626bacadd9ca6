//! The index over batch counts: entity → minutes, by date and granularity, without planning SQL.
//!
//! ```text
//! window ─split─▶ spans (days, hours, minutes) ─▶ runs in memory ─▶ cells
//!                                                    │ not there: loaded once, on a blocking thread
//!                                                    └ too large for memory: read from the files, pruned
//! ```
//!
//! A date's minutes are by far the largest part. Where they are many they are held by the hour, because
//! a long window needs only the ragged hours at its ends. [`warm`] loads what will be asked for, [`segments`] does
//! the same as the index for sealed segments that the stream layer no longer holds in memory.

pub mod cache;
mod footers;
pub mod load;
mod places;
pub mod segments;
pub mod split;
#[cfg(test)]
mod tests;
pub mod warm;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Int64Type};
use reckon_data::minute::{MICROS_PER_HOUR, MINUTES_PER_HOUR};
use reckon_data::offload::offload;
use reckon_data::run::{
    DimCondition, Dimension, EntityCells, EntitySums, Granularity, Run, RunBuilder, Selection, StepSums,
};
use reckon_data::table::{DataFile, Table};
use reckon_tables::stats::{max_micros, min_micros};

use crate::ServingError;
use crate::view::{BatchView, FileSet};
use cache::{RunCache, RunKey};
use load::{Columns, Files, Wanted};
use split::{Span, spans};

/// About how many bytes a row of counts takes in a run, its share of the entity included.
const COUNT_BYTES: u64 = 36;
/// And one with values.
const VALUE_BYTES: u64 = 80;
/// Minutes of a date are held by the hour when they take more than this part of all memory.
const WHOLE_PART: u64 = 16;
/// What takes more than this part of all memory is not held at all.
const HELD_PART: u64 = 2;
/// Rows folded at once when files are read without holding them.
const FOLD_ROWS: usize = 1 << 20;

/// About how many bytes a set takes.
const fn bytes_of(set: &FileSet, columns: Columns) -> u64 {
    match columns {
        Columns::Counts => set.rows.saturating_mul(COUNT_BYTES),
        Columns::All | Columns::Placed | Columns::Places | Columns::Told => set.rows.saturating_mul(VALUE_BYTES),
    }
}

/// What a top list is about.
#[derive(Debug, Clone)]
pub struct TopSelection {
    /// Minutes since 1970.
    pub minutes: Range<i64>,
    /// One event type; all when none.
    pub event_type: Option<String>,
    /// All of them must be met.
    pub conditions: Vec<DimCondition>,
    /// Entities whose ids begin so are left out.
    pub reserved_prefixes: Vec<String>,
}

/// What every entity adds up to: counts alone, or with values.
pub trait PerEntity: std::fmt::Debug + Send + Sync + 'static {
    /// What of the count tables it needs.
    const COLUMNS: Columns;

    /// Adds what `run` has of a list in `minutes`.
    fn add_run(&mut self, run: &Run, top: &TopSelection, minutes: &Range<i64>);
}

impl PerEntity for EntitySums {
    const COLUMNS: Columns = Columns::Counts;

    fn add_run(&mut self, run: &Run, top: &TopSelection, minutes: &Range<i64>) {
        run.top_into(minutes, top.event_type.as_deref(), &top.conditions, &top.reserved_prefixes, self);
    }
}

impl PerEntity for EntityCells {
    const COLUMNS: Columns = Columns::All;

    fn add_run(&mut self, run: &Run, top: &TopSelection, minutes: &Range<i64>) {
        run.cells_into(minutes, top.event_type.as_deref(), &top.conditions, &top.reserved_prefixes, self);
    }
}

/// The index.
#[derive(Debug)]
pub struct Index {
    cache: RunCache,
    files: Files,
}

/// How the rows of a span are to be had.
enum Held {
    Runs(Vec<Arc<Run>>),
    TooLarge,
}

impl Index {
    /// An index that holds at most `memory` bytes.
    ///
    /// # Errors
    /// Never with these options.
    pub fn new(files: Files, memory: u64) -> Result<Self, ServingError> {
        Ok(Self { cache: RunCache::new(memory)?, files })
    }

    /// The files it reads.
    #[must_use]
    pub const fn files(&self) -> &Files {
        &self.files
    }

    /// Bytes held.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.cache.weight()
    }

    /// Adds what batch has counted of `selection`; cells have values only when `columns` are all.
    ///
    /// # Errors
    /// When files cannot be read; [`ServingError::Unavailable`] may go away with a newer view. [`ServingError::RolledUp`]
    /// when it is finer than what is still counted.
    pub async fn sum(
        &self,
        view: &BatchView,
        selection: &Selection<'_>,
        columns: Columns,
        into: &mut StepSums,
    ) -> Result<(), ServingError> {
        for span in spans(view, &selection.minutes, selection.step)? {
            let part = Selection {
                minutes: span.minutes.clone(),
                conditions: Cow::Borrowed(&selection.conditions),
                ..*selection
            };
            let held = if self.is_cold(&span, columns) { Held::TooLarge } else { self.held(&span, columns).await? };
            match held {
                Held::Runs(runs) => runs.iter().for_each(|run| run.sum(&part, into)),
                Held::TooLarge => self.read_entity(&span, selection.entity, columns).await?.sum(&part, into),
            }
        }
        Ok(())
    }

    /// Whether some hour of a span would have to be loaded: one entity's rows are read sooner than a pass over a date's
    /// files takes. What is asked for often is loaded by warming.
    fn is_cold(&self, span: &Span, columns: Columns) -> bool {
        let held = |hour: i64| self.cache.holds(RunKey::Hour(span.files.id, columns, hour));
        self.is_by_hour(&span.files, columns) && !hours_in(&span.minutes).all(held)
    }

    /// The runs of a window, and which minutes of each belong to it; none when memory has no room for all of them.
    ///
    /// # Errors
    /// As [`Index::sum`].
    pub async fn runs(
        &self,
        view: &BatchView,
        minutes: &Range<i64>,
    ) -> Result<Option<Vec<(Arc<Run>, Range<i64>)>>, ServingError> {
        let mut all = Vec::new();
        for span in spans(view, minutes, None)? {
            match self.held(&span, Columns::Counts).await? {
                Held::Runs(runs) => all.extend(runs.into_iter().map(|run| (run, span.minutes.clone()))),
                Held::TooLarge => return Ok(None),
            }
        }
        Ok(Some(all))
    }

    /// Adds what batch has counted of every entity.
    ///
    /// # Errors
    /// As [`Index::sum`].
    pub async fn top<S: PerEntity>(
        &self,
        view: &BatchView,
        top: &Arc<TopSelection>,
        mut sums: S,
    ) -> Result<S, ServingError> {
        for span in spans(view, &top.minutes, None)? {
            let top = Arc::clone(top);
            sums = match self.held(&span, S::COLUMNS).await? {
                Held::Runs(runs) => {
                    let add = move || {
                        runs.iter().for_each(|run| sums.add_run(run, &top, &span.minutes));
                        sums
                    };
                    offload(add).await.map_err(ServingError::internal)?
                }
                Held::TooLarge => self.read_top(&span, top, sums).await?,
            };
        }
        Ok(sums)
    }

    /// Drops what `view` does not refer to.
    pub fn forget(&self, view: &BatchView) {
        let live: HashSet<u128> = view.file_sets().map(|set| set.id).collect();
        self.cache.retain(|key| match key {
            RunKey::Set(id, _) | RunKey::Hour(id, ..) => live.contains(id),
            RunKey::Segment(partition, _, end) => {
                view.coverage.get(*partition as usize).is_none_or(|covered| end > covered)
            }
        });
    }

    async fn held(&self, span: &Span, columns: Columns) -> Result<Held, ServingError> {
        let set = &span.files;
        if self.is_too_large(set, columns) {
            return Ok(Held::TooLarge);
        }
        if !self.is_by_hour(set, columns) {
            return Ok(Held::Runs(vec![self.load_set(set, columns).await?]));
        }
        let hours = hours_in(&span.minutes);
        let held = hours.clone().map(|hour| self.cache.get(RunKey::Hour(set.id, columns, hour)));
        match held.collect::<Option<Vec<Arc<Run>>>>() {
            Some(runs) => Ok(Held::Runs(runs)),
            None => self.load_hours(set, columns, hours.collect()).await.map(Held::Runs),
        }
    }

    fn is_too_large(&self, set: &FileSet, columns: Columns) -> bool {
        // Of a day's hours some are far busier than others.
        let parts = if self.is_by_hour(set, columns) { 8 } else { 1 };
        bytes_of(set, columns) / parts > self.cache.memory() / HELD_PART
    }

    fn is_by_hour(&self, set: &FileSet, columns: Columns) -> bool {
        set.granularity == Granularity::Minute && bytes_of(set, columns) > self.cache.memory() / WHOLE_PART
    }

    async fn load_set(&self, set: &Arc<FileSet>, columns: Columns) -> Result<Arc<Run>, ServingError> {
        let key = RunKey::Set(set.id, columns);
        if let Some(run) = self.cache.get(key) {
            return Ok(run);
        }
        self.cache.get_or_load(key, async { self.build(set, columns, Wanted::default()).await.map(Arc::new) }).await
    }

    /// The runs of some hours of a set, all that are not held in one pass over its files.
    async fn load_hours(
        &self,
        set: &Arc<FileSet>,
        columns: Columns,
        hours: Vec<i64>,
    ) -> Result<Vec<Arc<Run>>, ServingError> {
        let key = |hour: i64| RunKey::Hour(set.id, columns, hour);
        let held = || hours.iter().map(|hour| self.cache.get(key(*hour))).collect::<Option<Vec<_>>>();
        // Whoever gets to load the first hour that is missing loads the others with it.
        let Some(lead) = hours.iter().copied().find(|hour| !self.cache.holds(key(*hour))).or(hours.first().copied())
        else {
            return Ok(Vec::new());
        };
        let load = async {
            let missing: Vec<i64> =
                hours.iter().copied().filter(|hour| *hour == lead || !self.cache.holds(key(*hour))).collect();
            let mut lead_run = Arc::new(Run::default());
            for (hour, run) in missing.iter().zip(self.build_hours(set, columns, &missing).await?) {
                let run = Arc::new(run);
                if *hour == lead {
                    lead_run = run;
                } else {
                    self.cache.put(key(*hour), run);
                }
            }
            Ok(lead_run)
        };
        let lead_run = self.cache.get_or_load(key(lead), load).await?;
        if hours.len() == 1 {
            return Ok(vec![lead_run]);
        }
        if let Some(runs) = held() {
            return Ok(runs);
        }
        // Some were dropped meanwhile, or another has loaded other hours: read what this question needs.
        Ok(self.build_hours(set, columns, &hours).await?.into_iter().map(Arc::new).collect())
    }

    async fn build(&self, set: &FileSet, columns: Columns, wanted: Wanted) -> Result<Run, ServingError> {
        let dimensions = Arc::clone(self.files.dimensions());
        let add = move |builder: &mut RunBuilder, batch: &RecordBatch| Ok(builder.add_batch(batch, &dimensions)?);
        let built =
            self.files.fold(Table::BatchCounts, set.files.clone(), columns, wanted, RunBuilder::new(), add).await?;
        finish(built).await
    }

    async fn build_hours(&self, set: &FileSet, columns: Columns, hours: &[i64]) -> Result<Vec<Run>, ServingError> {
        let files = near(set, hours);
        let (dimensions, hours) = (Arc::clone(self.files.dimensions()), hours.to_vec());
        let builders: Vec<RunBuilder> = hours.iter().map(|_| RunBuilder::new()).collect();
        let add =
            move |builders: &mut Vec<RunBuilder>, batch: &RecordBatch| add_hours(builders, &hours, batch, &dimensions);
        let built = self.files.fold(Table::BatchCounts, files, columns, Wanted::default(), builders, add).await?;
        let finish = move || built.into_iter().map(finished).collect();
        offload(finish).await.map_err(ServingError::internal)?
    }

    async fn read_entity(&self, span: &Span, entity: &str, columns: Columns) -> Result<Run, ServingError> {
        let set = &span.files;
        let near = |file: &&DataFile| may_hold(file, entity);
        let files = FileSet { files: set.files.iter().filter(near).cloned().collect(), ..FileSet::clone(set) };
        let (entity, minutes) = (Some(entity.into()), Some(span.minutes.clone()));
        self.build(&files, columns, Wanted { entity, minutes, ..Wanted::default() }).await
    }

    async fn read_top<S: PerEntity>(&self, span: &Span, top: Arc<TopSelection>, sums: S) -> Result<S, ServingError> {
        let (dimensions, minutes) = (Arc::clone(self.files.dimensions()), span.minutes.clone());
        let flush = move |(builder, sums): &mut (RunBuilder, S)| -> Result<(), ServingError> {
            let run = std::mem::take(builder).finish()?;
            sums.add_run(&run, &top, &minutes);
            Ok(())
        };
        let last = flush.clone();
        let add = move |state: &mut (RunBuilder, S), batch: &RecordBatch| {
            state.0.add_batch(batch, &dimensions)?;
            if state.0.rows() >= FOLD_ROWS { flush(state) } else { Ok(()) }
        };
        let files = span.files.files.clone();
        let start = (RunBuilder::new(), sums);
        let mut state = self.files.fold(Table::BatchCounts, files, S::COLUMNS, Wanted::default(), start, add).await?;
        let finish = move || last(&mut state).map(|()| state.1);
        offload(finish).await.map_err(ServingError::internal)?
    }
}

/// The hours, since 1970, that some minutes lie in.
fn hours_in(minutes: &Range<i64>) -> RangeInclusive<i64> {
    minutes.start.div_euclid(MINUTES_PER_HOUR)..=(minutes.end - 1).div_euclid(MINUTES_PER_HOUR)
}

/// Whether a file may have rows of an entity, by its smallest and largest id.
pub fn may_hold(file: &DataFile, entity: &str) -> bool {
    let bound = |values: &BTreeMap<String, serde_json::Value>| {
        values.get("entity_id").and_then(|value| value.as_str()).map(str::to_owned)
    };
    bound(&file.min).is_none_or(|min| min.as_str() <= entity)
        && bound(&file.max).is_none_or(|max| entity <= max.as_str())
}

async fn finish(builder: RunBuilder) -> Result<Run, ServingError> {
    offload(move || finished(builder)).await.map_err(ServingError::internal)?
}

/// The run, ready for top lists.
fn finished(builder: RunBuilder) -> Result<Run, ServingError> {
    let run = builder.finish()?;
    run.prepare_leaders();
    Ok(run)
}

/// The files that may have rows in some of these hours: of an hour that batch has not got to there are none.
fn near(set: &FileSet, hours: &[i64]) -> Vec<DataFile> {
    let may_have = |file: &&DataFile| {
        let first = min_micros(file, "minute").map_or(i64::MIN, |first| first.div_euclid(MICROS_PER_HOUR));
        let last = max_micros(file, "minute").map_or(i64::MAX, |last| last.div_euclid(MICROS_PER_HOUR));
        hours.iter().any(|hour| (first..=last).contains(hour))
    };
    set.files.iter().filter(may_have).cloned().collect()
}

fn add_hours(
    builders: &mut [RunBuilder],
    hours: &[i64],
    batch: &RecordBatch,
    dimensions: &[Dimension],
) -> Result<(), ServingError> {
    let minute =
        batch.column_by_name("minute").ok_or_else(|| ServingError::internal("a file without column minute"))?;
    let micros = cast(minute, &DataType::Int64)?;
    let micros = micros.as_primitive::<Int64Type>();
    for (builder, hour) in builders.iter_mut().zip(hours) {
        let within =
            micros.iter().map(|micros| micros.map(|micros| micros.div_euclid(MICROS_PER_HOUR) == *hour)).collect();
        let rows = filter_record_batch(batch, &within)?;
        if rows.num_rows() > 0 {
            builder.add_batch(&rows, dimensions)?;
        }
    }
    Ok(())
}
