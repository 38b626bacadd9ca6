//! What an answer means: a function of what was sent and what was answered.

use std::ops::Range;

use super::plan::{Counts, Key, Question};

/// An answer to the question for all of a round's counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counted {
    /// What was counted.
    pub counts: Counts,
    /// Whether the answer says of itself that it is whole.
    pub complete: bool,
    /// If it does not: what it lacks, as it says.
    pub missing: String,
}

/// An answer to a [`Question`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// What was counted.
    pub count: u64,
    /// Whether the answer says of itself that it is whole.
    pub complete: bool,
    /// If it does not: what it lacks, as it says.
    pub missing: String,
}

/// A count that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The entity.
    pub entity: String,
    /// The event type.
    pub event_type: String,
    /// Minutes since 1970.
    pub minutes: Range<i64>,
    /// How many there should be.
    pub expected: u64,
    /// How many there are.
    pub found: u64,
}

impl Difference {
    /// How many are missing.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.expected.saturating_sub(self.found)
    }

    /// How many are too many.
    #[must_use]
    pub const fn excess(&self) -> u64 {
        self.found.saturating_sub(self.expected)
    }

    fn of(key: &Key, expected: u64, found: u64) -> Self {
        let (entity, event_type) = (key.entity.clone(), key.event_type.clone());
        Self { entity, event_type, minutes: key.minute..key.minute + 1, expected, found }
    }
}

/// What an answer means.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Judged {
    /// Counts that are too high. No event that is still on its way makes that good.
    pub excess: Vec<Difference>,
    /// Counts that are too low. They may rise.
    pub short: Vec<Difference>,
    /// Whether the answer says of itself that it is whole.
    pub complete: bool,
    /// If it does not: what it lacks, as it says.
    pub missing: String,
}

impl Judged {
    /// Whether nothing is left to wait for.
    #[must_use]
    pub const fn is_right(&self) -> bool {
        self.complete && self.excess.is_empty() && self.short.is_empty()
    }

    /// How many events are missing. Of an answer that is not whole nobody knows whether they are lost.
    #[must_use]
    pub fn short_by(&self) -> u64 {
        self.short.iter().map(Difference::lost).sum()
    }

    /// How many are too many.
    #[must_use]
    pub fn too_many(&self) -> u64 {
        self.excess.iter().map(Difference::excess).sum()
    }
}

/// Holds an answer to what was sent: every key of either, the most that differ first.
#[must_use]
pub fn judge(expected: &Counts, answer: &Counted) -> Judged {
    let mut judged = Judged { complete: answer.complete, missing: answer.missing.clone(), ..Judged::default() };
    let of = |counts: &Counts, key: &Key| counts.get(key).copied().unwrap_or(0);
    let unsent = answer.counts.keys().filter(|key| !expected.contains_key(*key));
    for key in expected.keys().chain(unsent) {
        let difference = Difference::of(key, of(expected, key), of(&answer.counts, key));
        if difference.excess() > 0 {
            judged.excess.push(difference);
        } else if difference.lost() > 0 {
            judged.short.push(difference);
        }
    }
    judged.excess.sort_by_key(|difference| std::cmp::Reverse(difference.excess()));
    judged.short.sort_by_key(|difference| std::cmp::Reverse(difference.lost()));
    judged
}

/// Holds one count to what was sent.
#[must_use]
pub fn judge_one(question: &Question, answer: Found) -> Judged {
    let difference = Difference {
        entity: question.entity.clone(),
        event_type: question.event_type.clone(),
        minutes: question.minutes.clone(),
        expected: question.expected,
        found: answer.count,
    };
    let (excess, short) = match (difference.excess(), difference.lost()) {
        (0, 0) => (Vec::new(), Vec::new()),
        (0, _) => (Vec::new(), vec![difference]),
        _ => (vec![difference], Vec::new()),
    };
    Judged { excess, short, complete: answer.complete, missing: answer.missing }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::canary::plan::Shape;

    fn expected() -> Counts {
        Shape::new(1, 4, 500, Duration::from_secs(60)).plan(1, 20_000_000).expected()
    }

    proptest! {
        #[test]
        fn every_change_of_a_count_is_seen_to_the_last_event(
            changes in proptest::collection::vec((any::<proptest::sample::Index>(), -3_i64..4), 0..6),
        ) {
            let expected = expected();
            let keys: Vec<Key> = expected.keys().cloned().collect();
            let mut counts = expected.clone();
            for (at, by) in changes {
                let count = counts.get_mut(at.get(&keys)).unwrap();
                *count = count.saturating_add_signed(by);
            }
            let (mut lost, mut excess) = (0, 0);
            for (key, count) in &expected {
                lost += count.saturating_sub(counts[key]);
                excess += counts[key].saturating_sub(*count);
            }
            let judged = judge(&expected, &Counted { counts: counts.clone(), complete: true, ..Counted::default() });
            prop_assert_eq!((judged.short_by(), judged.too_many()), (lost, excess));
            prop_assert_eq!(judged.is_right(), counts == expected);
        }

        #[test]
        fn one_count_is_right_or_short_or_too_high(expected in 0_u64..10, count in 0_u64..10, complete in any::<bool>()) {
            let question = Question { entity: "e".into(), event_type: "view".into(), minutes: 1..2, expected };
            let judged = judge_one(&question, Found { count, complete, ..Found::default() });
            prop_assert_eq!(judged.is_right(), complete && count == expected);
            prop_assert_eq!(judged.short_by() + expected.min(count), expected);
            prop_assert_eq!(judged.too_many() + expected.min(count), count);
        }
    }

    #[test]
    fn nothing_is_right_that_says_it_is_not_whole() {
        let counts = expected();
        assert!(!judge(&counts, &Counted { counts: counts.clone(), ..Counted::default() }).is_right());
    }

    #[test]
    fn an_event_in_another_minute_is_too_many_there_and_missing_here() {
        let expected = expected();
        let mut counts = expected.clone();
        let key = expected.keys().next().unwrap().clone();
        *counts.get_mut(&key).unwrap() -= 1;
        counts.insert(Key { minute: key.minute - 1_000, ..key.clone() }, 1);
        let judged = judge(&expected, &Counted { counts, complete: true, ..Counted::default() });
        assert_eq!((judged.short_by(), judged.too_many()), (1, 1));
        assert_eq!(judged.short[0].minutes, key.minute..key.minute + 1);
    }
}
