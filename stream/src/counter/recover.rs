//! Where to go on: what was sealed, from where to refill, and which segments batch has not covered. And what is
//! gone: where the log drops records by itself, counting goes on behind them.

#![allow(deprecated, reason = "ParquetObjectReader has no successor that is more than an example")]

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::error::ArrowError;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStore;
use object_store::path::Path;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowPredicateFn, RowFilter};
use parquet::arrow::async_reader::{ParquetObjectReader, ParquetRecordBatchStreamBuilder};
use reckon_data::damage::Damaged;
use reckon_data::invariant::DURABILITY;
use reckon_data::paths::Transaction;
use reckon_data::segment::Summary;
use reckon_data::table::{Commit, DataFile, Snapshot, Step, Table};
use uuid::Uuid;

use super::CounterParts;
use super::error::CounterError;
use super::file::{SUMMARY_COLUMNS, places, summaries};
use super::history::History;
use super::partition::{PartitionCounter, Rules};
use super::seal::version;

/// Files looked into at once.
const FILES_AT_ONCE: usize = 8;

/// A segment that lies in a file.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) summary: Summary,
    pub(super) file: Arc<DataFile>,
}

/// What a counter starts from.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) partitions: Vec<(PartitionCounter, History)>,
    /// The segments above coverage, to be loaded.
    pub(super) segments: Vec<Stored>,
}

/// Reads where to go on.
pub(super) async fn recover(parts: &CounterParts) -> Result<Recovered, CounterError> {
    let log = parts.log.identity();
    let stream = parts.tables.snapshot(Table::StreamCounts).await?;
    same_log(&stream, log)?;
    let batch = parts.tables.snapshot(Table::BatchCounts).await?;
    let numbers = parts.partitions.iter().copied();
    let standing =
        |snapshot: &Snapshot, name: Transaction| u64::try_from(snapshot.transaction(&name.to_string())).unwrap_or(0);
    let mut sealed: Vec<u64> = numbers.clone().map(|p| standing(&stream, Transaction::Stream(log, p))).collect();
    let mut extents = Vec::new();
    for number in numbers.clone() {
        extents.push(parts.log.extent(number).await?);
    }
    if parts.log.drops_by_itself() {
        go_on_behind_gaps(parts, &mut sealed, &extents).await?;
    }
    let coverage: Vec<u64> = numbers.clone().map(|p| standing(&batch, Transaction::Batch(log, p))).collect();

    // The file of a partition's last segment is needed even if coverage has passed it.
    let from = coverage.iter().zip(&sealed).map(|(coverage, sealed)| *coverage.min(sealed)).min().unwrap_or(0);
    let mut stored = read_summaries(parts, &stream, from).await?;
    let window = parts.settings.dedup_minutes;
    let last_fills =
        |(number, sealed)| last_of(&stored, number, sealed).map_or(sealed == 0, |last| fills(last, last, window));
    if !numbers.clone().zip(sealed.iter().copied()).all(last_fills) {
        // The window was raised, or the last summary is gone: where it begins now, an older one knows.
        stored = read_summaries(parts, &stream, 0).await?;
    }
    let mut recovered = Recovered { partitions: Vec::new(), segments: Vec::new() };
    for (((number, sealed), coverage), extent) in numbers.zip(sealed).zip(coverage).zip(extents) {
        let own: Vec<&Stored> = stored.iter().filter(|stored| stored.summary.partition == number).collect();
        let last = last_of(&stored, number, sealed).map(|last| refilled_from(last, &own, window, extent.start));
        let counter = resume(parts, number, sealed, last.as_ref(), &own, &extent)?;
        let refill = last.map_or(0, |last| last.refill_offset.max(extent.start));
        let mut history = History::new(sealed, refill, coverage);
        let above: Vec<&Stored> = own.into_iter().filter(|stored| stored.summary.start >= coverage).collect();
        for (range, log_time) in tile(&above, coverage..sealed) {
            history.recover(&range, log_time);
        }
        recovered.segments.extend(above.into_iter().cloned());
        recovered.partitions.push((counter, history));
    }
    Ok(recovered)
}

/// Where the log has dropped, by itself, records that were to be counted, goes on behind them: the range is sealed without a
/// file, so that no summary covers it and answers name it as missing, until batch has passed it. `sealed` and `extents`
/// are of the partitions, in their order.
async fn go_on_behind_gaps(
    parts: &CounterParts,
    sealed: &mut [u64],
    extents: &[Range<u64>],
) -> Result<(), CounterError> {
    let log = parts.log.identity();
    let mut steps = Vec::new();
    for ((partition, sealed), extent) in parts.partitions.iter().copied().zip(sealed).zip(extents) {
        if extent.start <= *sealed {
            continue;
        }
        tracing::error!(
            partition,
            from = *sealed,
            to = extent.start,
            "records had gone from the log before they were counted: counting goes on behind them"
        );
        let name = Transaction::Stream(log, partition).to_string();
        steps.push(Step { name, from: version(*sealed)?, to: version(extent.start)? });
        *sealed = extent.start;
    }
    if steps.is_empty() {
        return Ok(());
    }
    let commit = Commit {
        table: Table::StreamCounts,
        steps,
        add: Vec::new(),
        remove: Vec::new(),
        data_change: true,
        token: parts.names.fresh(),
        operation: "go on behind a gap".to_owned(),
    };
    parts.tables.commit(commit).await?;
    Ok(())
}

/// Whatever was sealed must have come from this log.
fn same_log(stream: &Snapshot, log: Uuid) -> Result<(), CounterError> {
    match stream.other_log("stream", log) {
        Some(other) => Err(CounterError::OtherLog { sealed: other.to_owned(), log }),
        None => Ok(()),
    }
}

/// The segments between coverage and seal, without a gap: where a summary is missing, a range that serving will
/// not find whole, so that its answer says so.
fn tile(above: &[&Stored], range: Range<u64>) -> Vec<(Range<u64>, i64)> {
    let mut starts: BTreeMap<u64, &Summary> = BTreeMap::new();
    for stored in above {
        starts.insert(stored.summary.start, &stored.summary);
    }
    let mut tiles = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let next = starts.range(at..).next().map(|(_, summary)| *summary).filter(|summary| summary.end <= range.end);
        let (tile, log_time) = match next {
            Some(summary) if summary.start == at => (at..summary.end, summary.log_time.micros()),
            Some(summary) => (at..summary.start, None),
            None => (at..range.end, None),
        };
        if log_time.is_none() {
            tracing::error!(start = tile.start, end = tile.end, "stream_counts has no summary of a sealed range");
        }
        at = tile.end.max(at + 1);
        tiles.push((tile, log_time.unwrap_or(i64::MIN)));
    }
    tiles
}

/// The summary of a partition's last segment.
fn last_of(stored: &[Stored], partition: u32, sealed: u64) -> Option<&Summary> {
    let is_it = |summary: &&Summary| summary.partition == partition && summary.end == sealed;
    stored.iter().map(|stored| &stored.summary).find(is_it)
}

/// Whether the refill offset of `summary` lies far enough back for the window at the end of `last`: what came
/// before it has expired, or nothing came before it.
fn fills(summary: &Summary, last: &Summary, window: u32) -> bool {
    let oldest = last.log_time.minute().map(|minute| minute - i64::from(window));
    summary.refill_log_time.minute().is_none_or(|before| oldest.is_some_and(|oldest| before < oldest))
}

/// The last summary, with a refill offset that suits the window: it was taken with the window of its time, and
/// when that was shorter, one of an older summary lies far enough back.
fn refilled_from(last: &Summary, own: &[&Stored], window: u32, log_start: u64) -> Summary {
    if fills(last, last, window) {
        return *last;
    }
    let older = || {
        let summaries = own.iter().map(|stored| &stored.summary);
        summaries.filter(move |s| s.refill_offset >= log_start && s.refill_offset <= last.refill_offset)
    };
    let found = older().filter(|summary| fills(summary, last, window)).max_by_key(|summary| summary.refill_offset);
    if found.is_none() {
        tracing::warn!(
            partition = last.partition,
            window,
            "stream.dedup_minutes was raised, and the log does not reach that far back: until so many minutes have \
             passed, repeats of what is gone are left to batch"
        );
    }
    let from = found.or_else(|| older().min_by_key(|summary| summary.refill_offset)).unwrap_or(last);
    Summary { refill_offset: from.refill_offset, refill_log_time: from.refill_log_time, ..*last }
}

/// A counter that goes on at `sealed`, after checking that the log, which has the records of `extent`, holds what it needs.
fn resume(
    parts: &CounterParts,
    partition: u32,
    sealed: u64,
    last: Option<&Summary>,
    own: &[&Stored],
    extent: &Range<u64>,
) -> Result<PartitionCounter, CounterError> {
    let rules = Rules {
        dedup_minutes: parts.settings.dedup_minutes,
        segment_events: parts.settings.segment_events,
        definition: Arc::clone(&parts.definition),
    };
    if !DURABILITY.holds(extent.end >= sealed) {
        return Err(CounterError::Short { partition, end: extent.end, sealed });
    }
    let needed = match last {
        Some(last) => last.refill_offset,
        None if sealed == 0 => 0,
        None => extent.start.min(sealed),
    };
    if let Some(last) = last
        && extent.start > needed
        && parts.log.drops_by_itself()
    {
        return Ok(resume_late(rules, last, extent.start));
    }
    if extent.start > needed {
        return Err(CounterError::Trimmed { partition, needed, start: extent.start });
    }
    match last {
        Some(last) => return Ok(PartitionCounter::resume(rules, last)),
        None if sealed == 0 => return Ok(PartitionCounter::new(partition, rules)),
        None => {}
    }
    tracing::warn!(
        partition,
        sealed,
        "stream_counts has no summary of the last segment: more of the log is read again"
    );
    Ok(match newest(own, sealed, extent.start) {
        Some(older) => {
            let older = refilled_from(older, own, rules.dedup_minutes, extent.start);
            PartitionCounter::resume_past(rules, &older, sealed)
        }
        None => PartitionCounter::resume_without_summary(partition, rules, extent.start, sealed),
    })
}

/// A counter that goes on where the log has dropped, by itself, a part of what the dedup window is filled from.
fn resume_late(rules: Rules, last: &Summary, start: u64) -> PartitionCounter {
    let Summary { partition, refill_offset, .. } = *last;
    tracing::warn!(
        partition,
        from = refill_offset,
        to = start,
        "the dedup window is not filled from its beginning, which has gone from the log: repeats of that are left to batch"
    );
    PartitionCounter::resume_late(rules, last, start)
}

/// The newest summary that is left, of those from whose refill offset on the log still holds everything.
fn newest<'a>(own: &[&'a Stored], sealed: u64, log_start: u64) -> Option<&'a Summary> {
    let summaries = own.iter().map(|stored| &stored.summary);
    summaries.filter(|s| s.end <= sealed && s.refill_offset >= log_start).max_by_key(|s| s.end)
}

/// The summaries in all files that may hold segments which end at `from` or above.
async fn read_summaries(parts: &CounterParts, stream: &Snapshot, from: u64) -> Result<Vec<Stored>, CounterError> {
    let above = |file: &&DataFile| {
        file.max_i64("segment_end").is_none_or(|end| u64::try_from(end).is_ok_and(|end| end >= from))
    };
    let files: Vec<Arc<DataFile>> = stream.files.iter().filter(above).cloned().map(Arc::new).collect();
    let read = futures::stream::iter(files).map(|file| {
        let store = Arc::clone(&parts.store);
        async move {
            let batches = match read_batches(store, &file, &SUMMARY_COLUMNS, true).await {
                // What it held is a hole that serving names; the log and the raw events have it too.
                Err(CounterError::Damaged(damaged)) => {
                    tracing::error!(%damaged, "segments cannot be read");
                    Vec::new()
                }
                batches => batches?,
            };
            let mut stored = Vec::new();
            for batch in &batches {
                let summaries = summaries(batch).map_err(|error| unreadable(&file, &error))?;
                stored.extend(summaries.into_iter().map(|summary| Stored { summary, file: Arc::clone(&file) }));
            }
            Ok::<_, CounterError>(stored)
        }
    });
    let stored: Vec<Vec<Stored>> = read.buffered(FILES_AT_ONCE).try_collect().await?;
    Ok(stored.into_iter().flatten().collect())
}

fn unreadable(file: &DataFile, error: &(dyn std::error::Error + 'static)) -> CounterError {
    if let Some(damaged) = Damaged::cause(error) {
        return CounterError::Damaged(damaged);
    }
    CounterError::Read { path: file.path.clone(), reason: error.to_string() }
}

/// Some columns of a file of `stream_counts`, of all rows or of the summaries only.
async fn read_batches(
    store: Arc<dyn ObjectStore>,
    file: &DataFile,
    columns: &[&str],
    only_summaries: bool,
) -> Result<Vec<RecordBatch>, CounterError> {
    let mut batches = Vec::new();
    for_each_batch(store, file, columns, only_summaries, |batch| {
        batches.push(batch);
        Ok(ControlFlow::Continue(()))
    })
    .await?;
    Ok(batches)
}

/// Calls `each` with the batches of a file of `stream_counts`, one after the other, until it wants no more.
pub(super) async fn for_each_batch(
    store: Arc<dyn ObjectStore>,
    file: &DataFile,
    columns: &[&str],
    only_summaries: bool,
    mut each: impl FnMut(RecordBatch) -> Result<ControlFlow<()>, CounterError>,
) -> Result<(), CounterError> {
    let failed = |error: &(dyn std::error::Error + 'static)| unreadable(file, error);
    let full = format!("{}/{}", Table::StreamCounts.name(), file.path);
    let path = Path::parse(&full).map_err(|error| failed(&error))?;
    let reader = ParquetObjectReader::new(store, path).with_file_size(file.bytes);
    let builder = ParquetRecordBatchStreamBuilder::new(reader).await.map_err(|error| failed(&error))?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
    let kind = ProjectionMask::columns(builder.parquet_schema(), ["kind"]);
    let mut builder = builder.with_projection(mask);
    if only_summaries {
        let predicate = ArrowPredicateFn::new(kind, |batch| is_summary(&batch));
        builder = builder.with_row_filter(RowFilter::new(vec![Box::new(predicate)]));
    }
    let mut stream = builder.build().map_err(|error| failed(&error))?;
    while let Some(batch) = stream.next().await {
        if each(batch.map_err(|error| failed(&error))?)?.is_break() {
            break;
        }
    }
    Ok(())
}

fn is_summary(batch: &RecordBatch) -> Result<BooleanArray, ArrowError> {
    use arrow::array::AsArray;
    let kinds = batch.column(0).as_string::<i32>();
    Ok(kinds.iter().map(|kind| Some(kind == Some(super::file::KIND_SUMMARY))).collect())
}

/// The places of a batch's rows, see [`places`].
pub(super) fn places_of(file: &DataFile, batch: &RecordBatch) -> Result<Vec<(u32, u64, u64, bool)>, CounterError> {
    places(batch).map_err(|error| unreadable(file, &error))
}
