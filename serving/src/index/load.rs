//! Count columns out of Parquet files, decoded on a blocking thread.
#![allow(deprecated, reason = "parquet's reader of object stores is to go in a later version; this one is pinned")]

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use futures::StreamExt;
use object_store::ObjectStore;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowPredicateFn, RowFilter};
use parquet::arrow::async_reader::{ParquetObjectReader, ParquetRecordBatchStreamBuilder};
use reckon_data::minute::minute_of;
use reckon_data::offload::offload_future;
use reckon_data::run::{Dimension, LATE_COLUMN};
use reckon_data::table::{DataFile, Table};
use reckon_tables::store::Storage;
use tokio::sync::Semaphore;

use super::footers::{Footers, rows_of};
use crate::ServingError;

/// Rows of a batch.
const BATCH_ROWS: usize = 8_192;
/// So many files are decoded at once.
const LOADS: usize = 2;
/// So many entities are read from files at once.
const READERS: usize = 16;

/// Which rows of a file are wanted.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// One entity only. The file's row groups are pruned by it.
    pub entity: Option<Arc<str>>,
    /// Rows of some minutes since 1970 only: an entity may have a good part of a date's rows.
    pub minutes: Option<Range<i64>>,
    /// Segments of one log partition, by their starts: rows of `stream_counts` that count.
    pub segments: Option<(u32, Arc<[u64]>)>,
}

/// Reads data files of the count tables.
#[derive(Debug, Clone)]
pub struct Files {
    store: Arc<dyn ObjectStore>,
    dimensions: Arc<[Dimension]>,
    turns: Arc<Semaphore>,
    footers: Arc<Footers>,
    /// Entities that are read from files at once: little each, so that they need not wait for whole files.
    readers: Arc<Semaphore>,
}

impl Files {
    /// Files in `store`, which is rooted at the tables' folder.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>, dimensions: Arc<[Dimension]>) -> Self {
        let (turns, readers) = (Arc::new(Semaphore::new(LOADS)), Arc::new(Semaphore::new(READERS)));
        Self { store, dimensions, turns, footers: Arc::default(), readers }
    }

    /// The dimensions that are configured, in their order.
    #[must_use]
    pub fn dimensions(&self) -> &Arc<[Dimension]> {
        &self.dimensions
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// Folds the wanted rows of some files, batch by batch, on a blocking thread.
    ///
    /// # Errors
    /// When a file cannot be read, does not hold as many rows as the table says (when all are wanted), or
    /// `fold` fails.
    pub async fn fold<T: Send + 'static>(
        &self,
        table: Table,
        files: Vec<DataFile>,
        columns: Columns,
        wanted: Wanted,
        start: T,
        fold: impl FnMut(&mut T, &RecordBatch) -> Result<(), ServingError> + Send + 'static,
    ) -> Result<T, ServingError> {
        let turns = if wanted.entity.is_some() { &self.readers } else { &self.turns };
        let turn = Arc::clone(turns).acquire_owned().await.map_err(ServingError::internal)?;
        let own = self.clone();
        let work = async move {
            let _turn = turn;
            own.fold_files(table, files, columns, &wanted, start, fold).await
        };
        offload_future(work).await.map_err(ServingError::internal)?
    }
}

/// Which columns are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Columns {
    /// Counts alone: less than half the memory of all.
    Counts,
    /// All that a run is made of.
    All,
    /// All, and the place in the log.
    Placed,
    /// The place in the log, the kind of row, its minute, and what it counts.
    Places,
    /// Counts, the place in the log where there is one, and by which definition they were counted.
    Told,
}

impl Columns {
    fn names(self, dimensions: &[Dimension]) -> Vec<&'static str> {
        let places = ["kind", "log_partition", "segment_start", "segment_end"];
        let counts = ["entity_id", "event_type", "minute", "count", "fingerprint", LATE_COLUMN];
        let counts = || counts.into_iter().chain(dimensions.iter().map(|dimension| dimension.column()));
        let all = || counts().chain(["value_count", "value_sum", "value_min", "value_max", "distinct_users"]);
        match self {
            Self::Counts => counts().collect(),
            Self::All => all().collect(),
            Self::Placed => places.into_iter().chain(all()).collect(),
            Self::Places => places.into_iter().chain(["minute", "count", "counted"]).collect(),
            Self::Told => places.into_iter().chain(counts()).chain(["definition"]).collect(),
        }
    }
}

impl Files {
    async fn fold_files<T>(
        &self,
        table: Table,
        files: Vec<DataFile>,
        columns: Columns,
        wanted: &Wanted,
        mut state: T,
        mut fold: impl FnMut(&mut T, &RecordBatch) -> Result<(), ServingError>,
    ) -> Result<T, ServingError> {
        for file in files {
            let mut builder = self.open(table, &file, wanted).await?.with_batch_size(BATCH_ROWS);
            let names = columns.names(&self.dimensions);
            let present: Vec<usize> = names.iter().filter_map(|name| builder.schema().index_of(name).ok()).collect();
            let mask = ProjectionMask::roots(builder.parquet_schema(), present);
            builder = builder.with_projection(mask);
            builder = restrict(builder, wanted);
            let mut stream = builder.build()?;
            let mut rows = 0;
            while let Some(batch) = stream.next().await {
                let batch = batch?;
                rows += batch.num_rows() as u64;
                fold(&mut state, &batch)?;
            }
            let all = wanted.entity.is_none() && wanted.minutes.is_none() && wanted.segments.is_none();
            if all && rows != file.rows {
                return Err(ServingError::internal(format!("file {} holds {rows} rows, not {}", file.path, file.rows)));
            }
        }
        Ok(state)
    }

    /// A file, ready to be read. Its footer is kept for whoever reads a few rows of it; who reads all of it reads that, too.
    async fn open(&self, table: Table, file: &DataFile, wanted: &Wanted) -> Result<Builder, ServingError> {
        let path = Storage::path(table, &file.path);
        let mut reader = ParquetObjectReader::new(Arc::clone(&self.store), path.clone()).with_file_size(file.bytes);
        if wanted.entity.is_none() {
            return Ok(ParquetRecordBatchStreamBuilder::new(reader).await?);
        }
        let footer = self.footers.of(path.as_ref(), &mut reader).await?;
        Ok(ParquetRecordBatchStreamBuilder::new_with_metadata(reader, footer))
    }
}

type Builder = ParquetRecordBatchStreamBuilder<ParquetObjectReader>;

/// Leaves out row groups and rows that are not wanted.
fn restrict(mut builder: Builder, wanted: &Wanted) -> Builder {
    let mut predicates: Vec<Box<dyn parquet::arrow::arrow_reader::ArrowPredicate>> = Vec::new();
    if let Some((partition, starts)) = &wanted.segments {
        let mask = ProjectionMask::columns(builder.parquet_schema(), ["kind", "log_partition", "segment_start"]);
        let (partition, starts) = (i64::from(*partition), Arc::clone(starts));
        predicates.push(Box::new(ArrowPredicateFn::new(mask, move |batch| in_segments(&batch, partition, &starts))));
    }
    if let Some(entity) = &wanted.entity {
        let (groups, rows) = rows_of(builder.metadata(), entity);
        builder = builder.with_row_groups(groups).with_row_selection(rows);
        let mask = ProjectionMask::columns(builder.parquet_schema(), ["entity_id"]);
        let entity = Arc::clone(entity);
        predicates.push(Box::new(ArrowPredicateFn::new(mask, move |batch| {
            let ids = cast(batch.column(0), &DataType::Utf8)?;
            let ids = ids.as_string::<i32>();
            Ok(ids.iter().map(|id| Some(id == Some(&*entity))).collect())
        })));
    }
    if let Some(minutes) = wanted.minutes.clone() {
        let mask = ProjectionMask::columns(builder.parquet_schema(), ["minute"]);
        predicates.push(Box::new(ArrowPredicateFn::new(mask, move |batch| in_minutes(&batch, &minutes))));
    }
    if predicates.is_empty() { builder } else { builder.with_row_filter(RowFilter::new(predicates)) }
}

/// Rows without a minute are left to who folds them.
fn in_minutes(batch: &RecordBatch, minutes: &Range<i64>) -> Result<BooleanArray, arrow::error::ArrowError> {
    let Some(column) = batch.column_by_name("minute") else {
        return Ok(BooleanArray::from(vec![true; batch.num_rows()]));
    };
    let micros = whole(column)?;
    let is_in = |micros: Option<i64>| micros.is_none_or(|micros| minutes.contains(&minute_of(micros)));
    Ok(micros.as_primitive::<Int64Type>().iter().map(|micros| Some(is_in(micros))).collect())
}

fn in_segments(batch: &RecordBatch, partition: i64, starts: &[u64]) -> Result<BooleanArray, arrow::error::ArrowError> {
    let column = |name: &str| {
        batch
            .column_by_name(name)
            .cloned()
            .unwrap_or_else(|| arrow::array::new_null_array(&DataType::Null, batch.num_rows()))
    };
    let kind = cast(&column("kind"), &DataType::Utf8)?;
    let (partitions, from) = (whole(&column("log_partition"))?, whole(&column("segment_start"))?);
    let (kind, partitions, from) =
        (kind.as_string::<i32>(), partitions.as_primitive::<Int64Type>(), from.as_primitive::<Int64Type>());
    let wanted = |row: usize| {
        kind.is_valid(row)
            && kind.value(row) == reckon_tables::schema::KIND_COUNT
            && partitions.is_valid(row)
            && partitions.value(row) == partition
            && from.is_valid(row)
            && u64::try_from(from.value(row)).is_ok_and(|start| starts.binary_search(&start).is_ok())
    };
    Ok((0..batch.num_rows()).map(|row| Some(wanted(row))).collect())
}

pub(super) fn whole(column: &ArrayRef) -> Result<ArrayRef, arrow::error::ArrowError> {
    cast(column, &DataType::Int64)
}
