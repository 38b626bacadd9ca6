//! Whether tables are what the oracle says.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{Array as _, AsArray as _, RecordBatch};
use arrow::datatypes::{Decimal128Type, Int32Type, Int64Type, TimestampMicrosecondType};
use object_store::{ObjectStore, ObjectStoreExt as _};
use reckon_data::log::Log as _;
use reckon_data::paths::Transaction;
use reckon_data::table::{DataFile, Table, Tables as _};
use reckon_tables::read::read_file;
use reckon_tables::{Storage, Sums};

use crate::node::Durable;
use crate::oracle::{Oracle, Place};

/// What is wrong, if anything is.
type Verdict = Result<(), String>;

/// what the tables hold is what the log holds, each thing once, up to where they say they go.
///
/// # Errors
/// What is wrong.
pub async fn hold(oracle: &Oracle, durable: &Durable) -> Verdict {
    let logged = oracle.events().map(|(partition, event)| {
        let (id, entity, event_type, _) = event.key.clone();
        let raw = Raw { id, entity, event_type, time: event.time, country: event.country.clone(), value: event.value };
        ((partition, event.offset, event.index), raw)
    });
    same("R-4: the raw events", &raw(durable).await?, &logged.collect())?;
    let buried = oracle.dead().map(|(place, letter)| (place, letter.body.clone()));
    same("R-8: the dead letters", &letters(durable).await?, &buried.collect())?;
    segments(oracle, durable).await
}

/// Whether a bit has flipped in a file.
async fn is_damaged(durable: &Durable, table: Table, file: &DataFile) -> Result<bool, String> {
    let path = Storage::path(table, &file.path);
    let sums = durable.sums.lock().get(&path).cloned();
    let read = async { durable.store.get(&path).await?.bytes().await };
    let bytes = read.await.map_err(|error| error.to_string())?;
    Ok(sums.is_some_and(|sums| sums != Sums::of(&bytes)))
}

/// A raw event as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Raw {
    id: String,
    entity: String,
    event_type: String,
    time: i64,
    country: Option<String>,
    value: Option<i64>,
}

fn same<T: Debug + PartialEq>(what: &str, found: &[(Place, T)], expected: &BTreeMap<Place, T>) -> Verdict {
    let different: BTreeSet<Place> = found.iter().map(|(place, _)| *place).collect();
    let twice = found.len() - different.len();
    let lost: Vec<&Place> = expected.keys().filter(|place| !different.contains(place)).take(5).collect();
    let extra: Vec<&Place> = different.iter().filter(|place| !expected.contains_key(place)).take(5).collect();
    if twice > 0 || !lost.is_empty() || !extra.is_empty() {
        return Err(format!("{what}: {twice} are there twice, {lost:?}… are lost, {extra:?}… are in no log"));
    }
    match found.iter().find(|(place, found)| expected.get(place) != Some(found)) {
        Some((place, found)) => Err(format!("{what}: {place:?} is {found:?}, not {:?}", expected.get(place))),
        None => Ok(()),
    }
}

async fn rows(durable: &Durable, table: Table) -> Result<Vec<RecordBatch>, String> {
    let snapshot = durable.tables.snapshot(table).await.map_err(|error| error.to_string())?;
    let mut batches = Vec::new();
    for file in snapshot.files.iter() {
        // Damaged segments stay where they are, below coverage: nobody counts from them any more.
        if table == Table::StreamCounts && is_damaged(durable, table, file).await? {
            continue;
        }
        let store = Arc::clone(&durable.store) as Arc<dyn ObjectStore>;
        let read = read_file(store, table, file).await;
        batches.extend(read.map_err(|error| format!("a file of {}: {error}", table.name()))?);
    }
    Ok(batches)
}

fn places(batch: &RecordBatch) -> impl Fn(usize) -> Place {
    let whole = |name: &str| batch[name].as_primitive::<Int32Type>().clone();
    let (partitions, indices) = (whole("log_partition"), whole("log_index"));
    let offsets = batch["log_offset"].as_primitive::<Int64Type>().clone();
    move |row| (partitions.value(row) as u32, offsets.value(row) as u64, indices.value(row) as u32)
}

async fn raw(durable: &Durable) -> Result<Vec<(Place, Raw)>, String> {
    let mut events = Vec::new();
    for batch in rows(durable, Table::Events).await? {
        let (texts, place) = (|name: &str| batch[name].as_string::<i32>(), places(&batch));
        let [ids, entities, types, countries] = ["event_id", "entity_id", "event_type", "country"].map(texts);
        let times = batch["event_time"].as_primitive::<TimestampMicrosecondType>();
        let values = batch["value"].as_primitive::<Decimal128Type>();
        events.extend((0..batch.num_rows()).map(|row| {
            let raw = Raw {
                id: ids.value(row).to_owned(),
                entity: entities.value(row).to_owned(),
                event_type: types.value(row).to_owned(),
                time: times.value(row),
                country: countries.is_valid(row).then(|| countries.value(row).to_owned()),
                value: values.is_valid(row).then(|| i64::try_from(values.value(row)).unwrap()),
            };
            (place(row), raw)
        }));
    }
    Ok(events)
}

async fn letters(durable: &Durable) -> Result<Vec<(Place, Option<Vec<u8>>)>, String> {
    let mut letters = Vec::new();
    for batch in rows(durable, Table::DeadLetters).await? {
        let (bodies, place) = (batch["body"].as_binary::<i32>(), places(&batch));
        let body = |row: usize| bodies.is_valid(row).then(|| bodies.value(row).to_vec());
        letters.extend((0..batch.num_rows()).map(|row| (place(row), body(row))));
    }
    Ok(letters)
}

/// sealed segments lie end to end, and each balances.
async fn segments(oracle: &Oracle, durable: &Durable) -> Verdict {
    let mut all: BTreeMap<u32, Vec<[u64; 6]>> = BTreeMap::new();
    for batch in rows(durable, Table::StreamCounts).await? {
        let kinds = batch.column_by_name("kind").unwrap().as_string::<i32>();
        let partitions = batch.column_by_name("log_partition").unwrap().as_primitive::<Int32Type>();
        let names = ["segment_start", "segment_end", "accepted", "counted", "duplicate", "dead"];
        let columns = names.map(|name| batch.column_by_name(name).unwrap().as_primitive::<Int64Type>());
        for row in (0..batch.num_rows()).filter(|row| kinds.value(*row) == "summary") {
            assert!(columns.iter().all(|column| column.is_valid(row)));
            let summary = columns.map(|column| column.value(row) as u64);
            all.entry(partitions.value(row) as u32).or_default().push(summary);
        }
    }
    let covered = durable.tables.snapshot(Table::BatchCounts).await.map_err(|error| error.to_string())?;
    for (partition, segments) in &mut all {
        segments.sort_unstable();
        for [start, end, accepted, counted, duplicate, dead] in segments.iter().copied() {
            let within = |offset: u64| (start..end).contains(&offset);
            let logged = oracle.events().filter(|(p, event)| p == partition && within(event.offset)).count() as u64;
            let fresh = oracle.events().filter(|(p, event)| p == partition && within(event.offset) && event.streamed);
            let buried = oracle.dead().filter(|((p, offset, _), _)| p == partition && within(*offset)).count() as u64;
            let expected = (logged, fresh.count() as u64, buried);
            if accepted != counted + duplicate || (accepted, counted, dead) != expected {
                return Err(format!(
                    "R-1: segment [{start}, {end}) of partition {partition} has accepted {accepted}, counted {counted}, \
                     duplicate {duplicate}, dead {dead}; the log has {expected:?}"
                ));
            }
        }
        // Files are dropped whole when batch has covered all that lies in them, so below coverage there may be holes.
        let covered = covered.transaction(&Transaction::Batch(durable.log.identity(), *partition).to_string()) as u64;
        let meet = |pair: &&[[u64; 6]]| pair[0][1] == pair[1][0] || (pair[0][1] < pair[1][0] && pair[1][0] <= covered);
        if let Some(hole) = segments.windows(2).find(|pair| !meet(pair)) {
            return Err(format!("R-1: segments of partition {partition} do not meet: {hole:?}"));
        }
    }
    above_coverage(durable, &all).await
}

/// from coverage to where it is sealed, each partition's segments lie end to end.
async fn above_coverage(durable: &Durable, all: &BTreeMap<u32, Vec<[u64; 6]>>) -> Verdict {
    let snapshot = |table| async move { durable.tables.snapshot(table).await.map_err(|error| error.to_string()) };
    let (stream, batch) = (snapshot(Table::StreamCounts).await?, snapshot(Table::BatchCounts).await?);
    let log = durable.log.identity();
    for partition in 0..durable.log.partitions() {
        let sealed = stream.transaction(&Transaction::Stream(log, partition).to_string()) as u64;
        let covered = batch.transaction(&Transaction::Batch(log, partition).to_string()) as u64;
        let own = all.get(&partition).map_or(&[][..], Vec::as_slice);
        let mut above = own.iter().filter(|segment| segment[1] > covered);
        let (first, last) = (above.next(), own.last());
        if sealed > covered
            && (first.map(|first| first[0]) != Some(covered) || last.map(|last| last[1]) != Some(sealed))
        {
            return Err(format!(
                "R-2: segments of partition {partition} do not reach from {covered} to {sealed}: {own:?}"
            ));
        }
    }
    Ok(())
}
