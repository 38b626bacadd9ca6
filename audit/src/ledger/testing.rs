//! Files in memory: an event of each entity, all in one minute.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use object_store::ObjectStoreExt as _;
use object_store::memory::InMemory;
use parquet::arrow::ArrowWriter;
use reckon_data::definition::Definition;
use reckon_data::key::Key;
use reckon_data::metric::Function;
use reckon_data::minute::{MINUTES_PER_DAY, start_of_minute};
use reckon_data::run::Granularity;
use reckon_data::table::{DataFile, Table};
use reckon_tables::Storage;

use super::scan::Scanner;

/// The date of all events.
pub const DATE: i32 = 15_744;
/// Their minute.
const MINUTE: i64 = DATE as i64 * MINUTES_PER_DAY + 600;
/// Their type.
const TYPE: &str = "view";

/// Who reads the files.
#[derive(Debug)]
pub struct Set(pub Scanner);

impl Set {
    /// One without files, of which so many events are held at once.
    pub fn new(events_max: u64) -> Self {
        // Where nothing but events is counted, files need no more columns than these here have.
        let definition = Definition { dimensions: Vec::new(), metrics: vec![Function::Count], ..Definition::default() };
        Self(Scanner { store: Arc::new(InMemory::new()), definition: Arc::new(definition), window: 10, events_max })
    }

    /// A file of the raw events of those numbers.
    pub async fn events(&self, path: &str, numbers: Range<i64>) -> DataFile {
        let columns = vec![
            ("event_id", texts(&numbers, id)),
            ("event_type", texts(&numbers, |_| TYPE.to_owned())),
            ("entity_id", texts(&numbers, entity)),
            ("event_time", wholes(&numbers, |_| start_of_minute(MINUTE))),
            ("key_hash", wholes(&numbers, hash)),
            ("received_at", wholes(&numbers, |_| start_of_minute(MINUTE))),
            ("log_partition", zeros(&numbers)),
            ("log_offset", wholes(&numbers, |number| number)),
            ("log_index", zeros(&numbers)),
        ];
        self.write(Table::Events, path, BTreeMap::new(), columns).await
    }

    /// A file of the counts of those events.
    pub async fn counts(&self, granularity: Granularity, numbers: Range<i64>) -> DataFile {
        let columns = vec![
            ("entity_id", texts(&numbers, entity)),
            ("event_type", texts(&numbers, |_| TYPE.to_owned())),
            ("minute", same(&numbers, start_of_minute(granularity.start_of(MINUTE)))),
            ("count", same(&numbers, 1)),
            ("fingerprint", wholes(&numbers, hash)),
            ("late", same(&numbers, 0)),
            ("definition", same(&numbers, self.0.definition.version().cast_signed())),
        ];
        let partition = BTreeMap::from([("granularity".to_owned(), Some(granularity.name().to_owned()))]);
        self.write(Table::BatchCounts, granularity.name(), partition, columns).await
    }

    /// A file is gone.
    pub async fn lose(&self, table: Table, file: &DataFile) {
        self.0.store.delete(&Storage::path(table, &file.path)).await.unwrap();
    }

    async fn write(
        &self,
        table: Table,
        path: &str,
        partition: BTreeMap<String, Option<String>>,
        columns: Vec<(&str, ArrayRef)>,
    ) -> DataFile {
        let rows = RecordBatch::try_from_iter(columns).unwrap();
        let mut bytes: Vec<u8> = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, rows.schema(), None).unwrap();
        writer.write(&rows).unwrap();
        writer.close().unwrap();
        let file = DataFile {
            path: path.to_owned(),
            bytes: bytes.len() as u64,
            rows: rows.num_rows() as u64,
            partition,
            min: BTreeMap::new(),
            max: BTreeMap::new(),
        };
        self.0.store.put(&Storage::path(table, path), bytes.into()).await.unwrap();
        file
    }
}

fn id(number: i64) -> String {
    format!("e{number}")
}

fn entity(number: i64) -> String {
    format!("v{number}")
}

fn hash(number: i64) -> i64 {
    let (event_id, entity_id) = (id(number), entity(number));
    Key { event_id: &event_id, entity_id: &entity_id, event_type: TYPE, date: DATE }.hash().cast_signed()
}

fn texts(numbers: &Range<i64>, of: fn(i64) -> String) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(numbers.clone().map(of)))
}

fn wholes(numbers: &Range<i64>, of: fn(i64) -> i64) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(numbers.clone().map(of)))
}

fn same(numbers: &Range<i64>, number: i64) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(numbers.clone().map(|_| number)))
}

fn zeros(numbers: &Range<i64>) -> ArrayRef {
    Arc::new(Int32Array::from_iter_values(numbers.clone().map(|_| 0)))
}
