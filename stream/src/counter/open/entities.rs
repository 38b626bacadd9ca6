//! The entities of an open segment: their ids in one text, found by hash, each with the chain of its rows.

use hashbrown::HashTable;
use reckon_data::run::{RunColumns, RunError};

use super::NONE;

#[derive(Debug, Default)]
pub(super) struct Entities {
    index: HashTable<u32>,
    hashes: Vec<u64>,
    /// Where each id ends.
    ends: Vec<u32>,
    text: Vec<u8>,
    newest: Vec<u32>,
}

impl Entities {
    pub(super) fn with_capacity(entities: usize) -> Self {
        Self {
            index: HashTable::with_capacity(entities),
            hashes: Vec::with_capacity(entities),
            ends: Vec::with_capacity(entities),
            text: Vec::new(),
            newest: Vec::with_capacity(entities),
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.hashes.len()
    }

    /// The number of an entity, a new one if need be.
    pub(super) fn number(&mut self, hash: u64, id: &str) -> Result<u32, RunError> {
        if let Some(number) = self.find(hash, id) {
            return Ok(number);
        }
        let end = u32::try_from(self.text.len() + id.len())
            .map_err(|_| RunError::Columns { reason: "more bytes of ids than a segment can have".to_owned() })?;
        // No more entities than rows, and those were counted.
        let number = self.hashes.len() as u32;
        self.text.extend_from_slice(id.as_bytes());
        self.hashes.push(hash);
        self.ends.push(end);
        self.newest.push(NONE);
        self.index.insert_unique(hash, number, |number| self.hashes[*number as usize]);
        Ok(number)
    }

    fn find(&self, hash: u64, id: &str) -> Option<u32> {
        let is_it =
            |number: &u32| self.hashes[*number as usize] == hash && self.text(self.place(*number)) == id.as_bytes();
        self.index.find(hash, is_it).copied()
    }

    /// Where an entity's id lies: start and length.
    pub(super) fn place(&self, number: u32) -> (u32, u32) {
        let at = number as usize;
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        (start, self.ends[at] - start)
    }

    pub(super) fn text(&self, (start, length): (u32, u32)) -> &[u8] {
        let start = start as usize;
        &self.text[start..start + length as usize]
    }

    /// Reads a byte of an id, to have it near.
    pub(super) fn peek(&self, (start, _): (u32, u32)) -> u8 {
        self.text.get(start as usize).copied().unwrap_or(0)
    }

    /// Puts a row at the head of the entity's chain; returns the one that was there.
    pub(super) fn chain(&mut self, number: u32, row: u32) -> u32 {
        std::mem::replace(&mut self.newest[number as usize], row)
    }

    /// The head of an entity's chain, or [`NONE`].
    pub(super) fn newest_row(&self, hash: u64, id: &str) -> u32 {
        self.find(hash, id).map_or(NONE, |number| self.newest[number as usize])
    }

    /// The head of an entity's chain.
    pub(super) fn newest(&self, number: u32) -> u32 {
        self.newest[number as usize]
    }

    /// Hashes and numbers, by hash.
    pub(super) fn by_hash(&self) -> Vec<(u64, u32)> {
        let mut order: Vec<(u64, u32)> = self.hashes.iter().copied().zip(0..).collect();
        order.sort_unstable();
        order
    }

    /// The columns of a run that are about entities, in such an order.
    pub(super) fn columns(&self, order: &[(u64, u32)]) -> RunColumns {
        let mut entity_offsets = Vec::with_capacity(order.len() + 1);
        let mut entity_bytes = Vec::with_capacity(self.text.len());
        entity_offsets.push(0);
        for (_, number) in order {
            entity_bytes.extend_from_slice(self.text(self.place(*number)));
            // As long as `text`, which fits.
            entity_offsets.push(entity_bytes.len() as u32);
        }
        let entity_hashes = order.iter().map(|(hash, _)| *hash).collect();
        RunColumns { entity_offsets, entity_bytes, entity_hashes, ..RunColumns::default() }
    }

    pub(super) fn text_bytes(&self) -> usize {
        self.text.len()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.index.capacity() * 5
            + self.hashes.capacity() * 8
            + (self.ends.capacity() + self.newest.capacity()) * 4
            + self.text.capacity()
    }
}
