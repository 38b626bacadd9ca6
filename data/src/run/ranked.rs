//! What every entity adds up to over many runs, and the largest of them by any function.
//!
//! [`super::EntitySums`] does the same of numbers of events alone, in a third of the memory.

use std::cmp::Ordering;
use std::ops::Range;

use hashbrown::HashTable;

use super::{DimCondition, Overlap, Run};
use crate::metric::{Answer, Cell, Distinct, Function, ValueState};

/// What every entity adds up to.
#[derive(Debug, Default)]
pub struct EntityCells {
    table: HashTable<u32>,
    entries: Vec<Entry>,
    text: String,
}

#[derive(Debug, Clone)]
struct Entry {
    hash: u64,
    start: usize,
    end: usize,
    count: u64,
    value: Option<ValueState>,
    distinct: Option<Box<Distinct>>,
}

/// An entity of a top list by some function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranked {
    /// Its id.
    pub entity: String,
    /// What the function makes of it; an overflow comes first.
    pub value: Answer,
    /// Its events.
    pub count: u64,
}

/// What entities are ordered by: `whole + part / of`, and `part < of`.
///
/// So averages are compared as they are and not as they are rounded.
#[derive(Debug, Clone, Copy)]
struct Rank {
    whole: i128,
    part: u64,
    of: u64,
}

impl Rank {
    const fn whole(whole: i128) -> Self {
        Self { whole, part: 0, of: 1 }
    }

    fn average(sum: i128, count: u64) -> Option<Self> {
        let of = i128::from(count);
        let whole = sum.checked_div_euclid(of)?;
        // Less than `count`, so it fits.
        let part = u64::try_from(sum.checked_rem_euclid(of)?).ok()?;
        Some(Self { whole, part, of: count })
    }

    fn order(&self, other: &Self) -> Ordering {
        let across = |part: u64, of: u64| u128::from(part) * u128::from(of);
        self.whole.cmp(&other.whole).then_with(|| across(self.part, other.of).cmp(&across(other.part, self.of)))
    }
}

impl Entry {
    fn add(&mut self, count: u64, value: Option<ValueState>, distinct: Option<&Distinct>) {
        self.count = self.count.saturating_add(count);
        match (&mut self.value, value) {
            (Some(own), Some(value)) => own.merge(&value),
            (own @ None, value) => *own = value,
            (Some(_), None) => {}
        }
        match (&mut self.distinct, distinct) {
            (Some(own), Some(distinct)) => own.merge(distinct),
            (own @ None, distinct) => *own = distinct.cloned().map(Box::new),
            (Some(_), None) => {}
        }
    }

    /// None when there is nothing that the function could be made of.
    fn rank(&self, function: Function) -> Option<Rank> {
        if self.count == u64::MAX {
            return Some(Rank::whole(i128::MAX));
        }
        let value = self.value.as_ref();
        match function {
            Function::Count => Some(Rank::whole(self.count.into())),
            Function::Sum => value.map(|value| Rank::whole(value.sum)),
            Function::Min => value.map(|value| Rank::whole(value.min.into())),
            Function::Max => value.map(|value| Rank::whole(value.max.into())),
            Function::Avg => value.and_then(|value| Rank::average(value.sum, value.count)),
            Function::ApproxDistinct => self.distinct.as_ref().map(|distinct| Rank::whole(distinct.estimate().into())),
        }
    }

    fn evaluate(&self, function: Function) -> Answer {
        let distinct = (function == Function::ApproxDistinct).then(|| self.distinct.as_deref().cloned()).flatten();
        Cell { count: self.count, fingerprint: 0, late: 0, value: self.value, distinct }.evaluate(function)
    }
}

impl EntityCells {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many entities there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds to an entity, `hash` as [`crate::key::entity_hash`] makes it.
    pub fn add(&mut self, hash: u64, entity: &str, count: u64, value: Option<ValueState>, distinct: Option<&Distinct>) {
        let (entries, text) = (&mut self.entries, &mut self.text);
        let same = |at: &u32| {
            let entry = &entries[*at as usize];
            entry.hash == hash && text[entry.start..entry.end] == *entity
        };
        if let Some(at) = self.table.find(hash, same) {
            entries[*at as usize].add(count, value, distinct);
            return;
        }
        let start = text.len();
        text.push_str(entity);
        let distinct = distinct.cloned().map(Box::new);
        entries.push(Entry { hash, start, end: text.len(), count, value, distinct });
        // An entry takes 100 bytes, so that 2^32 of them fit no memory.
        self.table.insert_unique(hash, (entries.len() - 1) as u32, |at| entries[*at as usize].hash);
    }

    /// What an entity adds up to, `hash` as in [`EntityCells::add`]; without fingerprint and late events.
    #[must_use]
    pub fn cell(&self, hash: u64, entity: &str) -> Cell {
        let same = |at: &u32| {
            let entry = &self.entries[*at as usize];
            entry.hash == hash && self.id(entry) == entity
        };
        let found = self.table.find(hash, same).map(|at| &self.entries[*at as usize]);
        found.map_or_else(Cell::default, |entry| {
            let distinct = entry.distinct.as_deref().cloned();
            Cell { count: entry.count, fingerprint: 0, late: 0, value: entry.value, distinct }
        })
    }

    /// The `n` entities of which the function is largest, whichever it is: descending, then id ascending. Entities that
    /// it can be made of nothing of are left out.
    #[must_use]
    pub fn top(&self, n: usize, function: Function) -> Vec<Ranked> {
        let ranked = self.entries.iter().filter_map(|entry| Some((entry.rank(function)?, entry)));
        let mut ranked: Vec<(Rank, &Entry)> = ranked.collect();
        if n == 0 {
            return Vec::new();
        }
        let order =
            |a: &(Rank, &Entry), b: &(Rank, &Entry)| b.0.order(&a.0).then_with(|| self.id(a.1).cmp(self.id(b.1)));
        if n < ranked.len() {
            ranked.select_nth_unstable_by(n - 1, order);
            ranked.truncate(n);
        }
        ranked.sort_unstable_by(order);
        let listed = ranked.into_iter().map(|(_, entry)| Ranked {
            entity: self.id(entry).to_owned(),
            value: entry.evaluate(function),
            count: entry.count,
        });
        listed.collect()
    }

    fn id(&self, entry: &Entry) -> &str {
        &self.text[entry.start..entry.end]
    }
}

impl Run {
    /// As [`Run::top_into`], with values and sketches.
    pub fn cells_into(
        &self,
        minutes: &Range<i64>,
        event_type: Option<&str>,
        conditions: &[DimCondition],
        reserved_prefixes: &[String],
        into: &mut EntityCells,
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
        let accepted: Vec<bool> =
            self.dims.iter().map(|dims| conditions.iter().all(|condition| condition.accepts(dims))).collect();
        for entity in 0..self.entities.len() {
            let id = self.entities.id(entity);
            if reserved_prefixes.iter().any(|prefix| id.starts_with(prefix.as_str())) {
                continue;
            }
            let mut sum = Cell::default();
            self.for_each_span(self.row_ends.range(entity), type_id, minutes, |span| {
                for row in span.filter(|row| accepted[self.rows.dim_id(*row) as usize]) {
                    let counted = self.rows.counted(row);
                    sum.add(counted.count, 0, 0, counted.value, counted.distinct);
                }
            });
            if sum.count > 0 {
                into.add(self.entities.hash(entity), id, sum.count, sum.value, sum.distinct.as_ref());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(values: &[i64]) -> Option<ValueState> {
        values.iter().map(|value| ValueState::one(*value)).reduce(|mut all, one| {
            all.merge(&one);
            all
        })
    }

    #[test]
    fn averages_are_compared_as_they_are() {
        let mut cells = EntityCells::new();
        // 10 / 3 and 10,000,001 / 3,000,000 millionths differ far behind the sixth place of the value.
        cells.add(1, "a", 3, values(&[3, 3, 4]), None);
        let state = ValueState { count: 3_000_000, sum: 10_000_001, min: 3, max: 4 };
        cells.add(2, "b", 3_000_000, Some(state), None);
        cells.add(3, "none", 9, None, None);
        let state = ValueState { count: 6, sum: 20, min: 3, max: 4 };
        cells.add(4, "A", 6, Some(state), None);
        let names = |n, function| cells.top(n, function).into_iter().map(|one| one.entity).collect::<Vec<_>>();
        assert_eq!(names(9, Function::Avg), ["b", "A", "a"]);
        assert_eq!(names(2, Function::Avg), ["b", "A"]);
        assert_eq!(names(9, Function::Count), ["b", "none", "A", "a"]);
        assert!(names(9, Function::ApproxDistinct).is_empty());
        let first = &cells.top(1, Function::Sum)[0];
        assert_eq!((first.value, first.count), (Answer::Decimal(10_000_001), 3_000_000));
    }

    #[test]
    fn averages_below_nothing_are_in_order() {
        let mut cells = EntityCells::new();
        for (hash, id, own) in [(1, "a", &[-1, -2][..]), (2, "b", &[-1][..]), (3, "c", &[-2, -2, -1][..])] {
            cells.add(hash, id, own.len() as u64, values(own), None);
        }
        let names: Vec<String> = cells.top(9, Function::Avg).into_iter().map(|one| one.entity).collect();
        assert_eq!(names, ["b", "a", "c"]);
    }

    proptest! {
        #[test]
        fn lists_are_those_of_a_sort(
            events in prop::collection::vec((0..8_u64, prop::option::of(-3..3_i64)), 0..60), n in 0..9_usize,
        ) {
            let mut cells = EntityCells::new();
            let mut all: std::collections::BTreeMap<String, Vec<Option<i64>>> = std::collections::BTreeMap::new();
            for (entity, value) in events {
                cells.add(entity % 3, &format!("e{entity}"), 1, value.map(ValueState::one), None);
                all.entry(format!("e{entity}")).or_default().push(value);
            }
            // A fraction: what it is made of, and by how many it is divided.
            let fraction = |own: &[i64], function| match function {
                Function::Min => own.iter().min().map(|min| (*min, 1)),
                Function::Max => own.iter().max().map(|max| (*max, 1)),
                Function::Sum => (!own.is_empty()).then(|| (own.iter().sum::<i64>(), 1)),
                _ => (!own.is_empty()).then(|| (own.iter().sum::<i64>(), own.len() as i64)),
            };
            for function in [Function::Sum, Function::Min, Function::Max, Function::Avg] {
                let mut expected: Vec<((i64, i64), &String)> = all.iter().filter_map(|(id, own)| {
                    Some((fraction(&own.iter().flatten().copied().collect::<Vec<_>>(), function)?, id))
                }).collect();
                expected.sort_by(|(a, left), (b, right)| (b.0 * a.1).cmp(&(a.0 * b.1)).then_with(|| left.cmp(right)));
                let expected: Vec<&String> = expected.into_iter().map(|(_, id)| id).take(n).collect();
                let found = cells.top(n, function);
                prop_assert_eq!(found.iter().map(|one| &one.entity).collect::<Vec<_>>(), expected);
            }
        }
    }
}
