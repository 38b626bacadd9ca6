//! Counts on their way from the hash tables of an open segment to a run.
//!
//! ```text
//! OpenSegment ──detach──▶ Counts::Rows ──freeze, off the lock──▶ Counts::Run
//! ```
//!
//! Making a run sorts its rows, which takes too long to keep a partition waiting. So what is to become a run
//! is detached, in no time, and stays readable as it is meanwhile.

use std::ops::Range;
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
const COPY_ROWS: usize = 2_048;
/// So many parts of an open segment, of about the same size, are made one.
const JOIN_FROM: usize = 4;
/// So many rows are made one while a question waits: a millisecond or so.
const JOIN_ROWS: usize = 16_384;

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

    /// Whether their run is there already.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        match self {
            Self::Rows(detached) => detached.run.try_lock().is_some_and(|run| run.is_some()),
            Self::Run(_) => true,
        }
    }

    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Rows(own), Self::Rows(other)) => Arc::ptr_eq(own, other),
            (Self::Run(own), Self::Run(other)) => Arc::ptr_eq(own, other),
            // One has put the run in the place of its rows since.
            (Self::Rows(rows), Self::Run(run)) | (Self::Run(run), Self::Rows(rows)) => {
                rows.run.try_lock().is_some_and(|own| own.as_ref().is_some_and(|own| Arc::ptr_eq(own, run)))
            }
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

/// Which parts of an open segment are to be made one, by how many rows each has: the last ones that are not much smaller
/// than what follows them. So there are few, and a row is seldom moved, however often somebody asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joins {
    /// By the task that keeps memory in order.
    pub behind: Option<Range<usize>>,
    /// By whoever asks. All that are behind these are among them then, so that both never want the same.
    pub now: Option<Range<usize>>,
}

impl Joins {
    /// The joins of parts with so many rows.
    #[must_use]
    pub fn of(rows: &[usize]) -> Self {
        let (end, mut from, mut behind) = (rows.len(), rows.len(), 0_usize);
        // From which part on they have few rows together.
        let mut few = end;
        while from > 0 && (from == end || rows[from - 1] <= behind.saturating_mul(2)) {
            from -= 1;
            behind = behind.saturating_add(rows[from]);
            if behind <= JOIN_ROWS {
                few = from;
            }
        }
        if end - from < JOIN_FROM {
            return Self { behind: None, now: None };
        }
        Self { behind: (few - from > 1).then_some(from..few), now: (end - few >= JOIN_FROM).then_some(few..end) }
    }
}

/// The counts of the open segment: parts that were detached, and what is being counted into.
#[derive(Debug)]
pub struct OpenCounts {
    parts: Vec<Counts>,
    rows: OpenSegment,
    /// Whether somebody has wanted all of them since it was last asked whether somebody has.
    wanted: bool,
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
        Self { parts: Vec::new(), rows: OpenSegment::new(definition), wanted: false }
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
        self.wanted = true;
        if self.rows.len() > COPY_ROWS {
            self.detach();
        }
        let rest = (!self.rows.is_empty()).then(|| self.rows.to_columns());
        OpenSnapshot { parts: self.parts.clone(), rest }
    }

    /// Detaches so many rows or more, so that they can become a run before somebody waits for that.
    pub fn detach_from(&mut self, rows: usize) {
        if self.rows.len() >= rows {
            self.detach();
        }
    }

    /// Whether somebody has wanted all counts since this was last asked.
    #[must_use]
    pub const fn was_wanted(&mut self) -> bool {
        std::mem::replace(&mut self.wanted, false)
    }

    /// The parts that were detached.
    #[must_use]
    pub fn parts(&self) -> &[Counts] {
        &self.parts
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
    use proptest::prelude::*;

    use super::*;
    use crate::counter::testing::{Sample, columns_of};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Questions and the keeper join what was there when they looked: by then others may have joined it otherwise.
        #[test]
        fn joins_of_older_moments_lose_nothing_and_double_nothing(
            steps in prop::collection::vec((0..4_u8, 0..8_usize, 0..8_usize), 1..80),
        ) {
            let mut open = OpenCounts::new(&Definition::default());
            let (mut moments, mut events): (Vec<Vec<Counts>>, u64) = (Vec::new(), 0);
            for (step, at, first) in steps {
                match step {
                    0 | 1 => {
                        let sample = Sample { entity: format!("e{at}"), event_type: "view".into(), ..Sample::default() };
                        open.add(&columns_of(&[sample]), &[true], i64::MIN).unwrap();
                        open.detach();
                        events += 1;
                    }
                    2 => moments.push(open.parts().to_vec()),
                    _ => {
                        let Some(moment) = moments.iter().rev().nth(at) else { continue };
                        let end = moment.len().min(first + 4);
                        let parts = &moment[first.min(end)..end];
                        let run = freeze_all(parts).unwrap();
                        open.replace(parts, &run);
                    }
                }
                let counted = open.parts().iter().map(|part| part.freeze().unwrap().total_count());
                prop_assert_eq!(counted.sum::<u64>(), events);
            }
            prop_assert_eq!(freeze_all(&open.take()).unwrap().total_count(), events);
        }
    }

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

    #[test]
    fn parts_of_about_the_same_size_are_joined() {
        let joins = |rows: &[usize]| {
            let Joins { behind, now } = Joins::of(rows);
            (behind, now)
        };
        for (rows, expected) in [
            (&[][..], None),
            (&[5, 5, 5], None),
            (&[5, 5, 5, 5], Some(0..4)),
            (&[1_000, 5, 5, 5, 5], Some(1..5)),
            (&[60, 5, 5, 5, 5, 5], Some(1..6)),
            (&[40, 5, 5, 5, 5], Some(0..5)),
            (&[1_000, 300, 100, 30], None),
        ] {
            assert_eq!(joins(rows), (None, expected), "{rows:?}");
        }
        // What is large waits for nobody, and nobody for it.
        let k = 1_000;
        assert_eq!(joins(&[20 * k, 16 * k, 16 * k, 9 * k]), (Some(0..3), None));
        assert_eq!(joins(&[20 * k, 16 * k, 7 * k, k, k, k, k]), (Some(0..2), Some(2..7)));
        assert_eq!(joins(&[90 * k, 9 * k, 9 * k, k]), (None, None));
    }

    #[test]
    fn rows_become_runs_while_others_join_them() {
        let of = |n: usize| Sample { entity: format!("e{n}"), event_type: "view".into(), ..Sample::default() };
        let mut open = OpenCounts::new(&Definition::default());
        for part in 0..4 {
            open.add(&columns_of(&[of(part), of(9)]), &[true; 2], i64::MIN).unwrap();
            open.detach_from(3);
            assert_eq!(open.parts().len(), part);
            open.detach_from(2);
        }
        assert!(!open.was_wanted());
        // Somebody asks, and makes them one; meanwhile one of them was replaced by its own run.
        let asked = open.snapshot().parts;
        assert!(open.was_wanted() && !open.was_wanted() && asked.iter().all(|part| !part.is_frozen()));
        let runs: Vec<Arc<Run>> = asked.iter().map(|part| part.freeze().unwrap()).collect();
        open.replace(&asked[1..2], &runs[1]);
        assert!(open.parts()[1].is_run() && asked[1].is_frozen());
        open.replace(&asked, &Arc::new(Run::merge(&runs)));
        assert_eq!((open.parts().len(), open.parts()[0].freeze().unwrap().total_count()), (1, 8));
        // Too late: nothing is put anywhere.
        open.replace(&asked[..2], &runs[0]);
        assert_eq!((open.parts().len(), open.parts()[0].freeze().unwrap().total_count()), (1, 8));
    }

    /// A segment of 100,000 parts: how many there are at most at once, and how often a row is moved.
    #[test]
    fn parts_stay_few_and_rows_are_seldom_moved() {
        let (mut rows, mut most, mut moved) = (Vec::new(), 0, 0_usize);
        for part in 0..100_000 {
            rows.push(10);
            let mut join = |rows: &mut Vec<usize>, range: Option<Range<usize>>| {
                if let Some(range) = range {
                    let joined: usize = rows[range.clone()].iter().sum();
                    rows.splice(range, [joined]);
                    moved += joined;
                }
            };
            let now = Joins::of(&rows).now;
            join(&mut rows, now);
            // The other comes now and then.
            if part % 20 == 0 {
                let behind = Joins::of(&rows).behind;
                join(&mut rows, behind);
            }
            most = most.max(rows.len());
        }
        assert_eq!(rows.iter().sum::<usize>(), 1_000_000);
        assert!(most <= 60 && moved <= 1_000_000 * 20, "{most} parts, {moved} rows moved");
    }
}
