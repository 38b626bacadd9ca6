//! Damage, done as whoever writes the tables would do it: with right statistics and checksums.

use std::sync::Arc;

use arrow::array::{
    Array as _, ArrayRef, AsArray as _, Decimal128Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray, UInt64Array,
};
use arrow::compute::{SortColumn, lexsort_to_indices, take_record_batch};
use arrow::datatypes::{DataType, Decimal128Type, Int64Type, TimestampMicrosecondType};
use object_store::ObjectStoreExt as _;
use reckon_batch::archive::properties;
use reckon_data::files::{FileWriter, WriteOptions};
use reckon_data::minute::MICROS_PER_MINUTE;
use reckon_data::paths::Transaction;
use reckon_data::table::{Commit, DataFile, Step, Table, Tables as _};
use reckon_tables::Storage;
use reckon_tables::schema::file_schema;

use super::look::whole;
use super::world::World;

/// What is made of a file's rows.
pub(super) type Change<'a> = Box<dyn FnOnce(&RecordBatch) -> RecordBatch + 'a>;

impl World {
    /// Puts a changed file in place of another.
    pub(super) async fn change(&mut self, table: Table, file: &DataFile, change: Change<'_>) {
        let rows = change(&whole(&self.auditor(), table, file).await);
        let written = if rows.num_rows() == 0 { Vec::new() } else { vec![self.write(table, file, &rows).await] };
        self.commit(table, Vec::new(), written, vec![file.clone()]).await;
    }

    /// Adds a file with the rows of another, changed.
    pub(super) async fn add(&mut self, table: Table, like: &DataFile, change: Change<'_>) {
        let rows = change(&whole(&self.auditor(), table, like).await);
        let written = self.write(table, like, &rows).await;
        self.commit(table, Vec::new(), vec![written], Vec::new()).await;
    }

    async fn write(&self, table: Table, like: &DataFile, rows: &RecordBatch) -> DataFile {
        let auditor = self.auditor();
        let folder = like.path.rsplit_once('/').map_or_else(String::new, |(folder, _)| format!("{folder}/"));
        let path = format!("{folder}changed-{}.parquet", self.durable.names.fresh());
        let (schema, store, partition) = (file_schema(table), Arc::new(auditor.files.clone()), like.partition.clone());
        let mut writer = FileWriter::create(store, table, path, &schema, &options(table), partition).unwrap();
        let rows = RecordBatch::try_new(schema, sorted(table, rows).columns().to_vec()).unwrap();
        writer.write(&rows).await.unwrap();
        let file = writer.close().await.unwrap();
        let path = Storage::path(table, &file.path);
        let sums = auditor.files.sums(&path).unwrap();
        self.durable.sums.lock().insert(path, (*sums).clone());
        file
    }

    /// Commits, and looks at the tables again.
    pub(super) async fn commit(
        &mut self,
        table: Table,
        mut steps: Vec<Step>,
        add: Vec<DataFile>,
        remove: Vec<DataFile>,
    ) {
        let name = Transaction::Maintain(table).to_string();
        let from = self.durable.tables.snapshot(table).await.unwrap().transaction(&name);
        steps.push(Step { name, from, to: from + 1 });
        let (token, operation) = (self.durable.names.fresh(), "damage".to_owned());
        let commit = Commit { table, steps, add, remove, data_change: true, token, operation };
        self.auditor().tables.commit(commit).await.unwrap();
        self.look().await;
    }

    /// Deletes a file that the table still refers to.
    pub(super) async fn lose(&self, table: Table, file: &DataFile) {
        self.durable.store.delete(&Storage::path(table, &file.path)).await.unwrap();
    }

    /// Flips a bit in the middle of a file.
    pub(super) async fn flip(&self, table: Table, file: &DataFile) {
        let path = Storage::path(table, &file.path);
        let mut bytes = self.durable.store.get(&path).await.unwrap().bytes().await.unwrap().to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        self.durable.store.put(&path, bytes.into()).await.unwrap();
    }
}

fn options(table: Table) -> WriteOptions {
    match table {
        Table::BatchCounts => reckon_batch::recompute::layout(),
        Table::StreamCounts => reckon_stream::counter::write_options(),
        Table::Events => properties::log_ordered_events(),
        _ => WriteOptions::default(),
    }
}

fn sorted(table: Table, rows: &RecordBatch) -> RecordBatch {
    let order: &[&str] = match table {
        Table::BatchCounts => &["entity_id", "event_type", "minute", "country"],
        Table::StreamCounts => &["log_partition", "segment_start", "entity_id", "event_type", "minute", "country"],
        Table::Events => &["log_offset", "log_index"],
        _ => return rows.clone(),
    };
    let columns: Vec<SortColumn> =
        order.iter().map(|column| SortColumn { values: Arc::clone(&rows[*column]), options: None }).collect();
    take_record_batch(rows, &lexsort_to_indices(&columns, None).unwrap()).unwrap()
}

fn replaced(rows: &RecordBatch, column: &str, array: ArrayRef) -> RecordBatch {
    let at = rows.schema().index_of(column).unwrap();
    let mut columns = rows.columns().to_vec();
    columns[at] = array;
    RecordBatch::try_new(rows.schema(), columns).unwrap()
}

/// Adds to a whole number, wrapping; nothing is 0.
pub(super) fn plus(rows: &RecordBatch, column: &str, row: usize, by: i64) -> RecordBatch {
    let old = rows[column].as_primitive::<Int64Type>();
    let new: Int64Array = (0..rows.num_rows())
        .map(|at| {
            let value = old.is_valid(at).then(|| old.value(at));
            if at == row { Some(value.unwrap_or(0).wrapping_add(by)) } else { value }
        })
        .collect();
    replaced(rows, column, Arc::new(new))
}

/// Adds to a decimal that is there.
pub(super) fn plus_decimal(rows: &RecordBatch, column: &str, row: usize, by: i128) -> RecordBatch {
    let old = rows[column].as_primitive::<Decimal128Type>();
    let new: Decimal128Array = (0..rows.num_rows())
        .map(|at| old.is_valid(at).then(|| old.value(at) + if at == row { by } else { 0 }))
        .collect();
    replaced(rows, column, Arc::new(new.with_data_type(old.data_type().clone())))
}

/// Sets a text.
pub(super) fn with_text(rows: &RecordBatch, column: &str, row: usize, text: Option<&str>) -> RecordBatch {
    let old = rows[column].as_string::<i32>();
    let new: StringArray =
        (0..rows.num_rows()).map(|at| if at == row { text } else { old.is_valid(at).then(|| old.value(at)) }).collect();
    replaced(rows, column, Arc::new(new))
}

/// Moves a time by minutes.
pub(super) fn moved(rows: &RecordBatch, column: &str, row: usize, minutes: i64) -> RecordBatch {
    let old = rows[column].as_primitive::<TimestampMicrosecondType>();
    let new: TimestampMicrosecondArray = (0..rows.num_rows())
        .map(|at| {
            let value = old.is_valid(at).then(|| old.value(at))?;
            Some(if at == row { value + minutes * MICROS_PER_MINUTE } else { value })
        })
        .collect();
    let of: DataType = old.data_type().clone();
    replaced(rows, column, Arc::new(new.with_data_type(of)))
}

/// Leaves rows out.
pub(super) fn without(rows: &RecordBatch, left_out: &[usize]) -> RecordBatch {
    let kept = (0..rows.num_rows()).filter(|row| !left_out.contains(row)).map(|row| row as u64);
    take_record_batch(rows, &UInt64Array::from_iter_values(kept)).unwrap()
}

/// Only these rows.
pub(super) fn only(rows: &RecordBatch, kept: &[usize]) -> RecordBatch {
    take_record_batch(rows, &UInt64Array::from_iter_values(kept.iter().map(|row| *row as u64))).unwrap()
}

/// A row once more, as the last one.
pub(super) fn once_more(rows: &RecordBatch, row: usize) -> RecordBatch {
    let all = (0..rows.num_rows()).chain([row]).map(|row| row as u64);
    take_record_batch(rows, &UInt64Array::from_iter_values(all)).unwrap()
}

/// Counts an event so many times more, or fewer, in a row; nothing else of the row changes.
pub(super) fn counted(rows: &RecordBatch, row: usize, times: i64, hash: i64) -> RecordBatch {
    let rows = plus(rows, "count", row, times);
    plus(&rows, "fingerprint", row, hash.wrapping_mul(times))
}
