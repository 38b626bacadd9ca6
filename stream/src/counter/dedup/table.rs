//! A sub-table: open addressing, linear probing, rebuilt in place.
//!
//! The slot of an entry is its hash bits scaled to the number of slots, so any number of slots will do and
//! the table can grow by an eighth. Probing wraps around at the end. A table is never full, so that every
//! probe ends at a free slot.

/// Marks an entry, so that none is 0.
const OCCUPIED: u64 = 1 << 4;
const TAG_MASK: u64 = 0xf;
/// The bits of an entry that are the hash's.
const HASH_MASK: u64 = !0 << super::TABLE_BITS;
/// Fewest slots of a table that holds anything.
const SLOTS_MIN: usize = 8;
/// Slots of a cache line.
const CACHE_LINE_SLOTS: usize = 8;

/// What became of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probe {
    /// It was there, and is of this minute now.
    Found,
    /// It was not; the table may have got more slots.
    Added { grown: usize },
}

#[derive(Debug, Clone)]
pub(super) struct SubTable {
    slots: Box<[u64]>,
    live: u32,
    /// The minute up to which expired entries are gone; all entries were written in it or before.
    cleaned: i64,
}

impl Default for SubTable {
    fn default() -> Self {
        Self { slots: Box::default(), live: 0, cleaned: i64::MIN }
    }
}

impl SubTable {
    pub(super) const fn cleaned(&self) -> i64 {
        self.cleaned
    }

    pub(super) const fn len(&self) -> usize {
        self.live as usize
    }

    pub(super) const fn slots(&self) -> usize {
        self.slots.len()
    }

    /// What stands where a key's search begins, and a cache line further on, where half of the searches go.
    pub(super) fn peek(&self, hash: u64) -> u64 {
        let at = home(hash, self.slots.len());
        let slot = |at: usize| self.slots.get(at).copied().unwrap_or(0);
        slot(at) ^ slot(at + CACHE_LINE_SLOTS)
    }

    /// Records a key, its hash bits on the left, in `minute`, in which the table must have been cleaned.
    pub(super) fn insert(&mut self, hash: u64, minute: i64) -> Probe {
        let entry = (hash & HASH_MASK) | OCCUPIED | tag(minute);
        let mut grown = 0;
        if self.is_crowded() {
            grown = self.grow();
        }
        let count = self.slots.len();
        let mut at = home(hash, count);
        loop {
            let found = self.slots[at];
            if found == 0 {
                self.slots[at] = entry;
                self.live += 1;
                return Probe::Added { grown };
            }
            if (found ^ entry) & HASH_MASK == 0 {
                self.slots[at] = entry;
                return Probe::Found;
            }
            at = next(at, count);
        }
    }

    /// Drops what expired before `minute`, which is later than the minute of the last cleaning.
    pub(super) fn clean(&mut self, minute: i64, window: i64) {
        // The first minute that has not expired.
        let oldest = minute.saturating_sub(window);
        if self.live > 0 && oldest > self.cleaned {
            self.slots = Box::default();
            self.live = 0;
        } else if self.live > 0 {
            // An entry's minute is `cleaned - age`; it stays if that is `oldest` or later.
            let age_max = self.cleaned.saturating_sub(oldest) as u64;
            self.rebuild(tag(self.cleaned), age_max);
            if self.slots.len() > SLOTS_MIN && self.len() * 5 < self.slots.len() * 2 {
                self.resize(self.len() * 10 / 7 + SLOTS_MIN);
            }
        }
        self.cleaned = minute;
    }

    /// Keeps the entries of at most `age_max` minutes before the minute with tag `now`, in place.
    ///
    /// Begins behind a free slot: no search crosses one, so when a slot's turn comes, everything between
    /// its entry's home and itself has been placed anew already, and the entry finds a place there.
    fn rebuild(&mut self, now: u64, age_max: u64) {
        let count = self.slots.len();
        let Some(free) = self.slots.iter().position(|entry| *entry == 0) else { return };
        let mut at = next(free, count);
        while at != free {
            let entry = self.slots[at];
            if entry != 0 {
                let age = now.wrapping_sub(entry) & TAG_MASK;
                self.slots[at] = 0;
                if age <= age_max {
                    self.place(entry);
                } else {
                    self.live -= 1;
                }
            }
            at = next(at, count);
        }
    }

    fn place(&mut self, entry: u64) {
        let count = self.slots.len();
        let mut at = home(entry, count);
        while self.slots[at] != 0 {
            at = next(at, count);
        }
        self.slots[at] = entry;
    }

    /// Whether a further entry would make the table more than four fifths full.
    const fn is_crowded(&self) -> bool {
        (self.live as usize + 1) * 5 > self.slots.len() * 4
    }

    /// Returns how many slots were added.
    fn grow(&mut self) -> usize {
        let before = self.slots.len();
        // By a quarter while small, by an eighth when memory counts.
        let more = if before < 1_024 { before / 4 } else { before / 8 };
        self.resize(before + more + SLOTS_MIN);
        self.slots.len() - before
    }

    fn resize(&mut self, count: usize) {
        let old = std::mem::replace(&mut self.slots, vec![0; count].into_boxed_slice());
        for entry in old {
            if entry != 0 {
                self.place(entry);
            }
        }
    }
}

const fn tag(minute: i64) -> u64 {
    minute.rem_euclid(16) as u64
}

/// Where the search for a hash begins: its bits as a fraction of the number of slots.
const fn home(hash: u64, slots: usize) -> usize {
    (((hash & HASH_MASK) as u128 * slots as u128) >> 64) as usize
}

const fn next(at: usize, count: usize) -> usize {
    if at + 1 == count { 0 } else { at + 1 }
}
