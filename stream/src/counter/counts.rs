//! Counts on their way from the hash tables of an open segment to a run.
//!
//! ```text
//! OpenSegment ──detach──▶ Counts::Rows ──freeze, off the lock──▶ Counts::Run
//! ```
//!
//! Making a run sorts its rows, which takes too long to keep a partition waiting. So what is to become a run
//! is detached, in no time, and stays readable as it is meanwhile.

use std::sync::Arc;

use parking_lot::Mutex;
use reckon_data::columns::EventColumns;
use reckon_data::definition::Definition;
use reckon_data::run::{Run, RunColumns, RunError, Selection, StepSums};

use super::open::OpenSegment;

/// So many bytes of ids, and so many rows, end a part, far below what 32-bit numbers can say.
const PART_TEXT_BYTES: usize = 1 << 30;
const PART_ROWS: usize = 1 << 26;
/// So few rows are copied rather than detached when somebody wants to read them: a fraction of a
/// millisecond, and there are no more parts than needed.
const COPY_ROWS: usize = 4_096;

/// Counts that do not change any more.
#[derive(Debug, Clone)]
pub enum Counts {
    /// In the hash tables they were counted in.
    Rows(Arc<Detached>),
    /// As a run.
    Run(Arc<Run>),
}

/// Hash tables that nothing is added to any more, and their run once somebody has wanted it.
#[derive(Debug)]
pub struct Detached {
    rows: OpenSegment,
    run: Mutex<Option<Arc<Run>>>,
}

impl Counts {
    /// Adds what `selection` finds to `into`.
    pub fn sum(&self, selection: &Selection<'_>, into: &mut StepSums) {
        match self {
            Self::Rows(detached) => detached.rows.sum(selection, into),
            Self::Run(run) => run.sum(selection, into),
        }
    }

    /// The counts as a run. Sorts them the first time: heavy on CPU.
    ///
    /// # Errors
    /// As [`OpenSegment::freeze`].
    pub fn freeze(&self) -> Result<Arc<Run>, RunError> {
        match self {
            Self::Run(run) => Ok(Arc::clone(run)),
            Self::Rows(detached) => {
                let mut known = detached.run.lock();
                if let Some(run) = known.as_ref() {
                    return Ok(Arc::clone(run));
                }
                let run = Arc::new(detached.rows.freeze()?);
                *known = Some(Arc::clone(&run));
                Ok(run)
            }
        }
    }

    /// Bytes of memory they take.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        match self {
            Self::Rows(detached) => {
                // Not to be waited for while it is being made.
                let run = detached.run.try_lock().and_then(|run| run.as_ref().map(|run| run.memory_bytes()));
                detached.rows.memory_bytes() + run.unwrap_or(0)
            }
            Self::Run(run) => run.memory_bytes(),
        }
    }

    /// Whether they are a run already.
    #[must_use]
    pub const fn is_run(&self) -> bool {
        matches!(self, Self::Run(_))
    }

    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Rows(own), Self::Rows(other)) => Arc::ptr_eq(own, other),
            (Self::Run(own), Self::Run(other)) => Arc::ptr_eq(own, other),
            _ => false,
        }
    }
}

/// One run of all the parts. Heavy on CPU.
///
/// # Errors
/// As [`Counts::freeze`].
pub fn freeze_all(parts: &[Counts]) -> Result<Arc<Run>, RunError> {
    let runs = parts.iter().map(Counts::freeze).collect::<Result<Vec<_>, _>>()?;
    Ok(match runs.as_slice() {
        [only] => Arc::clone(only),
        many => Arc::new(Run::merge(many)),
    })
}

/// The counts of the open segment: parts that were detached, and what is being counted into.
#[derive(Debug)]
pub struct OpenCounts {
    parts: Vec<Counts>,
    rows: OpenSegment,
}

/// The counts of the open segment at one moment.
#[derive(Debug)]
pub struct OpenSnapshot {
    /// Those that were detached.
    pub parts: Vec<Counts>,
    /// A copy of the others.
    pub rest: Option<RunColumns>,
}

impl OpenCounts {
    /// Nothing counted yet.
    #[must_use]
    pub fn new(definition: &Definition) -> Self {
        Self { parts: Vec::new(), rows: OpenSegment::new(definition) }
    }

    /// Counts the events that `keep` says yes to, those of minutes below `late_before` as late, too; returns how many.
    ///
    /// # Errors
    /// As [`OpenSegment::add`].
    pub fn add(&mut self, events: &EventColumns, keep: &[bool], late_before: i64) -> Result<u64, RunError> {
        if self.rows.text_bytes() >= PART_TEXT_BYTES || self.rows.len() >= PART_ROWS {
            self.detach();
        }
        self.rows.add(events, keep, late_before)
    }

    fn detach(&mut self) {
        if !self.rows.is_empty() {
            let next = self.rows.next();
            let rows = std::mem::replace(&mut self.rows, next);
            self.parts.push(Counts::Rows(Arc::new(Detached { rows, run: Mutex::new(None) })));
        }
    }

    /// Everything, as the segment ends; nothing is counted afterwards.
    #[must_use]
    pub fn take(&mut self) -> Vec<Counts> {
        self.detach();
        std::mem::take(&mut self.parts)
    }

    /// The counts as they are now. Takes a fraction of a millisecond.
    #[must_use]
    pub fn snapshot(&mut self) -> OpenSnapshot {
        if self.rows.len() > COPY_ROWS {
            self.detach();
        }
        let rest = (!self.rows.is_empty()).then(|| self.rows.to_columns());
        OpenSnapshot { parts: self.parts.clone(), rest }
    }

    /// Puts a run in the place of `parts`, if these are still there, next to each other.
    pub fn replace(&mut self, parts: &[Counts], run: &Arc<Run>) {
        let Some(first) = parts.first() else { return };
        let Some(at) = self.parts.iter().position(|own| own.is(first)) else { return };
        let range = at..at + parts.len();
        let is_there =
            self.parts.get(range.clone()).is_some_and(|own| own.iter().zip(parts).all(|(own, part)| own.is(part)));
        if is_there {
            self.parts.splice(range, [Counts::Run(Arc::clone(run))]);
        }
    }

    /// Adds what `selection` finds to `into`, all but the detached parts, which are returned.
    pub fn sum(&self, selection: &Selection<'_>, into: &mut StepSums) -> Vec<Counts> {
        self.rows.sum(selection, into);
        self.parts.clone()
    }

    /// Bytes of memory they take.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.rows.memory_bytes() + self.parts.iter().map(Counts::memory_bytes).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counter::testing::{Sample, columns_of};

    #[test]
    fn a_run_that_is_kept_beside_its_rows_takes_memory_too() {
        let samples: Vec<Sample> = (0..100)
            .map(|n| Sample { entity: format!("e{n}"), event_type: "view".into(), ..Sample::default() })
            .collect();
        let mut open = OpenCounts::new(&Definition::default());
        open.add(&columns_of(&samples), &[true; 100], i64::MIN).unwrap();
        let counts = open.take().remove(0);
        let rows = counts.memory_bytes();
        let run = counts.freeze().unwrap();
        assert_eq!(counts.memory_bytes(), rows + run.memory_bytes());
    }
}
