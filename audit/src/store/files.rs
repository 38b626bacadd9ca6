//! The files of the two tables: small ones, read and written whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use bytes::Bytes;
use object_store::{Error, ObjectStore, ObjectStoreExt as _};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use reckon_data::damage::Damaged;
use reckon_data::files::{FileWriter, WriteOptions};
use reckon_data::offload::offload;
use reckon_data::paths::{mixed_file, partition_folder};
use reckon_data::table::{DataFile, Snapshot, Table};
use reckon_tables::Storage;
use reckon_tables::schema::file_schema;
use serde_json::Value;
use uuid::Uuid;

use super::StoreError;

/// What a file holds.
#[derive(Debug)]
pub enum Contents {
    /// Its rows, with the columns of its table.
    Rows(Vec<RecordBatch>),
    /// It is gone or is not what was written, for this reason.
    Unreadable(String),
}

/// A file to be written: its rows, and what the table's log says of them.
#[derive(Debug)]
pub struct Draft {
    /// Its table.
    pub table: Table,
    /// The day it belongs to.
    pub run_date: String,
    /// What its name begins with.
    pub what: String,
    /// Its rows.
    pub rows: RecordBatch,
    /// Columns with the one value that all rows have: told whole, so that they can be read in the table's log.
    pub same: Vec<(&'static str, Value)>,
}

/// Reads a file. What is wrong with the file itself is no error.
pub async fn read(store: &Arc<dyn ObjectStore>, table: Table, file: &DataFile) -> Result<Contents, StoreError> {
    let path = Storage::path(table, &file.path);
    let read = async { store.get(&path).await?.bytes().await };
    let bytes = match read.await {
        Ok(bytes) => bytes,
        Err(Error::NotFound { .. }) => return Ok(Contents::Unreadable("it is not there".to_owned())),
        Err(source) => match Damaged::cause(&source) {
            Some(damaged) => return Ok(Contents::Unreadable(damaged.to_string())),
            None => return Err(StoreError::Read { path: path.to_string(), source }),
        },
    };
    let rows = file.rows;
    match offload(move || decode(table, bytes, rows)).await {
        Ok(Ok(batches)) => Ok(Contents::Rows(batches)),
        Ok(Err(reason)) => Ok(Contents::Unreadable(reason)),
        Err(ended) => Err(StoreError::Thread(ended.to_string())),
    }
}

/// The rows of a file, which has to have so many.
fn decode(table: Table, bytes: Bytes, rows: u64) -> Result<Vec<RecordBatch>, String> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|error| error.to_string())?;
    let reader = builder.build().map_err(|error| error.to_string())?;
    let mut batches = Vec::new();
    for batch in reader {
        batches.push(of_table(table, &batch.map_err(|error| error.to_string())?)?);
    }
    let found: usize = batches.iter().map(RecordBatch::num_rows).sum();
    if found as u64 == rows { Ok(batches) } else { Err(format!("it holds {found} rows, not {rows}")) }
}

/// A batch with the columns of its table, in their order.
fn of_table(table: Table, batch: &RecordBatch) -> Result<RecordBatch, String> {
    let schema = file_schema(table);
    let lacks = |name: &str| format!("it lacks column {name}");
    let column = |name: &str| batch.column_by_name(name).cloned().ok_or_else(|| lacks(name));
    let columns = schema.fields().iter().map(|field| column(field.name())).collect::<Result<Vec<ArrayRef>, _>>()?;
    RecordBatch::try_new(schema, columns).map_err(|error| error.to_string())
}

/// Writes a file; it can be committed then.
pub async fn write(store: &Arc<dyn ObjectStore>, draft: Draft, name: Uuid) -> Result<DataFile, StoreError> {
    let folder = partition_folder("run_date", &draft.run_date);
    let path = format!("{folder}{}", mixed_file(&draft.what, name));
    let partition = BTreeMap::from([("run_date".to_owned(), Some(draft.run_date))]);
    let options = WriteOptions { stats: vec!["number".to_owned()], ..WriteOptions::default() };
    let schema = draft.rows.schema();
    let mut writer = FileWriter::create(Arc::clone(store), draft.table, path, &schema, &options, partition)?;
    writer.write(&draft.rows).await?;
    let mut file = writer.close().await?;
    for (column, value) in draft.same {
        file.min.insert(column.to_owned(), value.clone());
        file.max.insert(column.to_owned(), value);
    }
    Ok(file)
}

/// The value of a column that all rows of a file have, where the table's log says so.
pub fn same<'a>(file: &'a DataFile, column: &str) -> Option<&'a Value> {
    file.min.get(column).filter(|min| file.max.get(column) == Some(*min))
}

/// The run that all rows of a file are of, where the table's log says so.
pub fn run_of(file: &DataFile) -> Option<&str> {
    same(file, "run_id")?.as_str()
}

/// The file of a table that is of a run alone.
pub fn file_of<'a>(snapshot: &'a Snapshot, run_id: &str) -> Option<&'a DataFile> {
    snapshot.files.iter().find(|file| run_of(file) == Some(run_id))
}

/// The files of a table, those of the newest runs first. What does not say of which runs it is may hold any.
pub fn newest_first(snapshot: &Snapshot) -> Vec<&DataFile> {
    let mut files: Vec<&DataFile> = snapshot.files.iter().collect();
    files.sort_by_key(|file| std::cmp::Reverse(file.max_i64("number").unwrap_or(i64::MAX)));
    files
}
