//! Which dates a run recounts, and how.
//!
//! A date whose rows count more events than there are raw events below the old coverage has lost raw events: it
//! is *closed*. Its rows are the only record there is, so new events are added to them and nothing is ever
//! replaced. That holds whatever the retention settings say now, or said when the events were removed.
//!
//! Repeats of a key are raw events too and can make up for lost ones in number. Where retention may have removed
//! events (dates before [`Transaction::Closed`]) different keys are counted instead, so that such a loss is always
//! found. On other dates, whose raw events can be gone by an accident only, a loss is found by number alone.
//!
//! Rows of before can be too many as well. Nothing here can tell that from a loss, so a date is *replaced* only if somebody
//! asks for it who can: nothing of its rows is looked at then, for they may be damaged or missing.
//!
//! [`Transaction::Closed`]: reckon_data::paths::Transaction::Closed

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use futures::StreamExt;
use object_store::ObjectStore;
use reckon_data::damage::Damaged;
use reckon_data::minute::parse_date;
use reckon_data::rolled::Rolled;
use reckon_data::run::Granularity;
use reckon_data::table::{DataFile, Table};
use reckon_tables::provider::{Piece, PinnedTable};
use reckon_tables::schema::file_schema;

use super::engine::Engine;
use super::error::BatchError;
use super::report::Mode;
use super::scope::{EntitySet, Scope, Source};
use super::span::Span;

/// An old date with more new events than one in so many is recounted whole.
const FEW: u64 = 50;
/// Entities that are recounted apart at most.
const ENTITIES_MAX: usize = 500_000;

/// Both tables as a run has pinned them, per date.
#[derive(Debug)]
pub struct Dates {
    /// Raw events.
    pub events: BTreeMap<i32, Vec<DataFile>>,
    /// Rows of before, of all granularities.
    pub counts: BTreeMap<i32, Vec<DataFile>>,
}

impl Dates {
    /// Each date that has raw events, and each of `replace` that has rows at least: its raw events and rows of before, in
    /// the order of the dates.
    #[must_use]
    pub fn with(&self, replace: &BTreeSet<i32>) -> BTreeMap<i32, (&[DataFile], &[DataFile])> {
        let rows_only = replace.iter().filter(|date| self.counts.contains_key(*date));
        let dates = self.events.keys().chain(rows_only);
        dates.map(|date| (*date, (files_of(&self.events, *date), files_of(&self.counts, *date)))).collect()
    }
}

fn files_of(dates: &BTreeMap<i32, Vec<DataFile>>, date: i32) -> &[DataFile] {
    dates.get(&date).map_or(&[][..], Vec::as_slice)
}

/// The files of each date.
///
/// # Errors
/// [`BatchError::Broken`] when a file has no valid date.
pub fn by_date(files: &[DataFile]) -> Result<BTreeMap<i32, Vec<DataFile>>, BatchError> {
    let mut dates: BTreeMap<i32, Vec<DataFile>> = BTreeMap::new();
    for file in files {
        let text = file.partition.get("event_date").and_then(Option::as_deref);
        let date = text
            .and_then(parse_date)
            .ok_or_else(|| BatchError::Broken(format!("file {} has the date {text:?}", file.path)))?;
        dates.entry(date).or_default().push(file.clone());
    }
    Ok(dates)
}

/// Files of one granularity.
#[must_use]
pub fn of_granularity(files: &[DataFile], granularity: Granularity) -> Vec<DataFile> {
    let is =
        |file: &&DataFile| file.partition.get("granularity").and_then(Option::as_deref) == Some(granularity.name());
    files.iter().filter(is).cloned().collect()
}

/// The finest granularity that files are of; none of no files.
#[must_use]
pub fn finest_of(files: &[DataFile]) -> Option<Granularity> {
    Granularity::ALL.into_iter().find(|granularity| !of_granularity(files, *granularity).is_empty())
}

/// The finest granularity that rows are written of where a date is counted whole: what the table was rolled up to does
/// not come back, unless some of it is still there.
#[must_use]
pub fn finest_of_whole(date: i32, files: &[DataFile], rolled: Rolled) -> Granularity {
    let due = rolled.finest(date);
    finest_of(files).map_or(due, |there| there.min(due))
}

/// The rows of a date that coarser ones are made of: its finest. Of a date that is rolled up these are hours, or days, to
/// which what is new adds up as exactly as to minutes.
#[must_use]
pub fn finest_files(files: &[DataFile]) -> (Granularity, Vec<DataFile>) {
    let finest = finest_of(files).unwrap_or(Granularity::Minute);
    (finest, of_granularity(files, finest))
}

/// What a run asks of a date.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// Recount it though nothing may be new.
    pub always: bool,
    /// Recount it whole, however many events its rows of before count: its raw events are known to be whole.
    pub replace: bool,
    /// Some of its rows of before are damaged.
    pub damaged: bool,
    /// It is so recent that more events are bound to come.
    pub recent: bool,
    /// Retention may have removed raw events of it.
    pub closed: bool,
    /// The definition of now.
    pub definition: u64,
}

/// How a date is to be recounted.
#[derive(Debug)]
pub struct Choice {
    /// How.
    pub mode: Mode,
    /// Which raw events are read.
    pub scope: Scope,
    /// Events that the rows of before count.
    pub counted_before: u64,
}

/// The raw events and rows of a date.
#[derive(Debug)]
pub struct DatePlan<'a> {
    /// The store, rooted at the tables' folder.
    pub store: &'a Arc<dyn ObjectStore>,
    /// Old coverage and cuts.
    pub span: &'a Arc<Span>,
    /// Files of raw events.
    pub events: &'a [DataFile],
    /// Files of rows of before, of all granularities.
    pub counts: &'a [DataFile],
}

impl DatePlan<'_> {
    /// How the date is to be recounted; none when nothing of it would change.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub async fn choose(&self, engine: &Engine, asked: Asked) -> Result<Option<Choice>, BatchError> {
        if asked.replace {
            return Ok(Some(Choice { mode: Mode::Full, scope: Scope::All, counted_before: 0 }));
        }
        let source = self.source(Scope::All);
        if source.relevant().is_empty() || !(self.maybe_new() || asked.always || asked.damaged) {
            return Ok(None);
        }
        if self.counts.is_empty() {
            return Ok(Some(Choice { mode: Mode::Full, scope: Scope::All, counted_before: 0 }));
        }
        let counted_before = self.counted_before(engine, asked).await?;
        let choice = |mode, scope| Ok(Some(Choice { mode, scope, counted_before }));
        if self.has_lost(engine, asked.closed, counted_before).await? {
            return match self.new_events(engine, 0).await? {
                Some(entities) if entities.is_empty() && !asked.damaged => Ok(None),
                _ => choice(Mode::Closed, Scope::New),
            };
        }
        if asked.always || asked.damaged {
            return choice(Mode::Full, Scope::All);
        }
        let rows: u64 = self.events.iter().map(|file| file.rows).sum();
        let few = if asked.recent || self.is_foreign(asked.definition) { 0 } else { rows / FEW };
        match self.new_events(engine, few).await? {
            None => choice(Mode::Full, Scope::All),
            Some(entities) if entities.is_empty() => Ok(None),
            Some(entities) => choice(Mode::Entities, Scope::Entities(Arc::new(entities))),
        }
    }

    /// Whether the date is looked at for no other reason than that its rows are damaged.
    #[must_use]
    pub fn is_mending(&self, asked: Asked) -> bool {
        asked.damaged && !asked.always && !asked.replace && !self.maybe_new()
    }

    fn maybe_new(&self) -> bool {
        self.events.iter().any(|file| self.span.of(file).maybe_new())
    }

    /// The date's raw events in a scope.
    #[must_use]
    pub fn source(&self, scope: Scope) -> Source {
        Source { store: Arc::clone(self.store), span: Arc::clone(self.span), scope, files: self.events.to_vec() }
    }

    /// Whether rows may have been counted with another definition.
    fn is_foreign(&self, definition: u64) -> bool {
        let definition = Some(definition.cast_signed());
        self.counts
            .iter()
            .any(|file| file.min_i64("definition") != definition || file.max_i64("definition") != definition)
    }

    /// Events that the rows of before count, by the day; or, where those are damaged, by the hour or the minute, as far as
    /// the date has these.
    ///
    /// Where none of them can be read nothing says whether raw events are missing: a date is recounted then only if
    /// somebody asks for it. Of a closed one more are missing than there can be: what is new comes beside its rows.
    async fn counted_before(&self, engine: &Engine, asked: Asked) -> Result<u64, BatchError> {
        let finest = finest_of(self.counts).unwrap_or(Granularity::Minute);
        let coarser = [Granularity::Day, Granularity::Hour].into_iter().filter(|granularity| *granularity > finest);
        // What is not there at all counts nothing, and says nothing.
        for granularity in coarser.filter(|granularity| !of_granularity(self.counts, *granularity).is_empty()) {
            match self.counted_by(engine, granularity).await {
                Err(error) if Damaged::cause(&error).is_some() => {
                    tracing::warn!(%granularity, error = error.in_full(), "rows of before cannot be read");
                }
                counted => return counted,
            }
        }
        match self.counted_by(engine, finest).await {
            Err(error) if Damaged::cause(&error).is_some() && asked.always && !asked.closed => {
                tracing::warn!(error = error.in_full(), "how many raw events there should be, nothing says");
                Ok(0)
            }
            Err(error) if Damaged::cause(&error).is_some() && asked.closed => Ok(u64::MAX),
            counted => counted,
        }
    }

    async fn counted_by(&self, engine: &Engine, granularity: Granularity) -> Result<u64, BatchError> {
        let files = of_granularity(self.counts, granularity);
        let session = engine.session(1, false);
        let schema = file_schema(Table::BatchCounts);
        let table = PinnedTable::new(Arc::clone(self.store), Table::BatchCounts, files, schema)?;
        session.register_table("counts", Arc::new(table))?;
        number(engine, &session, "SELECT sum(count) FROM counts").await
    }

    /// Whether there are fewer raw events below the old coverage than were counted there; see the module.
    async fn has_lost(&self, engine: &Engine, closed: bool, counted: u64) -> Result<bool, BatchError> {
        Ok(self.old_events(engine).await? < counted || (closed && self.old_keys(engine).await? < counted))
    }

    /// Different keys of the raw events that lie below the old coverage.
    async fn old_keys(&self, engine: &Engine) -> Result<u64, BatchError> {
        let some_old = |file: &&DataFile| !self.span.of(file).none_old;
        let pieces: Vec<Piece> = self.events.iter().filter(some_old).cloned().map(Piece::from).collect();
        if pieces.is_empty() {
            return Ok(0);
        }
        let session = engine.session(engine.parallel, true);
        self.source(Scope::All).register(&session, pieces, None)?;
        let old = self.span.is_old_sql();
        let keys = format!("SELECT DISTINCT event_id, entity_id, event_type FROM events WHERE {old}");
        number(engine, &session, &format!("SELECT count(*) FROM ({keys})")).await
    }

    /// Raw events, repeats included, that lie below the old coverage.
    async fn old_events(&self, engine: &Engine) -> Result<u64, BatchError> {
        let (mut old, mut mixed) = (0, Vec::new());
        for file in self.events {
            let rows = self.span.of(file);
            if rows.all_old {
                old += file.rows;
            } else if !rows.none_old {
                mixed.push(Piece::from(file.clone()));
            }
        }
        if !mixed.is_empty() {
            let session = engine.session(1, true);
            self.source(Scope::All).register(&session, mixed, None)?;
            let sql = format!("SELECT count(*) FROM events WHERE {}", self.span.is_old_sql());
            old += number(engine, &session, &sql).await?;
        }
        Ok(old)
    }

    /// The entities of the new events; none when there are more than `few` events.
    async fn new_events(&self, engine: &Engine, few: u64) -> Result<Option<EntitySet>, BatchError> {
        let source = self.source(Scope::New);
        let pieces: Vec<Piece> = source.relevant().into_iter().map(Piece::from).collect();
        if pieces.is_empty() {
            return Ok(Some(EntitySet::default()));
        }
        let filters = source.filters(&pieces);
        let filter = if filters.is_empty() { String::new() } else { format!(" WHERE {}", filters.join(" AND ")) };
        let sql = format!("SELECT entity_id FROM events{filter} LIMIT {}", few.saturating_add(1));
        let session = engine.session(1, true);
        source.register(&session, pieces, None)?;
        engine
            .spawn(async move {
                let mut stream = session.sql(&sql).await?.execute_stream().await?;
                let (mut entities, mut events) = (EntitySet::default(), 0);
                while let Some(batch) = stream.next().await {
                    let batch = batch?;
                    events += batch.num_rows() as u64;
                    if events > few || entities.len() > ENTITIES_MAX {
                        return Ok(None);
                    }
                    for entity in batch.column(0).as_string_view().iter().flatten() {
                        if !entities.contains(entity) {
                            entities.insert(entity.into());
                        }
                    }
                }
                Ok(Some(entities))
            })
            .await
    }
}

/// The one number that a query returns; 0 for null.
async fn number(engine: &Engine, session: &datafusion::prelude::SessionContext, sql: &str) -> Result<u64, BatchError> {
    let (session, sql) = (session.clone(), sql.to_owned());
    engine
        .spawn(async move {
            let batches = session.sql(&sql).await?.collect().await?;
            let numbers = batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().iter().flatten());
            let number: i64 = numbers.sum();
            u64::try_from(number).map_err(|_| BatchError::Broken(format!("{sql} is {number}")))
        })
        .await
}
