//! What the tasks of a counter share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use reckon_data::log::LogError;
use reckon_data::tail::Position;
use tokio::sync::{Notify, watch};

use super::CounterParts;
use super::history::History;
use super::partition::{CountError, FinishedSegment, PartitionCounter};

/// A partition's counter and its finished segments. They change together, under one lock.
#[derive(Debug)]
pub(super) struct State {
    pub(super) counter: PartitionCounter,
    pub(super) history: History,
    /// Why it is not counted any further, for good.
    pub(super) failed: Option<String>,
    /// Why its next record cannot be read, until it can.
    pub(super) stalled: Option<String>,
}

impl State {
    /// Changes it, all of it or not at all as far as anybody can see: after an error or a panic half way,
    /// [`State::failed`] is set before the lock goes.
    pub(super) fn change<T>(
        &mut self,
        change: impl FnOnce(&mut Self) -> Result<T, CountError>,
    ) -> Result<T, CountError> {
        struct Unfinished<'a>(&'a mut State);
        impl Drop for Unfinished<'_> {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    self.0.fail("counting it has panicked");
                }
            }
        }
        let unfinished = Unfinished(self);
        change(&mut *unfinished.0).inspect_err(|error| unfinished.0.fail(&error.to_string()))
    }

    /// Why it is not counted any further, be it for good or for now.
    pub(super) fn trouble(&self) -> Option<&String> {
        self.failed.as_ref().or(self.stalled.as_ref())
    }

    /// It is not counted any further. The first reason stays.
    fn fail(&mut self, reason: &str) {
        self.failed.get_or_insert_with(|| reason.to_owned());
    }
}

/// Halts the counter when the task that holds it panics: nobody looks at a task that is gone, and whoever
/// waits for its work would wait for ever.
#[derive(Debug)]
pub(super) struct HaltOnPanic(pub(super) Arc<Shared>);

impl Drop for HaltOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.halt("one of its tasks has panicked");
        }
    }
}

/// A partition.
#[derive(Debug)]
pub(super) struct Partition {
    pub(super) number: u32,
    /// Held for a record's counting at most, a millisecond or so; never across an await.
    pub(super) state: Mutex<State>,
    pub(super) end: watch::Receiver<u64>,
    /// Time spent reading and decoding records, nanoseconds.
    pub(super) decode_nanos: AtomicU64,
}

impl Partition {
    /// Where a partition in this state stands.
    pub(super) fn position(&self, state: &State) -> Position {
        let reached = state.counter.reached();
        Position {
            offset: reached.offset,
            log_time: reached.log_time,
            event_time_max: reached.event_time_max,
            sealed: state.history.sealed(),
            durable_end: *self.end.borrow(),
        }
    }

    /// The next offset to be read, which during a refill lies below the position.
    pub(super) fn next(&self) -> u64 {
        self.state.lock().counter.next()
    }
}

/// What the tasks share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) parts: CounterParts,
    /// By number; not all partitions of the log need be among them.
    pub(super) partitions: Vec<Partition>,
    /// Stands in the summaries: who sealed them.
    pub(super) owner: String,
    /// Up to where each of them is sealed.
    pub(super) sealed: watch::Sender<Vec<u64>>,
    /// Set once, when nothing goes on any more, with the reason.
    pub(super) halted: watch::Sender<Option<String>>,
    /// Up to where somebody waits for each partition to be sealed.
    wanted: Mutex<Vec<u64>>,
    stopping: watch::Sender<bool>,
    /// A segment has ended, or somebody waits for a seal.
    pub(super) seal_soon: Notify,
    /// A segment has ended or was sealed: there may be something to tidy up.
    pub(super) keep_soon: Notify,
    pub(super) seals: AtomicU64,
    pub(super) seal_nanos: AtomicU64,
}

impl Shared {
    pub(super) fn new(parts: CounterParts, recovered: Vec<(PartitionCounter, History)>) -> Result<Self, LogError> {
        let sealed: Vec<u64> = recovered.iter().map(|(_, history)| history.sealed()).collect();
        let mut partitions = Vec::with_capacity(recovered.len());
        for (number, (counter, history)) in parts.partitions.iter().copied().zip(recovered) {
            partitions.push(Partition {
                number,
                state: Mutex::new(State { counter, history, failed: None, stalled: None }),
                end: parts.log.watch_end(number)?,
                decode_nanos: AtomicU64::new(0),
            });
        }
        Ok(Self {
            owner: parts.names.fresh().to_string(),
            wanted: Mutex::new(vec![0; partitions.len()]),
            sealed: watch::Sender::new(sealed),
            halted: watch::Sender::new(None),
            stopping: watch::Sender::new(false),
            seal_soon: Notify::new(),
            keep_soon: Notify::new(),
            seals: AtomicU64::new(0),
            seal_nanos: AtomicU64::new(0),
            partitions,
            parts,
        })
    }

    /// A partition, if it is counted here.
    pub(super) fn of(&self, number: u32) -> Option<&Partition> {
        let at = self.partitions.binary_search_by_key(&number, |partition| partition.number).ok()?;
        self.partitions.get(at)
    }

    /// Those of the offsets, one for each partition of the log, that are of partitions counted here.
    pub(super) fn own(&self, offsets: &[u64]) -> Vec<u64> {
        let offset = |partition: &Partition| offsets.get(partition.number as usize).copied().unwrap_or(0);
        self.partitions.iter().map(offset).collect()
    }

    /// No task begins anything new.
    pub(super) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    pub(super) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Resolves when tasks are to end.
    pub(super) async fn stopped(&self) {
        // The sender lives as long as `self`.
        self.stopping.subscribe().wait_for(|stopping| *stopping).await.ok();
    }

    /// Nothing goes on any more, and whoever asks is told why. The first reason stays.
    pub(super) fn halt(&self, reason: &str) {
        self.halted.send_if_modified(|halted| {
            let first = halted.is_none();
            halted.get_or_insert_with(|| reason.to_owned());
            first
        });
        self.stop();
    }

    /// One partition is not counted any further.
    pub(super) fn fail(&self, at: usize, reason: &str) {
        if let Some(partition) = self.partitions.get(at) {
            tracing::error!(partition = partition.number, reason, "counting of a partition has stopped");
            partition.state.lock().fail(reason);
            // Whoever waits for it waits in vain.
            self.sealed.send_modify(|_| {});
            self.seal_soon.notify_one();
        }
    }

    /// The next record of a partition cannot be read: it is not counted any further, unless a later try can.
    pub(super) fn stall(&self, partition: &Partition, reason: &str) {
        let before = partition.state.lock().stalled.replace(reason.to_owned());
        // Once a record: it may stay so for long.
        if before.as_deref() != Some(reason) {
            tracing::error!(
                partition = partition.number,
                reason,
                "counting of a partition has stopped, and is tried again"
            );
            // Whoever waits for it waits in vain.
            self.sealed.send_modify(|_| {});
            self.seal_soon.notify_one();
        }
    }

    /// All segments that have ended and are not sealed, by partition and start.
    pub(super) fn unsealed(&self) -> Vec<FinishedSegment> {
        self.partitions.iter().flat_map(|partition| partition.state.lock().history.unsealed()).collect()
    }

    /// Bytes of segments that memory may take.
    pub(super) fn memory_max(&self) -> usize {
        usize::try_from(self.parts.settings.memory.as_u64()).unwrap_or(usize::MAX)
    }

    /// Bytes of segments that are not sealed, and of all.
    pub(super) fn memory(&self) -> (usize, usize) {
        self.partitions.iter().fold((0, 0), |(unsealed, all), partition| {
            let memory = partition.state.lock().history.memory();
            (unsealed + memory.unsealed, all + memory.unsealed + memory.sealed)
        })
    }

    /// Somebody waits until everything below `offsets` is sealed.
    pub(super) fn want(&self, offsets: &[u64]) {
        for (wanted, offset) in self.wanted.lock().iter_mut().zip(offsets) {
            *wanted = (*wanted).max(*offset);
        }
        self.seal_soon.notify_one();
    }

    /// A batch run, perhaps of another process, waits until everything below a cut is sealed.
    pub(super) fn cut(&self, at: usize, offset: u64) {
        if let Some(wanted) = self.wanted.lock().get_mut(at) {
            *wanted = (*wanted).max(offset);
        }
        self.seal_soon.notify_one();
    }

    /// Whether to seal at once: what somebody waits for has ended, in all partitions that are still counted, or
    /// what is not sealed takes half the memory.
    pub(super) fn must_seal(&self) -> bool {
        if self.memory().0 > self.memory_max() / 2 {
            return true;
        }
        let wanted = self.wanted.lock().clone();
        let mut any = false;
        for (partition, wanted) in self.partitions.iter().zip(wanted) {
            let state = partition.state.lock();
            if state.history.sealed() < wanted && state.trouble().is_none() {
                if state.history.end() < wanted {
                    return false;
                }
                any = true;
            }
        }
        any
    }

    pub(super) fn spent(nanos: &AtomicU64) -> Duration {
        Duration::from_nanos(nanos.load(Ordering::Relaxed))
    }

    pub(super) fn spend(nanos: &AtomicU64, time: Duration) {
        nanos.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The partitions' segments, sealed up to the last of these.
    pub(super) fn mark_sealed(&self, segments: &[FinishedSegment]) {
        for FinishedSegment { summary, .. } in segments {
            if let Some(partition) = self.of(summary.partition) {
                partition.state.lock().history.seal(summary);
            }
        }
        let sealed = self.partitions.iter().map(|partition| partition.state.lock().history.sealed()).collect();
        self.sealed.send_replace(sealed);
        self.keep_soon.notify_one();
    }

    /// The rules that the log is counted by.
    pub(super) fn definition(&self) -> &Arc<reckon_data::definition::Definition> {
        &self.parts.definition
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::super::partition::Rules;
    use super::*;

    fn state() -> State {
        let rules = Rules { dedup_minutes: 3, segment_events: 1_000, definition: Arc::default() };
        State { counter: PartitionCounter::new(0, rules), history: History::default(), failed: None, stalled: None }
    }

    #[test]
    fn what_is_half_changed_has_failed() {
        let mut state = state();
        assert!(state.change(|_| Ok(())).is_ok());
        assert_eq!(state.failed, None);
        let refused = CountError::NotRefilled { partition: 0, offset: 7 };
        let reason = refused.to_string();
        assert!(state.change(|_| Err::<(), _>(refused)).is_err());
        assert_eq!(state.failed.as_ref(), Some(&reason));
        assert!(
            catch_unwind(AssertUnwindSafe(|| state.change(|_| -> Result<(), _> { panic!("as it should") }))).is_err()
        );
        assert_eq!(state.failed, Some(reason), "the first reason stays");
    }

    #[test]
    fn a_panic_half_way_is_a_failure_too() {
        let mut state = state();
        assert!(
            catch_unwind(AssertUnwindSafe(|| state.change(|_| -> Result<(), _> { panic!("as it should") }))).is_err()
        );
        assert_eq!(state.failed.as_deref(), Some("counting it has panicked"));
    }
}
