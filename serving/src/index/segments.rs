//! Sealed segments that the stream layer no longer holds in memory, read from `stream_counts`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use quick_cache::sync::Cache;
use reckon_data::offload::offload;
use reckon_data::run::{Run, RunBuilder};
use reckon_data::table::{DataFile, Snapshot, Table};
use tokio::sync::Semaphore;

use super::Index;
use super::cache::RunKey;
use super::load::{Columns, Wanted, whole};
use crate::ServingError;
use crate::view::meet::{Missing, MissingWhat, untiled};

/// Files whose segments are remembered.
const FILES: usize = 16_384;
/// Segments that are read together.
const CHUNK: usize = 8;

/// A sealed segment and the file it lies in.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sealed {
    offsets: Range<u64>,
    file: usize,
}

/// Which segments each file of `stream_counts` holds. Files never change, so this is read once a file.
#[derive(Debug)]
pub struct Segments {
    by_file: Cache<String, Arc<[Place]>>,
    /// One load of segments at a time: the next one finds them in memory.
    turn: Semaphore,
}

type Place = (u32, u64, u64);

impl Default for Segments {
    fn default() -> Self {
        Self { by_file: Cache::new(FILES), turn: Semaphore::new(1) }
    }
}

/// Segments of a partition that lie in one file.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// The partition.
    pub partition: u32,
    /// Their offsets, ascending.
    pub segments: Vec<Range<u64>>,
    /// The file.
    pub file: DataFile,
    /// The version of the table that has it. In another one the same segments may lie in another file.
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
            if let Some((hole, reason)) = untiled(range, sealed.iter().map(|segment| segment.offsets.clone())) {
                let what = MissingWhat::StreamCounts;
                found.missing.push(Missing::offsets(what, partition, hole.start, Some(hole.end), reason));
                continue;
            }
            found.chunks.extend(chunks(snapshot, partition, &sealed));
        }
        Ok(found)
    }

    /// The segments of a partition that touch a range, ascending.
    async fn sealed(
        &self,
        index: &Index,
        snapshot: &Snapshot,
        partition: u32,
        range: &Range<u64>,
    ) -> Result<Vec<Sealed>, ServingError> {
        let mut sealed = Vec::new();
        for (at, file) in snapshot.files.iter().enumerate().filter(|(_, file)| may_touch(file, partition, range)) {
            let places = self.by_file.get_or_insert_async(&file.path, read_places(index, file)).await?;
            let own =
                places.iter().filter(|(p, start, end)| *p == partition && *start < range.end && *end > range.start);
            sealed.extend(own.map(|(_, start, end)| Sealed { offsets: *start..*end, file: at }));
        }
        sealed.sort_by_key(|segment| (segment.offsets.start, segment.offsets.end));
        Ok(sealed)
    }

    /// The counts of a chunk, a run a segment: those that are in memory, the others from the file.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn runs(&self, index: &Index, chunk: &Chunk) -> Result<Vec<Arc<Run>>, ServingError> {
        let key = |segment: &Range<u64>| RunKey::Segment(chunk.partition, segment.start, segment.end);
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
        let starts: Vec<u64> = absent.iter().map(|segment| segment.start).collect();
        for (segment, run) in absent.into_iter().zip(load(index, &chunk.file, chunk.partition, starts).await?) {
            let run = Arc::new(run);
            index.cache.put(key(segment), Arc::clone(&run));
            runs.push(run);
        }
        Ok(runs)
    }
}

/// The segments file by file, only so many together: whoever reads them holds one chunk at a time.
fn chunks(snapshot: &Snapshot, partition: u32, sealed: &[Sealed]) -> Vec<Chunk> {
    let mut by_file: BTreeMap<usize, Vec<Range<u64>>> = BTreeMap::new();
    for segment in sealed {
        by_file.entry(segment.file).or_default().push(segment.offsets.clone());
    }
    let version = snapshot.version;
    let chunk = |file: &DataFile, segments: &[Range<u64>]| Chunk {
        partition,
        segments: segments.to_vec(),
        file: file.clone(),
        version,
    };
    by_file
        .into_iter()
        .filter_map(|(file, segments)| Some((snapshot.files.get(file)?, segments)))
        .flat_map(|(file, segments)| segments.chunks(CHUNK).map(|some| chunk(file, some)).collect::<Vec<_>>())
        .collect()
}

fn may_touch(file: &DataFile, partition: u32, range: &Range<u64>) -> bool {
    let bound = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
    bound(file.min_i64("log_partition")).is_none_or(|first| first <= u64::from(partition))
        && bound(file.max_i64("log_partition")).is_none_or(|last| u64::from(partition) <= last)
        && bound(file.min_i64("segment_start")).is_none_or(|start| start < range.end)
        && bound(file.max_i64("segment_end")).is_none_or(|end| end > range.start)
}

/// The segments of a file: its summary rows.
async fn read_places(index: &Index, file: &DataFile) -> Result<Arc<[Place]>, ServingError> {
    let add = |places: &mut Vec<Place>, batch: &RecordBatch| {
        let column = |name: &str| {
            let column = batch.column_by_name(name);
            column
                .cloned()
                .ok_or_else(|| ServingError::internal(format!("stream_counts: a file without column {name}")))
        };
        let kind = cast(&column("kind")?, &DataType::Utf8)?;
        let numbers =
            [whole(&column("log_partition")?)?, whole(&column("segment_start")?)?, whole(&column("segment_end")?)?];
        let [partition, start, end] = numbers.each_ref().map(|column| column.as_primitive::<Int64Type>());
        let kind = kind.as_string::<i32>();
        for row in (0..batch.num_rows())
            .filter(|row| kind.is_valid(*row) && kind.value(*row) == reckon_tables::schema::KIND_SUMMARY)
        {
            let place = || {
                let partition = u32::try_from(partition.value(row)).ok()?;
                Some((partition, u64::try_from(start.value(row)).ok()?, u64::try_from(end.value(row)).ok()?))
            };
            places
                .push(place().ok_or_else(|| ServingError::internal("stream_counts: a segment with negative offsets"))?);
        }
        Ok(())
    };
    let files = vec![file.clone()];
    let places =
        index.files.fold(Table::StreamCounts, files, Columns::Places, Wanted::default(), Vec::new(), add).await?;
    Ok(places.into())
}

/// The runs of some segments of a file, in the order of `starts` (ascending), in one pass.
async fn load(index: &Index, file: &DataFile, partition: u32, starts: Vec<u64>) -> Result<Vec<Run>, ServingError> {
    let dimensions = Arc::clone(index.files.dimensions());
    let starts: Arc<[u64]> = starts.into();
    let wanted = Wanted { entity: None, segments: Some((partition, Arc::clone(&starts))) };
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
    let files = vec![file.clone()];
    let built = index.files.fold(Table::StreamCounts, files, Columns::Placed, wanted, builders, add).await?;
    let finish = move || built.into_iter().map(|builder| Ok(builder.finish()?)).collect();
    offload(finish).await.map_err(ServingError::internal)?
}
