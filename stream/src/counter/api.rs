//! What others ask of a counter: tails and sums for serving, seals for batch.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use reckon_data::jobs::Follower;
use reckon_data::offload::offload;
use reckon_data::run::{Run, Selection, StepSums};
use reckon_data::tail::{Position, Tail, TailError, TailSum, Tails};

use super::Counter;
use super::counts::{Counts, Joins, OpenSnapshot};
use super::history::Part;
use super::partition::CountError;
use super::shared::{Partition, Shared, State};

impl Counter {
    fn partition(&self, number: u32) -> Result<&Partition, TailError> {
        let unavailable = |reason: &str| TailError::Unavailable { partition: number, reason: reason.to_owned() };
        if let Some(reason) = self.shared.halted.borrow().as_deref() {
            return Err(unavailable(reason));
        }
        self.shared.of(number).ok_or_else(|| unavailable("it is not counted here"))
    }
}

fn check(partition: &Partition, state: &State) -> Result<(), TailError> {
    match state.trouble() {
        None => Ok(()),
        Some(reason) => Err(TailError::Unavailable { partition: partition.number, reason: reason.clone() }),
    }
}

/// The runs of a tail and its ranges on disk, and what the runs of the open segment's parts are.
struct Frozen {
    runs: Vec<Arc<Run>>,
    on_disk: Vec<Range<u64>>,
    /// Parts of the open segment that should be replaced by one run.
    joined: Option<(Range<usize>, Arc<Run>)>,
    /// Whether more should be joined than is joined while somebody waits.
    more: bool,
}

/// Whether making everything a run takes next to no time: only what is counted since the last question is none yet.
fn is_light(parts: &[Part], open: &OpenSnapshot) -> bool {
    let history = parts.iter().all(|part| match part {
        Part::Memory(counts) => counts.is_frozen(),
        Part::Disk(_) => true,
    });
    history && open.parts.iter().all(Counts::is_frozen)
}

/// Makes everything a run. Heavy on CPU if something is none yet.
fn freeze(
    parts: Vec<Part>,
    open: &OpenSnapshot,
    rest: Option<reckon_data::run::RunColumns>,
) -> Result<Frozen, CountError> {
    let (mut runs, mut on_disk) = (Vec::new(), Vec::new());
    for part in parts {
        match part {
            Part::Memory(counts) => runs.push(counts.freeze()?),
            Part::Disk(range) => on_disk.push(range),
        }
    }
    let mut parts = open.parts.iter().map(Counts::freeze).collect::<Result<Vec<_>, _>>()?;
    let rows: Vec<usize> = parts.iter().map(|run| run.rows()).collect();
    let Joins { behind, now } = Joins::of(&rows);
    let joined = now.map(|range| (range.clone(), Arc::new(Run::merge(&parts[range]))));
    if let Some((range, run)) = &joined {
        parts.splice(range.clone(), [Arc::clone(run)]);
    }
    runs.extend(parts);
    if let Some(rest) = rest {
        runs.push(Arc::new(Run::from_columns(rest)?));
    }
    Ok(Frozen { runs, on_disk, joined, more: behind.is_some() })
}

#[async_trait]
impl Tails for Counter {
    fn partitions(&self) -> u32 {
        self.shared.parts.log.partitions()
    }

    async fn tail(&self, partition: u32, from: u64) -> Result<Tail, TailError> {
        let own = self.partition(partition)?;
        let (position, parts, mut open) = {
            let mut state = own.state.lock();
            check(own, &state)?;
            let parts = state.history.tail(from).ok_or(TailError::Gone { partition, from })?;
            (own.position(&state), parts, state.counter.open_mut().snapshot())
        };
        let (rest, is_light) = (open.rest.take(), is_light(&parts, &open));
        let work = move || freeze(parts, &open, rest).map(|frozen| (frozen, open));
        let unavailable = |reason: String| TailError::Unavailable { partition, reason };
        // On a busy machine another thread would begin later than this one ends.
        let frozen =
            if is_light { work() } else { offload(work).await.map_err(|error| unavailable(error.to_string()))? };
        let (frozen, open) = frozen.map_err(|error| unavailable(error.to_string()))?;
        if let Some((range, run)) = &frozen.joined {
            own.state.lock().counter.open_mut().replace(&open.parts[range.clone()], run);
        }
        if frozen.more {
            self.shared.keep_soon.notify_one();
        }
        Ok(Tail { partition, from, position, runs: frozen.runs, on_disk: frozen.on_disk })
    }

    async fn sum(&self, partition: u32, from: u64, selection: &Selection<'_>) -> Result<TailSum, TailError> {
        let own = self.partition(partition)?;
        let mut sums = StepSums::new();
        let (position, parts, open) = {
            let state = own.state.lock();
            check(own, &state)?;
            let parts = state.history.tail(from).ok_or(TailError::Gone { partition, from })?;
            (own.position(&state), parts, state.counter.sum_open(selection, &mut sums))
        };
        let mut on_disk = Vec::new();
        for part in parts {
            match part {
                Part::Memory(counts) => counts.sum(selection, &mut sums),
                Part::Disk(range) => on_disk.push(range),
            }
        }
        open.iter().for_each(|counts| counts.sum(selection, &mut sums));
        Ok(TailSum { position, cells: sums.into_cells(), on_disk })
    }

    fn position(&self, partition: u32) -> Result<Position, TailError> {
        let own = self.partition(partition)?;
        let state = own.state.lock();
        check(own, &state)?;
        Ok(own.position(&state))
    }

    fn covered(&self, partition: u32, coverage: u64) {
        if let Some(own) = self.shared.of(partition) {
            own.state.lock().history.cover(coverage, self.shared.parts.clock.now());
        }
    }
}

/// Which partition will never get to its offset, and why.
fn stuck(shared: &Shared, offsets: &[u64]) -> Option<String> {
    shared.partitions.iter().zip(offsets).find_map(|(partition, offset)| {
        let state = partition.state.lock();
        let reason = state.trouble().filter(|_| state.history.end() < *offset)?;
        Some(format!("partition {} is not counted any further: {reason}", partition.number))
    })
}

#[async_trait]
impl Follower for Counter {
    async fn reach(&self, offsets: &[u64]) -> Result<(), String> {
        let partitions = self.shared.parts.log.partitions() as usize;
        if offsets.len() != partitions {
            return Err(format!("{} offsets for {partitions} partitions", offsets.len()));
        }
        let offsets = self.shared.own(offsets);
        let mut sealed = self.shared.sealed.subscribe();
        let mut halted = self.shared.halted.subscribe();
        self.shared.want(&offsets);
        loop {
            if sealed.borrow_and_update().iter().zip(&offsets).all(|(sealed, offset)| sealed >= offset) {
                return Ok(());
            }
            if let Some(reason) = halted.borrow_and_update().as_deref() {
                return Err(format!("the counter has stopped: {reason}"));
            }
            if let Some(reason) = stuck(&self.shared, &offsets) {
                return Err(reason);
            }
            tokio::select! {
                biased;
                changed = sealed.changed() => changed.map_err(|error| error.to_string())?,
                changed = halted.changed() => changed.map_err(|error| error.to_string())?,
            }
        }
    }

    fn committed(&self) -> Vec<u64> {
        let mut committed = vec![0; self.shared.parts.log.partitions() as usize];
        for (partition, sealed) in self.shared.partitions.iter().zip(self.shared.sealed.borrow().iter()) {
            if let Some(slot) = committed.get_mut(partition.number as usize) {
                *slot = *sealed;
            }
        }
        committed
    }
}
