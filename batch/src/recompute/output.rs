//! The files of `batch_counts`.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, Decimal128Builder, Int64Builder, RecordBatch, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::SchemaRef;
use object_store::ObjectStore;
use reckon_data::clock::Names;
use reckon_data::files::{FileWriter, WriteOptions};
use reckon_data::minute::{format_date, start_of_minute};
use reckon_data::paths::{mixed_file, partition_folder};
use reckon_data::run::Granularity;
use reckon_data::table::{DataFile, Table};
use reckon_tables::schema::{SUM_TYPE, VALUE_TYPE, file_schema};
use tokio::runtime::Handle;

use super::error::BatchError;
use super::merge::Counted;

/// Rows that are encoded together.
const BATCH_ROWS: usize = 16 * 1024;
/// Rows of a row group.
const ROW_GROUP_ROWS: usize = 128 * 1024;
/// A file is closed at about this size.
const FILE_BYTES: usize = 256 * 1024 * 1024;

/// How files of `batch_counts` are laid out.
#[must_use]
pub fn layout() -> WriteOptions {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    WriteOptions {
        row_group_rows: ROW_GROUP_ROWS,
        dictionary: names(&["entity_id", "event_type", "country", "user_id", "ip", "definition"]),
        sorted_by: names(&["entity_id", "event_type", "minute"]),
        stats: names(&["entity_id", "event_type", "minute", "definition"]),
        ..WriteOptions::default()
    }
}

/// (type, step, dimensions) and entity of a row.
#[derive(Debug, Clone, Copy)]
pub struct RowKey<'a> {
    /// What is counted.
    pub entity: &'a str,
    /// The event type.
    pub kind: &'a str,
    /// The minute in which the step begins.
    pub minute: i32,
    /// The dimensions.
    pub dims: &'a [Option<Box<str>>; 3],
}

struct Columns {
    entity_id: StringBuilder,
    event_type: StringBuilder,
    minute: TimestampMicrosecondBuilder,
    dims: [StringBuilder; 3],
    count: Int64Builder,
    fingerprint: Int64Builder,
    value_count: Int64Builder,
    value_sum: Decimal128Builder,
    value_min: Decimal128Builder,
    value_max: Decimal128Builder,
    distinct_users: BinaryBuilder,
    definition: Int64Builder,
    rows: usize,
}

impl Columns {
    fn new() -> Self {
        Self {
            entity_id: StringBuilder::new(),
            event_type: StringBuilder::new(),
            minute: TimestampMicrosecondBuilder::with_capacity(BATCH_ROWS).with_timezone("UTC"),
            dims: std::array::from_fn(|_| StringBuilder::new()),
            count: Int64Builder::with_capacity(BATCH_ROWS),
            fingerprint: Int64Builder::with_capacity(BATCH_ROWS),
            value_count: Int64Builder::with_capacity(BATCH_ROWS),
            value_sum: Decimal128Builder::with_capacity(BATCH_ROWS).with_data_type(SUM_TYPE),
            value_min: Decimal128Builder::with_capacity(BATCH_ROWS).with_data_type(VALUE_TYPE),
            value_max: Decimal128Builder::with_capacity(BATCH_ROWS).with_data_type(VALUE_TYPE),
            distinct_users: BinaryBuilder::new(),
            definition: Int64Builder::with_capacity(BATCH_ROWS),
            rows: 0,
        }
    }

    fn push(&mut self, key: RowKey<'_>, counted: &Counted) -> Result<(), BatchError> {
        self.entity_id.append_value(key.entity);
        self.event_type.append_value(key.kind);
        self.minute.append_value(start_of_minute(key.minute.into()));
        for (column, value) in self.dims.iter_mut().zip(key.dims) {
            column.append_option(value.as_deref());
        }
        self.count.append_value(whole(counted.count)?);
        self.fingerprint.append_value(counted.fingerprint.cast_signed());
        let value = counted.value.as_ref();
        self.value_count.append_option(value.map(|value| whole(value.count)).transpose()?);
        self.value_sum.append_option(value.map(|value| value.sum));
        self.value_min.append_option(value.map(|value| value.min.into()));
        self.value_max.append_option(value.map(|value| value.max.into()));
        self.distinct_users.append_option(counted.distinct.as_ref().map(|distinct| distinct.to_bytes()));
        self.definition.append_value(counted.definition.cast_signed());
        self.rows += 1;
        Ok(())
    }

    fn finish(&mut self, schema: &SchemaRef) -> Result<RecordBatch, BatchError> {
        self.rows = 0;
        let [country, user_id, ip] = &mut self.dims;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.entity_id.finish()),
            Arc::new(self.event_type.finish()),
            Arc::new(self.minute.finish()),
            Arc::new(country.finish()),
            Arc::new(user_id.finish()),
            Arc::new(ip.finish()),
            Arc::new(self.count.finish()),
            Arc::new(self.fingerprint.finish()),
            Arc::new(self.value_count.finish()),
            Arc::new(self.value_sum.finish()),
            Arc::new(self.value_min.finish()),
            Arc::new(self.value_max.finish()),
            Arc::new(self.distinct_users.finish()),
            Arc::new(self.definition.finish()),
        ];
        Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
    }
}

fn whole(number: u64) -> Result<i64, BatchError> {
    i64::try_from(number).map_err(|_| BatchError::Broken(format!("a count of {number} does not fit its column")))
}

/// Where files are written.
#[derive(Debug, Clone)]
pub struct Target {
    /// The store, rooted at the tables' folder.
    pub store: Arc<dyn ObjectStore>,
    /// Names for the files.
    pub names: Arc<dyn Names>,
    /// The runtime that does the I/O.
    pub handle: Handle,
    /// The date of the rows.
    pub date: i32,
}

/// The files of one date and granularity. Blocks while it writes.
pub struct CountFiles {
    target: Target,
    granularity: Granularity,
    schema: SchemaRef,
    columns: Columns,
    writer: Option<FileWriter>,
    done: Vec<DataFile>,
}

impl CountFiles {
    /// No file yet.
    #[must_use]
    pub fn new(target: Target, granularity: Granularity) -> Self {
        let schema = file_schema(Table::BatchCounts);
        Self { target, granularity, schema, columns: Columns::new(), writer: None, done: Vec::new() }
    }

    /// Adds a row; rows come in order.
    ///
    /// # Errors
    /// When a number does not fit its column or a file cannot be written.
    pub fn push(&mut self, key: RowKey<'_>, counted: &Counted) -> Result<(), BatchError> {
        self.columns.push(key, counted)?;
        if self.columns.rows >= BATCH_ROWS { self.flush() } else { Ok(()) }
    }

    /// The files, all stored.
    ///
    /// # Errors
    /// When one cannot be written.
    pub fn finish(mut self) -> Result<Vec<DataFile>, BatchError> {
        if self.columns.rows > 0 {
            self.flush()?;
        }
        self.close()?;
        Ok(self.done)
    }

    fn flush(&mut self) -> Result<(), BatchError> {
        let batch = self.columns.finish(&self.schema)?;
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => self.create()?,
        };
        self.target.handle.block_on(writer.write(&batch))?;
        let full = writer.file_bytes() >= FILE_BYTES;
        self.writer = Some(writer);
        if full { self.close() } else { Ok(()) }
    }

    fn create(&self) -> Result<FileWriter, BatchError> {
        let (granularity, date) = (self.granularity.name(), format_date(self.target.date));
        let path = format!(
            "{}{}{}",
            partition_folder("granularity", granularity),
            partition_folder("event_date", &date),
            mixed_file("counts", self.target.names.fresh())
        );
        let partition = BTreeMap::from([
            ("granularity".to_owned(), Some(granularity.to_owned())),
            ("event_date".to_owned(), Some(date)),
        ]);
        let store = Arc::clone(&self.target.store);
        Ok(FileWriter::create(store, Table::BatchCounts, path, &self.schema, &layout(), partition)?)
    }

    fn close(&mut self) -> Result<(), BatchError> {
        if let Some(writer) = self.writer.take() {
            self.done.push(self.target.handle.block_on(writer.close())?);
        }
        Ok(())
    }
}
