//! Sealed segments that the stream layer no longer holds in memory, read from `stream_counts`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use quick_cache::sync::Cache;
use reckon_data::invariant::EXACT_MERGE;
use reckon_data::offload::offload;
use reckon_data::run::{Run, RunBuilder};
use reckon_data::table::{DataFile, Snapshot, Table};
use tokio::sync::Semaphore;

use super::Index;
use super::cache::RunKey;
use super::load::{Columns, Wanted, whole};
use super::places::{self, Held, Place, Totals};
use crate::ServingError;
use crate::view::meet::{Missing, MissingWhat, untiled};

/// Files whose segments are remembered.
const FILES: usize = 16_384;
/// Segments that are read together.
const CHUNK: usize = 8;

/// A sealed segment: what it counts, and the files that have its rows. That is one, unless something has torn
/// it apart.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sealed {
    segment: Segment,
    files: Vec<usize>,
}

/// A sealed segment and what it counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Its offsets.
    pub offsets: Range<u64>,
    totals: Totals,
}

/// Which segments each file of `stream_counts` holds. Files never change, so this is read once a file.
#[derive(Debug)]
pub struct Segments {
    by_file: Cache<String, Arc<[(Place, Held)]>>,
    /// One load of segments at a time: the next one finds them in memory.
    turn: Semaphore,
}

impl Default for Segments {
    fn default() -> Self {
        Self { by_file: Cache::new(FILES), turn: Semaphore::new(1) }
    }
}

/// Segments of a partition that lie in the same files.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// The partition.
    pub partition: u32,
    /// They, ascending.
    pub segments: Vec<Segment>,
    /// The files that have all their rows: nearly always one.
    pub files: Vec<DataFile>,
    /// The version of the table that has them. In another one the same segments may lie in other files.
    pub version: u64,
}

/// Where the counts of some ranges lie, and what of them could not be found.
#[derive(Debug, Default)]
pub struct OnDisk {
    /// Each segment is in one of them, and none in two.
    pub chunks: Vec<Chunk>,
    /// Holes.
    pub missing: Vec<Missing>,
}

impl Segments {
    /// Where the counts of `ranges` of a partition lie, as `snapshot` has them. Segments that do not tile a range
    /// leave the whole of it out: half an overlap would count twice.
    ///
    /// # Errors
    /// When files cannot be read.
    pub async fn find(
        &self,
        index: &Index,
        snapshot: &Snapshot,
        partition: u32,
        ranges: &[Range<u64>],
    ) -> Result<OnDisk, ServingError> {
        let mut found = OnDisk::default();
        for range in ranges {
            let sealed = self.sealed(index, snapshot, partition, range).await?;
            if let Some((hole, reason)) = untiled(range, sealed.iter().map(|sealed| sealed.segment.offsets.clone())) {
                let what = MissingWhat::StreamCounts;
                found.missing.push(Missing::offsets(what, partition, hole.start, Some(hole.end), reason));
                continue;
            }
            found.chunks.extend(chunks(snapshot, partition, &sealed));
        }
        Ok(found)
    }

    /// The segments of a partition that touch a range, ascending: one without a summary is left out, one that was
    /// written twice is there twice.
    async fn sealed(
        &self,
        index: &Index,
        snapshot: &Snapshot,
        partition: u32,
        range: &Range<u64>,
    ) -> Result<Vec<Sealed>, ServingError> {
        let mut segments: BTreeMap<(u64, u64), (Held, Vec<usize>)> = BTreeMap::new();
        for (at, file) in snapshot.files.iter().enumerate().filter(|(_, file)| may_touch(file, partition, range)) {
            let places = self.by_file.get_or_insert_async(&file.path, places::read(index, file)).await?;
            let own = places
                .iter()
                .filter(|((p, start, end), _)| *p == partition && *start < range.end && *end > range.start);
            for ((_, start, end), part) in own {
                let (held, files) = segments.entry((*start, *end)).or_default();
                held.add(*part);
                if part.counts {
                    files.push(at);
                }
            }
        }
        let sealed = segments.into_iter().filter_map(|((start, end), (held, files))| {
            let segment = Segment { offsets: start..end, totals: held.totals? };
            Some(std::iter::repeat_n(Sealed { segment, files }, held.summaries as usize))
        });
        Ok(sealed.flatten().collect())
    }

    /// The counts of a chunk, a run a segment: those that are in memory, the others from the file.
    ///
    /// # Errors
    /// When a file cannot be read, or does not hold what a segment's summary says.
    pub async fn runs(&self, index: &Index, chunk: &Chunk) -> Result<Vec<Arc<Run>>, ServingError> {
        let key = |segment: &Segment| RunKey::Segment(chunk.partition, segment.offsets.start, segment.offsets.end);
        let held = || chunk.segments.iter().map(|segment| index.cache.get(key(segment))).collect::<Option<Vec<_>>>();
        if let Some(runs) = held() {
            return Ok(runs);
        }
        let _turn = self.turn.acquire().await.map_err(ServingError::internal)?;
        let mut runs = Vec::with_capacity(chunk.segments.len());
        let mut absent = Vec::new();
        for segment in &chunk.segments {
            match index.cache.get(key(segment)) {
                Some(run) => runs.push(run),
                None => absent.push(segment),
            }
        }
        let starts: Vec<u64> = absent.iter().map(|segment| segment.offsets.start).collect();
        for (segment, run) in absent.into_iter().zip(load(index, chunk, starts).await?) {
            let run = Arc::new(segment.checked(chunk.partition, run)?);
            index.cache.put(key(segment), Arc::clone(&run));
            runs.push(run);
        }
        Ok(runs)
    }
}

impl Segment {
    /// A run that is about to be taken for this segment: R-2, it counts what the summary says.
    fn checked(&self, partition: u32, run: Run) -> Result<Run, ServingError> {
        let found = Totals { counted: run.total_count(), fingerprint: run.fingerprint() };
        if EXACT_MERGE.holds(found == self.totals) {
            return Ok(run);
        }
        let Range { start, end } = self.offsets;
        Err(ServingError::internal(format!(
            "stream_counts: the rows of partition {partition}, offsets {start} to {end}, count {} events, its summary says {}",
            found.counted, self.totals.counted
        )))
    }
}

/// The segments files by files, only so many together: whoever reads them holds one chunk at a time.
fn chunks(snapshot: &Snapshot, partition: u32, sealed: &[Sealed]) -> Vec<Chunk> {
    let mut by_files: BTreeMap<&[usize], Vec<Segment>> = BTreeMap::new();
    for Sealed { segment, files } in sealed {
        by_files.entry(files).or_default().push(segment.clone());
    }
    let chunk = |files: &[usize], segments: &[Segment]| Chunk {
        partition,
        segments: segments.to_vec(),
        files: files.iter().filter_map(|file| snapshot.files.get(*file)).cloned().collect(),
        version: snapshot.version,
    };
    by_files
        .into_iter()
        .flat_map(|(files, segments)| segments.chunks(CHUNK).map(|some| chunk(files, some)).collect::<Vec<_>>())
        .collect()
}

fn may_touch(file: &DataFile, partition: u32, range: &Range<u64>) -> bool {
    let bound = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
    bound(file.min_i64("log_partition")).is_none_or(|first| first <= u64::from(partition))
        && bound(file.max_i64("log_partition")).is_none_or(|last| u64::from(partition) <= last)
        && bound(file.min_i64("segment_start")).is_none_or(|start| start < range.end)
        && bound(file.max_i64("segment_end")).is_none_or(|end| end > range.start)
}

/// The runs of some segments of a chunk, in the order of `starts` (ascending), in one pass.
async fn load(index: &Index, chunk: &Chunk, starts: Vec<u64>) -> Result<Vec<Run>, ServingError> {
    let dimensions = Arc::clone(index.files.dimensions());
    let starts: Arc<[u64]> = starts.into();
    let wanted = Wanted { entity: None, segments: Some((chunk.partition, Arc::clone(&starts))) };
    let builders: Vec<RunBuilder> = starts.iter().map(|_| RunBuilder::new()).collect();
    let add = move |builders: &mut Vec<RunBuilder>, batch: &RecordBatch| {
        let column = batch.column_by_name("segment_start");
        let from =
            whole(column.ok_or_else(|| ServingError::internal("stream_counts: a file without column segment_start"))?)?;
        let from = from.as_primitive::<Int64Type>();
        // Rows of a segment lie together.
        let mut row = 0;
        while row < batch.num_rows() {
            let start = from.value(row);
            let length = (row..batch.num_rows()).take_while(|row| from.value(*row) == start).count();
            let at = u64::try_from(start).ok().and_then(|start| starts.binary_search(&start).ok());
            let builder = at.and_then(|at| builders.get_mut(at));
            let builder = builder.ok_or_else(|| ServingError::internal("stream_counts: a row of no segment"))?;
            builder.add_batch(&batch.slice(row, length), &dimensions)?;
            row += length;
        }
        Ok(())
    };
    let files = chunk.files.clone();
    let built = index.files.fold(Table::StreamCounts, files, Columns::Placed, wanted, builders, add).await?;
    let finish = move || built.into_iter().map(|builder| Ok(builder.finish()?)).collect();
    offload(finish).await.map_err(ServingError::internal)?
}
