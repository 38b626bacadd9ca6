//! Files written to memory and read back.

use arrow::array::{Date32Array, Decimal128Array, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::json;

use super::*;

fn schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("entity_id", DataType::Utf8, true),
        Field::new("number", DataType::Int64, true),
        Field::new("time", time, true),
        Field::new("date", DataType::Date32, true),
        Field::new("value", crate::columns::VALUE_TYPE, true),
    ]))
}

type Row<'a> = (Option<&'a str>, Option<i64>, Option<i128>);

fn batch(rows: &[Row<'_>]) -> RecordBatch {
    let numbers = || rows.iter().map(|row| row.1);
    RecordBatch::try_new(
        schema(),
        vec![
            Arc::new(rows.iter().map(|row| row.0).collect::<StringArray>()),
            Arc::new(numbers().collect::<Int64Array>()),
            Arc::new(numbers().collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
            Arc::new(numbers().map(|n| n.map(|n| n as i32)).collect::<Date32Array>()),
            Arc::new(
                rows.iter().map(|row| row.2).collect::<Decimal128Array>().with_precision_and_scale(18, 6).unwrap(),
            ),
        ],
    )
    .unwrap()
}

fn options() -> WriteOptions {
    WriteOptions {
        row_group_rows: 100,
        dictionary: vec!["entity_id".into()],
        bloom: vec!["entity_id".into()],
        sorted_by: vec!["number".into()],
        stats: schema().fields().iter().map(|field| field.name().clone()).collect(),
        ..WriteOptions::default()
    }
}

fn writer(store: &Arc<InMemory>) -> Result<FileWriter, FileError> {
    let partition = [("event_date".to_owned(), Some("2013-02-08".to_owned()))].into();
    let path = "event_date=2013-02-08/part.parquet".to_owned();
    FileWriter::create(store.clone(), Table::Events, path, &schema(), &options(), partition)
}

async fn stored(store: &InMemory) -> Bytes {
    let path = Path::from("events/event_date=2013-02-08/part.parquet");
    store.get(&path).await.unwrap().bytes().await.unwrap()
}

#[tokio::test]
async fn a_file_is_read_back_as_it_was_written() {
    let store = Arc::new(InMemory::new());
    let ids: Vec<String> = (0..1_000).map(|n| format!("e{}", n % 7)).collect();
    let rows: Vec<Row<'_>> =
        (0..1_000).map(|n| (Some(ids[n as usize].as_str()), Some(n), Some(i128::from(n)))).collect();
    let mut file = writer(&store).unwrap();
    for part in rows.chunks(130) {
        file.write(&batch(part)).await.unwrap();
        assert!(file.file_bytes() > 0);
    }
    let done = file.close().await.unwrap();
    let bytes = stored(&store).await;
    assert_eq!((done.rows, done.bytes), (1_000, bytes.len() as u64));
    assert_eq!(done.path, "event_date=2013-02-08/part.parquet");
    assert_eq!(done.partition["event_date"].as_deref(), Some("2013-02-08"));
    assert_eq!((done.min_i64("number"), done.max_i64("number")), (Some(0), Some(999)));

    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
    let metadata = reader.metadata().clone();
    assert_eq!(metadata.num_row_groups(), 10);
    let group = metadata.row_group(0);
    assert_eq!(group.sorting_columns().unwrap()[0].column_idx, 1);
    assert!(group.column(0).bloom_filter_offset().is_some() && group.column(1).bloom_filter_offset().is_none());
    let read: Vec<RecordBatch> = reader.build().unwrap().map(Result::unwrap).collect();
    assert_eq!(arrow::compute::concat_batches(&schema(), &read).unwrap(), batch(&rows));
}

#[tokio::test]
async fn statistics_are_true_bounds() {
    let store = Arc::new(InMemory::new());
    let mut file = writer(&store).unwrap();
    let long = "ä".repeat(40);
    file.write(&batch(&[(Some("b"), Some(-1), Some(-1)), (None, None, None)])).await.unwrap();
    file.write(&batch(&[(Some(&long), Some(86_401), Some(2_500_000)), (Some("c"), None, None)])).await.unwrap();
    let done = file.close().await.unwrap();
    assert_eq!(
        json!(done.min),
        json!({
            "entity_id": "b", "number": -1, "time": "1969-12-31T23:59:59.999999Z", "date": "1969-12-31", "value": -0.000_001
        })
    );
    // The largest id is too long to be written, and a prefix of it would not bound it: what comes after that does.
    let after = format!("{}å", "ä".repeat(31));
    assert!(long < after);
    assert_eq!(
        json!(done.max),
        json!({
            "entity_id": after, "number": 86_401, "time": "1970-01-01T00:00:00.086401Z", "date": "2206-07-24", "value": 2.5
        })
    );
}

#[tokio::test]
async fn a_long_text_is_cut_and_a_long_decimal_left_out() {
    let store = Arc::new(InMemory::new());
    let mut file = writer(&store).unwrap();
    let long = "ä".repeat(40);
    file.write(&batch(&[(Some(&long), None, Some(999_999_999_999_999_999))])).await.unwrap();
    let done = file.close().await.unwrap();
    assert_eq!(json!(done.min), json!({"entity_id": "ä".repeat(32)}));
    assert_eq!(json!(done.max), json!({"entity_id": format!("{}å", "ä".repeat(31))}));
}

/// No text is above a bound, and nothing is said where there is none.
#[tokio::test]
async fn a_text_without_an_end_has_no_maximum() {
    let store = Arc::new(InMemory::new());
    let mut file = writer(&store).unwrap();
    let last = char::MAX.to_string().repeat(33);
    file.write(&batch(&[(Some("a"), None, None), (Some(&last), None, None)])).await.unwrap();
    let done = file.close().await.unwrap();
    assert_eq!(json!(done.min), json!({"entity_id": "a"}));
    assert_eq!(json!(done.max), json!({}));
}

#[tokio::test]
async fn what_does_not_fit_the_table_is_refused() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let create = |path: &str, schema: SchemaRef, options: WriteOptions, date: Option<&str>| {
        let partition = date.map(|date| ("event_date".to_owned(), Some(date.to_owned()))).into_iter().collect();
        FileWriter::create(store.clone(), Table::Events, path.to_owned(), &schema, &options, partition).map(|_| ())
    };
    let date = Some("2013-02-08");
    assert!(create("part.parquet", schema(), options(), date).is_ok());
    assert!(matches!(create("part.parquet", schema(), options(), None), Err(FileError::Unfit { .. })));
    assert!(matches!(create("../part.parquet", schema(), options(), date), Err(FileError::Unfit { .. })));
    let own = Arc::new(Schema::new(vec![Field::new("event_date", DataType::Date32, false)]));
    assert!(matches!(create("part.parquet", own, WriteOptions::default(), date), Err(FileError::Unfit { .. })));
    let unknown = WriteOptions { stats: vec!["nothing".into()], ..WriteOptions::default() };
    assert!(create("part.parquet", schema(), unknown, date).is_err());
}

#[tokio::test]
async fn after_a_failed_write_nothing_can_be_committed() {
    let store = Arc::new(InMemory::new());
    let mut file = writer(&store).unwrap();
    let other = RecordBatch::try_from_iter([("other", Arc::new(Int64Array::from(vec![1])) as _)]).unwrap();
    assert!(file.write(&other).await.is_err());
    assert!(matches!(file.write(&batch(&[])).await, Err(FileError::GivenUp { .. })));
    assert!(matches!(file.close().await, Err(FileError::GivenUp { .. })));
    let path = Path::from("events/event_date=2013-02-08/part.parquet");
    assert!(store.get(&path).await.is_err());
}

#[tokio::test]
async fn an_encoder_that_panics_is_no_fault_of_the_store() {
    let mut file = writer(&Arc::new(InMemory::new())).unwrap();
    let ended = file.run(|| -> Result<(), FileError> { panic!("as it should") }).await;
    assert!(matches!(ended, Err(FileError::Task { .. })), "{ended:?}");
}

#[tokio::test]
async fn a_file_given_up_leaves_nothing() {
    let store = Arc::new(InMemory::new());
    let mut file = writer(&store).unwrap();
    file.write(&batch(&[(Some("a"), Some(1), None)])).await.unwrap();
    file.abort().await.unwrap();
    assert!(store.get(&Path::from("events/event_date=2013-02-08/part.parquet")).await.is_err());
}
