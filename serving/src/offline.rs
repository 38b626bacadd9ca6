//! Stands in for the stream layer when no counter runs: what was sealed, and nothing after it.

use std::collections::BTreeMap;

use async_trait::async_trait;
use parking_lot::Mutex;
use reckon_data::logtime::LogTime;
use reckon_data::paths::Transaction;
use reckon_data::run::Selection;
use reckon_data::table::{Snapshot, Table, TableError, Tables};
use reckon_data::tail::{Position, Tail, TailError, TailSum, Tails};
use reckon_tables::stats::max_micros;
use uuid::Uuid;

/// The sealed segments of a data folder that no server has open.
///
/// Whatever the log holds above the last seal is not in its answers: they say, by their positions, how far
/// they go.
#[derive(Debug)]
pub struct SealedTails {
    positions: Vec<Position>,
    covered: Mutex<Vec<u64>>,
}

impl SealedTails {
    /// Reads where each of `partitions` is sealed; `log` is the log's identity.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn open(tables: &dyn Tables, log: Uuid, partitions: u32) -> Result<Self, TableError> {
        let snapshot = tables.snapshot(Table::StreamCounts).await?;
        let positions = (0..partitions).map(|partition| position(&snapshot, log, partition)).collect();
        Ok(Self { positions, covered: Mutex::new(vec![0; partitions as usize]) })
    }

    fn at(&self, partition: u32, from: u64) -> Result<Position, TailError> {
        let position = self.position(partition)?;
        if from > position.sealed {
            return Err(TailError::Gone { partition, from });
        }
        Ok(position)
    }
}

/// The logs that the tables know of, and how many partitions of each: for whoever cannot ask the log itself.
///
/// # Errors
/// When the tables cannot be read.
pub async fn logs(tables: &dyn Tables) -> Result<BTreeMap<Uuid, u32>, TableError> {
    let mut logs: BTreeMap<Uuid, u32> = BTreeMap::new();
    for table in [Table::StreamCounts, Table::BatchCounts] {
        let snapshot = tables.snapshot(table).await?;
        for (log, partition) in snapshot.transactions.keys().filter_map(|name| place(name)) {
            let partitions = logs.entry(log).or_default();
            *partitions = (*partitions).max(partition.saturating_add(1));
        }
    }
    Ok(logs)
}

/// The log and partition in a transaction's name.
fn place(name: &str) -> Option<(Uuid, u32)> {
    let (kind, rest) = name.split_once('/')?;
    let (log, partition) = rest.split_once('/')?;
    let found = (log.parse().ok()?, partition.parse().ok()?);
    matches!(kind, "stream" | "batch").then_some(found)
}

/// Offsets go as far as the seal. The durable end is set beyond it, so that a partition is never taken for
/// idle: nobody knows what else the log holds.
fn position(snapshot: &Snapshot, log: Uuid, partition: u32) -> Position {
    let sealed = snapshot.transaction(&Transaction::Stream(log, partition).to_string());
    let sealed = u64::try_from(sealed).unwrap_or(0);
    let own = snapshot.files.iter().filter(|file| {
        file.min_i64("log_partition").is_none_or(|first| first <= i64::from(partition))
            && file.max_i64("log_partition").is_none_or(|last| last >= i64::from(partition))
    });
    let event_time_max = own.filter_map(|file| max_micros(file, "event_time_max")).max().unwrap_or(i64::MIN);
    Position { offset: sealed, log_time: LogTime::UNSET, event_time_max, sealed, durable_end: sealed.saturating_add(1) }
}

#[async_trait]
impl Tails for SealedTails {
    fn partitions(&self) -> u32 {
        self.positions.len() as u32
    }

    async fn tail(&self, partition: u32, from: u64) -> Result<Tail, TailError> {
        let position = self.at(partition, from)?;
        let on_disk = if from < position.sealed { vec![from..position.sealed] } else { Vec::new() };
        Ok(Tail { partition, from, position, runs: Vec::new(), on_disk })
    }

    async fn sum(&self, partition: u32, from: u64, _: &Selection<'_>) -> Result<TailSum, TailError> {
        let Tail { position, on_disk, .. } = self.tail(partition, from).await?;
        Ok(TailSum { position, cells: Vec::new(), on_disk })
    }

    fn position(&self, partition: u32) -> Result<Position, TailError> {
        let found = self.positions.get(partition as usize).copied();
        found.ok_or_else(|| TailError::Unavailable { partition, reason: "there is no such partition".to_owned() })
    }

    fn covered(&self, partition: u32, coverage: u64) {
        if let Some(covered) = self.covered.lock().get_mut(partition as usize) {
            *covered = coverage;
        }
    }
}
