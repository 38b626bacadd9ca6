//! The entities of a run, found by hash.
//!
//! A table over the leading bits of the hashes (less the smallest, because the entities of one
//! partition may all lie close together) leaves about eight entities to look at: a lookup costs a
//! cache line of the table, one or two of hashes, and the id itself.

use std::ops::Range;

use super::offsets::Offsets;

/// Entities to a slot of the prefix table, about.
const ENTITIES_PER_SLOT: usize = 8;
/// Up to so many hashes are compared one by one.
const COMPARED_MAX: usize = 32;
/// Below so many entities a table is not worth it.
const PREFIX_FROM: usize = 32;

/// Entities, ascending by (hash, id).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Entities {
    hashes: Vec<u64>,
    id_ends: Offsets,
    text: String,
    /// A bit for each class of hashes that occurs.
    classes: u16,
    prefix: Prefix,
}

/// Classes of hashes.
pub(super) const CLASSES: usize = 16;

/// The class of a hash, below [`CLASSES`]: its low bits, by which entities are spread over partitions.
pub(super) const fn class_of(hash: u64) -> usize {
    (hash % CLASSES as u64) as usize
}

/// For slot s, `starts[s]..starts[s + 1]` are the entities whose hash is `base + (s << shift)` or a little more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Prefix {
    base: u64,
    shift: u32,
    starts: Vec<u32>,
}

impl Entities {
    pub(super) fn with_capacity(entities: usize, text_bytes: usize) -> Self {
        Self {
            hashes: Vec::with_capacity(entities),
            id_ends: Offsets::with_capacity(entities),
            text: String::with_capacity(text_bytes),
            classes: 0,
            prefix: Prefix::default(),
        }
    }

    /// Adds an entity, which must come after all others.
    pub(super) fn push(&mut self, hash: u64, id: &str) {
        debug_assert!(self.len().checked_sub(1).is_none_or(|last| (self.hash(last), self.id(last)) < (hash, id)));
        self.hashes.push(hash);
        self.classes |= 1 << class_of(hash);
        self.text.push_str(id);
        self.id_ends.push(self.text.len());
    }

    /// Call after the last `push`.
    pub(super) fn seal(&mut self) {
        self.hashes.shrink_to_fit();
        self.id_ends.shrink();
        self.text.shrink_to_fit();
        self.prefix = Prefix::of(&self.hashes);
    }

    pub(super) fn len(&self) -> usize {
        self.hashes.len()
    }

    pub(super) fn text_bytes(&self) -> usize {
        self.text.len()
    }

    pub(super) fn hash(&self, at: usize) -> u64 {
        self.hashes[at]
    }

    /// A bit for each class of hashes ([`class_of`]) that occurs.
    pub(super) const fn classes(&self) -> u16 {
        self.classes
    }

    pub(super) fn id(&self, at: usize) -> &str {
        // Ends lie on the borders of the ids that were pushed.
        &self.text[self.id_ends.range(at)]
    }

    pub(super) fn find(&self, hash: u64, id: &str) -> Option<usize> {
        let slot = self.prefix.slot(hash, self.len());
        let own = &self.hashes[slot.clone()];
        // Of few, all are compared: what comes out is nothing that a processor could foresee, and it would wait.
        let before = if own.len() <= COMPARED_MAX {
            own.iter().filter(|own| **own < hash).count()
        } else {
            own.partition_point(|own| *own < hash)
        };
        let first = slot.start + before;
        (first..slot.end).take_while(|at| self.hashes[*at] == hash).find(|at| self.id(*at) == id)
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.hashes.capacity() * size_of::<u64>()
            + self.id_ends.memory_bytes()
            + self.text.capacity()
            + self.prefix.starts.capacity() * size_of::<u32>()
    }
}

impl Prefix {
    fn of(hashes: &[u64]) -> Self {
        let (Some(first), Some(last)) = (hashes.first(), hashes.last()) else { return Self::default() };
        if hashes.len() < PREFIX_FROM || u32::try_from(hashes.len()).is_err() {
            return Self::default();
        }
        let slots = (hashes.len() / ENTITIES_PER_SLOT).next_power_of_two();
        let shift = (u64::BITS - (last - first).leading_zeros()).saturating_sub(slots.trailing_zeros());
        let slots = ((last - first) >> shift) as usize + 1;
        let mut starts = Vec::with_capacity(slots + 1);
        for (at, hash) in hashes.iter().enumerate() {
            let slot = ((hash - first) >> shift) as usize;
            while starts.len() <= slot {
                starts.push(at as u32);
            }
        }
        starts.push(hashes.len() as u32);
        Self { base: *first, shift, starts }
    }

    fn slot(&self, hash: u64, entities: usize) -> Range<usize> {
        if self.starts.is_empty() {
            return 0..entities;
        }
        let slot = hash.checked_sub(self.base).map_or(usize::MAX - 1, |above| (above >> self.shift) as usize);
        match (self.starts.get(slot), self.starts.get(slot + 1)) {
            (Some(start), Some(end)) => *start as usize..*end as usize,
            _ => 0..0,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_entity_is_found_and_no_other(
            ids in prop::collection::btree_map((any::<u64>(), 0..60_u32), Just(()), 0..300),
            bits in 0..64_u32,
        ) {
            // Few bits make collisions, many hashes close together make crowded slots.
            let all: std::collections::BTreeSet<(u64, String)> =
                ids.keys().map(|(hash, shift)| (7 + (hash >> (*shift).max(bits)), format!("e{hash}"))).collect();
            let mut entities = Entities::default();
            all.iter().for_each(|(hash, id)| entities.push(*hash, id));
            entities.seal();
            for (at, (hash, id)) in all.iter().enumerate() {
                prop_assert_eq!(entities.find(*hash, id), Some(at));
                prop_assert_eq!(entities.find(*hash, "other"), None);
                prop_assert_eq!(entities.find(hash ^ (1 << 63), "other"), None);
            }
            prop_assert_eq!(entities.find(0, "other"), None);
            prop_assert_eq!(entities.find(u64::MAX, "other"), None);
        }
    }
}
