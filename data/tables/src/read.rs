//! Reading one data file: for what is small, summaries and imports above all.
//!
//! Decoding happens where the stream is polled; scans of many files belong to DataFusion. Partition
//! columns are not added: they stand in [`DataFile::partition`].

use std::sync::Arc;

use arrow::array::{Int32Array, Int64Array, RecordBatch};
use arrow::compute::and;
use arrow::compute::kernels::cmp::eq;
use futures::TryStreamExt as _;
use futures::stream::BoxStream;
use object_store::ObjectStore;
use object_store::path::Path;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowPredicateFn, RowFilter};
#[allow(deprecated, reason = "its successor is to write the same by hand; small reads need no more")]
use parquet::arrow::async_reader::ParquetObjectReader;
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use reckon_data::table::{DataFile, Table, TableError};

use crate::format::{storage, unusable};
use crate::store::Storage;

/// Batches of a file, as they are read.
pub type Batches = BoxStream<'static, Result<RecordBatch, TableError>>;

/// Reads a file batch by batch, only the named columns if some are named.
///
/// # Errors
/// [`TableError::Storage`] if the store fails or the file is damaged, [`TableError::Unusable`] if it
/// has no such column.
pub async fn stream_file(
    store: Arc<dyn ObjectStore>,
    table: Table,
    file: &DataFile,
    columns: Option<&[&str]>,
) -> Result<Batches, TableError> {
    batches(store, table, Storage::path(table, &file.path), file.bytes, columns).await
}

/// Reads a file whole.
///
/// # Errors
/// As [`stream_file`]; and [`TableError::Storage`] if the file does not hold as many rows as the table says.
pub async fn read_file(
    store: Arc<dyn ObjectStore>,
    table: Table,
    file: &DataFile,
) -> Result<Vec<RecordBatch>, TableError> {
    let batches: Vec<RecordBatch> = stream_file(store, table, file, None).await?.try_collect().await?;
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    if rows as u64 != file.rows {
        return Err(storage(table, format!("file {} holds {rows} rows, not {}", file.path, file.rows)));
    }
    Ok(batches)
}

/// The rows of a file of raw events or dead letters that one record of the log has become.
///
/// # Errors
/// As [`stream_file`].
pub async fn rows_at(
    store: Arc<dyn ObjectStore>,
    table: Table,
    file: &DataFile,
    partition: i32,
    offset: i64,
) -> Result<Vec<RecordBatch>, TableError> {
    let failed = |error: parquet::errors::ParquetError| storage(table, format!("file {}: {error}", file.path));
    #[allow(deprecated, reason = "see the import")]
    let reader = ParquetObjectReader::new(store, Storage::path(table, &file.path)).with_file_size(file.bytes);
    let builder = ParquetRecordBatchStreamBuilder::new(reader).await.map_err(failed)?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), ["log_partition", "log_offset"]);
    let is_there = ArrowPredicateFn::new(mask, move |batch| {
        let of_partition = eq(batch.column(0), &Int32Array::new_scalar(partition))?;
        and(&of_partition, &eq(batch.column(1), &Int64Array::new_scalar(offset))?)
    });
    let stream = builder.with_row_filter(RowFilter::new(vec![Box::new(is_there)])).build().map_err(failed)?;
    stream.map_err(failed).try_collect().await
}

pub(crate) async fn batches(
    store: Arc<dyn ObjectStore>,
    table: Table,
    path: Path,
    bytes: u64,
    columns: Option<&[&str]>,
) -> Result<Batches, TableError> {
    let name = path.to_string();
    let failed = move |error: parquet::errors::ParquetError| storage(table, format!("file {name}: {error}"));
    #[allow(deprecated, reason = "see the import")]
    let reader = ParquetObjectReader::new(store, path.clone()).with_file_size(bytes);
    let mut builder = ParquetRecordBatchStreamBuilder::new(reader).await.map_err(failed.clone())?;
    if let Some(columns) = columns {
        let wanted = columns.iter().map(|column| {
            let found = builder.schema().index_of(column);
            found.map_err(|_| unusable(table, format!("file {path} has no column {column}")))
        });
        let wanted = wanted.collect::<Result<Vec<usize>, TableError>>()?;
        let mask = ProjectionMask::roots(builder.parquet_schema(), wanted);
        builder = builder.with_projection(mask);
    }
    let stream = builder.build().map_err(failed.clone())?;
    Ok(Box::pin(stream.map_err(failed)))
}
