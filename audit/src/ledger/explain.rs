//! What makes rows of counts differ from their events: the class of each difference, and the events concerned.
//!
//! A fingerprint is the sum of the hashes of what a row counts, so the difference of two fingerprints is the sum of the
//! hashes of what was lost, less that of what is too much. First what is moved is matched, then what is missing is
//! named, then what is too much is looked for among what is missing elsewhere, and among the row's own events.

use hashbrown::{HashMap, HashSet};

use super::compare::{RowDiff, RowEvent, RowKey};
use super::subset::{exchanged, subset, total};
use crate::finding::Class;

/// Rows that are looked at together; the work on what is too much grows with the rows and what is missing.
pub const ROWS_MAX: usize = 2_000;

/// What is known already to be wrong with the raw events, and so is seen again in counts that were made before.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Events that the raw events lack, by their hashes: counts may have them.
    pub gone: HashMap<u64, Whose>,
    /// Raw events that were not there before: counts may lack them.
    pub new: HashMap<u64, Whose>,
}

/// What an event counts for, as far as it is needed to find its row.
#[derive(Debug, Clone)]
pub struct Whose {
    /// The entity.
    pub entity: String,
    /// The event type.
    pub event_type: String,
    /// The minute.
    pub minute: i64,
}

impl Whose {
    fn is_of(&self, diff: &RowDiff) -> bool {
        let key = &diff.key;
        let is_then = diff.granularity.start_of(self.minute) == key.minute;
        is_then && self.entity == key.entity && self.event_type == key.event_type
    }
}

/// Why a row differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// The class.
    pub class: Class,
    /// The row, by its number.
    pub row: usize,
    /// The other row concerned: where something was moved to.
    pub other: Option<usize>,
    /// The events concerned, as far as they can be named.
    pub events: Vec<RowEvent>,
    /// How many there are.
    pub total: u64,
    /// What happened, for people.
    pub note: String,
    /// Whether the fingerprints show that it is just these events, and nothing else.
    pub proven: bool,
}

/// A row that still has to be explained.
#[derive(Debug, Clone, Copy)]
struct Delta {
    row: usize,
    /// Found less expected.
    count: i64,
    /// The same of fingerprints, wrapping.
    fingerprint: u64,
}

struct Explainer<'a> {
    diffs: &'a [RowDiff],
    events: &'a HashMap<RowKey, Vec<RowEvent>>,
    repeats: &'a HashMap<RowKey, Vec<RowEvent>>,
    known: &'a Known,
    /// Events that rows lack, by hash: the cause that says so, and which of its events it is.
    missing: HashMap<u64, Vec<(usize, usize)>>,
    /// Those of them that are found elsewhere.
    elsewhere: HashSet<(usize, usize)>,
    causes: Vec<Cause>,
}

/// Explains differences of one granularity. `events` are the first events of each key that count in the rows, `repeats`
/// others that should not, as far as they are not among those.
#[must_use]
pub fn explain(
    diffs: &[RowDiff],
    events: &HashMap<RowKey, Vec<RowEvent>>,
    repeats: &HashMap<RowKey, Vec<RowEvent>>,
    known: &Known,
) -> Vec<Cause> {
    let mut explainer = Explainer {
        diffs,
        events,
        repeats,
        known,
        missing: HashMap::new(),
        elsewhere: HashSet::new(),
        causes: Vec::new(),
    };
    let deltas = explainer.own_numbers();
    let deltas = explainer.without_known(deltas);
    let deltas = explainer.moved(deltas);
    let deltas = explainer.lacking(deltas);
    let deltas = explainer.too_much(deltas);
    explainer.rest(deltas);
    explainer.causes()
}

impl<'a> Explainer<'a> {
    fn own(&self, row: usize) -> &'a [RowEvent] {
        self.events.get(&self.diffs[row].key).map_or(&[], Vec::as_slice)
    }

    fn has_known(&self, row: usize) -> bool {
        let Known { gone, new } = self.known;
        self.own(row).iter().any(|event| gone.contains_key(&event.hash) || new.contains_key(&event.hash))
    }

    fn hashes(&self, row: usize) -> Vec<u64> {
        self.own(row).iter().map(|event| event.hash).collect()
    }

    fn put(&mut self, class: Class, row: usize, events: Vec<RowEvent>, note: &str) {
        let total = events.len() as u64;
        self.causes.push(Cause { class, row, other: None, events, total, note: note.to_owned(), proven: true });
    }

    /// Rows whose events are right; the others go on.
    fn own_numbers(&mut self) -> Vec<Delta> {
        let mut deltas = Vec::new();
        for (row, diff) in self.diffs.iter().enumerate() {
            let (expected, found) = (diff.expected.unwrap_or_default(), diff.found.unwrap_or_default());
            let count = found.count.wrapping_sub(expected.count);
            let fingerprint = found.fingerprint.wrapping_sub(expected.fingerprint);
            if count == 0 && fingerprint == 0 && expected == found {
                self.put(
                    Class::ExtraRows,
                    row,
                    Vec::new(),
                    &format!("there are {} rows for it, which add up", diff.rows),
                );
            } else if fingerprint == 0 && count != 0 && diff.found.is_some() && diff.expected.is_some() {
                let note = "the fingerprint says that all events are there, but the count is another";
                self.put(Class::WrongValue, row, Vec::new(), note);
            } else if fingerprint == 0 && count == 0 && self.has_known(row) {
                // Its events are known not to be what they were when they were counted.
            } else if fingerprint == 0 && count == 0 {
                let note = format!("its events are right, and not what is kept of them: {expected:?}, {found:?}");
                self.put(Class::WrongValue, row, Vec::new(), &note);
            } else {
                deltas.push(Delta { row, count, fingerprint });
            }
        }
        deltas
    }

    /// Without what only shows again what is known of the raw events.
    fn without_known(&self, deltas: Vec<Delta>) -> Vec<Delta> {
        let of_row = |events: &HashMap<u64, Whose>, delta: &Delta| -> Vec<u64> {
            let diff = &self.diffs[delta.row];
            events.iter().filter(|(_, whose)| whose.is_of(diff)).map(|(hash, _)| *hash).collect()
        };
        let is_known = |delta: &Delta| {
            let (gone, new) = (of_row(&self.known.gone, delta), of_row(&self.known.new, delta));
            match usize::try_from(delta.count.unsigned_abs()) {
                Ok(count) if delta.count > 0 => subset(&gone, count, delta.fingerprint).is_some(),
                Ok(count) if delta.count < 0 => subset(&new, count, delta.fingerprint.wrapping_neg()).is_some(),
                Ok(_) => new.iter().any(|new| gone.contains(&delta.fingerprint.wrapping_add(*new))),
                Err(_) => false,
            }
        };
        if self.known.gone.is_empty() && self.known.new.is_empty() {
            return deltas;
        }
        deltas.into_iter().filter(|delta| !is_known(delta)).collect()
    }

    /// Rows that lack exactly what another one has too much.
    fn moved(&mut self, deltas: Vec<Delta>) -> Vec<Delta> {
        let mut too_much: HashMap<(i64, u64), Vec<usize>> = HashMap::new();
        for delta in deltas.iter().filter(|delta| delta.count >= 0) {
            too_much.entry((delta.count, delta.fingerprint)).or_default().push(delta.row);
        }
        let mut done = HashSet::new();
        for delta in &deltas {
            if delta.count > 0 || done.contains(&delta.row) {
                continue;
            }
            let opposite = (delta.count.wrapping_neg(), delta.fingerprint.wrapping_neg());
            let Some(rows) = too_much.get_mut(&opposite) else { continue };
            let Some(at) = rows.iter().position(|row| *row != delta.row && !done.contains(row)) else { continue };
            let other = rows.swap_remove(at);
            done.extend([delta.row, other]);
            self.move_between(delta, other);
        }
        deltas.into_iter().filter(|delta| !done.contains(&delta.row)).collect()
    }

    fn move_between(&mut self, delta: &Delta, other: usize) {
        let own = self.own(delta.row);
        let count = usize::try_from(delta.count.unsigned_abs()).unwrap_or(usize::MAX);
        let named = match count {
            // Both have as many as they should: what the one should have, the other one has.
            0 => own.to_vec(),
            _ => subset(&self.hashes(delta.row), count, delta.fingerprint.wrapping_neg())
                .map(|found| found.into_iter().map(|at| own[at].clone()).collect())
                .unwrap_or_default(),
        };
        let class = self.class_of_move(delta.row, other);
        let total = if count == 0 { named.len() as u64 } else { count as u64 };
        let note = format!("counted for {}", describe(&self.diffs[other].key));
        let (row, other, events) = (delta.row, Some(other), named);
        self.causes.push(Cause { class, row, other, events, total, note, proven: true });
    }

    fn class_of_move(&self, from: usize, to: usize) -> Class {
        let (from, to) = (&self.diffs[from].key, &self.diffs[to].key);
        let same = from.entity == to.entity && from.event_type == to.event_type && from.dimensions == to.dimensions;
        if same { Class::WrongMinute } else { Class::WrongKey }
    }

    /// Rows that lack events: these are named.
    fn lacking(&mut self, deltas: Vec<Delta>) -> Vec<Delta> {
        let (lacking, others): (Vec<Delta>, Vec<Delta>) = deltas.into_iter().partition(|delta| delta.count < 0);
        for delta in lacking {
            let count = delta.count.unsigned_abs();
            let own = self.own(delta.row);
            let wanted = usize::try_from(count).unwrap_or(usize::MAX);
            let sum = delta.fingerprint.wrapping_neg();
            let named = subset(&self.hashes(delta.row), wanted, sum).or_else(|| newest(own, wanted, sum));
            let proven = named.is_some();
            let (events, note) = match named {
                Some(found) => (found.into_iter().map(|at| own[at].clone()).collect(), ""),
                None => (own.to_vec(), "which of the events named it is, the fingerprints cannot tell"),
            };
            let cause = self.causes.len();
            for (at, event) in events.iter().enumerate() {
                self.missing.entry(event.hash).or_default().push((cause, at));
            }
            let (row, class) = (delta.row, Class::Lost);
            let note = note.to_owned();
            self.causes.push(Cause { class, row, other: None, events, total: count, note, proven });
        }
        others
    }

    /// Rows that have too many: events that others lack, or their own once more.
    fn too_much(&mut self, deltas: Vec<Delta>) -> Vec<Delta> {
        let mut rest = Vec::new();
        for delta in deltas {
            let Ok(count) = usize::try_from(delta.count) else { continue };
            if count == 0 || !(self.found_elsewhere(&delta, count) || self.once_more(&delta, count)) {
                rest.push(delta);
            }
        }
        rest
    }

    fn found_elsewhere(&mut self, delta: &Delta, count: usize) -> bool {
        let pool: Vec<u64> =
            self.missing.iter().filter(|(_, places)| !places.is_empty()).map(|(hash, _)| *hash).collect();
        let Some(found) = subset(&pool, count, delta.fingerprint) else { return false };
        for hash in found.into_iter().map(|at| pool[at]) {
            let Some((cause, at)) = self.missing.get_mut(&hash).and_then(Vec::pop) else { continue };
            let (row, event) = (self.causes[cause].row, self.causes[cause].events[at].clone());
            // It is not lost.
            self.causes[cause].total = self.causes[cause].total.saturating_sub(1);
            self.elsewhere.insert((cause, at));
            let class = self.class_of_move(row, delta.row);
            let note = format!("counted for {}", describe(&self.diffs[delta.row].key));
            let (other, events) = (Some(delta.row), vec![event]);
            self.causes.push(Cause { class, row, other, events, total: 1, note, proven: true });
        }
        true
    }

    fn once_more(&mut self, delta: &Delta, count: usize) -> bool {
        let repeats = self.repeats.get(&self.diffs[delta.row].key).map_or(&[][..], Vec::as_slice);
        let found = doubled(repeats, count, delta.fingerprint);
        let Some(events) = found.or_else(|| doubled(self.own(delta.row), count, delta.fingerprint)) else {
            return false;
        };
        let (row, class) = (delta.row, Class::CountedTwice);
        let (total, note) = (count as u64, String::new());
        self.causes.push(Cause { class, row, other: None, events, total, note, proven: true });
        true
    }

    /// The causes, without what is not lost after all.
    fn causes(mut self) -> Vec<Cause> {
        for (number, cause) in self.causes.iter_mut().enumerate() {
            let mut at = 0;
            cause.events.retain(|_| {
                at += 1;
                !self.elsewhere.contains(&(number, at - 1))
            });
        }
        self.causes.retain(|cause| cause.total > 0 || !matches!(cause.class, Class::Lost));
        self.causes
    }

    /// As many as there should be, and not the same; or more, and nobody knows which.
    fn rest(&mut self, deltas: Vec<Delta>) {
        for delta in deltas {
            let own = self.own(delta.row);
            if delta.count == 0
                && let Some((doubled, lost)) = exchanged(&self.hashes(delta.row), delta.fingerprint)
            {
                self.put(Class::Lost, delta.row, vec![own[lost].clone()], "another one of the same row counts twice");
                let note = "another one of the same row is lost";
                self.put(Class::CountedTwice, delta.row, vec![own[doubled].clone()], note);
                continue;
            }
            let total = delta.count.unsigned_abs().max(1);
            let note = if delta.count == 0 {
                "its fingerprint is not that of its events: something counts in place of something else"
            } else {
                "no event accounts for what it counts: rows were added, or raw events are gone"
            };
            let (row, class, note) = (delta.row, Class::ExtraRows, note.to_owned());
            let events = Vec::new();
            self.causes.push(Cause { class, row, other: None, events, total, note, proven: false });
        }
    }
}

/// The newest events of a row, if their fingerprint is that: what was left out by whoever stopped too early.
fn newest(own: &[RowEvent], count: usize, sum: u64) -> Option<Vec<usize>> {
    let mut order: Vec<usize> = (0..own.len()).collect();
    order.sort_unstable_by_key(|at| own[*at].place);
    let last = order.split_off(own.len().checked_sub(count)?);
    let hashes: Vec<u64> = last.iter().map(|at| own[*at].hash).collect();
    (total(&hashes) == sum).then_some(last)
}

/// Those of some events that have such a fingerprint: so many of them, or one so many times.
fn doubled(events: &[RowEvent], count: usize, fingerprint: u64) -> Option<Vec<RowEvent>> {
    let hashes: Vec<u64> = events.iter().map(|event| event.hash).collect();
    let found = subset(&hashes, count, fingerprint).or_else(|| {
        let one = hashes.iter().position(|hash| hash.wrapping_mul(count as u64) == fingerprint)?;
        Some(vec![one])
    })?;
    Some(found.into_iter().map(|at| events[at].clone()).collect())
}

/// A row in words.
#[must_use]
pub fn describe(key: &RowKey) -> String {
    let time = reckon_data::minute::format_time(reckon_data::minute::start_of_minute(key.minute));
    let dimensions = if key.dimensions.is_empty() { String::new() } else { format!(" ({})", key.dimensions) };
    format!("{} of {}{dimensions} at {time}", key.event_type, key.entity)
}
