//! The files of `batch_counts`.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, Decimal128Builder, Int64Array, Int64Builder, RecordBatch, StringBuilder,
    TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::{DataType, SchemaRef};
use object_store::ObjectStore;
use parquet::schema::types::ColumnPath;
use reckon_data::clock::Names;
use reckon_data::files::{Compression, FileWriter, WriteOptions};
use reckon_data::metric::ValueState;
use reckon_data::minute::{format_date, start_of_minute};
use reckon_data::paths::{mixed_file, partition_folder};
use reckon_data::run::Granularity;
use reckon_data::table::{DataFile, Table};
use reckon_tables::schema::{SUM_TYPE, VALUE_TYPE, file_schema};

use super::error::BatchError;
use super::merge::Counted;

/// Rows that are encoded together.
const BATCH_ROWS: usize = 16 * 1024;
/// Rows of a row group.
const ROW_GROUP_ROWS: usize = 128 * 1024;
/// A file is closed at about this size, with the last row of its entity: files of a date have no entity in common, so that
/// whoever reads them knows that no key is in two.
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
        // Hashes cannot be compressed.
        tune: |builder| builder.set_column_compression(ColumnPath::from("fingerprint"), Compression::UNCOMPRESSED),
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

/// A column that is null in most batches, all of it: nothing is built before the first value.
struct Sparse<B> {
    builder: Option<B>,
    fresh: fn() -> B,
    append_null: fn(&mut B),
    finish: fn(&mut B) -> ArrayRef,
}

impl<B> Sparse<B> {
    /// The builder, to append the value of row `row` to; the rows before it are null or have their values.
    fn at(&mut self, row: usize) -> &mut B {
        self.builder.get_or_insert_with(|| {
            let mut builder = (self.fresh)();
            (0..row).for_each(|_| (self.append_null)(&mut builder));
            builder
        })
    }

    fn null(&mut self) {
        if let Some(builder) = &mut self.builder {
            (self.append_null)(builder);
        }
    }

    fn finish(&mut self, of: &DataType, rows: usize) -> ArrayRef {
        match self.builder.take() {
            Some(mut builder) => (self.finish)(&mut builder),
            None => new_null_array(of, rows),
        }
    }
}

fn sparse_texts() -> Sparse<StringBuilder> {
    Sparse {
        builder: None,
        fresh: StringBuilder::new,
        append_null: StringBuilder::append_null,
        finish: |builder| Arc::new(builder.finish()),
    }
}

/// The columns of `value`, which are null together.
struct Values {
    count: Int64Builder,
    sum: Decimal128Builder,
    min: Decimal128Builder,
    max: Decimal128Builder,
}

impl Values {
    fn new() -> Self {
        Self {
            count: Int64Builder::with_capacity(BATCH_ROWS),
            sum: Decimal128Builder::with_capacity(BATCH_ROWS).with_data_type(SUM_TYPE),
            min: Decimal128Builder::with_capacity(BATCH_ROWS).with_data_type(VALUE_TYPE),
            max: Decimal128Builder::with_capacity(BATCH_ROWS).with_data_type(VALUE_TYPE),
        }
    }

    fn append(&mut self, value: Option<&ValueState>) -> Result<(), BatchError> {
        self.count.append_option(value.map(|value| whole(value.count)).transpose()?);
        self.sum.append_option(value.map(|value| value.sum));
        self.min.append_option(value.map(|value| value.min.into()));
        self.max.append_option(value.map(|value| value.max.into()));
        Ok(())
    }
}

struct Columns {
    entity_id: StringBuilder,
    event_type: StringBuilder,
    minute: Vec<i64>,
    dims: [Sparse<StringBuilder>; 3],
    count: Vec<i64>,
    fingerprint: Vec<i64>,
    values: Option<Values>,
    distinct_users: Sparse<BinaryBuilder>,
    definition: Vec<i64>,
    late: Sparse<Int64Builder>,
}

impl Columns {
    fn new() -> Self {
        Self {
            entity_id: StringBuilder::new(),
            event_type: StringBuilder::new(),
            minute: Vec::with_capacity(BATCH_ROWS),
            dims: std::array::from_fn(|_| sparse_texts()),
            count: Vec::with_capacity(BATCH_ROWS),
            fingerprint: Vec::with_capacity(BATCH_ROWS),
            values: None,
            distinct_users: Sparse {
                builder: None,
                fresh: BinaryBuilder::new,
                append_null: BinaryBuilder::append_null,
                finish: |builder| Arc::new(builder.finish()),
            },
            definition: Vec::with_capacity(BATCH_ROWS),
            late: Sparse {
                builder: None,
                fresh: Int64Builder::new,
                append_null: Int64Builder::append_null,
                finish: |builder| Arc::new(builder.finish()),
            },
        }
    }

    fn rows(&self) -> usize {
        self.count.len()
    }

    /// The entity of the last row.
    fn last_entity(&self) -> Option<&[u8]> {
        let [.., start, end] = self.entity_id.offsets_slice() else { return None };
        self.entity_id.values_slice().get(usize::try_from(*start).ok()?..usize::try_from(*end).ok()?)
    }

    fn push(&mut self, key: RowKey<'_>, counted: &Counted) -> Result<(), BatchError> {
        let row = self.rows();
        self.entity_id.append_value(key.entity);
        self.event_type.append_value(key.kind);
        self.minute.push(start_of_minute(key.minute.into()));
        for (column, value) in self.dims.iter_mut().zip(key.dims) {
            match value {
                Some(value) => column.at(row).append_value(value),
                None => column.null(),
            }
        }
        self.count.push(whole(counted.count)?);
        self.fingerprint.push(counted.fingerprint.cast_signed());
        if counted.value.is_some() && self.values.is_none() {
            let mut values = Values::new();
            (0..row).try_for_each(|_| values.append(None))?;
            self.values = Some(values);
        }
        if let Some(values) = &mut self.values {
            values.append(counted.value.as_ref())?;
        }
        match &counted.distinct {
            Some(distinct) => self.distinct_users.at(row).append_value(distinct.to_bytes()),
            None => self.distinct_users.null(),
        }
        self.definition.push(counted.definition.cast_signed());
        match counted.late {
            0 => self.late.null(),
            late => self.late.at(row).append_value(whole(late)?),
        }
        Ok(())
    }

    fn finish(&mut self, schema: &SchemaRef) -> Result<RecordBatch, BatchError> {
        let rows = self.rows();
        let numbers = |column: &mut Vec<i64>| std::mem::replace(column, Vec::with_capacity(BATCH_ROWS));
        let whole = |column| Arc::new(Int64Array::from(numbers(column))) as ArrayRef;
        let minutes = TimestampMicrosecondArray::from(numbers(&mut self.minute)).with_timezone("UTC");
        let mut columns: Vec<ArrayRef> =
            vec![Arc::new(self.entity_id.finish()), Arc::new(self.event_type.finish()), Arc::new(minutes)];
        columns.extend(self.dims.iter_mut().map(|column| column.finish(&DataType::Utf8, rows)));
        columns.extend([whole(&mut self.count), whole(&mut self.fingerprint)]);
        match self.values.take() {
            Some(mut values) => columns.extend([
                Arc::new(values.count.finish()) as ArrayRef,
                Arc::new(values.sum.finish()),
                Arc::new(values.min.finish()),
                Arc::new(values.max.finish()),
            ]),
            None => {
                columns.extend([DataType::Int64, SUM_TYPE, VALUE_TYPE, VALUE_TYPE].map(|of| new_null_array(&of, rows)))
            }
        }
        columns.push(self.distinct_users.finish(&DataType::Binary, rows));
        columns.push(whole(&mut self.definition));
        columns.push(self.late.finish(&DataType::Int64, rows));
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
    /// The date of the rows.
    pub date: i32,
    /// Finer rows are not written.
    pub finest: Granularity,
}

/// The files of one date and granularity: rows are gathered, and written when there are enough.
pub struct CountFiles {
    target: Target,
    granularity: Granularity,
    schema: SchemaRef,
    columns: Columns,
    /// Gathered and not written; none where a file ends.
    ready: Vec<Option<RecordBatch>>,
    writer: Option<FileWriter>,
    /// A file of so many bytes ends with its entity.
    file_bytes: usize,
    /// Whether the file is that large.
    is_full: bool,
    /// The entity of the last row that was gathered.
    last: Vec<u8>,
    done: Vec<DataFile>,
}

impl CountFiles {
    /// No file yet.
    #[must_use]
    pub fn new(target: Target, granularity: Granularity) -> Self {
        Self {
            target,
            granularity,
            schema: file_schema(Table::BatchCounts),
            columns: Columns::new(),
            ready: Vec::new(),
            writer: None,
            file_bytes: FILE_BYTES,
            is_full: false,
            last: Vec::new(),
            done: Vec::new(),
        }
    }

    /// Adds a row; rows come in order.
    ///
    /// # Errors
    /// When a number does not fit its column.
    pub fn push(&mut self, key: RowKey<'_>, counted: &Counted) -> Result<(), BatchError> {
        if self.is_full && self.columns.last_entity().unwrap_or(&self.last) != key.entity.as_bytes() {
            self.gather()?;
            self.ready.push(None);
            self.is_full = false;
        }
        self.columns.push(key, counted)?;
        if self.columns.rows() >= BATCH_ROWS { self.gather() } else { Ok(()) }
    }

    fn gather(&mut self) -> Result<(), BatchError> {
        if let Some(entity) = self.columns.last_entity() {
            self.last = entity.to_vec();
            self.ready.push(Some(self.columns.finish(&self.schema)?));
        }
        Ok(())
    }

    /// Whether there is something to write.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Writes what was gathered.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub async fn write(&mut self) -> Result<(), BatchError> {
        for batch in std::mem::take(&mut self.ready) {
            let Some(batch) = batch else {
                self.close().await?;
                self.is_full = false;
                continue;
            };
            let mut writer = match self.writer.take() {
                Some(writer) => writer,
                None => self.create()?,
            };
            writer.write(&batch).await?;
            self.is_full = writer.file_bytes() >= self.file_bytes;
            self.writer = Some(writer);
        }
        Ok(())
    }

    /// The files, all stored.
    ///
    /// # Errors
    /// When one cannot be written.
    pub async fn finish(mut self) -> Result<Vec<DataFile>, BatchError> {
        self.gather()?;
        self.write().await?;
        self.close().await?;
        Ok(self.done)
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

    async fn close(&mut self) -> Result<(), BatchError> {
        if let Some(writer) = self.writer.take() {
            self.done.push(writer.close().await?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;
    use reckon_data::clock::SeededNames;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_full_file_ends_with_its_entity() {
        let target = Target {
            store: Arc::new(InMemory::new()),
            names: Arc::new(SeededNames::new(1)),
            date: 0,
            finest: Granularity::Minute,
        };
        let mut files = CountFiles::new(target, Granularity::Minute);
        files.file_bytes = 1;
        let counted = Counted { count: 1, fingerprint: 7, value: None, distinct: None, definition: 1, late: 0 };
        for entity in 0..40 {
            let entity = format!("e{entity:02}");
            for minute in 0..1_400 {
                let key = RowKey { entity: &entity, kind: "view", minute, dims: &[None, None, None] };
                files.push(key, &counted).unwrap();
                files.write().await.unwrap();
            }
        }
        let done = files.finish().await.unwrap();
        assert_eq!(done.iter().map(|file| file.rows).sum::<u64>(), 40 * 1_400);
        // A batch of 16,384 rows fills a file, which ends with the twelfth entity; four are left for the last one.
        assert_eq!(done.iter().map(|file| file.rows / 1_400).collect::<Vec<_>>(), [12, 12, 12, 4]);
        let bound = |of: &BTreeMap<String, serde_json::Value>| of["entity_id"].as_str().unwrap().to_owned();
        for pair in done.windows(2) {
            assert!(bound(&pair[0].max) < bound(&pair[1].min), "{pair:?}");
            assert_eq!(pair[0].rows % 1_400, 0);
        }
    }
}
