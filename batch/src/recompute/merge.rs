//! Sorted runs, merged row by row in the order of (entity, type, minute, dimensions).
//!
//! A heap of cursors; the one with the smallest row is on top. Rows of several runs with equal columns come one
//! after the other, and whoever takes them adds them up.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::iter;

use arrow::array::{Array, AsArray, BinaryArray, Decimal128Array, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Decimal128Type, Int32Type, Int64Type};
use reckon_data::definition::prefix_end;
use reckon_data::invariant::MERGEABLE;
use reckon_data::metric::{Distinct, ValueState};

use super::error::BatchError;
use super::spill::{RunBatches, SortedRun};

/// A range of entities, for work that is shared out. None is open.
#[derive(Debug, Clone, Default)]
pub struct Entities {
    /// The first.
    pub from: Option<Box<str>>,
    /// The one after the last.
    pub to: Option<Box<str>>,
}

/// The columns of a batch of a run, each of its type.
#[derive(Debug)]
pub struct Rows {
    entity: StringArray,
    kind: StringArray,
    minute: Int32Array,
    dims: [Option<StringArray>; 3],
    count: Int64Array,
    fingerprint: Int64Array,
    values: Option<Values>,
    distinct: Option<BinaryArray>,
    definition: Int64Array,
    late: Option<Int64Array>,
}

#[derive(Debug)]
struct Values {
    count: Int64Array,
    sum: Decimal128Array,
    min: Decimal128Array,
    max: Decimal128Array,
}

impl Rows {
    fn of(batch: &RecordBatch) -> Self {
        let present = |at: usize| (batch.column(at).data_type() != &DataType::Null).then(|| batch.column(at));
        let whole = |at: usize| batch.column(at).as_primitive::<Int64Type>().clone();
        let decimal = |at: usize| present(at).map(|column| column.as_primitive::<Decimal128Type>().clone());
        let counts = present(8).map(|column| column.as_primitive::<Int64Type>().clone());
        let values = match (counts, decimal(9), decimal(10), decimal(11)) {
            (Some(count), Some(sum), Some(min), Some(max)) => Some(Values { count, sum, min, max }),
            _ => None,
        };
        Self {
            entity: batch.column(0).as_string::<i32>().clone(),
            kind: batch.column(1).as_string::<i32>().clone(),
            minute: batch.column(2).as_primitive::<Int32Type>().clone(),
            dims: std::array::from_fn(|at| present(3 + at).map(|column| column.as_string::<i32>().clone())),
            count: whole(6),
            fingerprint: whole(7),
            values,
            distinct: present(12).map(|column| column.as_binary::<i32>().clone()),
            definition: whole(13),
            late: present(14).map(|column| column.as_primitive::<Int64Type>().clone()),
        }
    }

    fn order(&self, row: usize, other: &Self, other_row: usize) -> Ordering {
        self.entity(row)
            .cmp(other.entity(other_row))
            .then_with(|| self.kind(row).cmp(other.kind(other_row)))
            .then_with(|| self.minute(row).cmp(&other.minute(other_row)))
            .then_with(|| {
                (0..self.dims.len())
                    .map(|at| self.dim(at, row).cmp(&other.dim(at, other_row)))
                    .find(|order| order.is_ne())
                    .unwrap_or(Ordering::Equal)
            })
    }

    /// What is counted.
    #[must_use]
    pub fn entity(&self, row: usize) -> &str {
        self.entity.value(row)
    }

    /// The event type.
    #[must_use]
    pub fn kind(&self, row: usize) -> &str {
        self.kind.value(row)
    }

    /// Minutes since 1970.
    #[must_use]
    pub fn minute(&self, row: usize) -> i32 {
        self.minute.value(row)
    }

    /// The value of a dimension, in the order of [`reckon_data::run::Dimension::ALL`].
    #[must_use]
    pub fn dim(&self, at: usize, row: usize) -> Option<&str> {
        self.dims[at].as_ref().filter(|column| column.is_valid(row)).map(|column| column.value(row))
    }

    fn late(&self, row: usize, count: u64) -> Result<u64, BatchError> {
        let Some(column) = self.late.as_ref().filter(|column| column.is_valid(row)) else { return Ok(0) };
        let late = column.value(row);
        u64::try_from(late)
            .ok()
            .filter(|late| *late <= count)
            .ok_or_else(|| BatchError::Broken(format!("a row counts {late} late events of {count}")))
    }

    /// What the row counts.
    ///
    /// # Errors
    /// [`BatchError::Broken`] when the numbers cannot be counts.
    pub fn counted(&self, row: usize) -> Result<Counted, BatchError> {
        let count = self.count.value(row);
        let count = u64::try_from(count).map_err(|_| BatchError::Broken(format!("a row counts {count} events")))?;
        let distinct = self.distinct.as_ref().filter(|column| column.is_valid(row)).map(|column| {
            let sketch =
                Distinct::from_bytes(column.value(row)).map_err(|error| BatchError::Broken(error.to_string()))?;
            Ok::<_, BatchError>(Box::new(sketch))
        });
        Ok(Counted {
            count,
            fingerprint: self.fingerprint.value(row).cast_unsigned(),
            value: self.values.as_ref().map_or(Ok(None), |values| values.get(row))?,
            distinct: distinct.transpose()?,
            definition: self.definition.value(row).cast_unsigned(),
            late: self.late(row, count)?,
        })
    }
}

impl Values {
    fn get(&self, row: usize) -> Result<Option<ValueState>, BatchError> {
        if self.count.is_null(row) || self.count.value(row) == 0 {
            return Ok(None);
        }
        let state = || {
            Some(ValueState {
                count: u64::try_from(self.count.value(row)).ok()?,
                sum: self.sum.is_valid(row).then(|| self.sum.value(row))?,
                min: self.min.is_valid(row).then(|| i64::try_from(self.min.value(row)).ok())??,
                max: self.max.is_valid(row).then(|| i64::try_from(self.max.value(row)).ok())??,
            })
        };
        let state = state().filter(ValueState::is_plausible);
        // Counted when it fails: a row each is too many for a counter that all threads share.
        if state.is_none() && !MERGEABLE.holds(false) {
            return Err(BatchError::Broken("aggregates of values that no values have".to_owned()));
        }
        Ok(state)
    }
}

/// What a row counts.
#[derive(Debug, Clone, PartialEq)]
pub struct Counted {
    /// Events.
    pub count: u64,
    /// Wrapping sum of their key hashes.
    pub fingerprint: u64,
    /// Aggregates of `value`.
    pub value: Option<ValueState>,
    /// Sketch of the users.
    pub distinct: Option<Box<Distinct>>,
    /// The definition it was counted with.
    pub definition: u64,
    /// Late events.
    pub late: u64,
}

impl Counted {
    /// Adds what `other` counts. `current` is the definition of now: a sum of several definitions carries the
    /// other one, so that answers from it say so.
    ///
    /// # Errors
    /// [`BatchError::Broken`] on an overflow.
    pub fn add(&mut self, other: &Self, current: u64) -> Result<(), BatchError> {
        self.count = self
            .count
            .checked_add(other.count)
            .ok_or_else(|| BatchError::Broken("a count has overflowed".to_owned()))?;
        self.fingerprint = self.fingerprint.wrapping_add(other.fingerprint);
        // There are no more of them than events.
        self.late = self.late.saturating_add(other.late);
        match (&mut self.value, &other.value) {
            (Some(own), Some(value)) => own.merge(value),
            (own @ None, value) => *own = *value,
            (Some(_), None) => {}
        }
        match (&mut self.distinct, &other.distinct) {
            (Some(own), Some(distinct)) => own.merge(distinct),
            (own @ None, distinct) => own.clone_from(distinct),
            (Some(_), None) => {}
        }
        self.definition = match (self.definition == current, other.definition == current) {
            (true, _) => other.definition,
            (false, true) => self.definition,
            (false, false) => self.definition.min(other.definition),
        };
        Ok(())
    }
}

#[derive(Debug)]
struct Cursor {
    batches: RunBatches,
    rows: Rows,
    at: usize,
    end: usize,
}

impl Cursor {
    /// A cursor on the first row of the range; none if there is none.
    fn open(run: &SortedRun, range: &Entities) -> Result<Option<Self>, BatchError> {
        let mut batches = run.open(range.from.as_deref())?;
        while let Some(batch) = batches.next().transpose()? {
            let rows = Rows::of(&batch);
            let at = range.from.as_deref().map_or(0, |from| lower_bound(&rows.entity, from));
            let end = range.to.as_deref().map_or(batch.num_rows(), |to| lower_bound(&rows.entity, to));
            if at < end {
                return Ok(Some(Self { batches, rows, at, end }));
            }
            if end < batch.num_rows() {
                break;
            }
        }
        Ok(None)
    }

    /// Goes to the next row; false if there is none.
    fn advance(&mut self, range: &Entities) -> Result<bool, BatchError> {
        self.at += 1;
        if self.at < self.end {
            return Ok(true);
        }
        let Some(batch) = self.batches.next().transpose()? else { return Ok(false) };
        self.rows = Rows::of(&batch);
        self.at = 0;
        self.end = range.to.as_deref().map_or(batch.num_rows(), |to| lower_bound(&self.rows.entity, to));
        Ok(self.end > 0)
    }

    fn before(&self, other: &Self) -> bool {
        self.rows.order(self.at, &other.rows, other.at).is_lt()
    }
}

/// The first row, of rows sorted by entity, whose entity is not below `entity`.
fn lower_bound(entities: &StringArray, entity: &str) -> usize {
    let (mut low, mut high) = (0, entities.len());
    while low < high {
        let middle = low.midpoint(high);
        if entities.value(middle) < entity { low = middle + 1 } else { high = middle }
    }
    low
}

/// The rows of several runs, in order.
#[derive(Debug)]
pub struct Merge {
    /// A binary heap: the parent of `i` is `(i - 1) / 2`.
    heap: Vec<Cursor>,
    /// The smaller child of the top, as long as it is known: often the top stays the smallest for many rows.
    second: Option<usize>,
    range: Entities,
}

impl Merge {
    /// The rows of `runs` whose entities lie in `range`.
    ///
    /// # Errors
    /// When a run cannot be read.
    pub fn open<'a>(runs: impl IntoIterator<Item = &'a SortedRun>, range: Entities) -> Result<Self, BatchError> {
        let mut heap = Vec::new();
        for run in runs {
            heap.extend(Cursor::open(run, &range)?);
        }
        let mut merge = Self { heap, second: None, range };
        for at in (0..merge.heap.len() / 2).rev() {
            merge.sink(at);
        }
        Ok(merge)
    }

    /// The smallest row that is left.
    #[must_use]
    pub fn peek(&self) -> Option<(&Rows, usize)> {
        self.heap.first().map(|cursor| (&cursor.rows, cursor.at))
    }

    /// Goes on to the next row.
    ///
    /// # Errors
    /// When a run cannot be read.
    pub fn advance(&mut self) -> Result<(), BatchError> {
        let Some(top) = self.heap.first_mut() else { return Ok(()) };
        if !top.advance(&self.range)? {
            self.heap.swap_remove(0);
            self.second = None;
        }
        let Some(second) = self.second.or_else(|| self.smaller_child(0)) else { return Ok(()) };
        self.second = Some(second);
        if self.heap[second].before(&self.heap[0]) {
            self.second = None;
            self.heap.swap(0, second);
            self.sink(second);
        }
        Ok(())
    }

    fn smaller_child(&self, at: usize) -> Option<usize> {
        let (left, right) = (2 * at + 1, 2 * at + 2);
        let right_first = right < self.heap.len() && self.heap[right].before(&self.heap[left]);
        (left < self.heap.len()).then_some(if right_first { right } else { left })
    }

    fn sink(&mut self, mut at: usize) {
        while let Some(child) = self.smaller_child(at) {
            if !self.heap[child].before(&self.heap[at]) {
                return;
            }
            self.heap.swap(at, child);
            at = child;
        }
    }
}

/// Cuts all entities into `parts` ranges with about as many rows each, and those of a reserved prefix out of them: in files
/// of their own they cost nothing where they are not asked for.
#[must_use]
pub fn split(runs: &[SortedRun], parts: usize, reserved_prefixes: &[String]) -> Vec<Entities> {
    // Every batch but the last of a run has as many rows as any other.
    let mut firsts: Vec<&str> = runs.iter().flat_map(|run| run.firsts().iter().map(AsRef::as_ref)).collect();
    firsts.sort_unstable();
    let shares = (1..parts).filter_map(|part| firsts.get(part * firsts.len() / parts)).map(|first| (*first).to_owned());
    let bounds = reserved_prefixes.iter().flat_map(|prefix| [Some(prefix.clone()), prefix_end(prefix)]).flatten();
    // Nothing is below the empty text.
    let cuts: BTreeSet<String> = shares.chain(bounds).filter(|cut| !cut.is_empty()).collect();
    let cuts = cuts.into_iter().map(|cut| Some(cut.into_boxed_str()));
    let ends: Vec<Option<Box<str>>> = iter::once(None).chain(cuts).chain(iter::once(None)).collect();
    ends.windows(2).map(|ends| Entities { from: ends[0].clone(), to: ends[1].clone() }).collect()
}
