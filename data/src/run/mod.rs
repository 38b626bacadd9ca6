//! Runs: immutable, compact, columnar pieces of counts. Stream memory, tail and serving index are made
//! of them.
//!
//! ```text
//! prefix ─▶ entity hash   a1… a1… c7… f0…          ascending, ties by id
//!           entity id     "ad" "cat" "dog" "elk"   one text, cut by offsets
//!           first row     │    │     │     │
//!                         ▼    ▼     ▼     ▼
//! rows      type          0 0 1│0    │0 0 0│1      ascending (type, minute, dimensions)
//!           minute        5 6 5│9    │1 2 2│7      within an entity
//!           dimensions    0 0 0│0    │0 0 1│0
//!           count, fingerprint, and only where there are any: late events, values, sketches
//! ```
//!
//! Types and combinations of dimensions are numbers into two sorted dictionaries of the run. Everything
//! is in one canonical form: the same counts make the same run, in whatever order they came (R-5).
//! [`Run::default`] is empty and the identity of [`Run::merge`] (R-6).
//!
//! `build` and `columns` make runs, `merge` folds them, `select` answers point queries, `scan` reads
//! everything, `leaders` finds the largest without, `spans` says where its minutes lie, `write` and `read` go to and from the
//! columns of the tables.

mod build;
mod columns;
mod dimension;
mod entities;
mod granularity;
mod leaders;
mod merge;
mod offsets;
mod ranked;
mod read;
mod rows;
mod scan;
mod select;
mod spans;
mod top;
mod write;

use std::ops::Range;
use std::sync::Arc;

pub use build::RunBuilder;
pub use columns::RunColumns;
pub use dimension::{Dimension, UnknownDimension};
pub use granularity::{Granularity, UnknownGranularity};
pub use leaders::{Leader, Scope, Wanted, leaders};
pub use ranked::{EntityCells, Ranked};
pub use rows::ValueColumns;
pub use scan::RowRef;
pub use select::{DimCondition, Selection, StepSums};
pub use spans::bounded;
pub use top::EntitySums;
pub use write::{LATE_COLUMN, count_fields};

use entities::Entities;
use leaders::Lists;
use offsets::Offsets;
use rows::Rows;

/// The value of every configured dimension, in their order; empty when none is configured.
pub type DimValues = Arc<[Option<Arc<str>>]>;

/// Why a run cannot be made or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The minute lies thousands of years away from any that validation lets in.
    #[error("minute {minute} is out of range")]
    Minute {
        /// Minutes since 1970.
        minute: i64,
    },
    /// The columns do not fit each other.
    #[error("the columns of a run do not fit: {reason}")]
    Columns {
        /// What does not fit.
        reason: String,
    },
    /// A table's rows are not what was written.
    #[error("column {column}: {reason}")]
    Batch {
        /// The column.
        column: &'static str,
        /// What does not fit.
        reason: String,
    },
    /// A number does not fit its column.
    #[error("a number does not fit column {column}")]
    Overflow {
        /// The column.
        column: &'static str,
    },
    /// Arrow refused.
    #[error(transparent)]
    Arrow(#[from] arrow::error::ArrowError),
}

/// What a run adds up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Totals {
    count: u64,
    fingerprint: u64,
    /// Smallest and largest minute; both 0 when there are no rows.
    minutes: (i32, i32),
}

/// An immutable piece of counts. See the module.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Run {
    entities: Entities,
    /// Where the rows of each entity end.
    row_ends: Offsets,
    types: Vec<Arc<str>>,
    dims: Vec<DimValues>,
    rows: Rows,
    totals: Totals,
    lists: Lists,
}

impl Run {
    fn assemble(
        mut entities: Entities,
        row_ends: Offsets,
        types: Vec<Arc<str>>,
        dims: Vec<DimValues>,
        rows: Rows,
    ) -> Self {
        entities.seal();
        let totals = Totals {
            count: rows.counts.iter().fold(0, |sum, count| sum.saturating_add(*count)),
            fingerprint: rows.fingerprints.iter().fold(0, |sum, print| sum.wrapping_add(*print)),
            minutes: (
                rows.minutes.iter().min().copied().unwrap_or_default(),
                rows.minutes.iter().max().copied().unwrap_or_default(),
            ),
        };
        Self { entities, row_ends, types, dims, rows, totals, lists: Lists::default() }
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows() == 0
    }

    /// How many rows there are: one for each (entity, type, minute, dimensions).
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// How many entities there are.
    #[must_use]
    pub fn entities(&self) -> usize {
        self.entities.len()
    }

    /// Events counted in all; `u64::MAX` is an overflow.
    #[must_use]
    pub const fn total_count(&self) -> u64 {
        self.totals.count
    }

    /// Wrapping sum of all fingerprints.
    #[must_use]
    pub const fn fingerprint(&self) -> u64 {
        self.totals.fingerprint
    }

    /// From the first minute to the one after the last; none when empty.
    #[must_use]
    pub fn minute_range(&self) -> Option<Range<i64>> {
        let (first, last) = self.totals.minutes;
        (!self.is_empty()).then(|| i64::from(first)..i64::from(last) + 1)
    }

    /// The event types that occur, ascending.
    pub fn event_types(&self) -> impl Iterator<Item = &str> {
        self.types.iter().map(AsRef::as_ref)
    }

    /// Bytes of memory the run takes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        // Each string of the dictionaries is an allocation of its own, with two counters before it.
        let string = |text: &Arc<str>| size_of::<Arc<str>>() + 16 + text.len();
        let dims = self.dims.iter().flat_map(|values| values.iter().flatten().map(string)).sum::<usize>();
        let combinations =
            self.dims.iter().map(|values| size_of::<DimValues>() + 16 + values.len() * 16).sum::<usize>();
        size_of::<Self>()
            + self.entities.memory_bytes()
            + self.row_ends.memory_bytes()
            + self.types.iter().map(string).sum::<usize>()
            + dims
            + combinations
            + self.rows.memory_bytes()
    }

    /// The rows of an entity.
    fn find(&self, entity_hash: u64, entity: &str) -> Option<Range<usize>> {
        self.entities.find(entity_hash, entity).map(|at| self.row_ends.range(at))
    }

    fn type_id(&self, event_type: &str) -> Option<u32> {
        self.types.binary_search_by(|name| name.as_ref().cmp(event_type)).ok().and_then(|at| u32::try_from(at).ok())
    }

    /// Whether some row may lie in `minutes`, and whether all do.
    fn overlap(&self, minutes: &Range<i64>) -> Overlap {
        match self.minute_range() {
            Some(own) if own.start < minutes.end && minutes.start < own.end => {
                if minutes.start <= own.start && own.end <= minutes.end { Overlap::Whole } else { Overlap::Part }
            }
            _ => Overlap::Nothing,
        }
    }
}

/// How much of a run lies in a range of minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Overlap {
    Nothing,
    Part,
    Whole,
}

/// A sorted dictionary of all the entries, and for each of `parts` the new number of every old one.
/// Entries that `used` says no to are left out.
fn unite<T: Ord + Clone>(parts: &[&[T]], used: impl Fn(usize, usize) -> bool) -> (Vec<T>, Vec<Vec<u32>>) {
    let mut all: Vec<(&T, usize, usize)> = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
    for (part, entries) in parts.iter().enumerate() {
        all.extend(entries.iter().enumerate().filter(|(at, _)| used(part, *at)).map(|(at, entry)| (entry, part, at)));
    }
    // Parts are mostly sorted already, which a stable sort makes use of.
    all.sort_by(|a, b| a.0.cmp(b.0));
    let mut maps: Vec<Vec<u32>> = parts.iter().map(|part| vec![u32::MAX; part.len()]).collect();
    let mut united: Vec<T> = Vec::new();
    for (entry, part, at) in all {
        if united.last() != Some(entry) {
            united.push(entry.clone());
        }
        // There are never more entries than rows, and a run of 2^32 dictionary entries fits no memory.
        maps[part][at] = (united.len() - 1) as u32;
    }
    (united, maps)
}

#[cfg(test)]
mod tests;
