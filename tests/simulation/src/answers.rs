//! Whether answers are what the oracle says.

use std::collections::BTreeMap;
use std::ops::Range;

use reckon_data::metric::{Answer, Function};
use reckon_data::minute::{format_time, start_of_minute};
use reckon_serving::ServingError;
use reckon_serving::query::{CountAnswer, StatsAnswer, TopAnswer};
use reckon_serving::rolled::RolledUp;
use reckon_serving::sql::SqlAnswer;
use reckon_serving::view::{Missing, MissingWhat, Provenance};
use serde_json::Value;

use crate::oracle::{Logged, Oracle, Question, Reach, Sums};

/// Whether an answer was complete; or what is wrong with it.
type Held = Result<bool, String>;

/// a count is what the oracle counts up to where the answer reaches, batch and stream apart.
///
/// # Errors
/// What is wrong.
pub fn count(oracle: &Oracle, question: &Question, answer: &Result<CountAnswer, ServingError>) -> Held {
    let Some((answer, reach)) = reached(oracle, answer, |answer| &answer.provenance)? else { return Ok(false) };
    let provenance = &answer.provenance;
    let (batch, stream) = oracle.counted(question, &reach);
    let late = batch.iter().chain(&stream).filter(|event| event.late).count() as u64;
    let (batch, stream) = (batch.len() as u64, stream.len() as u64);
    if answer.count != answer.batch + answer.stream || provenance.batch != Some(answer.batch) {
        return Err(format!("R-9: {} is not {} of batch and {} of stream", answer.count, answer.batch, answer.stream));
    }
    let found = (answer.batch, answer.stream, provenance.late.unwrap_or(u64::MAX));
    let right = if is_exact(provenance) {
        found == (batch, stream, late)
    } else {
        found.0 <= batch && found.1 <= stream && found.2 <= late
    };
    if right {
        return Ok(provenance.complete);
    }
    Err(format!(
        "R-2: {question:?}: batch, stream and late events are {found:?}, not {:?}, reaching {reach:?}, {provenance:?}",
        (batch, stream, late)
    ))
}

/// As [`count`], of a top list of all entities.
///
/// # Errors
/// What is wrong.
pub fn top(oracle: &Oracle, question: &Question, answer: &Result<TopAnswer, ServingError>) -> Held {
    let Some((answer, reach)) = reached(oracle, answer, |answer| &answer.provenance)? else { return Ok(false) };
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

/// As [`count`], of a function step by step.
///
/// # Errors
/// What is wrong.
pub fn stats(oracle: &Oracle, question: &Question, answer: &Result<StatsAnswer, ServingError>) -> Held {
    let Some((answer, reach)) = reached(oracle, answer, |answer| &answer.provenance)? else { return Ok(false) };
    if !is_exact(&answer.provenance) {
        return Ok(false);
    }
    let (batch, stream) = oracle.counted(question, &reach);
    let (mut steps, mut total) = (BTreeMap::<i64, Sums>::new(), Sums::default());
    for event in batch.into_iter().chain(stream) {
        steps.entry(step_of(event.minute, answer.step_minutes)).or_default().add(event);
        total.add(event);
    }
    let value = |sums: &Sums| answer_of(sums, answer.function);
    let expected: Vec<(i64, Answer, u64)> =
        steps.iter().map(|(step, sums)| (start_of_minute(*step), value(sums), sums.late)).collect();
    let found: Vec<(i64, Answer, u64)> =
        answer.points.iter().map(|point| (point.start, point.value, point.late)).collect();
    if (&found, answer.total) == (&expected, value(&total)) {
        return Ok(answer.provenance.complete);
    }
    Err(format!(
        "R-2: {question:?}: {} by {} minutes is {found:?}, in all {:?}; not {expected:?}, {total:?}",
        answer.function, answer.step_minutes, answer.total
    ))
}

fn step_of(minute: i64, step: i64) -> i64 {
    minute.div_euclid(step) * step
}

/// What a function makes of naive sums.
fn answer_of(sums: &Sums, function: Function) -> Answer {
    let value = match function {
        Function::Count => return Answer::Count(sums.count),
        Function::Sum => (sums.values > 0).then_some(sums.sum),
        Function::Min => sums.min.map(i128::from),
        Function::Max => sums.max.map(i128::from),
        Function::Avg => sums.average(),
        Function::ApproxDistinct => None,
    };
    value.map_or(Answer::Null, Answer::Decimal)
}

/// A table of counts, in SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Its name.
    pub name: &'static str,
    /// Minutes of a row.
    step: i64,
    /// Whether it has what batch has counted, and what the stream has.
    parts: (bool, bool),
}

/// All of them.
pub const COUNTS: [Counts; 5] = [
    Counts { name: "stats", step: 1, parts: (true, true) },
    Counts { name: "stats_hour", step: 60, parts: (true, true) },
    Counts { name: "stats_day", step: 1_440, parts: (true, true) },
    Counts { name: "stats_batch", step: 1, parts: (true, false) },
    Counts { name: "stats_stream", step: 1, parts: (false, true) },
];

/// A question in SQL: every row of a table that it is about.
#[must_use]
pub fn query(table: Counts, question: &Question) -> String {
    let [from, to] = [question.minutes.start, question.minutes.end].map(|minute| format_time(start_of_minute(minute)));
    let mut text = format!(
        "SELECT entity_id, event_type, minute, country, count, sum, min, max, avg, late FROM {} \
         WHERE minute >= '{from}' AND minute < '{to}'",
        table.name
    );
    let columns =
        [("entity_id", &question.entity), ("event_type", &question.event_type), ("country", &question.country)];
    for (column, value) in columns {
        if let Some(value) = value {
            text += &format!(" AND {column} = '{value}'");
        }
    }
    text
}

type Row = (String, String, i64, Option<String>);

/// As [`count`], of all rows that [`query`] asks for.
///
/// # Errors
/// What is wrong.
pub fn sql(oracle: &Oracle, table: Counts, question: &Question, answer: &Result<SqlAnswer, ServingError>) -> Held {
    let Some((answer, reach)) = reached(oracle, answer, |answer| &answer.provenance)? else { return Ok(false) };
    if !is_exact(&answer.provenance) {
        return Ok(false);
    }
    // A row is in the range if its first minute is.
    let all = Question { minutes: i64::MIN..i64::MAX, ..question.clone() };
    let (batch, stream) = oracle.counted(&all, &reach);
    let parts = [(table.parts.0, batch), (table.parts.1, stream)];
    let mut expected: BTreeMap<Row, Sums> = BTreeMap::new();
    for event in parts.into_iter().filter(|(is_part, _)| *is_part).flat_map(|(_, events)| events) {
        let minute = step_of(event.minute, table.step);
        if question.minutes.contains(&minute) {
            expected.entry(row_of(event, minute)).or_default().add(event);
        }
    }
    let expected: BTreeMap<Row, [Value; 6]> = expected.iter().map(|(row, sums)| (row.clone(), values(sums))).collect();
    let rows = answer.json_rows().map_err(|error| format!("{}: {error}", table.name))?;
    let mut found: BTreeMap<Row, [Value; 6]> = BTreeMap::new();
    for row in rows {
        let (key, values) = read(row).ok_or_else(|| format!("{}: a row cannot be read", table.name))?;
        if found.insert(key.clone(), values).is_some() {
            return Err(format!("R-2: {} has two rows of {key:?}", table.name));
        }
    }
    if found == expected && !answer.truncated {
        return Ok(answer.provenance.complete);
    }
    let wrong = expected.iter().find(|(row, values)| found.get(*row) != Some(*values)).map(|(row, _)| row);
    let wrong = wrong.or_else(|| found.keys().find(|row| !expected.contains_key(*row)));
    let of = |rows: &BTreeMap<Row, [Value; 6]>| wrong.and_then(|row| rows.get(row).cloned());
    Err(format!(
        "R-2: {}: {question:?}: {} rows, not {}; {wrong:?} is {:?}, not {:?}, reaching {reach:?}",
        table.name,
        found.len(),
        expected.len(),
        of(&found),
        of(&expected)
    ))
}

fn row_of(event: &Logged, minute: i64) -> Row {
    (event.key.1.clone(), event.key.2.clone(), start_of_minute(minute), event.country.clone())
}

fn values(sums: &Sums) -> [Value; 6] {
    let of = |function| answer_of(sums, function).to_json();
    let [count, sum, min, max, avg] =
        [Function::Count, Function::Sum, Function::Min, Function::Max, Function::Avg].map(of);
    [count, sum, min, max, avg, sums.late.into()]
}

fn read(row: Vec<Value>) -> Option<(Row, [Value; 6])> {
    let [entity, event_type, minute, country, values @ ..] = <[Value; 10]>::try_from(row).ok()?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let minute = reckon_data::event::time::parse_rfc3339(minute.as_str()?)?;
    Some(((text(&entity)?, text(&event_type)?, minute, text(&country)), values))
}

/// An answer and how far it reaches; none if it was refused for a while, as it may be. It may not be said that the question
/// was wrong, or that something is broken.
fn reached<'a, A>(
    oracle: &Oracle,
    answer: &'a Result<A, ServingError>,
    provenance: fn(&A) -> &Provenance,
) -> Result<Option<(&'a A, Vec<Reach>)>, String> {
    match answer {
        Ok(answer) => Ok(Some((answer, reach(oracle, provenance(answer))?))),
        Err(ServingError::Unavailable { .. } | ServingError::Timeout { .. } | ServingError::Damaged { .. }) => Ok(None),
        Err(ServingError::RolledUp(rolled)) if is_too_fine(rolled) => Ok(None),
        Err(other) => Err(format!("a question was answered with {other:?}")),
    }
}

/// Whether a question was refused for a reason: a step, or an edge of its window, that the rows which are left do not have.
fn is_too_fine(rolled: &RolledUp) -> bool {
    let steps = rolled.kept.steps();
    let is_off = |minute: i64| minute.rem_euclid(steps) != 0;
    steps > 1 && (rolled.step.is_some_and(is_off) || is_off(rolled.minutes.start) || is_off(rolled.minutes.end))
}

/// Whether nothing is missing, or only what the oracle can leave out too: whole partitions of the stream, and
/// offsets of it.
fn is_exact(provenance: &Provenance) -> bool {
    let is_told = |missing: &Missing| match missing.what {
        MissingWhat::Stream => missing.partition.is_some(),
        _ => hole(missing).is_some(),
    };
    provenance.missing.iter().all(is_told)
}

/// The offsets of sealed segments that are missing.
fn hole(missing: &Missing) -> Option<Range<u64>> {
    (missing.what == MissingWhat::StreamCounts && missing.partition.is_some()).then_some(missing.from?..missing.to?)
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
        let holes = provenance.missing.iter().filter(|missing| missing.partition == Some(own.partition));
        reach.push(Reach { coverage, position, holes: holes.filter_map(hole).collect() });
    }
    Ok(reach)
}
