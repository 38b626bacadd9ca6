//! What a live view follows: an entity's counts step by step, in the parts of batch and stream, and how far the stream
//! is behind.

use std::borrow::Cow;
use std::collections::BTreeMap;

use reckon_data::filter::Filter;
use reckon_data::kept::Needs;
use reckon_data::metric::Function;
use reckon_data::minute::start_of_minute;
use reckon_data::run::{Selection, StepSums};
use serde::Serialize;

use super::Serving;
use super::gather::{Outcome, exact, exact_sum};
use super::top::check_n;
use super::types::{Step, TopAnswer, TopQuery, Window};
use crate::ServingError;
use crate::metrics::Question;
use crate::times::as_time;
use crate::view::Provenance;

/// Which counts are followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartsQuery {
    /// What is counted.
    pub entity: String,
    /// One event type; all when none.
    pub event_type: Option<String>,
    /// From when, microseconds.
    pub from: i64,
    /// Up to when, microseconds, exclusive.
    pub to: i64,
    /// How long a step is.
    pub step: Step,
    /// Which events; all when none.
    pub filter: Option<Filter>,
}

impl PartsQuery {
    /// Most steps of a live view: a week of minutes.
    pub const STEPS_MAX: usize = 7 * 24 * 60;
}

/// Counts step by step; `count = batch + stream`, of every step and of all.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PartsAnswer {
    /// Minutes in a step.
    pub step_minutes: i64,
    /// The steps in which anything was counted, ascending.
    pub points: Vec<PartsPoint>,
    /// How often in all.
    pub count: u64,
    /// What of it batch has counted.
    pub batch: u64,
    /// What of it the stream has counted.
    pub stream: u64,
    /// The window in whole minutes.
    pub window: Window,
    /// Where it comes from.
    pub provenance: Provenance,
}

/// The counts of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PartsPoint {
    /// When the step starts, microseconds.
    #[serde(serialize_with = "as_time")]
    pub start: i64,
    /// What batch has counted.
    pub batch: u64,
    /// What the stream has counted.
    pub stream: u64,
    /// How many of both were late.
    pub late: u64,
}

/// How far the stream is behind the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Behind {
    /// Records in the log that are not counted yet, of the partitions whose counters answer.
    pub records: u64,
    /// How long ago the newest counted record was appended, microseconds, of the partition that is furthest behind; 0 when
    /// all is counted.
    pub micros: i64,
    /// Records below which everything is counted, of all those partitions.
    pub counted_records: u64,
    /// Partitions whose counter does not answer.
    pub silent: usize,
}

impl Serving {
    /// An entity's counts step by step, in two parts.
    ///
    /// # Errors
    /// [`ServingError::BadRequest`], of a filter on a column that is no dimension too, and when files cannot be read.
    pub async fn parts_by_step(&self, query: &PartsQuery) -> Result<PartsAnswer, ServingError> {
        self.metrics.measure(Question::Stats, self.parts_unmeasured(query)).await
    }

    async fn parts_unmeasured(&self, query: &PartsQuery) -> Result<PartsAnswer, ServingError> {
        let window = Window::around(query.from, query.to)?;
        let conditions = self.conditions(query.filter.as_ref()).ok_or_else(no_dimension)?;
        let mut selection = Selection::all_of(&query.entity);
        selection.event_type = query.event_type.as_deref();
        selection.minutes = window.minutes();
        selection.step = Some(query.step.minutes());
        selection.conditions = Cow::Borrowed(&conditions);
        let (selection, needs) = (&selection, &Needs::of(query.filter.as_ref(), &[]));
        let (view, found) = self
            .with_view(|view| async move {
                if !self.holds(&view, window, needs) {
                    return Ok(Outcome::Answer(None));
                }
                let stream = self.stream_sums(&view, selection).await?;
                let batch = self.batch_sums(&view, selection, Function::Count).await?;
                Ok(stream.map(|stream| Some((batch, stream))))
            })
            .await?;
        let (batch, stream) = found.ok_or_else(lacking)?;
        if !self.sealed_hold(&view, &stream.parts, needs).await? {
            return Err(lacking());
        }
        let counts = (exact(batch.total().count)?, exact(stream.sums.total().count)?);
        let late = batch.total().late.saturating_add(stream.sums.total().late);
        let points = points(&batch, &stream.sums)?;
        let provenance = self.provenance(&view, stream.asked, &stream.parts, stream.missing, window, Some(counts));
        Ok(PartsAnswer {
            step_minutes: query.step.minutes(),
            points,
            count: exact_sum(counts.0, counts.1)?,
            batch: counts.0,
            stream: counts.1,
            window,
            provenance: provenance.with_late(late),
        })
    }

    /// As [`Serving::top`], from counts alone: raw events are not read every second.
    ///
    /// # Errors
    /// As there, and [`ServingError::BadRequest`] when counts do not hold the answer.
    pub async fn top_live(&self, query: &TopQuery) -> Result<TopAnswer, ServingError> {
        let answer = async {
            let window = Window::around(query.from, query.to)?;
            check_n(query)?;
            let conditions = self.conditions(query.filter.as_ref()).ok_or_else(no_dimension)?;
            self.top_counted(query, window, conditions).await?.ok_or_else(lacking)
        };
        self.metrics.measure(Question::Top, Box::pin(answer)).await
    }

    /// Whether counts can be filtered so: by dimensions only.
    pub(crate) fn is_by_dimension(&self, filter: Option<&Filter>) -> bool {
        self.conditions(filter).is_some()
    }

    /// How far the stream is behind the log.
    #[must_use]
    pub fn behind(&self) -> Behind {
        let (view, now, mut behind) = (self.current.get(), self.parts.clock.now(), Behind::default());
        for (partition, _) in (0_u32..).zip(&view.coverage) {
            let Ok(at) = self.parts.tails.position(partition) else {
                behind.silent += 1;
                continue;
            };
            let records = at.durable_end.saturating_sub(at.offset);
            behind.records = behind.records.saturating_add(records);
            behind.counted_records = behind.counted_records.saturating_add(at.offset);
            if let Some(appended) = at.log_time.micros().filter(|_| records > 0) {
                behind.micros = behind.micros.max(now.saturating_sub(appended));
            }
        }
        behind
    }
}

fn no_dimension() -> ServingError {
    let message = "a live view is answered from counts, so it can be filtered by a dimension only; \
                   GET /v1/entities/{id}/stats takes filters on other columns";
    ServingError::bad("filter", message)
}

/// Some of the counts were made by a definition that lacks a column of the filter: they would look whole and be too
/// small.
fn lacking() -> ServingError {
    let message = "some of these counts were made before its column was a dimension, and a live view is answered from \
                   counts; GET /v1/entities/{id}/stats answers from raw events then";
    ServingError::bad("filter", message)
}

/// The steps of both parts.
fn points(batch: &StepSums, stream: &StepSums) -> Result<Vec<PartsPoint>, ServingError> {
    let mut points: BTreeMap<i64, PartsPoint> = BTreeMap::new();
    let at = |step: i64| PartsPoint { start: start_of_minute(step), batch: 0, stream: 0, late: 0 };
    for (step, cell) in batch.iter() {
        let point = points.entry(step).or_insert_with(|| at(step));
        (point.batch, point.late) = (exact(cell.count)?, cell.late);
    }
    for (step, cell) in stream.iter() {
        let point = points.entry(step).or_insert_with(|| at(step));
        point.stream = exact(cell.count)?;
        point.late = point.late.saturating_add(cell.late);
    }
    if points.len() > PartsQuery::STEPS_MAX {
        let message = format!("the view would have more than {} steps: take longer ones", PartsQuery::STEPS_MAX);
        return Err(ServingError::bad("step", message));
    }
    Ok(points.into_values().collect())
}

#[cfg(test)]
mod tests {
    use reckon_data::metric::Cell;

    use super::*;

    #[test]
    fn the_parts_of_a_step_meet_in_one_point() {
        let sums = |steps: &[(i64, u64, u64)]| {
            let mut sums = StepSums::new();
            for &(step, count, late) in steps {
                sums.add(step, &Cell { count, late, ..Cell::default() });
            }
            sums
        };
        let made = points(&sums(&[(0, 5, 1), (60, 7, 3)]), &sums(&[(60, 2, 2), (120, 3, 0)])).unwrap();
        let told: Vec<_> = made.iter().map(|at| (at.start, at.batch, at.stream, at.late)).collect();
        assert_eq!(told, [(0, 5, 0, 1), (start_of_minute(60), 7, 2, 5), (start_of_minute(120), 0, 3, 0)]);
        assert!(points(&sums(&[(0, u64::MAX, 0)]), &StepSums::new()).is_err());
        let many: Vec<_> = (0..=PartsQuery::STEPS_MAX as i64).map(|step| (step, 1, 0)).collect();
        assert!(matches!(points(&sums(&many), &StepSums::new()), Err(ServingError::BadRequest { field: "step", .. })));
    }
}
