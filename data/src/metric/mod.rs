//! Metrics: mergeable aggregates (R-6: merge is associative and commutative, with an identity).
//!
//! ```text
//! event ──one──▶ Cell ──merge──▶ Cell ──evaluate──▶ Answer
//! ```
//!
//! Counts saturate at `u64::MAX`, which therefore is no count but the sign of an overflow: it stays
//! whatever is added, evaluates to [`Answer::Overflow`] and cannot be written to a table. Sums need no
//! such sign: as long as a count has not saturated, that many values below 10^18 fit an `i128`.

pub mod distinct;
mod function;

pub use distinct::{Distinct, DistinctError};
pub use function::{Answer, Function, UnknownFunction};

/// Everything counted for one (entity, type, minute, dimensions).
///
/// `Cell::default()` is the identity of [`Cell::merge`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Cell {
    /// Events counted.
    pub count: u64,
    /// Wrapping sum of the key hashes of the events counted.
    pub fingerprint: u64,
    /// Events among them that were late, see [`crate::definition::Definition::late_before`].
    pub late: u64,
    /// Aggregates of `value`; none when no event had one.
    pub value: Option<ValueState>,
    /// Sketch of the distinct users; none unless configured.
    pub distinct: Option<Distinct>,
}

/// Aggregates of `value`, in millionths (Decimal(18,6)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ValueState {
    /// Events that had a value.
    pub count: u64,
    /// Exact sum, Decimal(38,6).
    pub sum: i128,
    /// Smallest.
    pub min: i64,
    /// Largest.
    pub max: i64,
}

impl ValueState {
    /// The aggregates of one value, in millionths.
    #[must_use]
    pub const fn one(value: i64) -> Self {
        Self { count: 1, sum: value as i128, min: value, max: value }
    }

    /// Adds what `other` has aggregated.
    pub fn merge(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.sum = self.sum.saturating_add(other.sum);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// Whether these can be the aggregates of `count` values: what is read from a table is held to it,
    /// so that no sum can ever leave its range.
    #[must_use]
    pub fn is_plausible(&self) -> bool {
        let (count, limit) = (i128::from(self.count), crate::decimal::VALUE_LIMIT);
        self.count > 0
            && self.min <= self.max
            && self.min > -limit
            && self.max < limit
            && self.sum >= count * i128::from(self.min)
            && self.sum <= count * i128::from(self.max)
    }
}

impl Cell {
    /// The cell of one event: its key hash, its value in millionths, and its user where distinct users
    /// are counted. It is not late.
    #[must_use]
    pub fn one(key_hash: u64, value: Option<i64>, user: Option<&str>) -> Self {
        let distinct = user.map(|user| {
            let mut distinct = Distinct::new();
            distinct.insert(user);
            distinct
        });
        Self { count: 1, fingerprint: key_hash, late: 0, value: value.map(ValueState::one), distinct }
    }

    /// A cell of counts alone.
    #[must_use]
    pub const fn counted(count: u64, fingerprint: u64, late: u64) -> Self {
        Self { count, fingerprint, late, value: None, distinct: None }
    }

    /// The same, all of it late.
    #[must_use]
    pub const fn as_late(mut self) -> Self {
        self.late = self.count;
        self
    }

    /// Adds what `other` has counted.
    pub fn merge(&mut self, other: &Self) {
        self.add(other.count, other.fingerprint, other.late, other.value, other.distinct.as_ref());
    }

    /// Adds the parts of a cell.
    pub fn add(
        &mut self,
        count: u64,
        fingerprint: u64,
        late: u64,
        value: Option<ValueState>,
        distinct: Option<&Distinct>,
    ) {
        self.count = self.count.saturating_add(count);
        self.fingerprint = self.fingerprint.wrapping_add(fingerprint);
        self.late = self.late.saturating_add(late);
        match (&mut self.value, value) {
            (Some(own), Some(value)) => own.merge(&value),
            (own @ None, value) => *own = value,
            (Some(_), None) => {}
        }
        match (&mut self.distinct, distinct) {
            (Some(own), Some(distinct)) => own.merge(distinct),
            (own @ None, distinct) => *own = distinct.cloned(),
            (Some(_), None) => {}
        }
    }

    /// What `function` makes of the cell.
    #[must_use]
    pub fn evaluate(&self, function: Function) -> Answer {
        if self.count == u64::MAX || self.value.is_some_and(|value| value.count == u64::MAX) {
            return Answer::Overflow;
        }
        let decimal =
            |take: fn(&ValueState) -> i128| self.value.as_ref().map_or(Answer::Null, |v| Answer::Decimal(take(v)));
        match function {
            Function::Count => Answer::Count(self.count),
            Function::Sum => decimal(|value| value.sum),
            Function::Min => decimal(|value| value.min.into()),
            Function::Max => decimal(|value| value.max.into()),
            Function::Avg => decimal(|value| crate::decimal::average(value.sum, value.count)),
            Function::ApproxDistinct => {
                self.distinct.as_ref().map_or(Answer::Null, |distinct| Answer::ApproxDistinct(distinct.estimate()))
            }
        }
    }
}

#[cfg(test)]
mod tests;
