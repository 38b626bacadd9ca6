//! Several functions of many entities at once, and of the period before: all from one view.
//!
//! ```text
//! one entity    ─ tail sums, minute by minute where two windows need them ─┐
//! many entities ─ tails whole, each entity looked up in their runs ────────┴─▶ ⊎ batch ─▶ answer, one provenance
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::future::try_join_all;
use reckon_data::filter::Filter;
use reckon_data::kept::Needs;
use reckon_data::metric::{Answer, Cell, Function};
use reckon_data::minute::start_of_minute;
use reckon_data::run::StepSums;
use serde::Serialize;
use utoipa::ToSchema;

use super::Serving;
use super::as_of::AsOf;
use super::asks::{Asks, Sums, added};
use super::change::Change;
use super::gather::{Outcome, StreamRuns, StreamSums, exact, exact_sum};
use super::types::{Step, Window};
use crate::ServingError;
use crate::metrics::Question;
use crate::times::as_time;
use crate::view::{BatchView, Missing, Part, Provenance};

/// So many entities are added up at once.
const AT_ONCE: usize = 16;

/// Functions of entities' counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManyQuery {
    /// What is counted: 1 to [`ManyQuery::ENTITIES_MAX`], each once.
    pub entities: Vec<String>,
    /// One event type; all when none.
    pub event_type: Option<String>,
    /// What is asked of the counts, at least one.
    pub functions: Vec<Function>,
    /// From when, microseconds.
    pub from: i64,
    /// Up to when, microseconds, exclusive.
    pub to: i64,
    /// How long a step is; all in one when none.
    pub step: Option<Step>,
    /// Which events; all when none.
    pub filter: Option<Filter>,
    /// Whether the period before is asked for as well: as long, and up to where the window begins.
    pub previous: bool,
    /// An older version of batch.
    pub as_of: Option<AsOf>,
}

impl ManyQuery {
    /// Most entities of a question.
    pub const ENTITIES_MAX: usize = 1_000;
}

/// A value for each function, by its name.
pub type Values<T> = BTreeMap<Function, T>;

/// The answer to a [`ManyQuery`], all of it from one view.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ManyAnswer {
    /// The functions.
    pub functions: Vec<Function>,
    /// Minutes in a step; none when there are no steps.
    pub step_minutes: Option<i64>,
    /// The entities, in the order of the question; those of which nothing was counted, too.
    pub entities: Vec<ManyEntity>,
    /// The window in whole minutes.
    pub window: Window,
    /// The period before, if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_window: Option<Window>,
    /// Where all of it comes from; its two parts are numbers of events in the window, all entities together.
    pub provenance: Provenance,
}

/// What was counted of one entity.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ManyEntity {
    /// Its id.
    pub entity_id: String,
    /// How many events, whatever the functions.
    pub count: u64,
    /// How many of them were late.
    pub late: u64,
    /// The functions of the whole window.
    #[schema(value_type = BTreeMap<String, Answer>)]
    pub total: Values<Answer>,
    /// The steps in which anything was counted, ascending; none when there are no steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub points: Option<Vec<ManyPoint>>,
    /// The functions of the period before.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeMap<String, Answer>>)]
    pub previous: Option<Values<Answer>>,
    /// How they have changed since.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeMap<String, Change>>)]
    pub change: Option<Values<Change>>,
}

/// The values of one step.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ManyPoint {
    /// When the step starts, microseconds.
    #[serde(serialize_with = "as_time")]
    #[schema(value_type = String, format = DateTime)]
    pub start: i64,
    /// What the functions make of it.
    #[schema(value_type = BTreeMap<String, Answer>)]
    pub values: Values<Answer>,
    /// How many of its events were late.
    pub late: u64,
}

/// What the stream said of itself.
pub(super) struct Told {
    pub(super) asked: i64,
    pub(super) parts: Vec<Part>,
    pub(super) missing: Vec<Missing>,
}

/// What was counted, by whom, and where it comes from.
pub(super) struct Found {
    pub(super) batch: Sums,
    pub(super) stream: Sums,
    pub(super) provenance: Provenance,
}

impl Serving {
    /// Functions of entities' counts, and of the period before: all from one view.
    ///
    /// # Errors
    /// [`ServingError::BadRequest`], and when files cannot be read.
    pub async fn many(&self, query: &ManyQuery) -> Result<ManyAnswer, ServingError> {
        self.metrics.measure(Question::Stats, Box::pin(self.many_unmeasured(query))).await
    }

    async fn many_unmeasured(&self, query: &ManyQuery) -> Result<ManyAnswer, ServingError> {
        self.check_many(query)?;
        let window = Window::around(query.from, query.to)?;
        let previous = query.previous.then(|| window.before()).transpose()?;
        let asks = |conditions| Asks {
            entities: query.entities.clone(),
            event_type: query.event_type.clone(),
            conditions,
            windows: [window].into_iter().chain(previous).collect(),
            step: query.step.map(Step::minutes),
        };
        let needs = Needs::of(query.filter.as_ref(), &query.functions);
        let conditions = self.conditions(query.filter.as_ref());
        let found = match (query.as_of, conditions) {
            (Some(as_of), _) => {
                let conditions = self.past_conditions(query.filter.as_ref())?;
                self.many_past(&asks(conditions), &needs, as_of).await?
            }
            (None, Some(conditions)) => {
                let asks = Arc::new(asks(conditions));
                match self.many_live(&asks, &needs).await? {
                    Some(found) => found,
                    None => self.many_events(&asks, query.filter.as_ref()).await?,
                }
            }
            (None, None) => self.many_events(&asks(Vec::new()), query.filter.as_ref()).await?,
        };
        many_answer(query, window, previous, found)
    }

    fn check_many(&self, query: &ManyQuery) -> Result<(), ServingError> {
        let (entities, most) = (query.entities.len(), ManyQuery::ENTITIES_MAX);
        if !(1..=most).contains(&entities) {
            return Err(ServingError::bad("entities", format!("{entities} entities are not 1 to {most}")));
        }
        if query.entities.iter().any(String::is_empty) {
            return Err(ServingError::bad("entities", "an entity's id is empty"));
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = query.entities.iter().find(|entity| !seen.insert(entity.as_str())) {
            return Err(ServingError::bad("entities", format!("{twice:?} is given twice")));
        }
        if query.functions.is_empty() {
            return Err(ServingError::bad("functions", "no function is named: count, for example"));
        }
        query.functions.iter().try_for_each(|function| self.check_function(*function))
    }

    async fn many_live(&self, asks: &Arc<Asks>, needs: &Needs) -> Result<Option<Found>, ServingError> {
        let around = asks.around();
        let (view, found) = self
            .with_view(|view| async move {
                if !self.holds(&view, around, needs) {
                    return Ok(Outcome::Answer(None));
                }
                let stream = self.many_stream(&view, asks).await?;
                let batch = self.many_batch(&view, asks, needs).await?;
                Ok(stream.map(|(stream, told)| Some((batch, stream, told))))
            })
            .await?;
        let Some((batch, stream, told)) = found else { return Ok(None) };
        if !self.sealed_hold(&view, &told.parts, needs).await? {
            return Ok(None);
        }
        let counts = (count_of(&batch)?, count_of(&stream)?);
        let Told { asked, parts, missing } = told;
        let provenance = self.provenance(&view, asked, &parts, missing, around, Some(counts));
        Ok(Some(Found { batch, stream, provenance }))
    }

    async fn many_stream(&self, view: &BatchView, asks: &Arc<Asks>) -> Result<Outcome<(Sums, Told)>, ServingError> {
        if asks.entities.len() == 1 {
            let found = self.stream_sums(view, &asks.all_of(0)).await?;
            return Ok(found.map(|StreamSums { asked, sums, parts, missing }| {
                (vec![asks.split(sums)], Told { asked, parts, missing })
            }));
        }
        let outcome = self.stream_runs(view, Some(&asks.around().minutes())).await?;
        let is_stale = matches!(outcome, Outcome::Stale(_));
        let (Outcome::Answer(stream) | Outcome::Stale(stream)) = outcome;
        let StreamRuns { asked, runs, on_disk, parts, mut missing } = stream;
        let mut sums = added(asks, asks.nothing(), runs).await?;
        for chunk in &on_disk {
            match self.segments.runs(&self.index, chunk).await {
                Err(ServingError::Damaged { damaged }) => missing.extend(chunk.missing(&damaged)),
                runs => sums = added(asks, sums, runs?).await?,
            }
        }
        let answer = (sums, Told { asked, parts, missing });
        Ok(if is_stale { Outcome::Stale(answer) } else { Outcome::Answer(answer) })
    }

    /// What batch has counted, some entities at once.
    pub(super) async fn many_batch(&self, view: &BatchView, asks: &Asks, needs: &Needs) -> Result<Sums, ServingError> {
        // Any function that needs them has all values read.
        let function = if needs.values || needs.distinct { Function::Sum } else { Function::Count };
        let (mut all, mut steps) = (Sums::new(), 0_usize);
        let numbers: Vec<usize> = (0..asks.entities.len()).collect();
        for some in numbers.chunks(AT_ONCE) {
            let sums = some.iter().copied().map(|entity| async move {
                let own = (0..asks.windows.len()).map(|window| async move {
                    self.batch_sums(view, &asks.selection(entity, window), function).await
                });
                try_join_all(own).await
            });
            let sums = try_join_all(sums).await?;
            steps = steps.saturating_add(sums.iter().flatten().map(|own| own.iter().count()).sum());
            check_steps(steps)?;
            all.extend(sums);
        }
        Ok(all)
    }

    async fn many_past(&self, asks: &Asks, needs: &Needs, as_of: AsOf) -> Result<Found, ServingError> {
        let past = self.past(as_of).await?;
        let around = asks.around();
        self.check_past(&past.view, around, needs)?;
        let batch = self.many_batch(&past.view, asks, needs).await?;
        let provenance = self.past_provenance(&past, around, count_of(&batch)?);
        Ok(Found { batch, stream: asks.nothing(), provenance })
    }
}

/// Refuses an answer of too many steps.
pub(super) fn check_steps(steps: usize) -> Result<(), ServingError> {
    if steps as u64 > Step::STEPS_MAX.unsigned_abs() {
        let message = format!("the answer would have more than {} steps, all entities together", Step::STEPS_MAX);
        return Err(ServingError::bad("step", message));
    }
    Ok(())
}

/// Events of all entities in the first window.
pub(super) fn count_of(sums: &Sums) -> Result<u64, ServingError> {
    let own = sums.iter().filter_map(|windows| windows.first());
    own.map(|sums| sums.total().count).try_fold(0, exact_sum)
}

fn values(cell: &Cell, functions: &[Function]) -> Result<Values<Answer>, ServingError> {
    let value = |function: &Function| match cell.evaluate(*function) {
        Answer::Overflow => Err(ServingError::internal(format!("{function} overflows"))),
        answer => Ok((*function, answer)),
    };
    functions.iter().map(value).collect()
}

/// What batch and stream have counted in a window, together.
fn together(batch: Option<StepSums>, stream: Option<StepSums>) -> StepSums {
    let mut sums = batch.unwrap_or_default();
    sums.add_all(&stream.unwrap_or_default().into_cells());
    sums
}

fn many_answer(
    query: &ManyQuery,
    window: Window,
    previous_window: Option<Window>,
    found: Found,
) -> Result<ManyAnswer, ServingError> {
    let Found { batch, stream, provenance } = found;
    let (mut entities, mut late, mut steps) = (Vec::with_capacity(query.entities.len()), 0_u64, 0_usize);
    for (entity_id, (batch, stream)) in query.entities.iter().zip(batch.into_iter().zip(stream)) {
        let (mut batch, mut stream) = (batch.into_iter(), stream.into_iter());
        let own = together(batch.next(), stream.next());
        let before = together(batch.next(), stream.next());
        steps = steps.saturating_add(own.iter().count());
        check_steps(steps)?;
        let entity = many_entity(query, entity_id, &own, &before)?;
        late = late.saturating_add(entity.late);
        entities.push(entity);
    }
    Ok(ManyAnswer {
        functions: query.functions.clone(),
        step_minutes: query.step.map(Step::minutes),
        entities,
        window,
        previous_window,
        provenance: provenance.with_late(late),
    })
}

fn many_entity(
    query: &ManyQuery,
    entity_id: &str,
    own: &StepSums,
    before: &StepSums,
) -> Result<ManyEntity, ServingError> {
    let functions = &query.functions;
    let total_cell = own.total();
    let total = values(&total_cell, functions)?;
    let previous = query.previous.then(|| values(&before.total(), functions)).transpose()?;
    let change = previous.as_ref().map(|previous| {
        let of = |(function, before): (&Function, &Answer)| {
            let now = total.get(function).copied().unwrap_or(Answer::Null);
            (*function, Change::between(*before, now))
        };
        previous.iter().map(of).collect()
    });
    let point = |(step, cell): (i64, &Cell)| -> Result<ManyPoint, ServingError> {
        Ok(ManyPoint { start: start_of_minute(step), values: values(cell, functions)?, late: cell.late })
    };
    let points = query.step.map(|_| own.iter().map(point).collect::<Result<Vec<_>, ServingError>>()).transpose()?;
    Ok(ManyEntity {
        entity_id: entity_id.to_owned(),
        count: exact(total_cell.count)?,
        late: total_cell.late,
        total,
        points,
        previous,
        change,
    })
}
