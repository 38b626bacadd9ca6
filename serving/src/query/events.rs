//! Questions that the counts cannot answer: filters on columns that are no dimension. They are answered
//! from the raw events, the first copy of each key, up to the archived position.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::Decimal128Type;
use futures::StreamExt;
use reckon_data::columns::VALUE_TYPE;
use reckon_data::definition::Definition;
use reckon_data::filter::Filter;
use reckon_data::metric::{Cell, Function};
use reckon_data::minute::{MICROS_PER_DAY, date_of, format_date, minute_of, parse_date};
use reckon_data::paths::Transaction;
use reckon_data::run::{Selection, StepSums};
use reckon_data::table::{DataFile, Snapshot, Table};
use reckon_data::tail::Position;

use super::Serving;
use super::gather::exact;
use super::locate::reached;
use super::rows::{natural, quoted, texts, time, truths, whole};
use super::stats::stats_answer;
use super::types::{CountAnswer, CountQuery, StatsAnswer, StatsQuery, TopAnswer, TopEntity, TopQuery, Window};
use crate::ServingError;
use crate::index::split::spans;
use crate::sql::engine::collect;
use crate::view::{BatchView, Given, Missing, MissingWhat, Part, Provenance, Source, State};

/// The order in which copies of an event count: the first does.
pub(super) const PLACE_ORDER: &str = "log_partition, log_offset, log_index";

/// What is asked of one entity's raw events.
struct About<'a> {
    entity: &'a str,
    event_type: Option<&'a str>,
    filter: Option<&'a Filter>,
    window: Window,
    step: Option<i64>,
}

/// What the raw events hold of it.
struct Found {
    sums: StepSums,
    provenance: Provenance,
}

/// What is gathered from rows.
struct Gathered {
    sums: StepSums,
    /// Events below coverage, whatever the filter.
    covered: u64,
}

impl Serving {
    pub(super) async fn count_events(&self, query: &CountQuery, window: Window) -> Result<CountAnswer, ServingError> {
        let found = self
            .entity_events(&About {
                entity: &query.entity,
                event_type: query.event_type.as_deref(),
                filter: query.filter.as_ref(),
                window,
                step: None,
            })
            .await?;
        let total = found.sums.total();
        let (count, provenance) = (exact(total.count)?, found.provenance.with_late(total.late));
        Ok(CountAnswer { count, batch: count, stream: 0, window, provenance })
    }

    pub(super) async fn stats_events(&self, query: &StatsQuery, window: Window) -> Result<StatsAnswer, ServingError> {
        let found = self
            .entity_events(&About {
                entity: &query.entity,
                event_type: query.event_type.as_deref(),
                filter: query.filter.as_ref(),
                window,
                step: Some(query.step.minutes()),
            })
            .await?;
        stats_answer(query, window, &found.sums, found.provenance)
    }

    async fn entity_events(&self, about: &About<'_>) -> Result<Found, ServingError> {
        let view = self.current.get();
        let snapshot = self.snapshots.newest(Table::Events).await?;
        let mut selection = Selection::all_of(about.entity);
        selection.event_type = about.event_type;
        let held = held_window(&view, about.window);
        selection.minutes = held.minutes();
        let counted = self.batch_sums(&view, &selection, Function::Count).await?;
        selection.step = about.step;

        let mut only = format!("entity_id = {}", quoted(about.entity));
        if let Some(event_type) = about.event_type {
            only = format!("{only} AND event_type = {}", quoted(event_type));
        }
        let matches = about.filter.map_or_else(|| "true".to_owned(), Filter::to_sql);
        let query = format!(
            "SELECT event_time, received_at, value, user_id, log_partition, log_offset, (({matches}) AND {}) AS matches \
             FROM ({}) WHERE {}",
            within(about.window),
            first_copies(&only),
            within(held)
        );
        let Gathered { sums, covered } = self.gather_rows(&query, &view, &snapshot, about, selection.step).await?;
        let (batch, mut missing) = (exact(counted.total().count)?, missing_dates(&view, &snapshot, about.window));
        if covered != batch && missing.is_empty() {
            let date = format_date(date_of(about.window.from));
            let reason = format!("of {batch} events that batch has counted, {covered} are left in the raw events");
            missing.push(Missing::date(MissingWhat::Events, date, reason));
        }
        let count = exact(sums.total().count)?;
        let provenance = self.events_provenance(&view, &snapshot, about.window, missing, count);
        Ok(Found { sums, provenance })
    }

    async fn gather_rows(
        &self,
        query: &str,
        view: &BatchView,
        snapshot: &Snapshot,
        about: &About<'_>,
        step: Option<i64>,
    ) -> Result<Gathered, ServingError> {
        let turn = self.engine.turn().await?;
        let context = self.engine.context()?;
        let events = self.pinned_table(Table::Events, files_of(snapshot, about.window))?;
        context.register_table("events", Arc::new(events))?;
        let (query, coverage, limits) = (query.to_owned(), view.coverage.clone(), self.engine.limits());
        let definition = Arc::clone(&self.parts.definition);
        let work = async move {
            let frame = context.sql(&query).await.map_err(|error| limits.of_query(&error))?;
            let mut stream = frame.execute_stream().await.map_err(|error| limits.of_query(&error))?;
            let mut gathered = Gathered { sums: StepSums::new(), covered: 0 };
            while let Some(batch) = stream.next().await {
                let batch = batch.map_err(|error| limits.of_query(&error))?;
                gathered.add(&batch, &coverage, step, &definition)?;
            }
            Ok(gathered)
        };
        self.engine.run(turn, work).await
    }

    pub(super) async fn top_events(&self, query: &TopQuery, window: Window) -> Result<TopAnswer, ServingError> {
        let view = self.current.get();
        let snapshot = self.snapshots.newest(Table::Events).await?;
        let turn = self.engine.turn().await?;
        let context = self.engine.context()?;
        let events = self.pinned_table(Table::Events, files_of(&snapshot, window))?;
        context.register_table("events", Arc::new(events))?;
        let mut only = query
            .event_type
            .as_ref()
            .map_or_else(|| "true".to_owned(), |name| format!("event_type = {}", quoted(name)));
        for prefix in &self.parts.definition.reserved_prefixes {
            only = format!("{only} AND NOT starts_with(entity_id, {})", quoted(prefix));
        }
        let matches = query.filter.as_ref().map_or_else(|| "true".to_owned(), Filter::to_sql);
        let text = format!(
            "SELECT entity_id, count(*) AS count FROM ({}) WHERE {} AND ({matches}) GROUP BY entity_id \
             ORDER BY count DESC, entity_id LIMIT {}",
            first_copies(&only),
            within(window),
            query.n
        );
        let mut limits = self.engine.limits();
        limits.rows = limits.rows.max(TopQuery::N_MAX);
        let work = async move {
            let frame = context.sql(&text).await.map_err(|error| limits.of_query(&error))?;
            collect(frame, limits).await
        };
        let (_, batches, _) = self.engine.run(turn, work).await?;
        let mut entities = Vec::new();
        for batch in &batches {
            let (ids, counts) = (texts(batch, "entity_id")?, whole(batch, "count")?);
            for row in 0..batch.num_rows() {
                entities.push(TopEntity { entity_id: ids.value(row).to_owned(), count: natural(&counts, row)? });
            }
        }
        let total = entities.iter().map(|entity| entity.count).sum();
        let missing = missing_of_list(&view, &snapshot, window);
        let provenance = self.events_provenance(&view, &snapshot, window, missing, total);
        Ok(TopAnswer { entities, window, provenance })
    }

    /// Where an answer from the raw events comes from: they go as far as they are archived.
    pub(super) fn events_provenance(
        &self,
        view: &BatchView,
        events: &Snapshot,
        window: Window,
        mut missing: Vec<Missing>,
        count: u64,
    ) -> Provenance {
        missing.extend(view.lost_of(events, self.parts.log));
        let asked = self.parts.clock.now();
        let mut behind = false;
        let parts: Vec<Part> = (0_u32..)
            .zip(&view.coverage)
            .map(|(partition, &from)| {
                let archived = reached(events, &Transaction::Archive(self.parts.log, partition));
                match self.parts.tails.position(partition) {
                    Ok(position) => {
                        behind |= archived < position.durable_end.max(position.offset);
                        let position = Position { offset: archived, ..position };
                        Part { partition, from, given: Given::Counts { position, on_disk: Vec::new() } }
                    }
                    Err(_) => {
                        behind = true;
                        let nothing = Position {
                            offset: archived,
                            log_time: reckon_data::logtime::LogTime::UNSET,
                            event_time_max: i64::MIN,
                            sealed: archived,
                            durable_end: archived,
                        };
                        Part { partition, from, given: Given::Counts { position: nothing, on_disk: Vec::new() } }
                    }
                }
            })
            .collect();
        let mut provenance = self.provenance(view, asked, &parts, missing, window, Some((count, 0)));
        provenance.source = Source::Events;
        // Raw events are counted now, by the definition in force.
        provenance.definitions_mixed = false;
        // What the counter has seen says nothing of what is archived.
        if behind {
            provenance.watermark = None;
            provenance.state = State::Provisional;
        }
        provenance
    }
}

impl Gathered {
    fn add(
        &mut self,
        batch: &RecordBatch,
        coverage: &[u64],
        step: Option<i64>,
        definition: &Definition,
    ) -> Result<(), ServingError> {
        let mut selection = Selection::all_of("");
        selection.step = step;
        selection.conditions = Cow::Borrowed(&[]);
        let sums = &mut self.sums;
        self.covered += each_row(batch, coverage, definition, |_, minute, cell| {
            sums.add(selection.step_of(minute), cell);
        })?;
        Ok(())
    }
}

/// Calls `each` with the number, the minute and the counts of every row that matches, and returns how many rows lie below
/// coverage, whether they match or not.
pub(super) fn each_row(
    batch: &RecordBatch,
    coverage: &[u64],
    definition: &Definition,
    mut each: impl FnMut(usize, i64, &Cell),
) -> Result<u64, ServingError> {
    let (times, received) = (whole(batch, "event_time")?, whole(batch, "received_at")?);
    let (users, matches) = (texts(batch, "user_id")?, truths(batch, "matches")?);
    let (partitions, offsets) = (whole(batch, "log_partition")?, whole(batch, "log_offset")?);
    let values =
        batch.column_by_name("value").ok_or_else(|| ServingError::internal("an answer without column value"))?;
    let values = cast(values, &VALUE_TYPE)?;
    let values = values.as_primitive::<Decimal128Type>();
    let mut below = 0;
    for row in 0..batch.num_rows() {
        let covered = coverage.get(natural::<usize>(&partitions, row)?).copied().unwrap_or(0);
        below += u64::from(natural::<u64>(&offsets, row)? < covered);
        if !(matches.is_valid(row) && matches.value(row)) {
            continue;
        }
        let value =
            (definition.has_values() && values.is_valid(row)).then(|| i64::try_from(values.value(row)).ok()).flatten();
        let user = (definition.has_distinct() && users.is_valid(row)).then(|| users.value(row));
        let (minute, cell) = (minute_of(times.value(row)), Cell::one(0, value, user));
        let is_late = minute < definition.late_before(received.value(row));
        each(row, minute, &if is_late { cell.as_late() } else { cell });
    }
    Ok(below)
}

/// The first copy of every key. `only` may restrict parts of the key and nothing else, or another copy
/// would come first.
pub(super) fn first_copies(only: &str) -> String {
    format!("SELECT * FROM ({}) WHERE copy_number = 1", numbered_copies(only))
}

/// The copies of every key with their numbers, the first of which is 1; `only` as in [`first_copies`].
pub(super) fn numbered_copies(only: &str) -> String {
    format!(
        "SELECT *, row_number() OVER (PARTITION BY event_id, entity_id, event_type, event_date ORDER BY {PLACE_ORDER}) \
         AS copy_number FROM events WHERE {only}"
    )
}

pub(super) fn within(window: Window) -> String {
    format!("event_time >= {} AND event_time < {}", time(window.from), time(window.to))
}

/// The window in which raw events are held against what batch has counted: the one that is asked for, and where that is too
/// fine for counts that are rolled up, its whole dates. Raw events themselves are as fine as ever.
pub(super) fn held_window(view: &BatchView, window: Window) -> Window {
    if spans(view, &window.minutes(), None).is_ok() {
        return window;
    }
    let up = |micros: i64| micros.saturating_add(MICROS_PER_DAY - 1).div_euclid(MICROS_PER_DAY);
    let [from, to] = [window.from.div_euclid(MICROS_PER_DAY), up(window.to)];
    Window { from: from.saturating_mul(MICROS_PER_DAY), to: to.saturating_mul(MICROS_PER_DAY) }
}

/// The dates of files of raw events.
fn date_of_file(file: &DataFile) -> Option<i32> {
    file.partition.get("event_date").and_then(Option::as_deref).and_then(parse_date)
}

/// The files of the window's dates: a key holds its date, so no copy lies elsewhere.
pub(super) fn files_of(snapshot: &Snapshot, window: Window) -> Vec<DataFile> {
    let dates = date_of(window.from)..=date_of(window.to.saturating_sub(1));
    snapshot.files.iter().filter(|file| date_of_file(file).is_none_or(|date| dates.contains(&date))).cloned().collect()
}

/// Dates that batch has counted and whose raw events are gone (retention).
pub(super) fn missing_dates(view: &BatchView, events: &Snapshot, window: Window) -> Vec<Missing> {
    if window.from >= window.to {
        return Vec::new();
    }
    let held: BTreeSet<i32> = events.files.iter().filter_map(date_of_file).collect();
    let dates = date_of(window.from)..=date_of(window.to - 1);
    let gone = view.dates.range(dates).map(|(date, _)| *date).filter(|date| !held.contains(date));
    gone.map(|date| Missing::date(MissingWhat::Events, format_date(date), "its raw events are no longer kept"))
        .collect()
}

/// The same of a list, which no count of batch is held against: of a date that retention has closed raw events may be
/// left, or have come since, and look like all there were.
pub(super) fn missing_of_list(view: &BatchView, events: &Snapshot, window: Window) -> Vec<Missing> {
    let mut missing = missing_dates(view, events, window);
    // None is not 0, which is a date like any other.
    let closed = events.transactions.get(&Transaction::Closed.to_string()).copied();
    if let Some(closed) = closed.filter(|_| window.from < window.to) {
        let held: BTreeSet<i32> = events.files.iter().filter_map(date_of_file).collect();
        let counted = view.dates.range(window.dates()).map(|(date, _)| *date);
        let thinned = counted.filter(|date| i64::from(*date) < closed && held.contains(date));
        let reason = "some of its raw events may be no longer kept";
        missing.extend(thinned.map(|date| Missing::date(MissingWhat::Events, format_date(date), reason)));
    }
    missing
}
