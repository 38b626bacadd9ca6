//! Keeping memory in order: segments become runs, runs are folded, parts of open segments are joined, what is covered or too
//! much goes. Questions do not wait for any of this.

use std::sync::Arc;
use std::time::Duration;

use reckon_data::offload::{offload_behind, start_behind};
use reckon_data::run::Run;

use super::counts::{Counts, Joins};
use super::partition::CountError;
use super::shared::{HaltOnPanic, Shared};

/// How often to look, even if nothing happened.
const EVERY: Duration = Duration::from_secs(1);
/// So many rows of an open segment become a run before it ends: nobody who then asks for them waits for more to be sorted.
const SORT_ROWS: usize = 16_384;
/// A folded piece may take this part of the memory: what goes, goes whole.
const FOLD_FRACTION: usize = 8;

/// Tidies up until the counter stops.
pub(super) async fn keep(shared: Arc<Shared>) {
    let _guard = HaltOnPanic(Arc::clone(&shared));
    start_behind();
    loop {
        tokio::select! {
            biased;
            () = shared.stopped() => return,
            () = shared.keep_soon.notified() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
        let shared_too = Arc::clone(&shared);
        if let Err(error) = offload_behind(move || tidy(&shared_too)).await {
            shared.halt(&format!("tidying up failed: {error}"));
        }
    }
}

fn tidy(shared: &Shared) {
    for at in 0..shared.partitions.len() {
        if let Err(error) = freeze(shared, at) {
            shared.fail(at, &error.to_string());
        }
        fold(shared, at);
        if let Err(error) = sort(shared, at).and_then(|()| join(shared, at)) {
            shared.fail(at, &error.to_string());
        }
    }
    let now = shared.parts.clock.now();
    let keep = i64::try_from(shared.parts.retention.covered_segments.as_micros()).unwrap_or(i64::MAX);
    for partition in &shared.partitions {
        partition.state.lock().history.drop_covered(now, keep);
    }
    evict(shared);
}

fn freeze(shared: &Shared, at: usize) -> Result<(), CountError> {
    let state = &shared.partitions[at].state;
    let unfrozen = state.lock().history.unfrozen();
    for segment in unfrozen {
        if shared.is_stopping() {
            break;
        }
        let run = segment.freeze()?;
        run.prepare_leaders();
        state.lock().history.freeze(&segment.summary, &run);
    }
    Ok(())
}

fn fold(shared: &Shared, at: usize) {
    let state = &shared.partitions[at].state;
    let bytes_max = shared.memory_max() / FOLD_FRACTION;
    while !shared.is_stopping() {
        let Some(fold) = state.lock().history.plan_fold(bytes_max) else { break };
        let run = fold.run();
        run.prepare_leaders();
        state.lock().history.fold(&fold, run);
    }
}

/// Makes runs of what an open segment has counted.
fn sort(shared: &Shared, at: usize) -> Result<(), CountError> {
    let state = &shared.partitions[at].state;
    let parts = {
        let mut state = state.lock();
        state.counter.open_mut().detach_from(SORT_ROWS);
        state.counter.open_mut().parts().to_vec()
    };
    for part in parts.iter().filter(|part| !part.is_run()) {
        let run = part.freeze()?;
        run.prepare_leaders();
        state.lock().counter.open_mut().replace(std::slice::from_ref(part), &run);
    }
    Ok(())
}

/// Makes the larger parts of an open segment one, if somebody asks for them: that would take too long while a question waits.
fn join(shared: &Shared, at: usize) -> Result<(), CountError> {
    let state = &shared.partitions[at].state;
    let parts = {
        let mut state = state.lock();
        let open = state.counter.open_mut();
        if !open.was_wanted() {
            return Ok(());
        }
        open.parts().to_vec()
    };
    if !parts.iter().all(Counts::is_frozen) {
        // Whoever has wanted them is about to.
        return Ok(());
    }
    let runs = parts.iter().map(Counts::freeze).collect::<Result<Vec<_>, _>>()?;
    let rows: Vec<usize> = runs.iter().map(|run| run.rows()).collect();
    if let Some(range) = Joins::of(&rows).behind {
        let run = Arc::new(Run::merge(&runs[range.clone()]));
        run.prepare_leaders();
        state.lock().counter.open_mut().replace(&parts[range], &run);
    }
    Ok(())
}

/// Lets go of the oldest sealed pieces, whichever partition's, until the rest fits.
fn evict(shared: &Shared) {
    let mut taken = shared.memory().1;
    while taken > shared.memory_max() {
        let oldest = shared
            .partitions
            .iter()
            .filter_map(|partition| Some((partition.state.lock().history.oldest()?, partition)))
            .min_by_key(|(log_time, _)| *log_time);
        let Some((_, partition)) = oldest else { break };
        taken = taken.saturating_sub(partition.state.lock().history.evict());
    }
}
