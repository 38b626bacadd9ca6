//! What the serving layer answers, of a sample of entities and ranges.

use async_trait::async_trait;
use hashbrown::{HashMap, HashSet};
use polars::prelude::DataFrame;
use reckon_data::minute::{
    MICROS_PER_DAY, MICROS_PER_HOUR, MICROS_PER_MINUTE, format_date, format_time, start_of_minute,
};
use reckon_data::run::Granularity;

use super::columns::Columns;
use super::load::Unreadable;
use super::place::Place;
use super::raw::{HASH, MINUTE, PLACE};
use super::scan::is_covered;
use super::weigh::mix;
use crate::error::AuditError;
use crate::finding::{Class, Finding, Repair};
use crate::report::model::ServedTotals;
use xxhash_rust::xxh3::xxh3_64;

/// A question: how often something happened to an entity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The entity.
    pub entity_id: String,
    /// The type.
    pub event_type: String,
    /// From when, microseconds.
    pub from: i64,
    /// Up to when, microseconds, exclusive.
    pub to: i64,
}

/// An answer, with where it comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// How often.
    pub count: u64,
    /// What of it batch has counted.
    pub batch: u64,
    /// Whether it holds all that it should.
    pub complete: bool,
    /// The version of the batch counts.
    pub batch_version: u64,
    /// Up to which offset it goes, of each partition; none where nobody can say.
    pub positions: Vec<Option<u64>>,
}

/// Answers questions.
#[async_trait]
pub trait Answers: std::fmt::Debug + Send + Sync {
    /// The answer to a question.
    ///
    /// # Errors
    /// A sentence.
    async fn count(&self, question: &Question) -> Result<Answer, String>;
}

/// A question, and what is to be answered.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The question.
    pub question: Question,
    /// Distinct events below coverage.
    pub batch: u64,
    /// Places of the first copies of the others.
    pub rest: Vec<Place>,
    /// Repeats above coverage, which the stream may count when they come late.
    pub repeats: u64,
    /// Ids of some of its events.
    pub event_ids: Vec<String>,
}

struct Row {
    hash: u64,
    place: Place,
    minute: i64,
    event_type: String,
    event_id: String,
}

/// Entities of which minutes are asked on a large date: for each, serving reads the minutes of an hour, of all entities.
const MINUTES_OF: usize = 5;

/// Chooses entities of a frame of raw events of a date, and asks of each its whole date, the hour and the minute of
/// one of its events; of a date that `is_large` the minute of some of them only, and nothing finer than `finest`, which are
/// the finest counts that it has.
///
/// # Errors
/// When a column is missing.
pub fn sample(
    raw: &DataFrame,
    date: i32,
    coverage: &[u64],
    entities: usize,
    seed: u64,
    is_large: bool,
    finest: Granularity,
) -> Result<Vec<Sample>, AuditError> {
    if entities == 0 {
        return Ok(Vec::new());
    }
    let failed = |error: Unreadable| AuditError::Stopped(format!("a frame of events: {error:?}"));
    let columns = Columns(raw);
    let names = columns.text("entity_id").map_err(failed)?;
    let mut ranked: Vec<(u64, &str)> = {
        let all: HashSet<&str> = names.iter().flatten().collect();
        all.into_iter().map(|name| (mix(xxh3_64(name.as_bytes()) ^ seed), name)).collect()
    };
    ranked.sort_unstable();
    ranked.truncate(entities);
    let mut chosen: HashMap<&str, Vec<Row>> = ranked.into_iter().map(|(_, name)| (name, Vec::new())).collect();
    let (types, ids) = (columns.text("event_type").map_err(failed)?, columns.text("event_id").map_err(failed)?);
    let (hashes, minutes) = (columns.whole(HASH).map_err(failed)?, columns.whole(MINUTE).map_err(failed)?);
    let places = raw.column(PLACE)?.u64()?;
    for (at, name) in names.iter().enumerate() {
        let Some(rows) = name.and_then(|name| chosen.get_mut(name)) else { continue };
        rows.push(Row {
            hash: hashes.get(at).unwrap_or_default().cast_unsigned(),
            place: Place::from_bits(places.get(at).unwrap_or_default()),
            minute: minutes.get(at).unwrap_or_default(),
            event_type: types.get(at).unwrap_or_default().to_owned(),
            event_id: ids.get(at).unwrap_or_default().to_owned(),
        });
    }
    let mut samples = Vec::new();
    for (number, (entity, mut rows)) in chosen.into_iter().enumerate() {
        rows.sort_by_key(|row| (row.hash, row.place));
        let Some(one) = rows.get(seed as usize % rows.len().max(1)) else { continue };
        let (event_type, at) = (one.event_type.clone(), start_of_minute(one.minute));
        let steps = [MICROS_PER_DAY, MICROS_PER_HOUR, MICROS_PER_MINUTE];
        let asked = if is_large && number >= MINUTES_OF { &steps[..2] } else { &steps[..] };
        let is_kept = |long: &i64| *long >= finest.steps() * MICROS_PER_MINUTE;
        for long in asked.iter().copied().filter(is_kept) {
            let from = at.div_euclid(long) * long;
            let question =
                Question { entity_id: entity.to_owned(), event_type: event_type.clone(), from, to: from + long };
            samples.push(answer_due(question, &rows, coverage));
        }
    }
    samples.sort_by(|a, b| (&a.question.entity_id, a.question.to).cmp(&(&b.question.entity_id, b.question.to)));
    debug_assert!(samples.iter().all(|sample| date == (sample.question.from.div_euclid(MICROS_PER_DAY)) as i32));
    Ok(samples)
}

/// What is to be answered. `rows` are sorted by hash and place.
fn answer_due(question: Question, rows: &[Row], coverage: &[u64]) -> Sample {
    let mut sample = Sample { question, batch: 0, rest: Vec::new(), repeats: 0, event_ids: Vec::new() };
    for copies in rows.chunk_by(|a, b| a.hash == b.hash) {
        // Copies may lie in other minutes than the one that counts.
        let covered = copies.iter().find(|row| is_covered(coverage, row.place));
        let Some(counts) = covered.or(copies.first()) else { continue };
        let question = &sample.question;
        let is_repeat =
            |row: &&Row| row.place != counts.place && !is_covered(coverage, row.place) && is_asked(question, row);
        let repeats = copies.iter().filter(is_repeat).count() as u64;
        let is_asked = is_asked(question, counts);
        sample.repeats += repeats;
        if !is_asked {
            continue;
        }
        if covered.is_some() {
            sample.batch += 1;
        } else {
            sample.rest.push(counts.place);
        }
        if sample.event_ids.len() < crate::finding::EVENT_IDS_MAX {
            sample.event_ids.push(counts.event_id.clone());
        }
    }
    sample
}

fn is_asked(question: &Question, row: &Row) -> bool {
    let at = start_of_minute(row.minute);
    row.event_type == question.event_type && at >= question.from && at < question.to
}

/// What is known of how far the raw events go.
#[derive(Debug, Clone)]
pub struct Reach {
    /// The version of the batch counts that was pinned.
    pub batch_version: u64,
    /// Up to which offset events are archived, of each partition.
    pub archived: Vec<u64>,
}

/// Asks, and compares.
pub async fn check(answers: &dyn Answers, samples: &[Sample], reach: &Reach) -> (ServedTotals, Vec<Finding>) {
    let (mut totals, mut findings) = (ServedTotals::default(), Vec::new());
    for sample in samples {
        totals.asked += 1;
        match answers.count(&sample.question).await {
            Ok(answer) if !answer.complete => totals.incomplete += 1,
            Ok(answer) => match judge(sample, &answer, reach) {
                Judged::Right => totals.equal += 1,
                // A later version, or events that are not archived yet: there is nothing to compare it with.
                Judged::Later => totals.asked -= 1,
                Judged::Wrong(finding) => findings.push(*finding),
            },
            Err(reason) => {
                // A node that has too much to do answers later: that says nothing of its counts.
                tracing::warn!(entity = sample.question.entity_id, reason, "a question of the audit was not answered");
                totals.incomplete += 1;
            }
        }
    }
    (totals, findings)
}

enum Judged {
    Right,
    Later,
    Wrong(Box<Finding>),
}

fn judge(sample: &Sample, answer: &Answer, reach: &Reach) -> Judged {
    if answer.batch_version != reach.batch_version {
        return Judged::Later;
    }
    let wrong = |expected: u64, found: u64, text: &str| {
        let mut finding = of(sample, text.to_owned());
        (finding.expected, finding.found) = (i64::try_from(expected).ok(), i64::try_from(found).ok());
        finding.events = expected.abs_diff(found);
        Judged::Wrong(Box::new(finding))
    };
    if answer.batch != sample.batch {
        return wrong(
            sample.batch,
            answer.batch,
            "the batch part of an answer is not what the raw events below coverage make",
        );
    }
    let position = |partition: u32| answer.positions.get(partition as usize).copied().flatten();
    let archived =
        |(partition, archived): (u32, &u64)| position(partition).is_some_and(|position| position <= *archived);
    if !(0..).zip(&reach.archived).all(archived) {
        return Judged::Later;
    }
    let rest = sample.rest.iter().filter(|place| position(place.partition()).is_some_and(|end| place.offset() < end));
    let least = sample.batch + rest.count() as u64;
    if (least..=least + sample.repeats).contains(&answer.count) {
        return Judged::Right;
    }
    wrong(least, answer.count, "an answer is not what the raw events make")
}

fn of(sample: &Sample, text: String) -> Finding {
    let Question { entity_id, event_type, from, to } = &sample.question;
    let text = format!("{text} ({event_type} from {} to {})", format_time(*from), format_time(*to));
    let mut finding = Finding::new(Class::ServedDiffers, "served", text);
    finding.date = Some(format_date(reckon_data::minute::date_of(*from)));
    finding.minute = Some(format_time(*from));
    finding.entity_id = Some(entity_id.clone());
    finding.event_type = Some(event_type.clone());
    finding.event_ids.clone_from(&sample.event_ids);
    finding.repair = Repair::Recount;
    "where the tables are right, restart the serving node; reckon why shows how the number came about"
        .clone_into(&mut finding.action);
    finding
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two events that batch has counted, and two that it has not, at offsets 7 and 8; and a repeat that may count.
    fn of_four() -> Sample {
        let (entity_id, event_type) = ("v1".to_owned(), "view".to_owned());
        let rest = [7, 8].map(|offset| Place::new(0, offset, 0).unwrap()).to_vec();
        let question = Question { entity_id, event_type, from: 0, to: MICROS_PER_DAY };
        Sample { question, batch: 2, rest, repeats: 1, event_ids: vec!["e1".to_owned()] }
    }

    #[test]
    fn an_answer_is_wrong_when_it_is_one_too_low_or_more_than_the_repeats_too_high() {
        let reach = Reach { batch_version: 5, archived: vec![9] };
        for (count, wrong_by) in [(2, Some(1)), (3, None), (4, None), (5, Some(2))] {
            let answer = Answer { count, batch: 2, complete: true, batch_version: 5, positions: vec![Some(8)] };
            let found = match judge(&of_four(), &answer, &reach) {
                Judged::Right => None,
                Judged::Wrong(found) => Some((found.class, found.entity_id, found.expected, found.found, found.events)),
                Judged::Later => panic!("it can be compared"),
            };
            let wrong =
                |events: u64| (Class::ServedDiffers, Some("v1".to_owned()), Some(3), i64::try_from(count).ok(), events);
            assert_eq!(found, wrong_by.map(wrong));
        }
    }
}
