//! Event types and combinations of dimensions as numbers. Neighbouring events often share theirs, so the last
//! one is tried first.

use std::sync::Arc;

use hashbrown::HashTable;
use reckon_data::columns::{EventColumns, text_at};
use reckon_data::definition::Dimension;
use reckon_data::run::DimValues;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What stands for "has none" in a hash.
const ABSENT: u64 = 0x9e37_79b9_7f4a_7c15;

#[derive(Debug, Default)]
pub(super) struct Types {
    names: Vec<Arc<str>>,
    index: HashTable<u32>,
    last: u32,
}

impl Types {
    pub(super) fn number(&mut self, name: &str) -> u32 {
        if self.names.get(self.last as usize).is_some_and(|last| last.as_ref() == name) {
            return self.last;
        }
        self.last = match self.find(name) {
            Some(number) => number,
            None => {
                // No more types than rows.
                let number = self.names.len() as u32;
                self.names.push(name.into());
                self.index.insert_unique(hash(name), number, |at| hash(&self.names[*at as usize]));
                number
            }
        };
        self.last
    }

    pub(super) fn find(&self, name: &str) -> Option<u32> {
        self.index.find(hash(name), |at| self.names[*at as usize].as_ref() == name).copied()
    }

    pub(super) fn names(&self) -> &[Arc<str>] {
        &self.names
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.names.len() * 64
    }
}

#[derive(Debug, Default)]
pub(super) struct Combinations {
    all: Vec<DimValues>,
    hashes: Vec<u64>,
    index: HashTable<u32>,
    last: u32,
    text_bytes: usize,
}

impl Combinations {
    /// The number of the combination that an event has.
    pub(super) fn number(&mut self, dimensions: &[Dimension], events: &EventColumns, at: usize) -> u32 {
        if self.is(self.last, dimensions, events, at) {
            return self.last;
        }
        let hash = dimensions
            .iter()
            .fold(0_u64, |sum, dimension| sum.rotate_left(5) ^ value(*dimension, events, at).map_or(ABSENT, hash));
        let found = self.index.find(hash, |number| self.is(*number, dimensions, events, at)).copied();
        self.last = found.unwrap_or_else(|| {
            let values: DimValues = dimensions.iter().map(|d| value(*d, events, at).map(Arc::from)).collect();
            self.text_bytes += values.iter().flatten().map(|text| text.len() + 32).sum::<usize>();
            // No more combinations than rows.
            let number = self.all.len() as u32;
            self.all.push(values);
            self.hashes.push(hash);
            self.index.insert_unique(hash, number, |number| self.hashes[*number as usize]);
            number
        });
        self.last
    }

    fn is(&self, number: u32, dimensions: &[Dimension], events: &EventColumns, at: usize) -> bool {
        self.all.get(number as usize).is_some_and(|values| {
            values.iter().zip(dimensions).all(|(own, dimension)| own.as_deref() == value(*dimension, events, at))
        })
    }

    pub(super) fn values(&self, number: u32) -> &[Option<Arc<str>>] {
        &self.all[number as usize]
    }

    pub(super) fn all(&self) -> &[DimValues] {
        &self.all
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.text_bytes + self.all.capacity() * 64
    }
}

fn value(dimension: Dimension, events: &EventColumns, at: usize) -> Option<&str> {
    let column = match dimension {
        Dimension::Country => &events.country,
        Dimension::UserId => &events.user_id,
        Dimension::Ip => &events.ip,
    };
    text_at(column, at)
}

fn hash(text: &str) -> u64 {
    xxh3_64_with_seed(text.as_bytes(), ABSENT)
}
