//! Reading everything: all rows of a range of minutes, and counts per entity.

use std::ops::Range;
use std::sync::Arc;

use super::{DimCondition, EntitySums, Overlap, Run};
use crate::key::entity_hash;
use crate::metric::{Cell, Distinct, ValueState};

/// A row of a run.
#[derive(Debug, Clone, Copy)]
pub struct RowRef<'a> {
    /// What is counted.
    pub entity: &'a str,
    /// Hash of it.
    pub entity_hash: u64,
    /// What happened to it.
    pub event_type: &'a str,
    /// Minute in which the row's step starts, since 1970.
    pub minute: i64,
    /// The value of every configured dimension.
    pub dims: &'a [Option<Arc<str>>],
    /// Events counted.
    pub count: u64,
    /// Wrapping sum of their key hashes.
    pub fingerprint: u64,
    /// Late events among them.
    pub late: u64,
    /// Aggregates of `value`.
    pub value: Option<ValueState>,
    /// Sketch of distinct users.
    pub distinct: Option<&'a Distinct>,
}

impl RowRef<'_> {
    /// What is counted in the row.
    #[must_use]
    pub fn cell(&self) -> Cell {
        let Self { count, fingerprint, late, value, .. } = *self;
        Cell { count, fingerprint, late, value, distinct: self.distinct.cloned() }
    }
}

impl Run {
    /// Calls `each` with every row of `minutes`, in the order of the run.
    pub fn for_each(&self, minutes: Range<i64>, mut each: impl FnMut(RowRef<'_>)) {
        let minutes = match self.overlap(&minutes) {
            Overlap::Nothing => return,
            Overlap::Part => Some(&minutes),
            Overlap::Whole => None,
        };
        for entity in 0..self.entities.len() {
            self.for_each_span(self.row_ends.range(entity), None, minutes, |span| {
                span.for_each(|row| each(self.row(entity, row)));
            });
        }
    }

    /// Calls `each` with the rows of one entity in `minutes`, by type and minute.
    pub fn for_each_of(&self, entity: &str, minutes: &Range<i64>, mut each: impl FnMut(RowRef<'_>)) {
        let Some(at) = self.entities.find(entity_hash(entity), entity) else { return };
        self.for_each_span(self.row_ends.range(at), None, Some(minutes), |span| {
            span.for_each(|row| each(self.row(at, row)));
        });
    }

    pub(super) fn row(&self, entity: usize, row: usize) -> RowRef<'_> {
        let counted = self.rows.counted(row);
        RowRef {
            entity: self.entities.id(entity),
            entity_hash: self.entities.hash(entity),
            event_type: &self.types[self.rows.type_ids[row] as usize],
            minute: self.rows.minutes[row].into(),
            dims: &self.dims[self.rows.dim_id(row) as usize],
            count: counted.count,
            fingerprint: counted.fingerprint,
            late: counted.late,
            value: counted.value,
            distinct: counted.distinct,
        }
    }

    /// Adds the count of every entity to `into`: of `minutes`, of one type (all when none), of rows that
    /// meet all conditions. Entities whose id starts with a reserved prefix are left out.
    pub fn top_into(
        &self,
        minutes: &Range<i64>,
        event_type: Option<&str>,
        conditions: &[DimCondition],
        reserved_prefixes: &[String],
        into: &mut EntitySums,
    ) {
        let minutes = match self.overlap(minutes) {
            Overlap::Nothing => return,
            Overlap::Part => Some(minutes),
            Overlap::Whole => None,
        };
        let type_id = match event_type.map(|name| self.type_id(name)) {
            Some(None) => return,
            Some(id) => id,
            None => None,
        };
        let accepted: Option<Vec<bool>> = (!conditions.is_empty())
            .then(|| self.dims.iter().map(|dims| conditions.iter().all(|condition| condition.accepts(dims))).collect());
        for entity in 0..self.entities.len() {
            let mut sum = 0_u64;
            self.for_each_span(self.row_ends.range(entity), type_id, minutes, |span| match &accepted {
                None => sum = self.rows.counts[span].iter().fold(sum, |sum, count| sum.saturating_add(*count)),
                Some(accepted) => {
                    let rows = span.filter(|row| accepted[self.rows.dim_id(*row) as usize]);
                    sum = rows.fold(sum, |sum, row| sum.saturating_add(self.rows.counts[row]));
                }
            });
            if sum > 0 {
                let id = self.entities.id(entity);
                if !reserved_prefixes.iter().any(|prefix| id.starts_with(prefix.as_str())) {
                    into.add(self.entities.hash(entity), id, sum);
                }
            }
        }
    }
}
