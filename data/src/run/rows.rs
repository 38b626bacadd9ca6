//! The rows of a run, a vector a column.

use std::ops::Range;

use crate::metric::{Distinct, ValueState};

/// Aggregates of `value`, a vector a column; `counts` is 0 in a row without any.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ValueColumns {
    /// Events that had a value.
    pub counts: Vec<u64>,
    /// Exact sums, millionths.
    pub sums: Vec<i128>,
    /// Smallest, millionths.
    pub mins: Vec<i64>,
    /// Largest, millionths.
    pub maxs: Vec<i64>,
}

impl ValueColumns {
    /// Columns of `rows` rows without any value.
    #[must_use]
    pub fn none(rows: usize) -> Self {
        Self { counts: vec![0; rows], sums: vec![0; rows], mins: vec![0; rows], maxs: vec![0; rows] }
    }

    /// Adds a row.
    pub fn push(&mut self, value: Option<ValueState>) {
        let value = value.unwrap_or(ValueState { count: 0, sum: 0, min: 0, max: 0 });
        self.counts.push(value.count);
        self.sums.push(value.sum);
        self.mins.push(value.min);
        self.maxs.push(value.max);
    }

    /// The aggregates of a row, which must be there.
    #[must_use]
    pub fn get(&self, row: usize) -> Option<ValueState> {
        let count = self.counts[row];
        (count > 0).then(|| ValueState { count, sum: self.sums[row], min: self.mins[row], max: self.maxs[row] })
    }

    /// Adds to the aggregates of a row, which must be there.
    pub fn merge(&mut self, row: usize, value: &ValueState) {
        let mut own = *value;
        if let Some(before) = self.get(row) {
            own.merge(&before);
        }
        self.counts[row] = own.count;
        self.sums[row] = own.sum;
        self.mins[row] = own.min;
        self.maxs[row] = own.max;
    }

    fn extend(&mut self, other: &Self, rows: Range<usize>) {
        self.counts.extend_from_slice(&other.counts[rows.clone()]);
        self.sums.extend_from_slice(&other.sums[rows.clone()]);
        self.mins.extend_from_slice(&other.mins[rows.clone()]);
        self.maxs.extend_from_slice(&other.maxs[rows]);
    }

    fn shrink(&mut self) {
        self.counts.shrink_to_fit();
        self.sums.shrink_to_fit();
        self.mins.shrink_to_fit();
        self.maxs.shrink_to_fit();
    }

    fn memory_bytes(&self) -> usize {
        8 * (self.counts.capacity() + self.mins.capacity() + self.maxs.capacity()) + 16 * self.sums.capacity()
    }
}

/// (type, minute, dimensions) of a row as one number that sorts the same way.
pub(super) const fn pack(type_id: u32, minute: i32, dim_id: u32) -> u128 {
    // Flipping the sign bit sorts minutes before 1970 first.
    let minute = (minute as u32) ^ (1 << 31);
    ((type_id as u128) << 64) | ((minute as u128) << 32) | dim_id as u128
}

pub(super) const fn unpack(key: u128) -> (u32, i32, u32) {
    ((key >> 64) as u32, (((key >> 32) as u32) ^ (1 << 31)) as i32, key as u32)
}

/// Adds to a column of late events the number of row `before`, which is the next one; the column stays empty as long as
/// there are none.
pub(super) fn push_late(column: &mut Vec<u64>, before: usize, late: u64) {
    if late > 0 || !column.is_empty() {
        column.resize(before, 0);
        column.push(late);
    }
}

/// What is counted in a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counted<'a> {
    pub(super) count: u64,
    pub(super) fingerprint: u64,
    pub(super) late: u64,
    pub(super) value: Option<ValueState>,
    pub(super) distinct: Option<&'a Distinct>,
}

/// Rows, in the order of their run.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Rows {
    pub(super) type_ids: Vec<u32>,
    pub(super) minutes: Vec<i32>,
    /// Empty when the run has one combination of dimensions only.
    pub(super) dim_ids: Vec<u32>,
    pub(super) counts: Vec<u64>,
    pub(super) fingerprints: Vec<u64>,
    /// Empty when no row has a late event.
    pub(super) late: Vec<u64>,
    /// None when no row has a value.
    pub(super) values: Option<ValueColumns>,
    /// Empty when no row has a sketch.
    pub(super) sketches: Vec<Option<Box<Distinct>>>,
}

impl Rows {
    pub(super) fn with_capacity(rows: usize, has_dims: bool) -> Self {
        Self {
            type_ids: Vec::with_capacity(rows),
            minutes: Vec::with_capacity(rows),
            dim_ids: Vec::with_capacity(if has_dims { rows } else { 0 }),
            counts: Vec::with_capacity(rows),
            fingerprints: Vec::with_capacity(rows),
            late: Vec::new(),
            values: None,
            sketches: Vec::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.counts.len()
    }

    pub(super) fn dim_id(&self, row: usize) -> u32 {
        self.dim_ids.get(row).copied().unwrap_or(0)
    }

    pub(super) fn value(&self, row: usize) -> Option<ValueState> {
        self.values.as_ref().and_then(|values| values.get(row))
    }

    pub(super) fn sketch(&self, row: usize) -> Option<&Distinct> {
        self.sketches.get(row)?.as_deref()
    }

    pub(super) fn counted(&self, row: usize) -> Counted<'_> {
        Counted {
            count: self.counts[row],
            fingerprint: self.fingerprints[row],
            late: self.late.get(row).copied().unwrap_or(0),
            value: self.value(row),
            distinct: self.sketch(row),
        }
    }

    /// Whether rows hold numbers of events and fingerprints only.
    pub(super) fn is_plain(&self) -> bool {
        self.values.is_none() && self.sketches.is_empty()
    }

    pub(super) fn push(&mut self, key: u128, has_dims: bool, counted: Counted<'_>) {
        let (type_id, minute, dim_id) = unpack(key);
        let before = self.len();
        self.type_ids.push(type_id);
        self.minutes.push(minute);
        if has_dims {
            self.dim_ids.push(dim_id);
        }
        self.counts.push(counted.count);
        self.fingerprints.push(counted.fingerprint);
        push_late(&mut self.late, before, counted.late);
        if counted.value.is_some() || self.values.is_some() {
            self.values.get_or_insert_with(|| ValueColumns::none(before)).push(counted.value);
        }
        if counted.distinct.is_some() || !self.sketches.is_empty() {
            self.sketches.resize(before, None);
            self.sketches.push(counted.distinct.cloned().map(Box::new));
        }
    }

    /// Adds to the last row, which must be there.
    pub(super) fn merge_last(&mut self, counted: Counted<'_>) {
        let last = self.len() - 1;
        self.counts[last] = self.counts[last].saturating_add(counted.count);
        self.fingerprints[last] = self.fingerprints[last].wrapping_add(counted.fingerprint);
        if counted.late > 0 {
            self.late.resize(last + 1, 0);
            self.late[last] = self.late[last].saturating_add(counted.late);
        }
        if let Some(value) = counted.value {
            self.values.get_or_insert_with(|| ValueColumns::none(last + 1)).merge(last, &value);
        }
        if let Some(distinct) = counted.distinct {
            self.sketches.resize(last + 1, None);
            match &mut self.sketches[last] {
                Some(own) => own.merge(distinct),
                own @ None => *own = Some(Box::new(distinct.clone())),
            }
        }
    }

    /// Adds rows of another run, their numbers translated.
    pub(super) fn extend(
        &mut self,
        other: &Self,
        rows: Range<usize>,
        type_map: &[u32],
        dim_map: &[u32],
        has_dims: bool,
    ) {
        let before = self.len();
        self.type_ids.extend(other.type_ids[rows.clone()].iter().map(|id| type_map[*id as usize]));
        self.minutes.extend_from_slice(&other.minutes[rows.clone()]);
        if has_dims {
            self.dim_ids.extend(rows.clone().map(|row| dim_map[other.dim_id(row) as usize]));
        }
        self.counts.extend_from_slice(&other.counts[rows.clone()]);
        self.fingerprints.extend_from_slice(&other.fingerprints[rows.clone()]);
        if !self.late.is_empty() || other.late.get(rows.clone()).is_some_and(|late| late.iter().any(|late| *late > 0)) {
            self.late.resize(before, 0);
            match other.late.get(rows.clone()) {
                Some(late) => self.late.extend_from_slice(late),
                None => self.late.resize(before + rows.len(), 0),
            }
        }
        match &other.values {
            Some(values) => self.values.get_or_insert_with(|| ValueColumns::none(before)).extend(values, rows.clone()),
            None => {
                if let Some(own) = &mut self.values {
                    rows.clone().for_each(|_| own.push(None));
                }
            }
        }
        if !other.sketches.is_empty() || !self.sketches.is_empty() {
            self.sketches.resize(before, None);
            self.sketches.extend(rows.map(|row| other.sketches.get(row).cloned().flatten()));
        }
    }

    pub(super) fn shrink(&mut self) {
        self.type_ids.shrink_to_fit();
        self.minutes.shrink_to_fit();
        self.dim_ids.shrink_to_fit();
        self.counts.shrink_to_fit();
        self.fingerprints.shrink_to_fit();
        self.late.shrink_to_fit();
        if let Some(values) = &mut self.values {
            values.shrink();
        }
        self.sketches.shrink_to_fit();
    }

    pub(super) fn memory_bytes(&self) -> usize {
        4 * (self.type_ids.capacity() + self.minutes.capacity() + self.dim_ids.capacity())
            + 8 * (self.counts.capacity() + self.fingerprints.capacity() + self.late.capacity())
            + self.values.as_ref().map_or(0, ValueColumns::memory_bytes)
            + size_of::<Option<Box<Distinct>>>() * self.sketches.capacity()
            + self.sketches.iter().flatten().map(|distinct| distinct.memory_bytes()).sum::<usize>()
    }
}
