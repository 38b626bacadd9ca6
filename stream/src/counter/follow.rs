//! Following a partition's log: read, decode, count.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;
use reckon_data::log::{LogError, Stored};
use reckon_data::offload::offload;
use reckon_data::record::{self, Body, Record};

use super::error::CounterError;
use super::partition::CountError;
use super::retry::Pauses;
use super::shared::{HaltOnPanic, Partition, Shared, State};

/// Bytes read at once when there is that much: eight full records.
const READ_BYTES: usize = 4 * 1024 * 1024;
/// So often in a row the log may fail before a partition is said to stand still: some seconds.
const FAILURES_MAX: u32 = 5;
/// How long to wait for a seal when memory is full, before looking again.
const ROOM_WAIT: Duration = Duration::from_millis(200);

/// Counts a partition until the counter stops, or until it cannot go on. At a record that cannot be read it waits, and
/// tries again now and then.
pub(super) async fn follow(shared: Arc<Shared>, at: usize) {
    let _guard = HaltOnPanic(Arc::clone(&shared));
    let followed = tokio::select! {
        biased;
        () = shared.stopped() => Ok(()),
        followed = count_on(&shared, at) => followed,
    };
    if let Err(error) = followed {
        shared.fail(at, &error.to_string());
    }
}

async fn count_on(shared: &Arc<Shared>, at: usize) -> Result<(), CounterError> {
    let Some(partition) = shared.partitions.get(at) else { return Ok(()) };
    let mut end = partition.end.clone();
    let mut pauses = Pauses::new();
    loop {
        let next = partition.next();
        if *end.borrow_and_update() <= next {
            if end.changed().await.is_err() {
                return Err(LogError::Storage("it was closed".to_owned()).into());
            }
            continue;
        }
        if shared.memory().0 > shared.memory_max() {
            // The log is the buffer: what is not sealed must fit memory.
            shared.seal_soon.notify_one();
            let mut sealed = shared.sealed.subscribe();
            tokio::time::timeout(ROOM_WAIT, sealed.changed()).await.ok();
            continue;
        }
        match read_and_count(shared, at, partition).await {
            Err(error) if error.is_of_record() => {
                if partition.next() > next {
                    pauses = Pauses::new();
                }
                shared.stall(partition, &error.to_string());
                pauses.wait(shared).await;
            }
            counted => {
                counted?;
                pauses = Pauses::new();
            }
        }
    }
}

async fn read_and_count(shared: &Arc<Shared>, at: usize, partition: &Partition) -> Result<(), CounterError> {
    let batch = read(shared, partition, partition.next()).await?;
    let shared_too = Arc::clone(shared);
    offload(move || count(&shared_too, at, &batch)).await?
}

async fn read(shared: &Shared, partition: &Partition, from: u64) -> Result<Vec<Stored>, CounterError> {
    let (mut pauses, mut failures) = (Pauses::new(), 0);
    loop {
        let begun = Instant::now();
        match shared.parts.log.read(partition.number, from, READ_BYTES).await {
            Ok(batch) => {
                Shared::spend(&partition.decode_nanos, begun.elapsed());
                return Ok(batch);
            }
            Err(LogError::Storage(reason)) => {
                tracing::warn!(partition = partition.number, from, reason, "the log cannot be read, trying again");
                failures += 1;
                if failures >= FAILURES_MAX {
                    // Answers and `/readyz` say so until it can be read again.
                    shared.stall(partition, &format!("the log cannot be read: {reason}"));
                }
                pauses.wait(shared).await;
            }
            Err(other) => return Err(other.into()),
        }
    }
}

/// Counts records; what ends goes to the history in the same moment.
fn count(shared: &Shared, at: usize, batch: &[Stored]) -> Result<(), CounterError> {
    let Some(partition) = shared.partitions.get(at) else { return Ok(()) };
    for Stored { offset, bytes } in batch {
        if shared.is_stopping() {
            return Ok(());
        }
        let begun = Instant::now();
        let record = record::decode(bytes).map_err(|source| CounterError::Record {
            partition: partition.number,
            offset: *offset,
            source,
        })?;
        Shared::spend(&partition.decode_nanos, begun.elapsed());

        let mut state = partition.state.lock();
        if state.stalled.take().is_some() {
            tracing::info!(partition = partition.number, offset, "counting of a partition goes on");
        }
        let ended = state.change(|state| take(state, *offset, &record))?;
        // Queries wait for this lock; without this they could wait for many records.
        MutexGuard::unlock_fair(state);
        if matches!(record.body, Body::Cut(_)) {
            shared.cut(at, *offset);
        }
        if ended {
            shared.keep_soon.notify_one();
            shared.seal_soon.notify_one();
        }
    }
    Ok(())
}

/// Counts a record, or refills from it; whether a segment has ended.
fn take(state: &mut State, offset: u64, record: &Record) -> Result<bool, CountError> {
    if state.counter.refill_end().is_some() {
        state.counter.refill(offset, record)?;
        return Ok(false);
    }
    let finished = state.counter.apply(offset, record)?;
    let ended = !finished.is_empty();
    finished.into_iter().for_each(|segment| state.history.push(segment));
    Ok(ended)
}
