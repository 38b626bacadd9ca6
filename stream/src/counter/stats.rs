//! How a counter does, for metrics and for the bench.

use std::sync::atomic::Ordering;
use std::time::Duration;

use reckon_data::tail::Position;

use super::history::Memory;
use super::partition::Totals;
use super::shared::{Partition, Shared};

/// How a partition does.
#[derive(Debug, Clone)]
pub struct PartitionStats {
    /// The partition.
    pub partition: u32,
    /// Where it stands.
    pub position: Position,
    /// Records in the log that are not counted yet.
    pub lag_records: u64,
    /// Records still to be read before counting goes on after a start.
    pub refill_records: u64,
    /// What was counted since the start, and the time that took.
    pub totals: Totals,
    /// Time spent reading and decoding records.
    pub decode: Duration,
    /// Keys in the dedup set.
    pub dedup_keys: usize,
    /// Bytes of the dedup set.
    pub dedup_bytes: usize,
    /// Events that hash collisions are expected to have dropped since the start.
    pub expected_collisions: f64,
    /// Bytes of the open segment.
    pub open_bytes: usize,
    /// Finished segments.
    pub history: Memory,
    /// Why it is not counted any further, for good.
    pub failed: Option<String>,
    /// Why it is not counted any further for now: the counter goes on by itself once the log can be read.
    pub stalled: Option<String>,
}

impl PartitionStats {
    /// Why it is not counted any further, be it for good or for now.
    #[must_use]
    pub fn trouble(&self) -> Option<&String> {
        self.failed.as_ref().or(self.stalled.as_ref())
    }
}

/// How a counter does.
#[derive(Debug, Clone)]
pub struct CounterStats {
    /// Its partitions.
    pub partitions: Vec<PartitionStats>,
    /// Seals committed since the start.
    pub seals: u64,
    /// Time spent sealing.
    pub seal: Duration,
    /// Why nothing goes on any more.
    pub halted: Option<String>,
}

impl CounterStats {
    pub(super) fn of(shared: &Shared) -> Self {
        Self {
            partitions: shared.partitions.iter().map(PartitionStats::of).collect(),
            seals: shared.seals.load(Ordering::Relaxed),
            seal: Shared::spent(&shared.seal_nanos),
            halted: shared.halted.borrow().clone(),
        }
    }

    /// Bytes of memory that segments and dedup sets take.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let of = |p: &PartitionStats| p.dedup_bytes + p.open_bytes + p.history.sealed + p.history.unsealed;
        self.partitions.iter().map(of).sum()
    }

    /// All partitions added up.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.partitions.iter().fold(Totals::default(), |sum, partition| {
            let Totals { records, counted, duplicate, dead, dedup, group } = partition.totals;
            Totals {
                records: sum.records + records,
                counted: sum.counted + counted,
                duplicate: sum.duplicate + duplicate,
                dead: sum.dead + dead,
                dedup: sum.dedup + dedup,
                group: sum.group + group,
            }
        })
    }
}

impl PartitionStats {
    fn of(partition: &Partition) -> Self {
        let mut state = partition.state.lock();
        let position = partition.position(&state);
        let (dedup_keys, dedup_bytes, expected_collisions) = {
            let dedup = state.counter.dedup();
            (dedup.len(), dedup.memory_bytes(), dedup.expected_collisions())
        };
        Self {
            partition: partition.number,
            position,
            lag_records: position.durable_end.saturating_sub(position.offset),
            refill_records: position.offset.saturating_sub(state.counter.next()),
            totals: state.counter.totals(),
            decode: Shared::spent(&partition.decode_nanos),
            dedup_keys,
            dedup_bytes,
            expected_collisions,
            open_bytes: state.counter.open_mut().memory_bytes(),
            history: state.history.memory(),
            failed: state.failed.clone(),
            stalled: state.stalled.clone(),
        }
    }
}
