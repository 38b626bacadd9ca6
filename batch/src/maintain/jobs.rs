//! The jobs of maintenance that change a table: each plans from a snapshot and commits against it.

use reckon_data::damage::Damaged;
use reckon_data::minute::{MICROS_PER_DAY, date_of};
use reckon_data::paths::Transaction;
use reckon_data::table::{Commit, DataFile, Snapshot, Step, Table, TableError};

use super::error::MaintainError;
use super::plan::{self, Piece, Rules};
use super::report::Rewritten;
use super::rewrite::{Layout, rewrite};
use super::{Maintainer, Outcome};
use crate::archive::properties;
use crate::commit;

/// Bytes of files that one round of maintenance reads at the most: the rest is left for the next.
pub(super) const ROUND_BYTES_MAX: u64 = 8 << 30;
/// Largest target for a file of stream counts: a segment is found in it by looking at all of its rows.
const SEGMENTS_TARGET_MAX: u64 = 128 << 20;
/// Small files of stream counts that may lie about, for each partition.
const SEGMENT_FILES: usize = 16;
/// Small files of raw events that may lie about, for each date and partition.
const EVENT_FILES: usize = 8;

const EVENT_ORDER: &[&str] = &["entity_id", "event_time", "log_offset", "log_index"];
// A summary has no entity, and so comes before its counts.
const SEGMENT_ORDER: &[&str] =
    &["log_partition", "segment_start", "entity_id", "event_type", "minute", "country", "user_id", "ip"];

impl Maintainer {
    /// Puts the small files of raw events together, of one date (days since 1970) or of all, sorted by
    /// entity and time. A file still holds one log partition.
    ///
    /// # Errors
    /// See [`MaintainError`]; pieces committed before stay committed.
    pub async fn compact_events(&self, date: Option<i32>) -> Result<Outcome<Rewritten>, MaintainError> {
        let rules = Rules { target_bytes: self.parts.archive.file_size.as_u64(), files_min: EVENT_FILES };
        let layout = Layout {
            table: Table::Events,
            sort: EVENT_ORDER,
            together: None,
            options: properties::sorted_events(),
            target_bytes: rules.target_bytes,
        };
        let coverage = self.coverage().await?;
        let snapshot = self.parts.tables.snapshot(Table::Events).await?;
        let pieces = match self.cold_cutoff() {
            Some(cutoff) => plan::event_pieces(&plan::not_cold(&snapshot.files, cutoff), date, &coverage, rules),
            None => plan::event_pieces(&snapshot.files, date, &coverage, rules),
        };
        self.rewrite_all(&layout, snapshot, pieces).await
    }

    /// Puts the many small files that seals leave behind together. Every row keeps its segment, and a segment
    /// stays in one file with its summary.
    ///
    /// # Errors
    /// See [`MaintainError`]; pieces committed before stay committed.
    pub async fn compact_stream_counts(&self) -> Result<Outcome<Rewritten>, MaintainError> {
        let target_bytes = (self.parts.archive.file_size.as_u64() / 2).min(SEGMENTS_TARGET_MAX);
        let rules = Rules { target_bytes, files_min: SEGMENT_FILES };
        let layout = Layout {
            table: Table::StreamCounts,
            sort: SEGMENT_ORDER,
            together: Some("segment_start"),
            options: properties::stream_counts(),
            target_bytes,
        };
        let coverage = self.coverage().await?;
        let snapshot = self.parts.tables.snapshot(Table::StreamCounts).await?;
        let pieces = plan::segment_pieces(&snapshot.files, &coverage, rules);
        self.rewrite_all(&layout, snapshot, pieces).await
    }

    /// Removes files of stream counts whose segments have all lain below coverage for longer than the longest
    /// query. What recovery begins at stays.
    ///
    /// # Errors
    /// See [`MaintainError`].
    pub async fn drop_covered(&self) -> Result<Outcome<u64>, MaintainError> {
        let coverage = self.coverage().await?;
        let age = i64::try_from(self.parts.retention.covered_segments.as_micros()).unwrap_or(i64::MAX);
        let covered = self.history.lock().note(self.parts.clock.now(), &coverage, age);
        let snapshot = self.parts.tables.snapshot(Table::StreamCounts).await?;
        let sealed = self.offsets(&snapshot, Transaction::Stream);
        let files = plan::covered_files(&snapshot.files, &covered, &sealed);
        self.remove_files(&snapshot, files, Vec::new(), "drop covered segments").await
    }

    /// Removes raw events of dates that are older than they are kept, once they are counted; the dates are
    /// closed from then on ([`Transaction::Closed`]).
    ///
    /// # Errors
    /// See [`MaintainError`].
    pub async fn expire_events(&self) -> Result<Outcome<u64>, MaintainError> {
        let Some(cutoff) = self.cutoff(self.parts.retention.events_days) else { return Ok(Outcome::Done(0)) };
        let coverage = self.coverage().await?;
        let snapshot = self.parts.tables.snapshot(Table::Events).await?;
        let files = plan::expired_events(&snapshot.files, cutoff, &coverage);
        let name = Transaction::Closed.to_string();
        let from = snapshot.transaction(&name);
        // Never back, should days be kept longer than before: what is gone stays gone.
        let to = from.max(i64::from(cutoff));
        let closed = if from == to { Vec::new() } else { vec![Step { name, from, to }] };
        self.remove_files(&snapshot, files, closed, "expire events").await
    }

    /// Removes dead letters that are older than they are kept.
    ///
    /// # Errors
    /// See [`MaintainError`].
    pub async fn expire_dead_letters(&self) -> Result<Outcome<u64>, MaintainError> {
        let Some(cutoff) = self.cutoff(self.parts.retention.dead_letters_days) else { return Ok(Outcome::Done(0)) };
        let snapshot = self.parts.tables.snapshot(Table::DeadLetters).await?;
        let files = plan::expired_dead(&snapshot.files, cutoff);
        self.remove_files(&snapshot, files, Vec::new(), "expire dead letters").await
    }

    /// The first date (days since 1970) that is kept when `days` are.
    pub(super) fn cutoff(&self, days: Option<u32>) -> Option<i32> {
        Some(date_of(self.parts.clock.now().saturating_sub(i64::from(days?).saturating_mul(MICROS_PER_DAY))))
    }

    /// Per partition, the offset below which batch has counted everything.
    pub(super) async fn coverage(&self) -> Result<Vec<u64>, MaintainError> {
        let snapshot = self.parts.tables.snapshot(Table::BatchCounts).await?;
        Ok(self.offsets(&snapshot, Transaction::Batch))
    }

    fn offsets(&self, snapshot: &Snapshot, transaction: fn(uuid::Uuid, u32) -> Transaction) -> Vec<u64> {
        let at = |partition| snapshot.transaction(&transaction(self.parts.log, partition).to_string());
        (0..self.parts.partitions).map(|partition| u64::try_from(at(partition)).unwrap_or(0)).collect()
    }

    async fn rewrite_all(
        &self,
        layout: &Layout,
        mut snapshot: Snapshot,
        pieces: Vec<Piece>,
    ) -> Result<Outcome<Rewritten>, MaintainError> {
        let mut sum = Rewritten::default();
        for piece in pieces {
            if sum.bytes_before >= ROUND_BYTES_MAX {
                break;
            }
            let files = match rewrite(&self.means, layout, &piece).await {
                Err(error) if Damaged::cause(&error).is_some() => {
                    tracing::warn!(%error, "files are left as they are");
                    continue;
                }
                files => files?,
            };
            let count = |files: &[DataFile]| (files.len() as u64, files.iter().map(|file| file.bytes).sum());
            let ((files_before, bytes_before), (files_after, bytes_after)) = (count(&piece.files), count(&files));
            let rows = piece.files.iter().map(|file| file.rows).sum();
            let commit = self.maintain(&snapshot, files, piece.files, Vec::new(), false, "compact");
            if let Err(error) = commit::commit(&*self.parts.tables, &commit).await {
                // What was written stays: should the outcome be unknown after all, it may be live. Vacuum finds it.
                return skip_or_fail(error, sum);
            }
            sum += Rewritten { commits: 1, files_before, files_after, bytes_before, bytes_after, rows };
            // The next step begins where this one has ended.
            snapshot = self.parts.tables.snapshot(layout.table).await?;
        }
        Ok(Outcome::Done(sum))
    }

    async fn remove_files(
        &self,
        snapshot: &Snapshot,
        files: Vec<DataFile>,
        steps: Vec<Step>,
        operation: &str,
    ) -> Result<Outcome<u64>, MaintainError> {
        if files.is_empty() {
            return Ok(Outcome::Done(0));
        }
        let removed = files.len() as u64;
        let commit = self.maintain(snapshot, Vec::new(), files, steps, true, operation);
        match commit::commit(&*self.parts.tables, &commit).await {
            Ok(_) => Ok(Outcome::Done(removed)),
            Err(error) => skip_or_fail(error, 0),
        }
    }

    /// A commit that counts on the table's `maintain/…`: two of them from one snapshot cannot both win.
    pub(super) fn maintain(
        &self,
        snapshot: &Snapshot,
        add: Vec<DataFile>,
        remove: Vec<DataFile>,
        mut steps: Vec<Step>,
        data_change: bool,
        operation: &str,
    ) -> Commit {
        let name = Transaction::Maintain(snapshot.table).to_string();
        let from = snapshot.transaction(&name);
        steps.push(Step { name, from, to: from + 1 });
        let token = self.parts.names.fresh();
        Commit { table: snapshot.table, steps, add, remove, data_change, token, operation: operation.to_owned() }
    }
}

/// Somebody else's commit in between is no failure: the next round plans anew.
pub(super) fn skip_or_fail<T>(error: TableError, done: T) -> Result<Outcome<T>, MaintainError> {
    match error {
        TableError::Fenced { .. } | TableError::Conflict { .. } => Ok(Outcome::Skipped(done, error.to_string())),
        other => Err(other.into()),
    }
}
