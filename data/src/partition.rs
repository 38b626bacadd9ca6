//! Which partition of the log an event goes to.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

use crate::key::entity_hash;

/// Seed of the hash that spreads a hot entity's events.
const SALT_SEED: u64 = 0x5245_434b_4f4e_0002;

/// Routes events: by the hash of `entity_id`, so that all copies of an event and all events of an
/// entity meet; a configured hot entity also by `event_id`, over as many places as its salt says, so
/// that copies of one event still meet.
#[derive(Debug, Clone)]
pub struct Router {
    partitions: u32,
    salts: BTreeMap<String, u32>,
    version: u16,
}

impl Router {
    /// A router over `partitions` (at least 1) with the hot entities and their salts.
    #[must_use]
    pub fn new(partitions: u32, salts: BTreeMap<String, u32>) -> Self {
        let mut hash = Xxh3::new();
        hash.update(b"xxh3/1");
        hash.update(&partitions.to_le_bytes());
        for (entity, salt) in &salts {
            hash.update(&(entity.len() as u64).to_le_bytes());
            hash.update(entity.as_bytes());
            hash.update(&salt.to_le_bytes());
        }
        Self { partitions: partitions.max(1), salts, version: (hash.digest() >> 48) as u16 }
    }

    /// Stands in each record: records of one version were routed alike.
    #[must_use]
    pub const fn version(&self) -> u16 {
        self.version
    }

    /// How many partitions there are.
    #[must_use]
    pub const fn partitions(&self) -> u32 {
        self.partitions
    }

    /// The partition of an event.
    #[must_use]
    pub fn partition(&self, entity_id: &str, event_id: &str) -> u32 {
        let hash = entity_hash(entity_id);
        if self.salts.is_empty() {
            return self.place(hash);
        }
        match self.salts.get(entity_id) {
            None | Some(0 | 1) => self.place(hash),
            Some(&salt) => {
                let salted = xxh3_64_with_seed(event_id.as_bytes(), SALT_SEED) % u64::from(salt);
                // In 64 bits, which no salt can fill.
                ((u64::from(self.place(hash)) + salted) % u64::from(self.partitions)) as u32
            }
        }
    }

    fn place(&self, hash: u64) -> u32 {
        // The low bits: the index of a run goes by the high ones.
        (hash % u64::from(self.partitions)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entity_stays_together_unless_it_is_hot() {
        let router = Router::new(4, BTreeMap::from([("hot".to_owned(), 4)]));
        let places = |entity: &str| {
            (0..64).map(|id| router.partition(entity, &id.to_string())).collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(places("cold").len(), 1);
        assert_eq!(places("hot").len(), 4);
        assert_eq!(router.partition("hot", "7"), router.partition("hot", "7"));
    }

    #[test]
    fn no_salt_leads_astray() {
        let router = Router::new(7, BTreeMap::from([("hot".to_owned(), u32::MAX)]));
        assert!((0..1_000).all(|id| router.partition("hot", &id.to_string()) < 7));
    }

    #[test]
    fn the_version_follows_what_routing_depends_on() {
        let plain = Router::new(4, BTreeMap::new());
        assert_ne!(plain.version(), Router::new(8, BTreeMap::new()).version());
        assert_ne!(plain.version(), Router::new(4, BTreeMap::from([("hot".to_owned(), 2)])).version());
        assert_eq!(plain.version(), Router::new(4, BTreeMap::new()).version());
    }

    #[test]
    fn entities_spread() {
        let router = Router::new(4, BTreeMap::new());
        let mut seen = [0; 4];
        for entity in 0..4_000 {
            seen[router.partition(&format!("video-{entity}"), "") as usize] += 1;
        }
        assert!(seen.iter().all(|&n| n > 800), "{seen:?}");
    }
}
