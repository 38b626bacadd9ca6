//! Whether answers and tables are what the oracle says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array as _, AsArray as _, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use object_store::ObjectStore;
use reckon_data::log::Log as _;
use reckon_data::paths::Transaction;
use reckon_data::table::{Table, Tables as _};
use reckon_serving::ServingError;
use reckon_serving::query::{CountAnswer, TopAnswer};
use reckon_serving::view::{MissingWhat, Provenance};
use reckon_tables::read::read_file;

use crate::node::Durable;
use crate::oracle::{Oracle, Question, Reach};

/// What is wrong, if anything is.
type Verdict = Result<(), String>;
/// Whether an answer was complete; or what is wrong with it.
type Held = Result<bool, String>;

/// a count is what the oracle counts up to where the answer reaches, batch and stream apart.
///
/// # Errors
/// What is wrong.
pub fn count(oracle: &Oracle, question: &Question, answer: &Result<CountAnswer, ServingError>) -> Held {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return refusal(error),
    };
    let provenance = &answer.provenance;
    let reach = reach(oracle, provenance)?;
    let (batch, stream) = oracle.counted(question, &reach);
    let (batch, stream) = (batch.len() as u64, stream.len() as u64);
    if answer.count != answer.batch + answer.stream || provenance.batch != Some(answer.batch) {
        return Err(format!("R-9: {} is not {} of batch and {} of stream", answer.count, answer.batch, answer.stream));
    }
    let found = (answer.batch, answer.stream);
    let right = if is_exact(provenance) { found == (batch, stream) } else { found.0 <= batch && found.1 <= stream };
    if right {
        return Ok(provenance.complete);
    }
    Err(format!(
        "R-2: {question:?}: batch and stream are {found:?}, not {:?}, reaching {reach:?}, {provenance:?}",
        (batch, stream)
    ))
}

/// As [`count`], of a top list of all entities.
///
/// # Errors
/// What is wrong.
pub fn top(oracle: &Oracle, question: &Question, answer: &Result<TopAnswer, ServingError>) -> Held {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return refusal(error),
    };
    let reach = reach(oracle, &answer.provenance)?;
    let expected = oracle.top(question, &reach);
    let (batch, stream) = oracle.counted(question, &reach);
    let parts = (Some(batch.len() as u64), Some(stream.len() as u64));
    let found: BTreeMap<String, u64> =
        answer.entities.iter().map(|entity| (entity.entity_id.clone(), entity.count)).collect();
    let ranked = answer.entities.is_sorted_by_key(|entity| (std::cmp::Reverse(entity.count), entity.entity_id.clone()));
    if !ranked {
        return Err(format!("a top list is not in order: {:?}", answer.entities));
    }
    let right = if is_exact(&answer.provenance) {
        found == expected
            && answer.entities.len() == expected.len()
            && (answer.provenance.batch, answer.provenance.stream) == parts
    } else {
        found.iter().all(|(entity, count)| expected.get(entity).is_some_and(|most| count <= most))
    };
    if right {
        return Ok(answer.provenance.complete);
    }
    Err(format!(
        "R-2: {question:?}: the top list is {found:?}, not {expected:?}, reaching {reach:?}, {:?}",
        answer.provenance
    ))
}

/// An answer may be refused for a while; it may not say that the question was wrong, or that something is broken.
fn refusal(error: &ServingError) -> Held {
    match error {
        ServingError::Unavailable { .. } | ServingError::Timeout { .. } => Ok(false),
        other => Err(format!("a question was answered with {other:?}")),
    }
}

/// Whether nothing is missing, or only whole partitions of the stream, which the oracle can leave out too.
fn is_exact(provenance: &Provenance) -> bool {
    provenance.missing.iter().all(|missing| missing.what == MissingWhat::Stream && missing.partition.is_some())
}

/// How far an answer reaches, if that is possible at all.
fn reach(oracle: &Oracle, provenance: &Provenance) -> Result<Vec<Reach>, String> {
    if provenance.complete != provenance.missing.is_empty() {
        return Err(format!("R-7: complete and missing contradict each other: {provenance:?}"));
    }
    let missing = |partition: u32| provenance.missing.iter().any(|missing| missing.partition == Some(partition));
    let ends = oracle.ends();
    if ends.len() != provenance.partitions.len() {
        return Err(format!("R-9: not every partition is there: {provenance:?}"));
    }
    let mut reach = Vec::new();
    for (own, end) in provenance.partitions.iter().zip(ends) {
        let coverage = own.coverage;
        if own.position.is_none() && !missing(own.partition) {
            return Err(format!("R-7: partition {} is silently left out: {provenance:?}", own.partition));
        }
        let silent = missing(own.partition)
            && provenance
                .missing
                .iter()
                .any(|missing| missing.what == MissingWhat::Stream && missing.partition == Some(own.partition));
        let position = own.position.filter(|_| !silent).unwrap_or(coverage);
        if !oracle.is_cut(own.partition, coverage) || position > end {
            return Err(format!("R-9: {own:?} cannot be: the log ends at {end}"));
        }
        reach.push(Reach { coverage, position });
    }
    Ok(reach)
}

/// what the tables hold is what the log holds, each thing once, up to where they say they go.
///
/// # Errors
/// What is wrong.
pub async fn tables(oracle: &Oracle, durable: &Durable) -> Verdict {
    let raw = places(durable, Table::Events).await?;
    let logged: BTreeSet<Place> = oracle.events().map(|(p, event)| (p, event.offset, event.index)).collect();
    same("R-4: the raw events", &raw, &logged)?;
    let dead = places(durable, Table::DeadLetters).await?;
    same("R-8: the dead letters", &dead, &oracle.dead().collect())?;
    segments(oracle, durable).await
}

type Place = (u32, u64, u32);

fn same(what: &str, found: &[Place], expected: &BTreeSet<Place>) -> Verdict {
    let different: BTreeSet<Place> = found.iter().copied().collect();
    let twice = found.len() - different.len();
    let lost: Vec<&Place> = expected.difference(&different).take(5).collect();
    let extra: Vec<&Place> = different.difference(expected).take(5).collect();
    if twice == 0 && lost.is_empty() && extra.is_empty() {
        return Ok(());
    }
    Err(format!("{what}: {twice} are there twice, {lost:?}… are lost, {extra:?}… are in no log"))
}

async fn rows(durable: &Durable, table: Table) -> Result<Vec<RecordBatch>, String> {
    let snapshot = durable.tables.snapshot(table).await.map_err(|error| error.to_string())?;
    let mut batches = Vec::new();
    for file in snapshot.files.iter() {
        let store = Arc::clone(&durable.store) as Arc<dyn ObjectStore>;
        let read = read_file(store, table, file).await;
        batches.extend(read.map_err(|error| format!("a file of {}: {error}", table.name()))?);
    }
    Ok(batches)
}

async fn places(durable: &Durable, table: Table) -> Result<Vec<Place>, String> {
    let mut places = Vec::new();
    for batch in rows(durable, table).await? {
        let whole = |name: &str| batch.column_by_name(name).unwrap().as_primitive::<Int32Type>().clone();
        let (partitions, indices) = (whole("log_partition"), whole("log_index"));
        let offsets = batch.column_by_name("log_offset").unwrap().as_primitive::<Int64Type>();
        for row in 0..batch.num_rows() {
            places.push((partitions.value(row) as u32, offsets.value(row) as u64, indices.value(row) as u32));
        }
    }
    Ok(places)
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
            let buried = oracle.dead().filter(|(p, offset, _)| p == partition && within(*offset)).count() as u64;
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
