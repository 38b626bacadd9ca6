//! Sealing: finished segments of all partitions into one file and one commit, which is the checkpoint.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use reckon_data::files::{FileError, FileWriter};
use reckon_data::offload::offload_behind;
use reckon_data::paths::{Transaction, mixed_file};
use reckon_data::run::RunError;
use reckon_data::table::{Commit, DataFile, Step, Table, TableError};

use super::error::CounterError;
use super::file::{batches, stream_schema, write_options};
use super::partition::{CountError, FinishedSegment};
use super::retry::Pauses;
use super::shared::{HaltOnPanic, Shared};

/// Seals every now and then, and when somebody waits for it, until the counter stops.
pub(super) async fn seal_on(shared: Arc<Shared>) {
    let _guard = HaltOnPanic(Arc::clone(&shared));
    loop {
        tokio::select! {
            biased;
            () = shared.stopped() => return,
            () = wait(&shared) => {}
        }
        // Not to be interrupted: `seal` looks by itself whether the counter stops.
        if let Err(error) = seal(&shared).await {
            shared.halt(&error.to_string());
            return;
        }
    }
}

/// Waits until it is time to seal.
async fn wait(shared: &Shared) {
    let due = tokio::time::sleep(shared.parts.settings.seal_every);
    tokio::pin!(due);
    loop {
        tokio::select! {
            biased;
            () = &mut due => return,
            () = shared.seal_soon.notified() => {
                if shared.must_seal() {
                    return;
                }
            }
        }
    }
}

/// Seals what has ended, when nothing is counted any more.
pub(super) async fn seal_last(shared: &Shared) {
    if shared.halted.borrow().is_some() {
        return;
    }
    if let Err(error) = seal(shared).await {
        tracing::error!(%error, "the last segments were not sealed, they will be counted again");
    }
}

/// Seals all segments that have ended. While the store fails, tries again; gives up without an error when
/// the counter stops meanwhile.
async fn seal(shared: &Shared) -> Result<(), CounterError> {
    let segments = shared.unsealed();
    if segments.is_empty() {
        return Ok(());
    }
    let begun = Instant::now();
    let Some(file) = write(shared, &segments).await? else { return Ok(()) };
    let commit = Commit {
        table: Table::StreamCounts,
        steps: steps(shared, &segments)?,
        add: vec![file],
        remove: Vec::new(),
        data_change: true,
        token: shared.parts.names.fresh(),
        operation: "seal".to_owned(),
    };
    if commit_whole(shared, &commit).await? {
        // Before anybody who waits for it is woken.
        shared.seals.fetch_add(1, Ordering::Relaxed);
        shared.mark_sealed(&segments);
        Shared::spend(&shared.seal_nanos, begun.elapsed());
    }
    Ok(())
}

/// From where to where each partition is sealed. The segments of one lie next to each other.
fn steps(shared: &Shared, segments: &[FinishedSegment]) -> Result<Vec<Step>, CounterError> {
    let mut ranges: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    for FinishedSegment { summary, .. } in segments {
        let range = ranges.entry(summary.partition).or_insert((summary.start, summary.start));
        if range.1 != summary.start {
            let (partition, expected, found) = (summary.partition, range.1, summary.start);
            return Err(CountError::Hole { partition, expected, found }.into());
        }
        range.1 = summary.end;
    }
    let log = shared.parts.log.identity();
    let step = |(partition, (from, to)): (u32, (u64, u64))| {
        Ok(Step { name: Transaction::Stream(log, partition).to_string(), from: version(from)?, to: version(to)? })
    };
    ranges.into_iter().map(step).collect()
}

/// An offset as a transaction's version.
pub(super) fn version(offset: u64) -> Result<i64, CountError> {
    i64::try_from(offset).map_err(|_| CountError::from(RunError::Overflow { column: "segment_end" }))
}

/// Writes the segments' file. None if the counter stopped before the store had it.
async fn write(shared: &Shared, segments: &[FinishedSegment]) -> Result<Option<DataFile>, CounterError> {
    let mut pauses = Pauses::new();
    loop {
        match write_once(shared, segments).await {
            Ok(file) => return Ok(Some(file)),
            // Any other error would come again.
            Err(CounterError::File(error @ FileError::Store { .. })) => {
                tracing::warn!(%error, "a seal could not be written, trying again");
                if shared.is_stopping() {
                    return Ok(None);
                }
                pauses.wait(shared).await;
            }
            Err(other) => return Err(other),
        }
    }
}

async fn write_once(shared: &Shared, segments: &[FinishedSegment]) -> Result<DataFile, CounterError> {
    let path = mixed_file("seal", shared.parts.names.fresh());
    let store = Arc::clone(&shared.parts.store);
    let mut writer =
        FileWriter::create(store, Table::StreamCounts, path, &stream_schema(), &write_options(), BTreeMap::new())?;
    for segment in segments {
        let (segment, owner) = (segment.clone(), shared.owner.clone());
        let definition = Arc::clone(shared.definition());
        let rows = offload_behind(move || batches(&segment, &definition.dimensions, &owner)).await;
        let rows = rows.map_err(CounterError::Task)??;
        for batch in &rows {
            writer.write(batch).await?;
        }
    }
    Ok(writer.close().await?)
}

/// Commits. False if the counter stopped before that was known to have succeeded.
async fn commit_whole(shared: &Shared, commit: &Commit) -> Result<bool, CounterError> {
    let mut pauses = Pauses::new();
    let mut tried = false;
    loop {
        match shared.parts.tables.commit(commit.clone()).await {
            Ok(_) => return Ok(true),
            // An earlier try may have succeeded after all, and then it is ourselves who stand in the way.
            Err(TableError::Fenced { .. }) if tried && is_committed(shared, commit).await => return Ok(true),
            Err(error @ (TableError::Fenced { .. } | TableError::Unusable { .. })) => return Err(error.into()),
            Err(error) => {
                tracing::warn!(%error, "a seal could not be committed, trying again");
                if shared.is_stopping() {
                    return Ok(false);
                }
                tried = true;
                pauses.wait(shared).await;
            }
        }
    }
}

/// Whether the table has our file, whose name nobody else has.
async fn is_committed(shared: &Shared, commit: &Commit) -> bool {
    let Ok(snapshot) = shared.parts.tables.snapshot(Table::StreamCounts).await else { return false };
    commit.add.iter().all(|file| snapshot.files.iter().any(|live| live.path == file.path))
        && commit.steps.iter().all(|step| snapshot.transaction(&step.name) == step.to)
}
