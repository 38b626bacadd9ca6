//! Top lists by any function, with the period before: exact over the whole window, as those by count.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type};
use futures::StreamExt as _;
use reckon_data::columns::{SUM_TYPE, VALUE_TYPE};
use reckon_data::filter::Filter;
use reckon_data::kept::Needs;
use reckon_data::key::entity_hash;
use reckon_data::metric::{Answer, Cell, Function, ValueState};
use reckon_data::offload::offload;
use reckon_data::run::{EntityCells, EntitySums, Ranked, StepSums};
use reckon_data::table::{Snapshot, Table};
use serde::Serialize;
use utoipa::ToSchema;

use super::Serving;
use super::as_of::AsOf;
use super::asks::{Asks, Sums, added};
use super::change::Change;
use super::events::{files_of, first_copies, missing_of_list, within};
use super::gather::{Outcome, StreamRuns, exact, exact_sum};
use super::rows::{natural, quoted, text_at, texts, whole};
use super::top::{self, check_n, top_selection};
use super::types::{TopQuery, Window};
use crate::ServingError;
use crate::index::{PerEntity, TopSelection};
use crate::metrics::Question;
use crate::view::{BatchView, Provenance};

/// The entities of which a function is largest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RankedQuery {
    /// Window, type, filter and length of the list.
    pub top: TopQuery,
    /// What the list is ordered by.
    pub function: Function,
    /// Whether the period before is asked for as well: as long, and up to where the window begins.
    pub previous: bool,
    /// An older version of batch.
    pub as_of: Option<AsOf>,
}

/// The answer to a [`RankedQuery`]: value descending, whatever the function, then id ascending. Averages are compared
/// exactly and not as they are rounded. Entities that the function can be made of nothing of are left out.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct RankedAnswer {
    /// The function.
    pub function: Function,
    /// The entities.
    pub entities: Vec<RankedEntity>,
    /// The window in whole minutes.
    pub window: Window,
    /// The period before, if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_window: Option<Window>,
    /// Where it comes from; its two parts are the numbers of events of the listed entities.
    pub provenance: Provenance,
}

/// An entity of a list by some function.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct RankedEntity {
    /// Its id.
    pub entity_id: String,
    /// What the function makes of it.
    pub value: Answer,
    /// How many events.
    pub count: u64,
    /// What the function made of it in the period before; null when nothing was there that it could be made of.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Answer, required = false)]
    pub previous: Option<Answer>,
    /// How it has changed since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
}

/// A list, and where it comes from.
struct List {
    ranked: Vec<Ranked>,
    /// What was counted of each in the period before; empty unless that was asked for.
    before: Vec<Cell>,
    provenance: Provenance,
}

/// A list, what was counted of each in the period before, and what the stream has given.
type Listed = (Vec<Ranked>, Vec<Cell>, StreamRuns);

/// What a list is made from.
struct Plan<'a> {
    query: &'a RankedQuery,
    top: Arc<TopSelection>,
    window: Window,
    previous: Option<Window>,
}

impl Plan<'_> {
    fn around(&self) -> Window {
        Window { from: self.previous.map_or(self.window.from, |previous| previous.from), to: self.window.to }
    }

    fn needs(&self) -> Needs {
        Needs::of(self.query.top.filter.as_ref(), &[self.query.function])
    }

    /// The question what some entities had in the period before.
    fn before(&self, listed: &[Ranked]) -> Option<Arc<Asks>> {
        let window = self.previous.filter(|_| !listed.is_empty())?;
        Some(Arc::new(Asks {
            entities: listed.iter().map(|one| one.entity.clone()).collect(),
            event_type: self.top.event_type.clone(),
            conditions: self.top.conditions.clone(),
            windows: vec![window],
            step: None,
        }))
    }
}

impl Serving {
    /// The entities of which a function is largest, Reckon's own left out.
    ///
    /// # Errors
    /// [`ServingError::BadRequest`], and when files cannot be read.
    pub async fn ranked(&self, query: &RankedQuery) -> Result<RankedAnswer, ServingError> {
        self.metrics.measure(Question::Top, Box::pin(self.ranked_unmeasured(query))).await
    }

    async fn ranked_unmeasured(&self, query: &RankedQuery) -> Result<RankedAnswer, ServingError> {
        let window = Window::around(query.top.from, query.top.to)?;
        let previous = query.previous.then(|| window.before()).transpose()?;
        check_n(&query.top)?;
        self.check_function(query.function)?;
        let _turn = self.top_turns.acquire().await.map_err(ServingError::internal)?;
        let plan =
            |conditions| Plan { query, top: top_selection(self, &query.top, window, conditions), window, previous };
        let filter = query.top.filter.as_ref();
        let list = match (query.as_of, self.conditions(filter)) {
            (Some(as_of), _) => self.ranked_past(&plan(self.past_conditions(filter)?), as_of).await?,
            (None, None) => self.ranked_events(&plan(Vec::new())).await?,
            (None, Some(conditions)) => {
                let plan = plan(conditions);
                match self.ranked_live(&plan).await? {
                    Some(list) => list,
                    None => self.ranked_events(&plan).await?,
                }
            }
        };
        answer(query, window, previous, list)
    }

    async fn ranked_live(&self, plan: &Plan<'_>) -> Result<Option<List>, ServingError> {
        let needs = &plan.needs();
        let (view, found) = self
            .with_view(|view| async move {
                if !self.holds(&view, plan.around(), needs) {
                    return Ok(Outcome::Answer(None));
                }
                Ok(self.ranked_of(&view, plan).await?.map(Some))
            })
            .await?;
        let Some((ranked, before, stream)) = found else { return Ok(None) };
        if !self.sealed_hold(&view, &stream.parts, needs).await? {
            return Ok(None);
        }
        let total = ranked.iter().try_fold(0, |sum, one| exact_sum(sum, one.count))?;
        let mut batch = 0;
        for one in &ranked {
            batch = exact_sum(batch, self.batch_count(&view, &plan.top, &one.entity).await?)?;
        }
        let counts = (batch, total.saturating_sub(batch));
        let StreamRuns { asked, parts, missing, .. } = stream;
        let provenance = self.provenance(&view, asked, &parts, missing, plan.around(), Some(counts));
        Ok(Some(List { ranked, before, provenance }))
    }

    async fn ranked_of(&self, view: &BatchView, plan: &Plan<'_>) -> Result<Outcome<Listed>, ServingError> {
        let (n, function) = (plan.query.top.n, plan.query.function);
        let around = &plan.around().minutes();
        let (outcome, ranked) = if function == Function::Count {
            let (outcome, sums) = split(self.summed(view, &plan.top, around, EntitySums::new()).await?);
            (outcome, offload(move || by_count(&sums, n)).await.map_err(ServingError::internal)?)
        } else {
            let (outcome, cells) = split(self.summed(view, &plan.top, around, EntityCells::new()).await?);
            (outcome, offload(move || cells.top(n, function)).await.map_err(ServingError::internal)?)
        };
        let is_stale = matches!(outcome, Outcome::Stale(_));
        let (Outcome::Answer(stream) | Outcome::Stale(stream)) = outcome;
        let before = match plan.before(&ranked) {
            Some(asks) => self.before(view, &asks, plan, &stream).await?,
            None => Vec::new(),
        };
        let answer = (ranked, before, stream);
        Ok(if is_stale { Outcome::Stale(answer) } else { Outcome::Answer(answer) })
    }

    /// What every entity adds up to, and all that the stream gave `around`: the period before is made of it as well.
    async fn summed<S: PerEntity>(
        &self,
        view: &BatchView,
        top: &Arc<TopSelection>,
        around: &Range<i64>,
        sums: S,
    ) -> Result<Outcome<(S, StreamRuns)>, ServingError> {
        let outcome = self.stream_runs(view, Some(around)).await?;
        let is_stale = matches!(outcome, Outcome::Stale(_));
        let (Outcome::Answer(mut stream) | Outcome::Stale(mut stream)) = outcome;
        let mut sums = top::added(sums, stream.runs.clone(), top).await?;
        for chunk in &stream.on_disk {
            match self.segments.runs(&self.index, chunk).await {
                Err(ServingError::Damaged { damaged }) => stream.missing.extend(chunk.missing(&damaged)),
                runs => sums = top::added(sums, runs?, top).await?,
            }
        }
        let answer = (self.index.top(view, top, sums).await?, stream);
        Ok(if is_stale { Outcome::Stale(answer) } else { Outcome::Answer(answer) })
    }

    /// What was counted in the period before, by the same view.
    async fn before(
        &self,
        view: &BatchView,
        asks: &Arc<Asks>,
        plan: &Plan<'_>,
        stream: &StreamRuns,
    ) -> Result<Vec<Cell>, ServingError> {
        let mut sums = added(asks, asks.nothing(), stream.runs.clone()).await?;
        for chunk in &stream.on_disk {
            match self.segments.runs(&self.index, chunk).await {
                // The list lacks it as well, and says so.
                Err(ServingError::Damaged { .. }) => {}
                runs => sums = added(asks, sums, runs?).await?,
            }
        }
        let batch = self.many_batch(view, asks, &plan.needs()).await?;
        let together = batch.into_iter().zip(sums).map(|(batch, stream)| {
            let mut cell = total(&batch);
            cell.merge(&total(&stream));
            cell
        });
        Ok(together.collect())
    }

    async fn ranked_past(&self, plan: &Plan<'_>, as_of: AsOf) -> Result<List, ServingError> {
        let past = self.past(as_of).await?;
        self.check_past(&past.view, plan.around(), &plan.needs())?;
        let (n, function) = (plan.query.top.n, plan.query.function);
        let cells = self.index.top(&past.view, &plan.top, EntityCells::new()).await?;
        let ranked = offload(move || cells.top(n, function)).await.map_err(ServingError::internal)?;
        let before: Sums = match plan.before(&ranked) {
            Some(asks) => self.many_batch(&past.view, &asks, &plan.needs()).await?,
            None => Sums::new(),
        };
        let count = ranked.iter().try_fold(0, |sum, one| exact_sum(sum, one.count))?;
        let provenance = self.past_provenance(&past, plan.around(), count);
        Ok(List { ranked, before: before.iter().map(|own| total(own)).collect(), provenance })
    }

    /// The list from the raw events, up to the archived position.
    async fn ranked_events(&self, plan: &Plan<'_>) -> Result<List, ServingError> {
        let view = self.current.get();
        let snapshot = self.snapshots.newest(Table::Events).await?;
        let (n, function) = (plan.query.top.n, plan.query.function);
        let cells = self.raw_cells(plan, plan.window, &snapshot, &[]).await?;
        let ranked = offload(move || cells.top(n, function)).await.map_err(ServingError::internal)?;
        let before = match plan.previous.filter(|_| !ranked.is_empty()) {
            Some(previous) => {
                let listed: Vec<&str> = ranked.iter().map(|one| one.entity.as_str()).collect();
                let cells = self.raw_cells(plan, previous, &snapshot, &listed).await?;
                listed.iter().map(|entity| cells.cell(entity_hash(entity), entity)).collect()
            }
            None => Vec::new(),
        };
        let count = ranked.iter().try_fold(0, |sum, one| exact_sum(sum, one.count))?;
        let missing = missing_of_list(&view, &snapshot, plan.around());
        let provenance = self.events_provenance(&view, &snapshot, plan.around(), missing, count);
        Ok(List { ranked, before, provenance })
    }

    /// What every entity adds up to in the raw events of a window; of some entities only, when any are named.
    async fn raw_cells(
        &self,
        plan: &Plan<'_>,
        window: Window,
        snapshot: &Snapshot,
        entities: &[&str],
    ) -> Result<EntityCells, ServingError> {
        let query = raw_query(plan, window, entities);
        let turn = self.engine.turn().await?;
        let context = self.engine.context()?;
        let events = self.pinned_table(Table::Events, files_of(snapshot, window))?;
        context.register_table("events", Arc::new(events))?;
        let limits = self.engine.limits();
        let work = async move {
            let frame = context.sql(&query).await.map_err(|error| limits.of_query(&error))?;
            let mut stream = frame.execute_stream().await.map_err(|error| limits.of_query(&error))?;
            let mut cells = EntityCells::new();
            while let Some(batch) = stream.next().await {
                add_rows(&mut cells, &batch.map_err(|error| limits.of_query(&error))?)?;
            }
            Ok(cells)
        };
        self.engine.run(turn, work).await
    }
}

/// Sums per entity, and of distinct users per entity and user.
fn raw_query(plan: &Plan<'_>, window: Window, entities: &[&str]) -> String {
    let mut only = "true".to_owned();
    if let Some(event_type) = &plan.top.event_type {
        only = format!("event_type = {}", quoted(event_type));
    }
    for prefix in &plan.top.reserved_prefixes {
        only = format!("{only} AND NOT starts_with(entity_id, {})", quoted(prefix));
    }
    if !entities.is_empty() {
        let names: Vec<String> = entities.iter().map(|entity| quoted(entity)).collect();
        only = format!("{only} AND entity_id IN ({})", names.join(", "));
    }
    let (user, group) = match plan.query.function {
        Function::ApproxDistinct => ("user_id", "entity_id, user_id"),
        _ => ("NULL", "entity_id"),
    };
    let matches = plan.query.top.filter.as_ref().map_or_else(|| "true".to_owned(), Filter::to_sql);
    format!(
        "SELECT entity_id, CAST({user} AS VARCHAR) AS user_id, count(*) AS count, count(value) AS value_count, \
         sum(CAST(value AS DECIMAL(38, 6))) AS value_sum, min(value) AS value_min, max(value) AS value_max \
         FROM ({}) WHERE {} AND ({matches}) GROUP BY {group}",
        first_copies(&only),
        within(window)
    )
}

fn add_rows(cells: &mut EntityCells, batch: &RecordBatch) -> Result<(), ServingError> {
    let (ids, users) = (texts(batch, "entity_id")?, texts(batch, "user_id")?);
    let (counts, value_counts) = (whole(batch, "count")?, whole(batch, "value_count")?);
    let decimals = |name: &str, of: &DataType| -> Result<_, ServingError> {
        let column = batch.column_by_name(name);
        let column = column.ok_or_else(|| ServingError::internal(format!("an answer without column {name}")))?;
        Ok(cast(column, of)?.as_primitive::<Decimal128Type>().clone())
    };
    let sums = decimals("value_sum", &SUM_TYPE)?;
    let (least, most) = (decimals("value_min", &VALUE_TYPE)?, decimals("value_max", &VALUE_TYPE)?);
    for row in 0..batch.num_rows() {
        let narrow = |value: i128| {
            i64::try_from(value).map_err(|_| ServingError::internal(format!("value {value} is out of range")))
        };
        let value = match natural::<u64>(&value_counts, row)? {
            0 => None,
            count => Some(ValueState {
                count,
                sum: sums.value(row),
                min: narrow(least.value(row))?,
                max: narrow(most.value(row))?,
            }),
        };
        // A sketch of the one user of the row.
        let user = text_at(&users, row).and_then(|user| Cell::one(0, None, Some(&user)).distinct);
        let id = ids.value(row);
        cells.add(entity_hash(id), id, natural(&counts, row)?, value, user.as_ref());
    }
    Ok(())
}

fn by_count(sums: &EntitySums, n: usize) -> Vec<Ranked> {
    let ranked = sums.top(n).into_iter();
    ranked.map(|(entity, count)| Ranked { entity, value: Answer::Count(count), count }).collect()
}

/// Takes the sums out of an outcome.
fn split<S>(outcome: Outcome<(S, StreamRuns)>) -> (Outcome<StreamRuns>, S) {
    match outcome {
        Outcome::Answer((sums, stream)) => (Outcome::Answer(stream), sums),
        Outcome::Stale((sums, stream)) => (Outcome::Stale(stream), sums),
    }
}

/// What the only window of an entity adds up to.
fn total(windows: &[StepSums]) -> Cell {
    windows.first().map(StepSums::total).unwrap_or_default()
}

fn answer(
    query: &RankedQuery,
    window: Window,
    previous_window: Option<Window>,
    list: List,
) -> Result<RankedAnswer, ServingError> {
    let function = query.function;
    let overflow = || ServingError::internal(format!("{function} overflows"));
    let mut entities = Vec::with_capacity(list.ranked.len());
    for (number, Ranked { entity, value, count }) in list.ranked.into_iter().enumerate() {
        let previous = previous_window.map(|_| {
            let nothing = Cell::default();
            list.before.get(number).unwrap_or(&nothing).evaluate(function)
        });
        if value == Answer::Overflow || previous == Some(Answer::Overflow) {
            return Err(overflow());
        }
        let change = previous.map(|before| Change::between(before, value));
        entities.push(RankedEntity { entity_id: entity, value, count: exact(count)?, previous, change });
    }
    Ok(RankedAnswer { function, entities, window, previous_window, provenance: list.provenance })
}
