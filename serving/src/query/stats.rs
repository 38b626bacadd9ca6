//! Functions of an entity's counts, step by step.

use std::borrow::Cow;

use reckon_data::kept::Needs;
use reckon_data::metric::{Answer, Function};
use reckon_data::minute::start_of_minute;
use reckon_data::run::{Selection, StepSums};

use super::Serving;
use super::gather::{Outcome, exact};
use super::types::{StatsAnswer, StatsPoint, StatsQuery, Step, Window};
use crate::ServingError;
use crate::metrics::Question;
use crate::view::Provenance;

impl Serving {
    /// A function of an entity's counts, step by step and in all.
    ///
    /// # Errors
    /// [`ServingError::BadRequest`], and when files cannot be read.
    pub async fn stats(&self, query: &StatsQuery) -> Result<StatsAnswer, ServingError> {
        self.metrics.measure(Question::Stats, self.stats_unmeasured(query)).await
    }

    async fn stats_unmeasured(&self, query: &StatsQuery) -> Result<StatsAnswer, ServingError> {
        let window = Window::around(query.from, query.to)?;
        self.check_function(query.function)?;
        let Some(conditions) = self.conditions(query.filter.as_ref()) else {
            return self.stats_events(query, window).await;
        };
        let mut selection = Selection::all_of(&query.entity);
        selection.event_type = query.event_type.as_deref();
        selection.minutes = window.minutes();
        selection.step = Some(query.step.minutes());
        selection.conditions = Cow::Borrowed(&conditions);
        let (selection, needs) = (&selection, &Needs::of(query.filter.as_ref(), &[query.function]));
        let (view, found) = self
            .with_view(|view| async move {
                if !self.holds(&view, window, needs) {
                    return Ok(Outcome::Answer(None));
                }
                let stream = self.stream_sums(&view, selection).await?;
                let batch = self.batch_sums(&view, selection, query.function).await?;
                Ok(stream.map(|stream| Some((batch, stream))))
            })
            .await?;
        let held = match &found {
            Some((_, stream)) => self.sealed_hold(&view, &stream.parts, needs).await?,
            None => false,
        };
        let Some((batch, stream)) = found.filter(|_| held) else { return self.stats_events(query, window).await };
        let parts = (exact(batch.total().count)?, exact(stream.sums.total().count)?);
        let provenance = self.provenance(&view, stream.asked, &stream.parts, stream.missing, window, Some(parts));
        let mut sums = batch;
        sums.add_all(&stream.sums.into_cells());
        stats_answer(query, window, &sums, provenance)
    }

    pub(super) fn check_function(&self, function: Function) -> Result<(), ServingError> {
        let metrics = &self.parts.definition.metrics;
        if function == Function::Count || metrics.contains(&function) {
            return Ok(());
        }
        let names: Vec<&str> = metrics.iter().map(|metric| metric.name()).collect();
        let message = format!(
            "{function} is not configured: one of {}; the setting definition.metrics says what is kept",
            names.join(", ")
        );
        Err(ServingError::bad("function", message))
    }
}

/// The answer that cells by step make.
pub(crate) fn stats_answer(
    query: &StatsQuery,
    window: Window,
    sums: &StepSums,
    provenance: Provenance,
) -> Result<StatsAnswer, ServingError> {
    let value = |cell: &reckon_data::metric::Cell| match cell.evaluate(query.function) {
        Answer::Overflow => Err(ServingError::internal(format!("{} overflows", query.function))),
        answer => Ok(answer),
    };
    let mut points = Vec::new();
    for (step, cell) in sums.iter() {
        if points.len() as i64 >= Step::STEPS_MAX {
            return Err(ServingError::bad(
                "step",
                format!("the answer would have more than {} steps", Step::STEPS_MAX),
            ));
        }
        points.push(StatsPoint { start: start_of_minute(step), value: value(cell)?, late: cell.late });
    }
    let total = sums.total();
    let (total, provenance) = (value(&total)?, provenance.with_late(total.late));
    Ok(StatsAnswer { function: query.function, step_minutes: query.step.minutes(), points, total, window, provenance })
}
