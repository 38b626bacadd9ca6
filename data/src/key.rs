//! The key: what makes two events the same, and its 64-bit hash.
//!
//! The hash is XXH3-64 (Yann Collet; the frozen v0.8 specification) over the length-prefixed parts of
//! the key. It is stored in log records, count rows (as fingerprints) and tables, so it never changes.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Most bytes a key can have within the limits on its parts, and then some; longer keys go to the heap.
const STACK_BYTES: usize = 512;
/// Seed of the entity hash, apart from the key hash so that neither says anything of the other.
const ENTITY_SEED: u64 = 0x5245_434b_4f4e_0001;

/// What makes two events the same, in every layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key<'a> {
    /// The event's id.
    pub event_id: &'a str,
    /// What is counted.
    pub entity_id: &'a str,
    /// What happened to it.
    pub event_type: &'a str,
    /// UTC date of the event time, days since 1970.
    pub date: i32,
}

impl Key<'_> {
    /// The key's 64-bit hash.
    ///
    /// Every part is preceded by its length, so that no two keys share their bytes.
    #[must_use]
    pub fn hash(&self) -> u64 {
        let length = 4 * 4 + self.event_id.len() + self.entity_id.len() + self.event_type.len();
        if length <= STACK_BYTES {
            let mut buffer = [0_u8; STACK_BYTES];
            let mut at = 0;
            self.for_each_part(|part| {
                buffer[at..at + part.len()].copy_from_slice(part);
                at += part.len();
            });
            xxh3_64(&buffer[..at])
        } else {
            let mut buffer = Vec::with_capacity(length);
            self.for_each_part(|part| buffer.extend_from_slice(part));
            xxh3_64(&buffer)
        }
    }

    fn for_each_part(&self, mut put: impl FnMut(&[u8])) {
        put(&self.date.to_le_bytes());
        for part in [self.event_id, self.entity_id, self.event_type] {
            // Validation keeps every part far below 4 GiB.
            put(&(part.len() as u32).to_le_bytes());
            put(part.as_bytes());
        }
    }
}

/// The hash of an entity id: its partition and its place in an index.
#[must_use]
pub fn entity_hash(entity_id: &str) -> u64 {
    xxh3_64_with_seed(entity_id.as_bytes(), ENTITY_SEED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_into_each_other() {
        let a = Key { event_id: "ab", entity_id: "c", event_type: "view", date: 1 };
        let b = Key { event_id: "a", entity_id: "bc", event_type: "view", date: 1 };
        let c = Key { date: 2, ..a };
        assert_ne!(a.hash(), b.hash());
        assert_ne!(a.hash(), c.hash());
    }

    #[test]
    fn hashes_are_frozen() {
        let key = Key { event_id: "e-1", entity_id: "video-1", event_type: "view", date: 15_744 };
        assert_eq!(key.hash(), FROZEN_KEY);
        assert_eq!(entity_hash("video-1"), FROZEN_ENTITY);
    }

    #[test]
    fn a_long_key_hashes_like_a_short_one() {
        let long = "x".repeat(2_048);
        let key = Key { event_id: "e", entity_id: &long, event_type: "view", date: 0 };
        let mut bytes = Vec::new();
        key.for_each_part(|part| bytes.extend_from_slice(part));
        assert_eq!(key.hash(), xxh3_64(&bytes));
    }

    /// Computed with another implementation of XXH3.
    const FROZEN_KEY: u64 = 0xbd43_4d9c_770b_9c99;
    const FROZEN_ENTITY: u64 = 0x6efa_811c_3f3f_4035;
}
