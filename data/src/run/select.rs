//! Point queries: the counts of one entity, added up per step.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::{DimValues, Overlap, Run};
use crate::metric::Cell;

/// A condition on a dimension: its value is (or, negated, is not) one of those accepted.
///
/// There are two truth values only: nothing is unknown. An event without the dimension has the value
/// [`None`], which is accepted when it is listed; to leave it out of a negated condition, list it too.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DimCondition {
    /// Which of the configured dimensions.
    pub index: usize,
    /// The values; [`None`] is "has none".
    pub accepted: Vec<Option<Arc<str>>>,
    /// Whether all values but these are meant.
    pub negated: bool,
}

impl DimCondition {
    /// Whether a row with such dimensions meets the condition.
    #[must_use]
    pub fn accepts(&self, dims: &[Option<Arc<str>>]) -> bool {
        let value = dims.get(self.index).and_then(Option::as_ref);
        self.accepted.iter().any(|accepted| accepted.as_ref() == value) != self.negated
    }
}

/// Which counts of one entity are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection<'a> {
    /// The entity.
    pub entity: &'a str,
    /// [`crate::key::entity_hash`] of it.
    pub entity_hash: u64,
    /// One event type; all when none.
    pub event_type: Option<&'a str>,
    /// Minutes since 1970. A row belongs to the minute in which its step starts.
    pub minutes: Range<i64>,
    /// Minutes in a step of the answer, aligned to 1970; none (or less than 1) for everything in one,
    /// which then stands at [`StepSums::WHOLE`].
    pub step: Option<i64>,
    /// All of them must be met.
    pub conditions: Cow<'a, [DimCondition]>,
}

impl<'a> Selection<'a> {
    /// All counts of an entity, in one.
    #[must_use]
    pub fn all_of(entity: &'a str) -> Self {
        Self {
            entity,
            entity_hash: crate::key::entity_hash(entity),
            event_type: None,
            minutes: i64::MIN..i64::MAX,
            step: None,
            conditions: Cow::Borrowed(&[]),
        }
    }

    /// Where the step of a minute starts.
    #[must_use]
    pub fn step_of(&self, minute: i64) -> i64 {
        match self.step {
            Some(step) if step > 0 => minute.div_euclid(step) * step,
            _ => StepSums::WHOLE,
        }
    }
}

/// Cells by the minute in which their step starts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StepSums {
    cells: BTreeMap<i64, Cell>,
}

impl StepSums {
    /// Where the one cell stands when there are no steps.
    pub const WHOLE: i64 = 0;

    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a cell to a step.
    pub fn add(&mut self, step_start: i64, cell: &Cell) {
        self.cells.entry(step_start).or_default().merge(cell);
    }

    /// Adds cells, as a tail hands them over.
    pub fn add_all<'a>(&mut self, cells: impl IntoIterator<Item = &'a (i64, Cell)>) {
        cells.into_iter().for_each(|(step, cell)| self.add(*step, cell));
    }

    /// The cell of a step, if anything was counted in it.
    #[must_use]
    pub fn get(&self, step_start: i64) -> Option<&Cell> {
        self.cells.get(&step_start)
    }

    /// All steps in which anything was counted, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (i64, &Cell)> {
        self.cells.iter().map(|(step, cell)| (*step, cell))
    }

    /// All steps added up.
    #[must_use]
    pub fn total(&self) -> Cell {
        self.cells.values().fold(Cell::default(), |mut sum, cell| {
            sum.merge(cell);
            sum
        })
    }

    /// The steps, ascending.
    #[must_use]
    pub fn into_cells(self) -> Vec<(i64, Cell)> {
        self.cells.into_iter().collect()
    }
}

/// Whether rows of some dimensions meet all conditions, with the last verdict kept: the rows of a minute
/// differ in them, but an entity has few.
struct Verdict<'a> {
    conditions: &'a [DimCondition],
    dims: &'a [DimValues],
    last: Option<(u32, bool)>,
}

impl Verdict<'_> {
    fn accepts(&mut self, dim_id: u32) -> bool {
        if self.conditions.is_empty() {
            return true;
        }
        if let Some((last, verdict)) = self.last
            && last == dim_id
        {
            return verdict;
        }
        let verdict = self.conditions.iter().all(|condition| condition.accepts(&self.dims[dim_id as usize]));
        self.last = Some((dim_id, verdict));
        verdict
    }
}

impl Run {
    /// Adds what `selection` finds in the run to `into`.
    pub fn sum(&self, selection: &Selection<'_>, into: &mut StepSums) {
        let overlap = self.overlap(&selection.minutes);
        if overlap == Overlap::Nothing {
            return;
        }
        let type_id = match selection.event_type {
            Some(name) => match self.type_id(name) {
                Some(id) => Some(id),
                None => return,
            },
            None => None,
        };
        let Some(rows) = self.find(selection.entity_hash, selection.entity) else { return };
        let minutes = (overlap == Overlap::Part).then_some(&selection.minutes);
        let plain =
            selection.step.is_none_or(|step| step < 1) && selection.conditions.is_empty() && self.rows.is_plain();
        self.for_each_span(rows, type_id, minutes, |span| {
            if plain {
                let count = self.rows.counts[span.clone()].iter().fold(0, |sum: u64, count| sum.saturating_add(*count));
                let prints = &self.rows.fingerprints[span.clone()];
                let print = prints.iter().fold(0, |sum: u64, print| sum.wrapping_add(*print));
                let late = self.rows.late.get(span).unwrap_or_default();
                let late = late.iter().fold(0, |sum: u64, late| sum.saturating_add(*late));
                into.add(StepSums::WHOLE, &Cell::counted(count, print, late));
            } else {
                self.sum_span(span, selection, into);
            }
        });
    }

    fn sum_span(&self, span: Range<usize>, selection: &Selection<'_>, into: &mut StepSums) {
        let mut verdict = Verdict { conditions: &selection.conditions, dims: &self.dims, last: None };
        let mut current: Option<(i64, Cell)> = None;
        for row in span {
            if !verdict.accepts(self.rows.dim_id(row)) {
                continue;
            }
            let step = selection.step_of(self.rows.minutes[row].into());
            let counted = self.rows.counted(row);
            match &mut current {
                Some((at, cell)) if *at == step => {
                    cell.add(counted.count, counted.fingerprint, counted.late, counted.value, counted.distinct);
                }
                _ => {
                    let mut cell = Cell::default();
                    cell.add(counted.count, counted.fingerprint, counted.late, counted.value, counted.distinct);
                    if let Some((at, done)) = current.replace((step, cell)) {
                        into.add(at, &done);
                    }
                }
            }
        }
        if let Some((at, cell)) = current {
            into.add(at, &cell);
        }
    }

    /// The parts of an entity's rows that have the type (any when none) and lie in the minutes (all when
    /// none); each part is of one type, its minutes ascending.
    pub(super) fn for_each_span(
        &self,
        rows: Range<usize>,
        type_id: Option<u32>,
        minutes: Option<&Range<i64>>,
        mut each: impl FnMut(Range<usize>),
    ) {
        let Some(minutes) = minutes else {
            return self.for_each_type(rows, type_id, each);
        };
        self.for_each_type(rows, type_id, |span| {
            let own = &self.rows.minutes[span.clone()];
            let from = own.partition_point(|minute| i64::from(*minute) < minutes.start);
            let to = from + own[from..].partition_point(|minute| i64::from(*minute) < minutes.end);
            if from < to {
                each(span.start + from..span.start + to);
            }
        });
    }

    fn for_each_type(&self, rows: Range<usize>, type_id: Option<u32>, mut each: impl FnMut(Range<usize>)) {
        let types = &self.rows.type_ids;
        if let Some(wanted) = type_id {
            let own = &types[rows.clone()];
            let from = own.partition_point(|id| *id < wanted);
            let to = from + own[from..].partition_point(|id| *id <= wanted);
            if from < to {
                each(rows.start + from..rows.start + to);
            }
            return;
        }
        let mut start = rows.start;
        while start < rows.end {
            let end = start + types[start..rows.end].partition_point(|id| *id <= types[start]);
            each(start..end);
            start = end;
        }
    }
}
