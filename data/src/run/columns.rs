//! A run from columns that somebody else has filled, the stream counter's hash tables above all.

use std::cmp::Ordering;
use std::sync::Arc;

use super::entities::Entities;
use super::offsets::Offsets;
use super::rows::{Counted, Rows, ValueColumns, pack};
use super::{DimValues, Run, RunError, unite};
use crate::metric::Distinct;

/// Rows and entities in any order. Rows of the same key are added up, entities without rows left out.
#[derive(Debug, Clone, Default)]
pub struct RunColumns {
    /// Where each entity's id starts in `entity_bytes`, and where the last one ends; empty when there are none.
    pub entity_offsets: Vec<u32>,
    /// The ids, UTF-8, one after the other.
    pub entity_bytes: Vec<u8>,
    /// [`crate::key::entity_hash`] of each.
    pub entity_hashes: Vec<u64>,
    /// Event types.
    pub types: Vec<Arc<str>>,
    /// Combinations of dimensions.
    pub dims: Vec<DimValues>,
    /// Of each row: the number of its entity.
    pub entity_ids: Vec<u32>,
    /// The number of its type.
    pub type_ids: Vec<u32>,
    /// Its minute, since 1970.
    pub minutes: Vec<i32>,
    /// The number of its dimensions. May be empty if there is only one combination, or no dimension.
    pub dim_ids: Vec<u32>,
    /// Events counted.
    pub counts: Vec<u64>,
    /// Wrapping sum of their key hashes.
    pub fingerprints: Vec<u64>,
    /// Late events among them, where there are any; otherwise empty.
    pub late: Vec<u64>,
    /// Aggregates of `value`, where there are any.
    pub values: Option<ValueColumns>,
    /// Sketches, where there are any; otherwise empty.
    pub distinct: Vec<Option<Box<Distinct>>>,
}

impl RunColumns {
    fn rows(&self) -> usize {
        self.counts.len()
    }

    fn dim_id(&self, row: u32) -> u32 {
        self.dim_ids.get(row as usize).copied().unwrap_or(0)
    }

    fn counted(&self, row: u32) -> Counted<'_> {
        let row = row as usize;
        Counted {
            count: self.counts[row],
            fingerprint: self.fingerprints[row],
            late: self.late.get(row).copied().unwrap_or(0),
            value: self.values.as_ref().and_then(|values| values.get(row)),
            distinct: self.distinct.get(row).and_then(Option::as_deref),
        }
    }

    /// Holds lengths and numbers to each other, so that nothing below can go out of bounds.
    fn check(&mut self) -> Result<(), RunError> {
        let bad = |reason: &str| Err(RunError::Columns { reason: reason.to_owned() });
        let (rows, entities) = (self.rows(), self.entity_hashes.len());
        let lengths = [self.entity_ids.len(), self.type_ids.len(), self.minutes.len(), self.fingerprints.len()];
        if lengths.iter().any(|length| *length != rows) || u32::try_from(rows).is_err() {
            return bad("the row columns differ in length, or are too long");
        }
        if let Some(values) = &self.values
            && [values.counts.len(), values.sums.len(), values.mins.len(), values.maxs.len()].iter().any(|l| *l != rows)
        {
            return bad("the value columns differ in length from the others");
        }
        if !self.distinct.is_empty() && self.distinct.len() != rows {
            return bad("the sketches differ in number from the rows");
        }
        if !self.late.is_empty() && self.late.len() != rows {
            return bad("the column of late events differs in length from the others");
        }
        if self.dims.is_empty() {
            self.dims.push(Arc::from([]));
        }
        if !(self.dim_ids.len() == rows || (self.dim_ids.is_empty() && self.dims.len() == 1)) {
            return bad("the rows' dimensions are missing");
        }
        let within = |ids: &[u32], limit: usize| ids.iter().all(|id| (*id as usize) < limit);
        if !within(&self.entity_ids, entities)
            || !within(&self.type_ids, self.types.len())
            || !within(&self.dim_ids, self.dims.len())
        {
            return bad("a row names an entity, type or dimensions that are not there");
        }
        if self.entity_offsets.is_empty() && entities == 0 {
            self.entity_offsets.push(0);
        }
        let ends = (self.entity_offsets.first(), self.entity_offsets.last().map(|end| *end as usize));
        if self.entity_offsets.len() != entities + 1 || ends != (Some(&0), Some(self.entity_bytes.len())) {
            return bad("the entities' offsets do not fit their ids");
        }
        if !self.entity_offsets.is_sorted() {
            return bad("the entities' offsets do not ascend");
        }
        Ok(())
    }
}

/// The ids of entities, checked.
struct Ids<'a> {
    text: &'a str,
    offsets: &'a [u32],
}

impl<'a> Ids<'a> {
    fn of(columns: &'a RunColumns) -> Result<Self, RunError> {
        let bad = |reason: &str| RunError::Columns { reason: reason.to_owned() };
        let text = std::str::from_utf8(&columns.entity_bytes).map_err(|_| bad("an entity's id is no UTF-8"))?;
        if columns.entity_offsets.iter().any(|at| !text.is_char_boundary(*at as usize)) {
            return Err(bad("an entity's id is no UTF-8"));
        }
        Ok(Self { text, offsets: &columns.entity_offsets })
    }

    fn get(&self, entity: u32) -> &'a str {
        let entity = entity as usize;
        &self.text[self.offsets[entity] as usize..self.offsets[entity + 1] as usize]
    }
}

/// Entities in the order of the run: (hash, number), and the place of each number. Equal ones share a place.
fn rank(hashes: &[u64], ids: &Ids<'_>) -> (Vec<(u64, u32)>, Vec<u32>) {
    let mut order: Vec<(u64, u32)> = hashes.iter().copied().zip(0..).collect();
    order.sort_unstable_by(|a, b| match a.0.cmp(&b.0) {
        Ordering::Equal => ids.get(a.1).cmp(ids.get(b.1)),
        unequal => unequal,
    });
    let mut ranks = vec![0; order.len()];
    let mut distinct: Vec<(u64, u32)> = Vec::with_capacity(order.len());
    for (hash, entity) in order {
        if distinct.last().is_none_or(|last| last.0 != hash || ids.get(last.1) != ids.get(entity)) {
            distinct.push((hash, entity));
        }
        ranks[entity as usize] = (distinct.len() - 1) as u32;
    }
    (distinct, ranks)
}

/// The rows by the place of their entity (a counting sort), and where each place's rows end.
fn by_entity(entity_ids: &[u32], ranks: &[u32], places: usize) -> (Vec<u32>, Vec<u32>) {
    let mut ends = vec![0_u32; places + 1];
    for entity in entity_ids {
        ends[ranks[*entity as usize] as usize + 1] += 1;
    }
    for place in 0..places {
        ends[place + 1] += ends[place];
    }
    let mut order = vec![0_u32; entity_ids.len()];
    for (row, entity) in (0..).zip(entity_ids) {
        let end = &mut ends[ranks[*entity as usize] as usize];
        order[*end as usize] = row;
        *end += 1;
    }
    ends.pop();
    (order, ends)
}

impl Run {
    /// The run of such columns.
    ///
    /// # Errors
    /// [`RunError::Columns`] when they do not fit each other.
    pub fn from_columns(mut columns: RunColumns) -> Result<Self, RunError> {
        columns.check()?;
        let columns = columns;
        let ids = Ids::of(&columns)?;
        let (types, type_map) = dictionary(&columns.types, &columns.type_ids, false);
        let (dims, dim_map) =
            dictionary(&columns.dims, &columns.dim_ids, columns.dim_ids.is_empty() && columns.rows() > 0);
        let (places, ranks) = rank(&columns.entity_hashes, &ids);
        let (order, ends) = by_entity(&columns.entity_ids, &ranks, places.len());

        let has_dims = dims.len() > 1;
        let mut entities = Entities::with_capacity(places.len(), columns.entity_bytes.len());
        let mut row_ends = Offsets::with_capacity(places.len());
        let mut rows = Rows::with_capacity(columns.rows(), has_dims);
        let mut keyed: Vec<(u128, u32)> = Vec::new();
        let mut start = 0;
        for ((hash, entity), end) in places.into_iter().zip(ends) {
            let own = &order[start as usize..end as usize];
            start = end;
            if own.is_empty() {
                continue;
            }
            keyed.clear();
            keyed.extend(own.iter().map(|row| {
                let type_id = type_map[columns.type_ids[*row as usize] as usize];
                let dim_id = dim_map[columns.dim_id(*row) as usize];
                (pack(type_id, columns.minutes[*row as usize], dim_id), *row)
            }));
            keyed.sort_unstable_by_key(|(key, _)| *key);
            let mut last = None;
            for (key, row) in &keyed {
                if last.replace(*key) == Some(*key) {
                    rows.merge_last(columns.counted(*row));
                } else {
                    rows.push(*key, has_dims, columns.counted(*row));
                }
            }
            entities.push(hash, ids.get(entity));
            row_ends.push(rows.len());
        }
        rows.shrink();
        row_ends.shrink();
        Ok(Self::assemble(entities, row_ends, types, dims, rows))
    }
}

/// The entries that rows name, sorted, and the new numbers of the old ones. `all` is for a column left out
/// because it has one entry only.
fn dictionary<T: Ord + Clone>(entries: &[T], ids: &[u32], all: bool) -> (Vec<T>, Vec<u32>) {
    let mut used = vec![all; entries.len()];
    for id in ids {
        used[*id as usize] = true;
    }
    let (united, mut maps) = unite(&[entries], |_, at| used[at]);
    (united, maps.pop().unwrap_or_default())
}
