//! Bringing the counts above coverage back into memory after a start: the newest first, as far as they fit.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use reckon_data::invariant::EXACT_MERGE;
use reckon_data::offload::offload_future;
use reckon_data::run::{Run, RunBuilder, count_fields};
use reckon_data::segment::Summary;
use reckon_data::table::DataFile;

use super::error::CounterError;
use super::partition::CountError;
use super::recover::{Stored, for_each_batch, places_of};
use super::shared::{HaltOnPanic, Shared};

/// Loading ends when the memory is this full, in eighths: what is counted now needs room too.
const FULL_EIGHTHS: usize = 6;

type Place = (u32, u64, u64);

/// Loads segments file by file, until memory is full. What cannot be loaded stays on disk, where serving reads it.
pub(super) async fn load(shared: Arc<Shared>, segments: Vec<Stored>) {
    let _guard = HaltOnPanic(Arc::clone(&shared));
    for (file, summaries) in by_file(segments) {
        if is_over(&shared) {
            break;
        }
        let shared_too = Arc::clone(&shared);
        // Decoding Parquet is work for the processor; the waiting in between does no harm to a blocking thread.
        let loading = offload_future(async move { load_file(&shared_too, &file, &summaries).await });
        let loaded = tokio::select! {
            biased;
            // Nobody waits for a store that does not answer.
            () = shared.stopped() => return,
            loaded = loading => loaded,
        };
        if let Err(error) = loaded.map_err(CounterError::from).flatten() {
            tracing::warn!(%error, "counts could not be loaded, they will be read from disk");
        }
    }
    for partition in &shared.partitions {
        partition.state.lock().history.stop_loading();
    }
    shared.keep_soon.notify_one();
}

/// The files with their segments, those with the newest log time first.
fn by_file(segments: Vec<Stored>) -> Vec<(Arc<DataFile>, Vec<Summary>)> {
    let mut files: BTreeMap<String, (Arc<DataFile>, Vec<Summary>)> = BTreeMap::new();
    for Stored { summary, file } in segments {
        files.entry(file.path.clone()).or_insert_with(|| (file, Vec::new())).1.push(summary);
    }
    let mut files: Vec<(Arc<DataFile>, Vec<Summary>)> = files.into_values().collect();
    files.sort_by_key(|(_, summaries)| {
        std::cmp::Reverse(summaries.iter().filter_map(|summary| summary.log_time.micros()).max())
    });
    files
}

/// Whether to load no more.
fn is_over(shared: &Shared) -> bool {
    shared.is_stopping() || shared.memory().1 > shared.memory_max() / 8 * FULL_EIGHTHS
}

/// Loads segments of a file, one after the other as their rows lie, until memory is full.
async fn load_file(shared: &Shared, file: &DataFile, summaries: &[Summary]) -> Result<(), CounterError> {
    let place_of = |summary: &Summary| (summary.partition, summary.start, summary.end);
    let wanted: HashMap<Place, &Summary> = summaries.iter().map(|summary| (place_of(summary), summary)).collect();
    let fields = count_fields();
    let mut columns = vec!["kind", "log_partition", "segment_start", "segment_end"];
    columns.extend(fields.iter().map(|field| field.name().as_str()));
    let dimensions = &shared.definition().dimensions;
    let mut current: Option<(Place, RunBuilder)> = None;
    for_each_batch(Arc::clone(&shared.parts.store), file, &columns, false, |batch| {
        let places = places_of(file, &batch)?;
        let mut start = 0;
        for rows in places.chunk_by(|a, b| a == b) {
            let (partition, from, to, counts) = rows[0];
            let place = (partition, from, to);
            if current.as_ref().is_none_or(|(own, _)| *own != place) {
                finish(shared, &wanted, current.take())?;
                if is_over(shared) {
                    return Ok(ControlFlow::Break(()));
                }
                current = wanted.contains_key(&place).then(|| (place, RunBuilder::new()));
            }
            if counts && let Some((_, builder)) = &mut current {
                let part = batch.slice(start, rows.len());
                builder.add_batch(&part, dimensions).map_err(CountError::from)?;
            }
            start += rows.len();
        }
        Ok(ControlFlow::Continue(()))
    })
    .await?;
    finish(shared, &wanted, current)
}

/// Puts the segment whose rows have ended into its place.
fn finish(
    shared: &Shared,
    wanted: &HashMap<Place, &Summary>,
    ended: Option<(Place, RunBuilder)>,
) -> Result<(), CounterError> {
    let Some((place, builder)) = ended else { return Ok(()) };
    let Some(summary) = wanted.get(&place) else { return Ok(()) };
    let run = builder.finish().map_err(CountError::from)?;
    // One that is not whole stays on disk, where serving says what is wrong with it. The others are no worse for it.
    if let Err(error) = put(shared, summary, Arc::new(run)) {
        tracing::warn!(%error, "counts could not be loaded, they will be read from disk");
    }
    Ok(())
}

/// Puts a run into its place if it adds up to its summary.
fn put(shared: &Shared, summary: &Summary, run: Arc<Run>) -> Result<(), CounterError> {
    let Summary { partition, start, end, counted, fingerprint, .. } = *summary;
    if !EXACT_MERGE.holds(run.total_count() == counted && run.fingerprint() == fingerprint) {
        return Err(CountError::Totals { partition, start, end, counted, found: run.total_count() }.into());
    }
    if let Some(partition) = shared.of(partition) {
        partition.state.lock().history.load(start, end, run);
    }
    Ok(())
}
