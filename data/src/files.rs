//! Writing the Parquet data files of tables, a row group at a time.
//!
//! ```text
//! batch ──▶ FileEncoder ──finished row groups──▶ FileWriter ──parts──▶ object store
//!           (plain, CPU only)                    (async)
//! ```
//!
//! Memory holds the row group being filled and the parts under way, never the whole file. [`FileWriter`]
//! encodes on a blocking thread, so it may be awaited anywhere. Who already is on such a thread uses
//! [`FileEncoder`] and does the I/O by itself.
//!
//! A file is there only after [`FileWriter::close`]. Making it durable on a local disk is the store's part.

mod stats;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use object_store::ObjectStore;
use object_store::buffered::BufWriter;
use parquet::arrow::ArrowWriter;
pub use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::SortingColumn;
pub use parquet::file::properties::WriterPropertiesBuilder;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use tokio::io::AsyncWriteExt;

use crate::offload::offload_behind;
use crate::table::{DataFile, Table};
use stats::Stats;

/// False positives a bloom filter may have.
const BLOOM_FALSE_POSITIVES: f64 = 0.01;

static COMPRESSES: AtomicBool = AtomicBool::new(true);

/// From now on this process compresses no file. A simulation writes thousands of files of a few rows, and for such
/// ones setting up a compressor costs more than all the rest.
pub fn compress_nothing() {
    COMPRESSES.store(false, Ordering::Relaxed);
}

/// What can go wrong with a data file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file's path, partition or columns do not fit the table.
    #[error("data file {path}: {reason}")]
    Unfit {
        /// The file.
        path: String,
        /// What does not fit.
        reason: String,
    },
    /// The rows cannot be encoded.
    #[error("encoding a data file")]
    Parquet(#[from] parquet::errors::ParquetError),
    /// Statistics cannot be taken.
    #[error("statistics of a data file")]
    Arrow(#[from] arrow::error::ArrowError),
    /// The store failed.
    #[error("storing data file {path}")]
    Store {
        /// The file.
        path: String,
        /// What failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The thread that encoded it ended early.
    #[error("encoding data file {path}: {reason}")]
    Task {
        /// The file.
        path: String,
        /// What ended it.
        reason: String,
    },
    /// An earlier write failed or was given up: the file cannot be finished.
    #[error("data file {path} was given up")]
    GivenUp {
        /// The file.
        path: String,
    },
}

/// How a data file is laid out. Columns are named.
#[derive(Debug, Clone)]
pub struct WriteOptions {
    /// Compression of pages.
    pub compression: Compression,
    /// Most rows of a row group.
    pub row_group_rows: usize,
    /// Columns with few distinct values. All others are written plain.
    pub dictionary: Vec<String>,
    /// Columns with a bloom filter.
    pub bloom: Vec<String>,
    /// The columns that rows come sorted by, ascending, nulls first. Recorded, not checked.
    pub sorted_by: Vec<String>,
    /// Columns with statistics in the table's log; these and the sorted ones have statistics for each page too.
    pub stats: Vec<String>,
    /// Has the last word on how columns are encoded.
    pub tune: fn(WriterPropertiesBuilder) -> WriterPropertiesBuilder,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self {
            compression: Compression::ZSTD(ZstdLevel::default()),
            row_group_rows: 256 * 1024,
            dictionary: Vec::new(),
            bloom: Vec::new(),
            sorted_by: Vec::new(),
            stats: Vec::new(),
            tune: |properties| properties,
        }
    }
}

impl WriteOptions {
    fn properties(&self, schema: &SchemaRef) -> Result<WriterProperties, FileError> {
        let compresses = COMPRESSES.load(Ordering::Relaxed);
        let mut builder = WriterProperties::builder()
            .set_compression(if compresses { self.compression } else { Compression::UNCOMPRESSED })
            .set_max_row_group_row_count(Some(self.row_group_rows.max(1)))
            .set_created_by("reckon".to_owned())
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_dictionary_enabled(false);
        for column in &self.dictionary {
            builder = builder.set_column_dictionary_enabled(path_of(column), true);
        }
        for column in &self.bloom {
            builder = builder
                .set_column_bloom_filter_enabled(path_of(column), true)
                .set_column_bloom_filter_fpp(path_of(column), BLOOM_FALSE_POSITIVES)
                .set_column_bloom_filter_max_ndv(path_of(column), self.row_group_rows.max(1) as u64);
        }
        for column in self.stats.iter().chain(&self.sorted_by) {
            builder = builder.set_column_statistics_enabled(path_of(column), EnabledStatistics::Page);
        }
        let mut sorting = Vec::with_capacity(self.sorted_by.len());
        for column in &self.sorted_by {
            let index = i32::try_from(schema.index_of(column)?).unwrap_or(i32::MAX);
            sorting.push(SortingColumn { column_idx: index, descending: false, nulls_first: true });
        }
        let builder = builder.set_sorting_columns((!sorting.is_empty()).then_some(sorting));
        Ok((self.tune)(builder).build())
    }
}

fn path_of(column: &str) -> ColumnPath {
    ColumnPath::new(vec![column.to_owned()])
}

/// Encodes batches into the bytes of a data file. Heavy on CPU, without I/O.
#[derive(Debug)]
pub struct FileEncoder {
    writer: ArrowWriter<Vec<u8>>,
    stats: Stats,
    rows: u64,
}

/// The end of an encoded file.
#[derive(Debug)]
pub struct FileEnd {
    /// The bytes after those already taken.
    pub bytes: Bytes,
    /// Rows in the file.
    pub rows: u64,
    /// Smallest value of each column with statistics, in Delta's form.
    pub min: BTreeMap<String, serde_json::Value>,
    /// Largest.
    pub max: BTreeMap<String, serde_json::Value>,
}

impl FileEncoder {
    /// An encoder of files with such columns.
    ///
    /// # Errors
    /// When the options name a column that is not there, or ask for statistics of a type that has none.
    pub fn new(schema: &SchemaRef, options: &WriteOptions) -> Result<Self, FileError> {
        let stats = Stats::new(schema, &options.stats)?;
        let writer = ArrowWriter::try_new(Vec::new(), schema.clone(), Some(options.properties(schema)?))?;
        Ok(Self { writer, stats, rows: 0 })
    }

    /// Adds the rows of a batch.
    ///
    /// # Errors
    /// When the batch has other columns. The encoder is of no use afterwards.
    pub fn encode(&mut self, batch: &RecordBatch) -> Result<(), FileError> {
        self.stats.add(batch)?;
        self.writer.write(batch)?;
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    /// The bytes of the row groups finished since it was last asked, to be stored in this order.
    #[must_use]
    pub fn take_encoded(&mut self) -> Bytes {
        std::mem::take(self.writer.inner_mut()).into()
    }

    /// Bytes of memory that the row group being filled takes.
    #[must_use]
    pub fn in_progress_bytes(&self) -> usize {
        self.writer.memory_size()
    }

    /// About how large the file would be if it were closed now.
    #[must_use]
    pub fn file_bytes(&self) -> usize {
        self.writer.bytes_written() + self.writer.in_progress_size()
    }

    /// Finishes the file.
    ///
    /// # Errors
    /// When the last row group cannot be encoded.
    pub fn finish(mut self) -> Result<FileEnd, FileError> {
        self.writer.finish()?;
        let bytes = self.take_encoded();
        let (min, max) = self.stats.finish();
        Ok(FileEnd { bytes, rows: self.rows, min, max })
    }
}

/// Writes one data file of a table.
#[derive(Debug)]
pub struct FileWriter {
    /// None while a write is under way and after one has failed or was dropped halfway.
    encoder: Option<FileEncoder>,
    sink: BufWriter,
    path: String,
    partition: BTreeMap<String, Option<String>>,
    bytes: u64,
}

impl FileWriter {
    /// Starts the file `path`, below the table's folder, in `store`. `schema` has no partition columns: their
    /// values stand in `partition`, one for each.
    ///
    /// # Errors
    /// [`FileError::Unfit`] when path, partition or columns do not fit the table; as [`FileEncoder::new`].
    pub fn create(
        store: Arc<dyn ObjectStore>,
        table: Table,
        path: String,
        schema: &SchemaRef,
        options: &WriteOptions,
        partition: BTreeMap<String, Option<String>>,
    ) -> Result<Self, FileError> {
        let columns = table.partition_columns();
        let unfit = |reason: String| FileError::Unfit { path: path.clone(), reason };
        if !partition.keys().map(String::as_str).eq(sorted(columns)) {
            return Err(unfit(format!("table {} is partitioned by {columns:?}", table.name())));
        }
        if let Some(column) = columns.iter().find(|column| schema.index_of(column).is_ok()) {
            return Err(unfit(format!("partition column {column} stands in the path, not in the file")));
        }
        let full = format!("{}/{path}", table.name());
        let place = object_store::path::Path::parse(&full).map_err(|error| unfit(error.to_string()))?;
        let encoder = FileEncoder::new(schema, options)?;
        Ok(Self { encoder: Some(encoder), sink: BufWriter::new(store, place), path, partition, bytes: 0 })
    }

    /// Adds the rows of a batch; returns when it is encoded and finished row groups are on their way.
    ///
    /// # Errors
    /// See [`FileError`]. After one, and when the future is dropped before its end, the file cannot be finished.
    pub async fn write(&mut self, batch: &RecordBatch) -> Result<(), FileError> {
        let mut encoder = self.take_encoder()?;
        let batch = batch.clone();
        let encode = move || {
            encoder.encode(&batch)?;
            let encoded = encoder.take_encoded();
            Ok::<_, FileError>((encoder, encoded))
        };
        let (encoder, encoded) = self.run(encode).await?;
        self.put(encoded).await?;
        self.encoder = Some(encoder);
        Ok(())
    }

    /// About how large the file would be if it were closed now.
    #[must_use]
    pub fn file_bytes(&self) -> usize {
        self.encoder.as_ref().map_or(0, FileEncoder::file_bytes)
    }

    /// Finishes the file and stores it; it can be committed then.
    ///
    /// # Errors
    /// See [`FileError`]; nothing is stored then, or nothing that a table refers to.
    pub async fn close(mut self) -> Result<DataFile, FileError> {
        let encoder = self.take_encoder()?;
        let FileEnd { bytes, rows, min, max } = self.run(move || encoder.finish()).await?;
        self.put(bytes).await?;
        let stored = self.sink.shutdown().await;
        stored.map_err(|error| self.store_error(error))?;
        Ok(DataFile { path: self.path, bytes: self.bytes, rows, partition: self.partition, min, max })
    }

    /// Gives the file up and frees what the store holds of it.
    ///
    /// # Errors
    /// When the store fails; what is left of the file does no harm.
    pub async fn abort(mut self) -> Result<(), FileError> {
        let aborted = self.sink.abort().await;
        aborted.map_err(|error| self.store_error(error))
    }

    fn take_encoder(&mut self) -> Result<FileEncoder, FileError> {
        self.encoder.take().ok_or_else(|| FileError::GivenUp { path: self.path.clone() })
    }

    async fn run<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> Result<T, FileError> + Send + 'static,
    ) -> Result<T, FileError> {
        offload_behind(work).await.map_err(|reason| FileError::Task { path: self.path.clone(), reason })?
    }

    async fn put(&mut self, bytes: Bytes) -> Result<(), FileError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let length = bytes.len() as u64;
        let stored = self.sink.put(bytes).await;
        stored.map_err(|error| self.store_error(error))?;
        self.bytes += length;
        Ok(())
    }

    fn store_error(&self, error: impl std::error::Error + Send + Sync + 'static) -> FileError {
        FileError::Store { path: self.path.clone(), source: Box::new(error) }
    }
}

fn sorted<'a>(columns: &[&'a str]) -> impl Iterator<Item = &'a str> {
    let mut columns = columns.to_vec();
    columns.sort_unstable();
    columns.into_iter()
}
