//! Exact counts per entity over many runs, and the largest of them.

use std::cmp::Ordering;

use hashbrown::HashTable;

/// Counts per entity.
#[derive(Debug, Default)]
pub struct EntitySums {
    table: HashTable<u32>,
    entries: Vec<Entry>,
    text: String,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    hash: u64,
    start: usize,
    end: usize,
    count: u64,
}

impl EntitySums {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many entities there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds to the count of an entity, `hash` as [`crate::key::entity_hash`] makes it.
    pub fn add(&mut self, hash: u64, entity: &str, count: u64) {
        let (entries, text) = (&mut self.entries, &mut self.text);
        let same = |at: &u32| {
            let entry = &entries[*at as usize];
            entry.hash == hash && text[entry.start..entry.end] == *entity
        };
        if let Some(at) = self.table.find(hash, same) {
            let entry = &mut entries[*at as usize];
            entry.count = entry.count.saturating_add(count);
            return;
        }
        let start = text.len();
        text.push_str(entity);
        entries.push(Entry { hash, start, end: text.len(), count });
        // An entry takes 32 bytes, so that 2^32 of them fit no memory.
        self.table.insert_unique(hash, (entries.len() - 1) as u32, |at| entries[*at as usize].hash);
    }

    /// The count of an entity, `hash` as [`crate::key::entity_hash`] makes it; none when there is none.
    #[must_use]
    pub fn get(&self, hash: u64, entity: &str) -> Option<u64> {
        let same = |at: &u32| {
            let entry = &self.entries[*at as usize];
            entry.hash == hash && self.id(entry) == entity
        };
        self.table.find(hash, same).map(|at| self.entries[*at as usize].count)
    }

    /// All counts together, which may be more than 64 bits hold.
    #[must_use]
    pub fn total(&self) -> u128 {
        self.entries.iter().map(|entry| u128::from(entry.count)).sum()
    }

    /// The `n` entities with the largest counts: count descending, then id ascending.
    #[must_use]
    pub fn top(&self, n: usize) -> Vec<(String, u64)> {
        let mut entries: Vec<&Entry> = self.entries.iter().collect();
        let order = |a: &&Entry, b: &&Entry| match b.count.cmp(&a.count) {
            Ordering::Equal => self.id(a).cmp(self.id(b)),
            unequal => unequal,
        };
        if n == 0 {
            return Vec::new();
        }
        if n < entries.len() {
            entries.select_nth_unstable_by(n - 1, order);
            entries.truncate(n);
        }
        entries.sort_unstable_by(order);
        entries.into_iter().map(|entry| (self.id(entry).to_owned(), entry.count)).collect()
    }

    fn id(&self, entry: &Entry) -> &str {
        &self.text[entry.start..entry.end]
    }
}
