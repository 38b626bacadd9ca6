//! A run from rows in any order.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::columns::RunColumns;
use super::rows::{Counted, ValueColumns, push_late};
use super::{DimValues, Run, RunError};
use crate::metric::Cell;

/// So many rows are folded into a run of their own, which keeps repeats of a key from filling memory.
const PIECE_ROWS: usize = 4 << 20;
/// Likewise for so many bytes of ids, which keeps their offsets within 32 bits.
const PIECE_ID_BYTES: usize = 1 << 30;
/// So many pieces are folded into one.
const PIECES: usize = 16;

/// Collects rows, equal keys added up.
#[derive(Debug, Default)]
pub struct RunBuilder {
    columns: RunColumns,
    entities: HashTable<u32>,
    types: HashTable<u32>,
    dims: HashTable<u32>,
    hasher: DefaultHashBuilder,
    pieces: Vec<Arc<Run>>,
}

impl RunBuilder {
    /// A builder without rows.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a row: `minute` since 1970, `entity_hash` as [`crate::key::entity_hash`] makes it, a value for
    /// every configured dimension.
    ///
    /// # Errors
    /// [`RunError::Minute`], and [`RunError::Columns`] when an id does not fit memory.
    pub fn add(
        &mut self,
        entity_hash: u64,
        entity: &str,
        event_type: &str,
        minute: i64,
        dims: &[Option<&str>],
        cell: &Cell,
    ) -> Result<(), RunError> {
        self.make_room()?;
        let minute = minute_column(minute)?;
        let entity = self.entity_id(entity_hash, entity)?;
        let (type_id, dim_id) = (self.type_id(event_type), self.dim_id(dims));
        let counted = Counted {
            count: cell.count,
            fingerprint: cell.fingerprint,
            late: cell.late,
            value: cell.value,
            distinct: cell.distinct.as_ref(),
        };
        self.push(entity, type_id, minute, dim_id, counted);
        Ok(())
    }

    /// Rows added and not yet folded, and rows folded: a bound on those of the run to come.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.columns.counts.len() + self.pieces.iter().map(|piece| piece.rows()).sum::<usize>()
    }

    /// The run of all rows.
    ///
    /// # Errors
    /// None that `add` let through.
    pub fn finish(mut self) -> Result<Run, RunError> {
        let last = Run::from_columns(self.columns)?;
        if self.pieces.is_empty() {
            return Ok(last);
        }
        self.pieces.push(Arc::new(last));
        Ok(Run::merge(&self.pieces))
    }

    /// Folds what there is when it has grown large. Numbers given out before are void afterwards.
    pub(super) fn make_room(&mut self) -> Result<(), RunError> {
        if self.columns.counts.len() >= PIECE_ROWS || self.columns.entity_bytes.len() >= PIECE_ID_BYTES {
            self.fold()?;
        }
        Ok(())
    }

    pub(super) fn fold(&mut self) -> Result<(), RunError> {
        let columns = std::mem::take(&mut self.columns);
        self.entities.clear();
        self.types.clear();
        self.dims.clear();
        self.pieces.push(Arc::new(Run::from_columns(columns)?));
        if self.pieces.len() >= PIECES {
            let whole = Run::merge(&self.pieces);
            self.pieces = vec![Arc::new(whole)];
        }
        Ok(())
    }

    pub(super) fn entity_id(&mut self, hash: u64, id: &str) -> Result<u32, RunError> {
        let columns = &mut self.columns;
        let found = self.entities.find(hash, |at| {
            let at = *at as usize;
            columns.entity_hashes[at] == hash
                && columns.entity_bytes[columns.entity_offsets[at] as usize..columns.entity_offsets[at + 1] as usize]
                    == *id.as_bytes()
        });
        if let Some(found) = found {
            return Ok(*found);
        }
        let end = u32::try_from(columns.entity_bytes.len() + id.len())
            .map_err(|_| RunError::Columns { reason: format!("an entity's id of {} bytes", id.len()) })?;
        if columns.entity_offsets.is_empty() {
            columns.entity_offsets.push(0);
        }
        // As many entities as bytes of ids at most, and one more for the empty id.
        let entity = columns.entity_hashes.len() as u32;
        columns.entity_hashes.push(hash);
        columns.entity_bytes.extend_from_slice(id.as_bytes());
        columns.entity_offsets.push(end);
        self.entities.insert_unique(hash, entity, |at| columns.entity_hashes[*at as usize]);
        Ok(entity)
    }

    pub(super) fn type_id(&mut self, name: &str) -> u32 {
        let (types, hasher) = (&mut self.columns.types, &self.hasher);
        let hash = hasher.hash_one(name);
        if let Some(found) = self.types.find(hash, |at| types[*at as usize].as_ref() == name) {
            return *found;
        }
        let id = types.len() as u32;
        types.push(name.into());
        self.types.insert_unique(hash, id, |at| hasher.hash_one(types[*at as usize].as_ref()));
        id
    }

    pub(super) fn dim_id(&mut self, values: &[Option<&str>]) -> u32 {
        let (dims, hasher) = (&mut self.columns.dims, &self.hasher);
        let hash = hasher.hash_one(values);
        let same = |at: &u32| dims[*at as usize].iter().map(Option::as_deref).eq(values.iter().copied());
        if let Some(found) = self.dims.find(hash, same) {
            return *found;
        }
        let id = dims.len() as u32;
        dims.push(values.iter().map(|value| value.map(Arc::from)).collect::<DimValues>());
        let rehash = |at: &u32| {
            let values: Vec<Option<&str>> = dims[*at as usize].iter().map(Option::as_deref).collect();
            hasher.hash_one(values.as_slice())
        };
        self.dims.insert_unique(hash, id, rehash);
        id
    }

    pub(super) fn push(&mut self, entity: u32, type_id: u32, minute: i32, dim_id: u32, counted: Counted<'_>) {
        let columns = &mut self.columns;
        let before = columns.counts.len();
        columns.entity_ids.push(entity);
        columns.type_ids.push(type_id);
        columns.minutes.push(minute);
        columns.dim_ids.push(dim_id);
        columns.counts.push(counted.count);
        columns.fingerprints.push(counted.fingerprint);
        push_late(&mut columns.late, before, counted.late);
        if counted.value.is_some() || columns.values.is_some() {
            columns.values.get_or_insert_with(|| ValueColumns::none(before)).push(counted.value);
        }
        if counted.distinct.is_some() || !columns.distinct.is_empty() {
            columns.distinct.resize(before, None);
            columns.distinct.push(counted.distinct.cloned().map(Box::new));
        }
    }
}

/// A minute as a run stores it.
pub(super) fn minute_column(minute: i64) -> Result<i32, RunError> {
    i32::try_from(minute).map_err(|_| RunError::Minute { minute })
}
