//! Sealed segments that the stream layer no longer holds in memory, read from `stream_counts`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use quick_cache::sync::Cache;
use reckon_data::damage::Damaged;
use reckon_data::offload::offload;
use reckon_data::run::{Run, RunBuilder};
use reckon_data::table::{DataFile, Snapshot, Table};
use tokio::sync::Semaphore;

use super::Index;
use super::cache::RunKey;
use super::load::{Columns, Wanted, whole};
use super::places::{self, Content, Place};
use crate::ServingError;
use crate::view::meet::{Candidate, Missing, MissingWhat, Tiling, tile};

/// Files whose segments are remembered.
const FILES: usize = 16_384;
/// Segments that are read together.
const CHUNK: usize = 8;

/// A sealed segment, and the files that have its rows: one, unless something has torn it apart.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sealed {
    offsets: Range<u64>,
    files: Vec<usize>,
    /// The first and the last minute of its rows.
    minutes: Option<(i64, i64)>,
}

/// The segments that touch a range.
#[derive(Debug)]
struct Found {
    /// They, ascending.
    candidates: Vec<Candidate>,
    /// The files that have the rows of each.
    files: Vec<Vec<usize>>,
    /// The first and the last minute of each.
    minutes: Vec<Option<(i64, i64)>>,
    /// A file that may have rows too and is damaged.
    damaged: Option<Damaged>,
}

/// What a file holds, or that it is damaged.
type Held = Result<Arc<[(Place, Content)]>, Damaged>;

/// Which segments each file of `stream_counts` holds. Files never change, so this is read once a file, also if it is
/// damaged.
#[derive(Debug)]
pub struct Segments {
    by_file: Cache<String, Held>,
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
    /// Their offsets, ascending.
    pub segments: Vec<Range<u64>>,
    /// The files that have all their rows: nearly always one.
    pub files: Vec<DataFile>,
    /// The minutes of their rows, a range a segment that has any.
    pub minutes: Vec<Range<i64>>,
    /// The version of the table that has them. In another one the same segments may lie in other files.
    pub version: u64,
}

impl Chunk {
    /// All of it, for a file that has rows of it is damaged.
    pub fn missing(&self, damaged: &Damaged) -> impl Iterator<Item = Missing> {
        self.segments.iter().map(|segment| {
            let reason = damaged.to_string();
            Missing::offsets(MissingWhat::StreamCounts, self.partition, segment.start, Some(segment.end), reason)
        })
    }
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
    /// Where the counts of `ranges` of a partition lie, as `snapshot` has them: of segments that have some in `minutes`,
    /// of any when none.
    ///
    /// # Errors
    /// When files cannot be read.
    pub async fn find(
        &self,
        index: &Index,
        snapshot: &Snapshot,
        partition: u32,
        ranges: &[Range<u64>],
        minutes: Option<&Range<i64>>,
    ) -> Result<OnDisk, ServingError> {
        let mut found = OnDisk::default();
        for range in ranges {
            let Found { candidates, files, minutes: held, damaged } =
                self.candidates(index, snapshot, partition, range).await?;
            let Tiling { chosen, gaps } = tile(range, &candidates);
            found.missing.extend(gaps.into_iter().map(|(gap, reason)| {
                // What a damaged file holds, nobody knows; where something is missing, it may be that.
                let reason = damaged.as_ref().map_or(reason, ToString::to_string);
                Missing::offsets(MissingWhat::StreamCounts, partition, gap.start, Some(gap.end), reason)
            }));
            let touches = |number: &usize| match (held[*number], minutes) {
                (Some((first, last)), Some(minutes)) => first < minutes.end && minutes.start <= last,
                (_, None) => true,
                (None, Some(_)) => false,
            };
            let sealed = |number: usize| Sealed {
                offsets: candidates[number].0.clone(),
                files: files[number].clone(),
                minutes: held[number],
            };
            found.chunks.extend(chunks(snapshot, partition, chosen.into_iter().filter(touches).map(sealed)));
        }
        Ok(found)
    }

    /// The segments of a partition that touch a range, ascending, and the files that have their rows.
    async fn candidates(
        &self,
        index: &Index,
        snapshot: &Snapshot,
        partition: u32,
        range: &Range<u64>,
    ) -> Result<Found, ServingError> {
        let mut segments: BTreeMap<(u64, u64), (Content, Vec<usize>)> = BTreeMap::new();
        let mut unreadable = None;
        for (at, file) in snapshot.files.iter().enumerate().filter(|(_, file)| may_touch(file, partition, range)) {
            let held = async {
                match places::read(index, file).await {
                    Err(ServingError::Damaged { damaged }) => Ok(Err(damaged)),
                    places => places.map(Ok),
                }
            };
            let places = match self.by_file.get_or_insert_async(&file.path, held).await? {
                Ok(places) => places,
                Err(damaged) => {
                    unreadable = Some(damaged);
                    continue;
                }
            };
            let touches = |place: &Place| place.0 == partition && place.1 < range.end && place.2 > range.start;
            for ((_, start, end), part) in places.iter().filter(|(place, _)| touches(place)) {
                let (content, files) = segments.entry((*start, *end)).or_default();
                content.add(*part);
                files.extend(part.rows.map(|_| at));
            }
        }
        let mut found = Found { candidates: Vec::new(), files: Vec::new(), minutes: Vec::new(), damaged: unreadable };
        for ((start, end), (content, files)) in segments {
            found.candidates.push((start..end, broken(content)));
            found.files.push(files);
            found.minutes.push(content.minutes);
        }
        Ok(found)
    }

    /// The segment that an offset of a partition lies in, if `snapshot` still has it.
    ///
    /// # Errors
    /// When files cannot be read.
    pub async fn holding(
        &self,
        index: &Index,
        snapshot: &Snapshot,
        partition: u32,
        offset: u64,
    ) -> Result<Option<Range<u64>>, ServingError> {
        let found = self.candidates(index, snapshot, partition, &(offset..offset.saturating_add(1))).await?;
        Ok(found.candidates.into_iter().map(|(segment, _)| segment).next())
    }

    /// The counts of a chunk, a run a segment: those that are in memory, the others from the file.
    ///
    /// # Errors
    /// When a file cannot be read.
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
        for (segment, run) in absent.into_iter().zip(load(index, chunk, starts).await?) {
            let run = Arc::new(run);
            index.cache.put(key(segment), Arc::clone(&run));
            runs.push(run);
        }
        Ok(runs)
    }
}

/// Why the rows of a segment cannot be counted, if they cannot: R-2, they have to be what its summary says.
fn broken(content: Content) -> Option<String> {
    let Content { rows, counted, summaries, .. } = content;
    let rows = rows.unwrap_or(0);
    match summaries {
        0 => Some("it has no summary".to_owned()),
        1 if rows == counted => None,
        1 => Some(format!("its rows count {rows} events, its summary says {counted}")),
        _ => Some(format!("it is there {summaries} times")),
    }
}

/// The segments files by files, only so many together: whoever reads them holds one chunk at a time.
fn chunks(snapshot: &Snapshot, partition: u32, sealed: impl Iterator<Item = Sealed>) -> Vec<Chunk> {
    let mut by_files: BTreeMap<Vec<usize>, Vec<Sealed>> = BTreeMap::new();
    for segment in sealed {
        by_files.entry(segment.files.clone()).or_default().push(segment);
    }
    let chunk = |files: &[usize], segments: &[Sealed]| Chunk {
        partition,
        segments: segments.iter().map(|segment| segment.offsets.clone()).collect(),
        files: files.iter().filter_map(|file| snapshot.files.get(*file)).cloned().collect(),
        minutes: segments
            .iter()
            .filter_map(|segment| segment.minutes.map(|(first, last)| first..last.saturating_add(1)))
            .collect(),
        version: snapshot.version,
    };
    by_files
        .into_iter()
        .flat_map(|(files, segments)| segments.chunks(CHUNK).map(|some| chunk(&files, some)).collect::<Vec<_>>())
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
    let wanted = Wanted { segments: Some((chunk.partition, Arc::clone(&starts))), ..Wanted::default() };
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
    let finish = move || built.into_iter().map(super::finished).collect();
    offload(finish).await.map_err(ServingError::internal)?
}
