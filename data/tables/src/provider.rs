//! A pinned list of a table's files, as a table of DataFusion.
//!
//! ```text
//! files ──partition values, statistics──▶ files that may match ──▶ Parquet scan
//!                                                                  (row groups, pages, late columns)
//! ```
//!
//! Nothing is listed and nothing is looked up in the Delta log: whoever pinned a [`Snapshot`] gets exactly its
//! rows, however the table goes on. Texts are read as views. Filters are never taken as settled here: DataFusion
//! evaluates them once more, so pruning can only save work.
//!
//! [`Snapshot`]: reckon_data::table::Snapshot

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::stats::Precision;
use datafusion::common::{Column, DFSchema, Result, ScalarValue, Statistics};
use datafusion::config::TableParquetOptions;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileGroup, FileGroupPartitioner, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::datasource::{TableProvider, TableType};
use datafusion::error::DataFusionError;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use object_store::ObjectStore;
use reckon_data::minute::parse_date;
use reckon_data::table::{DataFile, Table};
use serde::{Deserialize, Serialize};

use crate::schema::partition_fields;
use crate::stats::{max_micros, min_micros};
use crate::store::Storage;

/// Where the store is registered with a runtime; nobody else uses this scheme.
pub const STORE_URL: &str = "reckon://tables";
/// Scans below this many bytes are not cut into ranges.
const SPLIT_BYTES_MIN: usize = 4 * 1024 * 1024;

/// A file, or those of its row groups that begin in a range of its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// The file.
    pub file: DataFile,
    /// The range; none is the whole file. Ranges that meet cover every row group exactly once.
    pub bytes: Option<Range<u64>>,
}

impl From<DataFile> for Piece {
    fn from(file: DataFile) -> Self {
        Self { file, bytes: None }
    }
}

/// A piece with the values of the partition columns, in their order.
#[derive(Debug, Clone)]
struct Placed {
    piece: Piece,
    values: Vec<ScalarValue>,
}

/// Exactly the rows of the given files, whatever the table does meanwhile.
#[derive(Debug, Clone)]
pub struct PinnedTable {
    store: Arc<dyn ObjectStore>,
    table: Table,
    pieces: Arc<Vec<Placed>>,
    schema: TableSchema,
}

impl PinnedTable {
    /// The rows of `files`, which lie in `store` (rooted at the tables' folder). Columns are those of
    /// `file_schema` (texts as views), then the partition columns; a column that a file lacks is null there.
    ///
    /// # Errors
    /// When a file's partition values are missing or not of their type.
    pub fn new(
        store: Arc<dyn ObjectStore>,
        table: Table,
        files: Vec<DataFile>,
        file_schema: SchemaRef,
    ) -> Result<Self> {
        Self::of_pieces(store, table, files.into_iter().map(Piece::from).collect(), &file_schema)
    }

    /// The rows of `pieces`; otherwise as [`PinnedTable::new`].
    ///
    /// # Errors
    /// As there.
    pub fn of_pieces(
        store: Arc<dyn ObjectStore>,
        table: Table,
        pieces: Vec<Piece>,
        file_schema: &SchemaRef,
    ) -> Result<Self> {
        let partition: Vec<FieldRef> = partition_fields(table).into_iter().map(Arc::new).collect();
        let pieces = pieces
            .into_iter()
            .map(|piece| Ok(Placed { values: partition_values(table, &piece.file)?, piece }))
            .collect::<Result<Vec<_>>>()?;
        let schema = TableSchema::builder(with_views(file_schema)).with_table_partition_cols(partition).build();
        Ok(Self { store, table, pieces: Arc::new(pieces), schema })
    }

    /// The same with texts and bytes that are no views, for rows that go to other machines: a batch of views brings along all
    /// that the batches have that it was once cut from.
    #[must_use]
    pub fn without_views(mut self) -> Self {
        let partition = self.schema.table_partition_cols().clone();
        let fields = without_views(self.schema.file_schema());
        self.schema = TableSchema::builder(fields).with_table_partition_cols(partition).build();
        self
    }

    /// The rows of the files that `of` holds of, and those of the others.
    #[must_use]
    pub fn parted(&self, of: impl Fn(&DataFile) -> bool) -> (Self, Self) {
        let (some, others) = self.pieces.iter().cloned().partition(|placed| of(&placed.piece.file));
        let with = |pieces: Vec<Placed>| Self { pieces: Arc::new(pieces), ..self.clone() };
        (with(some), with(others))
    }

    /// The table that the files are of.
    #[must_use]
    pub const fn table(&self) -> Table {
        self.table
    }

    /// The pieces, in their order.
    pub fn pieces(&self) -> impl Iterator<Item = &Piece> {
        self.pieces.iter().map(|placed| &placed.piece)
    }

    /// The files in which some row may satisfy all of `filters`, by what their table says of them: none is read.
    ///
    /// # Errors
    /// When DataFusion cannot hold filters against it.
    pub fn may_match(&self, state: &dyn Session, filters: &[Expr]) -> Result<Vec<&DataFile>> {
        Ok(self.pruned(state, filters)?.into_iter().map(|placed| &placed.piece.file).collect())
    }

    /// How many rows there are.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.pieces.iter().map(|placed| placed.piece.file.rows).sum()
    }

    /// The pieces in which some row may satisfy all of `filters`.
    fn pruned(&self, state: &dyn Session, filters: &[Expr]) -> Result<Vec<&Placed>> {
        let all: Vec<&Placed> = self.pieces.iter().collect();
        let Some(filter) = conjunction(filters.iter().cloned()) else { return Ok(all) };
        let schema = self.schema.table_schema();
        // A filter that cannot be planned here, or says nothing of statistics, prunes nothing: DataFusion applies
        // all of them anyway.
        let predicate = state
            .create_physical_expr(filter, &DFSchema::try_from(Arc::clone(schema))?)
            .and_then(|filter| PruningPredicateBuilder::new().with_file_schema(Arc::clone(schema)).try_build(filter));
        let Ok(predicate) = predicate else { return Ok(all) };
        let bounds = Bounds { table: self.table, pieces: &all, schema };
        let keep = predicate.prune(&bounds)?;
        Ok(all.into_iter().zip(keep).filter(|(_, keep)| *keep).map(|(placed, _)| placed).collect())
    }

    fn groups(&self, state: &dyn Session, pieces: &[&Placed]) -> Vec<FileGroup> {
        let files = pieces.iter().map(|placed| self.partitioned_file(placed)).collect();
        let (partitions, whole) = (state.config().target_partitions().max(1), FileGroup::new(files));
        let evenly = FileGroupPartitioner::new()
            .with_target_partitions(partitions)
            .with_repartition_file_min_size(SPLIT_BYTES_MIN)
            .repartition_file_groups(std::slice::from_ref(&whole));
        evenly.unwrap_or_else(|| whole.split_files(partitions))
    }

    fn partitioned_file(&self, Placed { piece, values }: &Placed) -> PartitionedFile {
        let location = Storage::path(self.table, &piece.file.path);
        let mut file = PartitionedFile::new(String::new(), piece.file.bytes)
            .with_partition_values(values.clone())
            .with_statistics(Arc::new(self.statistics_of(piece)));
        file.object_meta.location = location;
        match &piece.bytes {
            Some(bytes) => file.with_range(offset(bytes.start), offset(bytes.end)),
            None => file,
        }
    }

    /// Only what is exact: DataFusion answers `count(*)` and `min` from it.
    fn statistics_of(&self, piece: &Piece) -> Statistics {
        let schema = self.schema.file_schema();
        let mut statistics = Statistics::new_unknown(schema);
        if piece.bytes.is_some() {
            return statistics;
        }
        statistics.num_rows = usize::try_from(piece.file.rows).map_or(Precision::Absent, Precision::Exact);
        for (column, field) in statistics.column_statistics.iter_mut().zip(schema.fields()) {
            if !matches!(field.data_type(), DataType::Int32 | DataType::Int64) {
                continue;
            }
            if let (Some(min), Some(max)) = (low(&piece.file, field), high(&piece.file, field)) {
                column.min_value = Precision::Exact(min);
                column.max_value = Precision::Exact(max);
            }
        }
        statistics
    }

    fn total(&self, groups: &[FileGroup]) -> Statistics {
        let mut total = Statistics::new_unknown(self.schema.table_schema());
        let rows: Option<usize> = groups
            .iter()
            .flat_map(FileGroup::iter)
            .map(|file| file.range.is_none().then(|| file.statistics.as_ref()?.num_rows.get_value().copied()).flatten())
            .sum();
        total.num_rows = match rows {
            Some(rows) => Precision::Exact(rows),
            None => usize::try_from(self.rows()).map_or(Precision::Absent, Precision::Inexact),
        };
        total
    }

    fn source(&self, state: &dyn Session) -> ParquetSource {
        let options = TableParquetOptions {
            global: state.config_options().execution.parquet.clone(),
            ..TableParquetOptions::default()
        };
        // Footers and page indexes are kept by the runtime, within its limit.
        let cache = state.runtime_env().cache_manager.get_file_metadata_cache();
        ParquetSource::new(self.schema.clone()).with_table_parquet_options(options).with_parquet_file_reader_factory(
            Arc::new(CachedParquetFileReaderFactory::new(Arc::clone(&self.store), cache)),
        )
    }
}

#[async_trait]
impl TableProvider for PinnedTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.schema.table_schema())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let pieces = self.pruned(state, filters)?;
        if pieces.is_empty() {
            let schema = match projection {
                Some(columns) => Arc::new(self.schema.table_schema().project(columns)?),
                None => self.schema(),
            };
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let url = ObjectStoreUrl::parse(STORE_URL)?;
        state.runtime_env().register_object_store(url.as_ref(), Arc::clone(&self.store));
        let groups = self.groups(state, &pieces);
        let config = FileScanConfigBuilder::new(url, Arc::new(self.source(state)))
            .with_statistics(self.total(&groups))
            .with_file_groups(groups)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    fn statistics(&self) -> Option<Statistics> {
        let mut statistics = Statistics::new_unknown(self.schema.table_schema());
        let exact = self.pieces.iter().all(|placed| placed.piece.bytes.is_none());
        let rows = usize::try_from(self.rows()).ok()?;
        statistics.num_rows = if exact { Precision::Exact(rows) } else { Precision::Inexact(rows) };
        Some(statistics)
    }
}

/// What statistics and partition values say of files, for pruning: true bounds, though not always tight.
struct Bounds<'a> {
    table: Table,
    pieces: &'a [&'a Placed],
    schema: &'a SchemaRef,
}

impl Bounds<'_> {
    fn values(&self, column: &Column, bound: impl Fn(&DataFile, &Field) -> Option<ScalarValue>) -> Option<ArrayRef> {
        let field = self.schema.field_with_name(column.name()).ok()?;
        let partition = self.table.partition_columns().iter().position(|name| *name == field.name());
        let null = ScalarValue::try_from(field.data_type()).ok()?;
        let values = self.pieces.iter().map(|placed| {
            let value = match partition {
                Some(at) => placed.values.get(at).cloned(),
                None => bound(&placed.piece.file, field),
            };
            value.unwrap_or_else(|| null.clone())
        });
        ScalarValue::iter_to_array(values).ok()
    }
}

impl PruningStatistics for Bounds<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.values(column, low)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.values(column, high)
    }

    fn num_containers(&self) -> usize {
        self.pieces.len()
    }

    fn null_counts(&self, _column: &Column) -> Option<ArrayRef> {
        None
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        None
    }

    #[allow(clippy::mutable_key_type, reason = "the trait's signature")]
    fn contained(&self, _column: &Column, _values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}

fn low(file: &DataFile, field: &Field) -> Option<ScalarValue> {
    let name = field.name();
    match field.data_type() {
        DataType::Timestamp(_, zone) => {
            min_micros(file, name).map(|micros| ScalarValue::TimestampMicrosecond(Some(micros), zone.clone()))
        }
        of => scalar(of, file.min.get(name)?),
    }
}

fn high(file: &DataFile, field: &Field) -> Option<ScalarValue> {
    let name = field.name();
    match field.data_type() {
        DataType::Timestamp(_, zone) => {
            max_micros(file, name).map(|micros| ScalarValue::TimestampMicrosecond(Some(micros), zone.clone()))
        }
        of => scalar(of, file.max.get(name)?),
    }
}

fn scalar(of: &DataType, value: &serde_json::Value) -> Option<ScalarValue> {
    match of {
        DataType::Int32 => value.as_i64()?.try_into().ok().map(|number| ScalarValue::Int32(Some(number))),
        DataType::Int64 => Some(ScalarValue::Int64(Some(value.as_i64()?))),
        DataType::Utf8View => Some(ScalarValue::Utf8View(Some(value.as_str()?.to_owned()))),
        DataType::Utf8 => Some(ScalarValue::Utf8(Some(value.as_str()?.to_owned()))),
        _ => None,
    }
}

/// A file's values of the partition columns, in their order.
fn partition_values(table: Table, file: &DataFile) -> Result<Vec<ScalarValue>> {
    let fields = partition_fields(table);
    let value = |field: &Field| {
        let text = file.partition.get(field.name()).and_then(Option::as_deref);
        match field.data_type() {
            DataType::Date32 => text.and_then(parse_date).map(|days| ScalarValue::Date32(Some(days))),
            _ => text.map(|text| ScalarValue::Utf8(Some(text.to_owned()))),
        }
    };
    fields
        .iter()
        .map(|field| {
            value(field).ok_or_else(|| {
                let found = file.partition.get(field.name());
                DataFusionError::Execution(format!("file {}: partition {} is {found:?}", file.path, field.name()))
            })
        })
        .collect()
}

/// The schema with views in place of texts and bytes: no copying while reading.
fn with_views(schema: &SchemaRef) -> SchemaRef {
    of_types(schema, |of| match of {
        DataType::Utf8 | DataType::LargeUtf8 => Some(DataType::Utf8View),
        DataType::Binary | DataType::LargeBinary => Some(DataType::BinaryView),
        _ => None,
    })
}

fn without_views(schema: &SchemaRef) -> SchemaRef {
    of_types(schema, |of| match of {
        DataType::Utf8View => Some(DataType::Utf8),
        DataType::BinaryView => Some(DataType::Binary),
        _ => None,
    })
}

/// The schema with other types in place of some.
fn of_types(schema: &SchemaRef, instead: fn(&DataType) -> Option<DataType>) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| match instead(field.data_type()) {
        Some(of) => Arc::new(field.as_ref().clone().with_data_type(of)),
        None => Arc::clone(field),
    });
    Arc::new(Schema::new(fields.collect::<Vec<FieldRef>>()))
}

fn offset(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
