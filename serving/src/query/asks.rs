//! Questions that differ in entity and window only, and what runs have of them.

use std::borrow::Cow;
use std::sync::Arc;

use reckon_data::metric::Cell;
use reckon_data::offload::offload;
use reckon_data::run::{DimCondition, Run, Selection, StepSums};

use super::many::check_steps;
use super::types::Window;
use crate::ServingError;

/// Sums of every entity, and of each the sums of every window.
pub(super) type Sums = Vec<Vec<StepSums>>;

/// Questions that differ in entity and window only.
#[derive(Debug, Clone)]
pub(super) struct Asks {
    pub(super) entities: Vec<String>,
    pub(super) event_type: Option<String>,
    pub(super) conditions: Vec<DimCondition>,
    /// The window that is asked for, and the one before if that is, too.
    pub(super) windows: Vec<Window>,
    /// Minutes in a step of the first window; the other one is added up whole.
    pub(super) step: Option<i64>,
}

impl Asks {
    pub(super) fn selection(&self, entity: usize, window: usize) -> Selection<'_> {
        let mut selection = Selection::all_of(&self.entities[entity]);
        selection.event_type = self.event_type.as_deref();
        selection.minutes = self.windows[window].minutes();
        selection.step = self.step.filter(|_| window == 0);
        selection.conditions = Cow::Borrowed(&self.conditions);
        selection
    }

    /// The whole time that the windows lie in.
    pub(super) fn around(&self) -> Window {
        let ends = self
            .windows
            .iter()
            .fold((i64::MAX, i64::MIN), |(from, to), window| (from.min(window.from), to.max(window.to)));
        Window { from: ends.0, to: ends.1 }
    }

    /// One selection of an entity that all windows can be taken out of with [`Asks::split`].
    pub(super) fn all_of(&self, entity: usize) -> Selection<'_> {
        let mut selection = self.selection(entity, 0);
        if self.windows.len() > 1 {
            selection.minutes = self.around().minutes();
            selection.step = Some(1);
        }
        selection
    }

    /// The windows of what [`Asks::all_of`] has found.
    pub(super) fn split(&self, found: StepSums) -> Vec<StepSums> {
        if self.windows.len() < 2 {
            return vec![found];
        }
        let mut sums = vec![StepSums::new(); self.windows.len()];
        found.iter().for_each(|(minute, cell)| self.add(minute, cell, &mut sums));
        sums
    }

    /// Adds what was counted in a minute to the windows that hold it.
    pub(super) fn add(&self, minute: i64, cell: &Cell, sums: &mut [StepSums]) {
        for (number, (window, sum)) in self.windows.iter().zip(sums).enumerate() {
            if window.minutes().contains(&minute) {
                let step = self.step.filter(|_| number == 0);
                sum.add(step.map_or(StepSums::WHOLE, |step| minute.div_euclid(step) * step), cell);
            }
        }
    }

    pub(super) fn nothing(&self) -> Sums {
        vec![vec![StepSums::new(); self.windows.len()]; self.entities.len()]
    }
}

/// How many steps there are, of all entities and windows.
pub(super) fn steps_of(sums: &[Vec<StepSums>]) -> usize {
    sums.iter().flatten().map(|own| own.iter().count()).sum()
}

/// Adds what runs have of all entities; no more steps than an answer may have, for these are in memory all at once.
pub(super) async fn added(asks: &Arc<Asks>, mut sums: Sums, runs: Vec<Arc<Run>>) -> Result<Sums, ServingError> {
    let asks = Arc::clone(asks);
    let add = move || -> Result<Sums, ServingError> {
        let mut steps = 0;
        for (entity, own) in sums.iter_mut().enumerate() {
            for (window, sum) in own.iter_mut().enumerate() {
                let selection = asks.selection(entity, window);
                runs.iter().for_each(|run| run.sum(&selection, sum));
            }
            steps += steps_of(std::slice::from_ref(&*own));
            check_steps(steps)?;
        }
        Ok(sums)
    };
    offload(add).await.map_err(ServingError::internal)?
}

#[cfg(test)]
mod tests {
    use reckon_data::key::entity_hash;
    use reckon_data::minute::start_of_minute;
    use reckon_data::run::RunBuilder;

    use super::super::types::Step;
    use super::*;

    #[tokio::test]
    async fn more_steps_than_an_answer_may_have_are_refused_while_they_are_gathered() {
        let minutes = Step::STEPS_MAX + 2;
        let mut builder = RunBuilder::new();
        for minute in 0..minutes {
            let entity = format!("v{}", minute % 2);
            builder.add(entity_hash(&entity), &entity, "view", minute, &[], &Cell::counted(1, 1, 0)).unwrap();
        }
        let run = Arc::new(builder.finish().unwrap());
        let asks = |step| {
            Arc::new(Asks {
                entities: vec!["v0".to_owned(), "v1".to_owned()],
                event_type: None,
                conditions: Vec::new(),
                windows: vec![Window { from: 0, to: start_of_minute(minutes) }],
                step,
            })
        };
        let fine = asks(Some(1));
        let refused = added(&fine, fine.nothing(), vec![Arc::clone(&run)]).await;
        assert!(matches!(refused, Err(ServingError::BadRequest { field: "step", .. })));
        let whole = asks(None);
        let sums = added(&whole, whole.nothing(), vec![run]).await.unwrap();
        assert_eq!(sums.iter().flatten().map(|own| own.total().count as i64).sum::<i64>(), minutes);
    }
}
