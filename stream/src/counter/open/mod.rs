//! The counts of a segment that is still being counted: hash tables over the columns of its records.
//!
//! ```text
//! index: hash(entity, type, minute, dimensions) ─▶ row { count, fingerprint, …, next row of the entity }
//! entities: hash(entity id) ─▶ entity { id in one text, its newest row }
//! ```
//!
//! A row that exists costs one lookup. Lookups go in blocks: first the hashes of a block, then all its
//! lookups, which wait for memory together, then the counting.

mod entities;
mod names;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use hashbrown::HashTable;
use reckon_data::columns::{EventColumns, text_at};
use reckon_data::definition::{Definition, Dimension};
use reckon_data::key::entity_hash;
use reckon_data::metric::{Cell, Distinct, ValueState};
use reckon_data::minute::minute_of;
use reckon_data::run::{Run, RunColumns, RunError, Selection, StepSums, ValueColumns};

use entities::Entities;
use names::{Combinations, Types};

/// Rows looked up at once.
const BLOCK: usize = 64;
/// No row.
const NONE: u32 = u32::MAX;

/// What a row of counts is kept for, and what is kept.
#[derive(Debug, Clone)]
struct Row {
    /// Of the whole key.
    hash: u64,
    count: u64,
    fingerprint: u64,
    /// Where the entity's id lies, so that comparing it needs no second lookup.
    text: (u32, u32),
    type_id: u32,
    minute: i32,
    dim_id: u32,
    /// The entity's next row, or [`NONE`].
    next: u32,
}

/// An event on its way to its row.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    event: u32,
    hash: u64,
    entity_hash: u64,
    type_id: u32,
    minute: i32,
    dim_id: u32,
    /// A row with the same hash, if there was one when the block was looked up.
    row: u32,
}

/// The counts of the events added so far.
#[derive(Debug)]
pub struct OpenSegment {
    dimensions: Arc<[Dimension]>,
    has_values: bool,
    has_distinct: bool,
    index: HashTable<u32>,
    rows: Vec<Row>,
    /// Late events, one number a row if there are any, otherwise empty.
    late: Vec<u64>,
    /// None until an event has a value.
    values: Option<ValueColumns>,
    /// One a row if sketches are kept, otherwise empty.
    sketches: Vec<Option<Box<Distinct>>>,
    entities: Entities,
    types: Types,
    dims: Combinations,
    block: Vec<Place>,
    /// About so many rows are to come: what the one before had, fading.
    expected: usize,
}

impl OpenSegment {
    /// Nothing counted yet, by such a definition.
    #[must_use]
    pub fn new(definition: &Definition) -> Self {
        Self {
            dimensions: definition.dimensions.as_slice().into(),
            has_values: definition.has_values(),
            has_distinct: definition.has_distinct(),
            index: HashTable::new(),
            rows: Vec::new(),
            late: Vec::new(),
            values: None,
            sketches: Vec::new(),
            entities: Entities::default(),
            types: Types::default(),
            dims: Combinations::default(),
            block: Vec::with_capacity(BLOCK),
            expected: 0,
        }
    }

    /// An empty one by the same definition, with room for about as many rows: growing step by step would place
    /// every row anew several times.
    #[must_use]
    pub fn next(&self) -> Self {
        let expected = self.rows.len().max(self.expected / 2);
        Self {
            dimensions: Arc::clone(&self.dimensions),
            expected,
            index: HashTable::with_capacity(expected),
            rows: Vec::with_capacity(expected),
            late: Vec::new(),
            values: None,
            sketches: Vec::new(),
            entities: Entities::with_capacity(self.entities.len().min(expected)),
            types: Types::default(),
            dims: Combinations::default(),
            block: Vec::with_capacity(BLOCK),
            ..*self
        }
    }

    /// Rows so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Bytes of the entities' ids.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        self.entities.text_bytes()
    }

    /// About how many bytes of memory it takes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.rows.capacity() * size_of::<Row>()
            + self.index.capacity() * 5
            + self.late.capacity() * 8
            + self.values.as_ref().map_or(0, |values| values.counts.capacity() * 40)
            + self.sketches.iter().map(|s| 8 + s.as_ref().map_or(0, |s| s.memory_bytes())).sum::<usize>()
            + self.entities.memory_bytes()
            + self.types.memory_bytes()
            + self.dims.memory_bytes()
    }

    /// Counts the events that `keep` says yes to; it has an entry for every event, and every event's minute
    /// fits 32 bits. Those of minutes below `late_before` are counted as late, too. Returns how many were counted.
    ///
    /// # Errors
    /// [`RunError::Columns`] when the ids of one segment part do not fit 32 bits, which a caller prevents who
    /// starts anew early enough, see [`OpenSegment::text_bytes`].
    pub fn add(&mut self, events: &EventColumns, keep: &[bool], late_before: i64) -> Result<u64, RunError> {
        let mut block = std::mem::take(&mut self.block);
        let mut counted = 0;
        let mut kept = (0..).zip(keep).filter_map(|(event, keep)| keep.then_some(event));
        loop {
            block.clear();
            for event in kept.by_ref().take(BLOCK) {
                block.push(self.place(events, event));
            }
            if block.is_empty() {
                break;
            }
            self.look_up(&mut block);
            for place in &block {
                let row = self.count(events, place)?;
                if i64::from(place.minute) < late_before {
                    self.late.resize(self.rows.len(), 0);
                    self.late[row as usize] += 1;
                }
            }
            counted += block.len() as u64;
        }
        self.block = block;
        Ok(counted)
    }

    fn place(&mut self, events: &EventColumns, event: u32) -> Place {
        let at = event as usize;
        let type_id = self.types.number(events.event_type.value(at));
        let dim_id = self.dims.number(&self.dimensions, events, at);
        // The caller has checked the range.
        let minute = minute_of(events.event_time.value(at)) as i32;
        let entity_hash = entity_hash(events.entity_id.value(at));
        let hash = mix(entity_hash, type_id, minute, dim_id);
        Place { event, hash, entity_hash, type_id, minute, dim_id, row: NONE }
    }

    fn look_up(&self, block: &mut [Place]) {
        let mut seen = 0;
        for place in block {
            let found = self.index.find(place.hash, |row| self.rows[*row as usize].hash == place.hash);
            if let Some(row) = found {
                place.row = *row;
                seen ^= self.entities.peek(self.rows[*row as usize].text);
            }
        }
        std::hint::black_box(seen);
    }

    /// Counts an event and returns its row.
    fn count(&mut self, events: &EventColumns, place: &Place) -> Result<u32, RunError> {
        let at = place.event as usize;
        let entity = events.entity_id.value(at);
        let row = if place.row != NONE && self.is_row_of(place.row, place, entity) {
            place.row
        } else {
            self.row_of(place, entity)?
        };
        let counts = &mut self.rows[row as usize];
        counts.count += 1;
        counts.fingerprint = counts.fingerprint.wrapping_add(events.key_hash.value(at));
        if self.has_values
            && let Some(value) = events.value_at(at)
        {
            let rows = self.rows.len();
            let values = self.values.get_or_insert_with(|| ValueColumns::none(rows));
            values.merge(row as usize, &ValueState::one(value));
        }
        if self.has_distinct
            && let Some(user) = text_at(&events.user_id, at)
        {
            self.sketches[row as usize].get_or_insert_with(Box::default).insert(user);
        }
        Ok(row)
    }

    fn is_row_of(&self, row: u32, place: &Place, entity: &str) -> bool {
        let row = &self.rows[row as usize];
        row.hash == place.hash
            && row.minute == place.minute
            && row.type_id == place.type_id
            && row.dim_id == place.dim_id
            && self.entities.text(row.text) == entity.as_bytes()
    }

    /// The row of an event, a new one if need be.
    fn row_of(&mut self, place: &Place, entity: &str) -> Result<u32, RunError> {
        if let Some(row) = self.index.find(place.hash, |row| self.is_row_of(*row, place, entity)) {
            return Ok(*row);
        }
        let row = u32::try_from(self.rows.len())
            .ok()
            .filter(|row| *row != NONE)
            .ok_or_else(|| RunError::Columns { reason: "more rows than a segment can have".to_owned() })?;
        let number = self.entities.number(place.entity_hash, entity)?;
        self.rows.push(Row {
            hash: place.hash,
            count: 0,
            fingerprint: 0,
            text: self.entities.place(number),
            type_id: place.type_id,
            minute: place.minute,
            dim_id: place.dim_id,
            next: self.entities.chain(number, row),
        });
        if let Some(values) = &mut self.values {
            values.push(None);
        }
        if self.has_distinct {
            self.sketches.push(None);
        }
        self.index.insert_unique(place.hash, row, |row| self.rows[*row as usize].hash);
        Ok(row)
    }

    /// Adds what `selection` finds to `into`.
    pub fn sum(&self, selection: &Selection<'_>, into: &mut StepSums) {
        let wanted = match selection.event_type {
            Some(name) => match self.types.find(name) {
                Some(number) => Some(number),
                None => return,
            },
            None => None,
        };
        let mut next = self.entities.newest_row(selection.entity_hash, selection.entity);
        while let Some(row) = self.rows.get(next as usize) {
            let at = next as usize;
            next = row.next;
            let minute = i64::from(row.minute);
            if wanted.is_none_or(|wanted| wanted == row.type_id)
                && selection.minutes.contains(&minute)
                && selection.conditions.iter().all(|condition| condition.accepts(self.dims.values(row.dim_id)))
            {
                into.add(selection.step_of(minute), &self.cell(at, row));
            }
        }
    }

    fn cell(&self, at: usize, row: &Row) -> Cell {
        Cell {
            count: row.count,
            fingerprint: row.fingerprint,
            late: self.late.get(at).copied().unwrap_or(0),
            value: self.values.as_ref().and_then(|values| values.get(at)),
            distinct: self.sketches.get(at).and_then(Option::as_deref).cloned(),
        }
    }

    /// The counts as columns: a copy, by entity hash, which spares the run most of the sorting.
    #[must_use]
    pub fn to_columns(&self) -> RunColumns {
        let rows = self.rows.len();
        let order = self.entities.by_hash();
        let mut columns = RunColumns {
            types: self.types.names().to_vec(),
            dims: self.dims.all().to_vec(),
            entity_ids: Vec::with_capacity(rows),
            type_ids: Vec::with_capacity(rows),
            minutes: Vec::with_capacity(rows),
            dim_ids: Vec::with_capacity(rows),
            counts: Vec::with_capacity(rows),
            fingerprints: Vec::with_capacity(rows),
            late: Vec::with_capacity(if self.late.is_empty() { 0 } else { rows }),
            values: self.values.as_ref().map(|_| ValueColumns::none(0)),
            ..self.entities.columns(&order)
        };
        for (place, (_, number)) in (0..).zip(&order) {
            let mut next = self.entities.newest(*number);
            while let Some(row) = self.rows.get(next as usize) {
                columns.entity_ids.push(place);
                columns.type_ids.push(row.type_id);
                columns.minutes.push(row.minute);
                columns.dim_ids.push(row.dim_id);
                columns.counts.push(row.count);
                columns.fingerprints.push(row.fingerprint);
                if !self.late.is_empty() {
                    columns.late.push(self.late.get(next as usize).copied().unwrap_or(0));
                }
                if let (Some(into), Some(values)) = (&mut columns.values, &self.values) {
                    into.push(values.get(next as usize));
                }
                columns.distinct.extend(self.sketches.get(next as usize).cloned());
                next = row.next;
            }
        }
        columns
    }

    /// The counts as a run.
    ///
    /// # Errors
    /// [`RunError::Columns`], if ever the columns do not fit each other.
    pub fn freeze(&self) -> Result<Run, RunError> {
        Run::from_columns(self.to_columns())
    }
}

/// The hash of a row's key.
fn mix(entity_hash: u64, type_id: u32, minute: i32, dim_id: u32) -> u64 {
    let rest = (u64::from(minute.cast_unsigned()) << 32) ^ (u64::from(type_id) << 20) ^ u64::from(dim_id);
    let a = entity_hash ^ rest.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let product = u128::from(a) * u128::from(0xd6e8_feb8_6659_fd93_u64);
    (product as u64) ^ ((product >> 64) as u64)
}
