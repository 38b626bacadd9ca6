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
    /// It was there, but too long ago, and is of this minute now.
    Expired,
    /// It was not.
    Added,
}

#[derive(Debug, Clone)]
pub(super) struct SubTable {
    slots: Box<[u64]>,
    live: u32,
    /// The minute in which it was cleaned.
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

    /// Records a key, its hash bits on the left, in `minute`. All entries must lie within the 16 minutes up to
    /// that; those of more than `window` minutes before it have expired.
    pub(super) fn insert(&mut self, hash: u64, minute: i64, window: i64) -> Probe {
        let entry = (hash & HASH_MASK) | OCCUPIED | tag(minute);
        if self.is_crowded() {
            self.grow();
        }
        let count = self.slots.len();
        let mut at = home(hash, count);
        loop {
            let found = self.slots[at];
            if found == 0 {
                self.slots[at] = entry;
                self.live += 1;
                return Probe::Added;
            }
            if (found ^ entry) & HASH_MASK == 0 {
                self.slots[at] = entry;
                return if age(found, entry) <= window as u64 { Probe::Found } else { Probe::Expired };
            }
            at = next(at, count);
        }
    }

    /// Whether nothing of it would stay if it were cleaned now.
    pub(super) fn is_expired(&self, minute: i64, window: i64, stale: i64) -> bool {
        self.live == 0 || minute.saturating_sub(window) > self.newest(minute, stale)
    }

    /// The last minute that anything can have been written in.
    fn newest(&self, minute: i64, stale: i64) -> i64 {
        self.cleaned.saturating_add(stale - 1).min(minute)
    }

    /// Drops what expired before `minute`, which is later than the minute of the last cleaning; all entries were
    /// written less than `stale` minutes after that.
    pub(super) fn clean(&mut self, minute: i64, window: i64, stale: i64) {
        let (oldest, newest) = (minute.saturating_sub(window), self.newest(minute, stale));
        let is_expired = self.is_expired(minute, window, stale);
        self.cleaned = minute;
        if is_expired {
            self.slots = Box::default();
            self.live = 0;
            return;
        }
        self.rebuild(tag(newest), newest.saturating_sub(oldest) as u64);
        if self.slots.len() > SLOTS_MIN && self.len() * 5 < self.slots.len() * 2 {
            self.resize(self.len() * 10 / 7 + SLOTS_MIN);
        }
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
                self.slots[at] = 0;
                if age(entry, now) <= age_max {
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

    fn grow(&mut self) {
        let before = self.slots.len();
        // By a quarter while small, by a sixteenth when memory counts.
        let more = if before < 1_024 { before / 4 } else { before / 16 };
        self.resize(before + more + SLOTS_MIN);
    }

    #[allow(clippy::slow_vector_initialization, reason = "see below")]
    fn resize(&mut self, count: usize) {
        // Written, not taken as zeros from the system: a slot is read before it is written, and then each page would
        // come in twice, the second time at the cost of all processors.
        let mut slots = Vec::with_capacity(count);
        slots.resize(count, 0);
        let old = std::mem::replace(&mut self.slots, slots.into_boxed_slice());
        for entry in old {
            if entry != 0 {
                self.place(entry);
            }
        }
    }
}

/// How many minutes an entry is older than one of the minute with this tag.
const fn age(entry: u64, now: u64) -> u64 {
    now.wrapping_sub(entry) & TAG_MASK
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
