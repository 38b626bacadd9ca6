//! Top lists, exact over any window.

use std::sync::Arc;

use reckon_data::kept::Needs;
use reckon_data::offload::offload;
use reckon_data::run::{DimCondition, EntitySums, Run, Selection, StepSums};

use super::Serving;
use super::gather::{Outcome, StreamRuns, exact, exact_sum};
use super::leaders::{self, Part};
use super::types::{TopAnswer, TopEntity, TopQuery, Window};
use crate::ServingError;
use crate::index::load::Columns;
use crate::index::{PerEntity, TopSelection};
use crate::metrics::Question;
use crate::view::BatchView;

/// Adds what runs have of a top list.
pub(super) async fn added<S: PerEntity>(
    mut sums: S,
    runs: Vec<Arc<Run>>,
    top: &Arc<TopSelection>,
) -> Result<S, ServingError> {
    let top = Arc::clone(top);
    let add = move || {
        runs.iter().for_each(|run| sums.add_run(run, &top, &top.minutes));
        sums
    };
    offload(add).await.map_err(ServingError::internal)
}

/// Refuses a list that is too long.
pub(super) fn check_n(query: &TopQuery) -> Result<(), ServingError> {
    if query.n > TopQuery::N_MAX {
        return Err(ServingError::bad("n", format!("{} is more than {}", query.n, TopQuery::N_MAX)));
    }
    Ok(())
}

/// What a list is about.
pub(super) fn top_selection(
    serving: &Serving,
    query: &TopQuery,
    window: Window,
    conditions: Vec<DimCondition>,
) -> Arc<TopSelection> {
    Arc::new(TopSelection {
        minutes: window.minutes(),
        event_type: query.event_type.clone(),
        conditions,
        reserved_prefixes: serving.parts.definition.reserved_prefixes.clone(),
    })
}

/// The list, what of it batch has counted, and what the stream has given.
type Listed = (Vec<(String, u64)>, u64, StreamRuns);

impl Serving {
    /// The entities to which something happened most often, Reckon's own left out.
    ///
    /// # Errors
    /// [`ServingError::BadRequest`], and when files cannot be read.
    pub async fn top(&self, query: &TopQuery) -> Result<TopAnswer, ServingError> {
        self.metrics.measure(Question::Top, self.top_unmeasured(query)).await
    }

    async fn top_unmeasured(&self, query: &TopQuery) -> Result<TopAnswer, ServingError> {
        let window = Window::around(query.from, query.to)?;
        check_n(query)?;
        let Some(conditions) = self.conditions(query.filter.as_ref()) else {
            return self.top_events(query, window).await;
        };
        match self.top_counted(query, window, conditions).await? {
            Some(answer) => Ok(answer),
            None => self.top_events(query, window).await,
        }
    }

    /// The list from counts; none when some of them lack what the filter needs.
    pub(super) async fn top_counted(
        &self,
        query: &TopQuery,
        window: Window,
        conditions: Vec<DimCondition>,
    ) -> Result<Option<TopAnswer>, ServingError> {
        let _turn = self.top_turns.acquire().await.map_err(ServingError::internal)?;
        let top = top_selection(self, query, window, conditions);
        let (top, n) = (&top, query.n);
        let needs = &Needs::of(query.filter.as_ref(), &[]);
        let (view, listed) = self
            .with_view(|view| async move {
                if !self.holds(&view, window, needs) {
                    return Ok(Outcome::Answer(None));
                }
                Ok(self.list(&view, top, n).await?.map(Some))
            })
            .await?;
        let held = match &listed {
            Some((.., stream)) => self.sealed_hold(&view, &stream.parts, needs).await?,
            None => false,
        };
        let Some((listed, batch, stream)) = listed.filter(|_| held) else { return Ok(None) };
        let entities = listed.into_iter().map(|(entity_id, count)| Ok(TopEntity { entity_id, count: exact(count)? }));
        let entities = entities.collect::<Result<Vec<_>, ServingError>>()?;
        let total = entities.iter().try_fold(0, |sum, entity| exact_sum(sum, entity.count))?;
        let counts = (batch, total.saturating_sub(batch));
        let StreamRuns { asked, parts, missing, .. } = stream;
        let provenance = self.provenance(&view, asked, &parts, missing, window, Some(counts));
        Ok(Some(TopAnswer { entities, window, provenance }))
    }

    /// What every entity adds up to, and what the stream gave of it.
    pub(super) async fn all_sums(
        &self,
        view: &BatchView,
        top: &Arc<TopSelection>,
    ) -> Result<Outcome<(EntitySums, StreamRuns)>, ServingError> {
        let outcome = self.stream_runs(view, Some(&top.minutes)).await?;
        let stale = matches!(outcome, Outcome::Stale(_));
        let (Outcome::Answer(mut stream) | Outcome::Stale(mut stream)) = outcome;
        let answer = (self.all_of(view, top, &mut stream).await?, stream);
        Ok(if stale { Outcome::Stale(answer) } else { Outcome::Answer(answer) })
    }

    /// What every entity adds up to; what of the stream cannot be read is noted as missing.
    async fn all_of(
        &self,
        view: &BatchView,
        top: &Arc<TopSelection>,
        stream: &mut StreamRuns,
    ) -> Result<EntitySums, ServingError> {
        let mut sums = added(EntitySums::new(), stream.runs.clone(), top).await?;
        for chunk in &stream.on_disk {
            match self.segments.runs(&self.index, chunk).await {
                Err(ServingError::Damaged { damaged }) => stream.missing.extend(chunk.missing(&damaged)),
                runs => sums = added(sums, runs?, top).await?,
            }
        }
        self.index.top(view, top, sums).await
    }

    async fn list(&self, view: &BatchView, top: &Arc<TopSelection>, n: usize) -> Result<Outcome<Listed>, ServingError> {
        let outcome = self.stream_runs(view, Some(&top.minutes)).await?;
        let stale = matches!(outcome, Outcome::Stale(_));
        let (Outcome::Answer(mut stream) | Outcome::Stale(mut stream)) = outcome;
        let (listed, batch) = match self.led(view, top, &mut stream, n).await? {
            Some(led) => led,
            None => self.added_up(view, top, &mut stream, n).await?,
        };
        let answer = (listed, batch, stream);
        Ok(if stale { Outcome::Stale(answer) } else { Outcome::Answer(answer) })
    }

    /// The list and what of it batch has counted, from the sums of all entities.
    async fn added_up(
        &self,
        view: &BatchView,
        top: &Arc<TopSelection>,
        stream: &mut StreamRuns,
        n: usize,
    ) -> Result<(Vec<(String, u64)>, u64), ServingError> {
        let sums = self.all_of(view, top, stream).await?;
        let listed = offload(move || sums.top(n)).await.map_err(ServingError::internal)?;
        let mut batch = 0;
        for (entity, _) in &listed {
            batch = exact_sum(batch, self.batch_count(view, top, entity).await?)?;
        }
        Ok((listed, batch))
    }

    /// The list and what of it batch has counted, from the largest entities of each run; none when that is no way to
    /// find it.
    async fn led(
        &self,
        view: &BatchView,
        top: &Arc<TopSelection>,
        stream: &mut StreamRuns,
        n: usize,
    ) -> Result<Option<(Vec<(String, u64)>, u64)>, ServingError> {
        if stream.on_disk.iter().map(|chunk| chunk.segments.len()).sum::<usize>() > leaders::SEGMENTS_MAX {
            return Ok(None);
        }
        let Some(batch) = self.index.runs(view, &top.minutes).await? else { return Ok(None) };
        let mut parts: Vec<Part> = batch.into_iter().map(Part::of_batch).collect();
        parts.extend(stream.runs.iter().map(|run| Part::of_stream(run, top)));
        let mut missing = Vec::new();
        for chunk in &stream.on_disk {
            match self.segments.runs(&self.index, chunk).await {
                Err(ServingError::Damaged { damaged }) => missing.extend(chunk.missing(&damaged)),
                runs => parts.extend(runs?.iter().map(|run| Part::of_stream(run, top))),
            }
        }
        let Some(found) = leaders::list(parts, top, n).await? else { return Ok(None) };
        stream.missing.append(&mut missing);
        let batch = found.iter().try_fold(0, |sum, leader| exact_sum(sum, leader.batch))?;
        Ok(Some((found.into_iter().map(|leader| (leader.entity, leader.count)).collect(), batch)))
    }

    /// What batch has counted of an entity on the list.
    pub(super) async fn batch_count(
        &self,
        view: &BatchView,
        top: &TopSelection,
        entity: &str,
    ) -> Result<u64, ServingError> {
        let mut selection = Selection::all_of(entity);
        selection.event_type = top.event_type.as_deref();
        selection.minutes = top.minutes.clone();
        selection.conditions = std::borrow::Cow::Borrowed(&top.conditions);
        // Lists are long: kept sums of theirs would drive out all others.
        let mut sums = StepSums::new();
        self.index.sum(view, &selection, Columns::Counts, &mut sums).await?;
        exact(sums.total().count)
    }
}
