//! Which dates have been rolled up: counts by the minute, and later by the hour, are dropped where the settings say so.
//!
//! ```text
//! today ── minutes, hours, days ──▶ rolled/minute ── hours, days ──▶ rolled/hour ── days ──▶
//! ```
//!
//! `batch_counts` itself says how far that has gone, in two transactions that never go back: whatever the settings
//! say now, what is gone stays gone. A date before such a mark may still have those rows, until they are dropped; a date
//! behind it that has none has lost them to something else.

use crate::paths::Transaction;
use crate::run::Granularity;
use crate::table::Snapshot;

/// How far `batch_counts` has been rolled up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rolled {
    /// Dates before this one (days since 1970) may have no minutes any more.
    pub minute: i64,
    /// Dates before this one may have no hours any more.
    pub hour: i64,
}

/// Nothing of it.
impl Default for Rolled {
    fn default() -> Self {
        Self { minute: i64::MIN, hour: i64::MIN }
    }
}

impl Rolled {
    /// What a version of `batch_counts` says.
    #[must_use]
    pub fn of(counts: &Snapshot) -> Self {
        let at = |granularity| {
            let name = Transaction::Rolled(granularity).to_string();
            // Not 0, which is a date like any other.
            counts.transactions.get(&name).copied().unwrap_or(i64::MIN)
        };
        Self { minute: at(Granularity::Minute), hour: at(Granularity::Hour) }
    }

    /// Whether a date may have lost its rows of a granularity. Days it never loses.
    #[must_use]
    pub fn may_lack(self, date: i32, granularity: Granularity) -> bool {
        match granularity {
            // Hours make no minutes: before the one mark is before the other.
            Granularity::Minute => i64::from(date) < self.minute.max(self.hour),
            Granularity::Hour => i64::from(date) < self.hour,
            Granularity::Day => false,
        }
    }

    /// The finest granularity that rows of a date are made of when it has none yet.
    #[must_use]
    pub fn finest(self, date: i32) -> Granularity {
        let kept = Granularity::ALL.into_iter().find(|granularity| !self.may_lack(date, *granularity));
        kept.unwrap_or(Granularity::Day)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::table::Table;

    #[test]
    fn a_table_says_how_far_it_is_rolled_up() {
        let mut counts = Snapshot {
            table: Table::BatchCounts,
            version: 1,
            files: Arc::default(),
            transactions: BTreeMap::from([("rolled/minute".to_owned(), 100)]),
        };
        let of = |counts: &Snapshot, date: i32| Rolled::of(counts).finest(date);
        assert_eq!((of(&counts, 99), of(&counts, 100)), (Granularity::Hour, Granularity::Minute));
        counts.transactions.insert("rolled/hour".to_owned(), 40);
        assert_eq!((of(&counts, 39), of(&counts, 40)), (Granularity::Day, Granularity::Hour));
        counts.transactions.clear();
        assert_eq!((of(&counts, 39), of(&counts, -1)), (Granularity::Minute, Granularity::Minute));
    }

    #[test]
    fn a_date_without_hours_has_no_minutes_either() {
        // Both went in one step, or minutes are kept again since.
        let rolled = Rolled { hour: 40, ..Rolled::default() };
        assert_eq!(Granularity::ALL.map(|granularity| rolled.may_lack(39, granularity)), [true, true, false]);
        assert_eq!((rolled.finest(39), rolled.finest(40)), (Granularity::Day, Granularity::Minute));
    }

    #[test]
    fn days_are_kept_for_ever() {
        let rolled = Rolled { minute: 100, hour: 100 };
        assert_eq!(Granularity::ALL.map(|granularity| rolled.may_lack(5, granularity)), [true, true, false]);
    }
}
