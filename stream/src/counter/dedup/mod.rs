//! Which keys occurred within the last minutes of log time (DESIGN 3.8).
//!
//! ```text
//! key hash   [ 6 bits: sub-table ][ 58 bits: where in it, and what is compared ]
//! entry      [ the 58 bits ][ 0 ][ 1 ][ 4 bits: minute mod 16 ]                 0: free slot
//! ```
//!
//! A key is a duplicate when it last occurred in minute `m - window` or later, `m` being the minute of log
//! time now; every occurrence, counted or not, makes `m` its last. The set is a pure function of the
//! sequence of (minute, hash), so a refill from the log gives the same set (R-4).
//!
//! Four bits of the minute are enough: a sub-table is cleaned, that is, rid of what has expired, before it is
//! used `stale` minutes after its last cleaning. So its entries lie within `window + stale` (at most 16)
//! minutes. Cleaning visits every entry of a sub-table; the sub-tables take turns as events come in, so that
//! no minute begins with a pause in which all of them are cleaned.

mod table;
#[cfg(test)]
mod tests;

use table::{Probe, SubTable};

/// Sub-tables; also what the top bits of a hash choose among. Few, so that a busy one takes megabytes, for
/// which an allocator wastes nothing; enough for one of them to be cleaned or to grow without a pause.
const TABLES: usize = 1 << TABLE_BITS;
const TABLE_BITS: u32 = 6;
/// So many hashes are on their way to memory at once.
const BLOCK: usize = 64;
/// With every batch so many slots may be visited to let go of what has expired, and so many more for each of its
/// events; what is not used adds up. A busy partition so cleans each sub-table about every other minute.
const SWEEP_SLOTS: usize = 4_096;
const SWEEP_SLOTS_PER_EVENT: usize = 8;
/// A sub-table is not used when it was cleaned so many minutes ago, if the window leaves room for that.
const STALE_MAX: i64 = 3;
/// The largest window that four bits of the minute can tell apart.
pub const WINDOW_MAX: u32 = 14;

/// The hashes of the keys that occurred within the window, with the minute of each.
#[derive(Debug)]
pub struct DedupSet {
    tables: Vec<SubTable>,
    window: i64,
    stale: i64,
    /// The latest minute; log time never goes back.
    minute: i64,
    live: usize,
    slots: usize,
    /// The sub-table whose turn it is to be cleaned, and how many slots may be visited for that.
    sweep: usize,
    credit: usize,
    collisions: f64,
}

impl DedupSet {
    /// An empty set with a window of so many whole minutes, at most [`WINDOW_MAX`].
    #[must_use]
    pub fn new(window_minutes: u32) -> Self {
        let window = i64::from(window_minutes.min(WINDOW_MAX));
        Self {
            tables: vec![SubTable::default(); TABLES],
            window,
            stale: STALE_MAX.min(16 - window),
            minute: i64::MIN,
            live: 0,
            slots: 0,
            sweep: 0,
            credit: 0,
            collisions: 0.0,
        }
    }

    /// Records that keys with these hashes occur in `minute`, in this order, and puts into `fresh` for each of
    /// them whether it is no duplicate. Returns how many duplicates there are.
    ///
    /// A `minute` before an earlier one counts as the earlier one.
    pub fn insert_batch(&mut self, hashes: &[u64], minute: i64, fresh: &mut Vec<bool>) -> usize {
        self.minute = self.minute.max(minute);
        self.collisions += hashes.len() as f64 * self.live as f64 / 2_f64.powi(64);
        self.sweep(hashes.len());
        fresh.clear();
        fresh.reserve(hashes.len());
        let mut duplicates = 0;
        for block in hashes.chunks(BLOCK) {
            self.touch(block);
            for &hash in block {
                let duplicate = self.insert(hash);
                duplicates += usize::from(duplicate);
                fresh.push(!duplicate);
            }
        }
        duplicates
    }

    /// Makes the sub-tables of a block ready and reads the slots that will be probed. The reads do not depend on
    /// each other, so the processor waits for all of them at once instead of for one after the other.
    fn touch(&mut self, block: &[u64]) {
        let mut seen = 0;
        for &hash in block {
            let table = table_of(hash);
            if self.minute.saturating_sub(self.tables[table].cleaned()) >= self.stale {
                self.clean(table);
            }
            seen ^= self.tables[table_of(hash)].peek(hash << TABLE_BITS);
        }
        std::hint::black_box(seen);
    }

    /// Whether the key is a duplicate; it has occurred now either way. Its sub-table is clean.
    fn insert(&mut self, hash: u64) -> bool {
        let table = &mut self.tables[table_of(hash)];
        let slots = table.slots();
        let probe = table.insert(hash << TABLE_BITS, self.minute, self.window);
        // A table may grow even if the key turns out to be there.
        self.slots += table.slots() - slots;
        self.live += usize::from(probe == Probe::Added);
        probe == Probe::Found
    }

    /// Cleans a sub-table, and returns how many slots were visited.
    fn clean(&mut self, at: usize) -> usize {
        let table = &mut self.tables[at];
        let before = (table.len(), table.slots());
        let visited = table.clean(self.minute, self.window, self.stale);
        self.live = self.live + table.len() - before.0;
        self.slots = self.slots + table.slots() - before.1;
        visited
    }

    fn sweep(&mut self, events: usize) {
        let more = SWEEP_SLOTS + SWEEP_SLOTS_PER_EVENT * events;
        self.credit = (self.credit + more).min(self.slots + SWEEP_SLOTS);
        for _ in 0..TABLES {
            let table = &self.tables[self.sweep];
            if table.cleaned() < self.minute {
                if table.slots() > self.credit && !table.is_expired(self.minute, self.window, self.stale) {
                    return;
                }
                self.credit -= self.clean(self.sweep);
            }
            self.sweep = (self.sweep + 1) % TABLES;
        }
    }

    /// How many keys the set holds; some of them may have expired.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.live
    }

    /// Whether it holds none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Bytes of memory it takes.
    #[must_use]
    pub const fn memory_bytes(&self) -> usize {
        self.slots * size_of::<u64>() + TABLES * size_of::<SubTable>()
    }

    /// How many events the hashes' collisions are expected to have dropped so far: for every event, the chance
    /// that one of the other keys in the set has its hash.
    #[must_use]
    pub const fn expected_collisions(&self) -> f64 {
        self.collisions
    }
}

const fn table_of(hash: u64) -> usize {
    (hash >> (u64::BITS - TABLE_BITS)) as usize
}
