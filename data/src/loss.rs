//! Records that a log's own retention removed before they were archived.
//!
//! The archiver writes down how many and up to which offset in the very commit that goes on behind them
//! ([`Transaction::Lost`], [`Transaction::LostTo`]), a batch run carries both over to `batch_counts`, and answers name the
//! loss until somebody has accepted it ([`Transaction::Accepted`]).

use std::collections::BTreeMap;
use std::fmt;

use uuid::Uuid;

use crate::paths::Transaction;
use crate::table::Snapshot;

/// What of one log partition had gone before it was archived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    /// The log partition.
    pub partition: u32,
    /// How many records in all.
    pub records: u64,
    /// The offset after the last of them.
    pub to: u64,
}

impl Loss {
    /// What a version of `events` or `batch_counts` says of a partition; none if nothing was lost.
    #[must_use]
    pub fn of(snapshot: &Snapshot, log: Uuid, partition: u32) -> Option<Self> {
        let to = standing(snapshot, Transaction::LostTo(log, partition));
        let records = standing(snapshot, Transaction::Lost(log, partition));
        (to > 0).then_some(Self { partition, records, to })
    }

    /// What it says of all partitions, of whatever log.
    #[must_use]
    pub fn all(snapshot: &Snapshot) -> BTreeMap<(Uuid, u32), Self> {
        let place = |name: &str| {
            let (log, partition) = name.strip_prefix("lost_to/")?.split_once('/')?;
            Some((log.parse::<Uuid>().ok()?, partition.parse::<u32>().ok()?))
        };
        let places = snapshot.transactions.keys().filter_map(|name| place(name));
        places.filter_map(|(log, partition)| Some(((log, partition), Self::of(snapshot, log, partition)?))).collect()
    }

    /// How many lost records of a partition somebody has accepted, by a version of `batch_counts`. Not up to which offset: a
    /// table that was restored from an older copy may have lost more below the same one.
    #[must_use]
    pub fn accepted(counts: &Snapshot, log: Uuid, partition: u32) -> u64 {
        standing(counts, Transaction::Accepted(log, partition))
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { records, .. } = self;
        let (noun, pronoun) = if *records == 1 { ("record", "it was") } else { ("records", "they were") };
        write!(f, "{records} {noun} had gone from the log before {pronoun} archived")
    }
}

fn standing(snapshot: &Snapshot, transaction: Transaction) -> u64 {
    u64::try_from(snapshot.transaction(&transaction.to_string())).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::table::Table;

    #[test]
    fn what_is_lost_is_read_from_its_own_transactions() {
        let (log, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let transactions = [
            (Transaction::Archive(log, 0), 9),
            (Transaction::Lost(log, 1), 3),
            (Transaction::LostTo(log, 1), 7),
            (Transaction::Accepted(log, 1), 5),
            (Transaction::LostTo(log, 2), 0),
        ];
        let transactions = transactions.into_iter().map(|(name, at)| (name.to_string(), at)).collect();
        let snapshot = Snapshot { table: Table::Events, version: 1, files: Arc::default(), transactions };
        let loss = Loss { partition: 1, records: 3, to: 7 };
        assert_eq!(Loss::of(&snapshot, log, 1), Some(loss));
        assert_eq!((Loss::of(&snapshot, log, 0), Loss::of(&snapshot, other, 1)), (None, None));
        assert_eq!(Loss::all(&snapshot), BTreeMap::from([((log, 1), loss)]));
        assert_eq!((Loss::accepted(&snapshot, log, 1), Loss::accepted(&snapshot, log, 0)), (5, 0));
        assert_eq!(loss.to_string(), "3 records had gone from the log before they were archived");
        assert_eq!(snapshot.other_log("lost", log), None);
        assert_eq!(snapshot.other_log("lost", other), Some(log.to_string().as_str()), "`lost_to` is not of it");
    }
}
